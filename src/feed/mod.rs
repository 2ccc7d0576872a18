//! Exchange feeds: rows of data, extraction, connections, health.

mod frame;
mod path;
mod row;
mod trade_time;

pub use frame::{Frame, Refused, Trade};
pub use row::{Order, REQUEST_ID_FIRST, RestRow, Row, RowError};
pub use trade_time::TimeFormat;
