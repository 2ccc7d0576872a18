//! A scripted exchange: bytes and a clock.

use proptest::prelude::*;

use super::*;
use crate::price::Price;
use crate::time::{Clock, ScriptedClock, UnixNs};

mod behaviour;
mod refusals;

/// A protocol of our own with the shapes the real ones have.
const TOY: &str = r#"
    number = 60
    name = "toy"
    url = "ws://toy.example:9000/feed?v=1"
    subscribe = '{"id":{REQ_ID},"at":{UNIX_S},"sub":[{SYMBOLS}]}'
    symbol_item = '"{SYMBOL}"'
    max_per_msg = 4
    msg_gap_ms = 100
    match = ["ch=trades"]
    items = "data[*]"
    symbol = "s"
    price = "p"
    time = "t"
    time_format = "unix_ms"
    id = "i"
    dead_after_s = 10
    request_id = "id"
    ack_match = ["ok=true"]
    error_match = ["ok=false"]
    error_text = "why"
"#;

/// The toy protocol with some fields changed.
fn toy(changed: &str) -> Row {
    let mut row: toml::Table = toml::from_str(TOY).unwrap();
    row.extend(toml::from_str::<toml::Table>(changed).unwrap());
    row.try_into().unwrap()
}

#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Trade(usize, String, u64),
    Live(usize),
    Acked(usize),
    Refused(usize, String),
    Error(String),
    ReconnectSoon,
}

/// Keeps all events but `heard`, which is only counted: it comes once for each read.
#[derive(Default)]
struct Log {
    events: Vec<Heard>,
    heard: Option<MonoNs>,
}

impl Sink for Log {
    fn trade(&mut self, trade: Trade) {
        let price: Price = trade.price;
        self.events.push(Heard::Trade(trade.listing.index(), price.to_string(), trade.key.number));
    }

    fn heard(&mut self, now: MonoNs) {
        self.heard = Some(now);
    }

    fn live(&mut self, listing: ListingId) {
        self.events.push(Heard::Live(listing.index()));
    }

    fn acked(&mut self, listing: ListingId) {
        self.events.push(Heard::Acked(listing.index()));
    }

    fn symbol_refused(&mut self, listing: ListingId, words: &str) {
        self.events.push(Heard::Refused(listing.index(), words.into()));
    }

    fn error(&mut self, words: &str) {
        self.events.push(Heard::Error(words.into()));
    }

    fn reconnect_soon(&mut self) {
        self.events.push(Heard::ReconnectSoon);
    }
}

/// The exchange's side.
struct Exchange {
    connection: Connection,
    clock: ScriptedClock,
    log: Log,
    /// The client's bytes that are not yet taken apart.
    received: Vec<u8>,
}

/// A frame of the client.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    Text(String),
    Pong(Vec<u8>),
    Close(u16),
}

const KEY_RANDOM: [u8; 24] = [3; 24];

impl Exchange {
    /// Up to the upgrade request, for listings 0 to `count`, whose symbols are S0, S1 and so on.
    fn dialled(row: Row, count: usize) -> Self {
        let symbols: Vec<String> = (0..count).map(|n| format!("S{n}")).collect();
        let clock =
            ScriptedClock::at(Now { mono: MonoNs(77), unix: UnixNs::from_ms(1_790_000_000_500).unwrap() });
        let listings = symbols.iter().enumerate().map(|(n, s)| (s.as_str(), ListingId::new(n).unwrap()));
        let connection = Connection::new(Arc::new(row), listings, KEY_RANDOM, clock.now()).unwrap();
        Self { connection, clock, log: Log::default(), received: Vec::new() }
    }

