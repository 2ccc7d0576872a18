//! The thread beside the program in the kernel: prices and keys go in, records come out into the
//! journal, once a millisecond.
//!
//! ```text
//!   links ─► inbox ─► board ─► PriceMap ─┐
//!   control: keys ───────────► KeyMap ───┼─► program ─► lanes ─► LaneDrain ─► journal
//!   clock, addresses ────────► Settings ─┘
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::start::StartError;
use crate::account::{Allowances, KeyIndex, KeyTable, Limiter};
use crate::config::XdpOn;
use crate::ledger::{ChainId, Journal, JournalError, Segment};
use crate::limits::LEASE_PARTS;
use crate::price::{Board, Catalogue};
use crate::shard::{Control, Counter, Counters, Inbox, Published, Ready};
use crate::time::{Clock as _, MonoNs, Now, RealClock};
use crate::xdp::{AttachMode, Attached, Interface, Lanes, Pins, Program, Served, Sizes, Tokens, XdpError};

/// How far the program's prices may be behind the links, and how long a record waits for the journal.
/// Shorter wakes the thread more often: at 1 ms it is below 1 % of a core.
const TURN: Duration = Duration::from_millis(1);

/// How often the clocks are told, and counters published.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked whether the interface has other addresses.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long records are given to find room in the journal when there is none.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// Answers in the kernel, on their interface, with no price yet.
pub(super) struct KernelAnswers {
    program: Program,
    interface: Interface,
    served: Served,
    listen: Vec<IpAddr>,
    port: u16,
    catalogue: Arc<Catalogue>,
    leases: Leases,
    drain: LaneDrain,
    stays: bool,
    attached: Attached,
}

/// What a start is made of, as far as the program is concerned.
pub(super) struct KernelSetup<'a> {
    pub(super) on: &'a XdpOn,
    pub(super) stays: bool,
    pub(super) data_dir: &'a Path,
    pub(super) epoch: u32,
    pub(super) listen: &'a [IpAddr],
    pub(super) port: u16,
    pub(super) catalogue: &'a Arc<Catalogue>,
    pub(super) keys: KeyTable,
    pub(super) allowances: &'a Arc<Allowances>,
    /// How many shards answer beside the program.
    pub(super) shards: usize,
    pub(super) journal: &'a Arc<Journal>,
}

/// Takes what the programs of earlier starts have answered into the journal. Returns how many records
/// that were, `None` when there was nothing to look at.
///
/// # Errors
/// What is there cannot be read, or the journal has no room for it; it stays where it is.
pub(super) fn take_in_old(data_dir: &Path, journal: &Arc<Journal>) -> Result<Option<u64>, StartError> {
    let Some(pins) = Pins::existing(data_dir)? else { return Ok(None) };
    let mut count = 0;
    for old in pins.old()? {
        let mut drain = LaneDrain::new(journal, &old.lanes);
        count += drain.take_all(&old.lanes, ROOM_WITHIN)?;
        drain.finish(&old.lanes)?;
        old.forget()?;
    }
    Ok(Some(count))
}

impl KernelAnswers {
    /// Loads the program, fills its tables and puts it on its interface.
    ///
    /// # Errors
    /// What was found, and what to do.
    pub(super) fn prepare(setup: KernelSetup<'_>) -> Result<Self, StartError> {
        let interface = Interface::named(&setup.on.interface)?;
        let pins = Pins::of_folder(setup.data_dir)?;
        let symbols: Vec<_> = setup.catalogue.assets().iter().map(|asset| asset.symbol).collect();
        let mut program = Program::load(&symbols, setup.epoch, Sizes::default(), Some(&pins))?;
        let served = Served::new(&interface, setup.listen, setup.port);
        program.settings.tell_time(RealClock.now());
        program.settings.tell_served(&served);
        let limiter = Limiter::new(Arc::clone(setup.allowances), setup.shards + 1, &setup.keys);
        let mut leases = Leases { limiter, shards: setup.shards + 1, table: setup.keys, places: Vec::new() };
        leases.choose(&mut program)?;
        let attached = program.attach(&interface, setup.on.mode, setup.stays)?;
        Ok(Self {
            drain: LaneDrain::new(setup.journal, &program.lanes),
            program,
            interface,
            served,
            listen: setup.listen.to_vec(),
            port: setup.port,
            catalogue: Arc::clone(setup.catalogue),
            leases,
            stays: setup.stays,
            attached,
        })
    }

