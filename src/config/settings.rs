//! The table of settings. A row gives a setting's field and type, its default, its name in the
//! environment, its flag (or none), what values it takes, and which of them are in bounds; its
//! description is its doc comment.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use toml::{Table, Value};

use super::value::{Field, IoChoice, LogLevel, Raw, Role, Steer, XdpOn};
use crate::limits::SOCKET_BUFFER_LEN;
use crate::store::{POOL_LEN, StoreOptions, StoreUrl};

/// One setting, as the loader and the printer know it.
#[derive(Debug)]
pub struct Setting {
    /// Name in a file, dotted where it stands in a table.
    pub key: &'static str,
    /// Name in the environment.
    pub env: &'static str,
    /// Name as a flag; empty when it is reached by `--set` only.
    pub flag: &'static str,
    /// Description, one line per line.
    pub doc: &'static [&'static str],
    /// What values it takes, to follow the word "needs".
    pub needs: &'static str,
    /// Reads a value into its place; false when it is not one this setting takes.
    pub(super) read: fn(&mut Config, Raw<'_>) -> bool,
    /// The value as a file would hold it; `None` when it is unset.
    pub(super) show: fn(&Config) -> Option<Value>,
}

/// Declares a struct of settings with its defaults, and the table rows that fill it.
macro_rules! settings {
    (
        $(#[doc = $room_doc:literal])+
        $room:ident, $rows:ident, $prefix:literal, |$config:ident| $place:expr;
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,
            $env:literal, $flag:literal, $needs:literal, $in_bounds:expr;)+
        $(and { $($(#[doc = $part_doc:literal])+ $part:ident: $part_type:ty,)+ })?
    ) => {
        $(#[doc = $room_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $room {
            $($(#[doc = $doc])+ pub $field: $type,)+
            $($($(#[doc = $part_doc])+ pub $part: $part_type,)+)?
        }

        impl Default for $room {
            fn default() -> Self {
                Self { $($field: $default,)+ $($($part: Default::default(),)+)? }
            }
        }

        const $rows: &[Setting] = &[$(Setting {
            key: concat!($prefix, stringify!($field)),
            env: $env,
            flag: $flag,
            doc: &[$($doc),+],
            needs: $needs,
            read: |$config, raw| {
                let in_bounds: fn(&$type) -> bool = $in_bounds;
                let read = <$type as Field>::read(raw).filter(in_bounds);
                read.map(|value| $place.$field = value).is_some()
            },
            show: |$config| Field::show(&$place.$field),
        },)+];
    };
}

settings! {
    /// Everything that can be chosen when the program starts.
    Config, TOP, "", |config| config;

    /// Folder of the store, the journal and the instance key. Made with mode 0700 when missing.
    data_dir: PathBuf = "./beast-data".into(),
        "BEAST_DATA_DIR", "--data", "a path", |_| true;

    /// Addresses to listen on, for UDP and TCP alike. "0.0.0.0" means every IPv4 address of the
    /// machine and "::" every IPv6 one; the default can be reached from this machine only.
    listen: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        "BEAST_LISTEN", "--listen", "IP addresses such as 127.0.0.1 or ::", |_| true;

    /// Port of the UDP protocols. 0 takes any free one.
    udp_port: u16 = 2679, "BEAST_UDP_PORT", "--udp-port", "a port, 0 to 65535", |_| true;

    /// Port of HTTP. 0 takes any free one.
    http_port: u16 = 8080, "BEAST_HTTP_PORT", "--http-port", "a port, 0 to 65535", |_| true;

    /// Port of health, readiness and metrics. 0 takes any free one.
    health_port: u16 = 8081, "BEAST_HEALTH_PORT", "--health-port", "a port, 0 to 65535", |_| true;

    /// Second port of health, readiness and metrics in the roles that report. 0 takes any free one.
    report_health_port: u16 = 9091, "BEAST_REPORT_HEALTH_PORT", "", "a port, 0 to 65535", |_| true;

    /// Port of reports over HTTP. 0 takes any free one.
    report_port: u16 = 9090, "BEAST_REPORT_PORT", "--report-port", "a port, 0 to 65535", |_| true;

    /// Port of reports over UDP. 0 takes any free one.
    report_udp_port: u16 = 2680, "BEAST_REPORT_UDP_PORT", "--report-udp-port",
        "a port, 0 to 65535", |_| true;

    /// What part of the service this process is.
    role: Role = Role::AppReportServer, "SERVER_TYPE", "",
        "APP_SERVER, REPORT_SERVER, APP_REPORT_SERVER or WEBHOOK_SERVER", |_| true;

    /// What moves the bytes: io_uring ("uring"), epoll ("portable"), or the better one that a probe
    /// finds working ("auto").
    io: IoChoice = IoChoice::Auto, "BEAST_IO", "--io", "auto, uring or portable", |_| true;

    /// Shards, each one thread with sockets and memory of its own. 0 means one per core that is
    /// available to the process. More than there are cores makes answers slower.
    shards: usize = 0, "BEAST_SHARDS", "--shards", "a number from 0 to 256", |n| *n <= 256;

    /// Whether each shard is pinned to a core of its own.
    pin: bool = true, "BEAST_PIN", "", "true or false", |_| true;

    /// Which shard gets a datagram: the one on the core that received it ("cpu"), or the one that the
    /// kernel's hash of the peer's address names ("hash"). "auto" takes the core where every core has a
    /// shard of its own and others than this machine can ask.
    steer: Steer = Steer::Auto, "BEAST_STEER", "--steer", "auto, cpu or hash", |_| true;

    /// Microseconds a shard looks for more work before it sleeps. 0 saves power; 50 answers a lone
    /// request sooner, at the price of a busy core.
    spin_us: u64 = 0, "BEAST_SPIN_US", "--spin-us", "a number from 0 to 1000000", |n| *n <= 1_000_000;

    /// Interface on which the kernel answers v2 requests itself, by XDP: in the driver ("native"), in
    /// the stack's first step ("generic"), or where it can ("auto", also without a mode). What it is not
    /// sure of reaches the sockets as ever. Needs root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    xdp: Option<XdpOn> = None, "BEAST_XDP", "--xdp",
        "an interface, or one with a mode such as eth0:native, eth0:generic or eth0:auto", |_| true;

    /// Whether the kernel goes on answering when the process has gone, however that came, until the
    /// prices are no longer fresh. Its answers are taken into the books by the next start.
    xdp_stays: bool = false, "BEAST_XDP_STAYS", "", "true or false", |_| true;

    /// Bytes of kernel buffer asked for on each UDP socket and direction. The kernel may grant less
    /// (net.core.rmem_max, net.core.wmem_max); the start says so.
    socket_buffer_bytes: usize = SOCKET_BUFFER_LEN, "BEAST_SOCKET_BUFFER_BYTES", "",
        "a number from 4096 to 1073741824", |n| (4_096..=1 << 30).contains(n);

    /// TCP connections a shard holds at a time; further ones are refused.
    connections_max: usize = 16_384, "BEAST_CONNECTIONS_MAX", "",
        "a number from 1 to 1000000", |n| (1..=1_000_000).contains(n);

    /// Whether prices come from simulated exchanges inside the process instead of the real ones.
    sim: bool = false, "BEAST_SIM", "--sim", "true or false", |_| true;

    /// Seconds that requests in flight are given to finish when the process is told to leave.
    drain_s: u64 = 10, "BEAST_DRAIN_S", "", "a number from 0 to 10", |n| *n <= 10;

    /// Seconds without a turn of its loop after which a shard counts as stuck and /live says so.
    shard_stall_s: u64 = 10, "BEAST_SHARD_STALL_S", "",
        "a number from 2 to 600", |n| (2..=600).contains(n);

    /// Whether the start looks at the machine's settings and says how many could be better.
    host_check: bool = true, "BEAST_HOST_CHECK", "", "true or false", |_| true;

    /// How much is logged to standard error.
    log: LogLevel = LogLevel::Info, "BEAST_LOG", "",
        "off, error, warn, info, debug or trace", |_| true;

    /// TOML file of exchange rows that takes the place of the built-in ones.
    feeds_file: Option<PathBuf> = None, "BEAST_FEEDS_FILE", "", "a path", |_| true;

    /// CSV file of asset mappings that takes the place of the built-in one.
    assets_file: Option<PathBuf> = None, "BEAST_ASSETS_FILE", "", "a path", |_| true;

    /// PEM file of certificates that are trusted beside the web's when exchanges are connected to by
    /// TLS, such as that of a proxy or of simulated exchanges.
    feeds_ca_file: Option<PathBuf> = None, "BEAST_FEEDS_CA_FILE", "", "a path", |_| true;

    and {
        /// Prices asked for by REST.
        rest: Rest,
        /// HTTP connections of clients.
        http: Http,
        /// The usage journal: a record of every answer, written before it is sent.
        journal: Journal,
        /// Where keys and usage are kept.
        store: Store,
        /// How long usage is kept.
        retention: Retention,
        /// Members of exchange rows that take the place of the built-in ones, and whole rows, by
        /// the name of the exchange; room feed checks them.
        feeds: BTreeMap<String, Table>,
        /// What is to be changed of assets, and whole assets, by symbol; room feed checks them.
        assets: BTreeMap<String, Table>,
    }
}

settings! {
    /// Prices asked for by REST, where a feed has no fresh one.
    Rest, REST, "rest.", |config| config.rest;

    /// Milliseconds a client's request waits for a REST price before it is told "stale".
    deadline_ms: u64 = 800, "BEAST_REST_DEADLINE_MS", "",
        "a number from 1 to 60000", |n| (1..=60_000).contains(n);

    /// Seconds for which a REST price counts as fresh.
    cache_ttl_s: u64 = 13, "BEAST_REST_CACHE_TTL_S", "",
        "a number from 1 to 3600", |n| (1..=3_600).contains(n);

    /// Whether every asset's price is asked for once at the start, before its feed has spoken.
    prewarm: bool = true, "BEAST_REST_PREWARM", "", "true or false", |_| true;
}

settings! {
    /// HTTP connections of clients.
    Http, HTTP, "http.", |config| config.http;

    /// Seconds after which an idle connection is closed.
    idle_s: u64 = 60, "BEAST_HTTP_IDLE_S", "", "a number from 1 to 3600", |n| (1..=3_600).contains(n);

    /// Seconds in which the head of a request must be complete.
    head_s: u64 = 10, "BEAST_HTTP_HEAD_S", "", "a number from 1 to 600", |n| (1..=600).contains(n);
}

settings! {
    /// The usage journal: a record of every answer, written before it is sent.
    Journal, JOURNAL, "journal.", |config| config.journal;

    /// MiB the journal may take on disk. Sealed segments that are drained are removed when it is
    /// reached; while none are, further requests are refused as overloaded.
    max_mib: u64 = 8_192, "BEAST_JOURNAL_MAX_MIB", "",
        "a number from 4 to 16777216", |n| (4..=16_777_216).contains(n);

    /// MiB of one segment, of which each shard has at least two at a time, in memory. Smaller ones
    /// are made more often, larger ones take longer to be sealed.
    segment_mib: u64 = 8, "BEAST_JOURNAL_SEGMENT_MIB", "",
        "a number from 1 to 1024", |n| (1..=1_024).contains(n);

    /// Milliseconds between two times that records are brought to the disk: what power loss may
    /// take. The end of the process, however sudden, takes none.
    sync_ms: u64 = 1_000, "BEAST_JOURNAL_SYNC_MS", "",
        "a number from 10 to 60000", |n| (10..=60_000).contains(n);
}

settings! {
    /// Where keys and usage are kept.
    Store, STORE, "store.", |config| config.store;

    /// PostgreSQL database that takes the place of SQLite in the data folder. It may hold a password, so
    /// the environment or a file of mode 0600 is a better place than a flag. Beyond this machine the
    /// connection is encrypted and the certificate checked, unless it says sslmode=disable.
    url: Option<StoreUrl> = None, "BEAST_STORE_URL", "--store",
        "a URL such as postgres://user@host:5432/database", |_| true;

    /// PEM file of certificates that are trusted beside the web's when PostgreSQL is reached by TLS.
    ca_file: Option<PathBuf> = None, "BEAST_STORE_CA_FILE", "", "a path", |_| true;

    /// Connections to the store at a time. They are opened when they are needed and kept from then on.
    pool_len: usize = POOL_LEN, "BEAST_STORE_POOL_LEN", "",
        "a number from 2 to 10000", |n| (2..=10_000).contains(n);

    /// Roll-up rows after which usage is written to the store.
    batch_rows: usize = 300, "BEAST_STORE_BATCH_ROWS", "",
        "a number from 1 to 100000", |n| (1..=100_000).contains(n);

    /// Milliseconds after which usage is written to the store even when there are fewer rows.
    batch_ms: u64 = 100, "BEAST_STORE_BATCH_MS", "",
        "a number from 1 to 60000", |n| (1..=60_000).contains(n);

    /// Whether every usage record becomes a row of the store too. Reports do not need them: the journal
    /// serves detail. In PostgreSQL they are written by binary COPY.
    raw_records: bool = false, "BEAST_STORE_RAW_RECORDS", "", "true or false", |_| true;
}

settings! {
    /// How long usage is kept. What a key has used in each month is kept for ever.
    Retention, RETENTION, "retention.", |config| config.retention;

    /// Days the detail of usage, the segments of the journal, is kept once it is drained; less when
    /// journal.max_mib is reached. 0 is no bound.
    detail_days: u64 = 7, "BEAST_RETENTION_DETAIL_DAYS", "", "a number from 0 to 36500", |n| *n <= 36_500;

    /// Days usage by second is kept, and records in the store where there are any. 0 is no bound.
    seconds_days: u64 = 31, "BEAST_RETENTION_SECONDS_DAYS", "", "a number from 0 to 36500", |n| *n <= 36_500;

    /// Days usage by hour is kept. 0 is no bound.
    hours_days: u64 = 400, "BEAST_RETENTION_HOURS_DAYS", "", "a number from 0 to 36500", |n| *n <= 36_500;

    /// MiB the store may take; beyond it records in the store go, then usage by second but that of the last
    /// hour, the oldest first. 0 is no bound.
    store_mib: u64 = 16_384, "BEAST_RETENTION_STORE_MIB", "",
        "a number from 0 to 16777216", |n| *n <= 16_777_216;

    /// Days an export of usage is kept in the data folder. 0 is no bound.
    exports_days: u64 = 90, "BEAST_RETENTION_EXPORTS_DAYS", "", "a number from 0 to 36500", |n| *n <= 36_500;

    /// MiB of all exports there together; beyond it the oldest go. 0 is no bound.
    exports_mib: u64 = 10_240, "BEAST_RETENTION_EXPORTS_MIB", "",
        "a number from 0 to 16777216", |n| *n <= 16_777_216;
}

const COUNT: usize = TOP.len() + REST.len() + HTTP.len() + JOURNAL.len() + STORE.len() + RETENTION.len();

/// Every setting, in the order of the documented default file.
pub static SETTINGS: [&Setting; COUNT] = {
    let mut all = [&TOP[0]; COUNT];
    let mut at = 0;
    let rooms = [TOP, REST, HTTP, JOURNAL, STORE, RETENTION];
    let mut room = 0;
    while room < rooms.len() {
        let mut row = 0;
        while row < rooms[room].len() {
            all[at] = &rooms[room][row];
            at += 1;
            row += 1;
        }
        room += 1;
    }
    all
};

impl Config {
    /// Where the store lies and how it is reached.
    #[must_use]
    pub fn store_options(&self) -> StoreOptions {
        let Store { url, ca_file, pool_len, .. } = &self.store;
        let (url, ca_file) = (url.clone(), ca_file.clone());
        StoreOptions { folder: self.data_dir.clone(), url, pool_len: *pool_len, ca_file }
    }

    /// A table of tables by its key, whose members another room knows; `None` when that key is none.
    pub(super) fn open_table(&mut self, key: &str) -> Option<&mut BTreeMap<String, Table>> {
        match key {
            "feeds" => Some(&mut self.feeds),
            "assets" => Some(&mut self.assets),
            _ => None,
        }
    }
}

impl Setting {
    /// The setting of that key.
    #[must_use]
    pub fn of_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().copied().find(|setting| setting.key == key)
    }

    /// The default as a file would hold it; `None` when it is unset.
    #[must_use]
    pub fn default_value(&self) -> Option<Value> {
        (self.show)(&Config::default())
    }

    /// The default, for messages.
    #[must_use]
    pub fn default_text(&self) -> String {
        self.default_value().map_or_else(|| "unset".to_owned(), |value| value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_key_and_none_is_given_twice() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            if setting.key != "role" {
                assert_eq!(setting.env, format!("BEAST_{}", setting.key.replace('.', "_").to_uppercase()));
            }
            assert!(setting.flag.is_empty() || setting.flag.starts_with("--"), "{}", setting.key);
            for other in &SETTINGS[..index] {
                assert_ne!(other.key, setting.key);
                assert!(setting.flag.is_empty() || other.flag != setting.flag, "{}", setting.key);
            }
        }
    }

    #[test]
    fn every_default_is_a_value_its_setting_takes() {
        for setting in SETTINGS {
            let Some(value) = setting.default_value() else { continue };
            let mut config = Config::default();
            assert!((setting.read)(&mut config, Raw::Toml(&value)), "{}", setting.key);
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }

    #[test]
    fn bounds_hold_at_both_ends() {
        for setting in SETTINGS {
            let Some((_, bounds)) = setting.needs.split_once("a number from ") else { continue };
            let (low, high) = bounds.split_once(" to ").unwrap();
            let (low, high): (i64, i64) = (low.parse().unwrap(), high.parse().unwrap());
            for (number, taken) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
                let read = (setting.read)(&mut Config::default(), Raw::Toml(&Value::Integer(number)));
                assert_eq!(read, taken, "{} = {number}", setting.key);
            }
        }
    }
}
