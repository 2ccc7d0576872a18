//! A whole run: steps, one after the other, and the result put together from them.

use std::time::Duration;

use super::endurance;
use super::error::LoadError;
use super::kept::{self, schedule};
use super::knee::{self, KneeBounds, KneeSearch};
use super::latency::Latency;
use super::ledger::ledger;
use super::machine::Machine;
use super::ramp;
use super::result::{
    Criterion, Generator, Interval, Knee, KneeStep, Level, LoopKind, RAN_TO_ITS_END, RESULT_VERSION, Ramp,
    RunResult, Server, Setup,
};
use super::session::{Protocol, Session, SessionOptions, StepResult};
use super::step::{Step, StepPace};
use super::tally::Tally;
use super::watch::{Reading, ServerWatch};
use crate::time::{Clock as _, RealClock};

/// What kind of run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// One step.
    Run(Step),
    /// The first so many levels of the ramp, requests and concurrency times `scale`.
    Ramp {
        /// What levels are multiplied by.
        scale: f64,
        /// How many levels, 1 to 13.
        levels: u32,
        /// UDP sockets. HTTP takes as many connections as the level's concurrency.
        sockets: usize,
    },
    /// A search for the highest rate within bounds.
    Knee {
        /// The bounds.
        bounds: KneeBounds,
        /// How long each rate is tried.
        step: Duration,
        /// UDP sockets or HTTP connections.
        sockets: usize,
    },
    /// A long run at 80 % of the knee, or at a rate that is given.
    Endurance {
        /// The bounds of the search before it.
        bounds: KneeBounds,
        /// How long each rate of the search is tried.
        step: Duration,
        /// Spares the search: requests a second.
        rate_per_s: Option<u64>,
        /// How long it runs.
        duration: Duration,
        /// UDP sockets or HTTP connections.
        sockets: usize,
    },
}

/// Share of the knee at which an endurance run goes.
pub const ENDURANCE_SHARE: f64 = 0.8;

/// The longest a level of a ramp may take.
const LEVEL_MAX: Duration = Duration::from_secs(600);

/// Until a server's published counters have caught up with its last answer.
const BOOKS_AFTER: Duration = Duration::from_millis(150);

/// Everything about a run.
#[derive(Clone)]
pub struct RunOptions {
    /// Who asks whom.
    pub session: SessionOptions,
    /// What kind of run it is.
    pub mode: Mode,
    /// What the operator calls it.
    pub name: String,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// The server as the operator named it.
    pub target: String,
    /// What is asked for.
    pub assets: Vec<String>,
    /// Where to look at the server.
    pub watch: ServerWatch,
    /// From how much on a request counts as late by the generator's fault.
    pub late_after: Duration,
    /// Whether a schedule that was not kept is no failure.
    pub allow_late: bool,
}

/// How a run goes.
pub struct Progress<'a> {
    /// What is being done.
    pub stage: &'a str,
    /// How long this stage has been.
    pub elapsed: Duration,
    /// How long it will take yet, where that can be told.
    pub left: Option<Duration>,
    /// All of the stage so far.
    pub so_far: &'a Tally,
    /// The interval that has just ended, if one has.
    pub interval: Option<&'a Interval>,
}

/// Carries out a run. When it is told to stop, the result is that of what ran.
///
/// # Errors
/// When nothing could be sent. What ends a run later is a criterion of its result that fails, beside
/// all that was found until then.
pub fn run(options: &RunOptions, progress: &mut dyn FnMut(&Progress<'_>)) -> Result<RunResult, LoadError> {
    let started = RealClock.now();
    let session = Session::open(options.session.clone())?;
    let datagrams = matches!(options.session.protocol, Protocol::Udp(_));
    // Before the load: afterwards the machine's own is that of the run.
    let machine = Machine::here();
    let before = options.watch.read(datagrams);
    let mut whole = Whole {
        options,
        machine,
        session,
        progress,
        total: Tally::new(),
        intervals: Vec::new(),
        offset_s: 0.0,
        steps: 0,
        sockets: 0,
        memory_bytes_max: 0,
        interrupted: false,
        failed: None,
    };
    let parts = whole.do_mode();
    if let Some(error) = &whole.failed
        && whole.total.sent == 0
    {
        return Err(error.clone());
    }
    std::thread::sleep(BOOKS_AFTER);
    let after = options.watch.read(datagrams);
    let duration = RealClock.now().mono.since(started.mono);
    Ok(whole.result(parts, &before, after, started.unix.ms(), duration))
}

/// What only some runs have.
#[derive(Default)]
struct Parts {
    ramp: Option<Ramp>,
    knee: Option<Knee>,
    endurance: Option<super::result::Endurance>,
    criteria: Vec<Criterion>,
    /// The steps whose schedule the generator had to keep.
    scheduled: Option<Tally>,
}

struct Whole<'a> {
    options: &'a RunOptions,
    machine: Machine,
    session: Session,
    progress: &'a mut dyn FnMut(&Progress<'_>),
    total: Tally,
    intervals: Vec<Interval>,
    offset_s: f64,
    steps: u32,
    sockets: usize,
    memory_bytes_max: u64,
    interrupted: bool,
    failed: Option<LoadError>,
}

