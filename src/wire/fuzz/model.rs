//! The obvious reading of v1, over serde_json: what the scanner must agree with.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{ASSETS_PER_REQUEST_MAX, REQUEST_ID_LEN_MAX};
use crate::wire::Reject;

/// The members of an object as another parser sees them: decoded names, raw values.
struct Members(Vec<(Vec<u8>, Box<RawValue>)>);

/// A name of a member; bytes, because JSON allows lone surrogates.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_vec()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_bytes(V)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(V)
    }
}

/// What a request says.
#[derive(Debug, PartialEq)]
pub(super) struct Meaning {
    pub(super) token: String,
    pub(super) assets: Vec<String>,
    pub(super) single: bool,
    pub(super) source: Option<String>,
    pub(super) id: Option<String>,
}

/// The rules of v1 over another parser's result. Nesting too deep is for the caller to find.
pub(super) fn model(bytes: &[u8]) -> Result<Meaning, Reject> {
    const BAD: Reject = Reject::BadRequest;
    let text = std::str::from_utf8(bytes).map_err(|_| BAD)?;
    let Members(members) = serde_json::from_str(text).map_err(|_| BAD)?;
    let inside =
        |raw: &str| raw.strip_prefix('"').and_then(|s| s.strip_suffix('"')).map(str::to_owned).ok_or(BAD);
    let mut meaning = Meaning { token: String::new(), assets: vec![], single: false, source: None, id: None };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (name, value) in members {
        let raw = value.get();
        if [&b"error"[..], b"price", b"prices"].contains(&&name[..]) {
            return Err(Reject::IsAnswer);
        }
        if [&b"api_key"[..], b"asset", b"assets", b"source", b"id", b"pad"].contains(&&name[..]) {
            if seen.contains(&name) {
                return Err(BAD);
            }
            seen.push(name.clone());
        }
        match &name[..] {
            b"api_key" => meaning.token = inside(raw)?,
            b"source" => meaning.source = Some(inside(raw)?),
            b"asset" => (meaning.assets, meaning.single) = (vec![inside(raw)?], true),
            b"assets" => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(raw).map_err(|_| BAD)?;
                meaning.assets = items.iter().map(|item| inside(item.get())).collect::<Result<_, _>>()?;
                if items.is_empty() || items.len() > ASSETS_PER_REQUEST_MAX {
                    return Err(BAD);
                }
            }
            b"id" => {
                if !raw.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
                    || raw.len() > REQUEST_ID_LEN_MAX
                {
                    return Err(BAD);
                }
                meaning.id = Some(raw.to_owned());
            }
            _ => {}
        }
    }
    let asked = seen.iter().filter(|name| name.starts_with(b"asset")).count();
    if asked == 1 { Ok(meaning) } else { Err(BAD) }
}

/// How deep a valid JSON text is nested.
pub(super) fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    deepest
}
