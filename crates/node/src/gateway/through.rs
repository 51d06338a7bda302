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
use crate::config::plan::EngineRoute;
use crate::memory::Hold;
use crate::seat::Verdict;
use crate::upstream::{self, Sending, Through};

use super::ask;
use super::attempt;
use super::journey::{Journey, Origin};
use super::relay::{Flow, Relay};
use super::reply::{self, Reply};

/// The body of a request that passes through.
#[derive(Debug)]
pub enum Upload {
    /// Still to come from the client.
    Coming(Incoming),
    /// Already here, with what it holds of the byte budget.
    Here(bytes::Bytes, Hold),
}

impl Upload {
    /// The least number of bytes it has.
    fn len_min(&self) -> u64 {
        match self {
            Self::Coming(body) => body.size_hint().lower(),
            Self::Here(body, _) => body.len() as u64,
        }
    }
}

/// Serves one request to any other path.
pub async fn serve(
    app: &Arc<App>,
    parts: http::request::Parts,
    upload: Upload,
    trace: Arc<str>,
    received: At,
) -> Response<Reply> {
    let protocol = super::shape(parts.uri.path(), &parts.headers);
    let path = parts.uri.path().to_owned();
    if *app.phase.borrow() >= Phase::Draining {
        return super::reject(app, protocol, &trace, &path, &Fault::plain(Code::Draining));
    }
    let live = app.live.load_full();
    let sending = sending(app, &live, &parts, upload).await;
    let admitted = sending.and_then(|sending| Ok((sending, admit(app, &live, &parts, &trace, received)?)));
    let (sending, mut journey) = match admitted {
        Ok(admitted) => admitted,
        Err(fault) => return super::reject(app, protocol, &trace, &path, &fault),
    };
    let grant = match journey.verdict().await {
        Some(Verdict::Go(grant)) => grant,
        None => return reply::fault(protocol, &Fault::plain(Code::Internal), &trace),
        Some(Verdict::No(no)) => {
            return reply::fault(protocol, &super::call::refusal_fault(&no.0, None), &trace);
        }
    };
    // The body is gone once it is sent, so there is one attempt.
    match send(app, &grant, parts, sending, &mut journey, &trace).await {
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

/// The body as it will be sent, bounded; nothing is taken from the client yet.
async fn sending(
    app: &Arc<App>,
    live: &Live,
    parts: &http::request::Parts,
    upload: Upload,
) -> Result<Sending, Fault> {
    let left = live.config.limits.upload_bytes_max.0;
    if upload.len_min() > left {
        if let Upload::Coming(body) = upload {
            ask::turn_away(&parts.headers, body).await;
        }
        let message = format!("The upload is larger than the limit of {left} bytes.");
        return Err(Fault::new(Code::BodyTooLarge, message));
    }
    let carries = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    match upload {
        Upload::Here(body, _) => Ok(Sending::whole(body)),
        Upload::Coming(body) if body.is_end_stream() && !carries => Ok(Sending::Whole(None)),
        Upload::Coming(body) => {
            let full = || Fault::plain(Code::MemoryFull).after(Millis(1_000));
            let hold = app.memory.hold(limits::STREAM_WINDOW_BYTES as u64).ok_or_else(full)?;
            Ok(Sending::Through(Box::new(Through { body, left, hold })))
        }
    }
}

/// Checks who asks, finds the engine, and asks the kernel.
fn admit(
    app: &Arc<App>,
    live: &Arc<Live>,
    parts: &http::request::Parts,
    trace: &Arc<str>,
    received: At,
) -> Result<Journey, Fault> {
    let caller = ask::caller(app, &parts.headers, received)?;
    let engine = engine(live, &parts.headers)?;
    let model = live.routes.paths(engine.id).ok_or_else(|| Fault::plain(Code::PathUnknown))?;
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
        targets: model.targets.iter().map(|target| target.engine).collect(),
        class,
        run,
        prompt: Tokens::ZERO,
        prompt_max: Tokens::ZERO,
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
    Ok(Journey::new(app.clone(), origin, ticket))
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

async fn send(
    app: &Arc<App>,
    grant: &Grant,
    parts: http::request::Parts,
    sending: Sending,
    journey: &mut Journey,
    trace: &str,
) -> Result<Response<Incoming>, (Failure, Code)> {
    // No replica to blame: a reload took it away between the grant and now.
    let gone = (Failure::Refused { status: 503 }, Code::EngineDown);
    let live = app.live.load_full();
    let engine = live.routes.engine(grant.engine).ok_or(gone)?;
    let replica = live.routes.replica(grant.replica).ok_or(gone)?;
    let client = live.clients.get(&grant.engine).ok_or(gone)?;
    journey.goes_to(engine.name.clone());
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let bad_path = (Failure::Refused { status: 400 }, Code::PathUnknown);
    let mut request = Request::new(sending);
    *request.method_mut() = parts.method;
    *request.uri_mut() = replica.url.join(path).map_err(|_| bad_path)?;
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
        Ok(Err(why)) if why.is_connect() => Err((Failure::Connect, Code::EngineDown)),
        // The client's body broke the limit or broke off: the engine is well.
        Ok(Err(why)) if is_body(&why) => Err((Failure::Refused { status: 413 }, Code::BodyTooLarge)),
        Ok(Err(_)) => Err((Failure::Cut, Code::EngineFailed)),
        Err(_) => Err((Failure::Timeout, Code::EngineTimeout)),
    }
}

/// Did the request's own body fail, rather than the engine?
fn is_body(why: &hyper_util::client::legacy::Error) -> bool {
    let hyper = std::error::Error::source(why).and_then(|source| source.downcast_ref::<hyper::Error>());
    hyper.is_some_and(hyper::Error::is_user)
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
