//! Orders: start a run, wait for it, end it, begin it again, fork it; stop and release.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::args::{RunForkArgs, RunOrderArgs};
use crate::cli::code;
use crate::cli::print::{self, BOLD, Table, WARN};
use crate::cli::server::{Failed, Server, escaped, failed};
use crate::config::amount;

use super::args::{AskArgs, HaltArgs, ReleaseArgs, StartArgs};
use super::{agent_named, attempt, given, in_tenant, look, order, pairs, run_named, show, task_of};

/// The server holds a question about a run that is not over for so long.
const HELD_MS: u64 = 20_000;

pub(super) fn start(args: &StartArgs) -> i32 {
    attempt(args.ask.json, || {
        let agent = agent_named(&args.agent, false)?;
        let mut body = json!({ "task": task_of(&given(&args.task)?) });
        if !args.allow.is_empty() {
            body["allowance"] = Value::Object(allowance(&args.allow)?);
        }
        if let Some(version) = &args.definition {
            body["version"] = json!(version);
        }
        in_tenant(&mut body, &args.of);
        let server = Server::at(&args.ask.server)?;
        let begun = server.post(&format!("/seawall/agents/{}/runs", escaped(agent.as_str())), &body)?;
        if args.wait {
            let run = show::text(&begun["run"]);
            print::note(&format!("{run} has begun: {}", show::text(&begun["agent"])));
            let Some(over) = wait(&server, &run)? else {
                print::note(&left(&run));
                return Ok(code::INTERRUPTED);
            };
            return Ok(ended(&over, args.ask.json.json));
        }
        if args.ask.json.json {
            print::json(&begun);
        } else {
            print::text(&started(&begun));
        }
        Ok(code::OK)
    })
}

/// What is said of a run that began.
pub(super) fn started(begun: &Value) -> String {
    let run = show::text(&begun["run"]);
    let agent = show::text(&begun["agent"]);
    format!("{BOLD}{run}{BOLD:#} has begun: {agent}\nSee it with: seawall run {run}\n")
}

/// `tokens=50000,money=0.25,wall=10m` as the API has it.
fn allowance(list: &[String]) -> Result<Map<String, Value>, Failed> {
    let mut allowance = Map::new();
    for one in list {
        let bad = || {
            let what = format!(
                "--allow {one:?}: expected one of tokens, money, calls, steps, wall, children, depth"
            );
            failed(code::USAGE, what, "such as --allow tokens=50000,money=0.25,wall=10m")
        };
        let (name, text) = one.split_once('=').ok_or_else(bad)?;
        let (name, text) = (name.trim(), text.trim());
        let (key, value) = match name {
            "tokens" | "calls" | "steps" | "children" | "depth" => {
                (name, text.replace('_', "").parse::<u64>().ok().map(Value::from))
            }
            "money" => {
                let dollars = text.trim_start_matches('$').trim_end_matches("USD").trim().parse::<f64>().ok();
                (
                    "money_usd",
                    dollars.filter(|dollars| dollars.is_finite() && *dollars >= 0.0).map(Value::from),
                )
            }
            "wall" => ("wall_ms", amount::millis(text).map(Value::from)),
            _ => return Err(bad()),
        };
        let value = value.ok_or_else(|| {
            failed(
                code::USAGE,
                format!("--allow {one:?}: {text:?} is no amount"),
                "such as tokens=50000, money=0.25, wall=10m",
            )
        })?;
        allowance.insert(key.to_owned(), value);
    }
    Ok(allowance)
}

/// What is said to a person who does not wait any longer.
fn left(run: &str) -> String {
    format!("{run} goes on: see it with `seawall run {run}`, end it with `seawall run cancel {run}`")
}

/// Waits until a run is over; answers with what it is then, or nothing if whoever waits left.
fn wait(server: &Server, run: &str) -> Result<Option<Value>, Failed> {
    loop {
        let path = format!("/seawall/runs/{}?wait_ms={HELD_MS}", escaped(run));
        let Some(now) = server.get_unless_left(&path, Duration::from_millis(HELD_MS))? else {
            return Ok(None);
        };
        if is_over(&now) {
            return Ok(Some(now));
        }
    }
}

/// Is this run over?
pub(in crate::cli) fn is_over(run: &Value) -> bool {
    matches!(run["state"].as_str(), Some("done" | "failed" | "cancelled"))
}

