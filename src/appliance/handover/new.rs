//! The side that takes.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use tokio::sync::watch;

use super::{HANDED_BY, Message, hear, say};
use crate::appliance::StartError;
use crate::appliance::shards::Listening;
use crate::engine::Sockets;
use crate::shard::{Control, Counter, Published};
use crate::sys::pass_fds::receive_fds;

/// How long feeds may take to bring as many fresh assets as the old process has.
const WARM_MAX: Duration = Duration::from_secs(30);

/// How long a shard may take to be open. It looks every 100 ms at the latest.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// How often counters are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The process before this one, which hands its sockets over.
pub struct Predecessor {
    stream: UnixStream,
    shards: Vec<Sockets>,
    others: Others,
    fresh: u64,
}

/// The sockets that were handed over.
pub(in crate::appliance) struct Inherited {
    pub(in crate::appliance) shards: Vec<Sockets>,
    others: Others,
}

/// Sockets that are no shard's.
#[derive(Default)]
struct Others {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Others {
    fn of(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut others = Self::default();
        for fd in fds {
            if getsockopt(&fd, sockopt::SockType)? == SockType::Datagram {
                others.udp.push(fd.into());
            } else {
                others.tcp.push(fd.into());
            }
        }
        Ok(others)
    }
}

/// What is left of the talk once the sockets are taken.
pub(in crate::appliance) struct Warmth {
    stream: UnixStream,
    fresh: u64,
}

impl Predecessor {
    /// The one that has started this process, if it wants to hand over: it is at the other end of
    /// standard input.
    ///
    /// # Errors
    /// It does not speak as it should.
    pub fn of_parent() -> io::Result<Option<Self>> {
        let named = std::env::var(HANDED_BY).ok().and_then(|pid| pid.parse::<u32>().ok());
        if named != Some(parent_id()) {
            return Ok(None);
        }
        let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let Message::Offer { shards: counts, fresh } = hear(&mut stream)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it offers no sockets"));
        };
        let mut shards = Vec::new();
        for (udp, tcp) in counts {
            let mut fds = receive_fds(&stream)?;
            if fds.len() != udp.saturating_add(tcp) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets are missing"));
            }
            let listeners = fds.split_off(udp);
            shards.push(Sockets {
                udp: fds.into_iter().map(UdpSocket::from).collect(),
                tcp: listeners.into_iter().map(TcpListener::from).collect(),
            });
        }
        let others = Others::of(receive_fds(&stream)?)?;
        Ok(Some(Self { stream, shards, others, fresh }))
    }

    /// Tells it that nothing comes of it.
    pub fn refuse(stream: &mut UnixStream, why: &str) {
        // Gone is as good.
        let _gone = say(stream, &Message::Refused { why: why.to_owned() });
    }

    /// A second hold of the talk, to refuse by.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    pub(in crate::appliance) fn parts(self) -> (Inherited, Warmth) {
        let warmth = Warmth { stream: self.stream, fresh: self.fresh };
        (Inherited { shards: self.shards, others: self.others }, warmth)
    }
}

impl Inherited {
    /// Whether the sockets are those that this process would open.
    pub(in crate::appliance) fn check(
        &self,
        shards: usize,
        udp: impl Iterator<Item = SocketAddr>,
        http: impl Iterator<Item = SocketAddr>,
    ) -> Result<Listening, StartError> {
        let had = self.shards.len();
        if shards != had {
            // Fewer, and what waits in a socket would be lost; more, and the kernel would give their
            // sockets a share of the requests before anybody takes them.
            return Err(StartError {
                what: format!(
                    "the new process has {shards} shards and the old one {had}; needs as many, or requests \
                     would wait in sockets that nobody reads"
                ),
                cure: format!("set --shards {had}, or stop it and start it anew"),
            });
        }
        let unreadable = |e: io::Error| {
            StartError::new(format!("a socket was handed over broken: {e}"), "stop it and start it anew")
        };
        let first = self.shards.first();
        let sockets = first.map(|s| s.udp.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>());
        let listeners =
            first.map(|s| s.tcp.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>());
        let have_udp = sockets.transpose().map_err(unreadable)?.unwrap_or_default();
        let have_http = listeners.transpose().map_err(unreadable)?.unwrap_or_default();
        for (what, have, want) in
            [("UDP", &have_udp, udp.collect::<Vec<_>>()), ("HTTP", &have_http, http.collect())]
        {
            let same = |(have, want): (&SocketAddr, &SocketAddr)| is(*have, *want);
            if have.len() != want.len() || !have.iter().zip(&want).all(same) {
                return Err(StartError {
                    what: format!(
                        "the old process listens for {what} on {have:?}, the new one would on {want:?}"
                    ),
                    cure: "change addresses and ports by stopping it and starting it anew".to_owned(),
                });
            }
        }
        Ok(Listening { udp: have_udp, http: have_http })
    }

