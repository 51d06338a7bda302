//! Every other `/v1/*` path (files, batches, images, audio, fine-tuning): passed through
//! unchanged and streamed both ways, but authenticated, limited and traced like any call.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use seawall_kernel::{Failure, Grant, Input, Submit};
use seawall_model::{
    Agent, At, Bytes, Class, Code, Fault, Lineage, Millis, Protocol, RunId, Tenant, Tokens, Usage, limits,
};
use tokio::sync::oneshot;

use crate::app::{App, Live, Phase};
use crate::clock;
use crate::config::plan::{EngineRoute, ModelRoute};
use crate::keys::Caller;
use crate::memory::Hold;
use crate::reach;
use crate::seat::Verdict;
use crate::upstream::{self, Coming, Failed, Sending, Through, UploadFailed};

use super::ask;
use super::attempt;
use super::handed::Handed;
use super::journey::{Journey, Origin, failure_name};
use super::purse;
use super::rates;
use super::relay::{Flow, Relay};
use super::reply::{self, Reply};
use super::upload::{Arriving, Unread};

/// The body of a request that passes through.
#[derive(Debug)]
pub enum Upload {
    /// Still to come from the client.
    Coming(Incoming),
    /// Already here, with what it holds of the byte budget.
    Here(bytes::Bytes, Hold),
}

/// Bodies up to this size that name their length are received before the engine is asked
/// for a place: JSON, and most audio clips.
const HELD_BYTES_MAX: u64 = 1 << 20;

impl Upload {
    /// Lets the client hear an answer though its body is not wanted.
    async fn turn_away(self, headers: &HeaderMap) {
        if let Self::Coming(body) = self
            && !body.is_end_stream()
        {
            ask::turn_away(headers, body).await;
        }
    }

    /// The least number of bytes it has.
    fn len_min(&self) -> u64 {
        match self {
            Self::Coming(body) => body.size_hint().lower(),
            Self::Here(body, _) => body.len() as u64,
        }
    }
}

/// A request that may pass, and what the kernel will be told of it.
struct Passing {
    caller: Caller,
    model: ModelRoute,
    tenant: Tenant,
    class: Class,
    run: Option<RunId>,
    lineage: Option<Arc<Lineage>>,
    agent: Option<Agent>,
    parent: Option<RunId>,
    deadline: Option<At>,
}

/// A body ready to be sent.
struct Ready {
    sending: Sending,
    /// Its bytes in the byte budget, if it is held.
    hold: Option<Hold>,
    /// When the engine last took a piece of it.
    taken: Arc<Handed>,
    /// What was not wanted of one that streams.
    unread: Option<oneshot::Receiver<Unread>>,
}

impl Ready {
    /// One that is here.
    fn here(sending: Sending, hold: Option<Hold>) -> Self {
        Self { sending, hold, taken: Arc::default(), unread: None }
    }
}

/// Lets the client hear the answer though it is still sending an upload that nobody reads.
/// Whoever sent the upload is done with it.
async fn hear_out(unread: Option<oneshot::Receiver<Unread>>, headers: &HeaderMap) {
    if let Some(unread) = unread.and_then(|mut unread| unread.try_recv().ok()) {
        unread.turn_away(headers).await;
    }
}

