//! One measurement: a server that is up, a generator that loads it, and what both used. Every answer
//! must be right.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::http::{HttpExchange, HttpLoad, HttpLoadOptions};
use super::requests::{Requests, Verdict};
use super::server::{CpuUse, Cpus, Server, pinned};
use super::tally::Tally;
use super::udp::{Pace, UdpLoad, UdpLoadOptions};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::time::{Clock as _, RealClock};

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Sockets that ask.
    pub sockets: usize,
    /// Requests under way on each.
    pub window: usize,
    /// Measured time.
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What was loaded.
    pub server: String,
    /// Right answers a second.
    pub answers_per_s: f64,
    /// Processor time of the server's busiest thread for an answer.
    pub us_per_answer: f64,
    /// The part of that in user mode; sampled.
    pub user_us_per_answer: f64,
    /// Processor time of all the server's threads for an answer.
    pub process_us_per_answer: f64,
    /// The busiest thread.
    pub thread: String,
    /// Part of the time the busiest thread was running.
    pub server_busy: f64,
    /// Part of the time the client found something to do.
    pub client_busy: f64,
    /// Mean length of an answer, in bytes.
    pub answer_len: f64,
    /// Round trip as the client sees it, in microseconds.
    pub latency_us_mean: f64,
    /// Median.
    pub latency_us_p50: f64,
    /// 99th percentile.
    pub latency_us_p99: f64,
    /// Requests without an answer.
    pub lost: u64,
    /// Requests that were sent in all, before and after the measured time too.
    pub sent: u64,
    /// Answers and refusals to them.
    pub seen: u64,
}

impl Run {
    fn new(name: &str, whole: &Tally, measured: &Tally, used: CpuUse, lost: u64) -> Self {
        let matched = measured.matched.max(1) as f64;
        let us = |time: Duration| time.as_secs_f64() * 1e6 / matched;
        let quantile = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            server: name.to_owned(),
            answers_per_s: measured.rate_per_s(),
            us_per_answer: us(used.busiest),
            user_us_per_answer: us(used.busiest) * used.user_share,
            process_us_per_answer: us(used.process),
            thread: used.busiest_name,
            server_busy: used.busiest.as_secs_f64() / measured.elapsed.as_secs_f64(),
            client_busy: measured.busy(),
            answer_len: measured.answer_bytes as f64 / matched,
            latency_us_mean: measured.latency_ns.mean() / 1e3,
            latency_us_p50: quantile(0.5),
            latency_us_p99: quantile(0.99),
            lost,
            sent: whole.sent,
            seen: whole.matched + whole.refused() + whole.late,
        }
    }

    /// One line for people.
    pub fn print(&self) {
        println!(
            "    {:<6} {:>7.1} k/s, {:.3} us an answer ({:.3} in user mode), {:.3} the process; limit: {}; \
             p50 {:.0} us, p99 {:.0} us, lost {}",
            self.server,
            self.answers_per_s / 1e3,
            self.us_per_answer,
            self.user_us_per_answer,
            self.process_us_per_answer,
            self.limit(),
            self.latency_us_p50,
            self.latency_us_p99,
            self.lost
        );
    }

    /// Which side kept the rate from being higher.
    #[must_use]
    pub fn limit(&self) -> &'static str {
        match (self.server_busy > 0.97, self.client_busy > 0.97) {
            (true, true) => "both",
            (true, false) => "server",
            (false, true) => "client",
            (false, false) => "neither",
        }
    }
}

