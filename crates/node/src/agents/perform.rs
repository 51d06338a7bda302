//! Effects in the world: calls on models by the gateway's own road, and on tools. Each is a
//! task that reports once, unless it is dropped before.

use std::sync::Arc;

use bytes::Bytes;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::Perform;
use seawall_kernel::agents::input::Report;
use seawall_model::code::{Blame, Retry};
use seawall_model::effect::{Answer, Spend, Work};
use seawall_model::limits::PAYLOAD_BYTES_INLINE;
use seawall_model::{At, Code, Fault, MicroUsd, Payload, Tokens, Usage};
use seawall_store::journal::Blobs;
use seawall_wire::talk;

use crate::app::App;
use crate::clock;
use crate::gateway::ask::run_id;
use crate::gateway::inside::{self, Inside};
use crate::tasks::Kind;
use crate::tools::{Call, Outcome};

use super::desk::{Desk, Job, Look};
use super::stream::{Speaker, Talk};

/// Begins an effect whose request or arguments are `body`.
pub fn begin(app: &Arc<App>, desk: &Arc<Desk>, blobs: &Blobs, perform: Perform, body: &[u8]) {
    let mut dropped = desk.fly(perform.effect);
    let (effect, address) = (perform.effect, perform.address.clone());
    let (inner, desk, blobs) = (app.clone(), desk.clone(), blobs.clone());
    let body = Bytes::copy_from_slice(body);
    app.tasks.spawn(Kind::Effect, async move {
        let doing = async {
            match &perform.work {
                Work::Model { .. } => Some(model(&inner, &perform, body).await),
                Work::Tool { tool, undo, .. } => {
                    let tool = if perform.undo { undo.clone().unwrap_or_else(|| tool.clone()) } else { tool.clone() };
                    Some(call(&inner, &perform, tool, &body).await)
                }
                _ => None,
            }
        };
        let report = tokio::select! {
            biased;
            report = doing => report,
            // Its run was stopped, or nobody waits for it any longer.
            _ = &mut dropped => None,
        };
        desk.land(effect);
        match report {
            // Written to the disk by a worker, which may wait for it.
            Some(report) if is_large(&report) => {
                let teller = desk.clone();
                desk.put(Job::Read(Look(Box::new(move |_| {
                    teller.tell(Input::Report { effect, address, report: stowed(&blobs, report) });
                }))));
            }
            Some(report) => desk.tell(Input::Report { effect, address, report }),
            None => {}
        }
    });
}

/// Is its answer too large for a record?
fn is_large(report: &Report) -> bool {
    let large = |body: &Payload| body.here().is_some_and(|bytes| bytes.len() as u64 > PAYLOAD_BYTES_INLINE);
    matches!(report, Report::Done { answer: Answer::Done(body) | Answer::Error(body), .. } if large(body))
}

/// A large answer goes to the blob store before a record names it.
fn stowed(blobs: &Blobs, report: Report) -> Report {
    let Report::Done { answer, used } = report else { return report };
    let put = |payload: Payload| match payload {
        Payload::Here(bytes) if bytes.len() as u64 > PAYLOAD_BYTES_INLINE => {
            blobs.put(bytes.to_vec())
        }
        small => Ok(small),
    };
    let kept = match answer {
        Answer::Done(body) => put(body).map(Answer::Done),
        Answer::Error(body) => put(body).map(Answer::Error),
        failed @ Answer::Failed { .. } => Ok(failed),
    };
    let answer = kept.unwrap_or_else(|why| Answer::Failed { code: Code::DiskFull, why: why.to_string().into() });
    Report::Done { answer, used }
}

/// A deadline in the clock that the gateway counts by.
fn deadline(until: At) -> At {
    let wall = clock::wall(clock::now());
    clock::now().plus(seawall_model::Millis(until.0.saturating_sub(wall.0) / 1_000))
}

async fn model(app: &Arc<App>, perform: &Perform, body: Bytes) -> Report {
    let tenant = &perform.address.tenant;
    let run = run_id(tenant, &perform.effect.run.to_string());
    let root = (perform.root != perform.effect.run).then(|| run_id(tenant, &perform.root.to_string()));
    let inside = Inside {
        tenant: tenant.clone(),
        agent: perform.address.agent.clone(),
        run,
        root,
        body,
        deadline: None,
        speaker: speaker(app, perform),
    };
    let answer = match inside::chat(app, inside).await {
        Ok(answer) => answer,
        Err(fault) => return refused(&fault),
    };
    match talk::Answer::read(&answer) {
        Ok(read) => {
            let used = spent(app, perform, read.usage);
            Report::Done { answer: Answer::Done(answer.to_vec().into()), used }
        }
        // An answer that is none is the engine's fault like any other: a run that ended with
        // it would begin again from its task, and do all of it twice.
        Err(_) => refused(&Fault::plain(Code::EngineGarbled)),
    }
}

