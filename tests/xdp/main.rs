//! The kernel's program: the same answers as the socket path, packet for packet, for golden frames and
//! for a million damaged ones. Needs the right to load programs; where that is missing and `CI` is set,
//! the tests fail.

mod frames;
mod golden;
mod mutants;
mod world;
