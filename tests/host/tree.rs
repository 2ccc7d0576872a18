//! A machine made up of files: what `/proc` and `/sys` would show, and commands that act on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The folder of one such machine.
pub(crate) struct Tree(TempDir);

/// A card with four queues at most, by one file a value. Reads as the real one prints.
const ETHTOOL: &str = r#"#!/bin/sh
here=$(dirname "$0")/../card
get() { cat "$here/$1"; }
# A card has the old value or the new one, never half of one, whenever this is ended.
put() { echo "$2" >"$here/../new-$1" && mv "$here/../new-$1" "$here/$1"; }
case "$1" in
  -l) printf 'Channel parameters:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nCombined:\t8\n'
      printf 'Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nCombined:\t%s\n' "$(get combined)" ;;
  -g) printf 'Ring parameters:\nPre-set maximums:\nRX:\t\t8192\nTX:\t\t8192\n'
      printf 'Current hardware settings:\nRX:\t\t%s\nTX:\t\t%s\n' "$(get rx)" "$(get tx)" ;;
  -c) printf 'Adaptive RX: %s  TX: %s\nrx-usecs:\t%s\nrx-frames:\tn/a\n' "$(get adaptive-rx)" on "$(get rx-usecs)" ;;
  -k) printf 'Features:\nlarge-receive-offload: %s\nrx-gro-hw: off [fixed]\nrx-checksumming: on\n' "$(get large-receive-offload)" ;;
  -n) case "$(get $4)" in
        sdfn) printf 'UDP flows use these fields:\nIP SA\nIP DA\nL4 bytes 0 and 1 [TCP/UDP src port]\nL4 bytes 2 and 3 [TCP/UDP dst port]\n' ;;
        *) printf 'UDP flows use these fields:\nIP SA\nIP DA\n' ;;
      esac ;;
  -L | -G | -C | -K) put "$3" "$4" ;;
  -N) put "$4" "$5" ;;
  *) exit 1 ;;
esac
"#;

/// One table, in a file.
const NFT: &str = r#"#!/bin/sh
file=$(dirname "$0")/../card/nft
case "$1" in
  list) [ -s "$file" ] && cat "$file" ;;
  delete) : >"$file" ;;
  -f) cat >"$file" ;;
esac
"#;

/// One service, irqbalance, in a file.
const SYSTEMCTL: &str = r#"#!/bin/sh
file=$(dirname "$0")/../card/irqbalance
case "$1" in
  cat) exit 0 ;;
  is-active) [ "$(cat "$file")" = active ] ;;
  start) echo active >"$file" ;;
  stop) echo inactive >"$file" ;;
esac
"#;

