//! The HTTP API of agents: starting and following runs, messages, what people decide, stops,
//! values, definitions, and the evidence. JSON in, JSON out; a key sees its own tenant and
//! what is below it, an admin's key everything.

mod audit;
mod define;
mod events;
mod fields;
mod fork;
mod halts;
mod path;
mod people;
mod query;
mod record;
mod runs;
mod show;
mod turns;
mod types;
mod values;
mod visitor;
mod why;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::Reply as Said;
use seawall_kernel::agents::input::Ticket;
use seawall_model::code::Retry;
use seawall_model::{Agent, At, Code, EffectId, Fault, Millis, Payload, Protocol, RunKey, Tenant, limits};
use seawall_store::Error;
use seawall_store::journal::Reader;
use serde_json::Value;

use crate::agents::Runtime;
use crate::app::{App, Phase};

use super::ask;
use super::reply::{self, Reply};

use fields::Fields;
use path::Order;
use query::Query;
use visitor::Visitor;

/// Longest that an order waits for its record to be on disk. A disk that is slower has
/// failed; the order may still be carried out.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request: who asks, and what for.
struct Request<'a> {
    app: &'a Arc<App>,
    runtime: &'a Arc<Runtime>,
    parts: &'a Parts,
    who: Visitor,
    query: Query,
    body: Bytes,
}

/// What a handler answers with.
type Answer = Result<Response<Reply>, Fault>;

/// Answers one request on a path below `/seawall/`.
pub async fn serve(
    app: &Arc<App>,
    parts: Parts,
    body: Incoming,
    trace: Arc<str>,
    received: At,
) -> Response<Reply> {
    match answer(app, &parts, body, received).await {
        Ok(mut response) => {
            reply::trace_header(response.headers_mut(), &trace);
            response
        }
        Err(fault) => super::reject(app, Protocol::Chat, &trace, parts.uri.path(), &advised(fault)),
    }
}

async fn answer(app: &Arc<App>, parts: &Parts, body: Incoming, received: At) -> Answer {
    let order = path::order(&parts.method, parts.uri.path())?;
    let who = Visitor::of(app, &parts.headers, received)?;
    if order == Order::Runs {
        return runs::list(app, parts, &who).await;
    }
    let Some(runtime) = app.agents.as_ref() else {
        return Err(Fault::new(Code::PathUnknown, "Agents are turned off here: `[agents] enabled = false`.")
            .advise("Set `agents.enabled = true` in the config, and restart."));
    };
    let query = Query::read(parts.uri.query().unwrap_or_default())?;
    let live = app.live.load_full();
    // What a look sends as a body is not read.
    let (body, _hold) = match parts.method {
        Method::POST | Method::PUT => ask::whole_body(app, &live, &parts.headers, body).await?,
        _ => (Bytes::new(), app.memory.hold(0).ok_or_else(ask::full)?),
    };
    if body.len() as u64 > limits::PAYLOAD_BYTES_MAX {
        let message = format!("The request body is larger than {} bytes.", limits::PAYLOAD_BYTES_MAX);
        return Err(Fault::new(Code::BodyTooLarge, message));
    }
    let looks = matches!(parts.method, Method::GET | Method::HEAD);
    if !looks && *app.phase.borrow() >= Phase::Draining {
        return Err(Fault::plain(Code::Draining));
    }
    Box::pin(carry_out(order, Request { app, runtime, parts, who, query, body })).await
}

