//! One call, from the kernel's admission over as many attempts as it grants to the
//! answer. The loop is short because it decides nothing: it performs what the kernel
//! says and reports what came of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use seawall_kernel::{Failure, Grant, Refusal, Submit};
use seawall_model::{Cause, Code, Fault, Protocol, Tokens, Usage};
use seawall_wire::translate;

use crate::app::App;
use crate::clock;
use crate::config::plan::EngineRoute;
use crate::log::Line;
use crate::memory::Hold;
use crate::seat::{Halted, Verdict};

use super::ask::{self, Ask};
use super::attempt::{self, Said};
use super::journey::{Journey, Origin};
use super::memo;
use super::reply::{self, Reply};

/// How one target of the model is asked.
#[derive(Debug)]
pub enum Way {
    /// In the client's own protocol: the body is sent on with the model's name replaced.
    Same,
    /// In another protocol.
    Translated(Box<Translated>),
}

/// A request in an engine's protocol.
#[derive(Debug)]
pub struct Translated {
    /// The engine's protocol.
    pub protocol: Protocol,
    /// The body in it.
    pub body: Bytes,
    /// What the answer needs of the request.
    pub context: translate::Context,
    /// The body's bytes in the byte budget.
    pub hold: Hold,
}

/// Serves a call.
pub async fn serve(app: &Arc<App>, ask: Ask) -> Response<Reply> {
    let ways = match ways(app, &ask) {
        Ok(ways) => ways,
        Err(fault) => return super::reject(app, ask.protocol, &ask.trace, ask.protocol.path(), &fault),
    };
    if ways.iter().all(Option::is_none) {
        return count_here(app, &ask);
    }
    if let Some(replayed) = memo::replay(app, &ask).await {
        return replayed;
    }
    let (mut journey, places) = admit(app, &ask, &ways);
    let mut halted = journey.halted();
    let mut said = None;
    loop {
        let grant = match journey.verdict().await {
            // Its target counts among the engines submitted; here it is the place of a way.
            Some(Verdict::Go(grant)) => {
                let target = places.get(usize::from(grant.target)).copied().unwrap_or(u8::MAX);
                Grant { target, ..grant }
            }
            Some(Verdict::No(no)) if no.0.code == Code::LoopStopped => {
                app.metrics.calls.looping("refused");
                return refused(&ask, &no.0, no.1.attempts, said);
            }
            Some(Verdict::No(no)) => return refused(&ask, &no.0, no.1.attempts, said),
            None => return reply::fault(ask.protocol, &Fault::plain(Code::Internal), &ask.trace),
        };
        let Some(way) = ways.get(usize::from(grant.target)).and_then(Option::as_ref) else {
            // The kernel chooses among the targets it was given, so this is a bug; the
            // call still ends with a word.
            journey.failed(Failure::Garbled, Usage::default());
            continue;
        };
        if grant.repeats > 0 && grant.attempt == 1 {
            app.metrics.calls.looping("warned");
        }
        if !journey.has_room() {
            let Some(room) = app.memory.hold(room(&ask, &ways)) else {
                journey.give_up(Code::MemoryFull);
                return reply::fault(ask.protocol, &ask::full(), &ask.trace);
            };
            journey.holds(room);
        }
        let attempted = tokio::select! {
            biased;
            attempted = attempt::attempt(&ask, way, &grant, journey) => attempted,
            // The attempt is dropped, and the call with it.
            () = stopped(&mut halted) => return cut_off(&ask, &grant),
        };
        match attempted {
            Ok(mut response) => {
                if let Reply::Relay(relay) = response.body_mut() {
                    relay.halts_on(halted);
                }
                say_how(response.headers_mut(), &ask, &grant);
                memo::keep(app, &ask, &mut response);
                return response;
            }
            Err(failed) => {
                let failed = *failed;
                journey = failed.journey;
                journey.failed(failed.failure, failed.usage);
                said = failed.said;
            }
        }
    }
}

/// The answer to a call whose run was stopped while it was at an engine.
fn cut_off(ask: &Ask, grant: &Grant) -> Response<Reply> {
    let mut response = reply::fault(ask.protocol, &Fault::plain(Code::RunStopped), &ask.trace);
    say_how(response.headers_mut(), ask, grant);
    response
}

/// Comes when the call's run was stopped; never for a call without one.
pub(super) async fn stopped(halted: &mut Option<Halted>) {
    if let Some(coming) = halted {
        if coming.await.is_ok() {
            return;
        }
        *halted = None;
    }
    std::future::pending::<()>().await;
}

