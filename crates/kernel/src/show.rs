//! Looking at the kernel: pictures for metrics, and the checks that tests and the
//! simulation run after every step.

use std::collections::BTreeMap;

use seawall_model::limits;

use crate::call::State;
use crate::kernel::Kernel;
use crate::view::{TenantView, View};

impl Kernel {
    /// A picture of the state. Costs a walk over all tenant nodes.
    #[must_use]
    pub fn view(&self) -> View {
        let mut engines: Vec<_> =
            self.engines.iter().filter(|(_, engine)| !engine.gone).map(|(_, e)| e.view()).collect();
        engines.sort_unstable_by_key(|engine| engine.engine);
        View {
            engines,
            tenants: self.busiest(),
            budgets: self.accounts.view(self.now),
            calls: self.calls.len(),
            tenants_len: self.tenants.nodes.len(),
        }
    }

    fn busiest(&self) -> Vec<TenantView> {
        // Where a rule hangs on a whole path, the prefix node above the leaf stands for both.
        let shown = self.tenants.nodes.iter().filter(|(_, node)| {
            let parent = node.parent.map(|parent| &self.tenants.nodes[parent]);
            !node.leaf || parent.is_none_or(|parent| parent.path != node.path)
        });
        let mut all: Vec<_> = shown
            .map(|(at, node)| {
                let busy = node.queued as u64 + u64::from(node.running);
                (std::cmp::Reverse((busy, node.served)), &node.path, at)
            })
            .collect();
        let most = limits::TENANT_LABELS_MAX;
        if all.len() > most {
            all.select_nth_unstable(most);
            all.truncate(most);
        }
        all.sort_unstable();
        let views = all.into_iter().map(|(_, _, at)| {
            let node = &self.tenants.nodes[at];
            TenantView {
                path: node.path.clone(),
                queued: node.queued,
                running: node.running,
                served: u64::try_from(node.served / 10).unwrap_or(0),
            }
        });
        views.collect()
    }

    /// Asserts that the state is sound: every count is the sum of what it counts, every
    /// bound holds. For tests and simulation; costs a walk over everything.
    ///
    /// # Panics
    /// If an invariant is broken, naming it.
    pub fn check(&self) {
        self.guard.check();
        self.halts.check();
        self.kin.check(self.calls.iter().filter_map(|(_, call)| call.submit.run));
        assert_eq!(self.calls.len(), self.index.len(), "each call is found by its id");
        assert!(self.calls.len() <= limits::CALLS_MAX, "calls are bounded (I5)");
        assert!(
            self.dirty.is_empty() && self.unarmed.is_empty() && self.evicted.is_empty(),
            "a step leaves nothing over"
        );
        self.tenants.check();
        self.flows.check(&self.tenants);
        self.sketches.check();
        self.check_engines();
        self.check_tenants();
        self.check_accounts();
        self.trees.check(self.calls.iter().map(|(_, call)| call));
        let alarms = 2 * self.calls.len() + self.tenants.nodes.len() + self.accounts.iter().count();
        let rest = self.engines.iter().map(|(_, engine)| 2 + 31 * engine.replicas.len()).sum::<usize>();
        assert!(self.timers.len() <= 2 * alarms + rest + 64, "alarms are bounded (I5)");
    }

    fn check_engines(&self) {
        for (at, engine) in self.engines.iter() {
            let (mut running, mut queued, mut bytes, mut parked) = (0, [0; 3], 0_u64, 0);
            for (_, call) in self.calls.iter() {
                match &call.state {
                    State::Running(run) if run.engine == at => running += 1,
                    State::Paused(pause) if pause.counted == Some(at) => parked += 1,
                    State::Queued(wait) if wait.engine == at => {
                        queued[call.class()] += 1;
                        bytes = bytes.saturating_add(call.submit.bytes.0);
                        assert!(wait.armed.is_some(), "a waiting call has an alarm");
                    }
                    _ => {}
                }
            }
            assert_eq!(
                (engine.running, engine.queued),
                (running, queued),
                "{} counts its calls",
                engine.name
            );
            let waiting = queued.iter().sum::<usize>() + parked;
            assert_eq!(engine.crowd.len(), waiting, "{} counts who waits", engine.name);
            self.check_aside(at);
            assert_eq!(engine.queued_bytes, bytes, "{} counts its bytes", engine.name);
            for replica in &engine.replicas {
                let on = self.calls.iter().filter_map(|(_, call)| call.running());
                let on = on.filter(|run| run.engine == at && run.replica == replica.id);
                let sum = on.fold((0, 0, 0, 0), |sum, run| {
                    let prompt = if run.first.is_none() { run.uncached } else { 0 };
                    (sum.0 + 1, sum.1 + run.load, sum.2 + run.kv, sum.3 + prompt)
                });
                assert_eq!(
                    sum,
                    (replica.running, replica.load, replica.kv, replica.prompts),
                    "replica {:?} counts its calls",
                    replica.id
                );
                replica.prefixes.check();
                replica.pauses.check();
                replica.limit.check(&engine.pace);
            }
            engine.runs.check(&self.calls);
            let mut live = BTreeMap::<u32, u32>::new();
            for (_, call) in self.calls.iter() {
                let on = call.queued().map(|wait| wait.engine).or(call.running().map(|run| run.engine));
                assert!(on.is_some() || call.run.is_none(), "a call that is nowhere has left its run");
                if let Some(run) = call.run.filter(|_| on == Some(at)) {
                    *live.entry(run).or_default() += 1;
                }
            }
            for (run, record) in engine.runs.slab.iter() {
                assert_eq!(record.live, live.remove(&run).unwrap_or(0), "a run counts its calls");
            }
            assert!(live.is_empty(), "{} knows the runs of its calls", engine.name);
        }
    }

    fn check_tenants(&self) {
        for (at, node) in self.tenants.nodes.iter().filter(|(_, node)| node.leaf) {
            let own = || self.calls.iter().filter(|(_, call)| call.node == at);
            let running = own().filter(|(_, call)| call.running().is_some()).count();
            let queued = own().filter(|(_, call)| call.queued().is_some()).count();
            let aside = own().filter(|(_, call)| matches!(call.state, State::Paused(_))).count();
            assert_eq!(
                (node.running as usize, node.queued, node.aside),
                (running, queued, aside),
                "{} counts its calls",
                node.path
            );
        }
    }

    fn check_accounts(&self) {
        self.accounts.check();
        for (serial, account) in self.accounts.iter() {
            let live = self.calls.iter().flat_map(|(_, call)| &call.reservations);
            let live = live.filter(|r| r.account == serial && r.window == account.start);
            assert_eq!(
                live.map(|r| r.amount).sum::<u64>(),
                account.reserved,
                "{} counts its reservations",
                account.name
            );
        }
    }
}