    /// The listener of an address that is not a shard's, if it was handed over.
    pub(in crate::appliance) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let listeners = &mut self.others.tcp;
        let at = listeners.iter().position(|l| l.local_addr().is_ok_and(|have| is(have, address)))?;
        Some(listeners.remove(at))
    }

    /// The same for a UDP socket.
    pub(in crate::appliance) fn take_udp(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        let sockets = &mut self.others.udp;
        let at = sockets.iter().position(|s| s.local_addr().is_ok_and(|have| is(have, address)))?;
        Some(sockets.remove(at))
    }
}

/// Whether a socket is the one that was meant; port 0 means any.
fn is(have: SocketAddr, want: SocketAddr) -> bool {
    have.ip() == want.ip() && (want.port() == 0 || want.port() == have.port())
}

impl Warmth {
    /// Waits for prices, then opens shard after shard as the old process asks, and at last health.
    ///
    /// # Errors
    /// Why the old process goes on, told to the operator.
    pub(in crate::appliance) fn take_over(
        mut self,
        controls: &[Sender<Control>],
        published: &[Arc<Published>],
        health: &watch::Sender<bool>,
    ) -> Result<(), String> {
        let fresh =
            || published.iter().map(|shard| shard.read().value(Counter::AssetsFresh)).min().unwrap_or(0);
        if !wait(WARM_MAX, || fresh() >= self.fresh) {
            let (have, needs) = (fresh(), self.fresh);
            let why = format!(
                "after {} s {have} assets are fresh in the new process, needs {needs} as in the old one; see \
                 which exchanges it does not reach",
                WARM_MAX.as_secs()
            );
            Predecessor::refuse(&mut self.stream, &why);
            return Err(why);
        }
        let open = |index: usize| -> bool {
            let (Some(control), Some(shard)) = (controls.get(index), published.get(index)) else {
                return false;
            };
            control.send(Control::Open).is_ok()
                && wait(OPEN_MAX, || shard.read().value(Counter::SocketsReceiving) > 0)
        };
        // The old process may need its own time for each shard.
        let patience = self.stream.set_read_timeout(Some(Duration::from_secs(30)));
        // Should it not hear, what it has said before it left is still to be heard: that it goes on, or leaves.
        let _gone = patience.and_then(|()| say(&mut self.stream, &Message::Warm));
        let mut opened = 0;
        loop {
            match hear(&mut self.stream) {
                Ok(Message::Open(index)) => {
                    if !open(index) {
                        let why = format!("shard {index} of the new process does not take requests");
                        Predecessor::refuse(&mut self.stream, &why);
                        return Err(why);
                    }
                    opened = index + 1;
                    let _gone = say(&mut self.stream, &Message::Opened(index));
                }
                Ok(Message::Done) => break,
                Ok(_) => return Err("the old process has changed its mind and goes on, or leaves".to_owned()),
                // It has ended: nobody but us has the sockets any more.
                Err(_) => break,
            }
        }
        for index in opened..published.len() {
            if !open(index) {
                return Err(format!("shard {index} does not take requests"));
            }
        }
        let _nobody_serves = health.send(true);
        Ok(())
    }
}

/// Looks until it is so, or the time is over.
fn wait(most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + most;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(shards: usize) -> (Inherited, SocketAddr, SocketAddr) {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let sockets = || Sockets { udp: vec![udp.try_clone().unwrap()], tcp: vec![tcp.try_clone().unwrap()] };
        let (tcp_other, udp_other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let others = Others::of(vec![udp_other.into(), tcp_other.into()]).unwrap();
        (Inherited { shards: (0..shards).map(|_| sockets()).collect(), others }, udp_at, tcp_at)
    }

    fn check(
        inherited: &Inherited,
        shards: usize,
        udp: SocketAddr,
        http: SocketAddr,
    ) -> Result<Listening, String> {
        inherited.check(shards, [udp].into_iter(), [http].into_iter()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_same_sockets_are_taken_and_others_refused_with_a_reason() {
        let (two, udp, http) = inherited(2);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(check(&two, 2, udp, http).unwrap(), Listening { udp: vec![udp], http: vec![http] });
        assert!(check(&two, 2, any, any).is_ok(), "ports of the kernel's choice");
        for other in [1, 3] {
            let error = check(&two, other, udp, http).unwrap_err();
            let said = format!("has {other} shards and the old one 2");
            assert!(error.contains(&said) && error.contains("set --shards 2"), "{error}");
        }
        let elsewhere = "127.0.0.2:0".parse().unwrap();
        let error = check(&two, 2, elsewhere, http).unwrap_err();
        assert!(error.contains("listens for UDP on") && error.contains("127.0.0.2"), "{error}");
        assert!(check(&two, 2, udp, SocketAddr::new(http.ip(), 1)).is_err());
    }

    #[test]
    fn other_listeners_are_taken_once_by_their_address() {
        let (mut inherited, ..) = inherited(1);
        assert!(inherited.take("127.0.0.2:0".parse().unwrap()).is_none());
        assert!(inherited.take("127.0.0.1:0".parse().unwrap()).is_some());
        assert!(inherited.take("127.0.0.1:0".parse().unwrap()).is_none());
        assert!(inherited.take_udp("127.0.0.1:0".parse().unwrap()).is_some());
        assert!(inherited.take_udp("127.0.0.1:0".parse().unwrap()).is_none());
    }
}