async fn carry_out(order: Order, request: Request<'_>) -> Answer {
    match order {
        Order::Runs => Err(Fault::plain(Code::PathUnknown)),
        Order::Types => types::list(request).await,
        Order::Agent(agent) => types::one(request, agent).await,
        Order::Start(agent) => types::start(request, agent).await,
        Order::Message(agent) => types::send(request, agent).await,
        Order::Release(agent) => types::release(request, agent).await,
        Order::Run(run) => runs::one(request, run).await,
        Order::Cancel(run) => runs::cancel(request, run).await,
        Order::Again(run) => runs::again(request, run).await,
        Order::Halt(run, on) => runs::halt(request, run, on).await,
        Order::Fork(run) => fork::fork(request, run).await,
        Order::Events(run) => events::events(request, run).await,
        Order::Turns(run) => turns::list(request, run).await,
        Order::Turn(run, number) => turns::one(request, run, number).await,
        Order::Inbox => people::inbox(request).await,
        Order::Effect(effect, act) => people::decide(request, effect, act).await,
        Order::Letters => people::letters(request).await,
        Order::Letter(shard, number, send) => people::letter(request, shard, number, send).await,
        Order::Halts => halts::list(&request),
        Order::SetHalt => halts::set(request).await,
        Order::WhyRun(run) => why::of_run(request, run).await,
        Order::WhyAgent(agent) => why::of_agent(request, agent).await,
        Order::Values => values::list(request).await,
        Order::Value(key) => values::one(request, key).await,
        Order::SetValue(key) => values::set(request, key).await,
        Order::Callback(key) => values::call_back(request, key).await,
        Order::DropValue(key) => values::remove(request, key).await,
        Order::Tools => audit::tools(request).await,
        Order::Verify => audit::verify(request).await,
        Order::Export => audit::export(request),
        Order::Definition(kind) => define::one(request, kind).await,
        Order::SetDefinition(kind) => define::set(request, kind).await,
        Order::DropDefinition(kind) => define::remove(request, kind).await,
    }
}

impl Request<'_> {
    /// Reads from the journal, on a worker's thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Fault> {
        self.runtime.read(read).await.map_err(unread)
    }

    /// Tells the agents, and waits until what came of it is on disk.
    async fn tell(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Said, Fault> {
        let coming = self.runtime.desk.ask(input);
        match tokio::time::timeout(PATIENCE, coming).await {
            Ok(Ok(Said::Refused { code, why })) => Err(refused(code, &why)),
            Ok(Ok(said)) => Ok(said),
            Ok(Err(_)) => Err(Fault::plain(Code::Draining)),
            Err(_) => {
                let message = "The journal's disk has not confirmed it in time; it may still happen.";
                Err(Fault::new(Code::DiskFull, message).after(Millis(5_000)))
            }
        }
    }

    /// May whoever asks set this agent to work, by the key's and the tenant's `models`?
    fn may_use(&self, tenant: &Tenant, agent: &Agent) -> Result<(), Fault> {
        self.who.may_use(&self.app.live.load(), tenant, agent)
    }

    /// The fields of the body.
    fn fields(&self) -> Result<Fields, Fault> {
        Fields::read(&self.body)
    }

    /// Content as it is kept: large ones go to the blob store.
    async fn keep(&self, content: Vec<u8>) -> Result<Payload, Fault> {
        if content.len() as u64 <= limits::PAYLOAD_BYTES_INLINE {
            return Ok(content.into());
        }
        let blobs = self.runtime.blobs.clone();
        self.read(move |_| blobs.put(content)).await
    }

    /// The same of a new task, which waits for room in the disk's budget.
    async fn keep_task(&self, task: Vec<u8>) -> Result<Payload, Fault> {
        let _reserved = self.runtime.room.reserve(task.len() as u64).ok_or_else(no_room)?;
        self.keep(task).await
    }

    /// A durable run that this visitor may see.
    async fn run(&self, run: RunKey) -> Result<seawall_model::durable::RunRow, Fault> {
        let found = self.read(move |reader| reader.run(run)).await?;
        found.filter(|row| self.who.sees(&row.agent.tenant)).ok_or_else(|| unknown_run(run))
    }

    /// A JSON answer, which stays in the byte budget until it is written.
    fn json(&self, status: StatusCode, value: &Value) -> Answer {
        json(self.app, status, value)
    }
}

/// Comes when Seawall leaves.
async fn leaving(app: &App) {
    let mut phase = app.phase.clone();
    // Whoever tells of phases is gone only with the process.
    drop(phase.wait_for(|phase| *phase >= Phase::Draining).await);
}

