//! Gauges that are read when somebody looks: the kernel's view, and the process.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use seawall_kernel::view::{BudgetView, Circuit, EngineView, View};
use seawall_model::{Class, limits};

use crate::app::{App, Live};
use crate::clock;
use crate::process::Process;
use crate::tasks::Kind;

use super::label::{Gauges, Labels, gauges, one};

/// Gauges set anew at each look.
#[derive(Debug)]
pub(super) struct Looks {
    queued: Gauges<2>,
    queued_bytes: Gauges<1>,
    running: Gauges<2>,
    limit: Gauges<2>,
    predicted: Gauges<2>,
    circuit: Gauges<2>,
    tenant_queued: Gauges<1>,
    tenant_running: Gauges<1>,
    tenant_served: Gauges<1>,
    budget_spent: Gauges<1>,
    budget_reserved: Gauges<1>,
    budget_limit: Gauges<1>,
    connections: Gauges<0>,
    uploads: Gauges<0>,
    held: Gauges<1>,
    tasks: Gauges<1>,
    process: Gauges<1>,
    kernel: Gauges<1>,
}

impl Looks {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            queued: gauges(r, "seawall_queue_len", "Calls waiting, by engine and class"),
            queued_bytes: gauges(r, "seawall_queue_bytes", "Bytes of calls waiting, by engine"),
            running: gauges(r, "seawall_replica_running", "Calls in flight, by engine and replica"),
            limit: gauges(r, "seawall_replica_limit", "Limit of calls in flight, as found"),
            predicted: gauges(r, "seawall_replica_tokens", "Predicted tokens in flight"),
            circuit: gauges(r, "seawall_replica_circuit", "0 closed, 1 half-open, 2 open"),
            tenant_queued: gauges(r, "seawall_tenant_queued", "Calls waiting, by tenant (busiest)"),
            tenant_running: gauges(r, "seawall_tenant_running", "Calls in flight, by tenant (busiest)"),
            tenant_served: gauges(r, "seawall_tenant_served", "Cost units served, by tenant (busiest)"),
            budget_spent: gauges(r, "seawall_budget_spent", "Settled, by account (largest)"),
            budget_reserved: gauges(
                r,
                "seawall_budget_reserved",
                "Reserved by calls in flight, by account (largest)",
            ),
            budget_limit: gauges(r, "seawall_budget_limit", "Limit, by account (largest)"),
            connections: gauges(r, "seawall_connections", "Open connections from clients"),
            uploads: gauges(r, "seawall_uploads", "Streamed uploads under way"),
            held: gauges(r, "seawall_memory_bytes", "The byte budget of calls in flight: held and limit"),
            tasks: gauges(r, "seawall_tasks", "Live tasks and threads, by kind"),
            process: gauges(r, "seawall_process", "Resident and allocated bytes, descriptors, uptime"),
            kernel: gauges(r, "seawall_kernel", "Entries the kernel keeps: calls, tenants"),
        }
    }

    pub(super) fn look(&self, app: &App) {
        let view = app.seat.view();
        let live = app.live.load();
        self.forget();
        for engine in &view.engines {
            self.engine(engine, &live);
        }
        self.tenants(&view);
        self.kernel.get_or_create(&one("kind", "calls")).set(view.calls as f64);
        self.kernel.get_or_create(&one("kind", "tenants")).set(view.tenants_len as f64);
        self.process(app);
    }

    /// Drops what may be gone since the last look.
    fn forget(&self) {
        for family in [&self.queued, &self.running, &self.limit, &self.predicted, &self.circuit] {
            family.clear();
        }
        for family in [&self.queued_bytes, &self.tenant_queued, &self.tenant_running, &self.tenant_served] {
            family.clear();
        }
        for family in [&self.budget_spent, &self.budget_reserved, &self.budget_limit] {
            family.clear();
        }
    }

    fn engine(&self, engine: &EngineView, live: &Live) {
        let name: Arc<str> = live.engine_name(engine.engine);
        for class in Class::ALL {
            let labels = Labels([("engine", name.clone().into()), ("class", class.as_str().into())]);
            self.queued.get_or_create(&labels).set(engine.queued[class as usize] as f64);
        }
        let bytes = engine.queued_bytes.0 as f64;
        self.queued_bytes.get_or_create(&one("engine", name.clone())).set(bytes);
        for replica in &engine.replicas {
            let address = live.replica_name(replica.replica);
            let labels = Labels([("engine", name.clone().into()), ("replica", address.into())]);
            self.running.get_or_create(&labels).set(f64::from(replica.running));
            self.limit.get_or_create(&labels).set(f64::from(replica.limit));
            self.predicted.get_or_create(&labels).set(replica.tokens.0 as f64);
            let circuit = match replica.circuit {
                Circuit::Closed => 0.0,
                Circuit::HalfOpen => 1.0,
                Circuit::Open => 2.0,
            };
            self.circuit.get_or_create(&labels).set(circuit);
        }
    }

    fn tenants(&self, view: &View) {
        for tenant in &view.tenants {
            let labels = one("tenant", tenant.path.clone());
            self.tenant_queued.get_or_create(&labels).set(tenant.queued as f64);
            self.tenant_running.get_or_create(&labels).set(f64::from(tenant.running));
            self.tenant_served.get_or_create(&labels).set(tenant.served as f64);
        }
        for budget in largest(&view.budgets) {
            let labels = one("account", budget.account.clone());
            self.budget_spent.get_or_create(&labels).set(budget.spent as f64);
            self.budget_reserved.get_or_create(&labels).set(budget.reserved as f64);
            self.budget_limit.get_or_create(&labels).set(budget.limit as f64);
        }
    }

    fn process(&self, app: &App) {
        let process = Process::read();
        let up = clock::now().since(app.started).0 as f64 / 1_000.0;
        for (kind, value) in [
            ("resident_bytes", process.resident as f64),
            ("allocated_bytes", process.allocated as f64),
            ("descriptors", process.descriptors as f64),
            ("uptime_seconds", up),
        ] {
            self.process.get_or_create(&one("kind", kind)).set(value);
        }
        let connections = app.tasks.count(Kind::Connection) as f64;
        self.connections.get_or_create(&Labels([])).set(connections);
        self.uploads.get_or_create(&Labels([])).set(app.uploads.count() as f64);
        self.held.get_or_create(&one("kind", "held")).set(app.memory.held().0 as f64);
        self.held.get_or_create(&one("kind", "limit")).set(app.memory.limit().0 as f64);
        for kind in Kind::ALL {
            let live = app.tasks.count(*kind) as f64;
            self.tasks.get_or_create(&one("kind", kind.as_str())).set(live);
        }
    }
}

