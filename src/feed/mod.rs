//! Exchange feeds: rows of data, extraction, connections, health.
