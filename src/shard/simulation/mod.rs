//! Seeded simulation of the shard's loop over a scripted kernel.
//!
//! ```text
//!   feed (a guest of shard 0) ─► Publisher ─► tiny links ─┐                ┌─► shard 0 ─► Kernel ◄─┐
//!   REST ──────────────────────► Publisher ─► tiny links ─┴─ forwarded ────┴─► shard 1 ─► Kernel ◄─┤
//!                                                  └──► the model of each shard's board           │
//!   UDP and HTTP clients, each of whom knows what he may be told ──────────────────────────────────┘
//! ```
//!
//! A seed decides everything: who asks what and when, what the kernel does wrong, how late a link is
//! forwarded. The model sees what a shard's inbox was given, so it knows each answer exactly. Then the
//! faults stop, everything comes to rest, and what must hold in the end is checked.
//!
//! A failing seed is run again by `BEAST_SIM_SEED=17 cargo test --lib shard::simulation`.

use std::sync::OnceLock;

use crate::account::{Key, KeyTable, Tier, Token};
use crate::time::UnixNs;
use crate::wire::v2;

mod datagrams;
mod feeds;
mod mutant;
mod prices;
mod streams;
mod world;

use mutant::Mutation;
use world::World;

/// The one valid key and one that no table holds.
struct Keys {
    token: Token,
    text: String,
    stranger: String,
    id: u64,
    v2_request: v2::Key,
    v2_answer: v2::Key,
}

impl Keys {
    /// The same for all seeds of a process: which key it is decides nothing.
    fn shared() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| {
            let token = Token::generate().unwrap();
            Self {
                text: token.reveal(),
                stranger: Token::generate().unwrap().reveal(),
                id: token.public_id(),
                v2_request: v2::Key(token.v2_request_key().0),
                v2_answer: v2::Key(token.v2_answer_key().0),
                token,
            }
        })
    }

    fn table(&self) -> Box<KeyTable> {
        let tier = Tier { name: "partner".into(), unlimited: true, qps: 0, burst: 0, monthly: None };
        let key = Key {
            number: 42,
            account: 1,
            public_id: self.id,
            secret_hash: self.token.secret_hash(),
            v2_request: self.token.v2_request_key(),
            v2_answer: self.token.v2_answer_key(),
            tier,
            networks: vec![],
            admin: false,
            expires: UnixNs::NEVER,
        };
        Box::new(KeyTable::new(vec![key]))
    }
}

/// What a seed's run has seen, so that a simulation in which nothing happens is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    delivered: u64,
    lost: u64,
    http_answered: u64,
    short_sends: u64,
    no_buffers: u64,
    overruns: u64,
    waited: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.http_answered += other.http_answered;
        self.short_sends += other.short_sends;
        self.no_buffers += other.no_buffers;
        self.overruns += other.overruns;
        self.waited += other.waited;
    }
}

/// Runs one seed; a broken rule is an error, whether it was found by a check or by a panic.
fn simulate(seed: u64, mutation: Mutation) -> Result<Tally, String> {
    let run = std::panic::AssertUnwindSafe(|| World::new(seed, mutation).run());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, needs a number")))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Seeds of an ordinary run.
    const SEEDS: u64 = 2_000;

    /// Seeds among which each mutation has to be noticed.
    const MUTANT_SEEDS: u64 = 60;

    #[test]
    fn every_seed_keeps_the_rules() {
        let (first, count) = match number("BEAST_SIM_SEED") {
            Some(seed) => (seed, 1),
            None => (0, number("BEAST_SIM_SEEDS").unwrap_or(SEEDS)),
        };
        let next = AtomicU64::new(first);
        let failures = Mutex::new(Vec::new());
        let total = Mutex::new(Tally::default());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count || failures.lock().unwrap().len() >= 5 {
                    break;
                }
                match simulate(seed, Mutation::None) {
                    Ok(tally) => *total.lock().unwrap() += tally,
                    Err(what) => failures.lock().unwrap().push((seed, what)),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        for (seed, what) in failures.lock().unwrap().iter() {
            eprintln!("seed {seed}: {what}");
            eprintln!("  again: BEAST_SIM_SEED={seed} cargo test --lib shard::simulation -- --nocapture");
        }
        let failed: Vec<u64> = failures.lock().unwrap().iter().map(|(seed, _)| *seed).collect();
        assert!(failed.is_empty(), "these seeds broke a rule: {failed:?}");
        let total = *total.lock().unwrap();
        eprintln!("{total:?}");
        if count >= 100 {
            let seen = [
                total.delivered,
                total.lost,
                total.http_answered,
                total.short_sends,
                total.no_buffers,
                total.overruns,
                total.waited,
            ];
            assert!(seen.iter().all(|n| *n > count / 4), "hardly anything happened: {total:?}");
        }
    }

    fn is_noticed(mutation: Mutation) {
        let found = (0..MUTANT_SEEDS).find_map(|seed| Some((seed, simulate(seed, mutation).err()?)));
        let Some((seed, what)) = found else { panic!("{mutation:?} passed {MUTANT_SEEDS} seeds") };
        eprintln!("{mutation:?} is noticed by seed {seed}: {what}");
    }

    #[test]
    fn a_socket_that_is_not_armed_again_is_noticed() {
        is_noticed(Mutation::ForgetUdp);
    }

    #[test]
    fn a_listener_that_is_not_armed_again_is_noticed() {
        is_noticed(Mutation::ForgetAccept);
    }

    #[test]
    fn a_connection_that_is_not_armed_again_is_noticed() {
        is_noticed(Mutation::ForgetReceive);
    }

    #[test]
    fn a_short_send_whose_rest_is_dropped_is_noticed() {
        is_noticed(Mutation::DropShortRest);
    }

    #[test]
    fn a_short_send_on_a_stream_taken_for_a_whole_one_is_noticed() {
        is_noticed(Mutation::FalseSent);
    }

    #[test]
    fn prices_that_are_never_sent_again_are_noticed() {
        is_noticed(Mutation::NeverSettle);
    }

    #[test]
    fn a_seed_runs_the_same_twice() {
        let run = |seed| format!("{:?}", simulate(seed, Mutation::None));
        for seed in 0..20 {
            assert_eq!(run(seed), run(seed));
        }
    }
}
