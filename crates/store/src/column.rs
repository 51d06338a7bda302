//! Between our unsigned amounts and SQLite's signed 64-bit integers.

use seawall_model::{At, Tokens};

/// An amount as stored. Amounts above 2^63 stand for "no limit" or for a liar, and are
/// stored as the largest that fits.
pub(crate) fn amount(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit or count as stored.
pub(crate) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A stored amount; a negative one (nobody writes one) reads as none.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A point in time as stored.
pub(crate) fn time(at: At) -> i64 {
    amount(at.0)
}

/// A stored point in time.
pub(crate) fn at(value: i64) -> At {
    At(unsigned(value))
}

/// Tokens as stored.
pub(crate) fn tokens(count: Tokens) -> i64 {
    amount(count.0)
}
