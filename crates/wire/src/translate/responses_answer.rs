//! OpenAI Responses: whole answers, and the items and response objects of which its
//! streams are made as well.

use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::chat_answer::name_calls;
use super::responses::{REDACTED, read_item};
use super::talk::{Answer, Part, item_fault};
use super::{Context, garbled};
use crate::fault::engine_message;
use crate::json::{self, Object, bad};
use crate::usage;
use crate::writer::{Writer, written};

/// Reads a whole answer.
pub(crate) fn read_answer(body: &[u8], id: &str) -> Result<Answer, Fault> {
    let whole = Object::parse(body).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
    if whole.hint("status").as_deref() == Some("failed") {
        return Err(failed(&whole));
    }
    let output =
        whole.list("output").map_err(garbled)?.ok_or_else(|| garbled(bad("output", "is missing")))?;
    let mut parts = Vec::new();
    for raw in output {
        let item = json::object(raw).map_err(|_| garbled(item_fault("must be an object")))?;
        match read_item(&item) {
            Ok((_, said)) => parts.extend(said),
            // Items that no request of ours can lead to are left out.
            Err(fault) if fault.code == Code::NotTranslatable => {}
            Err(fault) => return Err(garbled(fault)),
        }
    }
    name_calls(&mut parts, id);
    let usage = whole.find("usage").and_then(|raw| usage::read(Protocol::Responses, raw.get().as_bytes()));
    Ok(Answer { parts, finish: finish(&whole), stopped_by: None, usage }.settled())
}

/// The fault of a response that failed.
pub(crate) fn failed(response: &Object<'_>) -> Fault {
    let told = response.find("error").and_then(|raw| engine_message(raw.get().as_bytes()));
    super::engine_failed(told.as_deref())
}

/// Why a response ended.
pub(crate) fn finish(response: &Object<'_>) -> Finish {
    let incomplete = response.inner("incomplete_details").ok().flatten();
    incomplete
        .and_then(|details| details.hint("reason"))
        .map_or(Finish::Stop, |reason| usage::finish(reason.as_bytes()))
}

/// An item of an answer, as it stands in `output`.
pub(crate) fn write_item(w: &mut Writer<'_>, id: &str, part: &Part, status: &str) {
    w.open();
    match part {
        Part::Call { id: call, name, arguments } => {
            let arguments = if arguments.is_empty() && status == "completed" { "{}" } else { arguments };
            w.field("type", "function_call").field("id", id).field("call_id", call);
            w.field("name", name).field("arguments", arguments).field("status", status);
        }
        Part::Thinking { text, seal } => {
            w.field("type", "reasoning").field("id", id).key("summary").open_list();
            if !text.is_empty() {
                w.open().field("type", "summary_text").field("text", text).close();
            }
            w.close_list();
            if let Some(seal) = seal {
                w.field("encrypted_content", seal);
            }
            w.field("status", status);
        }
        Part::Redacted(data) => {
            w.field("type", "reasoning").field("id", id).key("summary").open_list().close_list();
            w.field("encrypted_content", &format!("{REDACTED}{data}")).field("status", status);
        }
        said => {
            w.field("type", "message").field("id", id).field("role", "assistant").field("status", status);
            w.key("content").open_list();
            write_said(w, said);
            w.close_list();
        }
    }
    w.close();
}

/// A part of an answering message; nothing while it is empty text.
pub(crate) fn write_said(w: &mut Writer<'_>, said: &Part) {
    match said {
        Part::Text(text) => {
            w.open().field("type", "output_text").field("text", text);
            w.key("annotations").open_list().close_list().key("logprobs").open_list().close_list().close();
        }
        Part::Refusal(text) => {
            w.open().field("type", "refusal").field("refusal", text).close();
        }
        _ => {}
    }
}

/// The id of the item at `at` of an answer.
pub(crate) fn item_id(part: &Part, answer_id: &str, at: usize) -> String {
    let kind = match part {
        Part::Call { .. } => "fc",
        Part::Thinking { .. } | Part::Redacted(_) => "rs",
        _ => "msg",
    };
    format!("{kind}_{answer_id}_{at}")
}

/// A field as the request had it, as JSON text.
fn echo(context: &Context, name: &str, default: &'static str) -> String {
    let found = context.echo.iter().find(|(field, _)| *field == name);
    found.map_or_else(|| default.to_owned(), |(_, json)| json.clone())
}

/// Writes a response object in any state. Without a finish it is still in progress.
pub(crate) fn write_response(
    w: &mut Writer<'_>,
    context: &Context,
    items: &[Part],
    finish: Option<Finish>,
    used: Option<&Usage>,
) {
    let incomplete = match finish {
        Some(Finish::Length) => Some("max_output_tokens"),
        Some(Finish::Refusal) => Some("content_filter"),
        _ => None,
    };
    let status = match (finish, incomplete) {
        (None, _) => "in_progress",
        (_, Some(_)) => "incomplete",
        _ => "completed",
    };
    let echoed = |name: &str, default: &'static str| echo(context, name, default);
    w.open().field("id", &format!("resp_{}", context.id)).field("object", "response");
    w.key("created_at").count(context.created).field("status", status);
    w.key("background").flag(false).key("error").null().key("incomplete_details");
    match incomplete {
        Some(reason) => w.open().field("reason", reason).close(),
        None => w.null(),
    };
    for name in ["instructions", "max_output_tokens"] {
        w.carry(name, &echoed(name, "null"));
    }
    w.carry("metadata", &echoed("metadata", "{}")).field("model", &context.model).key("output").open_list();
    for (at, item) in items.iter().enumerate() {
        write_item(w, &item_id(item, &context.id, at), item, status);
    }
    w.close_list();
    w.carry("parallel_tool_calls", &echoed("parallel_tool_calls", "true")).key("previous_response_id").null();
    w.carry("reasoning", &echoed("reasoning", r#"{"effort":null,"summary":null}"#)).key("store").flag(false);
    w.carry("temperature", &echoed("temperature", "null"));
    w.carry("text", &echoed("text", r#"{"format":{"type":"text"}}"#));
    w.carry("tool_choice", &echoed("tool_choice", r#""auto""#)).carry("tools", &echoed("tools", "[]"));
    w.carry("top_p", &echoed("top_p", "null")).field("truncation", "disabled").key("usage");
    match used {
        Some(used) => usage::write_responses(w, used),
        None => {
            w.null();
        }
    }
    w.carry("user", &echoed("user", "null")).close();
}

/// Writes a whole answer.
pub(crate) fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    written(|w| {
        let used = answer.usage.as_ref();
        write_response(w, context, &answer.parts, Some(answer.finish), used);
    })
}
