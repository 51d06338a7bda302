//! Percentiles of a list: exact, because the lists fit.

use serde_json::{Value, json};

/// Samples in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<u64>);

impl Spread {
    pub(crate) fn add(&mut self, us: u64) {
        self.0.push(us);
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Count, mean, percentiles and extremes, in milliseconds.
    pub(crate) fn report(mut self) -> Value {
        self.0.sort_unstable();
        let Some(last) = self.0.len().checked_sub(1) else {
            return json!({"count": 0});
        };
        let ms = |us: u64| us as f64 / 1e3;
        let at = |share: f64| ms(self.0[((last as f64 * share).round() as usize).min(last)]);
        let mean = ms(self.0.iter().sum::<u64>()) / self.0.len() as f64;
        json!({
            "count": self.0.len(), "mean_ms": mean, "min_ms": at(0.0), "p50_ms": at(0.5),
            "p90_ms": at(0.9), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0),
        })
    }
}
