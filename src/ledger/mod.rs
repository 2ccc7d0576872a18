//! The usage record and its place before the send.
