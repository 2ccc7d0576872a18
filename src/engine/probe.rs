//! Which engine to use: tried, not guessed. The probe makes a real ring as a shard would, with all it
//! registers, and sends one datagram through it and back.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::str::FromStr;
use std::time::Duration;

use super::{Engine as _, Event, Sockets, UdpIndex, UringEngine, UringOptions, run_on_glommio};
use crate::sys::net::open_udp;
use crate::sys::rlimits;
use crate::time::{Clock as _, RealClock};

/// What was asked for with `--io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// The uring engine where it works, else the portable one.
    #[default]
    Auto,
    /// The uring engine; it not working is an error.
    Uring,
    /// The portable engine.
    Portable,
}

impl FromStr for Io {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "portable" => Ok(Self::Portable),
            _ => Err(format!("\"{text}\" is no engine; use auto, uring or portable")),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Portable => "portable",
        })
    }
}

/// The engine that shards will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// A raw ring in a task of a glommio executor.
    Uring,
    /// epoll.
    Portable,
}

impl Chosen {
    /// Its name in metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
        }
    }
}

/// The outcome, with its reason in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to use.
    pub engine: Chosen,
    /// Why: what was asked for, or what the probe met.
    pub why: String,
}

/// Chooses the engine for every shard of this process, and raises the process's soft limits of
/// descriptors and locked memory first, as every engine needs.
///
/// # Errors
/// When the uring engine was asked for and does not work here; the text says what failed, what that
/// means, and the cure.
pub fn choose(requested: Io) -> io::Result<Choice> {
    rlimits::raise()?;
    if requested == Io::Portable {
        return Ok(Choice { engine: Chosen::Portable, why: "portable was asked for".into() });
    }
    match (probe(), requested) {
        (Ok(()), _) => {
            let why = "io_uring works here: one datagram went through a ring and back";
            Ok(Choice { engine: Chosen::Uring, why: why.into() })
        }
        (Err(error), Io::Uring) => {
            Err(io::Error::new(error.kind(), format!("uring was asked for, but does not work: {error}")))
        }
        (Err(error), _) => Ok(Choice { engine: Chosen::Portable, why: format!("{error}: using portable") }),
    }
}

/// How long the datagram may take there and back. It takes microseconds; a machine that needs longer
/// than this is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

const REQUEST: &[u8] = b"probe";
const ANSWER: &[u8] = b"probed";

fn probe() -> io::Result<()> {
    // A bare ring first: its refusal is explained, glommio's is not.
    drop(UringEngine::new(Sockets::default(), options())?);
    let server = open_udp("127.0.0.1:0".parse().map_err(io::Error::other)?, 1 << 16)?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.send(REQUEST)?;
    let thread = run_on_glommio(None, "io-probe", move || answer_one(server))?;
    thread.join().map_err(|_panic| io::Error::other("the probe of io_uring panicked"))???;
    let mut buffer = [0; 16];
    let len = client.recv(&mut buffer).map_err(|e| {
        io::Error::new(e.kind(), format!("a datagram went into a ring and its answer did not come: {e}"))
    })?;
    if &buffer[..len] == ANSWER {
        return Ok(());
    }
    Err(io::Error::other("a datagram came back from a ring with other bytes than were sent"))
}

/// As a shard's, but small: how many connections fit is not the question here.
fn options() -> UringOptions {
    UringOptions { recv_buffers: 16, tcp_buffers: 16, connections_max: 16, ..UringOptions::default() }
}

/// Answers one datagram, through all that a shard's engine uses.
async fn answer_one(server: UdpSocket) -> io::Result<()> {
    let socket = UdpIndex(0);
    let mut engine = UringEngine::new(Sockets { udp: vec![server], tcp: vec![] }, options())?;
    let until = RealClock.now().mono.plus(PATIENCE);
    let mut events = Vec::new();
    engine.arm_udp(socket);
    while RealClock.now().mono < until {
        engine.harvest(1, &mut events)?;
        for event in events.drain(..) {
            match event {
                Event::Datagram(datagram) => {
                    let (request, room) = engine.view(&datagram);
                    if request != REQUEST || room.len() < ANSWER.len() {
                        return Err(io::Error::other("a ring gave other bytes than were sent"));
                    }
                    room[..ANSWER.len()].copy_from_slice(ANSWER);
                    engine.queue(datagram, ANSWER.len());
                    engine.send(socket)?;
                    return Ok(());
                }
                Event::UdpEnded(_, why) => {
                    return Err(io::Error::other(format!("a ring stopped receiving: {why:?}")));
                }
                _ => {}
            }
        }
        engine.park(until).await?;
    }
    Err(io::Error::other("a ring was set up, but no datagram came through it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seccomp::refuse_io_uring;

    fn without_io_uring(requested: Io) -> io::Result<Choice> {
        std::thread::spawn(move || {
            refuse_io_uring().unwrap();
            choose(requested)
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_refused_ring_is_named_and_auto_takes_the_portable_engine() {
        let choice = without_io_uring(Io::Auto).unwrap();
        assert_eq!(choice.engine, Chosen::Portable);
        assert!(choice.why.contains("EPERM"), "{}", choice.why);
        assert!(choice.why.ends_with(": using portable") && !choice.why.contains('\n'), "{}", choice.why);
    }

    #[test]
    fn asking_for_uring_where_it_is_refused_is_an_error() {
        let error = without_io_uring(Io::Uring).unwrap_err().to_string();
        assert!(error.contains("uring was asked for, but does not work"), "{error}");
        assert!(error.contains("EPERM") && error.contains("--io portable"), "{error}");
    }

    /// Runs itself again under a shell that lowers the limit, for it belongs to the whole process.
    #[test]
    fn a_low_memlock_limit_is_named_with_its_cure() {
        const CHILD: &str = "BEAST_TEST_LOW_MEMLOCK";
        if std::env::var_os(CHILD).is_some() {
            let choice = choose(Io::Auto).unwrap();
            assert_eq!(choice.engine, Chosen::Portable);
            assert!(
                choice.why.starts_with("the memlock limit is 64 KiB, glommio needs 512"),
                "{}",
                choice.why
            );
            assert!(
                choice.why.contains("ulimit -l") && choice.why.contains("LimitMEMLOCK"),
                "{}",
                choice.why
            );
            return;
        }
        if choose(Io::Uring).is_err() {
            return; // Refused altogether, as `the_probe_works_where_io_uring_does` tells.
        }
        let name = "engine::probe::tests::a_low_memlock_limit_is_named_with_its_cure";
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -l 64 && exec \"$0\" \"$1\" --exact --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn portable_needs_no_probe() {
        assert_eq!(without_io_uring(Io::Portable).unwrap().engine, Chosen::Portable);
    }

    #[test]
    fn names_come_back() {
        for io in [Io::Auto, Io::Uring, Io::Portable] {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        assert!("epoll".parse::<Io>().unwrap_err().contains("use auto, uring or portable"));
    }

    #[test]
    fn the_probe_works_where_io_uring_does() {
        if let Err(error) = choose(Io::Uring) {
            assert!(std::env::var_os("CI").is_none(), "io_uring must work in CI: {error}");
            eprintln!("not tested, io_uring does not work here: {error}");
        }
    }
}
