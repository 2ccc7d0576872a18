//! The floor of UDP: the least a server can do for a datagram on these system calls. It takes a batch
//! with `recvmmsg`, copies each request's first 8 bytes in front of fixed ones, and sends the batch
//! with `sendmmsg`. Nothing is parsed, looked up, counted or recorded.

use std::io;
use std::net::UdpSocket;

use super::Wait;
use crate::limits::{RECV_BATCH_LEN, UDP_PAYLOAD_MAX};
use crate::load::Echo;
use crate::sys::mmsg::{ReceiveBatch, SendBatch};

/// Answers on `socket`, for ever.
///
/// # Errors
/// The kernel's.
pub(super) fn echo(socket: &UdpSocket, answer_len: usize, wait: Wait) -> io::Result<()> {
    let answer_len = answer_len.clamp(Echo::ID_LEN, UDP_PAYLOAD_MAX);
    let mut received = ReceiveBatch::new(RECV_BATCH_LEN);
    let mut answers = SendBatch::new(RECV_BATCH_LEN);
    // Slots keep what is written to them, so the fixed part is written once.
    answers.fill(Echo::ANSWER_FILL);
    socket.set_nonblocking(wait == Wait::Spin)?;
    loop {
        let taken = match wait {
            Wait::Block => received.receive_waiting(socket, RECV_BATCH_LEN),
            Wait::Spin => received.receive(socket, RECV_BATCH_LEN),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        for slot in 0..taken {
            let Some(id) = received.payload(slot).first_chunk::<{ Echo::ID_LEN }>() else { continue };
            answers.room()[..Echo::ID_LEN].copy_from_slice(id);
            answers.push(received.source(slot), None, answer_len);
        }
        while !answers.is_empty() {
            if answers.send(socket).is_err() {
                answers.skip();
            }
        }
    }
}
