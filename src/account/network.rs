//! Address prefixes: from where a key may be used.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP prefix such as `10.0.0.0/8`; a bare address stands for itself alone. IPv4 mapped into IPv6
/// is IPv4, here and in the addresses that are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix_len: u8,
}

/// Why a text is no network, with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Not an address, or the length after the slash does not suit it.
    Malformed(String),
    /// Bits are set beyond the prefix; the network that was probably meant.
    HostBits(String, Network),
}

impl Network {
    /// Loopback, private and link-local ranges: from where keys of unlimited tiers use v1 when no
    /// network is listed on them.
    pub const PRIVATE: [Self; 8] = [
        Self::v4([127, 0, 0, 0], 8),
        Self::v4([10, 0, 0, 0], 8),
        Self::v4([172, 16, 0, 0], 12),
        Self::v4([192, 168, 0, 0], 16),
        Self::v4([169, 254, 0, 0], 16),
        Self { first: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 },
        Self { first: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix_len: 7 },
        Self { first: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix_len: 10 },
    ];

    const fn v4([a, b, c, d]: [u8; 4], prefix_len: u8) -> Self {
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix_len }
    }

    /// Whether `address` lies in it.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.first.is_ipv4() == address.is_ipv4() && cut(address, self.prefix_len) == self.first
    }
}

/// The address with all bits beyond the first `prefix_len` cleared.
fn cut(address: IpAddr, prefix_len: u8) -> IpAddr {
    let len = u32::from(prefix_len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(len)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let whole: u8 = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => whole,
            // `parse` alone would also take "+8" and "08".
            Some(digits) if digits.starts_with('+') || (digits.starts_with('0') && digits != "0") => {
                return Err(malformed());
            }
            Some(digits) => digits.parse().ok().filter(|len| *len <= whole).ok_or_else(malformed)?,
        };
        // A prefix of mapped IPv4 that is shorter than the mapping itself is neither of both.
        let first = address.to_canonical();
        let mapped_len = if first.is_ipv4() == address.is_ipv4() { 0 } else { 96 };
        let prefix_len = len.checked_sub(mapped_len).ok_or_else(malformed)?;
        let network = Self { first: cut(first, prefix_len), prefix_len };
        if network.first != first {
            return Err(NetworkError::HostBits(text.to_owned(), network));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_len)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(found) => {
                write!(
                    f,
                    "'{}' is not a network: write it like 10.0.0.0/8, fd00::/8 or 192.0.2.7",
                    found.escape_debug()
                )
            }
            Self::HostBits(found, network) => {
                write!(
                    f,
                    "'{found}' has bits set beyond its prefix: write {network}, or the address without a slash"
                )
            }
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::account::fuzz;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_hold_what_they_should() {
        for (prefix, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("172.16.0.0/12", "172.31.0.1", "172.32.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::1/128", "::1", "::2"),
            ("fc00::/7", "fdff::1", "fe00::1"),
            ("fe80::/10", "febf::1", "fec0::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "::10.1.2.3"),
        ] {
            assert!(network(prefix).contains(address(inside)), "{prefix} {inside}");
            assert!(!network(prefix).contains(address(outside)), "{prefix} {outside}");
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "::/129",
            "a/8",
            "::ffff:0.0.0.0/90",
            "10.0.0.0/8/8",
            " ::1",
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error, NetworkError::Malformed(text.to_owned()));
            assert!(error.to_string().contains("write it like 10.0.0.0/8"));
        }
        let error = "10.1.0.0/8".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("write 10.0.0.0/8"), "{error}");
    }

    #[test]
    fn the_private_ranges_are_written_as_they_are_read() {
        for range in Network::PRIVATE {
            assert_eq!(network(&range.to_string()), range);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            fuzz::network(text.as_bytes());
        }

        #[test]
        fn nearly_networks_are_survived(text in "[0-9a-f]{0,4}[.:]{1,2}[0-9a-f.:]{0,20}/?[0-9]{0,3}") {
            fuzz::network(text.as_bytes());
        }

        #[test]
        fn v4_agrees_with_the_obvious_model(bits: u32, other: u32, near in 0..32_u32, len in 0..=32_u8) {
            let other = if other.is_multiple_of(2) { bits ^ (1 << near) } else { other };
            let network = Network { first: cut(Ipv4Addr::from_bits(bits).into(), len), prefix_len: len };
            let same = (0..u32::from(len)).all(|i| (bits >> (31 - i)) & 1 == (other >> (31 - i)) & 1);
            let other = Ipv4Addr::from_bits(other);
            prop_assert_eq!(network.contains(other.into()), same);
            prop_assert_eq!(network.contains(other.to_ipv6_mapped().into()), same);
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }

        #[test]
        fn v6_agrees_with_the_obvious_model(bits: u128, near in 0..128_u32, len in 0..=128_u8) {
            let (one, other) = (Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(bits ^ (1 << near)));
            prop_assume!(one.to_ipv4_mapped().is_none() && other.to_ipv4_mapped().is_none());
            let network = Network { first: cut(one.into(), len), prefix_len: len };
            prop_assert_eq!(network.contains(other.into()), 127 - near >= u32::from(len));
        }
    }
}
