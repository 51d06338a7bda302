//! Who goes next on one engine in one class: a tree of virtual counters (VTC, arXiv
//! 2401.00588, made hierarchical and weighted). At each level the child with the least
//! counter among those that may be served goes first; a child that becomes active is
//! lifted to its active siblings, so that idling banks no credit. A node that is
//! blocked by a limit is taken out of the sets and put back when the limit clears:
//! no decision ever looks at a blocked tenant.
//!
//! Inside a tenant: whoever has waited past the ageing time, else the nearest deadline,
//! else the tree of runs with the least attained service and in it the run with the least,
//! else the oldest call.

use std::collections::BTreeSet;

use seawall_model::{At, CallId, limits};

use crate::call::{By, Call, List, id_of};
use crate::headroom::Lately;
use crate::run::Runs;
use crate::slab::Slab;
use crate::tenant::{CHAIN_MAX, Node, Tenants, WEIGHT};

/// One tenth of a cost unit at the usual weight, so that dividing by a weight keeps
/// ten bits below the point.
const SCALE: u128 = 1_024 * WEIGHT as u128;
/// Flows kept: two for each tenant node (most use one engine in one or two classes).
const FLOWS_MAX: usize = 2 * limits::TENANTS_MAX;
/// Slots looked at for a flow that may go.
const SWEEP: usize = 1_024;
/// Flows looked at for a light tenant's call before none is said to wait: whoever is
/// light stands near the front of its siblings.
const LIGHT_SWEEP: u32 = 12;

/// What stands in a tenant's order of service: a tree of runs by the oldest call of the run
/// that goes first in it, or a call without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Tree(u32),
    Call(u32),
}

/// A tree's place in its leaf's order.
type Rank = Option<(u64, CallId, Entry)>;

/// One node of one tree.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Its tenant node; the root has none.
    node: Option<u32>,
    parent: Option<u32>,
    slot: u32,
    virtual_cost: u128,
    /// Counter of the child served last: where a newcomer starts if no sibling is active.
    floor: u128,
    /// Children that may be served, by counter.
    active: BTreeSet<(u128, u32)>,
    is_active: bool,
    children: u32,
    pub(crate) queued: usize,
    pub(crate) running: u32,
    /// The epoch in which it last had a call come or go.
    seen: u64,
    /// Weights of the children that were seen of late.
    lately: Lately,
    used: bool,
    arrivals: List,
    by_service: BTreeSet<(u64, CallId, Entry)>,
    by_deadline: BTreeSet<(At, CallId, u32)>,
}

impl Flow {
    fn new(node: Option<u32>, parent: Option<u32>, slot: u32) -> Self {
        Self {
            node,
            parent,
            slot,
            virtual_cost: 0,
            floor: 0,
            active: BTreeSet::new(),
            is_active: false,
            children: 0,
            queued: 0,
            running: 0,
            seen: u64::MAX,
            lately: Lately::default(),
            used: true,
            arrivals: List::default(),
            by_service: BTreeSet::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    fn has_work(&self) -> bool {
        self.arrivals.len() > 0 || !self.active.is_empty()
    }

    /// A tree's place in the order of service has changed.
    fn rerank(&mut self, before: Rank, after: Rank) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.by_service.remove(&before);
        }
        if let Some(after) = after {
            self.by_service.insert(after);
        }
    }

    fn idle(&self) -> bool {
        self.parent.is_some() && self.queued == 0 && self.running == 0 && self.children == 0
    }
}

/// Where a tree stands in its leaf's order of service, if a call of it waits.
fn rank(runs: &Runs, tree: u32, class: usize) -> Rank {
    let tree_at = &runs.trees[tree];
    let (_, call, _) = tree_at.orders[class].first()?;
    Some((tree_at.service, *call, Entry::Tree(tree)))
}

/// What makes a tenant light, when only places are left that are kept for such.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Places that are shared out, in 256ths.
    pub(crate) places: u64,
    pub(crate) epoch: u64,
    /// In tenths of a cost unit: nobody further ahead of the rightful next has them, so
    /// that keeping places does not turn into a right of its own.
    pub(crate) ahead: i64,
}

/// A search for the oldest call of a light tenant.
struct Light {
    left: u32,
    best: Option<(CallId, u32)>,
}

/// All trees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flows {
    slab: Slab<Flow>,
}

impl Flows {
    pub(crate) fn root(&mut self, slot: u32) -> u32 {
        self.slab.insert(Flow::new(None, None, slot))
    }

