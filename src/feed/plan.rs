//! All the paths of one shape of messages, compiled into one tree, so that a message is walked once.
//!
//! ```text
//! row                                     tree, walked beside the message
//! match   channel=trade                   ─ channel ─ slot 0
//! items   data[*]                         ─ data ─ [*] ─ a trade element:  ─ symbol ─ slot 1
//! symbol  symbol    price  price                                           ─ price ── slot 2
//! ```
//!
//! A slot remembers where the first value at its path stands. Slots of elements are emptied before
//! each element.

use super::path::{Condition, Path, Step, Test};
use super::row::{Order, RestRow, Row, RowError};
use super::scan::{self, Kind, Span, UNESCAPED_MAX};
use super::trade_time::TimeFormat;

/// Most different paths of one row that lead to single values.
const SLOTS_MAX: usize = 64;

/// A node of the tree: what is wanted of the value it stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    keys: Vec<Key>,
    any_key: Option<usize>,
    pub(super) each: Option<usize>,
    pub(super) indexes: Vec<(i32, usize)>,
    /// Remember where it stands.
    pub(super) slot: Option<usize>,
    /// It is a trade element of this source.
    pub(super) element: Option<usize>,
}

/// A key of an object; its first 8 bytes are compared as one number.
#[derive(Clone, Debug)]
struct Key {
    name: Box<[u8]>,
    head: u64,
    node: usize,
}

/// One sort of trade frame.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// All must hold; none always does.
    pub(super) conditions: Vec<Check>,
    /// The frame itself is the trade.
    pub(super) whole: bool,
    pub(super) fields: Fields,
}

/// The slots of a trade.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// None: the listing is known beforehand.
    pub(super) symbol: Option<usize>,
    pub(super) price: usize,
    pub(super) time: usize,
    pub(super) id: Option<usize>,
    pub(super) skip_if: Vec<Check>,
    /// Slots of the envelope that must be filled before an element can be read.
    pub(super) needs: Vec<usize>,
}

/// A condition on a slot.
#[derive(Clone, Debug)]
pub(super) struct Check {
    slot: usize,
    test: Test,
}

/// The compiled tree.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<Node>,
    pub(super) envelope: usize,
    pub(super) element: usize,
    pub(super) sources: Vec<Source>,
    pub(super) slots: usize,
    /// Slots from here on belong to elements.
    pub(super) first_element_slot: usize,
    pub(super) heartbeat: Vec<Check>,
    pub(super) error: Vec<Check>,
    pub(super) pong: Vec<Check>,
    pub(super) notice: Vec<Check>,
    pub(super) ack: Vec<Check>,
    pub(super) time_format: TimeFormat,
    pub(super) order: Order,
}

impl Node {
    #[inline]
    pub(super) fn enters_objects(&self) -> bool {
        !self.keys.is_empty() || self.any_key.is_some()
    }

    #[inline]
    pub(super) fn enters_arrays(&self) -> bool {
        self.each.is_some() || !self.indexes.is_empty()
    }

    /// The nodes for a key of the message: the one of that name and the one for any.
    #[inline]
    pub(super) fn below(&self, text: &[u8], start: usize, end: usize, escaped: bool) -> [Option<usize>; 2] {
        let named = if escaped {
            self.keys.iter().find(|k| scan::key_is(text, start, end, true, &k.name))
        } else {
            let head = head(text, start, end);
            self.keys.iter().find(|k| {
                k.head == head
                    && k.name.len() == end - start
                    && (k.name.len() <= 8 || text.get(start..end) == Some(&*k.name))
            })
        };
        [named.map(|k| k.node), self.any_key]
    }
}

/// Up to 8 bytes of a key as one number.
#[inline]
fn head(text: &[u8], start: usize, end: usize) -> u64 {
    let len = end - start;
    match text.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(eight) if len < 8 => u64::from_le_bytes(*eight) & ((1 << (len * 8)) - 1),
        Some(eight) => u64::from_le_bytes(*eight),
        None => text.get(start..end).unwrap_or(b"").iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b)),
    }
}

