//! `seawall runs` and `seawall run NAME`: what runs of agents a running server knows, durable
//! ones and those that came through the door, what they do and what they have used, as a
//! list or as a tree.

use seawall_model::RunKey;
use serde_json::Value;

use super::agents::{orders, show};
use super::args::{JsonArgs, RunShowArgs, RunsArgs};
use super::code;
use super::print::{self, BOLD, Cell, DIM, Table, WARN};
use super::server::{Failed, Server, failed, with_query};

pub(crate) fn list(args: &RunsArgs) -> i32 {
    let limit = args.limit.to_string();
    let query = [
        ("tenant", args.tenant.as_deref()),
        ("type", args.kind.as_deref()),
        ("state", args.state.as_deref()),
        ("parent", args.parent.as_deref()),
        ("before", args.before.as_deref()),
        ("limit", Some(&*limit)),
    ];
    let asked = Server::at(&args.server).and_then(|server| server.get(&with_query("/seawall/runs", &query)));
    tell(asked, args.json, |answer| render(show::list(&answer["runs"])))
}

pub(crate) fn show(args: &RunShowArgs) -> i32 {
    // Without a subcommand there is a name: it is required then.
    let name = args.name.as_deref().unwrap_or_default();
    if let Some(durable) = RunKey::parse(name) {
        let asked =
            Server::at(&args.server).and_then(|server| server.get(&format!("/seawall/runs/{durable}")));
        return tell(asked, args.json, |run| render_durable(run, show::now_ms()));
    }
    let query = [("tenant", Some(&*args.tenant)), ("tree", Some(name))];
    let asked = Server::at(&args.server).and_then(|server| server.get(&with_query("/seawall/runs", &query)));
    let asked = asked.and_then(|answer| match show::list(&answer["runs"]) {
        [] => Err(nameless(name, &args.tenant)),
        _ => Ok(answer),
    });
    tell(asked, args.json, |answer| render_door(show::list(&answer["runs"]), true))
}

/// Nothing is known of a run by this name.
fn nameless(name: &str, tenant: &str) -> Failed {
    let what = match name.starts_with("run-") {
        true => format!("{name:?} is not the name of a durable run, and {tenant} has no calls by that name"),
        false => format!("no call of a run {name:?} of {tenant} is over yet, nor of any below it"),
    };
    let hint = match name.starts_with("run-") {
        true => "a durable run is `run-` and at least four hex digits, as `seawall runs` shows it",
        false => {
            "`seawall runs` lists runs; one of the door is known by the name in x-seawall-run, and by --tenant"
        }
    };
    failed(code::NOT_WELL, what, hint)
}

fn tell(asked: Result<Value, Failed>, json: JsonArgs, render: impl FnOnce(&Value) -> String) -> i32 {
    match asked {
        Ok(body) if json.json => print::json(&body),
        Ok(body) => print::text(&render(&body)),
        Err(failed) => return failed.tell(json),
    }
    code::OK
}

fn is_durable(run: &Value) -> bool {
    run["kind"] == "durable"
}

/// Runs as a table. Where none is durable, with what only those of the door have.
fn render(runs: &[Value]) -> String {
    if runs.is_empty() {
        return "There are no such runs: `seawall start TYPE TASK` begins one, and so do calls that send \
                x-seawall-run.\n"
            .to_owned();
    }
    if !runs.iter().any(is_durable) {
        return render_door(runs, false);
    }
    let mut table =
        Table::new(&["run", "agent", "parent", "state", "turns", "calls", "tokens", "cost", "began", "last"]);
    for run in runs {
        let cells = if is_durable(run) { durable(run) } else { of_door(run) };
        let [name, turns, calls, tokens, cost, began, last] = cells;
        table.row(vec![
            Cell::styled(name, BOLD),
            show::text(&run["agent"]).into(),
            show::text(&run["parent"]).into(),
            show::state(&run["state"]),
            turns.into(),
            calls.into(),
            tokens.into(),
            cost.into(),
            Cell::styled(began, DIM),
            Cell::styled(last, DIM),
        ]);
    }
    table.render() + &budgets(runs)
}

/// Name, turns, calls, tokens, cost, begin and end of a durable run.
fn durable(run: &Value) -> [String; 7] {
    let used = &run["used"];
    [
        show::text(&run["run"]),
        show::number(&run["turns"]),
        show::number(&used["calls"]),
        show::number(&used["tokens"]),
        show::money(&used["money_usd"]),
        show::time(&run["began_ms"]),
        show::time(&run["ended_ms"]),
    ]
}

