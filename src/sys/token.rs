//! What a completion of a ring is about: one enum, carried through the kernel as 64 bits.
//!
//! ```text
//!  63      56 55                32 31                     0
//! [   kind   |  socket or slot    |      generation        ]
//! ```

/// Slots and socket numbers stay below this: they have 24 bits of a token.
pub const TOKEN_INDEX_MAX: u32 = 1 << 24;

/// One operation given to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// A multishot receive of datagrams on a socket.
    Datagrams {
        /// Number of the socket.
        socket: u8,
    },
    /// One datagram sent as an entry of the ring; only failures complete.
    DatagramSend {
        /// Number of the socket.
        socket: u8,
    },
    /// A multishot accept on a listener.
    Accept {
        /// Number of the listener.
        listener: u8,
    },
    /// A multishot receive on a connection.
    Receive {
        /// Its slot.
        slot: u32,
        /// Which connection of that slot.
        generation: u32,
    },
    /// A send on a connection.
    Send {
        /// Its slot.
        slot: u32,
        /// Which connection of that slot.
        generation: u32,
    },
    /// The closing of a direct descriptor; only failures complete.
    Close {
        /// The descriptor.
        slot: u32,
    },
    /// The cancelling of another operation; only failures complete.
    Cancel,
    /// The timer that ends a wait.
    Deadline,
    /// A change of that timer.
    DeadlineUpdate,
}

impl Token {
    /// As the kernel carries it.
    #[must_use]
    pub(super) fn encode(self) -> u64 {
        let (kind, index, generation) = match self {
            Self::Datagrams { socket } => (1, u32::from(socket), 0),
            Self::DatagramSend { socket } => (2, u32::from(socket), 0),
            Self::Accept { listener } => (3, u32::from(listener), 0),
            Self::Receive { slot, generation } => (4, slot, generation),
            Self::Send { slot, generation } => (5, slot, generation),
            Self::Close { slot } => (6, slot, 0),
            Self::Cancel => (7, 0, 0),
            Self::Deadline => (8, 0, 0),
            Self::DeadlineUpdate => (9, 0, 0),
        };
        assert!(index < TOKEN_INDEX_MAX, "a slot has 24 bits");
        kind << 56 | u64::from(index) << 32 | u64::from(generation)
    }

    /// Back from the kernel; `None` for what [`encode`](Self::encode) never makes.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the fields are meant to be cut apart")]
    pub(super) fn decode(data: u64) -> Option<Self> {
        let (slot, generation) = ((data >> 32) as u32 % TOKEN_INDEX_MAX, data as u32);
        let number = slot as u8;
        let token = match data >> 56 {
            1 => Self::Datagrams { socket: number },
            2 => Self::DatagramSend { socket: number },
            3 => Self::Accept { listener: number },
            4 => Self::Receive { slot, generation },
            5 => Self::Send { slot, generation },
            6 => Self::Close { slot },
            7 => Self::Cancel,
            8 => Self::Deadline,
            9 => Self::DeadlineUpdate,
            _ => return None,
        };
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_token() -> impl Strategy<Value = Token> {
        let slot = 0..TOKEN_INDEX_MAX;
        prop_oneof![
            any::<u8>().prop_map(|socket| Token::Datagrams { socket }),
            any::<u8>().prop_map(|socket| Token::DatagramSend { socket }),
            any::<u8>().prop_map(|listener| Token::Accept { listener }),
            (slot.clone(), any::<u32>()).prop_map(|(slot, generation)| Token::Receive { slot, generation }),
            (slot.clone(), any::<u32>()).prop_map(|(slot, generation)| Token::Send { slot, generation }),
            slot.prop_map(|slot| Token::Close { slot }),
            Just(Token::Cancel),
            Just(Token::Deadline),
            Just(Token::DeadlineUpdate),
        ]
    }

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_went(token in any_token()) {
            prop_assert_eq!(Token::decode(token.encode()), Some(token));
        }

        #[test]
        fn two_tokens_never_look_the_same(a in any_token(), b in any_token()) {
            prop_assert_eq!(a == b, a.encode() == b.encode());
        }

        #[test]
        fn any_bits_decode_or_are_refused(data in any::<u64>()) {
            if let Some(token) = Token::decode(data) {
                prop_assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
    }
}
