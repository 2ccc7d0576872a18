//! One client's WebSocket connection: a protocol between a socket, the market's events and the time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::market::Trade;
use super::options::Speed;
use super::protocol::{Context, Outgoing, Protocol, open};
use super::replay::Replay;
use super::sim::{Desk, Event, now_ns};

/// How often a protocol is told that time passes.
const TICK: Duration = Duration::from_millis(100);

/// A client that takes nothing for so long is let go.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// A replay starts so long after the last subscription, so that a client can split its symbols over
/// several requests.
const REPLAY_AFTER: Duration = Duration::from_millis(100);

/// Frames of a replay that are sent before anything else gets a turn.
const REPLAY_BATCH: usize = 64;

/// Longest message taken from a client.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// Trades that are sent again when old ones are asked for.
const OLD_TRADES: usize = 20;

/// The end of the connection, for whatever reason.
struct Ended;

enum Step {
    Received(Message),
    Event(Event),
    Tick,
    Replay,
    Ended,
}

/// Where a connection is in the recording.
enum Playing {
    No,
    /// Until the client has subscribed.
    Waiting,
    /// The frame that is next, and when.
    Next(usize, Instant),
}

struct Session<S> {
    desk: Arc<Desk>,
    socket: WebSocketStream<S>,
    protocol: Box<dyn Protocol>,
    opened: Instant,
    /// When a text frame last went either way.
    traffic_at: Instant,
    playing: Playing,
    speed: Speed,
}

