//! What people decide: approvals, questions, effects in doubt, and dead letters.

use std::sync::Arc;

use http::StatusCode;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::input::{Matter, Ticket};
use seawall_model::durable::{Pending, Stage};
use seawall_model::effect::{Answer as Outcome, Approval, Fact, Person, Verdict, Work};
use seawall_model::{Address, Code, EffectId, Fault, Payload};
use seawall_store::journal::{Need, Reader, Wanted, Whose};
use serde_json::{Value, json};

use crate::agents::handler;
use crate::clock;

use super::path::Act;
use super::show::{self, Show, moment};
use super::visitor::Visitor;
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
    match (act, &row.stage) {
        (Act::Approve, Stage::Approving { .. }) => {
            if !may {
                return Err(not_yours(&row));
            }
            let args = fields.object_text("args")?;
            fields.finish()?;
            let (args, facts) = judged(&request, &address, version, &row, args).await?;
            request.tell(vote(effect, address, Matter::Approval, who, true, args, facts)).await?;
        }
        (Act::Delegate, Stage::Approving { .. }) => {
            if !may {
                return Err(not_yours(&row));
            }
            let to = key_named(&request, &address, &row, &fields.text("to")?.unwrap_or_default())?;
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
            request.tell(vote(effect, address, Matter::Approval, who, false, why, Vec::new())).await?;
        }
        (Act::Again, Stage::Doubtful { .. }) => {
            request.who.only_admin()?;
            fields.finish()?;
            request.tell(vote(effect, address, Matter::Doubt, who, true, None, Vec::new())).await?;
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
            request.tell(|ticket| Input::Resolve { ticket, effect, address, who, answer }).await?;
        }
        (act, stage) => return Err(not_so(effect, act, stage)),
    }
    request.json(StatusCode::OK, &json!({"effect": effect.to_string(), "done": true}))
}

/// A yes or no, once it has a ticket.
fn vote(
    effect: EffectId,
    address: Address,
    matter: Matter,
    who: Box<Person>,
    yes: bool,
    args: Option<Payload>,
    facts: Vec<Fact>,
) -> impl FnOnce(Ticket) -> Input {
    move |ticket| Input::Vote { ticket, effect, address, matter, who, yes, args, facts }
}

/// Whom a vote is handed to: without such a key nobody would have it, and with one that has
/// a vote of its own two votes would be one. A key that is none of the asker's business is
/// answered like one that nobody has.
fn key_named(request: &Request<'_>, address: &Address, row: &Pending, to: &str) -> Result<Arc<str>, Fault> {
    let refuse = |message: String| Err(Fault::new(Code::BadField, message).at("to"));
    let person = request.app.keys.load().person(to, clock::wall(clock::now()));
    match person.filter(|person| knows(&request.who, address, row, person)) {
        None => refuse(format!("`to` names a key that works and that you may know of, and `{to}` is none.")),
        Some(person) if row.has_vote(&person) => {
            refuse(format!("`{to}` has a vote on it already, and nobody counts twice."))
        }
        Some(person) => Ok(person.name),
    }
}

