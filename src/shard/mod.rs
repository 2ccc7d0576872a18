//! The data plane: one shard's loop and all that it owns.

mod counters;

pub use counters::{Counter, Counters, Published};
