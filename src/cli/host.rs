//! `beast host`: checks, applies and undoes the settings of the machine.

use std::os::unix::process::CommandExt as _;

use beast::host;
use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, Outcome};

/// Arguments of `beast host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what is found, what is needed and the command that cures it; exit 1 when something differs
    Check(Options),

    /// Change what differs, after writing down what was there (needs root)
    Apply(Options),

    /// Put back what was there, also after a crash half-way (needs root)
    Undo(Options),

    /// Propose shards, pinning, spinning and buffers for this machine, with reasons
    Plan(Options),

    /// Show every stage: what it is, where it belongs, why
    List(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Only these stages, separated by commas
    #[arg(long, value_name = "NAMES")]
    stage: Option<String>,

    /// Take this for such a machine, whatever it looks like
    #[arg(long = "as", value_name = "KIND")]
    environment: Option<Environment>,

    /// The network card; default: the one of the default route
    #[arg(long, value_name = "NAME")]
    iface: Option<String>,

    /// Port of the UDP protocols, for connection tracking
    #[arg(long, value_name = "PORT", default_value_t = 2679)]
    udp_port: u16,

    /// Port of HTTP, for connection tracking
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,

    /// File of what was there before
    #[arg(long, value_name = "FILE", default_value = "/var/lib/beast-tuning/state")]
    state: String,

    /// A tree to read and change in place of /, for tests
    #[arg(long, value_name = "FOLDER", hide = true)]
    root: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Environment {
    Metal,
    Vm,
    Container,
    Fargate,
}

/// Carries out `beast host`: becomes the shell that does it. Returns only when there is none.
pub(crate) fn run(args: &HostArgs) -> Outcome {
    let (name, options) = match &args.action {
        Action::Check(options) => ("check", options),
        Action::Apply(options) => ("apply", options),
        Action::Undo(options) => ("undo", options),
        Action::Plan(options) => ("plan", options),
        Action::List(options) => ("list", options),
    };
    let environment = options.environment.and_then(|kind| kind.to_possible_value());
    let (udp_port, http_port) = (options.udp_port.to_string(), options.http_port.to_string());
    let pairs = [
        ("--stage", options.stage.as_deref()),
        ("--as", environment.as_ref().map(|value| value.get_name())),
        ("--iface", options.iface.as_deref()),
        ("--udp-port", Some(&*udp_port)),
        ("--http-port", Some(&*http_port)),
        ("--state", Some(&*options.state)),
        ("--root", options.root.as_deref()),
    ];
    let mut words = vec![name];
    words.extend(options.json.then_some("--json"));
    for (flag, value) in pairs {
        words.extend(value.map(|value| [flag, value]).into_iter().flatten());
    }
    let error = host::command(words).exec();
    Err(Failure::runtime(
        format!("/bin/sh cannot be run: {error}"),
        "run this where there is a shell: the settings belong to the machine, not to this container",
    )
    .into())
}
