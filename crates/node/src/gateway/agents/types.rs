//! Types of agents and agents one by one: what there is, and starting, telling and releasing
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use seawall_kernel::agents::effect::Reply as Said;
use seawall_kernel::agents::mail::from_outside;
use seawall_kernel::agents::{Input, Need, Start};
use seawall_model::durable::Standing;
use seawall_model::{Address, Agent, Code, Fault, RunKey, limits};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::agents::census::Waits;
use crate::agents::durability_word;
use crate::config::problem::nearest;

use super::show::{self, Show, needs};
use super::{Answer, Request, leaving};

/// Agents listed where the question names no number.
const COUNT: usize = 100;
/// Agents in one list: each is looked at under the agents' lock.
const COUNT_MAX: usize = 1_000;

/// `GET agents`: types with their counts; with `list=1` agents one by one.
pub(super) async fn list(mut request: Request<'_>) -> Answer {
    let tenant = request.who.lists(request.query.take("tenant").as_deref())?;
    if request.query.flag("list") {
        return one_by_one(&mut request, tenant).await;
    }
    request.query.finish()?;
    let of = tenant.clone();
    let desk = request.runtime.desk.clone();
    let (standings, (away, tally)) = request
        .read(move |reader| {
            let tenant = of.as_deref();
            Ok((reader.standings(tenant)?, Waits::away(reader, &desk, tenant)?))
        })
        .await?;
    let mut counts: BTreeMap<Arc<str>, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for (kind, standing, count) in &standings {
        let states = counts.entry(kind.as_str().into()).or_default();
        let busy = tally.states.get(kind.as_str());
        let now = |state| busy.and_then(|busy| busy.get(state)).copied().unwrap_or(0);
        match standing {
            Standing::Idle => drop(states.insert("idle", *count)),
            Standing::Done => drop(states.insert("done", *count)),
            Standing::Quarantined => drop(states.insert("quarantined", *count)),
            // Those that are not in memory wait.
            Standing::Active => {
                let (running, runnable) = (now("running"), now("runnable"));
                states.insert("running", running);
                states.insert("runnable", runnable);
                states.insert("waiting", count.saturating_sub(running + runnable));
            }
        }
    }
    let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (state, count) in counts.values().flatten() {
        *states.entry(state).or_default() += count;
    }
    let live = request.app.live.load_full();
    let mut types = Vec::new();
    for definition in request.runtime.library.newest() {
        let kit = request.runtime.library.kit(&definition);
        types.push(json!({
            "type": &*definition.kind,
            "version": &*definition.version,
            "about": &*definition.about,
            "model": &*definition.model,
            "model_known": live.routes.resolve(&definition.model).is_some(),
            "tools": kit.names().map(|name| &**name).collect::<Vec<_>>(),
            "unmet": kit.unmet().iter().map(|name| &**name).collect::<Vec<_>>(),
            "agents": counts.remove(&definition.kind).unwrap_or_default(),
        }));
    }
    // Agents of types that are not defined any more.
    for (kind, counts) in counts {
        types.push(json!({"type": &*kind, "version": null, "about": "not defined any more", "model": null,
            "tools": [], "unmet": [], "agents": counts}));
    }
    let body = json!({
        "types": types, "states": states, "waits": away.with(&tally.needs).0, "durability": durability(&request),
        "problems": request.runtime.problems(request.who.admin),
    });
    request.json(StatusCode::OK, &body)
}

