//! Commands for durable agents. Nearly all ask a running server over its HTTP API; `audit`
//! reads the data folder itself, so that it also works where no server runs.

pub mod args;
mod audit;
mod debug;
mod events;
mod inbox;
mod kinds;
mod mail;
pub(super) mod orders;
pub(super) mod permits;
pub(super) mod show;
mod step;
mod values;
mod why;

use http::Method;
use seawall_model::RunKey;
use serde_json::Value;

use super::code;
use super::print;
use super::server::{Failed, Server, failed, with_query};
use crate::cli::args::JsonArgs;

use args::{AgentCommand, AgentsCommand, AskArgs, TenantArgs};

pub(super) fn run(command: &AgentsCommand) -> i32 {
    match command {
        AgentsCommand::Agents(args) => kinds::agents(args),
        AgentsCommand::Agent(AgentCommand::Release(args)) => orders::release(args),
        AgentsCommand::Start(args) => orders::start(args),
        AgentsCommand::Send(args) => mail::send(args),
        AgentsCommand::Why(args) => why::run(args),
        AgentsCommand::Inbox(args) => inbox::list(args),
        AgentsCommand::Approve(args) => inbox::approve(args),
        AgentsCommand::Deny(args) => inbox::deny(args),
        AgentsCommand::Delegate(args) => inbox::delegate(args),
        AgentsCommand::Answer(args) => inbox::answer(args),
        AgentsCommand::Letters(args) => mail::letters(args),
        AgentsCommand::Values(args) => values::run(args),
        AgentsCommand::Halt(args) => orders::halt(args, true),
        AgentsCommand::Unhalt(args) => orders::halt(args, false),
        AgentsCommand::Halts(args) => orders::halts(args),
        AgentsCommand::Tools(args) => kinds::tools(args),
        AgentsCommand::Events(args) => events::run(args),
        AgentsCommand::Debug(args) => debug::run(args),
        AgentsCommand::Audit(command) => audit::run(command),
    }
}

/// Asks for what stands under a path, and shows it as JSON or as a text made of it.
fn look(args: &AskArgs, path: &str, render: impl FnOnce(&Value) -> String) -> i32 {
    tell(args, ask(args, Method::GET, path, None), render)
}

/// Gives an order, and says that it was taken.
fn order(args: &AskArgs, path: &str, body: &Value, render: impl FnOnce(&Value) -> String) -> i32 {
    tell(args, ask(args, Method::POST, path, Some(body)), render)
}

fn ask(args: &AskArgs, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
    Server::at(&args.server)?.ask(method, path, body)
}

/// A path that says whose agents are meant, where that was said.
fn of(tenant: &TenantArgs, path: &str) -> String {
    with_query(path, &[("tenant", tenant.tenant.as_deref())])
}

/// The same in the body of an order.
fn in_tenant(body: &mut Value, tenant: &TenantArgs) {
    if let Some(tenant) = &tenant.tenant {
        body["tenant"] = Value::String(tenant.clone());
    }
}

fn tell(args: &AskArgs, asked: Result<Value, Failed>, render: impl FnOnce(&Value) -> String) -> i32 {
    match asked {
        Ok(answer) if args.json.json => print::json(&answer),
        Ok(answer) => print::text(&render(&answer)),
        Err(failed) => return failed.tell(args.json),
    }
    code::OK
}

/// A durable run's name, checked before anybody is asked.
fn run_named(text: &str) -> Result<RunKey, Failed> {
    RunKey::parse(text).ok_or_else(|| {
        let what = format!("{text:?} is not the name of a durable run");
        failed(code::USAGE, what, "one looks like run-1f03: see `seawall runs`")
    })
}

/// An agent's name within its tenant; with a key unless a type alone will do.
fn agent_named(text: &str, keyed: bool) -> Result<seawall_model::Agent, Failed> {
    let agent = seawall_model::Agent::parse(text).map_err(|error| {
        // The rules of names are told of tenants, whose segments agents' names are as well.
        let why = error.to_string().replace("a tenant path", "an agent's name");
        failed(code::USAGE, format!("{text:?} is not an agent: {why}"), "such as researcher/42")
    })?;
    if keyed && !text.contains('/') {
        let what = format!("{text:?} is a type of agent, not an agent");
        return Err(failed(code::USAGE, what, "name it as TYPE/KEY: see `seawall agents --list`"));
    }
    Ok(agent)
}

/// Runs a command whose arguments may turn out wrong.
fn attempt(json: JsonArgs, work: impl FnOnce() -> Result<i32, Failed>) -> i32 {
    work().unwrap_or_else(|failed| failed.tell(json))
}

/// Most that is read from standard input: more than any prompt that an engine takes.
const INPUT_BYTES_MAX: u64 = 32 << 20;

/// A text as given, or all of standard input for `-`.
fn given(text: &str) -> Result<String, Failed> {
    use std::io::Read as _;
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut all = String::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_string(&mut all);
    read.map_err(|error| failed(code::IO, format!("standard input: {error}"), ""))?;
    if all.len() as u64 > INPUT_BYTES_MAX {
        return Err(failed(code::USAGE, format!("standard input has more than {INPUT_BYTES_MAX} bytes"), ""));
    }
    Ok(all.strip_suffix('\n').unwrap_or(&all).to_owned())
}

/// A task or message: an object or list where it is one in JSON, else text.
fn task_of(text: &str) -> Value {
    let structured = text.trim_start().starts_with(['{', '[']);
    let parsed = structured.then(|| serde_json::from_str(text).ok()).flatten();
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// An answer or a value of a state: whatever it is in JSON, else text.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// `KEY=VALUE` pairs as an object.
fn pairs(texts: &[String]) -> Result<serde_json::Map<String, Value>, Failed> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            failed(
                code::USAGE,
                format!("{text:?} is no KEY=VALUE"),
                "such as --set 'm/00000003={\"role\":\"user\"}'",
            )
        })?;
        Ok((key.to_owned(), value_of(value)))
    };
    texts.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_typed_is_text_unless_it_is_meant_as_json() {
        assert_eq!(task_of("42 things {"), json!("42 things {"));
        assert_eq!(task_of("42"), json!("42"));
        assert_eq!(task_of(" {\"city\":\"Rome\"}"), json!({ "city": "Rome" }));
        assert_eq!(task_of("[not json"), json!("[not json"));
        assert_eq!(
            (value_of("42"), value_of("yes"), value_of("\"42\"")),
            (json!(42), json!("yes"), json!("42"))
        );
        let set = pairs(&["a=1".into(), "b=x=y".into()]).expect("pairs");
        assert_eq!(Value::Object(set), json!({ "a": 1, "b": "x=y" }));
        assert!(pairs(&["a".into()]).is_err() && pairs(&["=1".into()]).is_err());
    }

    #[test]
    fn names_are_checked_before_anybody_is_asked() {
        assert!(run_named("run-1f03").is_ok() && run_named("1f03").is_err() && run_named("run-zz").is_err());
        assert!(agent_named("a", false).is_ok() && agent_named("a", true).is_err());
        assert!(agent_named("a/b", true).is_ok());
        let told = agent_named("a b", false).expect_err("a blank");
        assert!(told.what.contains("an agent's name") && !told.what.contains("tenant"), "{}", told.what);
    }
}
