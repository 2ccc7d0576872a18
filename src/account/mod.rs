//! Keys, tiers and who may ask.
//!
//! ```text
//!   store ── rows ──► KeyTable (immutable) ── a copy to every shard
//!                                                   │
//!   v1, HTTP: token bytes ──► Recognizer ───────────┤ KeyIndex ──► Key: number, account, tier
//!   v2:       public id   ──► by_public_id ─────────┘
//! ```
//!
//! A key that has been found is held to its tier by the shard's Limiter, which leases parts of the
//! key's allowance from the Allowances that all shards share.
//!
//! Only live keys stand in a table: what was revoked is not there, and neither protocol can find
//! it. Nothing here allocates to answer, and nothing secret is ever printed.

mod allowances;
#[doc(hidden)]
pub mod fuzz;
mod limiter;
mod month;
mod network;
mod recognizer;
mod reply_budget;
mod table;
mod token;

pub use allowances::Allowances;
pub use limiter::{Limited, Limiter, Standing};
pub use month::{Month, MonthSpan};
pub use network::{Network, NetworkError};
pub use recognizer::{Recognizer, Unrecognized};
pub use reply_budget::ReplyBudget;
pub use table::{Key, KeyIndex, KeyLimit, KeyTable, Tier};
pub use token::{PUBLIC_TEXT_LEN, SecretHash, TOKEN_LEN, Token, TokenError, V2Key, public_text};