    pub(crate) fn get(&self, flow: u32) -> &Flow {
        &self.slab[flow]
    }

    /// Has the tree of this root a call that may be served?
    pub(crate) fn ready(&self, root: u32) -> bool {
        !self.slab[root].active.is_empty()
    }

    /// How many of the root's children may be served.
    pub(crate) fn rivals(&self, root: u32) -> usize {
        self.slab[root].active.len()
    }

    /// The flow of a leaf in a tree, made with its ancestors if need be; `None` if there
    /// is no room for another.
    pub(crate) fn open(&mut self, root: u32, leaf: u32, tenants: &mut Tenants) -> Option<u32> {
        let slot = self.slab[root].slot;
        if let Some(flow) = tenants.nodes[leaf].flow(slot) {
            self.slab[flow].used = true;
            return Some(flow);
        }
        if self.slab.len() + CHAIN_MAX > FLOWS_MAX && !self.make_room(tenants) {
            return None;
        }
        Some(self.open_anyway(root, leaf, tenants))
    }

    /// The same for a call that already waits: it must not be lost for want of a flow.
    pub(crate) fn open_anyway(&mut self, root: u32, leaf: u32, tenants: &mut Tenants) -> u32 {
        let slot = self.slab[root].slot;
        let mut parent = root;
        for node in tenants.chain(leaf).nodes().iter().rev() {
            parent = if let Some(flow) = tenants.nodes[*node].flow(slot) {
                flow
            } else {
                let flow = self.slab.insert(Flow::new(Some(*node), Some(parent), slot));
                self.slab[parent].children += 1;
                tenants.nodes[*node].flows.push((slot, flow));
                flow
            };
        }
        parent
    }

    fn make_room(&mut self, tenants: &mut Tenants) -> bool {
        while self.slab.len() + CHAIN_MAX > FLOWS_MAX {
            let old = self.slab.sweep(SWEEP, Flow::idle, |flow| &mut flow.used);
            let Some(old) = old else { return false };
            if let Some(node) = self.slab[old].node {
                tenants.nodes[node].flows.retain(|(_, flow)| *flow != old);
            }
            self.drop_flow(old);
        }
        true
    }

    fn drop_flow(&mut self, at: u32) {
        if let Some(Flow { parent: Some(parent), is_active, virtual_cost, running, .. }) =
            self.slab.remove(at)
            && let Some(above) = self.slab.get_mut(parent)
        {
            above.children -= 1;
            if is_active {
                above.active.remove(&(virtual_cost, at));
            }
            self.run(parent, |sum| sum.saturating_sub(running));
        }
    }

    /// Forgets the flows of a tenant node that is no more. It was idle.
    pub(crate) fn forget(&mut self, node: &Node) {
        for (_, flow) in &node.flows {
            self.drop_flow(*flow);
        }
    }

    /// Forgets the idle flows of a node that moves in the tree. Its calls have been
    /// taken out; the counter starts anew from its new siblings'.
    pub(crate) fn detach(&mut self, node: u32, tenants: &mut Tenants) {
        for (_, flow) in std::mem::take(&mut tenants.nodes[node].flows) {
            self.drop_flow(flow);
        }
    }

    /// Forgets all trees of an engine that is no more and has no calls.
    pub(crate) fn purge(&mut self, roots: [u32; 3], tenants: &mut Tenants) {
        let slots = roots.map(|root| self.slab[root].slot);
        for at in self.slab.indices() {
            if slots.contains(&self.slab[at].slot) {
                if let Some(node) = self.slab[at].node {
                    tenants.nodes[node].flows.retain(|(_, flow)| *flow != at);
                }
                self.slab.remove(at);
            }
        }
    }

    /// Adds a waiting call to its leaf.
    pub(crate) fn push(
        &mut self,
        flow: u32,
        at: u32,
        calls: &mut Slab<Call>,
        runs: &mut Runs,
        tenants: &Tenants,
    ) {
        let (id, class, deadline) = (id_of(calls, at), calls[at].class(), calls[at].submit.deadline);
        let leaf = &mut self.slab[flow];
        leaf.arrivals.insert(calls, at, By::Arrival);
        if let Some(deadline) = deadline {
            leaf.by_deadline.insert((deadline, id, at));
        }
        if let Some(run) = calls[at].run {
            let tree = runs.slab[run].tree;
            let before = rank(runs, tree, class);
            runs.trees[tree].homes[class] = flow;
            runs.join(run, class, at, calls);
            leaf.rerank(before, rank(runs, tree, class));
        } else {
            leaf.by_service.insert((0, id, Entry::Call(at)));
        }
        self.count(flow, true);
        self.refresh(flow, tenants);
    }

