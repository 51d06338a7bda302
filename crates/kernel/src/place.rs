//! Which replica takes a call: the one where its first token is predicted to come first.
//! That is after the prompts sent there before, the call's own prompt less what the
//! replica has probably cached, and what the batch slows it by, at the replica's speed.
//! Affinity by prefix and by run falls out of the part that is cached; a replica with far
//! more outstanding work than the others gives no such discount at all.

use seawall_model::{At, ReplicaId};

use crate::call::Call;
use crate::engine::{Engine, Replica};
use crate::rng::Rng;

/// Up to this many replicas all are compared; beyond it two drawn by lot and those with
/// an affinity (power of two choices, Mitzenmacher 2001).
const COMPARED_MAX: usize = 16;
/// Tokens in one prefix block ([`seawall_model::limits::PREFIX_BLOCK_BYTES`]).
const BLOCK_TOKENS: u64 = 512;
/// What one call in the batch slows a new one by, in prompt tokens: it adds the time of
/// four to ten to each step (0.31 ms next to 0.085 ms on eight H100), and a prompt takes a
/// few steps.
const BATCH_TOKENS: u64 = 16;

/// The outcome of looking for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this replica (by position), which has to compute so many prompt tokens.
    On(usize, u64),
    /// Only the replica that has just failed it has room, though others are well.
    OnlyFailed,
    /// Its provider wants no calls for its model before then.
    Silent(At),
    /// Nowhere now.
    Nowhere,
}

/// Finds a place for a call.
pub(crate) fn place(engine: &Engine, call: &Call, rng: &mut Rng, now: At) -> Place {
    let mut search = Search {
        engine,
        call,
        now,
        mean: mean_load(engine, now),
        fastest: engine.replicas.iter().filter_map(|replica| replica.limit.prefill()).min(),
        best: None,
        only_failed: false,
        seen: Vec::new(),
    };
    if engine.replicas.len() <= COMPARED_MAX {
        for at in 0..engine.replicas.len() {
            search.consider(at);
        }
    } else {
        search.sample(rng);
    }
    let others = || {
        engine
            .replicas
            .iter()
            .any(|replica| Some(replica.id) != call.failed && replica.usable(call.upstream(), now))
    };
    match search.best {
        Some((_, at, uncached)) => Place::On(at, uncached),
        None if search.only_failed && others() => Place::OnlyFailed,
        None if search.only_failed => search.on_failed(),
        None => engine.paused(call.upstream(), now).map_or(Place::Nowhere, Place::Silent),
    }
}

fn mean_load(engine: &Engine, now: At) -> u64 {
    let usable = engine.replicas.iter().filter(|replica| replica.usable(None, now));
    let (sum, count) =
        usable.fold((0_u64, 0_u64), |(sum, count), replica| (sum.saturating_add(replica.load), count + 1));
    sum / count.max(1)
}

/// Time to the first token first (in sixteenths of the fastest replica's prompt tokens),
/// then outstanding work, then who was chosen longest ago, then the id.
type Score = (u64, u64, u64, ReplicaId);

struct Search<'a> {
    engine: &'a Engine,
    call: &'a Call,
    now: At,
    mean: u64,
    /// Nanoseconds of a prompt token on the fastest replica.
    fastest: Option<u64>,
    best: Option<(Score, usize, u64)>,
    only_failed: bool,
    seen: Vec<usize>,
}

impl Search<'_> {
    fn consider(&mut self, at: usize) {
        let replica = &self.engine.replicas[at];
        if !replica.usable(self.call.upstream(), self.now) || !replica.has_room() || !self.fits(replica) {
            return;
        }
        if self.call.failed == Some(replica.id) {
            self.only_failed = true;
            return;
        }
        let (score, uncached) = self.score(replica);
        if self.best.is_none_or(|(best, ..)| score < best) {
            self.best = Some((score, at, uncached));
        }
    }

    /// Has its cache room for the prompt and the likely answer? An idle replica takes
    /// anything: waiting would not make the call smaller.
    fn fits(&self, replica: &Replica) -> bool {
        let Some(max) = self.engine.pace.kv_tokens_max else {
            return true;
        };
        let need = self.call.prompt() + self.call.likely;
        replica.running == 0 || replica.kv.saturating_add(need) <= max.0
    }

    fn score(&self, replica: &Replica) -> (Score, u64) {
        let prompt = self.call.prompt();
        let overloaded =
            replica.load > self.mean.saturating_mul(2).saturating_add(prompt + self.call.expected);
        let mut cached = 0;
        if !overloaded {
            let (blocks, _) = replica.prefixes.matched(&self.call.submit.prefix);
            cached = (blocks as u64 * BLOCK_TOKENS).min(prompt);
            if self.run_home() == Some(replica.id) {
                // The run's last call has left at least part of this prompt there.
                cached = cached.max(prompt / 2);
            }
        }
        let uncached = prompt - cached;
        // A replica that fails now and then costs a whole call each time.
        let penalty = u64::from(replica.breaker.failures()) * (prompt + self.call.expected);
        let tokens = uncached + u64::from(replica.running) * BATCH_TOKENS + penalty;
        let first = replica.prompts.saturating_add(tokens).saturating_mul(self.slowness(replica));
        ((first, replica.load, replica.chosen, replica.id), uncached)
    }

    /// How slow a replica is next to the fastest, in sixteenths. Learned speeds of equal
    /// machines differ, so what is within a half of the fastest counts as equal.
    fn slowness(&self, replica: &Replica) -> u64 {
        let (Some(own), Some(fastest)) = (replica.limit.prefill(), self.fastest) else {
            return 16;
        };
        let slow = own.saturating_mul(16) / fastest.max(1);
        if slow > 24 { slow } else { 16 }
    }

    fn run_home(&self) -> Option<ReplicaId> {
        self.engine.runs.slab.get(self.call.run?)?.replica
    }

    /// Two by lot among those that may take a call, the run's and the prefix's home.
    fn sample(&mut self, rng: &mut Rng) {
        let engine = self.engine;
        let (now, failed, upstream) = (self.now, self.call.failed, self.call.upstream());
        let fits = |replica: &Replica| {
            replica.usable(upstream, now) && replica.has_room() && Some(replica.id) != failed
        };
        let open =
            engine.replicas.iter().enumerate().filter(|(_, replica)| fits(replica) && self.fits(replica));
        let open: Vec<usize> = open.map(|(at, _)| at).collect();
        for _ in 0..2 {
            // In bounds: the draw is below the length, which is then not zero.
            if let Some(at) = open.get(rng.below(open.len() as u64) as usize) {
                self.seen.push(*at);
            }
        }
        self.seen.extend(self.run_home().and_then(|home| engine.find(home)));
        let (blocks, home) = engine.homes.matched(&self.call.submit.prefix);
        if blocks > 0 {
            self.seen.extend(engine.find(ReplicaId(home)));
        }
        if let Some(failed) = failed.filter(|_| open.is_empty()) {
            self.seen.extend(engine.find(failed));
        }
        for at in std::mem::take(&mut self.seen) {
            self.consider(at);
        }
    }

    fn on_failed(&self) -> Place {
        let at = self.call.failed.and_then(|failed| self.engine.find(failed));
        at.map_or(Place::Nowhere, |at| Place::On(at, self.score(&self.engine.replicas[at]).1))
    }
}
