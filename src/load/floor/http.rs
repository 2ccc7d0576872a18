//! The floor of HTTP: the least a server can do on a ring. Multishot accept into direct descriptors,
//! multishot receive, one send entry an answer. Whatever comes in one piece counts as one request and
//! gets one fixed answer; nothing is parsed, looked up, counted or recorded.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;

use crate::sys::ring::{Group, Ring, RingOptions, Target};
use crate::sys::token::Token;

/// Most connections at a time.
const CONNECTIONS_MAX: u32 = 4_096;

/// Answers on `listener`, for ever.
///
/// # Errors
/// The kernel's.
pub(super) fn respond(listener: &TcpListener, answer: &[u8]) -> io::Result<()> {
    let mut ring = Ring::new(&RingOptions {
        submissions: 1_024,
        completions: 4_096,
        direct_max: CONNECTIONS_MAX,
        sends_max: CONNECTIONS_MAX,
        datagram_buffers: 1,
        datagram_len: 64,
        stream_buffers: 1_024,
        stream_len: 2_048,
    })?;
    // The bytes of each connection's answer, while they are not being sent.
    let mut answers: Vec<Vec<u8>> = vec![answer.to_vec(); CONNECTIONS_MAX as usize];
    ring.accept(listener.as_fd(), 0)?;
    loop {
        ring.enter_and_wait()?;
        while let Some(done) = ring.pop() {
            match done.token {
                Token::Accept { .. } => {
                    if let Ok(slot) = done.result {
                        ring.receive(Target::Direct(slot), slot, 0)?;
                    }
                    if !done.more {
                        ring.accept(listener.as_fd(), 0)?;
                    }
                }
                Token::Receive { slot, .. } => {
                    if let Some(buffer) = done.buffer {
                        ring.give_back(Group::Streams, buffer);
                    }
                    match done.result {
                        Ok(len) if len > 0 => {
                            let bytes = std::mem::take(&mut answers[slot as usize]);
                            ring.send(Target::Direct(slot), slot, 0, bytes, 0)?;
                            if !done.more {
                                ring.receive(Target::Direct(slot), slot, 0)?;
                            }
                        }
                        Err(libc::ENOBUFS) => ring.receive(Target::Direct(slot), slot, 0)?,
                        _ => ring.close_direct(slot)?,
                    }
                }
                Token::Send { slot, .. } => {
                    answers[slot as usize] = ring.take_sent(slot).unwrap_or_default();
                }
                _ => {}
            }
        }
    }
}
