//! Puts the sources of a configuration over one another and says what is wrong with each.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::nearest::nearest;
use super::settings::{Config, SETTINGS, Setting};
use super::value::Raw;
use super::{Problem, Problems};

/// What a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by `--config`; `None` looks at `BEAST_CONFIG`.
    pub file: Option<PathBuf>,
    /// The environment; names that do not begin as ours are left alone.
    pub env: BTreeMap<String, String>,
    /// Flags, the last of a key counts.
    pub flags: Vec<FlagValue>,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// As it was typed, for messages: `--udp-port`, or `--set udp_port`.
    pub flag: String,
    /// The setting's key.
    pub key: String,
    /// The value as text.
    pub text: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Env(String),
    /// The command line.
    Flag(String),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    origins: HashMap<String, Origin>,
}

/// Names in the environment that begin as ours but are not settings: where the file is, and where
/// the tests find their recordings.
const NOT_SETTINGS: &[&str] = &["BEAST_CONFIG", "BEAST_RECORDINGS"];

/// Tables of a file, for suggestions.
const TABLES: &[&str] = &["rest", "http", "journal", "feeds", "assets"];

/// Members of an exchange's row that the environment can reach; the longer of two comes first.
const FEED_MEMBERS: &[&str] = &["enabled", "rest_base", "rest.url", "url", "dead_after_s"];

/// The process's environment; what is not UTF-8 is shown with replacement characters. A credential of
/// the service manager that is named like a variable of ours (`LoadCredential=BEAST_…`) counts as that
/// variable: what is secret need not stand in the environment, where others of the process's user see it.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    let mut variables: BTreeMap<_, _> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    if let Some(folder) = variables.get("CREDENTIALS_DIRECTORY").map(PathBuf::from) {
        variables.extend(credentials(&folder));
    }
    variables
}

/// The credentials of a folder that are variables of ours. What cannot be read is left out: the setting
/// that misses it says what it needs.
fn credentials(folder: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("BEAST_"))
        .filter_map(|name| {
            let text = fs::read_to_string(folder.join(&name)).ok()?;
            Some((name, text.trim_end_matches(['\r', '\n']).to_owned()))
        })
        .collect()
}

impl Effective {
    /// Reads the sources, each over the one before it: defaults, file, environment, flags.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut loader = Loader::default();
        let from_env = sources.env.get("BEAST_CONFIG").map(PathBuf::from);
        if let Some(path) = sources.file.clone().or(from_env) {
            loader.file(&path);
        }
        for (name, text) in &sources.env {
            loader.variable(name, text);
        }
        for flag in &sources.flags {
            loader.flag(flag);
        }
        loader.finish()
    }

    /// As [`load`](Self::load) of one file with this text and nothing else.
    pub(super) fn of_text(path: &Path, text: &str) -> Result<Self, Problems> {
        let mut loader = Loader::default();
        loader.text(path, text);
        loader.finish()
    }

    /// Where the value of a key came from: a setting's key, or `feeds.NAME.MEMBER`.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

struct Loader {
    effective: Effective,
    problems: Vec<Problem>,
}

impl Default for Loader {
    fn default() -> Self {
        let effective = Effective { config: Config::default(), origins: HashMap::new() };
        Self { effective, problems: Vec::new() }
    }
}

impl Loader {
    fn finish(mut self) -> Result<Effective, Problems> {
        self.check_ports();
        let Self { effective, problems } = self;
        if problems.is_empty() { Ok(effective) } else { Err(Problems(problems)) }
    }

    fn problem(&mut self, what: String, cure: String) {
        self.problems.push(Problem { what, cure });
    }

