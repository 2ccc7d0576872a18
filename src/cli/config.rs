//! `beast config print`: what is in force, and why.

use beast::config::{default_file, print_json, print_text};
use clap::{Args, Subcommand};

use super::{Outcome, SettingsArgs, print};

/// Arguments of `beast config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every effective setting and where it came from
    Print {
        /// Print JSON, for programs
        #[arg(long, conflicts_with = "default")]
        json: bool,

        /// Print a file that describes every setting and sets it to its default
        #[arg(long)]
        default: bool,

        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Carries out `beast config`.
pub(crate) fn run(args: &ConfigArgs) -> Outcome {
    let ConfigCommand::Print { json, default, settings } = &args.command;
    let text = if *default {
        default_file()
    } else {
        let effective = settings.load()?;
        if *json { print_json(&effective) } else { print_text(&effective) }
    };
    Ok(print(&text)?)
}
