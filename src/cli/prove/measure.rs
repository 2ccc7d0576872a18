//! What is measured, in which order.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use beast::config::Setting;
use beast::engine::probe::{Io as EngineIo, choose};
use beast::load::measure::{Load, Run, lengths, run, run_http};
use beast::load::report::verdict::{
    Books, Failed, Figure, SOURCE_TCP, SOURCE_UDP, Throughput, UnderLoad, Unit, Verdict,
};
use beast::load::result::RunResult;
use beast::load::server::{Cpus, Server};
use beast::load::stats::Median;
use beast::load::{
    Datagrams, Echo, KneeBounds, Mode, Pin, Protocol as Asked, Requests, RunOptions, ServerWatch, Session,
    SessionOptions, Step, StepPace, Stop,
};
use beast::wire::v2;

use super::subject::Subject;
use super::wire::Wire;
use super::{Effort, Io, Protocol, ProveArgs, say};

/// Sockets of a closed loop by UDP, and requests under way on each: enough to keep a core at work.
const UDP_LOAD: (usize, usize) = (4, 64);

/// Connections by HTTP.
const CONNECTIONS: usize = 64;

/// Microseconds a server looks for work when a lone request is timed.
const LONE_SPIN_US: u64 = 1_000;

/// Bound of the 99th percentile, for the knee and below it.
const P99_MAX: Duration = Duration::from_millis(10);

/// Bound of the share of requests without a right answer in time, for the knee.
const LOSS_MAX: f64 = 0.001;

/// Parts of the knee at which latency is taken.
const SHARES: [f64; 3] = [0.5, 0.7, 0.9];

/// A process is ready within this time.
const READY_NS_MAX: f64 = 2e9;

/// Measures everything into `verdict`, until it is told to stop. An engine that cannot be measured to
/// its end is a failure of the verdict, and the others are measured all the same.
pub(super) fn all(args: &ProveArgs, cpus: Cpus, stop: &Stop, verdict: &mut Verdict) {
    let effort = args.effort();
    for &io in &args.io {
        if io == Io::Uring
            && let Err(e) = choose(EngineIo::Uring)
        {
            verdict.notes.push(format!("uring is left out, it does not work here: {e}"));
            continue;
        }
        say(&format!("{}: start", io.name()));
        let measured = if io == Io::Xdp {
            kernel(args, effort, cpus, stop, verdict)
        } else {
            Subject::start(io, 0, cpus.server, None)
                .and_then(|subject| engine(io, subject, args, effort, cpus, stop, verdict))
        };
        if stop.told() {
            return;
        }
        if let Err(e) = measured {
            fail(verdict, io.name(), &reason(&e));
        }
    }
}

fn fail(verdict: &mut Verdict, what: &str, why: &str) {
    verdict.failures.push(Failed { what: what.to_owned(), why: why.to_owned() });
}

/// Requests sent and answers seen at one server.
#[derive(Default)]
struct Exchanged {
    sent: u64,
    seen: u64,
}

impl Exchanged {
    fn add(&mut self, run: &Run) {
        self.sent += run.sent;
        self.seen += run.seen;
    }

    fn add_result(&mut self, result: &RunResult) {
        let counts = &result.counts;
        self.sent += counts.sent;
        self.seen += counts.answered + counts.refused_total() + counts.late + counts.wrong;
    }
}

