//! What every engine does, told once and run on each: the tests of this folder are generic over
//! [`Engine`].
//!
//! Waiting is done by parking with a far deadline, so a lost wake-up fails a test instead of hiding
//! behind polling.

mod tcp;
mod udp;

use std::time::Duration;

use super::{
    BufferId, ConnId, Datagram, Engine, Event, PortableEngine, Sockets, UringEngine, UringOptions,
    run_on_glommio,
};
use crate::sys::seccomp::refuse_io_uring;
use crate::time::{Clock as _, MonoNs, RealClock};

/// An engine that tests can make, and ask for the buffers that are out.
trait Tested: Engine + Sized + 'static {
    /// With room for `connections_max` accepted connections.
    fn make(sockets: Sockets, connections_max: usize) -> Self;
    /// How many buffers are out.
    fn lent(&self) -> usize;
}

impl Tested for PortableEngine {
    fn make(sockets: Sockets, connections_max: usize) -> Self {
        Self::new(sockets, connections_max).unwrap()
    }

    fn lent(&self) -> usize {
        Self::lent(self)
    }
}

impl Tested for UringEngine {
    fn make(sockets: Sockets, connections_max: usize) -> Self {
        let connections_max = u32::try_from(connections_max).unwrap();
        Self::new(sockets, UringOptions { connections_max, adopted_max: 4, ..UringOptions::default() })
            .unwrap()
    }

    fn lent(&self) -> usize {
        Self::lent(self)
    }
}

/// Runs a test that parks by blocking its thread: one that is refused io_uring, as in a container.
fn on_portable<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    use std::task::{Context, Poll, Waker};
    let thread = std::thread::spawn(|| {
        refuse_io_uring().unwrap();
        let polled = std::pin::pin!(test()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled == Poll::Ready(()), "the portable engine never waits for a waker");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test in a task of a glommio executor. Where io_uring is refused this fails in CI, and says
/// elsewhere that nothing was tested.
pub(super) fn on_uring<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    use super::probe::{Io, choose};
    if let Err(error) = choose(Io::Uring) {
        assert!(std::env::var_os("CI").is_none(), "the uring engine must be tested in CI: {error}");
        eprintln!("not tested: {error}");
        return;
    }
    let thread = run_on_glommio(None, "conformance", test).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes one ordinary test of each generic one on each engine.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {
        mod portable {
            $(#[test] fn $name() { crate::engine::conformance::on_portable(super::$name::<crate::engine::PortableEngine>); })*
        }
        mod uring {
            $(#[test] fn $name() { crate::engine::conformance::on_uring(super::$name::<crate::engine::UringEngine>); })*
        }
    };
}
use on_every_engine;

/// When a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine and the events a test has not looked at yet.
struct Bench<E> {
    engine: E,
    events: Vec<Event>,
}

impl<E: Tested> Bench<E> {
    fn new(sockets: Sockets, connections_max: usize) -> Self {
        Self { engine: E::make(sockets, connections_max), events: Vec::new() }
    }

    /// Harvests and parks until `pick` makes something of an event, which is taken out.
    async fn wait<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> (Event, T) {
        let give_up = RealClock.now().mono.plus(PATIENCE);
        loop {
            self.engine.harvest(64, &mut self.events).unwrap();
            let found = self.events.iter().enumerate().find_map(|(at, event)| Some((at, pick(event)?)));
            if let Some((at, value)) = found {
                return (self.events.remove(at), value);
            }
            assert!(RealClock.now().mono < give_up, "it never came; what came is {:?}", self.events);
            self.engine.park(give_up).await.unwrap();
        }
    }

    /// Waits for a datagram.
    async fn datagram(&mut self) -> Datagram {
        match self.wait(|event| matches!(event, Event::Datagram(_)).then_some(())).await {
            (Event::Datagram(datagram), ()) => datagram,
            _ => unreachable!("the event was picked for being a datagram"),
        }
    }

    /// Waits for bytes of a connection and gives their buffer back.
    async fn received(&mut self, conn: ConnId) -> Vec<u8> {
        let picked = self.wait(|event| matches!(event, Event::Received(id, _) if *id == conn).then_some(()));
        match picked.await {
            (Event::Received(_, buffer), ()) => self.take(buffer),
            _ => unreachable!("the event was picked for being received bytes"),
        }
    }

    /// Waits for a send to be over: the vector, and how many bytes went.
    async fn sent(&mut self, conn: ConnId) -> (Vec<u8>, std::io::Result<usize>) {
        match self.wait(|event| matches!(event, Event::Sent(id, ..) if *id == conn).then_some(())).await {
            (Event::Sent(_, bytes, result), ()) => (bytes, result),
            _ => unreachable!("the event was picked for being a send"),
        }
    }

    fn take(&mut self, buffer: BufferId) -> Vec<u8> {
        let bytes = self.engine.bytes(&buffer).to_vec();
        self.engine.release(buffer);
        bytes
    }

    /// Answers a datagram with the first bytes of itself behind `prefix`.
    fn echo(&mut self, datagram: Datagram, prefix: &[u8]) {
        let (request, room) = self.engine.view(&datagram);
        let len = prefix.len() + request.len();
        room[..prefix.len()].copy_from_slice(prefix);
        room[prefix.len()..len].copy_from_slice(request);
        self.engine.queue(datagram, len);
    }

    /// Lets the engine go on for a while, to see what comes of its own accord.
    async fn idle(&mut self) {
        let end = RealClock.now().mono.plus(Duration::from_millis(30));
        while RealClock.now().mono < end {
            self.engine.harvest(64, &mut self.events).unwrap();
            self.engine.park(end).await.unwrap();
        }
        self.engine.harvest(64, &mut self.events).unwrap();
    }

    /// Every buffer has come back.
    fn done(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Datagram(datagram) => self.engine.release(datagram.buffer),
                Event::Received(_, buffer) => self.engine.release(buffer),
                _ => {}
            }
        }
        assert_eq!(self.engine.lent(), 0, "buffers were lost");
    }
}

/// A moment from now.
fn soon() -> MonoNs {
    RealClock.now().mono.plus(Duration::from_millis(20))
}