    /// Takes a waiting call out of its leaf.
    pub(crate) fn take(
        &mut self,
        flow: u32,
        at: u32,
        calls: &mut Slab<Call>,
        runs: &mut Runs,
        tenants: &Tenants,
    ) {
        let (id, class, deadline) = (id_of(calls, at), calls[at].class(), calls[at].submit.deadline);
        let leaf = &mut self.slab[flow];
        leaf.arrivals.remove(calls, at, By::Arrival);
        if let Some(deadline) = deadline {
            leaf.by_deadline.remove(&(deadline, id, at));
        }
        if let Some(run) = calls[at].run {
            let tree = runs.slab[run].tree;
            let before = rank(runs, tree, class);
            runs.leave(run, class, at, calls);
            leaf.rerank(before, rank(runs, tree, class));
        } else {
            leaf.by_service.remove(&(0, id, Entry::Call(at)));
        }
        self.count(flow, false);
        self.refresh(flow, tenants);
    }

    fn count(&mut self, flow: u32, more: bool) {
        let mut at = Some(flow);
        while let Some(flow) = at {
            let flow = &mut self.slab[flow];
            if more {
                flow.queued += 1;
            } else {
                flow.queued -= 1;
            }
            at = flow.parent;
        }
    }

    /// A run was served: its place in its tree changes, and its tree's in the order.
    pub(crate) fn serve_run(&mut self, run: u32, delta: i64, calls: &Slab<Call>, runs: &mut Runs) {
        let tree = runs.slab[run].tree;
        let before = [0, 1, 2].map(|class| rank(runs, tree, class));
        runs.serve(run, delta, calls);
        for (class, before) in before.into_iter().enumerate() {
            if before.is_some() {
                let home = runs.trees[tree].homes[class];
                self.slab[home].rerank(before, rank(runs, tree, class));
            }
        }
    }

    /// Puts a flow into its parent's set or takes it out, as its work and its tenant's
    /// limits ask, and likewise upwards.
    pub(crate) fn refresh(&mut self, flow: u32, tenants: &Tenants) {
        let mut at = flow;
        while let Flow { node: Some(node), parent: Some(parent), .. } = self.slab[at] {
            let wanted = self.slab[at].has_work() && tenants.nodes[node].blocked.is_none();
            if wanted == self.slab[at].is_active {
                return;
            }
            let key = (self.slab[at].virtual_cost, at);
            let above = &mut self.slab[parent];
            if wanted {
                let lift = above.active.first().map_or(above.floor, |(least, _)| *least);
                let lifted = key.0.max(lift);
                above.active.insert((lifted, at));
                self.slab[at].virtual_cost = lifted;
            } else {
                above.active.remove(&key);
            }
            self.slab[at].is_active = wanted;
            at = parent;
        }
    }

    /// Charges a flow and its ancestors (or gives back), by weight. `picked` when it was
    /// chosen just now: then its counter is where newcomers start.
    pub(crate) fn charge(&mut self, flow: u32, tenths: i64, picked: bool, tenants: &Tenants) {
        let mut at = flow;
        while let Flow { node: Some(node), parent: Some(parent), virtual_cost, is_active, .. } = self.slab[at]
        {
            let weight = u128::from(tenants.nodes[node].weight);
            let amount = u128::from(tenths.unsigned_abs()) * SCALE / weight;
            let charged = if tenths >= 0 {
                virtual_cost.saturating_add(amount)
            } else {
                virtual_cost.saturating_sub(amount)
            };
            let above = &mut self.slab[parent];
            if picked {
                above.floor = above.floor.max(virtual_cost);
            }
            if is_active {
                above.active.remove(&(virtual_cost, at));
                above.active.insert((charged, at));
            }
            self.slab[at].virtual_cost = charged;
            at = parent;
        }
    }

    /// A call of this leaf began or ended to run.
    pub(crate) fn ran(&mut self, flow: u32, began: bool) {
        if began {
            self.run(flow, |running| running + 1);
        } else if self.slab[flow].running > 0 {
            // A flow made anew knows nothing of calls that ran before.
            self.run(flow, |running| running - 1);
        }
    }

