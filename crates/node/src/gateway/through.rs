//! Every other `/v1/*` path (files, batches, images, audio, fine-tuning): passed through
//! unchanged and streamed both ways, but authenticated, limited and traced like any call.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use seawall_kernel::{Failure, Grant, Submit};
use seawall_model::{At, Bytes, Code, Fault, Millis, Protocol, Tokens, Usage, limits};

use crate::app::{App, Live, Phase};
use crate::config::plan::{EngineRoute, ModelRoute};
use crate::seat::Verdict;
use crate::upstream::{self, Sending};

use super::ask;
use super::attempt;
use super::journey::{Journey, Origin};
use super::relay::{Flow, Relay};
use super::reply::{self, Reply};

/// Serves one request to any other path.
pub async fn serve(
    app: &Arc<App>,
    parts: http::request::Parts,
    body: Incoming,
    trace: Arc<str>,
    received: At,
) -> Response<Reply> {
    let protocol = super::shape(parts.uri.path(), &parts.headers);
    let path = parts.uri.path().to_owned();
    if *app.phase.borrow() >= Phase::Draining {
        return super::reject(app, protocol, &trace, &path, &Fault::plain(Code::Draining));
    }
    let live = app.live.load_full();
    let admitted = admit(app, &live, &parts, &body, &trace, received);
    let (model, mut journey) = match admitted {
        Ok(admitted) => admitted,
        Err(fault) => return super::reject(app, protocol, &trace, &path, &fault),
    };
    let grant = match journey.verdict().await {
        Verdict::Go(grant) => grant,
        Verdict::No(no) => {
            let mut fault = Fault::plain(no.0.code);
            fault.retry_after = no.0.retry_after;
            return reply::fault(protocol, &fault, &trace);
        }
    };
    // The body is gone once it is sent, so there is one attempt.
    match send(app, &live, &model, &grant, parts, body, &mut journey, &trace).await {
        Ok(response) => {
            let mut answer = relay(&live, response, &grant, journey);
            answer.headers_mut().insert("x-seawall-engine", upstream::value(&live.engine_name(grant.engine)));
            reply::trace_header(answer.headers_mut(), &trace);
            answer
        }
        Err((failure, code)) => {
            journey.answers(code.status());
            journey.broke(failure, Usage::default());
            reply::fault(protocol, &Fault::plain(code), &trace)
        }
    }
}

/// Checks who asks, finds the engine, and asks the kernel.
fn admit(
    app: &Arc<App>,
    live: &Arc<Live>,
    parts: &http::request::Parts,
    body: &Incoming,
    trace: &Arc<str>,
    received: At,
) -> Result<(ModelRoute, Journey), Fault> {
    let caller = ask::caller(app, &parts.headers, received)?;
    let upload_max = live.config.limits.upload_bytes_max.0;
    if body.size_hint().lower() > upload_max {
        let message = format!("The upload is larger than the limit of {upload_max} bytes.");
        return Err(Fault::new(Code::BodyTooLarge, message));
    }
    let engine = engine(live, &parts.headers)?;
    let model = ask::resolve(live, &format!("{}/*", engine.name))?;
    let tenant = ask::sub_tenant(&caller.tenant, &parts.headers)?;
    // A key or tenant tied to certain models has no business beside them.
    if !caller.models.is_empty() || !live.routes.allows(&tenant, model.id) {
        let message = "This key is tied to certain models and may not use other paths.";
        return Err(Fault::new(Code::ModelForbidden, message));
    }
    let class = ask::class(live, &caller, &tenant, &parts.headers)?;
    let run = ask::run(&tenant, &parts.headers)?;
    let deadline = ask::deadline(&parts.headers, received)?;
    let ticket = app.seat.submit(|call| Submit {
        call,
        tenant: tenant.clone(),
        model: model.id,
        targets: vec![0],
        class,
        run,
        prompt: Tokens::ZERO,
        output_max: None,
        generates: false,
        bytes: Bytes::ZERO,
        deadline,
        prefix: Box::default(),
    });
    let origin = Origin {
        trace: trace.clone(),
        tenant,
        run,
        class,
        protocol: Protocol::Other,
        model: model.id,
        model_name: model.name.clone(),
        stream: false,
        received,
        prompt: Tokens::ZERO,
    };
    Ok((model, Journey::new(app.clone(), origin, ticket)))
}

