//! `beast load udp|http`: find out whom to ask with what, ask, say what came of it.

mod args;
mod compare;
mod progress;
mod summary;

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use beast::account::{Token, public_text};
use beast::load::report::{ReportFolder, to_json};
use beast::load::{
    Datagrams, Expect, HttpExchange, KneeBounds, LoadError, Mode, PartCommand, Protocol, Raw, RawId,
    RunOptions, ServerWatch, SessionOptions, Step, StepPace, Stop, V1, V2, be_part, hex, result::RunResult,
};
use beast::price::Symbol;
use beast::wire::v2::Key;

pub(crate) use args::LoadArgs;
use args::{CommonArgs, HttpArgs, LoadCommand, UdpArgs, UdpProtocol};
use progress::Show;

use super::leave::LeaveSignals;
use super::{Failure, Outcome, print};

/// Where the first start of a server leaves a key, unless told otherwise.
const FIRST_KEY: &str = "beast-data/first-key";

/// Requests under way in a closed loop by UDP when nothing else is said.
const UDP_WINDOW: u64 = 256;

/// UDP sockets a thread has when nothing else is said.
const SOCKETS_PER_THREAD: usize = 4;

/// Carries out `beast load`.
pub(crate) fn run(args: &LoadArgs) -> Outcome {
    match &args.command {
        LoadCommand::Udp(args) => load(&args.common, &args.target, udp(args)?),
        LoadCommand::Http(args) => load(&args.common, &args.target, http(args)?),
        LoadCommand::Compare(args) => compare::run(args),
        LoadCommand::HttpPart => Ok(be_part().map_err(|e| failure(&e))?),
    }
}

/// What only one of the transports knows.
struct Asking {
    protocol: Protocol,
    server: SocketAddr,
    mode: Mode,
    /// The most sockets or connections there will be.
    sockets_max: usize,
    sources: Vec<std::net::IpAddr>,
    assets: Vec<String>,
}

fn udp(args: &UdpArgs) -> Result<Asking, Failure> {
    let common = &args.common;
    let server = resolve(&args.target, 2679)?;
    let datagrams = match &args.raw {
        Some(path) => Datagrams::Raw(raw(args, path)?),
        None => {
            let token = key(common)?.ok_or_else(no_key)?;
            match args.protocol {
                UdpProtocol::V1 => Datagrams::V1(V1::new(&token.reveal(), &common.assets)),
                UdpProtocol::V2 => Datagrams::V2(V2 {
                    key_id: token.public_id(),
                    request_key: Key(token.v2_request_key().0),
                    answer_key: Key(token.v2_answer_key().0),
                    symbols: common.assets.clone(),
                }),
            }
        }
    };
    let sockets = args.sockets.unwrap_or(common.threads * SOCKETS_PER_THREAD).max(common.threads);
    if sockets > 65_536 * common.threads {
        let what = format!("--sockets {sockets} over {} threads; a thread has at most 65536", common.threads);
        return Err(Failure::usage(what, "give fewer sockets or more --threads"));
    }
    // By UDP an open loop needs room for all requests that nobody answers.
    let sockets = match common.rate {
        Some(rate) => sockets.max(beast::load::Session::sockets_for(rate, common.lost_after, common.threads)),
        None => sockets,
    };
    let assets = if args.raw.is_some() { Vec::new() } else { names(&common.assets) };
    Ok(Asking {
        protocol: Protocol::Udp(datagrams),
        server,
        mode: mode(common, UDP_WINDOW, sockets),
        sockets_max: sockets,
        sources: Vec::new(),
        assets,
    })
}

fn raw(args: &UdpArgs, path: &Path) -> Result<Raw, Failure> {
    let text = fs::read_to_string(path).map_err(|e| {
        Failure::usage(
            format!("--raw {}: {e}", path.display()),
            "name a text file of payloads in hexadecimal digits, one a line",
        )
    })?;
    let expect = hex(args.expect.as_deref().unwrap_or_default()).map_err(|e| {
        Failure::usage(format!("--expect: {e}"), "give two hexadecimal digits for every byte")
    })?;
    let id = args.id_offset.map(|offset| RawId { offset, len: args.id_len });
    Raw::parse(&text, id, expect).map_err(|e| {
        let cure = "one payload a line, two hexadecimal digits for every byte; # begins a comment";
        Failure::usage(format!("--raw {}: {e}", path.display()), cure)
    })
}

