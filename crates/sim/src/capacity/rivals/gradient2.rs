//! Netflix's Gradient2 (Netflix/concurrency-limits at 78a74b9,
//! `limit/Gradient2Limit.java`, `limit/measurement/ExpAvgMeasurement.java`): the limit is
//! scaled by how a call's time compares with its long average, between a half and one, plus
//! room for a queue. Defaults: from 20, between 20 and 200, queue 4, smoothing 0.2, window
//! 600, tolerance 1.5. Its sample is the time from sending to the end of the answer.

use super::Limit;
use crate::capacity::replay::Scene;

const WARMUP: u32 = 10;
const QUEUE: f64 = 4.0;
const SMOOTHING: f64 = 0.2;
const WINDOW: f64 = 600.0;
const LIMIT_MIN: f64 = 20.0;

/// The estimator.
#[derive(Clone, Debug)]
pub struct Gradient2 {
    limit: f64,
    most: f64,
    tolerance: f64,
    long: f64,
    sum: f64,
    count: u32,
}

impl Gradient2 {
    /// With this tolerance of slower calls (1.5) and largest limit (200).
    #[must_use]
    pub const fn new(tolerance: f64, most: f64) -> Self {
        Self { limit: LIMIT_MIN, most, tolerance, long: 0.0, sum: 0.0, count: 0 }
    }

    fn add(&mut self, rtt: f64) -> f64 {
        if self.count < WARMUP {
            self.count += 1;
            self.sum += rtt;
            self.long = self.sum / f64::from(self.count);
        } else {
            let factor = 2.0 / (WINDOW + 1.0);
            self.long = self.long * (1.0 - factor) + rtt * factor;
        }
        self.long
    }
}

impl Limit for Gradient2 {
    fn admits(&mut self, _scene: Scene<'_>, _call: usize, running: u32) -> bool {
        running < self.limit as u32
    }

    fn done(&mut self, _call: usize, rtt_us: u64, inflight: u32) {
        let short = rtt_us as f64;
        let long = self.add(short);
        if long / short > 2.0 {
            self.long *= 0.95;
        }
        if f64::from(inflight) < self.limit / 2.0 {
            return;
        }
        let gradient = (self.tolerance * long / short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        let smoothed = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = smoothed.clamp(LIMIT_MIN, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_on_even_times_and_shrinks_on_longer_ones() {
        let mut limit = Gradient2::new(1.5, 200.0);
        (0..100).for_each(|_| limit.done(0, 1_000, limit.limit as u32));
        assert!((90.0..=101.0).contains(&limit.limit), "0.8 a sample: {}", limit.limit);
        (0..20).for_each(|_| limit.done(0, 10_000, limit.limit as u32));
        assert!(limit.limit < 50.0, "{}", limit.limit);
    }
}