/// Likewise of a run of the door, whose turns nobody knows.
fn of_door(run: &Value) -> [String; 7] {
    let tokens = run["input_tokens"].as_u64().zip(run["output_tokens"].as_u64());
    [
        show::text(&run["name"]),
        "-".to_owned(),
        show::number(&run["calls"]),
        tokens.map_or_else(|| "-".to_owned(), |(input, output)| input.saturating_add(output).to_string()),
        show::micros(&run["cost_usd_micro"]),
        show::time(&run["since_ms"]),
        show::time(&run["last_ms"]),
    ]
}

/// Runs of the door as a table; of a tree with each run a step to the right of the one
/// above it.
fn render_door(runs: &[Value], tree: bool) -> String {
    let of = if tree { "tenant" } else { "parent" };
    let mut table =
        Table::new(&["run", "agent", of, "state", "calls", "failed", "in", "out", "cost", "since", "last"]);
    let given: Vec<&Value> = runs.iter().collect();
    let ordered = if tree { by_kin(&given) } else { given };
    for run in ordered {
        table.row(vec![
            format!("{}{}", if tree { indent(run, None) } else { String::new() }, show::text(&run["name"]))
                .into(),
            show::text(&run["agent"]).into(),
            show::text(&run[of]).into(),
            show::state(&run["state"]),
            show::number(&run["calls"]).into(),
            show::number(&run["failed"]).into(),
            show::number(&run["input_tokens"]).into(),
            show::number(&run["output_tokens"]).into(),
            show::micros(&run["cost_usd_micro"]).into(),
            show::time(&run["since_ms"]).into(),
            show::time(&run["last_ms"]).into(),
        ]);
    }
    table.render() + &budgets(runs)
}

/// A line for each run of the door that has a budget of its own.
fn budgets(runs: &[Value]) -> String {
    let bounded = runs.iter().filter(|run| !is_durable(run) && run["allowance"].is_object());
    bounded
        .map(|run| {
            let meters = meters(run, show::now_ms()).join("; ");
            format!("{DIM}budget of{DIM:#} {}: {meters}\n", show::text(&run["name"]))
        })
        .collect()
}

/// A durable run: where it stands, its whole tree with states, waits and spend, and what
/// came of it.
fn render_durable(run: &Value, now_ms: u64) -> String {
    let state = show::text(&run["state"]);
    let style = show::state_style(&state);
    let mut out = format!(
        "{BOLD}{}{BOLD:#} is {style}{state}{style:#}  {} of {}, version {}\n",
        show::text(&run["run"]),
        show::text(&run["agent"]),
        show::text(&run["tenant"]),
        show::text(&run["version"]),
    );
    out.push_str(&format!("  {DIM}task{DIM:#}   {}\n", show::line_of(&run["task"], 200)));
    out.push_str(&format!("  {DIM}began{DIM:#}  {}", show::time(&run["began_ms"])));
    if let (Some(began), Some(ended)) = (run["began_ms"].as_u64(), run["ended_ms"].as_u64()) {
        out.push_str(&format!(", over after {}", show::span(ended.saturating_sub(began))));
    }
    if let Some(by) = run["by"].as_str() {
        out.push_str(&format!(", by {}", show::clean(by, false)));
    }
    if let Some(fork) = show::fork(&run["fork"]) {
        out.push_str(&format!(", {fork}"));
    }
    out.push('\n');
    for (at, meter) in meters(run, now_ms).iter().enumerate() {
        let word = if at == 0 { "used" } else { "" };
        out.push_str(&format!("  {DIM}{word:<5}{DIM:#}  {meter}\n"));
    }
    out.push('\n');
    out.push_str(&render_tree(run, now_ms));
    if state == "done" {
        out.push_str(&format!("\n{BOLD}output{BOLD:#}\n{}", show::block(&run["output"], "  ")));
    } else if orders::is_over(run) {
        out.push_str(&format!("\n{WARN}{}{WARN:#}\n", orders::ending(run)));
    } else if !show::list(&run["waits"]).is_empty() {
        out.push_str(&format!("\n{DIM}why: seawall why {}{DIM:#}\n", show::text(&run["run"])));
    }
    out
}

