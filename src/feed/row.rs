//! One exchange's protocol as data: a row of `rows.toml`, or of the operator's own file. Adding an
//! exchange takes a row and no code.
//!
//! Rows are text while they are edited and merged; [`Row::check`] finds every mistake when they are
//! loaded. What reads messages is compiled from a row once, by [`Extractor`](super::Extractor).

use std::fmt;

use serde::Deserialize;

use super::endpoint::Endpoint;
use super::path::{CONDITION_NEEDED, Condition, PATH_NEEDED, Path, SINGLE_NEEDED};
use super::trade_time::TimeFormat;
use crate::price::ExchangeId;

/// First number for `{REQ_ID}`. Numbers below it may be written into rows (`"id":100` of a ping)
/// and never meet a request's own.
pub const REQUEST_ID_FIRST: u64 = 1_001;

/// One exchange protocol. The syntax of paths and conditions is that of the table at the top of
/// `rows.toml`. Where several conditions are listed, all must hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Persistent number of the exchange, 1 to 63; never reused for another one.
    pub number: usize,
    /// Name in lower case; `source` of an answer begins with it.
    pub name: String,
    /// Whether it is connected to at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// WebSocket endpoint, `wss://…` or `ws://…`.
    pub url: String,

    /// Subscribe message: JSON with `{SYMBOLS}`, and `{UNIX_S}` and `{REQ_ID}` where wanted.
    pub subscribe: String,
    /// One symbol in `{SYMBOLS}`: holds `{SYMBOL}`, `{SYMBOL_UPPER}` or `{SYMBOL_LOWER}`.
    pub symbol_item: String,
    /// What stands between two symbols.
    #[serde(default = "comma")]
    pub join: String,
    /// Most symbols in one subscribe message.
    #[serde(default = "fifty")]
    pub max_per_msg: usize,
    /// Pause between two messages of ours on one connection, in milliseconds.
    #[serde(default = "message_gap_ms")]
    pub msg_gap_ms: u64,
    /// Most symbols on one connection; more make further connections.
    #[serde(default = "hundred")]
    pub symbols_per_connection: usize,
    /// Further messages to send after the subscribes of a new connection.
    #[serde(default)]
    pub extra_subscribe: Vec<String>,
    /// Pause between opening a connection and the first message on it, in milliseconds.
    #[serde(default)]
    pub open_delay_ms: u64,
    /// Least time between two connection attempts to this exchange, in milliseconds.
    #[serde(default = "connect_gap_ms")]
    pub connect_gap_ms: u64,

    /// Conditions that mark a trade frame.
    #[serde(rename = "match")]
    pub trade_match: Vec<String>,
    /// Path to the trade elements of a trade frame; `@` when the frame itself is the trade.
    pub items: String,
    /// Conditions that mark a frame of old trades of another shape.
    #[serde(default)]
    pub snapshot_match: Vec<String>,
    /// Path to the trade elements of such a frame.
    #[serde(default)]
    pub snapshot_items: Option<String>,
    /// Path to the symbol inside a trade element.
    pub symbol: String,
    /// Path to the price, a JSON string or number.
    pub price: String,
    /// Path to the trade's time, a JSON string or number.
    pub time: String,
    /// How the time is written.
    pub time_format: TimeFormat,
    /// Path to a number that rises with every trade of a symbol, where there is one.
    #[serde(default)]
    pub id: Option<String>,
    /// Order of the elements of one frame; counts for trades of one time without a usable id.
    #[serde(default)]
    pub order: Order,
    /// Trades for which one of these conditions holds are passed over (block trades).
    #[serde(default)]
    pub skip_if: Vec<String>,
    /// Symbols are the same in upper and lower case.
    #[serde(default)]
    pub ignore_case: bool,

    /// Seconds between two pings of ours; 0: none are sent.
    #[serde(default)]
    pub ping_every_s: u64,
    /// The ping, JSON or bare text; may hold `{UNIX_S}` and `{REQ_ID}`.
    #[serde(default)]
    pub ping: Option<String>,
    /// Conditions that mark the answer to a ping.
    #[serde(default)]
    pub pong_match: Vec<String>,
    /// The answer to a ping where it is bare text and not JSON.
    #[serde(default)]
    pub pong_text: Option<String>,
    /// Conditions that mark a heartbeat of the exchange.
    #[serde(default)]
    pub heartbeat_match: Vec<String>,
    /// Path to the heartbeat's id, for `{ID}`.
    #[serde(default)]
    pub heartbeat_id: Option<String>,
    /// What a heartbeat must be answered with, where it must: holds `{ID}` where the exchange
    /// wants its id back.
    #[serde(default)]
    pub heartbeat_reply: Option<String>,
    /// Silence after which a connection counts as dead, in seconds.
    pub dead_after_s: u64,

    /// Path to the number of the request an ack or error belongs to, where the exchange returns it.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Conditions that mark an accepted subscribe.
    #[serde(default)]
    pub ack_match: Vec<String>,
    /// Path to the symbols an ack names.
    #[serde(default)]
    pub ack_symbol: Option<String>,
    /// Text in front of the symbol in that value; the symbol ends where its characters end.
    #[serde(default)]
    pub ack_symbol_after: Option<String>,
    /// Conditions that mark an error.
    #[serde(default)]
    pub error_match: Vec<String>,
    /// Path to the error's text; the whole frame without it.
    #[serde(default)]
    pub error_text: Option<String>,
    /// Path to the symbol an error names.
    #[serde(default)]
    pub error_symbol: Option<String>,
    /// Text in front of the symbol in that value; the symbol ends where its characters end.
    #[serde(default)]
    pub error_symbol_after: Option<String>,
    /// Conditions that mark a notice that the connection will soon be closed.
    #[serde(default)]
    pub notice_match: Vec<String>,

    /// The REST endpoint that gives one symbol's last trade, where there is one.
    #[serde(default)]
    pub rest: Option<RestRow>,
}