    fn run(&mut self, flow: u32, how: impl Fn(u32) -> u32) {
        let mut at = Some(flow);
        while let Some(flow) = at {
            let flow = &mut self.slab[flow];
            flow.running = how(flow.running);
            at = flow.parent;
        }
    }

    /// A call of this leaf came or went: it and all above it count among their siblings
    /// as active of late.
    pub(crate) fn see(&mut self, flow: u32, epoch: u64, tenants: &Tenants) {
        let mut at = flow;
        while let Flow { node: Some(node), parent: Some(parent), seen, .. } = self.slab[at] {
            if seen == epoch {
                return;
            }
            self.slab[at].seen = epoch;
            self.slab[parent].lately.add(u64::from(tenants.nodes[node].weight), epoch);
            at = parent;
        }
    }

    /// Weights of those below a root that were seen of late.
    pub(crate) fn weight_lately(&self, root: u32, epoch: u64) -> u64 {
        self.slab[root].lately.most(epoch)
    }

    /// Would a further call of this leaf leave it, and every prefix above it, within its
    /// share of so many places (in 256ths) among those that were active of late? Whoever
    /// runs nothing is always within its share.
    pub(crate) fn is_light(&self, leaf: u32, places: u64, epoch: u64, tenants: &Tenants) -> bool {
        let (mut chain, mut len, mut at) = ([leaf; CHAIN_MAX], 0, leaf);
        while let Some(parent) = self.slab[at].parent {
            chain[len] = at;
            len += 1;
            at = parent;
        }
        let mut share = places;
        chain[..len].iter().rev().all(|flow| {
            let part = self.share_of(*flow, share, epoch, tenants);
            share = part.unwrap_or(0);
            part.is_some()
        })
    }

    /// The share of a flow in its parent's, unless one call more would go beyond it.
    fn share_of(&self, flow: u32, of: u64, epoch: u64, tenants: &Tenants) -> Option<u64> {
        let Flow { node: Some(node), parent: Some(parent), running, .. } = self.slab[flow] else {
            return Some(of);
        };
        let weight = u64::from(tenants.nodes[node].weight);
        let share = of.saturating_mul(weight) / self.slab[parent].lately.most(epoch).max(weight);
        // Who asks for its share on average has more in flight now and then: twice the
        // square root is what a Poisson stream rarely exceeds.
        let next = (u64::from(running) + 1) * 256;
        let light = running == 0 || next <= share || next <= share + 2 * share.saturating_mul(256).isqrt();
        light.then_some(share)
    }

    /// As [`Flows::next`], but only of tenants within their share, and of these the one
    /// whose call is the oldest.
    pub(crate) fn next_light(
        &self,
        root: u32,
        terms: &Terms,
        aged: At,
        (calls, runs, tenants): (&Slab<Call>, &Runs, &Tenants),
    ) -> Option<(u32, u32)> {
        let mut search = Light { left: LIGHT_SWEEP, best: None };
        self.search_light(root, terms.places, terms, (calls, tenants), &mut search);
        let (_, leaf) = search.best?;
        Some((leaf, self.first_of(leaf, aged, calls, runs)?))
    }

    fn search_light(
        &self,
        at: u32,
        places: u64,
        terms: &Terms,
        (calls, tenants): (&Slab<Call>, &Tenants),
        search: &mut Light,
    ) {
        let flow = &self.slab[at];
        let Some((least, _)) = flow.active.first() else {
            if let Some(oldest) = flow.arrivals.head() {
                let found = (id_of(calls, oldest), at);
                search.best = Some(search.best.map_or(found, |best| best.min(found)));
            }
            return;
        };
        let ahead = u128::from(terms.ahead.unsigned_abs()) * SCALE;
        for (cost, child) in &flow.active {
            if search.left == 0 {
                return;
            }
            search.left -= 1;
            let weight = self.slab[*child].node.map_or(WEIGHT, |node| tenants.nodes[node].weight);
            if (cost - least) * u128::from(weight) > ahead {
                continue;
            }
            if let Some(share) = self.share_of(*child, places, terms.epoch, tenants) {
                self.search_light(*child, share, terms, (calls, tenants), search);
            }
        }
    }