    /// What an operator should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let name = &self.interface.name;
        if let Some(why) = &self.attached.why {
            notes.push(format!(
                "the driver of {name} answers nothing itself ({why}); the stack's first step does"
            ));
        }
        if self.served.is_empty() {
            notes.push(format!(
                "{name} has none of the addresses that are listened on, so the kernel answers nothing: give it \
                 one, or name one of its own with --listen"
            ));
        }
        let left_out = self.served.left_out();
        if left_out > 0 {
            notes.push(format!(
                "{left_out} addresses of {name} are left to the sockets: there is no room for more"
            ));
        }
        let left_out = self.program.prices.left_out();
        if left_out > 0 {
            notes.push(format!(
                "{left_out} assets are left to the sockets: they found no place in the kernel's table"
            ));
        }
        notes
    }

    /// Starts the thread. It is told of keys and of leaving as a shard is.
    pub(super) fn spawn(
        self,
        inbox: Inbox,
        control: Receiver<Control>,
        published: Arc<Published>,
    ) -> io::Result<JoinHandle<io::Result<io::Result<()>>>> {
        let thread = std::thread::Builder::new().name("xdp".into());
        thread.spawn(move || Ok(self.run(&inbox, &control, &published)))
    }

    fn run(mut self, inbox: &Inbox, control: &Receiver<Control>, published: &Published) -> io::Result<()> {
        let mut board: Board<Ready> = Board::new(&self.catalogue);
        let mut counters = Counters::default();
        let (mut tell_at, mut look_at) = (MonoNs(0), MonoNs(0));
        let mut said = None;
        loop {
            match control.recv_timeout(TURN) {
                Ok(Control::Keys(keys)) => self.replace_keys(*keys),
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                // Sockets are the shards' affair.
                Ok(Control::Guest(_) | Control::Open | Control::Drain) | Err(RecvTimeoutError::Timeout) => {}
            }
            let now = RealClock.now();
            self.follow(inbox, &mut board, now.mono);
            self.leases.fill(&self.program.tokens, now);
            let taken = self.drain.take(&self.program.lanes);
            say_once(&mut said, taken.err());
            counters.add(Counter::Turn, 1);
            if now.mono >= tell_at {
                tell_at = now.mono.plus(TELL_EVERY);
                self.program.settings.tell_time(now);
                self.publish(&mut counters, published);
            }
            if now.mono >= look_at {
                look_at = now.mono.plus(LOOK_EVERY);
                self.look();
            }
        }
        let result = self.leave(&mut counters, published);
        result.map_err(io::Error::other)
    }

    /// Brings the program's prices up to the links.
    fn follow(&mut self, inbox: &Inbox, board: &mut Board<Ready>, now: MonoNs) {
        let drained = inbox.drain(board, |_, _| {});
        if drained.updates > 0 {
            let all = 0..self.catalogue.assets().len();
            self.program.prices.follow(board, &self.catalogue, all, now, |ready| &ready.v2);
        }
    }

    fn replace_keys(&mut self, keys: KeyTable) {
        match self.leases.replace(keys, &mut self.program) {
            Ok(0) => {}
            Ok(left_out) => {
                tracing::warn!("{left_out} keys are left to the sockets: the kernel's table is full");
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Follows changes of the interface's addresses.
    fn look(&mut self) {
        let Ok(interface) = Interface::named(&self.interface.name) else { return };
        if interface != self.interface {
            let served = Served::new(&interface, &self.listen, self.port);
            self.program.settings.tell_served(&served);
            tracing::info!("the addresses of {} have changed", interface.name);
            (self.interface, self.served) = (interface, served);
        }
    }

    fn publish(&self, counters: &mut Counters, published: &Published) {
        const PASSED: [Counter; 8] = [
            Counter::XdpPassedNotSure,
            Counter::XdpPassedKey,
            Counter::XdpPassedTag,
            Counter::XdpPassedWindow,
            Counter::XdpPassedAsset,
            Counter::XdpPassedStale,
            Counter::XdpPassedLimited,
            Counter::XdpPassedLaneFull,
        ];
        let lanes = &self.program.lanes;
        // What it answers it has received, and nothing else: the rest is received by sockets.
        let answered = (0..lanes.count()).map(|lane| lanes.answered(lane)).sum();
        counters.set(Counter::XdpReceived, answered);
        counters.set(Counter::XdpAnswered, answered);
        for (reason, counter) in PASSED.into_iter().enumerate() {
            counters.set(counter, (0..lanes.count()).map(|lane| lanes.passed(lane)[reason]).sum());
        }
        published.publish(counters);
    }

    fn leave(mut self, counters: &mut Counters, published: &Published) -> Result<(), StartError> {
        if !self.stays {
            self.program.detach();
        }
        self.drain.take_all(&self.program.lanes, ROOM_WITHIN)?;
        self.publish(counters, published);
        self.drain.finish(&self.program.lanes)?;
        if self.stays { Ok(()) } else { Ok(self.program.forget()?) }
    }
}

impl fmt::Display for KernelAnswers {
    /// One line: where, how and for what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}, {}", self.attached.mode, self.interface.name, self.served)?;
        if self.attached.mode == AttachMode::Generic && self.attached.why.is_none() {
            f.write_str(" (as configured)")?;
        }
        if self.stays { f.write_str("; stays when the process goes") } else { Ok(()) }
    }
}

/// Says what went wrong when it begins to, not a thousand times a second.
fn say_once(said: &mut Option<String>, error: Option<JournalError>) {
    let text = error.map(|error| error.to_string());
    if *said != text {
        if let Some(text) = &text {
            tracing::error!("what the kernel has answered is not taken into the journal: {text}");
        }
        *said = text;
    }
}

/// Tokens for the program, leased from the allowances that all shards share: it is one more of them.
///
/// A key whose longest lease is one request has none here: each would have to be put in by itself, and
/// the shards answer those keys as well. What lies in a place is at most such a lease, so that the
/// limiter's bound holds with one more lease for one more holder.
struct Leases {
    limiter: Limiter,
    /// All that lease, the program with them.
    shards: usize,
    table: KeyTable,
    /// The keys that have places, from place 1 on, and how much each place holds at most.
    places: Vec<(KeyIndex, i64)>,
}

impl Leases {
    /// Gives places to the keys of the table, and the keys to the program.
    fn choose(&mut self, program: &mut Program) -> Result<usize, XdpError> {
        self.places.clear();
        let mut numbers = HashMap::new();
        for key in self.table.keys().iter().filter(|key| !key.tier.unlimited) {
            let lease = u64::from(key.tier.burst) / LEASE_PARTS / self.shards.max(1) as u64;
            let room = self.places.len() + 1 < program.tokens.places();
            let index = self.table.by_public_id(key.public_id);
            if let (2.., true, Some(index)) = (lease, room, index) {
                self.places.push((index, i64::try_from(lease).unwrap_or(i64::MAX)));
                numbers.insert(key.number, u32::try_from(self.places.len()).unwrap_or(u32::MAX));
            }
        }
        program.keys.replace(&self.table, |key| {
            if key.tier.unlimited { Some(0) } else { numbers.get(&key.number).copied() }
        })
    }

    /// Takes what was not spent out again, and goes on with a new table.
    fn replace(&mut self, table: KeyTable, program: &mut Program) -> Result<usize, XdpError> {
        // Nobody spends from a place that is about to be another key's.
        program.keys.replace(&self.table, |key| key.tier.unlimited.then_some(0))?;
        for (place, (key, _)) in (1..).zip(&self.places) {
            let left = program.tokens.held(place).max(0);
            program.tokens.add(place, -left);
            (0..left).for_each(|_| self.limiter.discharge(&self.table, *key));
        }
        self.limiter.table_replaced(&table);
        self.table = table;
        self.choose(program)
    }

    /// Fills the places up.
    fn fill(&mut self, tokens: &Tokens, now: Now) {
        for (place, (key, most)) in (1..).zip(&self.places) {
            let held = tokens.held(place);
            // Seldom by one: a lease is shared memory's price.
            if held > most / 2 {
                continue;
            }
            let mut leased = 0;
            while held + leased < *most
                && self.limiter.admit(&self.table, *key, now).is_ok()
                && self.limiter.charge(&self.table, *key, now).is_ok()
            {
                leased += 1;
            }
            if leased > 0 {
                tokens.add(place, leased);
            }
        }
    }
}

/// Takes records out of lanes, each exactly once.
struct LaneDrain {
    journal: Arc<Journal>,
    /// Made when a lane has its first record: most processors of a large machine answer nothing.
    segments: Vec<Option<Segment>>,
    /// Of each lane, the number of the next record.
    next: Vec<u64>,
}

impl LaneDrain {
    /// Goes on where the journal ends: it may hold records that the lane was not told of any more.
    fn new(journal: &Arc<Journal>, lanes: &Lanes) -> Self {
        let chains = journal.chains();
        let end = |lane: usize| {
            let id = chain_of(lanes, lane);
            chains.iter().find(|chain| chain.id == id).map_or(0, |chain| chain.end)
        };
        Self {
            journal: Arc::clone(journal),
            segments: (0..lanes.count()).map(|_| None).collect(),
            next: (0..lanes.count()).map(|lane| end(lane).max(lanes.released(lane))).collect(),
        }
    }

    /// Takes what there is and finds room. Returns how many records, and whether that was all.
    fn take(&mut self, lanes: &Lanes) -> Result<(u64, bool), JournalError> {
        let (mut count, mut whole) = (0, true);
        for (lane, (segment, next)) in self.segments.iter_mut().zip(&mut self.next).enumerate() {
            if lanes.answered(lane) == *next {
                continue;
            }
            let segment = match segment {
                Some(segment) => segment,
                None => segment.insert(self.journal.further(chain_of(lanes, lane), *next)?),
            };
            for (id, record) in lanes.records(lane, *next) {
                let Some(kept) = segment.append(record) else {
                    whole = false;
                    break;
                };
                assert_eq!(kept, id, "the journal goes on where the lane does");
                *next += 1;
                count += 1;
            }
            lanes.release(lane, *next);
        }
        Ok((count, whole))
    }

    /// Takes everything, waiting for room.
    fn take_all(&mut self, lanes: &Lanes, within: Duration) -> Result<u64, StartError> {
        let until = RealClock.now().mono.plus(within);
        let mut count = 0;
        loop {
            let (taken, whole) = self.take(lanes)?;
            count += taken;
            if whole {
                return Ok(count);
            }
            if RealClock.now().mono >= until {
                return Err(StartError::new(
                    "the journal has no room for what the kernel has answered; it waits in /sys/fs/bpf",
                    "make room on the disk, or raise journal.max_mib, and start again",
                ));
            }
            std::thread::sleep(TURN);
        }
    }

    /// Nothing more will come.
    fn finish(&mut self, lanes: &Lanes) -> Result<(), JournalError> {
        for (lane, segment) in self.segments.iter_mut().enumerate() {
            if segment.take().is_some() {
                self.journal.finish(chain_of(lanes, lane))?;
            }
        }
        Ok(())
    }
}

fn chain_of(lanes: &Lanes, lane: usize) -> ChainId {
    let (epoch, shard) = lanes.place(lane);
    ChainId { epoch, shard }
}

impl From<XdpError> for StartError {
    fn from(error: XdpError) -> Self {
        Self { what: error.what, cure: error.cure }
    }
}
