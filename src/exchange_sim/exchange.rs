//! The exchanges that are simulated, and what their names and symbols look like.

use std::fmt;
use std::str::FromStr;

/// An exchange, or an older protocol of one that recordings still speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exchange {
    /// Coinbase Advanced Trade.
    Coinbase,
    /// Coinbase's Exchange feed.
    CoinbaseExchange,
    /// Gemini's `ws.gemini.com`.
    Gemini,
    /// Gemini's archived v2 market data.
    GeminiV2,
    /// Kraken v2.
    Kraken,
    /// Kraken v1, whose frames are arrays.
    KrakenV1,
    /// Gate.io spot v4.
    Gateio,
    /// Bybit spot v5.
    Bybit,
    /// OKX v5.
    Okx,
    /// Crypto.com exchange v1.
    Cryptocom,
    /// Crypto.com's predecessor `v2/market`, with numbers for prices.
    CryptocomV2,
}

/// How an exchange writes the two sides of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Upper case around a separator: `BTC-USD`.
    Separated(char),
    /// Upper case run together: `BTCUSDT`.
    Joined,
    /// Lower case run together: `btcusd`.
    JoinedLower,
}

/// Quotes that may stand at the end of a symbol without a separator, longest first.
const QUOTES: [&str; 14] =
    ["FDUSD", "USDT", "USDC", "GUSD", "USDE", "USD", "EUR", "GBP", "BRL", "TRY", "DAI", "BTC", "XBT", "ETH"];

impl Exchange {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Coinbase,
        Self::CoinbaseExchange,
        Self::Gemini,
        Self::GeminiV2,
        Self::Kraken,
        Self::KrakenV1,
        Self::Gateio,
        Self::Bybit,
        Self::Okx,
        Self::Cryptocom,
        Self::CryptocomV2,
    ];

    /// The seven current protocols, one for each exchange.
    pub const CURRENT: [Self; 7] =
        [Self::Coinbase, Self::Gemini, Self::Kraken, Self::Gateio, Self::Bybit, Self::Okx, Self::Cryptocom];

    /// The name in paths and commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coinbase => "coinbase",
            Self::CoinbaseExchange => "coinbase_exchange",
            Self::Gemini => "gemini",
            Self::GeminiV2 => "gemini_v2",
            Self::Kraken => "kraken",
            Self::KrakenV1 => "kraken_v1",
            Self::Gateio => "gateio",
            Self::Bybit => "bybit",
            Self::Okx => "okx",
            Self::Cryptocom => "cryptocom",
            Self::CryptocomV2 => "cryptocom_v2",
        }
    }

    /// Position in [`Exchange::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// The finest step of a trade time on this exchange's wire, in nanoseconds.
    pub(super) fn time_step_ns(self) -> u64 {
        match self {
            Self::Gemini => 1,
            Self::Coinbase | Self::CoinbaseExchange | Self::Kraken | Self::KrakenV1 | Self::Gateio => 1_000,
            Self::GeminiV2 | Self::Bybit | Self::Okx | Self::Cryptocom | Self::CryptocomV2 => 1_000_000,
        }
    }

    /// Trade ids of a new symbol start here: the size that is met in the wild.
    pub(super) fn first_id(self) -> u64 {
        match self {
            Self::Coinbase | Self::CoinbaseExchange => 1_068_572_000,
            Self::Gemini | Self::GeminiV2 => 2_840_141_030_659_000,
            Self::Kraken | Self::KrakenV1 => 103_436_000,
            Self::Gateio => 217_831_000,
            Self::Bybit => 2_290_000_001_189_048_000,
            Self::Okx => 1_051_102_000,
            Self::Cryptocom => 1_788_335_095_880_381_000,
            Self::CryptocomV2 => 2_008_994_900_000_000_000,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Coinbase | Self::CoinbaseExchange | Self::Okx => Style::Separated('-'),
            Self::Kraken | Self::KrakenV1 => Style::Separated('/'),
            Self::Gateio | Self::Cryptocom | Self::CryptocomV2 => Style::Separated('_'),
            Self::Bybit | Self::GeminiV2 => Style::Joined,
            Self::Gemini => Style::JoinedLower,
        }
    }

    /// Whether `symbol` could be one of this exchange's, by its look alone. What passes holds only
    /// letters, digits and the separators, so it can stand in JSON without escapes.
    pub(super) fn symbol_looks_valid(self, symbol: &str) -> bool {
        let plain = |part: &str| {
            (1..=20).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        match self.style() {
            Style::Joined => plain(symbol) && symbol.len() >= 4,
            Style::JoinedLower => {
                (4..=20).contains(&symbol.len())
                    && symbol.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            }
            Style::Separated(separator) => {
                // Futures have a third part: `BTC-USD-220527`, `BTCUSD-PERP`.
                let parts = symbol.split(['-', separator]).collect::<Vec<_>>();
                (2..=5).contains(&parts.len()) && parts.iter().all(|part| plain(part))
            }
        }
    }

    /// The base asset of a symbol, in upper case: `BTC` of `btcusd`.
    pub(super) fn base(self, symbol: &str) -> String {
        let upper = symbol.to_ascii_uppercase();
        let base = match upper.find(['-', '_', '/']) {
            Some(at) => upper.get(..at).unwrap_or_default(),
            None => QUOTES
                .iter()
                .find_map(|quote| upper.strip_suffix(quote).filter(|base| !base.is_empty()))
                .unwrap_or(&upper),
        };
        match base {
            "XBT" => "BTC".to_owned(),
            "XDG" => "DOGE".to_owned(),
            other => other.to_owned(),
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Exchange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|exchange| exchange.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no simulated exchange; give one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_positions_go_back_and_forth() {
        for (index, exchange) in Exchange::ALL.into_iter().enumerate() {
            assert_eq!(exchange.index(), index);
            assert_eq!(exchange.name().parse(), Ok(exchange));
        }
        let message = "mtgox".parse::<Exchange>().unwrap_err();
        assert!(message.contains("mtgox") && message.contains("kraken_v1"), "{message}");
    }

    #[test]
    fn symbols_are_judged_by_their_look() {
        for (exchange, good, bad) in [
            (Exchange::Coinbase, "BTC-USD", "BTCUSD"),
            (Exchange::Gemini, "btcusd", "BTCUSD"),
            (Exchange::Kraken, "BTC/USD", "BTC-USD\""),
            (Exchange::Gateio, "1INCH_USDT", "_USDT"),
            (Exchange::Bybit, "BTCUSDT", "btcusdt"),
            (Exchange::Okx, "BTC-USD-220527", "BTC"),
            (Exchange::Cryptocom, "BTCUSD-PERP", "BTC USD"),
        ] {
            assert!(exchange.symbol_looks_valid(good), "{good}");
            assert!(!exchange.symbol_looks_valid(bad), "{bad}");
        }
    }

    #[test]
    fn the_base_is_found_in_every_form() {
        assert_eq!(Exchange::Gemini.base("btcusd"), "BTC");
        assert_eq!(Exchange::KrakenV1.base("XBT/USD"), "BTC");
        assert_eq!(Exchange::Bybit.base("SATSUSDT"), "SATS");
        assert_eq!(Exchange::Coinbase.base("DOGE-USD"), "DOGE");
        assert_eq!(Exchange::Bybit.base("USDT"), "USDT");
    }
}
