//! The limit that only a scheduler inside the engine can keep: a call goes when the engine
//! would start its prompt with the very next step. Late binding at its best, by which a
//! gateway's loss from standing outside is measured. Like the engine it knows how long each
//! answer may become, and counts memory as the engine does
//! (`slora/server/router/req_queue.py` in Ying1123/VTC-artifact).

use std::collections::BTreeMap;

use super::Limit;
use crate::capacity::replay::Scene;

/// Calls in the engine: tokens still to come, and held.
#[derive(Debug, Default)]
pub struct InEngine {
    inside: BTreeMap<usize, (u64, u64)>,
}

impl Limit for InEngine {
    fn admits(&mut self, scene: Scene<'_>, call: usize, _running: u32) -> bool {
        let ask = &scene.asks[call];
        let mut sizes: Vec<(u64, u64)> = self.inside.values().copied().collect();
        sizes.push((ask.output, ask.input));
        sizes.sort_unstable_by_key(|(left, _)| std::cmp::Reverse(*left));
        let (mut held, mut count) = (0, 0);
        sizes.iter().all(|(left, size)| {
            held += size;
            count += 1;
            held + left * count <= scene.engines[0].kv_tokens.0
        })
    }

    fn sent(&mut self, scene: Scene<'_>, call: usize) {
        let ask = &scene.asks[call];
        self.inside.insert(call, (ask.output, ask.input));
    }

    fn token(&mut self, call: usize) {
        if let Some((left, held)) = self.inside.get_mut(&call) {
            *left -= 1;
            *held += 1;
        }
    }

    fn done(&mut self, call: usize, _rtt_us: u64, _inflight: u32) {
        self.inside.remove(&call);
    }
}
