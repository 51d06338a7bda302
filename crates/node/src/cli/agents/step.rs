//! One turn of a run as the debugger shows it: what it saw, asked for and left behind.

use serde_json::Value;

use crate::cli::print::{BAD, BOLD, Cell, DIM, GOOD, Table, WARN};

use super::show;

/// Longest text of one value among others.
const VALUE_CHARS_MAX: usize = 160;

/// A turn's head: what it is, what it saw, what it asked for and what came next.
pub(super) fn head(turn: &Value, last: u64) -> String {
    let number = turn["turn"].as_u64().unwrap_or(0);
    let when = show::moment(&turn["at_ms"]);
    let mut out = match number {
        0 => format!("{BOLD}before the first turn{BOLD:#} of {last}\n"),
        _ => format!("{BOLD}turn {number}{BOLD:#} of {last}  {DIM}{when}{DIM:#}\n"),
    };
    for item in show::list(&turn["seen"]) {
        out.push_str(&format!("  {DIM}saw{DIM:#}    {}\n", seen(item)));
    }
    for ask in show::list(&turn["asked"]) {
        out.push_str(&format!("  {DIM}asked{DIM:#}  {}\n", asked(ask)));
    }
    if !turn["next"].is_null() {
        out.push_str(&format!("  {DIM}then{DIM:#}   {}\n", next(&turn["next"])));
    }
    out
}

/// One thing that a turn saw.
fn seen(item: &Value) -> String {
    let Some(fields) = item.as_object() else { return show::line_of(item, VALUE_CHARS_MAX) };
    let mut parts =
        vec![item["kind"].as_str().map_or_else(|| "something".to_owned(), |kind| show::clean(kind, false))];
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("kind" | "at_ms" | "bytes" | "hop" | "tag" | "of", _) | (_, Value::Null) => {}
            ("effect" | "run", word) => parts.insert(1, show::text(word)),
            ("outcome", word) => parts.push(show::text(word)),
            ("error", error) => parts.push(show::fault(error)),
            ("output", output) => parts.push(show::outcome(output, VALUE_CHARS_MAX)),
            (_, other) => parts.push(format!("{}={}", show::clean(name, false), show::line(other))),
        }
    }
    show::clipped(&parts.join(" "), VALUE_CHARS_MAX)
}

/// One effect that a turn asked for.
fn asked(ask: &Value) -> String {
    let mut out = format!(
        "{}  {} {}",
        show::text(&ask["effect"]),
        show::text(&ask["kind"]),
        show::text(&ask["object"]).trim_start_matches('-'),
    );
    if let Some(class) = ask["class"].as_str() {
        out.push_str(&format!(" {DIM}({}){DIM:#}", show::clean(class, false)));
    }
    match ask["verdict"].as_str() {
        None | Some("allow") => {}
        Some(verdict) => {
            let style = if verdict == "deny" { BAD } else { WARN };
            let rule = show::text(&ask["rule"]);
            out.push_str(&format!(" {style}{}{style:#} by rule {rule}", show::clean(verdict, false)));
        }
    }
    if !ask["refused"].is_null() {
        out.push_str(&format!(" {BAD}refused:{BAD:#} {}", show::fault(&ask["refused"])));
    }
    out
}

/// What came next.
pub(super) fn next(next: &Value) -> String {
    match next {
        Value::String(word) => show::clean(word, false),
        other if other["kind"].is_string() => {
            let words = ["for", "state", "why"].into_iter().filter_map(|name| other[name].as_str());
            let words: Vec<&str> = other["kind"].as_str().into_iter().chain(words).collect();
            show::clipped(&show::clean(&words.join(" "), false), VALUE_CHARS_MAX)
        }
        other => show::line_of(other, VALUE_CHARS_MAX),
    }
}

/// The turns as a table, the one looked at marked.
pub(super) fn index(turns: &[Value], at: u64) -> String {
    let mut table = Table::new(&["", "turn", "time", "saw", "asked for", "then"]);
    for turn in turns {
        let number = turn["turn"].as_u64().unwrap_or(0);
        let asked: Vec<String> = show::list(&turn["asked"])
            .iter()
            .map(|ask| match ask["object"].as_str() {
                Some(object) if !object.is_empty() => show::clean(object, false),
                _ => show::text(&ask["kind"]),
            })
            .collect();
        table.row(vec![
            if number == at { Cell::styled(">", GOOD) } else { "".into() },
            number.to_string().into(),
            Cell::styled(show::moment(&turn["at_ms"]), DIM),
            show::list(&turn["seen"]).len().to_string().into(),
            show::clipped(&asked.join(", "), show::CELL_CHARS_MAX).into(),
            show::clipped(&next(&turn["next"]), 30).into(),
        ]);
    }
    if table.is_empty() { "There is no turn yet.\n".to_owned() } else { table.render() }
}

/// The state after a turn, one line to a value; or one value whole.
pub(super) fn state(turn: &Value, key: Option<&str>) -> String {
    let Some(state) = turn["state"].as_object() else {
        return "The state after this turn is not kept any more.\n".to_owned();
    };
    if let Some(key) = key {
        return match state.get(key) {
            Some(value) => show::block(value, ""),
            None => format!("The state has no {key:?}: see `s`.\n"),
        };
    }
    if state.is_empty() {
        return "The state is empty.\n".to_owned();
    }
    let mut table = Table::new(&["key", "value"]);
    // In the order of keys, whatever the parser keeps.
    let mut values: Vec<_> = state.iter().collect();
    values.sort_by_key(|(key, _)| *key);
    for (key, value) in values {
        table.row(vec![
            Cell::styled(show::clean(key, false), BOLD),
            show::line_of(value, VALUE_CHARS_MAX).into(),
        ]);
    }
    table.render()
}