    /// The call that goes next in the tree of this root, and its leaf flow.
    pub(crate) fn next(&self, root: u32, aged: At, calls: &Slab<Call>, runs: &Runs) -> Option<(u32, u32)> {
        let mut at = root;
        while let Some((_, child)) = self.slab[at].active.first() {
            at = *child;
        }
        Some((at, self.first_of(at, aged, calls, runs)?))
    }

    /// Where a leaf would stand in a tree if it had a call there now: its counters from the
    /// top down, lifted as a newcomer's are. The least goes first.
    pub(crate) fn standing(&self, root: u32, leaf: u32, tenants: &Tenants) -> [u128; CHAIN_MAX] {
        let (slot, chain) = (self.slab[root].slot, tenants.chain(leaf));
        let (mut standing, mut above) = ([0; CHAIN_MAX], Some(root));
        for (counter, node) in standing.iter_mut().zip(chain.nodes().iter().rev()) {
            let lift = above.map_or(0, |flow| {
                let Flow { active, floor, .. } = &self.slab[flow];
                active.first().map_or(*floor, |(least, _)| *least)
            });
            above = tenants.nodes[*node].flow(slot);
            *counter = above.map_or(0, |flow| self.slab[flow].virtual_cost).max(lift);
        }
        standing
    }

    /// The first call in fair order, of those that go next in their leaves, that will do.
    /// Looks at no more than `left` flows.
    pub(crate) fn first_fit(
        &self,
        at: u32,
        (calls, runs): (&Slab<Call>, &Runs),
        left: &mut usize,
        will_do: &impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.slab[at].active.is_empty() {
            return self.first_of(at, At(0), calls, runs).filter(|call| will_do(*call));
        }
        self.slab[at].active.iter().find_map(|(_, child)| {
            *left = left.checked_sub(1)?;
            self.first_fit(*child, (calls, runs), left, will_do)
        })
    }

    /// The call that goes next in a leaf.
    fn first_of(&self, leaf: u32, aged: At, calls: &Slab<Call>, runs: &Runs) -> Option<u32> {
        let leaf = &self.slab[leaf];
        let oldest = leaf.arrivals.head()?;
        if calls[oldest].submitted <= aged {
            return Some(oldest);
        }
        if let Some((_, _, call)) = leaf.by_deadline.first() {
            return Some(*call);
        }
        match leaf.by_service.first()?.2 {
            Entry::Call(call) => Some(call),
            Entry::Tree(tree) => runs.first(tree, leaf.slot as usize % 3),
        }
    }

    /// The waiting calls of a leaf, in order of arrival.
    pub(crate) fn calls_of(&self, flow: u32, calls: &Slab<Call>) -> Vec<u32> {
        let next = |at: &u32| Some(calls[*at].arrival.next).filter(|next| *next != crate::call::NONE);
        std::iter::successors(self.slab[flow].arrivals.head(), next).collect()
    }

    /// All waiting calls of a tree, leaf by leaf, in order of arrival.
    pub(crate) fn waiting(&self, slot: u32, calls: &Slab<Call>) -> Vec<u32> {
        let mut all = Vec::new();
        for (at, _) in self.slab.iter().filter(|(_, flow)| flow.slot == slot) {
            all.extend(self.calls_of(at, calls));
        }
        all.sort_unstable_by_key(|at| id_of(calls, *at));
        all
    }

    pub(crate) fn check(&self, tenants: &Tenants) {
        assert!(self.slab.len() <= FLOWS_MAX + 3 * limits::ENGINES_MAX, "flows are bounded");
        for (at, flow) in self.slab.iter() {
            for (cost, child) in &flow.active {
                let child = &self.slab[*child];
                assert!(
                    child.is_active && child.virtual_cost == *cost && child.parent == Some(at),
                    "sets hold the live"
                );
            }
            if flow.children > 0 {
                let below = self.slab.iter().filter(|(_, child)| child.parent == Some(at));
                let running: u32 = below.map(|(_, child)| child.running).sum();
                assert_eq!(flow.running, running, "a flow counts the calls that run below it");
            }
            if let (Some(node), Some(parent)) = (flow.node, flow.parent) {
                let wanted = flow.has_work() && tenants.nodes[node].blocked.is_none();
                assert_eq!(flow.is_active, wanted, "active is: has work and is not blocked");
                assert_eq!(flow.is_active, self.slab[parent].active.contains(&(flow.virtual_cost, at)));
                assert_eq!(tenants.nodes[node].flow(flow.slot), Some(at), "a node knows its flows");
            }
        }
    }
}
