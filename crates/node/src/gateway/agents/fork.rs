//! Forks: a new run that goes on from what another one was after one of its turns, with
//! something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use seawall_kernel::agents::effect::Reply as Said;
use seawall_kernel::agents::{Input, Start};
use seawall_model::durable::Forked;
use seawall_model::journal::Change;
use seawall_model::{Agent, Code, Fault, Payload, RunKey, limits};
use seawall_store::journal::Reader;
use serde_json::json;

use crate::agents::handler::{FORK, FORK_RETOLD, may_set};

use super::types::known_version;
use super::{Answer, Request, sentence};

/// `POST runs/RUN/fork`
pub(super) async fn fork(request: Request<'_>, run: RunKey) -> Answer {
    request.query.finish()?;
    let mut fields = request.fields()?;
    let turn = fields.whole("turn")?;
    let retold = fields.has("task");
    let task = fields.content("task");
    let version: Option<Arc<str>> = fields.text("version")?.map(Into::into);
    let other = Other { instructions: fields.text("instructions")?, model: fields.text("model")? };
    let set = fields.object("set")?.map(|mut set| set.contents()).unwrap_or_default();
    fields.finish()?;
    let row = request.run(run).await?;
    let turn = match turn {
        None => row.turns,
        Some(turn) => u32::try_from(turn).ok().filter(|turn| *turn <= row.turns).ok_or_else(|| {
            let message = format!("`{run}` has taken {} turns: `turn` is from 0 to that.", row.turns);
            Fault::new(Code::BadField, message)
                .at("turn")
                .advise(format!("`seawall debug {run}` steps through its turns."))
        })?,
    };
    let agent = Agent::parse(row.agent.agent.kind()).map_err(|_| Fault::plain(Code::Internal))?;
    request.may_use(&row.agent.tenant, &agent)?;
    known_version(&request, agent.kind(), version.as_ref()).await?;
    let version = version.unwrap_or_else(|| row.version.clone());
    let version = varied(&request, agent.kind(), version, other).await?;
    let state = state(&request, run, turn, set, retold).await?;
    let task = match task {
        Some(task) => request.keep_task(task).await?,
        None => row.task.clone(),
    };
    let start = Start {
        tenant: row.agent.tenant.clone(),
        agent,
        task,
        allowance: row.allowance,
        by: request.who.by.clone(),
        caller: row.caller.clone(),
        fork: Some(Forked { run, turn }),
        version: Some(version),
        state,
    };
    let said = request.tell(|ticket| Input::Start { ticket, start: Box::new(start) }).await?;
    let Said::Started { run: made, address } = said else { return Err(Fault::plain(Code::Internal)) };
    let body = json!({
        "run": made.to_string(),
        "agent": address.agent.as_str(),
        "tenant": address.tenant.as_str(),
        "of": run.to_string(),
        "turn": turn,
    });
    request.json(StatusCode::CREATED, &body)
}

/// What of the definition is another for the new run alone.
struct Other {
    instructions: Option<String>,
    model: Option<String>,
}

/// The version that the new run is on. Definitions are the admins', and so is another one.
async fn varied(
    request: &Request<'_>,
    kind: &str,
    version: Arc<str>,
    other: Other,
) -> Result<Arc<str>, Fault> {
    let field = match &other {
        Other { instructions: None, model: None } => return Ok(version),
        Other { instructions: Some(_), .. } => "instructions",
        Other { .. } => "model",
    };
    request.who.only_admin()?;
    if let Some(model) = &other.model
        && request.app.live.load().routes.resolve(model).is_none()
    {
        let message = format!("No model by the name `{model}` is configured.");
        return Err(Fault::new(Code::ModelUnknown, message)
            .at("model")
            .advise("`seawall models` lists them."));
    }
    let (library, kind) = (request.runtime.library.clone(), kind.to_owned());
    let read = move |_: &Reader| {
        let changed = [("instructions", other.instructions), ("model", other.model)];
        Ok(library.vary(&kind, &version, changed))
    };
    let made = request.read(read).await?;
    made.map_err(|why| Fault::new(Code::BadField, why).at(field))
}

/// The state that the new run begins with.
async fn state(
    request: &Request<'_>,
    run: RunKey,
    turn: u32,
    set: Vec<(String, Option<Vec<u8>>)>,
    retold: bool,
) -> Result<Vec<Change>, Fault> {
    if turn == 0 {
        return match set.is_empty() {
            true => Ok(Vec::new()),
            false => {
                Err(Fault::new(Code::BadField, "Before its first turn a run has no state to set.").at("set"))
            }
        };
    }
    let found = request.read(move |reader| reader.state_at(run, turn)).await?;
    let found = found.ok_or_else(|| {
        let message = format!("What `{run}` was after turn {turn} is not kept any more.");
        let advice =
            format!("`seawall debug {run}` steps through the turns that are kept; `turn` 0 is always there.");
        Fault::new(Code::RunUnknown, message).at("turn").advise(advice)
    })?;
    let mut state: BTreeMap<Arc<str>, Payload> =
        found.into_iter().map(|(key, value)| (Arc::from(&*key), value)).collect();
    for (key, value) in set {
        if key.is_empty() || key.len() > limits::NAME_LEN_MAX {
            let message = format!("A key of a state has 1 to {} bytes.", limits::NAME_LEN_MAX);
            return Err(Fault::new(Code::BadField, message).at("set"));
        }
        may_set(&key, value.as_deref()).map_err(|why| {
            let advice = format!("`seawall debug {run} --turn {turn}` shows the state with its keys.");
            Fault::new(Code::BadField, sentence(&why)).at("set").advise(advice)
        })?;
        match value {
            Some(value) => drop(state.insert(key.into(), request.keep(value).await?)),
            None => drop(state.remove(&*key)),
        }
    }
    state.insert(FORK.into(), Payload::text(if retold { FORK_RETOLD } else { "kept" }));
    Ok(state.into_iter().map(|(key, value)| Change::Set { key, value }).collect())
}
