//! `beast serve`: puts the rooms together and runs them until the process is told to leave.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use beast::admin::{self, Facts};
use beast::config::{Effective, LogLevel};
use beast::time::{Clock as _, RealClock};
use clap::Args;
use tokio::sync::watch;
use tracing::info;
use tracing_subscriber::filter::LevelFilter;

use super::leave::LeaveSignals;
use super::{Failure, Outcome, SettingsArgs, health, listen};

/// Arguments of `beast serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Carries out `beast serve`. Returns once the process may end.
pub(crate) fn run(args: &ServeArgs) -> Outcome {
    let effective = args.settings.load()?;
    start_log(effective.config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system("the back office's runtime cannot be started", &error))?;
    Ok(runtime.block_on(back_office(&effective))?)
}

async fn back_office(effective: &Effective) -> Result<(), Failure> {
    let config = &effective.config;
    let mut signals = LeaveSignals::catch().map_err(|error| system("signals cannot be caught", &error))?;
    let addresses = listen::addresses(effective)?;
    let facts =
        Facts::new(RealClock.now(), env!("CARGO_PKG_VERSION"), Duration::from_secs(config.shard_stall_s));
    let listeners = health::open(config, &addresses)?;
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "health and metrics");
        }
    }
    let (stop, stopped) = watch::channel(false);
    let admin = tokio::spawn(admin::serve(listeners, Arc::clone(&facts), stopped));

    signals.next().await;
    info!("leaving; a second signal ends the process at once");
    facts.leave();
    tokio::spawn(signals.end_at_once());
    // The health ports close last, so that who asks is told "leaving" until the end.
    let _ = stop.send(true);
    match admin.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(system("the health ports failed", &error)),
        Err(error) => Err(system("the health ports failed", &io::Error::other(error))),
    }
}

/// A refusal of the system that no setting explains.
fn system(what: &str, error: &io::Error) -> Failure {
    Failure::runtime(
        format!("{what}: {error}"),
        "see the limits of the process (`ulimit -a`) and of the machine (`dmesg`)",
    )
}

fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Fails only when a log was started before, which is as good.
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(io::stderr().is_terminal());
    let _ = log.with_writer(io::stderr).try_init();
}
