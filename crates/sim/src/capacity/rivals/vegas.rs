//! Netflix's Vegas (Netflix/concurrency-limits at 78a74b9, `limit/VegasLimit.java`,
//! `limit/functions/Log10RootIntFunction.java`): what a call takes over the least ever seen
//! is taken for a queue, and the limit steered so that the queue stays between three and
//! six times the logarithm of the limit. Every thirty limits' worth of calls, give or take
//! by lot, the least is taken anew. Defaults: from 20, at most 1,000, no smoothing. Its
//! sample is the time from sending to the end of the answer.

use seawall_load::rng::Rng;

use super::Limit;
use crate::capacity::replay::Scene;

const PROBE: f64 = 30.0;
const LIMIT_MAX: f64 = 1_000.0;

/// The estimator.
#[derive(Clone, Debug)]
pub struct Vegas {
    limit: f64,
    /// The default queue bounds are multiplied by this.
    slack: i64,
    least: u64,
    probes: u32,
    jitter: f64,
    rng: Rng,
}

impl Vegas {
    /// With its queue bounds multiplied by `slack` (1), and its chance seeded.
    #[must_use]
    pub fn new(slack: i64, seed: u64) -> Self {
        let mut rng = Rng::seed(seed);
        let jitter = 0.5 + rng.unit() / 2.0;
        Self { limit: 20.0, slack, least: 0, probes: 0, jitter, rng }
    }
}

fn log10(limit: f64) -> i64 {
    (limit.max(1.0).log10() as i64).max(1)
}

impl Limit for Vegas {
    fn admits(&mut self, _scene: Scene<'_>, _call: usize, running: u32) -> bool {
        running < self.limit as u32
    }

    fn done(&mut self, _call: usize, rtt_us: u64, inflight: u32) {
        self.probes += 1;
        if self.jitter * PROBE * self.limit <= f64::from(self.probes) {
            self.jitter = 0.5 + self.rng.unit() / 2.0;
            self.probes = 0;
            self.least = rtt_us;
            return;
        }
        if self.least == 0 || rtt_us < self.least {
            self.least = rtt_us;
            return;
        }
        if f64::from(inflight) * 2.0 < self.limit {
            return;
        }
        let queue = (self.limit * (1.0 - self.least as f64 / rtt_us as f64)).ceil() as i64;
        let unit = log10(self.limit.floor());
        let (alpha, beta) = (3 * unit * self.slack, 6 * unit * self.slack);
        let wanted = if queue <= unit {
            self.limit + beta as f64
        } else if queue < alpha {
            self.limit + unit as f64
        } else if queue > beta {
            self.limit - unit as f64
        } else {
            return;
        };
        self.limit = wanted.clamp(1.0, LIMIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_answers_are_taken_for_a_queue() {
        let mut limit = Vegas::new(1, 1);
        limit.done(0, 1_000, 20);
        (0..50).for_each(|_| limit.done(0, 1_000, limit.limit as u32));
        let grown = limit.limit;
        assert!(grown > 100.0, "no queue: {grown}");
        (0..2_000)
            .for_each(|nth| limit.done(0, if nth % 40 == 0 { 1_000 } else { 5_000 }, limit.limit as u32));
        assert!(limit.limit * 2.0 < grown, "{} after {grown}", limit.limit);
    }
}
