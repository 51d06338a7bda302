//! What people decide: approvals, questions, effects in doubt, dead letters, and stops.

use http::StatusCode;
use seawall_kernel::agents::Input;
use seawall_model::durable::{Pending, Scope, Stage};
use seawall_model::effect::{Answer as Outcome, Approval, Verdict, Work};
use seawall_model::{Address, Code, EffectId, Fault, Payload, limits};
use seawall_store::journal::{Need, Wanted};
use serde_json::{Value, json};

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
    request.query.finish()?;
    let who = request.who.clone();
    let body = request
        .read(move |reader| {
            let show = Show::whole(reader);
            let listed = |found: &[Wanted]| -> Value {
                found.iter().take(COUNT_MAX).map(|one| wanted(&show, &who, one)).collect()
            };
            let tenant = tenant.as_deref();
            // Whose it is the journal itself knows: what others wait for takes no place.
            let of = |need| reader.wanted(need, tenant, COUNT_MAX);
            let mut approvals = of(Need::Approval)?;
            if let Some(path) = tenant.filter(|_| approvals.len() < COUNT_MAX) {
                // Approvers may be of another tenant than those whom they approve.
                let foreign = reader.wanted(Need::Approval, None, limits::ROWS_MAX)?;
                approvals.extend(foreign.into_iter().filter(|one| {
                    let asked = asked(&one.effect).is_some_and(|approval| who.approves(approval));
                    asked && !one.agent.tenant.is_under(path)
                }));
            }
            Ok(json!({
                "approvals": listed(&approvals),
                "questions": listed(&of(Need::Promise)?),
                "doubts": listed(&of(Need::Doubt)?),
            }))
        })
        .await?;
    request.json(StatusCode::OK, &body)
}

/// The approval that an effect asks for.
fn asked(effect: &Pending) -> Option<&Approval> {
    match &effect.ruling.verdict {
        Verdict::Ask(approval) => Some(approval),
        _ => None,
    }
}

fn wanted(show: &Show<'_>, who: &Visitor, wanted: &Wanted) -> Value {
    let effect = &wanted.effect;
    let mut shown = show.pending(effect);
    if !matches!(effect.work, Work::Tool { .. } | Work::Promise { .. }) {
        // What is no tool's has fields of its own: they are its arguments.
        shown["args"] = show.work(&effect.work).into();
    }
    shown["agent"] = wanted.agent.agent.as_str().into();
    shown["tenant"] = wanted.agent.tenant.as_str().into();
    shown["run"] = effect.id.run.to_string().into();
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
        shown["yours"] = who.approves(approval).into();
    }
    shown
}

/// `POST effects/EFFECT/ACT`
pub(super) async fn decide(request: Request<'_>, effect: EffectId, act: Act) -> Answer {
    request.query.finish()?;
    let (address, row) = under_way(&request, effect).await?;
    let seen = request.who.sees(&address.tenant);
    let may = asked(&row).is_some_and(|approval| request.who.approves(approval));
    if !seen && !may {
        return Err(unknown_effect(effect));
    }
    let mut fields = request.fields()?;
    let by = request.who.by.clone();
    match (act, &row.stage) {
        (Act::Approve, Stage::Approving { .. }) => {
            if !may {
                return Err(not_yours());
            }
            let args = fields.object_text("args")?;
            fields.finish()?;
            let args = edited(&request, &row, args).await?;
            request.tell(|ticket| Input::Vote { ticket, effect, address, by, yes: true, args }).await?;
        }
        (Act::Deny, Stage::Approving { .. }) => {
            // Who may say yes may say no, and so may whoever runs all of it.
            if !may && !request.who.admin {
                return Err(not_yours());
            }
            let why = words(fields.text("why")?, "why")?.map(|why| Payload::text(&why));
            fields.finish()?;
            request.tell(|ticket| Input::Vote { ticket, effect, address, by, yes: false, args: why }).await?;
        }
        (Act::Again, Stage::Doubtful { .. }) => {
            request.who.only_admin()?;
            fields.finish()?;
            request.tell(|ticket| Input::Vote { ticket, effect, address, by, yes: true, args: None }).await?;
        }
        (Act::Answer, stage) => {
            if matches!(stage, Stage::Doubtful { .. }) {
                request.who.only_admin()?;
            } else if !seen {
                return Err(not_yours());
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

/// An effect under way, and its agent.
async fn under_way(request: &Request<'_>, effect: EffectId) -> Result<(Address, Pending), Fault> {
    let desk = request.runtime.desk.clone();
    let found = request.read(move |reader| {
        let Some(run) = reader.run(effect.run)? else { return Ok(None) };
        let agent = show::standing(reader, &desk, &run.agent)?;
        let pending = agent.and_then(|(row, _)| row.pending.into_iter().find(|pending| pending.id == effect));
        Ok(pending.map(|pending| (run.agent, pending)))
    });
    found.await?.ok_or_else(|| unknown_effect(effect))
}

/// Arguments that an approver changed.
async fn edited(
    request: &Request<'_>,
    row: &Pending,
    args: Option<Vec<u8>>,
) -> Result<Option<Payload>, Fault> {
    let Some(args) = args else { return Ok(None) };
    if !matches!(row.work, Work::Tool { .. }) {
        let message = format!("A {} has no arguments to edit: approve or deny it.", row.work.kind());
        return Err(Fault::new(Code::BadField, message).at("args"));
    }
    request.keep(args).await.map(Some)
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

fn not_yours() -> Fault {
    let message = "This API key is not among those that may decide this: see `approvers` in the inbox.";
    Fault::new(Code::AdminOnly, message).at("authorization")
}

fn not_so(effect: EffectId, act: Act, stage: &Stage) -> Fault {
    let wants = match stage {
        Stage::Approving { .. } => "asks to be approved or denied",
        Stage::Doubtful { .. } => "is in doubt: `answer` says what came of it, `again` sends it again",
        Stage::Waiting => "waits to be answered",
        Stage::Ready { .. } | Stage::Attempted => "is under way and wants nobody",
    };
    let act = match act {
        Act::Approve => "approve",
        Act::Deny => "deny",
        Act::Answer => "answer",
        Act::Again => "again",
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
    let unknown = || Fault::new(Code::EffectUnknown, format!("There is no dead letter `{name}`."));
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

/// `GET halts`
pub(super) fn halts(request: &Request<'_>) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    let halts: Vec<String> = request.runtime.desk.halts().iter().map(ToString::to_string).collect();
    request.json(StatusCode::OK, &json!({ "halts": halts }))
}

/// `POST halts`
pub(super) async fn set_halt(request: Request<'_>) -> Answer {
    request.who.only_admin()?;
    request.query.finish()?;
    let mut fields = request.fields()?;
    let scope = fields.text("scope")?.unwrap_or_default();
    let on = fields.flag("on")?.unwrap_or(true);
    fields.finish()?;
    let scope = Scope::parse(&scope).ok_or_else(|| {
        let message = "`scope` is all, tenant:PATH, type:NAME, agent:TENANT/TYPE/KEY, run:RUN or tool:NAME (perhaps with * at its end).";
        Fault::new(Code::BadField, message).at("scope")
    })?;
    let (by, told) = (request.who.by.clone(), scope.clone());
    request.tell(|ticket| Input::Halt { ticket, scope: told, on, by }).await?;
    tracing::warn!(%scope, on, by = %request.who.by, "the kill switch of agents");
    request.json(StatusCode::OK, &json!({"scope": scope.to_string(), "on": on}))
}
