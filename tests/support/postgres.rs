//! A PostgreSQL server of the tests' own: data in a temporary folder, a socket in it and no port.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whom the server runs as: it refuses to be root.
const NOBODY: u32 = 65_534;

/// Makes the data, starts the server, says so, and ends it when whoever holds our standard input is
/// gone: then nothing is left behind even by a test that is killed.
const KEEPER: &str = r#"
set -e
"$2/initdb" -D "$1/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >"$1/initdb.log" 2>&1
cat >>"$1/data/postgresql.conf" <<SETTINGS
listen_addresses = ''
unix_socket_directories = '$1'
fsync = off
shared_buffers = 16MB
max_connections = 60
SETTINGS
"$2/pg_ctl" -D "$1/data" -w -l "$1/server.log" start >/dev/null
echo ready
cat >/dev/null || true
"$2/pg_ctl" -D "$1/data" -m immediate stop >/dev/null 2>&1 || true
rm -rf "$1"
"#;

/// A running server; ends with this.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    keeper: Child,
    stdin: Option<ChildStdin>,
    databases: AtomicU32,
}

/// The server that the tests of this process share. `None` where PostgreSQL is not installed, which
/// is a failure with `CI=true`.
pub fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

impl Server {
    /// Starts a server; as [`shared`] where there is none to start.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let cure = "install it (apt-get install postgresql), or run check.sh, which does";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no PostgreSQL; {cure}");
            eprintln!("skipped: there is no PostgreSQL; {cure}");
            return None;
        };
        let folder = tempfile::tempdir().unwrap().keep();
        let mut keeper = Command::new("sh");
        if nix::unistd::geteuid().is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
            keeper.uid(NOBODY).gid(NOBODY);
        }
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).arg(&programs).current_dir("/");
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = keeper.stdin.take();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "PostgreSQL did not start; see {}", folder.display());
        Some(Self { folder, programs, keeper, stdin, databases: AtomicU32::new(0) })
    }

    /// The URL of a new, empty database.
    pub fn new_database(&self) -> String {
        let name = format!("beast_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.programs.join("createdb"))
            .args(["-U", "postgres", "-h"])
            .args([&self.folder, Path::new(&name)])
            .status();
        assert!(made.unwrap().success());
        format!("postgres://postgres@/{name}?host={}", self.folder.display())
    }

    /// From now on it also listens on a port of loopback, which it returns, for encrypted connections only,
    /// with this certificate and its key as PEM.
    pub fn listen_encrypted(&self, certificate: &str, key: &str) -> u16 {
        use std::fs;
        use std::os::unix::fs::PermissionsExt as _;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
        let data = self.folder.join("data");
        for (file, text) in [("server.crt", certificate), ("server.key", key)] {
            fs::write(data.join(file), text).unwrap();
            fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o600)).unwrap();
            if nix::unistd::geteuid().is_root() {
                chown(data.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let settings = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        let more = format!("ssl = on\nlisten_addresses = '127.0.0.1'\nport = {port}\n");
        fs::write(data.join("postgresql.conf"), settings + &more).unwrap();
        let who = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), who).unwrap();
        self.stop();
        self.start_again();
        port
    }

    /// Stops the server as a failing machine would: connections break, nothing is finished.
    pub fn stop(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Starts it again on the same data.
    pub fn start_again(&self) {
        self.control(&["start"]);
    }

    fn control(&self, what: &[&str]) {
        let mut control = Command::new(self.programs.join("pg_ctl"));
        if nix::unistd::geteuid().is_root() {
            control.uid(NOBODY).gid(NOBODY);
        }
        let log = self.folder.join("server.log");
        control.arg("-D").arg(self.folder.join("data")).arg("-l").arg(log).arg("-w").args(what);
        let done = control.current_dir("/").stdout(Stdio::null()).status();
        assert!(done.unwrap().success(), "pg_ctl {what:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ended = self.keeper.wait();
    }
}

/// Where initdb and its like lie: Debian keeps them out of the way, by version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
}