impl Whole<'_> {
    fn do_mode(&mut self) -> Parts {
        match self.options.mode {
            Mode::Run(step) => self.plain(step),
            Mode::Ramp { scale, levels, sockets } => self.ramp(scale, levels, sockets),
            Mode::Knee { bounds, step, sockets } => {
                let (knee, criteria) = self.knee(bounds, step, sockets);
                Parts { knee: Some(knee), criteria, ..Parts::default() }
            }
            Mode::Endurance { bounds, step, rate_per_s, duration, sockets } => {
                self.endurance(bounds, step, rate_per_s, duration, sockets)
            }
        }
    }

    fn plain(&mut self, step: Step) -> Parts {
        let result = self.step("run", step);
        let scheduled = matches!(step.pace, StepPace::Rate(_)).then_some(result).flatten();
        Parts { scheduled: scheduled.map(|result| result.total), ..Parts::default() }
    }

    fn ramp(&mut self, scale: f64, levels: u32, sockets: usize) -> Parts {
        let mut done = Vec::new();
        for number in 1..=levels {
            let Some((requests, concurrency)) = ramp::level(number, scale) else { break };
            let wanted = usize::try_from(concurrency).unwrap_or(usize::MAX);
            let sockets = match self.options.session.protocol {
                Protocol::Udp(_) => sockets.min(wanted),
                Protocol::Http { .. } => wanted,
            };
            let pace = StepPace::Window(concurrency);
            let step = Step { pace, duration: LEVEL_MAX, requests: Some(requests), sockets };
            let Some(result) = self.step(&format!("level {number} of {levels}"), step) else { break };
            if result.interrupted {
                break;
            }
            let (counts, latency) = (result.total.counts(), Latency::of(&result.total.latency_ns));
            let criteria = ramp::judge(number, requests, &counts, latency.p50_ns, latency.p99_ns);
            done.push(Level {
                number,
                requests,
                concurrency,
                duration_s: result.elapsed.as_secs_f64(),
                rate_per_s: result.rate_per_s(),
                counts,
                latency,
                pass: criteria.iter().all(|criterion| criterion.pass),
                criteria,
            });
        }
        let passed = done.iter().filter(|level| level.pass).count();
        let criteria = vec![Criterion {
            name: "levels of the ramp".to_owned(),
            needed: format!("{levels} of {levels} pass"),
            found: format!("{passed} of {} that ran", done.len()),
            pass: passed == usize::try_from(levels).unwrap_or(usize::MAX),
        }];
        Parts { ramp: Some(Ramp { scale, levels: done }), criteria, ..Parts::default() }
    }

    fn knee(&mut self, bounds: KneeBounds, length: Duration, sockets: usize) -> (Knee, Vec<Criterion>) {
        let mut search = KneeSearch::new(bounds);
        let (mut steps, mut last_kept, mut absent) = (Vec::new(), true, false);
        while let Some(per_s) = search.next() {
            let Some(result) = self.open_step(&format!("knee, {per_s}/s"), per_s, length, sockets) else {
                break;
            };
            if result.interrupted {
                break;
            }
            let (counts, latency) = (result.total.counts(), Latency::of(&result.total.latency_ns));
            let kept_schedule = schedule(&result.total, self.options.late_after).kept;
            let good = latency.p99_ns <= bounds.p99_ns_max && counts.loss() <= bounds.loss_max;
            let pass = good && kept_schedule && counts.answered > 0;
            if !pass {
                last_kept = kept_schedule;
            }
            search.tell(pass);
            // No lower rate brings up a server that is not there.
            absent = counts.answered == 0 && counts.port_closed > 0;
            steps.push(KneeStep {
                rate_per_s: per_s as f64,
                answered_per_s: result.rate_per_s(),
                loss: counts.loss(),
                counts,
                latency,
                kept_schedule,
                pass,
            });
            if absent {
                break;
            }
        }
        let knee = Knee {
            p99_ns_max: bounds.p99_ns_max,
            loss_max: bounds.loss_max,
            steps,
            rate_per_s: search.found().map(|per_s| per_s as f64),
            limited_by: match (search.met_limit(), last_kept) {
                (false, _) => "none",
                (true, true) => "server",
                (true, false) => "generator",
            }
            .to_owned(),
        };
        let ended = absent || search.next().is_none();
        let criteria = knee::judge(&knee, ended, self.options.allow_late);
        (knee, criteria)
    }

    fn endurance(
        &mut self,
        bounds: KneeBounds,
        step: Duration,
        rate_per_s: Option<u64>,
        duration: Duration,
        sockets: usize,
    ) -> Parts {
        let mut parts = Parts::default();
        let (rate, share) = match rate_per_s {
            Some(rate) => (rate, None),
            None => {
                let (knee, mut criteria) = self.knee(bounds, step, sockets);
                parts.criteria.append(&mut criteria);
                let rate = knee.rate_per_s.map(|rate| (rate * ENDURANCE_SHARE).max(1.0) as u64);
                parts.knee = Some(knee);
                let Some(rate) = rate else { return parts };
                (rate, Some(ENDURANCE_SHARE))
            }
        };
        if self.interrupted {
            return parts;
        }
        let first = self.intervals.len();
        let result = self.open_step(&format!("endurance, {rate}/s"), rate, duration, sockets);
        let endurance = endurance::drift(&self.intervals[first..], rate as f64, share);
        parts.criteria.extend(endurance::judge(&endurance));
        parts.endurance = Some(endurance);
        if let Some(StepResult { total, .. }) = result {
            let loss = total.counts().loss();
            parts.criteria.push(Criterion {
                name: "requests without a right answer in time".to_owned(),
                needed: format!("at most {:.3} %", bounds.loss_max * 100.0),
                found: format!("{:.3} %", loss * 100.0),
                pass: loss <= bounds.loss_max,
            });
            parts.scheduled = Some(total);
        }
        parts
    }

    fn open_step(
        &mut self,
        stage: &str,
        per_s: u64,
        duration: Duration,
        sockets: usize,
    ) -> Option<StepResult> {
        let sockets = match self.options.session.protocol {
            Protocol::Udp(_) => {
                let lost_after = self.options.session.lost_after;
                sockets.max(Session::sockets_for(per_s, lost_after, self.session.threads()))
            }
            Protocol::Http { .. } => sockets,
        };
        let pace = StepPace::Rate(per_s);
        self.step(stage, Step { pace, duration, requests: None, sockets })
    }

    /// Does a step and adds it to the whole; `None` when it could not be done to its end.
    fn step(&mut self, stage: &str, step: Step) -> Option<StepResult> {
        let (watch, offset_s, number) = (&self.options.watch, self.offset_s, self.steps);
        let watched = watch.pid().is_some() || watch.metrics_url().is_some();
        let progress = &mut self.progress;
        let result = self.session.step(&step, &mut |moment| {
            let left = left(&step, moment.elapsed, moment.so_far);
            let mut interval = moment.interval;
            if let Some(interval) = &mut interval {
                interval.step = number;
                interval.start_s += offset_s;
                interval.server_memory_bytes = if watched { watch.memory_bytes() } else { None };
            }
            let (elapsed, so_far) = (moment.elapsed, moment.so_far);
            progress(&Progress { stage, elapsed, left, so_far, interval: interval.as_deref() });
        });
        let mut result = match result {
            Ok(result) => result,
            Err(error) => {
                self.interrupted |= self.options.session.stop.told();
                self.failed = Some(error);
                return None;
            }
        };
        self.total.add(&result.total);
        self.intervals.append(&mut result.intervals);
        self.offset_s += result.sending.as_secs_f64();
        self.steps += 1;
        self.sockets = self.sockets.max(step.sockets);
        self.memory_bytes_max = self.memory_bytes_max.max(result.memory_bytes_max);
        self.interrupted |= result.interrupted;
        if let Some(error) = result.error {
            self.failed = Some(error);
            return None;
        }
        Some(result)
    }

    fn result(
        self,
        mut parts: Parts,
        before: &Reading,
        after: Reading,
        started_unix_ms: u64,
        duration: Duration,
    ) -> RunResult {
        let counts = self.total.counts();
        let kept = parts.scheduled.map(|tally| schedule(&tally, self.options.late_after));
        let mut criteria = vec![
            Criterion {
                name: "answers".to_owned(),
                needed: "at least one".to_owned(),
                found: counts.answered.to_string(),
                pass: counts.answered > 0,
            },
            Criterion {
                name: "wrong, stray and duplicate answers".to_owned(),
                needed: "none".to_owned(),
                found: format!(
                    "{} wrong, {} stray, {} duplicate",
                    counts.wrong, counts.stray, counts.duplicate
                ),
                pass: counts.wrong + counts.stray + counts.duplicate == 0,
            },
        ];
        if let Some(schedule) = &kept
            && !self.options.allow_late
        {
            criteria.push(kept::criterion(schedule));
        }
        if let Some(error) = &self.failed {
            criteria.push(Criterion {
                name: RAN_TO_ITS_END.to_owned(),
                needed: "every step".to_owned(),
                found: error.to_string(),
                pass: false,
            });
        }
        criteria.append(&mut parts.criteria);
        let sent = self.total.sent.max(1) as f64;
        let cpu_us = self.total.cpu.as_secs_f64() * 1e6 / sent;
        let used = after.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before));
        let memory = self.intervals.iter().filter_map(|interval| interval.server_memory_bytes);
        RunResult {
            version: RESULT_VERSION,
            name: self.options.name.clone(),
            command: self.options.command.clone(),
            started_unix_ms,
            duration_s: duration.as_secs_f64(),
            interrupted: self.interrupted,
            setup: self.setup(),
            machine: self.machine,
            ledger: ledger(&counts, before, &after),
            server: Server {
                metrics_url: self.options.watch.metrics_url().map(str::to_owned),
                pid: self.options.watch.pid(),
                version: after.version,
                engine: after.engine,
                shards: after.shards,
                cpu_us_per_answer: used.map(|used| used.as_secs_f64() * 1e6 / counts.answered.max(1) as f64),
                memory_bytes_max: memory.chain(after.memory_bytes).max(),
            },
            latency: Latency::of(&self.total.latency_ns),
            generator: Generator {
                cpu_us_per_exchange: cpu_us,
                busy_us_per_exchange: cpu_us * self.total.busy(),
                busy: self.total.busy(),
                memory_bytes_max: self.memory_bytes_max,
                schedule: kept,
                notes: self.session.notes().to_vec(),
            },
            counts,
            intervals: self.intervals,
            ramp: parts.ramp,
            knee: parts.knee,
            endurance: parts.endurance,
            criteria,
        }
    }

    fn setup(&self) -> Setup {
        let session = &self.options.session;
        let (protocol, pipeline) = match &session.protocol {
            Protocol::Udp(datagrams) => (datagrams.name(), 0),
            Protocol::Http { pipeline, .. } => ("http", *pipeline as u64),
        };
        let (mode, loop_kind, rate_per_s, window) = match &self.options.mode {
            Mode::Run(Step { pace: StepPace::Rate(per_s), .. }) => {
                ("run", LoopKind::Open, Some(*per_s as f64), None)
            }
            Mode::Run(Step { pace: StepPace::Window(window), .. }) => {
                ("run", LoopKind::Closed, None, Some(*window))
            }
            Mode::Ramp { .. } => ("ramp", LoopKind::Closed, None, None),
            Mode::Knee { .. } => ("knee", LoopKind::Open, None, None),
            Mode::Endurance { rate_per_s, .. } => {
                ("endurance", LoopKind::Open, rate_per_s.map(|rate| rate as f64), None)
            }
        };
        Setup {
            protocol: protocol.to_owned(),
            target: self.options.target.clone(),
            address: session.server.to_string(),
            mode: mode.to_owned(),
            loop_kind,
            rate_per_s,
            window,
            sockets: self.sockets as u64,
            pipeline,
            threads: self.session.threads() as u64,
            processes: self.session.processes() as u64,
            cpus: self.session.cpus().to_vec(),
            assets: self.options.assets.clone(),
            lost_after_s: session.lost_after.as_secs_f64(),
            interval_s: session.interval.as_secs_f64(),
        }
    }
}

