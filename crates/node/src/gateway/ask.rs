//! From a client's request to something the kernel can decide on: who asks, for what,
//! with which body. Everything that can be wrong with a request is found here.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use seawall_model::{Agent, At, Class, Code, Fault, Lineage, Millis, Protocol, RunId, Tenant, limits};
use seawall_wire::inspect::Inspected;

use crate::app::{App, Live};
use crate::clock;
use crate::config::plan::{AGENT_PREFIX, ModelRoute, names_agent};
use crate::keys::Caller;
use crate::memory::Hold;

use super::memo::{self, Memo};
use super::purse;

/// A request that can be decided on.
#[derive(Debug)]
pub struct Ask {
    /// The configuration it is served under.
    pub live: Arc<Live>,
    /// The client's protocol.
    pub protocol: Protocol,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The body as sent.
    pub body: Bytes,
    /// Its bytes in the byte budget.
    pub hold: Hold,
    /// What the body says.
    pub seen: Inspected,
    /// Who asks.
    pub tenant: Tenant,
    /// Its class.
    pub class: Class,
    /// Its run.
    pub run: Option<RunId>,
    /// That run's name and its parent's.
    pub lineage: Option<Arc<Lineage>>,
    /// The agent, as it calls itself.
    pub agent: Option<Agent>,
    /// The run that this run works for.
    pub parent: Option<RunId>,
    /// Is its answer to be replayed or kept?
    pub memo: Option<Memo>,
    /// When the answer must have begun.
    pub deadline: Option<At>,
    /// What the model's name stands for.
    pub model: ModelRoute,
    /// Trace id.
    pub trace: Arc<str>,
    /// When it came.
    pub received: At,
}

/// A body received whole, from somebody known.
#[derive(Debug)]
pub struct Receipt {
    /// Who sent it.
    pub caller: Caller,
    /// The configuration it is served under.
    pub live: Arc<Live>,
    /// The body.
    pub body: Bytes,
    /// Its bytes in the byte budget.
    pub hold: Hold,
}

/// Finds out who asks and receives the body.
///
/// # Errors
/// `BadKey`, or what [`whole_body`] says.
pub async fn receive(app: &Arc<App>, parts: &Parts, body: Incoming, received: At) -> Result<Receipt, Fault> {
    let live = app.live.load_full();
    let caller = match caller(app, &parts.headers, received) {
        Ok(caller) => caller,
        Err(fault) => {
            turn_away(&parts.headers, body).await;
            return Err(fault);
        }
    };
    let (body, hold) = whole_body(app, &live, &parts.headers, body).await?;
    Ok(Receipt { caller, live, body, hold })
}

/// Checks a request for one of the served protocols, of which `seen` is what its body says.
///
/// # Errors
/// A fault with its own code for each thing that can be wrong.
pub fn read(
    app: &App,
    parts: &Parts,
    receipt: Receipt,
    seen: Inspected,
    trace: &Arc<str>,
    received: At,
) -> Result<Ask, Fault> {
    let Receipt { caller, live, body, hold } = receipt;
    let protocol = seen.protocol;
    let model = resolve(&live, &seen.model)?;
    let tenant = sub_tenant(&caller.tenant, &parts.headers)?;
    allowed(&live, &caller, &tenant, &model)?;
    let class = class(&live, &caller, &tenant, &parts.headers)?;
    let lineage = lineage(&caller, &parts.headers)?;
    let (run, parent) = runs(&tenant, lineage.as_deref());
    let agent = agent(&caller, &parts.headers)?;
    let memo = memo::wanted(&parts.headers, &tenant, lineage.as_deref(), protocol, &body)?;
    let deadline = deadline(&parts.headers, received)?;
    purse::bound(app, &tenant, lineage.as_deref(), &parts.headers)?;
    if let Some(key) = &caller.key {
        app.disk.key_used(key, clock::wall(received));
    }
    Ok(Ask {
        live,
        protocol,
        headers: parts.headers.clone(),
        body,
        hold,
        seen,
        tenant,
        class,
        run,
        lineage,
        agent,
        parent,
        memo,
        deadline,
        model,
        trace: trace.clone(),
        received,
    })
}

