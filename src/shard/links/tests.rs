//! The broadcast against an obvious model: whatever was said, in whatever order links were drained,
//! every board ends with what is newest.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::price::{AssetId, Currency, Exchange, ExchangeId, Price, Symbol, Tier, TradeKey};
use crate::time::UnixNs;

const LISTINGS: usize = 4;
const SESSIONS: usize = 2;
const SHARDS: usize = 3;

fn catalogue() -> Arc<Catalogue> {
    let id = |n| ExchangeId::new(n).unwrap();
    let exchange =
        |n, name: &str| Exchange { id: id(n), name: name.into(), dead_after: Duration::from_secs(5) };
    let mut catalogue = Catalogue::new(vec![exchange(1, "one"), exchange(2, "two")]).unwrap();
    let usd = Currency::parse("USD").unwrap();
    for (n, symbol) in ["BTC", "ETH"].iter().enumerate() {
        let listings = [(id(1), "x", usd), (id(2), "y", usd)];
        let symbol = Symbol::parse(symbol).unwrap();
        catalogue.add_asset(AssetId::new(n + 1).unwrap(), symbol, false, &listings).unwrap();
    }
    Arc::new(catalogue)
}

fn quote(time: u64, number: u64, mantissa: i64) -> Quote {
    Quote {
        price: Price::from_parts(mantissa, -2).unwrap(),
        key: TradeKey { time: UnixNs(time), number },
        received: UnixNs(time),
        tier: Tier::Ws,
    }
}

/// One thing that is said or done.
#[derive(Clone, Debug)]
enum Step {
    Quote(usize, u64, u64, Known),
    Confirm(usize, Known),
    /// A session is heard, on its newest connection or on the one before.
    Heard(usize, bool),
    /// A session's connection is gone; the next one has a higher number.
    Gone(usize),
    RestFailed(usize),
    Drain(usize, usize),
    Settle,
    Leave(usize),
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Live(usize),
    Until(u64),
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![(0..SESSIONS).prop_map(Known::Live), (1_u64..1_000).prop_map(Known::Until)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LISTINGS, 0_u64..20, 0_u64..3, known()).prop_map(|(l, t, n, k)| Step::Quote(l, t, n, k)),
        3 => (0..LISTINGS, known()).prop_map(|(l, k)| Step::Confirm(l, k)),
        3 => (0..SESSIONS, any::<bool>()).prop_map(|(s, old)| Step::Heard(s, old)),
        1 => (0..SESSIONS).prop_map(Step::Gone),
        2 => (0..LISTINGS).prop_map(Step::RestFailed),
        3 => (0..SHARDS, 1_usize..6).prop_map(|(s, n)| Step::Drain(s, n)),
        1 => Just(Step::Settle),
        1 => (0..SHARDS + 20).prop_map(Step::Leave),
    ]
}

/// What is known of a listing when everything is applied at once.
#[derive(Clone, Debug, Default)]
struct Row {
    held: Option<Quote>,
    live: Option<(usize, u32)>,
    until: u64,
    failed: bool,
}

#[derive(Debug)]
struct Model {
    rows: Vec<Row>,
    sessions: Vec<(u32, u64)>,
}

impl Model {
    fn confirm(&mut self, listing: usize, confirmation: Confirmation) {
        let row = &mut self.rows[listing];
        match confirmation {
            Confirmation::Live { session, connection } => row.live = Some((session.index(), connection)),
            Confirmation::Until(until) => row.until = row.until.max(until.0),
        }
    }

    fn fresh_until(&self, listing: usize) -> u64 {
        let row = &self.rows[listing];
        let live = row.live.filter(|(session, connection)| self.sessions[*session].0 == *connection);
        live.map_or(row.until, |(session, _)| self.sessions[session].1.max(row.until))
    }
}

/// One shard: its link, while it is there, and what it has made of it.
struct Reader {
    link: Option<Receiver<Update>>,
    into: Sender<Update>,
    inbox: Inbox,
    board: Board<Ready>,
    failed: [bool; LISTINGS],
}

impl Reader {
    fn drain(&mut self, count: usize) {
        let Some(link) = &self.link else { return };
        for update in link.try_iter().take(count) {
            self.into.send(update).unwrap();
        }
        let failed = &mut self.failed;
        self.inbox.drain(&mut self.board, |listing, found| failed[listing.index()] |= !found);
    }
}

