//! Definitions of agents through the API: checked as a whole, kept beside those that are
//! written by hand, and in force at once.

use std::sync::Arc;

use http::{StatusCode, header};
use seawall_kernel::agents::Input;
use seawall_model::{Code, Fault, limits};
use serde_json::{Value, json};

use crate::agents::define::Definition;
use crate::config::Problem;

use super::{Answer, Request, unread};

/// `GET definitions/TYPE`, perhaps with `version`: the file as it was written.
pub(super) async fn one(mut request: Request<'_>, kind: String) -> Answer {
    request.who.only_admin()?;
    let version = request.query.take("version");
    request.query.finish()?;
    let newest = request.runtime.library.of(&kind);
    let version = match (version, newest) {
        (Some(version), _) if version.len() == 12 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            version
        }
        (None, Some(newest)) => newest.version.to_string(),
        (Some(_), _) => return Err(unversioned(&kind)),
        (None, None) => return Err(undefined(&kind)),
    };
    let (library, of, sought) = (request.runtime.library.clone(), kind.clone(), version.clone());
    let text = request.read(move |_| Ok(library.text(&of, &sought))).await?;
    let text = text.ok_or_else(|| unversioned(&kind))?;
    request.json(StatusCode::OK, &json!({"type": kind, "version": version, "toml": text}))
}

/// `PUT definitions/TYPE`: TOML, or a JSON object with the same keys.
pub(super) async fn set(request: Request<'_>, kind: String) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    if request.body.len() > limits::DEFINITION_BYTES_MAX {
        let message = format!("A definition has at most {} bytes.", limits::DEFINITION_BYTES_MAX);
        return Err(Fault::new(Code::BodyTooLarge, message));
    }
    let text = as_toml(&request, &kind)?;
    let (definition, warnings) = Definition::from_toml(&kind, &text).map_err(|all| problems(&all))?;
    if *definition.kind != *kind {
        let message = format!("The definition's `name` is `{}`, and the path's `{kind}`.", definition.kind);
        return Err(Fault::new(Code::BadField, message).at("name"));
    }
    let live = request.app.live.load_full();
    let (runtime, of) = (request.runtime.clone(), kind.clone());
    let done = request.runtime.read(move |_| Ok(runtime.define(&live.config, &of, Some(&text)))).await;
    done.map_err(unread)?.map_err(not_in_force)?;
    record(&request, &kind, Some(definition.version.clone())).await?;
    tracing::info!(kind, version = %definition.version, by = %request.who.by, "a definition was put into force");
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let body = json!({"type": kind, "version": &*definition.version, "warnings": warnings});
    request.json(StatusCode::OK, &body)
}

/// The body as a file of the folder of definitions.
fn as_toml(request: &Request<'_>, kind: &str) -> Result<String, Fault> {
    let written = request.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = written.is_some_and(|written| written.contains("json"))
        || request.body.trim_ascii_start().starts_with(b"{");
    if !is_json {
        return String::from_utf8(request.body.to_vec())
            .map_err(|_| Fault::new(Code::BadField, "The definition is not UTF-8."));
    }
    let mut body: Value = serde_json::from_slice(&request.body)
        .map_err(|_| Fault::new(Code::BadJson, "The body is neither a JSON object nor TOML."))?;
    if let Some(fields) = body.as_object_mut() {
        fields.entry("name").or_insert_with(|| kind.into());
    }
    Definition::toml_of_json(body.to_string().as_bytes()).map_err(|all| problems(&all))
}

/// `DELETE definitions/TYPE`: no new runs; those under way keep their version.
pub(super) async fn remove(request: Request<'_>, kind: String) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    if request.runtime.library.of(&kind).is_none() {
        return Err(undefined(&kind));
    }
    let live = request.app.live.load_full();
    let (runtime, of) = (request.runtime.clone(), kind.clone());
    let done = request.runtime.read(move |_| Ok(runtime.define(&live.config, &of, None))).await;
    done.map_err(unread)?.map_err(not_in_force)?;
    record(&request, &kind, None).await?;
    tracing::info!(kind, by = %request.who.by, "a definition was removed");
    request.json(StatusCode::OK, &json!({"type": kind, "removed": true}))
}

/// Writes into the journal who did it.
async fn record(request: &Request<'_>, kind: &str, version: Option<Arc<str>>) -> Result<(), Fault> {
    let (kind, by) = (kind.into(), request.who.by.clone());
    request.tell(|ticket| Input::Define { ticket, kind, version, by }).await?;
    Ok(())
}

fn undefined(kind: &str) -> Fault {
    Fault::new(Code::AgentUnknown, format!("No agent of type `{kind}` is defined."))
}

fn unversioned(kind: &str) -> Fault {
    Fault::new(Code::AgentUnknown, format!("The type `{kind}` has no such version."))
        .advise("A version is 12 hex digits: `seawall agents` shows the one in force, `seawall run RUN` that of a run.")
}

fn problems(all: &[Problem]) -> Fault {
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    Fault::new(Code::BadField, lines.join("\n")).at("body")
}

fn not_in_force(why: String) -> Fault {
    Fault::new(Code::BadField, why).at("body")
}