fn http(args: &HttpArgs) -> Result<Asking, Failure> {
    let common = &args.common;
    let host = args.target.strip_prefix("http://").unwrap_or(&args.target).trim_end_matches('/');
    if host.starts_with("https://") {
        return Err(Failure::usage(
            format!("{host} asks for TLS; beast load speaks plain HTTP"),
            "name the port behind the TLS proxy",
        ));
    }
    let server = resolve(host, 8080)?;
    let token = key(common)?;
    let bearer = token
        .as_ref()
        .map_or_else(String::new, |token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let get = |path: &str, expect: Expect| HttpExchange {
        request: format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n").into(),
        expect,
    };
    let exchanges = if args.paths.is_empty() {
        if token.is_none() {
            return Err(no_key());
        }
        let price = |symbol: &Symbol| {
            get(&format!("/price?asset={}", symbol.as_str()), Expect::price_of(symbol.as_str()))
        };
        common.assets.iter().map(price).collect()
    } else {
        if let Some(bad) =
            args.paths.iter().find(|path| !path.starts_with('/') || path.contains([' ', '\r', '\n']))
        {
            return Err(Failure::usage(
                format!("--path {bad:?} is no path"),
                "begin it with / and write spaces as %20",
            ));
        }
        let expect = args.expect.as_ref().map_or(Expect::Any, |text| Expect::Contains(text.clone().into()));
        args.paths.iter().map(|path| get(path, expect.clone())).collect()
    };
    let connections = args.connections.max(common.threads);
    let all = (connections * args.pipeline) as u64;
    let most = match beast::load::ramp::level(common.levels, common.scale) {
        Some((_, concurrency)) if common.ramp => usize::try_from(concurrency).unwrap_or(usize::MAX),
        _ => connections,
    };
    Ok(Asking {
        protocol: Protocol::Http { exchanges, pipeline: args.pipeline },
        server,
        mode: mode(common, all, connections),
        sockets_max: most,
        sources: args.sources.clone(),
        assets: if args.paths.is_empty() { names(&common.assets) } else { args.paths.clone() },
    })
}

fn names(symbols: &[Symbol]) -> Vec<String> {
    symbols.iter().map(|symbol| symbol.as_str().to_owned()).collect()
}

fn mode(common: &CommonArgs, window: u64, sockets: usize) -> Mode {
    let bounds = KneeBounds {
        p99_ns_max: u64::try_from(common.p99_max.as_nanos()).unwrap_or(u64::MAX),
        loss_max: common.loss_max,
        from_per_s: common.from,
        precision: common.precision,
    };
    let step = common.step;
    if common.ramp {
        return Mode::Ramp { scale: common.scale, levels: common.levels, sockets };
    }
    if common.knee {
        return Mode::Knee { bounds, step, sockets };
    }
    if let Some(duration) = common.endurance {
        return Mode::Endurance { bounds, step, rate_per_s: common.rate, duration, sockets };
    }
    let pace = common.rate.map_or(StepPace::Window(common.window.unwrap_or(window)), StepPace::Rate);
    Mode::Run(Step { pace, duration: common.duration, requests: common.requests, sockets })
}

fn load(common: &CommonArgs, target: &str, asking: Asking) -> Outcome {
    let folder = common
        .report
        .as_deref()
        .map(ReportFolder::prepare)
        .transpose()
        .map_err(|e| Failure::usage(e.to_string(), "name a folder you may write to by --report"))?;
    let udp = matches!(asking.protocol, Protocol::Udp(_)).then_some(asking.server);
    // The kernel's table shows sockets of this machine only.
    let local_udp = udp.filter(|server| std::net::UdpSocket::bind((server.ip(), 0)).is_ok());
    let watch = ServerWatch::new(common.server_metrics.as_deref(), common.server_pid, local_udp)
        .map_err(|e| Failure::usage(e.what, e.cure))?;
    let stop = Stop::new();
    stop_on_signal(stop.clone())?;
    let program = std::env::current_exe().ok();
    let args = ["load", "http-part"].map(str::to_owned).to_vec();
    let options = RunOptions {
        session: SessionOptions {
            threads: common.threads,
            pin: common.pin.clone(),
            sockets_max: asking.sockets_max,
            sources: asking.sources,
            lost_after: common.lost_after,
            interval: beast::load::interval_for(&asking.mode),
            part: program.map(|program| PartCommand { program, args }),
            stop,
            ..SessionOptions::new(asking.protocol, asking.server)
        },
        mode: asking.mode,
        name: common.name.clone().unwrap_or_else(|| target.to_owned()),
        command: without_secrets(std::env::args()),
        target: target.to_owned(),
        assets: asking.assets,
        watch,
        late_after: common.late_after,
        allow_late: common.allow_late,
    };
    let mut show = Show::new(common.quiet);
    let run = beast::load::run(&options, &mut |progress| show.look(progress));
    show.end();
    let run = run.map_err(|e| failure(&e))?;
    // Printed first, and written even when it cannot be: neither may take the other along.
    let told = tell(common, &run);
    let written = folder.map_or(Ok(()), |folder| write(common, &folder, &run));
    let mut failures: Vec<_> = [told, written].into_iter().filter_map(Result::err).collect();
    failures.extend(criteria(&run));
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

fn tell(common: &CommonArgs, run: &RunResult) -> Result<(), Failure> {
    if common.json {
        let text = to_json(run).map_err(|e| Failure::runtime(format!("no JSON: {e}"), "report this"))?;
        return print(&text);
    }
    print(&summary::text(run))
}

fn write(common: &CommonArgs, folder: &ReportFolder, run: &RunResult) -> Result<(), Failure> {
    let paths = folder.write(run).map_err(|e| {
        Failure::runtime(format!("the report cannot be written: {e}"), "see whether the disk is full")
    })?;
    if common.json { Ok(()) } else { print(&summary::written(&paths)) }
}

/// What did not hold, with what to do about it.
fn criteria(run: &RunResult) -> Vec<Failure> {
    let failed = run.criteria.iter().filter(|criterion| !criterion.pass);
    failed
        .map(|criterion| {
            let what = format!("{}: {}, needs {}", criterion.name, criterion.found, criterion.needed);
            let (what, cure) = match criterion.name.as_str() {
                "answers" if run.counts.port_closed > 0 => (
                    format!(
                        "nobody listens on {}: the kernel was told so {} times (ICMP port unreachable); no answer came",
                        run.setup.address, run.counts.port_closed
                    ),
                    "start the server, or name the port it listens on",
                ),
                "answers" => (what, "see whether the server is there, knows the key and has the assets"),
                "the generator kept its schedule" => {
                    (what, "lower --rate, give more --threads or a processor of its own, or allow it by --allow-late")
                }
                "the generator was not the limit" => {
                    (what, "give more --threads or a processor of its own, or allow it by --allow-late")
                }
                "the search came to its end" => (what, "let it run to its end"),
                "a rate within the bounds" => (what, "begin lower by --from, or allow more by --p99-max and --loss-max"),
                _ => (what, "see the lines above"),
            };
            Failure::runtime(what, cure)
        })
        .collect()
}

fn failure(error: &LoadError) -> Failure {
    Failure::runtime(error.what.clone(), error.cure.clone())
}

/// The first Ctrl-C or SIGTERM ends the run early, the second the process at once.
pub(crate) fn stop_on_signal(stop: Stop) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::runtime(format!("signals cannot be caught: {e}"), "see ulimit -a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = runtime.block_on(async { LeaveSignals::catch() }).map_err(failed)?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            stop.tell();
            signals.end_at_once().await;
        });
    });
    Ok(())
}

