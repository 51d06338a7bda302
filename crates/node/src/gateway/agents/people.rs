//! What people decide: approvals, questions, effects in doubt, and dead letters.

use std::sync::Arc;

use http::StatusCode;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::input::Ticket;
use seawall_model::durable::{Pending, Stage};
use seawall_model::effect::{Answer as Outcome, Approval, Fact, Person, Verdict, Work};
use seawall_model::{Address, Code, EffectId, Fault, Payload};
use seawall_store::journal::{Need, Reader, Wanted, Whose};
use serde_json::{Value, json};

use crate::agents::handler;
use crate::clock;

use super::path::Act;
use super::show::{self, Show, moment};
use super::{Answer, Request, unknown_effect};

/// Effects of each kind in one answer.
const COUNT_MAX: usize = 1_000;
/// Longest reason of a no, and longest error that a human reports.
const WHY_BYTES_MAX: usize = 4 << 10;

/// `GET inbox`
pub(super) async fn inbox(mut request: Request<'_>) -> Answer {
    let tenant = request.who.lists(request.query.take("tenant").as_deref())?;
    let after = after(request.query.take("after").as_deref())?;
    request.query.finish()?;
    let who = request.who.clone();
    let body = request
        .read(move |reader| {
            let show = Show::whole(reader);
            let person = who.person();
            // Approvers may be of another tenant than those whom they approve.
            let whose = Whose { tenant: tenant.as_deref(), approver: Some(&person) };
            let of = |need| reader.wanted(need, whose, after, COUNT_MAX);
            let pages = [of(Need::Approval)?, of(Need::Promise)?, of(Need::Doubt)?];
            // All three end at the same agent, so that one number says where to go on.
            let next = pages.iter().filter_map(|page| page.next).min();
            let [approvals, questions, doubts] = pages.map(|page| -> Value {
                let here = page.wanted.iter().filter(|one| next.is_none_or(|next| one.row <= next));
                here.map(|one| wanted(&show, &person, one)).collect()
            });
            Ok(json!({ "approvals": approvals, "questions": questions, "doubts": doubts, "next": next }))
        })
        .await?;
    request.json(StatusCode::OK, &body)
}

/// Where a page before ended; 0 is the first.
fn after(given: Option<&str>) -> Result<u64, Fault> {
    given.map_or(Ok(0), str::parse).map_err(|_| {
        Fault::new(Code::BadField, "`after` is what `next` of the page before said.").at("after")
    })
}

/// The approval that an effect asks for.
fn asked(effect: &Pending) -> Option<&Approval> {
    match &effect.ruling.verdict {
        Verdict::Ask(approval) => Some(approval),
        _ => None,
    }
}

fn wanted(show: &Show<'_>, who: &Person, wanted: &Wanted) -> Value {
    let effect = &wanted.effect;
    let mut shown = show.pending(effect);
    if !matches!(effect.work, Work::Tool { .. } | Work::Promise { .. }) {
        // What is no tool's has fields of its own: they are its arguments.
        shown["args"] = show.work(&effect.work).into();
    }
    shown["agent"] = wanted.agent.agent.as_str().into();
    shown["tenant"] = wanted.agent.tenant.as_str().into();
    shown["run"] = effect.id.run.to_string().into();
    shown["fork"] = show.fork_of(effect.id.run);
    match &effect.stage {
        Stage::Approving { yes, until } => {
            shown["until_ms"] = json!(moment(*until));
            shown["yes"] = yes.iter().map(|name| &**name).collect::<Vec<_>>().into();
        }
        Stage::Doubtful { why } => shown["why"] = (**why).into(),
        _ => {}
    }
    if let Some(approval) = asked(effect) {
        shown["quorum"] = approval.quorum.into();
        shown["approvers"] = approval.approvers.iter().map(|name| &**name).collect::<Vec<_>>().into();
        shown["yours"] = effect.has_vote(who).into();
        let handed = effect.handed.iter();
        shown["handed"] = handed
            .map(|handed| json!({"by": handed.by.as_deref(), "to": &*handed.to, "at_ms": moment(handed.at)}))
            .collect();
        let deputy = approval.deputy.as_ref();
        shown["delegate"] = json!(deputy.map(|deputy| &*deputy.to));
        shown["delegate_ms"] = json!(effect.asks_deputy().map(moment));
    }
    shown
}

