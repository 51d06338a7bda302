//! From path to room.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use seawall_load::words;
use seawall_model::{Protocol, limits};

use super::call::{answer, generate, refuse, respond};
use super::control::{self, Controls};
use super::flow::Body;
use super::wish::Wish;
use super::world::World;
use super::{embeddings, json, metrics, other};

/// Answers one request.
pub(super) async fn answer_any(world: Arc<World>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if let Some(rest) = path.strip_prefix("/v1/") {
        if !authorised(&world, &head.headers) {
            let protocol = if rest.starts_with("messages") { Protocol::Messages } else { Protocol::Other };
            return refuse(&world, protocol, 401, "Incorrect API key provided.");
        }
        if world.is_cold() {
            return refuse(&world, Protocol::Other, 503, "The engine is starting.");
        }
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.path() == path);
        return match (&head.method, protocol) {
            (&Method::POST, Some(protocol)) if protocol != Protocol::Other => {
                infer(world, protocol, head.headers, body).await
            }
            (_, Some(protocol)) => refuse(&world, protocol, 405, "This path takes POST."),
            (&Method::GET, None) if rest == "models" => other::models(&world),
            (&Method::GET, None) if rest.starts_with("models/") => {
                other::model(&world, &rest["models/".len()..])
            }
            _ => other::pass(&world, &head.method, path, body).await,
        };
    }
    operate(&world, &head.method, path, body).await
}

async fn infer(world: Arc<World>, protocol: Protocol, headers: HeaderMap, body: Incoming) -> Response<Body> {
    let Ok(body) = read(body).await else {
        return refuse(&world, protocol, 413, "The body is too large or was broken off.");
    };
    match protocol {
        Protocol::Embeddings => embeddings::embed(world, headers, body).await,
        Protocol::CountTokens => count(&world, &headers, &body),
        _ => generate(world, protocol, headers, body).await,
    }
}

/// Anthropic's count of a prompt's tokens: the same estimate that usage reports.
fn count(world: &World, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let protocol = Protocol::CountTokens;
    let wish = match Wish::read(protocol, body, false) {
        Ok(wish) => wish,
        Err(message) => return refuse(world, protocol, 400, &message),
    };
    match Controls::read(headers, &wish.model) {
        Ok((_, model)) if world.settings.serves(model) => {}
        Ok((_, model)) => {
            return refuse(world, protocol, 404, &format!("The model `{model}` does not exist."));
        }
        Err(message) => return refuse(world, protocol, 400, &message),
    }
    let mut out = b"{\"input_tokens\":".to_vec();
    json::number(&mut out, words::count(wish.prompt.len()));
    out.push(b'}');
    answer(out)
}

/// Health, metrics and the `/sim/` API.
async fn operate(world: &World, method: &Method, path: &str, body: Incoming) -> Response<Body> {
    match (method, path) {
        (&Method::GET, "/health" | "/ping") if world.is_cold() => {
            refuse(world, Protocol::Other, 503, "The engine is starting.")
        }
        (&Method::GET, "/health" | "/ping") => answer(b"{}".to_vec()),
        (&Method::GET, "/version") => {
            answer(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}").into())
        }
        (&Method::GET, "/metrics") => respond(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            Body::Full(metrics::render(world).into()),
        ),
        (&Method::GET, "/sim/state") => answer(control::state(world)),
        (&Method::POST, "/sim/reset") => {
            control::reset(world);
            answer(b"{}".to_vec())
        }
        (&Method::POST, "/sim/fault") => match read(body).await {
            Ok(body) => match control::order(world, &body) {
                Ok(()) => answer(b"{}".to_vec()),
                Err(message) => refuse(world, Protocol::Other, 400, &message),
            },
            Err(_) => refuse(world, Protocol::Other, 413, "The body is too large or was broken off."),
        },
        _ => refuse(world, Protocol::Other, 404, "There is nothing at this path."),
    }
}

async fn read(body: Incoming) -> Result<Bytes, String> {
    let most = usize::try_from(limits::BODY_BYTES_MAX).unwrap_or(usize::MAX);
    crate::body::read(body, most).await
}

/// Does the caller show the key, where one is asked for?
fn authorised(world: &World, headers: &HeaderMap) -> bool {
    let Some(key) = &world.settings.options.api_key else {
        return true;
    };
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let shown = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()));
    shown == Some(key.as_str())
}
