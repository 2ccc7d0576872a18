//! The few steps of reading JSON in place that extraction needs: strings are found by their quotes,
//! values are skipped by their brackets, nothing is copied. What a row does not ask for is not
//! examined, so a message that reads well here may still break rules of JSON nobody looked at.

use super::path::Step;

/// The text is not JSON, or it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Where a value stands in the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
    pub(super) kind: Kind,
}

/// What stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing was found.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A string without escapes; the span is its inside.
    Text,
    /// A string with escapes; the span is its inside.
    Escaped,
    /// A number or literal.
    Bare,
    /// An object or array; the span is its first byte only.
    Container,
}

/// Longest string with escapes that is undone: symbols, prices, times and what rows compare with.
pub(super) const UNESCAPED_MAX: usize = 64;

impl Span {
    pub(super) const CONTAINER: Self = Self { start: 0, end: 0, kind: Kind::Container };

    fn new(start: usize, end: usize, kind: Kind) -> Self {
        // Messages are at most 4 MiB long; a longer one reads as empty spans.
        let small = |n| u32::try_from(n).unwrap_or(0);
        Self { start: small(start), end: small(end), kind }
    }

    /// The bytes as they stand there.
    #[inline]
    pub(super) fn raw(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or(b"")
    }

    /// A string, with its quotes; anything else as [`raw`](Self::raw).
    pub(super) fn quoted(self, text: &[u8]) -> &[u8] {
        match self.kind {
            Kind::Text | Kind::Escaped => {
                let start = (self.start as usize).saturating_sub(1);
                text.get(start..(self.end as usize).saturating_add(1)).unwrap_or(b"")
            }
            _ => self.raw(text),
        }
    }

    /// A string's meaning or a number's or literal's text; `None` when nothing, null or a container
    /// stands there, or a string with escapes is too long to be anything we look for.
    #[inline]
    pub(super) fn plain<'a>(self, text: &'a [u8], buffer: &'a mut [u8; UNESCAPED_MAX]) -> Option<&'a [u8]> {
        match self.kind {
            Kind::Text | Kind::Bare => Some(self.raw(text)),
            Kind::Escaped => unescape(self.raw(text), buffer),
            Kind::Absent | Kind::Null | Kind::Container => None,
        }
    }
}

/// Position of the next byte that is not white space.
#[inline]
pub(super) fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Position of the quote that ends the string whose inside begins at `at`, and whether it has
/// escapes.
#[inline]
pub(super) fn string(text: &[u8], mut at: usize) -> Result<(usize, bool), Broken> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut escaped = false;
    loop {
        // Eight bytes at a time: the lowest byte marked is exact, marks above it may be false.
        while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*eight);
            let quote = word ^ (ONES * 0x22);
            let slash = word ^ (ONES * 0x5c);
            let marks = ((quote.wrapping_sub(ONES) & !quote) | (slash.wrapping_sub(ONES) & !slash)) & HIGHS;
            if marks != 0 {
                at += (marks.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        match text.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => {
                escaped = true;
                at += 2;
            }
            Some(_) => at += 1,
            None => return Err(Broken),
        }
    }
}

/// Position behind the number or literal at `at`.
#[inline]
fn bare(text: &[u8], at: usize) -> Result<usize, Broken> {
    let mut end = at;
    while let Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'a'..=b'z' | b'A'..=b'Z') = text.get(end) {
        end += 1;
    }
    if end == at { Err(Broken) } else { Ok(end) }
}

/// Position behind the value at `at`.
pub(super) fn skip(text: &[u8], at: usize) -> Result<usize, Broken> {
    match text.get(at) {
        Some(b'"') => Ok(string(text, at + 1)?.0 + 1),
        Some(b'{' | b'[') => skip_container(text, at),
        _ => bare(text, at),
    }
}

fn skip_container(text: &[u8], mut at: usize) -> Result<usize, Broken> {
    let mut depth = 0_usize;
    loop {
        match text.get(at) {
            Some(b'"') => at = string(text, at + 1)?.0,
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') if depth == 1 => return Ok(at + 1),
            Some(b'}' | b']') => depth -= 1,
            Some(_) => {}
            None => return Err(Broken),
        }
        at += 1;
    }
}

