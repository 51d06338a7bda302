//! Rows as JSON: runs, agents, effects under way, and content, which is shown within a bound.

use std::cell::Cell;
use std::sync::Arc;

use seawall_kernel::agents::Need;
use seawall_model::durable::{AgentRow, Item, Message, Pending, RunRow, RunState, Stage};
use seawall_model::effect::{Allowance, Answer, Approval, Spend, Verdict, Work};
use seawall_model::{Address, At, MicroUsd, Millis, Payload, RunKey, Tokens, limits};
use seawall_store::Error;
use seawall_store::journal::Reader;
use serde_json::{Map, Value, json};

use crate::agents::desk::{Desk, Standing};
use crate::agents::handler::tool_of;
use crate::clock;

/// Shows rows whose content may lie in blobs.
pub(super) struct Show<'a> {
    reader: &'a Reader,
    /// Bytes of content that may still be shown in this answer.
    left: Cell<u64>,
    /// Bytes of one content.
    each: u64,
}

impl<'a> Show<'a> {
    /// Shows single things: content up to [`limits::SHOWN_BYTES_MAX`] each.
    pub(super) const fn whole(reader: &'a Reader) -> Self {
        Self { reader, left: Cell::new(limits::ANSWER_SHOWN_BYTES_MAX), each: limits::SHOWN_BYTES_MAX }
    }

