//! `seawall events`: what happened to a run, one line each, and what goes on happening.

use std::time::Duration;

use serde_json::Value;

use crate::cli::code;
use crate::cli::print::{self, BAD, BOLD, Cell, DIM, GOOD, Table, WARN};
use crate::cli::server::{End, Failed, Server, failed, with_query};

use super::args::EventsArgs;
use super::{attempt, run_named, show};

/// A stream on which nothing at all comes for so long is asked for anew: a connection can
/// die without a word.
const SILENCE: Duration = Duration::from_secs(60);
/// Pause before a stream is asked for again that ended at once.
const REST: Duration = Duration::from_secs(1);
/// Events asked for at once: what the server gives.
const PAGE: usize = 1_000;
/// Longest text of one event's fields.
const DETAIL_CHARS_MAX: usize = 200;

pub(super) fn run(args: &EventsArgs) -> i32 {
    attempt(|| {
        let run = run_named(&args.run)?.to_string();
        let server = Server::at(&args.ask.server)?;
        let path = format!("/seawall/runs/{run}/events");
        if args.follow {
            return follow(args, &server, &path);
        }
        let (from, limit) = (args.from.map(|from| from.to_string()), PAGE.to_string());
        let query = [("from", from.as_deref()), ("limit", Some(&*limit))];
        let answer = server.get(&with_query(&path, &query))?;
        if args.ask.json.json {
            print::json(&answer);
        } else {
            print::text(&render(&answer));
        }
        Ok(code::OK)
    })
}

/// Prints events as they happen, until the run is over; takes the stream up again where it
/// broke off.
fn follow(args: &EventsArgs, server: &Server, path: &str) -> Result<i32, Failed> {
    let mut from = args.from;
    loop {
        let since = from.map(|from| from.to_string());
        let news = with_query(path, &[("follow", Some("1")), ("from", since.as_deref())]);
        let (mut seen, mut last) = (false, Value::Null);
        let end = server.follow(&news, SILENCE, |event| {
            let Some(seq) = event["seq"].as_u64() else {
                // How the stream ends: the run is over, or it cannot be read.
                last = event.clone();
                return false;
            };
            (seen, from) = (true, Some(seq + 1));
            print::line(&if args.ask.json.json { event.to_string() } else { line(event) });
            true
        })?;
        if let Some(why) = last["error"]["message"].as_str() {
            return Err(failed(code::UNAVAILABLE, why, ""));
        }
        if let Some(state) = last["state"].as_str() {
            print::note(&format!("{} is {}", show::text(&last["run"]), show::clean(state, false)));
            return Ok(code::OK);
        }
        if end == End::Over && !seen {
            server.rest(REST);
        }
    }
}

fn render(answer: &Value) -> String {
    let events = show::list(&answer["events"]);
    if events.is_empty() {
        return "Nothing of this run is kept from there on.\n".to_owned();
    }
    let mut table = Table::new(&["seq", "time", "event", "details"]);
    for event in events {
        let (kind, style) = kind(event);
        table.row(vec![
            Cell::styled(show::number(&event["seq"]), DIM),
            show::time(&event["at_ms"]).into(),
            Cell::styled(kind, style),
            details(event).into(),
        ]);
    }
    let mut out = table.render();
    if let Some(next) = answer["next"].as_u64().filter(|_| events.len() >= PAGE) {
        out.push_str(&format!("{DIM}there are more: --from {next}{DIM:#}\n"));
    }
    out
}

/// One event in one line, for a stream that has no widest cell yet.
fn line(event: &Value) -> String {
    let (kind, style) = kind(event);
    let seq = show::number(&event["seq"]);
    let time = show::time(&event["at_ms"]);
    format!("{DIM}{seq:>6}{DIM:#} {time} {style}{kind:<11}{style:#} {}", details(event)).trim_end().to_owned()
}

fn kind(event: &Value) -> (String, anstyle::Style) {
    let kind = show::text(&event["kind"]);
    let style = match kind.as_str() {
        "started" | "answered" => GOOD,
        "turned" => BOLD,
        "stumbled" | "postponed" | "restarted" | "voted" | "halted" => WARN,
        "doubted" | "quarantined" | "lettered" => BAD,
        _ => anstyle::Style::new(),
    };
    (kind, style)
}

/// The fields of an event other than its place and kind, in the order of their names.
fn details(event: &Value) -> String {
    let Some(fields) = event.as_object() else { return String::new() };
    let mut parts: Vec<String> = fields
        .iter()
        .filter(|(name, value)| {
            !matches!(name.as_str(), "seq" | "at_ms" | "kind" | "shard" | "epoch") && !value.is_null()
        })
        .map(|(name, value)| format!("{}={}", show::clean(name, false), show::line(value)))
        .collect();
    parts.sort();
    show::clipped(&parts.join(" "), DETAIL_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn events_are_a_table_and_lines_alike() {
        let answer = json!({
            "events": [
                { "seq": 3, "at_ms": 1_700_000_000_000_u64, "kind": "turned", "turn": 1, "effects": ["run-1f03.1"] },
                { "seq": 4, "at_ms": 1_700_000_001_000_u64, "kind": "answered", "effect": "run-1f03.1", "by": null },
            ],
            "next": 5,
        });
        insta::assert_snapshot!(plain(&render(&answer)), @r#"
        seq  time              event     details
        3    2023-11-14 22:13  turned    effects=["run-1f03.1"] turn=1
        4    2023-11-14 22:13  answered  effect=run-1f03.1
        "#);
        assert_eq!(
            plain(&line(&answer["events"][1])),
            "     4 2023-11-14 22:13 answered    effect=run-1f03.1"
        );
        assert!(render(&Value::Null).contains("Nothing") && !line(&Value::Null).is_empty());
    }
}
