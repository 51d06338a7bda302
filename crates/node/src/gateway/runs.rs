//! Runs of agents that come through the door, for lists: what they have used comes from the
//! store, what they do now from the kernel.

use seawall_kernel::view::MeterView;
use seawall_model::{Code, Fault};
use seawall_store::Run;
use serde_json::{Value, json};

use crate::app::App;
use crate::disk::Which;

use super::purse;

/// The last so many runs of a tenant and all below it, or of all.
///
/// # Errors
/// `QueueFull` if too many ask; `Internal` if the disk fails.
pub async fn last(app: &App, tenant: Option<String>, count: usize) -> Result<Vec<Value>, Fault> {
    read(app, Which::Last { tenant, count }).await
}

/// A tenant's run of this name and all below it.
///
/// # Errors
/// As [`last`].
pub async fn tree(app: &App, tenant: String, name: String) -> Result<Vec<Value>, Fault> {
    read(app, Which::Tree { tenant, name }).await
}

async fn read(app: &App, which: Which) -> Result<Vec<Value>, Fault> {
    let coming = app.disk.runs(which).ok_or_else(|| Fault::plain(Code::QueueFull))?;
    let found = coming.await.ok().flatten();
    let runs = found.ok_or_else(|| Fault::new(Code::Internal, "The store cannot be read at present."))?;
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    let doing = app.seat.runs(&ids);
    Ok(runs.iter().zip(&doing).map(|(run, doing)| shown(run, doing)).collect())
}

fn shown(run: &Run, (live, stopped, budget): &(u32, bool, Vec<MeterView>)) -> Value {
    let state = match (stopped, live) {
        (true, _) => "stopped",
        (false, 0) => "idle",
        (false, _) => "running",
    };
    let mut shown = json!({
        // Runs that come through the door; those of durable agents are another kind.
        "kind": "door",
        "id": format!("{:016x}", run.id.0),
        "tenant": run.tenant,
        "name": run.name,
        "parent": run.parent,
        "depth": run.depth,
        "agent": run.agent,
        "state": state,
        "live_calls": live,
        "calls": run.calls,
        "failed": run.failed,
        "input_tokens": run.input.0,
        "output_tokens": run.output.0,
        "cost_usd_micro": run.cost.0,
        "since_ms": run.seen.0.0 / 1_000,
        "last_ms": run.seen.1.0 / 1_000,
    });
    if !budget.is_empty() {
        for (name, value) in purse::shown(budget) {
            shown[name] = value;
        }
    }
    shown
}