/// Bytes that an engine at work on it takes, whichever way the call goes in the end: a
/// window on either side, and the body as it is rewritten for the engine.
fn room(ask: &Ask, ways: &[Option<Way>]) -> u64 {
    // A translated body is held since it was made.
    let rewrites = ways.iter().flatten().any(|way| matches!(way, Way::Same));
    let rewritten = if rewrites { ask.body.len() as u64 } else { 0 };
    2 * ask.live.config.limits.stream_window_bytes as u64 + rewritten
}

/// For each target, how it is asked; `None` where it cannot be.
///
/// # Errors
/// No target can serve the request: the reason of the first one that cannot.
fn ways(app: &App, ask: &Ask) -> Result<Vec<Option<Way>>, Fault> {
    let mut first_fault = None;
    let mut ways = Vec::with_capacity(ask.model.targets.len());
    for target in &ask.model.targets {
        let Some(engine) = ask.live.routes.engine(target.engine) else {
            ways.push(None);
            continue;
        };
        match way(app, ask, engine, &target.upstream) {
            Ok(way) => ways.push(way),
            Err(fault) => {
                first_fault.get_or_insert(fault);
                ways.push(None);
            }
        }
    }
    // Tokens can be counted here when no engine does it.
    if ways.iter().any(Option::is_some) || ask.protocol == Protocol::CountTokens {
        return Ok(ways);
    }
    Err(first_fault.unwrap_or_else(|| {
        let message = format!("No engine of `{}` can answer {}.", ask.model.name, ask.protocol.as_str());
        Fault::new(Code::NotTranslatable, message)
    }))
}

fn way(app: &App, ask: &Ask, engine: &EngineRoute, upstream: &str) -> Result<Option<Way>, Fault> {
    let Some(protocol) = translate::target(ask.protocol, &engine.speaks) else {
        return Ok(None);
    };
    if protocol == ask.protocol {
        return Ok(Some(Way::Same));
    }
    let (body, mut context) =
        translate::request_to(ask.protocol, protocol, &bounded(ask, &ask.seen.model, false), upstream)?;
    context.model = ask.model.name.to_string();
    // Of its own, not the trace's: a client may give all calls of a run one trace.
    context.id = app.traces.fresh()[8..].to_owned();
    context.created = ask.received.0 / 1_000_000;
    let hold = app.memory.hold(body.len() as u64).ok_or_else(ask::full)?;
    Ok(Some(Way::Translated(Box::new(Translated { protocol, body: body.into(), context, hold }))))
}

/// The request for an engine of the client's own protocol: the model's name in place,
/// usage asked for, and, where a budget covers the tenant, the output bounded by what is
/// reserved for it. (Text completions have a small limit of their own by default.)
pub fn bounded(ask: &Ask, model: &str, want_usage: bool) -> Bytes {
    let covered = ask.protocol != Protocol::Completions && ask.live.routes.budgeted(&ask.tenant);
    let limit = covered.then_some(ask.model.output_tokens_max);
    seawall_wire::rewrite::request(&ask.body, &ask.seen, model, want_usage, limit)
}

/// Submits the call to the kernel. With it come the places among `ways` of the engines
/// that were named to the kernel.
fn admit(app: &Arc<App>, ask: &Ask, ways: &[Option<Way>]) -> (Journey, Vec<u8>) {
    let targets = ways.iter().enumerate().filter(|(_, way)| way.is_some());
    let places: Vec<u8> = targets.filter_map(|(at, _)| u8::try_from(at).ok()).collect();
    let targets = places.iter().map(|at| ask.model.targets[usize::from(*at)].engine).collect();
    let generates = !matches!(ask.protocol, Protocol::Embeddings | Protocol::CountTokens | Protocol::Other);
    let choices = u64::from(ask.seen.choices.max(1));
    let work = ask.run.filter(|_| generates).map(|_| seawall_wire::work::fingerprint(&ask.body));
    let ticket = app.seat.submit(|call| Submit {
        call,
        tenant: ask.tenant.clone(),
        model: ask.model.id,
        targets,
        class: ask.class,
        run: ask.run,
        parent: ask.parent,
        agent: ask.agent.clone(),
        work,
        prompt: ask.seen.prompt_tokens,
        prompt_max: prompt_max(ask),
        output_max: ask.seen.output_max.map(|max| Tokens(max.0.saturating_mul(choices))),
        generates,
        bytes: seawall_model::Bytes(ask.body.len() as u64),
        deadline: ask.deadline,
        prefix: ask.seen.prefix.clone(),
    });
    let origin = Origin {
        trace: ask.trace.clone(),
        tenant: ask.tenant.clone(),
        run: ask.run,
        lineage: ask.lineage.clone(),
        agent: ask.agent.clone(),
        class: ask.class,
        protocol: ask.protocol,
        model: ask.model.id,
        model_name: ask.model.name.clone(),
        stream: ask.seen.stream,
        received: ask.received,
        prompt: ask.seen.prompt_tokens,
    };
    (Journey::new(app.clone(), origin, ticket), places)
}

