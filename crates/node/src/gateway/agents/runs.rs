//! Runs: listing them, looking at one with its tree, ending it, beginning it again, and
//! stopping all below it.

use http::StatusCode;
use http::request::Parts;
use seawall_kernel::agents::{Input, Start};
use seawall_model::durable::{RunRow, RunState, Scope};
use seawall_model::effect::Allowance;
use seawall_model::{Code, Fault, RunKey, limits};
use seawall_store::journal::{Reader, RunFilter};
use serde_json::{Value, json};

use crate::app::App;
use crate::clock;
use crate::gateway::runs as door;

use super::query::Query;
use super::show::{Show, allowance, left};
use super::types::{begin, wait_ms, wait_over, waited};
use super::visitor::Visitor;
use super::{Answer, Request, path, unread};

/// Runs listed where the question names no number.
const COUNT: usize = 100;
/// Runs of a tree that are shown with what they hold; the rest is in the list by `parent`.
const TREE_MAX: usize = 1_000;

/// What a list of runs asks for.
struct Listing {
    filter: RunFilter,
    /// The last run of the page before.
    before: Option<RunKey>,
    limit: usize,
    /// Runs that come through the door as well?
    door: bool,
    durable: bool,
}

/// `GET runs`: durable runs and those that come through the door, the newest first.
pub(super) async fn list(app: &App, parts: &Parts, who: &Visitor) -> Answer {
    let text = parts.uri.query().unwrap_or_default();
    let mut query = Query::read(text)?;
    if let Some(name) = query.take("tree") {
        // The tree of a run by its name: only those that come through the door have one.
        let tenant = query.take("tenant").ok_or_else(|| {
            Fault::new(Code::BadField, "A `tree` belongs to a tenant: name it as well.").at("query")
        })?;
        query.take("limit");
        query.finish()?;
        let tenant = who.acts_for(Some(&tenant))?.as_str().to_owned();
        let runs = door::tree(app, tenant, name).await?;
        return super::json(app, StatusCode::OK, &json!({ "runs": runs }));
    }
    let listing = listing(&mut query, who)?;
    let mut runs = Vec::new();
    if listing.door {
        let tenant = listing.filter.tenant.clone();
        let found = door::last(app, tenant, listing.limit).await?;
        runs.extend(found.into_iter().map(|run| (run["last_ms"].as_u64().unwrap_or(0), run)));
    }
    let limit = listing.limit;
    if let Some(runtime) = app.agents.as_ref().filter(|_| listing.durable) {
        let desk = runtime.desk.clone();
        let found = runtime.read(move |reader| {
            let rows = read_page(reader, listing)?;
            let show = Show::whole(reader);
            rows.iter()
                .map(|row| Ok((row.began.0 / 1_000, show.run_live(&desk, row)?)))
                .collect::<Result<Vec<_>, _>>()
        });
        runs.extend(found.await.map_err(unread)?);
    }
    // Stable: each kind stays in its own order.
    runs.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    runs.truncate(limit);
    let runs: Vec<Value> = runs.into_iter().map(|(_, run)| run).collect();
    super::json(app, StatusCode::OK, &json!({ "runs": runs }))
}

fn listing(query: &mut Query, who: &Visitor) -> Result<Listing, Fault> {
    let bad = |what: &str| Fault::new(Code::BadField, what.to_owned()).at("query");
    let tenant = who.lists(query.take("tenant").as_deref())?;
    let limit = query.limit(COUNT, limits::ROWS_MAX)?;
    let state = query.take("state");
    if state
        .as_deref()
        .is_some_and(|state| !["queued", "active", "done", "failed", "cancelled"].contains(&state))
    {
        return Err(bad("`state` is one of queued, active, done, failed, cancelled."));
    }
    let run = |name: &str, run: &str| {
        path::run_key(run).map_err(|_| bad(&format!("`{name}` is a durable run, such as `run-1f03`.")))
    };
    let parent = query.take("parent").map(|text| run("parent", &text)).transpose()?;
    let before = query.take("before").map(|text| run("before", &text)).transpose()?;
    let kind = query.take("type");
    // What comes through the door has neither types nor these states, and no pages.
    let narrow = state.is_some() || parent.is_some() || before.is_some() || kind.is_some();
    let (door, durable) = match query.take("kind").as_deref() {
        None => (!narrow, true),
        Some("door") if narrow => {
            return Err(bad("Runs of the door are listed by `tenant` and `limit` only."));
        }
        Some("door") => (true, false),
        Some("durable") => (false, true),
        Some(_) => return Err(bad("`kind` is durable or door.")),
    };
    query.finish()?;
    let filter = RunFilter { tenant, kind, state, parent, since: None, before: None };
    Ok(Listing { filter, before, limit, door, durable })
}

fn read_page(reader: &Reader, listing: Listing) -> Result<Vec<RunRow>, seawall_store::Error> {
    let Listing { mut filter, before, limit, .. } = listing;
    if let Some(before) = before {
        match reader.run(before)? {
            Some(row) => filter.before = Some((row.began, row.key)),
            // The page before was so long ago that it is gone, and so is what came before.
            None => return Ok(Vec::new()),
        }
    }
    reader.runs(&filter, limit)
}

