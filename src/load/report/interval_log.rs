//! The histogram log, V2 and deflated, one line an interval, as HdrHistogram's own tools read it.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use crate::load::result::RunResult;

/// The maxima in the text of a log are for people: milliseconds.
const NS_PER_MS: f64 = 1e6;

/// Writes a run's intervals, oldest first.
///
/// # Errors
/// Those of `out`; `InvalidData` when a histogram of the run cannot be decoded.
pub fn write_log(run: &RunResult, out: &mut impl Write) -> io::Result<()> {
    let started = UNIX_EPOCH + Duration::from_millis(run.started_unix_ms);
    let mut serializer = V2DeflateSerializer::new();
    let failed = |e| match e {
        IntervalLogWriterError::IoError(e) => e,
        IntervalLogWriterError::SerializeError(e) => {
            io::Error::other(format!("a histogram cannot be encoded: {e:?}"))
        }
    };
    let caption = run.setup.loop_kind.caption();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[{}, {caption}; values in nanoseconds, Interval_Max in ms]", run.name))
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(out, &mut serializer)?;
    let length = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
    for interval in &run.intervals {
        let histogram = interval.latency.decode().map_err(super::invalid)?;
        log.write_histogram(&histogram, length(interval.start_s), length(interval.length_s), None)
            .map_err(failed)?;
    }
    Ok(())
}
