//! Loading the program and putting it on an interface.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::error::XdpError;
use super::keys::KeyMap;
use super::lanes::Lanes;
use super::layout as at;
use super::pins::{LAST_PACKETS, LINK, Pins, map_lanes, remove};
use super::prices::{Placing, PriceMap};
use super::settings::{Interface, Settings};
use super::tokens::Tokens;
use crate::limits::{XDP_LANE_SHIFT, XDP_SHARD_FIRST};
use crate::price::Symbol;
use crate::sys::mmap::SharedWords;

/// How large the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Keys that find room.
    pub keys: u32,
    /// Limited keys among them that may have tokens here.
    pub limited_keys: u32,
    /// Binary logarithm of the records a lane holds.
    pub lane_shift: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { keys: 65_536, limited_keys: 1_024, lane_shift: XDP_LANE_SHIFT }
    }
}

/// Where on an interface the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver where it can, else in the stack.
    #[default]
    Auto,
    /// In the driver, before the kernel has made anything of a frame.
    Native,
    /// In the stack's first step: any interface can, and little is gained.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The loaded program with its tables. Dropping it takes it off its interface, unless it was told to
/// stay; whatever was written to its lanes stays pinned until it is forgotten.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
    folder: Option<PathBuf>,
    link: Option<XdpLinkId>,
    /// Of the program within its object.
    name: &'static str,
    /// What it is told of the machine.
    pub settings: Settings,
    /// What it answers.
    pub prices: PriceMap,
    /// Whom it answers.
    pub keys: KeyMap,
    /// What limited keys may spend here.
    pub tokens: Tokens,
    /// Whom it has answered.
    pub lanes: Lanes,
}

/// What came of attaching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it runs: never [`AttachMode::Auto`].
    pub mode: AttachMode,
    /// Why it is not the driver, when that was tried.
    pub why: Option<String>,
}

impl Program {
    /// Loads the program for a start of the process. With `pins` its lanes outlive the process.
    ///
    /// # Errors
    /// What the kernel refuses, with the cure.
    pub fn load(symbols: &[Symbol], epoch: u32, sizes: Sizes, pins: Option<&Pins>) -> Result<Self, XdpError> {
        Self::load_from(at::OBJECT, at::PROGRAM, symbols, epoch, sizes, pins)
    }

