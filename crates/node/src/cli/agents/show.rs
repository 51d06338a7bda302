//! How values of the API look on a terminal: times, amounts, texts, waits. What agents and
//! tools say is foreign: no control character of it reaches the terminal.

use anstyle::Style;
use seawall_model::At;
use serde_json::Value;

use crate::cli::key::show_time;
use crate::cli::print::{BAD, Cell, DIM, GOOD, WARN};
use crate::clock;

/// Longest text in a cell of a table.
pub(crate) const CELL_CHARS_MAX: usize = 60;

/// Epoch milliseconds now.
pub(crate) fn now_ms() -> u64 {
    clock::wall(clock::now()).0 / 1_000
}

/// Foreign text without what a terminal would obey; line ends stay if `lines`.
pub(crate) fn clean(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' if lines => out.push('\n'),
            '\t' if lines => out.push_str("    "),
            // Marks that turn the direction of writing can make a line lie.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(char.escape_unicode()),
            char if char.is_control() => out.extend(char.escape_default()),
            char => out.push(char),
        }
    }
    out
}

/// The first so many characters of a text, with a sign where there is more.
pub(crate) fn clipped(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(chars.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// A text of the API, or `-`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => clean(text, false),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        _ => "-".to_owned(),
    }
}

/// Any value in one line that fits into a cell.
pub(crate) fn line(value: &Value) -> String {
    line_of(value, CELL_CHARS_MAX)
}

/// Any value in one line of at most so many characters.
pub(crate) fn line_of(value: &Value, chars: usize) -> String {
    let whole = match value {
        Value::Null => return "-".to_owned(),
        Value::String(text) => clean(text, false),
        other => blob(other).unwrap_or_else(|| clean(&other.to_string(), false)),
    };
    clipped(&whole, chars)
}

/// Any value over as many lines as it takes, each after the indent.
pub(crate) fn block(value: &Value, indent: &str) -> String {
    let whole = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text, true),
        other => blob(other).unwrap_or_else(|| clean(&format!("{other:#}"), true)),
    };
    whole.lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// A value that is too large to be shown.
fn blob(value: &Value) -> Option<String> {
    let digest = value.get("blob")?.as_str()?;
    let bytes = value.get("bytes")?.as_u64()?;
    Some(format!("[{bytes} bytes, sha256 {}]", clean(&clipped(digest, 13), false)))
}

/// `fork of run-1f03 at turn 2`, where a run is one; else nothing.
pub(crate) fn fork(value: &Value) -> Option<String> {
    let run = value["run"].as_str()?;
    Some(format!("fork of {} at turn {}", clean(run, false), number(&value["turn"])))
}

/// Why something failed, with its code.
pub(crate) fn fault(error: &Value) -> String {
    match error["message"].as_str() {
        Some(why) => format!("{} ({})", clean(why, false), text(&error["code"])),
        None => line(error),
    }
}

/// A number, or `-`.
pub(crate) fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// A moment given in epoch milliseconds, in UTC.
pub(crate) fn time(value: &Value) -> String {
    show_time(value.as_u64().filter(|ms| *ms > 0).map(|ms| At(ms.saturating_mul(1_000))))
}

/// A moment to the millisecond, in UTC: what stands close together must be told apart.
pub(crate) fn moment(value: &Value) -> String {
    let at = value.as_u64().and_then(|ms| i64::try_from(ms).ok());
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

/// What came of an effect in one line; of a model's answer what it said and whom it calls.
pub(crate) fn outcome(value: &Value, chars: usize) -> String {
    let message = &value["choices"][0]["message"];
    if !message.is_object() {
        return line_of(value, chars);
    }
    let mut parts = Vec::new();
    if let Some(said) = message["content"].as_str() {
        parts.push(clean(said, false));
    }
    for call in list(&message["tool_calls"]) {
        let function = &call["function"];
        let args = function["arguments"].as_str().map_or_else(String::new, |args| clean(args, false));
        parts.push(format!("calls {}{args}", text(&function["name"])));
    }
    clipped(&parts.join("; "), chars)
}

/// A span in its largest unit that says enough: `850ms`, `12s`, `5m`, `3h`, `4d`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..100_000 => format!("{}s", ms / 1_000),
        100_000..6_000_000 => format!("{}m", ms / 60_000),
        6_000_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// For how long, since a moment in epoch milliseconds.
pub(crate) fn ago(value: &Value, now_ms: u64) -> String {
    let since = value.as_u64().filter(|ms| *ms > 0);
    since.map_or_else(|| "-".to_owned(), |since| span(now_ms.saturating_sub(since)))
}

/// For how long yet, until a moment in epoch milliseconds.
pub(crate) fn ahead(value: &Value, now_ms: u64) -> String {
    // No time at all is also written as the last one that there is.
    let year = 400 * 86_400_000;
    let until = value.as_u64().filter(|ms| *ms > 0 && ms.saturating_sub(now_ms) < year);
    until.map_or_else(|| "-".to_owned(), |until| format!("in {}", span(until.saturating_sub(now_ms))))
}

/// Money given in dollars, to a hundredth of a cent.
pub(crate) fn money(value: &Value) -> String {
    let dollars = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    dollars.map_or_else(|| "-".to_owned(), |dollars| format!("${dollars:.4}"))
}

/// Millionths of a dollar as dollars, to a hundredth of a cent.
pub(crate) fn micros(value: &Value) -> String {
    let dollars = |micros: u64| {
        let hundredths = micros.saturating_add(50) / 100;
        format!("${}.{:04}", hundredths / 10_000, hundredths % 10_000)
    };
    value.as_u64().map_or_else(|| "-".to_owned(), dollars)
}

/// A state of an agent or a run in its colour.
pub(crate) fn state(value: &Value) -> Cell {
    Cell::styled(text(value), state_style(value.as_str().unwrap_or_default()))
}

/// The colour of a state.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "running" | "runnable" | "active" | "done" | "up" => GOOD,
        "waiting" | "queued" => WARN,
        "quarantined" | "failed" | "cancelled" | "stopped" | "down" => BAD,
        _ => DIM,
    }
}

