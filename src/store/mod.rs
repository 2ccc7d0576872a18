//! What is kept: SQLite by default.
