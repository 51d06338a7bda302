//! Records of the journal as JSON, for whoever follows a run.

use seawall_model::durable::RunRow;
use seawall_model::effect::EffectId;
use seawall_model::journal::{Change, Ending, Entry, Event, Next, Planned, Turn};
use serde_json::{Value, json};

use super::show::{Show, moment, ms, spend, verdict};

/// A record with its place.
pub(super) fn record(show: &Show<'_>, entry: &Entry) -> Value {
    let record = &entry.record;
    let mut shown = event(show, &record.event);
    shown["seq"] = entry.seq.into();
    shown["at_ms"] = ms(record.at).into();
    shown["kind"] = record.event.kind().into();
    shown["agent"] = json!(record.agent.as_ref().map(ToString::to_string));
    shown
}

fn event(show: &Show<'_>, event: &Event) -> Value {
    match event {
        Event::Opened => json!({}),
        Event::Started { run, schedule, state, .. } => {
            let mut shown = begun(show, run);
            shown["schedule_ms"] = json!(schedule.map(ms));
            shown["fork"] = (!state.is_empty()).into();
            shown
        }
        Event::Turned(turn) => turned(show, turn),
        Event::Stumbled { run, why, rests_until } => {
            json!({"run": run.to_string(), "why": &**why, "rests_until_ms": moment(*rests_until)})
        }
        Event::Attempted { effect } => json!({"effect": effect.to_string()}),
        Event::Postponed { effect, until, code, why, counts, used } => json!({
            "effect": effect.to_string(), "until_ms": moment(*until), "code": code.as_str(), "why": &**why, "counts": counts,
            "used": spend(used),
        }),
        Event::Answered { effect, answer, used, by } => {
            let mut shown = Value::Object(show.answer(answer));
            shown["effect"] = effect.to_string().into();
            shown["used"] = spend(used);
            shown["by"] = json!(by.as_deref());
            shown
        }
        Event::Doubted { effect, why } => json!({"effect": effect.to_string(), "why": &**why}),
        Event::Delegated { effect, by, to } => {
            json!({"effect": effect.to_string(), "by": by.as_deref(), "to": &**to})
        }
        Event::Voted { effect, by, yes, args, stage, ruling } => json!({
            "effect": effect.to_string(),
            "by": &**by,
            "yes": yes,
            "args": args.as_ref().map(|args| show.content(args)),
            "rule": ruling.as_ref().map(|ruling| &*ruling.rule),
            "verdict": ruling.as_ref().map(|ruling| verdict(&ruling.verdict)),
            "decided": !matches!(stage, Some(seawall_model::durable::Stage::Approving { .. })),
        }),
        Event::Mailed { message, by } => json!({"message": show.message(message), "by": by.as_deref()}),
        Event::Lettered { message, why } => json!({"message": show.message(message), "why": why.as_str()}),
        Event::Unlettered { number, sent, by } => json!({"number": number, "sent": sent, "by": &**by}),
        Event::Ended { run, ending: how } => {
            let mut shown = ending(show, how);
            shown["run"] = run.to_string().into();
            shown
        }
        Event::Restarted { run, rests_until, why } => {
            json!({"run": run.to_string(), "why": &**why, "rests_until_ms": moment(*rests_until)})
        }
        Event::Quarantined { why } => json!({"why": &**why}),
        Event::Released { by } => json!({"by": &**by}),
        Event::Halted { scope, on, by } => json!({"scope": scope.to_string(), "on": on, "by": &**by}),
        Event::Defined { kind, version, by } => {
            json!({"type": &**kind, "version": version.as_deref(), "by": &**by})
        }
        Event::Moved { run, version } => json!({"run": run.to_string(), "version": &**version}),
        _ => shared(event),
    }
}

