//! Fuzz body of the decimal.

use serde_json::Number;

use super::{Price, PriceError};
use crate::limits::PRICE_TEXT_LEN_MAX;

/// What is taken as a price is positive, has the value of the text, and its own text is read as the
/// same digits; no JSON number is called malformed.
pub fn decimal(text: &[u8]) {
    match Price::parse(text) {
        Ok(price) => {
            assert!(price.mantissa() > 0 && (-19..=0).contains(&price.exponent()));
            let shown = price.text();
            assert!(shown.as_bytes().len() <= PRICE_TEXT_LEN_MAX);
            assert_eq!(value(text), value(shown.as_bytes()), "{} {}", text.escape_ascii(), shown.as_str());
            let again = Price::parse(shown.as_bytes());
            assert!(again.is_ok_and(|again| again.identical(price)), "{}", text.escape_ascii());
        }
        Err(PriceError::Malformed) => {
            let plain = text.iter().all(u8::is_ascii_graphic);
            assert!(!plain || serde_json::from_slice::<Number>(text).is_err(), "{}", text.escape_ascii());
        }
        Err(_) => assert!(text.iter().any(u8::is_ascii_digit)),
    }
}

/// Digits without zeros at either end, and the power of ten of the last one.
fn value(text: &[u8]) -> (Vec<u8>, i64) {
    let at = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (digits, power) = match at {
        Some(at) => (&text[..at], std::str::from_utf8(&text[at + 1..]).unwrap_or("").parse().unwrap_or(0)),
        None => (text, 0_i64),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let fraction = point.map_or(0, |at| digits.len() - at - 1);
    let mut digits: Vec<u8> = digits.iter().copied().filter(u8::is_ascii_digit).collect();
    let mut power = power - i64::try_from(fraction).unwrap_or(i64::MAX);
    while digits.last() == Some(&b'0') {
        digits.pop();
        power += 1;
    }
    (digits.iter().copied().skip_while(|digit| *digit == b'0').collect(), power)
}
