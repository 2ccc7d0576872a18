//! The UDP generator: some sockets on one thread, in batches, spinning.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::cpu::thread_cpu;
use super::flights::{Flights, Landing};
use super::requests::{Requests, Verdict};
use super::schedule::Schedule;
use super::step::{Share, StepPace, Stop};
use super::tally::{Broken, Tally};
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
    /// Ends a stretch early.
    pub stop: Stop,
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
            stop: Stop::new(),
        }
    }
}

/// A generator under way. Stretches may follow one another without a pause:
/// [`run`](Self::run) to warm up, `run` to measure, [`finish`](Self::finish) to settle.
pub struct UdpLoad<R> {
    requests: R,
    lines: Vec<Line>,
    /// How many of the lines are in use, from the first.
    lines_used: usize,
    schedule: Option<Schedule>,
    /// Requests that may still be sent.
    left: u64,
    received: ReceiveBatch,
    outgoing: SendBatch,
    /// Ids of what is in `outgoing`, oldest first.
    outgoing_ids: Vec<u64>,
    options: UdpLoadOptions,
    /// The line whose turn it is, so that an open loop spreads over all of them.
    next_line: usize,
    /// When a request of the schedule last found no room to leave.
    blocked_at: MonoNs,
    /// How much of the schedule has been reported.
    scheduled_told: u64,
}

/// One socket and what is under way on it.
struct Line {
    socket: UdpSocket,
    flights: Flights,
    window: usize,
    drops_seen: u32,
}

/// Slots of a line that are looked at for overdue requests in one turn.
const SWEEP_LEN: usize = 64;

/// How often in a row the kernel may say that nobody listens before the turn ends.
const REFUSALS_MAX: usize = 64;

impl<R: Requests> UdpLoad<R> {
    /// Opens the sockets, connected to the server, and pins the calling thread.
    ///
    /// # Errors
    /// The kernel's, for opening, connecting or pinning.
    pub fn open(options: UdpLoadOptions, requests: R) -> io::Result<Self> {
        if let Some(cpu) = options.cpu {
            pin_thread(cpu)?;
        }
        let (window, schedule) = match options.pace {
            Pace::Window(window) => (window, None),
            Pace::Rate { per_s, in_flight_max } => (in_flight_max, Some(Schedule::new(per_s, 0, 1))),
        };
        let sockets = options.sockets.max(1);
        let mut load = Self {
            requests,
            lines: Vec::with_capacity(sockets),
            lines_used: 0,
            schedule,
            left: u64::MAX,
            received: ReceiveBatch::payload_only(options.batch_len),
            outgoing: SendBatch::new(options.batch_len),
            outgoing_ids: Vec::with_capacity(options.batch_len),
            options,
            next_line: 0,
            blocked_at: MonoNs(0),
            scheduled_told: 0,
        };
        load.use_lines(sockets, |_| window.clamp(1, Flights::MOST))?;
        Ok(load)
    }

    /// Loads the server for `duration` and tells what became of it. Requests under way at the end
    /// stay so; their answers count in the next stretch. An open loop's schedule begins anew.
    ///
    /// # Errors
    /// The kernel's, other than a full socket or a port nobody listens on.
    pub fn run(&mut self, duration: Duration) -> io::Result<Tally> {
        let start = RealClock.now().mono;
        self.left = u64::MAX;
        self.begin(start, MonoNs::NEVER);
        Ok(self.run_until(start.plus(duration))?)
    }

