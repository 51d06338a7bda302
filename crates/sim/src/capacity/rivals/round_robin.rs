//! Round robin over clients with waiting calls, one call each, whatever its size: the
//! `round-robin-fairness-policy` of llm-d's router (llm-d/llm-d-router at ebab687,
//! `pkg/epp/framework/plugins/flowcontrol/fairness/roundrobin`). And round robin over
//! replicas, as plain load balancers do.

use super::{Order, Place, Queues};
use crate::capacity::replay::{Ask, Scene};

/// Over clients.
#[derive(Debug, Default)]
pub struct Clients {
    queues: Queues,
    last: Option<usize>,
}

impl Order for Clients {
    fn push(&mut self, scene: Scene<'_>, call: usize) {
        self.queues.push(scene.asks[call].client, call);
    }

    fn head(&mut self, _scene: Scene<'_>) -> Option<usize> {
        let after = self.queues.heads().find(|(client, _)| self.last.is_none_or(|last| *client > last));
        after.or_else(|| self.queues.heads().next()).map(|(_, call)| call)
    }

    fn pop(&mut self, ask: &Ask, _sent: bool) {
        self.last = Some(ask.client);
        self.queues.pop(ask.client);
    }
}

/// Over replicas.
#[derive(Debug, Default)]
pub struct Replicas {
    next: usize,
}

impl Place for Replicas {
    fn choose(&mut self, _scene: Scene<'_>, _call: usize, running: &[u32]) -> usize {
        let replica = self.next % running.len();
        self.next = replica + 1;
        replica
    }
}