/// What happened to what a tenant's agents share.
fn shared(event: &Event) -> Value {
    match event {
        Event::Put { key, value, version, by, who, .. } => json!({
            "key": &**key,
            "version": version,
            "bytes": value.as_ref().map(seawall_model::Payload::len),
            "effect": by.map(|effect| effect.to_string()),
            "by": who.as_deref(),
        }),
        Event::Granted { resource, of, holder, .. } => json!({
            "resource": &**resource,
            "of": of,
            "units": holder.units,
            "token": holder.token,
            "until_ms": moment(holder.until),
            "effect": holder.effect.to_string(),
        }),
        Event::Tied { tie } => json!({
            "run": tie.run.to_string(),
            "peer": tie.peer.to_string(),
            "effect": tie.effect.to_string(),
            "linked": tie.linked,
        }),
        Event::Untied { run, effect } => json!({"run": run.to_string(), "effect": effect.to_string()}),
        Event::Freed { resource, token, .. } => json!({"resource": &**resource, "token": token}),
        Event::Subscribed { topic, agent, on, .. } => {
            json!({"topic": &**topic, "subscriber": agent.to_string(), "on": on})
        }
        _ => json!({}),
    }
}

fn begun(show: &Show<'_>, run: &RunRow) -> Value {
    json!({
        "run": run.key.to_string(),
        "parent": run.parent.map(|effect| effect.to_string()),
        "root": run.root.to_string(),
        "version": &*run.version,
        "by": &*run.by,
        "task": show.content(&run.task),
    })
}

fn turned(show: &Show<'_>, turn: &Turn) -> Value {
    let changes: Vec<Value> = turn
        .changes
        .iter()
        .map(|change| match change {
            Change::Set { key, value } => json!({"set": &**key, "bytes": value.len()}),
            Change::Keep { key, effect } => json!({"keep": &**key, "effect": effect.to_string()}),
            Change::Drop { key } => json!({"drop": &**key}),
        })
        .collect();
    json!({
        "run": turn.run.to_string(),
        "turn": turn.number,
        "seen": turn.seen,
        "changes": changes,
        "asks": turn.effects.len(),
        "next": next(show, &turn.next),
        "note": turn.note.as_deref(),
        "rests_until_ms": moment(turn.rests_until),
    })
}

/// What a turn asked for, and what was decided on it. `effect` is the one's own id.
pub(super) fn planned(show: &Show<'_>, planned: &Planned, effect: EffectId) -> Value {
    let mut shown = Value::Object(show.work(&planned.ask.work));
    shown["effect"] = effect.to_string().into();
    shown["tag"] = (*planned.ask.tag).into();
    shown["class"] = planned.ask.class.as_str().into();
    shown["rule"] = (*planned.ruling.rule).into();
    shown["verdict"] = verdict(&planned.ruling.verdict).into();
    shown["refused"] = planned
        .refused
        .as_ref()
        .map_or(Value::Null, |(code, why)| json!({"code": code.as_str(), "message": &**why}));
    shown["reserved"] = spend(&planned.reserved);
    shown["child"] = json!(planned.child.as_ref().map(|run| run.key.to_string()));
    shown
}

/// What came after a turn.
pub(super) fn next(show: &Show<'_>, next: &Next) -> Value {
    match next {
        Next::Wait(wake) => {
            let wake = if *wake == seawall_model::durable::Wake::All { "all" } else { "any" };
            json!({"kind": "wait", "for": wake})
        }
        Next::End(how) => {
            let mut shown = ending(show, how);
            shown["kind"] = "end".into();
            shown
        }
        Next::Again { rests_until, why } => {
            json!({"kind": "again", "why": &**why, "rests_until_ms": moment(*rests_until)})
        }
    }
}

fn ending(show: &Show<'_>, ending: &Ending) -> Value {
    match ending {
        Ending::Done(output) => json!({"state": "done", "output": show.content(output)}),
        Ending::Failed { code, why } => {
            json!({"state": "failed", "error": {"code": code.as_str(), "message": &**why}})
        }
        Ending::Cancelled { by } => json!({"state": "cancelled", "by": &**by}),
    }
}
