//! Agents that run inside: how they stand, what they wait for, and what their operators
//! were told of. Read when somebody looks.

use std::sync::{Arc, PoisonError};

use prometheus_client::registry::Registry;

use crate::agents::census::{Budgets, Census, Told};
use crate::app::App;

use super::label::{Counters, Gauges, Labels, Text, counters, gauges, one};

/// Metrics of agents.
#[derive(Debug)]
pub(super) struct AgentLooks {
    agents: Gauges<1>,
    waits: Gauges<1>,
    runs: Gauges<0>,
    pool: Gauges<2>,
    inbox: Gauges<1>,
    undurable: Gauges<0>,
    told: Counters<1>,
    budgets: Gauges<3>,
    trees: Gauges<1>,
    short: Counters<1>,
    offences: Counters<1>,
    states: Counters<1>,
    state_bytes: Gauges<0>,
    disk: Gauges<1>,
}

impl AgentLooks {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            agents: gauges(r, "seawall_agents", "Agents, suspended ones included, by state"),
            waits: gauges(
                r,
                "seawall_agent_waits",
                "Agents that wait, suspended ones included, by the nearest cause",
            ),
            runs: gauges(r, "seawall_runs_live", "Durable runs that are not over"),
            pool: gauges(
                r,
                "seawall_agent_pool",
                "Places for turns, model calls and tools: held and waited for",
            ),
            inbox: gauges(r, "seawall_agent_inbox", "What people are wanted for, and dead letters"),
            undurable: gauges(
                r,
                "seawall_journal_undurable",
                "Records of the journal on their way to the disk",
            ),
            told: counters(r, "seawall_agent_notices", "What operators were told of agents, by kind"),
            budgets: gauges(
                r,
                "seawall_agent_budget",
                "What live trees of runs may use: reserved, used and allowed, by root tenant and meter (money in millionths of a dollar)",
            ),
            trees: gauges(r, "seawall_agent_trees", "Trees of runs that are not over, by root tenant"),
            short: counters(
                r,
                "seawall_agent_refused",
                "Bookings that a run's allowance had no room for, by meter",
            ),
            offences: counters(r, "seawall_agent_offences", "What the progress guard found, by kind"),
            states: counters(
                r,
                "seawall_agent_states",
                "States of runs that were in memory when they were wanted (hit), or were read (miss)",
            ),
            state_bytes: gauges(r, "seawall_agent_state_bytes", "Bytes of runs' states kept in memory"),
            disk: gauges(
                r,
                "seawall_agent_disk_bytes",
                "Bytes of the journal and of what it names, and how many there may be",
            ),
        }
    }

    pub(super) fn look(&self, app: &App) {
        let Some(runtime) = &app.agents else { return };
        let view = runtime.desk.view();
        let census = runtime.census.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = |state: &str| view.states.get(state).copied().unwrap_or(0);
        let busy = now("running") + now("runnable");
        // The census is of lately, the view of now: what is in memory is never left out.
        let waits = census.away.clone().with(&view.needs);
        let active = |cause: &str| !matches!(cause, "quarantine" | "halted" | "turn_slot");
        let all: u64 = waits.0.iter().filter(|(cause, _)| active(cause)).map(|(_, count)| count).sum();
        let waiting = census.active.saturating_sub(busy).max(now("waiting")).max(all);
        for (state, count) in [
            ("idle", census.idle.max(now("idle"))),
            ("runnable", now("runnable")),
            ("running", now("running")),
            ("waiting", waiting),
            ("quarantined", census.quarantined.max(now("quarantined"))),
            ("done", census.done.max(now("done"))),
        ] {
            self.agents.get_or_create(&one("state", state)).set(count as f64);
        }
        self.waits.clear();
        for (cause, count) in &waits.0 {
            self.waits.get_or_create(&one("cause", Arc::<str>::from(cause.as_str()))).set(*count as f64);
        }
        self.runs.get_or_create(&Labels([])).set(view.runs_live as f64);
        self.undurable.get_or_create(&Labels([])).set(view.undurable as f64);
        self.pool.clear();
        self.place(&"turns".into(), view.turns);
        self.place(&"models".into(), view.models);
        for (tool, figures) in &view.tools {
            self.place(&tool.clone().into(), *figures);
        }
        for (kind, count) in [
            ("letters", view.letters),
            ("doubts", census.doubts),
            ("approvals", census.approvals),
            ("questions", census.questions),
        ] {
            self.inbox.get_or_create(&one("kind", kind)).set(count as f64);
        }
        for (kind, count) in Told::KINDS.into_iter().zip(runtime.told.counts()) {
            let counter = self.told.get_or_create(&one("kind", kind));
            let known = counter.get();
            counter.inc_by(count.saturating_sub(known));
        }
        self.budgets(&census);
        for (family, label, counts) in
            [(&self.short, "meter", &view.short), (&self.offences, "offence", &view.offences)]
        {
            for (name, count) in counts {
                let counter = family.get_or_create(&one(label, *name));
                let known = counter.get();
                counter.inc_by(count.saturating_sub(known));
            }
        }
        let figures = runtime.states.figures();
        for (outcome, count) in [("hit", figures.hits), ("miss", figures.misses)] {
            let counter = self.states.get_or_create(&one("outcome", outcome));
            let known = counter.get();
            counter.inc_by(count.saturating_sub(known));
        }
        self.state_bytes.get_or_create(&Labels([])).set(figures.bytes as f64);
        let (used, allowed) = runtime.room.figures();
        self.disk.get_or_create(&one("what", "used")).set(used as f64);
        self.disk.get_or_create(&one("what", "allowed")).set(allowed as f64);
    }

    fn budgets(&self, census: &Census) {
        self.budgets.clear();
        self.trees.clear();
        for (tenant, budgets) in &census.budgets {
            self.trees.get_or_create(&one("tenant", tenant.clone())).set(budgets.trees as f64);
            for (name, meter) in Budgets::METERS.into_iter().zip(budgets.meters) {
                for (what, amount) in
                    [("reserved", meter.reserved), ("used", meter.used), ("allowed", meter.allowed)]
                {
                    let labels = Labels([
                        ("tenant", tenant.clone().into()),
                        ("meter", name.into()),
                        ("what", what.into()),
                    ]);
                    self.budgets.get_or_create(&labels).set(amount as f64);
                }
            }
        }
    }

    fn place(&self, pool: &Text, (held, waiting): (u32, usize)) {
        let set = |what: &'static str, count: f64| {
            let labels = Labels([("pool", pool.clone()), ("what", what.into())]);
            self.pool.get_or_create(&labels).set(count);
        };
        set("held", f64::from(held));
        set("waiting", waiting as f64);
    }
}
