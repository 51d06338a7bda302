//! OpenAI Chat Completions, streamed; and Completions, which differ only in the shape
//! of a chunk.

use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::completions::{reason, write_choice, write_head};
use super::talk::{Delta, item_fault};
use super::{Context, engine_failed, garbled};
use crate::fault::engine_message;
use crate::json::{self, Object, bad};
use crate::sse::Event;
use crate::usage;
use crate::writer::{Writer, event};

/// Tool calls of one answer; more is garbage.
pub(crate) const CALLS_MAX: usize = 1_024;

/// Understands a Chat stream.
#[derive(Debug)]
pub(crate) struct Hear {
    answer_id: String,
    /// The engine's index of each call begun, in order of appearance.
    calls: Vec<u64>,
    finish: Option<(Finish, Option<String>)>,
}

impl Hear {
    pub(crate) fn new(answer_id: String) -> Self {
        Self { answer_id, calls: Vec::new(), finish: None }
    }

    /// Translates one event into steps.
    pub(crate) fn event(&mut self, event: Event<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        if event.data.starts_with(b"[DONE]") {
            steps.push(Delta::Done);
            return Ok(());
        }
        let chunk = Object::parse(event.data).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
        if chunk.find("error").is_some() {
            return Err(engine_failed(engine_message(event.data).as_deref()));
        }
        let choices = chunk.list("choices").map_err(garbled)?.unwrap_or_default();
        for raw in choices {
            let choice = json::object(raw).map_err(|_| garbled(item_fault("must be an object")))?;
            // Only one choice was asked for.
            if choice.count("index").map_err(garbled)?.unwrap_or(0) == 0 {
                self.choice(&choice, steps).map_err(garbled)?;
            }
        }
        if let Some(raw) = chunk.find("usage")
            && let Some(used) = usage::read(Protocol::Chat, raw.get().as_bytes())
        {
            steps.push(Delta::Usage(used));
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        if let Some(delta) = choice.inner("delta")? {
            let thought = delta.text("reasoning_content")?.or_else(|| delta.hint("reasoning"));
            for (text, make) in [
                (thought, Delta::Thinking as fn(String) -> Delta),
                (delta.text("content")?, Delta::Text),
                (delta.text("refusal")?, Delta::Refusal),
            ] {
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    steps.push(make(text));
                }
            }
            for raw in delta.list("tool_calls")?.unwrap_or_default() {
                self.call(&json::object(raw)?, steps)?;
            }
        }
        if let Some(reason) = choice.text("finish_reason")? {
            let mut finish = usage::finish(reason.as_bytes());
            if finish == Finish::Stop && !self.calls.is_empty() {
                finish = Finish::Tools;
            }
            let stopped_by = choice.hint("stop_reason").or_else(|| choice.hint("matched_stop"));
            self.finish = Some((finish, stopped_by.clone()));
            steps.push(Delta::Finish { finish, stopped_by });
        }
        Ok(())
    }

    fn call(&mut self, call: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let id = call.text("id")?.filter(|id| !id.is_empty());
        let next = self.calls.last().map_or(0, |last| last.saturating_add(1));
        // Servers that leave the index out begin a call with its id.
        let index = match call.count("index")? {
            Some(index) => index,
            None if id.is_some() || self.calls.is_empty() => next,
            None => next - 1,
        };
        let function = call.inner("function")?;
        let known = self.calls.iter().position(|known| *known == index);
        let at = match known {
            Some(at) => at,
            None if self.calls.len() == CALLS_MAX => return Err(bad("tool_calls", "are too many")),
            None => {
                let name = function.as_ref().map(|function| function.text("name")).transpose()?.flatten();
                let at = self.calls.len();
                self.calls.push(index);
                let id = id.unwrap_or_else(|| format!("call_{}_{at}", self.answer_id));
                steps.push(Delta::Call { at, id, name: name.unwrap_or_default() });
                at
            }
        };
        let arguments = match function.as_ref().and_then(|function| function.find("arguments")) {
            Some(raw) if raw.get().starts_with('{') => Some(raw.get().to_owned()),
            _ => function.map(|function| function.text("arguments")).transpose()?.flatten(),
        };
        if let Some(text) = arguments.filter(|text| !text.is_empty()) {
            steps.push(Delta::Arguments { at, text });
        }
        Ok(())
    }
}

