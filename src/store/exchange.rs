//! What a refused exchange found.

use std::fmt;

use crate::value::OwnedValue;
use crate::words::some;

/// What [`Store::compare_exchange`](crate::Table::compare_exchange) found instead of the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompareExchangeError {
    /// The key's value; `None` if it is absent.
    pub current: Option<OwnedValue>,
}

impl fmt::Display for CompareExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.current {
            Some(value) => {
                let bytes = some(value.len() as u64, "byte");
                write!(f, "the key has a value of {bytes} instead of the expected one")
            }
            None => f.write_str("the key is absent instead of having the expected value"),
        }
    }
}

impl std::error::Error for CompareExchangeError {}
