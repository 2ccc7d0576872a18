//! Records added up to rows.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::{ChainId, Record, RecordId};
use crate::store::{ChainStep, UsageBatch, UsageOf, UsageRow, UsageSums};
use crate::time::calendar::DAY_S;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Records of one or more chains, added up by second and what they are about.
#[derive(Debug, Default)]
pub struct Rollup {
    rows: Vec<UsageRow>,
    /// Where a row stands, by its second and what it is about.
    places: HashMap<(u64, UsageOf), u32>,
    chains: BTreeMap<ChainId, Chain>,
    keeps_raw: bool,
    raw: Vec<(RecordId, Record)>,
}

#[derive(Debug)]
struct Chain {
    from: u64,
    to: u64,
    missing: u64,
    records: HashMap<(u64, u32), u64>,
    /// The last day and key and how many records had them without a break: most come in runs.
    run: ((u64, u32), u64),
}

impl Rollup {
    /// Nothing yet; with `keeps_raw` the records themselves are kept for the store too.
    #[must_use]
    pub fn new(keeps_raw: bool) -> Self {
        Self { keeps_raw, ..Self::default() }
    }

    /// Adds records of one chain, in order: those of the sequences `from` to before `to`, of which
    /// `missing` could not be had. What is added of a chain next must begin where this ended.
    pub fn add(&mut self, chain: ChainId, from: u64, to: u64, missing: u64, records: &[(RecordId, Record)]) {
        let step = self.chains.entry(chain).or_insert_with(|| Chain {
            from,
            to: from,
            missing: 0,
            records: HashMap::new(),
            run: ((0, 0), 0),
        });
        assert_eq!(step.to, from, "records of a chain are added without gaps");
        step.to = to;
        step.missing += missing;
        for (_, record) in records {
            let second = record.time.0 / SECOND_NS;
            let of = UsageOf {
                key: record.key,
                asset: record.asset,
                exchange: record.exchange,
                transport: record.transport as u8,
                status: record.status,
            };
            let place = *self.places.entry((second, of)).or_insert_with(|| {
                self.rows.push(UsageRow { time: second, of, sums: UsageSums::default() });
                // Batches end long before there are so many.
                (self.rows.len() - 1) as u32
            });
            let sums = &mut self.rows[place as usize].sums;
            let latency_ns = u64::from(record.latency_ns);
            sums.requests += 1;
            sums.prices += u64::from(record.assets);
            sums.latency_ns_sum += latency_ns;
            sums.latency_ns_max = sums.latency_ns_max.max(latency_ns);
            sums.latency.add(latency_ns);
            step.count((second / DAY_S, record.key));
        }
        if self.keeps_raw {
            self.raw.extend_from_slice(records);
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// All of it, in the order the store wants; leaves nothing.
    #[must_use]
    pub fn take(&mut self) -> UsageBatch {
        self.places.clear();
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable_by_key(|row| (row.time, row.of));
        let chains = std::mem::take(&mut self.chains);
        let chains = chains.into_iter().map(|(chain, step)| step.end(chain)).collect();
        UsageBatch { rows, chains, raw: std::mem::take(&mut self.raw) }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = Self::new(self.keeps_raw);
    }
}

impl Chain {
    #[inline]
    fn count(&mut self, of: (u64, u32)) {
        if self.run.0 != of {
            self.end_run();
            self.run = (of, 0);
        }
        self.run.1 += 1;
    }

    fn end_run(&mut self) {
        if self.run.1 > 0 {
            *self.records.entry(self.run.0).or_default() += self.run.1;
        }
    }

    fn end(mut self, chain: ChainId) -> ChainStep {
        self.end_run();
        let mut records: Vec<_> = self.records.into_iter().collect();
        records.sort_unstable();
        ChainStep { chain, from: self.from, to: self.to, missing: self.missing, records }
    }
}
