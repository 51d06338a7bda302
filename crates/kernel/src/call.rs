//! One call from its submission to its settlement, and the lists that waiting calls
//! are linked into.

use seawall_model::{At, CallId, Cause, EngineId, MicroUsd, ReplicaId, Tokens, Usage, Waits};

use crate::budget::Reservation;
use crate::input::Submit;
use crate::plan::{CostRule, Price};
use crate::purse::Part;
use crate::slab::Slab;

/// No neighbour.
pub(crate) const NONE: u32 = u32::MAX;
/// Token counts are clamped here before they are multiplied: no prompt of 32 MiB has
/// more, and a client may claim anything.
pub(crate) const TOKENS_MAX: u64 = 1 << 26;

/// A call the kernel knows.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) submit: Box<Submit>,
    /// Engines that can serve it, in order of preference, with their place in the list
    /// that it was submitted with.
    pub(crate) targets: Vec<(u8, EngineId)>,
    /// What each of them calls its model, as far as known.
    pub(crate) upstreams: Vec<Upstream>,
    /// Targets that must not be tried again, as bits over `targets`.
    pub(crate) barred: u32,
    /// Which of `targets` it is queued for or running on.
    pub(crate) target: usize,
    /// The tenant's leaf node.
    pub(crate) node: u32,
    /// Price when it was submitted.
    pub(crate) price: Price,
    /// Most output it can have.
    pub(crate) output_max: u64,
    /// Output expected at the median.
    pub(crate) expected: u64,
    /// Output expected at 90 %.
    pub(crate) likely: u64,
    pub(crate) submitted: At,
    pub(crate) attempts: u32,
    pub(crate) waits: Waits,
    pub(crate) usage: Usage,
    pub(crate) cost: MicroUsd,
    pub(crate) reservations: Vec<Reservation>,
    /// Its parts in the budgets of its run and those above.
    pub(crate) parts: Vec<Part>,
    pub(crate) reserved_output: Tokens,
    pub(crate) last: Option<(EngineId, ReplicaId)>,
    /// The replica that failed it last.
    pub(crate) failed: Option<ReplicaId>,
    /// Attempts that failed on the current target.
    pub(crate) failed_here: usize,
    pub(crate) state: State,
    pub(crate) arrival: Link,
    pub(crate) in_run: Link,
    /// Its run on the current engine.
    pub(crate) run: Option<u32>,
    /// How often its run or tree has gone round, where the guard warns of it.
    pub(crate) repeats: u32,
    /// Was its run stopped while it ran?
    pub(crate) halted: bool,
}

/// Where a call is in its life.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// In no queue yet.
    Fresh,
    /// In an engine's queue.
    Queued(Queued),
    /// Pausing before a retry, or because the provider wants no calls to its model.
    Paused(Pause),
    /// On a replica.
    Running(Running),
}

/// A call in no queue, for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    pub(crate) since: At,
    pub(crate) until: At,
    pub(crate) cause: Cause,
    /// The engine among whose waiting calls it still counts.
    pub(crate) counted: Option<u32>,
}

/// A model's number at an engine; `None` where the plan names none.
pub(crate) type Upstream = Option<u32>;

/// A waiting call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) engine: u32,
    pub(crate) flow: u32,
    pub(crate) since: At,
    /// Its place in the engine's order of arrival.
    pub(crate) seq: u64,
    /// The engine's and the tenant's clocks of blocked time when it came.
    pub(crate) engine_clocks: [u64; 2],
    pub(crate) tenant_clocks: [u64; 3],
    /// It is refused then.
    pub(crate) expires: At,
    /// It cannot be answered in time when started after this.
    pub(crate) latest: At,
    pub(crate) armed: Option<At>,
    /// Is it counted among those who wait for the engine?
    pub(crate) counted: bool,
}

/// A call on a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) engine: u32,
    pub(crate) replica: ReplicaId,
    pub(crate) since: At,
    pub(crate) first: Option<At>,
    /// When it was last heard of while it streams, and its output tokens then.
    pub(crate) heard: (At, u64),
    /// Has its client kept the engine waiting? Then the pace of this stream, and of what
    /// comes out of buffers afterwards, says nothing of the engine's.
    pub(crate) held_up: bool,
    /// Has its time to first token been learned from?
    pub(crate) sampled: bool,
    /// Prompt tokens that the replica probably has to compute.
    pub(crate) uncached: u64,
    /// Outstanding work it adds to the replica, in tokens.
    pub(crate) load: u64,
    /// Cache room it is predicted to take, in tokens.
    pub(crate) kv: u64,
    /// What its tenant has been charged, in tenths of a cost unit.
    pub(crate) charged: i64,
    /// Output tokens within that charge.
    pub(crate) charged_output: u64,
    /// Tokens taken from rate buckets.
    pub(crate) rated: u64,
    /// Was it let through on its class's guaranteed share?
    pub(crate) by_share: bool,
}

