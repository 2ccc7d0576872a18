//! Paths into JSON and conditions on what stands there, as rows write them.
//!
//! ```text
//! path       result.data[*]     keys, every element, element 2 as [2], the last one as [-1],
//!            result.*[0]        .* is every key of an object
//!            @arg.instId        inside a trade element: from the envelope instead
//! condition  channel=trades     the value there is this text, number or literal
//!            type=match|last    one of these
//!            topic^=trade.      it begins with this
//!            code!=0            it is there and is not this
//!            result             it is there and not null
//!            !result            it is not there, or null
//! ```

/// Steps a path may have; also how deep a walk along paths ever goes.
const STEPS_MAX: usize = 8;

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into an object, at this key.
    Key(Box<[u8]>),
    /// Into an object, at every key.
    AnyKey,
    /// Into an array, at every element.
    Each,
    /// Into an array, at this element; counted from the end when negative.
    Index(i32),
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// It starts at the envelope, also where it is written for a trade element.
    pub(super) envelope: bool,
    /// The way down; none: the value it starts at.
    pub(super) steps: Vec<Step>,
}

/// A test of the value at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Where.
    pub(super) path: Path,
    /// What.
    pub(super) test: Test,
}

/// What a condition asks of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// There and not null.
    Present,
    /// Not there, or null.
    Missing,
    /// A text, number or literal equal to one of these.
    OneOf(Vec<Box<[u8]>>),
    /// A text, number or literal that begins with this.
    Prefix(Box<[u8]>),
    /// A text, number or literal other than this.
    Not(Box<[u8]>),
}

/// What a path must look like, for messages.
pub(super) const PATH_NEEDED: &str = "a path: keys joined by dots, `[*]`, `[2]`, `[-1]` or `.*`, at most 8 steps, an `@` in front for the envelope";
/// The same for a path that leads to one value.
pub(super) const SINGLE_NEEDED: &str = "a path to one value, without `[*]` and `.*`";
/// What a condition must look like, for messages.
pub(super) const CONDITION_NEEDED: &str =
    "a condition: `path`, `!path`, `path=value`, `path=one|other`, `path^=beginning` or `path!=value`";

impl Path {
    /// Reads a path; `None` when it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (envelope, mut rest) = match text.strip_prefix('@') {
            Some(rest) => (true, rest.strip_prefix('.').unwrap_or(rest)),
            None => (false, text),
        };
        if rest.is_empty() && !envelope {
            return None;
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return None;
            }
            if let Some(inside) = rest.strip_prefix('[') {
                let (index, after) = inside.split_once(']')?;
                steps.push(match index {
                    "*" => Step::Each,
                    _ => Step::Index(index.parse().ok().filter(|n: &i32| n.unsigned_abs() < 1_000)?),
                });
                rest = after;
                if let Some(after) = rest.strip_prefix('.') {
                    if after.is_empty() || after.starts_with('[') {
                        return None;
                    }
                    rest = after;
                }
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (key, after) = rest.split_at(end);
                if key.is_empty() || key.contains([']', '@', '"', '\\', '!']) {
                    return None;
                }
                steps.push(if key == "*" { Step::AnyKey } else { Step::Key(key.as_bytes().into()) });
                rest = after;
                if let Some(after) = rest.strip_prefix('.') {
                    if after.is_empty() || after.starts_with(['[', '.']) {
                        return None;
                    }
                    rest = after;
                }
            }
        }
        Some(Self { envelope, steps })
    }

    /// Whether at most one value stands there.
    pub(super) fn is_single(&self) -> bool {
        !self.steps.iter().any(|s| matches!(s, Step::Each | Step::AnyKey))
    }
}

impl Condition {
    /// Reads a condition; `None` when it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some((left, value)) = text.split_once('=') else {
            if let Some(path) = text.strip_prefix('!') {
                return Some(Self { path: Path::parse(path)?, test: Test::Missing });
            }
            return Some(Self { path: Path::parse(text)?, test: Test::Present });
        };
        let bytes = |text: &str| -> Option<Box<[u8]>> { (!text.is_empty()).then(|| text.as_bytes().into()) };
        let (path, test) = if let Some(path) = left.strip_suffix('^') {
            (path, Test::Prefix(bytes(value)?))
        } else if let Some(path) = left.strip_suffix('!') {
            (path, Test::Not(bytes(value)?))
        } else {
            (left, Test::OneOf(value.split('|').map(bytes).collect::<Option<_>>()?))
        };
        Some(Self { path: Path::parse(path)?, test })
    }
}

impl Test {
    /// Whether a text, number or literal passes.
    pub(super) fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Missing => false,
            Self::OneOf(values) => values.iter().any(|v| **v == *value),
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Not(other) => **other != *value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_step_by_step() {
        let key = |k: &str| Step::Key(k.as_bytes().into());
        for (text, envelope, steps) in [
            ("price", false, vec![key("price")]),
            ("events[*].trades[*]", false, vec![key("events"), Step::Each, key("trades"), Step::Each]),
            ("[1][*]", false, vec![Step::Index(1), Step::Each]),
            ("@[-1]", true, vec![Step::Index(-1)]),
            ("@", true, vec![]),
            ("@.arg.instId", true, vec![key("arg"), key("instId")]),
            ("result.*[0]", false, vec![key("result"), Step::AnyKey, Step::Index(0)]),
        ] {
            assert_eq!(Path::parse(text), Some(Path { envelope, steps }), "{text}");
        }
        for bad in ["", "ts[", "a..b", ".a", "a.", "a[x]", "a[]", "[*]x]", "a]", "a[0].", "a.[0]", "a[0].[1]"]
        {
            assert_eq!(Path::parse(bad), None, "{bad}");
        }
        assert_eq!(Path::parse("a.b.c.d.e.f.g.h.i"), None, "too deep");
    }

    #[test]
    fn conditions_say_what_they_test() {
        let test = |text: &str| Condition::parse(text).map(|c| c.test);
        assert_eq!(test("t"), Some(Test::Present));
        assert_eq!(test("!t.u"), Some(Test::Missing));
        assert_eq!(test("a.b=x|y"), Some(Test::OneOf(vec![b"x"[..].into(), b"y"[..].into()])));
        assert_eq!(test("topic^=trade."), Some(Test::Prefix(b"trade."[..].into())));
        assert_eq!(test("code!=0"), Some(Test::Not(b"0"[..].into())));
        for bad in ["!", "!t=x", "=x", "a=", "a=x|", "^=x", "a[=x", "a^=", ""] {
            assert_eq!(test(bad), None, "{bad}");
        }
    }
}
