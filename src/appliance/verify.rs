//! Tries feeds before they are relied on: dials every row, speaks to it as a session does, and says
//! how far that went.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::feed_setup::feed_setup;
use super::feeds::{self, Pace, Session, Stream, connect};
use super::secrets::random;
use super::start::{StartError, runtime, start_sim};
use super::tls::tls_config;
use crate::config::{Config, Problem};
use crate::feed::{Connection, Disconnect, Endpoint, Phase, Row, Sink, Trade};
use crate::price::{ListingId, Price};
use crate::time::{Clock as _, MonoNs, RealClock, UnixNs};

/// Once there is a price, a connection without further news for this long has shown what it can.
const QUIET_AFTER: Duration = Duration::from_secs(3);

/// What to do about rows that cannot be used.
const MEND: &str = "correct that setting; beast config print shows where each comes from";

/// What to try.
#[derive(Clone, Debug)]
pub struct Verify {
    /// Exchanges by name, also those that are switched off; none for all that are switched on.
    pub names: Vec<String>,
    /// Time for each exchange, from the first dial to the first price.
    pub timeout: Duration,
}

/// How far an exchange went. Counts are of connections or of listings, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Its name.
    pub exchange: String,
    /// Where it was dialled.
    pub url: String,
    /// Connections its listings need.
    pub connections: usize,
    /// Of them, those whose TCP and TLS came up.
    pub connected: usize,
    /// Of them, those that became a WebSocket.
    pub upgraded: usize,
    /// Of them, those on which every subscribe was sent.
    pub subscribed: usize,
    /// Listings there are.
    pub listings: usize,
    /// Listings whose subscription the exchange has accepted in words, and nothing more yet.
    pub acked: usize,
    /// Listings with a trade.
    pub live: usize,
    /// Symbols the exchange does not want.
    pub refused: Vec<RefusedSymbol>,
    /// The first price that came.
    pub first: Option<FirstPrice>,
    /// Why it is not usable; `None` when it is.
    pub problem: Option<Problem>,
}

/// A symbol an exchange has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSymbol {
    /// As the exchange spells it.
    pub symbol: String,
    /// The exchange's words.
    pub words: String,
}

/// A price that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstPrice {
    /// As the exchange spells it.
    pub symbol: String,
    /// The price.
    pub price: Price,
    /// When it was traded, by the exchange's clock.
    pub time: UnixNs,
    /// How long it took from the first dial.
    pub after: Duration,
}

/// Tries exchanges, all at once; gives what came of it in the order of their rows.
///
/// # Errors
/// When there is nothing to try: a row or an asset is wrong, or no exchange has such a name.
pub fn verify(config: &Config, asked: &Verify) -> Result<Vec<Verified>, StartError> {
    let mut config = config.clone();
    let mend = |what: String| StartError { what, cure: MEND.into() };
    let known = feed_setup(&config, None).map_err(|e| mend(e.to_string()))?;
    for name in &asked.names {
        if known.rows.iter().all(|row| row.name != *name) {
            let names: Vec<_> = known.rows.iter().map(|row| row.name.as_str()).collect();
            return Err(StartError {
                what: format!("there is no exchange {name:?}"),
                cure: format!("name one of {}", names.join(", ")),
            });
        }
        // Whoever names a row wants it tried, switched on or not.
        config.feeds.entry(name.clone()).or_default().insert("enabled".into(), true.into());
    }
    let sim = start_sim(&config)?;
    let setup = feed_setup(&config, sim.as_ref()).map_err(|e| mend(e.to_string()))?;
    let is_asked = |row: &Arc<Row>| match asked.names.is_empty() {
        true => row.enabled,
        false => asked.names.contains(&row.name),
    };
    let rows: Vec<_> = setup.rows.iter().filter(|row| is_asked(row)).map(Arc::clone).collect();
    if rows.is_empty() {
        return Err(StartError {
            what: "every exchange is switched off, and none was named".into(),
            cure: "name one, or set feeds.<name>.enabled = true".into(),
        });
    }
    let mut sessions = feeds::plan(&rows, &setup.catalogue).map_err(mend)?;
    let tls = Arc::new(tls_config(config.feeds_ca_file.as_deref())?);
    runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        for (index, row) in rows.iter().enumerate() {
            let number = row.number;
            let of_row = sessions.extract_if(.., |session| session.row.number == number).collect();
            let (row, tls, timeout) = (Arc::clone(row), Arc::clone(&tls), asked.timeout);
            tasks.spawn(async move { (index, exchange(row, of_row, tls, timeout).await) });
        }
        let mut all = tasks.join_all().await;
        all.sort_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, verified)| verified).collect())
    })
}