    /// With the upgrade accepted.
    fn open(row: Row, count: usize) -> Self {
        let mut exchange = Self::dialled(row, count);
        exchange.connection.outbox().clear();
        exchange.send(answer().as_bytes()).unwrap();
        exchange
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Disconnect> {
        self.connection.receive(self.clock.now(), bytes, &mut self.log)
    }

    fn text(&mut self, text: &str) {
        self.send(&frame(1, text.as_bytes())).unwrap();
    }

    fn trade(&mut self, symbol: &str, price: &str, id: u64) {
        self.text(&trade(symbol, price, id));
    }

    /// Lets time pass, and the connection do what is due, deadline by deadline.
    fn pass(&mut self, ms: u64) -> Result<(), Disconnect> {
        let end = self.clock.now().mono.plus(Duration::from_millis(ms));
        loop {
            let now = self.clock.now().mono;
            let next = self.connection.deadline().min(end);
            assert!(now == end || next > now, "the deadline {next:?} stands still");
            if now == end {
                return Ok(());
            }
            self.clock.advance(next.since(now));
            self.connection.tick(self.clock.now())?;
        }
    }

    /// What the client has sent since the last call.
    fn sent(&mut self) -> Vec<Sent> {
        self.received.append(self.connection.outbox());
        let (mut frames, mut rest) = (Vec::new(), &self.received[..]);
        while let [first, second, after @ ..] = rest {
            assert_eq!(second & 0x80, 0x80, "a client's frame is masked");
            let (len, after) = match second & 0x7f {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                short => (usize::from(short), after),
            };
            let payload: Vec<u8> =
                after[4..4 + len].iter().zip(after[..4].iter().cycle()).map(|(b, m)| b ^ m).collect();
            rest = &after[4 + len..];
            frames.push(match first {
                0x81 => Sent::Text(String::from_utf8(payload).unwrap()),
                0x8a => Sent::Pong(payload),
                0x88 => Sent::Close(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("{other:#x}"),
            });
        }
        self.received.clear();
        frames
    }

    /// The symbols of each subscribe that was sent since the last call, and its number.
    fn subscribed(&mut self) -> Vec<(u64, Vec<String>)> {
        let of = |sent: Sent| {
            let Sent::Text(text) = sent else { return None };
            let value: serde_json::Value = serde_json::from_str(&text).ok()?;
            let symbols = value["sub"].as_array()?.iter().map(|s| s.as_str().unwrap().to_owned()).collect();
            Some((value["id"].as_u64().unwrap(), symbols))
        };
        self.sent().into_iter().filter_map(of).collect()
    }

    fn events(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.log.events)
    }
}

fn answer() -> String {
    let key = Key::new(*KEY_RANDOM.first_chunk().unwrap());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: {}\r\n\r\n",
        key.accept()
    )
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => out.push(len),
        _ => {
            out.push(126);
            out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

fn trade(symbol: &str, price: &str, id: u64) -> String {
    format!(r#"{{"ch":"trades","data":[{{"s":"{symbol}","p":"{price}","t":1789999999999,"i":{id}}}]}}"#)
}

fn symbols(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// All that comes of these bytes in these pieces at one moment.
fn outcome(
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Heard>, Vec<u8>, Option<Disconnect>, Option<MonoNs>, MonoNs) {
    let row = toy(
        "heartbeat_match = ['hb']\nheartbeat_id = 'hb'\nheartbeat_reply = '{\"hb\":{ID}}'\nmsg_gap_ms = 0",
    );
    let mut exchange = Exchange::dialled(row, 6);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let (mut from, mut end) = (0, None);
    for cut in cuts {
        if let Err(disconnect) = exchange.send(&bytes[from..cut]) {
            end = Some(disconnect);
            break;
        }
        from = cut;
    }
    let deadline = exchange.connection.deadline();
    let outbox = std::mem::take(exchange.connection.outbox());
    (exchange.events(), outbox, end, exchange.log.heard, deadline)
}

/// Fuzz body: any bytes behind an upgrade never panic, mean the same in any pieces, and give no
/// trade but of the six symbols that were asked for.
fn fuzz(bytes: &[u8], cuts: &[usize]) {
    let all = [answer().as_bytes(), bytes].concat();
    let whole = outcome(&all, &[]);
    for event in &whole.0 {
        if let Heard::Trade(listing, price, _) = event {
            assert!(*listing < 6, "{event:?}");
            assert!(!price.starts_with('-') && price != "0");
        }
    }
    assert_eq!(outcome(&all, cuts), whole);
}

fn any_message() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u8..9, "[0-9]{1,4}", any::<u64>()).prop_map(|(s, p, i)| trade(&format!("S{s}"), &p, i)),
        (1_000_u64..1_012, any::<bool>())
            .prop_map(|(id, ok)| format!(r#"{{"id":{id},"ok":{ok},"why":"w"}}"#)),
        any::<bool>().prop_map(|ok| format!(r#"{{"ok":{ok}}}"#)),
        "[0-9]{1,6}".prop_map(|id| format!(r#"{{"hb":{id}}}"#)),
        r#"[\[\]{}:,"a-s0-9.-]{0,40}"#,
        any::<String>(),
    ]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => any_message().prop_map(|text| frame(1, text.as_bytes())),
        1 => proptest::collection::vec(any::<u8>(), 0..125).prop_map(|bytes| frame(9, &bytes)),
        1 => Just(frame(10, b"")),
        1 => Just(frame(2, b"\x00\x01")),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => Just(frame(8, b"\x03\xe9gone")),
    ]
}

proptest! {
    #[test]
    fn frames_of_any_kind_in_any_pieces(
        frames in proptest::collection::vec(any_frame(), 0..12),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        fuzz(&frames.concat(), &cuts);
    }

    #[test]
    fn any_bytes_instead_of_an_upgrade(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: usize) {
        let whole = outcome(&bytes, &[]);
        prop_assert_eq!(whole.0.len(), 0);
        // In pieces it may be refused earlier, never later or otherwise.
        prop_assert_eq!(outcome(&bytes, &[cut]).2, whole.2);
    }
}
