//! The limits this process may raise by itself.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the process may use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors. A ring's direct descriptors are not among them, but their table may not be
    /// larger than this either.
    pub descriptors: u64,
    /// Locked memory in bytes; `u64::MAX` without a limit.
    pub memlock: u64,
}

/// Raises the soft limits of descriptors and locked memory to the hard ones, which needs no
/// privilege: shells start programs with low soft limits for the sake of programs that use `select`.
///
/// # Errors
/// The kernel's; never for want of privilege.
pub fn raise() -> io::Result<Limits> {
    let raised = |resource| -> io::Result<u64> {
        let (soft, hard) = getrlimit(resource)?;
        if soft < hard {
            setrlimit(resource, hard, hard)?;
        }
        Ok(hard)
    };
    Ok(Limits { descriptors: raised(Resource::RLIMIT_NOFILE)?, memlock: raised(Resource::RLIMIT_MEMLOCK)? })
}

/// The soft limit of locked memory in bytes, as it is now.
///
/// # Errors
/// The kernel's; never in practice.
pub fn memlock() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_MEMLOCK)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limits_end_at_the_hard_ones() {
        let limits = raise().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limits.descriptors, limits.descriptors));
        assert_eq!(raise().unwrap(), limits);
    }
}
