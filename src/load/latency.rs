//! Latencies as they are kept and passed on: a whole histogram in few bytes, with what people ask of
//! it beside it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart, in nanoseconds: a minute.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds, 1 to [`LATENCY_NS_MAX`] in [`LATENCY_DIGITS`] digits. It takes
/// 220 KiB however much is recorded.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    // The bounds are right by their constants: 1 ≤ low, 2 × low ≤ high, 0..=5 digits.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
        .unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// Records a latency; one beyond the bounds counts as the longest.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(ns.max(1));
}

/// A histogram of latencies at full resolution, and the figures people ask for. Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were recorded. The other figures are 0 when none was.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Standard deviation.
    pub stdev_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90 of 100 were at most this.
    pub p90_ns: u64,
    /// 99 of 100.
    pub p99_ns: u64,
    /// 999 of 1,000.
    pub p999_ns: u64,
    /// 9,999 of 10,000.
    pub p9999_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// The histogram: HdrHistogram's V2 encoding, compressed by zlib, in base64.
    pub histogram: String,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self { histogram: encode(histogram), ..Self::default() };
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            stdev_ns: histogram.stdev(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
            histogram: encode(histogram),
        }
    }

    /// The histogram, nanoseconds.
    ///
    /// # Errors
    /// When [`histogram`](Self::histogram) holds something else, with the reason.
    pub fn decode(&self) -> Result<Histogram<u64>, String> {
        decode(&self.histogram)
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Memory takes all that is written, and our counts are far from the encoding's bounds.
    let _len = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    BASE64.encode(bytes)
}

fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64.decode(text).map_err(|e| format!("the histogram is not base64: {e}"))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| format!("the histogram cannot be read: {e:?}"))
}

/// Histograms inside what passes between processes.
pub(crate) mod as_text {
    use hdrhistogram::Histogram;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        histogram: &Histogram<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::encode(histogram))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = super::decode(&text).map_err(serde::de::Error::custom)?;
        let mut whole = super::histogram();
        whole.add(&read).map_err(serde::de::Error::custom)?;
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_recorded_comes_back(values in prop::collection::vec(0_u64..=u64::MAX, 0..200)) {
            let mut whole = histogram();
            for ns in values {
                record(&mut whole, Duration::from_nanos(ns));
            }
            let latency = Latency::of(&whole);
            let read = latency.decode().unwrap();
            prop_assert_eq!(&read, &whole);
            prop_assert_eq!(latency.count, whole.len());
            let text = serde_json::to_string(&latency).unwrap();
            prop_assert_eq!(serde_json::from_str::<Latency>(&text).unwrap(), latency);
        }

        #[test]
        fn what_is_no_histogram_is_refused(bytes: Vec<u8>) {
            let latency = Latency { histogram: BASE64.encode(bytes), ..Latency::default() };
            prop_assert!(latency.decode().is_err());
        }
    }

    #[test]
    fn latencies_are_told_apart_to_a_thousandth() {
        let mut whole = histogram();
        for us in 1..=1_000 {
            record(&mut whole, Duration::from_micros(us));
        }
        record(&mut whole, Duration::from_secs(1_000));
        let latency = Latency::of(&whole);
        assert!(latency.p50_ns.abs_diff(501_000) < 1_000, "{latency:?}");
        assert!(latency.max_ns.abs_diff(LATENCY_NS_MAX) < LATENCY_NS_MAX / 500, "{latency:?}");
    }
}
