//! `seawall models`: asks a running server what it serves and how its engines are.

use std::future::Future;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use seawall_model::{Millis, limits};
use serde_json::{Value, json};

use crate::config::Url;
use crate::tasks::Tasks;
use crate::upstream::{self, Sending};

use super::args::ModelsArgs;
use super::code;
use super::print::{self, BAD, Cell, DIM, GOOD, Table, WARN};

/// The whole question may take this long: the answer comes from memory.
const WAIT: Duration = Duration::from_secs(10);
/// Largest answer read: [`limits::MODELS_MAX`] models at 4 KiB.
const ANSWER_BYTES_MAX: usize = limits::MODELS_MAX * 4_096;

pub(crate) fn run(args: &ModelsArgs) -> i32 {
    match ask(args) {
        Ok(state) if args.json.json => print::json(&state),
        Ok(state) => print::text(&render(&state)),
        Err(failed) => {
            print::failure(&failed.what, &failed.hint);
            return failed.code;
        }
    }
    code::OK
}

pub(super) struct Failed {
    pub(super) code: i32,
    pub(super) what: String,
    pub(super) hint: String,
}

pub(super) fn failed(code: i32, what: impl Into<String>, hint: impl Into<String>) -> Failed {
    Failed { code, what: what.into(), hint: hint.into() }
}

fn ask(args: &ModelsArgs) -> Result<Value, Failed> {
    let url = parse(&args.url)?;
    wait_for(&url, state(&url, args.key.as_deref()))
}

/// The server's address as given.
pub(super) fn parse(url: &str) -> Result<Url, Failed> {
    Url::parse(url).map_err(|e| failed(code::USAGE, format!("--url {url:?}: {e}"), e.hint()))
}

/// Waits for a server's answer, within a time.
pub(super) fn wait_for<T>(url: &Url, asking: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed(code::INTERNAL, format!("no runtime: {e}"), ""))?;
    runtime.block_on(async {
        tokio::time::timeout(WAIT, Box::pin(asking)).await.unwrap_or_else(|_| {
            Err(failed(
                code::UNAVAILABLE,
                format!("{url} did not answer within {} s", WAIT.as_secs()),
                "is it Seawall?",
            ))
        })
    })
}

/// The state if the key may see it, else what every client may see.
async fn state(url: &Url, key: Option<&str>) -> Result<Value, Failed> {
    let (status, body) = fetch(url, Method::GET, "/seawall/state", key).await?;
    let body = if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && key.is_some() {
        let (status, list) = fetch(url, Method::GET, "/v1/models", key).await?;
        (status == StatusCode::OK).then(|| listed(&list)).ok_or_else(|| refused(url, status))?
    } else if status == StatusCode::OK {
        body
    } else {
        return Err(refused(url, status));
    };
    if body["models"].is_array() { Ok(body) } else { Err(refused(url, status)) }
}

pub(super) fn refused(url: &Url, status: StatusCode) -> Failed {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let hint = "pass one with --key or SEAWALL_API_KEY; an admin key also shows engines";
            failed(code::USAGE, format!("{url} asks for a key"), hint)
        }
        _ => failed(
            code::UNAVAILABLE,
            format!("{url} answered {status}: it seems not to be Seawall"),
            "name its address with --url",
        ),
    }
}

/// The public list in the shape of the state.
fn listed(list: &Value) -> Value {
    let models: Vec<Value> = list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|model| json!({ "name": model["id"], "targets": [] }))
        .collect();
    json!({ "models": models, "engines": [] })
}

pub(super) async fn fetch(
    url: &Url,
    method: Method,
    path: &str,
    key: Option<&str>,
) -> Result<(StatusCode, Value), Failed> {
    let options = upstream::Options {
        connect: Millis(limits::CONNECT_MS_MAX),
        extra_roots: None,
        window: limits::STREAM_WINDOW_BYTES,
        proxy_from_env: false,
    };
    let client =
        upstream::client(&options, &Tasks::default()).map_err(|what| failed(code::INTERNAL, what, ""))?;
    let uri = url.join(path).map_err(|e| failed(code::USAGE, format!("{url}{path}: {e}"), ""))?;
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request
        .body(Sending::none())
        .map_err(|_| failed(code::USAGE, "the key holds characters that no header may hold", ""))?;
    let answer = client.request(request, true).await.map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        failed(code::UNAVAILABLE, format!("nothing answers at {url}: {why}"), "start it with: seawall serve")
    })?;
    let status = answer.status();
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| failed(code::UNAVAILABLE, format!("the answer of {url} broke off: {e}"), ""))?;
        let Some(part) = frame.data_ref() else { continue };
        if bytes.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(failed(
                code::UNAVAILABLE,
                format!("the answer of {url} is too large"),
                "is it Seawall?",
            ));
        }
        bytes.extend_from_slice(part);
    }
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