    fn file(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem(
                    format!("the configuration file {} cannot be read: {error}", path.display()),
                    "correct --config or BEAST_CONFIG, or leave it out; `beast config print --default` \
                     writes a file to begin with"
                        .to_owned(),
                );
            }
        };
        self.text(path, &text);
    }

    /// What the file at `path` holds.
    fn text(&mut self, path: &Path, text: &str) {
        let broken = |error: &toml::de::Error| Problem {
            what: format!(
                "{}:{} is not TOML: {}",
                path.display(),
                line_of(text, error.span().map_or(0, |span| span.start)),
                error.message().lines().collect::<Vec<_>>().join(", ")
            ),
            cure: "correct that line; strings need quotes, tables stand in [brackets]".to_owned(),
        };
        // Once for the places, once for the values.
        match (DeTable::parse(text), text.parse::<Table>()) {
            (Ok(places), Ok(values)) => {
                self.table(&InFile { path, text }, "", places.get_ref(), &values);
            }
            (Err(error), _) | (_, Err(error)) => self.problems.push(broken(&error)),
        }
    }

    fn table(&mut self, file: &InFile<'_>, prefix: &str, places: &DeTable<'_>, values: &Table) {
        for (name, place) in places {
            let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
            let key = format!("{prefix}{}", name.get_ref());
            let line = file.line_of(name.span().start);
            if let Some(setting) = Setting::of_key(&key) {
                self.set(setting, Raw::Toml(value), Origin::File(file.path.to_owned(), line));
            } else if self.effective.config.open_table(&key).is_some() {
                self.open_table(file, &key, line, place, value);
            } else if let (Value::Table(values), DeValue::Table(places)) = (value, place.get_ref())
                && SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}.")))
            {
                self.table(file, &format!("{key}."), places, values);
            } else {
                self.unknown(&format!("{}:{line}", file.path.display()), &key);
            }
        }
    }

    /// A table of tables whose members another room checks.
    fn open_table(
        &mut self,
        file: &InFile<'_>,
        table: &str,
        line: usize,
        place: &Spanned<DeValue<'_>>,
        value: &Value,
    ) {
        let (Value::Table(rows), DeValue::Table(places)) = (value, place.get_ref()) else {
            return self.problem(
                format!("{}:{line}: {table} is {value}, needs tables", file.path.display()),
                format!("write [{table}.NAME] and under it what is to be changed"),
            );
        };
        for (name, place) in places {
            let (name, line) = (name.get_ref().as_ref(), file.line_of(name.span().start));
            let (Some(Value::Table(row)), DeValue::Table(members)) = (rows.get(name), place.get_ref()) else {
                self.problem(
                    format!("{}:{line}: {table}.{name} is not a table", file.path.display()),
                    format!("write [{table}.{name}] and under it what is to be changed"),
                );
                continue;
            };
            if let Some(rows) = self.effective.config.open_table(table) {
                rows.insert(name.to_owned(), row.clone());
            }
            self.note_origins(file, &format!("{table}.{name}"), members);
        }
    }

    fn note_origins(&mut self, file: &InFile<'_>, prefix: &str, members: &DeTable<'_>) {
        for (name, place) in members {
            let key = format!("{prefix}.{}", name.get_ref());
            match place.get_ref() {
                DeValue::Table(members) => self.note_origins(file, &key, members),
                _ => {
                    let line = file.line_of(name.span().start);
                    self.effective.origins.insert(key, Origin::File(file.path.to_owned(), line));
                }
            }
        }
    }

    fn variable(&mut self, name: &str, text: &str) {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.env == name) {
            return self.set(setting, Raw::Text(text), Origin::Env(name.to_owned()));
        }
        let Some(rest) = name.strip_prefix("BEAST_").filter(|_| !NOT_SETTINGS.contains(&name)) else {
            return;
        };
        if let Some(key) = rest.strip_prefix("FEEDS_").and_then(feed_key) {
            return self.open_text(&key, text, Origin::Env(name.to_owned()));
        }
        // Compared without the prefix, so that a key's own name is near its variable.
        let near = nearest(rest, SETTINGS.iter().map(|setting| setting.key));
        let near = near.and_then(Setting::of_key).map_or("", |setting| setting.env);
        self.problem(
            format!("{name} is set in the environment, but there is no such setting"),
            format!("unset it; the nearest one is {near}, and `beast config print` lists all"),
        );
    }

    fn flag(&mut self, flag: &FlagValue) {
        let origin = Origin::Flag(flag.flag.clone());
        if let Some(setting) = Setting::of_key(&flag.key) {
            return self.set(setting, Raw::Text(&flag.text), origin);
        }
        let parts: Vec<&str> = flag.key.split('.').collect();
        if parts.len() > 2
            && parts.iter().all(|part| !part.is_empty())
            && self.effective.config.open_table(parts[0]).is_some()
        {
            return self.open_text(&flag.key, &flag.text, origin);
        }
        self.unknown(&flag.flag, &flag.key);
    }

    /// A member such as `feeds.okx.rest.url` as text: a TOML value if it is one, else a string.
    fn open_text(&mut self, key: &str, text: &str, origin: Origin) {
        let mut parts = key.split('.');
        let (table, row) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some(rows) = self.effective.config.open_table(table) else { return };
        let mut place = rows.entry(row.to_owned()).or_default();
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
                place.insert(part.to_owned(), value.unwrap_or_else(|| Value::String(text.to_owned())));
                break;
            }
            let inner = place.entry(part.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else {
                return self.problem(
                    format!("{key} cannot be set: {part} is not a table there"),
                    format!("correct what sets {part}, or leave this out"),
                );
            };
            place = inner;
        }
        self.effective.origins.insert(key.to_owned(), origin);
    }

    fn set(&mut self, setting: &Setting, raw: Raw<'_>, origin: Origin) {
        if (setting.read)(&mut self.effective.config, raw) {
            self.effective.origins.insert(setting.key.to_owned(), origin);
            return;
        }
        let (place, correct) = match &origin {
            Origin::File(path, line) => (
                format!("{}:{line}: {}", path.display(), setting.key),
                "correct or remove that line".to_owned(),
            ),
            Origin::Env(name) => (name.clone(), format!("correct or unset {name}")),
            Origin::Flag(flag) => (flag.clone(), format!("correct {flag}, or leave it out")),
            Origin::Default => (setting.key.to_owned(), "report this as a mistake of the program".to_owned()),
        };
        // It may hold a password even where it is not a URL.
        let found = if setting.key == "store.url" { "no such URL".to_owned() } else { raw.shown() };
        self.problem(
            format!("{place} is {found}, needs {}", setting.needs),
            format!("{correct}; the default is {}", setting.default_text()),
        );
    }

    fn unknown(&mut self, place: &str, key: &str) {
        let keys = SETTINGS.iter().map(|setting| setting.key).chain(TABLES.iter().copied());
        let near = nearest(key, keys).unwrap_or_default();
        self.problem(
            format!("{place}: there is no setting {key}"),
            format!("the nearest one is {near}; `beast config print --default` describes all"),
        );
    }

    fn check_ports(&mut self) {
        let config = &self.effective.config;
        let mut ports = vec![("http_port", config.http_port), ("health_port", config.health_port)];
        if config.role.reports() {
            ports.push(("report_health_port", config.report_health_port));
        }
        for (index, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, p)| p == port && *p != 0) {
                self.problem(
                    format!("{other} and {name} are both {port}, needs a port for each"),
                    format!("give {name} another port"),
                );
            }
        }
    }
}