/// `POST effects/EFFECT/ACT`
pub(super) async fn decide(request: Request<'_>, effect: EffectId, act: Act) -> Answer {
    request.query.finish()?;
    let (address, version, row) = under_way(&request, effect).await?;
    let seen = request.who.sees(&address.tenant);
    let who = Box::new(request.who.person());
    let may = row.has_vote(&who);
    let named = asked(&row).is_some_and(|approval| approval.names(&who));
    if !seen && !may && !named {
        return Err(unknown_effect(effect));
    }
    let mut fields = request.fields()?;
    let by = request.who.by.clone();
    match (act, &row.stage) {
        (Act::Approve, Stage::Approving { .. }) => {
            if !may {
                return Err(not_yours(&row));
            }
            let args = fields.object_text("args")?;
            fields.finish()?;
            let (args, facts) = edited(&request, &address, version, &row, args).await?;
            request.tell(vote(effect, address, who, true, args, facts)).await?;
        }
        (Act::Delegate, Stage::Approving { .. }) => {
            if !may {
                return Err(not_yours(&row));
            }
            let to = key_named(&request, &fields.text("to")?.unwrap_or_default())?;
            fields.finish()?;
            request.tell(|ticket| Input::Delegate { ticket, effect, address, who, to }).await?;
        }
        (Act::Deny, Stage::Approving { .. }) => {
            // Who may say yes may say no, and so may whoever runs all of it.
            if !may && !request.who.admin {
                return Err(not_yours(&row));
            }
            let why = words(fields.text("why")?, "why")?.map(|why| Payload::text(&why));
            fields.finish()?;
            request.tell(vote(effect, address, who, false, why, Vec::new())).await?;
        }
        (Act::Again, Stage::Doubtful { .. }) => {
            request.who.only_admin()?;
            fields.finish()?;
            request.tell(vote(effect, address, who, true, None, Vec::new())).await?;
        }
        (Act::Answer, stage) => {
            if matches!(stage, Stage::Doubtful { .. }) {
                request.who.only_admin()?;
            } else if !seen {
                return Err(not_yours(&row));
            }
            let error = words(fields.text("error")?, "error")?;
            let output = fields.content("output");
            fields.finish()?;
            let answer = outcome(&request, output, error).await?;
            request.tell(|ticket| Input::Resolve { ticket, effect, address, by, answer }).await?;
        }
        (act, stage) => return Err(not_so(effect, act, stage)),
    }
    request.json(StatusCode::OK, &json!({"effect": effect.to_string(), "done": true}))
}

/// A yes or no, once it has a ticket.
fn vote(
    effect: EffectId,
    address: Address,
    who: Box<Person>,
    yes: bool,
    args: Option<Payload>,
    facts: Vec<Fact>,
) -> impl FnOnce(Ticket) -> Input {
    move |ticket| Input::Vote { ticket, effect, address, who, yes, args, facts }
}

/// Whom a vote is handed to: without such a key nobody would have it.
fn key_named(request: &Request<'_>, to: &str) -> Result<Arc<str>, Fault> {
    if request.app.keys.load().works(to, clock::wall(clock::now())) {
        return Ok(to.into());
    }
    let message = format!("`to` names a key that works, and `{to}` is none.");
    Err(Fault::new(Code::BadField, message).at("to"))
}

/// An effect under way, its agent, and the version that its run is on.
async fn under_way(request: &Request<'_>, effect: EffectId) -> Result<(Address, Arc<str>, Pending), Fault> {
    let desk = request.runtime.desk.clone();
    let found = request.read(move |reader| {
        let Some(run) = reader.run(effect.run)? else { return Ok(None) };
        let agent = show::standing(reader, &desk, &run.agent)?;
        let pending = agent.and_then(|(row, _)| row.pending.into_iter().find(|pending| pending.id == effect));
        Ok(pending.map(|pending| (run.agent, run.version, pending)))
    });
    found.await?.ok_or_else(|| unknown_effect(effect))
}

/// Arguments that an approver changed, with what the gate is to know of them. They must fit
/// the tool as the model's own must.
async fn edited(
    request: &Request<'_>,
    address: &Address,
    version: Arc<str>,
    row: &Pending,
    args: Option<Vec<u8>>,
) -> Result<(Option<Payload>, Vec<Fact>), Fault> {
    let Some(args) = args else { return Ok((None, Vec::new())) };
    let wrong = |message: String| Fault::new(Code::BadField, message).at("args");
    let Work::Tool { tool, .. } = &row.work else {
        return Err(wrong(format!("A {} has no arguments to edit: approve or deny it.", row.work.kind())));
    };
    let (library, kind, name) = (request.runtime.library.clone(), address.agent.clone(), tool.clone());
    let read = move |_: &Reader| {
        let facts = match library.version(kind.kind(), &version) {
            Some(definition) => handler::facts_of_edit(&definition, &library.kit(&definition), &name, &args),
            None => Err("the version of its definition is not known any more".to_owned()),
        };
        Ok((args, facts))
    };
    let (args, facts) = request.read(read).await?;
    let facts = facts.map_err(|why| wrong(format!("`args` do not do for `{tool}`: {why}.")))?;
    Ok((Some(request.keep(args).await?), facts))
}