/// What the turn took from its mailbox.
pub(super) fn mailbox(turn: &Value) -> String {
    let items = show::list(&turn["seen"]);
    if items.is_empty() {
        return "This turn saw nothing new.\n".to_owned();
    }
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        out.push_str(&format!("{DIM}{}{DIM:#}\n{}", at + 1, show::block(item, "  ")));
    }
    out
}

/// The effects that the turn asked for.
pub(super) fn effects(turn: &Value) -> String {
    let all = show::list(&turn["asked"]);
    if all.is_empty() {
        return "This turn asked for nothing.\n".to_owned();
    }
    let mut table = Table::new(&["effect", "kind", "object", "class", "verdict", "rule", "refused"]);
    for ask in all {
        let verdict = show::text(&ask["verdict"]);
        let style = match verdict.as_str() {
            "allow" => GOOD,
            "deny" => BAD,
            _ => WARN,
        };
        table.row(vec![
            show::text(&ask["effect"]).into(),
            show::text(&ask["kind"]).into(),
            show::text(&ask["object"]).into(),
            show::text(&ask["class"]).into(),
            Cell::styled(verdict, style),
            show::text(&ask["rule"]).into(),
            show::text(&ask["refused"]["code"]).into(),
        ]);
    }
    table.render()
}

/// The conversation as it was after the turn.
pub(super) fn conversation(turn: &Value) -> String {
    let all = show::list(&turn["conversation"]);
    if all.is_empty() {
        return "Nothing was said yet.\n".to_owned();
    }
    let mut out = String::new();
    for message in all {
        let Some(role) = message["role"].as_str() else {
            out.push_str(&show::block(message, ""));
            continue;
        };
        out.push_str(&format!("{BOLD}{}{BOLD:#}\n", show::clean(role, false)));
        if !message["content"].is_null() {
            out.push_str(&show::block(&message["content"], "  "));
        }
        for call in show::list(&message["tool_calls"]) {
            let call = &call["function"];
            let args = show::line_of(&call["arguments"], VALUE_CHARS_MAX);
            out.push_str(&format!("  {WARN}calls{WARN:#} {} {args}\n", show::text(&call["name"])));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::print::plain;

    fn turn() -> Value {
        json!({
            "turn": 2, "at_ms": 1_700_000_000_000_u64,
            "seen": [{ "kind": "answer", "effect": "run-1f03.1", "tag": "model", "outcome": "done", "output": { "found": 2 } }],
            "asked": [
                { "effect": "run-1f03.2", "kind": "tool", "object": "crm.refund", "class": "irreversible",
                  "rule": "small-refunds", "verdict": "ask", "refused": null },
                { "effect": "run-1f03.3", "kind": "tool", "object": "crm.drop", "class": "irreversible",
                  "rule": "default", "verdict": "deny", "refused": { "code": "gate_denied", "message": "a rule says no" } },
            ],
            "next": { "kind": "wait", "for": "all" },
            "state": { "meta": { "turns": 2 }, "m/00000001": { "role": "user", "content": "hi" } },
            "conversation": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": null,
                  "tool_calls": [{ "id": "c1", "function": { "name": "crm__refund", "arguments": "{\"amount\":20}" } }] },
            ],
        })
    }

    #[test]
    fn a_turn_is_shown_with_what_it_saw_and_asked_for() {
        let turn = turn();
        let all = [
            head(&turn, 3),
            effects(&turn),
            state(&turn, None),
            state(&turn, Some("meta")),
            mailbox(&turn),
            conversation(&turn),
            index(std::slice::from_ref(&turn), 2),
        ];
        insta::assert_snapshot!(plain(&all.join("--\n")), @r#"
        turn 2 of 3  2023-11-14 22:13:20.000
          saw    answer run-1f03.1 done {"found":2}
          asked  run-1f03.2  tool crm.refund (irreversible) ask by rule small-refunds
          asked  run-1f03.3  tool crm.drop (irreversible) deny by rule default refused: a rule says no (gate_denied)
          then   wait all
        --
        effect      kind  object      class         verdict  rule           refused
        run-1f03.2  tool  crm.refund  irreversible  ask      small-refunds  -
        run-1f03.3  tool  crm.drop    irreversible  deny     default        gate_denied
        --
        key         value
        m/00000001  {"content":"hi","role":"user"}
        meta        {"turns":2}
        --
        {
          "turns": 2
        }
        --
        1
          {
            "effect": "run-1f03.1",
            "kind": "answer",
            "outcome": "done",
            "output": {
              "found": 2
            },
            "tag": "model"
          }
        --
        user
          hi
        assistant
          calls crm__refund {"amount":20}
        --
           turn  time                     saw  asked for             then
        >  2     2023-11-14 22:13:20.000  1    crm.refund, crm.drop  wait all
        "#);
    }

    #[test]
    fn whatever_a_server_says_is_only_shown() {
        for odd in
            [Value::Null, json!(3), json!({ "seen": [1], "asked": [null], "state": 3, "conversation": [7] })]
        {
            for text in [head(&odd, 0), effects(&odd), state(&odd, None), mailbox(&odd), conversation(&odd)] {
                assert!(!text.is_empty());
            }
        }
        assert!(state(&turn(), Some("x")).contains("no \"x\""));
        assert!(index(&[], 0).contains("no turn"));
    }
}
