//! Which key a token belongs to, fast for those seen before.
//!
//! The public id in a token names the one key it can belong to. Beside each key of the table a shard
//! remembers a keyed hash of the token that was verified for it: SipHash-2-4 under a key of its own,
//! so that nobody can make a token of equal hash. A token has exactly one text, hence
//!
//! ```text
//!   public id not in the table          ► unknown                      costs a probe
//!   hash equals the remembered one      ► the key                      costs a probe and a SipHash
//!   hash differs from the remembered    ► unknown                      the same
//!   nothing remembered yet              ► checksum, then the budget, then SHA-256 decide
//! ```
//!
//! and guessing costs SHA-256 only for keys this shard has not seen yet, within the budget.

use std::time::Duration;

use super::token::public_id;
use super::{KeyIndex, KeyTable, PUBLIC_TEXT_LEN, Token};
use crate::limits::{FIRST_SIGHTINGS_BURST, FIRST_SIGHTINGS_PER_SECOND};
use crate::siphash::SipHash;
use crate::time::MonoNs;

/// One per shard.
#[derive(Debug)]
pub struct Recognizer {
    hash: SipHash,
    /// For each key of the table the hash of its token, once verified.
    verified: Vec<Option<u64>>,
    /// Of the table that `verified` runs beside.
    generation: u64,
    budget: Budget,
}

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecognized {
    /// No live key has this token.
    Unknown,
    /// Not looked at: first sightings are over the shard's budget. Counts as overloaded, and over
    /// UDP nothing is sent: whoever is genuine asks again and is recognised then.
    Busy,
}

impl Recognizer {
    /// One that has seen nothing yet. `secret` is 16 random bytes of this shard's own.
    #[must_use]
    pub fn new(secret: [u8; 16], table: &KeyTable) -> Self {
        Self {
            hash: SipHash::new(secret),
            verified: vec![None; table.keys().len()],
            generation: table.generation(),
            budget: Budget { paid_until: MonoNs(0) },
        }
    }

    /// The key of `table` that `token` belongs to. Allocates nothing, unless the table was replaced
    /// without a word: then it begins anew.
    ///
    /// # Errors
    /// No live key has this token, or it could not be looked at just now.
    #[inline]
    pub fn recognize(
        &mut self,
        table: &KeyTable,
        token: &[u8],
        now: MonoNs,
    ) -> Result<KeyIndex, Unrecognized> {
        if table.generation() != self.generation {
            self.forget(table);
        }
        let index = public_id(token).and_then(|id| table.by_public_id(id)).ok_or(Unrecognized::Unknown)?;
        // The public id has been compared as a number; the hash covers the rest of the text.
        let hash = self.hash.hash(token.get(PUBLIC_TEXT_LEN..).unwrap_or_default());
        match self.verified.get(index.index()) {
            Some(Some(verified)) if *verified == hash => Ok(index),
            Some(None) => self.verify(table, index, token, hash, now),
            _ => Err(Unrecognized::Unknown),
        }
    }

    /// Takes over what is known of the keys that stand in both tables. Call it before `new` is used.
    pub fn table_replaced(&mut self, old: &KeyTable, new: &KeyTable) {
        if self.generation != old.generation() {
            return self.forget(new);
        }
        let carry = |key: &super::Key| {
            let was = old.by_public_id(key.public_id)?;
            let same = old.key(was)?.secret_hash.matches(&key.secret_hash);
            self.verified.get(was.index()).copied().flatten().filter(|_| same)
        };
        self.verified = new.keys().iter().map(carry).collect();
        self.generation = new.generation();
    }

    #[cold]
    fn forget(&mut self, table: &KeyTable) {
        self.verified = vec![None; table.keys().len()];
        self.generation = table.generation();
    }

    #[cold]
    fn verify(
        &mut self,
        table: &KeyTable,
        index: KeyIndex,
        text: &[u8],
        hash: u64,
        now: MonoNs,
    ) -> Result<KeyIndex, Unrecognized> {
        let token = Token::parse(text).map_err(|_| Unrecognized::Unknown)?;
        if !self.budget.take(now) {
            return Err(Unrecognized::Busy);
        }
        let key = table.key(index).ok_or(Unrecognized::Unknown)?;
        if !key.secret_hash.matches(&token.secret_hash()) {
            return Err(Unrecognized::Unknown);
        }
        if let Some(slot) = self.verified.get_mut(index.index()) {
            *slot = Some(hash);
        }
        Ok(index)
    }
}

