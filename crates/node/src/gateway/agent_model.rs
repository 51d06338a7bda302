//! Agents as models: `model: "agent/TYPE"` or `"agent/TYPE/KEY"` on the chat, responses and
//! messages endpoints starts a run and answers with what comes of it, in the protocol of
//! whoever asks. The run is as durable as any other; it ends when its client leaves, unless
//! that said `x-seawall-detach: 1`.

mod attend;
mod task;
mod telling;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use seawall_kernel::agents::input::Start;
use seawall_model::effect::Allowance;
use seawall_model::{Agent, At, Code, Fault, Lineage, Payload, Protocol, RunId, RunKey, Tenant, limits};
use seawall_wire::Inspected;
use seawall_wire::translate::{self, Context};
use tokio::sync::{mpsc, oneshot};

use crate::agents::Runtime;
use crate::agents::define::Definition;
use crate::app::{App, Live};
use crate::clock;
use crate::config::plan::AGENT_PREFIX;
use crate::config::problem;
use crate::keys::Caller;
use crate::tasks::Kind;

use super::ask::{self, Receipt};
use super::purse;
use super::reply::{self, Reply};
use attend::{Attendance, Outcome, Sink};
use telling::Telling;

/// Is an agent asked for by this name of a model? A model that is called so comes first.
#[must_use]
pub fn is_one(live: &Live, name: &str) -> bool {
    name.starts_with(AGENT_PREFIX) && live.routes.resolve(name).is_none()
}

/// Starts a run for a request and answers with what comes of it.
///
/// # Errors
/// What keeps the run from being started; from then on faults are answers that name it.
pub async fn serve(
    app: &Arc<App>,
    headers: &HeaderMap,
    receipt: Receipt,
    seen: &Inspected,
    trace: &Arc<str>,
    received: At,
) -> Result<Response<Reply>, Fault> {
    let Receipt { caller, live, body, hold } = receipt;
    let (runtime, definition, agent) = find(app, &seen.model)?;
    let tenant = ask::sub_tenant(&caller.tenant, headers)?;
    ask::agent_allowed(&live, &caller.models, &tenant, &agent)?;
    let deadline = ask::deadline(headers, received)?;
    let detached = is_detached(headers)?;
    let lineage = ask::lineage(&caller, headers)?;
    purse::bound(app, &tenant, lineage.as_deref(), headers)?;
    let asking = asks(app, &tenant, lineage.as_deref())?;
    if seen.protocol == Protocol::CountTokens {
        return Ok(counted(seen, trace));
    }
    let (task, mut context) = task::read(seen, &body, definition.output.is_some())?;
    drop(body);
    context.created = clock::wall(received).0 / 1_000_000;
    let start = Start {
        tenant,
        agent,
        task: stored(runtime, task).await?,
        allowance: Allowance::default(),
        by: caller.key.clone().unwrap_or_else(|| "operator".into()),
        caller: lineage.map(|lineage| lineage.run.clone()),
        fork: None,
        version: None,
        state: Vec::new(),
    };
    if let Some(key) = &caller.key {
        app.disk.key_used(key, clock::wall(received));
    }
    let (begun, begins) = oneshot::channel();
    let (sink, answer) = way(app, seen, &definition, &context, trace);
    let attendance = Attendance {
        app: app.clone(),
        runtime: runtime.clone(),
        protocol: seen.protocol,
        model: seen.model.as_str().into(),
        trace: trace.clone(),
        received,
        deadline,
        detached,
        asking,
    };
    app.tasks.spawn(Kind::Feed, attendance.attend(start, begun, sink));
    let run = begins.await.map_err(|_| Fault::plain(Code::Internal))??;
    // From here on the journal holds the request.
    drop(hold);
    context.id = run.to_string();
    let mut response = match answer {
        Answer::Streamed(pieces) => streamed(pieces),
        Answer::Whole(ended) => match ended.await {
            Ok(outcome) => whole(seen.protocol, &context, &outcome, trace),
            Err(_) => reply::fault(seen.protocol, &Fault::plain(Code::Internal), trace),
        },
    };
    sign(response.headers_mut(), run, trace);
    Ok(response)
}

/// The client's own run that asks, once it is known where that hangs.
///
/// # Errors
/// `RunStopped` if it is stopped, or one above it.
fn asks(app: &App, tenant: &Tenant, lineage: Option<&Lineage>) -> Result<Option<RunId>, Fault> {
    let (run, parent) = ask::runs(tenant, lineage);
    if let (Some(run), Some(parent)) = (run, parent) {
        app.seat.tell(seawall_kernel::Input::Below { run, parent });
    }
    match run {
        Some(run) if app.seat.stopped(run) => Err(Fault::plain(Code::RunStopped)),
        run => Ok(run),
    }
}

/// How the answer comes to the client.
enum Answer {
    Streamed(mpsc::Receiver<Bytes>),
    Whole(oneshot::Receiver<Outcome>),
}

