//! Every decoder of outside bytes with the body that tries it: what `tests/corpora.rs` runs over
//! `tests/corpus/` and `fuzz/` runs for as long as one likes. The rooms own the bodies.

use crate::{account, config, feed, http, ledger, price, report, wire};

/// A fuzz body: any bytes in, nothing panics, what must hold holds.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Its folder in `tests/corpus/` and its target in `fuzz/`.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
}

/// All bodies, by room.
pub const BODIES: &[Body] = &[
    Body { name: "decimal", run: price::fuzz::decimal },
    Body { name: "json", run: wire::fuzz::json },
    Body { name: "v1", run: wire::fuzz::v1 },
    Body { name: "v2", run: wire::fuzz::v2 },
    Body { name: "head", run: http::fuzz::head },
    Body { name: "query", run: http::fuzz::query },
    Body { name: "ws_frames", run: http::fuzz::ws_frames },
    Body { name: "upgrade", run: http::fuzz::upgrade },
    Body { name: "token", run: account::fuzz::token },
    Body { name: "network", run: account::fuzz::network },
    Body { name: "segment", run: ledger::fuzz::segment },
    Body { name: "message", run: feed::fuzz::message },
    Body { name: "rest", run: feed::fuzz::rest },
    Body { name: "connection", run: feed::fuzz::connection },
    Body { name: "rows", run: feed::fuzz::rows },
    Body { name: "assets", run: feed::fuzz::assets },
    Body { name: "config", run: config::fuzz::file },
    Body { name: "report_cursor", run: report::fuzz::report_cursor },
    Body { name: "report_query", run: report::fuzz::report_query },
    Body { name: "report_datagram", run: report::fuzz::report_datagram },
];
