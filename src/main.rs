//! The command line of beast.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