/// The state as two tables.
pub(crate) fn render(state: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut models = Table::new(&["model", "targets"]);
    for model in list(&state["models"]) {
        let targets: Vec<String> = list(&model["targets"]).iter().map(&text).collect();
        models.row(vec![text(&model["name"]).into(), Cell::styled(targets.join(" > "), DIM)]);
    }
    let all = list(&state["engines"]);
    let lost = all.iter().flat_map(|engine| list(&engine["replicas"])).any(|r| r["why"].is_string());
    let heads = ["engine", "kind", "replica", "state", "running", "limit", "queued", "why"];
    // Most of the time there is nothing to say why.
    let heads = if lost { &heads[..] } else { &heads[..heads.len() - 1] };
    let mut engines = Table::new(heads);
    for engine in all {
        let queued =
            engine["queued"].as_object().map(|by| by.values().filter_map(Value::as_u64).sum::<u64>());
        let queued = queued.map_or_else(|| "-".to_owned(), |sum| sum.to_string());
        for (index, replica) in list(&engine["replicas"]).iter().enumerate() {
            let circuit = match replica["circuit"].as_str() {
                Some("closed") if replica["why"].is_string() => Cell::styled("failing", WARN),
                Some("closed") => Cell::styled("up", GOOD),
                Some("half_open") => Cell::styled("trying", WARN),
                Some("open") => Cell::styled("down", BAD),
                _ => "-".into(),
            };
            let first = |text: String| if index == 0 { text } else { String::new() };
            let mut row: Vec<Cell> = vec![
                first(text(&engine["name"])).into(),
                first(text(&engine["kind"])).into(),
                text(&replica["url"]).into(),
                circuit,
                number(&replica["running"]).into(),
                number(&replica["limit"]).into(),
                first(queued.clone()).into(),
            ];
            if lost {
                row.push(replica["why"].as_str().unwrap_or_default().into());
            }
            engines.row(row);
        }
    }
    match (models.is_empty(), engines.is_empty()) {
        (true, _) => {
            "The server has no models yet: its engines have not answered, or list none.\n".to_owned()
        }
        (false, true) => models.render(),
        (false, false) => format!("{}\n{}", models.render(), engines.render()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_becomes_two_tables() {
        let state = json!({
            "models": [{ "name": "fast", "targets": ["vllm/llama", "openai/gpt-4o-mini"] }, { "name": "x", "targets": [] }],
            "engines": [{
                "name": "vllm", "kind": "openai", "queued": { "interactive": 2, "batch": 1 },
                "replicas": [
                    { "url": "http://a:8000", "circuit": "closed", "running": 3, "limit": 64 },
                    { "url": "http://b:8000", "circuit": "open", "running": 0, "limit": 1 },
                ],
            }],
        });
        insta::assert_snapshot!(print::plain(&render(&state)), @r"
        model  targets
        fast   vllm/llama > openai/gpt-4o-mini
        x

        engine  kind    replica        state  running  limit  queued
        vllm    openai  http://a:8000  up     3        64     3
                        http://b:8000  down   0        1
        ");
    }

    #[test]
    fn why_a_replica_cannot_be_reached_is_shown_where_one_cannot() {
        let state = json!({
            "models": [{ "name": "m", "targets": [] }],
            "engines": [{
                "name": "e", "kind": "openai", "queued": {},
                "replicas": [
                    { "url": "http://a", "circuit": "closed", "running": 3, "limit": 64, "why": null },
                    { "url": "http://b", "circuit": "closed", "running": 0, "limit": 1, "why": "refused" },
                    { "url": "http://c", "circuit": "open", "running": 0, "limit": 1, "why": "too long" },
                ],
            }],
        });
        insta::assert_snapshot!(print::plain(&render(&state)), @r"
        model  targets
        m

        engine  kind    replica   state    running  limit  queued  why
        e       openai  http://a  up       3        64     0
                        http://b  failing  0        1              refused
                        http://c  down     0        1              too long
        ");
    }

    #[test]
    fn whatever_a_server_says_is_only_shown() {
        for odd in [
            json!(null),
            json!({ "models": 3 }),
            json!({ "models": [1, null], "engines": [{ "replicas": [7] }] }),
        ] {
            assert!(!render(&odd).is_empty());
        }
        assert_eq!(listed(&json!({ "data": [{ "id": "m" }] }))["models"][0]["name"], "m");
    }
}