    /// Sends nothing more and waits until every request is answered or given up.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn finish(&mut self) -> io::Result<Tally> {
        let now = RealClock.now().mono;
        self.left = 0;
        if let Some(schedule) = &mut self.schedule {
            schedule.begin(now, now);
        }
        Ok(self.settle()?)
    }

    /// Requests under way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lines.iter().map(|line| line.flights.waiting()).sum()
    }

    /// Opens what a share needs. Nothing may be under way.
    pub(crate) fn prepare(&mut self, share: &Share) -> io::Result<()> {
        self.left = share.requests.unwrap_or(u64::MAX);
        match share.pace {
            StepPace::Window(window) => {
                self.schedule = None;
                let window = usize::try_from(window).unwrap_or(usize::MAX);
                let sockets = share.sockets.min(window);
                let part = |line| window / sockets + usize::from(line < window % sockets);
                self.use_lines(sockets, part)
            }
            StepPace::Rate(per_s) => {
                self.schedule = Some(Schedule::new(per_s, share.index, share.of));
                self.use_lines(share.sockets, |_| Flights::MOST)
            }
        }
    }

    /// Opens lines until there are so many, and gives each its window.
    fn use_lines(&mut self, count: usize, window: impl Fn(usize) -> usize) -> io::Result<()> {
        self.lines_used = 0;
        for index in 0..count {
            let most = window(index);
            if index == self.lines.len() {
                let number = u16::try_from(index).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidInput, "more than 65,536 sockets on one thread")
                })?;
                let socket = connect_udp(self.options.server, self.options.socket_buffer_len)?;
                let flights = Flights::new(number, most, self.requests.wire_id());
                self.lines.push(Line { socket, flights, window: most, drops_seen: 0 });
            }
            let line = &mut self.lines[index];
            line.flights.grow(most);
            line.window = most;
            self.lines_used = index + 1;
        }
        self.next_line = 0;
        Ok(())
    }

    /// Begins the schedule of an open loop; no request of it is to leave from `end` on.
    pub(crate) fn begin(&mut self, start: MonoNs, end: MonoNs) {
        self.scheduled_told = 0;
        if let Some(schedule) = &mut self.schedule {
            schedule.begin(start, end);
        }
    }

    /// Loads the server until `end`, or until all that was to be sent is sent and answered.
    pub(crate) fn run_until(&mut self, end: MonoNs) -> Result<Tally, Broken> {
        self.stretch(end, false)
    }

    /// Waits until every request is answered or given up. What a schedule still owes leaves late.
    pub(crate) fn settle(&mut self) -> Result<Tally, Broken> {
        let now = RealClock.now().mono;
        if let Some(schedule) = &mut self.schedule {
            schedule.cut(now);
        } else {
            self.left = 0;
        }
        // Half again as long, so that the last ones are given up rather than forgotten.
        let mut tally = self.stretch(now.plus(self.options.lost_after * 3 / 2), true)?;
        self.give_up(&mut tally);
        Ok(tally)
    }

    /// Gives up all that is under way.
    fn give_up(&mut self, tally: &mut Tally) {
        let (now, lost_after) = (RealClock.now().mono, self.options.lost_after);
        for line in &mut self.lines {
            tally.overdue += line.flights.expire(now.plus(lost_after), lost_after);
        }
    }

    /// Whether all that was to be sent is sent and answered.
    pub(crate) fn is_done(&self, now: MonoNs, settling: bool) -> bool {
        let nothing_to_send = match &self.schedule {
            None => self.left == 0,
            Some(schedule) => settling && schedule.due(now) == 0,
        };
        nothing_to_send && self.in_flight() == 0
    }

    fn stretch(&mut self, end: MonoNs, settling: bool) -> Result<Tally, Broken> {
        let mut tally = Tally::new();
        let cpu = thread_cpu();
        let start = RealClock.now().mono;
        let ended = self.turns(start, end, settling, &mut tally);
        let now = *ended.as_ref().unwrap_or(&RealClock.now().mono);
        for line in &mut self.lines {
            let drops = socket_drops(&line.socket);
            tally.dropped += u64::from(drops.wrapping_sub(line.drops_seen));
            line.drops_seen = drops;
        }
        if let Some(schedule) = &self.schedule {
            let scheduled = schedule.scheduled(now);
            tally.scheduled += scheduled.saturating_sub(self.scheduled_told);
            self.scheduled_told = self.scheduled_told.max(scheduled);
        }
        tally.elapsed = now.since(start);
        tally.cpu = thread_cpu().saturating_sub(cpu);
        ended.map_err(|error| {
            self.give_up(&mut tally);
            Broken { tally: Box::new(tally.clone()), error }
        })?;
        Ok(tally)
    }

    /// Takes turns at all lines, until when it returns.
    fn turns(&mut self, start: MonoNs, end: MonoNs, settling: bool, tally: &mut Tally) -> io::Result<MonoNs> {
        let mut now = start;
        while now < end && !self.is_done(now, settling) && (settling || !self.options.stop.told()) {
            let (sent_before, mut came) = (tally.sent, 0);
            for _ in 0..self.lines_used {
                let line = self.next_line;
                self.next_line = (line + 1) % self.lines_used;
                came += self.receive(line, tally)?;
                self.send(line, tally)?;
            }
            let turn_start = std::mem::replace(&mut now, RealClock.now().mono);
            if came == 0 && tally.sent == sent_before {
                tally.idle += now.since(turn_start);
            }
            for line in &mut self.lines[..self.lines_used] {
                tally.overdue += line.flights.expire_some(now, self.options.lost_after, SWEEP_LEN);
            }
        }
        Ok(now)
    }

    /// Takes what has come; returns how many datagrams that were.
    fn receive(&mut self, line: usize, tally: &mut Tally) -> io::Result<usize> {
        let line = &mut self.lines[line];
        let mut refusals = 0;
        let count = loop {
            match self.received.receive(&line.socket, self.options.batch_len) {
                Ok(count) => break count,
                Err(e) if refused(&e) && refusals < REFUSALS_MAX => {
                    refusals += 1;
                    tally.port_closed += 1;
                }
                Err(e) if passing(&e) || barred(&e) => return Ok(0),
                Err(e) => return Err(e),
            }
        };
        let now = RealClock.now().mono;
        for slot in 0..count {
            let answer = self.received.payload(slot);
            let verdict = self.requests.check(answer);
            let (Verdict::Match(id) | Verdict::Refused(id, _) | Verdict::Wrong(id)) = verdict else {
                tally.stray += 1;
                continue;
            };
            let id = line.flights.whole(id);
            match (line.flights.land(id, now), verdict) {
                (Landing::InTime(_), Verdict::Wrong(_)) => tally.wrong += 1,
                (Landing::InTime(_), Verdict::Refused(_, code)) => tally.record_refused(code),
                (Landing::InTime(latency), _) => {
                    tally.record_latency(latency);
                    tally.matched += 1;
                    tally.answer_bytes += answer.len() as u64;
                }
                (Landing::Late, _) => tally.late += 1,
                (Landing::Duplicate, _) => tally.duplicate += 1,
                (Landing::NotOurs, _) => tally.stray += 1,
            }
        }
        Ok(count)
    }

    /// One batch at most, so that no socket waits for another's window.
    fn send(&mut self, line: usize, tally: &mut Tally) -> io::Result<()> {
        let lines = self.lines_used as u64;
        let line = &mut self.lines[line];
        let now = RealClock.now();
        let share = match &self.schedule {
            None => line.window.saturating_sub(line.flights.waiting()) as u64,
            // An even share of what is due, at least one.
            Some(schedule) => schedule.due(now.mono).div_ceil(lines),
        };
        let share = share.min(self.left).min(self.outgoing.free() as u64);
        if share == 0 {
            return Ok(());
        }
        self.outgoing_ids.clear();
        for _ in 0..share {
            let from = match &mut self.schedule {
                None => now.mono,
                Some(schedule) => {
                    let from = schedule.take();
                    tally.record_lag(now.mono.since(from.max(self.blocked_at)));
                    from
                }
            };
            let Some(id) = line.flights.depart(from) else {
                tally.held_back += 1;
                self.blocked_at = now.mono;
                continue;
            };
            let len = self.requests.fill(id, now.unix, self.outgoing.room());
            self.outgoing.push_connected(len);
            self.outgoing_ids.push(id);
        }
        let (mut gone, mut refusals) = (0, 0);
        while !self.outgoing.is_empty() {
            match self.outgoing.send(&line.socket) {
                Ok(sent) => {
                    gone += sent;
                    tally.sent += sent as u64;
                    self.left -= sent as u64;
                }
                // An earlier request went unheard. That is told once; the next try sends.
                Err(e) if refused(&e) && refusals < REFUSALS_MAX => {
                    refusals += 1;
                    tally.port_closed += 1;
                }
                Err(e) if passing(&e) || barred(&e) => {
                    // The socket is full, or nothing may leave: the oldest stays here.
                    self.outgoing.skip();
                    line.flights.cancel(self.outgoing_ids[gone]);
                    gone += 1;
                    tally.send_failed += 1;
                    // A full socket takes another soon; where nothing may leave, none is tried for it.
                    self.left -= u64::from(barred(&e));
                }
                Err(e) => {
                    self.outgoing_ids.drain(gone..).for_each(|id| line.flights.cancel(id));
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// The kernel has heard that nobody listens at the server's port.
fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Errors after which a generator goes on: nothing waits, the socket is full, or an earlier request
/// met a port where nobody listens.
fn passing(error: &io::Error) -> bool {
    refused(error)
        || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// A packet filter or a missing route keeps datagrams from leaving, which may pass: each of them is
/// counted, and the run goes on.
fn barred(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENETUNREACH | libc::EHOSTUNREACH))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
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
        assert_eq!(tally.sent, tally.matched + tally.refused() + tally.wrong + tally.late + tally.lost());
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
        let Tally { duplicate, wrong, stray, late, .. } = tally;
        assert!([duplicate, wrong, stray, late, tally.lost()].iter().all(|n| *n > 0), "{tally:?}");
        stop.send(b"!").unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_stretch_that_breaks_tells_what_it_had_come_to() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = UdpLoadOptions {
            sockets: 1,
            pace: Pace::Window(8),
            ..UdpLoadOptions::new(silent.local_addr().unwrap())
        };
        let mut load = UdpLoad::open(options, Echo::new(48, 64)).unwrap();
        while load.in_flight() < 8 {
            load.run(Duration::from_millis(1)).unwrap();
        }
        // A descriptor that no datagram passes through.
        load.lines[0].socket = OwnedFd::from(File::open("/dev/null").unwrap()).into();
        let broken = load.run_until(MonoNs::NEVER).unwrap_err();
        assert_eq!(broken.error.raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!((broken.tally.sent, broken.tally.overdue, load.in_flight()), (0, 8, 0));
    }

    #[test]
    fn what_a_filter_or_a_missing_route_bars_ends_no_run() {
        for code in [libc::EPERM, libc::ENETUNREACH, libc::EHOSTUNREACH] {
            assert!(barred(&io::Error::from_raw_os_error(code)));
        }
        assert!(!barred(&io::Error::from_raw_os_error(libc::EBADF)));
    }

    #[test]
    fn what_a_server_answers_after_a_long_stall_is_late_and_not_double() {
        let lost_after = Duration::from_millis(4);
        let mut count = 0_u64;
        let (address, stop, thread) = server(move |request| {
            count += 1;
            if count % 20 == 1 {
                // Meanwhile every slot is given up, used again and given up again, several times over.
                std::thread::sleep(lost_after * 5);
            }
            vec![echo(request)]
        });
        let tally =
            load(UdpLoadOptions { lost_after, pace: Pace::Window(4), ..UdpLoadOptions::new(address) });
        assert!(tally.late > 4, "{tally:?}");
        assert_eq!((tally.duplicate, tally.stray, tally.wrong), (0, 0, 0), "{tally:?}");
        stop.send(b"!").unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_is_not_there_is_survived_and_counted() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let lost_after = Duration::from_millis(5);
        let tally = load(UdpLoadOptions { lost_after, ..UdpLoadOptions::new(gone) });
        assert_eq!(tally.matched, 0);
        assert!(tally.lost() > 0 && tally.port_closed > 0, "{tally:?}");
    }
}
