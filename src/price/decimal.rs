//! The exact decimal price: the exchange's own digits, never a float.

use std::cmp::Ordering;
use std::fmt;

use crate::limits::PRICE_TEXT_LEN_MAX;

/// An exact, positive decimal: `mantissa × 10^exponent`.
///
/// The exponent is at most 0 and at least -19, so the price prints in plain digits with exactly the
/// fraction digits the exchange sent (`"84099.0"` stays `84099.0`), unless 19 digits of mantissa
/// cannot hold them: then trailing zeros of the fraction go first.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    mantissa: i64,
    exponent: i8,
}

/// Why a text is not a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceError {
    /// Not a decimal number.
    Malformed,
    /// Zero, or a number that rounds to nothing at 19 fraction digits.
    Zero,
    /// Below zero.
    Negative,
    /// More digits than a price has, or a value above 10^12: nothing trades there.
    Absurd,
}

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a decimal number",
            Self::Zero => "zero",
            Self::Negative => "negative",
            Self::Absurd => "more digits than a price has, or above 10^12",
        })
    }
}

impl std::error::Error for PriceError {}

const EXPONENT_MIN: i32 = -19;
const VALUE_MAX_LOG10: i32 = 12;

impl Price {
    /// Parses a JSON number or the inside of a JSON string that holds one: digits, at most one
    /// point, an optional exponent. Every byte must belong to it.
    ///
    /// # Errors
    /// See [`PriceError`].
    pub fn parse(text: &[u8]) -> Result<Self, PriceError> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let mut mantissa: u64 = 0;
        // Zeros read but not yet in the mantissa: they go in when another digit follows.
        let mut zeros: i32 = 0;
        let mut overflow = false;
        let (mut whole, mut fraction, mut point) = (0_usize, 0_usize, false);
        let mut at = 0;
        while let Some(&byte) = digits.get(at) {
            match byte {
                b'0'..=b'9' => {
                    if point {
                        fraction += 1;
                    } else {
                        whole += 1;
                    }
                    let digit = u64::from(byte - b'0');
                    if digit == 0 && mantissa != 0 {
                        zeros = zeros.saturating_add(1);
                    } else {
                        match push(mantissa, zeros, digit) {
                            Some(next) => mantissa = next,
                            None => overflow = true,
                        }
                        zeros = 0;
                    }
                }
                b'.' if !point => point = true,
                b'e' | b'E' => break,
                _ => return Err(PriceError::Malformed),
            }
            at += 1;
        }
        if whole == 0 || (point && fraction == 0) {
            return Err(PriceError::Malformed);
        }
        let scientific = match digits.get(at) {
            None => 0,
            Some(_) => parse_exponent(&digits[at + 1..])?,
        };
        if overflow {
            return Err(if negative { PriceError::Negative } else { PriceError::Absurd });
        }
        Self::assemble(negative, mantissa, zeros, fraction, scientific)
    }

    /// From the parts a v2 answer carries.
    ///
    /// # Errors
    /// When the parts are outside what [`parse`](Self::parse) makes.
    pub fn from_parts(mantissa: i64, exponent: i8) -> Result<Self, PriceError> {
        if mantissa < 0 {
            return Err(PriceError::Negative);
        }
        if mantissa == 0 {
            return Err(PriceError::Zero);
        }
        let price = Self { mantissa, exponent };
        if exponent > 0 || i32::from(exponent) < EXPONENT_MIN || price.log10() > VALUE_MAX_LOG10 {
            return Err(PriceError::Absurd);
        }
        Ok(price)
    }

    /// The digits as one whole number.
    #[must_use]
    pub fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten, from -19 to 0.
    #[must_use]
    pub fn exponent(self) -> i8 {
        self.exponent
    }

    /// The price in plain digits.
    #[must_use]
    pub fn text(self) -> PriceText {
        PriceText::new(self)
    }

    /// Whether digits and value are the same: `1.0` is not identical to `1.00`.
    #[must_use]
    pub fn identical(self, other: Self) -> bool {
        self.mantissa == other.mantissa && self.exponent == other.exponent
    }

    /// Position of the leading digit: 3 for 1,000 up to 9,999.
    fn log10(self) -> i32 {
        i32::try_from(self.mantissa.unsigned_abs().checked_ilog10().unwrap_or(0)).unwrap_or(0)
            + i32::from(self.exponent)
    }

    /// `mantissa × 10^zeros` are the digits read, the last `fraction` of which stood behind the
    /// point; `scientific` is the exponent the text asked for.
    fn assemble(
        negative: bool,
        mantissa: u64,
        zeros: i32,
        fraction: usize,
        scientific: i32,
    ) -> Result<Self, PriceError> {
        if mantissa == 0 {
            return Err(PriceError::Zero);
        }
        if negative {
            return Err(PriceError::Negative);
        }
        let fraction = i32::try_from(fraction).map_err(|_| PriceError::Absurd)?;
        let mut exponent = scientific.saturating_sub(fraction);
        let mut mantissa = mantissa;
        let mut zeros = zeros;
        // A positive exponent is written out; trailing zeros are written out as far as they fit.
        if exponent > 0 {
            zeros = zeros.saturating_add(exponent);
            exponent = 0;
        }
        while zeros > 0 {
            match mantissa.checked_mul(10).filter(|m| i64::try_from(*m).is_ok()) {
                Some(next) => mantissa = next,
                None => break,
            }
            zeros -= 1;
        }
        exponent = exponent.saturating_add(zeros);
        while exponent < EXPONENT_MIN && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            exponent += 1;
        }
        if exponent > 0 {
            return Err(PriceError::Absurd);
        }
        let mantissa = i64::try_from(mantissa).map_err(|_| PriceError::Absurd)?;
        let exponent = i8::try_from(exponent).map_err(|_| PriceError::Absurd)?;
        Self::from_parts(mantissa, exponent)
    }
}

