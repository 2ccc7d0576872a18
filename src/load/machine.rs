//! What a number was measured on.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::sys::pin;

/// The machine a generator runs on. What the kernel does not show is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Processors this process may use, by number.
    pub cpus: Vec<usize>,
    /// Kernel release.
    pub kernel: String,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Frequency governor of the first processor.
    pub governor: Option<String>,
    /// The hypervisor or firmware's name for the machine.
    pub product: Option<String>,
    /// Mitigations the kernel applies.
    pub mitigations: Vec<String>,
    /// Kernel settings that change such numbers, by name.
    pub sysctls: BTreeMap<String, String>,
    /// Runnable tasks and load: anything else that runs spoils a number.
    pub load_average: String,
}

/// Kernel settings that change what a server or a generator on UDP or TCP can do.
const SYSCTLS: &[&str] = &[
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.udp_mem",
    "kernel.io_uring_disabled",
    "kernel.timer_migration",
    "vm.swappiness",
];

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        let sysctl = |name: &&str| {
            let value = read(&format!("/proc/sys/{}", name.replace('.', "/")))?;
            Some(((*name).to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        Self {
            cpu: after(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: pin::cpus().unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            memory_bytes: after(&meminfo, "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib.saturating_mul(1_024)),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            product: read("/sys/class/dmi/id/product_name"),
            mitigations: mitigations(),
            sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
            load_average: read("/proc/loadavg").unwrap_or_default(),
        }
    }
}

fn mitigations() -> Vec<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let state = read(entry.path().to_str()?)?;
            (state != "Not affected").then(|| format!("{}: {state}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The text behind `name` and its colon, on the first line that begins so.
fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::here();
        assert!(!machine.cpus.is_empty() && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{machine:?}");
        assert!(machine.sysctls.contains_key("net.core.rmem_max"), "{machine:?}");
        assert_eq!(after("a : 1\nmodel name\t: X 7\n", "model name"), Some("X 7"));
    }
}
