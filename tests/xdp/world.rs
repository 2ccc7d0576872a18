//! The program and a shard's answer function over the same board and the same keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use beast::account::{Key, KeyTable, Tier as AccountTier, Token};
use beast::ledger::Segment;
use beast::limits::{UDP_PAYLOAD_MAX, XDP_SHARD_FIRST};
use beast::price::{
    AssetId, Catalogue, Confirmation, Currency, Exchange, ExchangeId, ListingId, Price, Quote, Symbol, Tier,
    TradeKey,
};
use beast::shard::{Answerer, Attempt, NoRest, Ready, ShardSecrets, Verdict};
use beast::sys::pin;
use beast::time::{Clock as _, Now, RealClock, UnixNs};
use beast::wire::v2;
use beast::xdp::{Interface, Program, Served, Sizes, TestRun};

use crate::frames::{PORT, SERVER_MAC, SERVER_V4, SERVER_V6};

/// The epoch of this run.
pub(crate) const EPOCH: u32 = 3;

/// How long a made deadline is in the future.
pub(crate) const FRESH: Duration = Duration::from_secs(3_600);

pub(crate) struct World {
    pub(crate) program: Program,
    pub(crate) answerer: Answerer,
    pub(crate) token: Token,
    pub(crate) limited: Token,
    pub(crate) expired: Token,
    /// The processor this runs on, and with it the lane.
    pub(crate) lane: usize,
    pub(crate) catalogue: Arc<Catalogue>,
    keys: KeyTable,
    /// Unix time less the machine's.
    shift_ns: i64,
}

fn key(token: &Token, number: u32, unlimited: bool) -> Key {
    let name = if unlimited { "partner" } else { "free" };
    Key {
        number,
        account: 1,
        public_id: token.public_id(),
        secret_hash: token.secret_hash(),
        v2_request: token.v2_request_key(),
        v2_answer: token.v2_answer_key(),
        tier: AccountTier { name: name.into(), unlimited, qps: 1_000_000, burst: 1_000_000, monthly: None },
        networks: vec![],
        admin: false,
        expires: UnixNs::NEVER,
    }
}

fn catalogue() -> Catalogue {
    let exchange = |number, name: &str| Exchange {
        id: ExchangeId::new(number).unwrap(),
        name: name.into(),
        dead_after: Duration::from_secs(5),
    };
    let mut catalogue = Catalogue::new(vec![exchange(1, "coinbase"), exchange(2, "kraken")]).unwrap();
    let (one, two) = (ExchangeId::new(1).unwrap(), ExchangeId::new(2).unwrap());
    let usd = Currency::parse("USD").unwrap();
    let mut names: Vec<String> = (0..148).map(|n| format!("A{n:03}")).collect();
    names.insert(0, "BTC".into());
    names.push("ABCDEFGHIJKLMNOP".into());
    for (n, name) in names.iter().enumerate() {
        let symbol = Symbol::parse(name).unwrap();
        let listings = [(one, "x", usd), (two, "y", usd)];
        catalogue.add_asset(AssetId::new(n + 1).unwrap(), symbol, false, &listings).unwrap();
    }
    catalogue
}

impl World {
    /// Everything fresh; the thread stays on one processor from now on.
    pub(crate) fn new() -> Self {
        Self::of(Token::generate().unwrap(), Sizes::default())
    }

