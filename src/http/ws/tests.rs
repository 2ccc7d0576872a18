//! Against a model that is written the obvious way, and against tungstenite.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket};
use tungstenite::{Bytes, Message};

use super::*;
use crate::http::fuzz::{self, Owned, decode};
use crate::http::head::{self, Head};
use crate::limits::FEED_MESSAGE_LEN_MAX;

/// A frame as a server writes it.
fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![if fin { 0x80 | opcode } else { opcode }];
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=65_535 => {
            out.push(126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

fn error_of(bytes: &[u8]) -> Option<ProtocolError> {
    let whole = decode(bytes, &[]);
    let every: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(decode(bytes, &every), whole, "byte by byte");
    whole.1
}

#[test]
fn the_example_of_the_rfc_is_accepted() {
    let key = Key::new(*b"the sample nonce");
    assert_eq!(key.as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(key.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

fn answer(key: &Key) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n\
        sec-websocket-accept: {}\r\n\r\n",
        key.accept()
    )
}

#[test]
fn only_a_fitting_answer_opens_the_connection() {
    let key = Key::new([7; 16]);
    let good = answer(&key);
    let with_frame = format!("{good}\u{1}");
    assert_eq!(check_response(with_frame.as_bytes(), &key), Ok(Some(good.len())));
    for cut in 0..good.len() {
        assert_eq!(check_response(&good.as_bytes()[..cut], &key), Ok(None), "{cut}");
    }
    let other = Key::new([8; 16]);
    let check = |text: &str| check_response(text.as_bytes(), &key);
    assert_eq!(check_response(good.as_bytes(), &other), Err(UpgradeError::Header("Sec-WebSocket-Accept")));
    assert_eq!(check(&good.replace("WebSocket", "h2c")), Err(UpgradeError::Header("Upgrade")));
    assert_eq!(check(&good.replace(", Upgrade", "")), Err(UpgradeError::Header("Connection")));
    assert_eq!(check(&good.replace("HTTP/1.1", "HTTP/1.0")), Err(UpgradeError::NotHttp));
    assert_eq!(check("220 mail.example ESMTP\r\n"), Err(UpgradeError::NotHttp));
    assert_eq!(check(&"HTTP/1.1 101 x\r\na: b\r\n".repeat(3_000)), Err(UpgradeError::NotHttp));
    let extended = good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    assert_eq!(check(&extended), Err(UpgradeError::NotOffered("Sec-WebSocket-Extensions")));
    let refused = check("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the upgrade was answered 403 Forbidden, needs 101; this address may be refused there: try a \
        regional host"
    );
}

#[test]
fn whole_frames_are_borrowed_from_the_input() {
    let bytes = [frame(true, 1, b"one"), frame(true, 2, &[9; 300])].concat();
    let mut input = &bytes[..];
    let mut decoder = Decoder::new();
    let Ok(Some(Incoming::Text(text))) = decoder.next(&mut input) else { panic!() };
    assert_eq!((text, text.as_ptr()), ("one", bytes[2..].as_ptr()));
    let Ok(Some(Incoming::Binary(binary))) = decoder.next(&mut input) else { panic!() };
    assert_eq!((binary.len(), binary.as_ptr()), (300, bytes[9..].as_ptr()));
    assert_eq!(decoder.next(&mut input), Ok(None));
}

#[test]
fn fragments_are_put_together_around_control_frames() {
    let bytes = [
        frame(false, 1, "a\u{e9}".as_bytes().split_at(2).0),
        frame(true, 9, b"p"),
        frame(false, 0, b""),
        frame(true, 0, &"a\u{e9}".as_bytes()[2..]),
        frame(true, 10, b""),
        frame(true, 8, b"\x03\xe8bye"),
        b"what follows a close is not read".to_vec(),
    ]
    .concat();
    let expected = vec![
        Owned::Ping(b"p".to_vec()),
        Owned::Text("a\u{e9}".into()),
        Owned::Pong(Vec::new()),
        Owned::Close(Some(1000), "bye".into()),
    ];
    assert_eq!(error_of(&bytes), None);
    assert_eq!(decode(&bytes, &[]).0, expected);
}

#[test]
fn broken_frames_end_the_connection() {
    for (bytes, error) in [
        (vec![0xc1, 0], ProtocolError::ReservedBits),
        (vec![0x83, 0], ProtocolError::Opcode(3)),
        (vec![0x8b, 0], ProtocolError::Opcode(11)),
        (vec![0x81, 0x80, 0, 0, 0, 0], ProtocolError::Masked),
        (frame(false, 9, b""), ProtocolError::Control),
        (frame(true, 8, &[b'a'; 126]), ProtocolError::Control),
        (frame(true, 0, b""), ProtocolError::Continuation),
        ([frame(false, 1, b""), frame(true, 1, b"")].concat(), ProtocolError::Interrupted),
        (frame(true, 1, b"\xff"), ProtocolError::Utf8),
        ([frame(false, 1, b"\xc3"), frame(true, 0, b"")].concat(), ProtocolError::Utf8),
        (frame(true, 8, b"\x03"), ProtocolError::Close),
        (frame(true, 8, &1005_u16.to_be_bytes()), ProtocolError::Close),
        (frame(true, 8, &999_u16.to_be_bytes()), ProtocolError::Close),
        (frame(true, 8, b"\x03\xe8\xff"), ProtocolError::Utf8),
        (vec![0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], ProtocolError::TooLong),
        (
            [&[0x82, 127][..], &(FEED_MESSAGE_LEN_MAX as u64 + 1).to_be_bytes()].concat(),
            ProtocolError::TooLong,
        ),
    ] {
        assert_eq!(error_of(&bytes), Some(error), "{bytes:?}");
        assert!(matches!(error.close_code(), 1002 | 1007 | 1009));
        assert!(error.to_string().starts_with("WebSocket protocol error: "));
    }
}

#[test]
fn messages_are_bounded_also_in_fragments() {
    let half = vec![b'x'; FEED_MESSAGE_LEN_MAX / 2];
    let just = [frame(false, 2, &half), frame(true, 0, &half)].concat();
    assert_eq!(decode(&just, &[7, 70_000]).0, [Owned::Binary([&half[..], &half].concat())]);
    let over = [frame(false, 2, &half), frame(false, 0, &half), frame(true, 0, b"x")].concat();
    assert_eq!(decode(&over, &[]), (Vec::new(), Some(ProtocolError::TooLong)));
}

/// A stream in memory: reads what was given, keeps what is written.
#[derive(Default)]
struct Memory {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.input.len());
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..len].copy_from_slice(&self.input[..len]);
        self.input.drain(..len);
        Ok(len)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn tungstenite_accepts_our_upgrade_and_we_its_answer() {
    let key = Key::new([42; 16]);
    let mut request = Vec::new();
    write_request(&mut request, "stream.example:8443", "/ws?v=1", &key);
    let Head::Complete { request: parsed, .. } = head::parse(&request) else { panic!() };
    assert_eq!((parsed.path, parsed.query), (&b"/ws"[..], &b"v=1"[..]));
    let server = tungstenite::accept(Memory { input: request, output: Vec::new() }).unwrap();
    let output = &server.get_ref().output;
    assert_eq!(check_response(output, &key), Ok(Some(output.len())));
}

fn any_message() -> impl Strategy<Value = Owned> {
    let long = |lens: std::ops::Range<usize>| lens.prop_map(|len| "x".repeat(len));
    let text = prop_oneof![4 => any::<String>(), 4 => long(120..140), 1 => long(65_530..65_540)];
    prop_oneof![
        text.prop_map(Owned::Text),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Owned::Binary),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Owned::Ping),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Owned::Pong),
    ]
}