/// The accounts that get a label of their own: a client that invents users makes accounts
/// as well. Those that have spent most, by name where they are equal.
fn largest(budgets: &[BudgetView]) -> Vec<&BudgetView> {
    let mut largest: Vec<_> = budgets.iter().collect();
    largest.sort_unstable_by(|a, b| b.spent.cmp(&a.spent).then_with(|| a.account.cmp(&b.account)));
    largest.truncate(limits::TENANT_LABELS_MAX);
    largest
}

#[cfg(test)]
mod tests {
    use seawall_model::At;

    use super::*;

    #[test]
    fn accounts_that_spent_most_get_the_labels() {
        let budget = |at: usize| BudgetView {
            account: format!("user-{at:04}#usd/day").into(),
            window: At(0),
            limit: 1_000,
            spent: (at % 250) as u64,
            reserved: 0,
        };
        let budgets: Vec<_> = (0..500).map(budget).collect();
        let largest = largest(&budgets);
        assert_eq!(largest.len(), limits::TENANT_LABELS_MAX);
        assert_eq!(&*largest[0].account, "user-0249#usd/day");
        assert_eq!(&*largest[1].account, "user-0499#usd/day");
        assert!(largest.iter().all(|budget| budget.spent >= 150), "none of the small ones");
    }
}
