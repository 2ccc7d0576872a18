//! What a number was measured on.

use serde::Serialize;

/// The machine and the command.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor model and how many of them this process may use.
    pub processor: String,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor of the first processor, if the kernel shows one.
    pub governor: Option<String>,
    /// Mitigations the kernel applies, those that are not "Not affected".
    pub mitigations: Vec<String>,
    /// Runnable tasks and load when the program began: anything else running spoils a number.
    pub load_average: String,
    /// The command line.
    pub command: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_owned()).ok();
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        let count = beast::sys::pin::cpus().map_or(0, |cpus| cpus.len());
        let vulnerabilities = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
        let mut mitigations: Vec<String> = vulnerabilities
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let state = read(entry.path().to_str()?)?;
                (state != "Not affected").then(|| format!("{}: {state}", entry.file_name().to_string_lossy()))
            })
            .collect();
        mitigations.sort();
        Self {
            processor: format!("{count} x {}", model.trim_start_matches([' ', '\t', ':'])),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            mitigations,
            load_average: read("/proc/loadavg").unwrap_or_default(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    /// For people.
    pub fn print(&self) {
        println!("machine   {} · kernel {}", self.processor, self.kernel);
        println!("governor  {}", self.governor.as_deref().unwrap_or("not shown by the kernel"));
        println!("load      {}", self.load_average);
        println!("command   {}", self.command);
    }
}
