//! A run turn by turn: what each saw and asked for, what came next, and the state it left.
//! Rebuilt from the records, by the same order in which they were applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use http::StatusCode;
use seawall_model::durable::{RunRow, RunState};
use seawall_model::journal::{Entry, Event, Next, Turn};
use seawall_model::{Code, EffectId, Fault, Payload, RunKey, limits};
use seawall_store::Error;
use seawall_store::journal::{Of, Reader};
use serde_json::{Value, json};

use crate::agents::handler;

use super::record::{next, planned};
use super::show::{Show, ms};
use super::{Answer, Request};

/// `GET runs/RUN/turns`
pub(super) async fn list(request: Request<'_>, run: RunKey) -> Answer {
    request.query.finish()?;
    let row = request.run(run).await?;
    let turns = request.read(move |reader| Tape::read(reader, &row)?.play(reader, u32::MAX)).await?;
    request.json(StatusCode::OK, &turns.into())
}

/// `GET runs/RUN/turns/N`
pub(super) async fn one(request: Request<'_>, run: RunKey, number: u32) -> Answer {
    request.query.finish()?;
    let row = request.run(run).await?;
    let shown = request
        .read(move |reader| {
            let mut turns = Tape::read(reader, &row)?.play(reader, number)?;
            let found = turns.pop().filter(|turn| turn["turn"] == number);
            let mut shown = match (found, number) {
                (Some(shown), _) => shown,
                (None, 0) => json!({"turn": 0}),
                (None, _) => return Ok(None),
            };
            let Some(state) = reader.state_at(run, number)? else {
                // The records before it are gone.
                shown["state"] = Value::Null;
                return Ok(Some(shown));
            };
            add_state(reader, &mut shown, &state)?;
            Ok(Some(shown))
        })
        .await?;
    let shown = shown.ok_or_else(|| {
        Fault::new(Code::RunUnknown, format!("`{run}` has no turn {number}, or it is not kept any more."))
            .advise(format!("`seawall debug {run}` steps through the turns that there are."))
    })?;
    request.json(StatusCode::OK, &shown)
}

fn add_state(reader: &Reader, shown: &mut Value, state: &[(impl AsRef<str>, Payload)]) -> Result<(), Error> {
    let show = Show::whole(reader);
    let mut left = limits::ANSWER_SHOWN_BYTES_MAX;
    let mut opened: BTreeMap<Arc<str>, Payload> = BTreeMap::new();
    let mut values = serde_json::Map::new();
    for (key, value) in state {
        values.insert(key.as_ref().to_owned(), show.content(value));
        // A conversation is told as far as it can be shown.
        if value.len() <= left {
            left -= value.len();
            opened.insert(key.as_ref().into(), Payload::Here(reader.open_payload(value)?));
        }
    }
    let messages = handler::conversation(&opened);
    let told: Vec<Value> =
        messages.iter().filter_map(|message| serde_json::from_slice(message).ok()).collect();
    shown["state"] = values.into();
    shown["conversation"] = told.into();
    Ok(())
}

/// The records that a run's turns are told from, in order.
struct Tape {
    run: RunKey,
    entries: Vec<Entry>,
    /// Ends of children, by the place of the record that ended them.
    ends: BTreeMap<u64, (EffectId, RunRow)>,
}

impl Tape {
    /// Everything that happened to the run's agent while it had the run.
    fn read(reader: &Reader, row: &RunRow) -> Result<Self, Error> {
        let own = reader.history(&Of::Run(row.key), 0, 1)?;
        let mut from = own.first().map_or(0, |kept| kept.entry.seq);
        // What began a child stands in its parent's turn; its own first record comes later.
        if row.parent.is_some() {
            from = 0;
        }
        let mut tape = Self { run: row.key, entries: Vec::new(), ends: BTreeMap::new() };
        while tape.entries.len() < limits::TURN_RECORDS_MAX {
            let page = reader.history(&Of::Agent(row.agent.clone()), from, limits::JOURNAL_PAGE_ROWS)?;
            let whole = page.len() < limits::JOURNAL_PAGE_ROWS;
            for kept in page {
                from = kept.entry.seq + 1;
                tape.take(reader, kept.entry)?;
            }
            if whole || (row.state.over() && from > row.seq) {
                break;
            }
        }
        Ok(tape)
    }