impl Check {
    /// Whether it holds; `None` as long as nothing was found at its path and more may come.
    #[inline]
    pub(super) fn holds(&self, text: &[u8], slots: &[Span], ended: bool) -> Option<bool> {
        let span = slots.get(self.slot)?;
        Some(match (span.kind, &self.test) {
            (Kind::Absent, _) if !ended => return None,
            (Kind::Absent, test) => *test == Test::Missing,
            (Kind::Null, Test::OneOf(_)) => self.test.passes(b"null"),
            (Kind::Null, test) => *test == Test::Missing,
            (Kind::Container, test) => *test == Test::Present,
            (Kind::Text | Kind::Bare, test) => test.passes(span.raw(text)),
            (Kind::Escaped, test) => {
                let mut buffer = [0; UNESCAPED_MAX];
                span.plain(text, &mut buffer).is_some_and(|value| test.passes(value))
            }
        })
    }
}

/// Whether all hold: `None` when that is not known yet, which it always is at the end.
#[inline]
pub(super) fn all(checks: &[Check], text: &[u8], slots: &[Span], ended: bool) -> Option<bool> {
    let mut known = Some(true);
    for check in checks {
        match check.holds(text, slots, ended) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => known = None,
        }
    }
    known
}

/// Whether there are conditions and all of them hold, at the end of a message.
pub(super) fn marks(checks: &[Check], text: &[u8], slots: &[Span]) -> bool {
    !checks.is_empty() && all(checks, text, slots, true) == Some(true)
}

/// The paths of a shape's trades, as text with the names of their fields.
struct Shape<'r> {
    items: Vec<(&'static str, &'r str, Vec<Condition>)>,
    symbol: Option<(&'static str, &'r str)>,
    price: (&'static str, &'r str),
    time: (&'static str, &'r str),
    id: Option<(&'static str, &'r str)>,
    skip_if: Vec<Condition>,
}

impl Plan {
    /// Of a row's messages.
    ///
    /// # Errors
    /// The first field with a mistake.
    pub(super) fn of_feed(row: &Row) -> Result<Self, RowError> {
        let mut plan = Self::empty(row.time_format, row.order);
        let conditions = |field, texts: &Vec<String>| row.conditions(field, texts);
        plan.heartbeat = plan.checks(&conditions("heartbeat_match", &row.heartbeat_match)?);
        plan.error = plan.checks(&conditions("error_match", &row.error_match)?);
        plan.pong = plan.checks(&conditions("pong_match", &row.pong_match)?);
        plan.notice = plan.checks(&conditions("notice_match", &row.notice_match)?);
        plan.ack = plan.checks(&conditions("ack_match", &row.ack_match)?);
        let mut items = vec![("items", row.items.as_str(), conditions("match", &row.trade_match)?)];
        if let Some(snapshot) = &row.snapshot_items {
            items.push(("snapshot_items", snapshot, conditions("snapshot_match", &row.snapshot_match)?));
        }
        let shape = Shape {
            items,
            symbol: Some(("symbol", &row.symbol)),
            price: ("price", &row.price),
            time: ("time", &row.time),
            id: row.id.as_ref().map(|id| ("id", id.as_str())),
            skip_if: conditions("skip_if", &row.skip_if)?,
        };
        plan.add(row, &shape)?;
        Ok(plan)
    }

    /// Of the bodies of a row's REST endpoint.
    ///
    /// # Errors
    /// The first field with a mistake.
    pub(super) fn of_rest(row: &Row, rest: &RestRow) -> Result<Self, RowError> {
        let mut plan = Self::empty(rest.time_format, Order::OldestFirst);
        plan.error = plan.checks(&row.conditions("rest.error_match", &rest.error_match)?);
        let shape = Shape {
            items: vec![("rest.items", rest.items.as_str(), Vec::new())],
            symbol: None,
            price: ("rest.price", &rest.price),
            time: ("rest.time", &rest.time),
            id: rest.id.as_ref().map(|id| ("rest.id", id.as_str())),
            skip_if: row.conditions("rest.skip_if", &rest.skip_if)?,
        };
        plan.add(row, &shape)?;
        Ok(plan)
    }

