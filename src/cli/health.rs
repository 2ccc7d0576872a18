//! `beast health`: asks a running server how it is, for health checks where there is no other client.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Failure, Outcome, SettingsArgs, listen, print};

/// Arguments of `beast health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Ask whether it is ready for clients, not only whether it lives
    #[arg(long)]
    ready: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most of an answer that is read.
const ANSWER_MAX: u64 = 64 << 10;

/// Carries out `beast health`.
pub(crate) fn run(args: &HealthArgs) -> Outcome {
    let effective = args.settings.load()?;
    let port = effective.config.health_port;
    let ip = listen::addresses(&effective)?.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    if port == 0 {
        return Err(Failure::usage(
            "the health port is 0, so nobody knows which",
            "name it by --health-port",
        )
        .into());
    }
    let address = SocketAddr::new(reachable(ip), port);
    let path = if args.ready { "/ready" } else { "/live" };
    let (status, body) = ask(address, path).map_err(|error| {
        Failure::runtime(
            format!("http://{address}{path} does not answer: {error}"),
            "see whether beast serve runs, and with the same --health-port and --listen",
        )
    })?;
    if status == "200" {
        return Ok(print(&format!("{body}\n"))?);
    }
    let cure = "see the reasons, and the log of the server";
    Err(Failure::runtime(format!("http://{address}{path} answers {status}: {body}"), cure).into())
}

/// An address to reach a server by that listens on all.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Status and body of a GET.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or("nothing that is HTTP");
    Ok((status.to_owned(), body.trim_end().to_owned()))
}
