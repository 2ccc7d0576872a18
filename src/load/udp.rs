//! The UDP generator: some sockets on one thread, in batches, spinning.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::flights::{Flights, Landing};
use super::requests::{Requests, Verdict};
use super::tally::Tally;
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::net::{connect_udp, socket_drops};
use crate::sys::pin::pin_thread;
use crate::time::{Clock, MonoNs, RealClock};

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Closed loop: each socket keeps this many requests under way.
    Window(usize),
    /// Open loop: requests leave by schedule whether or not answers come, and latency counts from
    /// when they should have left.
    Rate {
        /// Requests a second over all sockets; at least 1.
        per_s: u64,
        /// Requests under way on a socket above which the schedule's next ones are held back and
        /// counted.
        in_flight_max: usize,
    },
}

/// How to load a server.
#[derive(Clone, Debug)]
pub struct UdpLoadOptions {
    /// Where it listens.
    pub server: SocketAddr,
    /// How many sockets ask it, 1 to 65,536.
    pub sockets: usize,
    /// When they ask.
    pub pace: Pace,
    /// A request without an answer for this long is given up.
    pub lost_after: Duration,
    /// The processor [`UdpLoad::open`] keeps the calling thread on.
    pub cpu: Option<usize>,
    /// Datagrams moved in one call of the kernel.
    pub batch_len: usize,
    /// Socket buffers asked for, in bytes.
    pub socket_buffer_len: usize,
}

impl UdpLoadOptions {
    /// Four sockets with 64 requests under way on each, given up after a second: enough to keep one
    /// core of a server at work.
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            sockets: 4,
            pace: Pace::Window(64),
            lost_after: Duration::from_secs(1),
            cpu: None,
            batch_len: 64,
            socket_buffer_len: 4 << 20,
        }
    }
}

/// A generator under way. Stretches may follow one another without a pause:
/// [`run`](Self::run) to warm up, `run` to measure, [`finish`](Self::finish) to settle.
pub struct UdpLoad<R> {
    requests: R,
    lines: Vec<Line>,
    schedule: Option<Schedule>,
    received: ReceiveBatch,
    outgoing: SendBatch,
    /// Ids of what is in `outgoing`, oldest first.
    outgoing_ids: Vec<u64>,
    options: UdpLoadOptions,
    expire_at: MonoNs,
    /// The line whose turn it is, so that an open loop spreads over all of them.
    next_line: usize,
}

/// One socket and what is under way on it.
struct Line {
    socket: UdpSocket,
    flights: Flights,
    drops_seen: u32,
}

impl<R: Requests> UdpLoad<R> {
    /// Opens the sockets, connected to the server, and pins the calling thread.
    ///
    /// # Errors
    /// The kernel's, for opening, connecting or pinning.
    pub fn open(options: UdpLoadOptions, requests: R) -> io::Result<Self> {
        if let Some(cpu) = options.cpu {
            pin_thread(cpu)?;
        }
        let (most, schedule) = match options.pace {
            Pace::Window(window) => (window, None),
            Pace::Rate { per_s, in_flight_max } => (in_flight_max, Some(Schedule::new(per_s))),
        };
        let mut lines = Vec::with_capacity(options.sockets);
        for index in 0..=u16::MAX {
            if usize::from(index) >= options.sockets.max(1) {
                break;
            }
            let socket = connect_udp(options.server, options.socket_buffer_len)?;
            lines.push(Line { socket, flights: Flights::new(index, most), drops_seen: 0 });
        }
        Ok(Self {
            requests,
            lines,
            schedule,
            received: ReceiveBatch::payload_only(options.batch_len),
            outgoing: SendBatch::new(options.batch_len),
            outgoing_ids: Vec::with_capacity(options.batch_len),
            options,
            expire_at: MonoNs(0),
            next_line: 0,
        })
    }

    /// Loads the server for `duration` and tells what became of it. Requests under way at the end
    /// stay so; their answers count in the next stretch.
    ///
    /// # Errors
    /// The kernel's, other than a full socket or a port nobody listens on.
    pub fn run(&mut self, duration: Duration) -> io::Result<Tally> {
        let start = RealClock.now().mono;
        if let Some(schedule) = &mut self.schedule {
            schedule.start(start);
        }
        self.stretch(start, start.plus(duration), true)
    }

