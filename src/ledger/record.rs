//! What is written down about an answer: 64 bytes.

use crate::limits::REQUEST_ID_LEN_MAX;
use crate::time::UnixNs;

/// Which record: unique over all runs and shards of one data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Rises with every start of the process.
    pub epoch: u32,
    /// The shard that answered.
    pub shard: u16,
    /// From 0, without gaps.
    pub sequence: u64,
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// UDP, JSON.
    UdpV1 = 1,
    /// UDP, binary.
    UdpV2 = 2,
    /// HTTP.
    Http = 3,
}

/// The request's own id, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; REQUEST_ID_LEN_MAX],
    len: u8,
}

impl RequestId {
    /// No id.
    pub const NONE: Self = Self { bytes: [0; REQUEST_ID_LEN_MAX], len: 0 };

    /// From the bytes of the message; what is longer than 32 bytes is cut.
    #[must_use]
    #[inline]
    pub fn new(id: &[u8]) -> Self {
        let len = id.len().min(REQUEST_ID_LEN_MAX);
        let mut bytes = [0; REQUEST_ID_LEN_MAX];
        bytes[..len].copy_from_slice(&id[..len]);
        Self { bytes, len: len as u8 }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Position in the shard's run; set when the record is appended.
    pub sequence: u64,
    /// When the answer was made.
    pub time: UnixNs,
    /// Persistent number of the key.
    pub key: u32,
    /// Persistent number of the asset; of the first one where several were asked for.
    pub asset: u16,
    /// How many assets were answered.
    pub assets: u16,
    /// Persistent number of the exchange that priced it; of the first asset's.
    pub exchange: u8,
    /// How the request came.
    pub transport: Transport,
    /// 0 for a price, else the error's number on the wire.
    pub status: u8,
    /// The request's id.
    pub request: RequestId,
}

impl Record {
    /// Nothing; what unused places hold.
    pub const EMPTY: Self = Self {
        sequence: 0,
        time: UnixNs(0),
        key: 0,
        asset: 0,
        assets: 0,
        exchange: 0,
        transport: Transport::UdpV1,
        status: 0,
        request: RequestId::NONE,
    };
}

const _: () = assert!(size_of::<Record>() == 64);
