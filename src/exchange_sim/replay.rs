//! Recordings to be sent again, frame for frame.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::exchange::Exchange;
use super::options::{SimError, Speed};
use super::protocol::is_reply;

/// Most bytes that a recording may hold when unpacked.
const UNPACKED_LEN_MAX: u64 = 1 << 30;

/// What an exchange sent, in the order it was received.
#[derive(Clone, Debug)]
pub struct Replay {
    exchange: Exchange,
    frames: Vec<Frame>,
}

#[derive(Clone, Debug)]
struct Frame {
    /// Receive time in nanoseconds since the Unix epoch, when it was recorded.
    at_ns: Option<u64>,
    text: Utf8Bytes,
}

/// One line of a recording.
#[derive(Deserialize)]
struct Line {
    t_ns: Option<u64>,
    dir: String,
    frame: String,
}

impl Replay {
    /// A replay of frames that were recorded elsewhere, each with its receive time in nanoseconds
    /// since the Unix epoch when that is known. Acknowledgements and refusals are left out: every client
    /// gets its own.
    #[must_use]
    pub fn new(exchange: Exchange, frames: impl IntoIterator<Item = (Option<u64>, String)>) -> Self {
        let frames = frames
            .into_iter()
            .filter(|(_, text)| !is_reply(exchange, text))
            .map(|(at_ns, text)| Frame { at_ns, text: text.into() })
            .collect();
        Self { exchange, frames }
    }

    /// Reads `<exchange>.<anything>.jsonl.gz`. The name tells the exchange, the frames tell whether it
    /// is an older protocol of that exchange.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no recording, or its name starts with no known exchange.
    pub fn load(path: &Path) -> Result<Self, SimError> {
        let failed = |reason: String| SimError::Replay { path: path.display().to_string(), reason };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let named: Exchange = name.split('.').next().unwrap_or_default().parse().map_err(failed)?;
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let mut frames = Vec::new();
        let mut older = 0_i64;
        let unpacked = BufReader::new(MultiGzDecoder::new(file).take(UNPACKED_LEN_MAX));
        for (number, line) in unpacked.lines().enumerate() {
            let line = line.map_err(|error| failed(format!("line {}: {error}", number + 1)))?;
            if line.is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line)
                .map_err(|error| failed(format!("line {}: {error}", number + 1)))?;
            if line.dir == "in" {
                older += serde_json::from_str(&line.frame).map_or(0, |frame| age_of_shape(named, &frame));
                frames.push((line.t_ns, line.frame));
            }
        }
        let exchange = match named {
            Exchange::Coinbase if older > 0 => Exchange::CoinbaseExchange,
            Exchange::Gemini if older > 0 => Exchange::GeminiV2,
            Exchange::Kraken if older > 0 => Exchange::KrakenV1,
            Exchange::Cryptocom if older > 0 => Exchange::CryptocomV2,
            named => named,
        };
        let replay = Self::new(exchange, frames);
        if replay.is_empty() {
            Err(failed("it holds no frame that can be replayed".to_owned()))
        } else {
            Ok(replay)
        }
    }

    /// The exchange and protocol whose frames these are.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// How many frames are sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Puts another recording of the same exchange after this one.
    pub(super) fn append(&mut self, other: &Self) {
        self.frames.extend(other.frames.iter().cloned());
    }

    pub(super) fn text(&self, index: usize) -> Option<Utf8Bytes> {
        self.frames.get(index).map(|frame| frame.text.clone())
    }

    /// How long to wait before frame `index`, at this speed; nothing where either time is unknown.
    pub(super) fn pause_before(&self, index: usize, speed: Speed) -> Duration {
        let Speed::Times(times) = speed else { return Duration::ZERO };
        let at_ns = |index: usize| self.frames.get(index).and_then(|frame| frame.at_ns);
        let before = index.checked_sub(1).and_then(at_ns);
        let (Some(before), Some(at)) = (before, at_ns(index)) else { return Duration::ZERO };
        Duration::try_from_secs_f64(Duration::from_nanos(at.saturating_sub(before)).as_secs_f64() / times)
            .unwrap_or_default()
    }
}

