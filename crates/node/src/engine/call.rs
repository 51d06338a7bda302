//! One generating call, from its body to its answer, with the faults on the way.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use seawall_load::engine::{Full, Job};
use seawall_load::fault::Fault;
use seawall_load::prefix::chain;
use seawall_load::words;
use seawall_model::{Millis, Protocol, Tokens, Usage};

use super::control::Controls;
use super::flow::{Body, Flow, Source, Timed, Voice};
use super::speech::Speech;
use super::wish::Wish;
use super::world::{Ticket, World};
use super::{chat, completions, json, messages, responses};
use crate::clock;

/// What identifies an answer in every protocol.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Number of the call.
    pub(super) call: u64,
    /// The model's name, escaped and quoted.
    pub(super) model: String,
    /// Seconds since the epoch.
    pub(super) created: u64,
}

/// Bytes that are no answer in any protocol.
const GARBAGE: &[u8] = b"\xff\xfe{\"choices\":[{\"delta\":\x00\x01garbage]]]}\r\n\r\ndata: {]\n\n";

/// Answers one generating call.
pub(super) async fn generate(
    world: Arc<World>,
    protocol: Protocol,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let wish = match Wish::read(protocol, &body, world.settings.scripted) {
        Ok(wish) => wish,
        Err(message) => return refuse(&world, protocol, 400, &message),
    };
    drop(body);
    let (controls, model) = match Controls::read(&headers, &wish.model) {
        Ok(read) => read,
        Err(message) => return refuse(&world, protocol, 400, &message),
    };
    if !world.settings.serves(model) {
        return refuse(&world, protocol, 404, &format!("The model `{model}` does not exist."));
    }
    let mut name = Vec::new();
    json::string(&mut name, model);
    let model = String::from_utf8(name).expect("escaping text gives text");
    world.leak();
    let fault = controls.fault.or_else(|| world.draw());
    if let Some(response) = instead(&world, protocol, fault, wish.stream, &controls).await {
        return response;
    }
    let mut flow = match begin(&world, &wish, &controls, model) {
        Ok(flow) => flow,
        Err(refusal) => return *refusal,
    };
    if let Some(Fault::SlowFirstToken(wait)) = fault {
        flow.hold(Duration::from_millis(wait.0));
    }
    if let Some(Fault::MidStreamCut { after }) = fault {
        flow.cut = Some(after.min(flow.speech.len().saturating_mul(flow.choices)));
    }
    if wish.stream {
        return respond(200, kind(true), Body::Stream(flow));
    }
    if flow.cut.is_some() {
        flow.ticket.abandon();
        return broken_off();
    }
    let body = flow.whole().await;
    respond(200, kind(false), Body::Full(body))
}

/// What comes in place of an answer, for the faults that leave no answer at all.
pub(super) async fn instead(
    world: &Arc<World>,
    protocol: Protocol,
    fault: Option<Fault>,
    stream: bool,
    controls: &Controls,
) -> Option<Response<Body>> {
    let ticket = || Ticket::new(world.clone(), stream, controls.id.clone());
    Some(match fault? {
        Fault::RateLimit { retry_after } => limited(world, protocol, retry_after),
        Fault::ServerError(status) => refuse(world, protocol, status, "A fault was asked for."),
        Fault::Crash => {
            world.crash();
            // The connection breaks before anything can be answered.
            std::future::pending().await
        }
        Fault::Hang => {
            let _ticket = ticket();
            std::future::pending().await
        }
        Fault::Garbage => respond(200, kind(stream), Body::Full(Bytes::from_static(GARBAGE))),
        Fault::HalfOpen => respond(200, kind(stream), Body::Silent(ticket())),
        Fault::SlowFirstToken(_) | Fault::MidStreamCut { .. } => return None,
    })
}

/// Starts the answer: decides what to say and hands the work to the model or a timer.
fn begin(
    world: &Arc<World>,
    wish: &Wish,
    controls: &Controls,
    model: String,
) -> Result<Box<Flow>, Box<Response<Body>>> {
    let (settings, protocol) = (&world.settings, wish.protocol);
    let speech = Speech::compose(settings, wish, controls);
    let prompt = words::count(wish.prompt.len());
    let ticket = Ticket::new(world.clone(), wish.stream, controls.id.clone());
    let source = match timed(world, controls) {
        Some(timed) => Source::Timed(timed),
        None => {
            let block = usize::try_from(settings.spec.block_tokens.0 * 4).unwrap_or(usize::MAX);
            let output = Tokens(u64::from(speech.tokens()) * u64::from(wish.choices));
            let job =
                Job { id: ticket.id, prompt: Tokens(prompt), prefix: chain(&wish.prompt, block), output };
            match world.submit(job) {
                Ok(progress) => Source::Model(progress),
                Err(full) => {
                    ticket.refuse();
                    let (status, message) = match full {
                        Full::Queue => (503, "The engine's queue is full."),
                        Full::Context => {
                            (400, "Prompt and output exceed this model's maximum context length.")
                        }
                    };
                    return Err(Box::new(refuse(world, protocol, status, message)));
                }
            }
        }
    };
    let mark =
        Mark { call: ticket.id ^ (settings.options.seed << 32), model, created: clock::now().0 / 1_000_000 };
    let voice = match protocol {
        Protocol::Completions => {
            Voice::Completions(completions::Voice::new(mark, wish.choices, wish.stream_usage))
        }
        Protocol::Messages => Voice::Messages(messages::Voice::new(mark)),
        Protocol::Responses => Voice::Responses(responses::Voice::new(mark)),
        _ => Voice::Chat(chat::Voice::new(mark, wish.choices, wish.stream_usage)),
    };
    Ok(Box::new(Flow::new(ticket, voice, speech, source, wish.choices, prompt)))
}