/// The address of `HOST[:PORT]`.
fn resolve(target: &str, port: u16) -> Result<SocketAddr, Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::usage(
            format!("{target} cannot be resolved: {e}"),
            "name an address such as 127.0.0.1:2679 or [::1]:2679, or a host that DNS or /etc/hosts knows",
        )
    };
    if let Ok(address) = target.parse() {
        return Ok(address);
    }
    if let Ok(ip) = target.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let named = if target.contains(':') { target.to_owned() } else { format!("{target}:{port}") };
    let mut found = named.to_socket_addrs().map_err(|e| wrong(&e))?;
    found.next().ok_or_else(|| wrong(&"it has no address"))
}

/// The API key that was given, or the one of the first start.
fn key(common: &CommonArgs) -> Result<Option<Token>, Failure> {
    let text = match (&common.key, &common.key_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => fs::read_to_string(path).map_err(|e| {
            Failure::usage(format!("--key-file {}: {e}", path.display()), "name a file that holds an API key")
        })?,
        (None, None) => match fs::read_to_string(FIRST_KEY) {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    Token::parse(text.trim().as_bytes()).map(Some).map_err(|e| {
        // What was given may be a secret with a slip in it, so it is not shown.
        Failure::usage(
            format!("what was given as API key is none: {e:?}"),
            "give it as beast keys add printed it, tb_…",
        )
    })
}

fn no_key() -> Failure {
    Failure::usage(
        format!("prices need an API key, none was given and there is no {FIRST_KEY} here"),
        "give one by --key-file or --key; beast keys add --tier partner makes one without limits",
    )
}

/// The command line with keys cut down to their public part.
pub(crate) fn without_secrets(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut after_key = false;
    args.map(|arg| {
        let secret = std::mem::replace(&mut after_key, arg == "--key");
        if secret {
            return hidden(&arg);
        }
        match arg.strip_prefix("--key=") {
            Some(key) => format!("--key={}", hidden(key)),
            None => arg,
        }
    })
    .collect()
}

fn hidden(key: &str) -> String {
    Token::parse(key.trim().as_bytes())
        .map_or("…".to_owned(), |token| format!("{}…", public_text(token.public_id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_out_of_the_command_line() {
        let token = Token::generate().unwrap();
        let secret = token.reveal();
        let args = ["beast", "load", "--key", &secret, "x", &format!("--key={secret}"), "--key", "slip"];
        let shown = without_secrets(args.iter().map(|arg| (*arg).to_owned())).join(" ");
        let public = public_text(token.public_id());
        assert_eq!(shown, format!("beast load --key {public}… x --key={public}… --key …"));
        assert!(!shown.contains(&secret));
    }

    #[test]
    fn targets_are_addresses_or_names() {
        assert_eq!(resolve("127.0.0.1", 7).unwrap().to_string(), "127.0.0.1:7");
        assert_eq!(resolve("[::1]", 7).unwrap().to_string(), "[::1]:7");
        assert_eq!(resolve("::1", 7).unwrap().to_string(), "[::1]:7");
        assert_eq!(resolve("127.0.0.1:9", 7).unwrap().port(), 9);
        let error = resolve("no-such-host.invalid", 7).unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid cannot be resolved"), "{error}");
    }
}