/// Frames of a message, cut into fragments at `cuts`, pings between them.
fn fragmented(message: &Owned, cuts: &[usize]) -> (Vec<u8>, Vec<Owned>) {
    let (opcode, payload) = match message {
        Owned::Text(text) => (1, text.as_bytes()),
        Owned::Binary(bytes) => (2, &bytes[..]),
        Owned::Ping(bytes) => return (frame(true, 9, bytes), vec![message.clone()]),
        Owned::Pong(bytes) => return (frame(true, 10, bytes), vec![message.clone()]),
        Owned::Close(..) => return (frame(true, 8, b""), vec![Owned::Close(None, String::new())]),
    };
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut bytes, mut expected, mut from, mut opcode) = (Vec::new(), Vec::new(), 0, opcode);
    for cut in cuts {
        bytes.extend(frame(false, opcode, &payload[from..cut]));
        bytes.extend(frame(true, 9, b"between"));
        expected.push(Owned::Ping(b"between".to_vec()));
        (from, opcode) = (cut, 0);
    }
    bytes.extend(frame(true, opcode, &payload[from..]));
    expected.push(message.clone());
    (bytes, expected)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        messages in proptest::collection::vec((any_message(), proptest::collection::vec(any::<usize>(), 0..3)), 0..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (message, fragments) in &messages {
            let (frames, incoming) = fragmented(message, fragments);
            bytes.extend(frames);
            expected.extend(incoming);
        }
        prop_assert_eq!(decode(&bytes, &cuts), (expected, None));
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        fuzz::ws_frames_cut(&bytes, &cuts);
    }

    #[test]
    fn nearly_right_bytes_are_survived(
        frames in proptest::collection::vec((any::<bool>(), 0_u8..12, proptest::collection::vec(any::<u8>(), 0..130)), 0..6),
        flip in proptest::option::of((any::<usize>(), 0_u8..8)),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(fin, op, payload)| frame(*fin, *op, payload)).collect();
        if let Some((at, bit)) = flip && !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        fuzz::ws_frames_cut(&bytes, &cuts);
    }

    #[test]
    fn tungstenite_reads_what_we_write(messages in proptest::collection::vec(any_message(), 0..4), mask: [u8; 4]) {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for message in &messages {
            match message {
                Owned::Text(text) => {
                    write_text(&mut out, text, mask);
                    expected.push(Message::text(text.clone()));
                }
                Owned::Ping(bytes) => {
                    write_ping(&mut out, bytes, mask);
                    expected.push(Message::Ping(Bytes::copy_from_slice(bytes)));
                }
                Owned::Pong(bytes) => {
                    write_pong(&mut out, bytes, mask);
                    expected.push(Message::Pong(Bytes::copy_from_slice(bytes)));
                }
                Owned::Binary(_) | Owned::Close(..) => {}
            }
        }
        write_close(&mut out, 1000, mask);
        expected.push(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })));
        let memory = Memory { input: out, output: Vec::new() };
        let mut server = WebSocket::from_raw_socket(memory, Role::Server, None);
        for message in expected {
            prop_assert_eq!(server.read().unwrap(), message);
        }
    }

    #[test]
    fn we_read_what_tungstenite_writes(
        messages in proptest::collection::vec(any_message(), 0..4),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut server = WebSocket::from_raw_socket(Memory::default(), Role::Server, None);
        for message in &messages {
            server.send(match message.clone() {
                Owned::Text(text) => Message::text(text),
                Owned::Binary(bytes) => Message::binary(bytes),
                Owned::Ping(bytes) => Message::Ping(bytes.into()),
                Owned::Pong(bytes) => Message::Pong(bytes.into()),
                Owned::Close(..) => Message::Close(None),
            }).unwrap();
        }
        server.close(Some(CloseFrame { code: CloseCode::Again, reason: "restart".into() })).unwrap();
        let mut expected = messages;
        expected.push(Owned::Close(Some(1013), "restart".into()));
        prop_assert_eq!(decode(&server.get_ref().output, &cuts), (expected, None));
    }
}
