//! Messages of the server out of received bytes.
//!
//! ```text
//!  received bytes   │ frame │ frame │ fra…          whole frames are handed out as they lie there;
//!                                      │
//!  pending          │ fra…  ◄──────────┘            the rest waits here for the next bytes
//!  message          │ first part, next part …       parts of a fragmented message
//! ```

use std::fmt;

use crate::limits::FEED_MESSAGE_LEN_MAX;

/// Longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub(super) const CONTROL_LEN_MAX: usize = 125;

/// Capacity that is kept once a larger frame or message has gone, in bytes: most books of Gemini fit.
const KEPT_LEN_MAX: usize = 256 << 10;

/// A whole message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message; UTF-8 was checked.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong of the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// An answer to a ping, or sent unasked.
    Pong(&'a [u8]),
    /// The last frame; nothing follows it.
    Close {
        /// Why, as RFC 6455 section 7.4 numbers it.
        code: Option<u16>,
        /// Why, in words; often empty.
        reason: &'a str,
    },
}

/// What the server did that no server may do. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolError {
    /// A reserved bit is set, though no extension was agreed.
    ReservedBits,
    /// An opcode that means nothing.
    Opcode(u8),
    /// A frame is masked; only clients mask.
    Masked,
    /// A control frame is fragmented or longer than 125 bytes.
    Control,
    /// A message is longer than [`FEED_MESSAGE_LEN_MAX`].
    TooLong,
    /// A continuation without a beginning.
    Continuation,
    /// A new message within a fragmented one.
    Interrupted,
    /// Text that is not UTF-8.
    Utf8,
    /// A close whose code or length is not allowed.
    Close,
}

impl ProtocolError {
    /// The code to close the connection with.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooLong => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebSocket protocol error: ")?;
        match self {
            Self::ReservedBits => f.write_str("a reserved bit is set without an extension"),
            Self::Opcode(opcode) => write!(f, "opcode {opcode:#x} means nothing"),
            Self::Masked => f.write_str("a server's frame is masked"),
            Self::Control => f.write_str("a control frame is fragmented or longer than 125 bytes"),
            Self::TooLong => write!(f, "a message is longer than {FEED_MESSAGE_LEN_MAX} bytes"),
            Self::Continuation => f.write_str("a continuation follows no beginning"),
            Self::Interrupted => f.write_str("a message begins within a fragmented one"),
            Self::Utf8 => f.write_str("a text is not UTF-8"),
            Self::Close => f.write_str("a close has a code or length that is not allowed"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Takes the server's bytes apart.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame.
    pending: Vec<u8>,
    /// Parts of a fragmented message.
    message: Vec<u8>,
    /// What the fragmented message is.
    fragmented: Option<Kind>,
    /// `pending` was handed out and is to be emptied.
    pending_used: bool,
    /// `message` was handed out and is to be emptied.
    message_used: bool,
    /// After a close or an error: nothing more is read.
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Binary,
}

impl Decoder {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of the next message or control frame.
    /// `None` when `input` is used up; what was unfinished is kept for the next call. After a close
    /// everything is taken and nothing comes.
    ///
    /// # Errors
    /// When the server breaks the protocol; nothing more is read after that.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Incoming<'a>>, ProtocolError> {
        let result = self.step(input);
        match result {
            Ok(Some(Taken { payload, kind: Some(kind) })) => {
                let bytes = match payload {
                    Payload::Input(bytes) => bytes,
                    Payload::Pending(from) => self.pending.get(from..).unwrap_or_default(),
                    Payload::Message => &self.message,
                };
                let incoming = meaning(kind, bytes);
                self.ended = matches!(kind, Whole::Close) || incoming.is_err();
                incoming.map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// Reads frames until one ends a message. Where its payload lies is said by place, because it
    /// may be borrowed only once nothing changes any more.
    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Taken<'i>>, ProtocolError> {
        loop {
            empty_if(&mut self.pending, &mut self.pending_used);
            empty_if(&mut self.message, &mut self.message_used);
            if self.ended {
                *input = &[];
                return Ok(None);
            }
            let Some((header, payload)) = self.frame(input)? else { return Ok(None) };
            let taken = self.assemble(header, payload)?;
            if taken.kind.is_some() {
                return Ok(Some(taken));
            }
        }
    }

    /// The next whole frame, straight from the input where it lies there whole.
    fn frame<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<(Header, Payload<'i>)>, ProtocolError> {
        if self.pending.is_empty() {
            if let Parsed::Header(header) = Header::parse(input)?
                && let Some((frame, rest)) = input.split_at_checked(header.frame_len())
            {
                *input = rest;
                return Ok(Some((header, Payload::Input(frame.get(header.len..).unwrap_or_default()))));
            }
            self.pending.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        loop {
            let (needed, header) = match Header::parse(&self.pending)? {
                Parsed::Needs(len) => (len, None),
                Parsed::Header(header) => (header.frame_len(), Some(header)),
            };
            let missing = needed.saturating_sub(self.pending.len());
            if missing == 0
                && let Some(header) = header
            {
                self.pending_used = true;
                return Ok(Some((header, Payload::Pending(header.len))));
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.pending.extend_from_slice(taken);
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
        }
    }

    /// What a frame ends: a message, a control frame, or nothing yet.
    fn assemble<'i>(&mut self, header: Header, payload: Payload<'i>) -> Result<Taken<'i>, ProtocolError> {
        let kind = match (header.opcode, self.fragmented) {
            (0x8, _) => return Ok(Taken { payload, kind: Some(Whole::Close) }),
            (0x9, _) => return Ok(Taken { payload, kind: Some(Whole::Ping) }),
            (0xa, _) => return Ok(Taken { payload, kind: Some(Whole::Pong) }),
            (0x0, None) => return Err(ProtocolError::Continuation),
            (0x0, Some(kind)) => kind,
            (0x1 | 0x2, Some(_)) => return Err(ProtocolError::Interrupted),
            (0x1, None) => Kind::Text,
            (0x2, None) => Kind::Binary,
            (opcode, _) => return Err(ProtocolError::Opcode(opcode)),
        };
        if header.fin && self.fragmented.is_none() {
            return Ok(Taken { payload, kind: Some(Whole::Message(kind)) });
        }
        if self.message.len().saturating_add(header.payload_len) > FEED_MESSAGE_LEN_MAX {
            return Err(ProtocolError::TooLong);
        }
        self.message.extend_from_slice(match payload {
            Payload::Input(bytes) => bytes,
            Payload::Pending(from) => self.pending.get(from..).unwrap_or_default(),
            Payload::Message => &[],
        });
        if header.fin {
            self.fragmented = None;
            self.message_used = true;
            return Ok(Taken { payload: Payload::Message, kind: Some(Whole::Message(kind)) });
        }
        self.fragmented = Some(kind);
        Ok(Taken { payload, kind: None })
    }
}

/// Where a payload lies.
#[derive(Clone, Copy)]
enum Payload<'i> {
    Input(&'i [u8]),
    /// In `pending`, from this byte to its end.
    Pending(usize),
    /// All of `message`.
    Message,
}

/// A frame that was read, and what it makes whole.
struct Taken<'i> {
    payload: Payload<'i>,
    kind: Option<Whole>,
}

#[derive(Clone, Copy)]
enum Whole {
    Message(Kind),
    Ping,
    Pong,
    Close,
}

fn meaning(kind: Whole, bytes: &[u8]) -> Result<Incoming<'_>, ProtocolError> {
    Ok(match kind {
        Whole::Message(Kind::Text) => Incoming::Text(text(bytes)?),
        Whole::Message(Kind::Binary) => Incoming::Binary(bytes),
        Whole::Ping => Incoming::Ping(bytes),
        Whole::Pong => Incoming::Pong(bytes),
        Whole::Close => match bytes {
            [] => Incoming::Close { code: None, reason: "" },
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(ProtocolError::Close);
                }
                Incoming::Close { code: Some(code), reason: text(reason)? }
            }
            [_] => return Err(ProtocolError::Close),
        },
    })
}