/// Intervals a run has at most; each is kept until its end.
const INTERVALS_MAX: u32 = 3_600;

/// How long intervals are to be in such a run: a second, or longer where there would be too many.
#[must_use]
pub fn interval_for(mode: &Mode) -> Duration {
    let longest = match mode {
        Mode::Run(step) => step.duration,
        Mode::Ramp { .. } => LEVEL_MAX,
        Mode::Knee { step, .. } => *step,
        Mode::Endurance { duration, .. } => *duration,
    };
    Duration::from_secs(1).max(longest / INTERVALS_MAX)
}

/// How long a step will take yet: by its duration, or by the rate at which its requests go.
fn left(step: &Step, elapsed: Duration, so_far: &Tally) -> Option<Duration> {
    match step.requests {
        None => Some(step.duration.saturating_sub(elapsed)),
        Some(requests) if so_far.sent > 0 => {
            let more = requests.saturating_sub(so_far.sent) as f64 / so_far.sent as f64;
            Duration::try_from_secs_f64(elapsed.as_secs_f64() * more).ok()
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_time_or_from_requests() {
        let second = Duration::from_secs(1);
        let mut step = Step { pace: StepPace::Window(1), duration: second * 10, requests: None, sockets: 1 };
        let mut tally = Tally::new();
        assert_eq!(left(&step, second * 4, &tally), Some(second * 6));
        step.requests = Some(100);
        assert_eq!(left(&step, second * 4, &tally), None);
        tally.sent = 25;
        assert_eq!(left(&step, second, &tally), Some(second * 3));
    }
}
