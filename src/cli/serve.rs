//! `beast serve`: start, say what came of it, wait to be told to leave.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::admin::Stage;
use beast::appliance::{Addresses, Appliance, Predecessor, ReportServer, StartError, Successor};
use beast::config::{Config, LogLevel, Role};
use beast::ledger::Recovery;
use beast::store::write_first_key;
use beast::time::{Clock as _, RealClock};
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::leave::{LeaveSignals, Wish};
use super::manager::Manager;
use super::restart::{self, Door, Myself};
use super::{Failure, Outcome, SettingsArgs, host_check, listen};

/// Arguments of `beast serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// How often the start's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long progress is shown before the rest is left to `/ready`.
const SHOW_MAX: Duration = Duration::from_secs(30);

/// Carries out `beast serve`; returns once the process has left its post.
pub(crate) fn run(args: &ServeArgs) -> Outcome {
    let myself = Myself::now();
    let predecessor = Predecessor::of_parent().map_err(|e| {
        Failure::runtime(format!("the old process does not hand over: {e}"), "stop it and start it anew")
    })?;
    let refuse_by = predecessor.as_ref().and_then(|predecessor| predecessor.stream().ok());
    serve(args, &myself, predecessor).inspect_err(|failures| {
        if let (Some(mut stream), Some(failure)) = (refuse_by, failures.first()) {
            Predecessor::refuse(&mut stream, &failure.to_string());
        }
    })
}

fn serve(args: &ServeArgs, myself: &Myself, predecessor: Option<Predecessor>) -> Outcome {
    let heir = predecessor.is_some();
    let effective = args.settings.load()?;
    start_log(effective.config.log);
    let config = Config { listen: listen::addresses(&effective)?, ..effective.config };
    leave_no_half();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::runtime(format!("no runtime: {e}"), "raise the limits of the process"))?;
    // Installed before the start, so that nobody who asks us to leave early is ignored.
    let mut signals = runtime
        .block_on(async { LeaveSignals::catch_with_restart() })
        .map_err(|e| Failure::runtime(format!("signals cannot be caught: {e}"), "see ulimit -a"))?;
    if config.role == Role::ReportServer {
        return run_reports(&config, &runtime, &mut signals);
    }
    let started = Instant::now();
    if config.host_check && !heir {
        host_check::begin(&config, |found| say(&format!("{:<8} {found}", "host")));
    }
    let terminal = io::stderr().is_terminal();
    let mut key_file = None;
    let mut appliance = Appliance::start_after(&config, predecessor, |token| {
        if !terminal {
            key_file = Some(write_first_key(&config.data_dir, token)?);
        }
        Ok(())
    })
    .map_err(|StartError { what, cure }| Failure::runtime(what, cure))?;
    let stage = |name: &str, text: String| say(&format!("{name:<8} {text}"));
    stage("engine", format!("{}: {}", appliance.engine.engine.name(), appliance.engine.why));
    stage("threads", appliance.topology.to_string());
    stage("store", format!("{}, start {}", appliance.store, appliance.epoch));
    if appliance.recovery != Recovery::default() {
        stage("journal", appliance.recovery.to_string());
    }
    stage("listen", listening(&appliance.addresses));
    stage("steering", appliance.steering.to_string());
    if let Some(xdp) = &appliance.xdp {
        stage("xdp", xdp.clone());
    }
    for note in &appliance.notes {
        stage("note", note.clone());
    }
    if heir {
        stage("restart", "waiting for prices before the old process is relieved".to_owned());
        if let Err(StartError { what, cure }) = take_over(&mut appliance, &runtime, &mut signals) {
            let _ended = appliance.leave();
            return Err(Failure::runtime(what, cure).into());
        }
        stage("restart", format!("has taken over after {:.2} s", started.elapsed().as_secs_f64()));
    } else {
        introduce(appliance.first_key.as_ref(), key_file, &config, &appliance);
    }
    // Answers come from now on; an exchange that is down is no failed start.
    let manager = Manager::of_environment();
    manager.tell("READY=1\nSTATUS=answering; /ready tells how many prices are fresh");
    manager.watch(appliance.turning.clone());
    let door = runtime.block_on(async { Door::open(&config.data_dir) });
    if let Err(error) = &door {
        let path = config.data_dir.display();
        stage("note", format!("no control socket in {path}, so only SIGHUP restarts: {error}"));
    }
    let successor = runtime.block_on(async {
        let (mut shown, start) = (false, watch_start(&appliance, started));
        let end = post(&appliance, &mut signals, myself, door.as_ref().ok());
        tokio::pin!(start, end);
        loop {
            tokio::select! {
                () = &mut start, if !shown => shown = true,
                end = &mut end => return end,
            }
        }
    });
    let heir = successor.is_some();
    if let Some(successor) = successor {
        let pid = successor.pid();
        manager.tell(&format!("MAINPID={pid}"));
        successor.release();
        say(&format!(
            "restart  process {pid} has taken over; the connections there are get their last answer"
        ));
        let (handover, most) = (Arc::clone(&appliance.handover), Duration::from_secs(config.drain_s));
        runtime.block_on(async {
            let drained = tokio::task::spawn_blocking(move || handover.drain(most));
            tokio::select! {
                _ = drained => {}
                _ = signals.next() => {}
            }
        });
    } else {
        manager.tell("STOPPING=1\nSTATUS=finishing what is in flight");
        say("leaving  finishing what is in flight; once more to leave at once");
        if let Ok(door) = door {
            door.close();
        }
    }
    let whole = appliance.is_whole();
    let left = std::thread::spawn(move || match heir {
        true => appliance.leave_to_heir(),
        false => appliance.leave(),
    });
    runtime.block_on(async {
        let done = async {
            while !left.is_finished() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = done => {}
            () = signals.end_at_once() => {}
        }
    });
    let result = left.join().unwrap_or_else(|_| Err(io::Error::other("leaving panicked")));
    match result {
        Ok(()) if whole => Ok(()),
        Ok(()) => Err(Failure::runtime("a shard has ended by itself", "see the lines above").into()),
        Err(e) => {
            Err(Failure::runtime(format!("a shard ended with: {e}"), "report this with the lines above")
                .into())
        }
    }
}

