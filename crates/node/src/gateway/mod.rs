//! The gateway: from a client's HTTP request to an answer. No chain of layers: each
//! handler calls the functions it needs, and they return what they found.

pub mod agent_model;
pub mod agents;
pub mod ask;
pub mod attempt;
pub mod call;
pub mod catalogue;
pub mod inside;
pub mod journey;
pub mod memo;
pub mod ops;
pub mod purse;
pub mod rates;
pub mod relay;
pub mod handed;
pub mod reply;
pub mod route;
pub mod runs;
pub mod through;
pub mod trace;
pub mod upload;

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use seawall_model::{At, Code, Fault, Protocol};

use crate::app::{App, Phase};
use crate::clock;
use crate::log::Line;

use reply::Reply;
use route::{Route, route};
use through::Upload;

/// Answers one request. Never fails: whatever is wrong becomes an answer.
pub async fn answer(app: Arc<App>, request: Request<Incoming>) -> Response<Reply> {
    let received = clock::now();
    let trace = app.traces.of(request.headers());
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let protocol = shape(&path, &parts.headers);
    let served = match route(&path) {
        // Boxed, like the next one: a connection keeps room for this future for life, and
        // the large part of it is only needed until the answer begins.
        Route::Call(protocol) if parts.method == Method::POST => {
            return Box::pin(call(&app, protocol, parts, body, trace, received)).await;
        }
        Route::Models(_) if parts.method == Method::DELETE => {
            return Box::pin(through::serve(&app, parts, Upload::Coming(body), trace, received)).await;
        }
        // Stored objects of the same APIs (`GET /v1/chat/completions`) are the engine's.
        Route::Call(_) if parts.method == Method::GET => {
            return Box::pin(through::serve(&app, parts, Upload::Coming(body), trace, received)).await;
        }
        Route::Through => {
            return Box::pin(through::serve(&app, parts, Upload::Coming(body), trace, received)).await;
        }
        Route::Call(_) => Err(method_not_allowed("POST")),
        Route::Models(name) => get(&parts.method).and_then(|()| {
            let caller = ask::caller(&app, &parts.headers, received)?;
            catalogue::models(&app, &caller, &parts.headers, name.as_deref())
        }),
        Route::Health => get(&parts.method).map(|()| ops::health()),
        Route::Ready => get(&parts.method).map(|()| ops::ready(&app)),
        Route::Metrics => get(&parts.method).and_then(|()| ops::metrics(&app, &parts.headers, received)),
        Route::State => get(&parts.method).and_then(|()| ops::state(&app, &parts.headers, received)),
        Route::Agents => return Box::pin(agents::serve(&app, parts, body, trace, received)).await,
        Route::Halt(run, stop) if parts.method == Method::POST => {
            ops::halt(&app, &parts.headers, received, &run, stop)
        }
        Route::Halt(..) => Err(method_not_allowed("POST")),
        Route::Nowhere => Err(Fault::plain(Code::PathUnknown)),
    };
    match served {
        Ok(response) => response,
        Err(fault) => reject(&app, protocol, &trace, &path, &fault),
    }
}

async fn call(
    app: &Arc<App>,
    protocol: Protocol,
    parts: http::request::Parts,
    body: Incoming,
    trace: Arc<str>,
    received: At,
) -> Response<Reply> {
    if *app.phase.borrow() >= Phase::Draining {
        return reject(app, protocol, &trace, protocol.path(), &Fault::plain(Code::Draining));
    }
    let reject = |fault: &Fault| reject(app, protocol, &trace, protocol.path(), fault);
    let receipt = match ask::receive(app, &parts, body, received).await {
        Ok(receipt) => receipt,
        Err(fault) => return reject(&fault),
    };
    let seen = match seawall_wire::inspect(protocol, &receipt.body) {
        Ok(seen) => seen,
        Err(fault) if model_is_elsewhere(app, protocol, &fault) => {
            let upload = Upload::Here(receipt.body, receipt.hold);
            return through::serve(app, parts, upload, trace, received).await;
        }
        Err(fault) => return reject(&fault),
    };
    if agent_model::is_one(&receipt.live, &seen.model) {
        let served =
            Box::pin(agent_model::serve(app, &parts.headers, receipt, &seen, &trace, received)).await;
        return served.unwrap_or_else(|fault| reject(&fault));
    }
    match ask::read(app, &parts, receipt, seen, &trace, received) {
        Ok(ask) => call::serve(app, ask).await,
        Err(fault) => reject(&fault),
    }
}

/// A response may take its model from a stored prompt, which only the engine knows.
fn model_is_elsewhere(app: &App, protocol: Protocol, fault: &Fault) -> bool {
    let unnamed = fault.code == Code::BadField && fault.param.as_deref() == Some("model");
    protocol == Protocol::Responses && unnamed && app.live.load().routes.pass_through().is_some()
}

/// The shape that errors on this path take.
fn shape(path: &str, headers: &HeaderMap) -> Protocol {
    let anthropic = path.starts_with("/v1/messages") || headers.contains_key("anthropic-version");
    if anthropic { Protocol::Messages } else { Protocol::Chat }
}

fn get(method: &Method) -> Result<(), Fault> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(()) } else { Err(method_not_allowed("GET")) }
}

fn method_not_allowed(takes: &str) -> Fault {
    // Whoever may ask may ask for the head alone.
    let takes = takes.replace("GET", "GET, HEAD");
    let fault = Fault::new(Code::MethodNotAllowed, format!("This path takes {takes} only."));
    Fault { takes: Some(takes.into()), ..fault }
}

/// Turns a request away before it became a call.
#[must_use]
pub fn reject(app: &App, protocol: Protocol, trace: &Arc<str>, path: &str, fault: &Fault) -> Response<Reply> {
    app.metrics.calls.rejected(fault.code.as_str());
    let line = Line::Rejected {
        at_ms: clock::wall(clock::now()).0 / 1_000,
        trace: trace.clone(),
        // A path is the client's text: shortened so that a line stays a line.
        path: path.chars().take(200).collect(),
        status: fault.code.status(),
        code: fault.code.as_str(),
    };
    if app.log.is_on() && !app.log.write(line) {
        app.metrics.service.dropped("log_line", 1);
    }
    reply::fault(protocol, fault, trace)
}