    /// As [`load`](Self::load), of another object with the same maps: a bench wraps the program.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[doc(hidden)]
    pub fn load_from(
        object: &[u8],
        name: &'static str,
        symbols: &[Symbol],
        epoch: u32,
        sizes: Sizes,
        pins: Option<&Pins>,
    ) -> Result<Self, XdpError> {
        if !cfg!(target_arch = "x86_64") {
            return Err(XdpError::new(
                "answers in the kernel rely on the order in which x86-64 makes stores and loads seen",
                "serve without --xdp on this machine",
            ));
        }
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, e)| XdpError::new(format!("{path} cannot be read: {e}"), "mount /sys"))?;
        let folder = pins.map(|pins| pins.run(epoch)).transpose()?;
        let placing = Placing::new(symbols);
        let rows = Placing::rows_max(symbols.len());
        let entries = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(at::PRICES, entries(rows))
            .map_max_entries(at::KEYS, sizes.keys)
            .map_max_entries(at::ALLOWANCES, sizes.limited_keys.saturating_add(1))
            .map_max_entries(at::LANES, entries(cpus))
            .map_max_entries(at::RECORDS, entries(cpus << sizes.lane_shift));
        if let Some(folder) = &folder {
            for name in [at::LANES, at::RECORDS] {
                loader.map_pin_path(name, Cow::Owned(folder.join(name)));
            }
        }
        let mut ebpf = loader.load(object).map_err(|e| XdpError::of("the program cannot be loaded", &e))?;
        let xdp = program(&mut ebpf, name)?;
        xdp.load().map_err(|e| XdpError::of("the kernel refuses the program", &e))?;

        let settings = Settings::new(mapped(&mut ebpf, at::SETTINGS, at::settings::WORDS)?);
        settings.fix(placing.seed, placing.shift, sizes.lane_shift);
        let prices = PriceMap::new(mapped(&mut ebpf, at::PRICES, rows * at::price::WORDS)?, symbols, placing);
        let keys = BpfHashMap::try_from(take(&mut ebpf, at::KEYS)?)
            .map_err(|e| XdpError::of("the map of keys is not what it should be", &e))?;
        let keys = KeyMap::new(keys, sizes.keys as usize);
        let places = sizes.limited_keys as usize + 1;
        let tokens = Tokens::new(mapped(&mut ebpf, at::ALLOWANCES, places)?);
        let (lanes, records) = (data(&mut ebpf, at::LANES)?, data(&mut ebpf, at::RECORDS)?);
        let lanes = map_lanes(&lanes, &records, cpus, sizes.lane_shift)?;
        lanes.name(epoch, XDP_SHARD_FIRST);
        Ok(Self { ebpf, folder, link: None, name, settings, prices, keys, tokens, lanes })
    }

    /// Another map of the object, of so many words; for benches.
    ///
    /// # Errors
    /// There is none of that name and length.
    #[doc(hidden)]
    pub fn map(&mut self, name: &str, words: usize) -> Result<SharedWords, XdpError> {
        mapped(&mut self.ebpf, name, words)
    }

    /// Puts the program on an interface. With `stays` it goes on answering when the process has gone,
    /// until the prices are no longer fresh, and needs pins.
    ///
    /// # Errors
    /// The kernel refuses; in mode auto only when it refuses both.
    pub fn attach(&mut self, to: &Interface, mode: AttachMode, stays: bool) -> Result<Attached, XdpError> {
        let mut why = None;
        let (mode, id) = match mode {
            AttachMode::Native => (mode, self.put(to, XdpMode::Driver)?),
            AttachMode::Generic => (mode, self.put(to, XdpMode::Skb)?),
            AttachMode::Auto => match self.put(to, XdpMode::Driver) {
                Ok(id) => (AttachMode::Native, id),
                Err(error) => {
                    why = Some(error.what);
                    (AttachMode::Generic, self.put(to, XdpMode::Skb)?)
                }
            },
        };
        if stays && let Some(folder) = &self.folder {
            let refused = |e: &dyn std::error::Error| XdpError::of("the program cannot be made to stay", e);
            let link = program(&mut self.ebpf, self.name)?.take_link(id).map_err(|e| refused(&e))?;
            let link = FdLink::try_from(link).map_err(|e| refused(&e))?;
            link.pin(folder.join(LINK)).map_err(|e| refused(&e))?;
        } else {
            self.link = Some(id);
        }
        Ok(Attached { mode, why })
    }

    fn put(&mut self, to: &Interface, mode: XdpMode) -> Result<XdpLinkId, XdpError> {
        let doing = format!("the program cannot be put on {}", to.name);
        program(&mut self.ebpf, self.name)?
            .attach_to_if_index(to.index, mode)
            .map_err(|e| XdpError::of(&doing, &e))
    }

    /// Takes the program off its interface, and waits until it has ended on every processor.
    pub fn detach(&mut self) {
        if let Some(id) = self.link.take()
            && let Ok(xdp) = program(&mut self.ebpf, self.name)
        {
            // An interface that is gone has taken its link along.
            let _gone = xdp.detach(id);
            std::thread::sleep(LAST_PACKETS);
        }
    }

    /// Removes the pins: all records are safe. Call it when the program is off its interface.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(self) -> Result<(), XdpError> {
        self.folder.as_deref().map_or(Ok(()), remove)
    }

    /// Runs the program on a frame in place of a driver: what became of it, and the mean time of
    /// `repeat` runs. Each run sees what the one before has made of the frame.
    ///
    /// # Errors
    /// The kernel's.
    pub fn test_run(&self, frame: &[u8], out: &mut [u8], repeat: u32) -> Result<TestRun, XdpError> {
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(out), repeat, ..TestRunOptions::default() };
        self.run(options)
    }

    /// Runs the program on `count` frames that really come from interface `from` and really leave, for
    /// benches.
    ///
    /// # Errors
    /// The kernel's.
    #[doc(hidden)]
    pub fn live_run(&self, frame: &[u8], from: u32, count: u32) -> Result<(), XdpError> {
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let context: Vec<u8> = [0, len, 0, from, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::default()
        };
        self.run(options).map(|_| ())
    }

    fn run(&self, options: TestRunOptions<'_>) -> Result<TestRun, XdpError> {
        let xdp = self.ebpf.program(self.name).and_then(|program| <&Xdp>::try_from(program).ok());
        let result = xdp.ok_or_else(missing)?.test_run(options);
        let result = result.map_err(|e| XdpError::of("the program cannot be run", &e))?;
        Ok(TestRun {
            sent: result.return_value == XDP_TX,
            passed: result.return_value == XDP_PASS,
            len: result.data_size_out as usize,
            mean_ns: u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// What a run made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// It was sent back.
    pub sent: bool,
    /// It was passed up.
    pub passed: bool,
    /// Its length afterwards.
    pub len: usize,
    /// What a run took.
    pub mean_ns: u64,
}

fn missing() -> XdpError {
    XdpError::new("the kept object is not the program", "run bash bpf/build.sh and build again")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, XdpError> {
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
    ebpf.take_map(name).ok_or_else(missing)
}

fn data(ebpf: &mut Ebpf, name: &str) -> Result<MapData, XdpError> {
    match take(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(missing()),
    }
}

fn mapped(ebpf: &mut Ebpf, name: &str, words: usize) -> Result<SharedWords, XdpError> {
    SharedWords::of_map(&data(ebpf, name)?.fd(), words)
        .map_err(|e| XdpError::of(&format!("the map {name} cannot be mapped"), &e))
}
