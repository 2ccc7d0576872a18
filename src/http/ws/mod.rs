//! The client side of WebSocket (RFC 6455), pure: bytes in, messages out, frames appended.
//!
//! ```text
//! random ──► Key ──► write_request ──► bytes out
//! bytes in ──► check_response ──► the connection is a WebSocket from `consumed` on
//! bytes in ──► Decoder::next ──► Text, Binary, Ping, Pong, Close     borrowed from the bytes
//!                 └─ keeps only an unfinished frame or message       where they hold a whole frame
//! write_text, write_ping, write_pong, write_close ──► bytes out
//! ```

mod decode;
mod encode;
mod handshake;

pub use decode::{Decoder, Incoming, ProtocolError};
pub use encode::{write_close, write_ping, write_pong, write_text};
pub use handshake::{Key, UpgradeError, check_response, write_request};

#[cfg(test)]
mod tests;
