//! The data plane: one shard's loop and all that it owns.

mod answer;
mod conns;
mod counters;
mod guest;
mod links;
mod parting;
mod ready;
mod run;
#[cfg(test)]
mod simulation;
mod stopwatch;
mod tcp;
#[cfg(test)]
mod tests;
mod waiting;

pub use answer::{Answerer, AskRest, Attempt, HttpVerdict, NoRest, ShardSecrets, Verdict};
pub use counters::{Counter, Counters, Published};
pub use guest::{Arrival, Guest, Keep};
pub use links::{Inbox, LINK_LEN, Publisher, Update, links};
pub use ready::Ready;
pub use run::{Control, Options, Shard};
