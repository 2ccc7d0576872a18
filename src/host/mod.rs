//! The machine under us: its settings (check, apply, undo and plan), and its service manager.
//!
//! What is set, why and how stands once, in the shell files of `tuning/`, because whoever looks after a
//! machine reads shell, and runs it where this program is not. They are compiled in, so that a single
//! binary has them too.

pub mod notify;

use std::fmt::Write as _;
use std::process::Command;

/// What runs the stages, without them: it ends with the call that starts it.
const DRIVER: &str = include_str!("../../tuning/tune.sh");

/// The last line of the driver.
const START: &str = "main \"$@\"\n";

macro_rules! stages {
    ($($name:literal),+ $(,)?) => {
        /// Each stage: its file and what is in it, in the order in which they run.
        const STAGES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../tuning/stages/", $name)))),+];
    };
}

stages![
    "10-socket-buffers.sh",
    "15-accept-queue.sh",
    "20-busy-polling.sh",
    "25-nic-queues.sh",
    "30-irq-affinity.sh",
    "35-coalescing-offloads.sh",
    "40-rps-xps.sh",
    "45-cpu-frequency.sh",
    "50-idle-states.sh",
    "55-isolated-cores.sh",
    "60-huge-pages.sh",
    "65-limits.sh",
    "70-conntrack.sh",
];

/// A command that does what `tuning/tune.sh` does with these arguments, without that file.
#[must_use]
pub fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script(), "beast host"]).args(arguments);
    command
}

/// The driver with every stage as a function, in place of the folder it would read them from.
fn script() -> String {
    let mut script = DRIVER.strip_suffix(START).unwrap_or(DRIVER).to_owned();
    let mut calls = String::new();
    for (index, (_, text)) in STAGES.iter().enumerate() {
        // A String takes whatever is written.
        let _always = write!(script, "stage_{index}() {{\n{text}}}\n");
        let _always = writeln!(calls, "stage_{index}");
    }
    let _always = write!(script, "stages() {{\n{calls}}}\n{START}");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_the_folder_is_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/stages");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let compiled: Vec<_> = STAGES.iter().map(|(name, _)| *name).collect();
        assert_eq!(compiled, files);
    }

    #[test]
    fn the_driver_ends_with_the_call_that_starts_it() {
        assert!(DRIVER.ends_with(START));
        assert_eq!(script().matches(START).count(), 1);
    }
}
