//! Tests of the feed room that need more than one of its files.

mod data;
mod fuzz;
mod messages;
mod recordings;
mod rest;

use super::data::{FeedData, Overrides, load};
use super::{Extractor, Frame, Row, Trade};
use crate::price::ListingId;
use crate::time::UnixNs;

/// 2030-01-01: after every message in these tests.
const LATE: UnixNs = UnixNs(1_893_456_000_000_000_000);

fn built_in() -> FeedData {
    load(&Overrides::default()).unwrap()
}

fn row(name: &str) -> Row {
    built_in().rows.into_iter().find(|row| row.name == name).unwrap()
}

fn listing(n: usize) -> ListingId {
    ListingId::new(n).unwrap()
}

/// An extractor whose listings are numbered in the order of `symbols`.
fn extractor(name: &str, symbols: &[&str]) -> Extractor {
    Extractor::new(&row(name), symbols.iter().enumerate().map(|(n, s)| (*s, listing(n)))).unwrap()
}

/// Trades as `symbol number, price, time in ns, trade number`.
fn read<'f>(extractor: &mut Extractor, message: &'f str) -> (Frame<'f>, Vec<(usize, String, u64, u64)>) {
    let mut out: Vec<Trade> = Vec::new();
    let frame = extractor.extract(message.as_bytes(), LATE, &mut out);
    let plain = |t: &Trade| (t.listing.index(), t.price.to_string(), t.key.time.0, t.key.number);
    (frame, out.iter().map(plain).collect())
}
