//! One attempt: the request to a replica, the head and first byte of its answer. Until
//! then nothing has gone to the client, so whatever fails here can be tried elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use seawall_kernel::{Failure, Grant, Input};
use seawall_model::{Code, EngineKind, Fault, Millis, Protocol, Usage, limits};
use seawall_wire::meter::Meter;
use seawall_wire::translate;

use crate::app::App;
use crate::clock;
use crate::config::Secret;
use crate::config::plan::EngineRoute;
use crate::memory::Hold;
use crate::reach;
use crate::upstream::{self, Client, Coming, Failed as Unanswered, Sending};

use super::ask::{self, Ask};
use super::call::{self, Translated, Way};
use super::journey::{Journey, failure_name};
use super::rates;
use super::relay::{Flow, Relay};
use super::reply::{self, Reply};

/// Plain answers up to this size are held whole: then a cut can still be tried again,
/// and head and body leave in one write. Larger ones are relayed.
const HELD_BYTES_MAX: usize = 256 << 10;

/// An attempt that came to nothing.
#[derive(Debug)]
pub struct Failed {
    /// The call, to go on with.
    pub journey: Journey,
    /// How it failed.
    pub failure: Failure,
    /// What it may have used.
    pub usage: Usage,
    /// What the engine said.
    pub said: Option<Said>,
}

/// An engine's own words about a failure.
#[derive(Debug)]
pub struct Said {
    /// The engine.
    pub engine: Arc<str>,
    /// Its refusal, as the client may see it.
    pub answer: Option<Response<Reply>>,
    /// Its message.
    pub message: Option<String>,
}

/// Why an attempt ends here, before the journey is put beside it.
struct Stop(Failure, Usage, Option<Said>);

impl Stop {
    fn plain(failure: Failure) -> Self {
        Self(failure, Usage::default(), None)
    }
}

/// An engine's answer of which the head and the first byte are here.
struct Begun {
    status: StatusCode,
    headers: HeaderMap,
    first: Bytes,
    rest: Coming,
}

/// Makes one attempt.
///
/// # Errors
/// The attempt failed before the client saw anything; the kernel decides what is next.
pub async fn attempt(
    ask: &Ask,
    way: &Way,
    grant: &Grant,
    mut journey: Journey,
) -> Result<Response<Reply>, Box<Failed>> {
    let app = journey.app().clone();
    let engine_name = ask.live.engine_name(grant.engine);
    journey.goes_to(engine_name.clone());
    let begun = match begin(ask, way, grant, &journey).await {
        Ok(begun) => begun,
        Err(Stop(failure, usage, said)) => {
            app.metrics.calls.attempt(&engine_name, failure_name(failure));
            return Err(Box::new(Failed { journey, failure, usage, said }));
        }
    };
    app.metrics.calls.attempt(&engine_name, "answered");
    let engine = ask.live.routes.engine(grant.engine);
    let stall_max = engine.map_or(Millis(limits::STALL_MS_MAX), |engine| engine.stall_ms_max);
    journey.first_byte();
    journey.answers(begun.status.as_u16());
    let events = is_events(&begun.headers);
    match way {
        Way::Same => same(ask, begun, events, stall_max, journey).await,
        Way::Translated(way) if events => Ok(translated_stream(ask, way, begun, stall_max, journey)),
        Way::Translated(way) => translated(ask, way, begun, stall_max, journey).await,
    }
}

