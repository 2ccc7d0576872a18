//! What an operator is told when the kernel does not do it.

use std::fmt;

/// Why there are no answers in the kernel: what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpError {
    /// What was found and what is needed.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl XdpError {
    pub(super) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into() }
    }

    /// From a library's error, with the cure its text points to.
    pub(super) fn of(doing: &str, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        let cure = if text.contains("os error 1)") || text.contains("os error 13)") {
            "run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        } else if text.contains("os error 16)") {
            "another XDP program is on that interface: ip link set dev IFACE xdp off removes it"
        } else {
            "serve without --xdp, and see dmesg"
        };
        // The verifier's log is long and says nothing to an operator.
        let first: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
        Self::new(format!("{doing}: {first}"), cure)
    }
}

impl fmt::Display for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl std::error::Error for XdpError {}