/// Who sent these headers.
///
/// # Errors
/// `BadKey`.
pub fn caller(app: &App, headers: &HeaderMap, now: At) -> Result<Caller, Fault> {
    app.keys.load().caller(headers, clock::wall(now))
}

/// Reads a body whole, within its own limit, the byte budget and a time.
///
/// # Errors
/// `BodyTooLarge`, `MemoryFull`, `BodyTimeout`, or `BadJson` for a body that breaks off.
pub async fn whole_body(
    app: &App,
    live: &Live,
    headers: &HeaderMap,
    mut body: Incoming,
) -> Result<(Bytes, Hold), Fault> {
    let limits = &live.config.limits;
    let wait = Duration::from_millis(limits.body_wait_ms_max.0);
    let reading = read_whole(app, &mut body, limits.body_bytes_max.0);
    match tokio::time::timeout(wait, reading).await {
        Ok(Err(fault)) => {
            turn_away(headers, body).await;
            Err(fault)
        }
        Ok(read) => read,
        Err(_) => Err(Fault::plain(Code::BodyTimeout)),
    }
}

/// The byte budget has no room for a request.
#[must_use]
pub fn full() -> Fault {
    Fault::plain(Code::MemoryFull).after(Millis(1_000))
}

async fn read_whole(app: &App, body: &mut Incoming, len_max: u64) -> Result<(Bytes, Hold), Fault> {
    let too_large = || {
        let message = format!("The request body is larger than the limit of {len_max} bytes.");
        Fault::new(Code::BodyTooLarge, message)
    };
    let hint = body.size_hint();
    if hint.lower() > len_max {
        return Err(too_large());
    }
    // Grown as bytes come: a length that is only claimed holds nothing.
    let mut hold = app.memory.hold(0).ok_or_else(full)?;
    let mut whole = BytesMut::new();
    let mut only: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::new(Code::BadJson, "The request body broke off."))?;
        let Ok(data) = frame.into_data() else { continue };
        let len = whole.len() as u64 + only.as_ref().map_or(0, |only| only.len() as u64) + data.len() as u64;
        if len > len_max {
            return Err(too_large());
        }
        if !hold.grow(data.len() as u64) {
            return Err(full());
        }
        // Most bodies come in one piece, which is then kept as it is.
        match (only.take(), whole.is_empty()) {
            (None, true) => only = Some(data),
            (Some(first), _) => {
                let room = usize::try_from(hint.lower()).unwrap_or(0).max(first.len() + data.len());
                whole.reserve(room);
                whole.extend_from_slice(&first);
                whole.extend_from_slice(&data);
            }
            (None, false) => whole.extend_from_slice(&data),
        }
    }
    Ok((only.unwrap_or_else(|| whole.freeze()), hold))
}

/// Most bytes that are read and thrown away so that a client hears why.
const DRAINED_BYTES_MAX: usize = 64 << 20;
/// A client that sends nothing for this long has stopped to listen.
const DRAIN_PAUSE: Duration = Duration::from_millis(200);
/// Nor is one heard out for longer than this, however steadily it sends.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// Reads on for a while without keeping anything: a client that is still sending does
/// not hear an answer, it only sees the connection break. One that asked first
/// (`Expect: 100-continue`) is not sending.
pub async fn turn_away(headers: &HeaderMap, body: Incoming) {
    if !headers.contains_key(http::header::EXPECT) {
        drain(body).await;
    }
}

/// Reads on for a while, as [`turn_away`] does, from a client that is known to be sending.
pub async fn drain(body: Incoming) {
    // Past the limits the client sees the connection break.
    let _ = tokio::time::timeout(DRAIN_WAIT, discard(body)).await;
}

