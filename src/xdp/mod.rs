//! Answers in the kernel: loads the program of `bpf/answer.bpf.c`, keeps the tables it answers from, and
//! takes its records into the books.
//!
//! ```text
//!                       settings, prices (mapped)   keys (system calls)
//!   process ────────────────────┬──────────────────────────┘
//!                               ▼
//!   frame ─► driver ─► program: a plain v2 request it is sure of? ─ no ─► stack ─► socket ─► shard
//!                               │ record ─► lane (mapped, pinned) ─► process ─► journal
//!                               ▼
//!                            answer, out of the same interface
//! ```
//!
//! Lanes are pinned in the BPF file system under the folder's own name, so that what a process that was
//! killed has not taken out waits for the next one; see [`Pins`].

mod error;
mod keys;
mod lanes;
mod layout;
mod pins;
mod prices;
mod program;
mod settings;
mod tokens;

pub use error::XdpError;
pub use keys::KeyMap;
pub use lanes::{Lanes, PASS_REASONS};
pub use pins::{OldLanes, Pins};
pub use prices::{PriceEntry, PriceMap};
pub use program::{AttachMode, Attached, Program, Sizes, TestRun};
pub use settings::{Interface, Served, Settings};
pub use tokens::Tokens;
