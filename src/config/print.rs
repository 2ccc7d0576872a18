//! Shows a configuration: as text that is itself a valid file, as JSON, or as the documented
//! default file.

use std::fmt::Write as _;

use serde_json::json;

use super::load::{Effective, Origin};
use super::settings::SETTINGS;

/// Every effective value and where it came from, as TOML with the origin in a comment.
#[must_use]
pub fn print_text(effective: &Effective) -> String {
    let entries = entries(effective);
    let lines: Vec<String> = entries
        .iter()
        .map(|entry| match &entry.value {
            Some(value) => format!("{} = {value}", entry.written),
            None => format!("# {} =", entry.written),
        })
        .collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|len| *len <= 60).max().unwrap_or(0);
    let mut text = String::new();
    for (line, entry) in lines.iter().zip(&entries) {
        let _ = writeln!(text, "{line:width$}  # {}", shown(&entry.origin));
    }
    text
}

/// Every effective value and where it came from, for programs:
/// `{"settings":[{"key":…,"value":…,"origin":…}]}`.
#[must_use]
pub fn print_json(effective: &Effective) -> String {
    let settings: Vec<_> = entries(effective)
        .into_iter()
        .map(|entry| {
            let origin = match entry.origin {
                Origin::Default => json!({"kind": "default"}),
                Origin::File(path, line) => json!({"kind": "file", "path": path, "line": line}),
                Origin::Env(name) => json!({"kind": "env", "name": name}),
                Origin::Flag(flag) => json!({"kind": "flag", "flag": flag}),
            };
            json!({"key": entry.key, "value": entry.value, "origin": origin})
        })
        .collect();
    format!("{:#}\n", json!({ "settings": settings }))
}

/// A file that sets every setting to its default and describes it.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Every setting of beast with its default. A file may hold any part of this; what it leaves\n\
         # out keeps its default. The environment is put over the file, and flags over both.\n",
    );
    let mut table = "";
    for setting in SETTINGS {
        let (room, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if room != table {
            let _ = write!(text, "\n[{room}]\n");
            table = room;
        }
        text.push('\n');
        for line in setting.doc {
            let _ = writeln!(text, "#{}", line.trim_end());
        }
        let flag = if setting.flag.is_empty() { String::new() } else { format!(" or {}", setting.flag) };
        let _ = writeln!(text, "# Takes {}. Also {}{flag}.", setting.needs, setting.env);
        let _ = match setting.default_value() {
            Some(value) => writeln!(text, "{name} = {value}"),
            None => writeln!(text, "# {name} = \"…\""),
        };
    }
    text.push_str(
        "\n# Members of an exchange's row, by its name, in place of the built-in ones. A name that is not\n\
         # built in makes a row of its own, with all that a row needs; `beast feeds list` shows them.\n\
         # Also BEAST_FEEDS_NAME_ENABLED, …_URL, …_REST_BASE, …_REST_URL and …_DEAD_AFTER_S.\n\
         # rest_base takes the place of scheme and host in rest.url.\n\
         # [feeds.okx]\n\
         # enabled = true\n\
         # url = \"ws://127.0.0.1:9000/ws/okx\"\n\
         # rest_base = \"http://127.0.0.1:9000/rest/okx\"\n\
         \n# What is to be changed of an asset, by its symbol: enabled, any_quote, listings; a new asset\n\
         # also needs an id that no other has had.\n\
         # [assets.BTC]\n\
         # listings = [{ exchange = \"kraken\", symbol = \"BTC/USD\", quote = \"USD\" }]\n",
    );
    text
}

struct Entry {
    key: String,
    /// The key as a file needs it, quoted where it must be.
    written: String,
    value: Option<toml::Value>,
    origin: Origin,
}

fn entries(effective: &Effective) -> Vec<Entry> {
    let entry = |key: String, written: String, value: Option<toml::Value>| {
        let origin = effective.origin(&key);
        Entry { key, written, value, origin }
    };
    let mut entries: Vec<Entry> = SETTINGS
        .iter()
        .map(|setting| entry(setting.key.into(), setting.key.into(), (setting.show)(&effective.config)))
        .collect();
    for (table, rows) in [("feeds", &effective.config.feeds), ("assets", &effective.config.assets)] {
        for (row, members) in rows {
            let mut leaves = Vec::new();
            flatten(&format!("{table}.{row}"), &format!("{table}.{}", quoted(row)), members, &mut leaves);
            entries.extend(leaves.into_iter().map(|(key, written, value)| entry(key, written, Some(value))));
        }
    }
    entries
}

