//! Values of a tenant's store: what agents share, as a person looks at it and mends it.

use http::Method;
use serde_json::{Value, json};

use crate::cli::code;
use crate::cli::print::{self, BOLD, Cell, DIM, Table};
use crate::cli::server::{Server, escaped, with_query};

use super::args::{PutArgs, ValueArgs, ValuesArgs, ValuesCommand};
use super::{ask, attempt, given, look, of, show, task_of, tell};

pub(super) fn run(args: &ValuesArgs) -> i32 {
    match &args.command {
        None => list(args),
        Some(ValuesCommand::Get(args)) => read(args),
        Some(ValuesCommand::Put(args)) => write(args),
        Some(ValuesCommand::Remove(args)) => remove(args),
    }
}

fn list(args: &ValuesArgs) -> i32 {
    let limit = args.limit.to_string();
    let query = [
        ("prefix", args.prefix.as_deref()),
        ("q", args.find.as_deref()),
        ("after", args.after.as_deref()),
        ("limit", Some(&*limit)),
        ("tenant", args.of.tenant.as_deref()),
    ];
    look(&args.ask, &with_query("/seawall/values", &query), |answer| render(answer, show::now_ms()))
}

/// Where a value is. A slash in a key stays one.
fn path(key: &str) -> String {
    format!("/seawall/values/{}", escaped(key))
}

fn read(args: &ValueArgs) -> i32 {
    look(&args.ask, &of(&args.of, &path(&args.name)), |answer| show::block(&answer["value"], ""))
}

fn write(args: &PutArgs) -> i32 {
    attempt(args.ask.json, || {
        let mut body = json!({ "value": task_of(&given(&args.value)?) });
        if let Some(version) = args.expect {
            body["expect"] = json!(version);
        }
        let written =
            Server::at(&args.ask.server)?.ask(Method::PUT, &of(&args.of, &path(&args.name)), Some(&body))?;
        if args.ask.json.json {
            print::json(&written);
        } else {
            let (key, version) = (show::text(&written["key"]), show::number(&written["version"]));
            print::line(&format!("{BOLD}{key}{BOLD:#} is written: version {version}"));
        }
        Ok(code::OK)
    })
}

fn remove(args: &ValueArgs) -> i32 {
    let asked = ask(&args.ask, Method::DELETE, &of(&args.of, &path(&args.name)), None);
    tell(&args.ask, asked, |answer| format!("{} is removed.\n", show::text(&answer["key"])))
}

fn render(answer: &Value, now_ms: u64) -> String {
    let values = show::list(&answer["values"]);
    if values.is_empty() {
        return "There are no such values: agents write them with `store.put`, you with `seawall values put`.\n"
            .to_owned();
    }
    let mut table = Table::new(&["key", "version", "age", "bytes", "by", "value"]);
    for value in values {
        table.row(vec![
            Cell::styled(show::text(&value["key"]), BOLD),
            show::number(&value["version"]).into(),
            show::ago(&value["at_ms"], now_ms).into(),
            show::number(&value["bytes"]).into(),
            show::text(&value["by"]).into(),
            show::line(&value["value"]).into(),
        ]);
    }
    let mut out = table.render();
    if let Some(next) = answer["next"].as_str() {
        out.push_str(&format!("{DIM}there are more: --after {}{DIM:#}\n", show::clean(next, false)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn values_are_listed_with_what_is_needed_to_change_them() {
        let answer = json!({ "next": "b\u{1b}", "values": [
            { "key": "a/\u{1b}[31m", "version": 3, "at_ms": 1_000, "bytes": 7, "by": "run-1f03.2", "value": { "n": 1 } },
        ] });
        insta::assert_snapshot!(plain(&render(&answer, 61_000)), @r#"
        key           version  age  bytes  by          value
        a/\u{1b}[31m  3        60s  7      run-1f03.2  {"n":1}
        there are more: --after b\u{1b}
        "#);
        assert!(render(&Value::Null, 0).contains("seawall values put"));
    }

    #[test]
    fn keys_keep_their_slashes_and_nothing_else_that_a_path_would_read() {
        assert_eq!(path("a/b c?d#e"), "/seawall/values/a/b%20c%3Fd%23e");
    }
}
