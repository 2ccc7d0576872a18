//! What workers tell, put together interval by interval.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::LoadError;
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
                self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes);
                self.end(worker, &tally);
            }
            Told::Failed { tally, .. } => self.end(worker, &tally),
            Told::Up => {}
        }
        self.close_intervals();
    }

    /// A worker has ended. A process tells its end once more when it has gone.
    fn end(&mut self, worker: usize, tally: &Tally) {
        self.total.add(tally);
        self.tail.add(tally);
        self.done += usize::from(self.next[worker] != u32::MAX);
        self.next[worker] = u32::MAX;
    }

    fn close_intervals(&mut self) {
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
                answered_after: 0,
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

    pub(super) fn finish(
        mut self,
        elapsed: Duration,
        interrupted: bool,
        error: Option<LoadError>,
    ) -> StepResult {
        // Of a worker that says nothing no interval will come any more.
        self.done = self.workers;
        self.close_intervals();
        if error.is_some() {
            // What a worker that is gone had under way nobody waits for any more.
            let Tally { sent, matched, wrong, overdue, .. } = self.total;
            let left = sent.saturating_sub(matched + self.total.refused() + wrong + overdue);
            self.total.overdue += left;
            self.tail.overdue += left;
        }
        let answered_while_sending = self.total.matched - self.tail.matched;
        if let Some(last) = self.intervals.last_mut() {
            last.counts.add(&self.tail.counts());
            last.answered_after = self.tail.matched;
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
            answered_while_sending,
            elapsed,
            interrupted,
            error,
            memory_bytes_max: self.memory_bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, matched: u64, seconds: u64) -> Box<Tally> {
        Box::new(Tally { sent, matched, elapsed: Duration::from_secs(seconds), ..Tally::new() })
    }

    #[test]
    fn answers_after_the_sending_are_in_the_whole_and_in_no_rate() {
        let mut gathering = Gathering::new(1, Duration::from_secs(1));
        for index in 0..2 {
            gathering.take(0, Told::Interval { index, tally: tally(100, 60, 1) });
        }
        gathering.take(0, Told::Done { tally: tally(0, 80, 1), memory_bytes: 0 });
        let result = gathering.finish(Duration::from_secs(3), false, None);
        assert_eq!((result.total.matched, result.rate_per_s() as u64), (200, 60));
        let rates: Vec<_> = result.intervals.iter().map(|interval| interval.rate_per_s() as u64).collect();
        let answered: Vec<_> = result.intervals.iter().map(|interval| interval.counts.answered).collect();
        assert_eq!((rates, answered), (vec![60, 60], vec![60, 140]));
    }

    #[test]
    fn what_was_told_before_an_error_is_kept() {
        let error = LoadError::new("broken", "mend it");
        let mut gathering = Gathering::new(3, Duration::from_secs(1));
        gathering.take(0, Told::Interval { index: 0, tally: tally(10, 9, 1) });
        gathering.take(0, Told::Failed { error: error.clone(), tally: tally(0, 1, 0) });
        gathering.take(0, Told::failed(error.clone()));
        assert_eq!(gathering.done, 1, "a worker ends once");
        gathering.take(1, Told::Interval { index: 0, tally: tally(10, 10, 1) });
        gathering.take(1, Told::Done { tally: tally(0, 0, 0), memory_bytes: 7 });
        // The third says nothing any more.
        gathering.take(2, Told::Interval { index: 0, tally: tally(10, 4, 1) });
        let result = gathering.finish(Duration::from_secs(2), false, Some(error.clone()));
        assert_eq!((result.total.sent, result.total.matched, result.error), (30, 24, Some(error)));
        assert_eq!(result.total.overdue, 6, "every request ends somewhere");
        assert_eq!(result.intervals.len(), 1);
        assert_eq!(result.intervals[0].counts.answered, 24);
    }
}