/// Serves one upgraded connection to its end.
pub(super) async fn run<S>(desk: Arc<Desk>, stream: S, connection: u64, speed: Speed)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_LEN_MAX);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let playing = if desk.replay.is_some() { Playing::Waiting } else { Playing::No };
    let protocol = open(desk.exchange, connection);
    let mut session = Session {
        desk,
        socket,
        protocol,
        opened: Instant::now(),
        traffic_at: Instant::now(),
        playing,
        speed,
    };
    // Ended is the only way out.
    let Err(Ended) = session.serve().await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn serve(&mut self) -> Result<std::convert::Infallible, Ended> {
        let mut events = self.desk.events.subscribe();
        let mut stalled = self.desk.stalled.subscribe();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let out = self.react(|protocol, context| protocol.opened(context));
        self.send(out).await?;
        loop {
            if *stalled.borrow_and_update() {
                // Open and dead: nothing is read, nothing is sent, pings are not answered.
                stalled.changed().await.map_err(|_| Ended)?;
                continue;
            }
            let due = match self.playing {
                Playing::Next(_, due) => Some(due),
                Playing::No | Playing::Waiting => None,
            };
            let step = tokio::select! {
                // In this order, so that a stall takes hold before anything that was commanded after it.
                biased;
                _ = stalled.changed() => continue,
                _ = ticks.tick() => Step::Tick,
                message = self.socket.next() => match message {
                    Some(Ok(message)) => Step::Received(message),
                    _ => Step::Ended,
                },
                event = events.recv() => match event {
                    Ok(event) => Step::Event(event),
                    // A reader this slow is let go, as the exchanges do.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => Step::Ended,
                },
                () = sleep_until(due.unwrap_or(self.opened)), if due.is_some() => Step::Replay,
            };
            match step {
                Step::Received(Message::Text(text)) => {
                    self.traffic_at = Instant::now();
                    let out = self.react(|protocol, context| protocol.received(text.as_str(), context));
                    self.send(out).await?;
                    self.plan_replay();
                }
                Step::Received(Message::Ping(_)) => {
                    // The library answers by itself.
                    self.desk.tally.control_pings.fetch_add(1, Relaxed);
                }
                Step::Received(_) => {}
                Step::Event(event) => self.happened(event).await?,
                Step::Tick => {
                    let out = self.react(|protocol, context| protocol.ticked(context));
                    self.send(out).await?;
                }
                Step::Replay => self.replay_some().await?,
                Step::Ended => return Err(Ended),
            }
        }
    }

    /// Lets the protocol act on one event and counts what came of it.
    fn react(&mut self, act: impl FnOnce(&mut dyn Protocol, &mut Context<'_>)) -> Vec<Outgoing> {
        let desk = &self.desk;
        let mut market = desk.market();
        let mut context = Context::new(now_ns(), whole_ms(self.opened.elapsed()), &mut market);
        context.idle_ms = whole_ms(self.traffic_at.elapsed());
        context.snapshots = desk.replay.is_none();
        // Until a recording has run, its own heartbeats are enough.
        context.heartbeats =
            matches!(self.playing, Playing::No) && !desk.flags.silent_heartbeats.load(Relaxed);
        context.answers_pings = !desk.flags.ignored_pings.load(Relaxed);
        act(&mut *self.protocol, &mut context);
        desk.tally.pings_answered.fetch_add(context.pings_answered, Relaxed);
        desk.tally.heartbeats_answered.fetch_add(context.heartbeats_answered, Relaxed);
        desk.tally.subscriptions.fetch_add(context.subscribed, Relaxed);
        context.out
    }

    async fn happened(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Trades(trades) => {
                let out = self.react(|protocol, context| protocol.traded(&trades, context));
                self.send(out).await
            }
            Event::Old => {
                let out = self.react(|protocol, context| {
                    for symbol in protocol.symbols().clone() {
                        let mut trades = context.market.oldest_first(&symbol, usize::MAX);
                        trades.truncate(OLD_TRADES);
                        protocol.traded(&trades, context);
                    }
                });
                self.send(out).await
            }
            Event::Notice => {
                let out = self.react(|protocol, context| protocol.noticed(context));
                self.send(out).await
            }
            Event::Garbage => {
                let out = self.react(garbage);
                self.send(out).await?;
                self.write(Message::Binary(vec![0, 255, 1, 254, b'{'].into())).await
            }
            Event::Broken => {
                // A frame with reserved bits and an unknown opcode.
                let raw = self.socket.get_mut();
                raw.write_all(&[0xff; 16]).await.map_err(|_| Ended)?;
                raw.flush().await.map_err(|_| Ended)
            }
        }
    }

    async fn send(&mut self, out: Vec<Outgoing>) -> Result<(), Ended> {
        for outgoing in out {
            match outgoing {
                Outgoing::Text(text) => {
                    self.write(Message::text(text)).await?;
                    self.traffic_at = Instant::now();
                }
                Outgoing::Ping => self.write(Message::Ping(Vec::new().into())).await?,
                Outgoing::Close(code, reason) => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    self.write(Message::Close(Some(frame))).await?;
                    // The client's own close frame, or whatever else ends it.
                    let _ =
                        timeout(SEND_WITHIN, async { while let Some(Ok(_)) = self.socket.next().await {} })
                            .await;
                    return Err(Ended);
                }
                Outgoing::Cut => return Err(Ended),
            }
        }
        Ok(())
    }

    async fn write(&mut self, message: Message) -> Result<(), Ended> {
        // Counted first: whoever has received it finds it counted.
        self.desk.tally.frames_sent.fetch_add(1, Relaxed);
        let sent = timeout(SEND_WITHIN, self.socket.send(message)).await;
        matches!(sent, Ok(Ok(()))).then_some(()).ok_or(Ended)
    }

    /// After each request of the client: the replay starts a moment after its last subscription.
    fn plan_replay(&mut self) {
        let may_start = matches!(self.playing, Playing::Waiting | Playing::Next(0, _));
        if may_start && !self.protocol.symbols().is_empty() {
            self.playing = Playing::Next(0, Instant::now() + REPLAY_AFTER);
        }
    }

    /// Sends the frames that are due, a batch at most.
    async fn replay_some(&mut self) -> Result<(), Ended> {
        let Some(replay) = self.desk.replay.clone() else { return Ok(()) };
        let Playing::Next(mut index, mut due) = self.playing else { return Ok(()) };
        for _ in 0..REPLAY_BATCH {
            let Some(text) = replay.text(index).filter(|_| due <= Instant::now()) else { break };
            self.desk.tally.frames_sent.fetch_add(1, Relaxed);
            let fed = timeout(SEND_WITHIN, self.socket.feed(Message::Text(text))).await;
            matches!(fed, Ok(Ok(()))).then_some(()).ok_or(Ended)?;
            index += 1;
            due += replay.pause_before(index, self.speed);
        }
        let flushed = timeout(SEND_WITHIN, self.socket.flush()).await;
        matches!(flushed, Ok(Ok(()))).then_some(()).ok_or(Ended)?;
        self.traffic_at = Instant::now();
        self.playing = Playing::Next(index, due);
        self.finish(&replay, index);
        Ok(())
    }

    fn finish(&mut self, replay: &Replay, index: usize) {
        if index >= replay.len() {
            self.playing = Playing::No;
            self.desk.tally.replays_finished.fetch_add(1, Relaxed);
        }
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What no parser should fall over, and no price should come of: texts that are not JSON, JSON that is
/// no frame, and the exchange's own trade frames with senseless prices and times.
fn garbage(protocol: &mut dyn Protocol, context: &mut Context<'_>) {
    let deep = "[".repeat(5_000);
    let shapes = [
        "",
        " ",
        "garbage",
        "{",
        "\"",
        "\u{0}\u{1}",
        "null",
        "true",
        "-0",
        "1e999",
        "[]",
        "{}",
        "[[[]]]",
        r#"{"channel":7}"#,
        r#"{"channel":"trade","data":{}}"#,
        r#"{"result":[{"data":null}]}"#,
        r#"{"data":[{"p":"1"}],"topic":null}"#,
        r#"{"events":[{"trades":[{}]}],"channel":"market_trades"}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"event":"update","channel":"spot.trades","result":null}"#,
        &deep,
    ];
    context.out.extend(shapes.map(|text| Outgoing::Text(text.to_owned())));
    let Some(symbol) = protocol.symbols().first().cloned() else { return };
    let id = context.market.last(&symbol).map_or(1, |trade| trade.id).saturating_add(1_000_000);
    let make = |price: &str, time_ns| Trade {
        symbol: symbol.as_str().into(),
        price: price.into(),
        size: "1".into(),
        time_ns,
        id,
        taker_buys: true,
    };
    let nines = "9".repeat(40);
    for price in ["-1", "0", "NaN", "Infinity", "1e308", "", "1.2.3", "0x10", "null", "5 6", "--5", &nines] {
        protocol.traded(&[make(price, context.now_ns)], context);
    }
    // A good price a year ahead, and one from the dawn of time.
    for time_ns in [context.now_ns.saturating_add(31_536_000_000_000_000), 0] {
        protocol.traded(&[make("123.45", time_ns)], context);
    }
}