async fn discard(mut body: Incoming) {
    let mut read = 0;
    while read < DRAINED_BYTES_MAX {
        match tokio::time::timeout(DRAIN_PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// What a model's name stands for.
///
/// # Errors
/// `ModelUnknown`, with the nearest name that exists.
pub fn resolve(live: &Live, name: &str) -> Result<ModelRoute, Fault> {
    let found = live.routes.resolve(name).and_then(|id| live.routes.model(id));
    found.cloned().ok_or_else(|| {
        // The name is the client's own text: shortened, and never logged.
        let shown: String = name.chars().take(100).collect();
        let message = match live.routes.nearest(name) {
            Some(near) => format!("No model is called `{shown}`; did you mean `{near}`?"),
            None => format!("No model is called `{shown}`."),
        };
        Fault::new(Code::ModelUnknown, message).at("model")
    })
}

/// May this caller use this model, by its key and by its tenant's rules?
#[must_use]
pub fn may_use(live: &Live, caller: &Caller, tenant: &Tenant, model: &ModelRoute) -> bool {
    let by_key = caller.models.is_empty() || live.routes.names_one(&caller.models, model.id);
    by_key && live.routes.allows(tenant, model.id)
}

/// As [`may_use`], with the reason.
///
/// # Errors
/// `ModelForbidden`.
pub fn allowed(live: &Live, caller: &Caller, tenant: &Tenant, model: &ModelRoute) -> Result<(), Fault> {
    if may_use(live, caller, tenant, model) {
        return Ok(());
    }
    let message = format!("`{tenant}` may not use the model `{}`.", model.name);
    Err(Fault::new(Code::ModelForbidden, message).at("model"))
}

/// May whoever has a key for these models (none: all) set this agent of this tenant to work,
/// by the key's and the tenant's lists?
#[must_use]
pub fn may_use_agent(live: &Live, models: &[String], tenant: &Tenant, agent: &Agent) -> bool {
    key_allows(models, agent) && live.routes.allows_agent(tenant, agent)
}

/// Is the agent among these models of a key, agents among them? None means all.
#[must_use]
pub fn key_allows(models: &[String], agent: &Agent) -> bool {
    models.is_empty() || names_agent(models, agent)
}

/// As [`may_use_agent`], with the reason.
///
/// # Errors
/// `ModelForbidden`.
pub fn agent_allowed(live: &Live, models: &[String], tenant: &Tenant, agent: &Agent) -> Result<(), Fault> {
    if may_use_agent(live, models, tenant, agent) {
        return Ok(());
    }
    let message = format!("`{tenant}` may not use the model `{AGENT_PREFIX}{agent}`.");
    Err(Fault::new(Code::ModelForbidden, message).at("model"))
}

/// The key's tenant, with the user named in `x-seawall-user` below it.
///
/// # Errors
/// `BadHeader` if that is no tenant segment, or the path gets too deep.
pub fn sub_tenant(tenant: &Tenant, headers: &HeaderMap) -> Result<Tenant, Fault> {
    let Some(user) = text(headers, "x-seawall-user")? else {
        return Ok(tenant.clone());
    };
    if user.contains('/') {
        return Err(Fault::new(Code::BadHeader, "A user is one segment, without `/`.").at("x-seawall-user"));
    }
    Tenant::parse(&format!("{tenant}/{user}"))
        .map_err(|why| Fault::new(Code::BadHeader, format!("`x-seawall-user`: {why}.")).at("x-seawall-user"))
}

/// The class: the key's, else the tenant's, else interactive; the header may lower it,
/// never raise it above what the key or tenant has.
///
/// # Errors
/// `BadHeader` for a class that does not exist.
pub fn class(live: &Live, caller: &Caller, tenant: &Tenant, headers: &HeaderMap) -> Result<Class, Fault> {
    let own = caller.class.or_else(|| live.routes.class_of(tenant)).unwrap_or_default();
    let Some(name) = text(headers, "x-seawall-class")? else { return Ok(own) };
    let asked = Class::from_name(name).ok_or_else(|| {
        let message = "The class is one of interactive, agent and batch.";
        Fault::new(Code::BadHeader, message).at("x-seawall-class")
    })?;
    Ok(own.max(asked))
}

/// The run, by name, and the run that it works for. A call that names none is of its key's
/// run, if that has one.
///
/// # Errors
/// `BadHeader` for a name that is no text or over 256 bytes, and for a parent without a
/// run.
pub fn lineage(caller: &Caller, headers: &HeaderMap) -> Result<Option<Arc<Lineage>>, Fault> {
    let run = named(headers, "x-seawall-run")?.map(Into::into).or_else(|| caller.run.clone());
    let parent: Option<Arc<str>> = named(headers, "x-seawall-parent")?.map(Into::into);
    match run {
        Some(run) => Ok(Some(Arc::new(Lineage { run, parent }))),
        None if parent.is_none() => Ok(None),
        None => {
            let message = "Only a run has a parent: send `x-seawall-run` as well.";
            Err(Fault::new(Code::BadHeader, message).at("x-seawall-parent"))
        }
    }
}

/// The ids of a run and its parent.
#[must_use]
pub fn runs(tenant: &Tenant, lineage: Option<&Lineage>) -> (Option<RunId>, Option<RunId>) {
    let parent = lineage.and_then(|lineage| lineage.parent.as_deref());
    (lineage.map(|lineage| run_id(tenant, &lineage.run)), parent.map(|name| run_id(tenant, name)))
}

fn named<'a>(headers: &'a HeaderMap, header: &'static str) -> Result<Option<&'a str>, Fault> {
    let name = text(headers, header)?;
    if name.is_some_and(|name| name.len() > limits::RUN_NAME_BYTES_MAX) {
        return Err(Fault::new(Code::BadHeader, "A run's name has at most 256 bytes.").at(header));
    }
    Ok(name)
}

/// The agent, as it calls itself; one that does not is its key's agent, if that has one.
///
/// # Errors
/// `BadHeader` for what is no agent's name.
pub fn agent(caller: &Caller, headers: &HeaderMap) -> Result<Option<Agent>, Fault> {
    let Some(name) = text(headers, "x-seawall-agent")? else {
        return Ok(caller.agent.clone());
    };
    let bad = "An agent is `type/key`: letters, digits and . _ - @ : on either side, at most 128 bytes.";
    Agent::parse(name).map(Some).map_err(|_| Fault::new(Code::BadHeader, bad).at("x-seawall-agent"))
}

/// A run's id: a digest of tenant and name, so that two tenants' runs never meet.
#[must_use]
pub fn run_id(tenant: &Tenant, name: &str) -> RunId {
    // FNV-1a, 64 bits (Fowler, Noll, Vo): the digest only has to be stable and spread.
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for byte in tenant.as_str().bytes().chain([0]).chain(name.bytes()) {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    RunId(digest)
}

/// When the answer must have begun.
///
/// # Errors
/// `BadHeader` for anything but a whole number of milliseconds above zero.
pub fn deadline(headers: &HeaderMap, received: At) -> Result<Option<At>, Fault> {
    let Some(ms) = text(headers, "x-seawall-deadline-ms")? else {
        return Ok(None);
    };
    match ms.parse::<u64>() {
        Ok(ms) if ms > 0 => Ok(Some(received.plus(Millis(ms)))),
        _ => {
            let message = "The deadline is a whole number of milliseconds above zero.";
            Err(Fault::new(Code::BadHeader, message).at("x-seawall-deadline-ms"))
        }
    }
}

/// A header as text.
///
/// # Errors
/// `BadHeader` if it is none.
pub fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Fault::new(Code::BadHeader, format!("`{name}` is not plain text.")).at(name)),
    }
}