/// The timer that replaces the batching model, where one is asked for.
fn timed(world: &World, controls: &Controls) -> Option<Timed> {
    let options = &world.settings.options;
    let first = controls.first_ms.or(options.first_ms);
    let token = controls.token_ms.or(options.token_ms);
    let unary = controls.unary_ms.or(options.unary_ms);
    if first.is_none() && token.is_none() && unary.is_none() {
        return None;
    }
    let token = token.unwrap_or(0);
    Some(Timed::new(clock::now(), first.unwrap_or(token), token, unary))
}

// ---- answers that are no generation ------------------------------------------------

/// The content type of an answer.
const fn kind(stream: bool) -> &'static str {
    if stream { "text/event-stream; charset=utf-8" } else { "application/json" }
}

/// An answer with the headers that all of them have.
pub(super) fn respond(status: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if kind.starts_with("text/event-stream") {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// JSON with status 200.
pub(super) fn answer(body: Vec<u8>) -> Response<Body> {
    respond(200, kind(false), Body::Full(body.into()))
}

/// The beginning of an answer, and then no more.
pub(super) fn broken_off() -> Response<Body> {
    respond(200, kind(false), Body::cut(Bytes::from_static(b"{\"id\":\"broken-off\",")))
}

/// A refusal in the protocol's own shape, counted.
pub(super) fn refuse(world: &World, protocol: Protocol, status: u16, message: &str) -> Response<Body> {
    world.ledger.refused.fetch_add(1, Relaxed);
    let mut out = Vec::with_capacity(160);
    if protocol.is_anthropic() {
        let kind = match status {
            401 => "authentication_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        json::raw(&mut out, "{\"type\":\"error\",\"error\":{\"type\":\"");
        json::raw(&mut out, kind);
        json::raw(&mut out, "\",\"message\":");
        json::string(&mut out, message);
        json::raw(&mut out, "}}");
    } else {
        let (kind, code) = match status {
            401 => ("invalid_request_error", "\"invalid_api_key\""),
            404 => ("invalid_request_error", "\"model_not_found\""),
            429 => ("requests", "\"rate_limit_exceeded\""),
            500.. => ("server_error", "null"),
            _ => ("invalid_request_error", "null"),
        };
        json::raw(&mut out, "{\"error\":{\"message\":");
        json::string(&mut out, message);
        json::raw(&mut out, ",\"type\":\"");
        json::raw(&mut out, kind);
        json::raw(&mut out, "\",\"param\":null,\"code\":");
        json::raw(&mut out, code);
        json::raw(&mut out, "}}");
    }
    let mut response = respond(status, kind(false), Body::Full(out.into()));
    if matches!(status, 429 | 503 | 529) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A 429 that says for how long.
fn limited(world: &World, protocol: Protocol, retry_after: Millis) -> Response<Body> {
    let mut response = refuse(world, protocol, 429, "Rate limit reached.");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.0.div_ceil(1_000)));
    response
}

/// Appends the usage object that OpenAI's chat and completions share.
pub(super) fn push_usage(out: &mut Vec<u8>, usage: Usage) {
    let parts = [
        ("{\"prompt_tokens\":", usage.input),
        (",\"completion_tokens\":", usage.output),
        (",\"total_tokens\":", usage.total()),
        (",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached),
        ("},\"completion_tokens_details\":{\"reasoning_tokens\":", usage.reasoning),
    ];
    for (name, tokens) in parts {
        json::raw(out, name);
        json::number(out, tokens.0);
    }
    json::raw(out, "}}");
}

/// Appends the stamp of a token.
pub(super) fn push_stamp(out: &mut Vec<u8>, at_us: u64, index: u32) {
    json::raw(out, ",\"x_sim\":{\"t_us\":");
    json::number(out, at_us);
    json::raw(out, ",\"i\":");
    json::number(out, u64::from(index));
    out.push(b'}');
}