/// Loads a server and reads what it used. Every answer must be right.
///
/// # Errors
/// When one is not, or there is none.
pub fn run<R: Requests + Send>(
    name: &str,
    server: &Server,
    cpus: Cpus,
    load: Load,
    requests: R,
) -> io::Result<Run> {
    let options = UdpLoadOptions {
        sockets: load.sockets,
        pace: Pace::Window(load.window),
        ..UdpLoadOptions::new(server.udp)
    };
    let (whole, measured, used) = pinned(cpus.client, || {
        let mut generator = UdpLoad::open(options, requests)?;
        let mut whole = generator.run(Duration::from_secs_f64(load.seconds / 4.0))?;
        let before = server.cpu()?;
        let measured = generator.run(Duration::from_secs_f64(load.seconds))?;
        let used = server.cpu()?.since(&before);
        whole.add(&measured);
        whole.add(&generator.finish()?);
        Ok((whole, measured, used))
    })?;
    let wrong = whole.wrong + whole.stray + whole.duplicate + whole.refused();
    if wrong > 0 || whole.matched == 0 || whole.sent != whole.matched + whole.late + whole.lost() {
        return Err(io::Error::other(format!("{name} does not answer as it should: {whole:?}")));
    }
    Ok(Run::new(name, &whole, &measured, used, whole.lost()))
}

/// Loads a server over kept-alive connections and reads what it used. Every answer must be right.
///
/// # Errors
/// When one is not, or there is none.
pub fn run_http(
    name: &str,
    server: &Server,
    cpus: Cpus,
    (connections, seconds): (usize, f64),
    exchange: &HttpExchange,
) -> io::Result<Run> {
    let Some(http) = server.http else {
        return Err(io::Error::other(format!("{name} takes no HTTP")));
    };
    let options =
        HttpLoadOptions { connections, lost_after: Duration::from_secs(2), ..HttpLoadOptions::new(http) };
    let (whole, measured, used) = pinned(cpus.client, || {
        let mut generator = HttpLoad::open(options, vec![exchange.clone()])?;
        let mut whole = generator.run(Duration::from_secs_f64(seconds / 4.0))?;
        let before = server.cpu()?;
        let measured = generator.run(Duration::from_secs_f64(seconds))?;
        let used = server.cpu()?.since(&before);
        whole.add(&measured);
        whole.add(&generator.finish()?);
        Ok((whole, measured, used))
    })?;
    let wrong = whole.wrong + whole.stray + whole.refused();
    if wrong > 0 || whole.matched == 0 || whole.sent != whole.matched + whole.overdue {
        return Err(io::Error::other(format!("{name} does not answer as it should: {whole:?}")));
    }
    Ok(Run::new(name, &whole, &measured, used, whole.overdue))
}

/// Waits until a server gives right answers, and learns how long request and answer are.
///
/// # Errors
/// When it ends or does not answer within half a minute.
pub fn lengths(server: &mut Server, requests: &mut impl Requests) -> io::Result<(usize, usize)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    // The kernel chooses the address: one of loopback reaches no other.
    let any = if server.udp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server.udp)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut room = [0; UDP_PAYLOAD_MAX];
    let (mut right, mut request_sum, mut answer_sum, mut seen) = (0, 0, 0, Verdict::Stray);
    // Different ids ask for different assets: the mean of some counts.
    const SAMPLE: usize = 64;
    for id in 1_u64.. {
        server.alive()?;
        let len = requests.fill(id, RealClock.now().unix, &mut room);
        // A port where nobody listens yet refuses; that is what the deadline is for.
        if socket.send(&room[..len]).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        while let Ok(answer_len) = socket.recv(&mut room) {
            seen = requests.check(&room[..answer_len]);
            if seen == Verdict::Match(id) {
                (right, request_sum, answer_sum) = (right + 1, request_sum + len, answer_sum + answer_len);
                break;
            }
            // One that had to wait for its price may be answered late: this one's answer comes behind it.
            if !matches!(seen, Verdict::Match(earlier) if earlier < id) {
                std::thread::sleep(Duration::from_millis(10));
                break;
            }
        }
        if right == SAMPLE {
            return Ok(((request_sum + SAMPLE / 2) / SAMPLE, (answer_sum + SAMPLE / 2) / SAMPLE));
        }
        if Instant::now() > deadline {
            break;
        }
    }
    Err(io::Error::other(format!(
        "{} gave {right} right answers in 30 s, {SAMPLE} are needed; the last reply was {seen:?}. \
         Start it by hand and ask it what is wrong",
        server.udp
    )))
}
