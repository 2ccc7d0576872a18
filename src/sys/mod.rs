//! The only room with unsafe code: safe faces over the kernel that cannot be misused from outside.

mod buffer_ring;
pub mod counting_alloc;
pub mod eventfd;
pub mod mmap;
pub mod mmsg;
pub mod net;
pub mod pass_fds;
pub mod pin;
pub mod priority;
mod refusal;
pub mod ring;
pub mod rlimits;
pub mod seccomp;
pub mod steer;
pub mod token;
