//! Why an agent does not run: what it waits for, and one sentence for a human.

use http::StatusCode;
use seawall_kernel::agents::Need;
use seawall_model::durable::{AgentRow, AgentState, RunRow, RunState};
use seawall_model::{Agent, RunKey};
use serde_json::{Value, json};

use crate::agents::desk::Standing;

use super::show::{self, needs};
use super::types::{address, unknown};
use super::{Answer, Request, unknown_run};

/// `GET why/TYPE/KEY`
pub(super) async fn of_agent(mut request: Request<'_>, agent: Agent) -> Answer {
    let address = address(&mut request, agent)?;
    let (desk, of) = (request.runtime.desk.clone(), address.clone());
    let found = request.read(move |reader| show::standing(reader, &desk, &of)).await?;
    let (row, standing) = found.ok_or_else(|| unknown(&address))?;
    request.json(StatusCode::OK, &shown(&row, &standing, &agent_sentence(&row, &standing)))
}

/// `GET why/RUN`
pub(super) async fn of_run(request: Request<'_>, run: RunKey) -> Answer {
    request.query.finish()?;
    let row = request.run(run).await?;
    let (desk, of) = (request.runtime.desk.clone(), row.agent.clone());
    let found = request.read(move |reader| show::standing(reader, &desk, &of)).await?;
    let (agent, standing) = found.ok_or_else(|| unknown_run(run))?;
    let mut body = shown(&agent, &standing, &run_sentence(&row, &agent, &standing));
    body["run"] = run.to_string().into();
    body["run_state"] = row.state.as_str().into();
    if agent.run != Some(run) {
        body["waits"] = json!([]);
    }
    request.json(StatusCode::OK, &body)
}

fn shown(row: &AgentRow, standing: &Standing, sentence: &str) -> Value {
    json!({
        "agent": row.address.agent.as_str(),
        "tenant": row.address.tenant.as_str(),
        "state": standing.state.as_str(),
        "run": row.run.map(|run| run.to_string()),
        "waits": needs(&standing.needs),
        "sentence": sentence,
    })
}

fn run_sentence(run: &RunRow, agent: &AgentRow, standing: &Standing) -> String {
    match &run.state {
        RunState::Done { .. } => format!("{} is done.", run.key),
        RunState::Failed { code, why } => format!("{} failed with {}: {why}.", run.key, code.as_str()),
        RunState::Cancelled { by } => format!("{} was ended by {by}.", run.key),
        RunState::Queued => match agent.run {
            Some(other) => {
                format!("{} waits until {} is through with {other}.", run.key, agent.address.agent)
            }
            None => format!("{} waits for its agent. {}", run.key, agent_sentence(agent, standing)),
        },
        RunState::Active => agent_sentence(agent, standing),
    }
}

fn agent_sentence(row: &AgentRow, standing: &Standing) -> String {
    let agent = &row.address.agent;
    match (standing.state, standing.needs.first()) {
        (AgentState::Idle, _) => format!("{agent} has no task."),
        (AgentState::Done, _) => format!("{agent} had one task, which is over."),
        (AgentState::Running, _) => format!("{agent} is taking its turn right now."),
        (AgentState::Runnable, None) => format!("{agent} is about to take its turn."),
        (_, Some(need)) => {
            let more = match standing.needs.len() {
                1 => String::new(),
                count => format!(" (and for {} more)", count - 1),
            };
            format!("{agent} {}{more}.", clause(need))
        }
        (AgentState::Waiting | AgentState::Quarantined, None) => format!("{agent} is about to go on."),
    }
}

/// What it waits for, in words.
fn clause(need: &Need) -> String {
    let on = &*need.on;
    let effect = need.effect.map(|effect| format!(" (`{effect}`)")).unwrap_or_default();
    match need.cause {
        "quarantine" => {
            format!("is out of service ({on}): it goes on once somebody runs `seawall agent release`")
        }
        "halted" => format!("was stopped by an operator ({on}): it goes on once that is lifted"),
        "guard" => "made no progress and waits for a human: `seawall agent release`".to_owned(),
        "rest" => "rests for a while before its next turn".to_owned(),
        "turn_slot" => "waits for a free place to take its turn".to_owned(),
        "approval" => format!("waits until somebody approves {on}{effect}: `seawall inbox`"),
        "in_doubt" => {
            format!("waits until somebody says whether {on}{effect} was done: `seawall inbox`")
        }
        "retry" => format!("will try {on}{effect} again"),
        "model_call" => format!("waits for the model {on}"),
        "tool_call" => format!("waits for the tool {on}{effect}"),
        "model_slot" => format!("waits for a free place to ask the model {on}"),
        "tool_slot" => format!("waits for a free place to call {on}{effect}"),
        "timer" => "waits for its timer".to_owned(),
        "lease" => format!("waits for a lease on {on}{effect}"),
        "promise" => format!("waits for an answer to its question{effect}: `seawall inbox`"),
        "child" => format!("waits for {on}, which works for it"),
        "message" if need.effect.is_none() => "waits for a message".to_owned(),
        "message" => format!("waits until {on} takes its message"),
        "watch" => format!("waits until the value {on} changes"),
        other => format!("waits for {other} {on}"),
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::At;

    use super::*;

    #[test]
    fn every_cause_has_a_clause() {
        for cause in [
            "quarantine",
            "halted",
            "guard",
            "rest",
            "turn_slot",
            "approval",
            "in_doubt",
            "retry",
            "model_call",
            "tool_call",
            "model_slot",
            "tool_slot",
            "timer",
            "lease",
            "promise",
            "child",
            "message",
            "watch",
        ] {
            let need = Need { cause, on: "pay".into(), since: At(1), until: None, effect: None };
            let clause = clause(&need);
            assert!(!clause.starts_with(&format!("waits for {cause} ")), "{clause}");
        }
    }
}
