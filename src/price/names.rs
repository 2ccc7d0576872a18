//! Numbers and short names that identify assets, exchanges, listings and currencies.

use std::fmt;

use crate::limits::{ASSETS_MAX, CURRENCY_LEN, EXCHANGES_MAX, FEED_SESSIONS_MAX, SYMBOL_LEN};

/// Persistent number of an asset, below [`ASSETS_MAX`]. Never reused for another asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId(u16);

/// Persistent number of an exchange, below [`EXCHANGES_MAX`]. Never reused for another exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u8);

/// Index of a listing (one asset on one exchange) in the running process's catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListingId(u16);

/// Index of a feed connection, below [`FEED_SESSIONS_MAX`]; kept over reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u16);

/// An asset's symbol: 1 to 16 upper-case ASCII letters and digits, zero padded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol([u8; SYMBOL_LEN]);

/// A quote currency: 1 to 8 upper-case ASCII letters and digits, zero padded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; CURRENCY_LEN]);

/// Why a name or number was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    what: &'static str,
    found: String,
    needed: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}, needs {}", self.what, self.found, self.needed)
    }
}

impl std::error::Error for NameError {}

fn name_error(what: &'static str, found: impl Into<String>, needed: &'static str) -> NameError {
    NameError { what, found: found.into(), needed }
}

macro_rules! index_type {
    ($name:ident, $int:ty, $max:expr, $what:literal) => {
        impl $name {
            /// Checks the bound.
            ///
            /// # Errors
            /// When `number` is not below the bound of the type.
            pub fn new(number: usize) -> Result<Self, NameError> {
                match <$int>::try_from(number) {
                    Ok(small) if number < $max => Ok(Self(small)),
                    _ => Err(name_error(
                        $what,
                        number.to_string(),
                        concat!("a number below ", stringify!($max)),
                    )),
                }
            }

            /// The number, for tables and for the wire.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

index_type!(AssetId, u16, ASSETS_MAX, "asset number");
index_type!(ExchangeId, u8, EXCHANGES_MAX, "exchange number");
index_type!(ListingId, u16, 65_536, "listing number");
index_type!(SessionId, u16, FEED_SESSIONS_MAX, "feed session number");

/// Copies `text` into a zero-padded array, letters folded to upper case; `None` when it is empty,
/// too long or not all letters and digits.
fn padded<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.is_empty() || text.len() > N {
        return None;
    }
    for (to, from) in bytes.iter_mut().zip(text) {
        if !from.is_ascii_alphanumeric() {
            return None;
        }
        *to = from.to_ascii_uppercase();
    }
    Some(bytes)
}

fn unpadded(bytes: &[u8]) -> &str {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    // Only ASCII is ever stored.
    std::str::from_utf8(&bytes[..len]).unwrap_or("")
}

macro_rules! short_name {
    ($name:ident, $len:expr, $what:literal, $needed:literal) => {
        impl $name {
            /// From text; letters are folded to upper case.
            ///
            /// # Errors
            /// When the text is empty, too long or holds anything but ASCII letters and digits.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                Self::from_bytes(text.as_bytes()).ok_or_else(|| name_error($what, text, $needed))
            }

            /// As [`parse`](Self::parse) for bytes from a peer; never allocates.
            #[must_use]
            #[inline]
            pub fn from_bytes(text: &[u8]) -> Option<Self> {
                padded(text).map(Self)
            }

            /// The zero-padded bytes, as v2 carries them.
            #[must_use]
            pub fn padded(&self) -> &[u8; $len] {
                &self.0
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                unpadded(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

short_name!(Symbol, SYMBOL_LEN, "symbol", "1 to 16 letters and digits");
short_name!(Currency, CURRENCY_LEN, "quote currency", "1 to 8 letters and digits");

impl Symbol {
    /// From the 16 bytes of a v2 request, which must already be padded and in upper case: no byte
    /// may follow the first zero. `None` otherwise.
    #[must_use]
    #[inline]
    pub fn from_padded(bytes: [u8; SYMBOL_LEN]) -> Option<Self> {
        let value = u128::from_le_bytes(bytes);
        let len = SYMBOL_LEN - value.leading_zeros() as usize / 8;
        let ok = len > 0 && bytes[..len].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        ok.then_some(Self(bytes))
    }

    /// The padded bytes as one little-endian number: what tables hash and compare.
    #[must_use]
    #[inline]
    pub fn as_u128(self) -> u128 {
        u128::from_le_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_fold_case_and_refuse_what_is_not_a_name() {
        assert_eq!(Symbol::parse("btc").unwrap().as_str(), "BTC");
        assert_eq!(Symbol::parse("1INCH").unwrap().as_str(), "1INCH");
        for bad in ["", "ABCDEFGHIJKLMNOPQ", "A-B", "Ä", "a b", "A\0"] {
            assert!(Symbol::parse(bad).is_err(), "{bad:?}");
        }
        let message = Symbol::parse("A-B").unwrap_err().to_string();
        assert_eq!(message, "symbol is \"A-B\", needs 1 to 16 letters and digits");
    }

    #[test]
    fn padded_symbols_are_taken_only_in_canonical_form() {
        let btc = Symbol::parse("BTC").unwrap();
        assert_eq!(Symbol::from_padded(*btc.padded()), Some(btc));
        let mut hole = *btc.padded();
        hole[5] = b'X';
        assert_eq!(Symbol::from_padded(hole), None);
        assert_eq!(Symbol::from_padded([0; 16]), None);
        assert_eq!(Symbol::from_padded(*b"btc\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
        assert!(Symbol::from_padded([b'A'; 16]).is_some());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(AssetId::new(ASSETS_MAX - 1).is_ok());
        assert!(AssetId::new(ASSETS_MAX).is_err());
        assert!(ExchangeId::new(EXCHANGES_MAX).is_err());
    }
}
