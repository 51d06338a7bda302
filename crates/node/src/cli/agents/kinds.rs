//! What there is: types of agents, agents, tool servers and tools.

use http::Method;
use serde_json::{Value, json};

use crate::cli::code;
use crate::cli::print::{BAD, BOLD, Cell, DIM, GOOD, Table, WARN};
use crate::cli::server::{Failed, Server, escaped, failed, with_query};

use super::args::{AgentsArgs, AskArgs};
use super::{agent_named, ask, attempt, look, of, show, tell};

/// Agents asked for at once: what the server gives.
const PAGE: usize = 1_000;

pub(super) fn agents(args: &AgentsArgs) -> i32 {
    let only = match &args.agent {
        None => None,
        Some(text) => match agent_named(text, false) {
            Ok(agent) => Some(agent),
            Err(failed) => return failed.tell(args.ask.json),
        },
    };
    let kind = only.as_ref().map(seawall_model::Agent::kind);
    if args.list {
        return tell(&args.ask, listed(args, kind), render_list);
    }
    match only {
        Some(agent) if agent.as_str().contains('/') => attempt(args.ask.json, || {
            let path = of(&args.of, &format!("/seawall/agents/{}", escaped(agent.as_str())));
            Ok(look(&args.ask, &path, |answer| render_one(answer, show::now_ms())))
        }),
        _ => tell(&args.ask, kinds(args, kind), |answer| render_kinds(answer, kind)),
    }
}

/// Types of agents, or the one that is named.
fn kinds(args: &AgentsArgs, only: Option<&str>) -> Result<Value, Failed> {
    let mut answer = ask(&args.ask, Method::GET, &of(&args.of, "/seawall/agents"), None)?;
    if let (Some(only), Some(types)) = (only, answer["types"].as_array_mut()) {
        types.retain(|kind| kind["type"].as_str() == Some(only));
        if types.is_empty() {
            let what = format!("there is no type of agents called {only}");
            return Err(failed(code::NOT_WELL, what, "see `seawall agents`"));
        }
    }
    Ok(answer)
}

/// Agents one by one, of one type where one is named: page after page, until there are as
/// many as were asked for.
fn listed(args: &AgentsArgs, kind: Option<&str>) -> Result<Value, Failed> {
    let server = Server::at(&args.ask.server)?;
    let of_kind = |agent: &Value| {
        let name = agent["agent"].as_str().unwrap_or_default();
        kind.is_none_or(|kind| name.split('/').next() == Some(kind))
    };
    let (mut agents, mut after) = (Vec::new(), args.after.clone());
    loop {
        // Where most are not asked for, larger pages are fewer questions.
        let limit = if kind.is_some() { PAGE } else { (args.limit - agents.len()).min(PAGE) };
        let limit = limit.to_string();
        let query = [
            ("list", Some("1")),
            ("limit", Some(&*limit)),
            ("after", after.as_deref()),
            ("tenant", args.of.tenant.as_deref()),
        ];
        let page = server.get(&with_query("/seawall/agents", &query))?;
        after = page["next"].as_str().map(str::to_owned);
        for agent in show::list(&page["agents"]).iter().filter(|agent| of_kind(agent)) {
            agents.push(agent.clone());
            if agents.len() == args.limit {
                after = Some(format!("{}/{}", show::text(&agent["tenant"]), show::text(&agent["agent"])));
                return Ok(json!({ "agents": agents, "next": after }));
            }
        }
        if after.is_none() {
            return Ok(json!({ "agents": agents, "next": null }));
        }
    }
}

/// Types of agents as a table, one of them with all that it may call.
fn render_kinds(answer: &Value, only: Option<&str>) -> String {
    let kinds = show::list(&answer["types"]);
    let troubles = troubles(&answer["problems"], only);
    if kinds.is_empty() {
        let none = "There are no types of agents: put definitions into the folder `agents`.\n";
        return none.to_owned() + &troubles;
    }
    let mut table = Table::new(&["type", "version", "model", "agents", "tools", "about"]);
    for kind in kinds {
        let tools = show::list(&kind["tools"]).len();
        let unmet = show::list(&kind["unmet"]).len();
        let tools = match unmet {
            0 => Cell::new(tools.to_string()),
            _ => Cell::styled(format!("{tools}, {unmet} missing"), WARN),
        };
        table.row(vec![
            Cell::styled(show::text(&kind["type"]), BOLD),
            Cell::styled(show::text(&kind["version"]), DIM),
            match kind["model_known"].as_bool() {
                Some(false) => Cell::styled(format!("{}, unknown", show::text(&kind["model"])), WARN),
                _ => show::text(&kind["model"]).into(),
            },
            show::counts(&kind["agents"]).into(),
            tools,
            Cell::styled(show::line(&kind["about"]), DIM),
        ]);
    }
    let mut out = table.render();
    if let (Some(_), [kind]) = (only, kinds) {
        out.push_str(&named("tools", &kind["tools"]));
        out.push_str(&named("missing", &kind["unmet"]));
    } else {
        let total = |word: &str, counts: &Value| match show::counts(counts) {
            none if none == "-" => String::new(),
            some => format!("{DIM}{word}:{DIM:#} {some}\n"),
        };
        out.push('\n');
        out.push_str(&total("agents", &answer["states"]));
        out.push_str(&total("they wait for", &answer["waits"]));
    }
    out.push_str(&troubles);
    out.trim_end().to_owned() + "\n"
}