/// The value at `at` and the position behind it. Containers are not entered: the position is then
/// that of their first byte.
#[inline]
pub(super) fn scalar(text: &[u8], at: usize) -> Result<(Span, usize), Broken> {
    match text.get(at) {
        Some(b'"') => {
            let (end, escaped) = string(text, at + 1)?;
            let kind = if escaped { Kind::Escaped } else { Kind::Text };
            Ok((Span::new(at + 1, end, kind), end + 1))
        }
        Some(b'{' | b'[') => Ok((Span::CONTAINER, at)),
        _ => {
            let end = bare(text, at)?;
            let kind = if text.get(at..end) == Some(b"null") { Kind::Null } else { Kind::Bare };
            Ok((Span::new(at, end, kind), end))
        }
    }
}

/// What comes after a member or element: the next one, or the end of the container.
#[inline]
pub(super) fn next(text: &[u8], at: usize, close: u8) -> Result<(usize, bool), Broken> {
    let at = space(text, at);
    match text.get(at) {
        Some(b',') => Ok((space(text, at + 1), true)),
        Some(byte) if *byte == close => Ok((at + 1, false)),
        _ => Err(Broken),
    }
}

/// Reads the key at `at`: its inside, whether it has escapes, and the position of its value.
#[inline]
pub(super) fn key(text: &[u8], at: usize) -> Result<(usize, usize, bool, usize), Broken> {
    if text.get(at) != Some(&b'"') {
        return Err(Broken);
    }
    let (end, escaped) = string(text, at + 1)?;
    let colon = space(text, end + 1);
    if text.get(colon) != Some(&b':') {
        return Err(Broken);
    }
    Ok((at + 1, end, escaped, space(text, colon + 1)))
}

/// Position of the first member or element of the container at `at`, `Err` position behind it when
/// it is empty.
#[inline]
pub(super) fn enter(text: &[u8], at: usize, close: u8) -> Result<usize, usize> {
    let first = space(text, at + 1);
    if text.get(first) == Some(&close) { Err(first + 1) } else { Ok(first) }
}

/// Calls `found` with every value that stands at `steps` below the value at `at`. For messages that
/// are rare: it walks the message once for each path.
pub(super) fn each(
    text: &[u8],
    at: usize,
    steps: &[Step],
    found: &mut dyn FnMut(Span),
) -> Result<usize, Broken> {
    let Some((step, below)) = steps.split_first() else {
        let (span, _) = scalar(text, at)?;
        found(span);
        return skip(text, at);
    };
    match (text.get(at), step) {
        (Some(b'{'), Step::Key(_) | Step::AnyKey) => {
            let mut at = match enter(text, at, b'}') {
                Ok(first) => first,
                Err(end) => return Ok(end),
            };
            loop {
                let (start, end, escaped, value) = key(text, at)?;
                let wanted = match step {
                    Step::Key(name) => key_is(text, start, end, escaped, name),
                    _ => true,
                };
                let behind = if wanted { each(text, value, below, found)? } else { skip(text, value)? };
                match next(text, behind, b'}')? {
                    (following, true) => at = following,
                    (end, false) => return Ok(end),
                }
            }
        }
        (Some(b'['), Step::Each | Step::Index(_)) => {
            let len = match step {
                Step::Index(n) if *n < 0 => count(text, at)?,
                _ => 0,
            };
            let mut at = match enter(text, at, b']') {
                Ok(first) => first,
                Err(end) => return Ok(end),
            };
            let mut index = 0;
            loop {
                let wanted = match step {
                    Step::Index(n) => is_index(*n, index, len),
                    _ => true,
                };
                let behind = if wanted { each(text, at, below, found)? } else { skip(text, at)? };
                index += 1;
                match next(text, behind, b']')? {
                    (following, true) => at = following,
                    (end, false) => return Ok(end),
                }
            }
        }
        _ => skip(text, at),
    }
}

/// Whether the key from `start` to `end` is `name`.
pub(super) fn key_is(text: &[u8], start: usize, end: usize, escaped: bool, name: &[u8]) -> bool {
    let raw = text.get(start..end).unwrap_or(b"");
    if escaped {
        let mut buffer = [0; UNESCAPED_MAX];
        unescape(raw, &mut buffer) == Some(name)
    } else {
        raw == name
    }
}

/// Whether element `index` of `len` is the one at `wanted`, which counts from the end when negative.
#[inline]
pub(super) fn is_index(wanted: i32, index: usize, len: usize) -> bool {
    let distance = wanted.unsigned_abs() as usize;
    if wanted < 0 { index + distance == len } else { index == distance }
}

/// Elements of the array at `at`.
pub(super) fn count(text: &[u8], at: usize) -> Result<usize, Broken> {
    let Ok(mut at) = enter(text, at, b']') else { return Ok(0) };
    let mut count = 0;
    loop {
        count += 1;
        match next(text, skip(text, at)?, b']')? {
            (following, true) => at = following,
            (_, false) => return Ok(count),
        }
    }
}

