//! Every compile-time bound of the program, each with its reason, tied together by assertions.

/// Largest UDP payload that is read or sent, in bytes: IPv6's minimum MTU of 1,280 less 40 bytes of
/// IPv6 and 8 of UDP header, so that no datagram of ours is ever fragmented.
pub const UDP_PAYLOAD_MAX: usize = 1_232;

/// A v1 answer is at most this many times as long as its request, because a v1 key proves no source
/// address. Lower starves long prices, higher makes reflection pay.
pub const V1_AMPLIFICATION_MAX: usize = 3;

/// Longest request id of v1 and `X-Request-Id`, in raw bytes of the message.
pub const REQUEST_ID_LEN_MAX: usize = 32;

/// Longest symbol of an asset, in bytes: the width of the field in v2.
pub const SYMBOL_LEN: usize = 16;

/// Longest name of a quote currency, in bytes: the width of the field in v2.
pub const CURRENCY_LEN: usize = 8;

/// Longest name of an exchange, in bytes.
pub const EXCHANGE_NAME_LEN_MAX: usize = 20;

/// Highest asset number plus one. Boards index by it, so it bounds their memory.
pub const ASSETS_MAX: usize = 4_096;

/// Highest exchange number plus one.
pub const EXCHANGES_MAX: usize = 64;

/// Most exchanges that may list one asset.
pub const LISTINGS_PER_ASSET_MAX: usize = 16;

/// Feed connections of the whole process: the deadline table of every board has this many rows.
pub const FEED_SESSIONS_MAX: usize = 256;

/// Most assets in one multi-asset request.
pub const ASSETS_PER_REQUEST_MAX: usize = 64;

/// Longest ready answer head of v1, in bytes: two names of 16 and 8 bytes, a price of
/// `PRICE_TEXT_LEN_MAX`, a source of `EXCHANGE_NAME_LEN_MAX` + 6, a time of 20 digits and 52 bytes
/// of punctuation and member names.
pub const V1_HEAD_LEN_MAX: usize = 176;

/// Longest price in plain digits: 19 digits of mantissa, a point, and up to 19 zeros before them.
pub const PRICE_TEXT_LEN_MAX: usize = 40;

/// Datagrams taken in one turn of a shard. Fewer pays the system call more often, more delays the
/// first answer of the batch. A guess, not measured against other lengths.
pub const RECV_BATCH_LEN: usize = 64;

/// Longest head of an HTTP request, in bytes. Above it: 431 and close.
pub const HTTP_HEAD_LEN_MAX: usize = 8_192;

/// Most header fields of an HTTP request. Above it: 431 and close.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Longest request target of an HTTP request, in bytes.
pub const HTTP_TARGET_LEN_MAX: usize = 4_096;

/// Body bytes of a request that are skipped before the connection is closed instead.
pub const HTTP_BODY_LEN_MAX: usize = 65_536;

/// Longest API key token, in bytes.
pub const TOKEN_LEN_MAX: usize = 96;

/// Tokens not seen before that a shard looks at in a second. Each costs a checksum and a SHA-256,
/// measured at 0.6 µs, so this is 0.6 % of a core. Lower delays clients after a start, higher helps guessing.
pub const FIRST_SIGHTINGS_PER_SECOND: u32 = 10_000;

/// Such tokens at once, after a pause: enough for a thousand clients that all come back together.
pub const FIRST_SIGHTINGS_BURST: u32 = 1_000;

/// Fewest limited keys a process has room for between start and end; there is room for four times as
/// many as there are at the start. Each takes a cache line: a megabyte.
pub const LIMITED_KEYS_MIN: usize = 16_384;

/// What all shards hold of a key's allowance in leases is at most one part in so many of it: 0.4 %,
/// because 1 % is promised and a limit may err to both sides. Higher wastes exchanges on the shared
/// line, of which a key at its full rate costs at most so many a second and shard.
pub const LEASE_PARTS: u64 = 256;

/// Requests of one shard that may wait for a REST price at a time; further ones are `overloaded`.
pub const WAITING_MAX: usize = 1_024;

/// Largest message a feed connection accepts, in bytes. Gemini's book snapshots reach 210 KB and
/// Coinbase's 5 MB; nothing here subscribes to those, but a connection must outlive one. Memory is
/// taken only as a message comes.
pub const FEED_MESSAGE_LEN_MAX: usize = 8 << 20;

/// How far ahead of our clock a trade's time may lie before it is refused, in nanoseconds. Real
/// captures show 1 ms; five seconds allow for a badly kept clock and stop a time in the wrong unit.
pub const TRADE_AHEAD_NS_MAX: u64 = 5_000_000_000;

/// Socket buffer asked for on every UDP socket, in bytes: about a third of a second of requests at
/// full speed.
pub const SOCKET_BUFFER_LEN: usize = 32 << 20;

/// Number of the shard in whose name processor 0 answers by XDP; the other processors follow. Far above
/// the shards that are threads, of which there are at most 256.
pub const XDP_SHARD_FIRST: u16 = 0x4000;

/// Addresses of one family that are answered for by XDP. The program compares one after the other, so
/// more would cost every answer; requests to further ones reach the socket.
pub const XDP_ADDRESSES_MAX: usize = 8;

/// Binary logarithm of the records a processor can have waiting for the journal. At five million
/// answers a second these are 13 ms, and they are taken out every millisecond. Fewer send requests up
/// to the socket when the process is held up, each twice as many take 4 MiB more a processor.
pub const XDP_LANE_SHIFT: u32 = 16;

const _: () = assert!(V1_HEAD_LEN_MAX < UDP_PAYLOAD_MAX);
const _: () = assert!(LIMITED_KEYS_MIN.is_power_of_two());
const _: () = assert!(LEASE_PARTS > 100);
const _: () = assert!(RECV_BATCH_LEN.is_power_of_two());
const _: () = assert!(
    52 + SYMBOL_LEN + CURRENCY_LEN + PRICE_TEXT_LEN_MAX + EXCHANGE_NAME_LEN_MAX + 6 + 20 <= V1_HEAD_LEN_MAX
);
