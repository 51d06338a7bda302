//! OpenAI Chat Completions: whole answers.

use seawall_model::{Code, Fault, Protocol};

use super::chat::{read_said, write_said};
use super::talk::{Answer, Part, item_fault};
use super::{Context, garbled};
use crate::json::{self, Object, bad};
use crate::usage;
use crate::writer::written;

/// Reads a whole answer.
pub(crate) fn read_answer(body: &[u8], id: &str) -> Result<Answer, Fault> {
    let whole = Object::parse(body).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
    let choices = whole.list("choices").map_err(garbled)?.unwrap_or_default();
    let first = choices.first().ok_or_else(|| garbled(bad("choices", "is empty")))?;
    let choice = json::object(first).map_err(|_| garbled(item_fault("must be an object")))?;
    let message = choice.need_inner("message").map_err(garbled)?;
    let mut parts = read_said(&message).map_err(garbled)?;
    name_calls(&mut parts, id);
    let reason = choice.hint("finish_reason").unwrap_or_default();
    let usage = whole.find("usage").and_then(|raw| usage::read(Protocol::Chat, raw.get().as_bytes()));
    // vLLM and SGLang say which stop sequence was hit.
    let stopped_by = choice.hint("stop_reason").or_else(|| choice.hint("matched_stop"));
    Ok(Answer { parts, finish: usage::finish(reason.as_bytes()), stopped_by, usage }.settled())
}

/// Gives calls without an id one, so that their results can name them.
pub(crate) fn name_calls(parts: &mut [Part], answer_id: &str) {
    let mut at = 0;
    for part in parts {
        if let Part::Call { id, .. } = part {
            if id.is_empty() {
                *id = format!("call_{answer_id}_{at}");
            }
            at += 1;
        }
    }
}

/// Writes a whole answer.
pub(crate) fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    written(|w| {
        w.open().field("id", &format!("chatcmpl-{}", context.id)).field("object", "chat.completion");
        w.key("created").count(context.created).field("model", &context.model);
        w.key("choices").open_list().open().key("index").count(0).key("message").open();
        write_said(w, &answer.parts);
        w.close().key("logprobs").null();
        w.field("finish_reason", usage::finish_chat(answer.finish)).close().close_list();
        if let Some(used) = &answer.usage {
            w.key("usage");
            usage::write_chat(w, used);
        }
        w.close();
    })
}