/// Takes requests over from the process before this one. Told to leave meanwhile this one ends at once, and
/// the other goes on.
fn take_over(
    appliance: &mut Appliance,
    runtime: &tokio::runtime::Runtime,
    signals: &mut LeaveSignals,
) -> Result<(), StartError> {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| appliance.take_over());
        runtime.block_on(async {
            let done = async {
                while !work.is_finished() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                () = done => {}
                number = signals.next() => std::process::exit(128 + number),
            }
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Stays until the process is told to leave, a shard has ended, or another process has taken over.
async fn post(
    appliance: &Appliance,
    signals: &mut LeaveSignals,
    myself: &Myself,
    door: Option<&Door>,
) -> Option<Successor> {
    loop {
        let asked = async {
            match door {
                Some(door) => door.next().await,
                None => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            () = watch_threads(appliance) => {
                say("error: a shard has ended by itself; the process leaves");
                return None;
            }
            wish = signals.wish() => match wish {
                Wish::Leave => return None,
                Wish::Restart => None,
            },
            stream = asked => Some(stream),
        };
        let work = myself.hand_over(&appliance.handover, asked);
        tokio::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            _ = signals.next() => {
                appliance.handover.give_up();
                tokio::select! {
                    result = &mut work => {
                        if let Ok(successor) = result {
                            successor.stop();
                        }
                    }
                    number = signals.next() => std::process::exit(128 + number),
                }
                return None;
            }
        };
        match result {
            Ok(successor) => return Some(successor),
            Err(why) => restart::refused(&why),
        }
    }
}

/// A panic anywhere ends the process: half a server is worse than none.
fn leave_no_half() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        std::process::exit(101);
    }));
}

fn start_log(level: LogLevel) {
    // What libraries say of themselves helps only whoever looks at everything.
    let filter = EnvFilter::new(match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "warn,beast=info",
        LogLevel::Debug => "warn,beast=debug",
        LogLevel::Trace => "trace",
    });
    let terminal = io::stderr().is_terminal();
    // A second subscriber only in tests that start twice in one process.
    let _already = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal)
        .with_target(false)
        .with_writer(io::stderr)
        .try_init();
}

