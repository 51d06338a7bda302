//! Additive increase, multiplicative decrease on the time of whole calls
//! (Netflix/concurrency-limits at 78a74b9, `limit/AIMDLimit.java`): one more while calls
//! stay under the timeout and the limit is at least half used, a tenth less when one does
//! not. Defaults: from 20, between 20 and 200, timeout 5 s.

use super::Limit;
use crate::capacity::replay::Scene;

const LIMIT_MIN: u32 = 20;
const LIMIT_MAX: u32 = 200;
const BACKOFF: f64 = 0.9;

/// The limit.
#[derive(Clone, Debug)]
pub struct Aimd {
    limit: u32,
    timeout_us: u64,
}

impl Aimd {
    /// With this timeout in seconds (5).
    #[must_use]
    pub const fn new(timeout_s: u64) -> Self {
        Self { limit: LIMIT_MIN, timeout_us: timeout_s * 1_000_000 }
    }
}

impl Limit for Aimd {
    fn admits(&mut self, _scene: Scene<'_>, _call: usize, running: u32) -> bool {
        running < self.limit
    }

    fn done(&mut self, _call: usize, rtt_us: u64, inflight: u32) {
        if rtt_us > self.timeout_us {
            self.limit = (f64::from(self.limit) * BACKOFF) as u32;
        } else if inflight * 2 >= self.limit {
            self.limit += 1;
        }
        self.limit = self.limit.clamp(LIMIT_MIN, LIMIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_and_a_tenth_less_within_its_bounds() {
        let mut limit = Aimd::new(5);
        (0..500).for_each(|_| limit.done(0, 1_000_000, limit.limit));
        assert_eq!(limit.limit, LIMIT_MAX);
        limit.done(0, 6_000_000, 200);
        assert_eq!(limit.limit, 180);
        (0..500).for_each(|_| limit.done(0, 6_000_000, 20));
        assert_eq!(limit.limit, LIMIT_MIN);
    }
}
