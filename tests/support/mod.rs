//! What the tests of the whole appliance share.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub(crate) mod feeds;
pub(crate) mod gate;
pub(crate) mod program;
pub(crate) mod recordings;
pub(crate) mod wait;
