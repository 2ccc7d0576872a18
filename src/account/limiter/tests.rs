//! Leases against one exact limiter, over any number of shards and any spread of traffic.

use proptest::prelude::*;

use super::super::Tier;
use super::super::table::tests::key;
use super::*;
use crate::account::Token;
use crate::time::MonoNs;

const SECOND_NS: u64 = 1_000_000_000;
/// 2025-11-20, within the month's third week.
const UNIX_NS: u64 = 1_763_650_000 * SECOND_NS;

fn at(ns: u64) -> Now {
    Now { mono: MonoNs(7 * SECOND_NS + ns), unix: UnixNs(UNIX_NS + ns) }
}

fn tier(qps: u32, burst: u32, monthly: Option<u64>) -> Tier {
    Tier { name: "test".into(), unlimited: false, qps, burst, monthly }
}

/// Shards with one key, and what they share.
struct Shards {
    shared: Arc<Allowances>,
    table: KeyTable,
    key: KeyIndex,
    shards: Vec<Limiter>,
}

impl Shards {
    fn new(count: usize, tier: Tier) -> Self {
        let token = Token::generate().unwrap();
        let mut key = key(&token, 9);
        key.tier = tier;
        let table = KeyTable::new(vec![key]);
        let shared = Arc::new(Allowances::new(1));
        let shards = (0..count).map(|_| Limiter::new(Arc::clone(&shared), count, &table)).collect();
        let key = table.by_public_id(token.public_id()).unwrap();
        Self { shared, table, key, shards }
    }

    fn admit(&mut self, shard: usize, now: Now) -> Result<(), Limited> {
        self.shards[shard].admit(&self.table, self.key, now)
    }

    /// Asks and, when admitted, charges.
    fn ask(&mut self, shard: usize, now: Now) -> Result<(), Limited> {
        self.admit(shard, now)?;
        self.shards[shard].charge(&self.table, self.key, now)
    }

    fn change_tier(&mut self, tier: Tier) {
        let mut keys = self.table.keys().to_vec();
        keys[0].tier = tier;
        self.table = KeyTable::new(keys);
        for shard in &mut self.shards {
            shard.table_replaced(&self.table);
        }
    }
}

/// One bucket without rounding: times are in nanoseconds divided by the rate.
struct Exact {
    qps: u128,
    burst: u128,
    paid_until: u128,
}

impl Exact {
    fn new(qps: u32, burst: u64) -> Self {
        Self { qps: qps.into(), burst: burst.into(), paid_until: 0 }
    }

    fn admit(&mut self, now: Now) -> bool {
        let now = u128::from(now.mono.0) * self.qps;
        let paid = self.paid_until.max(now) + u128::from(SECOND_NS);
        let admitted = paid <= now + self.burst * u128::from(SECOND_NS);
        if admitted {
            self.paid_until = paid;
        }
        admitted
    }
}

/// How a key's traffic is spread over the shards.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Even,
    OneShard,
    /// Most of it on the first, the rest on the others.
    Skewed,
    /// Now all on this shard, a while later all on the next.
    Shifting {
        steps: usize,
    },
    /// Each shard in turn is asked once, then never again for long.
    Random,
}

impl Spread {
    fn shard(self, step: usize, request: usize, random: u64, shards: usize) -> usize {
        let random = random as usize;
        match self {
            Self::Even => (step + request) % shards,
            Self::OneShard => shards - 1,
            Self::Skewed if !random.is_multiple_of(10) => 0,
            Self::Skewed | Self::Random => random / 10 % shards,
            Self::Shifting { steps } => step / steps % shards,
        }
    }
}

fn spread() -> impl Strategy<Value = Spread> {
    prop_oneof![
        Just(Spread::Even),
        Just(Spread::OneShard),
        Just(Spread::Skewed),
        (1..50_usize).prop_map(|steps| Spread::Shifting { steps }),
        Just(Spread::Random),
    ]
}

/// Rates and bursts: the tiers of the first start, and stranger ones.
fn rate() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![
        Just((10, 20)),
        Just((100, 200)),
        Just((1_000, 2_000)),
        Just((20_000, 20_000)),
        (1..50_u32, 1..9_000_u32),
        (1..5_000_u32, 1..9_000_u32),
        Just((3, 1)),
    ]
}

