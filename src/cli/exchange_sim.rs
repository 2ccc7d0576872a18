//! `beast exchange-sim`: the exchanges on loopback, and a prompt to make them misbehave.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use beast::exchange_sim::{Control, Exchange, Replay, Sim, SimError, SimOptions, Speed};
use beast::feed::data::{self, Overrides};
use clap::Args;

use super::{Failure, Outcome, print};

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct ExchangeSimArgs {
    /// Address for WebSocket and REST; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Address for the same over TLS, with a self-signed certificate
    #[arg(long, value_name = "ADDRESS:PORT")]
    tls_listen: Option<SocketAddr>,

    /// Where that certificate is written, for clients to trust
    #[arg(long, value_name = "FILE", default_value = "exchange-sim.pem")]
    tls_certificate: PathBuf,

    /// Synthetic trades a second, for each exchange
    #[arg(long, value_name = "TRADES", default_value_t = 50)]
    rate: u32,

    /// Number from which every synthetic price follows
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Recording to send in place of synthetic trades, <exchange>.<anything>.jsonl.gz; can be repeated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    replay: Vec<PathBuf>,

    /// Speed of recordings: times as fast as they were recorded, or max
    #[arg(long, value_name = "TIMES", default_value = "1")]
    speed: Speed,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) fn run(args: &ExchangeSimArgs) -> Outcome {
    let replays = args.replay.iter().map(|path| Replay::load(path)).collect::<Result<Vec<_>, _>>();
    let replays = replays.map_err(|error| failure(&error))?;
    let replayed = replays.iter().map(Replay::exchange).collect::<Vec<_>>();
    let options = SimOptions {
        listen: args.listen,
        tls_listen: args.tls_listen,
        rate: args.rate,
        seed: args.seed,
        replays,
        speed: args.speed,
        ..SimOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::runtime(format!("no runtime: {error}"), "see the limits of open files and threads")
    })?;
    let sim = Sim::start_on(runtime.handle(), options).map_err(|error| failure(&error))?;
    if let Some(pem) = sim.certificate_pem() {
        fs::write(&args.tls_certificate, pem).map_err(|error| {
            Failure::runtime(
                format!("{} cannot be written: {error}", args.tls_certificate.display()),
                "give another path with --tls-certificate",
            )
        })?;
    }
    print(&greeting(&sim, args, &replayed))?;
    let control = sim.control();
    // Standard input may end while the exchanges go on; a read that never returns dies with the process.
    std::thread::spawn(move || prompt(&control));
    runtime.block_on(leave())?;
    Ok(())
}

fn failure(error: &SimError) -> Failure {
    let cure = match error {
        SimError::Bind(..) => "choose a free address with --listen or --tls-listen; port 0 takes any",
        SimError::Replay { .. } => "name a recording whose file name begins with the exchange's name",
        SimError::Start(_) | SimError::Certificate(_) | SimError::UnknownSymbol(..) => {
            "see the limits of open files and threads"
        }
    };
    Failure::runtime(error.to_string(), cure)
}

/// Addresses, and the configuration that points beast at them.
fn greeting(sim: &Sim, args: &ExchangeSimArgs, replayed: &[Exchange]) -> String {
    let mut text = format!("# exchange simulator on {}\n", sim.addr());
    if let Some(addr) = sim.tls_addr() {
        let path = args.tls_certificate.display();
        let _ = writeln!(text, "# the same over TLS on {addr} (wss, https), certificate in {path}");
    }
    let _ = writeln!(text, "# configuration that points beast here:");
    for exchange in Exchange::ALL {
        if Exchange::CURRENT.contains(&exchange) || replayed.contains(&exchange) {
            let _ = write!(text, "\n[feeds.{exchange}]\nurl = \"{}\"\n", sim.ws_url(exchange));
            if with_rest(exchange) {
                let _ = writeln!(text, "rest_base = \"{}\"", sim.rest_base(exchange));
            }
            if !Exchange::CURRENT.contains(&exchange) {
                let _ = writeln!(text, "enabled = true");
            }
        }
    }
    text.push_str("\n# type `help` for commands, such as `cut okx` or `stall bybit on`\n");
    text
}

/// Whether beast asks this exchange by REST at all.
fn with_rest(exchange: Exchange) -> bool {
    let rows = data::load(&Overrides::default()).map(|data| data.rows).unwrap_or_default();
    rows.iter().any(|row| row.name == exchange.to_string() && row.rest.is_some())
}

/// Carries out what is typed, line by line, until the input ends.
fn prompt(control: &Control) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = match control.command(&line) {
            Ok(answer) => answer,
            Err(message) => format!("error: {message}"),
        };
        if !answer.is_empty() && writeln!(io::stdout(), "{answer}").is_err() {
            return;
        }
    }
}

async fn leave() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: io::Error| {
        Failure::runtime(format!("signals cannot be caught: {error}"), "see the limit of open files")
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_configuration_for_beast() {
        let sim = Sim::start(SimOptions::default()).unwrap();
        let args = ExchangeSimArgs {
            listen: sim.addr(),
            tls_listen: None,
            tls_certificate: PathBuf::new(),
            rate: 1,
            seed: 1,
            replay: Vec::new(),
            speed: Speed::RECORDED,
        };
        let text = greeting(&sim, &args, &[Exchange::KrakenV1]);
        let table: toml::Table = text.parse().unwrap();
        let feeds = table["feeds"].as_table().unwrap();
        assert_eq!(feeds.len(), 8);
        assert_eq!(feeds["okx"]["url"].as_str().unwrap(), format!("ws://{}/ws/okx", sim.addr()));
        assert_eq!(feeds["kraken_v1"]["enabled"].as_bool(), Some(true));
    }
}
