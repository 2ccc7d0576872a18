//! The binary protocol.

use super::requests::{Requests, Verdict, pick};
use crate::price::Symbol;
use crate::time::UnixNs;
use crate::wire::v2::{Key, Reply, ReplyFault, Request, write_request};

/// Asks for assets in v2 and checks the tag, the id and the asset of every answer.
#[derive(Clone, Debug)]
pub struct V2 {
    /// Number of the API key: the token's public id.
    pub key_id: u64,
    /// Under which requests are tagged.
    pub request_key: Key,
    /// Under which answers are tagged.
    pub answer_key: Key,
    /// What is asked for, in turn; not empty.
    pub symbols: Vec<Symbol>,
}

impl V2 {
    fn symbol(&self, id: u64) -> Option<Symbol> {
        self.symbols.get(pick(id, self.symbols.len())).copied()
    }
}

impl Requests for V2 {
    fn fill(&mut self, id: u64, now: UnixNs, out: &mut [u8]) -> usize {
        let Some(symbol) = self.symbol(id) else { return 0 };
        let request =
            Request { key_id: self.key_id, time_ms: now.ms(), request_id: id, exchange: None, symbol };
        write_request(out, &request, &self.request_key).unwrap_or(0)
    }

    fn check(&mut self, answer: &[u8]) -> Verdict {
        match Reply::parse(answer, &self.answer_key) {
            Ok(Reply::Answer(answer)) => {
                let asked = self.symbol(answer.request_id) == Some(answer.symbol);
                let id = answer.request_id;
                if asked { Verdict::Match(id) } else { Verdict::Wrong(id) }
            }
            Ok(Reply::Refused(refusal) | Reply::RefusedUnsigned(refusal)) => {
                Verdict::Refused(refusal.request_id, refusal.code)
            }
            // It comes from the server and says which request it answers, and what it says of it is nothing
            // that v2 defines: no price, no currency.
            Err(ReplyFault::OutOfRange) => {
                let id = answer.get(8..16).and_then(|id| id.try_into().ok());
                id.map_or(Verdict::Stray, |id| Verdict::Wrong(u64::from_le_bytes(id)))
            }
            Err(ReplyFault::Malformed | ReplyFault::WrongTag) => Verdict::Stray,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Currency, ExchangeId, Price, Quote, Tier, TradeKey};
    use crate::wire::ErrorCode;
    use crate::wire::v2::{AnswerTemplate, RecordId, Refusal, RequestView, write_error};

    fn answer(key: &Key, symbol: Symbol, id: u64) -> Vec<u8> {
        let quote = Quote {
            price: Price::parse(b"65000.12").unwrap(),
            key: TradeKey { time: UnixNs(5), number: 1 },
            received: UnixNs(6),
            tier: Tier::Ws,
        };
        let usd = Currency::parse("USD").unwrap();
        let template = AnswerTemplate::new(symbol, usd, ExchangeId::new(1).unwrap(), &quote);
        let mut out = vec![0; 88];
        template.write(&mut out, id, RecordId { epoch: 1, shard: 0, sequence: 9 }, key).unwrap();
        out
    }

    #[test]
    fn requests_are_valid_and_only_their_own_answers_match() {
        let (request_key, answer_key) = (Key([1; 16]), Key([2; 16]));
        let symbols = ["BTC", "ETH", "SOL"].map(|s| Symbol::parse(s).unwrap()).to_vec();
        let mut load = V2 { key_id: 7, request_key, answer_key, symbols };
        let mut room = [0; 1_232];
        let now = UnixNs::from_ms(1_763_650_000_123).unwrap();
        for id in [1, 0x0003_0000_0001_0002, u64::MAX] {
            let len = load.fill(id, now, &mut room);
            let view = RequestView::parse(&room[..len]).unwrap();
            assert!(view.tag_valid(&request_key));
            assert_eq!((view.key_id(), view.request_id(), view.time_ms()), (7, id, 1_763_650_000_123));
            let symbol = view.symbol().unwrap();
            assert_eq!(load.check(&answer(&answer_key, symbol, id)), Verdict::Match(id));
            let other = Symbol::parse("DOGE").unwrap();
            assert_eq!(load.check(&answer(&answer_key, other, id)), Verdict::Wrong(id));
            assert_eq!(load.check(&answer(&request_key, symbol, id)), Verdict::Stray, "a forged tag");
            let mut no_currency = answer(&answer_key, symbol, id);
            no_currency[40..48].copy_from_slice(b"\0USD\0\0\0\0");
            let word = |at: usize| u64::from_le_bytes(no_currency[at * 8..][..8].try_into().unwrap());
            let tag = answer_key.tag(&std::array::from_fn::<_, 10, _>(word));
            no_currency[80..].copy_from_slice(&tag.to_le_bytes());
            assert_eq!(load.check(&no_currency), Verdict::Wrong(id));
            let mut refusal = [0; 40];
            let code = ErrorCode::Stale;
            let told = Refusal { code, request_id: id, server_time_ms: 1, retry_after_ms: 0 };
            let len = write_error(&mut refusal, 88, &told, Some(&answer_key)).unwrap();
            assert_eq!(load.check(&refusal[..len]), Verdict::Refused(id, code));
        }
    }

    #[test]
    fn all_symbols_are_asked_for() {
        let symbols: Vec<_> = (0..50).map(|n| Symbol::parse(&format!("A{n}")).unwrap()).collect();
        let load = V2 { key_id: 7, request_key: Key([1; 16]), answer_key: Key([2; 16]), symbols };
        let mut asked: Vec<_> = (0..2_000_u64).filter_map(|n| load.symbol(n << 16)).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 50);
    }
}
