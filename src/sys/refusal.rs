//! What it means when the kernel refuses io_uring: the call, the error by name, what was found on
//! this machine, and the cure.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The error of a refused call, with everything an operator needs to act.
pub(super) fn refused(call: &str, error: &io::Error) -> io::Error {
    let Some(code) = error.raw_os_error() else {
        return io::Error::new(error.kind(), format!("{call}: {error}"));
    };
    let errno = Errno::from_raw(code);
    io::Error::new(error.kind(), explain(call, errno, &Machine::look()))
}

/// What of this machine decides whether io_uring works.
struct Machine {
    /// `kernel.io_uring_disabled`, if there is such a setting.
    disabled: Option<String>,
    /// Soft limit of locked memory, in bytes.
    memlock: Option<u64>,
    /// Soft limit of descriptors.
    descriptors: Option<u64>,
    /// Version of the kernel.
    kernel: String,
}

impl Machine {
    fn look() -> Self {
        let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let limit = |resource| getrlimit(resource).ok().map(|(soft, _)| soft);
        Self {
            disabled: read("/proc/sys/kernel/io_uring_disabled"),
            memlock: limit(Resource::RLIMIT_MEMLOCK),
            descriptors: limit(Resource::RLIMIT_NOFILE),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
        }
    }
}

fn explain(call: &str, errno: Errno, machine: &Machine) -> String {
    let cause = match errno {
        Errno::EPERM | Errno::EACCES => match machine.disabled.as_deref() {
            Some(setting @ ("1" | "2")) => {
                format!("kernel.io_uring_disabled is {setting}; run sysctl kernel.io_uring_disabled=0")
            }
            _ => "refused by a seccomp profile or another security module; allow io_uring_setup, \
                  io_uring_enter and io_uring_register in it"
                .into(),
        },
        Errno::ENOSYS => {
            "this kernel was built without io_uring, or a seccomp profile hides it; allow the three \
             io_uring calls in the profile"
                .into()
        }
        Errno::EINVAL => format!("the kernel is {}, needs 6.1 or later", machine.kernel),
        Errno::ENOMEM => format!(
            "the memlock limit is {}, and the ring did not fit; raise it with ulimit -l or LimitMEMLOCK=64M",
            machine.memlock.map_or_else(|| "unknown".into(), in_kib)
        ),
        Errno::EMFILE => format!(
            "the limit of open files is {}, more connections were asked for; raise it with ulimit -n or \
             LimitNOFILE, or allow fewer connections",
            machine.descriptors.map_or_else(|| "unknown".into(), |n| n.to_string())
        ),
        _ => "unexpected".into(),
    };
    format!("{call}: {}: {cause}, or use --io portable", name(errno))
}

/// `EPERM` of "EPERM: Operation not permitted".
fn name(errno: Errno) -> String {
    errno.to_string().split(':').next().unwrap_or_default().to_owned()
}

fn in_kib(bytes: u64) -> String {
    if bytes == RLIM_INFINITY { "unlimited".into() } else { format!("{} KiB", bytes / 1_024) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(disabled: Option<&str>) -> Machine {
        Machine {
            disabled: disabled.map(Into::into),
            memlock: Some(64 << 10),
            descriptors: Some(1_024),
            kernel: "5.15.0".into(),
        }
    }

    #[test]
    fn each_refusal_names_what_was_found_and_the_cure() {
        let text = |errno, disabled| explain("io_uring_setup", errno, &machine(disabled));
        assert_eq!(
            text(Errno::EPERM, Some("2")),
            "io_uring_setup: EPERM: kernel.io_uring_disabled is 2; run sysctl \
             kernel.io_uring_disabled=0, or use --io portable"
        );
        assert!(text(Errno::EPERM, Some("0")).contains("EPERM: refused by a seccomp profile"));
        assert!(text(Errno::ENOMEM, None).contains("the memlock limit is 64 KiB"));
        assert!(text(Errno::ENOMEM, None).contains("ulimit -l or LimitMEMLOCK"));
        assert!(text(Errno::EINVAL, None).contains("the kernel is 5.15.0, needs 6.1"));
        assert!(text(Errno::EMFILE, None).contains("the limit of open files is 1024"));
    }
}
