//! To the replica with the longest cached prefix, among equals the one with the fewest
//! calls in flight: llm-d's `prefix-cache-scorer` alone with the `max-picker`
//! (llm-d/llm-d-router at ebab687). It sets the bar for cache hits, and says what following
//! them blindly costs.

use super::Place;
use super::index::Index;
use crate::capacity::replay::Scene;

/// The law and its index.
#[derive(Debug)]
pub struct PrefixMax {
    index: Index,
}

impl PrefixMax {
    /// For so many replicas of so many blocks each.
    #[must_use]
    pub fn new(replicas: usize, blocks_max: u64) -> Self {
        Self { index: Index::new(replicas, blocks_max) }
    }
}

impl Place for PrefixMax {
    fn choose(&mut self, scene: Scene<'_>, call: usize, running: &[u32]) -> usize {
        let prefix = &scene.asks[call].prefix;
        let key = |replica: &usize| {
            (std::cmp::Reverse(self.index.matched(*replica, prefix)), running[*replica], *replica)
        };
        let best = (0..running.len()).min_by_key(key).unwrap_or(0);
        self.index.insert(best, prefix);
        best
    }
}
