//! Walks a message beside its plan, once, and gathers the newest trade of each listing.
//!
//! Elements are read where they stand if what marks the frame stood in front of them, which is how
//! every exchange writes today. As no order of keys is promised, elements that come first are
//! passed over, and the message is walked a second time.

use super::frame::{Refused, Trade};
use super::plan::{Fields, Plan, all, marks};
use super::row::Order;
use super::scan::{self, Broken, Kind, Span, UNESCAPED_MAX};
use super::symbols::SymbolTable;
use crate::limits::TRADE_AHEAD_NS_MAX;
use crate::price::{ListingId, Price, PriceError, TradeKey};
use crate::time::UnixNs;

/// Whose trades they are.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// The trade's symbol says it.
    Symbols(SymbolTable),
    /// It was asked for.
    Known(ListingId),
}

/// What is known of the message under way, and counts over all messages.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) slots: Vec<Span>,
    pub(super) refused: Refused,
    newest: Vec<Candidate>,
    received: UnixNs,
    /// Elements of this message so far.
    elements: u64,
    /// Elements were passed over because it was not known what they are.
    deferred: bool,
    second: bool,
    /// First number not yet given to a trade without an id.
    next_number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    listing: ListingId,
    price: Price,
    time: UnixNs,
    id: Option<u64>,
    /// Position in the message.
    element: u64,
}

impl Walk {
    pub(super) fn new(plan: &Plan, listings: usize) -> Self {
        Self {
            slots: vec![Span::default(); plan.slots],
            refused: Refused::default(),
            newest: Vec::with_capacity(listings),
            received: UnixNs(0),
            elements: 0,
            deferred: false,
            second: false,
            next_number: 0,
        }
    }

    /// Reads a message. `Some` says how many trades were appended when it is a trade frame.
    pub(super) fn read(
        &mut self,
        plan: &Plan,
        whose: &Whose,
        text: &[u8],
        received: UnixNs,
        out: &mut Vec<Trade>,
    ) -> Result<Option<usize>, Broken> {
        self.slots.fill(Span::default());
        self.newest.clear();
        (self.received, self.elements, self.deferred, self.second) = (received, 0, false, false);
        let refused = self.refused;
        let result = self.message(plan, whose, text);
        match result {
            Ok(true) => {}
            // What does not count as a trade frame refuses no trades.
            Ok(false) => {
                self.refused = refused;
                return Ok(None);
            }
            Err(Broken) => {
                self.refused = refused;
                return Err(Broken);
            }
        }
        let first_number = self.next_number.max(received.0);
        let number = |c: &Candidate| match (c.id, plan.order) {
            (Some(id), _) => id,
            (None, Order::OldestFirst) => first_number.saturating_add(c.element),
            (None, Order::NewestFirst) => {
                first_number.saturating_add(self.elements.saturating_sub(c.element + 1))
            }
        };
        out.extend(self.newest.iter().map(|c| Trade {
            listing: c.listing,
            price: c.price,
            key: TradeKey { time: c.time, number: number(c) },
        }));
        self.next_number = first_number.saturating_add(self.elements);
        Ok(Some(self.newest.len()))
    }

    /// Whether it is a trade frame.
    fn message(&mut self, plan: &Plan, whose: &Whose, text: &[u8]) -> Result<bool, Broken> {
        let start = scan::space(text, 0);
        let end = self.value(plan, whose, text, start, plan.envelope)?;
        if scan::space(text, end) != text.len() {
            return Err(Broken);
        }
        let mut is_trades = false;
        for source in &plan.sources {
            if all(&source.conditions, text, &self.slots, true) == Some(true) {
                is_trades = true;
                if source.whole {
                    self.trade(plan, whose, text, &source.fields);
                }
            }
        }
        if is_trades && self.deferred {
            self.second = true;
            self.value(plan, whose, text, start, plan.envelope)?;
        }
        Ok(is_trades)
    }

    /// Walks the value at `at`, wanted for `node`, and returns the position behind it.
    fn value(
        &mut self,
        plan: &Plan,
        whose: &Whose,
        text: &[u8],
        at: usize,
        node: usize,
    ) -> Result<usize, Broken> {
        let Some(wanted) = plan.nodes.get(node) else { return scan::skip(text, at) };
        let (span, mut end) = scan::scalar(text, at)?;
        if let Some(slot) = wanted.slot.and_then(|slot| self.slots.get_mut(slot))
            && slot.kind == Kind::Absent
        {
            *slot = span;
        }
        if span.kind != Kind::Container {
            if let Some(source) = wanted.element {
                self.element(plan, whose, text, at, source)?;
            }
            return Ok(end);
        }
        let object = text.get(at) == Some(&b'{');
        let mut walked = true;
        if object && wanted.enters_objects() {
            end = self.object(plan, whose, text, at, node)?;
        } else if !object && wanted.enters_arrays() {
            end = self.array(plan, whose, text, at, node)?;
        } else {
            walked = false;
        }
        match wanted.element {
            Some(source) => self.element(plan, whose, text, at, source),
            None if walked => Ok(end),
            None => scan::skip(text, at),
        }
    }

