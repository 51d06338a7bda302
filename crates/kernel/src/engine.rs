//! One engine: its replicas, what keeps it from taking calls, the guaranteed shares of
//! the classes, and the clocks that waiting is attributed by.

use std::sync::Arc;

use seawall_model::{At, Bytes, Cause, EngineId, Millis, ReplicaId};

use crate::aside::Aside;
use crate::call::{Upstream, Weights};
use crate::circuit::Breaker;
use crate::crowd::Crowd;
use crate::headroom::Headroom;
use crate::input::Submit;
use crate::pace::Limit;
use crate::pause::Pauses;
use crate::plan::{self, CostRule, Pace};
use crate::prefix::Prefixes;
use crate::rate::Bucket;
use crate::retry::Allowance;
use crate::run::Runs;
use crate::tenant::tune;
use crate::view::{Circuit, EngineView, ReplicaView};

/// Most that a class may be behind its share, in tenths of a cost unit: about a
/// thousand long calls. While it is behind it is served first, so only a blocked class
/// comes near.
const DUE_MAX: i64 = 1 << 34;

/// One endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) running: u32,
    /// Predicted tokens in its cache by calls in flight.
    pub(crate) kv: u64,
    /// Outstanding work of calls in flight, in tokens.
    pub(crate) load: u64,
    pub(crate) limit: Limit,
    /// Prompt tokens that it has to compute for calls whose answer has not begun.
    pub(crate) prompts: u64,
    pub(crate) breaker: Breaker,
    pub(crate) pauses: Pauses,
    pub(crate) prefixes: Prefixes,
    /// When it was last chosen, in choices.
    pub(crate) chosen: u64,
    /// Not in the plan any more; kept until its calls are over.
    pub(crate) gone: bool,
}

impl Replica {
    fn new(id: ReplicaId, pace: &Pace, now: At) -> Self {
        Self {
            id,
            running: 0,
            kv: 0,
            load: 0,
            limit: Limit::new(pace, now),
            prompts: 0,
            breaker: Breaker::default(),
            pauses: Pauses::default(),
            prefixes: Prefixes::default(),
            chosen: 0,
            gone: false,
        }
    }

    /// Could it take calls for this model, if it had room?
    pub(crate) fn usable(&self, upstream: Upstream, now: At) -> bool {
        !self.gone && self.breaker.admits() && self.pauses.until(upstream) <= now
    }

    /// Takes on a call with so many prompt tokens to compute, work and cache room.
    pub(crate) fn begin(&mut self, call: &Submit, uncached: u64, load: u64, kv: u64) {
        self.running += 1;
        self.prompts += uncached;
        self.load += load;
        self.kv += kv;
        self.limit.began(self.running);
        self.breaker.began(call.call);
        self.prefixes.insert(&call.prefix, 0);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.running < self.limit.calls()
    }

    fn view(&self) -> ReplicaView {
        ReplicaView {
            replica: self.id,
            running: self.running,
            tokens: seawall_model::Tokens(self.kv),
            limit: self.limit.calls(),
            circuit: self.breaker.state(),
            open_until: self.breaker.open_until(),
            prefix_bytes: Bytes(self.prefixes.bytes()),
        }
    }
}

/// What keeps an engine from taking any call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    Open,
    /// Every circuit is open, but one call may try.
    Trial,
    /// Every circuit is open.
    Down,
    /// A rate is used up until then.
    Rate(At),
    /// Every replica is at its limit.
    Full,
}

impl Gate {
    /// What a call waits for behind this gate.
    pub(crate) const fn cause(self) -> Option<Cause> {
        match self {
            Self::Open => None,
            Self::Trial | Self::Down => Some(Cause::EngineDown),
            Self::Rate(_) => Some(Cause::RateLimit),
            Self::Full => Some(Cause::EngineFull),
        }
    }
}

