//! `seawall why`: one sentence, then each cause with since when, until when, and what a
//! person can do about it.

use serde_json::Value;

use crate::cli::print::{BOLD, Cell, DIM, Table, WARN};
use crate::cli::server::escaped;

use super::args::WhyArgs;
use super::{agent_named, attempt, look, of, run_named, show};

pub(super) fn run(args: &WhyArgs) -> i32 {
    attempt(args.ask.json, || {
        // An effect is asked about by its run.
        let path = if args.what.starts_with("run-") {
            let run = args.what.split_once('.').map_or(&*args.what, |(run, _)| run);
            format!("/seawall/why/{}", run_named(run)?)
        } else {
            of(&args.of, &format!("/seawall/why/{}", escaped(agent_named(&args.what, true)?.as_str())))
        };
        Ok(look(&args.ask, &path, |answer| render(answer, show::now_ms())))
    })
}

fn render(answer: &Value, now_ms: u64) -> String {
    let sentence = match answer["sentence"].as_str() {
        Some(sentence) => show::clean(sentence, false),
        None => format!("{} is {}.", show::text(&answer["agent"]), show::text(&answer["state"])),
    };
    let mut out = format!("{BOLD}{sentence}{BOLD:#}\n");
    let waits = table(&answer["waits"], now_ms);
    if !waits.is_empty() {
        out.push_str(&format!("\n{waits}"));
    }
    let setbacks: String = show::list(&answer["waits"]).iter().map(|wait| setback(wait, now_ms)).collect();
    if !setbacks.is_empty() {
        out.push_str(&format!("\n{BOLD}what failed{BOLD:#}\n{setbacks}"));
    }
    let mut known: Vec<String> = Vec::new();
    for wait in show::list(&answer["waits"]) {
        let advice = advice(wait, &answer["agent"]);
        if !advice.is_empty() && !known.contains(&advice) {
            known.push(advice);
        }
    }
    if !known.is_empty() {
        out.push_str(&format!("\n{BOLD}what to do{BOLD:#}\n"));
        for advice in known {
            out.push_str(&format!("  {advice}\n"));
        }
    }
    out
}

