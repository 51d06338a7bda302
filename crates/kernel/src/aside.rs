//! Calls set aside while their provider wants none for their model, as seen from the
//! engines that could serve them instead: whichever has room first takes them over, in
//! its own fair order, so that no newcomer goes there before them (I7).

use std::collections::{BTreeMap, BTreeSet};

use seawall_model::{CallId, EngineId};

use crate::call::{State, Upstream};
use crate::effect::Effect;
use crate::kernel::Kernel;

/// Lists, or flows, looked at for a call that an engine with room could take over.
const SWEEP: usize = 64;

/// What tells apart whose turn it is and what is free: the class, the tenant's leaf node,
/// and what the engine with room calls the model.
type Key = (usize, u32, Upstream);

/// The calls set aside elsewhere that one engine could serve too. No more than there are
/// calls; empty while no provider pauses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    lists: BTreeMap<Key, BTreeSet<CallId>>,
    /// The last list looked at: where there are more than are looked at, the next look
    /// begins there.
    from: Key,
}

impl Aside {
    fn join(&mut self, key: Key, call: CallId) {
        self.lists.entry(key).or_default().insert(call);
    }

    fn leave(&mut self, key: Key, call: CallId) {
        if let Some(list) = self.lists.get_mut(&key) {
            list.remove(&call);
            if list.is_empty() {
                self.lists.remove(&key);
            }
        }
    }

    /// The oldest call of each list.
    fn heads(&mut self) -> Vec<(Key, CallId)> {
        let lists = self.lists.range(self.from..).chain(self.lists.range(..self.from)).take(SWEEP);
        let heads = lists.filter_map(|(key, list)| Some((*key, *list.first()?)));
        let heads: Vec<(Key, CallId)> = heads.collect();
        self.from = heads.last().map_or(self.from, |(key, _)| *key);
        heads
    }

    /// All calls in it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = CallId> {
        self.lists.values().flatten().copied()
    }
}

impl Kernel {
    /// Makes a call that was set aside known to its other targets.
    pub(crate) fn offer_around(&mut self, at: u32) {
        let call = &self.calls[at];
        for (target, (_, id)) in call.targets.iter().enumerate() {
            let open = target != call.target && call.barred & (1 << target) == 0;
            if let Some(engine) = self.engine_ids.get(id).filter(|_| open) {
                let key = (call.class(), call.node, call.upstreams[target]);
                self.engines[*engine].aside.join(key, call.submit.call);
            }
        }
    }

    /// It is set aside no more.
    pub(crate) fn call_back(&mut self, at: u32) {
        let call = &self.calls[at];
        for (target, (_, id)) in call.targets.iter().enumerate() {
            if let Some(engine) = self.engine_ids.get(id) {
                let key = (call.class(), call.node, call.upstreams[target]);
                self.engines[*engine].aside.leave(key, call.submit.call);
            }
        }
    }

    /// An engine has room to spare: calls that pauses of other engines hold up, and that
    /// it can serve too, go there.
    pub(crate) fn pull_over(&mut self, engine: u32, out: &mut Vec<Effect>) {
        let now = self.now;
        if now >= self.paused_until || !self.engines.get(engine).is_some_and(|own| own.has_spare(None, now)) {
            return;
        }
        while let Some((at, target)) = self.next_aside(engine) {
            self.withdraw(at);
            self.enqueue_on(at, target, out);
        }
        let id = self.engines[engine].id;
        for other in self.engines.indices() {
            let state = &self.engines[other];
            if other == engine || state.waiting() == 0 || !state.pauses(now) {
                continue;
            }
            while let Some((at, target)) = self.next_queued(other, id) {
                self.withdraw(at);
                self.enqueue_on(at, target, out);
            }
        }
    }

    /// Of the calls set aside that an engine has room for, the one that its own fair order
    /// would serve first.
    fn next_aside(&mut self, engine: u32) -> Option<(u32, usize)> {
        let heads = self.engines[engine].aside.heads();
        let state = &self.engines[engine];
        let fits = heads.into_iter().filter_map(|((class, node, _), id)| {
            let at = *self.index.get(&id)?;
            let target = self.target_with_room(at, state.id)?;
            let is_free = self.tenants.chain(node).nodes().iter().all(|node| {
                // A tenant at its limit would only stand in the way there.
                self.tenants.nodes[*node].blocked.is_none()
            });
            let standing = self.flows.standing(state.roots[class], node, &self.tenants);
            is_free.then_some(((class, standing, id), (at, target)))
        });
        fits.min().map(|(_, found)| found)
    }

    /// The call that goes next on an engine, of those that its pauses hold up and that
    /// another has room for.
    fn next_queued(&self, engine: u32, other: EngineId) -> Option<(u32, usize)> {
        let state = &self.engines[engine];
        let target_of = |at: u32| {
            state.paused(self.calls[at].upstream(), self.now)?;
            self.target_with_room(at, other)
        };
        let (mut left, fits) = (SWEEP, |at| target_of(at).is_some());
        let next = |root: &u32| self.flows.first_fit(*root, (&self.calls, &state.runs), &mut left, &fits);
        let at = state.roots.iter().find_map(next)?;
        Some((at, target_of(at)?))
    }

    /// The place of an engine among a call's targets, if it has room for it at once.
    fn target_with_room(&self, at: u32, engine: EngineId) -> Option<usize> {
        let call = &self.calls[at];
        let target = call.targets.iter().position(|(_, target)| *target == engine)?;
        (call.barred & (1 << target) == 0 && self.has_spare(at, target)).then_some(target)
    }

    pub(crate) fn check_aside(&self, engine: u32) {
        for id in self.engines[engine].aside.iter() {
            let call = self.index.get(&id).map(|at| &self.calls[*at]);
            let is_aside = call.is_some_and(
                |call| matches!(call.state, State::Paused(pause) if pause.counted.is_some_and(|on| on != engine)),
            );
            assert!(is_aside, "who is offered around is set aside");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_looked_at_in_turn() {
        let mut aside = Aside::default();
        for node in 0..3 * SWEEP as u32 {
            aside.join((0, node, None), CallId(u64::from(node) * 2 + 1));
            aside.join((0, node, None), CallId(u64::from(node) * 2));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let heads = aside.heads();
            assert_eq!(heads.len(), SWEEP);
            assert!(heads.iter().all(|((_, node, _), call)| call.0 == u64::from(*node) * 2), "the oldest");
            seen.extend(heads);
        }
        assert_eq!(seen.len(), 3 * SWEEP);
        for (key, call) in seen {
            aside.leave(key, call);
            aside.leave(key, CallId(call.0 + 1));
        }
        assert!(aside.lists.is_empty() && aside.heads().is_empty());
    }
}
