//! What does a trade cost from the plaintext of its frame to the update on every link? Real rows and
//! listings, frames written here, two links: one to the shard the feed lives on, one to a neighbour
//! on the other processor. No socket, no TLS.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use beast::feed::{Connection, Sink, Trade, data};
use beast::http::ws::Key;
use beast::load::stats::Median;
use beast::price::{Board, Catalogue, Confirmation, ListingId, Price, Quote, SessionId, Tier};
use beast::shard::{Inbox, LINK_LEN, Publisher, Ready, links};
use beast::time::{MonoNs, Now, UnixNs};
use clap::Parser;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, Start};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "feed", about = "What a trade costs from plaintext frame to the update on every link")]
struct Args {
    /// Exchanges, by the names of their rows: bybit, coinbase, kraken.
    #[arg(long, value_delimiter = ',', default_value = "bybit,coinbase,kraken")]
    exchanges: Vec<String>,
    /// Rounds, of which the median is taken.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Frames in a round.
    #[arg(long, default_value_t = 100_000)]
    frames: usize,
    /// Frames that are read one after the other before the links are drained.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    exchange: String,
    frame_len: f64,
    ns_per_frame: f64,
    ns_per_trade: f64,
}

/// Midnight of 2 January 2026, when the frames begin.
const BEGIN_S: u64 = 1_767_312_000;

/// Time from one frame to the next: a busy connection has a hundred trades a second.
const STEP_NS: u64 = 10_000_000;

/// So many frames fit the day, of whose date only one is written.
const FRAMES_MAX: usize = 8_000_000;

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["feed", "--quick"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    let args = Args::parse_from(args);
    let machine = Machine::here();
    common::end(Cpus::first_two().and_then(|cpus| measure(&args, cpus, machine)))
}

fn measure(args: &Args, cpus: Cpus, machine: Machine) -> io::Result<bool> {
    if !args.json {
        machine.print();
    }
    let (rounds, frames) = if args.quick { (2, 1_000) } else { (args.rounds, args.frames) };
    let batch = args.batch.clamp(1, LINK_LEN / 4);
    if (rounds + 1) * frames > FRAMES_MAX {
        return Err(io::Error::other(format!(
            "{rounds} rounds of {frames} frames are more than {FRAMES_MAX}, which fit the day they are of; ask for fewer"
        )));
    }
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for name in &args.exchanges {
        let rounds = common::pinned(cpus.server, || measure_one(name, rounds, frames, batch, cpus.client))?;
        let figure = |what: &str, unit, target_max, value: fn(&Round) -> f64| {
            let median = Median::of(rounds.iter().map(value).collect())?;
            Some(Figure::new(format!("{name}: {what}"), median, unit, target_max))
        };
        let target_max = (!args.quick).then_some(1_000.0);
        figures.extend(figure("CPU from frame to every link", "ns", target_max, |r| r.ns_per_frame));
        figures.extend(figure("  for each trade in it", "ns", None, |r| r.ns_per_trade));
        figures.extend(figure("  length of a frame", "bytes", None, |r| r.frame_len));
        all.extend(rounds);
    }
    Ok(Report::new("feed", machine, all, figures).print(args.json))
}

fn measure_one(
    name: &str,
    rounds: usize,
    frames: usize,
    batch: usize,
    neighbour: Option<usize>,
) -> io::Result<Vec<Round>> {
    let mut feed = Feed::open(name)?;
    let Some(theirs) = feed.inboxes.pop() else { return Err(io::Error::other("no second link")) };
    let (catalogue, turns) = (Arc::clone(&feed.catalogue), Turns::default());
    std::thread::scope(|scope| {
        let other =
            scope.spawn(|| common::pinned(neighbour, || Ok(drain_by_turns(&catalogue, &theirs, &turns))));
        let measured: io::Result<Vec<Round>> =
            (0..=rounds).map(|_| feed.round(frames, batch, &turns)).collect();
        turns.over.store(true, Ordering::Release);
        let their_board = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let measured = measured?;
        feed.check(&their_board)?;
        // The first round only warms up.
        Ok(measured.into_iter().skip(1).collect())
    })
}

