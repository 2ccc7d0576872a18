//! The token a client holds, and what is derived from its secret.
//!
//! ```text
//!   tb_ 0123456789abc 0123456789abcdefghjkmnpqrs 0123456
//!   └3┘ └─── 13 ────┘ └────────── 26 ──────────┘ └─ 7 ─┘   characters
//!       public id      secret                     CRC-32
//!       64 bits        128 bits                   of the 42 characters before it
//! ```
//!
//! Each number is big-endian in Crockford's base 32, lower case, zero bits padded on the left, so
//! that a token has exactly one text. The checksum is there for people: it tells a mistyped token
//! from an unknown one without asking anybody.

use std::fmt;

use aws_lc_rs::{constant_time, digest, error::Unspecified, hmac, rand};

use crate::limits::TOKEN_LEN_MAX;

/// Length of a token's text, in bytes.
pub const TOKEN_LEN: usize = CHECKED_LEN + CHECKSUM_DIGITS;

/// Length of the part of a token's text that names the key and is no secret, in bytes.
pub const PUBLIC_TEXT_LEN: usize = PREFIX.len() + PUBLIC_DIGITS;

const PREFIX: &[u8; 3] = b"tb_";
const PUBLIC_DIGITS: usize = 13;
const SECRET_DIGITS: usize = 26;
const CHECKSUM_DIGITS: usize = 7;
pub(super) const CHECKED_LEN: usize = PUBLIC_TEXT_LEN + SECRET_DIGITS;

const _: () = assert!(TOKEN_LEN == 49 && TOKEN_LEN <= TOKEN_LEN_MAX);

/// A key as its owner holds it. Neither `Debug` nor `Display` shows the secret; only
/// [`reveal`](Self::reveal) does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    public_id: u64,
    secret: [u8; 16],
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It does not have the shape of one.
    Malformed,
    /// It has the shape, but the checksum differs: a character was lost or mistyped.
    Checksum,
}

/// SHA-256 of a secret: what is stored of it.
#[derive(Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

/// A key of the v2 protocol: 16 bytes, derived from the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct V2Key(pub [u8; 16]);

impl Token {
    /// A new one from the machine's randomness.
    ///
    /// # Errors
    /// The machine has no randomness to give.
    pub fn generate() -> Result<Self, Unspecified> {
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        rand::fill(&mut id)?;
        rand::fill(&mut secret)?;
        Ok(Self { public_id: u64::from_be_bytes(id), secret })
    }

    /// Reads a token's text, strictly: one text for each token.
    ///
    /// # Errors
    /// The shape is wrong, or the checksum.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let public_id = public_id(text).ok_or(TokenError::Malformed)?;
        let (checked, checksum) = text.split_at_checked(CHECKED_LEN).ok_or(TokenError::Malformed)?;
        let secret = checked.get(PUBLIC_TEXT_LEN..).and_then(|digits| decode(digits, 128));
        let (Some(secret), Some(checksum)) = (secret, decode(checksum, 32)) else {
            return Err(TokenError::Malformed);
        };
        if u128::from(crc32(checked)) != checksum {
            return Err(TokenError::Checksum);
        }
        Ok(Self { public_id, secret: secret.to_be_bytes() })
    }

    /// The number that names the key to everybody.
    #[must_use]
    pub fn public_id(&self) -> u64 {
        self.public_id
    }

    /// The whole text, secret included: for the one moment its owner is shown it.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut text = public_text(self.public_id);
        encode(u128::from_be_bytes(self.secret), SECRET_DIGITS, &mut text);
        encode(u128::from(crc32(text.as_bytes())), CHECKSUM_DIGITS, &mut text);
        text
    }

    /// What is stored of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.secret).as_ref());
        SecretHash(hash)
    }

    /// The key under which a v2 client tags its requests.
    #[must_use]
    pub fn v2_request_key(&self) -> V2Key {
        self.derive(b"beast v2 request")
    }

    /// The key under which v2 answers are tagged.
    #[must_use]
    pub fn v2_answer_key(&self) -> V2Key {
        self.derive(b"beast v2 answer")
    }

    fn derive(&self, label: &[u8]) -> V2Key {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), label);
        let mut key = [0; 16];
        key.copy_from_slice(&tag.as_ref()[..16]);
        V2Key(key)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", public_text(self.public_id))
    }
}

