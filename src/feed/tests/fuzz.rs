//! Whatever an exchange, or somebody in its place, may send: nothing panics, and no trade is of a
//! listing that was not asked for.

use proptest::prelude::*;

use super::messages::{ONE_TRADE, one_trade};
use super::row;
use crate::feed::fuzz;

/// The body, for the row whose message has that number, by its own symbols.
fn survive(row_number: usize, message: &[u8]) {
    let (name, symbol, _) = ONE_TRADE[row_number % ONE_TRADE.len()];
    let row = row(name);
    fuzz::read_message(&row, &[symbol, "SECOND"], message);
    let place = super::built_in().rows.iter().position(|row| row.name == name).unwrap();
    fuzz::rest(&[&[b'a' + u8::try_from(place).unwrap()], message].concat());
}

proptest! {
    #[test]
    fn arbitrary_bytes(number in 0_usize..11, message in proptest::collection::vec(any::<u8>(), 0..200)) {
        survive(number, &message);
    }

    #[test]
    fn json_like_text(number in 0_usize..11, message in "([\\[\\]{},:\"]|\"data\"|\"result\"|\"channel\"|\"trade\"|trade|1|null|\\\\){0,60}") {
        survive(number, message.as_bytes());
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
        survive(number, &message);
    }

    #[test]
    fn any_price_in_a_good_message(number in 0_usize..11, price in "-?[0-9]{0,25}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?") {
        let (name, symbol, _) = ONE_TRADE[number];
        survive(number, one_trade(name, symbol, &format!("\"{price}\"")).as_bytes());
    }
}
