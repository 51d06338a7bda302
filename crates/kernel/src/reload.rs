//! A new plan: what is known by id or prefix keeps its state, calls that wait for an
//! engine that is no more go elsewhere, and calls that run end as they would have.

use std::collections::BTreeSet;

use seawall_model::{EngineId, limits};

use crate::call::NONE;
use crate::effect::Effect;
use crate::engine::Engine;
use crate::kernel::{DOWN_WAIT_MS, Kernel};
use crate::plan::Plan;
use crate::timer::Alarm;

impl Kernel {
    /// Takes on a plan.
    pub(crate) fn configure(&mut self, plan: Plan, out: &mut Vec<Effect>) {
        self.queue = plan.queue;
        self.retry = plan.retry;
        self.guard_rule = plan.guard;
        self.class_share = plan.class_share;
        self.models = plan.models.into_iter().map(|model| (model.id, model)).collect();
        let models = &self.models;
        self.sketches.keep_models(|model| models.contains_key(&model));
        self.configure_engines(&plan.engines);
        self.configure_tenants(&plan.tenants);
        let engines: Vec<u32> = self.engines.indices();
        for at in engines {
            if self.engines[at].is_down() {
                let id = self.engines[at].id;
                self.timers.arm(self.now.plus(DOWN_WAIT_MS), Alarm::Down(id));
                self.move_away(at, out);
            }
            self.mark(at);
        }
    }

    fn configure_engines(&mut self, plans: &[crate::plan::Engine]) {
        for engine in self.engines.indices() {
            self.engines[engine].gone = true;
        }
        let mut known = BTreeSet::new();
        for plan in plans.iter().take(limits::ENGINES_MAX) {
            if !known.insert(plan.id) {
                continue;
            }
            if let Some(at) = self.engine_ids.get(&plan.id).copied() {
                self.engines[at].reload(plan, self.now);
            } else {
                self.add_engine(plan.id, plan);
            }
        }
        for at in self.engines.indices() {
            let engine = &mut self.engines[at];
            if engine.gone {
                engine.replicas.iter_mut().for_each(|replica| replica.gone = true);
                engine.sweep();
            }
        }
        self.replica_homes.clear();
        for (at, engine) in self.engines.iter() {
            let present = engine.replicas.iter().filter(|replica| !replica.gone);
            self.replica_homes.extend(present.map(|replica| (replica.id, at)));
        }
    }

    fn add_engine(&mut self, id: EngineId, plan: &crate::plan::Engine) {
        // The trees are named after the engine's slot, so the slot comes first.
        let at = self.engines.insert(Engine::new(plan, [NONE; 3], self.now));
        self.engines[at].roots = [0, 1, 2].map(|class| self.flows.root(at * 3 + class));
        self.engine_ids.insert(id, at);
    }

    /// Calls that wait are taken out of the trees and put back, since any node may be
    /// blocked or freed, and leaves may move.
    fn configure_tenants(&mut self, rules: &[crate::plan::TenantRule]) {
        self.accounts.deactivate();
        let engines = self.engines.indices();
        let waiting: Vec<u32> = engines.iter().flat_map(|engine| self.waiting_on(*engine)).collect();
        self.take_out(&waiting);
        for node in self.tenants.reload(rules, &mut self.accounts, self.now) {
            self.flows.detach(node, &mut self.tenants);
        }
        for node in self.tenants.nodes.indices() {
            self.regate(node);
        }
        self.put_back(&waiting);
    }

    /// The path of this leaf has become a prefix of others: it moves below that node, and
    /// with it go its calls.
    pub(crate) fn cover(&mut self, leaf: u32) {
        let flows = self.tenants.nodes[leaf].flows.iter();
        let waiting: Vec<u32> = flows.flat_map(|(_, flow)| self.flows.calls_of(*flow, &self.calls)).collect();
        self.take_out(&waiting);
        self.tenants.cover(leaf, &mut self.accounts, self.now);
        self.flows.detach(leaf, &mut self.tenants);
        for node in self.tenants.chain(leaf).nodes() {
            self.regate(*node);
        }
        self.put_back(&waiting);
    }

    /// Takes waiting calls out of their trees, which may then change.
    fn take_out(&mut self, waiting: &[u32]) {
        for at in waiting {
            if let Some(queued) = self.calls[*at].queued().copied() {
                let runs = &mut self.engines[queued.engine].runs;
                self.flows.take(queued.flow, *at, &mut self.calls, runs, &self.tenants);
            }
        }
    }

    fn put_back(&mut self, waiting: &[u32]) {
        for at in waiting.iter().copied() {
            let Some(queued) = self.calls[at].queued().copied() else {
                continue;
            };
            let (class, node) = (self.calls[at].class(), self.calls[at].node);
            let state = &mut self.engines[queued.engine];
            // Room is certain: the flow existed a moment ago or takes its place.
            let flow = self.flows.open_anyway(state.roots[class], node, &mut self.tenants);
            if let crate::call::State::Queued(queued) = &mut self.calls[at].state {
                queued.flow = flow;
            }
            self.flows.push(flow, at, &mut self.calls, &mut state.runs, &self.tenants);
        }
    }

    /// Drops an engine that left the plan once nothing refers to it.
    pub(crate) fn retire(&mut self, at: u32) {
        let Some(engine) = self.engines.get(at) else {
            return;
        };
        if engine.gone && engine.running == 0 && engine.waiting() == 0 && engine.crowd.is_empty() {
            self.flows.purge(engine.roots, &mut self.tenants);
            if let Some(engine) = self.engines.remove(at) {
                self.engine_ids.remove(&engine.id);
            }
        }
    }
}
