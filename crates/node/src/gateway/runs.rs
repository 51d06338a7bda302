//! `GET /seawall/runs`: what runs of agents there are, or one with all below it. What they
//! have used comes from the store, what they do now from the kernel.

use http::request::Parts;
use http::{Response, StatusCode};
use seawall_model::{At, Code, Fault, limits};
use seawall_store::Run;
use serde_json::{Value, json};

use crate::app::App;
use crate::disk::Which;

use super::ops;
use super::reply::{self, Reply};
use super::route::decoded;

/// Runs listed where the question names no number.
const COUNT: usize = 100;

/// Answers with the runs that the query names: `tenant` and all below it, the last `limit`;
/// or `tenant` and `tree`, a run's name, for that run and all below it.
///
/// # Errors
/// `BadKey` without a key, once there are keys; `AdminOnly` with one that is no admin's;
/// `BadField` for what the query cannot be; `QueueFull` if too many ask; `Internal` if the
/// disk fails.
pub async fn list(app: &App, parts: &Parts, now: At) -> Result<Response<Reply>, Fault> {
    ops::admin(app, &parts.headers, now)?;
    let which = which(parts.uri.query().unwrap_or_default())?;
    let coming = app.disk.runs(which).ok_or_else(|| Fault::plain(Code::QueueFull))?;
    let found = coming.await.ok().flatten();
    let runs = found.ok_or_else(|| Fault::new(Code::Internal, "The store cannot be read at present."))?;
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    let doing = app.seat.runs(&ids);
    let shown: Vec<Value> = runs.iter().zip(doing).map(|(run, doing)| shown(run, doing)).collect();
    Ok(reply::json(StatusCode::OK, json!({ "runs": shown }).to_string()))
}

fn which(query: &str) -> Result<Which, Fault> {
    let bad = |what: String| Fault::new(Code::BadField, what).at("query");
    let (mut tenant, mut tree, mut count) = (None, None, COUNT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            decoded(value).ok_or_else(|| bad(format!("The value of `{}` is broken.", shortened(name))))?;
        match name {
            "tenant" => tenant = Some(value),
            "tree" => tree = Some(value),
            "limit" => {
                let most = limits::ROWS_MAX;
                let asked = value.parse().ok().filter(|count| (1..=most).contains(count));
                count = asked.ok_or_else(|| bad(format!("`limit` is a number from 1 to {most}.")))?;
            }
            _ => return Err(bad("The query knows `tenant`, `limit` and `tree`.".to_owned())),
        }
    }
    match (tenant, tree) {
        (Some(tenant), Some(name)) => Ok(Which::Tree { tenant, name }),
        (None, Some(_)) => Err(bad("A `tree` belongs to a tenant: name it as well.".to_owned())),
        (tenant, None) => Ok(Which::Last { tenant, count }),
    }
}

/// The client's own text, short enough for a line.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn shown(run: &Run, (live, stopped): (u32, bool)) -> Value {
    let state = match (stopped, live) {
        (true, _) => "stopped",
        (false, 0) => "idle",
        (false, _) => "running",
    };
    json!({
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_tenant_a_number_or_a_tree() {
        let last = |tenant: Option<&str>, count| Which::Last { tenant: tenant.map(Into::into), count };
        for (query, expected) in [
            ("", last(None, COUNT)),
            ("tenant=acme%2Fx&limit=5", last(Some("acme/x"), 5)),
            ("tree=a%20b%26c&tenant=acme", Which::Tree { tenant: "acme".into(), name: "a b&c".into() }),
        ] {
            assert_eq!(which(query).expect("good"), expected, "{query}");
        }
        for bad in ["limit=0", "limit=x", "limit=10001", "tree=a", "tenant=%zz", "nonsense=1"] {
            assert_eq!(which(bad).expect_err("bad").code, Code::BadField, "{bad}");
        }
    }
}