/// Who is at work: the feed while both are equal, its neighbour while `fed` is ahead. So the neighbour
/// takes a batch at a time, as a shard does, and does not look while one is written.
#[derive(Default)]
struct Turns {
    fed: AtomicU64,
    drained: AtomicU64,
    over: AtomicBool,
}

/// The neighbour: drains its link after every batch. Returns the board that came of it.
fn drain_by_turns(catalogue: &Catalogue, inbox: &Inbox, turns: &Turns) -> Board<Ready> {
    let mut board = Board::new(catalogue);
    loop {
        let fed = turns.fed.load(Ordering::Acquire);
        if fed > turns.drained.load(Ordering::Relaxed) {
            inbox.drain(&mut board, |_, _| {});
            turns.drained.store(fed, Ordering::Release);
        } else if turns.over.load(Ordering::Acquire) {
            return board;
        } else {
            std::thread::yield_now();
        }
    }
}

/// A connection that is up, and all that its trades go through.
struct Feed {
    name: String,
    catalogue: Arc<Catalogue>,
    connection: Connection,
    listings: Vec<(String, ListingId)>,
    publisher: Publisher,
    inboxes: Vec<Inbox>,
    board: Board<Ready>,
    /// Frames written so far, which is also the newest trade's number.
    written: u64,
    trades: AtomicU64,
    heard: Option<MonoNs>,
    /// What each listing's newest frame said.
    newest: BTreeMap<usize, String>,
}

impl Feed {
    /// Opens the connection of a built-in row, up to the answered upgrade.
    fn open(name: &str) -> io::Result<Self> {
        let loaded = data::load(&data::Overrides::default()).map_err(io::Error::other)?;
        let row = loaded.rows.into_iter().find(|row| row.name == name);
        let Some(row) = row.filter(|row| row.enabled) else {
            return Err(io::Error::other(format!(
                "{name} is no exchange that is on; name a row of src/feed/rows.toml"
            )));
        };
        let id = row.id().map_err(io::Error::other)?;
        let catalogue = Arc::new(loaded.catalogue);
        let listed = catalogue.listings().iter().filter(|listing| listing.exchange == id);
        let listings: Vec<_> =
            listed.map(|l| (l.symbol.clone(), l.id)).take(row.symbols_per_connection).collect();
        let symbols = listings.iter().map(|(symbol, id)| (symbol.as_str(), *id));
        let random = [7; 24];
        let mut connection =
            Connection::new(Arc::new(row), symbols, random, now(0)).map_err(io::Error::other)?;
        let (publisher, ends) = links(&catalogue, 2, LINK_LEN);
        let accept = Key::new([7; 16]).accept();
        let upgrade = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let mut deaf = Deaf;
        connection.receive(now(0), upgrade.as_bytes(), &mut deaf).map_err(io::Error::other)?;
        Ok(Self {
            name: name.to_owned(),
            board: Board::new(&catalogue),
            inboxes: ends.into_iter().map(|end| Inbox::new(vec![end])).collect(),
            catalogue,
            connection,
            listings,
            publisher,
            written: 0,
            trades: AtomicU64::new(0),
            heard: None,
            newest: BTreeMap::new(),
        })
    }

