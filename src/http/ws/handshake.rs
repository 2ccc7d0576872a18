//! The upgrade: our request and whether the server's answer accepts it.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use httparse::Status;

/// Longest head of an answer to an upgrade, in bytes. Content networks in front of exchanges send
/// cookies and policies of several kilobytes.
const RESPONSE_LEN_MAX: usize = 32 << 10;

/// Most headers of an answer to an upgrade.
const RESPONSE_HEADERS_MAX: usize = 128;

/// What RFC 6455 section 1.3 appends to the key before it is hashed.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Key`: proves that the answer was made for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// From 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(BASE64.encode(random))
    }

    /// As it stands in the request.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `Sec-WebSocket-Accept` that belongs to it.
    #[must_use]
    pub fn accept(&self) -> String {
        let text = format!("{}{GUID}", self.0);
        BASE64.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
    }
}

/// Why an answer does not open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeError {
    /// Another status than 101, with its reason phrase.
    Status(u16, String),
    /// Not HTTP/1.1, or its head is too long.
    NotHttp,
    /// A header is missing or has another value; its name.
    Header(&'static str),
    /// An extension or protocol that was not offered; the header's name.
    NotOffered(&'static str),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code, reason) => {
                write!(f, "the upgrade was answered {code} {reason}, needs 101")?;
                f.write_str(match code {
                    301 | 302 | 307 | 308 => "; the endpoint has moved: correct its url",
                    403 | 451 => "; this address may be refused there: try a regional host",
                    404 => "; nothing is there: check the path of the url",
                    418 | 429 => "; too many connections: they are opened more slowly now",
                    _ => "",
                })
            }
            Self::NotHttp => f.write_str(
                "the answer to the upgrade is not HTTP/1.1; check scheme, host and port of the url",
            ),
            Self::Header(name) => {
                write!(f, "the answer to the upgrade has a wrong or no {name}; no WebSocket server is there")
            }
            Self::NotOffered(name) => {
                write!(f, "the answer to the upgrade has a {name} that was not offered")
            }
        }
    }
}

impl std::error::Error for UpgradeError {}

/// Appends the upgrade request. `host` has a port unless it is the scheme's own; `target` begins
/// with `/`. No extension is offered.
pub fn write_request(out: &mut Vec<u8>, host: &str, target: &str, key: &Key) {
    for part in [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUser-Agent: beast/",
        env!("CARGO_PKG_VERSION"),
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        key.as_str(),
        "\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Checks the answer at the beginning of `bytes` against the request's key: its length, or `None`
/// while it is not yet whole.
///
/// # Errors
/// When it does not open a WebSocket.
pub fn check_response(bytes: &[u8], key: &Key) -> Result<Option<usize>, UpgradeError> {
    let head = bytes.get(..RESPONSE_LEN_MAX).unwrap_or(bytes);
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let consumed = match response.parse(head) {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if head.len() < RESPONSE_LEN_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(UpgradeError::NotHttp),
    };
    let (Some(code), Some(1)) = (response.code, response.version) else {
        return Err(UpgradeError::NotHttp);
    };
    if code != 101 {
        let reason = response.reason.unwrap_or_default().chars().take(80).collect();
        return Err(UpgradeError::Status(code, reason));
    }
    let values = |name: &'static str| {
        let named = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        response.headers.iter().filter(named).map(|header| header.value.trim_ascii())
    };
    if !values("Upgrade").any(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return Err(UpgradeError::Header("Upgrade"));
    }
    let upgrades = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    if !values("Connection").any(upgrades) {
        return Err(UpgradeError::Header("Connection"));
    }
    let mut accepts = values("Sec-WebSocket-Accept");
    if accepts.next() != Some(key.accept().as_bytes()) || accepts.next().is_some() {
        return Err(UpgradeError::Header("Sec-WebSocket-Accept"));
    }
    for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
        if values(name).any(|value| !value.is_empty()) {
            return Err(UpgradeError::NotOffered(name));
        }
    }
    Ok(Some(consumed))
}