    fn empty(time_format: TimeFormat, order: Order) -> Self {
        Self {
            nodes: vec![Node::default(), Node::default()],
            envelope: 0,
            element: 1,
            sources: Vec::new(),
            slots: 0,
            first_element_slot: 0,
            heartbeat: Vec::new(),
            error: Vec::new(),
            pong: Vec::new(),
            notice: Vec::new(),
            ack: Vec::new(),
            time_format,
            order,
        }
    }

    /// Envelope slots first, so that those of elements are the last ones.
    fn add(&mut self, row: &Row, shape: &Shape<'_>) -> Result<(), RowError> {
        let mut paths = Vec::new();
        for (field, text, conditions) in &shape.items {
            let path = row.path(field, text)?;
            paths.push((path.steps.is_empty(), path, self.checks(conditions)));
        }
        let single = |(field, text): (&str, &str)| row.single(field, text);
        let symbol = shape.symbol.map(single).transpose()?;
        let (price, time) = (single(shape.price)?, single(shape.time)?);
        let id = shape.id.map(single).transpose()?;
        let whole = paths.iter().any(|(whole, ..)| *whole);
        let all = [symbol.as_ref(), Some(&price), Some(&time), id.as_ref()];
        for path in all.into_iter().flatten().chain(shape.skip_if.iter().map(|c| &c.path)) {
            if whole || path.envelope {
                self.slot(self.envelope, path);
            }
        }
        self.first_element_slot = self.slots;
        for (number, (whole, path, conditions)) in paths.into_iter().enumerate() {
            if !whole {
                let node = self.node(self.envelope, &path.steps);
                self.nodes[node].element = Some(number);
            }
            let mut field = |path: &Path| {
                let root = if whole || path.envelope { self.envelope } else { self.element };
                self.slot(root, path)
            };
            let fields = Fields {
                symbol: symbol.as_ref().map(&mut field),
                price: field(&price),
                time: field(&time),
                id: id.as_ref().map(&mut field),
                skip_if: shape
                    .skip_if
                    .iter()
                    .map(|c| Check { slot: field(&c.path), test: c.test.clone() })
                    .collect(),
                needs: Vec::new(),
            };
            let first = self.first_element_slot;
            let used = [fields.symbol, Some(fields.price), Some(fields.time), fields.id];
            let checked = fields.skip_if.iter().map(|c| c.slot);
            let needs = used.into_iter().flatten().chain(checked).filter(|s| !whole && *s < first).collect();
            self.sources.push(Source { conditions, whole, fields: Fields { needs, ..fields } });
        }
        if self.slots > SLOTS_MAX {
            return Err(row.error("match", &self.slots.to_string(), "at most 64 different paths in a row"));
        }
        Ok(())
    }

    fn checks(&mut self, conditions: &[Condition]) -> Vec<Check> {
        let check = |c: &Condition| Check { slot: self.slot(self.envelope, &c.path), test: c.test.clone() };
        conditions.iter().map(check).collect()
    }

    /// The slot of a path, a new one when it has none.
    fn slot(&mut self, root: usize, path: &Path) -> usize {
        let node = self.node(root, &path.steps);
        *self.nodes[node].slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// The node at the end of a path, with all that lead to it.
    fn node(&mut self, root: usize, steps: &[Step]) -> usize {
        let mut at = root;
        for step in steps {
            let node = &self.nodes[at];
            let found = match step {
                Step::Key(name) => node.keys.iter().find(|k| k.name == *name).map(|k| k.node),
                Step::AnyKey => node.any_key,
                Step::Each => node.each,
                Step::Index(n) => node.indexes.iter().find(|(index, _)| index == n).map(|(_, node)| *node),
            };
            at = found.unwrap_or_else(|| {
                let new = self.nodes.len();
                let node = &mut self.nodes[at];
                match step {
                    Step::Key(name) => {
                        node.keys.push(Key {
                            name: name.clone(),
                            head: head(name, 0, name.len()),
                            node: new,
                        });
                    }
                    Step::AnyKey => node.any_key = Some(new),
                    Step::Each => node.each = Some(new),
                    Step::Index(n) => node.indexes.push((*n, new)),
                }
                self.nodes.push(Node::default());
                new
            });
        }
        at
    }
}