/// The REST endpoint of a row.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestRow {
    /// `https://…` or `http://…` with `{SYMBOL}`, `{SYMBOL_UPPER}`, `{SYMBOL_LOWER}` or
    /// `{SYMBOL_REST}`.
    pub url: String,
    /// How `{SYMBOL_REST}` is made: the symbol is cut at this text, …
    #[serde(default)]
    pub symbol_cut: Option<String>,
    /// … each part that is a first name here is replaced by its second, …
    #[serde(default)]
    pub symbol_parts: Vec<(String, String)>,
    /// … and the parts are joined by this.
    #[serde(default)]
    pub symbol_join: String,
    /// Path to the trade elements of the body; `@` when the body itself is the trade.
    pub items: String,
    /// Path to the price inside an element.
    pub price: String,
    /// Path to the time inside an element.
    pub time: String,
    /// How the time is written.
    pub time_format: TimeFormat,
    /// Path to the trade's number; must be the same number the feed calls `id`.
    #[serde(default)]
    pub id: Option<String>,
    /// Trades for which one of these conditions holds are passed over (block trades).
    #[serde(default)]
    pub skip_if: Vec<String>,
    /// Conditions that mark an error.
    #[serde(default)]
    pub error_match: Vec<String>,
    /// Path to the error's text; the whole body without it.
    #[serde(default)]
    pub error_text: Option<String>,
    /// Requests a second this exchange allows one address.
    pub per_second: u32,
}

/// Order of the trades in one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The last element is the newest.
    #[default]
    OldestFirst,
    /// The first element is the newest.
    NewestFirst,
}

/// What is wrong with a row, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub(super) exchange: String,
    pub(super) field: String,
    pub(super) found: String,
    pub(super) needed: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exchange, field, found, needed } = self;
        write!(f, "exchange {exchange:?}: field {field:?} is {found:?}: expected {needed}")
    }
}

impl std::error::Error for RowError {}

fn yes() -> bool {
    true
}

fn comma() -> String {
    ",".into()
}

