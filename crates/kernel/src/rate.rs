//! Token buckets in integers: ceilings per minute on calls and tokens, of tenants and
//! of engines.

use seawall_model::At;

/// One token is this many parts, so that a rate per minute adds a whole number of
/// parts each microsecond.
const PARTS: i128 = 60_000_000;

/// A bucket that may go into debt: an estimate is taken beforehand and trued up later.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_min: u64,
    burst: i128,
    level: i128,
    filled: At,
}

impl Bucket {
    /// A full bucket. The burst is a tenth of a minute, and at least one token.
    pub(crate) fn new(per_min: u64, now: At) -> Self {
        let burst = i128::from((per_min / 10).max(1)) * PARTS;
        Self { per_min, burst, level: burst, filled: now }
    }

    /// Takes on a new rate and keeps what is owed.
    pub(crate) fn retune(&mut self, per_min: u64, now: At) {
        self.fill(now);
        self.per_min = per_min;
        self.burst = i128::from((per_min / 10).max(1)) * PARTS;
        self.level = self.level.min(self.burst);
    }

    pub(crate) const fn per_min(&self) -> u64 {
        self.per_min
    }

    fn fill(&mut self, now: At) {
        let passed = now.micros_since(self.filled);
        if passed > 0 {
            self.filled = now;
            self.level = (self.level + i128::from(passed) * i128::from(self.per_min)).min(self.burst);
        }
    }

    /// Takes so many, into debt if need be; a negative number gives back.
    pub(crate) fn take(&mut self, amount: i64, now: At) {
        self.fill(now);
        self.level = (self.level - i128::from(amount) * PARTS).min(self.burst);
    }

    /// When one whole token is there: `None` if it is now, [`At::MAX`] if never.
    pub(crate) fn ready_at(&mut self, now: At) -> Option<At> {
        self.fill(now);
        let missing = PARTS - self.level;
        if missing <= 0 {
            return None;
        }
        if self.per_min == 0 {
            return Some(At::MAX);
        }
        let wait = (missing + i128::from(self.per_min) - 1) / i128::from(self.per_min);
        Some(At(now.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_run_rate_is_exact() {
        let mut bucket = Bucket::new(60, At(0));
        let mut now = At(0);
        let mut taken = 0;
        while now < At(600_000_000) {
            match bucket.ready_at(now) {
                None => {
                    bucket.take(1, now);
                    taken += 1;
                }
                Some(at) => now = at,
            }
        }
        // One a second, and five more at once by the burst of six.
        assert_eq!(taken, 605);
    }

    #[test]
    fn debt_is_paid_before_more_is_given() {
        let mut bucket = Bucket::new(600, At(0));
        bucket.take(160, At(0));
        assert_eq!(bucket.ready_at(At(0)), Some(At(10_100_000)), "100 owed and 1 wanted at ten a second");
        bucket.take(-100, At(0));
        assert_eq!(bucket.ready_at(At(0)), Some(At(100_000)));
        assert_eq!(Bucket::new(0, At(0)).ready_at(At(5)), None, "the first is free even at rate 0");
    }
}
