//! Where every request ended.

use super::result::{Counts, Ledger};
use super::watch::Reading;

/// Where every request ended, by our counts and what the server's side told before and after.
pub(super) fn ledger(counts: &Counts, before: &Reading, after: &Reading) -> Ledger {
    let lost = u64::try_from(counts.lost).unwrap_or(0);
    let dropped = after
        .dropped
        .zip(before.dropped)
        .map(|((after, told_by), (before, _))| (after.saturating_sub(before), told_by));
    let received = after.received.zip(before.received).map(|(after, before)| after.saturating_sub(before));
    let port_closed = counts.port_closed.min(lost);
    let dropped_by_server_kernel = dropped.map(|(count, _)| count);
    let told = u128::from(port_closed)
        + u128::from(counts.dropped)
        + u128::from(dropped_by_server_kernel.unwrap_or(0));
    let rest = u64::try_from(u128::from(lost).saturating_sub(told)).unwrap_or(0);
    let excess = u64::try_from(told.saturating_sub(u128::from(lost))).unwrap_or(u64::MAX);
    // What neither the server nor its kernel has seen was lost on the way out.
    let on_the_way = received.map_or(rest, |received| {
        let seen = received.saturating_add(dropped_by_server_kernel.unwrap_or(0)).saturating_add(port_closed);
        counts.sent.saturating_sub(seen).min(rest)
    });
    Ledger {
        sent: counts.sent,
        answered: counts.answered,
        refused: counts.refused_total(),
        wrong: counts.wrong,
        late: counts.late,
        port_closed,
        dropped_by_server_kernel,
        unanswered_by_server: received.map(|_| rest - on_the_way),
        dropped_by_our_kernel: counts.dropped,
        lost_on_the_way: on_the_way,
        excess,
        told_by: received.map(|_| "metrics").or(dropped.map(|(_, told_by)| told_by)).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts { sent: 1_000, answered: 900, wrong: 5, late: 5, lost: 90, dropped: 10, ..Counts::default() }
    }

    #[test]
    fn every_lost_request_gets_a_line() {
        let read = |received: Option<u64>, dropped: Option<u64>| Reading {
            received,
            dropped: dropped.map(|count| (count, "metrics")),
            ..Reading::default()
        };
        let nobody = ledger(&counts(), &Reading::default(), &Reading::default());
        assert!(nobody.balances(), "{nobody:?}");
        assert_eq!((nobody.lost_on_the_way, nobody.told_by.as_deref()), (80, None));

        let told = ledger(&counts(), &read(Some(100), Some(7)), &read(Some(1_060), Some(37)));
        assert!(told.balances(), "{told:?}");
        assert_eq!(told.dropped_by_server_kernel, Some(30));
        assert_eq!((told.lost_on_the_way, told.unanswered_by_server), (10, Some(40)));

        let others = ledger(&counts(), &read(Some(0), Some(0)), &read(Some(5_000), Some(200)));
        assert!(others.balances(), "{others:?}");
        assert_eq!((others.excess, others.lost_on_the_way), (120, 0));
    }
}
