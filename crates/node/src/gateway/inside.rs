//! Calls that Seawall itself makes, for agents that run inside: the same road through the
//! kernel, engines, records and metrics as any client's, without a socket.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use seawall_model::{Agent, At, Class, Code, Fault, Millis, Protocol, RunId, Tenant};
use seawall_wire::translate::Gathering;

use crate::agents::stream::{Speaker, Talk};
use crate::app::{App, Phase};
use crate::clock;

use super::ask::{self, Ask};
use super::call;
use super::reply::Reply;

/// A call from inside.
#[derive(Debug)]
pub struct Inside {
    /// For whom.
    pub tenant: Tenant,
    /// Which agent.
    pub agent: Agent,
    /// Its run.
    pub run: RunId,
    /// The top of the run's tree, if that is another.
    pub root: Option<RunId>,
    /// The body, in the chat protocol.
    pub body: Bytes,
    /// When the answer must have begun.
    pub deadline: Option<At>,
    /// Who is told of the answer as it comes, where somebody listens.
    pub speaker: Option<Speaker>,
}

/// A call that has no answer.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// What a client would have been told, with the time after which to try again.
    pub fault: Fault,
    /// So often an engine was asked.
    pub attempts: u32,
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Self {
        Self { fault, attempts: 0 }
    }
}

/// Makes a chat call and gives its answer whole.
///
/// # Errors
/// What a client would have been told, and whether an engine was asked.
pub async fn chat(app: &Arc<App>, inside: Inside) -> Result<Bytes, Unanswered> {
    if *app.phase.borrow() >= Phase::Draining {
        return Err(Fault::plain(Code::Draining).into());
    }
    let received = clock::now();
    let live = app.live.load_full();
    let body = if inside.speaker.is_some() { streamed(&inside.body) } else { inside.body };
    let seen = seawall_wire::inspect(Protocol::Chat, &body)?;
    let model = ask::resolve(&live, &seen.model)?;
    if !live.routes.allows(&inside.tenant, model.id) {
        let message = format!("`{}` may not use the model `{}`.", inside.tenant, model.name);
        return Err(Fault::new(Code::ModelForbidden, message).into());
    }
    let hold = app.memory.hold(body.len() as u64).ok_or_else(ask::full)?;
    let answer_bytes_max = live.config.limits.answer_bytes_max.0;
    let trace = app.traces.fresh();
    let gathering = inside.speaker.map(|speaker| {
        let bytes_max = usize::try_from(answer_bytes_max).unwrap_or(usize::MAX);
        (Gathering::new(&trace[8..], &seen.model, bytes_max), speaker)
    });
    let ask = Ask {
        live,
        protocol: Protocol::Chat,
        headers: HeaderMap::new(),
        body,
        hold,
        seen,
        tenant: inside.tenant,
        class: Class::Agent,
        run: Some(inside.run),
        lineage: None,
        agent: Some(inside.agent),
        parent: inside.root,
        memo: None,
        deadline: inside.deadline,
        model,
        trace,
        received,
    };
    let response = call::serve(app, ask).await;
    let attempts = attempts(response.headers());
    answered(response, gathering, answer_bytes_max).await.map_err(|fault| Unanswered { fault, attempts })
}

/// What came of a call, whole.
async fn answered(
    response: Response<Reply>,
    gathering: Option<(Gathering, Speaker)>,
    answer_bytes_max: u64,
) -> Result<Bytes, Fault> {
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    if let Some((gathering, speaker)) = gathering
        && status == StatusCode::OK
        && is_events(response.headers())
    {
        return gathered(response.into_body(), gathering, &speaker).await;
    }
    let body = whole(response.into_body(), answer_bytes_max).await?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    Err(refused(status, &body, retry_after))
}

/// The same request, its answer streamed. The body is our own: an object that says nothing
/// of it yet.
fn streamed(body: &Bytes) -> Bytes {
    let open = body.strip_suffix(b"}").unwrap_or(body);
    [open, br#","stream":true,"stream_options":{"include_usage":true}}"#].concat().into()
}

fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Passes the answer on as it comes, and gives it whole at its end.
async fn gathered(mut body: Reply, mut gathering: Gathering, speaker: &Speaker) -> Result<Bytes, Fault> {
    let mut broken = Broken(Some(speaker));
    speaker.say(Talk::Begun);
    let said = |text: &str| speaker.say(Talk::Text(text.into()));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::plain(Code::EngineCut))?;
        if let Ok(data) = frame.into_data() {
            gathering.feed(&data, said)?;
        }
    }
    let (body, finish) = gathering.end(said)?;
    broken.0 = None;
    speaker.say(Talk::Ended(finish));
    Ok(body.into())
}

/// Says that an answer broke off, unless it is taken out before: also where the call is
/// dropped.
struct Broken<'a>(Option<&'a Speaker>);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if let Some(speaker) = self.0 {
            speaker.say(Talk::Broke);
        }
    }
}

async fn whole(mut body: Reply, bytes_max: u64) -> Result<Bytes, Fault> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::plain(Code::EngineCut))?;
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > bytes_max {
            return Err(Fault::plain(Code::AnswerTooLarge));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How often an engine was asked; without the header, none was.
fn attempts(headers: &HeaderMap) -> u32 {
    let said = headers.get("x-seawall-attempts").and_then(|attempts| attempts.to_str().ok()?.parse().ok());
    said.unwrap_or(0)
}

fn retry_after(headers: &HeaderMap) -> Option<Millis> {
    let secs = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(Millis::from_secs(secs))
}

/// The fault that an answer in the chat protocol tells of.
fn refused(status: StatusCode, body: &[u8], retry_after: Option<Millis>) -> Fault {
    let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &said["error"];
    let code = error["code"].as_str().and_then(Code::from_name).unwrap_or(if status.is_server_error() {
        Code::EngineFailed
    } else {
        Code::EngineRefused
    });
    let message = error["message"].as_str().unwrap_or(code.row().says).to_owned();
    let fault = Fault::new(code, message);
    match retry_after {
        Some(wait) => fault.after(wait),
        None => fault,
    }
}
