//! What a running appliance says of itself on its health port.

use std::io;
use std::net::SocketAddr;

use beast::load::server::ask;

use super::subject::Subject;

/// One reading of all metrics.
pub struct Metrics(String);

impl Metrics {
    /// Reads them now.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn read(health: SocketAddr) -> io::Result<Self> {
        Ok(Self(ask(health, "/metrics")?.1))
    }

    /// Sum of all samples of a family whose labels hold `label`; 0 when there is none.
    pub fn sum(&self, family: &str, label: &str) -> i64 {
        let of_family = |line: &&str| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        };
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<i64>().ok());
        self.0.lines().filter(of_family).filter_map(value).sum()
    }
}

/// Waits until the appliance says that it is ready.
///
/// # Errors
/// When it ends, or is not ready within half a minute.
pub fn wait_until_ready(subject: &mut Subject) -> io::Result<SocketAddr> {
    let Some(health) = subject.health else { return Err(io::Error::other("the server has no health port")) };
    subject.server.wait_until_ready(health)?;
    Ok(health)
}
