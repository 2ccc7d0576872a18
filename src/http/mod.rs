//! HTTP/1.1 heads and WebSocket frames: pure functions over bytes.
//!
//! ```text
//! received bytes ──► head::parse ──► Request ──► (the shard decides) ──► respond ──► bytes to send
//! ```
//!
//! [`ws`] is the client's side of WebSocket, for the feeds.

#[doc(hidden)]
pub mod fuzz;
pub mod head;
pub mod query;
pub mod respond;
pub mod ws;
