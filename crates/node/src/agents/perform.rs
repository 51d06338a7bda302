//! Effects in the world: calls on models by the gateway's own road, and on tools. Each is a
//! task that reports once, unless it is dropped before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::Perform;
use seawall_kernel::agents::input::{Finding, Report};
use seawall_model::code::{Blame, Retry};
use seawall_model::effect::{Answer, EffectId, Spend, Work};
use seawall_model::limits::PAYLOAD_BYTES_INLINE;
use seawall_model::{At, Code, EffectClass, Fault, MicroUsd, Payload, Tokens, Usage};
use seawall_store::Error;
use seawall_store::journal::Blobs;
use seawall_wire::talk;
use tokio::sync::oneshot;

use crate::app::App;
use crate::clock;
use crate::gateway::ask::run_id;
use crate::gateway::inside::{self, Inside, Unanswered};
use crate::tasks::Kind;
use crate::tools::{Call, Outcome};

use super::desk::{Desk, Flight, Job, Stow};
use super::stream::{Speaker, Talk};

/// Begins an effect whose request or arguments are `body`, unless it was stopped meanwhile.
pub fn begin(app: &Arc<App>, desk: &Arc<Desk>, blobs: &Blobs, perform: Perform, body: &[u8]) {
    let (effect, address) = (perform.effect, perform.address.clone());
    let Some(Flight { number, mut dropped, .. }) = desk.fly(effect) else {
        // It is ready as before, if its run still wants it.
        let why = "stopped before it was sent".into();
        let used = Spend::default();
        let report = Report::NotDone { code: Code::RunStopped, why, retry_after: None, counts: false, used };
        return desk.tell(Input::Report { effect, address, report });
    };
    let (inner, desk, blobs) = (app.clone(), desk.clone(), blobs.clone());
    let body = Bytes::copy_from_slice(body);
    app.tasks.spawn(Kind::Effect, async move {
        let doing = async {
            match &perform.work {
                Work::Model { .. } => Some(model(&inner, &perform, body).await),
                Work::Tool { tool, undo, query, .. } => {
                    let other = match (perform.undo, perform.query) {
                        (true, _) => undo,
                        (_, true) => query,
                        _ => &None,
                    };
                    let tool = other.as_ref().unwrap_or(tool).clone();
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
        if let Some(report) = report
            && let Some(report) = kept(&desk, &blobs, &perform.work, report).await
        {
            desk.tell(Input::Report { effect, address, report });
        }
        desk.land(effect, number);
    });
}

/// What was done is done: a disk that does not take the answer is tried so often,
const KEEP_TRIES: u32 = 30;
/// with such a pause. One that is full is waited for: it has room again before anything else
/// can be written.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// The report, its answer in the blob store if it is too large for a record. A worker puts
/// it there, as it may wait for the disk. `None` if the workers have gone home.
async fn kept(desk: &Arc<Desk>, blobs: &Blobs, work: &Work, report: Report) -> Option<Report> {
    if !is_large(&report) {
        return Some(report);
    }
    let report = Arc::new(report);
    let mut tries = 1;
    loop {
        let (sender, receiver) = oneshot::channel();
        let (blobs, large) = (blobs.clone(), report.clone());
        let stow = move || drop(sender.send(stowed(&blobs, &large)));
        desk.put(Job::Stow(Stow(Box::new(stow))));
        match receiver.await.ok()? {
            Ok(report) => return Some(report),
            Err(why) if tries >= KEEP_TRIES && !matches!(why, Error::Full) => {
                return Some(unkept(work, &report, &why));
            }
            Err(why) => {
                if tries == 1 {
                    tracing::warn!(%why, "an answer cannot be kept; it is tried again until it can");
                }
                if matches!(why, Error::Full) {
                    desk.note_full();
                }
            }
        }
        tries = tries.saturating_add(1);
        // sleeps because nothing tells when a disk works again
        tokio::time::sleep(KEEP_PAUSE).await;
    }
}

/// Is its answer too large for a record?
fn is_large(report: &Report) -> bool {
    let large = |body: &Payload| body.here().is_some_and(|bytes| bytes.len() as u64 > PAYLOAD_BYTES_INLINE);
    match report {
        Report::Done { answer, .. } | Report::Found(Finding::Done(answer)) => match answer {
            Answer::Done(body) | Answer::Error(body) => large(body),
            Answer::Failed { .. } => false,
        },
        _ => false,
    }
}

/// A large answer goes to the blob store before a record names it.
fn stowed(blobs: &Blobs, report: &Report) -> Result<Report, Error> {
    let (Report::Done { answer, .. } | Report::Found(Finding::Done(answer))) = report else {
        return Ok(report.clone());
    };
    let put = |payload: &Payload| match payload {
        Payload::Here(bytes) if bytes.len() as u64 > PAYLOAD_BYTES_INLINE => blobs.put(bytes.to_vec()),
        small => Ok(small.clone()),
    };
    let answer = match answer {
        Answer::Done(body) => Answer::Done(put(body)?),
        Answer::Error(body) => Answer::Error(put(body)?),
        failed @ Answer::Failed { .. } => failed.clone(),
    };
    Ok(match report {
        Report::Done { used, .. } => Report::Done { answer, used: *used },
        _ => Report::Found(Finding::Done(answer)),
    })
}

/// What is told of something that was done, and whose answer is lost. Of a tool never that
/// it failed: that would invite the agent to do it once more.
fn unkept(work: &Work, report: &Report, why: &Error) -> Report {
    let used = match report {
        Report::Done { used, .. } => *used,
        _ => Spend::default(),
    };
    let answer = match work {
        Work::Tool { .. } => {
            Answer::Error(format!("done; its answer could not be kept: {why}").into_bytes().into())
        }
        _ => Answer::Failed { code: Code::DiskFull, why: why.to_string().into() },
    };
    match report {
        Report::Found(_) => Report::Found(Finding::Done(answer)),
        _ => Report::Done { answer, used },
    }
}

/// A deadline in the clock that the gateway counts by.
fn deadline(until: At) -> At {
    let wall = clock::wall(clock::now());
    clock::now().plus(seawall_model::Millis(until.0.saturating_sub(wall.0) / 1_000))
}

async fn model(app: &Arc<App>, perform: &Perform, body: Bytes) -> Report {
    let tenant = &perform.address.tenant;
    let run = run_id(tenant, &perform.effect.run.to_string());
    let root = run_id(tenant, &perform.root.to_string());
    if let Some(caller) = &perform.caller {
        // Told each time: what hangs where is not kept over a restart.
        app.seat.tell(seawall_kernel::Input::Below { run: root, parent: run_id(tenant, caller) });
    }
    let inside = Inside {
        tenant: tenant.clone(),
        agent: perform.address.agent.clone(),
        run,
        root: (root != run).then_some(root),
        body,
        deadline: None,
        speaker: speaker(app, perform),
    };
    let answer = match inside::chat(app, inside).await {
        Ok(answer) => answer,
        Err(unanswered) => return refused(&unanswered, perform.reserved),
    };
    match talk::Answer::read(&answer) {
        Ok(read) => {
            let used = spent(app, perform, read.usage);
            Report::Done { answer: Answer::Done(answer.to_vec().into()), used }
        }
        // An answer that is none is the engine's fault like any other: a run that ended with
        // it would begin again from its task, and do all of it twice.
        Err(_) => refused(&Fault::plain(Code::EngineGarbled).into(), perform.reserved),
    }
}

/// What a model's answer cost, by the engine's own count.
fn spent(app: &App, perform: &Perform, usage: Option<Usage>) -> Spend {
    // One that does not count is taken to have used all that was laid by for it.
    let Some(usage) = usage else { return perform.reserved };
    let live = app.live.load();
    let route = crate::gateway::ask::resolve(&live, perform.work.object());
    let money = route.map_or(MicroUsd(0), |route| route.price.of(&usage));
    Spend { tokens: Tokens(usage.input.0 + usage.output.0), money, ..Spend::default() }
}

/// What a refusal means for the effect: want of room is waited for, a fault of the engine is
/// tried again, and what the request itself is at fault for is told to the agent.
fn refused(unanswered: &Unanswered, reserved: Spend) -> Report {
    let Unanswered { fault, attempts } = unanswered;
    let row = fault.code.row();
    // What an engine began and did not end well it may want to be paid for, and nobody says
    // how much. Who refuses or answers with an error has not begun.
    let begun = matches!(
        fault.code,
        Code::EngineTimeout
            | Code::EngineGarbled
            | Code::EngineCut
            | Code::AnswerTooLarge
            | Code::DeadlinePassed
    );
    // A stop cuts off what an engine is at work on; what waited for one costs nothing.
    let begun = begun || (fault.code == Code::RunStopped && *attempts > 0);
    let used = if begun { reserved } else { Spend::default() };
    let why: Arc<str> = fault.message.as_ref().into();
    // What a model answers is safe to ask for again: it only costs.
    // A budget whose window turns is waited for, if the effect has the time.
    let spent = fault.code == Code::BudgetExhausted && fault.retry_after.is_none();
    let again = row.retry != Retry::Never && !spent;
    if !again {
        return Report::Done { answer: Answer::Failed { code: fault.code, why }, used };
    }
    let counts = row.blame == Blame::Engine || row.retry == Retry::Now;
    Report::NotDone { code: fault.code, why, retry_after: fault.retry_after, counts, used }
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
    // What was undone and is done once more is another deed.
    let redone =
        perform.class == EffectClass::Compensable && matches!(perform.work, Work::Tool { undo: Some(_), .. });
    let attempt = redone.then_some(perform.attempt);
    let key = key(&app.installation, perform.effect, attempt, perform.undo).into();
    let call = Call { tool, args: args.into(), key, deadline: deadline(perform.until) };
    let outcome = app.tools.call(call).await;
    if perform.query { found(outcome) } else { told(perform.class, outcome) }
}

/// What the tool says that was asked whether an effect was done: a JSON object with `done`,
/// and where that is true with its answer as `output`. Everything else is that it does not
/// know, unless it could not be asked: it will be once more.
fn found(outcome: Outcome) -> Report {
    let text = match outcome {
        Outcome::Done { text, is_error: false } => text,
        Outcome::Failed { retry: true, .. } => return told(EffectClass::Compensable, outcome),
        Outcome::Done { .. } | Outcome::Failed { .. } => return Report::Found(Finding::Unknown),
    };
    let said: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).ok();
    let done = said.as_ref().and_then(|said| said.get("done")).and_then(serde_json::Value::as_bool);
    Report::Found(match (done, said) {
        (Some(true), Some(mut said)) => {
            let output = match said.remove("output") {
                Some(serde_json::Value::String(text)) => text,
                Some(serde_json::Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            Finding::Done(Answer::Done(output.into()))
        }
        (Some(false), _) => Finding::NotDone,
        _ => Finding::Unknown,
    })
}

/// By this the other side knows the effect again; with the attempt where each is a deed of
/// its own: by the first one's key what is done again after it was undone would be taken
/// for done.
fn key(installation: &str, effect: EffectId, attempt: Option<u32>, undo: bool) -> String {
    let attempt = attempt.map(|attempt| format!("-{attempt}")).unwrap_or_default();
    format!("{installation}-{effect}{attempt}{}", if undo { "-undo" } else { "" })
}

/// What the kernel is told of a call.
fn told(class: EffectClass, outcome: Outcome) -> Report {
    match outcome {
        Outcome::Done { text, is_error: false } => {
            Report::Done { answer: Answer::Done(text.into()), used: Spend::default() }
        }
        Outcome::Done { text, is_error: true } => {
            Report::Done { answer: Answer::Error(text.into()), used: Spend::default() }
        }
        // Twice is as good as once: only whether and when it is worth another attempt matters.
        Outcome::Failed { sent: true, retry_after, why, .. } if !class.repeats() => {
            Report::Lost { code: Code::ToolFailed, why: why.into(), retry_after, used: Spend::default() }
        }
        Outcome::Failed { retry: true, retry_after, why, .. } => {
            let used = Spend::default();
            Report::NotDone { code: Code::ToolFailed, why: why.into(), retry_after, counts: true, used }
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

#[cfg(test)]
mod tests {
    use seawall_model::{Millis, RunKey};

    use super::*;

    fn failed(retry: bool, sent: bool) -> Outcome {
        Outcome::Failed { retry, sent, retry_after: Some(Millis(7_000)), why: "why".into() }
    }

    #[test]
    fn what_a_tool_says_of_another_is_understood_or_it_does_not_know() {
        let said = |text: &str| match found(Outcome::Done { text: text.to_owned(), is_error: false }) {
            Report::Found(finding) => finding,
            other => panic!("{other:?}"),
        };
        let done = |text: &str| Finding::Done(Answer::Done(Payload::text(text)));
        assert_eq!(said(r#"{"done": true, "output": "order 7"}"#), done("order 7"));
        assert_eq!(said(r#"{"done": true, "output": {"id": 7}}"#), done(r#"{"id":7}"#));
        assert_eq!(said(r#"{"done": true}"#), done(""));
        assert_eq!(said(r#"{"done": false, "output": "order 7"}"#), Finding::NotDone);
        for unclear in ["", "yes", "true", "[]", "{}", r#"{"done": "true"}"#, r#"{"done": null}"#] {
            assert_eq!(said(unclear), Finding::Unknown, "{unclear}");
        }
        assert_eq!(found(failed(false, true)), Report::Found(Finding::Unknown));
        assert!(matches!(
            found(failed(true, false)),
            Report::NotDone { retry_after: Some(Millis(7_000)), .. }
        ));
        assert!(matches!(found(failed(true, true)), Report::Lost { retry_after: Some(Millis(7_000)), .. }));
        let refused = Outcome::Done { text: r#"{"done": true}"#.to_owned(), is_error: true };
        assert_eq!(found(refused), Report::Found(Finding::Unknown));
    }

    #[test]
    fn a_large_answer_is_kept_beside_the_journal_whoever_gave_it() {
        let body = Payload::text(&"x".repeat(PAYLOAD_BYTES_INLINE as usize + 1));
        let journal = seawall_store::journal::Journal::in_memory().expect("memory");
        let blobs = journal.blobs();
        for answer in [Answer::Done(body.clone()), Answer::Error(body)] {
            let done = Report::Done { answer: answer.clone(), used: Spend::default() };
            for report in [done, Report::Found(Finding::Done(answer))] {
                assert!(is_large(&report), "{report:?}");
                let kept = stowed(blobs, &report).expect("there is room");
                assert!(!is_large(&kept) && kept != report);
                assert_eq!(std::mem::discriminant(&kept), std::mem::discriminant(&report));
            }
        }
        for small in
            [Report::Found(Finding::Unknown), Report::Found(Finding::Done(Answer::Done(Payload::text("y"))))]
        {
            assert!(!is_large(&small));
        }
    }

    #[test]
    fn what_may_be_repeated_waits_as_long_as_the_tool_asks() {
        for class in [EffectClass::Read, EffectClass::Idempotent] {
            let again = told(class, failed(true, true));
            assert!(matches!(again, Report::NotDone { retry_after: Some(Millis(7_000)), counts: true, .. }));
            let never = told(class, failed(false, true));
            assert!(matches!(never, Report::Done { answer: Answer::Failed { .. }, .. }));
        }
        for class in [EffectClass::Compensable, EffectClass::Irreversible] {
            let lost = told(class, failed(true, true));
            assert!(matches!(lost, Report::Lost { retry_after: Some(Millis(7_000)), .. }));
            assert!(matches!(told(class, failed(true, false)), Report::NotDone { .. }));
        }
    }

    #[test]
    fn an_engine_that_began_is_paid_and_one_that_refused_is_not() {
        let reserved = Spend { tokens: Tokens(90), calls: 1, ..Spend::default() };
        let paid_after =
            |code, attempts| match refused(&Unanswered { fault: Fault::plain(code), attempts }, reserved) {
                Report::NotDone { used, .. } | Report::Done { used, .. } | Report::Lost { used, .. } => {
                    used.tokens.0
                }
                Report::Found(finding) => panic!("nobody asked: {finding:?}"),
            };
        let paid = |code| paid_after(code, 1);
        assert_eq!(paid(Code::RunStopped), 90, "the kill switch cut it off");
        assert_eq!(paid_after(Code::RunStopped, 0), 0, "it waited for an engine");
        for code in [Code::EngineCut, Code::EngineTimeout, Code::EngineGarbled, Code::AnswerTooLarge] {
            assert_eq!(paid(code), 90, "{code:?}");
        }
        for code in [Code::EngineDown, Code::QueueFull, Code::EngineFailed, Code::EngineRefused] {
            assert_eq!(paid(code), 0, "{code:?}");
        }
    }

    #[test]
    fn what_is_done_again_after_it_was_undone_has_another_key() {
        let effect = EffectId { run: RunKey::new(3, 1), number: 7 };
        let keys = [
            key("home", effect, None, false),
            key("home", effect, Some(1), false),
            key("home", effect, Some(1), true),
            key("home", effect, Some(2), false),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len(), "{keys:?}");
        assert_eq!(key("home", effect, None, false), format!("home-{effect}"));
    }

    #[test]
    fn a_spent_budget_is_waited_for_where_its_window_turns_and_counts_as_no_try() {
        let refused = |retry_after| {
            let fault = Fault { retry_after, ..Fault::plain(Code::BudgetExhausted) };
            refused(&Unanswered { fault, attempts: 0 }, Spend::default())
        };
        let hour = Some(Millis::from_secs(3_600));
        let Report::NotDone { code, retry_after, counts, .. } = refused(hour) else {
            panic!("it is waited for")
        };
        assert_eq!((code, retry_after, counts), (Code::BudgetExhausted, hour, false));
        assert!(matches!(refused(None), Report::Done { answer: Answer::Failed { .. }, .. }));
    }
}