    fn object(
        &mut self,
        plan: &Plan,
        whose: &Whose,
        text: &[u8],
        at: usize,
        node: usize,
    ) -> Result<usize, Broken> {
        let mut at = match scan::enter(text, at, b'}') {
            Ok(first) => first,
            Err(end) => return Ok(end),
        };
        loop {
            let (start, end, escaped, value) = scan::key(text, at)?;
            let behind = match plan.nodes[node].below(text, start, end, escaped) {
                [Some(one), None] | [None, Some(one)] => self.value(plan, whose, text, value, one)?,
                [Some(named), Some(any)] => {
                    self.value(plan, whose, text, value, named)?;
                    self.value(plan, whose, text, value, any)?
                }
                [None, None] => scan::skip(text, value)?,
            };
            match scan::next(text, behind, b'}')? {
                (following, true) => at = following,
                (end, false) => return Ok(end),
            }
        }
    }

    fn array(
        &mut self,
        plan: &Plan,
        whose: &Whose,
        text: &[u8],
        at: usize,
        node: usize,
    ) -> Result<usize, Broken> {
        let wanted = &plan.nodes[node];
        let from_end = wanted.indexes.iter().any(|(index, _)| *index < 0);
        let len = if from_end { scan::count(text, at)? } else { 0 };
        let mut at = match scan::enter(text, at, b']') {
            Ok(first) => first,
            Err(end) => return Ok(end),
        };
        let mut position = 0;
        loop {
            let mut behind = None;
            if let Some(each) = wanted.each {
                behind = Some(self.value(plan, whose, text, at, each)?);
            }
            for (index, below) in &wanted.indexes {
                if scan::is_index(*index, position, len) {
                    behind = Some(self.value(plan, whose, text, at, *below)?);
                }
            }
            let behind = match behind {
                Some(behind) => behind,
                None => scan::skip(text, at)?,
            };
            position += 1;
            match scan::next(text, behind, b']')? {
                (following, true) => at = following,
                (end, false) => return Ok(end),
            }
        }
    }

    /// A trade element of a source: read, passed over or left for the second walk.
    fn element(
        &mut self,
        plan: &Plan,
        whose: &Whose,
        text: &[u8],
        at: usize,
        source: usize,
    ) -> Result<usize, Broken> {
        let source = &plan.sources[source];
        let fields = &source.fields;
        let is_trade = match all(&source.conditions, text, &self.slots, self.second) {
            Some(is_trade) => is_trade,
            None => {
                self.deferred = true;
                false
            }
        };
        if !is_trade {
            return scan::skip(text, at);
        }
        let ready =
            self.second || !self.deferred && fields.needs.iter().all(|s| self.slots[*s].kind != Kind::Absent);
        if !ready {
            self.deferred = true;
            return scan::skip(text, at);
        }
        self.slots[plan.first_element_slot..].fill(Span::default());
        let end = self.value(plan, whose, text, at, plan.element)?;
        self.trade(plan, whose, text, fields);
        Ok(end)
    }

    fn trade(&mut self, plan: &Plan, whose: &Whose, text: &[u8], fields: &Fields) {
        let element = self.elements;
        self.elements += 1;
        if fields.skip_if.iter().any(|check| marks(std::slice::from_ref(check), text, &self.slots)) {
            return;
        }
        let mut buffer = [0; UNESCAPED_MAX];
        let listing = match (whose, fields.symbol) {
            (Whose::Known(listing), _) => *listing,
            (Whose::Symbols(_), None) => return self.refused.missing_field += 1,
            (Whose::Symbols(table), Some(slot)) => match self.slots[slot].plain(text, &mut buffer) {
                None => return self.refused.missing_field += 1,
                Some(symbol) => match table.find(symbol) {
                    None => return self.refused.unknown_symbol += 1,
                    Some(listing) => listing,
                },
            },
        };
        let price = match self.slots[fields.price].plain(text, &mut buffer).map(Price::parse) {
            None => return self.refused.missing_field += 1,
            Some(Err(PriceError::Malformed)) => return self.refused.malformed_price += 1,
            Some(Err(PriceError::Zero)) => return self.refused.zero_price += 1,
            Some(Err(PriceError::Negative)) => return self.refused.negative_price += 1,
            Some(Err(PriceError::Absurd)) => return self.refused.absurd_price += 1,
            Some(Ok(price)) => price,
        };
        let time = match self.slots[fields.time].plain(text, &mut buffer).map(|t| plan.time_format.parse(t)) {
            None => return self.refused.missing_field += 1,
            Some(None) => return self.refused.bad_time += 1,
            Some(Some(time)) => time,
        };
        if time.0 > self.received.0.saturating_add(TRADE_AHEAD_NS_MAX) {
            return self.refused.future_time += 1;
        }
        let id = fields.id.and_then(|slot| self.slots[slot].plain(text, &mut buffer)).and_then(whole_number);
        self.offer(Candidate { listing, price, time, id, element }, plan.order);
    }

    /// Keeps the newest trade of a listing.
    fn offer(&mut self, trade: Candidate, order: Order) {
        let Some(held) = self.newest.iter_mut().find(|held| held.listing == trade.listing) else {
            return self.newest.push(trade);
        };
        // Elements come in rising position, so this one is the later in the message.
        let later_is_newer = order == Order::OldestFirst;
        let newer = match (trade.time.cmp(&held.time), trade.id, held.id) {
            (std::cmp::Ordering::Greater, ..) => true,
            (std::cmp::Ordering::Less, ..) => false,
            (_, Some(id), Some(held)) if id != held => id > held,
            _ => later_is_newer,
        };
        if newer {
            *held = trade;
        }
    }
}

/// Digits only, below 2^64.
pub(super) fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}