/// Files of definitions that are not in force as they are.
fn troubles(problems: &Value, only: Option<&str>) -> String {
    let mut out = String::new();
    for one in show::list(problems).iter().filter(|one| only.is_none_or(|only| one["type"] == only)) {
        out.push_str(&format!(
            "\n{BAD}problem:{BAD:#} {}: {}\n",
            show::text(&one["file"]),
            show::text(&one["outcome"])
        ));
        for what in show::list(&one["what"]) {
            out.push_str(&format!("  {}\n", show::text(what)));
        }
    }
    out
}

fn named(word: &str, names: &Value) -> String {
    let names: Vec<String> = show::list(names).iter().map(show::text).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("\n{BOLD}{word}{BOLD:#}\n  {}\n", names.join("\n  "))
    }
}

fn render_list(answer: &Value) -> String {
    let agents = show::list(&answer["agents"]);
    if agents.is_empty() {
        return "There are no such agents: start one with `seawall start TYPE TASK`.\n".to_owned();
    }
    let now_ms = show::now_ms();
    let mut table = Table::new(&["agent", "tenant", "state", "run", "inbox", "waits for"]);
    for agent in agents {
        table.row(vec![
            show::text(&agent["agent"]).into(),
            show::text(&agent["tenant"]).into(),
            show::state(&agent["state"]),
            show::text(&agent["run"]).into(),
            show::number(&agent["inbox"]).into(),
            show::waits(&agent["waits"], now_ms).into(),
        ]);
    }
    let mut out = table.render();
    if let Some(next) = answer["next"].as_str() {
        out.push_str(&format!("{DIM}there are more: --after {}{DIM:#}\n", show::clean(next, false)));
    }
    out
}