fn fifty() -> usize {
    50
}

fn hundred() -> usize {
    100
}

fn message_gap_ms() -> u64 {
    100
}

fn connect_gap_ms() -> u64 {
    1_000
}

impl Row {
    /// Finds the first mistake, if any.
    ///
    /// # Errors
    /// Names the field, what it holds and what it needs.
    pub fn check(&self) -> Result<(), RowError> {
        self.check_connection()?;
        self.check_paths()?;
        self.check_pairs()?;
        self.rest.as_ref().map_or(Ok(()), |rest| self.check_rest(rest))
    }

    /// The exchange's persistent number.
    ///
    /// # Errors
    /// When the number is 0 or above 63.
    pub fn id(&self) -> Result<ExchangeId, RowError> {
        ExchangeId::new(self.number)
            .ok()
            .filter(|id| id.index() > 0)
            .ok_or_else(|| self.error("number", &self.number.to_string(), "a number from 1 to 63"))
    }

    /// The subscribe message for these symbols, at most [`max_per_msg`](Self::max_per_msg).
    #[must_use]
    pub fn subscribe_message(&self, symbols: &[&str], unix_s: u64, request_id: u64) -> String {
        let items: Vec<String> =
            symbols.iter().map(|symbol| with_symbol(&self.symbol_item, symbol)).collect();
        with_request(&self.subscribe, unix_s, request_id).replace("{SYMBOLS}", &items.join(&self.join))
    }

    /// The ping, where the exchange wants one.
    #[must_use]
    pub fn ping_message(&self, unix_s: u64, request_id: u64) -> Option<String> {
        self.ping.as_ref().map(|ping| with_request(ping, unix_s, request_id))
    }

    /// The answer to a heartbeat whose id is this JSON value, where one must be given.
    #[must_use]
    pub fn heartbeat_answer(&self, id: &[u8]) -> Option<String> {
        self.heartbeat_reply.as_ref().map(|reply| reply.replace("{ID}", &String::from_utf8_lossy(id)))
    }

    pub(super) fn error(&self, field: &str, found: &str, needed: &str) -> RowError {
        RowError {
            exchange: self.name.clone(),
            field: field.into(),
            found: found.into(),
            needed: needed.into(),
        }
    }

    /// The path in a field.
    pub(super) fn path(&self, field: &str, text: &str) -> Result<Path, RowError> {
        Path::parse(text).ok_or_else(|| self.error(field, text, PATH_NEEDED))
    }

    /// The path in a field that leads to one value.
    pub(super) fn single(&self, field: &str, text: &str) -> Result<Path, RowError> {
        let path = self.path(field, text)?;
        if path.is_single() { Ok(path) } else { Err(self.error(field, text, SINGLE_NEEDED)) }
    }

    /// The conditions in a field.
    pub(super) fn conditions(&self, field: &str, texts: &[String]) -> Result<Vec<Condition>, RowError> {
        let parse = |text: &String| {
            let condition =
                Condition::parse(text).ok_or_else(|| self.error(field, text, CONDITION_NEEDED))?;
            if condition.path.is_single() {
                Ok(condition)
            } else {
                Err(self.error(field, text, SINGLE_NEEDED))
            }
        };
        texts.iter().map(parse).collect()
    }

