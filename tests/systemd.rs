//! The files of `systemd/`: by systemd's own tools, and the program's side of what they ask for.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::wait::PATIENCE;

/// Tenths: what `systemd-analyze security` may find at most.
const EXPOSURE_MAX: u32 = 15;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn tool(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(args)
        .output()
        .expect("systemd-analyze is needed; check.sh installs what tests need");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The units with the program that was built here in place of the one that is installed.
fn units(into: &Path) -> [PathBuf; 2] {
    ["beast.service", "beast-tuning.service"].map(|name| {
        let text = fs::read_to_string(folder().join(name)).unwrap();
        let path = into.join(name);
        fs::write(&path, text.replace("/usr/bin/beast", env!("CARGO_BIN_EXE_beast"))).unwrap();
        path
    })
}

#[test]
fn the_units_are_verified() {
    let temporary = tempfile::tempdir().unwrap();
    let [beast, tuning] = units(temporary.path());
    let (verified, said) = tool(&["verify", "--man=no", beast.to_str().unwrap(), tuning.to_str().unwrap()]);
    assert!(verified && said.is_empty(), "{said}");
    // And it would notice.
    fs::write(&tuning, fs::read_to_string(&tuning).unwrap().replace("Type=oneshot", "Type=twoshot")).unwrap();
    let (_, said) = tool(&["verify", "--man=no", tuning.to_str().unwrap()]);
    assert!(said.contains("twoshot"), "{said}");
}

#[test]
fn the_drop_ins_are_verified_with_the_unit() {
    let temporary = tempfile::tempdir().unwrap();
    let [beast, _] = units(temporary.path());
    let drop_ins = temporary.path().join("beast.service.d");
    fs::create_dir(&drop_ins).unwrap();
    for file in fs::read_dir(folder().join("drop-ins")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), drop_ins.join(file.file_name())).unwrap();
    }
    let (verified, said) = tool(&["verify", "--man=no", beast.to_str().unwrap()]);
    assert!(verified && said.is_empty(), "{said}");
    // Answers in the kernel get what the program asks for, and the calls of the unit stay allowed.
    let xdp = fs::read_to_string(drop_ins.join("xdp.conf")).unwrap();
    for line in [
        "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        "PrivateUsers=no",
        "SystemCallFilter=bpf",
        "RestrictAddressFamilies=AF_NETLINK",
        "ReadWritePaths=/sys/fs/bpf",
    ] {
        assert!(xdp.lines().any(|told| told == line), "{line}: {xdp}");
    }
}

#[test]
fn the_unit_is_exposed_to_little() {
    let unit = folder().join("beast.service");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let (held, said) = tool(&["security", "--offline=yes", &threshold, unit.to_str().unwrap()]);
    assert!(held, "{said}");
}

/// The calls that a set of systemd's lets through.
fn calls(set: &str) -> Vec<String> {
    let (found, text) = tool(&["syscall-filter", "--no-pager", set]);
    assert!(found, "{text}");
    let names = text.lines().filter_map(|line| line.strip_prefix("    "));
    let mut all = Vec::new();
    for name in names.filter(|name| !name.starts_with('#')) {
        match name.strip_prefix('@') {
            Some(_) => all.extend(calls(name)),
            None => all.push(name.to_owned()),
        }
    }
    all
}

#[test]
fn the_filter_of_calls_allows_io_uring_and_refuses_what_is_not_needed() {
    let unit = fs::read_to_string(folder().join("beast.service")).unwrap();
    let mut allowed: Vec<String> = Vec::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (refuse, words) = line.strip_prefix('~').map_or((false, line), |rest| (true, rest));
        for word in words.split(' ') {
            let named = if word.starts_with('@') { calls(word) } else { vec![word.to_owned()] };
            if refuse {
                allowed.retain(|call| !named.contains(call));
            } else {
                allowed.extend(named);
            }
        }
    }
    for call in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "sched_setaffinity",
        "prlimit64",
        "setpriority",
        "sendmmsg",
    ] {
        assert!(allowed.iter().any(|allowed| allowed == call), "{call} is refused");
    }
    for call in ["bpf", "ptrace", "mount", "setuid", "init_module", "reboot", "kexec_load"] {
        assert!(allowed.iter().all(|allowed| allowed != call), "{call} is allowed");
    }
}

#[test]
fn sysusers_and_tmpfiles_make_what_the_unit_names() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let run = |program: &str, file: &str| {
        let output = Command::new(program)
            .arg(format!("--root={}", root.path().display()))
            .args(if program == "systemd-tmpfiles" { &["--create"][..] } else { &[] })
            .arg(folder().join(file))
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; check.sh installs what tests need"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("systemd-sysusers", "sysusers.conf");
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.contains("beast:x:") && users.contains(":/var/lib/beast:/usr/sbin/nologin"), "{users}");
    run("systemd-tmpfiles", "tmpfiles.conf");
    assert!(root.path().join("etc/beast/credentials").is_dir());
    let unit = fs::read_to_string(folder().join("beast.service")).unwrap();
    assert!(unit.contains("\nUser=beast\n") && unit.contains("\nGroup=beast\n"));
}

#[test]
fn the_manager_hears_that_it_is_ready_that_it_lives_and_that_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |wanted: &str| {
        // Signs of life come in between.
        for _ in 0..10_000 {
            let mut bytes = [0; 512];
            let len = manager.recv(&mut bytes).unwrap_or_else(|e| panic!("{wanted} was not told: {e}"));
            if String::from_utf8_lossy(&bytes[..len]).lines().any(|line| line == wanted) {
                return;
            }
        }
        panic!("{wanted} was not told");
    };
    let ports =
        ["udp_port", "http_port", "health_port", "report_health_port", "report_port", "report_udp_port"]
            .map(|p| format!("--set={p}=0"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_beast"))
        .args(["serve", "--sim", "--data"])
        .arg(folder.path().join("data"))
        .args(ports)
        .env_clear()
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "900000")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    let process = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    hear("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

/// The instance key handed over as a credential is used and none is made in the data folder; without
/// it the same data cannot be opened.
#[test]
fn the_instance_key_may_come_as_a_credential() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let key = credentials.join("instance.key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let add = |credentials: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command.args(["keys", "add", "--account", "x", "--tier", "partner", "--data"]);
        command.arg(folder.path().join("data")).env_clear().stdin(Stdio::null());
        if let Some(credentials) = credentials {
            command.env("CREDENTIALS_DIRECTORY", credentials);
        }
        command.output().unwrap()
    };
    let made = add(Some(&credentials));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(!folder.path().join("data/instance.key").exists());
    let refused = add(None);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("instance.key"));
    assert!(add(Some(&credentials)).status.success());
}
