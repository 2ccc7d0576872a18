//! Which addresses a process listens on.

use std::io;
use std::net::{IpAddr, UdpSocket};

use beast::config::{Effective, Origin};

use super::Failure;

/// The addresses of the configuration that this machine has. The default names loopback of IPv4 and
/// of IPv6, and one of them may be missing (containers often have no IPv6); an address that an
/// operator has named may not.
pub(crate) fn addresses(effective: &Effective) -> Result<Vec<IpAddr>, Failure> {
    let chosen = &effective.config.listen;
    if effective.origin("listen") != Origin::Default {
        return Ok(chosen.clone());
    }
    present(chosen)
}

fn present(chosen: &[IpAddr]) -> Result<Vec<IpAddr>, Failure> {
    let is_missing = |error: &io::Error| {
        error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
    };
    let found: Vec<IpAddr> = chosen
        .iter()
        .copied()
        .filter(|address| !UdpSocket::bind((*address, 0)).is_err_and(|error| is_missing(&error)))
        .collect();
    if found.is_empty() {
        return Err(Failure::runtime(
            format!("this machine has none of the addresses {chosen:?}; needs one to listen on"),
            "bring up loopback (`ip link set lo up`), or name an address by --listen",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_addresses_are_left_out_and_one_must_remain() {
        let (here, nowhere): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        assert_eq!(present(&[nowhere, here]).unwrap(), [here]);
        assert!(present(&[nowhere]).unwrap_err().to_string().contains("none of the addresses [192.0.2.1]"));
    }
}