    fn take(&mut self, reader: &Reader, entry: Entry) -> Result<(), Error> {
        if let Event::Turned(turn) = &entry.record.event
            && turn.run == self.run
        {
            let children = turn.effects.iter().filter_map(|planned| planned.child.as_ref());
            for child in children {
                if let (Some(effect), Some(row)) = (child.parent, reader.run(child.key)?)
                    && row.state.over()
                {
                    self.ends.insert(row.seq, (effect, row));
                }
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The turns up to one.
    fn play(mut self, reader: &Reader, last: u32) -> Result<Vec<Value>, Error> {
        let show = Show::whole(reader);
        let mut inbox = VecDeque::from([json!({"kind": "task", "run": self.run.to_string()})]);
        let mut turns = Vec::new();
        let mut effects = 0;
        for entry in std::mem::take(&mut self.entries) {
            while let Some(first) = self.ends.first_entry().filter(|first| *first.key() < entry.seq) {
                let (effect, row) = first.remove();
                inbox.push_back(child(&show, effect, &row));
            }
            match &entry.record.event {
                Event::Turned(turn) if turn.run == self.run => {
                    if turn.number > last {
                        break;
                    }
                    let seen: Vec<Value> = inbox.drain(..(turn.seen as usize).min(inbox.len())).collect();
                    turns.push(shown(&show, &entry, turn, &seen, &mut effects));
                    inbox.extend(turn.note.iter().map(|note| json!({"kind": "note", "text": &**note})));
                    let refused = turns.last().map(|turn| turn["asked"].clone()).unwrap_or_default();
                    inbox.extend(refusals(&refused));
                    if matches!(turn.next, Next::Again { .. }) {
                        inbox = VecDeque::from([json!({"kind": "task", "run": self.run.to_string()})]);
                    }
                }
                Event::Restarted { run, .. } if *run == self.run => {
                    inbox = VecDeque::from([json!({"kind": "task", "run": self.run.to_string()})]);
                }
                Event::Answered { effect, answer, by, .. } if effect.run == self.run => {
                    let mut shown = Value::Object(show.answer(answer));
                    shown["kind"] = "answer".into();
                    shown["effect"] = effect.to_string().into();
                    shown["by"] = json!(by.as_deref());
                    inbox.push_back(shown);
                }
                Event::Mailed { message, .. } => inbox.push_back(show.message(message)),
                _ => {}
            }
        }
        Ok(turns)
    }
}

fn shown(show: &Show<'_>, entry: &Entry, turn: &Turn, seen: &[Value], effects: &mut u32) -> Value {
    let asked: Vec<Value> = turn
        .effects
        .iter()
        .map(|one| {
            *effects += 1;
            planned(show, one, EffectId { run: turn.run, number: *effects })
        })
        .collect();
    json!({
        "turn": turn.number,
        "seq": entry.seq,
        "at_ms": ms(entry.record.at),
        "seen": seen,
        "asked": asked,
        "changes": turn.changes.len(),
        "next": next(show, &turn.next),
    })
}

/// What the next turn is told of effects that were refused.
fn refusals(asked: &Value) -> Vec<Value> {
    let asked = asked.as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = asked.iter().filter(|one| !one["refused"].is_null());
    refused
        .map(|one| {
            json!({"kind": "answer", "effect": one["effect"], "outcome": "failed", "error": one["refused"]})
        })
        .collect()
}

fn child(show: &Show<'_>, effect: EffectId, row: &RunRow) -> Value {
    let run = row.key.to_string();
    let mut shown = json!({"kind": "answer", "effect": effect.to_string(), "child": run});
    match &row.state {
        RunState::Done { output } => {
            shown["outcome"] = "done".into();
            shown["output"] = show.content(output);
        }
        RunState::Failed { code, why } => {
            shown["outcome"] = "failed".into();
            shown["error"] = json!({"code": code.as_str(), "message": &**why});
        }
        RunState::Cancelled { by } => {
            shown["outcome"] = "failed".into();
            shown["error"] =
                json!({"code": Code::RunCancelled.as_str(), "message": format!("ended by {by}")});
        }
        RunState::Queued | RunState::Active => {}
    }
    shown
}
