//! The flags that set settings, made from the table of settings, so that the two cannot differ.

use std::path::PathBuf;

use beast::config::{Effective, FlagValue, SETTINGS, Setting, Sources, environment};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::Failure;

/// `--config`, a flag for each setting that has one, and `--set` for the others. Commands that need
/// the configuration flatten this into their arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsArgs {
    file: Option<PathBuf>,
    flags: Vec<FlagValue>,
}

impl SettingsArgs {
    /// The configuration of defaults, file, environment and these flags.
    pub(crate) fn load(&self) -> Result<Effective, Vec<Failure>> {
        let sources = Sources { file: self.file.clone(), env: environment(), flags: self.flags.clone() };
        Effective::load(&sources)
            .map_err(|problems| problems.0.into_iter().map(|p| Failure::usage(p.what, p.cure)).collect())
    }
}

/// How a setting's flag takes its value.
fn action(setting: &Setting) -> ArgAction {
    match setting.default_value() {
        Some(toml::Value::Boolean(_)) => ArgAction::SetTrue,
        Some(toml::Value::Array(_)) => ArgAction::Append,
        _ => ArgAction::Set,
    }
}

/// The default as people read it, to follow a description; nothing for what is off by default.
fn default_note(setting: &Setting) -> String {
    let plain = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match setting.default_value() {
        Some(toml::Value::Boolean(_)) | None => String::new(),
        Some(toml::Value::Array(list)) => {
            format!(" [default: {}]", list.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        Some(value) => format!(" [default: {}]", plain(&value)),
    }
}

fn with_flag() -> impl Iterator<Item = (&'static Setting, &'static str)> {
    SETTINGS.iter().filter_map(|setting| Some((*setting, setting.flag.strip_prefix("--")?)))
}

impl Args for SettingsArgs {
    fn augment_args(mut command: Command) -> Command {
        command = command.arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("TOML file of settings; else BEAST_CONFIG names one"),
        );
        for (setting, flag) in with_flag() {
            let doc: Vec<_> = setting.doc.iter().map(|line| line.trim()).collect();
            let help = format!("{}{}", doc.join(" "), default_note(setting));
            let arg = Arg::new(setting.key).long(flag).action(action(setting)).help(help);
            command = command.arg(match action(setting) {
                ArgAction::SetTrue => arg,
                _ => arg.value_name("VALUE").allow_negative_numbers(true),
            });
        }
        command.arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Any setting by its key; may be repeated. `beast config print` lists them"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for pair in matches.get_many::<String>("set").into_iter().flatten() {
            let Some((key, text)) = pair.split_once('=') else {
                return Err(clap::Error::raw(
                    clap::error::ErrorKind::ValueValidation,
                    format!("--set is {pair:?}, needs KEY=VALUE such as --set drain_s=5\n"),
                ));
            };
            let key = key.trim().to_owned();
            self.flags.push(FlagValue { flag: format!("--set {key}"), key, text: text.trim().to_owned() });
        }
        for (setting, _) in with_flag() {
            let text = match action(setting) {
                ArgAction::SetTrue => matches.get_flag(setting.key).then(|| "true".to_owned()),
                _ => matches
                    .get_many::<String>(setting.key)
                    .map(|values| values.map(String::as_str).collect::<Vec<_>>().join(",")),
            };
            if let Some(text) = text {
                self.flags.push(FlagValue {
                    flag: setting.flag.to_owned(),
                    key: setting.key.to_owned(),
                    text,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<SettingsArgs, clap::Error> {
        let command = SettingsArgs::augment_args(Command::new("beast"));
        let args = std::iter::once("beast").chain(args.iter().copied());
        SettingsArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    fn pairs(args: &[&str]) -> Vec<String> {
        parse(args).unwrap().flags.iter().map(|f| format!("{}: {}={}", f.flag, f.key, f.text)).collect()
    }

    #[test]
    fn flags_reach_their_settings() {
        assert_eq!(
            pairs(&["--udp-port", "1", "--sim", "--listen", "::1", "--listen", "127.0.0.1", "--data", "x y"]),
            [
                "--data: data_dir=x y",
                "--listen: listen=::1,127.0.0.1",
                "--udp-port: udp_port=1",
                "--sim: sim=true"
            ]
        );
        assert_eq!(
            pairs(&["--set", "drain_s = 3", "--set=feeds.okx.url=ws://a?b=c"]),
            ["--set drain_s: drain_s=3", "--set feeds.okx.url: feeds.okx.url=ws://a?b=c"]
        );
        assert_eq!(pairs(&["--spin-us", "-1"]), ["--spin-us: spin_us=-1"]);
        assert_eq!(parse(&["--config", "a.toml"]).unwrap().file, Some("a.toml".into()));
    }

    #[test]
    fn wrong_flags_are_refused() {
        assert!(parse(&["--udp-prot", "1"]).unwrap_err().to_string().contains("--udp-port"));
        assert!(parse(&["--set", "drain_s"]).unwrap_err().to_string().contains("needs KEY=VALUE"));
        assert!(parse(&["--udp-port", "1", "--udp-port", "2"]).is_err());
    }
}
