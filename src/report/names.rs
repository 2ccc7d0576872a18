//! Numbers of records and the names people know them by, both ways.

use std::collections::HashMap;

use super::refusal::Refusal;
use crate::ledger::Transport;
use crate::price::{AssetId, Catalogue, ExchangeId, Symbol};
use crate::store::KeyRow;
use crate::wire::ErrorCode;

/// How a request ended that got its price.
const OK: &str = "ok";

/// All names of one moment. A number that has no name any more is shown as `#` and the number, and is
/// understood so.
#[derive(Clone, Debug, Default)]
pub struct Names {
    catalogue: Catalogue,
    keys: HashMap<u32, Key>,
}

#[derive(Clone, Debug)]
struct Key {
    text: String,
    account: String,
}

impl Names {
    /// Names of what a catalogue lists and of these keys, revoked ones too.
    #[must_use]
    pub fn new(catalogue: Catalogue, keys: Vec<KeyRow>) -> Self {
        let keys =
            keys.into_iter().map(|row| (row.number, Key { text: row.key, account: row.account })).collect();
        Self { catalogue, keys }
    }

    /// Public text of a key.
    #[must_use]
    pub fn key_text(&self, number: u32) -> String {
        self.keys.get(&number).map_or_else(|| unnamed(number), |key| key.text.clone())
    }

    /// Name of a key's account.
    #[must_use]
    pub fn account_text(&self, key: u32) -> String {
        self.keys.get(&key).map_or_else(String::new, |key| key.account.clone())
    }

    /// Symbol of an asset; nothing for 0, which stands in records that name none.
    #[must_use]
    pub fn asset_text(&self, number: u16) -> String {
        let asset = AssetId::new(usize::from(number)).ok().and_then(|id| self.catalogue.asset_by_id(id));
        match asset {
            Some(asset) => asset.symbol.to_string(),
            None if number == 0 => String::new(),
            None => unnamed(number),
        }
    }

    /// Name of an exchange; nothing for 0, which stands in records that name none.
    #[must_use]
    pub fn exchange_text(&self, number: u8) -> String {
        let exchange = ExchangeId::new(usize::from(number)).ok().and_then(|id| self.catalogue.exchange(id));
        match exchange {
            Some(exchange) => exchange.name.clone(),
            None if number == 0 => String::new(),
            None => unnamed(number),
        }
    }

    /// Name of a transport.
    #[must_use]
    pub fn transport_text(number: u8) -> String {
        Transport::of_number(number).map_or_else(|| unnamed(number), |transport| transport.name().to_owned())
    }

    /// Name of how a request ended.
    #[must_use]
    pub fn status_text(number: u8) -> String {
        match (number, ErrorCode::from_number(number)) {
            (0, _) => OK.to_owned(),
            (_, Some(code)) => code.as_str().to_owned(),
            (_, None) => unnamed(number),
        }
    }

    /// The key of that public text, or of a beginning of it that no other has.
    pub(super) fn key_number(&self, text: &str) -> Result<u32, Refusal> {
        if let Some(number) = numbered(text) {
            return Ok(number);
        }
        let text = text.trim_end_matches('…');
        let mut found = self.keys.iter().filter(|(_, key)| text.len() > 3 && key.text.starts_with(text));
        match (found.next(), found.next()) {
            (Some((number, _)), None) => Ok(*number),
            (Some(_), Some(_)) => {
                Err(Refusal::parameter(format!("several keys begin with {}; give more of it", shown(text))))
            }
            (None, _) => Err(Refusal::parameter(format!(
                "no key begins with {}; needs the public part of a key, as `beast keys list` shows it",
                shown(text)
            ))),
        }
    }

    pub(super) fn asset_number(&self, text: &str) -> Result<u16, Refusal> {
        let listed = Symbol::parse(text).ok().and_then(|symbol| self.catalogue.asset(symbol));
        let listed = listed.and_then(|asset| u16::try_from(asset.id.index()).ok());
        listed.or_else(|| numbered(text)).ok_or_else(|| {
            Refusal::parameter(format!(
                "there is no asset {text:?}; GET /assets on the price port lists them"
            ))
        })
    }

    pub(super) fn exchange_number(&self, text: &str) -> Result<u8, Refusal> {
        let listed = self.catalogue.exchange_named(text).and_then(|e| u8::try_from(e.id.index()).ok());
        listed.or_else(|| numbered(text)).ok_or_else(|| {
            let known: Vec<&str> = self.catalogue.exchanges().iter().map(|e| e.name.as_str()).collect();
            Refusal::parameter(format!("there is no exchange {text:?}; needs one of {}", known.join(", ")))
        })
    }

    pub(super) fn transport(&self, text: &str) -> Result<Transport, Refusal> {
        Transport::ALL.into_iter().find(|transport| transport.name() == text).ok_or_else(|| {
            let known = Transport::ALL.map(Transport::name).join(", ");
            Refusal::parameter(format!("transport is {text:?}; needs one of {known}"))
        })
    }

    pub(super) fn status_number(&self, text: &str) -> Result<u8, Refusal> {
        let error = ErrorCode::ALL.iter().find(|code| code.as_str() == text).map(|code| code.number());
        error.or((text == OK).then_some(0)).ok_or_else(|| {
            let known = ErrorCode::ALL.map(ErrorCode::as_str).join(", ");
            Refusal::parameter(format!("status is {text:?}; needs ok or one of {known}"))
        })
    }
}

fn unnamed(number: impl std::fmt::Display) -> String {
    format!("#{number}")
}

fn numbered<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.strip_prefix('#')?.parse().ok()
}

/// A key as a message may show it: somebody may have pasted the whole of it, secret included.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(16).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
