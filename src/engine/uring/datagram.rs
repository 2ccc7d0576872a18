//! The parts of a received datagram's buffer, as the kernel lays them out.
//!
//! ```text
//! [ name len | control len | payload len | flags ][ source address ][ control ][ payload … ]
//!   4 bytes each, native order                      28 bytes          0 or 40
//! ```

use crate::limits::UDP_PAYLOAD_MAX;
use crate::sys::mmsg::RECEIVE_LEN;
use crate::sys::net::{Address, Control};
use crate::sys::ring::DatagramLayout;

const _: () = assert!(RECEIVE_LEN >= UDP_PAYLOAD_MAX);

/// A look into a received datagram's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramView<'buffer> {
    buffer: &'buffer [u8],
    payload_at: usize,
}

impl<'buffer> DatagramView<'buffer> {
    /// A buffer the kernel filled for a socket `with_control` messages or without; `None` when it is
    /// too short to be one.
    pub(super) fn new(buffer: &'buffer [u8], with_control: bool) -> Option<Self> {
        let payload_at = DatagramLayout::payload(with_control);
        (buffer.len() >= payload_at).then_some(Self { buffer, payload_at })
    }

    /// The payload, at most [`RECEIVE_LEN`] bytes of it.
    pub(super) fn payload(&self) -> &'buffer [u8] {
        let len = self.word(2).min(RECEIVE_LEN).min(self.buffer.len() - self.payload_at);
        &self.buffer[self.payload_at..self.payload_at + len]
    }

    /// Whether the payload was longer than what is here.
    pub(super) fn truncated(&self) -> bool {
        self.word(2) > self.payload().len()
    }

    /// Where it came from.
    pub(super) fn source(&self) -> Address {
        let len = self.word(0).min(DatagramLayout::CONTROL - DatagramLayout::NAME);
        Address::from_kernel(&self.buffer[DatagramLayout::NAME..DatagramLayout::NAME + len])
    }

    /// The control messages that say where it was sent to.
    pub(super) fn control(&self) -> &'buffer [u8] {
        let len = self.word(1).min(self.payload_at - DatagramLayout::CONTROL).min(Control::LEN);
        &self.buffer[DatagramLayout::CONTROL..DatagramLayout::CONTROL + len]
    }

    fn word(&self, index: usize) -> usize {
        let word = self.buffer.get(index * 4..index * 4 + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        word.map_or(0, |b| u32::from_ne_bytes(b) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..3_000),
            with_control in any::<bool>(),
        ) {
            if let Some(view) = DatagramView::new(&bytes, with_control) {
                prop_assert!(view.payload().len() <= RECEIVE_LEN);
                prop_assert!(view.control().len() <= Control::LEN);
                let _ = (view.truncated(), view.source().socket_addr(), Control::destination(view.control()));
            } else {
                prop_assert!(bytes.len() < DatagramLayout::payload(with_control));
            }
        }
    }
}
