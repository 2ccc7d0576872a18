//! What workers tell, put together interval by interval.

use std::collections::BTreeMap;
use std::time::Duration;

use super::latency::Latency;
use super::result::Interval;
use super::session::{Moment, StepResult};
use super::tally::Tally;
use super::worker::Told;

/// Puts together what workers tell, interval by interval.
pub(super) struct Gathering {
    workers: usize,
    length: Duration,
    /// Workers that have ended the step.
    pub(super) done: usize,
    /// The next interval each worker will tell of; beyond all once it is done.
    next: Vec<u32>,
    open: BTreeMap<u32, (Tally, Duration)>,
    total: Tally,
    tail: Tally,
    sending: Duration,
    intervals: Vec<Interval>,
    shown: usize,
    memory_bytes_max: u64,
}

impl Gathering {
    pub(super) fn new(workers: usize, length: Duration) -> Self {
        Self {
            workers,
            length,
            done: 0,
            next: vec![0; workers],
            open: BTreeMap::new(),
            total: Tally::new(),
            tail: Tally::new(),
            sending: Duration::ZERO,
            intervals: Vec::new(),
            shown: 0,
            memory_bytes_max: 0,
        }
    }

    pub(super) fn take(&mut self, worker: usize, told: Told) {
        match told {
            Told::Interval { index, tally } => {
                self.total.add(&tally);
                let (sum, longest) = self.open.entry(index).or_insert_with(|| (Tally::new(), Duration::ZERO));
                *longest = tally.elapsed.max(*longest);
                sum.add(&tally);
                self.sending = self.sending.max(self.length * index + tally.elapsed);
                self.next[worker] = index + 1;
            }
            Told::Done { tally, memory_bytes } => {
                self.total.add(&tally);
                self.tail.add(&tally);
                self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes);
                self.next[worker] = u32::MAX;
                self.done += 1;
            }
            Told::Up | Told::Failed(_) => {}
        }
        let all_told = self.next.iter().copied().min().unwrap_or(0);
        while let Some(entry) = self.open.first_entry() {
            if *entry.key() >= all_told && self.done < self.workers {
                return;
            }
            let (index, (tally, longest)) = entry.remove_entry();
            self.intervals.push(Interval {
                start_s: (self.length * index).as_secs_f64(),
                length_s: longest.as_secs_f64(),
                step: 0,
                counts: tally.counts(),
                latency: Latency::of(&tally.latency_ns),
                server_memory_bytes: None,
            });
        }
    }

    pub(super) fn show(&mut self, elapsed: Duration, watch: &mut dyn FnMut(Moment<'_>)) {
        let fresh = self.shown < self.intervals.len();
        while self.shown < self.intervals.len() {
            let interval = Some(&mut self.intervals[self.shown]);
            watch(Moment { elapsed, so_far: &self.total, interval });
            self.shown += 1;
        }
        if !fresh {
            watch(Moment { elapsed, so_far: &self.total, interval: None });
        }
    }

    pub(super) fn finish(mut self, elapsed: Duration, interrupted: bool) -> StepResult {
        if let Some(last) = self.intervals.last_mut() {
            last.counts.add(&self.tail.counts());
            // What we have just encoded can be read, and has the same bounds.
            if let Ok(mut latency) = last.latency.decode()
                && latency.add(&self.tail.latency_ns).is_ok()
            {
                last.latency = Latency::of(&latency);
            }
        }
        StepResult {
            total: self.total,
            intervals: self.intervals,
            sending: self.sending,
            elapsed,
            interrupted,
            memory_bytes_max: self.memory_bytes_max,
        }
    }
}