/// A run and all below it.
fn render_tree(top: &Value, now_ms: u64) -> String {
    let mut table =
        Table::new(&["run", "agent", "state", "turns", "calls", "tokens", "cost", "began", "waits for"]);
    let below = show::list(&top["tree"]).iter().filter(|run| run["run"] != top["run"]);
    let all: Vec<&Value> = std::iter::once(top).chain(below).collect();
    for run in by_kin(&all) {
        let [name, turns, calls, tokens, cost, began, _] = durable(run);
        let style = if run["run"] == top["run"] { BOLD } else { anstyle::Style::new() };
        table.row(vec![
            Cell::styled(format!("{}{name}", indent(run, top["depth"].as_u64())), style),
            show::text(&run["agent"]).into(),
            show::state(&run["state"]),
            turns.into(),
            calls.into(),
            tokens.into(),
            cost.into(),
            Cell::styled(began, DIM),
            show::waits(&run["waits"], now_ms).into(),
        ]);
    }
    let mut out = table.render();
    if top["tree_cut"] == true {
        out.push_str(&format!("{DIM}there are more: seawall runs --parent RUN{DIM:#}\n"));
    }
    out
}

/// What a run has used of what it may, what is reserved and what is left, a line for each:
/// `tokens 1200 of 50000, 300 reserved, 48500 left`. What is left counts what all above it
/// have left, so it may be less than the rest.
fn meters(run: &Value, now_ms: u64) -> Vec<String> {
    let (used, reserved, allowance) = (&run["used"], &run["reserved"], &run["allowance"]);
    let mut meters = Vec::new();
    for (name, word) in [("tokens", "tokens"), ("money_usd", "money"), ("calls", "calls"), ("steps", "steps")]
    {
        let amount =
            |value: &Value| if name == "money_usd" { show::money(value) } else { show::number(value) };
        let spent = amount(&used[name]);
        if spent == "-" {
            continue;
        }
        let mut meter = format!("{word} {spent}");
        if !allowance[name].is_null() {
            meter.push_str(&format!(" of {}", amount(&allowance[name])));
        }
        if reserved[name].as_f64().is_some_and(|reserved| reserved > 0.0) {
            meter.push_str(&format!(", {} reserved", amount(&reserved[name])));
        }
        if !run["left"][name].is_null() {
            meter.push_str(&format!(", {} left", amount(&run["left"][name])));
        }
        meters.push(meter);
    }
    let began = run["began_ms"].as_u64();
    let end = run["ended_ms"].as_u64().unwrap_or(now_ms);
    if let (Some(began), Some(wall)) = (began, allowance["wall_ms"].as_u64()) {
        let mut meter = format!("time {} of {}", show::span(end.saturating_sub(began)), show::span(wall));
        if let Some(left) = run["left"]["wall_ms"].as_u64() {
            let deadline = show::time(&run["deadline_ms"]);
            meter.push_str(&format!(", {} left (until {deadline} at the latest)", show::span(left)));
        }
        meters.push(meter);
    } else if let Some(left) = run["left"]["wall_ms"].as_u64() {
        meters.push(format!("time {} left, by a run above", show::span(left)));
    }
    let live = show::list(&run["children"]).len();
    if let Some(children) = allowance["children"].as_u64() {
        meters.push(format!("children {live} of {children}"));
    }
    if let (Some(depth), Some(levels)) = (run["depth"].as_u64(), allowance["depth"].as_u64()) {
        meters.push(format!("levels below: {levels} at most (it is at depth {depth})"));
    }
    meters
}

/// As far to the right as a run is below the top.
fn indent(run: &Value, top: Option<u64>) -> String {
    let steps = run["depth"].as_u64().unwrap_or(0).saturating_sub(top.unwrap_or(0));
    "  ".repeat(usize::try_from(steps).unwrap_or(0).min(32))
}