/// Sends the request and waits for the head and the first byte.
async fn begin(ask: &Ask, way: &Way, grant: &Grant, journey: &Journey) -> Result<Begun, Stop> {
    // A replica that a reload brought is not in the configuration the call began under.
    let newer = journey.app().live.load_full();
    let known = ask.live.routes.replica(grant.replica).is_some();
    let live = if known { &ask.live } else { &newer };
    let routes = &live.routes;
    let (Some(engine), Some(replica)) = (routes.engine(grant.engine), routes.replica(grant.replica)) else {
        // A reload took the engine away between the grant and now.
        return Err(Stop::plain(Failure::Connect));
    };
    let Some(client) = live.clients.get(&grant.engine) else {
        return Err(Stop::plain(Failure::Connect));
    };
    let protocol = match way {
        Way::Same => ask.protocol,
        Way::Translated(way) => way.protocol,
    };
    let uri = replica.url.join(protocol.path()).map_err(|_| Stop::plain(Failure::Connect))?;
    let target = &ask.model.targets[usize::from(grant.target)];
    let body = match way {
        Way::Same => call::bounded(ask, &target.upstream, asks_for_usage(ask)),
        Way::Translated(way) => way.body.clone(),
    };
    let mut request = Request::new(Sending::whole(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = request_headers(ask, matches!(way, Way::Same), engine, grant);
    let (limit, failure) = patience(ask, engine);
    let waiting = first_bytes(client, request);
    let begun = tokio::time::timeout(limit, waiting).await.map_err(|_| Stop::plain(failure))?;
    reach::note(journey.app(), live, grant.replica, begun.as_ref());
    let begun = begun.map_err(|why| Stop::plain(unanswered(&why)))?;
    if let Some(report) = rates::report(&begun.headers) {
        journey.app().seat.tell(Input::Rate { replica: grant.replica, call: grant.call, report });
    }
    if begun.status.is_success() {
        return Ok(begun);
    }
    Err(not_ok(ask, way, engine, begun).await)
}

/// Is usage asked for in the client's stead, and kept from it? Only these two protocols
/// leave it out of a stream unless asked.
fn asks_for_usage(ask: &Ask) -> bool {
    let leaves_out = matches!(ask.protocol, Protocol::Chat | Protocol::Completions);
    leaves_out && ask.seen.stream && !ask.seen.include_usage
}

async fn first_bytes(client: &Client, request: Request<Sending>) -> Result<Begun, Unanswered> {
    let response = client.request(request, true).await?;
    let (parts, mut rest) = response.into_parts();
    let first = loop {
        match rest.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => break data,
                _ => {}
            },
            Some(Err(why)) => return Err(Unanswered::Cut(why)),
            None => break Bytes::new(),
        }
    };
    Ok(Begun { status: parts.status, headers: parts.headers, first, rest })
}

fn unanswered(why: &Unanswered) -> Failure {
    match why {
        Unanswered::Url(_) | Unanswered::Connect(_) => Failure::Connect,
        Unanswered::Cut(_) | Unanswered::Upload(_) => Failure::Cut,
        Unanswered::Garbled(_) => Failure::Garbled,
    }
}

/// How long the first byte may take, and what it is if it takes longer.
fn patience(ask: &Ask, engine: &EngineRoute) -> (Duration, Failure) {
    let engine_limit = engine.first_token_ms_max;
    let left = ask.deadline.map(|deadline| deadline.since(clock::now()));
    match left {
        Some(left) if left < engine_limit => (Duration::from_millis(left.0), Failure::Deadline),
        _ => (Duration::from_millis(engine_limit.0), Failure::Timeout),
    }
}

/// Headers of the request to an engine.
fn request_headers(ask: &Ask, same: bool, engine: &EngineRoute, grant: &Grant) -> HeaderMap {
    // Another protocol's headers mean nothing to the engine.
    let mut headers = if same { upstream::forwarded(&ask.headers) } else { HeaderMap::new() };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    credentials(&mut headers, engine);
    headers.insert("traceparent", super::trace::parent(&ask.trace, grant.call.0, grant.attempt));
    headers
}