/// One engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) id: EngineId,
    pub(crate) name: Arc<str>,
    pub(crate) pace: Pace,
    pub(crate) cost: CostRule,
    pub(crate) calls: Option<Bucket>,
    pub(crate) tokens: Option<Bucket>,
    /// By rising id.
    pub(crate) replicas: Vec<Replica>,
    /// The tree of each class.
    pub(crate) roots: [u32; 3],
    pub(crate) queued: [usize; 3],
    pub(crate) queued_bytes: u64,
    /// Who of them really waits: a call that is dispatched in the step it came in is not
    /// counted here.
    pub(crate) crowd: Crowd,
    /// Those set aside by other engines that it could serve.
    pub(crate) aside: Aside,
    pub(crate) running: u32,
    pub(crate) runs: Runs,
    pub(crate) allowance: Allowance,
    pub(crate) gone: bool,
    /// Since when no circuit is closed.
    pub(crate) down_since: Option<At>,
    pub(crate) alarm: Option<At>,
    pub(crate) dirty: bool,
    /// Places on the replicas that can take calls, and how many of them are free, as of
    /// the last look at the gate.
    pub(crate) places: u32,
    free: u32,
    pub(crate) headroom: Headroom,
    /// What a generated token costs next to a prompt token, in sixteenths, smoothed.
    ratio: Option<u64>,
    /// Cost of the dearest call dispatched of late, in tenths of a unit: it fades by a
    /// 256th with each, so that one giant is not remembered for ever.
    pub(crate) dearest: i64,
    gate: Option<Cause>,
    since: At,
    clocks: [u64; 2],
    /// The next place in the order of arrival.
    pub(crate) seq: u64,
    /// Latest arrival dispatched, and the latest of any other tenant.
    passed: [(u64, u32); 2],
    due: [i64; 3],
    /// Time between dispatches while calls wait, in microseconds, smoothed.
    gap: Option<u64>,
    dispatched: Option<At>,
    pub(crate) chosen: u64,
    /// Which replica has a prefix, on engines with too many to ask each.
    pub(crate) homes: Prefixes,
}

impl Engine {
    pub(crate) fn new(plan: &plan::Engine, roots: [u32; 3], now: At) -> Self {
        let mut engine = Self {
            id: plan.id,
            name: Arc::clone(&plan.name),
            pace: plan.pace.clone(),
            cost: plan.cost,
            calls: None,
            tokens: None,
            replicas: Vec::new(),
            roots,
            queued: [0; 3],
            queued_bytes: 0,
            crowd: Crowd::default(),
            aside: Aside::default(),
            running: 0,
            runs: Runs::default(),
            allowance: Allowance::new(now),
            gone: false,
            down_since: None,
            alarm: None,
            dirty: false,
            places: 0,
            free: 0,
            headroom: Headroom::default(),
            ratio: None,
            dearest: 0,
            gate: None,
            since: now,
            clocks: [0; 2],
            seq: 0,
            passed: [(0, u32::MAX); 2],
            due: [0; 3],
            gap: None,
            dispatched: None,
            chosen: 0,
            homes: Prefixes::default(),
        };
        engine.reload(plan, now);
        engine
    }

    /// Takes on a new plan, keeping the state of replicas that stay.
    pub(crate) fn reload(&mut self, plan: &plan::Engine, now: At) {
        self.gone = false;
        self.name = Arc::clone(&plan.name);
        self.pace = plan.pace.clone();
        self.cost = plan.cost;
        tune(&mut self.calls, plan.rate.calls_per_min.map(u64::from), now);
        tune(&mut self.tokens, plan.rate.tokens_per_min, now);
        for replica in &mut self.replicas {
            replica.gone = true;
        }
        for planned in &plan.replicas {
            match self.replicas.binary_search_by_key(&planned.id, |replica| replica.id) {
                Ok(at) => {
                    self.replicas[at].gone = false;
                    // A new key or plan may have lifted the provider's limit: one call tells.
                    self.replicas[at].pauses.clear();
                }
                Err(at) => self.replicas.insert(at, Replica::new(planned.id, &self.pace, now)),
            }
        }
        for replica in &mut self.replicas {
            replica.limit.clamp(&self.pace);
        }
        self.sweep();
        self.judge(now);
    }

    /// Drops replicas that left the plan and have no calls.
    pub(crate) fn sweep(&mut self) {
        self.replicas.retain(|replica| !replica.gone || replica.running > 0);
    }

    pub(crate) fn find(&self, replica: ReplicaId) -> Option<usize> {
        self.replicas.binary_search_by_key(&replica, |replica| replica.id).ok()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queued.iter().sum()
    }

    /// Is no circuit closed?
    pub(crate) fn is_down(&self) -> bool {
        self.gone || self.down_since.is_some()
    }

    /// Has its provider asked for a pause of calls for this model, on every replica that
    /// could take them? Then until when, at the earliest.
    pub(crate) fn paused(&self, upstream: Upstream, now: At) -> Option<At> {
        let open = self.replicas.iter().filter(|replica| !replica.gone && replica.breaker.admits());
        open.map(|replica| replica.pauses.until(upstream)).min().filter(|until| *until > now)
    }