/// `mantissa` with `zeros` zeros and then `digit` written behind it.
fn push(mantissa: u64, zeros: i32, digit: u64) -> Option<u64> {
    if mantissa == 0 {
        return Some(digit);
    }
    let power = 10_u64.checked_pow(u32::try_from(zeros).ok()?.checked_add(1)?)?;
    mantissa.checked_mul(power)?.checked_add(digit)
}

fn parse_exponent(text: &[u8]) -> Result<i32, PriceError> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(PriceError::Malformed);
    }
    let value =
        digits.iter().fold(0_i32, |sum, d| sum.saturating_mul(10).saturating_add(i32::from(d - b'0')));
    Ok(sign * value)
}

/// Equal and ordered by value: `1.0 == 1.00`.
impl PartialEq for Price {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Price {}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Price {
    fn cmp(&self, other: &Self) -> Ordering {
        // 19 digits times 10^19 stay within 128 bits.
        let low = self.exponent.min(other.exponent);
        let scaled = |p: &Self| {
            let power = u32::try_from(i32::from(p.exponent) - i32::from(low)).unwrap_or(0);
            i128::from(p.mantissa) * 10_i128.pow(power)
        };
        scaled(self).cmp(&scaled(other))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

/// A price in plain digits, on the stack.
#[derive(Clone, Copy)]
pub struct PriceText {
    bytes: [u8; PRICE_TEXT_LEN_MAX],
    start: usize,
}

impl PriceText {
    fn new(price: Price) -> Self {
        let mut bytes = [b'0'; PRICE_TEXT_LEN_MAX];
        let mut start = PRICE_TEXT_LEN_MAX;
        let fraction = usize::from(price.exponent.unsigned_abs());
        let mut rest = price.mantissa.unsigned_abs();
        let mut written = 0;
        // From the right: the fraction with leading zeros, the point, at least one whole digit.
        while rest > 0 || written <= fraction {
            if written == fraction && fraction > 0 {
                start -= 1;
                bytes[start] = b'.';
            }
            start -= 1;
            bytes[start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            written += 1;
        }
        Self { bytes, start }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The digits as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only digits and a point are ever written.
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::price::fuzz;

    fn parsed(text: &str) -> Price {
        Price::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn prints_the_digits_the_exchange_sent() {
        for text in [
            "65000.12",
            "84099.0",
            "2688.30",
            "0.000000000001",
            "83361.25000",
            "0.4705000000",
            "77474",
            "10",
            "0.10",
        ] {
            assert_eq!(parsed(text).text().as_str(), text);
        }
    }

    #[test]
    fn scientific_notation_is_written_out() {
        assert_eq!(parsed("1e-7").text().as_str(), "0.0000001");
        assert_eq!(parsed("3.216424e-12").text().as_str(), "0.000000000003216424");
        assert_eq!(parsed("6.37E-8").text().as_str(), "0.0000000637");
        assert_eq!(parsed("1.5e3").text().as_str(), "1500");
        assert_eq!(parsed("1.50e1").text().as_str(), "15.0");
    }

    #[test]
    fn what_is_not_a_price_is_named() {
        for (text, error) in [
            ("0", PriceError::Zero),
            ("0.000", PriceError::Zero),
            ("-1", PriceError::Negative),
            ("-0.5", PriceError::Negative),
            ("", PriceError::Malformed),
            (".5", PriceError::Malformed),
            ("5.", PriceError::Malformed),
            ("NaN", PriceError::Malformed),
            ("1e", PriceError::Malformed),
            ("1 ", PriceError::Malformed),
            ("1.2.3", PriceError::Malformed),
            ("1e308", PriceError::Absurd),
            ("1e-308", PriceError::Absurd),
            ("1234567890123456789012345678901234567890", PriceError::Absurd),
            ("10000000000000", PriceError::Absurd),
            ("1e99999999999999999999", PriceError::Absurd),
        ] {
            assert_eq!(Price::parse(text.as_bytes()).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn padding_beyond_nineteen_digits_is_trimmed_not_refused() {
        assert_eq!(parsed("83361.250000000000000000000").text().as_str(), "83361.25000000000000");
        assert!(parsed("1.0") == parsed("1.000") && !parsed("1.0").identical(parsed("1.000")));
        assert!(parsed("0.9") < parsed("1"));
    }

    proptest! {
        #[test]
        fn plain_digits_come_back_as_sent(whole in 0_u64..1_000_000_000, fraction in "[0-9]{0,9}") {
            let text = if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") };
            match Price::parse(text.as_bytes()) {
                Ok(price) => prop_assert_eq!(price.to_string(), text),
                Err(e) => prop_assert!(e == PriceError::Zero && text.bytes().all(|b| b"0.".contains(&b)), "{}", e),
            }
        }

        #[test]
        fn no_text_stops_the_parser(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            fuzz::decimal(&text);
        }

        #[test]
        fn nearly_numbers_are_read_exactly(text in "-?[0-9]{0,24}(\\.[0-9]{0,24})?([eE][+-]?[0-9]{0,3})?") {
            fuzz::decimal(text.as_bytes());
        }

        #[test]
        fn parts_come_back(mantissa in any::<i64>(), exponent in any::<i8>()) {
            if let Ok(price) = Price::from_parts(mantissa, exponent) {
                prop_assert!(Price::parse(price.text().as_bytes()).unwrap().identical(price));
            }
        }
    }
}
