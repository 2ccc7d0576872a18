//! Parameters of a query string: found by name, decoded into the caller's room, never allocated.

/// Why a parameter cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// A percent sign that two hexadecimal digits do not follow.
    Escape,
    /// It is given more than once.
    Repeated,
    /// It has escapes and is longer than the room it would be decoded into.
    TooLong,
}

impl QueryError {
    /// For the peer: what is wrong.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Escape => "a percent sign in the query is not followed by two hexadecimal digits",
            Self::Repeated => "a query parameter is given more than once",
            Self::TooLong => "a query parameter is too long",
        }
    }
}

/// The value of the parameter `name` in `query` (the target's part behind `?`), percent escapes and
/// `+` decoded: borrowed from the query where nothing is escaped, otherwise written to `room`.
/// `None` when it is not there.
///
/// # Errors
/// See [`QueryError`]; escapes of other parameters' values are not looked at.
pub fn parameter<'a>(
    query: &'a [u8],
    name: &str,
    room: &'a mut [u8],
) -> Result<Option<&'a [u8]>, QueryError> {
    let mut found = None;
    for pair in query.split(|byte| *byte == b'&') {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at(at);
        if !is_name(key, name) {
            continue;
        }
        if found.is_some() {
            return Err(QueryError::Repeated);
        }
        found = Some(value.get(1..).unwrap_or_default());
    }
    let Some(raw) = found else { return Ok(None) };
    if memchr::memchr2(b'%', b'+', raw).is_none() {
        return Ok(Some(raw));
    }
    let mut len = 0;
    for byte in decoded(raw) {
        *room.get_mut(len).ok_or(QueryError::TooLong)? = byte.ok_or(QueryError::Escape)?;
        len += 1;
    }
    Ok(room.get(..len))
}

fn is_name(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (memchr::memchr(b'%', key).is_some() && decoded(key).eq(name.bytes().map(Some)))
}

/// The bytes that `raw` stands for; `None` in place of a broken escape.
fn decoded(raw: &[u8]) -> impl Iterator<Item = Option<u8>> + '_ {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        Some(match first {
            b'+' => Some(b' '),
            b'%' => match after {
                [high, low, after @ ..] => {
                    rest = after;
                    hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
                }
                _ => {
                    rest = &[];
                    None
                }
            },
            plain => Some(plain),
        })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::fuzz;

    fn read(query: &str, name: &str) -> Result<Option<String>, QueryError> {
        let mut room = [0; 16];
        parameter(query.as_bytes(), name, &mut room)
            .map(|value| value.map(|v| String::from_utf8_lossy(v).into_owned()))
    }

    #[test]
    fn parameters_are_found_by_whole_name() {
        assert_eq!(read("asset=BTC", "asset"), Ok(Some("BTC".into())));
        assert_eq!(read("xasset=1&asset=BTC&source=kraken", "source"), Ok(Some("kraken".into())));
        assert_eq!(read("assets=BTC", "asset"), Ok(None));
        assert_eq!(read("", "asset"), Ok(None));
        assert_eq!(read("asset", "asset"), Ok(Some(String::new())));
        assert_eq!(read("asset=a=b", "asset"), Ok(Some("a=b".into())));
    }

    #[test]
    fn escapes_are_decoded_in_names_and_values() {
        assert_eq!(read("assets=BTC%2cETH", "assets"), Ok(Some("BTC,ETH".into())));
        assert_eq!(read("%61sset=B%54C", "asset"), Ok(Some("BTC".into())));
        assert_eq!(read("asset=a+b", "asset"), Ok(Some("a b".into())));
        for bad in ["asset=%", "asset=%4", "asset=%4g", "asset=%+1"] {
            assert_eq!(read(bad, "asset"), Err(QueryError::Escape), "{bad}");
        }
        assert_eq!(read("other=%&asset=BTC", "asset"), Ok(Some("BTC".into())));
    }

    #[test]
    fn repeated_and_overlong_parameters_are_refused() {
        assert_eq!(read("asset=BTC&asset=ETH", "asset"), Err(QueryError::Repeated));
        assert_eq!(read("asset=%412345678901234567", "asset"), Err(QueryError::TooLong));
        assert_eq!(read("asset=12345678901234567", "asset"), Ok(Some("12345678901234567".into())));
    }

    proptest! {
        #[test]
        fn any_query_is_survived(query in "([%+&=a-f0-9]|asset|assets|source){0,40}") {
            fuzz::query(query.as_bytes());
        }

        #[test]
        fn what_is_escaped_comes_back(value in proptest::collection::vec(any::<u8>(), 0..32)) {
            let escaped: String = value.iter().map(|b| format!("%{b:02x}")).collect();
            let query = format!("a=1&v={escaped}&z");
            let mut room = [0; 32];
            prop_assert_eq!(parameter(query.as_bytes(), "v", &mut room), Ok(Some(value.as_slice())));
        }
    }
}
