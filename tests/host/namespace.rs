//! Real cards, queues, settings and firewall rules, in a network and mount namespace of its own.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

/// Makes a pair of cards in a new namespace and runs the program on one of them; each line that begins
/// with `>` is a value, read by the tools that an administrator has.
const SCRIPT: &str = r#"
set -eu
PATH=$PATH:/usr/sbin:/sbin
mount -t sysfs sysfs /sys
ip link add va numrxqueues 4 numtxqueues 4 type veth peer name vb numrxqueues 4 numtxqueues 4
ethtool -L va rx 1 tx 1
ip link set va up
ip link set vb up
stages=accept-queue,nic-queues,coalescing-offloads,rps-xps,conntrack
host() { "$BEAST" host "$@" --as metal --iface va --stage "$stages" --state "$STATE"; }
values() {
  for name in net.core.somaxconn net.ipv4.tcp_max_syn_backlog; do
    echo "$1 $name $(cat "/proc/sys/$(echo $name | tr . /)")"
  done
  ethtool -l va | sed "s/^/$1 channels /"
  ethtool -k va | sed "s/^/$1 feature /"
  for file in /sys/class/net/va/queues/*/*ps_cpus; do echo "$1 $file $(cat "$file" 2>/dev/null || :)"; done
  nft list ruleset | sed "s/^/$1 nft /"
}
# Tracking is at work, and the values differ from what is wanted.
nft 'add table inet other; add chain inet other c { type filter hook input priority 0; }; add rule inet other c ct state established accept'
echo 17 >/proc/sys/net/core/somaxconn
echo 33 >/proc/sys/net/ipv4/tcp_max_syn_backlog
ethtool -K va tx-checksumming off >/dev/null
values before
host apply
values applied
host check --json >/dev/null || echo "still differs"
host undo
values after
"#;

fn values<'a>(out: &'a str, when: &str) -> Vec<&'a str> {
    out.lines().filter_map(|line| line.strip_prefix(when)).filter(|line| line.starts_with(' ')).collect()
}

#[test]
fn a_real_machine_is_as_it_was_after_apply_and_undo() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    // This process's own user owns its folder of /proc.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--net", "--mount", "sh", "-c", SCRIPT])
        .env("BEAST", env!("CARGO_BIN_EXE_beast"))
        .env("STATE", folder.path().join("state"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare of util-linux; check.sh installs what tests need");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "needs root, ip, ethtool and nft; see check.sh\n{out}\n{err}");
    let (before, applied, after) = (values(&out, "before"), values(&out, "applied"), values(&out, "after"));
    assert_eq!(before, after, "{out}");
    for changed in [
        " net.core.somaxconn 4096",
        " net.ipv4.tcp_max_syn_backlog 4096",
        " feature tx-checksumming: on",
        " nft table inet beast_notrack {",
    ] {
        assert!(applied.contains(&changed) && !before.contains(&changed), "{changed}\n{out}\n{err}");
    }
    let queues = std::thread::available_parallelism().unwrap().get().min(4);
    let channels = format!(" channels RX:\t\t{queues}");
    assert!(applied.contains(&&*channels), "{channels}\n{out}\n{err}");
    assert!(applied.iter().any(|line| line.contains("udp dport 2679 notrack")), "{out}");
    assert!(!out.contains("still differs"), "{out}\n{err}");
    assert!(!folder.path().join("state").exists());
}
