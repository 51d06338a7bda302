//! Virtual token counter (Sheng et al., OSDI'24, arXiv 2401.00588; law as in
//! Ying1123/VTC-artifact at 192c2e2, `slora/server/router/vtc_req_queue.py`): the client
//! with the least counter goes next; a prompt is charged when its call is sent, each token
//! as it is generated, by weight; a client that returns is lifted to the least counter of
//! those that wait.

use std::collections::BTreeMap;

use super::{Order, Queues};
use crate::capacity::replay::{Ask, Scene};

/// The counters.
#[derive(Debug, Default)]
pub struct Vtc {
    queues: Queues,
    served: BTreeMap<usize, f64>,
}

impl Vtc {
    fn counter(&self, client: usize) -> f64 {
        self.served.get(&client).copied().unwrap_or(0.0)
    }
}

impl Order for Vtc {
    fn push(&mut self, scene: Scene<'_>, call: usize) {
        let client = scene.asks[call].client;
        if self.queues.push(client, call) {
            let others = self.queues.heads().filter(|(other, _)| *other != client);
            let least = others.map(|(other, _)| self.counter(other)).reduce(f64::min);
            let lifted = self.counter(client).max(least.unwrap_or(0.0));
            self.served.insert(client, lifted);
        }
    }

    fn head(&mut self, _scene: Scene<'_>) -> Option<usize> {
        let least = self.queues.heads().min_by(|one, other| {
            self.counter(one.0).total_cmp(&self.counter(other.0)).then(one.0.cmp(&other.0))
        });
        least.map(|(_, call)| call)
    }

    fn pop(&mut self, ask: &Ask, sent: bool) {
        self.queues.pop(ask.client);
        if sent {
            *self.served.entry(ask.client).or_default() += ask.input as f64 / ask.weight;
        }
    }

    fn token(&mut self, ask: &Ask) {
        *self.served.entry(ask.client).or_default() += 2.0 / ask.weight;
    }
}
