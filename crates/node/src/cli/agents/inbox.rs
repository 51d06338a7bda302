//! What waits for people, and what they say to it.

use seawall_model::EffectId;
use serde_json::{Value, json};

use crate::cli::code;
use crate::cli::print::{BOLD, DIM, WARN};
use crate::cli::server::{Failed, failed};

use super::args::{AnswerArgs, ApproveArgs, DelegateArgs, DenyArgs, InboxArgs};
use super::{attempt, given, look, of, order, show, value_of};

/// Longest text of arguments or a question in the list.
const SHOWN_CHARS_MAX: usize = 400;

pub(super) fn list(args: &InboxArgs) -> i32 {
    let mut path = of(&args.of, "/seawall/inbox");
    if let Some(after) = args.after {
        path.push_str(&format!("{}after={after}", if path.contains('?') { '&' } else { '?' }));
    }
    look(&args.ask, &path, |answer| render(answer, show::now_ms()))
}

pub(super) fn approve(args: &ApproveArgs) -> i32 {
    attempt(args.ask.json, || {
        let effect = effect_named(&args.effect)?;
        let mut body = json!({});
        if let Some(edited) = &args.args {
            let object = serde_json::from_str::<Value>(edited).ok().filter(Value::is_object);
            body["args"] = object
                .ok_or_else(|| failed(code::USAGE, format!("--args {edited:?} is no JSON object"), ""))?;
        }
        let told = |_: &Value| format!("You said yes to {effect}.\n");
        Ok(order(&args.ask, &format!("/seawall/effects/{effect}/approve"), &body, told))
    })
}

pub(super) fn deny(args: &DenyArgs) -> i32 {
    attempt(args.ask.json, || {
        let effect = effect_named(&args.effect)?;
        let mut body = json!({});
        if let Some(why) = &args.why {
            body["why"] = json!(why);
        }
        let told = |_: &Value| format!("You said no to {effect}: its agent is told.\n");
        Ok(order(&args.ask, &format!("/seawall/effects/{effect}/deny"), &body, told))
    })
}

pub(super) fn delegate(args: &DelegateArgs) -> i32 {
    attempt(args.ask.json, || {
        let effect = effect_named(&args.effect)?;
        let told = |_: &Value| format!("{} decides on {effect} in your place.\n", args.to);
        let path = format!("/seawall/effects/{effect}/delegate");
        Ok(order(&args.ask, &path, &json!({ "to": args.to }), told))
    })
}

pub(super) fn answer(args: &AnswerArgs) -> i32 {
    attempt(args.ask.json, || {
        let effect = effect_named(&args.effect)?;
        if args.again {
            let told = |_: &Value| format!("{effect} is sent again.\n");
            return Ok(order(&args.ask, &format!("/seawall/effects/{effect}/again"), &json!({}), told));
        }
        let body = match (&args.output, &args.error) {
            (Some(output), _) => json!({ "output": value_of(&given(output)?) }),
            (None, why) => json!({ "error": why }),
        };
        let told = |_: &Value| format!("{effect} is answered: its agent goes on.\n");
        Ok(order(&args.ask, &format!("/seawall/effects/{effect}/answer"), &body, told))
    })
}

fn effect_named(text: &str) -> Result<EffectId, Failed> {
    EffectId::parse(text).ok_or_else(|| {
        let what = format!("{text:?} is not the name of an effect");
        failed(code::USAGE, what, "one looks like run-1f03.7: see `seawall inbox`")
    })
}

