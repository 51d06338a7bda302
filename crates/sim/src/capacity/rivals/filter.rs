//! llm-d's prefix affinity filter (llm-d/llm-d-router at ebab687,
//! `pkg/epp/framework/plugins/scheduling/filter/prefixcacheaffinity`): replicas that have at
//! least 80 % of the prompt cached are preferred, unless the best of them would begin later
//! than the best of the others by more than a penalty, or by chance; among those left the
//! least loaded goes. The time to begin is the prompt tokens sent there and not yet begun
//! over the engine's prefill rate. Defaults: no exploration, penalty 18 s.

use seawall_load::rng::Rng;

use super::Place;
use super::index::Index;
use crate::capacity::replay::{Ask, Scene};

const STICKY: f64 = 0.8;

/// The filter.
#[derive(Debug)]
pub struct Filter {
    index: Index,
    explore: f64,
    penalty_s: f64,
    prefill_per_s: f64,
    /// Prompt tokens sent to each replica whose first token has not come.
    waiting: Vec<u64>,
    rng: Rng,
}

impl Filter {
    /// For so many replicas of so many blocks each; the chance of exploring, the penalty in
    /// seconds, and the engine's rate of prefill in tokens per second.
    #[must_use]
    pub fn new(replicas: usize, blocks_max: u64, explore: f64, penalty_s: f64, prefill_per_s: f64) -> Self {
        let index = Index::new(replicas, blocks_max);
        Self { index, explore, penalty_s, prefill_per_s, waiting: vec![0; replicas], rng: Rng::seed(7) }
    }
}

impl Place for Filter {
    fn choose(&mut self, scene: Scene<'_>, call: usize, running: &[u32]) -> usize {
        let ask = &scene.asks[call];
        let all = 0..running.len();
        let (sticky, others): (Vec<usize>, Vec<usize>) =
            all.clone().partition(|replica| self.index.part(*replica, &ask.prefix) >= STICKY);
        let least = |of: &[usize]| of.iter().map(|replica| self.waiting[*replica]).min();
        let late = match (least(&sticky), least(&others)) {
            (Some(sticky), Some(other)) => {
                sticky.saturating_sub(other) as f64 / self.prefill_per_s > self.penalty_s
            }
            _ => false,
        };
        let free = sticky.is_empty() || late || self.rng.chance(self.explore);
        let kept = if free { all.collect() } else { sticky };
        let key = |replica: &usize| (self.waiting[*replica], running[*replica], *replica);
        let best = kept.into_iter().min_by_key(key).unwrap_or(0);
        self.waiting[best] += ask.input;
        self.index.insert(best, &ask.prefix);
        best
    }

    fn first_token(&mut self, ask: &Ask, replica: usize) {
        self.waiting[replica] -= ask.input;
    }
}
