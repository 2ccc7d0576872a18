//! Where things stand in the maps, in words of 64 bits. `bpf/maps.h` holds the same; the golden tests
//! compare both sides.

/// The object that `bpf/build.sh` makes.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/answer.bpf.o");

/// Names of the program and of its maps.
pub(super) const PROGRAM: &str = "beast_answer";
pub(super) const SETTINGS: &str = "settings";
pub(super) const PRICES: &str = "prices";
pub(super) const KEYS: &str = "keys";
pub(super) const ALLOWANCES: &str = "allowances";
pub(super) const LANES: &str = "lanes";
pub(super) const RECORDS: &str = "records";

pub(super) mod settings {
    use crate::limits::XDP_ADDRESSES_MAX;

    pub(in crate::xdp) const WALL_OFFSET: usize = 0;
    pub(in crate::xdp) const SYMBOL_SEED: usize = 1;
    pub(in crate::xdp) const SHIFTS: usize = 2;
    pub(in crate::xdp) const HARDWARE_AND_PORT: usize = 3;
    /// Two lists of addresses, of frames without and with tags.
    pub(in crate::xdp) const PLAIN: usize = 4;
    pub(in crate::xdp) const TAGGED: usize = PLAIN + SERVED_WORDS;
    pub(in crate::xdp) const WORDS: usize = TAGGED + SERVED_WORDS;
    /// In a list, IPv4 first.
    pub(in crate::xdp) const IPV6: usize = XDP_ADDRESSES_MAX / 2;
    const SERVED_WORDS: usize = IPV6 + XDP_ADDRESSES_MAX * 2;
}

pub(super) mod price {
    pub(in crate::xdp) const SEQUENCE: usize = 0;
    pub(in crate::xdp) const SYMBOL: usize = 1;
    pub(in crate::xdp) const FRESH_UNTIL: usize = 3;
    pub(in crate::xdp) const ASSET_AND_EXCHANGE: usize = 4;
    /// First word of the answer, then mantissa, both times and the currency.
    pub(in crate::xdp) const ANSWER: usize = 5;
    pub(in crate::xdp) const WORDS: usize = 16;
    /// Rows looked at from where a symbol's search begins.
    pub(in crate::xdp) const PROBES_MAX: usize = 4;
}

pub(super) mod lane {
    pub(in crate::xdp) const HEAD: usize = 0;
    pub(in crate::xdp) const PLACE: usize = 1;
    pub(in crate::xdp) const TAIL: usize = 8;
    pub(in crate::xdp) const PASSED: usize = 16;
    pub(in crate::xdp) const WORDS: usize = 32;
}

pub(super) mod record {
    pub(in crate::xdp) const TIME: usize = 0;
    pub(in crate::xdp) const KEY: usize = 1;
    pub(in crate::xdp) const SMALL: usize = 2;
    pub(in crate::xdp) const REQUEST: usize = 3;
    pub(in crate::xdp) const SEQUENCE: usize = 7;
    pub(in crate::xdp) const WORDS: usize = 8;
}

/// Number and allowance, end, request key, answer key.
pub(super) const KEY_WORDS: usize = 6;