/// Gives up an upload before any of it was sent.
async fn withdraw(mut ready: Ready, headers: &HeaderMap) {
    let unread = ready.unread.take();
    drop(ready);
    hear_out(unread, headers).await;
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
    let live = app.live.load_full();
    let passing = match allowed(app, &live, &parts, received) {
        Ok(passing) => passing,
        Err(fault) => {
            upload.turn_away(&parts.headers).await;
            return super::reject(app, protocol, &trace, &path, &fault);
        }
    };
    let mut ready = match ready(app, &live, &parts, &passing.tenant, upload).await {
        Ok(ready) => ready,
        Err(fault) => return super::reject(app, protocol, &trace, &path, &fault),
    };
    let mut journey = submit(app, passing, &ready.sending, &trace, received);
    let mut halted = journey.halted();
    let grant = match journey.verdict().await {
        Some(Verdict::Go(grant)) => grant,
        None => return reply::fault(protocol, &Fault::plain(Code::Internal), &trace),
        Some(Verdict::No(no)) => {
            withdraw(ready, &parts.headers).await;
            return reply::fault(protocol, &super::call::refusal_fault(&no.0, None), &trace);
        }
    };
    let window = 2 * live.config.limits.stream_window_bytes as u64;
    let Some(hold) = held_with(app, ready.hold.take(), window) else {
        journey.give_up(Code::MemoryFull);
        withdraw(ready, &parts.headers).await;
        return reply::fault(protocol, &ask::full(), &trace);
    };
    journey.holds(hold);
    let unread = ready.unread.take();
    // The body is gone once it is sent, so there is one attempt.
    let sent = tokio::select! {
        biased;
        sent = send(app, &grant, &parts, ready, &mut journey, &trace) => sent,
        // What was sent so far is dropped, and the call with it.
        () = super::call::stopped(&mut halted) => {
            return reply::fault(protocol, &Fault::plain(Code::RunStopped), &trace);
        }
    };
    match sent {
        Ok(response) => {
            if !response.status().is_success() {
                hear_out(unread, &parts.headers).await;
            }
            let mut answer = relay(app, &live, response, &parts.method, &grant, journey);
            if let Reply::Relay(relay) = answer.body_mut() {
                relay.halts_on(halted);
            }
            answer.headers_mut().insert("x-seawall-engine", upstream::value(&live.engine_name(grant.engine)));
            reply::trace_header(answer.headers_mut(), &trace);
            answer
        }
        Err((failure, code)) => {
            app.metrics.calls.attempt(&live.engine_name(grant.engine), failure_name(failure));
            let answer = unanswered(journey, failure, code, &grant, protocol, &trace);
            hear_out(unread, &parts.headers).await;
            answer
        }
    }
}

/// The answer to a call that the engine did not answer.
fn unanswered(
    mut journey: Journey,
    failure: Failure,
    code: Code,
    grant: &Grant,
    protocol: Protocol,
    trace: &str,
) -> Response<Reply> {
    journey.says(code.status());
    // What is the client's doing is not put down to the engine.
    if failure == Failure::Unsent {
        journey.blames(code);
    }
    journey.broke(failure, Usage::default());
    let mut answer = reply::fault(protocol, &Fault::plain(code), trace);
    answer.headers_mut().insert("x-seawall-attempts", HeaderValue::from(grant.attempt));
    answer
}

/// What is held already and so much more, if there is room.
fn held_with(app: &App, hold: Option<Hold>, bytes: u64) -> Option<Hold> {
    let mut hold = hold.or_else(|| app.memory.hold(0))?;
    hold.grow(bytes).then_some(hold)
}

/// Finds out who asks, whether they may, and of which engine.
fn allowed(app: &App, live: &Live, parts: &http::request::Parts, received: At) -> Result<Passing, Fault> {
    if *app.phase.borrow() >= Phase::Draining {
        return Err(Fault::plain(Code::Draining));
    }
    let caller = ask::caller(app, &parts.headers, received)?;
    let engine = engine(live, &parts.headers)?;
    let model = live.routes.paths(engine.id).ok_or_else(|| Fault::plain(Code::PathUnknown))?;
    let tenant = ask::sub_tenant(&caller.tenant, &parts.headers)?;
    // Files, batches and fine-tunes belong to the operator's account with the provider, and
    // whoever reaches one reaches all.
    if !caller.pass_through {
        return Err(Fault::plain(Code::PathForbidden).at("authorization"));
    }
    // A key or tenant tied to certain models has no business beside them.
    if !caller.models.is_empty() || !live.routes.allows(&tenant, model.id) {
        let message = "This key is tied to certain models and may not use other paths.";
        return Err(Fault::new(Code::ModelForbidden, message));
    }
    let class = ask::class(live, &caller, &tenant, &parts.headers)?;
    let agent = ask::agent(&caller, &parts.headers)?;
    let lineage = ask::lineage(&caller, &parts.headers)?;
    let (run, parent) = ask::runs(&tenant, lineage.as_deref());
    let deadline = ask::deadline(&parts.headers, received)?;
    purse::bound(app, &tenant, lineage.as_deref(), &parts.headers)?;
    Ok(Passing { model: model.clone(), caller, tenant, class, run, lineage, agent, parent, deadline })
}