/// The engine's own key and configured headers.
pub fn credentials(headers: &mut HeaderMap, engine: &EngineRoute) {
    if let Some(key) = &engine.key {
        key_header(headers, engine.kind, key);
    } else if engine.kind == EngineKind::Anthropic {
        headers.entry("anthropic-version").or_insert(VERSION);
    }
    for (name, value) in &engine.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// The version of Anthropic's API that is asked for where the client names none.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// A key, in the header that this kind of engine looks at.
pub fn key_header(headers: &mut HeaderMap, kind: EngineKind, key: &Secret) {
    let (name, text) = match kind {
        EngineKind::Anthropic => (http::HeaderName::from_static("x-api-key"), key.reveal().to_owned()),
        _ => (header::AUTHORIZATION, format!("Bearer {}", key.reveal())),
    };
    let mut value = upstream::value(&text);
    value.set_sensitive(true);
    headers.insert(name, value);
    if kind == EngineKind::Anthropic {
        headers.entry("anthropic-version").or_insert(VERSION);
    }
}

/// An answer that is no success: what kind of failure it is, and what the client may
/// see of it.
async fn not_ok(ask: &Ask, way: &Way, engine: &EngineRoute, begun: Begun) -> Stop {
    let status = begun.status;
    let headers = begun.headers.clone();
    let wait = Duration::from_millis(engine.stall_ms_max.0);
    let reading = gather(begun, limits::ENGINE_ERROR_BYTES_MAX);
    // An error body that does not come is an error without a message.
    let body = tokio::time::timeout(wait, reading).await.unwrap_or_default();
    let message = seawall_wire::fault::engine_message(&body);
    let failure = rates::failure(status, &headers).unwrap_or(match status.as_u16() {
        401 | 403 => Failure::Credentials,
        status => Failure::Refused { status },
    });
    let answer = matches!(failure, Failure::Refused { .. }).then(|| match way {
        Way::Same => {
            let mut response = Response::new(Reply::whole(body));
            *response.status_mut() = status;
            *response.headers_mut() = upstream::returned(&headers);
            response
        }
        Way::Translated(_) => {
            let words = message.clone().unwrap_or_else(|| Code::EngineRefused.row().says.to_owned());
            reply::fault_as(status, ask.protocol, &Fault::new(Code::EngineRefused, words), &ask.trace)
        }
    });
    Stop(failure, Usage::default(), Some(Said { engine: engine.name.clone(), answer, message }))
}

/// What comes of a body, up to a limit.
async fn gather(begun: Begun, len_max: usize) -> Bytes {
    let mut body = BytesMut::from(&begun.first[..begun.first.len().min(len_max)]);
    let mut rest = begun.rest;
    while body.len() < len_max {
        let Some(Ok(frame)) = rest.frame().await else {
            break;
        };
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(&data[..data.len().min(len_max - body.len())]);
        }
    }
    body.freeze()
}

/// An answer in the client's own protocol.
async fn same(
    ask: &Ask,
    begun: Begun,
    events: bool,
    stall_max: Millis,
    journey: Journey,
) -> Result<Response<Reply>, Box<Failed>> {
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = begun.status;
    *response.headers_mut() = upstream::returned(&begun.headers);
    if events {
        let hide_usage = asks_for_usage(ask);
        let flow = Flow::Same(Box::new(Meter::stream(ask.protocol, hide_usage)));
        *response.body_mut() = relay(ask, begun.rest, begun.first, flow, stall_max, events, journey);
        return Ok(response);
    }
    match hold(journey.app(), begun.first, begun.rest, HELD_BYTES_MAX, stall_max).await {
        Ok(Held::Whole(body, hold)) => {
            let (usage, finish) = seawall_wire::meter::usage(ask.protocol, &body);
            let mut journey = journey;
            let usage = usage.unwrap_or_else(|| journey.estimate(answered(ask.protocol, &body)));
            let hold = hold.or_else(|| journey.keeps(body.len() as u64));
            journey.finished(usage, finish);
            *response.body_mut() = Reply::held(body, hold);
            Ok(response)
        }
        // A relay needs no more room than the call has.
        Ok(Held::TooLong(first, rest) | Held::NoRoom(first, rest)) => {
            let flow = Flow::Same(Box::new(Meter::unary(ask.protocol)));
            *response.body_mut() = relay(ask, rest, first, flow, stall_max, events, journey);
            Ok(response)
        }
        Err(failure) => Err(broken(journey, failure)),
    }
}

fn relay(
    ask: &Ask,
    rest: Coming,
    first: Bytes,
    flow: Flow,
    stall_max: Millis,
    events: bool,
    journey: Journey,
) -> Reply {
    debug_assert_eq!(journey.origin().protocol, ask.protocol, "one call speaks one protocol");
    let mut relay = Relay::new(rest, flow, journey, stall_max, events);
    relay.prime(first);
    Reply::Relay(Box::new(relay))
}

