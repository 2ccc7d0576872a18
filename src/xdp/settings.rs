//! What the program is told of this machine: its clock, port and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::error::XdpError;
use super::layout::settings as at;
use crate::limits::XDP_ADDRESSES_MAX;
use crate::sys::mmap::SharedWords;
use crate::time::Now;

/// An interface as it is just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address; zeros when it has none.
    pub hardware: [u8; 6],
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Looks the interface up.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Self, XdpError> {
        let cure = "ip -br link shows the interfaces there are";
        let index = if_nametoindex(name)
            .map_err(|e| XdpError::new(format!("there is no interface {name}: {e}"), cure))?;
        let mut found = Self { name: name.to_owned(), index, hardware: [0; 6], addresses: Vec::new() };
        let all = getifaddrs()
            .map_err(|e| XdpError::new(format!("the addresses of {name} are not known: {e}"), cure))?;
        for entry in all.filter(|entry| entry.interface_name == name) {
            let Some(address) = entry.address else { continue };
            if let Some(link) = address.as_link_addr() {
                found.hardware = link.addr().unwrap_or_default();
            } else if let Some(v4) = address.as_sockaddr_in() {
                found.addresses.push(v4.ip().into());
            } else if let Some(v6) = address.as_sockaddr_in6() {
                found.addresses.push(v6.ip().into());
            }
        }
        Ok(found)
    }
}

/// What is answered for on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    hardware: [u8; 6],
    port: u16,
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
    /// Addresses that are left to the socket because the program has no room for them.
    pub left_out: usize,
}

impl Served {
    /// Those of an interface's addresses that the sockets listen on.
    #[must_use]
    pub fn new(interface: &Interface, listen: &[IpAddr], port: u16) -> Self {
        let listened = |address: &IpAddr| {
            listen.iter().any(|l| l == address || l.is_unspecified() && l.is_ipv4() == address.is_ipv4())
        };
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in interface.addresses.iter().filter(|a| listened(a)) {
            match address {
                IpAddr::V4(v4) => ipv4.push(*v4),
                IpAddr::V6(v6) => ipv6.push(*v6),
            }
        }
        let left_out =
            ipv4.len().saturating_sub(XDP_ADDRESSES_MAX) + ipv6.len().saturating_sub(XDP_ADDRESSES_MAX);
        ipv4.truncate(XDP_ADDRESSES_MAX);
        ipv6.truncate(XDP_ADDRESSES_MAX);
        Self { hardware: interface.hardware, port, ipv4, ipv6, left_out }
    }

    /// Whether there is any address to answer for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }
}

/// The settings' mapping.
#[derive(Debug)]
pub struct Settings {
    words: SharedWords,
}

impl Settings {
    pub(super) fn new(words: SharedWords) -> Self {
        Self { words }
    }

    fn set(&self, index: usize, word: u64) {
        self.words.words()[index].store(word, Relaxed);
    }

    /// What never changes while the program runs.
    pub(super) fn fix(&self, symbol_seed: u64, symbol_shift: u32, lane_shift: u32) {
        self.set(at::SYMBOL_SEED, symbol_seed);
        self.set(at::SHIFTS, u64::from(symbol_shift) | u64::from(lane_shift) << 32);
    }

    /// Tells how the machine's clocks stand to each other. They drift apart slowly and step rarely;
    /// told every 100 ms, a step is noticed as soon as the shards would.
    pub fn tell_time(&self, now: Now) {
        self.set(at::WALL_OFFSET, now.unix.0.wrapping_sub(now.mono.0));
    }

    /// Tells for what to answer. Requests that come while this changes may go up to the socket.
    pub fn tell_served(&self, served: &Served) {
        let [a, b, c, d, e, f] = served.hardware;
        let [high, low] = served.port.to_be_bytes();
        self.set(at::HARDWARE_AND_PORT, u64::from_le_bytes([a, b, c, d, e, f, high, low]));
        for pair in 0..XDP_ADDRESSES_MAX / 2 {
            let ipv4 =
                |i: usize| served.ipv4.get(i).map_or(0, |ip| u64::from(u32::from_le_bytes(ip.octets())));
            self.set(at::IPV4 + pair, ipv4(2 * pair) | ipv4(2 * pair + 1) << 32);
        }
        for index in 0..XDP_ADDRESSES_MAX {
            let ip = served.ipv6.get(index).map_or(0, |ip| u128::from_le_bytes(ip.octets()));
            self.set(at::IPV6 + 2 * index, ip as u64);
            self.set(at::IPV6 + 2 * index + 1, (ip >> 64) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_listened_on_are_served() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut interface = Interface {
            name: "x".into(),
            index: 1,
            hardware: [2; 6],
            addresses: vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1")],
        };
        let count = |interface: &Interface, listen: &[IpAddr]| {
            let served = Served::new(interface, listen, 2679);
            (served.ipv4.len(), served.ipv6.len(), served.left_out)
        };
        assert_eq!(count(&interface, &[ip("0.0.0.0")]), (2, 0, 0));
        assert_eq!(count(&interface, &[ip("::")]), (0, 1, 0));
        assert_eq!(count(&interface, &[ip("10.0.0.2"), ip("fd00::1")]), (1, 1, 0));
        assert!(Served::new(&interface, &[ip("127.0.0.1")], 2679).is_empty());
        interface.addresses = (0..20).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        assert_eq!(count(&interface, &[ip("0.0.0.0")]), (8, 0, 12));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = Interface::named("no-such-if0").unwrap_err().to_string();
        assert!(
            error.contains("there is no interface no-such-if0") && error.contains("ip -br link"),
            "{error}"
        );
    }
}
