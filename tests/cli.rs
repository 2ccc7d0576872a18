//! The program as an operator meets it: arguments, environment, exit codes, messages.

use std::process::{Command, Output, Stdio};

/// Runs the program in an empty folder with nothing of ours in its environment.
fn beast(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(folder.path()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "reading arguments left files behind");
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_configuration_is_shown_with_its_origins() {
    let (exit, out, err) = beast(&["config", "print", "--sim"], &[("BEAST_UDP_PORT", "5")]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains("udp_port = 5 ") && out.contains("# env BEAST_UDP_PORT"), "{out}");
    assert!(
        out.lines().any(|line| line.starts_with("sim = true") && line.ends_with("# flag --sim")),
        "{out}"
    );
    let (_, json, _) = beast(&["config", "print", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["settings"][0]["key"], "data_dir");
}

#[test]
fn the_default_file_can_be_used_as_it_is() {
    let (exit, text, _) = beast(&["config", "print", "--default"], &[]);
    assert_eq!(exit, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let (exit, out, err) = beast(&["config", "print"], &[("BEAST_CONFIG", path)]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains(&format!("# {path}:")), "{out}");
}

#[test]
fn what_is_wrong_is_said_at_once_with_its_cure() {
    let (exit, out, err) =
        beast(&["config", "print", "--udp-port", "70000", "--set", "drain=1"], &[("BEAST_LISTN", "::")]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert_eq!(
        err,
        "error: BEAST_LISTN is set in the environment, but there is no such setting\n  \
         what to do: unset it; the nearest one is BEAST_LISTEN, and `beast config print` lists all\n\
         error: --set drain: there is no setting drain\n  \
         what to do: the nearest one is drain_s; `beast config print --default` describes all\n\
         error: --udp-port is \"70000\", needs a port, 0 to 65535\n  \
         what to do: correct --udp-port, or leave it out; the default is 2679\n"
    );
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    assert_eq!(beast(&[], &[]).0, 2);
    assert_eq!(beast(&["conifg"], &[]).0, 2);
    assert_eq!(beast(&["config", "print", "--nonsense"], &[]).0, 2);
    assert_eq!(beast(&["--help"], &[]).0, 0);
    let (exit, out, _) = beast(&["--version"], &[]);
    assert_eq!((exit, out), (0, format!("beast {}\n", env!("CARGO_PKG_VERSION"))));
}

/// A running `beast serve` with free ports, ended when dropped.
struct Served {
    child: std::process::Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Served {
    fn start(data: &std::path::Path) -> Self {
        use std::io::BufRead as _;
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        let ports =
            ["report_health_port=0", "report_port=0", "report_udp_port=0", "udp_port=0", "http_port=0"]
                .map(|port| format!("--set={port}"));
        command.args(["serve", "--sim", "--health-port=0", "--data"]).arg(data).args(ports);
        let mut child = command.env_clear().stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, said) = std::sync::mpsc::channel();
        // Reads to the end, so that the process is never held up by a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        Self { child, said }
    }

    /// The next line with `text` in it.
    fn line_with(&self, text: &str) -> String {
        let patience = std::time::Duration::from_secs(60);
        loop {
            let line = self.said.recv_timeout(patience).unwrap_or_else(|_| panic!("{text:?} is not said"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn health(&self) -> std::net::SocketAddr {
        let line = self.line_with("; health ");
        let (_, addresses) = line.split_once("; health ").unwrap();
        addresses.split([',', ';']).next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let process = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(process, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_served_process_is_live_and_leaves_when_told() {
    use std::io::{Read as _, Write as _};
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let data = tempfile::tempdir().unwrap();
        let mut served = Served::start(data.path());
        let mut stream = std::net::TcpStream::connect(served.health()).unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        served.signal(signal);
        assert_eq!(served.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_start_tells_how_the_machine_is_set() {
    let data = tempfile::tempdir().unwrap();
    let told = Served::start(data.path()).line_with("host     ");
    assert!(told.contains(" settings "), "{told}");
}