fn way(
    app: &App,
    seen: &Inspected,
    definition: &Definition,
    context: &Context,
    trace: &Arc<str>,
) -> (Sink, Answer) {
    if !seen.stream {
        let (sender, receiver) = oneshot::channel();
        return (Sink::Whole(sender), Answer::Whole(receiver));
    }
    let (sender, receiver) = mpsc::channel(limits::TALK_PIECES_MAX);
    // What must have a shape is shown when it has it: not as it is drafted and mended.
    let aloud = definition.output.is_none();
    let telling = Telling::new(seen.protocol, context.clone(), trace.clone(), app.memory.hold(0), aloud);
    (Sink::Streamed(Box::new(telling), sender), Answer::Streamed(receiver))
}

/// The agent of this name, and the definition of its type.
fn find<'a>(app: &'a App, name: &str) -> Result<(&'a Arc<Runtime>, Arc<Definition>, Agent), Fault> {
    let unknown = |message: String| Fault::new(Code::ModelUnknown, message).at("model");
    let Some(runtime) = &app.agents else {
        return Err(unknown("Agents are turned off here.".to_owned()));
    };
    let agent = name.strip_prefix(AGENT_PREFIX).unwrap_or(name);
    // The name is the client's own text: shortened, and never logged.
    let shown: String = agent.chars().take(100).collect();
    let agent = Agent::parse(agent).map_err(|why| {
        let why = why.to_string().replace("a tenant path", "an agent's name");
        unknown(format!("`{shown}` is no agent: {why}. Ask for agent/TYPE or agent/TYPE/KEY."))
    })?;
    if let Some(definition) = runtime.library.of(agent.kind()) {
        return Ok((runtime, definition, agent));
    }
    let newest = runtime.library.newest();
    let kinds: Vec<&str> = newest.iter().map(|definition| &*definition.kind).collect();
    let near =
        problem::nearest(agent.kind(), &kinds).map(|near| format!("; did you mean `{AGENT_PREFIX}{near}`?"));
    Err(unknown(format!(
        "No agent of type `{}` is defined{}",
        agent.kind(),
        near.unwrap_or_else(|| ".".to_owned())
    )))
}

/// The types of agents that this caller may ask for as models, by name.
#[must_use]
pub fn listed(app: &App, live: &Live, caller: &Caller) -> Vec<Arc<str>> {
    let newest = app.agents.as_ref().map(|runtime| runtime.library.newest()).unwrap_or_default();
    let mut names = Vec::new();
    for definition in newest {
        let name = format!("{AGENT_PREFIX}{}", definition.kind);
        let agent = Agent::parse(&definition.kind);
        let theirs =
            agent.is_ok_and(|agent| ask::may_use_agent(live, &caller.models, &caller.tenant, &agent));
        if theirs && is_one(live, &name) {
            names.push(name.into());
        }
    }
    names
}

/// Is there such an agent, and may this caller ask for it?
///
/// # Errors
/// `ModelUnknown` and `ModelForbidden`.
pub fn check(app: &App, live: &Live, caller: &Caller, name: &str) -> Result<(), Fault> {
    let (_, _, agent) = find(app, name)?;
    ask::agent_allowed(live, &caller.models, &caller.tenant, &agent)
}

/// Does the run go on when its client leaves?
fn is_detached(headers: &HeaderMap) -> Result<bool, Fault> {
    match ask::text(headers, "x-seawall-detach")? {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Fault::new(Code::BadHeader, "It is 1 or 0.").at("x-seawall-detach")),
    }
}

/// What an agent's prompt will be only its run knows: the conversation alone is counted.
fn counted(seen: &Inspected, trace: &str) -> Response<Reply> {
    let counted = seawall_wire::tokens::count_tokens_answer(seen.prompt_tokens);
    let mut response = reply::json(StatusCode::OK, counted);
    response.headers_mut().insert("x-seawall-estimate", HeaderValue::from_static("true"));
    reply::trace_header(response.headers_mut(), trace);
    response
}

/// A large task goes to the blob store before a record names it.
async fn stored(runtime: &Arc<Runtime>, task: String) -> Result<Payload, Fault> {
    if task.len() as u64 <= limits::PAYLOAD_BYTES_INLINE {
        return Ok(task.into());
    }
    let _reserved = runtime.room.reserve(task.len() as u64).ok_or_else(super::agents::no_room)?;
    let blobs = runtime.blobs.clone();
    let put = runtime.read(move |_| blobs.put(task.into_bytes())).await;
    put.map_err(|why| Fault::new(Code::DiskFull, format!("The task could not be stored: {why}.")))
}

fn streamed(pieces: mpsc::Receiver<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::Feed(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The answer as a whole, in the client's protocol.
fn whole(protocol: Protocol, context: &Context, outcome: &Outcome, trace: &str) -> Response<Reply> {
    let output = match &outcome.output {
        Ok(output) => output,
        Err(fault) => {
            let mut response = reply::fault(protocol, fault, trace);
            // Clients would start it anew without being asked, and pay for it again.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            return response;
        }
    };
    let body = telling::chat_answer(output, outcome.used);
    match translate::answer_to(Protocol::Chat, protocol, &body, context) {
        Ok(body) => reply::json(StatusCode::OK, body),
        Err(fault) => reply::fault(protocol, &fault, trace),
    }
}

fn sign(headers: &mut HeaderMap, run: RunKey, trace: &str) {
    headers.insert("x-seawall-run", crate::upstream::value(&run.to_string()));
    reply::trace_header(headers, trace);
}
