//! The only room with unsafe code: safe faces over the kernel that cannot be misused from outside.

pub mod mmsg;
pub mod net;
pub mod pin;