fn run(steps: &[Step], link_len: usize) {
    let catalogue = catalogue();
    let (mut publisher, receivers) = links(&catalogue, SHARDS, link_len);
    let mut readers: Vec<Reader> = receivers
        .into_iter()
        .map(|link| {
            let (into, from) = crossbeam_channel::unbounded();
            let board = Board::new(&catalogue);
            Reader { link: Some(link), into, inbox: Inbox::new(vec![from]), board, failed: [false; LISTINGS] }
        })
        .collect();
    let mut model = Model { rows: vec![Row::default(); LISTINGS], sessions: vec![(1, 0); SESSIONS] };
    let mut deadline = 1_000_000_000;
    for (number, step) in (1_i64..).zip(steps) {
        let confirmation = |model: &Model, known: Known| match known {
            Known::Live(n) => {
                Confirmation::Live { session: SessionId::new(n).unwrap(), connection: model.sessions[n].0 }
            }
            Known::Until(until) => Confirmation::Until(MonoNs(until)),
        };
        match step.clone() {
            Step::Quote(listing, time, trade, known) => {
                let quote = quote(time, trade, number);
                let confirmation = confirmation(&model, known);
                publisher.quote(ListingId::new(listing).unwrap(), quote, confirmation);
                let row = &mut model.rows[listing];
                if row.held.is_none_or(|held| quote.key >= held.key) {
                    row.held = Some(quote);
                }
                model.confirm(listing, confirmation);
            }
            Step::Confirm(listing, known) => {
                let confirmation = confirmation(&model, known);
                publisher.confirm(ListingId::new(listing).unwrap(), confirmation);
                model.confirm(listing, confirmation);
            }
            Step::Heard(session, old) => {
                deadline += 60_000_000;
                let connection = model.sessions[session].0 - u32::from(old);
                publisher.heard(SessionId::new(session).unwrap(), connection, MonoNs(deadline));
                if !old {
                    model.sessions[session].1 = deadline;
                }
            }
            Step::Gone(session) => {
                let connection = model.sessions[session].0;
                publisher.heard(SessionId::new(session).unwrap(), connection, MonoNs(0));
                publisher.heard(SessionId::new(session).unwrap(), connection + 1, MonoNs(0));
                model.sessions[session] = (connection + 1, 0);
            }
            Step::RestFailed(listing) => {
                publisher.rest_failed(ListingId::new(listing).unwrap());
                model.rows[listing].failed = true;
            }
            Step::Drain(shard, count) => readers[shard].drain(count),
            Step::Settle => publisher.settle(),
            Step::Leave(shard) => {
                if let Some(reader) = readers.get_mut(shard) {
                    reader.link = None;
                }
            }
        }
        for outlet in &publisher.outlets {
            assert_eq!(outlet.owed, outlet.debts(), "the sum of debts");
            assert!(outlet.owed <= 3 * LISTINGS + SESSIONS, "more debts than there is to owe");
        }
    }
    let mut rounds = 0;
    while publisher.owes() {
        readers.iter_mut().for_each(|reader| reader.drain(usize::MAX));
        publisher.settle();
        rounds += 1;
        assert!(rounds <= 3 * LISTINGS + SESSIONS, "debts are not paid");
    }
    for (shard, reader) in readers.iter_mut().enumerate().filter(|(_, reader)| reader.link.is_some()) {
        reader.drain(usize::MAX);
        for (index, row) in model.rows.iter().enumerate() {
            let id = ListingId::new(index).unwrap();
            assert_eq!(reader.board.quote(id), row.held.as_ref(), "shard {shard} listing {index}");
            let (told, said) = (reader.board.fresh_until(id).0, model.fresh_until(index));
            assert!(
                told <= said && said - told < HEARD_STEP_NS,
                "shard {shard} listing {index}: fresh until {told}, not {said}"
            );
            assert_eq!(reader.failed[index], row.failed, "shard {shard} listing {index}: failure");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_board_ends_with_what_is_newest(
        steps in prop::collection::vec(step(), 0..60),
        link_len in 1_usize..=8,
    ) {
        run(&steps, link_len);
    }
}

#[test]
fn an_older_trade_never_replaces_and_still_confirms() {
    let catalogue = catalogue();
    let (mut publisher, receivers) = links(&catalogue, 1, 8);
    let id = ListingId::new(0).unwrap();
    publisher.quote(id, quote(10, 5, 1_00), Confirmation::Until(MonoNs(7)));
    publisher.quote(id, quote(10, 4, 2_00), Confirmation::Until(MonoNs(9)));
    let updates: Vec<Update> = receivers[0].try_iter().collect();
    assert!(matches!(updates[0], Update::Quote(_, held, ..) if held.key.number == 5));
    assert!(matches!(updates[1], Update::Confirm(_, Confirmation::Until(MonoNs(9)))));
    assert_eq!(updates.len(), 2);
}

#[test]
fn a_shard_that_is_gone_costs_nothing() {
    let catalogue = catalogue();
    let (mut publisher, mut receivers) = links(&catalogue, 2, 1);
    let id = ListingId::new(1).unwrap();
    for number in 0..5 {
        publisher.quote(id, quote(number, 0, 1), Confirmation::Until(MonoNs(1)));
    }
    assert!(publisher.owes());
    drop(receivers.remove(0));
    let kept = receivers.remove(0);
    assert_eq!(kept.try_iter().count(), 1);
    publisher.settle();
    while kept.try_recv().is_ok() {
        publisher.settle();
    }
    assert!(!publisher.owes());
}

#[test]
fn small_steps_of_a_living_connection_are_left_out() {
    let catalogue = catalogue();
    let (mut publisher, receivers) = links(&catalogue, 1, 8);
    let session = SessionId::new(0).unwrap();
    for step in 0..100 {
        publisher.heard(session, 1, MonoNs(1_000_000_000 + step * HEARD_STEP_NS / 10));
    }
    assert!(receivers[0].try_iter().count() <= 8);
    assert!(publisher.owes(), "ten messages do not fit eight places");
}
