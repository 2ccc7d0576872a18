//! The only room with unsafe code: safe faces over the kernel.
