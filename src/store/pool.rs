//! Connections that are kept: as many as were ever needed at once, up to a bound, and none is closed
//! for being idle, because the next burst would pay for opening it again.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::db::{Db, DbError, Source};

/// How long to wait for a connection when all are in use.
const FREE_WAIT: Duration = Duration::from_secs(5);

/// The connections of a store.
#[derive(Debug)]
pub(super) struct Pool {
    source: Source,
    len_max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Db>,
    /// Connections there are, lent ones too.
    open: usize,
}

/// A connection on loan; goes back when it is dropped.
#[derive(Debug)]
pub struct Lent<'a> {
    pool: &'a Pool,
    /// There until it is dropped.
    db: Option<Db>,
}

impl Pool {
    pub(super) fn new(source: Source, len_max: usize) -> Self {
        Self { source, len_max: len_max.max(1), state: Mutex::default(), freed: Condvar::new() }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// A connection that works, as far as can be told without asking the server.
    pub(super) fn lend(&self) -> Result<Lent<'_>, DbError> {
        let mut state = self.lock();
        loop {
            while let Some(db) = state.free.pop() {
                if !db.is_broken() {
                    return Ok(Lent { pool: self, db: Some(db) });
                }
                state.open -= 1;
            }
            if state.open < self.len_max {
                break;
            }
            let (next, waited) =
                self.freed.wait_timeout(state, FREE_WAIT).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && state.free.is_empty() && state.open >= self.len_max {
                return Err(DbError::AllInUse(self.len_max));
            }
        }
        state.open += 1;
        // Connecting may take seconds, and others may be served meanwhile.
        drop(state);
        match self.source.connect() {
            Ok(db) => Ok(Lent { pool: self, db: Some(db) }),
            Err(error) => {
                self.lock().open -= 1;
                self.freed.notify_one();
                Err(error)
            }
        }
    }

    /// Connections that are open and how many of them are in use.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.open, state.open - state.free.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked held no half-made change: each is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let mut state = self.pool.lock();
        if db.is_broken() {
            state.open -= 1;
        } else {
            state.free.push(db);
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}

impl Deref for Lent<'_> {
    type Target = Db;

    fn deref(&self) -> &Db {
        // Taken only by `drop`.
        self.db.as_ref().expect("a loan holds its connection until it ends")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Db {
        self.db.as_mut().expect("a loan holds its connection until it ends")
    }
}