/// Speaks a Chat (or Completions) stream.
#[derive(Debug)]
pub(crate) struct Speak {
    context: Context,
    /// Completions' chunks instead of Chat's.
    legacy: bool,
    /// The calls that have begun and had no arguments yet.
    bare_calls: Vec<usize>,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

impl Speak {
    pub(crate) fn new(context: Context, legacy: bool) -> Self {
        Self { context, legacy, bare_calls: Vec::new(), finish: None, usage: None }
    }

    pub(crate) fn put(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Start if self.legacy => {}
            Delta::Start => self.chunk(out, None, |w| {
                w.field("role", "assistant").field("content", "");
            }),
            Delta::Text(text) if self.legacy => self.text(text, out),
            Delta::Text(text) => self.chunk(out, None, |w| {
                w.field("content", text);
            }),
            Delta::Ping => out.extend_from_slice(b": ping\n\n"),
            Delta::Usage(more) => self.usage = Some(usage::join(self.usage, *more)),
            Delta::Finish { finish, .. } => self.finish = Some(*finish),
            Delta::Done => self.done(out),
            _ if self.legacy => {}
            Delta::Refusal(text) => self.chunk(out, None, |w| {
                w.field("refusal", text);
            }),
            Delta::Thinking(text) => self.chunk(out, None, |w| {
                w.field("reasoning_content", text);
            }),
            Delta::Call { at, id, name } => {
                self.bare_calls.push(*at);
                self.chunk(out, None, |w| {
                    w.key("tool_calls").open_list().open().key("index").count(*at as u64);
                    w.field("id", id).field("type", "function").key("function").open();
                    w.field("name", name).field("arguments", "").close().close().close_list();
                });
            }
            Delta::Arguments { at, text } => {
                self.bare_calls.retain(|bare| bare != at);
                self.arguments(*at, text, out);
            }
            // A seal has no place in this protocol, nor has a part's end.
            Delta::Seal(_) | Delta::Redacted(_) | Delta::Break => {}
        }
    }

    fn arguments(&self, at: usize, text: &str, out: &mut Vec<u8>) {
        self.chunk(out, None, |w| {
            w.key("tool_calls").open_list().open().key("index").count(at as u64);
            w.key("function").open().field("arguments", text).close().close().close_list();
        });
    }

    /// Calls without arguments are given an empty object: clients parse the text. Only
    /// at the end, for parallel calls may be filled in turns.
    fn end_calls(&mut self, out: &mut Vec<u8>) {
        for at in std::mem::take(&mut self.bare_calls) {
            self.arguments(at, "{}", out);
        }
    }

    fn chunk(&self, out: &mut Vec<u8>, reason: Option<&str>, delta: impl FnOnce(&mut Writer<'_>)) {
        event(out, None, |w| {
            self.head(w);
            w.open_list().open().key("index").count(0).key("delta").open();
            delta(w);
            w.close().key("logprobs").null().key("finish_reason").text_or_null(reason).close().close_list();
            if self.context.include_usage {
                w.key("usage").null();
            }
            w.close();
        });
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        event(out, None, |w| {
            write_choice(w, &self.context, text, None);
            w.close();
        });
    }

    fn head(&self, w: &mut Writer<'_>) {
        if self.legacy {
            return write_head(w, &self.context);
        }
        w.open()
            .field("id", &format!("chatcmpl-{}", self.context.id))
            .field("object", "chat.completion.chunk");
        w.key("created").count(self.context.created).field("model", &self.context.model).key("choices");
    }

    fn done(&mut self, out: &mut Vec<u8>) {
        self.end_calls(out);
        let finish = self.finish.unwrap_or(Finish::Stop);
        if self.legacy {
            event(out, None, |w| {
                write_choice(w, &self.context, "", Some(reason(finish)));
                w.close();
            });
        } else {
            self.chunk(out, Some(usage::finish_chat(finish)), |_| ());
        }
        // An engine that reported nothing is not made to report zero.
        if let Some(used) = self.usage.as_ref().filter(|_| self.context.include_usage) {
            event(out, None, |w| {
                self.head(w);
                w.open_list().close_list().key("usage");
                usage::write_chat(w, used);
                w.close();
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}