/// A pseudo-random number from a seed and two places.
fn random(seed: u64, step: usize, request: usize) -> u64 {
    let mut x = seed ^ (step as u64) << 32 ^ request as u64;
    for _ in 0..3 {
        x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    x ^ (x >> 29)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn leases_are_within_one_percent_of_one_exact_limiter_or_one_request_a_shard(
        shards in prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), 1..17_usize],
        (qps, burst) in rate(),
        spread in spread(),
        seed: u64,
        // In percent of the rate, for each phase of 50 steps.
        demand in proptest::collection::vec(prop_oneof![Just(0_u64), 30..100_u64, 100..110_u64, 100..1_000_u64], 1..8),
    ) {
        let mut ours = Shards::new(shards, tier(qps, burst, None));
        let mut exact = Exact::new(qps, burst.into());
        // The rule for any stretch of time: nothing above burst and rate, but for what is promised.
        let margin = |allowance: u64| (allowance / 100).max(shards as u64);
        let mut rule = Exact::new(qps, u64::from(burst) + margin(burst.into()));
        let (mut admitted, mut expected, mut ns) = (0_u64, 0_u64, 0_u64);
        // A step is long enough for a fiftieth of the burst at least, and for one request.
        let step_ns = (u64::from(burst).div_ceil(50) * SECOND_NS).div_ceil(qps.into());
        let mut carry = u64::from(burst) * 100;
        for (step, percent) in demand.iter().flat_map(|percent| std::iter::repeat_n(percent, 50)).enumerate() {
            carry += u64::from(burst).div_ceil(50) * percent;
            for request in 0..(carry / 100) as usize {
                let random = random(seed, step, request);
                let now = at(ns + random % step_ns / 50);
                let shard = spread.shard(step, request, random >> 20, shards);
                let exactly = exact.admit(now);
                expected += u64::from(exactly);
                match ours.admit(shard, now) {
                    Ok(()) => {
                        admitted += 1;
                        prop_assert!(rule.admit(now), "more than the rule and its margin at {step}");
                    }
                    Err(Limited::Rate(wait_ns)) => {
                        // Clocks are apart by up to a fiftieth of a step.
                        let longest = SECOND_NS.div_ceil(qps.into()) + step_ns / 50;
                        prop_assert!(wait_ns > 0 && wait_ns <= longest, "{wait_ns} of {longest}");
                    }
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(
                    admitted.abs_diff(expected) <= margin(expected.max(burst.into())),
                    "{admitted} admitted, {expected} by an exact limiter, at {step}",
                );
            }
            carry %= 100;
            ns += step_ns;
        }
    }

    #[test]
    fn a_month_ends_at_its_cap_over_all_shards(
        shards in 1..9_usize, cap in prop_oneof![1..30_u64, 1_000..20_000_u64], spread in spread(), seed: u64,
    ) {
        let mut ours = Shards::new(shards, tier(u32::MAX, u32::MAX, Some(cap)));
        let mut answered = 0;
        for request in 0..(cap + cap / 10 + 50) as usize {
            let shard = spread.shard(request / 40, request, random(seed, 0, request), shards);
            match ours.ask(shard, at(request as u64 * 1_000)) {
                Ok(()) => answered += 1,
                Err(limited) => prop_assert!(matches!(limited, Limited::Month(_)), "{:?}", limited),
            }
        }
        prop_assert!(answered <= cap);
        prop_assert!(cap - answered <= (cap / 100).max(shards as u64), "{answered} of {cap}");
    }
}

#[test]
fn an_unlimited_key_is_never_refused_and_holds_no_slot() {
    let unlimited = Tier { unlimited: true, ..tier(0, 0, Some(0)) };
    let mut ours = Shards::new(2, unlimited);
    for ns in 0..100_000 {
        assert_eq!(ours.ask((ns % 2) as usize, at(ns)), Ok(()));
    }
    assert_eq!(ours.shards[0].standing(&ours.table, ours.key, at(0)), None);
    assert_eq!(ours.shared.filled().0, 0);
}