async fn one_by_one(request: &mut Request<'_>, tenant: Option<String>) -> Answer {
    let limit = request.query.limit(COUNT, COUNT_MAX)?;
    let after = match request.query.take("after") {
        Some(after) => Some(Address::parse(&after).map_err(|_| {
            Fault::new(Code::BadField, "`after` is what the last page had as `next`.").at("query")
        })?),
        None => None,
    };
    request.query.finish()?;
    let desk = request.runtime.desk.clone();
    let agents = request
        .read(move |reader| {
            let rows = reader.agents(tenant.as_deref(), after.as_ref(), limit)?;
            let looked = rows.into_iter().filter_map(|row| {
                let address = row.address.clone();
                desk.look(&address, Some(row))
            });
            Ok(looked.collect::<Vec<_>>())
        })
        .await?;
    let next =
        if agents.len() == limit { agents.last().map(|(row, _)| row.address.to_string()) } else { None };
    let shown: Vec<Value> = agents
        .iter()
        .map(|(row, standing)| {
            json!({
                "agent": row.address.agent.as_str(),
                "tenant": row.address.tenant.as_str(),
                "state": standing.state.as_str(),
                "run": row.run.map(|run| run.to_string()),
                "waits": needs(row, standing),
                "inbox": row.inbox.len(),
                "queue": row.queue.len(),
            })
        })
        .collect();
    request.json(StatusCode::OK, &json!({ "agents": shown, "next": next }))
}