/// `GET runs/RUN`: the run, and all runs below it; with `wait_ms` once it is over.
pub(super) async fn one(mut request: Request<'_>, run: RunKey) -> Answer {
    let wait = wait_ms(request.query.whole("wait_ms")?)?;
    request.query.finish()?;
    request.run(run).await?;
    if wait > 0 {
        let over = wait_over(&request, run, wait).await?;
        return waited(&request, run, over).await;
    }
    let desk = request.runtime.desk.clone();
    let shown = request
        .read(move |reader| {
            let Some(row) = reader.run(run)? else { return Ok(None) };
            let show = Show::whole(reader);
            let mut shown = show.run_live(&desk, &row)?;
            let tree = reader.tree(row.root)?;
            if !row.state.over() {
                shown["left"] = allowance(&left_on_path(&row, &tree));
            }
            let below = below(run, tree);
            shown["tree_cut"] = (below.len() > TREE_MAX).into();
            let tree: Result<Vec<Value>, _> =
                below.iter().take(TREE_MAX).map(|row| show.run_live(&desk, row)).collect();
            shown["tree"] = tree?.into();
            Ok(Some(shown))
        })
        .await?;
    request.json(StatusCode::OK, &shown.ok_or_else(|| super::unknown_run(run))?)
}

/// What is left for a run: it draws on all above it, so what they have left bounds it too.
fn left_on_path(row: &RunRow, tree: &[RunRow]) -> Allowance {
    let now = clock::wall(clock::now());
    let mut whole = left(row, now);
    let mut parent = row.parent;
    // A path is no longer than the tree has runs.
    for _ in 0..tree.len() {
        let Some(above) = parent.and_then(|effect| tree.iter().find(|row| row.key == effect.run)) else {
            break;
        };
        whole = whole.least(left(above, now));
        parent = above.parent;
    }
    whole
}

/// Of a whole tree, oldest first, the runs below one.
fn below(top: RunKey, tree: Vec<RunRow>) -> Vec<RunRow> {
    let mut known = std::collections::BTreeSet::from([top]);
    let is_below = |row: &RunRow| {
        let below = row.parent.is_some_and(|effect| known.contains(&effect.run));
        if below {
            known.insert(row.key);
        }
        below
    };
    let mut is_below = is_below;
    tree.into_iter().filter(|row| is_below(row)).collect()
}

/// `POST runs/RUN/cancel`: a run that is over stays as it is.
pub(super) async fn cancel(request: Request<'_>, run: RunKey) -> Answer {
    request.query.finish()?;
    request.fields()?.finish()?;
    let row = request.run(run).await?;
    if !row.state.over() {
        let (address, by) = (row.agent, request.who.by.clone());
        match request.tell(|ticket| Input::Cancel { ticket, run, address, by }).await {
            // It ended by itself, and left memory, while this was asked.
            Err(fault) if fault.code == Code::RunUnknown => {}
            Err(fault) => return Err(fault),
            Ok(_) => {}
        }
    }
    let row = request.run(run).await?;
    request.json(StatusCode::OK, &json!({"run": run.to_string(), "state": row.state.as_str()}))
}

/// `POST runs/RUN/again`: from its task; a run that is over begins anew as another.
pub(super) async fn again(request: Request<'_>, run: RunKey) -> Answer {
    request.query.finish()?;
    request.fields()?.finish()?;
    let row = request.run(run).await?;
    let mut agent = row.agent.agent.clone();
    // A key that was made for the run was its own.
    if agent.as_str().ends_with(&format!("/{run}")) {
        agent = seawall_model::Agent::parse(agent.kind()).unwrap_or(agent);
    }
    request.may_use(&row.agent.tenant, &agent)?;
    if row.state == RunState::Active {
        let address = row.agent;
        let why = format!("{} wanted it again", request.who.by).into();
        request.tell(|ticket| Input::Again { ticket, run, address, why }).await?;
        return request.json(StatusCode::OK, &json!({"run": run.to_string(), "restarted": true}));
    }
    if row.state == RunState::Queued {
        let message = format!("`{run}` has not begun yet: it waits for its agent.");
        let advice =
            format!("`seawall why {run}` says what its agent is at; `seawall run cancel {run}` ends it.");
        return Err(Fault::new(Code::RunUnknown, message).advise(advice));
    }
    let start = Start {
        tenant: row.agent.tenant,
        agent,
        task: row.task,
        allowance: row.allowance,
        by: request.who.by.clone(),
        caller: row.caller,
        fork: None,
        version: None,
        state: Vec::new(),
    };
    begin(&request, start, 0).await
}

/// `POST runs/RUN/stop` and `resume`: the kill switch on a run and all below it.
pub(super) async fn halt(request: Request<'_>, run: RunKey, on: bool) -> Answer {
    request.query.finish()?;
    request.fields()?.finish()?;
    request.who.only_admin()?;
    request.run(run).await?;
    let by = request.who.by.clone();
    request.tell(|ticket| Input::Halt { ticket, scope: Scope::Tree(run), on, by }).await?;
    tracing::info!(%run, "{}", if on { "run stopped" } else { "run resumed" });
    request.json(StatusCode::OK, &json!({"run": run.to_string(), "stopped": on}))
}