/// Makes the body ready. One that is known to be short is received here, before the engine
/// is asked for a place; a long one will stream, if there is a place for an upload.
async fn ready(
    app: &Arc<App>,
    live: &Live,
    parts: &http::request::Parts,
    tenant: &Tenant,
    upload: Upload,
) -> Result<Ready, Fault> {
    let limits = &live.config.limits;
    let left = limits.upload_bytes_max.0;
    if upload.len_min() > left {
        upload.turn_away(&parts.headers).await;
        let message = format!("The upload is larger than the limit of {left} bytes.");
        return Err(Fault::new(Code::BodyTooLarge, message));
    }
    let body = match upload {
        Upload::Here(body, hold) => return Ok(Ready::here(Sending::whole(body), Some(hold))),
        Upload::Coming(body) => body,
    };
    let carries = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    if body.is_end_stream() && !carries {
        return Ok(Ready::here(Sending::none(), None));
    }
    let short = HELD_BYTES_MAX.min(limits.body_bytes_max.0);
    if body.size_hint().exact().is_some_and(|len| len <= short) {
        let (body, hold) = ask::whole_body(app, live, &parts.headers, body).await?;
        return Ok(Ready::here(Sending::whole(body), Some(hold)));
    }
    let place = app.uploads.begin(tenant, limits).ok_or_else(uploads_full);
    let room = place.and_then(|place| {
        let hold = app.memory.hold(limits.stream_window_bytes as u64).ok_or_else(ask::full)?;
        Ok((place, hold))
    });
    let (place, hold) = match room {
        Ok(room) => room,
        Err(fault) => {
            Upload::Coming(body).turn_away(&parts.headers).await;
            return Err(fault);
        }
    };
    let taken = Arc::<Handed>::default();
    let (body, unread) = Arriving::new(body, place, taken.clone(), limits);
    let through = Through { body: Box::pin(body), left, hold };
    let sending = Sending::Through(Box::new(through));
    Ok(Ready { sending, hold: None, taken, unread: Some(unread) })
}

fn uploads_full() -> Fault {
    Fault::plain(Code::UploadsFull).after(Millis(1_000))
}

/// Submits the request to the kernel.
fn submit(app: &Arc<App>, passing: Passing, sending: &Sending, trace: &Arc<str>, received: At) -> Journey {
    let Passing { caller, model, tenant, class, run, lineage, agent, parent, deadline } = passing;
    if let Some(key) = &caller.key {
        app.disk.key_used(key, clock::wall(received));
    }
    let held = match sending {
        Sending::Whole(body) => body.len() as u64,
        Sending::Through(_) => 0,
    };
    let ticket = app.seat.submit(|call| Submit {
        call,
        tenant: tenant.clone(),
        model: model.id,
        targets: model.targets.iter().map(|target| target.engine).collect(),
        class,
        run,
        parent,
        agent: agent.clone(),
        work: None,
        prompt: Tokens::ZERO,
        prompt_max: Tokens::ZERO,
        output_max: None,
        generates: false,
        bytes: Bytes(held),
        deadline,
        prefix: Box::default(),
    });
    let origin = Origin {
        trace: trace.clone(),
        tenant,
        run,
        lineage,
        agent,
        class,
        protocol: Protocol::Other,
        model: model.id,
        model_name: model.name,
        stream: false,
        received,
        prompt: Tokens::ZERO,
    };
    Journey::new(app.clone(), origin, ticket)
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
    parts: &http::request::Parts,
    ready: Ready,
    journey: &mut Journey,
    trace: &str,
) -> Result<Response<Coming>, (Failure, Code)> {
    // No replica to blame: a reload took it away between the grant and now.
    let gone = (Failure::Unsent, Code::EngineDown);
    let live = app.live.load_full();
    let engine = live.routes.engine(grant.engine).ok_or(gone)?;
    let replica = live.routes.replica(grant.replica).ok_or(gone)?;
    let client = live.clients.get(&grant.engine).ok_or(gone)?;
    journey.goes_to(engine.name.clone());
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let bad_path = (Failure::Unsent, Code::PathUnknown);
    let mut request = Request::new(ready.sending);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = replica.url.join(path).map_err(|_| bad_path)?;
    let mut headers = upstream::forwarded(&parts.headers);
    attempt::credentials(&mut headers, engine);
    headers.insert("traceparent", super::trace::parent(trace, grant.call.0, grant.attempt));
    *request.headers_mut() = headers;
    // Only what changes nothing may reach an engine twice.
    let again = request.method().is_safe();
    let answering = client.request(request, again);
    let answered = patiently(answering, &ready.taken, engine.first_token_ms_max).await;
    if let Some(went) = &answered {
        reach::note(app, &live, grant.replica, went.as_ref());
    }
    match answered {
        Some(Ok(response)) => Ok(response),
        Some(Err(Failed::Upload(why))) => Err(match why {
            // The client's doing: the engine is well.
            UploadFailed::TooLarge => (Failure::Unsent, Code::BodyTooLarge),
            UploadFailed::Cut | UploadFailed::Slow => (Failure::Unsent, Code::BodyTimeout),
        }),
        Some(Err(Failed::Connect(_) | Failed::Url(_))) => Err((Failure::Connect, Code::EngineDown)),
        Some(Err(Failed::Cut(_))) => Err((Failure::Cut, Code::EngineFailed)),
        Some(Err(Failed::Garbled(_))) => Err((Failure::Garbled, Code::EngineFailed)),
        None => Err((Failure::Timeout, Code::EngineTimeout)),
    }
}

