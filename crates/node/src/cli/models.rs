//! `seawall models`: asks a running server what it serves and how its engines are.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::args::ModelsArgs;
use super::code;
use super::print::{self, BAD, Cell, DIM, GOOD, Table, WARN};
use super::server::{Failed, Server};

pub(crate) fn run(args: &ModelsArgs) -> i32 {
    match Server::at(&args.server).and_then(|server| state(&server, args.server.key.is_some())) {
        Ok(state) if args.json.json => print::json(&state),
        Ok(state) => print::text(&render(&state)),
        Err(failed) => return failed.tell(args.json),
    }
    code::OK
}

/// The state if the key may see it, else what every client may see.
fn state(server: &Server, has_key: bool) -> Result<Value, Failed> {
    let (status, body) = server.fetch(Method::GET, "/seawall/state", None)?;
    let body = if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && has_key {
        let (status, list) = server.fetch(Method::GET, "/v1/models", None)?;
        (status == StatusCode::OK).then(|| listed(&list)).ok_or_else(|| server.refused(status, &list))?
    } else if status == StatusCode::OK {
        body
    } else {
        return Err(server.refused(status, &body));
    };
    if body["models"].is_array() { Ok(body) } else { Err(server.refused(status, &Value::Null)) }
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
