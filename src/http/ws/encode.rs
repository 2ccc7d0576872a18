//! Frames of the client: always whole, always masked.

use super::decode::CONTROL_LEN_MAX;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Appends a text message.
pub fn write_text(out: &mut Vec<u8>, text: &str, mask: [u8; 4]) {
    write(out, TEXT, text.as_bytes(), mask);
}

/// Appends a ping; only the first 125 bytes of `payload` fit one.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    write(out, PING, payload.get(..CONTROL_LEN_MAX).unwrap_or(payload), mask);
}

/// Appends the answer to a ping with this payload.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    write(out, PONG, payload.get(..CONTROL_LEN_MAX).unwrap_or(payload), mask);
}

/// Appends a close with a code and no reason.
pub fn write_close(out: &mut Vec<u8>, code: u16, mask: [u8; 4]) {
    write(out, CLOSE, &code.to_be_bytes(), mask);
}

fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    const FIN: u8 = 0x80;
    const MASKED: u8 = 0x80;
    out.push(FIN | opcode);
    if let Ok(len @ 0..=125) = u8::try_from(payload.len()) {
        out.push(MASKED | len);
    } else if let Ok(len) = u16::try_from(payload.len()) {
        out.push(MASKED | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}