/// Each thing that waits for people with all that is needed to decide, and how to say it.
fn render(answer: &Value, now_ms: u64) -> String {
    let approvals = show::list(&answer["approvals"]);
    let questions = show::list(&answer["questions"]);
    let doubts = show::list(&answer["doubts"]);
    if approvals.len() + questions.len() + doubts.len() == 0 {
        return "Nothing waits for people.\n".to_owned();
    }
    let mut out = String::new();
    for (head, items) in
        [("to approve", approvals), ("questions", questions), ("nobody knows whether it was done", doubts)]
    {
        if items.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{BOLD}{head} ({}){BOLD:#}\n", items.len()));
        for item in items {
            out.push_str(&one(item, now_ms));
        }
    }
    let mut ways = Vec::new();
    let more = answer["next"].as_u64().map(|next| format!("more: seawall inbox --after {next}"));
    if !approvals.is_empty() {
        ways.push("seawall approve EFFECT | seawall deny EFFECT --why TEXT | seawall delegate EFFECT KEY");
    }
    if !questions.is_empty() {
        ways.push("seawall answer EFFECT TEXT");
    }
    if !doubts.is_empty() {
        ways.push("seawall answer EFFECT RESULT | --error WHY | --again");
    }
    ways.extend(more.as_deref());
    out.push_str(&format!("\n{DIM}{}{DIM:#}\n", ways.join("\n")));
    out
}

fn one(item: &Value, now_ms: u64) -> String {
    let (kind, object) = (show::text(&item["kind"]), show::text(&item["object"]));
    let what = match (kind.as_str(), object.as_str()) {
        ("promise", _) => "question".to_owned(),
        ("tool", object) => object.to_owned(),
        // Rules and definitions name tools, not kinds of work.
        (_, object) if item["tool"].is_string() => match show::text(&item["tool"]) {
            tool if object == "-" || tool.ends_with(object) => tool,
            tool => format!("{tool} {object}"),
        },
        (kind, "-") => kind.to_owned(),
        (kind, object) => format!("{kind} {object}"),
    };
    let tenant = show::text(&item["tenant"]);
    let mut out = format!(
        "  {WARN}{}{WARN:#}  {BOLD}{what}{BOLD:#}  {} of {tenant}, asked {} ago",
        show::text(&item["effect"]),
        show::text(&item["agent"]),
        show::ago(&item["asked_ms"], now_ms),
    );
    match show::ahead(&item["until_ms"], now_ms).as_str() {
        "-" => {}
        until if kind == "promise" => out.push_str(&format!(", given up {until}")),
        until => out.push_str(&format!(", a no {until}")),
    }
    if let Some(fork) = show::fork(&item["fork"]) {
        out.push_str(&format!(", {fork}"));
    }
    out.push('\n');
    // A question of the built-in tool is an object around its text.
    let question = [&item["question"]["question"], &item["question"]];
    let others = ["args", "task", "body", "value"].map(|name| &item[name]);
    if let Some(content) = question.into_iter().chain(others).find(|content| !content.is_null()) {
        out.push_str(&format!("    {}\n", show::line_of(content, SHOWN_CHARS_MAX)));
    }
    if let Some(why) = item["why"].as_str().filter(|why| !why.is_empty()) {
        out.push_str(&format!("    {DIM}{}{DIM:#}\n", show::clean(why, false)));
    }
    if let Some(rule) = item["rule"].as_str().filter(|rule| *rule != "default") {
        let rule = show::clean(rule, false);
        out.push_str(&format!("    {DIM}by rule {rule}{}{DIM:#}\n", votes(item, now_ms)));
    }
    out
}

/// Who is asked, to whom votes were handed, and how they stand: `; asked: ops; delegated to
/// alice by ops; 1 of 2 yes (alice)`.
fn votes(item: &Value, now_ms: u64) -> String {
    let Some(quorum) = item["quorum"].as_u64() else { return String::new() };
    let names = |list: &Value| show::list(list).iter().map(show::text).collect::<Vec<_>>();
    let mut said = String::new();
    let asked = names(&item["approvers"]);
    if !asked.is_empty() {
        said.push_str(&format!("; asked: {}", asked.join(", ")));
    }
    for handed in show::list(&item["handed"]) {
        let to = show::text(&handed["to"]);
        match handed["by"].as_str() {
            Some(by) => said.push_str(&format!("; delegated to {to} by {}", show::clean(by, false))),
            None => said.push_str(&format!("; {to} as well, since nobody decided")),
        }
    }
    if item["delegate_ms"].is_number() {
        let ahead = show::ahead(&item["delegate_ms"], now_ms);
        said.push_str(&format!("; {} as well {ahead}", show::text(&item["delegate"])));
    }
    let yes = names(&item["yes"]);
    if yes.is_empty() {
        let wanted = if quorum > 1 { format!("; {quorum} must say yes") } else { String::new() };
        said.push_str(&wanted);
    } else {
        said.push_str(&format!("; {} of {quorum} yes ({})", yes.len(), yes.join(", ")));
    }
    if item["yours"] == false {
        said.push_str("; not yours to decide");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn the_inbox_shows_all_that_is_needed_to_decide() {
        let answer = json!({
            "approvals": [{
                "effect": "run-1f03.2", "agent": "triage/7", "tenant": "acme", "run": "run-1f03", "kind": "tool",
                "object": "crm.refund", "args": { "amount": 20 }, "asked_ms": 1_000, "until_ms": 601_000,
                "rule": "small-refunds", "yes": ["alice"], "quorum": 2, "yours": true, "approvers": ["ops", "bob"],
                "handed": [{ "by": "ops", "to": "alice", "at_ms": 2_000 }],
                "delegate": "cfo", "delegate_ms": 301_000,
            }],
            "questions": [{
                "effect": "run-1f03.3", "agent": "triage/7", "tenant": "acme", "kind": "promise", "object": "",
                "question": { "question": "Which order?" }, "asked_ms": 1_000, "until_ms": null, "rule": "default",
                "fork": { "run": "run-1e02", "turn": 4 },
            }],
            "doubts": [{
                "effect": "run-2003.1", "agent": "payer/1", "tenant": "acme", "kind": "tool", "object": "bank.pay",
                "args": { "sum": 3 }, "asked_ms": 1_000, "why": "the connection broke after it was sent",
            }],
        });
        insta::assert_snapshot!(plain(&render(&answer, 61_000)), @r#"
        to approve (1)
          run-1f03.2  crm.refund  triage/7 of acme, asked 60s ago, a no in 9m
            {"amount":20}
            by rule small-refunds; asked: ops, bob; delegated to alice by ops; cfo as well in 4m; 1 of 2 yes (alice)

        questions (1)
          run-1f03.3  question  triage/7 of acme, asked 60s ago, fork of run-1e02 at turn 4
            Which order?

        nobody knows whether it was done (1)
          run-2003.1  bank.pay  payer/1 of acme, asked 60s ago
            {"sum":3}
            the connection broke after it was sent

        seawall approve EFFECT | seawall deny EFFECT --why TEXT | seawall delegate EFFECT KEY
        seawall answer EFFECT TEXT
        seawall answer EFFECT RESULT | --error WHY | --again
        "#);
        assert_eq!(render(&Value::Null, 0), "Nothing waits for people.\n");
    }

    #[test]
    fn an_effect_is_named_by_run_and_number() {
        assert!(effect_named("run-1f03.7").is_ok());
        for bad in ["run-1f03", "7", "run-1f03.7/approve", ""] {
            assert_eq!(effect_named(bad).expect_err("bad").code, code::USAGE, "{bad}");
        }
    }
}
