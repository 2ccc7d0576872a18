//! Why somebody gets no report.

use std::fmt;

/// For the one who asked: an error's name and HTTP status, and what was found, what is needed and what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status over HTTP.
    pub status: u16,
    /// The error's name.
    pub error: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A parameter cannot be used.
    #[must_use]
    pub fn parameter(message: String) -> Self {
        Self { status: 400, error: "bad_request", message }
    }

    /// The caller is known and may not.
    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self { status: 403, error: "forbidden", message: message.to_owned() }
    }

    /// Nobody knows the caller.
    #[must_use]
    pub fn unauthorized(message: &str) -> Self {
        Self { status: 401, error: "unauthorized", message: message.to_owned() }
    }

    /// It may work later, or with less.
    #[must_use]
    pub fn overloaded(message: &str) -> Self {
        Self { status: 503, error: "overloaded", message: message.to_owned() }
    }

    /// The store or the journal cannot be read; the operator finds the cause in the message.
    #[must_use]
    pub fn unavailable(message: String) -> Self {
        Self { status: 503, error: "unavailable", message }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