/// 1 for a frame of the exchange's older protocol, -1 for one of its current, 0 for neither.
fn age_of_shape(named: Exchange, frame: &Value) -> i64 {
    let kind = frame.get("type").and_then(Value::as_str).unwrap_or_default();
    let (older, current) = match named {
        Exchange::Coinbase => (
            matches!(kind, "match" | "last_match" | "l2update" | "heartbeat"),
            frame.get("sequence_num").is_some(),
        ),
        Exchange::Gemini => (matches!(kind, "l2_updates" | "trade"), frame.get("s").is_some()),
        Exchange::Kraken => {
            (frame.is_array() || frame.get("event").is_some(), frame.get("channel").is_some())
        }
        Exchange::Cryptocom => {
            let price = frame.pointer("/result/data/0/p");
            (price.is_some_and(Value::is_number), price.is_some_and(Value::is_string))
        }
        _ => (false, false),
    };
    i64::from(older) - i64::from(current)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn write(name: &str, lines: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut file = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        file.write_all(lines.as_bytes()).unwrap();
        file.finish().unwrap();
        (folder, path)
    }

    #[test]
    fn only_what_came_in_and_is_no_reply_is_kept_in_order() {
        let (_folder, path) = write(
            "okx.mine.jsonl.gz",
            concat!(
                r#"{"t_ns":1000,"dir":"out","frame":"{\"op\":\"subscribe\"}"}"#,
                "\n",
                r#"{"t_ns":2000,"dir":"in","frame":"{\"event\":\"subscribe\",\"arg\":{}}"}"#,
                "\n",
                r#"{"t_ns":3000,"dir":"in","frame":"{\"arg\":1,  \"data\":[]}"}"#,
                "\n",
                r#"{"t_ns":null,"dir":"in","frame":"not json"}"#,
                "\n",
                r#"{"t_ns":9000,"dir":"in","frame":"{}"}"#,
                "\n",
            ),
        );
        let replay = Replay::load(&path).unwrap();
        assert_eq!((replay.exchange(), replay.len()), (Exchange::Okx, 3));
        assert_eq!(replay.text(0).unwrap().as_str(), r#"{"arg":1,  "data":[]}"#);
        assert_eq!(replay.text(1).unwrap().as_str(), "not json");
        assert_eq!(replay.pause_before(2, Speed::RECORDED), Duration::ZERO, "no time before it");
    }

    #[test]
    fn pauses_follow_the_speed() {
        let frames = [(Some(1_000_000), "a"), (Some(5_000_000), "b"), (Some(3_000_000), "c")];
        let replay = Replay::new(Exchange::Kraken, frames.map(|(at, text)| (at, text.to_owned())));
        assert_eq!(replay.pause_before(0, Speed::RECORDED), Duration::ZERO);
        assert_eq!(replay.pause_before(1, Speed::RECORDED), Duration::from_millis(4));
        assert_eq!(replay.pause_before(1, Speed::Times(2.0)), Duration::from_millis(2));
        assert_eq!(replay.pause_before(1, Speed::Max), Duration::ZERO);
        assert_eq!(replay.pause_before(2, Speed::RECORDED), Duration::ZERO, "merged files step back");
    }

    #[test]
    fn the_frames_tell_an_older_protocol() {
        for (name, frame, exchange) in [
            ("coinbase.a.jsonl.gz", r#"{\"type\":\"match\"}"#, Exchange::CoinbaseExchange),
            ("coinbase.a.jsonl.gz", r#"{\"channel\":\"ticker\",\"sequence_num\":0}"#, Exchange::Coinbase),
            ("gemini.a.jsonl.gz", r#"{\"type\":\"l2_updates\"}"#, Exchange::GeminiV2),
            ("kraken.a.jsonl.gz", r#"[1,[],\"trade\",\"XBT/USD\"]"#, Exchange::KrakenV1),
            ("kraken.a.jsonl.gz", r#"{\"channel\":\"heartbeat\"}"#, Exchange::Kraken),
            ("cryptocom.a.jsonl.gz", r#"{\"result\":{\"data\":[{\"p\":1}]}}"#, Exchange::CryptocomV2),
            ("gemini_v2.a.jsonl.gz", "{}", Exchange::GeminiV2),
        ] {
            let (_folder, path) = write(name, &format!(r#"{{"t_ns":null,"dir":"in","frame":"{frame}"}}"#));
            assert_eq!(Replay::load(&path).unwrap().exchange(), exchange, "{name} {frame}");
        }
    }

    #[test]
    fn what_is_no_recording_is_refused_with_the_cure() {
        let (_folder, path) = write("mtgox.a.jsonl.gz", "");
        assert!(Replay::load(&path).unwrap_err().to_string().contains("mtgox"));
        let (_folder, path) = write("okx.a.jsonl.gz", "{\"dir\":1}");
        let message = Replay::load(&path).unwrap_err().to_string();
        assert!(message.contains("line 1") && message.contains("jsonl.gz"), "{message}");
        let (_folder, path) = write("okx.a.jsonl.gz", "");
        assert!(Replay::load(&path).is_err());
        std::fs::write(&path, "plain text").unwrap();
        assert!(Replay::load(&path).is_err());
        assert!(Replay::load(Path::new("/nowhere/okx.a.jsonl.gz")).is_err());
    }
}