impl Tree {
    /// Four processors, one card, nothing tuned.
    pub(crate) fn metal() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in [
            ("proc/cpuinfo", "flags\t\t: fpu vme lahf_lm\n"),
            ("proc/cmdline", "root=/dev/sda1 quiet\n"),
            ("proc/meminfo", "MemTotal:       16384000 kB\n"),
            ("proc/1/cgroup", "0::/init.scope\n"),
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("proc/self/status", "Name:\tsh\nCpus_allowed_list:\t0-3\n"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max open files            1024                 524288               files\n\
                 Max locked memory         8388608              8388608              bytes\n",
            ),
            ("proc/net/route", "Iface\tDestination\tGateway\neth7\t00000000\t0100A8C0\n"),
            (
                "proc/interrupts",
                "           CPU0\n 60:  0  PCI-MSI 0-edge  eth7\n 61:  9  PCI-MSI 1-edge  eth7-TxRx-0\n \
                 62:  7  PCI-MSI 2-edge  eth7-TxRx-1\n",
            ),
            ("proc/irq/60/smp_affinity_list", "0-3\n"),
            ("proc/irq/61/smp_affinity_list", "0-3\n"),
            ("proc/irq/62/smp_affinity_list", "0-3\n"),
            ("proc/sys/kernel/random/boot_id", "this-boot\n"),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("proc/sys/net/core/wmem_max", "212992\n"),
            ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
            ("proc/sys/net/core/netdev_budget", "300\n"),
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/core/busy_poll", "0\n"),
            ("proc/sys/net/core/busy_read", "0\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "1024\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/devices/system/node/node0/cpulist", "0-3\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never\n"),
            ("sys/class/net/eth7/napi_defer_hard_irqs", "0\n"),
            ("sys/class/net/eth7/gro_flush_timeout", "0\n"),
            ("sys/class/net/eth7/device/msi_irqs/60", "msix\n"),
            ("sys/class/net/eth7/device/msi_irqs/61", "msix\n"),
            ("sys/class/net/eth7/device/msi_irqs/62", "msix\n"),
            ("sys/class/net/eth7/queues/rx-0/rps_cpus", "00000000\n"),
            ("sys/class/net/eth7/queues/rx-1/rps_cpus", "00000000\n"),
            ("sys/class/net/eth7/queues/tx-0/xps_cpus", "0000000f\n"),
            ("sys/class/net/eth7/queues/tx-1/xps_cpus", "0000000f\n"),
            ("etc/security/limits.d/README", "\n"),
            ("etc/default/grub.d/10-other.cfg", "GRUB_TIMEOUT=1\n"),
            ("run/systemd/system/x", ""),
            ("card/combined", "2\n"),
            ("card/rx", "512\n"),
            ("card/tx", "512\n"),
            ("card/adaptive-rx", "on\n"),
            ("card/rx-usecs", "50\n"),
            ("card/large-receive-offload", "on\n"),
            ("card/udp4", "sd\n"),
            ("card/udp6", "sdfn\n"),
            ("card/nft", ""),
            ("card/irqbalance", "active\n"),
        ] {
            tree.write(path, text);
        }
        for cpu in 0..4 {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}");
            tree.write(&format!("{folder}/cpufreq/scaling_governor"), "powersave\n");
            for (state, latency) in [(0, "0\n"), (1, "2\n"), (2, "133\n")] {
                tree.write(&format!("{folder}/cpuidle/state{state}/latency"), latency);
                tree.write(&format!("{folder}/cpuidle/state{state}/disable"), "0\n");
            }
        }
        for (name, script) in [("ethtool", ETHTOOL), ("nft", NFT), ("systemctl", SYSTEMCTL)] {
            let path = format!("bin/{name}");
            tree.write(&path, script);
            fs::set_permissions(tree.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What the machine looks like: every value, without the zeros before a mask of processors, which
    /// are the kernel's way of printing it.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        for folder in ["proc", "sys", "etc", "card"] {
            walk(&self.path(folder), &mut found);
        }
        found
    }

    /// `beast host` on this machine: exit code, output, errors.
    pub(crate) fn host(&self, args: &[&str]) -> (i32, String, String) {
        self.run(Command::new(env!("CARGO_BIN_EXE_beast")).arg("host").args(args))
    }

    pub(crate) fn run(&self, command: &mut Command) -> (i32, String, String) {
        let output = self.prepared(command).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same, with something in the environment.
    pub(crate) fn host_where(&self, (name, value): (&str, &str), args: &[&str]) -> (i32, String, String) {
        self.run(
            Command::new("env")
                .arg(format!("{name}={value}"))
                .arg(env!("CARGO_BIN_EXE_beast"))
                .arg("host")
                .args(args),
        )
    }

    /// `beast host`, ended with all it has started after a while. Whether it had ended by itself.
    pub(crate) fn host_killed_after(&self, args: &[&str], after: Duration) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        self.prepared(command.arg("host").args(args));
        let mut child = command.process_group(0).stdout(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + after;
        while Instant::now() < until {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let group = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        let _ended = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        child.wait().unwrap();
        false
    }

    fn prepared<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        command
            .arg("--root")
            .arg(self.0.path())
            .arg("--state")
            .arg(self.path("state"))
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
    }
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            let mut text = fs::read_to_string(&path).unwrap();
            if path.ends_with("rps_cpus") || path.ends_with("xps_cpus") {
                let digits = text.trim_start_matches(['0', ',']);
                text = if digits.trim().is_empty() { "0\n".into() } else { digits.into() };
            }
            found.insert(path, text);
        }
    }
}
