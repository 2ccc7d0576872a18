//! Frames as a client's machine sends them, and an independent reading of what comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{LaxPacketHeaders, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, VlanId};

pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const PORT: u16 = 2_679;
pub(crate) const CLIENT_PORT: u16 = 50_123;

/// How a request is wrapped up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrapping {
    pub(crate) v6: bool,
    /// 0 to 2.
    pub(crate) vlans: u16,
}

pub(crate) const WRAPPINGS: [Wrapping; 6] = [
    Wrapping { v6: false, vlans: 0 },
    Wrapping { v6: false, vlans: 1 },
    Wrapping { v6: false, vlans: 2 },
    Wrapping { v6: true, vlans: 0 },
    Wrapping { v6: true, vlans: 1 },
    Wrapping { v6: true, vlans: 2 },
];

impl Wrapping {
    /// Where the IP header begins.
    pub(crate) fn ip_at(self) -> usize {
        14 + 4 * usize::from(self.vlans)
    }

    /// Where the UDP header begins.
    pub(crate) fn udp_at(self) -> usize {
        self.ip_at() + if self.v6 { 40 } else { 20 }
    }

    /// Where the payload begins.
    pub(crate) fn payload_at(self) -> usize {
        self.udp_at() + 8
    }

    /// A whole frame from the client to the server's port.
    pub(crate) fn frame(self, payload: &[u8]) -> Vec<u8> {
        self.frame_to(PORT, payload)
    }

    pub(crate) fn frame_to(self, port: u16, payload: &[u8]) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC);
        let vlan = |id| VlanId::try_new(id).unwrap();
        let (v4, v6) = ((CLIENT_V4.octets(), SERVER_V4.octets()), (CLIENT_V6.octets(), SERVER_V6.octets()));
        let ip = match (self.vlans, self.v6) {
            (0, false) => eth.ipv4(v4.0, v4.1, 61),
            (0, true) => eth.ipv6(v6.0, v6.1, 61),
            (1, false) => eth.single_vlan(vlan(100)).ipv4(v4.0, v4.1, 61),
            (1, true) => eth.single_vlan(vlan(100)).ipv6(v6.0, v6.1, 61),
            (_, false) => eth.double_vlan(vlan(7), vlan(100)).ipv4(v4.0, v4.1, 61),
            (_, true) => eth.double_vlan(vlan(7), vlan(100)).ipv6(v6.0, v6.1, 61),
        };
        let udp = ip.udp(CLIENT_PORT, port);
        let mut frame = Vec::new();
        udp.write(&mut frame, payload).unwrap();
        frame
    }
}

/// A datagram out of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) macs: ([u8; 6], [u8; 6]),
    pub(crate) payload: Vec<u8>,
}

/// Reads a frame strictly: lengths must agree with each other and with the frame's, and both checksums
/// must be right.
pub(crate) fn read_strictly(frame: &[u8]) -> Result<Datagram, String> {
    let packet = PacketHeaders::from_ethernet_slice(frame).map_err(|e| e.to_string())?;
    let Some(TransportHeader::Udp(udp)) = packet.transport else { return Err("no UDP".into()) };
    let payload = packet.payload.slice();
    if usize::from(udp.length) != 8 + payload.len() {
        return Err(format!("UDP length {} over {} bytes", udp.length, payload.len()));
    }
    let (from, to, wanted, ip_len) = match packet.net.as_ref() {
        Some(NetHeaders::Ipv4(ip, _)) => {
            if ip.header_checksum != ip.calc_header_checksum() {
                return Err("IPv4 checksum".into());
            }
            let wanted = udp.calc_checksum_ipv4(ip, payload).map_err(|e| e.to_string())?;
            (IpAddr::from(ip.source), IpAddr::from(ip.destination), wanted, usize::from(ip.total_len))
        }
        Some(NetHeaders::Ipv6(ip, _)) => {
            let wanted = udp.calc_checksum_ipv6(ip, payload).map_err(|e| e.to_string())?;
            (
                IpAddr::from(ip.source),
                IpAddr::from(ip.destination),
                wanted,
                40 + usize::from(ip.payload_length),
            )
        }
        _ => return Err("no IP".into()),
    };
    if udp.checksum != wanted {
        return Err(format!("UDP checksum {:04x}, right is {wanted:04x}", udp.checksum));
    }
    let eth = packet.link.as_ref().and_then(|link| link.clone().ethernet2()).ok_or("no Ethernet")?;
    let before_ip = frame.len() - ip_len;
    if ![14, 18, 22].contains(&before_ip) {
        return Err(format!("{before_ip} bytes before or behind IP"));
    }
    Ok(Datagram {
        from: (from, udp.source_port),
        to: (to, udp.destination_port),
        macs: (eth.source, eth.destination),
        payload: payload.to_vec(),
    })
}

/// The payload of a frame as far as a stack that is less strict would read it.
pub(crate) fn read_laxly(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = LaxPacketHeaders::from_ethernet(frame).ok()?;
    matches!(packet.transport, Some(TransportHeader::Udp(_))).then(|| packet.payload.slice().to_vec())
}