    /// Content as JSON where it is that, else as text; by size and, for blobs, digest where
    /// it is too large to be shown, or not there any more.
    pub(super) fn content(&self, payload: &Payload) -> Value {
        let len = payload.len();
        if len == 0 {
            return Value::Null;
        }
        if len > self.each || len > self.left.get() {
            return named(payload);
        }
        let Ok(bytes) = self.reader.open_payload(payload) else { return named(payload) };
        self.left.set(self.left.get() - len);
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into())
    }

    /// A run.
    pub(super) fn run(&self, row: &RunRow, waits: &Value) -> Value {
        let mut shown = json!({
            "kind": "durable",
            "run": row.key.to_string(),
            "agent": row.agent.agent.as_str(),
            "tenant": row.agent.tenant.as_str(),
            "parent": row.parent.map(|effect| effect.run.to_string()),
            "effect": row.parent.map(|effect| effect.to_string()),
            "root": row.root.to_string(),
            "depth": row.depth,
            "state": row.state.as_str(),
            "version": &*row.version,
            "turns": row.turns,
            "restarts": row.restarts.len(),
            "began_ms": ms(row.began),
            "ended_ms": row.ended.map(ms),
            "used": spend(&row.used),
            "reserved": spend(&row.reserved),
            "allowance": allowance(&row.allowance),
            "task": self.content(&row.task),
            "by": &*row.by,
            "caller": row.caller.as_deref(),
            "waits": waits,
            "fork": forked(row),
            "children": row.children.iter().map(RunKey::to_string).collect::<Vec<_>>(),
        });
        if !row.state.over() {
            let now = clock::wall(clock::now());
            shown["left"] = allowance(&left(row, now));
            shown["deadline_ms"] = json!(row.allowance.wall.map(|wall| ms(row.began.plus(wall))));
        }
        match &row.state {
            RunState::Done { output } => shown["output"] = self.content(output),
            RunState::Failed { code, why } => {
                shown["error"] = json!({"code": code.as_str(), "message": &**why, "hint": code.row().hint});
            }
            RunState::Cancelled { by } => {
                let code = seawall_model::Code::RunCancelled;
                let message = format!("Ended by {by}.");
                shown["error"] = json!({"code": code.as_str(), "message": message, "hint": code.row().hint});
            }
            RunState::Queued | RunState::Active => {}
        }
        shown
    }

    /// The run that this one goes on from, where it is a fork.
    pub(super) fn fork_of(&self, run: RunKey) -> Value {
        let row = self.reader.run(run).ok().flatten();
        row.as_ref().map_or(Value::Null, forked)
    }

    /// A run with what it waits for, by its agent's word.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn run_live(&self, desk: &Desk, row: &RunRow) -> Result<Value, Error> {
        let waits = if row.state.over() { json!([]) } else { self.run_waits(desk, row)? };
        Ok(self.run(row, &waits))
    }

    fn run_waits(&self, desk: &Desk, row: &RunRow) -> Result<Value, Error> {
        let Some((agent, standing)) = standing(self.reader, desk, &row.agent)? else { return Ok(json!([])) };
        if agent.run == Some(row.key) {
            return Ok(needs(&agent, &standing));
        }
        let on = agent.run.map_or_else(String::new, |run| run.to_string());
        let since = ms(row.began);
        Ok(json!([{"cause": "agent_busy", "on": on, "since_ms": since, "until_ms": null, "effect": null}]))
    }

    /// An agent.
    pub(super) fn agent(&self, row: &AgentRow, standing: &Standing) -> Value {
        json!({
            "agent": row.address.agent.as_str(),
            "type": row.address.agent.kind(),
            "tenant": row.address.tenant.as_str(),
            "state": standing.state.as_str(),
            "lasting": row.lasting,
            "run": row.run.map(|run| run.to_string()),
            "queue": row.queue.iter().take(limits::ROWS_MAX).map(RunKey::to_string).collect::<Vec<_>>(),
            "inbox": row.inbox.iter().map(|item| self.item(item)).collect::<Vec<_>>(),
            "pending": row.pending.iter().map(|pending| self.pending(pending)).collect::<Vec<_>>(),
            "waits": needs(row, standing),
            "rung": row.progress.rung.as_str(),
            "strikes": row.strikes,
            "rests_until_ms": moment(row.rests_until),
            "why": row.why.as_deref(),
        })
    }

    /// Something that a turn sees.
    pub(super) fn item(&self, item: &Item) -> Value {
        match item {
            Item::Task { run } => json!({"kind": "task", "run": run.to_string()}),
            Item::Answer { effect, tag, kind, answer, .. } => {
                let mut shown = self.answer(answer);
                shown.insert("kind".into(), "answer".into());
                shown.insert("effect".into(), effect.to_string().into());
                shown.insert("tag".into(), (**tag).into());
                shown.insert("of".into(), (**kind).into());
                shown.into()
            }
            Item::Mail(message) => self.message(message),
            Item::Note(note) => json!({"kind": "note", "text": &**note}),
        }
    }

    /// A message.
    pub(super) fn message(&self, message: &Message) -> Value {
        json!({
            "kind": "message",
            "from": message.from.as_ref().map(ToString::to_string),
            "name": message.name.as_deref(),
            "at_ms": moment(message.at),
            "hop": message.hop,
            "bytes": message.body.len(),
            "body": self.content(&message.body),
        })
    }

    /// What came of an effect.
    pub(super) fn answer(&self, answer: &Answer) -> Map<String, Value> {
        let mut shown = Map::new();
        match answer {
            Answer::Done(body) => {
                shown.insert("outcome".into(), "done".into());
                shown.insert("bytes".into(), body.len().into());
                shown.insert("output".into(), self.content(body));
            }
            Answer::Error(body) => {
                shown.insert("outcome".into(), "error".into());
                shown.insert("bytes".into(), body.len().into());
                shown.insert("output".into(), self.content(body));
            }
            Answer::Failed { code, why } => {
                shown.insert("outcome".into(), "failed".into());
                shown.insert("error".into(), json!({"code": code.as_str(), "message": &**why}));
            }
        }
        shown
    }

    /// An effect under way.
    pub(super) fn pending(&self, pending: &Pending) -> Value {
        let mut shown = self.work(&pending.work);
        let (stage, until) = stage(&pending.stage);
        let tool = tool_of(pending.work.kind(), pending.work.object());
        shown.insert("tool".into(), tool.into());
        shown.insert("effect".into(), pending.id.to_string().into());
        shown.insert("tag".into(), (*pending.tag).into());
        shown.insert("class".into(), pending.class.as_str().into());
        shown.insert("rule".into(), (*pending.ruling.rule).into());
        shown.insert("verdict".into(), verdict(&pending.ruling.verdict).into());
        shown.insert("stage".into(), stage.into());
        shown.insert("attempts".into(), pending.attempts.into());
        shown.insert("setback".into(), setback(pending));
        shown.insert("asked_ms".into(), ms(pending.asked).into());
        shown.insert("until_ms".into(), json!(until.or_else(|| moment(pending.until))));
        shown.insert("reserved".into(), spend(&pending.reserved));
        shown.insert("child".into(), json!(pending.child.map(|run| run.to_string())));
        shown.into()
    }

    /// What is to be done.
    pub(super) fn work(&self, work: &Work) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
        put("kind", work.kind().into());
        put("object", work.object().into());
        match work {
            Work::Tool { args, undo, query, .. } => {
                put("args", self.content(args));
                put("undo", json!(undo.as_deref()));
                put("query", json!(query.as_deref()));
            }
            Work::Child { task, allowance: allowed, .. } => {
                put("task", self.content(task));
                put("allowance", allowance(allowed));
            }
            Work::Message { body, .. } | Work::Publish { body, .. } => put("body", self.content(body)),
            Work::Timer { at } => put("at_ms", ms(*at).into()),
            Work::Promise { question } => put("question", self.content(question)),
            Work::Put { value, expect, .. } => {
                put("value", value.as_ref().map_or(Value::Null, |value| self.content(value)));
                put("expect", json!(expect));
            }
            Work::Watch { version, .. } => put("version", (*version).into()),
            Work::Acquire { units, of, ttl, .. } => {
                put("units", (*units).into());
                put("of", (*of).into());
                put("ttl_ms", ttl.0.into());
            }
            Work::Release { token, .. } => put("token", (*token).into()),
            Work::Subscribe { on, .. } | Work::Link { on, .. } => put("on", (*on).into()),
            Work::Monitor { .. } | Work::Model { .. } | Work::Get { .. } => {}
        }
        shown
    }
}

