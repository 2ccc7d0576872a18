//! The table of prices the program answers from: one writer, a sequence check, no system call.
//!
//! A row is found by its symbol, at most [`at::PROBES_MAX`] rows from where the search begins; the
//! multiplier is chosen so that all assets have such a place. One without is left to the socket.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use super::layout::price as at;
use crate::price::{AssetId, Board, Catalogue, ExchangeId, Selection, Symbol};
use crate::sys::mmap::SharedWords;
use crate::time::MonoNs;
use crate::wire::v2::AnswerTemplate;

/// What is right for an asset until a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceEntry {
    /// Persistent number of the asset.
    pub asset: AssetId,
    /// The exchange that answers.
    pub exchange: ExchangeId,
    /// The answer.
    pub answer: AnswerTemplate,
    /// Until when it is fresh.
    pub fresh_until: MonoNs,
}

/// The table, and what was written to it last.
#[derive(Debug)]
pub struct PriceMap {
    words: SharedWords,
    /// The row of each asset, by its position on the board.
    rows: Vec<Option<usize>>,
    written: Vec<Option<PriceEntry>>,
}

/// Where assets stand.
#[derive(Debug)]
pub(super) struct Placing {
    pub(super) seed: u64,
    pub(super) shift: u32,
    rows: Vec<Option<usize>>,
}

impl Placing {
    /// How many rows a table for so many assets has: at most an eighth of them is used, so that a
    /// search that begins anywhere is short.
    pub(super) fn rows_max(assets: usize) -> usize {
        (assets.max(1) * 8).next_power_of_two()
    }

    pub(super) fn new(symbols: &[Symbol]) -> Self {
        let len = Self::rows_max(symbols.len());
        let shift = 64 - len.trailing_zeros();
        let tries = (0..64_u64).map(|n| 0x9e37_79b9_7f4a_7c15_u64.wrapping_add(n << 17));
        let placed = tries.map(|seed| Self { seed, shift, rows: Self::place(symbols, seed, shift, len) });
        let best = placed.min_by_key(|placing| placing.rows.iter().filter(|row| row.is_none()).count());
        best.unwrap_or(Self { seed: 1, shift, rows: Vec::new() })
    }

    fn place(symbols: &[Symbol], seed: u64, shift: u32, len: usize) -> Vec<Option<usize>> {
        let mut taken = vec![false; len];
        let place = |symbol: &Symbol| {
            let [low, high] = halves(*symbol);
            let start = ((low ^ high.rotate_left(29)).wrapping_mul(seed) >> shift) as usize;
            let row = (start..len.min(start + at::PROBES_MAX)).find(|row| !taken[*row])?;
            taken[row] = true;
            Some(row)
        };
        symbols.iter().map(place).collect()
    }
}

fn halves(symbol: Symbol) -> [u64; 2] {
    let whole = symbol.as_u128();
    [whole as u64, (whole >> 64) as u64]
}

impl PriceMap {
    pub(super) fn new(words: SharedWords, symbols: &[Symbol], placing: Placing) -> Self {
        for (symbol, row) in symbols.iter().zip(&placing.rows) {
            if let Some(row) = row {
                let start = row * at::WORDS + at::SYMBOL;
                for (word, half) in words.words()[start..].iter().zip(halves(*symbol)) {
                    word.store(half, Relaxed);
                }
            }
        }
        let written = vec![None; placing.rows.len()];
        Self { words, rows: placing.rows, written }
    }

    /// How many assets found no place.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.rows.iter().filter(|row| row.is_none()).count()
    }

    /// Makes the table say of the assets at `positions` what the board's rule says now. It stays right
    /// until the chosen listing's deadline, unless the board changes: then call this again.
    pub fn follow<A>(
        &mut self,
        board: &Board<A>,
        catalogue: &Catalogue,
        positions: impl Iterator<Item = usize>,
        now: MonoNs,
        answer: impl Fn(&A) -> &AnswerTemplate,
    ) {
        for position in positions.take_while(|position| *position < catalogue.assets().len()) {
            let entry = match board.select(position, None, now) {
                Selection::Fresh { listing, ready, .. } => Some(PriceEntry {
                    asset: board.asset(position),
                    exchange: catalogue.listing(listing).exchange,
                    answer: *answer(ready),
                    fresh_until: board.fresh_until(listing),
                }),
                Selection::Stale { .. } | Selection::NotListed => None,
            };
            self.write(position, entry);
        }
    }

    /// Makes `entry` what is answered for the asset at that position of the board; `None` sends its
    /// requests up. Returns whether anything had to be written.
    pub fn write(&mut self, position: usize, entry: Option<PriceEntry>) -> bool {
        let (Some(Some(row)), Some(written)) = (self.rows.get(position), self.written.get_mut(position))
        else {
            return false;
        };
        if *written == entry {
            return false;
        }
        *written = entry;
        let row = &self.words.words()[row * at::WORDS..(row + 1) * at::WORDS];
        let set = |index: usize, word: u64| row[index].store(word, Relaxed);
        let sequence = row[at::SEQUENCE].load(Relaxed);
        set(at::SEQUENCE, sequence.wrapping_add(1));
        fence(Release);
        match entry {
            Some(entry) => {
                let [head, _, mantissa, traded, received, currency, ..] = *entry.answer.words();
                set(at::FRESH_UNTIL, entry.fresh_until.0);
                let exchange = (entry.exchange.index() as u64) << 16;
                set(at::ASSET_AND_EXCHANGE, entry.asset.index() as u64 | exchange);
                for (index, word) in [head, mantissa, traded, received, currency].into_iter().enumerate() {
                    set(at::ANSWER + index, word);
                }
            }
            None => set(at::FRESH_UNTIL, 0),
        }
        row[at::SEQUENCE].store(sequence.wrapping_add(2), Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_finds_a_place_of_its_own_near_its_start() {
        for count in [0, 1, 150, 1_000, 4_096] {
            let symbols: Vec<_> = (0..count).map(|n| Symbol::parse(&format!("COIN{n}")).unwrap()).collect();
            let placing = Placing::new(&symbols);
            let mut rows: Vec<_> = placing.rows.iter().flatten().copied().collect();
            let left_out = placing.rows.len() - rows.len();
            assert!(left_out * 100 <= count, "{left_out} of {count}");
            assert!(count > 150 || left_out == 0, "{left_out} of {count}");
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len() + left_out, count);
            assert!(rows.iter().all(|row| *row < Placing::rows_max(count)));
        }
    }
}