/// Each run right after the one above it. Those that are not there leave theirs at the end.
fn by_kin<'a>(runs: &[&'a Value]) -> Vec<&'a Value> {
    let name = |run: &Value| if is_durable(run) { run["run"].clone() } else { run["name"].clone() };
    // The server has a durable tree by age, and one of the door by depth. Either way every
    // parent that is there at all stands before its children.
    let mut ordered: Vec<&Value> = Vec::with_capacity(runs.len());
    for run in runs {
        let depth = run["depth"].as_u64();
        let above =
            ordered.iter().position(|other| name(other) == run["parent"] && other["depth"].as_u64() < depth);
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
            "kind": "door", "name": name, "parent": parent, "depth": depth, "tenant": "acme",
            "agent": "writer/1", "state": if depth == 0 { "running" } else { "idle" }, "calls": 3, "failed": 1,
            "input_tokens": 1_000, "output_tokens": 20, "cost_usd_micro": 1_500,
            "since_ms": 1_700_000_000_000_u64, "last_ms": 1_700_000_060_000_u64,
        })
    }

    fn lasting(name: &str, parent: Option<&str>, depth: u64, state: &str) -> Value {
        json!({
            "kind": "durable", "run": name, "agent": "lead/1", "tenant": "acme", "parent": parent, "root": "run-100",
            "depth": depth, "state": state, "version": "1a2b", "turns": 4, "began_ms": 1_700_000_000_000_u64,
            "ended_ms": (state == "done").then_some(1_700_000_060_000_u64),
            "used": { "tokens": 1_200, "money_usd": 0.0015, "calls": 3, "steps": 4 },
            "reserved": { "tokens": 300, "money_usd": 0.0, "calls": 1, "steps": 0 },
            "allowance": { "tokens": 50_000, "wall_ms": 300_000 }, "left": { "tokens": 48_500, "wall_ms": 288_000 },
            "deadline_ms": 1_700_000_300_000_u64, "task": "Look around.", "by": "operator",
            "output": (state == "done").then_some("All is\nwell."),
            "waits": if state == "active" { json!([{ "cause": "model_call", "on": "fast", "since_ms": 1_700_000_000_000_u64 }]) } else { json!([]) },
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
        insta::assert_snapshot!(print::plain(&render_door(&runs, true)), @r"
        run     agent     tenant  state    calls  failed  in    out  cost     since             last
        top     writer/1  acme    running  3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
          a     writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
            a1  writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
          b     writer/1  acme    idle     3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
        ");
        assert_eq!(by_kin(&runs[1..].iter().collect::<Vec<_>>()).len(), 3, "also without its top");
    }

    #[test]
    fn a_list_names_parents_and_whatever_a_server_says_is_only_shown() {
        insta::assert_snapshot!(print::plain(&render(&[run("a", Some("top"), 0)])), @r"
        run  agent     parent  state    calls  failed  in    out  cost     since             last
        a    writer/1  top     running  3      1       1000  20   $0.0015  2023-11-14 22:13  2023-11-14 22:14
        ");
        assert!(render(&[]).contains("x-seawall-run"));
        let odd = [json!(null), json!({ "kind": "durable", "depth": u64::MAX, "used": "x" })];
        assert!(!render(&odd).is_empty() && !render_door(&odd, true).is_empty());
        assert!(!render_durable(&odd[0], 0).is_empty());
    }

    #[test]
    fn durable_runs_stand_in_one_list_with_those_of_the_door() {
        let runs = [lasting("run-100", None, 0, "done"), run("a", None, 0)];
        insta::assert_snapshot!(print::plain(&render(&runs)), @r"
        run      agent     parent  state    turns  calls  tokens  cost     began             last
        run-100  lead/1    -       done     4      3      1200    $0.0015  2023-11-14 22:13  2023-11-14 22:14
        a        writer/1  -       running  -      3      1020    $0.0015  2023-11-14 22:13  2023-11-14 22:14
        ");
    }

    #[test]
    fn a_durable_run_is_shown_with_its_tree() {
        let mut top = lasting("run-100", None, 0, "active");
        let below = lasting("run-200", Some("run-100"), 1, "done");
        top["tree"] = json!([below]);
        insta::assert_snapshot!(print::plain(&render_durable(&top, 1_700_000_012_000)), @r"
        run-100 is active  lead/1 of acme, version 1a2b
          task   Look around.
          began  2023-11-14 22:13, by operator
          used   tokens 1200 of 50000, 300 reserved, 48500 left
                 money $0.0015
                 calls 3, 1 reserved
                 steps 4
                 time 12s of 5m, 4m left (until 2023-11-14 22:18 at the latest)

        run        agent   state   turns  calls  tokens  cost     began             waits for
        run-100    lead/1  active  4      3      1200    $0.0015  2023-11-14 22:13  model_call fast 12s
          run-200  lead/1  done    4      3      1200    $0.0015  2023-11-14 22:13

        why: seawall why run-100
        ");
        let done = print::plain(&render_durable(&below, 0));
        assert!(done.contains("over after 60s") && done.ends_with("output\n  All is\n  well.\n"), "{done}");
    }
}