/// Shows how a run ended; the exit code says whether it ended well.
fn ended(run: &Value, as_json: bool) -> i32 {
    let well = run["state"] == "done";
    if as_json {
        print::json(run);
    } else if well {
        print::text(&show::block(&run["output"], ""));
    } else {
        print::failure(&ending(run), &format!("seawall debug {}", show::text(&run["run"])));
    }
    if well { code::OK } else { code::NOT_WELL }
}

/// How a run ended, if not well, in one sentence.
pub(in crate::cli) fn ending(run: &Value) -> String {
    let name = show::text(&run["run"]);
    let error = &run["error"];
    match run["state"].as_str() {
        Some("cancelled") => format!("{name} was cancelled"),
        _ if error.is_null() => format!("{name} failed"),
        _ => format!("{name} failed: {}", show::fault(error)),
    }
}

pub(in crate::cli) fn cancel(args: &RunOrderArgs) -> i32 {
    attempt(args.ask.json, || {
        let run = run_named(&args.run)?;
        let told = |answer: &Value| match answer["state"].as_str() {
            Some(state @ ("done" | "failed")) => format!("{run} was over before: it is {state}.\n"),
            _ => format!("{run} and all below it are cancelled.\n"),
        };
        Ok(order(&args.ask, &format!("/seawall/runs/{run}/cancel"), &json!({}), told))
    })
}

pub(in crate::cli) fn again(args: &RunOrderArgs) -> i32 {
    attempt(args.ask.json, || {
        let run = run_named(&args.run)?;
        let told = |answer: &Value| match answer["restarted"].as_bool() {
            Some(true) => format!("{run} begins again from its task.\n"),
            // It was over: its task is done anew by another.
            _ => started(answer),
        };
        Ok(order(&args.ask, &format!("/seawall/runs/{run}/again"), &json!({}), told))
    })
}

pub(in crate::cli) fn fork(args: &RunForkArgs) -> i32 {
    attempt(args.ask.json, || {
        let run = run_named(&args.run)?;
        let mut body = forking(args.turn, args.task.as_deref(), &args.set, args.definition.as_deref())?;
        if let Some(text) = &args.instructions {
            body["instructions"] = json!(instructions(text)?);
        }
        if let Some(model) = &args.model {
            body["model"] = json!(model);
        }
        Ok(order(&args.ask, &format!("/seawall/runs/{run}/fork"), &body, started))
    })
}

/// A text, or with `@` that of a file.
#[expect(clippy::disallowed_methods, reason = "a command that does nothing else may wait for the disk")]
fn instructions(text: &str) -> Result<String, Failed> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    std::fs::read_to_string(path).map_err(|why| {
        failed(code::IO, format!("{path}: {why}"), "--instructions @FILE names a file of text")
    })
}

/// The body of an order to fork.
pub(super) fn forking(
    turn: u32,
    task: Option<&str>,
    set: &[String],
    version: Option<&str>,
) -> Result<Value, Failed> {
    let mut body = json!({ "turn": turn });
    if let Some(task) = task {
        body["task"] = task_of(&given(task)?);
    }
    if !set.is_empty() {
        body["set"] = Value::Object(pairs(set)?);
    }
    if let Some(version) = version {
        body["version"] = json!(version);
    }
    Ok(body)
}

pub(super) fn release(args: &ReleaseArgs) -> i32 {
    attempt(args.ask.json, || {
        let agent = agent_named(&args.agent, true)?;
        let told = |answer: &Value| match answer["was_out"].as_bool() {
            Some(false) => format!("{agent} was in service: nothing changes.\n"),
            _ => format!("{agent} is back in service.\n"),
        };
        let path = format!("/seawall/agents/{}/release", escaped(agent.as_str()));
        let mut body = json!({});
        in_tenant(&mut body, &args.of);
        Ok(order(&args.ask, &path, &body, told))
    })
}

pub(super) fn halt(args: &HaltArgs, on: bool) -> i32 {
    let scope = args.scope.trim();
    let known = scope == "all"
        || ["tenant:", "type:", "agent:", "run:", "tool:"]
            .iter()
            .any(|prefix| scope.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()));
    if !known {
        let hint = "all, tenant:PATH, type:NAME, agent:TENANT/TYPE/KEY, run:RUN or tool:NAME";
        return failed(code::USAGE, format!("{scope:?} is nothing that can be stopped"), hint)
            .tell(args.ask.json);
    }
    let told = |answer: &Value| halted(scope, on, answer);
    order(&args.ask, "/seawall/halts", &json!({ "scope": scope, "on": on }), told)
}