/// The engine named in `x-seawall-engine`, or the first that takes other paths.
fn engine<'a>(live: &'a Live, headers: &HeaderMap) -> Result<&'a EngineRoute, Fault> {
    let Some(name) = headers.get("x-seawall-engine") else {
        let none = "No engine takes this path: none is configured with `pass_through`.";
        return live.routes.pass_through().ok_or_else(|| Fault::new(Code::PathUnknown, none));
    };
    let named = live.routes.engines().find(|engine| engine.name.as_bytes() == name.as_bytes());
    named.filter(|engine| engine.speaks(Protocol::Other)).ok_or_else(|| {
        let message = "No engine of that name takes other paths through.";
        Fault::new(Code::BadHeader, message).at("x-seawall-engine")
    })
}

#[expect(clippy::too_many_arguments, reason = "each is needed once, by name, at the one call")]
async fn send(
    app: &Arc<App>,
    live: &Live,
    model: &ModelRoute,
    grant: &Grant,
    parts: http::request::Parts,
    body: Incoming,
    journey: &mut Journey,
    trace: &str,
) -> Result<Response<Incoming>, (Failure, Code)> {
    let connect = (Failure::Connect, Code::EngineDown);
    debug_assert_eq!(model.targets.len(), 1, "a path model has its engine as only target");
    let engine = live.routes.engine(grant.engine).ok_or(connect)?;
    let replica = live.routes.replica(grant.replica).ok_or(connect)?;
    let client = live.clients.get(&grant.engine).ok_or(connect)?;
    journey.goes_to(engine.name.clone());
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = replica.url.join(path).map_err(|_| connect)?;
    let sending =
        if body.is_end_stream() && !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            Sending::Whole(None)
        } else {
            let hold = app.memory.hold(limits::STREAM_WINDOW_BYTES as u64);
            let hold = hold.ok_or((Failure::Connect, Code::MemoryFull))?;
            Sending::Through { body, left: live.config.limits.upload_bytes_max.0, hold }
        };
    let mut request = Request::new(sending);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    let mut headers = upstream::forwarded(&parts.headers);
    attempt::credentials(&mut headers, engine);
    headers.insert("traceparent", super::trace::parent(trace, grant.call.0, grant.attempt));
    *request.headers_mut() = headers;
    let limit = Duration::from_millis(engine.first_token_ms_max.0);
    match tokio::time::timeout(limit, client.request(request)).await {
        Ok(Ok(response)) => {
            app.metrics.calls.attempt(&engine.name, "answered");
            Ok(response)
        }
        Ok(Err(why)) if why.is_connect() => Err(connect),
        Ok(Err(_)) => Err((Failure::Cut, Code::EngineFailed)),
        Err(_) => Err((Failure::Timeout, Code::EngineTimeout)),
    }
}

/// The engine's answer as it comes, whatever its status.
fn relay(live: &Live, response: Response<Incoming>, grant: &Grant, mut journey: Journey) -> Response<Reply> {
    let (parts, body) = response.into_parts();
    let engine = live.routes.engine(grant.engine);
    let stall_max = engine.map_or(Millis(limits::STALL_MS_MAX), |engine| engine.stall_ms_max);
    journey.answers(parts.status.as_u16());
    let mut headers = upstream::returned(&parts.headers);
    if let Some(len) = parts.headers.get(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, len.clone());
    }
    let hold = journey.app().memory.hold(2 * limits::STREAM_WINDOW_BYTES as u64);
    let relay = Relay::new(body, Flow::Raw, journey, stall_max, false, hold);
    let mut answer = Response::new(Reply::Relay(Box::new(relay)));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    answer
}