    pub(crate) fn of(token: Token, sizes: Sizes) -> Self {
        let lane = *pin::cpus().unwrap().last().unwrap();
        pin::pin_thread(lane).unwrap();
        let catalogue = Arc::new(catalogue());
        let (limited, expired) = (Token::generate().unwrap(), Token::generate().unwrap());
        let end = UnixNs(RealClock.now().unix.0 - 1);
        let gone = Key { expires: end, ..key(&expired, 11, true) };
        let table = KeyTable::new(vec![key(&token, 9, true), key(&limited, 10, false), gone]);
        let keys = table.clone();
        let symbols: Vec<Symbol> = catalogue.assets().iter().map(|asset| asset.symbol).collect();
        let mut program = Program::load(&symbols, EPOCH, sizes, None).unwrap_or_else(|e| {
            panic!("the kernel's program cannot be loaded, and its tests must not be skipped: {e}")
        });
        assert_eq!(program.prices.left_out(), 0);
        assert_eq!(program.keys.replace(&table, |key| key.tier.unlimited.then_some(0)).unwrap(), 0);
        let interface = Interface {
            name: "none".into(),
            index: 0,
            hardware: SERVER_MAC,
            addresses: vec![SERVER_V4.into(), SERVER_V6.into()],
            tagged: vec![SERVER_V4.into(), SERVER_V6.into()],
        };
        let listen: [IpAddr; 2] = ["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
        program.settings.tell_served(&Served::new(&interface, &listen, PORT));
        let shard = XDP_SHARD_FIRST + u16::try_from(lane).unwrap();
        let answerer = Answerer::new(
            Arc::clone(&catalogue),
            Box::new(table),
            Segment::new(EPOCH, shard),
            ShardSecrets { recognizer: [1; 16], budget: [2; 16] },
            Box::new(NoRest),
        );
        let mut world =
            Self { program, answerer, token, limited, expired, lane, catalogue, keys, shift_ns: 0 };
        world.tell_time(0);
        for n in 0..world.catalogue.listings().len() {
            world.price(n, &format!("{}.{:02}", 64_000 + 37 * n, n % 100), FRESH);
        }
        world.follow();
        world
    }

    /// The keys both sides know.
    pub(crate) fn table(&self) -> KeyTable {
        self.keys.clone()
    }

    /// Both sides' Unix time is so much ahead of the machine's from now on.
    pub(crate) fn tell_time(&mut self, shift_ns: i64) {
        self.shift_ns = shift_ns;
        self.program.settings.tell_time(self.now());
    }

    pub(crate) fn now(&self) -> Now {
        let now = RealClock.now();
        Now { unix: UnixNs(now.unix.0.checked_add_signed(self.shift_ns).unwrap()), ..now }
    }

    /// A new price of a listing, on the board.
    pub(crate) fn price(&mut self, listing: usize, text: &str, fresh: Duration) {
        let listing = ListingId::new(listing).unwrap();
        let time = UnixNs(1_763_650_000_123_456_789);
        let quote = Quote {
            price: Price::parse(text.as_bytes()).unwrap(),
            key: TradeKey { time, number: 1 },
            received: UnixNs(1_763_650_000_151_000_000),
            tier: if listing.index() % 3 == 1 { Tier::Rest } else { Tier::Ws },
        };
        let ready = Ready::new(&self.catalogue, listing, &quote);
        let until = RealClock.now().mono.plus(fresh);
        self.answerer.board_mut().update(listing, quote, ready, Confirmation::Until(until));
    }

    /// The program's prices follow the board.
    pub(crate) fn follow(&mut self) {
        let all = 0..self.catalogue.assets().len();
        let (board, catalogue) = (self.answerer.board(), &self.catalogue);
        self.program.prices.follow(board, catalogue, all, RealClock.now().mono, |ready| &ready.v2);
    }

    /// A request of the unlimited key, valid now.
    pub(crate) fn request(&self, asset: &str, id: u64) -> Vec<u8> {
        self.request_of(&self.token, asset, id, self.now().unix.ms(), None)
    }

    pub(crate) fn request_of(
        &self,
        token: &Token,
        asset: &str,
        request_id: u64,
        time_ms: u64,
        exchange: Option<ExchangeId>,
    ) -> Vec<u8> {
        let symbol = Symbol::parse(asset).unwrap();
        let request = v2::Request { key_id: token.public_id(), time_ms, request_id, exchange, symbol };
        let mut out = vec![0; v2::ANSWER_LEN];
        v2::write_request(&mut out, &request, &v2::Key(token.v2_request_key().0)).unwrap();
        out
    }

    /// Runs the program once. What it did not send must have come through unchanged.
    pub(crate) fn run(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; 2_048];
        let TestRun { sent, passed, len, .. } = self.program.test_run(frame, &mut out, 1).unwrap();
        out.truncate(len);
        assert!(sent ^ passed, "neither passed up nor sent");
        assert!(out.len() <= frame.len(), "longer than the request");
        if passed {
            assert_eq!(out, frame, "passed up, but changed");
        }
        sent.then_some(out)
    }

    /// What the socket path makes of a payload.
    pub(crate) fn socket(&mut self, peer: IpAddr, payload: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; UDP_PAYLOAD_MAX];
        let now = self.now();
        match self.answerer.datagram(now, peer, payload, false, &mut room, Attempt::First) {
            Verdict::Send(len) => {
                room.truncate(len);
                Some(room)
            }
            Verdict::Silent => None,
            Verdict::Wait(_) => panic!("nobody can be asked"),
        }
    }

    /// How many answers the program has written down.
    pub(crate) fn answered(&self) -> u64 {
        self.program.lanes.answered(self.lane)
    }

    /// Takes all records out.
    pub(crate) fn release(&self) {
        self.program.lanes.release(self.lane, u64::MAX);
    }

    /// Nothing is fresh any more.
    pub(crate) fn expire(&mut self) {
        for position in 0..self.catalogue.assets().len() {
            self.program.prices.write(position, None);
        }
    }
}