fn text(bytes: &[u8]) -> Result<&str, ProtocolError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| ProtocolError::Utf8)
}

fn empty_if(buffer: &mut Vec<u8>, used: &mut bool) {
    if std::mem::take(used) {
        buffer.clear();
        buffer.shrink_to(KEPT_LEN_MAX);
    }
}

/// The first bytes of a frame.
///
/// ```text
///   0        1         2 …                 len
///  │F rsv op│M length │ 0, 2 or 8 more    │ payload …
/// ```
#[derive(Clone, Copy)]
struct Header {
    fin: bool,
    opcode: u8,
    len: usize,
    payload_len: usize,
}

enum Parsed {
    /// So many bytes are needed before more can be said.
    Needs(usize),
    Header(Header),
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(Parsed::Needs(2)) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        if !matches!(opcode, 0x0..=0x2 | 0x8..=0xa) {
            return Err(ProtocolError::Opcode(opcode));
        }
        if second & 0x80 != 0 {
            return Err(ProtocolError::Masked);
        }
        let (len, payload_len) = match second {
            126 => match rest.first_chunk() {
                Some(bytes) => (4, u64::from(u16::from_be_bytes(*bytes))),
                None => return Ok(Parsed::Needs(4)),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (10, u64::from_be_bytes(*bytes)),
                None => return Ok(Parsed::Needs(10)),
            },
            short => (2, u64::from(short)),
        };
        if opcode >= 0x8 && (!fin || second > 125) {
            return Err(ProtocolError::Control);
        }
        match usize::try_from(payload_len) {
            Ok(payload_len) if payload_len <= FEED_MESSAGE_LEN_MAX => {
                Ok(Parsed::Header(Self { fin, opcode, len, payload_len }))
            }
            _ => Err(ProtocolError::TooLong),
        }
    }

    fn frame_len(self) -> usize {
        self.len + self.payload_len
    }
}