struct InFile<'a> {
    path: &'a Path,
    text: &'a str,
}

impl InFile<'_> {
    fn line_of(&self, offset: usize) -> usize {
        line_of(self.text, offset)
    }
}

/// The number of the line, from 1, on which a byte stands.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// `KRAKEN_V1_REST_URL` → `feeds.kraken_v1.rest.url`.
fn feed_key(rest: &str) -> Option<String> {
    let rest = rest.to_ascii_lowercase();
    FEED_MEMBERS.iter().find_map(|member| {
        let row = rest.strip_suffix(&member.replace('.', "_"))?.strip_suffix('_')?;
        (!row.is_empty()).then(|| format!("feeds.{row}.{member}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IoChoice, Role};
    use crate::store::StoreUrl;
    use proptest::prelude::*;

    fn sources(
        file: Option<&str>,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> (Sources, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = file.map(|text| {
            let path = dir.path().join("beast.toml");
            fs::write(&path, text).unwrap();
            path
        });
        let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let flags = flags
            .iter()
            .map(|(key, text)| FlagValue {
                flag: format!("--set {key}"),
                key: (*key).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        (Sources { file: path, env, flags }, dir)
    }

    fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Effective {
        Effective::load(&sources(Some(file), env, flags).0).unwrap()
    }

    /// Problems as text, with the file's folder taken out.
    fn problems(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
        let (sources, dir) = sources(Some(file), env, flags);
        let text = Effective::load(&sources).unwrap_err().to_string();
        text.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn a_password_in_the_url_of_the_store_is_never_shown() {
        let url = "postgres://ann:s3cret@db.example.com/beast";
        for effective in [
            load(&format!("[store]\nurl = \"{url}\"\n"), &[], &[]),
            load("", &[("BEAST_STORE_URL", url)], &[]),
            load("", &[], &[("store.url", url)]),
        ] {
            assert_eq!(effective.config.store_options().url, StoreUrl::parse(url));
            for shown in [
                crate::config::print_text(&effective),
                crate::config::print_json(&effective),
                format!("{effective:?}"),
            ] {
                assert!(shown.contains("ann:***@db.example.com") && !shown.contains("s3cret"), "{shown}");
            }
        }
        let wrong = "postgress://ann:s3cret@db";
        for said in [
            problems("", &[], &[("store.url", wrong)]),
            problems("", &[("BEAST_STORE_URL", wrong)], &[]),
            problems(&format!("[store]\nurl = \"{wrong}\"\n"), &[], &[]),
            problems("[store]\nurl = [\"s3cret\"]\n", &[], &[]),
        ] {
            assert!(said.contains("needs a URL such as postgres://") && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn each_source_lies_over_the_one_before() {
        let file = "udp_port = 1\nhttp_port = 2\nhealth_port = 3\n[rest]\ndeadline_ms = 4\n";
        let env = [("BEAST_HTTP_PORT", "12"), ("BEAST_HEALTH_PORT", "13"), ("PATH", "x")];
        let effective = load(file, &env, &[("health_port", "23")]);
        let config = &effective.config;
        assert_eq!((config.udp_port, config.http_port, config.health_port), (1, 12, 23));
        assert_eq!((config.rest.deadline_ms, config.rest.cache_ttl_s), (4, 13));
        assert!(matches!(effective.origin("udp_port"), Origin::File(_, 1)));
        assert!(matches!(effective.origin("rest.deadline_ms"), Origin::File(_, 5)));
        assert_eq!(effective.origin("http_port"), Origin::Env("BEAST_HTTP_PORT".into()));
        assert_eq!(effective.origin("health_port"), Origin::Flag("--set health_port".into()));
        assert_eq!(effective.origin("rest.cache_ttl_s"), Origin::Default);
    }

    #[test]
    fn credentials_named_like_variables_count_as_variables() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("BEAST_UDP_PORT"), "77\n").unwrap();
        fs::write(folder.path().join("instance.key"), "other").unwrap();
        assert_eq!(credentials(folder.path()), [("BEAST_UDP_PORT".to_owned(), "77".to_owned())]);
        assert_eq!(credentials(&folder.path().join("none")), []);
    }

    #[test]
    fn the_role_has_a_name_of_its_own_in_the_environment() {
        let effective = load("role = \"APP_SERVER\"", &[("SERVER_TYPE", "REPORT_SERVER")], &[]);
        assert_eq!(effective.config.role, Role::ReportServer);
        let text = problems("", &[("BEAST_ROLE", "APP_SERVER")], &[]);
        assert!(text.contains("the nearest one is SERVER_TYPE"), "{text}");
    }

    #[test]
    fn the_file_is_found_by_the_environment_unless_a_flag_names_one() {
        let (mut by_flag, dir) = sources(Some("io = \"uring\""), &[], &[]);
        let other = dir.path().join("other.toml");
        fs::write(&other, "io = \"portable\"").unwrap();
        by_flag.env.insert("BEAST_CONFIG".into(), other.display().to_string());
        assert_eq!(Effective::load(&by_flag).unwrap().config.io, IoChoice::Uring);
        by_flag.file = None;
        assert_eq!(Effective::load(&by_flag).unwrap().config.io, IoChoice::Portable);
        by_flag.file = Some(dir.path().join("missing.toml"));
        let text = Effective::load(&by_flag).unwrap_err().to_string();
        assert!(text.contains("missing.toml cannot be read: No such file"), "{text}");
    }

    #[test]
    fn unknown_names_are_errors_that_name_the_nearest() {
        let file = "udp_prot = 1\n[rest]\ndeadlin_ms = 2\n[htp]\nidle_s = 3\n";
        let text = problems(file, &[("BEAST_HTTP_PROT", "5"), ("BEAST_RECORDINGS", "x")], &[("shard", "1")]);
        assert_eq!(
            text,
            "error: beast.toml:4: there is no setting htp\n  \
             what to do: the nearest one is http; `beast config print --default` describes all\n\
             error: beast.toml:3: there is no setting rest.deadlin_ms\n  \
             what to do: the nearest one is rest.deadline_ms; `beast config print --default` describes all\n\
             error: beast.toml:1: there is no setting udp_prot\n  \
             what to do: the nearest one is udp_port; `beast config print --default` describes all\n\
             error: BEAST_HTTP_PROT is set in the environment, but there is no such setting\n  \
             what to do: unset it; the nearest one is BEAST_HTTP_PORT, and `beast config print` lists all\n\
             error: --set shard: there is no setting shard\n  \
             what to do: the nearest one is shards; `beast config print --default` describes all"
        );
    }

    #[test]
    fn wrong_values_say_what_was_found_needed_and_what_to_do() {
        let text = problems("\nshards = \"two\"", &[("BEAST_LISTEN", "localhost")], &[("io", "epoll")]);
        assert_eq!(
            text,
            "error: beast.toml:2: shards is \"two\", needs a number from 0 to 256\n  \
             what to do: correct or remove that line; the default is 0\n\
             error: BEAST_LISTEN is \"localhost\", needs IP addresses such as 127.0.0.1 or ::\n  \
             what to do: correct or unset BEAST_LISTEN; the default is [\"127.0.0.1\", \"::1\"]\n\
             error: --set io is \"epoll\", needs auto, uring or portable\n  \
             what to do: correct --set io, or leave it out; the default is \"auto\""
        );
    }

    #[test]
    fn broken_toml_names_its_line() {
        let text = problems("udp_port = 1\nhttp_port = = 2\n", &[], &[]);
        assert!(text.starts_with("error: beast.toml:2 is not TOML: "), "{text}");
    }

    #[test]
    fn two_services_do_not_share_a_port() {
        let text = problems("http_port = 8081", &[], &[]);
        assert!(text.contains("http_port and health_port are both 8081"), "{text}");
        load("http_port = 0\nhealth_port = 0\nreport_health_port = 0", &[], &[]);
        load("role = \"APP_SERVER\"\nhttp_port = 9091", &[], &[]);
    }

    #[test]
    fn rows_of_exchanges_are_passed_on_and_reached_from_every_source() {
        let file = "[feeds.okx]\nenabled = true\nurl = \"wss://a\"\n[feeds.okx.rest]\nper_second = 3\n\
                    [feeds.mine]\nnumber = 40\npairs = [\"x\"]\n[assets.BTC]\nenabled = false\n";
        let env = [
            ("BEAST_FEEDS_OKX_URL", "ws://127.0.0.1:1/"),
            ("BEAST_FEEDS_OKX_REST_URL", "http://127.0.0.1:2/"),
            ("BEAST_FEEDS_KRAKEN_V1_DEAD_AFTER_S", "7"),
            ("BEAST_FEEDS_BYBIT_REST_BASE", "http://127.0.0.1:3"),
        ];
        let effective = load(file, &env, &[("feeds.okx.enabled", "false")]);
        let feeds = &effective.config.feeds;
        assert_eq!(feeds["okx"]["enabled"], Value::Boolean(false));
        assert_eq!(feeds["okx"]["url"], Value::String("ws://127.0.0.1:1/".into()));
        assert_eq!(feeds["kraken_v1"]["dead_after_s"], Value::Integer(7));
        assert_eq!(feeds["mine"].len(), 2);
        assert_eq!(feeds["bybit"]["rest_base"], Value::String("http://127.0.0.1:3".into()));
        assert_eq!(feeds["okx"]["rest"]["per_second"], Value::Integer(3));
        assert_eq!(feeds["okx"]["rest"]["url"], Value::String("http://127.0.0.1:2/".into()));
        assert_eq!(effective.config.assets["BTC"]["enabled"], Value::Boolean(false));
        assert!(matches!(effective.origin("feeds.mine.number"), Origin::File(_, 7)));
        assert!(matches!(effective.origin("feeds.okx.rest.per_second"), Origin::File(_, 5)));
        assert_eq!(effective.origin("feeds.okx.rest.url"), Origin::Env("BEAST_FEEDS_OKX_REST_URL".into()));
        let text = problems("[feeds.okx]\nurl = 'x'", &[], &[("feeds.okx.url.a", "1"), ("feeds.okx", "1")]);
        assert!(text.contains("feeds.okx.url.a cannot be set: url is not a table"), "{text}");
        assert!(text.contains("there is no setting feeds.okx"), "{text}");
        assert!(problems("[feeds]\nokx = 1", &[], &[]).contains("beast.toml:2: feeds.okx is not a table"));
        assert!(problems("feeds = 1", &[], &[]).contains("beast.toml:1: feeds is 1, needs tables"));
        assert!(
            problems("", &[("BEAST_FEEDS_OKX", "1")], &[]).contains("the nearest one is BEAST_FEEDS_FILE")
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "\\PC*", key in "[a-z_.]{0,20}", value in "\\PC{0,20}") {
            let toml = format!("{key} = {value}\n{text}");
            let _ = Effective::load(&sources(Some(&toml), &[], &[(&key, &value)]).0);
        }
    }
}