/// One agent with all of its work.
fn render_one(agent: &Value, now_ms: u64) -> String {
    let state = agent["state"].as_str().unwrap_or_default();
    let style = show::state_style(state);
    let tenant = show::text(&agent["tenant"]);
    let mut out =
        format!("{BOLD}{}{BOLD:#} of {tenant} is {style}{state}{style:#}", show::text(&agent["agent"]));
    if let Some(run) = agent["run"].as_str() {
        out.push_str(&format!(", on {}", show::clean(run, false)));
    }
    out.push('\n');
    if let Some(why) = agent["why"].as_str() {
        out.push_str(&format!("{BAD}why:{BAD:#} {}\n", show::clean(why, false)));
    }
    let queue: Vec<String> = show::list(&agent["queue"]).iter().map(show::text).collect();
    if !queue.is_empty() {
        out.push_str(&format!("queued runs: {}\n", queue.join(", ")));
    }
    match show::text(&agent["rung"]).as_str() {
        "-" | "well" => {}
        rung => out.push_str(&format!("progress: {WARN}{rung}{WARN:#}\n")),
    }
    let waits = super::why::table(&agent["waits"], now_ms);
    if !waits.is_empty() {
        out.push_str(&format!("\n{BOLD}waits for{BOLD:#}\n{waits}"));
    }
    let inbox = show::list(&agent["inbox"]);
    if !inbox.is_empty() {
        let mut table = Table::new(&["inbox", "from", "bytes", "age"]);
        for item in inbox {
            let kind = if item.is_object() { show::text(&item["kind"]) } else { show::line(item) };
            table.row(vec![
                kind.into(),
                show::text(&item["from"]).into(),
                show::number(&item["bytes"]).into(),
                show::ago(&item["at_ms"], now_ms).into(),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render());
    }
    let pending = show::list(&agent["pending"]);
    if !pending.is_empty() {
        let mut table = Table::new(&["effect", "kind", "object", "class", "stage", "tries", "age"]);
        for effect in pending {
            table.row(vec![
                show::text(&effect["effect"]).into(),
                show::text(&effect["kind"]).into(),
                show::text(&effect["object"]).into(),
                show::text(&effect["class"]).into(),
                show::line(&effect["stage"]).into(),
                show::number(&effect["attempts"]).into(),
                show::ago(&effect["asked_ms"], now_ms).into(),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render());
    }
    out
}

pub(super) fn tools(args: &AskArgs) -> i32 {
    look(args, "/seawall/tools", render_tools)
}

fn render_tools(answer: &Value) -> String {
    let (servers, tools) = (show::list(&answer["servers"]), show::list(&answer["tools"]));
    if servers.is_empty() && tools.is_empty() {
        return "There are no tools: configure [[tool_server]] or [[tool]].\n".to_owned();
    }
    let mut out = String::new();
    if !servers.is_empty() {
        let mut table = Table::new(&["server", "state", "tools", "calls", "starts", "why"]);
        for server in servers {
            let up = server["up"].as_bool() == Some(true) || server["state"] == "up";
            table.row(vec![
                Cell::styled(show::text(&server["name"]), BOLD),
                if up { Cell::styled("up", GOOD) } else { Cell::styled("down", BAD) },
                show::number(&server["tools"]).into(),
                show::number(&server["calls"]).into(),
                show::number(&server["starts"]).into(),
                show::clipped(show::text(&server["why"]).trim_start_matches('-'), 80).into(),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    if !tools.is_empty() {
        let mut table = Table::new(&["tool", "class", "undone by", "about"]);
        for tool in tools {
            let class = show::text(&tool["class"]);
            let style = match class.as_str() {
                "irreversible" => BAD,
                "compensable" => WARN,
                _ => GOOD,
            };
            table.row(vec![
                show::text(&tool["name"]).into(),
                Cell::styled(class, style),
                show::text(&tool["undo"]).into(),
                Cell::styled(show::line(&tool["about"]), DIM),
            ]);
        }
        out.push_str(&table.render());
    }
    out.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;

    #[test]
    fn types_are_counted_and_one_is_shown_with_its_tools() {
        let answer = json!({
            "types": [
                { "type": "lead", "version": "1a2b", "about": "Plans.", "model": "fast",
                  "tools": ["agent:finder", "store.get"], "unmet": ["web.*"], "agents": { "idle": 2, "waiting": 1 } },
                { "type": "finder", "version": "3c4d", "about": "", "model": "fast", "tools": [], "unmet": [], "agents": {} },
            ],
            "states": { "waiting": 1 }, "waits": { "model_call": 1 },
        });
        insta::assert_snapshot!(plain(&render_kinds(&answer, None)), @r"
        type    version  model  agents             tools         about
        lead    1a2b     fast   idle 2, waiting 1  2, 1 missing  Plans.
        finder  3c4d     fast   -                  0

        agents: waiting 1
        they wait for: model_call 1
        ");
        let lead = json!({ "types": [answer["types"][0]] });
        insta::assert_snapshot!(plain(&render_kinds(&lead, Some("lead"))), @r"
        type  version  model  agents             tools         about
        lead  1a2b     fast   idle 2, waiting 1  2, 1 missing  Plans.

        tools
          agent:finder
          store.get

        missing
          web.*
        ");
        assert!(render_kinds(&json!({}), None).contains("folder `agents`"));
        let broken = json!({ "problems": [{ "type": "w", "file": "w.toml", "version": null,
            "outcome": "type w is out of service until the file is mended", "what": ["line 1: not TOML"] }] });
        let told = plain(&render_kinds(&broken, None));
        assert!(
            told.contains("w.toml: type w is out of service") && told.contains("line 1: not TOML"),
            "{told}"
        );
    }

    #[test]
    fn an_agent_is_shown_with_its_work() {
        let agent = json!({
            "agent": "triage/7", "tenant": "acme", "state": "waiting", "run": "run-1f03", "queue": ["run-2003"],
            "inbox": [{ "kind": "message", "from": null, "bytes": 12, "at_ms": 1_000 }],
            "pending": [{ "effect": "run-1f03.2", "kind": "tool", "object": "crm.refund", "class": "irreversible",
                          "stage": "approving", "attempts": 0, "asked_ms": 1_000 }],
            "waits": [{ "cause": "approval", "on": "crm.refund", "since_ms": 1_000, "until_ms": 601_000, "effect": "run-1f03.2" }],
            "rung": "warned", "why": null,
        });
        insta::assert_snapshot!(plain(&render_one(&agent, 61_000)), @r"
        triage/7 of acme is waiting, on run-1f03
        queued runs: run-2003
        progress: warned

        waits for
        cause     on          for  until  effect
        approval  crm.refund  60s  in 9m  run-1f03.2

        inbox    from  bytes  age
        message  -     12     60s

        effect      kind  object      class         stage      tries  age
        run-1f03.2  tool  crm.refund  irreversible  approving  0      60s
        ");
        assert!(!render_one(&Value::Null, 0).is_empty(), "whatever a server says is only shown");
    }

    #[test]
    fn tools_are_shown_with_their_classes() {
        let answer = json!({
            "servers": [{ "name": "crm", "up": false, "why": "it exited with 1", "tools": 2, "calls": 0, "starts": 4 }],
            "tools": [{ "name": "crm.refund", "class": "irreversible", "undo": null, "about": "Gives money back." }],
        });
        insta::assert_snapshot!(plain(&render_tools(&answer)), @r"
        server  state  tools  calls  starts  why
        crm     down   2      0      4       it exited with 1

        tool        class         undone by  about
        crm.refund  irreversible  -          Gives money back.
        ");
        assert!(render_tools(&json!({})).contains("no tools"));
    }
}