/// What a human says came of an effect.
async fn outcome(
    request: &Request<'_>,
    output: Option<Vec<u8>>,
    error: Option<String>,
) -> Result<Outcome, Fault> {
    match (output, error) {
        (Some(_), Some(_)) => {
            Err(Fault::new(Code::BadField, "Say what came of it in `output` or in `error`, not in both.")
                .at("error"))
        }
        (None, Some(error)) => Ok(Outcome::Failed { code: Code::ToolFailed, why: error.into() }),
        (output, None) => Ok(Outcome::Done(request.keep(output.unwrap_or_default()).await?)),
    }
}

fn words(text: Option<String>, field: &'static str) -> Result<Option<String>, Fault> {
    match text {
        Some(text) if text.len() > WHY_BYTES_MAX => {
            Err(Fault::new(Code::BadField, format!("`{field}` has at most {WHY_BYTES_MAX} bytes.")).at(field))
        }
        text => Ok(text),
    }
}

/// This key may not decide: who may, by name where the rule names them.
fn not_yours(effect: &Pending) -> Fault {
    let fault = Fault::new(Code::ApproverOnly, format!("This API key may not decide `{}`.", effect.id));
    let advice = match asked(effect) {
        Some(approval) if !approval.approvers.is_empty() => format!(
            "The rule `{}` names who may: {}. An admin's key is not among them by itself, but may say no.",
            effect.ruling.rule,
            approval.approvers.join(", ")
        ),
        Some(_) => format!("The rule `{}` names nobody, so any admin's key may.", effect.ruling.rule),
        None => "Keys of its tenant and of those above it may answer it, and any admin's key.".to_owned(),
    };
    fault.at("authorization").advise(advice)
}

fn not_so(effect: EffectId, act: Act, stage: &Stage) -> Fault {
    let wants = match stage {
        Stage::Approving { .. } => "asks to be approved or denied (or `delegate` hands the vote on)",
        Stage::Doubtful { .. } => "is in doubt: `answer` says what came of it, `again` sends it again",
        Stage::Waiting => "waits to be answered",
        Stage::Ready { .. } | Stage::Attempted => "is under way and wants nobody",
    };
    let act = match act {
        Act::Approve => "approve",
        Act::Deny => "deny",
        Act::Answer => "answer",
        Act::Again => "again",
        Act::Delegate => "delegate",
    };
    Fault::new(Code::EffectUnknown, format!("There is nothing to {act}: `{effect}` {wants}."))
}

/// `GET letters`
pub(super) async fn letters(mut request: Request<'_>) -> Answer {
    let tenant = request.who.lists(request.query.take("tenant").as_deref())?;
    let limit = request.query.limit(100, COUNT_MAX)?;
    request.query.finish()?;
    let body = request
        .read(move |reader| {
            let letters = reader.letters(tenant.as_deref())?;
            let show = Show::whole(reader);
            let shown: Vec<Value> = letters
                .iter()
                .take(limit)
                .map(|(shard, letter)| {
                    json!({
                        "letter": format!("{shard}.{}", letter.number),
                        "agent": letter.to.agent.as_str(),
                        "tenant": letter.to.tenant.as_str(),
                        "why": letter.why.as_str(),
                        "message": show.message(&letter.message),
                    })
                })
                .collect();
            Ok(json!({"letters": shown, "all": letters.len()}))
        })
        .await?;
    request.json(StatusCode::OK, &body)
}

/// `POST letters/SHARD.NUMBER/redrive` and `discard`
pub(super) async fn letter(request: Request<'_>, shard: u8, number: u64, send: bool) -> Answer {
    request.query.finish()?;
    request.fields()?.finish()?;
    let name = format!("{shard}.{number}");
    let unknown = || Fault::new(Code::LetterUnknown, format!("There is no dead letter `{name}`."));
    let tenant = request.who.lists(None)?;
    let found = request
        .read(move |reader| {
            let letters = reader.letters(tenant.as_deref())?;
            Ok(letters.iter().any(|(at, letter)| *at == shard && letter.number == number))
        })
        .await?;
    if !found {
        return Err(unknown());
    }
    request.tell(|ticket| Input::Redrive { ticket, shard, number, send }).await?;
    let what = if send { "redriven" } else { "discarded" };
    request.json(StatusCode::OK, &json!({"letter": name, what: true}))
}