/// XDP, asked over a wire: the generator is moved to its far end. Where it cannot be attached it is
/// left out; once it is, it must answer, and rightly.
fn kernel(
    args: &ProveArgs,
    effort: Effort,
    cpus: Cpus,
    stop: &Stop,
    verdict: &mut Verdict,
) -> io::Result<()> {
    let attached = || {
        if Setting::of_key("xdp").is_none() {
            return Err(io::Error::other("this program has none"));
        }
        let wire = Wire::lay()?;
        let subject = Subject::start(Io::Xdp, 0, cpus.server, Some(&wire))?;
        Ok((wire, subject))
    };
    let left_out = |e: io::Error| format!("XDP is left out, it does not work here: {}", reason(&e));
    let (wire, mut subject) = match attached() {
        Ok(attached) => attached,
        Err(e) => {
            verdict.notes.push(left_out(e));
            return Ok(());
        }
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(e) = wire.enter() {
                verdict.notes.push(left_out(e));
                return Ok(());
            }
            let mut v2 = subject.v2();
            lengths(&mut subject.server, &mut v2)?;
            if subject.answered_in_kernel()? == 0 {
                return Err(io::Error::other("it answered none of the requests of a trial, the sockets did"));
            }
            verdict.notes.push(
                "XDP is attached in generic mode to one end of a veth pair and asked from the other. There it answers \
                 before there is a socket, on the generator's processor and in its time: no processor time of the \
                 server's can be compared, and a driver on real hardware does better."
                    .to_owned(),
            );
            engine(Io::Xdp, subject, args, effort, cpus, stop, verdict)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The line that says why, of all that a server said.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let told = text.lines().find(|line| line.starts_with("error:") || line.contains("unexpected argument"));
    told.or_else(|| text.lines().next()).unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn engine(
    io: Io,
    mut subject: Subject,
    args: &ProveArgs,
    effort: Effort,
    cpus: Cpus,
    stop: &Stop,
    verdict: &mut Verdict,
) -> io::Result<()> {
    let ready_ns = subject.ready_after.as_nanos() as f64;
    if let Some(median) = Median::of(vec![ready_ns]) {
        let name = "start to ready, simulated exchanges";
        verdict.figures.push(Figure::new(io.name(), name, median, Unit::Ns, Some(READY_NS_MAX)));
    }
    // Also waits for the first right answers.
    let (v1, v2) = (subject.v1(), subject.v2());
    let (v1_lengths, v2_lengths) =
        (lengths(&mut subject.server, &mut v1.clone())?, lengths(&mut subject.server, &mut v2.clone())?);
    let http_answer = ask_once(subject.server.http, &subject.http().request)?;
    let before = subject.books()?;
    let mut exchanged = Exchanged::default();
    let in_kernel = io == Io::Xdp;
    for &protocol in args.protocols.iter().filter(|protocol| !in_kernel || **protocol == Protocol::V2) {
        if stop.told() {
            return Ok(());
        }
        let what = format!("{}, {}", protocol.name(), io.name());
        say(&format!("{what}: beside the floor, closed loop"));
        let pairs = match protocol {
            Protocol::V1 => udp_pairs(&subject, &v1, v1_lengths, effort, cpus, stop)?,
            Protocol::V2 => udp_pairs(&subject, &v2, v2_lengths, effort, cpus, stop)?,
            Protocol::Http => http_pairs(&subject, &http_answer, effort, cpus, stop)?,
        };
        pairs.iter().for_each(|(_, server)| exchanged.add(server));
        ratios(&what, protocol, &pairs, in_kernel, verdict);
        if stop.told() {
            return Ok(());
        }
        let ceiling = pairs.iter().map(|(_, server)| server.answers_per_s).fold(0.0, f64::max);
        say(&format!("{what}: the knee, and latency below it"));
        under_load(&what, protocol, &subject, ceiling, effort, cpus, stop, (verdict, &mut exchanged))?;
    }
    let after = subject.books()?;
    verdict.books.push(books(io, exchanged, &before, &after));
    drop(subject);
    if args.protocols.contains(&Protocol::V2) && !stop.told() && !in_kernel {
        say(&format!("UDP v2, {}: a lone request", io.name()));
        lone(io, effort, cpus, stop, verdict)?;
    }
    Ok(())
}

type Pair = (Run, Run);

fn floor(args: &[&str], cpus: Cpus) -> io::Result<Server> {
    Server::telling(Command::new(std::env::current_exe()?).arg("floor").args(args), cpus.server)
}

fn udp_pairs<R: Requests + Clone + Send>(
    subject: &Subject,
    requests: &R,
    (request_len, answer_len): (usize, usize),
    effort: Effort,
    cpus: Cpus,
    stop: &Stop,
) -> io::Result<Vec<Pair>> {
    let (sockets, window) = UDP_LOAD;
    let load = Load { sockets, window, seconds: effort.closed_s };
    let floor = floor(&["udp", "--answer-len", &answer_len.to_string()], cpus)?;
    alternating(
        effort.pairs,
        stop,
        || run("floor", &floor, cpus, load, Echo::new(request_len, answer_len)),
        || run("server", &subject.server, cpus, load, requests.clone()),
    )
}

fn http_pairs(
    subject: &Subject,
    answer: &str,
    effort: Effort,
    cpus: Cpus,
    stop: &Stop,
) -> io::Result<Vec<Pair>> {
    let (load, exchange) = ((CONNECTIONS, effort.closed_s), subject.http());
    let floor = floor(&["http", "--answer", answer], cpus)?;
    alternating(
        effort.pairs,
        stop,
        || run_http("floor", &floor, cpus, load, &exchange),
        || run_http("server", &subject.server, cpus, load, &exchange),
    )
}

/// Pairs of runs, whose order alternates so that what drifts does not favour one side.
fn alternating(
    pairs: usize,
    stop: &Stop,
    mut floor: impl FnMut() -> io::Result<Run>,
    mut server: impl FnMut() -> io::Result<Run>,
) -> io::Result<Vec<Pair>> {
    let mut all = Vec::new();
    for n in 0..pairs {
        if stop.told() {
            break;
        }
        all.push(if n % 2 == 0 {
            let floor = floor()?;
            (floor, server()?)
        } else {
            let server = server()?;
            (floor()?, server)
        });
    }
    Ok(all)
}

fn ratios(what: &str, protocol: Protocol, pairs: &[Pair], in_kernel: bool, verdict: &mut Verdict) {
    let median = |value: fn(&Pair) -> f64| Median::of(pairs.iter().map(value).collect());
    if !in_kernel {
        let mut figure = |name: &str, unit, target_max, value: fn(&Pair) -> f64| {
            if let Some(median) = median(value) {
                verdict.figures.push(Figure::new(what, name, median, unit, target_max));
            }
        };
        let name = "processor time of an answer, server against floor";
        let most = Some(protocol.floor_times_max());
        figure(name, Unit::Times, most, |(floor, server)| server.us_per_answer / floor.us_per_answer);
        figure("processor time of an answer, server's busiest thread", Unit::Ns, None, |(_, server)| {
            server.us_per_answer * 1e3
        });
        figure("processor time of an answer, floor", Unit::Ns, None, |(floor, _)| floor.us_per_answer * 1e3);
    }
    let source = if protocol == Protocol::Http { SOURCE_TCP } else { SOURCE_UDP };
    let busy = |value: fn(&Pair) -> f64| median(value).map_or(0.0, |median| median.value.min(1.0));
    if let Some(answers_per_s) = median(|(_, server)| server.answers_per_s) {
        verdict.throughput.push(Throughput {
            what: what.to_owned(),
            answers_per_s,
            server_busy: busy(|(_, server)| server.server_busy),
            client_busy: busy(|(_, server)| server.client_busy),
            source,
            pass: answers_per_s.value >= source.one_node,
        });
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one fact of the stage")]
fn under_load(
    what: &str,
    protocol: Protocol,
    subject: &Subject,
    ceiling_per_s: f64,
    effort: Effort,
    cpus: Cpus,
    stop: &Stop,
    (verdict, exchanged): (&mut Verdict, &mut Exchanged),
) -> io::Result<()> {
    let (asked, server) = match protocol {
        Protocol::V1 => (Asked::Udp(Datagrams::V1(subject.v1())), subject.server.udp),
        Protocol::V2 => (Asked::Udp(Datagrams::V2(subject.v2())), subject.server.udp),
        Protocol::Http => (
            Asked::Http { exchanges: vec![subject.http()], pipeline: 1 },
            subject.server.http.unwrap_or(subject.server.udp),
        ),
    };
    let options = |mode: Mode, sockets: usize| RunOptions {
        session: SessionOptions {
            pin: cpus.client.map_or(Pin::None, |cpu| Pin::Cpus(vec![cpu])),
            sockets_max: sockets,
            stop: stop.clone(),
            ..SessionOptions::new(asked.clone(), server)
        },
        mode,
        name: what.to_owned(),
        command: Vec::new(),
        target: server.to_string(),
        assets: Vec::new(),
        watch: ServerWatch::default(),
        late_after: P99_MAX,
        allow_late: true,
    };
    let go = |mode: Mode, sockets: usize| {
        let run = beast::load::run(&options(mode, sockets), &mut |_| {});
        let run = run.map_err(|e| io::Error::other(e.to_string()))?;
        match run.error() {
            Some(error) => Err(io::Error::other(format!("{what}: {error}"))),
            None => Ok(run),
        }
    };
    // Refusals count as loss, which a search for the knee meets by its nature; these nothing excuses.
    let bad = |run: &RunResult| run.counts.wrong + run.counts.stray + run.counts.duplicate;
    let sockets_for = |per_s: u64| match protocol {
        Protocol::Http => CONNECTIONS,
        Protocol::V1 | Protocol::V2 => Session::sockets_for(per_s, Duration::from_secs(1), 1).max(UDP_LOAD.0),
    };
    let bounds = KneeBounds {
        p99_ns_max: u64::try_from(P99_MAX.as_nanos()).unwrap_or(u64::MAX),
        loss_max: LOSS_MAX,
        from_per_s: (ceiling_per_s * 0.6).max(1_000.0) as u64,
        precision: effort.knee_precision,
    };
    let sockets = sockets_for((ceiling_per_s * 4.0) as u64);
    let searched = go(Mode::Knee { bounds, step: effort.knee_step, sockets }, sockets)?;
    exchanged.add_result(&searched);
    if bad(&searched) > 0 {
        let why =
            format!("{} wrong, stray or double answers on the way to the knee; none may be", bad(&searched));
        fail(verdict, what, &why);
    }
    let Some(knee_per_s) = searched.knee.and_then(|knee| knee.rate_per_s) else {
        if !stop.told() {
            fail(verdict, what, "no rate that was tried stayed within the bounds of the knee");
        }
        return Ok(());
    };
    for share in SHARES {
        if stop.told() {
            return Ok(());
        }
        let rate = (knee_per_s * share).max(1.0) as u64;
        let sockets = sockets_for(rate);
        let step = Step { pace: StepPace::Rate(rate), duration: effort.open, requests: None, sockets };
        let result = go(Mode::Run(step), sockets)?;
        exchanged.add_result(&result);
        let kept_schedule = result.generator.schedule.as_ref().is_none_or(|schedule| schedule.kept);
        let (loss, p99_ns_max) = (result.counts.loss(), bounds.p99_ns_max);
        verdict.under_load.push(UnderLoad {
            what: what.to_owned(),
            share_of_knee: share,
            knee_per_s,
            rate_per_s: rate as f64,
            answers_per_s: result.rate_per_s(),
            loss,
            kept_schedule,
            pass: result.latency.p99_ns <= p99_ns_max
                && loss <= 0.0
                && result.counts.answered > 0
                && bad(&result) == 0
                && kept_schedule,
            latency: result.latency,
            p99_ns_max,
        });
    }
    Ok(())
}

fn books(io: Io, exchanged: Exchanged, before: &super::subject::Told, after: &super::subject::Told) -> Books {
    let Exchanged { sent, seen } = exchanged;
    let (received, dropped) = (after.received - before.received, after.dropped - before.dropped);
    let (answered, refused) = (after.answered - before.answered, after.refused - before.refused);
    let waiting = after.waiting;
    Books {
        what: format!("everything asked of the {} server", io.name()),
        sent,
        received,
        dropped,
        answered,
        refused,
        waiting,
        seen,
        pass: sent == received + dropped
            && received == answered + refused + waiting
            && seen == answered + refused,
    }
}

/// One request under way, against a bare loop that spins.
fn lone(io: Io, effort: Effort, cpus: Cpus, stop: &Stop, verdict: &mut Verdict) -> io::Result<()> {
    let load = Load { sockets: 1, window: 1, seconds: effort.closed_s };
    let len = v2::ANSWER_LEN;
    // Both spin, so each is there only for its own run.
    let server = || {
        let mut subject = Subject::start(io, LONE_SPIN_US, cpus.server, None)?;
        let mut v2 = subject.v2();
        lengths(&mut subject.server, &mut v2)?;
        run("server", &subject.server, cpus, load, v2)
    };
    let bare = || {
        let floor = floor(&["udp", "--answer-len", &len.to_string(), "--wait", "spin"], cpus)?;
        run("floor", &floor, cpus, load, Echo::new(len, len))
    };
    let pairs = alternating(effort.pairs.div_ceil(3), stop, bare, server)?;
    let what = format!("UDP v2, {}, one request under way", io.name());
    let mut figure = |name: &str, unit, target_max, value: fn(&Pair) -> f64| {
        if let Some(median) = Median::of(pairs.iter().map(value).collect()) {
            verdict.figures.push(Figure::new(&what, name, median, unit, target_max));
        }
    };
    let name = "median round trip, server against a bare spinning loop";
    figure(name, Unit::Times, io.lone_times_max(), |(floor, server)| {
        server.latency_us_p50 / floor.latency_us_p50
    });
    figure("median round trip", Unit::Ns, None, |(_, server)| server.latency_us_p50 * 1e3);
    Ok(())
}

/// Sends one request and reads what comes back: small answers come whole.
fn ask_once(server: Option<SocketAddr>, request: &[u8]) -> io::Result<String> {
    let server = server.ok_or_else(|| io::Error::other("the server takes no HTTP"))?;
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request)?;
    let mut answer = [0; 4_096];
    let len = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}
