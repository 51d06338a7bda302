//! Messages to agents, and those that nobody could take.

use serde_json::{Value, json};

use crate::cli::code;
use crate::cli::print::{Cell, DIM, Table, WARN};
use crate::cli::server::{Failed, escaped, failed};

use super::args::{LetterArgs, LettersArgs, LettersCommand, SendArgs};
use super::{agent_named, attempt, given, in_tenant, look, of, order, show, task_of};

pub(super) fn send(args: &SendArgs) -> i32 {
    attempt(args.ask.json, || {
        let agent = agent_named(&args.agent, true)?;
        let mut body = json!({ "body": task_of(&given(&args.text)?) });
        if let Some(name) = &args.name {
            body["name"] = json!(name);
        }
        if let Some(id) = &args.id {
            body["id"] = json!(id);
        }
        in_tenant(&mut body, &args.of);
        let path = format!("/seawall/agents/{}/messages", escaped(agent.as_str()));
        Ok(order(&args.ask, &path, &body, |answer| taken(agent.as_str(), answer)))
    })
}

/// What is said of a message that was sent. A key that was mistyped makes an agent of its
/// own: that must not look as if it worked.
fn taken(agent: &str, answer: &Value) -> String {
    if answer["duplicate"] == true {
        return format!("{agent} took this message before: nothing changes.\n");
    }
    let mut out = format!("{agent} has the message in its mailbox.\n");
    if answer["idle"] == true {
        out.push_str(&format!(
            "{WARN}{agent} is new and idle:{WARN:#} nothing starts it (on_message is not \"start\"); \
             start it with: seawall start {agent} TASK\n"
        ));
    }
    out
}

pub(super) fn letters(args: &LettersArgs) -> i32 {
    match &args.command {
        None => attempt(args.ask.json, || {
            let mut path = of(&args.of, "/seawall/letters");
            if let Some(after) = &args.after {
                let after = letter_named(after)?;
                path.push_str(&format!("{}after={after}", if path.contains('?') { '&' } else { '?' }));
            }
            Ok(look(&args.ask, &path, render))
        }),
        Some(LettersCommand::Redrive(letter)) => deal(letter, "redrive", "was sent again"),
        Some(LettersCommand::Discard(letter)) => deal(letter, "discard", "was thrown away"),
    }
}

fn deal(args: &LetterArgs, what: &str, done: &str) -> i32 {
    attempt(args.ask.json, || {
        let letter = letter_named(&args.letter)?;
        let told = |_: &Value| format!("The letter {letter} {done}.\n");
        Ok(order(&args.ask, &format!("/seawall/letters/{letter}/{what}"), &json!({}), told))
    })
}

fn letter_named(text: &str) -> Result<&str, Failed> {
    let parts = text.split_once('.');
    let good =
        parts.is_some_and(|(shard, number)| shard.parse::<u8>().is_ok() && number.parse::<u64>().is_ok());
    good.then_some(text).ok_or_else(|| {
        failed(
            code::USAGE,
            format!("{text:?} is not the name of a letter"),
            "one looks like 3.17: see `seawall letters`",
        )
    })
}

fn render(answer: &Value) -> String {
    render_at(answer, show::now_ms())
}

fn render_at(answer: &Value, now_ms: u64) -> String {
    let letters = show::list(&answer["letters"]);
    if letters.is_empty() {
        return "There are no dead letters.\n".to_owned();
    }
    let mut table = Table::new(&["letter", "to", "tenant", "from", "why", "age", "message"]);
    for letter in letters {
        let message = &letter["message"];
        table.row(vec![
            show::text(&letter["letter"]).into(),
            show::text(&letter["agent"]).into(),
            show::text(&letter["tenant"]).into(),
            show::text(&message["from"]).into(),
            Cell::styled(show::text(&letter["why"]), WARN),
            show::ago(&message["at_ms"], now_ms).into(),
            Cell::styled(show::line(&message["body"]), DIM),
        ]);
    }
    let mut out = table.render();
    if let Some(next) = answer["next"].as_str() {
        let (next, all) = (show::clean(next, false), show::text(&answer["all"]));
        out.push_str(&format!("{DIM}of {all} in all; there may be more: --after {next}{DIM:#}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn letters_are_a_table() {
        let letter = json!({
            "letter": "3.17", "agent": "writer/1", "tenant": "local", "why": "mailbox_full",
            "message": { "kind": "message", "from": "local/editor/1", "at_ms": 1_000, "body": { "text": "hello" } },
        });
        let answer = json!({ "letters": [letter], "all": 2, "next": "3.17" });
        insta::assert_snapshot!(plain(&render_at(&answer, 61_000)), @r#"
        letter  to        tenant  from            why           age  message
        3.17    writer/1  local   local/editor/1  mailbox_full  60s  {"text":"hello"}
        of 2 in all; there may be more: --after 3.17
        "#);
        assert_eq!(render_at(&json!({ "letters": [] }), 0), "There are no dead letters.\n");
        assert!(
            !render_at(&json!({ "letters": [null, 3] }), 0).is_empty(),
            "whatever a server says is only shown"
        );
    }

    #[test]
    fn a_message_that_starts_nothing_says_so() {
        let told = |answer: Value| plain(&taken("w/typoo", &answer));
        assert_eq!(
            told(json!({ "taken": true, "created": true })),
            "w/typoo has the message in its mailbox.\n"
        );
        let idle = told(json!({ "taken": true, "created": true, "idle": true }));
        assert!(idle.contains("w/typoo is new and idle: nothing starts it"), "{idle}");
        assert!(told(json!({ "taken": false, "duplicate": true })).contains("took this message before"));
    }

    #[test]
    fn a_letter_is_named_by_shard_and_number() {
        assert!(letter_named("3.17").is_ok());
        for bad in ["3", "3.x", "256.1", "../x", "3.1/2"] {
            assert!(letter_named(bad).is_err(), "{bad}");
        }
    }
}
