//! What a shard counts, and how others read it: the shard adds to plain numbers of its own and now
//! and then publishes them all at once, so that a reader always sees one moment and
//! `received = answered + Σ refused + waiting` holds exactly in whatever it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal $labels:literal;)+) => {
        /// Everything a shard counts. Names follow one grammar: subject, action, unit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Metric name and labels in Prometheus' form, without prefix and shard.
            #[must_use]
            pub fn metric(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => ($name, $labels),)+ }
            }

            /// The first paragraph of what it counts, for people.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

counters! {
    /// Datagrams taken from the kernel.
    UdpReceived = "request_received" "transport=\"udp\"";
    /// Requests taken from HTTP connections, also those that could not be parsed.
    HttpReceived = "request_received" "transport=\"http\"";
    /// Requests that the kernel's program took for itself; what it passed up is received by a socket.
    XdpReceived = "request_received" "transport=\"xdp\"";
    /// UDP requests answered with a price.
    UdpAnswered = "request_answered" "transport=\"udp\"";
    /// HTTP requests answered with what they asked for.
    HttpAnswered = "request_answered" "transport=\"http\"";
    /// Requests answered by the kernel's program.
    XdpAnswered = "request_answered" "transport=\"xdp\"";
    /// Refused: not a request.
    UdpBadRequest = "request_refused" "transport=\"udp\",reason=\"bad_request\"";
    /// Refused: no valid key or tag.
    UdpUnauthorized = "request_refused" "transport=\"udp\",reason=\"unauthorized\"";
    /// Refused: outside the time window.
    UdpExpired = "request_refused" "transport=\"udp\",reason=\"expired\"";
    /// Refused: nothing of that name.
    UdpUnknownAsset = "request_refused" "transport=\"udp\",reason=\"unknown_asset\"";
    /// Refused: over the key's rate.
    UdpRateLimited = "request_refused" "transport=\"udp\",reason=\"rate_limited\"";
    /// Refused: over the key's month.
    UdpMonthlyLimit = "request_refused" "transport=\"udp\",reason=\"monthly_limit\"";
    /// Refused: no fresh price.
    UdpStale = "request_refused" "transport=\"udp\",reason=\"stale\"";
    /// Refused: no room to account for the answer or to wait.
    UdpOverloaded = "request_refused" "transport=\"udp\",reason=\"overloaded\"";
    /// Refused: a datagram that is itself an answer.
    UdpIsAnswer = "request_refused" "transport=\"udp\",reason=\"is_answer\"";
    /// Refused: not a request.
    HttpBadRequest = "request_refused" "transport=\"http\",reason=\"bad_request\"";
    /// Refused: no valid key.
    HttpUnauthorized = "request_refused" "transport=\"http\",reason=\"unauthorized\"";
    /// Refused: nothing of that name.
    HttpUnknownAsset = "request_refused" "transport=\"http\",reason=\"unknown_asset\"";
    /// Refused: no such path.
    HttpNotFound = "request_refused" "transport=\"http\",reason=\"not_found\"";
    /// Refused: a method that path does not have.
    HttpMethod = "request_refused" "transport=\"http\",reason=\"method\"";
    /// Refused: head or body too large.
    HttpTooLarge = "request_refused" "transport=\"http\",reason=\"too_large\"";
    /// Refused: over the key's rate.
    HttpRateLimited = "request_refused" "transport=\"http\",reason=\"rate_limited\"";
    /// Refused: over the key's month.
    HttpMonthlyLimit = "request_refused" "transport=\"http\",reason=\"monthly_limit\"";
    /// Refused: no fresh price.
    HttpStale = "request_refused" "transport=\"http\",reason=\"stale\"";
    /// Refused: no room to account for the answer or to wait.
    HttpOverloaded = "request_refused" "transport=\"http\",reason=\"overloaded\"";
    /// Refused: the connection ended while the request waited.
    HttpAbandoned = "request_refused" "transport=\"http\",reason=\"abandoned\"";
    /// Requests waiting for a REST price just now.
    UdpWaiting = "request_waiting" "transport=\"udp\"";
    /// Requests waiting for a REST price just now.
    HttpWaiting = "request_waiting" "transport=\"http\"";
    /// Usage records written: one for each answer with a price, and for each refusal of a valid key.
    RecordAppended = "record_appended" "";
    /// Answers that were not given because the journal had no room for their record.
    RecordRefused = "record_refused" "";
    /// Refusals that got no reply: over the budget of their source, or longer than the request.
    ReplySuppressed = "reply_suppressed" "";
    /// Datagrams the kernel did not take.
    SendFailed = "datagram_send_failed" "";
    /// Sends the kernel took only in part and that were continued.
    SendShort = "send_continued" "";
    /// Payload bytes sent in UDP answers.
    AnswerBytes = "answer_sent_bytes" "";
    /// Receives that ended and were armed again: out of buffers.
    ReceiveNoBuffers = "receive_rearmed" "cause=\"no_buffers\"";
    /// Receives that ended and were armed again: other causes.
    ReceiveEnded = "receive_rearmed" "cause=\"ended\"";
    /// Datagrams the kernel dropped because the receive buffer was full.
    KernelDropped = "datagram_dropped" "where=\"socket\"";
    /// Connections accepted.
    ConnectionAccepted = "connection_accepted" "";
    /// Connections closed, by either side.
    ConnectionClosed = "connection_closed" "";
    /// Connections closed at once because the shard holds as many as it may.
    ConnectionRefused = "connection_refused" "";
    /// Prices taken from links.
    UpdateApplied = "price_update_applied" "";
    /// Prices taken from links that were older than what was held.
    UpdateOlder = "price_update_older" "";
    /// Updates that found a link full; the newest of each listing followed when there was room.
    LinkOverrun = "link_overrun" "";
    /// Assets that have a fresh price just now.
    AssetsFresh = "asset_fresh" "";
    /// Assets there are.
    Assets = "asset_listed" "";
    /// UDP sockets whose datagrams the shard takes just now.
    SocketsReceiving = "socket_receiving" "";
    /// Datagrams to our port that the kernel's program passed up: not plainly a v2 request.
    XdpPassedNotSure = "xdp_passed" "reason=\"not_sure\"";
    /// Passed up: a key it does not know, or one that has ended.
    XdpPassedKey = "xdp_passed" "reason=\"key\"";
    /// Passed up: a wrong tag.
    XdpPassedTag = "xdp_passed" "reason=\"tag\"";
    /// Passed up: outside the time window.
    XdpPassedWindow = "xdp_passed" "reason=\"window\"";
    /// Passed up: an asset it does not know.
    XdpPassedAsset = "xdp_passed" "reason=\"asset\"";
    /// Passed up: no fresh price.
    XdpPassedStale = "xdp_passed" "reason=\"stale\"";
    /// Passed up: no token of the key's rate at hand.
    XdpPassedLimited = "xdp_passed" "reason=\"limited\"";
    /// Passed up: no free slot for the record.
    XdpPassedLaneFull = "xdp_passed" "reason=\"lane_full\"";
    /// Times the shard waited for the kernel.
    Parked = "shard_parked" "";
    /// Turns of the loop.
    Turn = "shard_turned" "";
}