/// Tries all connections of one exchange.
async fn exchange(
    row: Arc<Row>,
    sessions: Vec<Session>,
    tls: Arc<rustls::ClientConfig>,
    timeout: Duration,
) -> Verified {
    let started = Instant::now();
    let mut total = Verified { exchange: row.name.clone(), url: row.url.clone(), ..Verified::default() };
    if sessions.is_empty() {
        total.problem = problem(
            "no asset is listed on it, so there is nothing to subscribe to".into(),
            "list one: assets.<name>.listings of the configuration, or assets_file",
        );
        return total;
    }
    let pace = Arc::new(Pace::default());
    let mut tasks = JoinSet::new();
    for session in sessions {
        let (row, tls, pace) = (Arc::clone(&row), Arc::clone(&tls), Arc::clone(&pace));
        tasks.spawn(async move {
            pace.wait(Duration::from_millis(row.connect_gap_ms)).await;
            attempt(&row, &session, &tls, started, started + timeout).await
        });
    }
    while let Some(one) = tasks.join_next().await {
        let Ok(one) = one else { continue };
        total.connections += 1;
        total.connected += one.connected;
        total.upgraded += one.upgraded;
        total.subscribed += one.subscribed;
        total.listings += one.listings;
        total.acked += one.acked;
        total.live += one.live;
        total.refused.extend(one.refused);
        let earlier = |held: &FirstPrice, new: &FirstPrice| {
            if new.after < held.after { new.clone() } else { held.clone() }
        };
        total.first = match (total.first.take(), one.first) {
            (Some(held), Some(new)) => Some(earlier(&held, &new)),
            (held, new) => held.or(new),
        };
        total.problem = total.problem.or(one.problem);
    }
    total
}

/// Tries one connection until it has shown all it can, failed, or the time is up.
async fn attempt(
    row: &Arc<Row>,
    session: &Session,
    tls: &Arc<rustls::ClientConfig>,
    started: Instant,
    until: Instant,
) -> Verified {
    let mut ears = Ears::new(session, started);
    let mut seen = Verified { listings: session.listings.len(), ..Verified::default() };
    let ended = timeout_at(until, speak(row, session, tls, &mut ears, &mut seen)).await;
    let needed = (until - started).as_secs();
    seen.problem = match ended {
        Ok(result) => result.err(),
        Err(_) if ears.first.is_some() => None,
        Err(_) => Some(too_slow(&seen, needed, &ears.words)),
    };
    seen.acked = ears.count(&State::Acked);
    seen.live = ears.count(&State::Live);
    (seen.first, seen.refused) = (ears.first, ears.refused);
    seen
}

fn problem(what: String, cure: &str) -> Option<Problem> {
    Some(Problem { what, cure: cure.into() })
}

const REACH: &str = "see whether this machine reaches that host and port (name resolution, firewall, \
                     proxy); feeds.<name>.url sets another";

/// What is missing when the time is up, by how far it went.
fn too_slow(seen: &Verified, seconds: u64, words: &Option<String>) -> Problem {
    let (what, cure) = if seen.connected == 0 {
        (format!("no connection within {seconds} s"), REACH)
    } else if seen.upgraded == 0 {
        (
            format!("connected, but the WebSocket upgrade was not answered within {seconds} s"),
            "see whether feeds.<name>.url names a WebSocket endpoint",
        )
    } else {
        (
            format!("subscribed, but no price within {seconds} s; needs one trade of one listing"),
            "give a longer --timeout where little is traded; else compare subscribe, symbol, price and time \
             of the row with the exchange's documents",
        )
    };
    let said = words.as_ref().map(|words| format!("; the exchange says: {words}")).unwrap_or_default();
    Problem { what: format!("{what}{said}"), cure: cure.into() }
}

async fn speak(
    row: &Arc<Row>,
    session: &Session,
    tls: &Arc<rustls::ClientConfig>,
    ears: &mut Ears<'_>,
    seen: &mut Verified,
) -> Result<(), Problem> {
    let found = |what: String, cure: &str| Problem { what, cure: cure.into() };
    let endpoint = Endpoint::parse(&row.url)
        .ok_or_else(|| found("no ws:// or wss:// URL".into(), "correct feeds.<name>.url"))?;
    let stream =
        connect(&endpoint, tls).await.map_err(|why| found(format!("no connection: {why}"), REACH))?;
    seen.connected = 1;
    let listings = session.listings.iter().map(|(symbol, id)| (symbol.as_str(), *id));
    let connection = Connection::new(Arc::clone(row), listings, random(), RealClock.now())
        .map_err(|e| found(e.to_string(), "correct that field of the row"))?;
    match stream {
        Stream::Plain(stream) => converse(stream, connection, ears, seen).await,
        Stream::Secure(stream) => converse(stream, connection, ears, seen).await,
    }
}

