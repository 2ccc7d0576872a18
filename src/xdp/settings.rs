//! What the program is told of this machine: its clock, port and addresses.

use std::fmt;
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
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Those of VLANs on it, also of VLANs within VLANs.
    pub tagged: Vec<IpAddr>,
}

/// The kernel's list of VLAN devices in this thread's network namespace: name, number, lower device.
const VLANS: &str = "/proc/thread-self/net/vlan/config";

impl Interface {
    /// Looks the interface up.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Self, XdpError> {
        let cure = "ip -br link shows the interfaces there are";
        let index = if_nametoindex(name)
            .map_err(|e| XdpError::new(format!("there is no interface {name}: {e}"), cure))?;
        let all = getifaddrs()
            .map_err(|e| XdpError::new(format!("the addresses of {name} are not known: {e}"), cure))?;
        // Without VLANs in the kernel there is no such file.
        let vlans = vlans_on(name, &std::fs::read_to_string(VLANS).unwrap_or_default());
        let mut found = Self {
            name: name.to_owned(),
            index,
            hardware: [0; 6],
            addresses: Vec::new(),
            tagged: Vec::new(),
        };
        for entry in all {
            let Some(address) = entry.address else { continue };
            let here = entry.interface_name == name;
            if !here && !vlans.contains(&entry.interface_name) {
                continue;
            }
            let to = if here { &mut found.addresses } else { &mut found.tagged };
            if let Some(v4) = address.as_sockaddr_in() {
                to.push(v4.ip().into());
            } else if let Some(v6) = address.as_sockaddr_in6() {
                to.push(v6.ip().into());
            } else if let (true, Some(link)) = (here, address.as_link_addr()) {
                found.hardware = link.addr().unwrap_or_default();
            }
        }
        Ok(found)
    }
}

/// Names of the VLAN devices on an interface, two deep at most.
fn vlans_on(name: &str, config: &str) -> Vec<String> {
    let rows = || {
        config.lines().filter_map(|line| {
            let mut cells = line.split('|').map(str::trim);
            Some((cells.next()?, cells.nth(1)?))
        })
    };
    let on = |lower: &str| -> Vec<String> {
        rows().filter(|(_, under)| *under == lower).map(|(vlan, _)| vlan.to_owned()).collect()
    };
    let mut all = on(name);
    let inner: Vec<_> = all.iter().flat_map(|vlan| on(vlan)).collect();
    all.extend(inner);
    all
}

/// What is answered for on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    hardware: [u8; 6],
    port: u16,
    plain: Addresses,
    tagged: Addresses,
}

/// One list of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Addresses {
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
    left_out: usize,
}

impl Addresses {
    /// Those that the sockets listen on, as far as there is room.
    fn new(all: &[IpAddr], listen: &[IpAddr]) -> Self {
        let listened = |address: &IpAddr| {
            listen.iter().any(|l| l == address || l.is_unspecified() && l.is_ipv4() == address.is_ipv4())
        };
        let mut found = Self::default();
        for address in all.iter().filter(|a| listened(a)) {
            match address {
                IpAddr::V4(v4) if found.ipv4.len() < XDP_ADDRESSES_MAX => found.ipv4.push(*v4),
                IpAddr::V6(v6) if found.ipv6.len() < XDP_ADDRESSES_MAX => found.ipv6.push(*v6),
                _ => found.left_out += 1,
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.ipv4.iter().map(|ip| IpAddr::from(*ip));
        v4.chain(self.ipv6.iter().map(|ip| IpAddr::from(*ip)))
    }
}

impl Served {
    /// Those of an interface's addresses that the sockets listen on.
    #[must_use]
    pub fn new(interface: &Interface, listen: &[IpAddr], port: u16) -> Self {
        let plain = Addresses::new(&interface.addresses, listen);
        let tagged = Addresses::new(&interface.tagged, listen);
        Self { hardware: interface.hardware, port, plain, tagged }
    }

    /// Whether there is any address to answer for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.all().chain(self.tagged.all()).next().is_none()
    }

    /// Addresses that are left to the socket because the program has no room for them.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.plain.left_out + self.tagged.left_out
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.plain.all().chain(self.tagged.all()).map(|ip| ip.to_string()).collect();
        let addresses = if all.is_empty() { "no address".to_owned() } else { all.join(", ") };
        write!(f, "for {addresses} port {}", self.port)
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
        self.tell_addresses(at::PLAIN, &served.plain);
        self.tell_addresses(at::TAGGED, &served.tagged);
    }

    fn tell_addresses(&self, start: usize, addresses: &Addresses) {
        for pair in 0..XDP_ADDRESSES_MAX / 2 {
            let word =
                |i: usize| addresses.ipv4.get(i).map_or(0, |ip| u64::from(u32::from_le_bytes(ip.octets())));
            self.set(start + pair, word(2 * pair) | word(2 * pair + 1) << 32);
        }
        for index in 0..XDP_ADDRESSES_MAX {
            let ip = addresses.ipv6.get(index).map_or(0, |ip| u128::from_le_bytes(ip.octets()));
            self.set(start + at::IPV6 + 2 * index, ip as u64);
            self.set(start + at::IPV6 + 2 * index + 1, (ip >> 64) as u64);
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
            tagged: vec![],
        };
        let count = |interface: &Interface, listen: &[IpAddr]| {
            let served = Served::new(interface, listen, 2679);
            (served.plain.ipv4.len(), served.plain.ipv6.len(), served.left_out())
        };
        assert_eq!(count(&interface, &[ip("0.0.0.0")]), (2, 0, 0));
        assert_eq!(count(&interface, &[ip("::")]), (0, 1, 0));
        assert_eq!(count(&interface, &[ip("10.0.0.2"), ip("fd00::1")]), (1, 1, 0));
        assert!(Served::new(&interface, &[ip("127.0.0.1")], 2679).is_empty());
        interface.addresses = (0..20).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        assert_eq!(count(&interface, &[ip("0.0.0.0")]), (8, 0, 12));
    }

    #[test]
    fn vlans_are_found_two_deep() {
        let config = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                      eth0.7         | 7  | eth0\nstorage        | 9  | eth1\neth0.7.100     | 100  | eth0.7\n";
        assert_eq!(vlans_on("eth0", config), ["eth0.7", "eth0.7.100"]);
        assert_eq!(vlans_on("eth1", config), ["storage"]);
        assert!(vlans_on("eth2", config).is_empty() && vlans_on("eth0", "").is_empty());
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
