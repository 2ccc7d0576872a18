//! `beast host` and `tuning/tune.sh`: on a tree of a machine made up here, and on real cards and
//! settings in a network namespace of its own.

#[path = "host/namespace.rs"]
mod namespace;
#[path = "host/tree.rs"]
mod tree;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tree::Tree;

fn findings(out: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"));
    json["findings"].as_array().unwrap().clone()
}

fn count(findings: &[Value], status: &str) -> usize {
    findings.iter().filter(|finding| finding["status"] == status).count()
}

#[test]
fn apply_then_undo_leaves_every_value_as_it_was() {
    let tree = Tree::metal();
    let before = tree.contents();
    let (exit, out, _) = tree.host(&["check", "--json"]);
    let differing = count(&findings(&out), "differs");
    assert_eq!(exit, 1);
    assert!(differing > 20, "{differing}: {out}");

    let (exit, out, err) = tree.host(&["apply", "--json"]);
    assert_eq!((exit, err.as_str()), (0, ""), "{out}");
    let applied = findings(&out);
    // What a boot decides and what this process may lock is not in our hands.
    let by_hand = count(&applied, "differs");
    assert_eq!(count(&applied, "applied"), differing - by_hand, "{out}");
    assert_ne!(tree.contents(), before);
    let boot = tree.read("etc/default/grub.d/60-beast.cfg");
    assert!(boot.contains(" isolcpus=managed_irq,1,2,3 nohz_full=1,2,3 rcu_nocbs=1,2,3\""), "{boot}");
    assert!(!boot.contains("domain"), "shards must be able to take these processors: {boot}");
    assert_eq!(tree.read("proc/irq/62/smp_affinity_list"), "1\n");
    assert_eq!(tree.read("sys/class/net/eth7/queues/tx-1/xps_cpus"), "a\n");

    let (_, out, _) = tree.host(&["check", "--json"]);
    assert_eq!(count(&findings(&out), "differs"), by_hand, "{out}");

    let (exit, out, _) = tree.host(&["undo"]);
    assert_eq!(exit, 0, "{out}");
    assert!(out.ends_with("nothing left to undo\n"), "{out}");
    assert_eq!(tree.contents(), before);
    assert_eq!(tree.host(&["undo"]).0, 0, "undone twice is undone");
}

#[test]
fn a_second_apply_does_not_take_our_own_values_for_what_was_there() {
    let tree = Tree::metal();
    let before = tree.contents();
    assert_eq!(tree.host(&["apply"]).0, 0);
    // Somebody changes a value back in between: it is applied again, and undone to the first.
    tree.write("proc/sys/net/core/rmem_max", "5000\n");
    assert_eq!(tree.host(&["apply"]).0, 0);
    assert_eq!(tree.read("proc/sys/net/core/rmem_max"), "33554432\n");
    assert_eq!(tree.host(&["undo"]).0, 0);
    assert_eq!(tree.contents(), before);
}

/// Ended by SIGKILL at ever later moments, in apply and then in undo.
#[test]
fn undo_puts_back_what_was_there_also_after_a_crash_half_way() {
    let (mut half, mut whole) = (0, 0);
    for round in 0..12 {
        let tree = Tree::metal();
        let before = tree.contents();
        let ended = tree.host_killed_after(&["apply"], Duration::from_millis(50 * round));
        if ended {
            whole += 1;
        } else if tree.contents() != before {
            half += 1;
        }
        if round % 2 == 0 {
            // Whether undo is killed too or not.
            tree.host_killed_after(&["undo"], Duration::from_millis(15 * round));
        } else {
            assert_eq!(tree.host(&["apply"]).0, 0);
        }
        let (exit, out, err) = tree.host(&["undo"]);
        assert_eq!(exit, 0, "round {round}: {out}{err}");
        assert_eq!(tree.contents(), before, "round {round}");
    }
    assert!(half > 0, "no round ended apply half-way: {whole} were whole");
}

