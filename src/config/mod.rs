//! Configuration: defaults, then a TOML file, then `BEAST_…` of the environment, then flags, each
//! over the one before it.
//!
//! Every setting is one row of [`SETTINGS`]: its field, its names, its default, its bounds and its
//! description stand together there and nowhere else. Whoever starts a room hands it the values it
//! needs; no room reads a [`Config`].
//!
//! ```text
//! file ─┐
//! env  ─┼─► load ──► Effective { Config, where each value came from } ──► print
//! flags ┘
//! ```

#[doc(hidden)]
pub mod fuzz;
mod load;
mod nearest;
mod print;
mod settings;
mod value;

use std::fmt;

pub use load::{Effective, FlagValue, Origin, Sources, environment};
pub use print::{default_file, print_json, print_text};
pub use settings::{Config, Http, Journal, Rest, Retention, SETTINGS, Setting, Store};
pub use value::{IoChoice, LogLevel, Role, Steer, XdpOn};

/// Something an operator wrote that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was found, where, and what is needed.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

/// All that is wrong with a configuration, so that it can be mended in one go. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "error: {}\n  what to do: {}", problem.what, problem.cure)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
