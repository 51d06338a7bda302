//! Units as types, so that a token count can never be added to a byte count.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);
            /// The largest amount, used as "no limit".
            pub const MAX: Self = Self(u64::MAX);

            /// Subtracts, stopping at zero.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        // Amounts come from outside (a client may claim 2^63 tokens), so sums
        // stop at the top instead of overflowing.
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }

        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, Add::add)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

unit!(
    /// Model tokens.
    Tokens, " tokens"
);
unit!(
    /// Bytes.
    Bytes, " B"
);
unit!(
    /// A length of time in milliseconds.
    Millis, " ms"
);
unit!(
    /// Money in millionths of a US dollar.
    MicroUsd, " µUSD"
);

impl Millis {
    /// The same length in microseconds, the unit of [`At`].
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }
}

/// A point in time: microseconds since the Unix epoch, never running backwards.
///
/// The shell reads the clock and passes it in; nothing below it ever looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u64);

impl At {
    /// The far future, used as "no deadline".
    pub const MAX: Self = Self(u64::MAX);

    /// This point moved later by `span`.
    #[must_use]
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.micros()))
    }

    /// Time since `earlier`, in whole milliseconds; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0) / 1_000)
    }

    /// Time since `earlier`, in microseconds; zero if it lies ahead.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stop_at_the_top() {
        assert_eq!(Tokens::MAX + Tokens(1), Tokens::MAX);
        assert_eq!(Tokens(1) - Tokens(2), Tokens::ZERO);
    }

    #[test]
    fn time_never_goes_negative() {
        assert_eq!(At(5).since(At(9)), Millis::ZERO);
        assert_eq!(At(9_000).since(At(2_000)), Millis(7));
        assert_eq!(At(1).plus(Millis(2)), At(2_001));
    }
}
