//! Arguments → configuration → run; one file per subcommand. This is where the rooms are put
//! together, so it may name them all.

mod config;
mod exchange_sim;
mod feeds;
mod floor;
mod health;
mod host;
mod host_check;
mod keys;
mod leave;
mod listen;
mod load;
mod manager;
mod prove;
mod report;
mod restart;
mod serve;
mod settings_args;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use settings_args::SettingsArgs;

/// Answers "what is the price of BTC?" over UDP and HTTP, from memory.
#[derive(Debug, Parser)]
#[command(name = "beast", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer prices
    Serve(serve::ServeArgs),

    /// Measure this program on this machine and write a verdict
    Prove(prove::ProveArgs),

    /// Run a bare server to compare with; it ends with its standard input
    Floor(floor::FloorArgs),

    /// Show the configuration
    Config(config::ConfigArgs),

    /// Show the exchanges' feeds
    Feeds(feeds::FeedsArgs),

    /// Simulate the exchanges on loopback
    ExchangeSim(exchange_sim::ExchangeSimArgs),

    /// Load a server and measure it
    Load(load::LoadArgs),

    /// Show and export what was used
    Report(report::ReportArgs),

    /// Make, list, change and revoke API keys
    Keys(keys::KeysArgs),

    /// Let a new process of the program that is there now take a running server's place
    Restart(restart::RestartArgs),

    /// Ask a running server how it is
    Health(health::HealthArgs),

    /// Check, apply and undo the settings of the machine
    Host(host::HostArgs),
}

/// Why a command could not be carried out, for the operator.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was found and what is needed.
    what: String,
    /// What to do about it.
    cure: String,
    exit: u8,
}

impl Failure {
    /// Something went wrong while running: exit 1.
    pub(crate) fn runtime(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), exit: 1 }
    }

    /// The command or its configuration cannot be used: exit 2.
    pub(crate) fn usage(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), exit: 2 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  what to do: {}", self.what, self.cure)
    }
}

/// Reads the arguments and does what they say. Wrong arguments end the process with 2, `--help` and
/// `--version` with 0.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Feeds(args) => feeds::run(&args),
        Command::ExchangeSim(args) => exchange_sim::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Host(args) => host::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for failure in &failures {
                let _ = writeln!(io::stderr(), "{failure}");
            }
            ExitCode::from(failures.iter().map(|failure| failure.exit).max().unwrap_or(1))
        }
    }
}

/// What a command ends with; several things can be wrong with a configuration at once.
pub(crate) type Outcome = Result<(), Vec<Failure>>;

impl From<Failure> for Vec<Failure> {
    fn from(failure: Failure) -> Self {
        vec![failure]
    }
}

/// Writes to standard output. A reader that has gone, as in `beast config print | head`, is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::runtime(
            format!("standard output cannot be written: {error}"),
            "see whether the disk it is sent to is full",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command of the documents that calls beast is one it understands.
    #[test]
    fn commands_in_documents_parse() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs =
            std::fs::read_dir(root.join("docs")).into_iter().flatten().map(|entry| entry.unwrap().path());
        for file in docs.chain([root.join("README.md")]) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            for line in shell_lines(&text) {
                if let Some(Err(error)) = beast_command(line).map(Cli::try_parse_from) {
                    assert!(!error.use_stderr(), "{}: {line}\n{error}", file.display());
                }
            }
        }
    }

    /// Lines of the fenced blocks that are marked as shell.
    fn shell_lines(text: &str) -> impl Iterator<Item = &str> {
        let mut in_shell = false;
        text.lines().filter(move |line| {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                in_shell = ["sh", "bash", "shell", "console"].contains(&language.trim());
                return false;
            }
            in_shell
        })
    }

    #[test]
    fn commands_are_found_in_lines() {
        let text = "beast is\n```text\nbeast x\n```\n```sh\nbeast y\n```\nbeast z";
        assert_eq!(shell_lines(text).collect::<Vec<_>>(), ["beast y"]);
        for (line, found) in [
            ("cargo run --release -- serve --sim", true),
            ("$ beast serve", true),
            ("BEAST_IO=portable ./target/release/beast serve &", true),
            ("sudo beast keys list --data /var/lib/beast | sort", true),
            ("cargo test", false),
        ] {
            assert_eq!(beast_command(line).is_some(), found, "{line}");
        }
        let words = beast_command("$ ./beast keys add --tier 'one two' > key # x").unwrap();
        assert_eq!(words, ["beast", "keys", "add", "--tier", "one two"]);
    }

    /// The arguments of a line that runs this program, up to a pipe, a redirection, `&` or a comment.
    fn beast_command(line: &str) -> Option<Vec<String>> {
        let line = line.trim_start().trim_start_matches("$ ");
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            match index % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        let is_prefix = |word: &String| word == "sudo" || word == "exec" || word.contains('=');
        let mut words = words.into_iter().skip_while(is_prefix).peekable();
        let program = words.next()?;
        if program == "cargo" {
            if words.peek().is_none_or(|word| word != "run") {
                return None;
            }
            words.by_ref().find(|word| word == "--")?;
        } else if !program.ends_with("/beast") && program != "beast" {
            return None;
        }
        let ends = |word: &String| {
            ["|", "&", "&&", ";", "#", "\\"].contains(&word.as_str()) || word.contains(['<', '>'])
        };
        let mut found = vec!["beast".to_owned()];
        found.extend(words.take_while(|word| !ends(word)));
        Some(found)
    }
}