const COUNT: usize = Counter::ALL.len();

/// A shard's own counters.
#[derive(Clone, Debug)]
pub struct Counters {
    values: [u64; COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: [0; COUNT] }
    }
}

impl Counters {
    /// Adds to a counter.
    #[inline]
    pub fn add(&mut self, counter: Counter, amount: u64) {
        let value = &mut self.values[counter as usize];
        *value = value.wrapping_add(amount);
    }

    /// Sets a gauge.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// Reads one.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

/// Where a shard's counters are read by others. One writer, any number of readers: a sequence lock,
/// so that the writer never waits.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    sequence: AtomicU64,
    values: [AtomicU64; COUNT],
}

impl Published {
    /// All zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { sequence: AtomicU64::new(0), values: std::array::from_fn(|_| AtomicU64::new(0)) })
    }

    /// Makes `counters` what readers see. Only the shard that owns this calls it.
    pub fn publish(&self, counters: &Counters) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (to, from) in self.values.iter().zip(counters.values) {
            to.store(from, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// All counters as of one moment.
    #[must_use]
    pub fn read(&self) -> Counters {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let counters =
                Counters { values: std::array::from_fn(|i| self.values[i].load(Ordering::Relaxed)) };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return counters;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_sees_half_a_moment() {
        let published = Published::new();
        let writer = Arc::clone(&published);
        let thread = std::thread::spawn(move || {
            let mut counters = Counters::default();
            for _ in 0..20_000 {
                counters.add(Counter::UdpReceived, 1);
                counters.add(Counter::UdpAnswered, 1);
                writer.publish(&counters);
            }
        });
        while !thread.is_finished() {
            let seen = published.read();
            assert_eq!(seen.value(Counter::UdpReceived), seen.value(Counter::UdpAnswered));
        }
        thread.join().unwrap();
        assert_eq!(published.read().value(Counter::UdpAnswered), 20_000);
    }

    #[test]
    fn every_metric_is_named_once() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.metric()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
        assert_eq!(Counter::UdpStale.help(), "Refused: no fresh price.");
    }
}
