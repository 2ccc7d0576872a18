//! Work beside the answer path, on one tokio runtime.
