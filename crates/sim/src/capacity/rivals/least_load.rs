//! To the replica with the fewest calls in flight, the first of equals: nginx's
//! `least_conn`, Envoy's `LEAST_REQUEST` over all hosts.

use super::Place;
use crate::capacity::replay::Scene;

/// The law; it remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoad;

impl Place for LeastLoad {
    fn choose(&mut self, _scene: Scene<'_>, _call: usize, running: &[u32]) -> usize {
        let least = running.iter().enumerate().min_by_key(|(_, running)| **running);
        least.map_or(0, |(replica, _)| replica)
    }
}
