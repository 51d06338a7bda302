//! llm-d's weighted scorers at 3:2:2 (llm-d/llm-d-router at ebab687,
//! `test/perf/config/router-configs/optimized-baseline.yaml`): the part of the prompt that
//! is cached, how short the engine's queue is between the shortest and the longest, and how
//! much of its KV memory is free; the highest sum goes. The figures of the engines are read
//! at the very moment, which flatters it: a real router reads them some time ago.

use super::Place;
use super::index::Index;
use crate::capacity::replay::Scene;

/// The weights and the index.
#[derive(Debug)]
pub struct Scorers {
    index: Index,
    weights: [f64; 3],
}

impl Scorers {
    /// For so many replicas of so many blocks each; weights of prefix, queue and memory.
    #[must_use]
    pub fn new(replicas: usize, blocks_max: u64, weights: [f64; 3]) -> Self {
        Self { index: Index::new(replicas, blocks_max), weights }
    }
}

impl Place for Scorers {
    fn choose(&mut self, scene: Scene<'_>, call: usize, running: &[u32]) -> usize {
        let prefix = &scene.asks[call].prefix;
        let longest = scene.engines.iter().map(|engine| engine.waiting).max().unwrap_or(0);
        let shortest = scene.engines.iter().map(|engine| engine.waiting).min().unwrap_or(0);
        let score = |replica: usize| {
            let engine = &scene.engines[replica];
            let queue = if longest == shortest {
                1.0
            } else {
                f64::from(longest - engine.waiting) / f64::from(longest - shortest)
            };
            let free = 1.0 - engine.kv_used.0 as f64 / engine.kv_tokens.0 as f64;
            let [of_prefix, of_queue, of_memory] = self.weights;
            of_prefix * self.index.part(replica, prefix) + of_queue * queue + of_memory * free
        };
        let mut best = (f64::NEG_INFINITY, u32::MAX, 0);
        for (replica, running) in running.iter().enumerate() {
            let score = score(replica);
            // The picker chooses among equals by lot; the least loaded of them flatters it.
            if score > best.0 || (score >= best.0 && *running < best.1) {
                best = (score, *running, replica);
            }
        }
        self.index.insert(best.2, prefix);
        best.2
    }
}