/// Where the code's own row speaks of inference: what to do on these paths.
fn advised(fault: Fault) -> Fault {
    if fault.advice.is_some() {
        return fault;
    }
    match fault.code {
        Code::BadField | Code::BadJson => {
            fault.advise("docs/agents.md, \"HTTP API\", has the path with its fields and its query.")
        }
        Code::PathUnknown => fault.advise("docs/agents.md, \"HTTP API\", lists the paths of agents."),
        _ => fault,
    }
}

/// A JSON answer, which stays in the byte budget until it is written.
fn json(app: &App, status: StatusCode, value: &Value) -> Answer {
    let text = Bytes::from(value.to_string());
    let hold = app.memory.hold(text.len() as u64).ok_or_else(ask::full)?;
    let mut response = reply::json(status, Bytes::new());
    *response.body_mut() = Reply::held(text, Some(hold));
    Ok(response)
}

fn unknown_run(run: RunKey) -> Fault {
    Fault::new(Code::RunUnknown, format!("There is no run `{run}`, or it was over long ago."))
}

fn unknown_effect(effect: EffectId) -> Fault {
    Fault::new(Code::EffectUnknown, format!("Nothing that is under way is called `{effect}`."))
}

/// The disk's budget has no room for something new.
pub(super) fn no_room() -> Fault {
    Fault::new(Code::DiskFull, "The journal's disk budget has no room for this task.").after(Millis(5_000))
}

/// What the agents said no with, for a client.
fn refused(code: Code, why: &str) -> Fault {
    let fault = Fault::new(code, sentence(why));
    if code.row().retry == Retry::After { fault.after(Millis(1_000)) } else { fault }
}

/// A clause as a sentence. A name at its beginning (`acme/clerk/7`, `run-1f03`) stays as it is
/// spelled: names are told apart by case.
fn sentence(clause: &str) -> String {
    let clause = clause.trim_end_matches('.');
    let (word, rest) = clause.split_at(clause.find(' ').unwrap_or(clause.len()));
    if word.starts_with('`') || word.is_empty() {
        return format!("{clause}.");
    }
    if !word.bytes().all(|byte| byte.is_ascii_alphabetic() || b",:;'".contains(&byte)) {
        return format!("`{word}`{rest}.");
    }
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{rest}.", letters.as_str())
}

/// What the journal could not answer, for a client.
fn unread(error: Error) -> Fault {
    match error {
        Error::Busy => {
            let message = "As many questions to the journal wait as may.";
            Fault::new(Code::QueueFull, message).after(Millis(1_000))
        }
        Error::Full => Fault::plain(Code::DiskFull).after(Millis(5_000)),
        Error::TooLarge { bytes, max } => {
            Fault::new(Code::BodyTooLarge, format!("{bytes} bytes are more than the {max} that are kept."))
        }
        why => {
            tracing::error!(%why, "the journal could not answer");
            Fault::new(Code::Internal, "The journal cannot be read at present.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_sentence_and_says_when_to_come_again() {
        let fault = refused(Code::AgentsFull, "as many runs are alive as may be");
        assert_eq!(fault.message, "As many runs are alive as may be.");
        assert_eq!(fault.retry_after, Some(Millis(1_000)));
        assert_eq!(refused(Code::RunUnknown, "").retry_after, None);
    }

    #[test]
    fn names_keep_their_case_at_the_beginning_of_a_sentence() {
        assert_eq!(sentence("acme/clerk/7 is not known"), "`acme/clerk/7` is not known.");
        assert_eq!(sentence("run-1f03.7 asks nobody."), "`run-1f03.7` asks nobody.");
        assert_eq!(sentence("`x` is full"), "`x` is full.");
        assert_eq!(sentence("there is none"), "There is none.");
    }

    #[test]
    fn hints_of_these_paths_speak_of_these_paths() {
        let bad = advised(Fault::new(Code::BadField, "x"));
        assert!(bad.hint().contains("docs/agents.md"));
        assert_eq!(advised(Fault::plain(Code::BadField).advise("y")).hint(), "y");
        assert_eq!(advised(Fault::plain(Code::RunUnknown)).hint(), Code::RunUnknown.row().hint);
    }
}