impl Call {
    pub(crate) fn running(&self) -> Option<&Running> {
        if let State::Running(running) = &self.state { Some(running) } else { None }
    }

    pub(crate) fn running_mut(&mut self) -> Option<&mut Running> {
        if let State::Running(running) = &mut self.state { Some(running) } else { None }
    }

    pub(crate) fn queued(&self) -> Option<&Queued> {
        if let State::Queued(queued) = &self.state { Some(queued) } else { None }
    }

    pub(crate) fn prompt(&self) -> u64 {
        self.submit.prompt.0.min(TOKENS_MAX)
    }

    /// The most its prompt can have.
    pub(crate) fn prompt_max(&self) -> u64 {
        self.submit.prompt_max.max(self.submit.prompt).0.min(TOKENS_MAX)
    }

    /// What the target that it is queued for calls its model.
    pub(crate) fn upstream(&self) -> Upstream {
        self.upstreams.get(self.target).copied().flatten()
    }

    pub(crate) fn class(&self) -> usize {
        self.submit.class as usize
    }
}

/// What tokens cost on one engine at present, in tenths of its cost unit. The unit is the
/// engine's time for `1 / input` computed prompt tokens, so that a sum of costs is a sum of
/// engine time, on slow replicas and on fast ones alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    input: u64,
    output: u64,
}

impl Weights {
    /// By the plan's rule, with the engine's own ratio of generated to prompt tokens (in
    /// sixteenths) where it is learned and known.
    pub(crate) fn new(rule: &CostRule, ratio: Option<u64>) -> Self {
        let input = u64::from(rule.input.min(1_000));
        let output = match ratio.filter(|_| rule.learned) {
            Some(ratio) => input * 10 * ratio / 16,
            None => u64::from(rule.output.min(1_000)) * 10,
        };
        Self { input, output }
    }
}

/// Cost of tokens. A cached prompt token counts a tenth of a computed one: locality is
/// rewarded without riding free.
pub(crate) fn cost(weights: Weights, input: u64, cached: u64, output: u64) -> i64 {
    let input = input.min(TOKENS_MAX);
    let cached = cached.min(input);
    let sum = (input - cached) * 10 * weights.input + cached * weights.input;
    (sum + output.min(TOKENS_MAX) * weights.output) as i64
}

/// Neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    prev: u32,
    pub(crate) next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { prev: NONE, next: NONE }
    }
}

/// Which of a call's two links a list uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// All calls of a flow.
    Arrival,
    /// Calls of one run in a flow.
    Run,
}

fn link(calls: &mut Slab<Call>, at: u32, by: By) -> &mut Link {
    let call = &mut calls[at];
    match by {
        By::Arrival => &mut call.arrival,
        By::Run => &mut call.in_run,
    }
}

/// A doubly linked list of calls by rising id, without memory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }
}

impl List {
    pub(crate) const fn head(&self) -> Option<u32> {
        if self.head == NONE { None } else { Some(self.head) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// New calls go to the end at once; a retried or moved one finds its old place.
    pub(crate) fn insert(&mut self, calls: &mut Slab<Call>, at: u32, by: By) {
        let id = calls[at].submit.call;
        let mut next = NONE;
        if self.tail != NONE && calls[self.tail].submit.call > id {
            next = self.head;
            while calls[next].submit.call < id {
                next = link(calls, next, by).next;
            }
        }
        let prev = if next == NONE { self.tail } else { link(calls, next, by).prev };
        *link(calls, at, by) = Link { prev, next };
        self.join(calls, prev, at, by);
        self.join(calls, at, next, by);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, calls: &mut Slab<Call>, at: u32, by: By) {
        let Link { prev, next } = std::mem::take(link(calls, at, by));
        self.join(calls, prev, next, by);
        self.len -= 1;
    }

    fn join(&mut self, calls: &mut Slab<Call>, prev: u32, next: u32, by: By) {
        if prev == NONE {
            self.head = next;
        } else {
            link(calls, prev, by).next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            link(calls, next, by).prev = prev;
        }
    }
}

/// The id of a call, for keys.
pub(crate) fn id_of(calls: &Slab<Call>, at: u32) -> CallId {
    calls[at].submit.call
}