#[test]
fn the_shared_line_is_touched_once_a_lease() {
    let mut ours = Shards::new(2, tier(100_000, 100_000, None));
    let slot = ours.shared.slot(9).unwrap();
    let policy = ours.shards[0].entries[0].policy;
    let (mut seen, mut touched) = (0, 0);
    for _ in 0..50_000 {
        ours.admit(0, at(0)).unwrap();
        let left = ours.shared.rate_left(slot, policy, at(0).mono.0).0;
        touched += u32::from(left != seen);
        seen = left;
    }
    assert_eq!(touched, 50_000_u32.div_ceil(100_000 / 256 / 2));
}

#[test]
fn a_refusal_says_when_to_come_again_and_that_is_true() {
    let mut ours = Shards::new(1, tier(10, 2, None));
    assert_eq!((ours.admit(0, at(0)), ours.admit(0, at(0))), (Ok(()), Ok(())));
    let Err(Limited::Rate(wait_ns)) = ours.admit(0, at(30_000_000)) else { panic!("admitted") };
    assert_eq!(wait_ns, 70_000_000);
    assert!(ours.admit(0, at(30_000_000 + wait_ns - 1)).is_err());
    assert_eq!(ours.admit(0, at(30_000_000 + wait_ns)), Ok(()));
}

#[test]
fn a_new_month_begins_at_midnight_of_utc_without_a_word() {
    let mut ours = Shards::new(2, tier(u32::MAX, u32::MAX, Some(1_000)));
    let end_ns = MonthSpan::of(at(0).unix).end.0 - UNIX_NS;
    for shard in [0, 1] {
        while ours.ask(shard, at(end_ns - 2)).is_ok() {}
        assert_eq!(ours.ask(shard, at(end_ns - 2)), Err(Limited::Month(2)));
    }
    assert_eq!(ours.ask(0, at(end_ns)), Ok(()));
    let standing = ours.shards[0].standing(&ours.table, ours.key, at(end_ns)).unwrap();
    assert_eq!(standing.month, Some((1_000, 999, 31 * 86_400 * SECOND_NS)));
    // The other shard has not looked at its clock since.
    let answered = (0..2_000).filter(|_| ours.ask(1, at(end_ns - 1)).is_ok()).count();
    assert!((990..1_000).contains(&answered), "{answered}");
}

#[test]
fn what_is_left_over_from_a_month_is_not_spent_in_the_next() {
    let mut ours = Shards::new(1, tier(u32::MAX, u32::MAX, Some(100_000)));
    let month = MonthSpan::of(at(0).unix);
    ours.ask(0, at(0)).unwrap();
    let next = Now { unix: month.end, ..at(1) };
    assert_eq!(ours.ask(0, next), Ok(()));
    let used = ours.shared.used(9, Month::of(next.unix));
    assert_eq!(used, 100_000 / LEASE_PARTS, "a whole lease of the new month");
}

#[test]
fn use_before_a_start_counts() {
    let mut ours = Shards::new(2, tier(1_000, 1_000, Some(100)));
    ours.shared.seed(9, Month::of(at(0).unix), 90);
    let answered = (0..1_000).filter(|n| ours.ask(n % 2, at(0)).is_ok()).count();
    assert_eq!(answered, 10);
}

#[test]
fn a_change_of_tier_counts_at_once_and_loses_nothing_of_the_month() {
    let mut ours = Shards::new(2, tier(10, 5_000, Some(10_000)));
    for n in 0..1_000 {
        ours.ask(n % 2, at(0)).unwrap();
    }
    for _ in 0..200 {
        ours.change_tier(tier(10, 5_001, Some(10_000)));
        ours.change_tier(tier(10, 5_000, Some(10_000)));
        ours.ask(0, at(0)).unwrap();
    }
    ours.change_tier(tier(1, 1, Some(20_000)));
    assert_eq!(ours.shared.used(9, Month::of(at(0).unix)), 1_200);
    assert!(matches!(ours.ask(0, at(0)), Err(Limited::Rate(_))), "there is more debt than the new burst");
    assert_eq!(ours.ask(0, at(2_000 * SECOND_NS)), Ok(()));
    assert!(ours.ask(1, at(2_000 * SECOND_NS)).is_err());
    ours.change_tier(tier(0, 9, None));
    assert!(matches!(ours.ask(0, at(9_000 * SECOND_NS)), Err(Limited::Rate(_))));
    ours.change_tier(Tier { unlimited: true, ..tier(0, 0, None) });
    assert_eq!(ours.ask(0, at(0)), Ok(()));
}