    /// Has its provider asked for any pause that is not over?
    pub(crate) fn pauses(&self, now: At) -> bool {
        self.replicas.iter().any(|replica| replica.pauses.any(now))
    }

    /// Has it room at once for one call for this model more than wait for it already?
    pub(crate) fn has_spare(&self, upstream: Upstream, now: At) -> bool {
        let usable = self.replicas.iter().filter(|replica| replica.usable(upstream, now));
        let free = usable.map(|replica| replica.limit.calls().saturating_sub(replica.running) as usize);
        !self.is_down() && free.sum::<usize>() > self.waiting()
    }

    /// Notes whether the engine is down. Says whether it went down just now.
    pub(crate) fn judge(&mut self, now: At) -> bool {
        let up =
            self.replicas.iter().any(|replica| !replica.gone && replica.breaker.state() == Circuit::Closed);
        let fell = !up && self.down_since.is_none();
        self.down_since = if up { None } else { self.down_since.or(Some(now)) };
        fell
    }

    /// What keeps it from taking any call now.
    pub(crate) fn gate(&mut self, now: At) -> Gate {
        let down = self.is_down();
        let (mut usable, mut room, mut pause) = (false, false, At::MAX);
        (self.places, self.free) = (0, 0);
        for replica in self.replicas.iter().filter(|replica| !replica.gone && replica.breaker.admits()) {
            let until = replica.pauses.until(None);
            if until > now {
                pause = pause.min(until);
            } else {
                let places = replica.limit.calls();
                (usable, room) = (true, room || replica.running < places);
                self.places = self.places.saturating_add(places);
                self.free = self.free.saturating_add(places.saturating_sub(replica.running));
            }
        }
        let rate =
            self.calls.iter_mut().chain(&mut self.tokens).filter_map(|bucket| bucket.ready_at(now)).max();
        match rate {
            _ if down && !(usable && room) => Gate::Down,
            Some(at) => Gate::Rate(at),
            None if !usable => Gate::Rate(pause),
            None if !room => Gate::Full,
            None if down => Gate::Trial,
            None => Gate::Open,
        }
    }

    /// Are only the places left that are kept for tenants below their share?
    pub(crate) fn holds_back(&self, now: At) -> bool {
        self.headroom.keeps(self.free, self.places, now)
    }

    /// What tokens cost on it now.
    pub(crate) fn weights(&self) -> Weights {
        Weights::new(&self.cost, self.ratio)
    }

    /// Learns what tokens cost from what a replica has been seen to take.
    pub(crate) fn learn_ratio(&mut self, replica: usize) {
        if let Some(ratio) = self.replicas[replica].limit.ratio() {
            // Slowly, for all replicas together: a price that jumps is not fair to anybody.
            self.ratio = Some(self.ratio.map_or(ratio, |old| (old * 63 + ratio).div_ceil(64)));
        }
    }

    /// Notes what the engine's callers wait for from now on.
    pub(crate) fn note(&mut self, cause: Option<Cause>, now: At) {
        if self.gate != cause {
            self.clocks = self.clocks(now);
            self.since = now;
            self.gate = cause;
        }
    }

    /// Time spent down, and rate limited.
    pub(crate) fn clocks(&self, now: At) -> [u64; 2] {
        let mut clocks = self.clocks;
        match self.gate {
            Some(Cause::EngineDown) => clocks[0] += now.micros_since(self.since),
            Some(Cause::RateLimit) => clocks[1] += now.micros_since(self.since),
            _ => {}
        }
        clocks
    }

    /// Was a call that came later, of another tenant, dispatched before this one?
    pub(crate) fn was_passed(&self, seq: u64, node: u32) -> bool {
        self.passed.iter().any(|(passed, by)| *passed > seq && *by != node)
    }

    /// A call that came at place `seq` is dispatched; `waited` is how long it waited for
    /// room, in microseconds.
    pub(crate) fn pass(&mut self, seq: u64, node: u32, waited: u64, now: At) {
        let [best, second] = self.passed;
        self.passed = match (seq >= best.0, node == best.1) {
            (true, true) => [(seq, node), second],
            (true, false) => [(seq, node), best],
            (false, false) if seq > second.0 => [best, (seq, node)],
            _ => [best, second],
        };
        if waited > 0
            && let Some(last) = self.dispatched
        {
            let gap = now.micros_since(last).min(waited);
            self.gap = Some(self.gap.map_or(gap, |old| old - old / 16 + gap / 16));
        } else {
            // Served without waiting: what was learned in a crowd fades.
            self.gap = self.gap.map(|old| old - old / 16);
        }
        self.dispatched = Some(now);
    }