    /// Sends nothing more and waits until every request is answered or given up.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn finish(&mut self) -> io::Result<Tally> {
        let start = RealClock.now().mono;
        // Half again as long, so that the last ones are given up rather than forgotten.
        self.stretch(start, start.plus(self.options.lost_after * 3 / 2), false)
    }

    /// Requests under way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lines.iter().map(|line| line.flights.waiting()).sum()
    }

    fn stretch(&mut self, start: MonoNs, end: MonoNs, sending: bool) -> io::Result<Tally> {
        let mut tally = Tally::new();
        let mut now = start;
        while now < end && (sending || self.in_flight() > 0) {
            let before = tally.latency_ns.len() + tally.sent;
            for _ in 0..self.lines.len() {
                let line = self.next_line;
                self.next_line = (line + 1) % self.lines.len();
                self.receive(line, &mut tally)?;
                if sending {
                    self.send(line, &mut tally)?;
                }
            }
            let turn_start = std::mem::replace(&mut now, RealClock.now().mono);
            if tally.latency_ns.len() + tally.sent == before {
                tally.idle += now.since(turn_start);
            }
            if now >= self.expire_at {
                self.expire(now, &mut tally);
            }
        }
        self.expire(now, &mut tally);
        for line in &mut self.lines {
            let drops = socket_drops(&line.socket);
            tally.dropped += u64::from(drops.wrapping_sub(line.drops_seen));
            line.drops_seen = drops;
        }
        tally.elapsed = now.since(start);
        Ok(tally)
    }

    fn receive(&mut self, line: usize, tally: &mut Tally) -> io::Result<()> {
        let line = &mut self.lines[line];
        let count = match self.received.receive(&line.socket, self.options.batch_len) {
            Ok(count) => count,
            Err(e) if passing(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let now = RealClock.now().mono;
        for slot in 0..count {
            let answer = self.received.payload(slot);
            let (id, refused) = match self.requests.check(answer) {
                Verdict::Match(id) => (id, None),
                Verdict::Refused(id, code) => (id, Some(code)),
                Verdict::Wrong => {
                    tally.wrong += 1;
                    continue;
                }
            };
            match line.flights.land(id, now) {
                Landing::InTime(latency) => {
                    tally.record_latency(latency);
                    match refused {
                        Some(code) => tally.record_refused(code),
                        None => {
                            tally.matched += 1;
                            tally.answer_bytes += answer.len() as u64;
                        }
                    }
                }
                Landing::Late => tally.late += 1,
                Landing::Duplicate => tally.duplicate += 1,
                Landing::NotOurs => tally.wrong += 1,
            }
        }
        Ok(())
    }

    /// One batch at most, so that no socket waits for another's window.
    fn send(&mut self, line: usize, tally: &mut Tally) -> io::Result<()> {
        let line = &mut self.lines[line];
        let now = RealClock.now();
        let share = match &mut self.schedule {
            None => line.flights.free(),
            // An even share of what is due, at least one.
            Some(schedule) => schedule.due(now.mono).div_ceil(self.options.sockets.max(1)),
        };
        self.outgoing_ids.clear();
        for _ in 0..share.min(self.outgoing.free()) {
            let from = self.schedule.as_mut().map_or(now.mono, Schedule::take);
            let Some(id) = line.flights.depart(from) else {
                tally.held_back += 1;
                continue;
            };
            let len = self.requests.fill(id, now.unix, self.outgoing.room());
            self.outgoing.push_connected(len);
            self.outgoing_ids.push(id);
        }
        let mut gone = 0;
        while !self.outgoing.is_empty() {
            match self.outgoing.send(&line.socket) {
                Ok(sent) => {
                    gone += sent;
                    tally.sent += sent as u64;
                }
                Err(e) if passing(&e) => {
                    // The socket is full, or an earlier request went unheard: the oldest stays here.
                    self.outgoing.skip();
                    line.flights.cancel(self.outgoing_ids[gone]);
                    gone += 1;
                    tally.send_failed += 1;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: MonoNs, tally: &mut Tally) {
        for line in &mut self.lines {
            tally.overdue += line.flights.expire(now, self.options.lost_after);
        }
        self.expire_at = now.plus(self.options.lost_after / 8);
    }
}

/// Errors after which a generator goes on: nothing waits, the socket is full, or an earlier request
/// met a port where nobody listens.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// When the requests of an open loop should leave: the n-th after n / rate.
struct Schedule {
    per_s: u64,
    start: MonoNs,
    taken: u64,
}

impl Schedule {
    fn new(per_s: u64) -> Self {
        Self { per_s: per_s.max(1), start: MonoNs(0), taken: 0 }
    }

    fn start(&mut self, now: MonoNs) {
        (self.start, self.taken) = (now, 0);
    }

    /// How many should have left by now and have not been taken.
    fn due(&self, now: MonoNs) -> usize {
        let elapsed_ns = now.since(self.start).as_nanos();
        let scheduled = elapsed_ns * u128::from(self.per_s) / 1_000_000_000 + 1;
        usize::try_from(scheduled.saturating_sub(u128::from(self.taken))).unwrap_or(usize::MAX)
    }

    /// Takes the next one and tells when it should leave.
    fn take(&mut self) -> MonoNs {
        let offset_ns = u128::from(self.taken) * 1_000_000_000 / u128::from(self.per_s);
        self.taken += 1;
        MonoNs(self.start.0.saturating_add(u64::try_from(offset_ns).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use super::super::requests::Echo;
    use super::*;

    /// Answers what `answer` makes of each request until one of a single byte comes.
    fn server(
        mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> (SocketAddr, UdpSocket, JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut request = [0; 2_048];
            loop {
                let (len, from) = socket.recv_from(&mut request).unwrap();
                if len == 1 {
                    return;
                }
                for datagram in answer(&request[..len]) {
                    socket.send_to(&datagram, from).unwrap();
                }
            }
        });
        let stop = UdpSocket::bind("127.0.0.1:0").unwrap();
        stop.connect(address).unwrap();
        (address, stop, thread)
    }

    fn echo(request: &[u8]) -> Vec<u8> {
        let mut answer = vec![Echo::ANSWER_FILL; 64];
        answer[..Echo::ID_LEN].copy_from_slice(&request[..Echo::ID_LEN]);
        answer
    }

    fn load(options: UdpLoadOptions) -> Tally {
        let mut load = UdpLoad::open(options, Echo::new(48, 64)).unwrap();
        let mut tally = load.run(Duration::from_millis(50)).unwrap();
        tally.add(&load.finish().unwrap());
        assert_eq!(load.in_flight(), 0);
        assert_eq!(tally.sent, tally.matched + tally.refused() + tally.late + tally.lost());
        tally
    }

    #[test]
    fn both_paces_match_every_answer() {
        let (address, stop, thread) = server(|request| vec![echo(request)]);
        for pace in [Pace::Window(8), Pace::Rate { per_s: 2_000, in_flight_max: 1_000 }] {
            let tally = load(UdpLoadOptions { pace, ..UdpLoadOptions::new(address) });
            assert!(tally.matched > 0, "{tally:?}");
            assert_eq!(tally.matched, tally.sent, "{tally:?}");
            assert_eq!(tally.latency_ns.len(), tally.matched);
            assert_eq!(tally.answer_bytes, tally.matched * 64);
        }
        stop.send(b"!").unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn lost_duplicate_wrong_and_late_answers_are_told_apart() {
        let mut count = 0_u64;
        let mut slept = false;
        let (address, stop, thread) = server(move |request| {
            count += 1;
            let mut bad = echo(request);
            bad[63] = 0;
            let mut foreign = echo(request);
            foreign[6] ^= 1;
            match count % 8 {
                0 => Vec::new(),
                1 => vec![echo(request), echo(request)],
                2 => vec![bad, echo(request)],
                3 => vec![foreign, echo(request)],
                // Once, an answer waits until long after its request was given up.
                4 if !slept => {
                    slept = true;
                    std::thread::sleep(Duration::from_millis(20));
                    vec![echo(request)]
                }
                _ => vec![echo(request)],
            }
        });
        let lost_after = Duration::from_millis(5);
        let tally =
            load(UdpLoadOptions { lost_after, pace: Pace::Window(4), ..UdpLoadOptions::new(address) });
        assert!(tally.duplicate > 0 && tally.wrong > 1 && tally.late > 0 && tally.lost() > 0, "{tally:?}");
        stop.send(b"!").unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_is_not_there_is_survived_and_counted() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let lost_after = Duration::from_millis(5);
        let tally = load(UdpLoadOptions { lost_after, ..UdpLoadOptions::new(gone) });
        assert_eq!(tally.matched, 0);
        assert!(tally.lost() > 0);
    }

    #[test]
    fn a_schedule_holds_its_rate_and_counts_from_when_it_should_have_left() {
        let mut schedule = Schedule::new(1_000);
        schedule.start(MonoNs(5_000));
        assert_eq!(schedule.due(MonoNs(5_000)), 1);
        assert_eq!(schedule.due(MonoNs(5_000 + 2_000_000)), 3);
        let taken: Vec<_> = (0..3).map(|_| schedule.take().0).collect();
        assert_eq!(taken, [5_000, 1_005_000, 2_005_000]);
        assert_eq!(schedule.due(MonoNs(5_000 + 2_000_000)), 0);
    }
}