/// What a model's answer cost, by the engine's own count.
fn spent(app: &App, perform: &Perform, usage: Option<Usage>) -> Spend {
    let usage = usage.unwrap_or_default();
    let live = app.live.load();
    let route = crate::gateway::ask::resolve(&live, perform.work.object());
    let money = route.map_or(MicroUsd(0), |route| route.price.of(&usage));
    Spend { tokens: Tokens(usage.input.0 + usage.output.0), money, ..Spend::default() }
}

/// What a refusal means for the effect: want of room is waited for, a fault of the engine is
/// tried again, and what the request itself is at fault for is told to the agent.
fn refused(fault: &Fault) -> Report {
    let row = fault.code.row();
    let why: Arc<str> = fault.message.as_ref().into();
    // What a model answers is safe to ask for again: it only costs.
    let again = row.retry != Retry::Never && fault.code != Code::BudgetExhausted;
    if !again {
        return Report::Done { answer: Answer::Failed { code: fault.code, why }, used: Spend::default() };
    }
    let counts = row.blame == Blame::Engine || row.retry == Retry::Now;
    Report::NotDone { code: fault.code, why, retry_after: fault.retry_after, counts }
}

/// Through whom the run talks while this effect is performed. What a model says to the loop
/// itself, such as a summary, is not for others.
fn speaker(app: &App, perform: &Perform) -> Option<Speaker> {
    let speaker = app.agents.as_ref()?.talks.speaker(perform.effect.run)?;
    match &perform.work {
        Work::Model { recipe, .. } if !super::handler::is_talk(recipe) => None,
        _ => Some(speaker),
    }
}

async fn call(app: &Arc<App>, perform: &Perform, tool: Arc<str>, args: &[u8]) -> Report {
    if let Some(speaker) = speaker(app, perform) {
        speaker.say(Talk::Tool(tool.clone()));
    }
    let Some(args) = without(args, &perform.redact) else {
        let why = "its arguments are not JSON".into();
        return Report::Done { answer: Answer::Failed { code: Code::BadJson, why }, used: Spend::default() };
    };
    let undo = if perform.undo { "-undo" } else { "" };
    let key = format!("{}-{}{undo}", app.installation, perform.effect).into();
    let call = Call { tool, args: args.into(), key, deadline: deadline(perform.until) };
    match app.tools.call(call).await {
        Outcome::Done { text, is_error: false } => {
            Report::Done { answer: Answer::Done(text.into()), used: Spend::default() }
        }
        Outcome::Done { text, is_error: true } => {
            Report::Done { answer: Answer::Error(text.into()), used: Spend::default() }
        }
        Outcome::Failed { sent: true, why, .. } => Report::Lost { code: Code::ToolFailed, why: why.into() },
        Outcome::Failed { retry: true, retry_after, why, .. } => {
            Report::NotDone { code: Code::ToolFailed, why: why.into(), retry_after, counts: true }
        }
        Outcome::Failed { why, .. } => {
            let answer = Answer::Failed { code: Code::ToolFailed, why: why.into() };
            Report::Done { answer, used: Spend::default() }
        }
    }
}

/// Arguments without those that the gate took out, by path (`args.user.email`).
fn without(args: &[u8], redact: &[Arc<str>]) -> Option<String> {
    let text = std::str::from_utf8(args).ok()?;
    if redact.is_empty() {
        return Some(text.to_owned());
    }
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    for path in redact {
        let steps: Vec<&str> = path.strip_prefix("args.").unwrap_or(path).split('.').collect();
        take_out(&mut value, &steps);
    }
    Some(value.to_string())
}

/// Takes out what is at a path; in a list, of each of its items, as rules see it.
fn take_out(value: &mut serde_json::Value, steps: &[&str]) {
    match (value, steps) {
        (serde_json::Value::Array(items), _) => items.iter_mut().for_each(|item| take_out(item, steps)),
        (serde_json::Value::Object(fields), [last]) => drop(fields.remove(*last)),
        (serde_json::Value::Object(fields), [step, rest @ ..]) => {
            if let Some(below) = fields.get_mut(*step) {
                take_out(below, rest);
            }
        }
        _ => {}
    }
}
