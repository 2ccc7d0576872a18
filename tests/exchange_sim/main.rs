//! The simulated exchanges seen through a real socket: every protocol's subscription and trades, REST,
//! each misbehaviour, TLS, and recordings replayed verbatim.

mod client;
mod misbehaviour;
mod replay;
mod trades;