#[test]
fn a_half_written_line_and_those_of_an_earlier_boot_are_not_undone() {
    let tree = Tree::metal();
    assert_eq!(tree.host(&["apply", "--stage", "socket-buffers,limits"]).0, 0);
    tree.write("proc/sys/kernel/random/boot_id", "another-boot\n");
    let now = tree.read("proc/sys/net/core/rmem_max");
    let mut state = tree.read("state");
    state.push_str("sysctl\tnet.core.wmem_max\t1");
    tree.write("state", &state);
    let (exit, out, _) = tree.host(&["undo"]);
    assert_eq!(exit, 0, "{out}");
    // A boot has undone what is in memory; a file that was written is still there to be removed.
    assert_eq!(tree.read("proc/sys/net/core/rmem_max"), now);
    assert!(!tree.path("etc/security/limits.d/60-beast.conf").exists());
}

#[test]
fn what_cannot_be_put_back_is_said_and_kept_for_another_try() {
    let tree = Tree::metal();
    let before = tree.contents();
    assert_eq!(tree.host(&["apply", "--stage", "cpu-frequency"]).0, 0);
    let governor = tree.path("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor");
    let aside = tree.path("aside");
    std::fs::rename(&governor, &aside).unwrap();
    std::fs::create_dir(&governor).unwrap();
    let (exit, out, _) = tree.host(&["undo"]);
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("1 could not be and stay in"), "{out}");
    std::fs::remove_dir(&governor).unwrap();
    std::fs::rename(&aside, &governor).unwrap();
    assert_eq!(tree.host(&["undo"]).0, 0);
    assert_eq!(tree.contents(), before);
}

#[test]
fn a_finding_says_what_was_found_what_is_needed_and_the_command() {
    let tree = Tree::metal();
    let (exit, out, _) = tree.host(&["check", "--stage", "socket-buffers"]);
    assert_eq!(exit, 1);
    assert!(
        out.contains(
            "differs  net.core.rmem_max is 212992, needs at least 33554432\n           \
             cure: sysctl -w net.core.rmem_max=33554432\n"
        ),
        "{out}"
    );
    let (exit, _, err) = tree.host(&["check", "--stage", "sokets"]);
    assert_eq!((exit, err.lines().next()), (2, Some("error: there is no stage sokets")));
}

#[test]
fn a_container_is_told_from_a_machine_and_sent_to_the_host() {
    let tree = Tree::metal();
    assert!(tree.host(&["check"]).1.starts_with("machine  metal ("));
    tree.write("proc/cpuinfo", "flags\t\t: fpu hypervisor lahf_lm\n");
    assert!(tree.host(&["check"]).1.starts_with("machine  vm ("));
    tree.write("run/.containerenv", "");
    let (_, out, _) = tree.host(&["check"]);
    assert!(out.starts_with("machine  container ("), "{out}");
    assert!(out.contains("cure: start the container with --sysctl net.core.somaxconn=4096"), "{out}");
    assert!(out.contains("cure: on the host, as root: sysctl -w net.core.rmem_max=33554432"), "{out}");
    assert!(out.contains("skipped  this is a container, and the stage is for: metal"), "{out}");
    let (_, out, _) = tree.host(&["check", "--as", "fargate"]);
    assert!(
        out.contains(
            "cure: systemControls of the task definition: {\"namespace\": \"net.core.somaxconn\", \"value\": \"4096\"}"
        ),
        "{out}"
    );
}

