//! Why an agent does not run: what it waits for, and one sentence for a human.

use std::sync::Arc;

use http::StatusCode;
use seawall_kernel::agents::Need;
use seawall_model::durable::{AgentRow, AgentState, Pending, RunRow, RunState};
use seawall_model::effect::{Approval, Work};
use seawall_model::{Agent, RunKey};
use serde_json::{Value, json};

use crate::agents::desk::Standing;
use crate::agents::handler::tool_of;

use super::show::{self, needs};
use super::types::{address, unknown};
use super::{Answer, Request, unknown_run};

/// `GET why/TYPE/KEY`
pub(super) async fn of_agent(mut request: Request<'_>, agent: Agent) -> Answer {
    let address = address(&mut request, agent)?;
    let (desk, of) = (request.runtime.desk.clone(), address.clone());
    let found = request
        .read(move |reader| {
            let found = show::standing(reader, &desk, &of)?;
            let last = if found.as_ref().is_some_and(|(row, _)| row.run.is_none()) {
                reader.last_run(&of)?
            } else {
                None
            };
            Ok(found.map(|(row, standing)| (row, standing, last)))
        })
        .await?;
    let (row, standing, last) = found.ok_or_else(|| unknown(&address))?;
    let mut sentence = agent_sentence(&row, &standing);
    if let Some(last) = last.filter(|last| matches!(last.state, RunState::Failed { .. })) {
        sentence.push_str(&format!(" Its last run failed: {}", run_sentence(&last, &row, &standing)));
    }
    request.json(StatusCode::OK, &shown(&row, &standing, &sentence))
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
        "waits": needs(row, standing),
        "sentence": sentence,
    })
}

fn run_sentence(run: &RunRow, agent: &AgentRow, standing: &Standing) -> String {
    match &run.state {
        RunState::Done { .. } => format!("{} is done.", run.key),
        RunState::Failed { code, why } => {
            format!("{} failed with {}: {}.", run.key, code.as_str(), why.trim_end_matches('.'))
        }
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
            format!("{agent} {}{more}.", clause(need, show::effect_of(row, need), standing))
        }
        (AgentState::Waiting | AgentState::Quarantined, None) => format!("{agent} is about to go on."),
    }
}

/// What it waits for, in words.
fn clause(need: &Need, pending: Option<&Pending>, standing: &Standing) -> String {
    // A rule is about a tool: that is named, and what it is to be done to beside it.
    let named =
        pending.map(|pending| match (tool_of(pending.work.kind(), pending.work.object()), &*need.on) {
            (tool, "") => tool,
            (tool, on) if tool.ends_with(on) || matches!(pending.work, Work::Child { .. }) => tool,
            (tool, on) => format!("{tool} of {on}"),
        });
    let on = named.as_deref().unwrap_or(&need.on);
    let effect = need.effect.map(|effect| format!(" (`{effect}`)")).unwrap_or_default();
    match need.cause {
        "quarantine" => {
            format!("is out of service ({on}): it goes on once somebody runs `seawall agent release`")
        }
        "halted" => {
            let by = standing.stop.as_ref().map_or("an operator", |stop| &stop.by);
            format!("was stopped by {by} ({on}): it goes on once that is lifted")
        }
        "guard" => "made no progress and waits for a human: `seawall agent release`".to_owned(),
        "rest" => "rests for a while before its next turn".to_owned(),
        "turn_slot" => "waits for a free place to take its turn".to_owned(),
        "tool_server" => format!("waits for the tool server {}, which is starting", need.on),
        "disk" => format!(
            "waits for the journal's disk, which {}",
            if &*need.on == "full" { "is full" } else { "fails" }
        ),
        "approval" => {
            let votes = pending.and_then(show::votes).map(votes_of).unwrap_or_default();
            let handed = pending.map(handed_to).unwrap_or_default();
            format!("waits until somebody approves {on}{effect}{votes}{handed}: `seawall inbox`")
        }
        "in_doubt" => {
            format!("waits until somebody says whether {on}{effect} was done: `seawall inbox`")
        }
        "retry" => {
            let tries = pending.map(|pending| tries(pending, standing.tries_max)).unwrap_or_default();
            format!("will try {on}{effect} again{tries}")
        }
        "model_call" => format!("waits for the model {}", need.on),
        "tool_call" => format!("waits for the tool {on}{effect}"),
        "model_slot" => format!("waits for a free place to ask the model {}", need.on),
        "tool_slot" => format!("waits for a free place to call {on}{effect}"),
        "timer" => "waits for its timer".to_owned(),
        "lease" => format!("waits for a lease on {}{effect}", need.on),
        "promise" => format!("waits for an answer to its question{effect}: `seawall inbox`"),
        "child" => format!("waits for {}, which works for it", need.on),
        "message" if need.effect.is_none() => "waits for a message".to_owned(),
        "message" => format!("waits until {} takes its message", need.on),
        "monitor" => format!("waits for the end of the run of {}: `seawall why {0}`", need.on),
        "watch" => format!("waits until the value {} changes", need.on),
        other => format!("waits for {other} {on}"),
    }
}

