//! Fuzz bodies of what people type: tokens and networks.

use super::token::{CHECKED_LEN, public_id, with_checksum};
use super::{Network, NetworkError, PUBLIC_TEXT_LEN, TOKEN_LEN, Token, TokenError};

/// A token has one text, names its key, and is never shown; a text with a right checksum is no
/// checksum error. Tries the bytes as they are, and with the checksum set right.
pub fn token(bytes: &[u8]) {
    let _ = one_token(bytes);
    if let Some(Ok(checked)) = bytes.get(..CHECKED_LEN).map(std::str::from_utf8) {
        let text = with_checksum(checked);
        assert_ne!(one_token(text.as_bytes()), Err(TokenError::Checksum), "{text:?}");
    }
}

fn one_token(bytes: &[u8]) -> Result<Token, TokenError> {
    let parsed = Token::parse(bytes);
    match &parsed {
        Ok(token) => {
            assert_eq!(token.reveal().as_bytes(), bytes);
            assert_eq!(public_id(bytes), Some(token.public_id()));
            let secret = String::from_utf8_lossy(&bytes[PUBLIC_TEXT_LEN..]);
            assert!(!format!("{token} {token:?}").contains(secret.as_ref()));
        }
        Err(TokenError::Checksum) => assert_eq!(bytes.len(), TOKEN_LEN),
        Err(TokenError::Malformed) => {}
    }
    parsed
}

/// A network is written as it is read again and holds its own first address; a network that is
/// suggested in place of a wrong one can be used.
pub fn network(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Network>() {
        Ok(network) => {
            let written = network.to_string();
            assert_eq!(written.parse(), Ok(network));
            let first = written.split('/').next().unwrap_or_default();
            assert!(first.parse().is_ok_and(|first| network.contains(first)), "{text:?} {written}");
        }
        Err(NetworkError::HostBits(found, meant)) => {
            assert_eq!(found, text);
            assert_eq!(meant.to_string().parse(), Ok(meant), "{text:?}");
        }
        Err(NetworkError::Malformed(found)) => assert_eq!(found, text),
    }
}