/// Waits with their details; nothing where there are none.
pub(super) fn table(waits: &Value, now_ms: u64) -> String {
    let mut table = Table::new(&["cause", "on", "for", "until", "effect"]);
    for wait in show::list(waits) {
        table.row(vec![
            Cell::styled(show::text(&wait["cause"]), WARN),
            on(wait).into(),
            show::ago(&wait["since_ms"], now_ms).into(),
            show::ahead(&wait["until_ms"], now_ms).into(),
            Cell::styled(show::text(&wait["effect"]), DIM),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

/// How it went so far with what is tried again.
fn setback(wait: &Value, now_ms: u64) -> String {
    let setback = &wait["setback"];
    if setback.is_null() {
        return String::new();
    }
    let tried = match (wait["attempts"].as_u64(), wait["tries_max"].as_u64()) {
        (Some(count @ 1..), Some(max)) => format!("failed {count} of {max} times"),
        _ => "put off".to_owned(),
    };
    let (effect, code) = (show::text(&wait["effect"]), show::text(&setback["code"]));
    let first = show::ago(&setback["first_ms"], now_ms);
    format!("  {effect} {tried}, first {first} ago; the last: {code}: {}\n", show::text(&setback["message"]))
}

/// What is waited for: the tool, what it is to be done to, and who said yes so far.
fn on(wait: &Value) -> String {
    let (on, tool) = (show::text(&wait["on"]), show::text(&wait["tool"]));
    let named = match (tool.as_str(), on.as_str()) {
        // Those of models and agents are named as they are.
        ("-", _) => on,
        (tool, _) if tool.starts_with("model:") || tool.starts_with("agent:") => on,
        (tool, on) if on == "-" || on == tool => tool.to_owned(),
        (tool, on) => format!("{tool} {on}"),
    };
    match wait["quorum"].as_u64() {
        Some(quorum) => {
            let yes: Vec<String> = show::list(&wait["yes"]).iter().map(show::text).collect();
            let by = if yes.is_empty() { String::new() } else { format!(": {}", yes.join(", ")) };
            format!("{named} ({} of {quorum} yes{by})", yes.len())
        }
        None => named,
    }
}

/// What a person can do about a wait: the command, where there is one.
fn advice(wait: &Value, agent: &Value) -> String {
    let on = show::text(&wait["on"]);
    let effect = show::text(&wait["effect"]);
    let agent = short(agent);
    match wait["cause"].as_str().unwrap_or_default() {
        "approval" => {
            let whom: Vec<String> = show::list(&wait["approvers"]).iter().map(show::text).collect();
            let whom = match show::list(&wait["handed_to"]).last() {
                Some(to) => vec![show::text(to)],
                None => whom,
            };
            let ask = if whom.is_empty() { String::new() } else { format!("ask {} to ", whom.join(" or ")) };
            format!("{ask}say yes or no: seawall approve {effect} | seawall deny {effect}")
        }
        "promise" => format!("answer it: seawall answer {effect} TEXT"),
        "in_doubt" => format!(
            "find out whether it was done, then: seawall answer {effect} RESULT | --error WHY | --again"
        ),
        "quarantine" => format!("see what went wrong, then: seawall agent release {agent}"),
        "guard" => {
            format!("it made no progress; look with `seawall debug`, then: seawall agent release {agent}")
        }
        "halted" => "see `seawall halts`; let it go on with: seawall unhalt SCOPE".to_owned(),
        "message" => format!("send it one: seawall send {agent} TEXT"),
        "child" => match on.split(' ').find(|word| word.starts_with("run-")) {
            Some(child) => format!("ask about the run it waits for: seawall why {child}"),
            None => "ask about the run it waits for: seawall runs".to_owned(),
        },
        "agent_busy" => format!("its agent works on another run first: seawall why {on}"),
        "model_call" => "the model is at work: seawall models shows its engines".to_owned(),
        "tool_call" => "the tool is at work: seawall tools shows whether its server is up".to_owned(),
        "tool_server" => "it goes on when that is up: seawall tools shows how servers are".to_owned(),
        "disk" => {
            "it goes on when the disk can be written; free space on the disk of the data folder".to_owned()
        }
        "turn_slot" => "it goes on when a turn is free; [agents] turns_max allows more at once".to_owned(),
        "model_slot" => {
            "it goes on when a call may begin; [agents] models_max allows more at once".to_owned()
        }
        "tool_slot" => {
            "it goes on when a call may begin; [agents] tool_calls_max allows more at once".to_owned()
        }
        "lease" => format!("somebody else holds {on}: it is given when that ends or its time is over"),
        "retry" => "nothing: it is tried again by itself, and given up after [agents] tries_max".to_owned(),
        "monitor" => format!("ask about the agent it waits for: seawall why {on}"),
        "timer" | "rest" => "nothing: it goes on by itself when the time has come".to_owned(),
        _ => String::new(),
    }
}

/// An agent's name as commands take it: its last two parts.
fn short(agent: &Value) -> String {
    let whole = show::text(agent);
    let mut parts: Vec<&str> = whole.rsplit('/').take(2).collect();
    parts.reverse();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn a_sentence_then_the_causes_then_what_to_do() {
        let answer = json!({
            "agent": "acme/triage/7", "state": "waiting",
            "sentence": "triage/7 waits until somebody approves crm.refund.",
            "waits": [
                { "cause": "approval", "on": "money/a", "tool": "store.put", "since_ms": 1_000, "until_ms": 601_000, "effect": "run-1f03.2",
                  "yes": ["alice"], "quorum": 2, "approvers": ["acme/leads"] },
                { "cause": "child", "on": "finder run-2003", "since_ms": 1_000, "until_ms": null, "effect": "run-1f03.3" },
            ],
        });
        insta::assert_snapshot!(plain(&render(&answer, 61_000)), @r"
        triage/7 waits until somebody approves crm.refund.

        cause     on                                     for  until  effect
        approval  store.put money/a (1 of 2 yes: alice)  60s  in 9m  run-1f03.2
        child     finder run-2003                        60s  -      run-1f03.3

        what to do
          ask acme/leads to say yes or no: seawall approve run-1f03.2 | seawall deny run-1f03.2
          ask about the run it waits for: seawall why run-2003
        ");
    }

    #[test]
    fn every_cause_that_a_person_can_mend_names_a_command() {
        for cause in ["approval", "promise", "in_doubt", "quarantine", "guard", "halted", "message", "child"]
        {
            let wait = json!({ "cause": cause, "on": "x", "effect": "run-1f03.2" });
            let advice = advice(&wait, &json!("acme/x/triage/7"));
            assert!(advice.contains("seawall "), "{cause}: {advice}");
            assert!(!advice.contains("acme"), "{cause}: commands take the tenant apart");
        }
        assert_eq!(advice(&json!({ "cause": "news" }), &Value::Null), "");
        assert!(!render(&Value::Null, 0).is_empty(), "whatever a server says is only shown");
    }
}
