//! Who goes next on one engine in one class: a tree of virtual counters (VTC, arXiv
//! 2401.00588, made hierarchical and weighted). At each level the child with the least
//! counter among those that may be served goes first; a child that becomes active is
//! lifted to its active siblings, so that idling banks no credit. A node that is
//! blocked by a limit is taken out of the sets and put back when the limit clears:
//! no decision ever looks at a blocked tenant.
//!
//! Inside a tenant: whoever has waited past the ageing time, else the nearest deadline,
//! else the run with the least attained service, else the oldest call.

use std::collections::BTreeSet;

use seawall_model::{At, CallId, limits};

use crate::call::{By, Call, List, id_of};
use crate::run::Runs;
use crate::slab::Slab;
use crate::tenant::{Node, Tenants, WEIGHT};

/// One tenth of a cost unit at the usual weight, so that dividing by a weight keeps
/// ten bits below the point.
const SCALE: u128 = 1_024 * WEIGHT as u128;
/// Flows kept: two for each tenant node (most use one engine in one or two classes).
const FLOWS_MAX: usize = 2 * limits::TENANTS_MAX;
/// Slots looked at for a flow that may go.
const SWEEP: usize = 1_024;

/// What stands in a tenant's order of service: a run by its oldest call, or a call
/// without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Run(u32),
    Call(u32),
}

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
            used: true,
            arrivals: List::default(),
            by_service: BTreeSet::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    fn has_work(&self) -> bool {
        self.arrivals.len() > 0 || !self.active.is_empty()
    }

    fn idle(&self) -> bool {
        self.parent.is_some() && self.queued == 0 && self.running == 0 && self.children == 0
    }
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
        if self.slab.len() + crate::tenant::CHAIN_MAX > FLOWS_MAX && !self.make_room(tenants) {
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
        while self.slab.len() + crate::tenant::CHAIN_MAX > FLOWS_MAX {
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
        if let Some(Flow { parent: Some(parent), is_active, virtual_cost, .. }) = self.slab.remove(at)
            && let Some(above) = self.slab.get_mut(parent)
        {
            above.children -= 1;
            if is_active {
                above.active.remove(&(virtual_cost, at));
            }
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
            let record = &mut runs.slab[run];
            let (home, list) = &mut record.lists[class];
            *home = flow;
            if let Some(head) = list.head() {
                leaf.by_service.remove(&(record.service, id_of(calls, head), Entry::Run(run)));
            }
            list.insert(calls, at, By::Run);
            let head = list.head().expect("a call was just put in");
            leaf.by_service.insert((record.service, id_of(calls, head), Entry::Run(run)));
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
            let record = &mut runs.slab[run];
            let list = &mut record.lists[class].1;
            let head = list.head().expect("the call is in the list");
            leaf.by_service.remove(&(record.service, id_of(calls, head), Entry::Run(run)));
            list.remove(calls, at, By::Run);
            if let Some(head) = list.head() {
                leaf.by_service.insert((record.service, id_of(calls, head), Entry::Run(run)));
            }
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

    /// A run was served: its place in the order changes.
    pub(crate) fn serve_run(&mut self, run: u32, delta: i64, calls: &Slab<Call>, runs: &mut Runs) {
        let record = &mut runs.slab[run];
        let service = record.service.saturating_add_signed(delta);
        for (flow, list) in &record.lists {
            if let Some(head) = list.head() {
                let order = &mut self.slab[*flow].by_service;
                let id = id_of(calls, head);
                order.remove(&(record.service, id, Entry::Run(run)));
                order.insert((service, id, Entry::Run(run)));
            }
        }
        record.service = service;
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

    pub(crate) fn ran(&mut self, flow: u32, began: bool) {
        let flow = &mut self.slab[flow];
        if began {
            flow.running += 1;
        } else {
            flow.running = flow.running.saturating_sub(1);
        }
    }

    /// The call that goes next in the tree of this root, and its leaf flow.
    pub(crate) fn next(&self, root: u32, aged: At, calls: &Slab<Call>, runs: &Runs) -> Option<(u32, u32)> {
        let mut at = root;
        while let Some((_, child)) = self.slab[at].active.first() {
            at = *child;
        }
        let leaf = &self.slab[at];
        let oldest = leaf.arrivals.head()?;
        if calls[oldest].submitted <= aged {
            return Some((at, oldest));
        }
        if let Some((_, _, call)) = leaf.by_deadline.first() {
            return Some((at, *call));
        }
        match leaf.by_service.first()?.2 {
            Entry::Call(call) => Some((at, call)),
            Entry::Run(run) => Some((at, runs.slab[run].lists[leaf.slot as usize % 3].1.head()?)),
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
            if let (Some(node), Some(parent)) = (flow.node, flow.parent) {
                let wanted = flow.has_work() && tenants.nodes[node].blocked.is_none();
                assert_eq!(flow.is_active, wanted, "active is: has work and is not blocked");
                assert_eq!(flow.is_active, self.slab[parent].active.contains(&(flow.virtual_cost, at)));
                assert_eq!(tenants.nodes[node].flow(flow.slot), Some(at), "a node knows its flows");
            }
        }
    }
}
