//! Paths for whoever runs it: liveness, readiness, metrics, state.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use seawall_kernel::Input;
use seawall_kernel::view::{Circuit, ReplicaView};
use seawall_model::{At, Class, Code, Fault, RunId};
use serde_json::{Value, json};

use crate::app::{App, Live, Phase};
use crate::config::Config;

use super::ask;
use super::reply::{self, Reply};

/// `GET /healthz`: the process answers. A part that it cannot do without takes the process
/// with it ([`crate::process::vital`]), so there is nothing else to say.
#[must_use]
pub fn health() -> Response<Reply> {
    reply::json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}"))
}

/// `GET /readyz`: should calls be sent here? Fails as soon as a shutdown begins, while
/// calls are still taken.
#[must_use]
pub fn ready(app: &App) -> Response<Reply> {
    match *app.phase.borrow() {
        Phase::Serving => reply::json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ready\"}")),
        _ => {
            let body = Bytes::from_static(b"{\"status\":\"leaving\"}");
            reply::json(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

/// `GET /metrics`. Asks for an admin key if the config says so, and always where other
/// machines can reach it: the page names tenants and what they spend.
///
/// # Errors
/// `BadKey` or `AdminOnly` where an admin key is asked for and this is none.
pub fn metrics(app: &App, headers: &HeaderMap, now: At) -> Result<Response<Reply>, Fault> {
    let open = app.listening.ip().is_loopback();
    if metrics_closed(&app.live.load().config, open, app.keys.load().closed()) {
        admin(app, headers, now)?;
    }
    let mut response = Response::new(Reply::whole(app.metrics.page(app)));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn metrics_closed(config: &Config, on_loopback: bool, keys: bool) -> bool {
    config.metrics.require_admin || (!on_loopback && keys)
}

/// `GET /seawall/state`: engines, replicas and models as the kernel sees them.
///
/// # Errors
/// `BadKey` without a key, once there are keys; `AdminOnly` with one that is no admin's.
pub fn state(app: &App, headers: &HeaderMap, now: At) -> Result<Response<Reply>, Fault> {
    admin(app, headers, now)?;
    let live = app.live.load();
    let view = app.seat.view();
    let engines: Vec<Value> = view
        .engines
        .iter()
        .map(|engine| {
            let queued: serde_json::Map<String, Value> = Class::ALL
                .iter()
                .map(|class| (class.as_str().to_owned(), json!(engine.queued[*class as usize])))
                .collect();
            let replicas: Vec<Value> =
                engine.replicas.iter().map(|replica| replica_state(app, &live, replica)).collect();
            let kind = live.routes.engine(engine.engine).map(|route| route.kind.as_str());
            json!({
                "name": &*live.engine_name(engine.engine),
                "kind": kind,
                "queued": queued,
                "queued_bytes": engine.queued_bytes.0,
                "replicas": replicas,
            })
        })
        .collect();
    let models: Vec<Value> = live
        .routes
        .listed()
        .map(|model| {
            let targets: Vec<String> = model
                .targets
                .iter()
                .map(|target| format!("{}/{}", live.engine_name(target.engine), target.upstream))
                .collect();
            json!({"name": &*model.name, "targets": targets})
        })
        .collect();
    let budgets: Vec<Value> = view
        .budgets
        .iter()
        .map(|b| json!({"account": &*b.account, "limit": b.limit, "spent": b.spent, "reserved": b.reserved}))
        .collect();
    let tenants: Vec<Value> = view
        .tenants
        .iter()
        .map(|t| json!({"path": &*t.path, "queued": t.queued, "running": t.running, "served": t.served}))
        .collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "engines": engines,
        "models": models,
        "tenants": tenants,
        "budgets": budgets,
        "calls": view.calls,
        "agents": app.agents.as_ref().map(|agents| agents.state()),
    });
    Ok(reply::json(StatusCode::OK, body.to_string()))
}

/// `POST /seawall/runs/ID/stop` and `.../resume`, where ID is the run's id in 16 hex digits
/// as the access log has it: stops a run and all below it, or lets it go on.
///
/// # Errors
/// As [`state`]; `PathUnknown` for what is no id; `QueueFull` if too many are stopped.
pub fn halt(
    app: &App,
    headers: &HeaderMap,
    now: At,
    run: &str,
    stop: bool,
) -> Result<Response<Reply>, Fault> {
    admin(app, headers, now)?;
    let id = u64::from_str_radix(run, 16).ok().filter(|_| run.len() == 16).map(RunId);
    let id = id.ok_or_else(|| Fault::new(Code::PathUnknown, "A run's id is 16 hex digits."))?;
    if !stop {
        app.seat.tell(Input::Resume { run: id });
    } else if !app.seat.stop(id) {
        return Err(Fault::new(Code::QueueFull, "As many runs are stopped as may be: resume some."));
    }
    tracing::info!(run, "{}", if stop { "run stopped" } else { "run resumed" });
    Ok(reply::json(StatusCode::OK, json!({ "run": run, "stopped": stop }).to_string()))
}

fn replica_state(app: &App, live: &Live, replica: &ReplicaView) -> Value {
    let circuit = match replica.circuit {
        Circuit::Closed => "closed",
        Circuit::Open => "open",
        Circuit::HalfOpen => "half_open",
    };
    json!({
        "url": &*live.replica_name(replica.replica),
        "running": replica.running,
        "limit": replica.limit,
        "predicted_tokens": replica.tokens.0,
        "circuit": circuit,
        "why": app.reach.why(replica.replica).as_deref(),
    })
}

/// Only for whoever may see the operations paths.
///
/// # Errors
/// `BadKey` without a key, once there are keys; `AdminOnly` with one that is no admin's.
pub(super) fn admin(app: &App, headers: &HeaderMap, now: At) -> Result<(), Fault> {
    if ask::caller(app, headers, now)?.admin {
        return Ok(());
    }
    Err(Fault::plain(Code::AdminOnly).at("authorization"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_ask_for_an_admin_key_where_other_machines_can_come() {
        let mut config = Config::bare("data".into());
        assert!(!metrics_closed(&config, true, true));
        config.metrics.require_admin = true;
        assert!(metrics_closed(&config, true, true));
        config.metrics.require_admin = false;
        assert!(metrics_closed(&config, false, true));
        assert!(!metrics_closed(&config, false, false), "without keys nothing can be asked for");
    }
}