/// May who asks learn that there is this key? It is of a tenant of theirs, or of the one
/// whose effect it is, or the rule names it.
fn knows(who: &Visitor, address: &Address, row: &Pending, key: &Person) -> bool {
    let named = || row.approval().is_some_and(|approval| approval.names(key));
    who.sees(&key.tenant) || key.tenant.is_under(address.tenant.as_str()) || named()
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

/// Arguments that an approver changed, and what the gate is to know of these or else of the
/// call's own: it is asked again. Changed ones must fit the tool as the model's own must.
async fn judged(
    request: &Request<'_>,
    address: &Address,
    version: Arc<str>,
    row: &Pending,
    args: Option<Vec<u8>>,
) -> Result<(Option<Payload>, Vec<Fact>), Fault> {
    let wrong = |message: String| Fault::new(Code::BadField, message).at("args");
    let Work::Tool { tool, args: own, .. } = &row.work else {
        return match args {
            None => Ok((None, Vec::new())),
            Some(_) => {
                Err(wrong(format!("A {} has no arguments to edit: approve or deny it.", row.work.kind())))
            }
        };
    };
    let (library, kind) = (request.runtime.library.clone(), address.agent.clone());
    let (name, own, edited) = (tool.clone(), own.clone(), args.is_some());
    let read = move |reader: &Reader| {
        let args = match args {
            Some(args) => args,
            None => reader.open_payload(&own)?.to_vec(),
        };
        let facts = match library.version(kind.kind(), &version) {
            Some(definition) => handler::facts_of_edit(&definition, &library.kit(&definition), &name, &args),
            None => Err("the version of its definition is not known any more".to_owned()),
        };
        Ok((args, facts))
    };
    let (args, facts) = request.read(read).await?;
    let facts = facts.map_err(|why| match edited {
        true => wrong(format!("`args` do not do for `{tool}`: {why}.")),
        false => {
            Fault::new(Code::GateDenied, format!("The rules cannot be asked about `{tool}` now: {why}."))
        }
    })?;
    let args = if edited { Some(request.keep(args).await?) } else { None };
    Ok((args, facts))
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
    let after = after_letter(request.query.take("after").as_deref())?;
    let limit = request.query.limit(100, COUNT_MAX)?;
    request.query.finish()?;
    let body = request
        .read(move |reader| {
            let letters = reader.letters_after(tenant.as_deref(), after, limit)?;
            let all = reader.count_letters(tenant.as_deref())?;
            let show = Show::whole(reader);
            let full = if letters.len() == limit { letters.last() } else { None };
            let next = full.map(|(shard, letter)| format!("{shard}.{}", letter.number));
            let shown: Vec<Value> = letters
                .iter()
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
            Ok(json!({"letters": shown, "all": all, "next": next}))
        })
        .await?;
    request.json(StatusCode::OK, &body)
}

/// The letter that a page before ended with.
fn after_letter(given: Option<&str>) -> Result<Option<(u8, u64)>, Fault> {
    let Some(given) = given else { return Ok(None) };
    let parts = given.split_once('.');
    let name = parts.and_then(|(shard, number)| Some((shard.parse().ok()?, number.parse().ok()?)));
    name.map(Some).ok_or_else(|| {
        Fault::new(Code::BadField, "`after` is a letter's name, as `next` of the page before said.")
            .at("after")
    })
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
            let letter = reader.letter(shard, number)?;
            let own = |to: &Address| tenant.is_none_or(|tenant| to.tenant.is_under(&tenant));
            Ok(letter.is_some_and(|letter| own(&letter.to)))
        })
        .await?;
    if !found {
        return Err(unknown());
    }
    let by = request.who.by.clone();
    request.tell(|ticket| Input::Redrive { ticket, shard, number, send, by }).await?;
    let what = if send { "redriven" } else { "discarded" };
    request.json(StatusCode::OK, &json!({"letter": name, what: true}))
}

#[cfg(test)]
mod tests {
    use seawall_model::effect::{EffectClass, Ruling, Spend};
    use seawall_model::{Agent, At, Millis, RunKey, Tenant};

    use super::*;

    fn asking(approvers: &[&str]) -> Pending {
        let approvers = approvers.iter().map(|name| (*name).into()).collect();
        let approval = Approval { quorum: 1, approvers, patience: Millis(1_000), deputy: None };
        Pending {
            id: EffectId { run: RunKey::new(0, 1), number: 1 },
            tag: "t".into(),
            work: Work::Tool { tool: "mail.send".into(), args: Payload::empty(), undo: None, query: None },
            class: EffectClass::Irreversible,
            ruling: Ruling { rule: "staff".into(), verdict: Verdict::Ask(approval) },
            reserved: Spend::default(),
            twin: 0,
            stage: Stage::Approving { yes: Vec::new(), until: At(1_000_000) },
            attempts: 0,
            asked: At(0),
            until: At::MAX,
            child: None,
            handed: Vec::new(),
            setback: None,
        }
    }

    #[test]
    fn who_hands_a_vote_on_learns_of_no_keys_that_are_none_of_its_business() {
        let tenant = |path| Tenant::parse(path).expect("good");
        let key =
            |name: &str, path| Person { name: name.into(), tenant: tenant(path), admin: false, alone: false };
        let visitor =
            |admin, path| Visitor { admin, own: tenant(path), by: "k1".into(), models: Arc::default() };
        let address = Address { tenant: tenant("acme"), agent: Agent::parse("clerk/1").expect("good") };
        let lead = visitor(false, "acme/leads");
        let row = asking(&["k1", "boss", "board"]);
        let known = |key: &Person| knows(&lead, &address, &row, key);
        assert!(known(&key("k2", "acme/leads")) && known(&key("k3", "acme/x")), "those at home");
        assert!(known(&key("boss", "other")) && known(&key("k4", "board/x")), "those whom the rule names");
        assert!(!known(&key("k5", "other")) && !known(&key("k6", "acme2")), "and nobody else");
        assert!(knows(&visitor(true, "ops"), &address, &row, &key("k5", "other")), "an admin knows all");
    }
}
