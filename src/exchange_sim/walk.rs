//! Prices that wander: a seeded random walk on decimal integers.

/// A small generator of even bits (splitmix64): the whole simulation follows from its seed.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias of the remainder does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

/// FNV-1a: names to numbers, the same on every run.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where well-known assets start: mantissa and decimals, about what they cost in 2026.
const MAJORS: [(&str, i64, u32); 36] = [
    ("BTC", 6_508_367, 2),
    ("ETH", 191_941, 2),
    ("SOL", 7_742, 2),
    ("XRP", 14_512, 4),
    ("DOGE", 72_150, 6),
    ("ADA", 3_412, 4),
    ("AVAX", 1_187, 2),
    ("LINK", 10_433, 3),
    ("DOT", 2_215, 3),
    ("LTC", 6_633, 2),
    ("BCH", 32_190, 2),
    ("UNI", 4_127, 3),
    ("XLM", 181_230, 6),
    ("ETC", 1_242, 2),
    ("NEAR", 1_903, 3),
    ("ICP", 3_120, 3),
    ("HYPE", 33_145, 3),
    ("ZEC", 24_871, 2),
    ("XMR", 32_407, 2),
    ("AAVE", 11_862, 2),
    ("MKR", 154_700, 2),
    ("YFI", 318_100, 2),
    ("BNB", 61_235, 2),
    ("TRX", 27_431, 5),
    ("ATOM", 2_417, 3),
    ("FIL", 1_326, 3),
    ("SUI", 1_2034, 4),
    ("TON", 1_8127, 4),
    ("KAS", 41_273, 6),
    ("PEPE", 3_216, 9),
    ("SHIB", 6_128, 9),
    ("BONK", 7_344, 10),
    ("FLOKI", 34_120, 9),
    ("SATS", 15_320, 12),
    ("BABYDOGE", 9_123, 13),
    ("PAXG", 415_372, 2),
];

/// The walk of one symbol's price, in units of its tick.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    rng: Rng,
    mantissa: i64,
    start: i64,
    decimals: u32,
}

impl Walk {
    /// A walk of `base` that follows from `seed` alone.
    pub(super) fn new(base: &str, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (start, decimals) = MAJORS.iter().find(|(asset, ..)| *asset == base).map_or_else(
            || {
                // Four digits between 0.001000 and 99.99.
                let fate = hash(base);
                (
                    1_000 + i64::try_from(fate % 9_000).unwrap_or(0),
                    2 + u32::try_from(fate / 9_000 % 5).unwrap_or(0),
                )
            },
            |&(_, mantissa, decimals)| (mantissa, decimals),
        );
        // Two exchanges never agree to the tick.
        let apart = i64::try_from(rng.below(start.unsigned_abs() / 1_000 + 2)).unwrap_or(0);
        Self { rng, mantissa: start + apart, start, decimals }
    }

    /// Decimals of the price text.
    pub(super) fn decimals(&self) -> u32 {
        self.decimals
    }

    /// A number below `bound` from this walk's own bits.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    /// Moves by at most two basis points and one tick, up when `up`, and gives the new mantissa. Stays
    /// within a quarter of where it started.
    pub(super) fn step(&mut self, up: bool) -> i64 {
        let widest = self.start.unsigned_abs() / 5_000 + 1;
        let by = 1 + i64::try_from(self.rng.below(widest)).unwrap_or(0);
        let next = if up { self.mantissa + by } else { self.mantissa - by };
        self.mantissa = next.clamp(self.start - self.start / 4, self.start + self.start / 4);
        self.mantissa
    }
}

/// A positive mantissa as a plain decimal with all its decimals: (650837, 2) is `6508.37`.
pub(super) fn decimal_text(mantissa: u64, decimals: u32) -> String {
    let width = decimals as usize + 1;
    let digits = format!("{mantissa:0width$}");
    if decimals == 0 {
        return digits;
    }
    let (whole, fraction) = digits.split_at(digits.len() - decimals as usize);
    format!("{whole}.{fraction}")
}

/// The same number without zeros at the end of its fraction: `77474.00` is `77474`.
pub(super) fn trimmed(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_digit_by_digit() {
        assert_eq!(decimal_text(6_508_367, 2), "65083.67");
        assert_eq!(decimal_text(15_320, 12), "0.000000015320");
        assert_eq!(decimal_text(7, 0), "7");
        assert_eq!(trimmed("77474.00"), "77474");
        assert_eq!(trimmed("0.4700"), "0.47");
        assert_eq!(trimmed("7700"), "7700");
    }

    #[test]
    fn a_walk_follows_from_its_seed_and_stays_near_its_start() {
        let path = |seed| {
            let mut walk = Walk::new("BTC", seed);
            (0..1_000).map(|i| walk.step(i % 3 != 0)).collect::<Vec<_>>()
        };
        assert_eq!(path(7), path(7));
        assert_ne!(path(7), path(8));
        assert!(path(7).iter().all(|&m| (4_881_000..=8_136_000).contains(&m)));
    }

    #[test]
    fn an_unknown_asset_has_a_price_too() {
        for base in ["A", "W", "SOMETHING", ""] {
            let mut walk = Walk::new(base, 1);
            assert!(walk.step(false) > 0);
            assert!((2..=6).contains(&walk.decimals()));
        }
    }
}
