//! What is written down about an answer, and its 64 bytes.
//!
//! ```text
//!   word 0   time, Unix ns                        word 3 ┐
//!   word 1   key: 32    latency ns: 32               …   │ the request's id, 32 bytes
//!   word 2   asset: 16  assets: 16  exchange: 8   word 6 ┘
//!            transport: 8  status: 8  id length: 8
//!   word 7   checksum of words 0 to 6, epoch, shard and sequence
//! ```
//!
//! Little-endian. The sequence is not stored: it is the record's place, and the checksum binds it.

use super::check::Seed;
use crate::limits::REQUEST_ID_LEN_MAX;
use crate::time::UnixNs;

/// Length of a stored record, in bytes.
pub const RECORD_LEN: usize = 64;

/// Length of a stored record, in words.
pub(super) const RECORD_WORDS: usize = RECORD_LEN / 8;

const _: () = assert!(REQUEST_ID_LEN_MAX == 32);

/// The records of one shard in one run of the process: a sequence from 0 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    /// Rises with every start of the process.
    pub epoch: u32,
    /// The shard that answered.
    pub shard: u16,
}

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

impl RecordId {
    /// The chain it belongs to.
    #[must_use]
    pub fn chain(self) -> ChainId {
        ChainId { epoch: self.epoch, shard: self.shard }
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// UDP, JSON.
    UdpV1 = 1,
    /// UDP, binary.
    UdpV2 = 2,
    /// HTTP.
    Http = 3,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::UdpV1, Self::UdpV2, Self::Http];

    /// The one of that stored number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| *transport as u8 == number)
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UdpV1 => "udp-v1",
            Self::UdpV2 => "udp-v2",
            Self::Http => "http",
        }
    }
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

/// One answer, or one refusal of a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the answer was made.
    pub time: UnixNs,
    /// From receiving the request to making the answer, in nanoseconds; at most 4.29 s are told.
    pub latency_ns: u32,
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

/// What stands in a record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing was written there yet.
    Empty,
    /// A whole record of that place.
    Record(Record),
    /// Something else: a record that was not finished, or was damaged, or belongs elsewhere.
    Unreadable,
}

impl Record {
    /// Nothing.
    pub const EMPTY: Self = Self {
        time: UnixNs(0),
        latency_ns: 0,
        key: 0,
        asset: 0,
        assets: 0,
        exchange: 0,
        transport: Transport::UdpV1,
        status: 0,
        request: RequestId::NONE,
    };

    /// Whether it is about a price, which counts against a key's month, and not about a refusal.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.status == 0
    }

    /// As it is stored at that place of a chain.
    #[inline]
    pub(super) fn words(&self, seed: Seed, sequence: u64) -> [u64; RECORD_WORDS] {
        let id = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&self.request.bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let small = [self.exchange, self.transport as u8, self.status, self.request.len];
        let words = [
            self.time.0,
            u64::from(self.key) | u64::from(self.latency_ns) << 32,
            u64::from(self.asset) | u64::from(self.assets) << 16 | u64::from(u32::from_le_bytes(small)) << 32,
            id(0),
            id(8),
            id(16),
            id(24),
        ];
        let [a, b, c, d, e, f, g] = words;
        [a, b, c, d, e, f, g, seed.sum(sequence, &words)]
    }

    /// What stands in that place of a chain.
    pub(super) fn read(words: &[u64; RECORD_WORDS], seed: Seed, sequence: u64) -> Slot {
        let [a, b, c, d, e, f, g, sum] = *words;
        if words.iter().all(|word| *word == 0) {
            // No record looks like that: none has the transport 0.
            return Slot::Empty;
        }
        let [.., exchange, transport, status, len] = c.to_le_bytes();
        let transport = Transport::of_number(transport).filter(|_| usize::from(len) <= REQUEST_ID_LEN_MAX);
        let Some(transport) = transport.filter(|_| sum == seed.sum(sequence, &[a, b, c, d, e, f, g])) else {
            return Slot::Unreadable;
        };
        let mut bytes = [0; REQUEST_ID_LEN_MAX];
        for (to, word) in bytes.chunks_exact_mut(8).zip([d, e, f, g]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Slot::Record(Self {
            time: UnixNs(a),
            latency_ns: (b >> 32) as u32,
            key: b as u32,
            asset: c as u16,
            assets: (c >> 16) as u16,
            exchange,
            transport,
            status,
            request: RequestId { bytes, len },
        })
    }
}

/// The words of a stored record; `None` when there are not 64 bytes.
pub(super) fn words_of(bytes: &[u8]) -> Option<[u64; RECORD_WORDS]> {
    let bytes: &[u8; RECORD_LEN] = bytes.try_into().ok()?;
    let mut words = [0; RECORD_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any record that can be written.
    pub(in crate::ledger) fn any_record() -> impl Strategy<Value = Record> {
        let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
        let small = (any::<u8>(), prop::sample::select(Transport::ALL.to_vec()), any::<u8>());
        (numbers, small, prop::collection::vec(any::<u8>(), 0..=32)).prop_map(|(numbers, small, id)| {
            let (time, latency_ns, key, asset, assets) = numbers;
            let (exchange, transport, status) = small;
            let (time, request) = (UnixNs(time), RequestId::new(&id));
            Record { time, latency_ns, key, asset, assets, exchange, transport, status, request }
        })
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_again(record in any_record(), epoch: u32, shard: u16, sequence: u64) {
            let seed = Seed::of_chain(epoch, shard);
            let words = record.words(seed, sequence);
            prop_assert_eq!(Record::read(&words, seed, sequence), Slot::Record(record));
            prop_assert_eq!(Record::read(&words, seed, sequence ^ 1), Slot::Unreadable);
            prop_assert_eq!(Record::read(&words, Seed::of_chain(epoch, !shard), sequence), Slot::Unreadable);
        }

        #[test]
        fn a_flipped_bit_is_found(record in any_record(), sequence: u64, bit in 0_usize..512) {
            let seed = Seed::of_chain(1, 2);
            let mut words = record.words(seed, sequence);
            words[bit / 64] ^= 1 << (bit % 64);
            prop_assert_eq!(Record::read(&words, seed, sequence), Slot::Unreadable);
        }

        /// Killed between two stores, whatever order they came in.
        #[test]
        fn half_a_record_is_none(record in any_record(), sequence: u64, stored in 0_u8..255) {
            let seed = Seed::of_chain(1, 2);
            let whole = record.words(seed, sequence);
            let half = std::array::from_fn(|at| if stored >> at & 1 == 1 { whole[at] } else { 0 });
            prop_assume!(half != whole);
            prop_assert!(!matches!(Record::read(&half, seed, sequence), Slot::Record(_)));
        }
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let record = Record {
            time: UnixNs(0x0102_0304_0506_0708),
            latency_ns: 0x1112_1314,
            key: 0x2122_2324,
            asset: 0x3132,
            assets: 0x4142,
            exchange: 0x51,
            transport: Transport::Http,
            status: 0x61,
            request: RequestId::new(b"abcdefghi"),
        };
        let words = record.words(Seed::of_chain(7, 3), 9);
        assert_eq!(words[..3], [0x0102_0304_0506_0708, 0x1112_1314_2122_2324, 0x0961_0351_4142_3132]);
        assert_eq!(words[3].to_le_bytes(), *b"abcdefgh");
        assert_eq!(words[4].to_le_bytes(), *b"i\0\0\0\0\0\0\0");
        assert_eq!(words[7], 0xd1f6_3396_584d_652c);
    }
}