/// The longest that the prompt may be. What an engine keeps (an earlier response, a stored
/// prompt) is not in the body: where the model's context is known, it may fill that.
fn prompt_max(ask: &Ask) -> Tokens {
    let seen = ask.seen.prompt_max;
    let context = ask.model.context_tokens_max.filter(|_| ask.seen.stored_prompt);
    context.map_or(seen, |context| seen.max(context))
}

/// Tokens counted by estimate, where no engine counts them.
fn count_here(app: &App, ask: &Ask) -> Response<Reply> {
    let line = Line::Counted {
        at_ms: clock::wall(ask.received).0 / 1_000,
        trace: ask.trace.clone(),
        tenant: ask.tenant.clone(),
        class: ask.class,
        model: ask.model.name.clone(),
        tokens: ask.seen.prompt_tokens,
    };
    if app.log.is_on() && !app.log.write(line) {
        app.metrics.service.dropped("log_line", 1);
    }
    let counted = seawall_wire::tokens::count_tokens_answer(ask.seen.prompt_tokens);
    let mut response = reply::json(StatusCode::OK, counted);
    response.headers_mut().insert("x-seawall-estimate", HeaderValue::from_static("true"));
    reply::trace_header(response.headers_mut(), &ask.trace);
    response
}

/// Tells the client, in headers, where its answer came from and what it waited for.
pub fn say_how(headers: &mut HeaderMap, ask: &Ask, grant: &Grant) {
    let engine = ask.live.engine_name(grant.engine);
    headers.insert("x-seawall-engine", crate::upstream::value(&engine));
    headers.insert("x-seawall-attempts", HeaderValue::from(grant.attempt));
    headers.insert("x-seawall-wait-ms", HeaderValue::from(grant.waits.total().0));
    if let Some(cause) = grant.waits.main() {
        headers.insert("x-seawall-wait-cause", HeaderValue::from_static(cause.as_str()));
    }
    if grant.repeats > 0 {
        // What would be refused if the guard were set to.
        headers.insert("x-seawall-warning", HeaderValue::from_static(Code::LoopStopped.as_str()));
    }
    reply::trace_header(headers, &ask.trace);
}

/// The answer to a call that the kernel turned away.
fn refused(ask: &Ask, refusal: &Refusal, attempts: u32, said: Option<Said>) -> Response<Reply> {
    let (mut response, engine) = match said {
        // The engine's own refusal, in its own words: the request is at fault, and the
        // client knows best what it asked.
        Some(Said { answer: Some(answer), engine, .. }) if refusal.code == Code::EngineRefused => {
            (answer, Some(engine))
        }
        said => {
            let fault = refusal_fault(refusal, said.as_ref());
            (reply::fault(ask.protocol, &fault, &ask.trace), said.map(|said| said.engine))
        }
    };
    let headers = response.headers_mut();
    if attempts > 0 {
        headers.insert("x-seawall-attempts", HeaderValue::from(attempts));
    }
    if let Some(cause) = refusal.cause {
        headers.insert("x-seawall-wait-cause", HeaderValue::from_static(cause.as_str()));
    }
    if let Some(engine) = engine {
        headers.insert("x-seawall-engine", crate::upstream::value(&engine));
    }
    reply::trace_header(headers, &ask.trace);
    response
}

/// A refusal in words.
#[must_use]
pub fn refusal_fault(refusal: &Refusal, said: Option<&Said>) -> Fault {
    let mut message = refusal.code.row().says.to_owned();
    if let Some(what) = &refusal.what {
        message.push_str(&format!(" ({what})"));
    }
    if let Some(cause) = refusal.cause {
        message.push_str(match cause {
            Cause::TenantShare => " It waited for its tenant's turn.",
            Cause::EngineFull => " It waited for room on the engine.",
            Cause::EngineDown => " It waited for an engine to come back.",
            Cause::RateLimit => " It waited for the rate limit.",
            Cause::TenantConcurrency => " It waited for the tenant's other calls to end.",
            Cause::Budget => " It waited for its budget.",
        });
    }
    // What a provider says of our own key is not for the tenant.
    let words = said.and_then(|said| said.message.as_deref());
    if let Some(words) = words.filter(|_| refusal.code != Code::EngineRejectedKey) {
        message.push_str(&format!(" The engine said: {words}"));
    }
    let fault = Fault::new(refusal.code, message);
    match refusal.retry_after {
        Some(wait) => fault.after(wait),
        None => fault,
    }
}