/// One line for the operator. A closed standard error is no reason to stop answering.
fn say(line: &str) {
    let _closed = writeln!(io::stderr(), "{line}");
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listening(at: &Addresses) -> String {
    let all = [
        ("UDP", &at.udp),
        ("HTTP", &at.http),
        ("health", &at.health),
        ("reports", &at.reports),
        ("reports by UDP", &at.reports_udp),
    ];
    let open = all.iter().filter(|(_, addresses)| !addresses.is_empty());
    open.map(|(name, addresses)| format!("{name} {}", list(addresses))).collect::<Vec<_>>().join("; ")
}

/// The role REPORT_SERVER: no shards, no feeds, no prices.
fn run_reports(config: &Config, runtime: &tokio::runtime::Runtime, signals: &mut LeaveSignals) -> Outcome {
    let terminal = io::stderr().is_terminal();
    let mut key = None;
    let server = ReportServer::start(config, |token| {
        key = Some(match terminal {
            true => format!("{}  (shown this once; beast keys add makes more)", token.reveal()),
            false => {
                format!(
                    "made and written to {}, mode 0600",
                    write_first_key(&config.data_dir, token)?.display()
                )
            }
        });
        Ok(())
    })
    .map_err(|StartError { what, cure }| Failure::runtime(what, cure))?;
    say(&format!("role     reports only, of {}", config.data_dir.display()));
    say(&format!("listen   {}", listening(&server.addresses)));
    if let Some(key) = key {
        say(&format!("key      {key}"));
    }
    say("ready");
    runtime.block_on(signals.next());
    say("leaving");
    let left = server.leave();
    Ok(left.map_err(|e| Failure::runtime(format!("leaving failed: {e}"), "report this"))?)
}

/// Shows the first key, or where it lies, and how to use it.
fn introduce(made: Option<&Token>, file: Option<PathBuf>, config: &Config, appliance: &Appliance) {
    let kept = config.data_dir.join("first-key");
    let from_file = format!("$(cat {})", kept.display());
    let key = match (made, file) {
        (Some(token), None) => {
            say(&format!("key      {}  (shown this once; beast keys add makes more)", token.reveal()));
            token.reveal()
        }
        (Some(_), Some(path)) => {
            say(&format!("key      made and written to {}, mode 0600", path.display()));
            from_file
        }
        (None, _) if kept.exists() => {
            say(&format!("key      the first one lies in {}", kept.display()));
            from_file
        }
        (None, _) => {
            say("key      the first start has shown one; beast keys add makes more");
            return;
        }
    };
    let reachable = |address: &SocketAddr| match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        _ => address.to_string(),
    };
    if let Some(http) = appliance.addresses.http.first() {
        let at = reachable(http);
        say(&format!("try      curl -H \"X-API-Key: {key}\" 'http://{at}/price?asset=BTC'"));
    }
    if let Some(udp) = appliance.addresses.udp.first() {
        let at = reachable(udp);
        let (host, port) = at.rsplit_once(':').unwrap_or((&at, "2679"));
        let host = host.trim_matches(['[', ']']);
        say(&format!(
            "try      bash -c 'exec 3<>/dev/udp/{host}/{port}; printf \"{{\\\"api_key\\\":\\\"%s\\\",\\\"asset\\\":\\\"BTC\\\"}}\" \"$0\" >&3; timeout 1 cat <&3' \"{key}\""
        ));
    }
}

/// Shows how feeds and assets come up, until the process is ready.
async fn watch_start(appliance: &Appliance, started: Instant) {
    let mut shown: Vec<(&'static str, u32)> = Vec::new();
    while started.elapsed() < SHOW_MAX {
        let ready = appliance.facts.unready(RealClock.now().mono).is_empty();
        for Stage { name, done, total, .. } in appliance.facts.stages() {
            let known = shown.iter_mut().find(|(stage, _)| *stage == name);
            let whole = done == total && total > 0;
            match known {
                Some((_, last)) if *last == done => continue,
                Some((_, last)) => *last = done,
                None => shown.push((name, done)),
            }
            if whole || (ready && done > 0) {
                say(&format!("{name:<8} {done}/{total}"));
            }
        }
        if ready {
            say(&format!("ready    after {:.2} s", started.elapsed().as_secs_f64()));
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let reasons: Vec<String> = appliance
        .facts
        .unready(RealClock.now().mono)
        .into_iter()
        .map(|reason| format!("{}: {}", reason.what, reason.detail))
        .collect();
    say(&format!("waiting  not ready yet ({}); /ready tells how it goes on", reasons.join("; ")));
}

/// Returns when a shard has ended without being told to.
async fn watch_threads(appliance: &Appliance) {
    while appliance.is_whole() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