/// A streamed answer in another protocol.
fn translated_stream(
    ask: &Ask,
    way: &Translated,
    begun: Begun,
    stall_max: Millis,
    journey: Journey,
) -> Response<Reply> {
    let stream = translate::Stream::new(way.protocol, ask.protocol, way.context.clone());
    let flow = Flow::Translated(Box::new(stream));
    let mut response = Response::new(relay(ask, begun.rest, begun.first, flow, stall_max, true, journey));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A plain answer in another protocol.
async fn translated(
    ask: &Ask,
    way: &Translated,
    begun: Begun,
    stall_max: Millis,
    mut journey: Journey,
) -> Result<Response<Reply>, Box<Failed>> {
    let len_max = usize::try_from(ask.live.config.limits.answer_bytes_max.0).unwrap_or(usize::MAX);
    let (body, hold) = match hold(journey.app(), begun.first, begun.rest, len_max, stall_max).await {
        Ok(Held::Whole(body, hold)) => (body, hold),
        Ok(Held::TooLong(..)) => return Err(broken(journey, Failure::TooLarge)),
        Ok(Held::NoRoom(..)) => return Ok(no_room(ask, journey)),
        Err(failure) => return Err(broken(journey, failure)),
    };
    // A client that asked for a stream cannot be given one answer whole.
    if ask.seen.stream {
        return Err(broken(journey, Failure::Garbled));
    }
    let Ok(answer) = translate::answer_to(way.protocol, ask.protocol, &body, &way.context) else {
        return Err(broken(journey, Failure::Garbled));
    };
    let (usage, finish) = seawall_wire::meter::usage(way.protocol, &body);
    let usage = usage.unwrap_or_else(|| journey.estimate(answered(way.protocol, &body)));
    // The answer takes the place of the body it was made of, and is about as long.
    let mut hold = hold.or_else(|| journey.keeps(answer.len() as u64));
    if let Some(hold) = &mut hold {
        hold.shrink_to(answer.len() as u64);
    }
    journey.finished(usage, finish);
    let mut response = reply::json(StatusCode::OK, Bytes::new());
    *response.body_mut() = Reply::held(answer.into(), hold);
    Ok(response)
}

fn broken(journey: Journey, failure: Failure) -> Box<Failed> {
    // The engine worked on the prompt at least.
    let usage = journey.estimate(0);
    let said = journey.engine().map(|engine| Said { engine, answer: None, message: None });
    Box::new(Failed { journey, failure, usage, said })
}

/// The answer to a call whose own answer finds no room: our doing, not the engine's.
fn no_room(ask: &Ask, mut journey: Journey) -> Response<Reply> {
    let fault = ask::full();
    journey.blames(fault.code);
    journey.says(fault.code.status());
    let usage = journey.estimate(0);
    journey.broke(Failure::TooLarge, usage);
    reply::fault(ask.protocol, &fault, &ask.trace)
}

/// A plain body, as far as it was held.
enum Held {
    /// All of it, and what it holds of the byte budget unless it came with the head.
    Whole(Bytes, Option<Hold>),
    /// It is longer than it may be; so far, and the rest.
    TooLong(Bytes, Coming),
    /// The byte budget has no room for more of it; so far, and the rest.
    NoRoom(Bytes, Coming),
}

/// Holds a body up to a length; silence longer than `stall_max` is a failure.
async fn hold(
    app: &App,
    first: Bytes,
    mut rest: Coming,
    len_max: usize,
    stall_max: Millis,
) -> Result<Held, Failure> {
    use http_body::Body;
    let stall = Duration::from_millis(stall_max.0);
    let mut whole: Option<BytesMut> = None;
    if rest.is_end_stream() {
        return Ok(Held::Whole(first, None));
    }
    let Some(mut held) = app.memory.hold(first.len() as u64) else {
        return Ok(Held::NoRoom(first, rest));
    };
    loop {
        let frame = tokio::time::timeout(stall, rest.frame()).await.map_err(|_| Failure::Timeout)?;
        let data = match frame {
            None => return Ok(Held::Whole(whole.map_or(first, BytesMut::freeze), Some(held))),
            Some(Err(_)) => return Err(Failure::Cut),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let whole = whole.get_or_insert_with(|| BytesMut::from(&first[..]));
        whole.extend_from_slice(&data);
        if whole.len() > len_max {
            return Ok(Held::TooLong(std::mem::take(whole).freeze(), rest));
        }
        if !held.grow(data.len() as u64) {
            return Ok(Held::NoRoom(std::mem::take(whole).freeze(), rest));
        }
    }
}

/// Output tokens of a whole answer that does not say, by its length.
fn answered(protocol: Protocol, body: &[u8]) -> u64 {
    seawall_wire::tokens::estimate_answer(protocol, body).0
}

fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}
