//! What a path below `/seawall/` asks for.

use http::Method;
use seawall_model::{Agent, Code, EffectId, Fault, RunKey, limits};

use crate::agents::handler::CALLBACKS;
use crate::gateway::method_not_allowed;
use crate::gateway::route::decoded;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `GET agents`: types, and agents one by one.
    Types,
    /// `GET agents/TYPE/KEY`
    Agent(Agent),
    /// `POST agents/TYPE[/KEY]/runs`
    Start(Agent),
    /// `POST agents/TYPE[/KEY]/messages`
    Message(Agent),
    /// `POST agents/TYPE/KEY/release`
    Release(Agent),
    /// `GET runs`
    Runs,
    /// `GET runs/RUN`
    Run(RunKey),
    /// `POST runs/RUN/cancel`
    Cancel(RunKey),
    /// `POST runs/RUN/again`
    Again(RunKey),
    /// `POST runs/RUN/stop`, and `resume`
    Halt(RunKey, bool),
    /// `POST runs/RUN/fork`
    Fork(RunKey),
    /// `GET runs/RUN/events`
    Events(RunKey),
    /// `GET runs/RUN/turns`
    Turns(RunKey),
    /// `GET runs/RUN/turns/N`
    Turn(RunKey, u32),
    /// `GET inbox`
    Inbox,
    /// `POST effects/EFFECT/ACT`
    Effect(EffectId, Act),
    /// `GET letters`
    Letters,
    /// `POST letters/SHARD.NUMBER/redrive`, and `discard`
    Letter(u8, u64, bool),
    /// `GET halts`
    Halts,
    /// `POST halts`
    SetHalt,
    /// `GET why/RUN`
    WhyRun(RunKey),
    /// `GET why/TYPE/KEY`
    WhyAgent(Agent),
    /// `GET values`
    Values,
    /// `GET values/KEY`
    Value(String),
    /// `PUT values/KEY`
    SetValue(String),
    /// `DELETE values/KEY`
    DropValue(String),
    /// `POST callbacks/NAME`, as the key of the value that it becomes
    Callback(String),
    /// `GET tools`
    Tools,
    /// `GET audit/verify`
    Verify,
    /// `GET audit/export`
    Export,
    /// `GET definitions/TYPE`
    Definition(String),
    /// `PUT definitions/TYPE`
    SetDefinition(String),
    /// `DELETE definitions/TYPE`
    DropDefinition(String),
}

/// What somebody decides about an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It may be done.
    Approve,
    /// It may not.
    Deny,
    /// This came of it.
    Answer,
    /// It was in doubt: it is to be sent again.
    Again,
    /// Somebody else has the vote on it.
    Delegate,
}

/// What is asked for.
///
/// # Errors
/// `PathUnknown` for what there is not, `MethodNotAllowed` with what the path takes.
pub(super) fn order(method: &Method, path: &str) -> Result<Order, Fault> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let unknown = || Fault::plain(Code::PathUnknown);
    let rest = path.strip_prefix("/seawall/").ok_or_else(unknown)?;
    if let Some(order) = read(method, rest)? {
        return Ok(order);
    }
    let takes: Vec<&str> = [Method::GET, Method::POST, Method::PUT, Method::DELETE]
        .iter()
        .filter(|other| matches!(read(other, rest), Ok(Some(_))))
        .map(|other| match *other {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            _ => "DELETE",
        })
        .collect();
    if takes.is_empty() { Err(unknown()) } else { Err(method_not_allowed(&takes.join(", "))) }
}

