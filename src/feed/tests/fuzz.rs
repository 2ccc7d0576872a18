//! Whatever an exchange, or somebody in its place, may send: nothing panics, and no trade is of a
//! listing that was not asked for.

use proptest::prelude::*;

use super::messages::{ONE_TRADE, one_trade};
use super::{LATE, listing, row};
use crate::feed::{Extractor, Frame, RestReader};

/// The fuzz body: any bytes to any row.
pub(crate) fn messages_never_stop_extraction(row_number: usize, message: &[u8]) {
    let (name, symbol, _) = ONE_TRADE[row_number % ONE_TRADE.len()];
    let row = row(name);
    let mut extractor = Extractor::new(&row, [(symbol, listing(5)), ("SECOND", listing(6))]).unwrap();
    let mut out = Vec::new();
    for round in 0..2 {
        out.clear();
        let frame = extractor.extract(message, LATE, &mut out);
        let count = if let Frame::Trades(count) = frame { count } else { 0 };
        assert_eq!(count, out.len());
        assert!(out.len() <= 2, "at most one a listing");
        for trade in &out {
            assert!([5, 6].contains(&trade.listing.index()));
            assert!(trade.price.mantissa() > 0 && trade.key.time <= LATE, "round {round}: {trade:?}");
        }
        assert!(extractor.named().iter().all(|l| [5, 6].contains(&l.index())));
    }
    if let Some(mut rest) = RestReader::new(&row).unwrap() {
        let _ = rest.read(message, listing(5), LATE);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(number in 0_usize..11, message in proptest::collection::vec(any::<u8>(), 0..200)) {
        messages_never_stop_extraction(number, &message);
    }

    #[test]
    fn json_like_text(number in 0_usize..11, message in "([\\[\\]{},:\"]|\"data\"|\"result\"|\"channel\"|\"trade\"|trade|1|null|\\\\){0,60}") {
        messages_never_stop_extraction(number, message.as_bytes());
    }

    #[test]
    fn changed_messages(
        number in 0_usize..11,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 0..6),
    ) {
        let (name, symbol, _) = ONE_TRADE[number];
        let mut message = one_trade(name, symbol, "\"5.25\"").into_bytes();
        for (at, how, byte) in changes {
            if message.is_empty() {
                break;
            }
            let at = at.index(message.len());
            match how {
                0 => message[at] = byte,
                1 => message.insert(at, byte),
                2 => drop(message.remove(at)),
                _ => message.truncate(at),
            }
        }
        messages_never_stop_extraction(number, &message);
    }

    #[test]
    fn any_price_in_a_good_message(number in 0_usize..11, price in "-?[0-9]{0,25}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?") {
        let (name, symbol, _) = ONE_TRADE[number];
        messages_never_stop_extraction(number, one_trade(name, symbol, &format!("\"{price}\"")).as_bytes());
    }
}