    /// Feeds `frames` frames in batches. Only the reading of frames is timed, not their writing and
    /// not the draining.
    fn round(&mut self, frames: usize, batch: usize, turns: &Turns) -> io::Result<Round> {
        let (mut spent, mut bytes, mut left) = (Duration::ZERO, 0, frames);
        let trades_before = self.trades.load(Ordering::Relaxed);
        while left > 0 {
            let count = batch.min(left);
            left -= count;
            let batch: Vec<(Now, Vec<u8>)> =
                (0..count).map(|_| self.write_frame()).collect::<io::Result<_>>()?;
            bytes += batch.iter().map(|(_, frame)| frame.len()).sum::<usize>();
            let begin = thread_time()?;
            for (now, frame) in &batch {
                self.read_frame(*now, frame)?;
            }
            spent += thread_time()?.saturating_sub(begin);
            for inbox in &self.inboxes {
                inbox.drain(&mut self.board, |_, _| {});
            }
            let fed = turns.fed.fetch_add(1, Ordering::Release) + 1;
            while turns.drained.load(Ordering::Acquire) < fed {
                std::thread::yield_now();
            }
        }
        let trades = self.trades.load(Ordering::Relaxed) - trades_before;
        let ns = spent.as_secs_f64() * 1e9;
        Ok(Round {
            exchange: self.name.clone(),
            frame_len: bytes as f64 / frames as f64,
            ns_per_frame: ns / frames as f64,
            ns_per_trade: ns / trades.max(1) as f64,
        })
    }

    fn read_frame(&mut self, now: Now, frame: &[u8]) -> io::Result<()> {
        let mut ears =
            Ears { now, publisher: &mut self.publisher, trades: &self.trades, heard: &mut self.heard };
        self.connection.receive(now, frame, &mut ears).map_err(io::Error::other)
    }

    /// Writes the next frame: a trade that is newer than all before it, of one listing after the
    /// other.
    fn write_frame(&mut self) -> io::Result<(Now, Vec<u8>)> {
        self.written += 1;
        let n = self.written;
        let (symbol, listing) = &self.listings[(n % self.listings.len() as u64) as usize];
        let price = format!("{}.{:02}", 10_000 + n % 80_000, n % 90 + 10);
        let text = match self.name.as_str() {
            "bybit" => bybit(symbol, &price, n),
            "coinbase" => coinbase(symbol, &price, n),
            "kraken" => kraken(symbol, &price, n),
            other => return Err(io::Error::other(format!("no frames are written here for {other}"))),
        };
        self.newest.insert(listing.index(), price);
        Ok((now(n), frame(&text)?))
    }

    /// Both boards hold what was written last.
    fn check(&self, theirs: &Board<Ready>) -> io::Result<()> {
        let trades = self.trades.load(Ordering::Relaxed);
        if trades != self.written || self.publisher.overruns > 0 {
            return Err(io::Error::other(format!(
                "{}: {} frames gave {trades} trades and {} overruns",
                self.name, self.written, self.publisher.overruns
            )));
        }
        for (listing, price) in &self.newest {
            let id = ListingId::new(*listing).map_err(io::Error::other)?;
            let right = Price::parse(price.as_bytes()).map_err(io::Error::other)?;
            for board in [&self.board, theirs] {
                if board.quote(id).map(|quote| quote.price) != Some(right) {
                    return Err(io::Error::other(format!("{}: a board does not hold {price}", self.name)));
                }
            }
        }
        Ok(())
    }
}

/// The moment of the n-th frame.
fn now(n: u64) -> Now {
    Now { mono: MonoNs(1_000_000_000 + n * STEP_NS), unix: UnixNs(BEGIN_S * 1_000_000_000 + n * STEP_NS) }
}

/// `unix` in the form of RFC 3339, on the one day there is.
fn rfc3339(n: u64) -> String {
    let us = n * STEP_NS / 1_000;
    let s = us / 1_000_000;
    format!("2026-01-02T{:02}:{:02}:{:02}.{:06}Z", s / 3_600, s / 60 % 60, s % 60, us % 1_000_000)
}

