//! nginx with a fixed answer: one process on one processor, no logs.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::child::{Server, free_port};

/// A running nginx with its folder.
pub struct Nginx {
    /// The process.
    pub server: Server,
    _folder: TempDir,
}

/// Whether there is an nginx to be started.
pub fn is_there() -> bool {
    Command::new("nginx").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Starts it with an answer whose body is `body`, which holds no `'` and no `$`.
///
/// # Errors
/// When it cannot be started or does not listen within ten seconds.
pub fn start(body: &str, cpu: Option<usize>) -> io::Result<Nginx> {
    let folder = tempfile::tempdir()?;
    let (path, port) = (folder.path().to_string_lossy().into_owned(), free_port()?);
    let config = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile 8192;\n\
         pid {path}/pid;\nerror_log {path}/error.log crit;\n\
         events {{ worker_connections 4096; multi_accept on; }}\n\
         http {{\n  access_log off;\n  server_tokens off;\n  keepalive_requests 1000000000;\n\
         keepalive_timeout 300s;\n  tcp_nodelay on;\n  default_type application/json;\n\
         client_body_temp_path {path}/body;\n  proxy_temp_path {path}/proxy;\n\
         fastcgi_temp_path {path}/fastcgi;\n  uwsgi_temp_path {path}/uwsgi;\n  scgi_temp_path {path}/scgi;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{body}'; }} }}\n}}\n"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config)?;
    let http = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("early.log"));
    command.stderr(Stdio::null());
    let mut server = Server::command(&mut command, cpu, http, Some(http))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(http).is_err() {
        server.alive().map_err(|e| {
            let said = fs::read_to_string(folder.path().join("early.log")).unwrap_or_default();
            io::Error::other(format!("nginx: {e}: {said}"))
        })?;
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("nginx does not listen on {http} after 10 s")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Nginx { server, _folder: folder })
}