/// Whom the vote was handed to: `, handed to bob`.
fn handed_to(pending: &Pending) -> String {
    let names: Vec<&str> = pending.handed.iter().map(|handed| &*handed.to).collect();
    if names.is_empty() { String::new() } else { format!(", handed to {}", names.join(", ")) }
}

/// How it went so far: ` (failed 3 of 8 times, the last with engine_down: no answer)`.
fn tries(pending: &Pending, max: u32) -> String {
    let Some(setback) = &pending.setback else { return String::new() };
    let often = match pending.attempts {
        0 => String::new(),
        count => format!("failed {count} of {max} times, the last "),
    };
    let why = setback.why.trim_end_matches('.');
    format!(" ({often}with {}: {why})", setback.code.as_str())
}

/// Who said yes so far: `, 1 of 2 yes: alice`.
fn votes_of((yes, approval): (&[Arc<str>], &Approval)) -> String {
    let quorum = approval.quorum.max(1);
    if yes.is_empty() {
        return if quorum > 1 { format!(", 0 of {quorum} yes") } else { String::new() };
    }
    format!(", {} of {quorum} yes: {}", yes.len(), yes.join(", "))
}

#[cfg(test)]
mod tests {
    use seawall_model::durable::{Scope, Setback, Stage, Stop};
    use seawall_model::effect::{EffectClass, Handed, Ruling, Spend, Verdict};
    use seawall_model::{At, Code, EffectId, Millis, Payload};

    use super::*;

    /// A `store.put` to `money/a` that two of `acme/leads` must say yes to.
    fn asking(yes: &[&str]) -> Pending {
        let run = RunKey::parse("run-1f03").expect("good");
        let approval =
            Approval { quorum: 2, approvers: vec!["acme/leads".into()], patience: Millis(1), deputy: None };
        Pending {
            id: EffectId { run, number: 7 },
            tag: "t".into(),
            work: Work::Put { key: "money/a".into(), value: Some(Payload::text("1")), expect: None },
            class: EffectClass::Idempotent,
            ruling: Ruling { rule: "money".into(), verdict: Verdict::Ask(approval) },
            stage: Stage::Approving { yes: yes.iter().map(|name| (*name).into()).collect(), until: At::MAX },
            attempts: 0,
            asked: At(1),
            until: At::MAX,
            reserved: Spend::default(),
            twin: 0,
            handed: Vec::new(),
            setback: None,
            child: None,
        }
    }

    #[test]
    fn an_approval_names_the_tool_and_who_said_yes() {
        let need = Need { cause: "approval", on: "money/a".into(), since: At(1), until: None, effect: None };
        let told = |yes: &[&str]| clause(&need, Some(&asking(yes)), &standing());
        assert!(
            told(&["alice"]).contains("approves store.put of money/a, 1 of 2 yes: alice: "),
            "{}",
            told(&["alice"])
        );
        assert!(told(&[]).contains(", 0 of 2 yes:"), "{}", told(&[]));
    }

    fn standing() -> Standing {
        Standing { state: AgentState::Waiting, needs: Vec::new(), stop: None, tries_max: 8 }
    }

    #[test]
    fn what_is_tried_again_says_why_and_how_often_it_failed() {
        let mut pending = asking(&[]);
        pending.stage = Stage::Ready { after: At(9) };
        pending.attempts = 3;
        pending.setback = Some(Setback {
            code: Code::ToolFailed,
            why: "HTTP 503.".into(),
            first: At(1_000_000),
            last: At(2_000_000),
        });
        let need = Need { cause: "retry", on: "money/a".into(), since: At(1), until: None, effect: None };
        let told = clause(&need, Some(&pending), &standing());
        assert!(told.ends_with("again (failed 3 of 8 times, the last with tool_failed: HTTP 503)"), "{told}");
        pending.attempts = 0;
        let told = clause(&need, Some(&pending), &standing());
        assert!(
            told.ends_with("again (with tool_failed: HTTP 503)"),
            "what does not count is not counted: {told}"
        );
    }

    #[test]
    fn a_stop_names_who_made_it_and_a_vote_whom_it_was_handed_to() {
        let stop = Stop { scope: Scope::All, by: "alice".into(), at: At(1) };
        let need = Need { cause: "halted", on: "all".into(), since: At(1), until: None, effect: None };
        let told = clause(&need, None, &Standing { stop: Some(stop), ..standing() });
        assert!(told.contains("was stopped by alice (all)"), "{told}");
        let mut pending = asking(&[]);
        pending.handed.push(Handed { by: Some("alice".into()), to: "bob".into(), at: At(1) });
        let need = Need { cause: "approval", on: "money/a".into(), ..need };
        let told = clause(&need, Some(&pending), &standing());
        assert!(told.contains(", handed to bob: "), "{told}");
    }

    #[test]
    fn every_cause_has_a_clause() {
        for cause in [
            "quarantine",
            "halted",
            "guard",
            "rest",
            "turn_slot",
            "tool_server",
            "disk",
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
            "monitor",
            "watch",
        ] {
            let need = Need { cause, on: "pay".into(), since: At(1), until: None, effect: None };
            let clause = clause(&need, None, &standing());
            assert!(!clause.starts_with(&format!("waits for {cause} ")), "{clause}");
        }
    }
}
