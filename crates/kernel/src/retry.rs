//! When a failed call may be tried again on the same engine, and after what pause. The
//! budget keeps an outage from multiplying its own load: retries are at most a share of
//! first attempts (Finagle, linkerd), above a small floor. Going over to another engine
//! costs nothing here: it adds no load to the one that fails.

use seawall_model::{At, Millis};

use crate::plan::RetryRule;
use crate::rate::Bucket;
use crate::rng::Rng;

/// Retries a minute that are always allowed, so that a quiet engine may retry at all:
/// three a second, with a burst of a tenth of a minute.
const FLOOR_PER_MIN: u64 = 180;
/// Most retries saved up in quiet times: a burst beyond it is an outage, not bad luck.
const SAVED_MAX: u64 = 100;

/// The right to retry on one engine.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// Hundredths of a retry.
    saved: u64,
    floor: Bucket,
}

impl Allowance {
    pub(crate) fn new(now: At) -> Self {
        Self { saved: 0, floor: Bucket::new(FLOOR_PER_MIN, now) }
    }

    /// A first attempt was made: it pays in.
    pub(crate) fn first(&mut self, rule: &RetryRule) {
        self.saved = (self.saved + u64::from(rule.percent.min(100))).min(SAVED_MAX * 100);
    }

    /// Takes one retry, if there is one.
    pub(crate) fn take(&mut self, now: At) -> bool {
        if self.saved >= 100 {
            self.saved -= 100;
            return true;
        }
        let free = self.floor.ready_at(now).is_none();
        if free {
            self.floor.take(1, now);
        }
        free
    }
}

/// The pause before attempt `attempt` (2 is the first retry): full jitter over a
/// doubling span (AWS Architecture Blog, "Exponential Backoff and Jitter").
pub(crate) fn pause(rule: &RetryRule, attempt: u32, rng: &mut Rng) -> Millis {
    let doubled = rule.pause_ms.0.saturating_mul(1 << attempt.saturating_sub(2).min(20));
    Millis(rng.below(doubled.min(rule.pause_ms_max.0).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_below_their_share() {
        let rule = RetryRule { percent: 10, ..RetryRule::default() };
        let mut allowance = Allowance::new(At(0));
        let mut retries = 0;
        for second in 0..100_u64 {
            for _ in 0..100 {
                allowance.first(&rule);
                retries += u64::from(allowance.take(At(second * 1_000_000)));
            }
        }
        // 10,000 first attempts: a tenth of them, three a second, and the burst.
        assert!((1_250..=1_320).contains(&retries), "{retries}");
    }

    #[test]
    fn pauses_double_and_stop() {
        let rule = RetryRule { pause_ms: Millis(50), pause_ms_max: Millis(2_000), ..RetryRule::default() };
        let mut rng = Rng::seed(1);
        for attempt in 2..40 {
            let most = (50 << (attempt - 2).min(10)).min(2_000);
            let longest = (0..200).map(|_| pause(&rule, attempt, &mut rng).0).max();
            assert!(longest.is_some_and(|ms| ms <= most && ms > most / 2), "{attempt}: {longest:?}");
        }
    }
}