/// Appends each value below a table with its key and its key as written.
fn flatten(key: &str, written: &str, table: &toml::Table, out: &mut Vec<(String, String, toml::Value)>) {
    for (name, value) in table {
        let (key, written) = (format!("{key}.{name}"), format!("{written}.{}", quoted(name)));
        match value {
            toml::Value::Table(inner) => flatten(&key, &written, inner, out),
            _ => out.push((key, written, value.clone())),
        }
    }
}

/// One part of a key, in quotes unless it is plain.
fn quoted(part: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !part.is_empty() && part.bytes().all(plain) {
        part.to_owned()
    } else {
        toml::Value::String(part.to_owned()).to_string()
    }
}

fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(path, line) => format!("{}:{line}", path.display()),
        Origin::Env(name) => format!("env {name}"),
        Origin::Flag(flag) => format!("flag {flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FlagValue, Sources};

    fn effective() -> Effective {
        let mut sources = Sources::default();
        sources.env.insert("BEAST_SHARDS".into(), "2".into());
        for (key, text) in [("listen", "::"), ("feeds.okx.enabled", "false"), ("feeds.a b.rest.url", "x")] {
            sources.flags.push(FlagValue { flag: format!("--{key}"), key: key.into(), text: text.into() });
        }
        Effective::load(&sources).unwrap()
    }

    #[test]
    fn the_text_is_a_file_that_gives_the_same_configuration() {
        let text = print_text(&effective());
        assert_eq!(
            text,
            r#"data_dir = "./beast-data"       # default
listen = ["::"]                 # flag --listen
udp_port = 2679                 # default
http_port = 8080                # default
health_port = 8081              # default
report_health_port = 9091       # default
report_port = 9090              # default
report_udp_port = 2680          # default
role = "APP_REPORT_SERVER"      # default
io = "auto"                     # default
shards = 2                      # env BEAST_SHARDS
pin = true                      # default
steer = "auto"                  # default
spin_us = 0                     # default
# xdp =                         # default
xdp_stays = false               # default
socket_buffer_bytes = 33554432  # default
connections_max = 16384         # default
sim = false                     # default
drain_s = 10                    # default
shard_stall_s = 10              # default
host_check = true               # default
log = "info"                    # default
# feeds_file =                  # default
# assets_file =                 # default
# feeds_ca_file =               # default
rest.deadline_ms = 800          # default
rest.cache_ttl_s = 13           # default
rest.prewarm = true             # default
http.idle_s = 60                # default
http.head_s = 10                # default
journal.max_mib = 8192          # default
journal.segment_mib = 8         # default
journal.sync_ms = 1000          # default
# store.url =                   # default
# store.ca_file =               # default
store.pool_len = 150            # default
store.batch_rows = 300          # default
store.batch_ms = 100            # default
store.raw_records = false       # default
retention.detail_days = 7       # default
retention.seconds_days = 31     # default
retention.hours_days = 400      # default
retention.store_mib = 16384     # default
retention.exports_days = 90     # default
retention.exports_mib = 10240   # default
feeds."a b".rest.url = "x"      # flag --feeds.a b.rest.url
feeds.okx.enabled = false       # flag --feeds.okx.enabled
"#
        );
        assert_eq!(reloaded(&text), effective().config);
    }

    #[test]
    fn the_json_names_origins() {
        let json: serde_json::Value = serde_json::from_str(&print_json(&effective())).unwrap();
        let find = |key: &str| json["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).unwrap();
        assert_eq!(find("shards")["value"], 2);
        assert_eq!(find("shards")["origin"]["name"], "BEAST_SHARDS");
        assert_eq!(find("listen")["value"][0], "::");
        assert_eq!(find("udp_port")["origin"]["kind"], "default");
        assert!(find("feeds_file")["value"].is_null());
    }

    #[test]
    fn the_default_file_describes_the_defaults() {
        let text = default_file();
        assert_eq!(reloaded(&text), Config::default());
        let port = "\n# Port of the UDP protocols. 0 takes any free one.\n\
                    # Takes a port, 0 to 65535. Also BEAST_UDP_PORT or --udp-port.\nudp_port = 2679\n";
        assert!(text.contains(port), "{text}");
        for setting in SETTINGS {
            assert!(text.contains(setting.env), "{}", setting.key);
        }
    }

    fn reloaded(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beast.toml");
        std::fs::write(&path, text).unwrap();
        Effective::load(&Sources { file: Some(path), ..Sources::default() }).unwrap().config
    }
}
