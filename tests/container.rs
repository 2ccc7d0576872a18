//! The program as a container runs it: calls refused as by the default seccomp profile, nobody as its user,
//! a root that cannot be written, no more locked memory than usual. And the files that describe it.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use beast::sys::seccomp::refuse_calls;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::wait::{PATIENCE, until};

/// What the default profile of container runtimes refuses to a process without capabilities, among it all of
/// io_uring.
const REFUSED: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_kcmp,
    libc::SYS_personality,
];

/// Nobody in particular: the user of the Dockerfile.
const USER: u32 = 65_532;

/// Docker's default: 8 MiB of locked memory since its containers follow systemd's default.
const MEMLOCK: u64 = 8 << 20;

/// Runs a shell command as a container would, on a thread whose mounts, limits and calls are its own.
fn contained(script: &str, data: &Path) -> Command {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
    let mounts = "mount --make-rprivate / && mount --bind \"$DATA\" \"$DATA\" && mount -o remount,bind,ro /";
    let mounted = Command::new("sh").args(["-c", mounts]).env("DATA", data).status().unwrap();
    assert!(mounted.success());
    refuse_calls(REFUSED).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            &USER.to_string(),
            "--regid",
            &USER.to_string(),
            "--clear-groups",
            "--no-new-privs",
        ])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
        .args(["prlimit", &format!("--memlock={MEMLOCK}:{MEMLOCK}"), "--", "sh", "-c", script])
        .env("BEAST", env!("CARGO_BIN_EXE_beast"))
        .env("BEAST_DATA_DIR", data.join("data"))
        .env_remove("BEAST_RECORDINGS")
        .stdin(Stdio::null());
    command
}

/// A process by its number, ended when the test is over.
struct Running(u32);

impl Running {
    fn signal(&self, signal: Signal) {
        let _gone = kill(Pid::from_raw(self.0.try_into().unwrap()), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

#[test]
fn a_container_answers_by_the_portable_engine_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let (tell, told) = channel();
    let path = data.clone();
    let thread = std::thread::spawn(move || {
        let script = "touch /written 2>/dev/null && echo 'the root can be written' >&2; \
                      exec \"$BEAST\" serve --sim --listen 127.0.0.1 --udp-port 0 --http-port 0 \
                      --health-port 0 --set report_health_port=0 --set report_port=0 --set report_udp_port=0";
        let mut child =
            contained(script, &path).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        tell.send(Err(child.id())).unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines.map_while(Result::ok).for_each(|line| drop(tell.send(Ok(line))));
        child.wait().unwrap()
    });
    let process = Running(told.recv_timeout(PATIENCE).unwrap().unwrap_err());
    let mut log = Vec::new();
    while log.last().is_none_or(|line: &String| !line.starts_with("ready ")) {
        match told.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => log.push(line),
            other => panic!("{other:?} after {log:#?}"),
        }
    }
    assert!(log[0].starts_with("engine   portable: "), "{log:#?}");
    assert!(log[0].contains("refused by a seccomp profile"), "{log:#?}");
    let has = |text: &str| log.iter().any(|line| line.contains(text));
    assert!(!has("the root can be written"), "{log:#?}");
    assert!(has("feeds    ") && has("assets   "), "ready without prices: {log:#?}");

    // The health check of the image, and a price, from outside.
    let port = |name: &str| {
        let line = log.iter().find(|line| line.starts_with("listen ")).unwrap();
        line.split_once(name)
            .unwrap()
            .1
            .split([',', ';'])
            .next()
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned()
    };
    until("it is ready", || {
        let health = Command::new(env!("CARGO_BIN_EXE_beast"))
            .args(["health", "--ready", "--listen", "127.0.0.1", "--health-port", &port("health ")])
            .env_clear()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
        if health.status.success() && said.contains("\"ready\":true") { Ok(()) } else { Err(said) }
    });
    let key = fs::read_to_string(data.join("data/first-key")).unwrap();
    let at = format!("127.0.0.1:{}", port("HTTP ")).parse().unwrap();
    let header = format!("X-API-Key: {}\r\n", key.trim());
    until("a price", || match support::feeds::get(at, "/price?asset=BTC", &header) {
        Ok((200, body)) if body.contains("\"asset\":\"BTC\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(fs::metadata(data.join("data")).unwrap().uid(), USER);

    process.signal(Signal::SIGTERM);
    assert!(thread.join().unwrap().success());
    // Its number is free for others now.
    std::mem::forget(process);
}

#[test]
fn health_says_what_is_wrong_where_nobody_answers() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let health = Command::new(env!("CARGO_BIN_EXE_beast"))
        .args(["health", "--health-port", &free])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(health.status.code(), Some(1));
    let said = String::from_utf8_lossy(&health.stderr);
    assert!(
        said.contains("/live does not answer") && said.contains("what to do: see whether beast serve runs"),
        "{said}"
    );
}

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_image_runs_as_nobody_with_a_health_check() {
    let text = file("Dockerfile").replace("\\\n", " ");
    let stages: Vec<&str> = text.split("\nFROM ").collect();
    let last = stages.last().unwrap();
    assert!(stages.len() == 3 && !last.contains("cargo"), "two stages, and the last one builds nothing");
    let instruction = |name: &str| last.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert_eq!(instruction("USER "), format!("{USER}:{USER}"));
    assert!(instruction("HEALTHCHECK ").ends_with(r#"CMD ["/usr/bin/beast", "health"]"#));
    assert_eq!(instruction("ENTRYPOINT "), r#"["/usr/bin/beast"]"#);
    // Every file that is compiled in is sent to the builder.
    let sent = file(".dockerignore");
    for folder in ["src", "bench", "tuning", "Cargo.lock"] {
        assert!(sent.lines().any(|line| line == format!("!{folder}")), "{folder}");
    }
}

#[test]
fn the_task_definition_describes_the_same_container() {
    let task: Value = serde_json::from_str(&file("fargate-task.json")).unwrap();
    let container = &task["containerDefinitions"][0];
    assert_eq!(task["requiresCompatibilities"][0], "FARGATE");
    assert_eq!(container["user"], format!("{USER}:{USER}"));
    assert_eq!(container["readonlyRootFilesystem"], true);
    assert_eq!(container["healthCheck"]["command"][1], "/usr/bin/beast");
    assert_eq!(container["mountPoints"][0]["containerPath"], "/data");
    // The usual execution role may write to a group of logs and not make one.
    let logs = &container["logConfiguration"]["options"];
    assert!(logs["awslogs-create-group"].is_null(), "{logs}");
    let make =
        format!("aws logs create-log-group --log-group-name {}", logs["awslogs-group"].as_str().unwrap());
    assert!(file("README.md").contains(&make), "README.md does not say: {make}");
}
