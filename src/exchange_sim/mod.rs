//! Exchanges on loopback.