fn bybit(symbol: &str, price: &str, n: u64) -> String {
    let ms = BEGIN_S * 1_000 + n * STEP_NS / 1_000_000;
    format!(
        "{{\"topic\":\"publicTrade.{symbol}\",\"ts\":{},\"type\":\"snapshot\",\"data\":[{{\"i\":\"2290000000{n:010}\",\
         \"T\":{ms},\"p\":\"{price}\",\"v\":\"0.{:06}\",\"S\":\"Buy\",\"seq\":{},\"s\":\"{symbol}\",\"BT\":false,\
         \"RPI\":false}}]}}",
        ms + 1,
        n % 1_000_000,
        90_000_000_000 + n,
    )
}

fn coinbase(symbol: &str, price: &str, n: u64) -> String {
    let time = rfc3339(n);
    format!(
        "{{\"channel\":\"market_trades\",\"client_id\":\"\",\"timestamp\":\"{time}\",\"sequence_num\":{n},\
         \"events\":[{{\"type\":\"update\",\"trades\":[{{\"product_id\":\"{symbol}\",\"trade_id\":\"{}\",\
         \"price\":\"{price}\",\"size\":\"0.{:08}\",\"time\":\"{time}\",\"side\":\"SELL\"}}]}}]}}",
        900_000_000 + n,
        n % 100_000_000,
    )
}

/// Two makers met one taker: two trades of which the second is the newer.
fn kraken(symbol: &str, price: &str, n: u64) -> String {
    let time = rfc3339(n);
    let trade = |price: &str, id: u64| {
        format!(
            "{{\"symbol\":\"{symbol}\",\"side\":\"sell\",\"price\":{price},\"qty\":0.{:08},\"ord_type\":\"limit\",\
             \"trade_id\":{id},\"timestamp\":\"{time}\"}}",
            id % 100_000_000
        )
    };
    let id = 70_000_000 + 2 * n;
    format!(
        "{{\"channel\":\"trade\",\"type\":\"update\",\"data\":[{},{}]}}",
        trade("99999.99", id),
        trade(price, id + 1)
    )
}

/// A server's frame: whole and not masked.
fn frame(text: &str) -> io::Result<Vec<u8>> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len @ ..=125) => frame.push(len),
        _ => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    Ok(frame)
}

/// Hears what the appliance's feed guests hear, and does with it what they do.
struct Ears<'a> {
    now: Now,
    publisher: &'a mut Publisher,
    trades: &'a AtomicU64,
    heard: &'a mut Option<MonoNs>,
}

/// The only connection of the only session.
const CONNECTION: u32 = 1;
const DEAD_AFTER: Duration = Duration::from_secs(5);

fn session() -> SessionId {
    SessionId::new(0).unwrap_or_else(|_| unreachable!("0 is below every bound"))
}

impl Sink for Ears<'_> {
    fn trade(&mut self, trade: Trade) {
        let quote = Quote { price: trade.price, key: trade.key, received: self.now.unix, tier: Tier::Ws };
        let live = Confirmation::Live { session: session(), connection: CONNECTION };
        self.publisher.quote(trade.listing, quote, live);
        self.trades.fetch_add(1, Ordering::Relaxed);
    }

    fn heard(&mut self, now: MonoNs) {
        *self.heard = Some(now);
        self.publisher.heard(session(), CONNECTION, now.plus(DEAD_AFTER));
    }

    fn live(&mut self, _: ListingId) {}
    fn acked(&mut self, _: ListingId) {}
    fn symbol_refused(&mut self, _: ListingId, _: &str) {}
    fn error(&mut self, _: &str) {}
    fn reconnect_soon(&mut self) {}
}

/// Hears the upgrade, of which there is nothing to hear.
struct Deaf;

impl Sink for Deaf {
    fn trade(&mut self, _: Trade) {}
    fn heard(&mut self, _: MonoNs) {}
    fn live(&mut self, _: ListingId) {}
    fn acked(&mut self, _: ListingId) {}
    fn symbol_refused(&mut self, _: ListingId, _: &str) {}
    fn error(&mut self, _: &str) {}
    fn reconnect_soon(&mut self) {}
}

/// Processor time of this thread: what others do on the processor does not count.
fn thread_time() -> io::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}