#[test]
fn a_machine_that_only_its_firmware_or_its_environment_tells_of_is_known() {
    let tree = Tree::metal();
    tree.write("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
    tree.write("sys/class/dmi/id/product_name", "m7g.large\n");
    assert!(tree.host(&["check"]).1.starts_with("machine  vm (the firmware"));
    tree.write("sys/class/dmi/id/product_name", "m7g.metal\n");
    assert!(tree.host(&["check"]).1.starts_with("machine  metal ("), "one that is rented whole");
    let (_, out, _) = tree.host_where(("KUBERNETES_SERVICE_HOST", "10.0.0.1"), &["check"]);
    assert!(out.starts_with("machine  container (the environment names Kubernetes)"), "{out}");
}

#[test]
fn what_is_hidden_is_missing_and_neither_in_order_nor_wrong() {
    let tree = Tree::metal();
    for hidden in ["proc/sys", "proc/cmdline"] {
        std::fs::rename(tree.path(hidden), tree.path("hidden")).unwrap();
        let (_, out, _) = tree.host(&["check", "--stage", "conntrack,isolated-cores", "--json"]);
        let item = if hidden == "proc/sys" { "connection tracking" } else { "the kernel command line" };
        let found = findings(&out);
        let status: Vec<_> = found.iter().filter(|finding| finding["item"] == item).collect();
        assert_eq!(status.len(), 1, "{out}");
        assert_eq!(status[0]["status"], "missing", "{out}");
        std::fs::rename(tree.path("hidden"), tree.path(hidden)).unwrap();
    }
}

#[test]
fn the_script_alone_says_the_same_as_the_program() {
    let tree = Tree::metal();
    for action in ["check", "plan", "list"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/tune.sh");
        let alone = tree.run(Command::new(script).arg(action));
        assert_eq!(alone, tree.host(&[action]), "{action}");
        let (_, json, _) = tree.host(&[action, "--json"]);
        assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    }
}

/// What the plan advises, by name.
fn plan(tree: &Tree, name: &str) -> (String, String) {
    let (exit, out, err) = tree.host(&["plan", "--json"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&out).unwrap();
    let advice = json["plan"].as_array().unwrap().iter().find(|advice| advice["name"] == name);
    let text = |member: &str| advice.map(|a| a[member].as_str().unwrap().to_owned()).unwrap_or_default();
    (text("value"), text("why"))
}

#[test]
fn the_plan_respects_processors_control_groups_memory_and_nodes() {
    let tree = Tree::metal();
    assert_eq!(plan(&tree, "shards").0, "3", "four processors, one of them for feeds");
    assert_eq!(plan(&tree, "feed-core").0, "3");
    assert_eq!(plan(&tree, "spin_us").0, "50");
    assert_eq!(plan(&tree, "socket_buffer_bytes").0, "33554432");

    // The card is on the second of two nodes.
    tree.write("sys/devices/system/node/node0/cpulist", "0-1\n");
    tree.write("sys/devices/system/node/node1/cpulist", "2-3\n");
    tree.write("sys/class/net/eth7/device/numa_node", "1\n");
    assert_eq!(plan(&tree, "shards").0, "2");
    assert_eq!(plan(&tree, "CPUAffinity").0, "2,3");

    // A group higher up pays for less than the group we are in.
    tree.write("proc/self/cgroup", "0::/shop/beast\n");
    tree.write("sys/fs/cgroup/shop/beast/cpu.max", "max 100000\n");
    tree.write("sys/fs/cgroup/shop/cpu.max", "250000 100000\n");
    tree.write("sys/fs/cgroup/shop/beast/memory.max", "268435456\n");
    let (shards, why) = plan(&tree, "shards");
    assert_eq!((shards.as_str(), why.as_str()), ("2", "its control group pays for 2 of 4 processors"));
    assert_eq!(plan(&tree, "pin").0, "false");
    assert_eq!(plan(&tree, "spin_us").0, "0");
    let (bytes, why) = plan(&tree, "socket_buffer_bytes");
    assert_eq!(bytes, "4194304", "2 shards, two addresses, two directions, 32 MiB in all");
    assert!(why.contains("its control group (268435456 bytes)"), "{why}");
}

#[test]
fn the_flags_that_the_plan_proposes_are_taken() {
    let (_, out, _) = Tree::metal().host(&["plan"]);
    let flags = out.lines().find_map(|line| line.strip_prefix("as flags: beast serve ")).unwrap();
    let result = Command::new(env!("CARGO_BIN_EXE_beast"))
        .args(["config", "print"])
        .args(flags.split(' '))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}