/// The time up to which first sightings have been paid for: each costs an even share of a second,
/// and the debt may not exceed the burst.
#[derive(Debug)]
struct Budget {
    paid_until: MonoNs,
}

impl Budget {
    const COST: Duration = Duration::from_nanos(1_000_000_000 / FIRST_SIGHTINGS_PER_SECOND as u64);
    const DEBT_MAX: Duration = Duration::from_nanos(
        1_000_000_000 / FIRST_SIGHTINGS_PER_SECOND as u64 * FIRST_SIGHTINGS_BURST as u64,
    );

    fn take(&mut self, now: MonoNs) -> bool {
        let from = self.paid_until.max(now);
        let affordable = from.since(now) < Self::DEBT_MAX;
        if affordable {
            self.paid_until = from.plus(Self::COST);
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::tests::key;
    use super::*;

    const NOW: MonoNs = MonoNs(1_000_000_000);

    fn tokens(count: usize) -> Vec<Token> {
        (0..count).map(|_| Token::generate().unwrap()).collect()
    }

    fn table(tokens: &[Token]) -> KeyTable {
        KeyTable::new((1..).zip(tokens).map(|(number, token)| key(token, number)).collect())
    }

    /// A text with the public id of `token`, another secret and a right checksum.
    fn forged(token: &Token) -> String {
        let mut text = token.reveal()[..PUBLIC_TEXT_LEN].to_owned();
        text.push_str(&Token::generate().unwrap().reveal()[PUBLIC_TEXT_LEN..42]);
        text.push_str("0000000");
        // Without a right checksum it would not reach the hash at all.
        crate::account::token::with_checksum(&text)
    }

    #[test]
    fn a_token_is_recognised_at_first_sight_and_ever_after() {
        let tokens = tokens(50);
        let table = table(&tokens);
        let mut recognizer = Recognizer::new([1; 16], &table);
        for _ in 0..3 {
            for (number, token) in (1..).zip(&tokens) {
                let index = recognizer.recognize(&table, token.reveal().as_bytes(), NOW).unwrap();
                assert_eq!(table.key(index).unwrap().number, number);
            }
        }
        let stranger = Token::generate().unwrap().reveal();
        assert_eq!(recognizer.recognize(&table, stranger.as_bytes(), NOW), Err(Unrecognized::Unknown));
    }

    #[test]
    fn another_secret_is_refused_before_and_after_the_right_one_was_seen() {
        let tokens = tokens(1);
        let table = table(&tokens);
        let mut recognizer = Recognizer::new([1; 16], &table);
        let forged = forged(&tokens[0]);
        assert!(Token::parse(forged.as_bytes()).is_ok());
        for _ in 0..2 {
            assert_eq!(recognizer.recognize(&table, forged.as_bytes(), NOW), Err(Unrecognized::Unknown));
            assert!(recognizer.recognize(&table, tokens[0].reveal().as_bytes(), NOW).is_ok());
        }
    }

    #[test]
    fn guessing_pays_from_a_budget_and_never_hurts_those_already_known() {
        let tokens = tokens(2);
        let table = table(&tokens);
        let (known, late) = (tokens[0].reveal(), tokens[1].reveal());
        let mut recognizer = Recognizer::new([1; 16], &table);
        assert!(recognizer.recognize(&table, known.as_bytes(), NOW).is_ok());
        let guess = forged(&tokens[1]);
        let looked_at = (0..10_000)
            .take_while(|_| recognizer.recognize(&table, guess.as_bytes(), NOW) == Err(Unrecognized::Unknown))
            .count();
        assert_eq!(looked_at, FIRST_SIGHTINGS_BURST as usize - 1);
        assert_eq!(recognizer.recognize(&table, late.as_bytes(), NOW), Err(Unrecognized::Busy));
        assert!(recognizer.recognize(&table, known.as_bytes(), NOW).is_ok());
        assert!(recognizer.recognize(&table, late.as_bytes(), NOW.plus(Budget::COST)).is_ok());
    }

    #[test]
    fn malformed_tokens_and_strangers_cost_no_budget() {
        let tokens = tokens(1);
        let table = table(&tokens);
        let mut recognizer = Recognizer::new([1; 16], &table);
        let mut mistyped = tokens[0].reveal().into_bytes();
        mistyped[48] = if mistyped[48] == b'0' { b'1' } else { b'0' };
        let stranger = Token::generate().unwrap().reveal();
        for _ in 0..2 * FIRST_SIGHTINGS_BURST {
            assert_eq!(recognizer.recognize(&table, &mistyped, NOW), Err(Unrecognized::Unknown));
            assert_eq!(recognizer.recognize(&table, stranger.as_bytes(), NOW), Err(Unrecognized::Unknown));
        }
        assert!(recognizer.recognize(&table, tokens[0].reveal().as_bytes(), NOW).is_ok());
    }

    #[test]
    fn a_new_table_keeps_what_is_known_and_drops_what_is_revoked() {
        let tokens = tokens(3);
        let old = table(&tokens);
        let new = table(&tokens[1..]);
        let text = |i: usize| tokens[i].reveal();
        let mut recognizer = Recognizer::new([1; 16], &old);
        for i in 0..2 {
            assert!(recognizer.recognize(&old, text(i).as_bytes(), NOW).is_ok());
        }
        recognizer.table_replaced(&old, &new);
        while recognizer.budget.take(NOW) {}
        assert_eq!(recognizer.recognize(&new, text(0).as_bytes(), NOW), Err(Unrecognized::Unknown));
        let index = recognizer.recognize(&new, text(1).as_bytes(), NOW).unwrap();
        assert_eq!(new.key(index).unwrap().public_id, tokens[1].public_id());
        assert_eq!(recognizer.recognize(&new, text(2).as_bytes(), NOW), Err(Unrecognized::Busy));
    }

    #[test]
    fn a_key_whose_secret_changed_is_looked_at_again() {
        let tokens = tokens(1);
        let old = table(&tokens);
        let mut changed = key(&tokens[0], 1);
        changed.secret_hash = Token::generate().unwrap().secret_hash();
        let new = KeyTable::new(vec![changed]);
        let mut recognizer = Recognizer::new([1; 16], &old);
        assert!(recognizer.recognize(&old, tokens[0].reveal().as_bytes(), NOW).is_ok());
        recognizer.table_replaced(&old, &new);
        assert_eq!(
            recognizer.recognize(&new, tokens[0].reveal().as_bytes(), NOW),
            Err(Unrecognized::Unknown)
        );
    }

    #[test]
    fn a_table_replaced_without_a_word_mixes_nobody_up() {
        let tokens = tokens(4);
        let (old, new) = (table(&tokens), table(&tokens[2..]));
        let mut recognizer = Recognizer::new([1; 16], &old);
        for token in &tokens {
            assert!(recognizer.recognize(&old, token.reveal().as_bytes(), NOW).is_ok());
        }
        assert_eq!(
            recognizer.recognize(&new, tokens[0].reveal().as_bytes(), NOW),
            Err(Unrecognized::Unknown)
        );
        let index = recognizer.recognize(&new, tokens[3].reveal().as_bytes(), NOW).unwrap();
        assert_eq!(new.key(index).unwrap().public_id, tokens[3].public_id());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0..49_usize, byte: u8) {
            let tokens = tokens(1);
            let table = table(&tokens);
            let mut recognizer = Recognizer::new([1; 16], &table);
            prop_assert_eq!(recognizer.recognize(&table, &bytes, NOW), Err(Unrecognized::Unknown));
            let right = tokens[0].reveal().into_bytes();
            let mut changed = right.clone();
            changed[at] = byte;
            for _ in 0..2 {
                prop_assert_eq!(recognizer.recognize(&table, &changed, NOW).is_ok(), changed == right);
                prop_assert!(recognizer.recognize(&table, &right, NOW).is_ok());
            }
        }
    }
}
