//! `seawall runs` and `seawall run NAME`: what runs of agents a running server knows, what
//! they do and what they have used, as a list or as a tree.

use http::{Method, StatusCode};
use seawall_model::At;
use serde_json::Value;

use super::args::{RunShowArgs, RunsArgs, ServerArgs};
use super::code;
use super::key::show_time;
use super::models::{self, Failed};
use super::print::{self, BAD, Cell, DIM, GOOD, Table};

pub(crate) fn list(args: &RunsArgs) -> i32 {
    let mut path = format!("/seawall/runs?limit={}", args.limit);
    if let Some(tenant) = &args.tenant {
        path.push_str(&format!("&tenant={}", escaped(tenant)));
    }
    tell(ask(&args.server, &path), args.json.json, |runs| render(runs, false))
}

pub(crate) fn show(args: &RunShowArgs) -> i32 {
    // Without a subcommand there is a name: it is required then.
    let name = args.name.as_deref().unwrap_or_default();
    let path = format!("/seawall/runs?tenant={}&tree={}", escaped(&args.tenant), escaped(name));
    let none =
        format!("No call of the run {:?} of {} is over yet, nor of any below it.\n", name, args.tenant);
    tell(
        ask(&args.server, &path),
        args.json.json,
        |runs| if runs.is_empty() { none } else { render(runs, true) },
    )
}

fn tell(asked: Result<Value, Failed>, as_json: bool, render: impl FnOnce(&[Value]) -> String) -> i32 {
    match asked {
        Ok(body) if as_json => print::json(&body),
        Ok(body) => print::text(&render(body["runs"].as_array().map_or(&[], Vec::as_slice))),
        Err(failed) => {
            print::failure(&failed.what, &failed.hint);
            return failed.code;
        }
    }
    code::OK
}

fn ask(server: &ServerArgs, path: &str) -> Result<Value, Failed> {
    let url = models::parse(&server.url)?;
    models::wait_for(&url, async {
        match models::fetch(&url, Method::GET, path, server.key.as_deref()).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::BAD_REQUEST, body) => {
                let said = body["error"]["message"].as_str().unwrap_or("the question is not understood");
                Err(models::failed(code::USAGE, said, "seawall runs --help"))
            }
            (status, _) => Err(models::refused(&url, status)),
        }
    })
}

/// As the value of a query (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

/// Runs as a table; of a tree with each run a step to the right of the one above it.
fn render(runs: &[Value], tree: bool) -> String {
    if runs.is_empty() {
        return "No call of a run is over yet: send x-seawall-run with the calls of one task.\n".to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let time = |value: &Value| show_time(value.as_u64().map(|ms| At(ms.saturating_mul(1_000))));
    let of = if tree { "tenant" } else { "parent" };
    let mut table =
        Table::new(&["run", "agent", of, "state", "calls", "failed", "in", "out", "cost", "since", "last"]);
    let ordered: Vec<&Value> = if tree { by_kin(runs) } else { runs.iter().collect() };
    for run in ordered {
        let step = usize::try_from(run["depth"].as_u64().unwrap_or(0)).unwrap_or(0).min(32);
        let state = text(&run["state"]);
        let style = match state.as_str() {
            "running" => GOOD,
            "stopped" => BAD,
            _ => DIM,
        };
        let cost = run["cost_usd_micro"].as_u64().map_or_else(|| "-".to_owned(), dollars);
        table.row(vec![
            format!("{}{}", "  ".repeat(if tree { step } else { 0 }), text(&run["name"])).into(),
            text(&run["agent"]).into(),
            text(&run[of]).into(),
            Cell::styled(state, style),
            number(&run["calls"]).into(),
            number(&run["failed"]).into(),
            number(&run["input_tokens"]).into(),
            number(&run["output_tokens"]).into(),
            cost.into(),
            time(&run["since_ms"]).into(),
            time(&run["last_ms"]).into(),
        ]);
    }
    table.render()
}

/// Millionths of a dollar as dollars, to a hundredth of a cent.
fn dollars(micros: u64) -> String {
    let hundredths = micros.saturating_add(50) / 100;
    format!("${}.{:04}", hundredths / 10_000, hundredths % 10_000)
}

/// Each run right after the one above it. The server has them by depth, so every parent that
/// is there at all stands before its children.
fn by_kin(runs: &[Value]) -> Vec<&Value> {
    let mut ordered: Vec<&Value> = Vec::with_capacity(runs.len());
    for run in runs {
        let depth = run["depth"].as_u64();
        let above = ordered
            .iter()
            .position(|other| other["name"] == run["parent"] && other["depth"].as_u64() < depth);
        let at = above.map_or(ordered.len(), |above| {
            // Behind its elder siblings and all that hangs below them.
            let deeper = |other: &&&Value| other["depth"].as_u64() > ordered[above]["depth"].as_u64();
            above + 1 + ordered[above + 1..].iter().take_while(deeper).count()
        });
        ordered.insert(at, run);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(name: &str, parent: Option<&str>, depth: u64) -> Value {
        json!({
            "name": name, "parent": parent, "depth": depth, "tenant": "acme", "agent": "writer/1",
            "state": if depth == 0 { "running" } else { "idle" }, "calls": 3, "failed": 1,
            "input_tokens": 1_000, "output_tokens": 20, "cost_usd_micro": 1_500,
            "since_ms": 1_700_000_000_000_u64, "last_ms": 1_700_000_060_000_u64,
        })
    }

    #[test]
    fn a_tree_is_shown_as_one() {
        let runs = [
            run("top", None, 0),
            run("a", Some("top"), 1),
            run("b", Some("top"), 1),
            run("a1", Some("a"), 2),
        ];
        insta::assert_snapshot!(print::plain(&render(&runs, true)), @r"
        run     agent     tenant  state    calls  failed  in    out  cost     since             last
        top     writer/1  acme    running  3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
          a     writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
            a1  writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
          b     writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
        ");
        assert_eq!(by_kin(&runs[1..]).len(), 3, "also without its top");
    }

    #[test]
    fn a_list_names_parents_and_whatever_a_server_says_is_only_shown() {
        insta::assert_snapshot!(print::plain(&render(&[run("a", Some("top"), 0)], false)), @r"
        run  agent     parent  state    calls  failed  in    out  cost     since             last
        a    writer/1  top     running  3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
        ");
        assert!(render(&[], false).contains("x-seawall-run"));
        assert!(
            !render(&[json!(null), json!({ "depth": u64::MAX, "cost_usd_micro": "x" })], true).is_empty()
        );
    }

    #[test]
    fn money_is_shown_in_dollars() {
        assert_eq!([0, 49, 50, 1_234_567].map(dollars), ["$0.0000", "$0.0000", "$0.0001", "$1.2346"]);
    }

    #[test]
    fn names_survive_a_query() {
        assert_eq!(escaped("a b&c=d/e%\u{e9}"), "a%20b%26c%3Dd/e%25%C3%A9");
    }
}