/// The items of a list, none where it is none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Names and numbers of an object, the non-zero ones, by name: `idle 3, waiting 2`.
pub(crate) fn counts(value: &Value) -> String {
    let Some(object) = value.as_object() else { return "-".to_owned() };
    let mut parts: Vec<String> = object
        .iter()
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| format!("{} {count}", clean(name, false)))
        .collect();
    parts.sort();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

/// One wait in few words: `tool_call crm.lookup 12s`.
pub(crate) fn wait(wait: &Value, now_ms: u64) -> String {
    let mut out = text(&wait["cause"]);
    let on = wait["on"].as_str().unwrap_or_default();
    if !on.is_empty() {
        out.push_str(&format!(" {}", clipped(&clean(on, false), 40)));
    }
    if wait["since_ms"].as_u64().is_some_and(|since| since > 0) {
        out.push_str(&format!(" {}", ago(&wait["since_ms"], now_ms)));
    }
    out
}

/// The first wait, and how many there are beside it.
pub(crate) fn waits(waits: &Value, now_ms: u64) -> String {
    match list(waits) {
        [] => String::new(),
        [only] => wait(only, now_ms),
        [first, rest @ ..] => format!("{} (+{})", wait(first, now_ms), rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_foreign_steers_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\u{202e}c\u{9b}", false), "a\\u{1b}[31mb\\r\\n\\u{202e}c\\u{9b}");
        assert_eq!(clean("a\n\tb\u{7}", true), "a\n    b\\u{7}");
        assert_eq!(line(&json!({ "x": "\u{1b}\u{9b}" })), "{\"x\":\"\\u001b\\u{9b}\"}");
        assert_eq!(block(&json!("a\u{1b}\nb"), "  "), "  a\\u{1b}\n  b\n");
    }

    #[test]
    fn values_are_shown_short() {
        assert_eq!(clipped("äöüß", 3), "äö…");
        assert_eq!(clipped("äöü", 3), "äöü");
        assert_eq!(line(&json!("x".repeat(100))).chars().count(), CELL_CHARS_MAX);
        assert_eq!(
            line(&json!({ "blob": "0123456789abcdef", "bytes": 70_000 })),
            "[70000 bytes, sha256 0123456789ab…]"
        );
        assert_eq!(counts(&json!({ "waiting": 2, "idle": 3, "done": 0 })), "idle 3, waiting 2");
        assert_eq!(
            (text(&json!("")), text(&json!(3)), line(&Value::Null)),
            ("-".into(), "3".into(), "-".into())
        );
    }

    #[test]
    fn spans_and_money_are_read_at_a_glance() {
        let spans = [850, 12_000, 99_999, 300_000, 7_200_000, 345_600_000].map(span);
        assert_eq!(spans, ["850ms", "12s", "99s", "5m", "2h", "4d"]);
        assert_eq!(ago(&json!(1_000), 4_000), "3s");
        assert_eq!(
            (ahead(&json!(9_000), 4_000), ahead(&json!(u64::MAX / 1_000), 4_000)),
            ("in 5s".into(), "-".into())
        );
        assert_eq!(
            (money(&json!(0.0015)), money(&json!("0.25")), money(&Value::Null)),
            ("$0.0015".into(), "$0.2500".into(), "-".into())
        );
        assert_eq!(
            [0, 49, 50, 1_234_567].map(|n| micros(&json!(n))),
            ["$0.0000", "$0.0000", "$0.0001", "$1.2346"]
        );
    }

    #[test]
    fn a_models_answer_is_what_it_says() {
        let call = json!({ "function": { "name": "crm__refund", "arguments": "{\"amount\":20}" } });
        let answer = json!({ "choices": [{ "message": { "content": "So be it.", "tool_calls": [call] } }] });
        assert_eq!(outcome(&answer, 100), "So be it.; calls crm__refund{\"amount\":20}");
        assert_eq!(outcome(&json!({ "version": 1 }), 100), "{\"version\":1}");
        assert_eq!(moment(&json!(1_700_000_000_123_u64)), "2023-11-14 22:13:20.123");
    }

    #[test]
    fn waits_name_their_cause() {
        let one = json!({ "cause": "tool_call", "on": "crm.lookup", "since_ms": 1_000 });
        assert_eq!(waits(&json!([one]), 13_000), "tool_call crm.lookup 12s");
        assert_eq!(waits(&json!([one, one, one]), 13_000), "tool_call crm.lookup 12s (+2)");
        assert_eq!((waits(&json!([]), 1), waits(&Value::Null, 1)), (String::new(), String::new()));
        assert_eq!(waits(&json!([{ "cause": "message", "on": "", "since_ms": 0 }]), 1), "message");
    }
}