/// What is said of a stop, or of its end. A stop of what is not there is taken all the same,
/// since it may come; a name that was mistyped must not look as if it worked.
fn halted(scope: &str, on: bool, answer: &Value) -> String {
    let was = answer["was"].as_bool();
    let mut out = match (on, was) {
        (true, Some(true)) => {
            format!("{scope} was stopped before, and is. It goes on with: seawall unhalt {scope}\n")
        }
        (true, _) => format!("{scope} is stopped. It goes on with: seawall unhalt {scope}\n"),
        (false, Some(false)) => {
            return format!("{scope} was not stopped, so nothing changes: `seawall halts` lists what is.\n");
        }
        (false, _) => format!("{scope} goes on.\n"),
    };
    if on && answer["matches"] == false {
        out.push_str(&format!(
            "{WARN}Nothing matches it now:{WARN:#} it holds for whatever comes by that name.\n"
        ));
    }
    out
}

pub(super) fn halts(args: &AskArgs) -> i32 {
    look(args, "/seawall/halts", render_halts)
}

fn render_halts(answer: &Value) -> String {
    let halts = show::list(if answer.is_array() { answer } else { &answer["halts"] });
    if halts.is_empty() {
        return "Nothing is stopped.\n".to_owned();
    }
    let mut table = Table::new(&["stopped", "for", "by"]);
    for halt in halts {
        let scope = if halt.is_string() { halt } else { &halt["scope"] };
        let since = show::ago(&halt["since_ms"], show::now_ms());
        table.row(vec![show::text(scope).into(), since.into(), show::text(&halt["by"]).into()]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_read_whole_or_refused() {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let read = allowance(&list("tokens=50_000,money=$0.25,calls=3,wall=10m,depth=2")).expect("good");
        let expected =
            json!({ "tokens": 50_000, "money_usd": 0.25, "calls": 3, "wall_ms": 600_000, "depth": 2 });
        assert_eq!(Value::Object(read), expected);
        for bad in ["tokens", "tokens=many", "money=-1", "money=inf", "wall=soon", "sand=3", "calls=1.5"] {
            assert_eq!(allowance(&list(bad)).expect_err("bad").code, code::USAGE, "{bad}");
        }
    }

    #[test]
    fn a_fork_names_what_is_another() {
        let body = forking(3, Some("x"), &["m/1={\"a\":1}".into()], None).expect("good");
        assert_eq!(body, json!({ "turn": 3, "task": "x", "set": { "m/1": { "a": 1 } } }));
        assert!(forking(0, None, &["x".into()], None).is_err());
    }

    #[test]
    fn how_a_run_ended_is_one_sentence() {
        let run = json!({ "run": "run-1", "state": "failed", "error": { "code": "tool_failed", "message": "no\nway" } });
        assert_eq!(ending(&run), "run-1 failed: no\\nway (tool_failed)");
        assert_eq!(ending(&json!({ "run": "run-1", "state": "cancelled" })), "run-1 was cancelled");
        assert!(is_over(&run) && !is_over(&json!({ "state": "active" })) && !is_over(&Value::Null));
    }

    #[test]
    fn a_stop_of_nothing_says_so() {
        let none = halted("type:x", true, &json!({ "was": false, "matches": false }));
        assert!(none.contains("Nothing matches it now"), "{none}");
        let some = halted("type:x", true, &json!({ "was": false, "matches": true }));
        assert!(some.contains("is stopped") && !some.contains("Nothing matches"), "{some}");
        assert!(halted("type:x", false, &json!({ "was": false })).contains("was not stopped"));
        assert!(halted("type:x", false, &Value::Null).contains("goes on"));
    }

    #[test]
    fn halts_are_listed_in_either_shape() {
        assert_eq!(
            print::plain(&render_halts(&json!({ "halts": ["all"] }))),
            "stopped  for  by\nall      -    -\n"
        );
        let objects =
            json!([{ "scope": "type:writer", "by": "alice", "since_ms": 1 }, { "scope": "tool:crm.*" }]);
        let told = print::plain(&render_halts(&objects));
        assert!(
            told.contains("type:writer") && told.contains("alice") && told.contains("tool:crm.*"),
            "{told}"
        );
        assert_eq!(render_halts(&json!({ "halts": [] })), "Nothing is stopped.\n");
    }
}