/// Carries bytes between the exchange and the connection.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut connection: Connection,
    ears: &mut Ears<'_>,
    seen: &mut Verified,
) -> Result<(), Problem> {
    let broken =
        |e: std::io::Error| Problem { what: format!("the connection broke: {e}"), cure: REACH.into() };
    let mut bytes = vec![0; 64 << 10];
    loop {
        let phase = connection.phase();
        seen.upgraded = usize::from(phase != Phase::Upgrading);
        seen.subscribed = usize::from(phase == Phase::Live);
        if !connection.outbox().is_empty() {
            stream.write_all(connection.outbox()).await.map_err(broken)?;
            connection.outbox().clear();
        }
        if ears.nothing_left() {
            return Err(Problem {
                what: "every symbol was refused".into(),
                cure: "correct the symbols: assets.<name>.listings of the configuration, or assets_file"
                    .into(),
            });
        }
        if phase == Phase::Live && ears.heard_enough() {
            connection.close(RealClock.now());
            // Good manners only: what was to be shown has been shown.
            let _last_words = stream.write_all(connection.outbox()).await;
            return Ok(());
        }
        let result = tokio::select! {
            read = stream.read(&mut bytes) => match read.map_err(broken)? {
                0 => Err(Disconnect::Closed { code: None, reason: String::new() }),
                len => connection.receive(RealClock.now(), &bytes[..len], ears),
            },
            () = sleep_until(ears.wake_at(connection.deadline())) => connection.tick(RealClock.now()),
        };
        if let Err(why) = result {
            let said = ears.words.as_ref().map(|w| format!("; it said before: {w}")).unwrap_or_default();
            return Err(Problem { what: format!("{why}{said}"), cure: cure(&why).into() });
        }
    }
}

fn cure(why: &Disconnect) -> &'static str {
    match why {
        Disconnect::Upgrade(_) | Disconnect::UpgradeTimeout => {
            "try again later, or from another address; feeds.<name>.url sets another endpoint"
        }
        Disconnect::Silent(_) => "see ping, ping_every_s and dead_after_s of the row",
        Disconnect::Protocol(_) => "see whether a proxy stands between; else report this",
        Disconnect::Closed { .. } | Disconnect::NotReading | Disconnect::Drained => {
            "compare subscribe, msg_gap_ms and max_per_msg of the row with the exchange's limits"
        }
    }
}

/// How a listing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Acked,
    Live,
    Refused,
}

/// Hears what a connection learns and notes it.
struct Ears<'s> {
    symbols: HashMap<ListingId, &'s str>,
    states: HashMap<ListingId, State>,
    refused: Vec<RefusedSymbol>,
    first: Option<FirstPrice>,
    /// The last thing the exchange complained about.
    words: Option<String>,
    started: Instant,
    news_at: Instant,
}

impl<'s> Ears<'s> {
    fn new(session: &'s Session, started: Instant) -> Self {
        Self {
            symbols: session.listings.iter().map(|(symbol, id)| (*id, symbol.as_str())).collect(),
            states: HashMap::new(),
            refused: Vec::new(),
            first: None,
            words: None,
            started,
            news_at: started,
        }
    }

    fn count(&self, state: &State) -> usize {
        self.states.values().filter(|held| *held == state).count()
    }

    fn nothing_left(&self) -> bool {
        self.count(&State::Refused) == self.symbols.len()
    }

    /// There is a price, and either every listing has been heard of or nothing new comes.
    fn heard_enough(&self) -> bool {
        let all = self.count(&State::Live) + self.count(&State::Refused) == self.symbols.len();
        self.first.is_some() && (all || Instant::now() >= self.news_at + QUIET_AFTER)
    }

    /// When the connection or this wants to look again.
    fn wake_at(&self, deadline: MonoNs) -> Instant {
        let now = Instant::now();
        let wait = deadline.since(RealClock.now().mono).min(Duration::from_secs(3_600));
        let quiet = self.news_at + QUIET_AFTER;
        if self.first.is_some() { quiet.min(now + wait) } else { now + wait }
    }

    fn note(&mut self, listing: ListingId, state: State) {
        self.states.insert(listing, state);
        self.news_at = Instant::now();
    }

    fn symbol(&self, listing: ListingId) -> String {
        self.symbols.get(&listing).map_or_else(String::new, |symbol| (*symbol).to_owned())
    }
}

impl Sink for Ears<'_> {
    fn trade(&mut self, trade: Trade) {
        if self.first.is_none() {
            self.first = Some(FirstPrice {
                symbol: self.symbol(trade.listing),
                price: trade.price,
                time: trade.key.time,
                after: self.started.elapsed(),
            });
        }
    }

    fn heard(&mut self, _: MonoNs) {}

    fn live(&mut self, listing: ListingId) {
        self.note(listing, State::Live);
    }

    fn acked(&mut self, listing: ListingId) {
        self.note(listing, State::Acked);
    }

    fn symbol_refused(&mut self, listing: ListingId, words: &str) {
        let symbol = self.symbol(listing);
        self.refused.push(RefusedSymbol { symbol, words: words.to_owned() });
        self.note(listing, State::Refused);
    }

    fn error(&mut self, words: &str) {
        self.words = Some(words.to_owned());
    }

    fn reconnect_soon(&mut self) {}
}
