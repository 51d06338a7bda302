//! The rivals, re-implemented from their cited sources: one file each. Every gateway is
//! three laws put together: in which order waiting calls go ([`Order`]), how many go at
//! once ([`Limit`]), and where to ([`Place`]). None of them sees the length of an answer
//! before it is complete.

pub mod aimd;
pub mod bands;
pub mod fcfs;
pub mod filter;
pub mod fixed;
pub mod gradient2;
pub mod in_engine;
pub mod index;
pub mod las;
pub mod least_load;
pub mod prefix_max;
pub mod round_robin;
pub mod scorers;
pub mod vegas;
pub mod vtc;

use std::collections::{BTreeMap, VecDeque};

use seawall_model::At;

use super::replay::{Ask, Decision, Gateway, Scene};

/// Who goes next.
pub trait Order {
    /// A call begins to wait.
    fn push(&mut self, scene: Scene<'_>, call: usize);
    /// The call that goes next, if any waits.
    fn head(&mut self, scene: Scene<'_>) -> Option<usize>;
    /// The head leaves; `sent` if it was sent and not dropped.
    fn pop(&mut self, ask: &Ask, sent: bool);
    /// A token of a call was generated.
    fn token(&mut self, _ask: &Ask) {}
    /// A call is complete.
    fn done(&mut self, _now: At, _ask: &Ask) {}
}

/// How many go at once.
pub trait Limit {
    /// May this call go, while so many are in flight?
    fn admits(&mut self, scene: Scene<'_>, call: usize, running: u32) -> bool;
    /// It went.
    fn sent(&mut self, _scene: Scene<'_>, _call: usize) {}
    /// A token of it was generated.
    fn token(&mut self, _call: usize) {}
    /// It is complete, so many microseconds after it went, with so many in flight then.
    fn done(&mut self, _call: usize, _rtt_us: u64, _inflight: u32) {}
}

/// Where to.
pub trait Place {
    /// The replica for a call; `running` is what is in flight at each.
    fn choose(&mut self, scene: Scene<'_>, call: usize, running: &[u32]) -> usize;
    /// Its first token came.
    fn first_token(&mut self, _ask: &Ask, _replica: usize) {}
}

/// A gateway made of three laws.
pub struct Rival {
    order: Box<dyn Order>,
    limit: Box<dyn Limit>,
    place: Box<dyn Place>,
    running: Vec<u32>,
    /// Of each call in flight: when it went, with how many, and where to.
    sent: BTreeMap<usize, (At, u32, usize)>,
}

impl Rival {
    /// A gateway before so many replicas.
    #[must_use]
    pub fn new(
        order: impl Order + 'static,
        limit: impl Limit + 'static,
        place: impl Place + 'static,
        replicas: usize,
    ) -> Self {
        Self {
            order: Box::new(order),
            limit: Box::new(limit),
            place: Box::new(place),
            running: vec![0; replicas],
            sent: BTreeMap::new(),
        }
    }

    /// A gateway before one engine.
    #[must_use]
    pub fn before_one(order: impl Order + 'static, limit: impl Limit + 'static) -> Self {
        Self::new(order, limit, round_robin::Replicas::default(), 1)
    }

    /// Sends whom it may, and drops at the head whoever waited past the deadline.
    fn pump(&mut self, scene: Scene<'_>, out: &mut Vec<Decision>) {
        while let Some(call) = self.order.head(scene) {
            let ask = &scene.asks[call];
            if ask.deadline().is_some_and(|deadline| deadline < scene.now) {
                self.order.pop(ask, false);
                out.push(Decision::Drop { call });
                continue;
            }
            let inflight: u32 = self.running.iter().sum();
            if !self.limit.admits(scene, call, inflight) {
                return;
            }
            self.order.pop(ask, true);
            self.limit.sent(scene, call);
            let replica = self.place.choose(scene, call, &self.running);
            self.running[replica] += 1;
            self.sent.insert(call, (scene.now, inflight + 1, replica));
            out.push(Decision::Send { call, replica });
        }
    }
}

impl Gateway for Rival {
    fn arrive(&mut self, scene: Scene<'_>, call: usize, out: &mut Vec<Decision>) {
        self.order.push(scene, call);
        self.pump(scene, out);
    }

    fn token(&mut self, scene: Scene<'_>, call: usize, tokens: u64, _out: &mut Vec<Decision>) {
        let ask = &scene.asks[call];
        self.order.token(ask);
        self.limit.token(call);
        if let Some((_, _, replica)) = self.sent.get(&call).filter(|_| tokens == 1) {
            self.place.first_token(ask, *replica);
        }
    }

    fn finish(&mut self, scene: Scene<'_>, call: usize, _cached: u64, out: &mut Vec<Decision>) {
        self.order.done(scene.now, &scene.asks[call]);
        if let Some((at, inflight, replica)) = self.sent.remove(&call) {
            self.running[replica] -= 1;
            self.limit.done(call, scene.now.micros_since(at).max(1), inflight);
        }
        self.pump(scene, out);
    }

    fn step(&mut self, scene: Scene<'_>, out: &mut Vec<Decision>) {
        self.pump(scene, out);
    }
}

/// Waiting calls of each client, oldest first.
#[derive(Debug, Default)]
pub struct Queues {
    by_client: BTreeMap<usize, VecDeque<usize>>,
}

impl Queues {
    /// Adds a call; true if its client had none waiting.
    pub fn push(&mut self, client: usize, call: usize) -> bool {
        let queue = self.by_client.entry(client).or_default();
        queue.push_back(call);
        queue.len() == 1
    }

    /// Clients with waiting calls and the oldest of each.
    pub fn heads(&self) -> impl Iterator<Item = (usize, usize)> {
        self.by_client.iter().filter_map(|(client, queue)| Some((*client, *queue.front()?)))
    }

    /// The oldest call of a client.
    #[must_use]
    pub fn head(&self, client: usize) -> Option<usize> {
        self.by_client.get(&client)?.front().copied()
    }

    /// Takes out the oldest call of a client.
    pub fn pop(&mut self, client: usize) {
        if let Some(queue) = self.by_client.get_mut(&client) {
            queue.pop_front();
        }
    }
}
