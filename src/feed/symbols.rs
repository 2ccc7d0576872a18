//! From an exchange's symbol, whole, to the listing it prices.

use crate::price::ListingId;

/// Longest symbol of an exchange, in bytes.
pub(super) const EXCHANGE_SYMBOL_LEN_MAX: usize = 32;

/// Open addressing over padded symbols, at most a quarter full, fixed once built.
#[derive(Clone, Debug)]
pub(super) struct SymbolTable {
    slots: Vec<Option<(Packed, ListingId)>>,
    shift: u32,
    ignore_case: bool,
}

/// A symbol's bytes, padded with zeros, and its length: a zero inside a symbol is not padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    words: [u64; EXCHANGE_SYMBOL_LEN_MAX / 8],
    len: usize,
}

impl SymbolTable {
    /// From symbols and their listings. `Err` is a symbol that occurs twice, is empty or too long.
    pub(super) fn new<'s>(
        symbols: impl IntoIterator<Item = (&'s str, ListingId)>,
        ignore_case: bool,
    ) -> Result<Self, String> {
        let symbols: Vec<_> = symbols.into_iter().collect();
        let len = (symbols.len().max(1) * 4).next_power_of_two();
        let mut table = Self { slots: vec![None; len], shift: 64 - len.trailing_zeros(), ignore_case };
        for (symbol, listing) in symbols {
            let packed = table.pack(symbol.as_bytes()).ok_or(symbol)?;
            let mut at = table.start(packed);
            while let Some((found, _)) = &table.slots[at] {
                if *found == packed {
                    return Err(symbol.to_owned());
                }
                at = (at + 1) & (len - 1);
            }
            table.slots[at] = Some((packed, listing));
        }
        Ok(table)
    }

    /// The listing of a symbol.
    #[inline]
    pub(super) fn find(&self, symbol: &[u8]) -> Option<ListingId> {
        let packed = self.pack(symbol)?;
        let mut at = self.start(packed);
        while let Some((found, listing)) = self.slots.get(at)? {
            if *found == packed {
                return Some(*listing);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    #[inline]
    fn pack(&self, symbol: &[u8]) -> Option<Packed> {
        let mut bytes = [0; EXCHANGE_SYMBOL_LEN_MAX];
        bytes.get_mut(..symbol.len()).filter(|b| !b.is_empty())?.copy_from_slice(symbol);
        if self.ignore_case {
            bytes.make_ascii_uppercase();
        }
        let (eights, _) = bytes.as_chunks::<8>();
        let mut words = [0; EXCHANGE_SYMBOL_LEN_MAX / 8];
        for (word, eight) in words.iter_mut().zip(eights) {
            *word = u64::from_le_bytes(*eight);
        }
        Some(Packed { words, len: symbol.len() })
    }

    #[expect(clippy::cast_possible_truncation, reason = "shifted down to the table's length")]
    fn start(&self, packed: Packed) -> usize {
        let mixed = packed.words.iter().fold(packed.len as u64, |sum, word| sum.rotate_left(23) ^ word);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(n: usize) -> ListingId {
        ListingId::new(n).unwrap()
    }

    #[test]
    fn only_whole_symbols_are_found() {
        let names = ["W-USDT", "S_USDT", "BTC/USD", "btcusd", "AVERYLONGSYMBOLOFTHIRTYTWOBYTESX"];
        let table = SymbolTable::new(names.iter().enumerate().map(|(n, s)| (*s, listing(n))), false).unwrap();
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.find(name.as_bytes()), Some(listing(n)));
        }
        for stranger in
            ["", "W", "-USDT", "W-USDT\0", "BTCUSD", "XW-USDT", "AVERYLONGSYMBOLOFTHIRTYTWOBYTESXX"]
        {
            assert_eq!(table.find(stranger.as_bytes()), None, "{stranger}");
        }
        assert_eq!(SymbolTable::new([("A", listing(0)), ("A", listing(1))], false).unwrap_err(), "A");
        assert_eq!(SymbolTable::new([("a", listing(0)), ("A", listing(1))], true).unwrap_err(), "A");
        assert!(SymbolTable::new([("", listing(0))], true).is_err());
    }

    #[test]
    fn case_is_ignored_where_the_row_says_so() {
        let table = SymbolTable::new([("btcusd", listing(3))], true).unwrap();
        assert_eq!(table.find(b"BTCUSD"), Some(listing(3)));
        assert_eq!(table.find(b"BtcUsd"), Some(listing(3)));
        let full = (0..3_000).map(|n| (format!("A{n}"), listing(n))).collect::<Vec<_>>();
        let table = SymbolTable::new(full.iter().map(|(s, l)| (s.as_str(), *l)), false).unwrap();
        assert!(full.iter().all(|(s, l)| table.find(s.as_bytes()) == Some(*l)));
        assert_eq!(table.find(b"A3000"), None);
    }
}