/// Undoes the escapes of a string's inside; `None` when it does not fit or they are wrong.
fn unescape<'b>(raw: &[u8], buffer: &'b mut [u8; UNESCAPED_MAX]) -> Option<&'b [u8]> {
    let mut len = 0;
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        let mut utf8 = [0; 4];
        let bytes: &[u8] = if byte == b'\\' {
            let code = *raw.get(at + 1)?;
            at += 2;
            match code {
                b'"' => b"\"",
                b'\\' => b"\\",
                b'/' => b"/",
                b'b' => b"\x08",
                b'f' => b"\x0c",
                b'n' => b"\n",
                b'r' => b"\r",
                b't' => b"\t",
                b'u' => {
                    let digits = std::str::from_utf8(raw.get(at..at + 4)?).ok()?;
                    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    at += 4;
                    // Characters written as two halves are in nothing that we look for.
                    let c = char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| plain)?)?;
                    c.encode_utf8(&mut utf8).as_bytes()
                }
                _ => return None,
            }
        } else {
            at += 1;
            utf8[0] = byte;
            &utf8[..1]
        };
        buffer.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
        len += bytes.len();
    }
    buffer.get(..len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::path::Path;
    use super::*;

    fn all(text: &str, path: &str) -> Result<Vec<String>, Broken> {
        let path = Path::parse(path).unwrap();
        let mut found = Vec::new();
        each(text.as_bytes(), 0, &path.steps, &mut |span| {
            let mut buffer = [0; UNESCAPED_MAX];
            let plain = span.plain(text.as_bytes(), &mut buffer);
            found.push(plain.map_or(format!("{:?}", span.kind), |b| String::from_utf8_lossy(b).into_owned()));
        })?;
        Ok(found)
    }

    #[test]
    fn values_are_found_where_paths_lead() {
        let text =
            r#"{"a":[{"b":"x"},{"b":2.50},{"c":null},7,{"b":[1,{}]}],"d\u0065":"\/é","f":{"g":true,"h":{}}}"#;
        assert_eq!(all(text, "a[*].b"), Ok(vec!["x".into(), "2.50".into(), "Container".into()]));
        assert_eq!(all(text, "a[-1].b[0]"), Ok(vec!["1".into()]));
        assert_eq!(all(text, "a[3]"), Ok(vec!["7".into()]));
        assert_eq!(all(text, "a[9]"), Ok(vec![]));
        assert_eq!(all(text, "a[2].c"), Ok(vec!["Null".into()]));
        assert_eq!(all(text, "de"), Ok(vec!["/é".into()]));
        assert_eq!(all(text, "f.*"), Ok(vec!["true".into(), "Container".into()]));
        assert_eq!(all(text, "f.g.x"), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_off_is_broken() {
        let text = r#"{"a":[{"b":"x\\"},2],"c":{"d":[[]]}}"#;
        assert_eq!(skip(text.as_bytes(), 0), Ok(text.len()));
        for len in 0..text.len() {
            assert_eq!(skip(&text.as_bytes()[..len], 0), Err(Broken), "{len}");
            assert!(all(&text[..len], "a[*].b").is_err(), "{len}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(skip(deep.as_bytes(), 0), Err(Broken));
        assert_eq!(skip(format!("{deep}{}", "]".repeat(100_000)).as_bytes(), 0), Ok(200_000));
    }

    proptest! {
        #[test]
        fn strings_end_where_serde_says(inside in "[a-z\"\\\\/é0]{0,40}", after in "[a-z\"]{0,10}") {
            let json = serde_json::to_string(&inside).unwrap();
            let text = format!("{json}{after}");
            let (end, escaped) = string(text.as_bytes(), 1).unwrap();
            prop_assert_eq!(end + 1, json.len());
            prop_assert_eq!(escaped, json.contains('\\'));
            let mut buffer = [0; UNESCAPED_MAX];
            if inside.len() <= UNESCAPED_MAX {
                prop_assert_eq!(unescape(&json.as_bytes()[1..end], &mut buffer), Some(inside.as_bytes()));
            }
        }

        #[test]
        fn no_bytes_stop_it(text in "[\\[\\]{}:,\"\\\\a1 u]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for text in [text.as_bytes(), &bytes] {
                let _ = skip(text, 0);
                for path in ["a", "a[*].b", "[0][1]", "*[-1]", "[-1].*"] {
                    let _ = each(text, 0, &Path::parse(path).unwrap().steps, &mut |_| {});
                }
            }
        }
    }
}