/// An agent as it stands: the row in memory, if it is, else the one on disk.
///
/// # Errors
/// If the disk fails.
pub(super) fn standing(
    reader: &Reader,
    desk: &Desk,
    address: &Address,
) -> Result<Option<(AgentRow, Standing)>, Error> {
    if let Some(found) = desk.look(address, None) {
        return Ok(Some(found));
    }
    let row = reader.agent(address)?;
    Ok(row.and_then(|row| desk.look(address, Some(row))))
}

/// What an agent waits for; of an effect by which tool it was asked for, and of an approval
/// who said yes so far, of a stop who made it, and of what is tried again why.
pub(super) fn needs(row: &AgentRow, standing: &Standing) -> Value {
    let shown = |need: &Need| {
        let pending = effect_of(row, need);
        let mut shown = json!({
            "cause": need.cause,
            "on": &*need.on,
            "tool": pending.map(|pending| tool_of(pending.work.kind(), pending.work.object())),
            "since_ms": moment(need.since),
            "until_ms": need.until.and_then(moment),
            "effect": need.effect.map(|effect| effect.to_string()),
        });
        if let Some((yes, approval)) = pending.and_then(votes) {
            shown["yes"] = yes.iter().map(|name| &**name).collect();
            shown["quorum"] = approval.quorum.into();
            shown["approvers"] = approval.approvers.iter().map(|name| &**name).collect();
        }
        if let Some(pending) = pending.filter(|pending| !pending.handed.is_empty()) {
            shown["handed_to"] = pending.handed.iter().map(|handed| &*handed.to).collect();
        }
        if let Some(pending) = pending.filter(|_| need.cause == "retry") {
            shown["attempts"] = pending.attempts.into();
            shown["tries_max"] = standing.tries_max.into();
            shown["setback"] = setback(pending);
        }
        if let Some(stop) = standing.stop.as_ref().filter(|_| need.cause == "halted") {
            shown["by"] = (*stop.by).into();
        }
        shown
    };
    standing.needs.iter().map(shown).collect()
}

/// What the tries of an effect came to so far.
fn setback(pending: &Pending) -> Value {
    pending.setback.as_ref().map_or(Value::Null, |setback| {
        json!({
            "code": setback.code.as_str(),
            "message": &*setback.why,
            "first_ms": moment(setback.first),
            "last_ms": moment(setback.last),
        })
    })
}