fn read(method: &Method, rest: &str) -> Result<Option<Order>, Fault> {
    if let Some(key) = rest.strip_prefix("values/") {
        return value(method, key);
    }
    if let Some(name) = rest.strip_prefix("callbacks/") {
        // What answers lie under is a value as any.
        let key = format!("{CALLBACKS}{name}");
        return Ok(value(&Method::PUT, &key)?.filter(|_| *method == Method::POST).and_then(
            |order| match order {
                Order::SetValue(key) if !name.is_empty() => Some(Order::Callback(key)),
                _ => None,
            },
        ));
    }
    let parts: Option<Vec<String>> = rest.split('/').map(decoded).collect();
    let parts = parts.ok_or_else(|| Fault::new(Code::PathUnknown, "The path has a broken escape."))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (get, post) = (*method == Method::GET, *method == Method::POST);
    Ok(Some(match parts[..] {
        ["agents"] if get => Order::Types,
        ["agents", ref rest @ ..] => return agents(get, post, rest),
        ["runs"] if get => Order::Runs,
        ["runs", run, ref rest @ ..] => return runs(get, post, run, rest),
        ["inbox"] if get => Order::Inbox,
        ["effects", effect, act] if post => {
            let unknown = || Fault::new(Code::EffectUnknown, "An effect is called `run-1f03.7`.");
            let effect = EffectId::parse(effect).ok_or_else(unknown)?;
            let Some(act) = act_of(act) else { return Ok(None) };
            Order::Effect(effect, act)
        }
        ["letters"] if get => Order::Letters,
        ["letters", id, act] if post => return letter(id, act),
        ["halts"] if get => Order::Halts,
        ["halts"] if post => Order::SetHalt,
        ["why", run] if get => Order::WhyRun(run_key(run)?),
        ["why", kind, key] if get => Order::WhyAgent(agent(&format!("{kind}/{key}"))?),
        ["values"] if get => Order::Values,
        ["tools"] if get => Order::Tools,
        ["audit", "verify"] if get => Order::Verify,
        ["audit", "export"] if get => Order::Export,
        ["definitions", kind] => match *method {
            Method::GET => Order::Definition(kind_name(kind)?),
            Method::PUT => Order::SetDefinition(kind_name(kind)?),
            Method::DELETE => Order::DropDefinition(kind_name(kind)?),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn agents(get: bool, post: bool, rest: &[&str]) -> Result<Option<Order>, Fault> {
    Ok(Some(match *rest {
        [kind, "runs"] if post => Order::Start(agent(&kind_name(kind)?)?),
        [kind, "messages"] if post => Order::Message(agent(&format!("{kind}/main"))?),
        [kind, key] if get => Order::Agent(agent(&format!("{kind}/{key}"))?),
        [kind, key, "runs"] if post => Order::Start(agent(&format!("{kind}/{key}"))?),
        [kind, key, "messages"] if post => Order::Message(agent(&format!("{kind}/{key}"))?),
        [kind, key, "release"] if post => Order::Release(agent(&format!("{kind}/{key}"))?),
        _ => return Ok(None),
    }))
}

fn runs(get: bool, post: bool, run: &str, rest: &[&str]) -> Result<Option<Order>, Fault> {
    let run = || run_key(run);
    Ok(Some(match *rest {
        [] if get => Order::Run(run()?),
        ["events"] if get => Order::Events(run()?),
        ["turns"] if get => Order::Turns(run()?),
        ["turns", number] if get => {
            let number = number.parse().map_err(|_| bad("A turn is a whole number."))?;
            Order::Turn(run()?, number)
        }
        ["cancel"] if post => Order::Cancel(run()?),
        ["again"] if post => Order::Again(run()?),
        ["stop"] if post => Order::Halt(run()?, true),
        ["resume"] if post => Order::Halt(run()?, false),
        ["fork"] if post => Order::Fork(run()?),
        _ => return Ok(None),
    }))
}

fn letter(id: &str, act: &str) -> Result<Option<Order>, Fault> {
    let send = match act {
        "redrive" => true,
        "discard" => false,
        _ => return Ok(None),
    };
    let (shard, number) = id.split_once('.').unwrap_or_default();
    match (shard.parse(), number.parse()) {
        (Ok(shard), Ok(number)) => Ok(Some(Order::Letter(shard, number, send))),
        _ => Err(Fault::new(Code::LetterUnknown, "A dead letter is called SHARD.NUMBER, such as `3.17`.")),
    }
}

/// Keys of values may hold slashes, escaped or not.
fn value(method: &Method, key: &str) -> Result<Option<Order>, Fault> {
    let key = decoded(key).ok_or_else(|| bad("The key has a broken escape."))?;
    if key.is_empty() || key.len() > limits::NAME_LEN_MAX {
        return Err(bad(&format!("A key has 1 to {} bytes.", limits::NAME_LEN_MAX)));
    }
    Ok(match *method {
        Method::GET => Some(Order::Value(key)),
        Method::PUT => Some(Order::SetValue(key)),
        Method::DELETE => Some(Order::DropValue(key)),
        _ => None,
    })
}

fn act_of(act: &str) -> Option<Act> {
    Some(match act {
        "approve" => Act::Approve,
        "deny" => Act::Deny,
        "answer" => Act::Answer,
        "again" => Act::Again,
        "delegate" => Act::Delegate,
        _ => return None,
    })
}

/// A type's name alone.
fn kind_name(kind: &str) -> Result<String, Fault> {
    let named = agent(kind)?;
    if kind.contains('/') || kind.starts_with('.') {
        return Err(bad(
            "A type's name is one word of letters, digits and . _ - @ :, not beginning with a dot.",
        ));
    }
    Ok(named.as_str().to_owned())
}

fn agent(name: &str) -> Result<Agent, Fault> {
    Agent::parse(name)
        .map_err(|_| bad("An agent is `type/key`: letters, digits and . _ - @ : on either side."))
}

/// The key of a durable run.
///
/// # Errors
/// `RunUnknown`: it is none.
pub(super) fn run_key(run: &str) -> Result<RunKey, Fault> {
    RunKey::parse(run).ok_or_else(|| {
        Fault::new(Code::RunUnknown, "A durable run is called `run-` and hex digits, as `run-1f03`.")
    })
}

fn bad(what: &str) -> Fault {
    Fault::new(Code::BadField, what.to_owned()).at("path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, path: &str) -> Result<Order, Code> {
        order(method, path).map_err(|fault| fault.code)
    }

    #[test]
    fn paths_are_told_apart() {
        let agent = |name| Agent::parse(name).expect("good");
        let run = RunKey::parse("run-1f03").expect("good");
        for (method, path, expected) in [
            (Method::GET, "/seawall/agents", Order::Types),
            (Method::HEAD, "/seawall/runs", Order::Runs),
            (Method::POST, "/seawall/agents/clerk/runs", Order::Start(agent("clerk"))),
            (Method::POST, "/seawall/agents/clerk/7/runs", Order::Start(agent("clerk/7"))),
            (Method::GET, "/seawall/agents/clerk/runs", Order::Agent(agent("clerk/runs"))),
            (Method::POST, "/seawall/agents/clerk/messages", Order::Message(agent("clerk/main"))),
            (Method::POST, "/seawall/runs/run-1f03/resume", Order::Halt(run, false)),
            (Method::GET, "/seawall/runs/run-1f03/turns/2", Order::Turn(run, 2)),
            (
                Method::POST,
                "/seawall/effects/run-1f03.7/deny",
                Order::Effect(EffectId { run, number: 7 }, Act::Deny),
            ),
            (Method::POST, "/seawall/letters/3.17/discard", Order::Letter(3, 17, false)),
            (Method::GET, "/seawall/why/clerk/7", Order::WhyAgent(agent("clerk/7"))),
            (Method::POST, "/seawall/callbacks/a%20b", Order::Callback("callbacks/a b".to_owned())),
            (Method::PUT, "/seawall/values/a/b%20c%2Fd", Order::SetValue("a/b c/d".to_owned())),
        ] {
            assert_eq!(asked(&method, path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_says_so() {
        for (method, path, code) in [
            (Method::GET, "/seawall/nothing", Code::PathUnknown),
            (Method::GET, "/seawall/", Code::PathUnknown),
            (Method::POST, "/seawall/runs/run-1f03/dance", Code::PathUnknown),
            (Method::POST, "/seawall/agents", Code::MethodNotAllowed),
            (Method::GET, "/seawall/runs/run-1f03/fork", Code::MethodNotAllowed),
            (Method::GET, "/seawall/runs/7", Code::RunUnknown),
            (Method::GET, "/seawall/agents/a b/c", Code::BadField),
            (Method::GET, "/seawall/agents/%zz/c", Code::PathUnknown),
            (Method::PUT, "/seawall/definitions/..", Code::BadField),
            (Method::PUT, "/seawall/definitions/a%2Fb", Code::BadField),
            (Method::POST, "/seawall/effects/7/deny", Code::EffectUnknown),
            (Method::GET, "/seawall/values/", Code::BadField),
            (Method::POST, "/seawall/callbacks/", Code::PathUnknown),
            (Method::GET, "/seawall/callbacks/a", Code::MethodNotAllowed),
        ] {
            assert_eq!(asked(&method, path), Err(code), "{path}");
        }
    }
}
