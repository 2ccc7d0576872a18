//! A scripted exchange: bytes and a clock.

use proptest::prelude::*;

use super::*;
use crate::feed::fuzz::{self, Heard, KEY_RANDOM, Log, upgrade_answer as answer};
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

fn fuzzed() -> Row {
    toy("heartbeat_match = ['hb']\nheartbeat_id = 'hb'\nheartbeat_reply = '{\"hb\":{ID}}'\nmsg_gap_ms = 0")
}

const SIX: [&str; 6] = ["S0", "S1", "S2", "S3", "S4", "S5"];

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
        fuzz::connection_cut(&fuzzed(), &SIX, &frames.concat(), &cuts);
    }

    #[test]
    fn any_bytes_instead_of_an_upgrade(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: usize) {
        let whole = fuzz::outcome(&fuzzed(), &SIX, &bytes, &[]);
        prop_assert_eq!(whole.events.len(), 0);
        // In pieces it may be refused earlier, never later or otherwise.
        prop_assert_eq!(fuzz::outcome(&fuzzed(), &SIX, &bytes, &[cut]).end, whole.end);
    }
}