/// The effect that is waited for.
pub(super) fn effect_of<'a>(row: &'a AgentRow, need: &Need) -> Option<&'a Pending> {
    row.pending.iter().find(|pending| Some(pending.id) == need.effect)
}

/// Who said yes so far to what waits for people, and what it takes.
pub(super) fn votes(pending: &Pending) -> Option<(&[Arc<str>], &Approval)> {
    match (&pending.stage, &pending.ruling.verdict) {
        (Stage::Approving { yes, .. }, Verdict::Ask(approval)) => Some((yes, approval)),
        _ => None,
    }
}

/// What is left of what a run may use, where it is bounded; what is reserved is as good as
/// used. Time runs from the run's start, whatever it waits for.
pub(super) fn left(row: &RunRow, now: At) -> Allowance {
    let allowed = row.allowance;
    let taken = row.used.plus(row.reserved);
    let count = |allowed: Option<u64>, taken: u64| allowed.map(|allowed| allowed.saturating_sub(taken));
    Allowance {
        tokens: count(allowed.tokens.map(|tokens| tokens.0), taken.tokens.0).map(Tokens),
        money: count(allowed.money.map(|money| money.0), taken.money.0).map(MicroUsd),
        calls: count(allowed.calls, taken.calls),
        steps: count(allowed.steps, taken.steps),
        wall: allowed.wall.map(|wall| Millis(wall.0.saturating_sub(now.since(row.began).0))),
        children: None,
        depth: None,
    }
}

/// A name for a stage, and until when it lasts.
fn stage(stage: &Stage) -> (&'static str, Option<u64>) {
    match stage {
        Stage::Approving { until, .. } => ("approving", moment(*until)),
        Stage::Ready { .. } => ("ready", None),
        Stage::Attempted => ("attempted", None),
        Stage::Waiting => ("waiting", None),
        Stage::Doubtful { .. } => ("in_doubt", None),
    }
}

/// A name for what the gate said.
pub(super) const fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Redact(_) => "redact",
        Verdict::Ask(_) => "ask",
        Verdict::Deny => "deny",
    }
}

/// The run that a fork goes on from, and the turn.
pub(super) fn forked(row: &RunRow) -> Value {
    row.fork.map_or(Value::Null, |fork| json!({"run": fork.run.to_string(), "turn": fork.turn}))
}

/// An amount.
pub(super) fn spend(spend: &Spend) -> Value {
    json!({
        "tokens": spend.tokens.0,
        "money_usd": dollars(spend.money.0),
        "calls": spend.calls,
        "steps": spend.steps,
    })
}

pub(super) fn allowance(allowed: &Allowance) -> Value {
    json!({
        "tokens": allowed.tokens.map(|tokens| tokens.0),
        "money_usd": allowed.money.map(|money| dollars(money.0)),
        "calls": allowed.calls,
        "steps": allowed.steps,
        "wall_ms": allowed.wall.map(|wall| wall.0),
        "children": allowed.children,
        "depth": allowed.depth,
    })
}

fn dollars(micro: u64) -> f64 {
    micro as f64 / 1e6
}

/// Content that is not shown.
fn named(payload: &Payload) -> Value {
    match payload {
        Payload::Here(bytes) => json!({"bytes": bytes.len(), "cut": true}),
        Payload::Blob { digest, len } => {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"blob": hex, "bytes": len})
        }
    }
}

/// Epoch milliseconds.
pub(super) const fn ms(at: At) -> u64 {
    at.0 / 1_000
}

/// Epoch milliseconds of a point in time that is known and not for ever away.
pub(super) fn moment(at: At) -> Option<u64> {
    (at.0 != 0 && at != At::MAX).then(|| ms(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_of_each_is_left_and_no_bound_is_no_bound() {
        let of = |tokens: Option<u64>, calls| Allowance {
            tokens: tokens.map(Tokens),
            calls,
            ..Allowance::default()
        };
        let both = of(Some(5), None).least(of(Some(3), Some(7)));
        assert_eq!((both.tokens, both.calls, both.wall), (Some(Tokens(3)), Some(7), None));
        assert_eq!(both.least(Allowance::default()), both);
    }
}