impl SecretHash {
    /// Whether both are hashes of one secret, in a time that does not tell where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

impl fmt::Debug for V2Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("V2Key(redacted)")
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a key: a key is tb_ and 46 lower-case letters and digits",
            Self::Checksum => {
                "not a key as it was handed out: a character was lost or mistyped, copy it again"
            }
        })
    }
}

impl std::error::Error for TokenError {}

/// The part of a token's text that names its key: `tb_` and 13 characters.
#[must_use]
pub fn public_text(public_id: u64) -> String {
    let mut text = String::with_capacity(TOKEN_LEN);
    text.push_str("tb_");
    encode(u128::from(public_id), PUBLIC_DIGITS, &mut text);
    text
}

/// The public id of a text that may be a token, from its length, prefix and first digits alone.
#[inline]
pub(super) fn public_id(text: &[u8]) -> Option<u64> {
    let text: &[u8; TOKEN_LEN] = text.try_into().ok()?;
    let (prefix, rest) = text.split_at(PREFIX.len());
    if prefix != PREFIX {
        return None;
    }
    decode(&rest[..PUBLIC_DIGITS], 64).and_then(|id| u64::try_from(id).ok())
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What each byte stands for, 255 for those that stand for nothing.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 32 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// The number that `digits` write, when it has at most `bits` bits. At most 26 digits.
#[inline]
fn decode(digits: &[u8], bits: u32) -> Option<u128> {
    let mut number = 0_u128;
    let mut seen = 0_u8;
    let (first, rest) = digits.split_first()?;
    for digit in rest {
        let value = VALUES[usize::from(*digit)];
        seen |= value;
        number = number << 5 | u128::from(value & 31);
    }
    // Only the first digit reaches into the padding, and only its low bits are part of the number.
    let first = VALUES[usize::from(*first)];
    let below = 5 * u32::try_from(rest.len()).ok()?;
    let room = bits.checked_sub(below)?;
    let fits = room >= 5 || first >> room == 0;
    (seen < 32 && first < 32 && fits).then_some(number | u128::from(first) << below)
}

fn encode(number: u128, digits: usize, text: &mut String) {
    for at in (0..digits).rev() {
        let value = (number >> (5 * at)) & 31;
        text.push(char::from(ALPHABET[value as usize]));
    }
}

/// The first 42 characters of `text` with the checksum that belongs to them. For tests.
pub(super) fn with_checksum(text: &str) -> String {
    let mut text = text[..CHECKED_LEN].to_owned();
    encode(u128::from(crc32(text.as_bytes())), CHECKSUM_DIGITS, &mut text);
    text
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::account::fuzz;

    fn token(public_id: u64, secret: u128) -> Token {
        Token { public_id, secret: secret.to_be_bytes() }
    }

    #[test]
    fn a_worked_example() {
        // The secret and the id were chosen by hand; checksum and keys come from Python's zlib,
        // hashlib and hmac.
        let example = token(0x0123_4567_89ab_cdef, 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        assert_eq!(example.reveal(), EXAMPLE_TEXT);
        assert_eq!(Token::parse(EXAMPLE_TEXT.as_bytes()), Ok(example));
        assert_eq!(hex(&example.secret_hash().0), EXAMPLE_HASH);
        assert_eq!(hex(&example.v2_request_key().0), EXAMPLE_REQUEST_KEY);
        assert_eq!(hex(&example.v2_answer_key().0), EXAMPLE_ANSWER_KEY);
    }

    const EXAMPLE_TEXT: &str = "tb_028t5cy4tqkff00041061050r3gg28a1c60t3gf2nhhpc6";
    const EXAMPLE_HASH: &str = "be45cb2605bf36bebde684841a28f0fd43c69850a3dce5fedba69928ee3a8991";
    const EXAMPLE_REQUEST_KEY: &str = "cf727f145168a140526225b23594c27a";
    const EXAMPLE_ANSWER_KEY: &str = "f1761e4f000a4838bcf8f94348d01f24";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn tokens_are_all_different_and_never_shown() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.public_id(), other.public_id());
        assert_ne!(one.secret, other.secret);
        assert_ne!(one.v2_request_key(), one.v2_answer_key());
        assert!(!one.secret_hash().matches(&other.secret_hash()));
        let secret = &one.reveal()[PUBLIC_TEXT_LEN..];
        let shown = format!("{one} {one:?} {:?} {:?}", one.secret_hash(), one.v2_request_key());
        assert!(!shown.contains(secret) && shown.contains("redacted"), "{shown}");
        assert!(shown.starts_with(&one.reveal()[..PUBLIC_TEXT_LEN]));
    }

    #[test]
    fn a_token_has_one_text() {
        let text = token(7, 7).reveal();
        for (at, digit) in [(3, "g"), (3, "z"), (16, "8"), (16, "z")] {
            let mut padded = text.clone();
            padded.replace_range(at..=at, digit);
            assert_eq!(Token::parse(with_checksum(&padded).as_bytes()), Err(TokenError::Malformed));
        }
        assert_eq!(with_checksum(&text), text);
    }

    #[test]
    fn the_shape_is_strict() {
        let text = token(u64::MAX, u128::MAX).reveal();
        assert!(text.starts_with("tb_fzzzzzzzzzzzz7zzzz"), "{text}");
        let wrong = [
            String::new(),
            text[..48].to_owned(),
            format!("{text}0"),
            text.to_uppercase(),
            text.replace("tb_", "tc_"),
            text.replace("tb_f", "tb_g"),
            text.replace("zz7z", "zz8z"),
            text.replace("zz7z", "zzuz"),
            text.replace("zz7z", "zzlz"),
            format!("{}{}", &text[..42], "4000000"),
        ];
        for wrong in wrong {
            assert_eq!(Token::parse(wrong.as_bytes()), Err(TokenError::Malformed), "{wrong}");
        }
        assert!(TokenError::Checksum.to_string().contains("mistyped"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(public_id: u64, secret: u128) {
            let token = token(public_id, secret);
            let text = token.reveal();
            prop_assert_eq!(text.len(), TOKEN_LEN);
            prop_assert_eq!(Token::parse(text.as_bytes()), Ok(token));
            prop_assert_eq!(super::public_id(text.as_bytes()), Some(public_id));
        }

        #[test]
        fn one_changed_byte_is_always_noticed(public_id: u64, secret: u128, at in 0..TOKEN_LEN, byte: u8) {
            let text = token(public_id, secret).reveal().into_bytes();
            let mut changed = text.clone();
            changed[at] = byte;
            prop_assert_eq!(Token::parse(&changed).is_ok(), changed == text);
        }

        #[test]
        fn one_changed_digit_is_always_noticed(public_id: u64, secret: u128, at in 3..TOKEN_LEN, value in 0..32_usize) {
            let text = token(public_id, secret).reveal().into_bytes();
            let mut changed = text.clone();
            changed[at] = ALPHABET[value];
            prop_assert_eq!(Token::parse(&changed).is_ok(), changed == text);
        }

        #[test]
        fn arbitrary_bytes_are_no_token(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Token::parse(&bytes).is_err());
            fuzz::token(&bytes);
        }

        #[test]
        fn nearly_tokens_are_survived(text in "tb_[0-9a-hj-km-np-tv-z]{39}[0-9a-z]{0,8}") {
            fuzz::token(text.as_bytes());
        }
    }
}
