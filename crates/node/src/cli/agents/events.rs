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
    attempt(args.ask.json, || {
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
            show::moment(&event["at_ms"]).into(),
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
    let time = show::moment(&event["at_ms"]);
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

/// Fields that are told first, in this order; others follow by name.
const FIRST: [&str; 8] = ["turn", "effect", "outcome", "output", "error", "why", "yes", "by"];
/// Fields that the run itself says, or that only a script wants: `--json` has them.
const LEFT_OUT: [&str; 12] = [
    "seq",
    "at_ms",
    "kind",
    "agent",
    "run",
    "root",
    "bytes",
    "rests_until_ms",
    "changes",
    "shard",
    "epoch",
    "counts",
];

/// What an event says, the most telling first.
fn details(event: &Value) -> String {
    let Some(fields) = event.as_object() else { return String::new() };
    let told = |name: &str| !LEFT_OUT.contains(&name) && !FIRST.contains(&name);
    let mut rest: Vec<&str> = fields.keys().map(String::as_str).filter(|name| told(name)).collect();
    rest.sort_unstable();
    let parts = FIRST.into_iter().chain(rest).filter_map(|name| field(name, &event[name]));
    show::clipped(&parts.collect::<Vec<_>>().join("  "), DETAIL_CHARS_MAX)
}

/// One field in few words; none where it says nothing.
fn field(name: &str, value: &Value) -> Option<String> {
    let text = match (name, value) {
        (_, Value::Null | Value::Bool(false)) => return None,
        ("output", output) => show::outcome(output, show::CELL_CHARS_MAX),
        ("error", error) => show::fault(error),
        ("used", used) => return spent(used),
        ("next", next) => super::step::next(next),
        ("effect" | "outcome", word) => return Some(show::text(word)),
        ("asks" | "seen", Value::Number(count)) if count.as_u64() == Some(0) => return None,
        (_, Value::Bool(true)) => return Some(show::clean(name, false)),
        (_, other) => show::line(other),
    };
    Some(format!("{}={text}", show::clean(name, false)))
}

/// What an effect used, where it used anything.
fn spent(used: &Value) -> Option<String> {
    let tokens = used["tokens"].as_u64().filter(|tokens| *tokens > 0)?;
    Some(format!("used={tokens} tokens, {}", show::money(&used["money_usd"])))
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
                { "seq": 3, "at_ms": 1_700_000_000_000_u64, "kind": "turned", "turn": 1, "asks": 1, "seen": 1,
                  "run": "run-1f03", "changes": [{ "set": "m/0" }], "next": { "kind": "wait", "for": "all" } },
                { "seq": 4, "at_ms": 1_700_000_001_250_u64, "kind": "answered", "effect": "run-1f03.1", "by": null,
                  "outcome": "done", "bytes": 300, "output": { "choices": [{ "message": { "content": "Well." } }] },
                  "used": { "tokens": 12, "money_usd": 0.5, "calls": 1, "steps": 0 } },
            ],
            "next": 5,
        });
        insta::assert_snapshot!(plain(&render(&answer)), @r"
        seq  time                     event     details
        3    2023-11-14 22:13:20.000  turned    turn=1  asks=1  next=wait all  seen=1
        4    2023-11-14 22:13:21.250  answered  run-1f03.1  done  output=Well.  used=12 tokens, $0.5000
        ");
        assert_eq!(
            plain(&line(&answer["events"][1])),
            "     4 2023-11-14 22:13:21.250 answered    run-1f03.1  done  output=Well.  used=12 tokens, $0.5000"
        );
        assert!(render(&Value::Null).contains("Nothing") && !line(&Value::Null).is_empty());
    }
}
