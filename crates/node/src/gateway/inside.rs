//! Calls that Seawall itself makes, for agents that run inside: the same road through the
//! kernel, engines, records and metrics as any client's, without a socket.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use seawall_model::{Agent, At, Class, Code, Fault, Millis, Protocol, RunId, Tenant};

use crate::app::{App, Phase};
use crate::clock;

use super::ask::{self, Ask};
use super::call;

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
}

/// Makes a chat call and gives its answer whole.
///
/// # Errors
/// What a client would have been told, with the time after which to try again.
pub async fn chat(app: &Arc<App>, inside: Inside) -> Result<Bytes, Fault> {
    if *app.phase.borrow() >= Phase::Draining {
        return Err(Fault::plain(Code::Draining));
    }
    let received = clock::now();
    let live = app.live.load_full();
    let seen = seawall_wire::inspect(Protocol::Chat, &inside.body)?;
    let model = ask::resolve(&live, &seen.model)?;
    if !live.routes.allows(&inside.tenant, model.id) {
        let message = format!("`{}` may not use the model `{}`.", inside.tenant, model.name);
        return Err(Fault::new(Code::ModelForbidden, message));
    }
    let hold = app.memory.hold(inside.body.len() as u64).ok_or_else(ask::full)?;
    let answer_bytes_max = live.config.limits.answer_bytes_max.0;
    let ask = Ask {
        live,
        protocol: Protocol::Chat,
        headers: HeaderMap::new(),
        body: inside.body,
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
        trace: app.traces.fresh(),
        received,
    };
    let response = call::serve(app, ask).await;
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    let body = whole(response.into_body(), answer_bytes_max).await?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    Err(refused(status, &body, retry_after))
}

async fn whole(mut body: super::reply::Reply, bytes_max: u64) -> Result<Bytes, Fault> {
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
