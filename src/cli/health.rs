//! Opens the health ports of a role.

use std::net::{IpAddr, TcpListener};

use beast::admin::bind;
use beast::config::Config;

use super::Failure;

/// Listeners of health and metrics on each address: `health_port`, and in the roles that report
/// `report_health_port` as well. To be called inside the back office's runtime.
pub(crate) fn open(config: &Config, addresses: &[IpAddr]) -> Result<Vec<TcpListener>, Failure> {
    let mut ports = vec![(config.health_port, "--health-port")];
    if config.role.reports() {
        ports.push((config.report_health_port, "--set report_health_port=PORT"));
    }
    let mut listeners = Vec::new();
    for (port, setting) in ports {
        for address in addresses {
            let opened = bind((*address, port).into(), setting);
            listeners.push(opened.map_err(|error| Failure::runtime(error.to_string(), error.cure()))?);
        }
    }
    Ok(listeners)
}
