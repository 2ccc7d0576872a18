//! The kinds of datagrams a generator can ask with, behind one type.

use super::raw::Raw;
use super::requests::{Echo, Requests, Verdict, WireId};
use super::v1::V1;
use super::v2::V2;
use crate::time::UnixNs;

/// One of them.
#[derive(Clone)]
pub enum Datagrams {
    /// The JSON protocol.
    V1(V1),
    /// The binary protocol.
    V2(V2),
    /// Payloads from a file.
    Raw(Raw),
    /// For a bare echo server.
    Echo(Echo),
}

impl Datagrams {
    /// Its name in results.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::V1(_) => "udp-v1",
            Self::V2(_) => "udp-v2",
            Self::Raw(_) => "udp-raw",
            Self::Echo(_) => "udp-echo",
        }
    }
}

impl Requests for Datagrams {
    fn fill(&mut self, id: u64, now: UnixNs, out: &mut [u8]) -> usize {
        match self {
            Self::V1(v1) => v1.fill(id, now, out),
            Self::V2(v2) => v2.fill(id, now, out),
            Self::Raw(raw) => raw.fill(id, now, out),
            Self::Echo(echo) => echo.fill(id, now, out),
        }
    }

    fn check(&mut self, answer: &[u8]) -> Verdict {
        match self {
            Self::V1(v1) => v1.check(answer),
            Self::V2(v2) => v2.check(answer),
            Self::Raw(raw) => raw.check(answer),
            Self::Echo(echo) => echo.check(answer),
        }
    }

    fn wire_id(&self) -> WireId {
        match self {
            Self::Raw(raw) => raw.wire_id(),
            Self::V1(_) | Self::V2(_) | Self::Echo(_) => WireId::Whole,
        }
    }
}
