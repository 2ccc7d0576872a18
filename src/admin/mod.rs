//! Health, counters and metrics over HTTP.