    /// How long a queue of so many calls lasts, by the rate of late; `None` if unknown.
    pub(crate) fn lasts(&self, calls: usize) -> Option<Millis> {
        self.gap.map(|gap| Millis(gap.saturating_mul(calls as u64) / 1_000))
    }

    /// The class to serve: the highest with work, unless a lower one is behind its
    /// guaranteed share. Says whether it is served on that share.
    pub(crate) fn choose_class(&self, ready: [bool; 3]) -> Option<(usize, bool)> {
        let top = ready.iter().position(|ready| *ready)?;
        let behind = (top + 1..3).filter(|class| ready[*class] && self.due[*class] > 0);
        // The furthest behind; among equals the highest.
        let behind = behind.max_by_key(|class| (self.due[*class], std::cmp::Reverse(*class)));
        Some(behind.map_or((top, false), |class| (class, true)))
    }

    /// Books service to a class against the shares of those that had work meanwhile. A
    /// class pays for its own service only where it was served before a higher one:
    /// capacity that nobody else wanted is free.
    pub(crate) fn share(
        &mut self,
        class: usize,
        tenths: i64,
        by_share: bool,
        ready: [bool; 3],
        shares: [u32; 3],
    ) {
        for other in 1..3 {
            if other == class && !by_share {
                // Nobody above it wanted this: neither a debt nor a claim.
            } else if ready[other] {
                let part = tenths.saturating_mul(i64::from(shares[other].min(100))) / 100;
                self.due[other] = self.due[other].saturating_add(part);
            } else {
                // An idle class banks nothing.
                self.due[other] = self.due[other].min(0);
            }
            if other == class && by_share {
                self.due[other] = self.due[other].saturating_sub(tenths);
            }
            self.due[other] = self.due[other].clamp(-DUE_MAX, DUE_MAX);
        }
    }

    pub(crate) fn view(&self) -> EngineView {
        EngineView {
            engine: self.id,
            queued: self.queued,
            queued_bytes: Bytes(self.queued_bytes),
            replicas: self.replicas.iter().filter(|replica| !replica.gone).map(Replica::view).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(replicas: u32) -> Engine {
        let plan = plan::Engine {
            id: EngineId(1),
            name: "e".into(),
            replicas: (0..replicas).map(|id| plan::Replica { id: ReplicaId(id) }).collect(),
            pace: Pace { calls_start: 1, ..Pace::default() },
            rate: plan::Rate::default(),
            cost: CostRule::default(),
        };
        Engine::new(&plan, [0, 1, 2], At(0))
    }

    #[test]
    fn the_gate_names_what_is_waited_for() {
        let mut engine = engine(2);
        assert_eq!(engine.gate(At(0)), Gate::Open);
        engine.replicas[0].running = 1;
        engine.replicas[1].pauses.add(None, At(50), At(0));
        assert_eq!(engine.gate(At(0)), Gate::Full);
        engine.replicas[0].pauses.add(None, At(90), At(0));
        assert_eq!(engine.gate(At(0)), Gate::Rate(At(50)));
        engine.replicas.iter_mut().for_each(|replica| {
            replica.breaker.failed(99, &plan::RetryRule::default(), At(0));
        });
        assert!(engine.judge(At(0)));
        assert_eq!(engine.gate(At(100)), Gate::Down);
    }

    #[test]
    fn a_lower_class_gets_its_share_and_no_more() {
        let mut engine = engine(1);
        let mut served = [0; 3];
        for _ in 0..1_000 {
            let ready = [true, true, true];
            let (class, by_share) = engine.choose_class(ready).expect("all have work");
            engine.share(class, 100, by_share, ready, [50, 30, 10]);
            served[class] += 1;
        }
        assert!((590..=610).contains(&served[0]), "{served:?}");
        assert!((295..=305).contains(&served[1]) && (95..=105).contains(&served[2]), "{served:?}");
    }

    #[test]
    fn being_passed_counts_other_tenants_only() {
        let mut engine = engine(1);
        engine.pass(5, 1, 0, At(0));
        engine.pass(9, 1, 0, At(0));
        assert!(engine.was_passed(3, 2) && !engine.was_passed(3, 1));
        engine.pass(7, 2, 0, At(0));
        assert!(engine.was_passed(3, 1) && !engine.was_passed(8, 1));
    }
}
