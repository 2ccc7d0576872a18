//! What the kernel says of this process.

use std::fs;

/// Bytes of memory that are in RAM; `None` where `/proc` is not mounted.
pub(super) fn resident_bytes() -> Option<u64> {
    field_kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:").map(|kib| kib.saturating_mul(1_024))
}

/// Open descriptors, without the one that counts them; `None` where `/proc` is not mounted.
pub(super) fn open_descriptors() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count.saturating_sub(1)).ok()
}

/// Most descriptors the process may have open; `None` when that is unlimited or cannot be read.
pub(super) fn descriptors_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read() {
        assert!(resident_bytes().unwrap() > 100_000);
        let before = open_descriptors().unwrap();
        assert!(before >= 1);
        assert!(descriptors_max().is_none_or(|max| max >= before));
        assert_eq!(field_kib("VmSize:\t 5 kB\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1_234));
        assert_eq!(field_kib("VmRSS: many", "VmRSS:"), None);
    }
}
