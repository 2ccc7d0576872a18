//! Health, counters and metrics over HTTP, on ports of their own: what an operator, a load balancer
//! or Prometheus asks a running process.
//!
//! ```text
//! shards ── Published ──┐            ┌─► /live     is it stuck?
//! stages, engine, feeds ┼─► Facts ───┼─► /ready    may it get traffic, and if not, why?
//! sources of metrics ───┘            ├─► /metrics  all counters, for Prometheus
//!                                    └─► /books    does every request end in one counter?
//! ```
//!
//! Nothing here is on the answer path: it reads what the shards publish and never waits for them.

mod books;
mod facts;
mod metrics;
mod process;
mod server;

pub use books::{Books, books};
pub use facts::{Facts, Feed, Reason, Stage};
pub use metrics::{Kind, MetricsText};
pub use server::{BindError, bind, serve, serve_router};
