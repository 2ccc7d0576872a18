//! Keys, tiers and who may ask.
//!
//! ```text
//!   store ── rows ──► KeyTable (immutable) ── a copy to every shard
//!                                                   │
//!   v1, HTTP: token bytes ──► Recognizer ───────────┤ KeyIndex ──► Key: number, account, tier
//!   v2:       public id   ──► by_public_id ─────────┘
//! ```
//!
//! Only live keys stand in a table: what was revoked is not there, and neither protocol can find
//! it. Nothing here allocates to answer, and nothing secret is ever printed.

#[doc(hidden)]
pub mod fuzz;
mod network;
mod recognizer;
mod reply_budget;
mod table;
mod token;

pub use network::{Network, NetworkError};
pub use recognizer::{Recognizer, Unrecognized};
pub use reply_budget::ReplyBudget;
pub use table::{Key, KeyIndex, KeyTable, Tier};
pub use token::{PUBLIC_TEXT_LEN, SecretHash, TOKEN_LEN, Token, TokenError, V2Key, public_text};