#[test]
fn both_keys_of_a_rotation_share_one_allowance_and_other_keys_their_own() {
    let tokens: Vec<Token> = (0..3).map(|_| Token::generate().unwrap()).collect();
    let of =
        |number: u32, token: &Token| super::super::Key { tier: tier(1, 10, Some(50)), ..key(token, number) };
    let keys = vec![of(4, &tokens[0]), of(3, &tokens[1]), of(4, &tokens[2])];
    let table = KeyTable::new(keys);
    assert_eq!(table.limits().iter().map(|limit| limit.number).collect::<Vec<_>>(), [3, 4]);
    let mut limiter = Limiter::new(Arc::new(Allowances::new(2)), 1, &table);
    let index = |n: usize| table.by_public_id(tokens[n].public_id()).unwrap();
    let mut admitted = [0; 3];
    for _ in 0..20 {
        for (n, admitted) in admitted.iter_mut().enumerate() {
            *admitted += u32::from(limiter.admit(&table, index(n), at(0)).is_ok());
        }
    }
    assert_eq!(admitted, [5, 10, 5]);
}

#[test]
fn keys_come_and_go_without_mixing_up_what_is_held() {
    let tokens: Vec<Token> = (0..6).map(|_| Token::generate().unwrap()).collect();
    let keys: Vec<_> = (0..)
        .zip(&tokens)
        .map(|(n, token)| super::super::Key { tier: tier(1, 10 * (n + 1), Some(50)), ..key(token, n) })
        .collect();
    let all = KeyTable::new(keys.clone());
    let shared = Arc::new(Allowances::new(6));
    let mut limiter = Limiter::new(Arc::clone(&shared), 1, &all);
    for (n, token) in tokens.iter().enumerate() {
        for _ in 0..=n {
            let index = all.by_public_id(token.public_id()).unwrap();
            limiter.admit(&all, index, at(0)).unwrap();
            limiter.charge(&all, index, at(0)).unwrap();
        }
    }
    let some = KeyTable::new(vec![keys[5].clone(), keys[1].clone(), keys[3].clone()]);
    limiter.table_replaced(&some);
    for n in [1_u64, 3, 5] {
        let index = some.by_public_id(tokens[n as usize].public_id()).unwrap();
        let standing = limiter.standing(&some, index, at(0)).unwrap();
        assert_eq!((standing.burst, standing.left), (10 * (n + 1), 10 * (n + 1) - (n + 1)));
        assert_eq!(standing.month.unwrap().1, 50 - (n + 1));
    }
}

#[test]
fn a_key_without_a_slot_is_refused_and_nobody_else() {
    let shared = Arc::new(Allowances::new(0));
    for number in 1_000.. {
        if !shared.seed(number, Month::from_number(0), 0) {
            break;
        }
    }
    let token = Token::generate().unwrap();
    let table = KeyTable::new(vec![key(&token, 1)]);
    let mut limiter = Limiter::new(shared, 1, &table);
    let index = table.by_public_id(token.public_id()).unwrap();
    assert_eq!(limiter.admit(&table, index, at(0)), Err(Limited::NoSlot));
    assert_eq!(limiter.standing(&table, index, at(0)), None);
}

#[test]
fn an_answer_that_could_not_be_given_is_not_charged() {
    let mut ours = Shards::new(1, tier(100, 100, Some(1)));
    for _ in 0..3 {
        ours.ask(0, at(0)).unwrap();
        ours.shards[0].discharge(&ours.table, ours.key);
    }
    ours.ask(0, at(0)).unwrap();
    assert!(matches!(ours.ask(0, at(0)), Err(Limited::Month(_))));
}
