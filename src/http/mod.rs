//! HTTP/1.1 heads and WebSocket frames: pure functions over bytes.