    fn check_connection(&self) -> Result<(), RowError> {
        self.id()?;
        self.check_url("url", &self.url, &["wss://", "ws://"])?;
        if Endpoint::parse(&self.url).is_none() {
            let needed =
                "a URL of a host, a port from 1 to 65535 where there is one, no user and no fragment";
            return Err(self.error("url", &self.url, needed));
        }
        self.check_template("url", &self.url, &[])?;
        self.check_template("subscribe", &self.subscribe, &["SYMBOLS", "UNIX_S", "REQ_ID"])?;
        if !self.subscribe.contains("{SYMBOLS}") {
            return Err(self.error("subscribe", &self.subscribe, "a template with {SYMBOLS}"));
        }
        self.check_template("symbol_item", &self.symbol_item, &SYMBOL_FORMS)?;
        if !self.symbol_item.contains("{SYMBOL") {
            return Err(self.error("symbol_item", &self.symbol_item, "a template with {SYMBOL}"));
        }
        let message = self.subscribe_message(&["A", "B"], 1, 1);
        if serde_json::from_str::<serde::de::IgnoredAny>(&message).is_err() {
            return Err(self.error("subscribe", &message, "JSON once it is filled in"));
        }
        for message in &self.extra_subscribe {
            self.check_template("extra_subscribe", message, &["UNIX_S", "REQ_ID"])?;
        }
        if let Some(ping) = &self.ping {
            self.check_template("ping", ping, &["UNIX_S", "REQ_ID"])?;
        }
        if let Some(reply) = &self.heartbeat_reply {
            self.check_template("heartbeat_reply", reply, &["ID"])?;
        }
        for (field, value, range) in [
            ("max_per_msg", self.max_per_msg as u64, 1..=10_000),
            ("symbols_per_connection", self.symbols_per_connection as u64, 1..=10_000),
            ("msg_gap_ms", self.msg_gap_ms, 0..=60_000),
            ("open_delay_ms", self.open_delay_ms, 0..=60_000),
            ("connect_gap_ms", self.connect_gap_ms, 0..=600_000),
            ("ping_every_s", self.ping_every_s, 0..=3_600),
            ("dead_after_s", self.dead_after_s, 1..=3_600),
        ] {
            if !range.contains(&value) {
                let needed = format!("a number from {} to {}", range.start(), range.end());
                return Err(self.error(field, &value.to_string(), &needed));
            }
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), RowError> {
        self.path("items", &self.items)?;
        for (field, path) in [
            ("snapshot_items", &self.snapshot_items),
            ("ack_symbol", &self.ack_symbol),
            ("error_symbol", &self.error_symbol),
        ] {
            path.as_ref().map_or(Ok(()), |path| self.path(field, path).map(drop))?;
        }
        for (field, path) in [("symbol", &self.symbol), ("price", &self.price), ("time", &self.time)] {
            self.single(field, path)?;
        }
        for (field, path) in [
            ("id", &self.id),
            ("heartbeat_id", &self.heartbeat_id),
            ("request_id", &self.request_id),
            ("error_text", &self.error_text),
        ] {
            path.as_ref().map_or(Ok(()), |path| self.single(field, path).map(drop))?;
        }
        for (field, texts) in [
            ("match", &self.trade_match),
            ("snapshot_match", &self.snapshot_match),
            ("skip_if", &self.skip_if),
            ("pong_match", &self.pong_match),
            ("heartbeat_match", &self.heartbeat_match),
            ("ack_match", &self.ack_match),
            ("error_match", &self.error_match),
            ("notice_match", &self.notice_match),
        ] {
            self.conditions(field, texts)?;
        }
        Ok(())
    }

    /// Fields that need one another.
    fn check_pairs(&self) -> Result<(), RowError> {
        let fault = |field, needed| Err(self.error(field, "", needed));
        if self.trade_match.is_empty() {
            return fault("match", "at least one condition that marks a trade frame");
        }
        if self.snapshot_items.is_some() == self.snapshot_match.is_empty() {
            return fault("snapshot_match", "conditions exactly where there is a \"snapshot_items\"");
        }
        if self.ping.is_some() == (self.ping_every_s == 0) {
            let found = self.ping.as_deref().unwrap_or("");
            return Err(self.error("ping", found, "a text exactly where \"ping_every_s\" is above 0"));
        }
        // Without heartbeats of the exchange only the answers to pings tell quiet from dead.
        let quiet = self.heartbeat_match.is_empty() && self.ping.is_some();
        if quiet && self.ping_every_s >= self.dead_after_s {
            let found = self.dead_after_s.to_string();
            return Err(self.error("dead_after_s", &found, "more seconds than \"ping_every_s\""));
        }
        let wants_id = self.heartbeat_reply.as_ref().is_some_and(|reply| reply.contains("{ID}"));
        if wants_id && self.heartbeat_id.is_none() {
            return fault("heartbeat_id", "a path, because \"heartbeat_reply\" holds {ID}");
        }
        if self.heartbeat_match.is_empty() && (self.heartbeat_reply.is_some() || self.heartbeat_id.is_some())
        {
            return fault(
                "heartbeat_match",
                "conditions, because there is a \"heartbeat_reply\" or \"heartbeat_id\"",
            );
        }
        Ok(())
    }

    fn check_rest(&self, rest: &RestRow) -> Result<(), RowError> {
        self.check_url("rest.url", &rest.url, &["https://", "http://"])?;
        let forms = ["SYMBOL", "SYMBOL_UPPER", "SYMBOL_LOWER", "SYMBOL_REST"];
        self.check_template("rest.url", &rest.url, &forms)?;
        if !rest.url.contains("{SYMBOL") {
            return Err(self.error("rest.url", &rest.url, "a template with {SYMBOL}"));
        }
        if rest.symbol_cut.as_deref() == Some("") {
            return Err(self.error("rest.symbol_cut", "", "a text to cut the symbol at"));
        }
        self.path("rest.items", &rest.items)?;
        self.single("rest.price", &rest.price)?;
        self.single("rest.time", &rest.time)?;
        if let Some(id) = &rest.id {
            self.single("rest.id", id)?;
        }
        if let Some(text) = &rest.error_text {
            self.single("rest.error_text", text)?;
        }
        self.conditions("rest.error_match", &rest.error_match)?;
        self.conditions("rest.skip_if", &rest.skip_if)?;
        if rest.per_second == 0 || rest.per_second > 10_000 {
            let found = rest.per_second.to_string();
            return Err(self.error("rest.per_second", &found, "a number from 1 to 10000"));
        }
        Ok(())
    }

    fn check_url(&self, field: &str, url: &str, schemes: &[&str]) -> Result<(), RowError> {
        let host = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
        let plain = |b: u8| b.is_ascii_graphic();
        let ok =
            host.is_some_and(|h| !h.is_empty() && !h.starts_with(['/', ':', '?']) && h.bytes().all(plain));
        let needed = format!("a URL that starts with {} and has a host", schemes.join(" or "));
        if ok { Ok(()) } else { Err(self.error(field, url, &needed)) }
    }

    /// Every `{NAME}` in a template must be one that will be filled in.
    fn check_template(&self, field: &str, template: &str, known: &[&str]) -> Result<(), RowError> {
        let mut rest = template;
        while let Some((_, after)) = rest.split_once('{') {
            let end = after.find(|c: char| !(c.is_ascii_uppercase() || c == '_')).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            if !name.is_empty() && tail.starts_with('}') && !known.contains(&name) {
                let known: Vec<String> = known.iter().map(|k| format!("{{{k}}}")).collect();
                let needed = if known.is_empty() {
                    "a text without placeholders".to_owned()
                } else {
                    format!("no other placeholders than {}", known.join(", "))
                };
                return Err(self.error(field, template, &needed));
            }
            rest = after;
        }
        Ok(())
    }
}

const SYMBOL_FORMS: [&str; 3] = ["SYMBOL", "SYMBOL_UPPER", "SYMBOL_LOWER"];

/// Fills in the forms of a symbol.
pub(super) fn with_symbol(template: &str, symbol: &str) -> String {
    template
        .replace("{SYMBOL_UPPER}", &symbol.to_ascii_uppercase())
        .replace("{SYMBOL_LOWER}", &symbol.to_ascii_lowercase())
        .replace("{SYMBOL}", symbol)
}

/// Fills in the time and the request's number.
pub(super) fn with_request(template: &str, unix_s: u64, request_id: u64) -> String {
    template.replace("{UNIX_S}", &unix_s.to_string()).replace("{REQ_ID}", &request_id.to_string())
}