/// Waits for an answer as long as the engine may take, counted from the last piece of the
/// body that it took: an upload takes its time, and a slow client is not the engine's fault.
async fn patiently<T>(answering: impl Future<Output = T>, taken: &Handed, limit: Millis) -> Option<T> {
    tokio::pin!(answering);
    taken.gave();
    loop {
        let left = taken.left(clock::now(), limit);
        if left == Millis::ZERO {
            return None;
        }
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(left.0), &mut answering).await {
            return Some(answer);
        }
    }
}

/// The engine's answer as it comes, whatever its status. The kernel hears what the status
/// says of the engine.
fn relay(
    app: &App,
    live: &Live,
    response: Response<Coming>,
    method: &Method,
    grant: &Grant,
    mut journey: Journey,
) -> Response<Reply> {
    let (parts, body) = response.into_parts();
    let engine = live.routes.engine(grant.engine);
    let stall_max = engine.map_or(Millis(limits::STALL_MS_MAX), |engine| engine.stall_ms_max);
    journey.answers(parts.status.as_u16());
    let judged = rates::failure(parts.status, &parts.headers);
    app.metrics.calls.attempt(&live.engine_name(grant.engine), judged.map_or("answered", failure_name));
    if let Some(report) = rates::report(&parts.headers) {
        app.seat.tell(Input::Rate { replica: grant.replica, call: grant.call, report });
    }
    let mut headers = upstream::returned(&parts.headers);
    // A length that the body has is told by the relay; this one is of a body that would
    // have come.
    let length = parts.headers.get(header::CONTENT_LENGTH).filter(|_| *method == Method::HEAD);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    let mut relay = Relay::new(body, Flow::Raw, journey, stall_max, false);
    if let Some(failure) = judged {
        relay = relay.judged(failure);
    }
    relay.prime(bytes::Bytes::new());
    let mut answer = Response::new(Reply::Relay(Box::new(relay)));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends_with_a_silent_engine_and_not_while_the_client_is_waited_for() {
        let taken = Handed::default();
        let never = std::future::pending::<()>();
        assert_eq!(patiently(never, &taken, Millis(20)).await, None);
        let (sender, answer) = oneshot::channel();
        let slow = async {
            // The client's turn: however long it takes, the engine's time does not run.
            taken.asked();
            answer.await
        };
        let client = async {
            let begun = clock::now();
            while clock::now().since(begun) < Millis(60) {
                tokio::task::yield_now().await;
            }
            sender.send(7).expect("somebody listens");
        };
        let (answered, ()) = tokio::join!(patiently(slow, &taken, Millis(20)), client);
        assert_eq!(answered, Some(Ok(7)));
    }
}