/// When a record counts as durable.
fn durability(request: &Request<'_>) -> &'static str {
    durability_word(request.runtime.durability)
}

/// The agent of a path, for the tenant that the query names.
pub(super) fn address(request: &mut Request<'_>, agent: Agent) -> Result<Address, Fault> {
    let tenant = request.who.acts_for(request.query.take("tenant").as_deref())?;
    request.query.finish()?;
    Ok(Address { tenant, agent })
}

/// `GET agents/TYPE/KEY`
pub(super) async fn one(mut request: Request<'_>, agent: Agent) -> Answer {
    let address = address(&mut request, agent)?;
    let desk = request.runtime.desk.clone();
    let of = address.clone();
    let shown = request
        .read(move |reader| {
            let found = show::standing(reader, &desk, &of)?;
            Ok(found.map(|(row, standing)| Show::whole(reader).agent(&row, &standing)))
        })
        .await?;
    request.json(StatusCode::OK, &shown.ok_or_else(|| unknown(&address))?)
}

/// There is no such agent.
pub(super) fn unknown(address: &Address) -> Fault {
    let message =
        format!("`{}` has no agent `{}` that ever ran or was written to.", address.tenant, address.agent);
    let agent = &address.agent;
    let advice = format!(
        "`seawall agents --list {kind} --tenant {tenant}` lists those there are; `seawall start {agent} TASK` makes this one.",
        kind = agent.kind(),
        tenant = address.tenant,
    );
    Fault::new(Code::AgentUnknown, message).advise(advice)
}

/// `POST agents/TYPE[/KEY]/runs`
pub(super) async fn start(request: Request<'_>, agent: Agent) -> Answer {
    request.query.finish()?;
    let mut fields = request.fields()?;
    let tenant = request.who.acts_for(fields.text("tenant")?.as_deref())?;
    let task = fields.content("task");
    let allowance = fields.allowance("allowance")?;
    let version: Option<Arc<str>> = fields.text("version")?.map(Into::into);
    let wait = wait_ms(fields.whole("wait_ms")?)?;
    fields.finish()?;
    let task = task.ok_or_else(|| Fault::new(Code::BadField, "A run has a `task`.").at("task"))?;
    request.may_use(&tenant, &agent)?;
    defined(&request, agent.kind())?;
    known_version(&request, agent.kind(), version.as_ref()).await?;
    let task = request.keep_task(task).await?;
    let by = request.who.by.clone();
    let start =
        Start { tenant, agent, task, allowance, by, caller: None, fork: None, version, state: Vec::new() };
    begin(&request, start, wait).await
}

/// For whoever has just saved a file.
const SOON: &str = "Definitions are files of the folder `agents.folder`, which is read every 2 s.";

/// Is there such a type?
///
/// # Errors
/// `AgentUnknown` with the name that is nearest: names are told apart by case.
fn defined(request: &Request<'_>, kind: &str) -> Result<(), Fault> {
    if request.runtime.library.of(kind).is_some() {
        return Ok(());
    }
    let fault = Fault::new(Code::AgentUnknown, format!("No agent of type `{kind}` is defined."));
    if let Some(trouble) = request.runtime.library.troubles().iter().find(|trouble| trouble.kind == kind) {
        let file = &trouble.file;
        return Err(fault.advise(format!("Its file `{file}` has mistakes: `seawall check` tells them.")));
    }
    let all = request.runtime.library.newest();
    let names: Vec<&str> = all.iter().map(|definition| &*definition.kind).collect();
    let alike = names.iter().copied().find(|name| name.eq_ignore_ascii_case(kind));
    Err(match alike.or_else(|| nearest(kind, &names)) {
        Some(near) => {
            fault.advise(format!("Did you mean `{near}`? `seawall agents` lists the types. {SOON}"))
        }
        None => fault.advise(format!("`seawall agents` lists the types. {SOON}")),
    })
}

/// Is this a version of the type?
///
/// # Errors
/// `BadField` if it is not.
pub(super) async fn known_version(
    request: &Request<'_>,
    kind: &str,
    version: Option<&Arc<str>>,
) -> Result<(), Fault> {
    let Some(version) = version.cloned() else { return Ok(()) };
    // Versions become part of a file's name.
    let plain = version.len() == 12 && version.bytes().all(|byte| byte.is_ascii_hexdigit());
    let of = kind;
    let (library, kind, sought) = (request.runtime.library.clone(), kind.to_owned(), version.clone());
    // A version that is not in force is read from the disk.
    if plain && request.read(move |_| Ok(library.version(&kind, &sought).is_some())).await? {
        return Ok(());
    }
    let message = format!("The type `{of}` has no such version.");
    let advice = "`seawall agents` shows the version in force; older ones are kept while runs are on them.";
    Err(Fault::new(Code::BadField, message).at("version").advise(advice))
}

/// Starts a run, and waits for its end for so long.
pub(super) async fn begin(request: &Request<'_>, start: Start, wait_ms: u64) -> Answer {
    let tenant = start.tenant.clone();
    let said = request.tell(|ticket| Input::Start { ticket, start: Box::new(start) }).await?;
    let Said::Started { run, address } = said else { return Err(Fault::plain(Code::Internal)) };
    if wait_ms == 0 {
        let body = json!({
            "run": run.to_string(),
            "agent": address.agent.as_str(),
            "tenant": tenant.as_str(),
            "durability": durability(request),
        });
        return request.json(StatusCode::CREATED, &body);
    }
    let over = wait_over(request, run, wait_ms).await?;
    waited(request, run, over).await
}

/// A run after somebody waited for its end.
pub(super) async fn waited(request: &Request<'_>, run: RunKey, over: bool) -> Answer {
    let desk = request.runtime.desk.clone();
    let shown = request
        .read(move |reader| {
            let row = reader.run(run)?;
            row.map(|row| Show::whole(reader).run_live(&desk, &row)).transpose()
        })
        .await?;
    let shown = shown.ok_or_else(|| super::unknown_run(run))?;
    request.json(if over { StatusCode::OK } else { StatusCode::ACCEPTED }, &shown)
}

/// How long a request waits at most.
///
/// # Errors
/// `BadField` for longer than any may.
pub(super) fn wait_ms(asked: Option<u64>) -> Result<u64, Fault> {
    let asked = asked.unwrap_or(0);
    if asked <= limits::RUN_WAIT_MS_MAX {
        return Ok(asked);
    }
    let message =
        format!("`wait_ms` is at most {}; follow the run's events instead.", limits::RUN_WAIT_MS_MAX);
    Err(Fault::new(Code::BadField, message).at("wait_ms"))
}

/// Waits until a run is over, for so long, or until Seawall leaves. Is it over?
///
/// # Errors
/// If the journal cannot be read.
pub(super) async fn wait_over(request: &Request<'_>, run: RunKey, wait_ms: u64) -> Result<bool, Fault> {
    let over = request.runtime.desk.over(run);
    // Asked after it is listened for: an end between the two is heard.
    let row = request.read(move |reader| reader.run(run)).await?;
    if row.is_some_and(|row| row.state.over()) {
        return Ok(true);
    }
    let heard = tokio::select! {
        ended = tokio::time::timeout(Duration::from_millis(wait_ms), over) => matches!(ended, Ok(Ok(_))),
        // Whoever waits is told where it stands, and asks whoever comes after.
        () = leaving(request.app) => false,
    };
    Ok(heard)
}

/// `POST agents/TYPE/KEY/messages`
pub(super) async fn send(request: Request<'_>, agent: Agent) -> Answer {
    request.query.finish()?;
    let mut fields = request.fields()?;
    let tenant = request.who.acts_for(fields.text("tenant")?.as_deref())?;
    let body = fields.content("body");
    let body = body.ok_or_else(|| Fault::new(Code::BadField, "A message has a `body`.").at("body"))?;
    let name = fields.text("name")?;
    let id = fields.text("id")?.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    fields.finish()?;
    for (field, text) in [("name", name.as_deref()), ("id", Some(id.as_str()))] {
        if text.is_some_and(|text| text.is_empty() || text.len() > limits::NAME_LEN_MAX) {
            let message = format!("`{field}` has 1 to {} bytes.", limits::NAME_LEN_MAX);
            return Err(Fault::new(Code::BadField, message).at(field));
        }
    }
    request.may_use(&tenant, &agent)?;
    defined(&request, agent.kind())?;
    let to = Address { tenant, agent };
    let body = request.keep(body).await?;
    let message = Box::new(from_outside(digest(&id), name.map(Into::into), body));
    let sent = to.clone();
    let by = request.who.by.clone();
    let said = request.tell(|ticket| Input::Send { ticket, to: sent, message, by }).await;
    let said = said.map_err(|fault| match fault.code {
        Code::VersionConflict => fault.at("id").advise(
            "It is the same message only with the same `body` and `name`: send another under another `id`.",
        ),
        _ => fault,
    })?;
    let (created, before) = match said {
        Said::Taken { created, before } => (created, before),
        _ => (false, false),
    };
    let starts = request.runtime.library.of(to.agent.kind()).is_some_and(|kind| kind.starts_on_mail);
    let body = json!({
        "agent": to.agent.as_str(),
        "tenant": to.tenant.as_str(),
        "id": id,
        "taken": !before,
        "duplicate": before,
        "created": created,
        // Nothing starts it but a run of its own.
        "idle": created && !starts,
    });
    request.json(StatusCode::ACCEPTED, &body)
}

/// A message's id as agents remember it.
fn digest(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// `POST agents/TYPE/KEY/release`
pub(super) async fn release(request: Request<'_>, agent: Agent) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    let mut fields = request.fields()?;
    let tenant = request.who.acts_for(fields.text("tenant")?.as_deref())?;
    fields.finish()?;
    let (address, by) = (Address { tenant, agent }, request.who.by.clone());
    let (desk, of) = (request.runtime.desk.clone(), address.clone());
    let found = request.read(move |reader| show::standing(reader, &desk, &of)).await?;
    // Out of service, or before a human: anything else goes on by itself.
    let held = |need: &Need| matches!(need.cause, "quarantine" | "guard");
    let was_out = found.is_some_and(|(_, standing)| standing.needs.iter().any(held));
    let of = address.clone();
    let released = request.tell(|ticket| Input::Release { ticket, address: of, by }).await;
    released.map_err(|fault| if fault.code == Code::AgentUnknown { unknown(&address) } else { fault })?;
    tracing::info!(agent = %address, "an agent was put back into service");
    request
        .json(StatusCode::OK, &json!({"agent": address.agent.as_str(), "released": true, "was_out": was_out}))
}
