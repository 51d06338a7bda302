//! OpenAI Responses, streamed: items one after another, each announced, filled part by
//! part, ended part by part, and all of them repeated in the last event. Because of that
//! last event the answer is kept, up to [`ANSWER_BYTES_MAX`].

use seawall_model::limits::ANSWER_BYTES_MAX;
use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::chat_stream::CALLS_MAX;
use super::responses_answer::{self, item_id, write_item, write_response, write_said};
use super::talk::{Delta, Part};
use super::{Context, engine_failed, garbled};
use crate::fault::engine_message;
use crate::json::{Object, bad};
use crate::scan::Walk;
use crate::sse::Event;
use crate::usage;
use crate::writer::{Writer, event};

/// Understands a Responses stream.
#[derive(Debug, Default)]
pub(crate) struct Hear {
    /// The engine's index of each call's item, and whether it had arguments yet.
    calls: Vec<(u64, bool)>,
}

impl Hear {
    /// Translates one event into steps.
    pub(crate) fn event(&mut self, event: Event<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        if event.data.starts_with(b"[DONE]") {
            return Ok(());
        }
        let body = Object::parse(event.data).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
        let kind = body.hint("type").or_else(|| event.event.map(str::to_owned)).unwrap_or_default();
        let text = || body.hint("delta").filter(|text| !text.is_empty());
        match kind.as_str() {
            "response.output_text.delta" => steps.extend(text().map(Delta::Text)),
            "response.refusal.delta" => steps.extend(text().map(Delta::Refusal)),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                steps.extend(text().map(Delta::Thinking));
            }
            "response.reasoning_summary_part.added" => {
                let index = body.count("summary_index").map_err(garbled)?.unwrap_or_default();
                steps.extend((index > 0).then(|| Delta::Thinking("\n\n".to_owned())));
            }
            "response.function_call_arguments.delta" => {
                let index = body.count("output_index").map_err(garbled)?.unwrap_or_default();
                if let (Some(at), Some(text)) = (self.find(index), text()) {
                    self.calls[at].1 = true;
                    steps.push(Delta::Arguments { at, text });
                }
            }
            "response.output_item.added" => self.added(&body, steps).map_err(garbled)?,
            "response.output_item.done" => self.done(&body, steps).map_err(garbled)?,
            "response.completed" | "response.incomplete" => {
                let response = body.need_inner("response").map_err(garbled)?;
                let used = response.find("usage");
                let used = used.and_then(|raw| usage::read(Protocol::Responses, raw.get().as_bytes()));
                steps.extend(used.map(Delta::Usage));
                let mut finish = responses_answer::finish(&response);
                if finish == Finish::Stop && !self.calls.is_empty() {
                    finish = Finish::Tools;
                }
                steps.push(Delta::Finish { finish, stopped_by: None });
                steps.push(Delta::Done);
            }
            "response.failed" => {
                let response = body.need_inner("response").map_err(garbled)?;
                return Err(responses_answer::failed(&response));
            }
            "error" => return Err(engine_failed(engine_message(event.data).as_deref())),
            _ => {}
        }
        Ok(())
    }

    fn find(&self, index: u64) -> Option<usize> {
        self.calls.iter().rposition(|(known, _)| *known == index)
    }

    fn added(&mut self, body: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let item = body.need_inner("item")?;
        if item.hint("type").as_deref() != Some("function_call") {
            return Ok(());
        }
        if self.calls.len() == CALLS_MAX {
            return Err(bad("item", "is one tool call too many"));
        }
        let at = self.calls.len();
        self.calls.push((body.count("output_index")?.unwrap_or_default(), false));
        steps.push(Delta::Call { at, id: item.need_text("call_id")?, name: item.need_text("name")? });
        Ok(())
    }

    fn done(&mut self, body: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let item = body.need_inner("item")?;
        match item.hint("type").as_deref() {
            Some("function_call") => {
                let index = body.count("output_index")?.unwrap_or_default();
                let at = self.find(index).filter(|at| !self.calls[*at].1);
                // Some servers send the arguments only whole.
                let whole = item.hint("arguments").filter(|text| !text.is_empty());
                if let (Some(at), Some(text)) = (at, whole) {
                    self.calls[at].1 = true;
                    steps.push(Delta::Arguments { at, text });
                }
            }
            Some("reasoning") => steps.extend(item.hint("encrypted_content").map(Delta::Seal)),
            _ => {}
        }
        steps.push(Delta::Break);
        Ok(())
    }
}

/// Speaks a Responses stream.
#[derive(Debug)]
pub(crate) struct Speak {
    context: Context,
    sequence: u64,
    /// The answer so far.
    items: Vec<Part>,
    /// Is the last item open? Of calls, see below.
    open: bool,
    /// The items of calls that are open (parallel ones may be filled in turns), and how
    /// far their arguments are.
    open_calls: Vec<(usize, Walk)>,
    /// The item of each call.
    calls: Vec<usize>,
    bytes: u64,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

impl Speak {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            sequence: 0,
            items: Vec::new(),
            open: false,
            open_calls: Vec::new(),
            calls: Vec::new(),
            bytes: 0,
            finish: None,
            usage: None,
        }
    }

    pub(crate) fn put(&mut self, delta: &Delta, out: &mut Vec<u8>) -> Result<(), Fault> {
        match delta {
            Delta::Start => {
                for name in ["response.created", "response.in_progress"] {
                    self.event(out, name, |w, speak| {
                        w.key("response");
                        write_response(w, &speak.context, &[], None, None);
                    });
                }
            }
            Delta::Text(text) => self.say(text, Part::Text(String::new()), out)?,
            Delta::Refusal(text) => self.say(text, Part::Refusal(String::new()), out)?,
            Delta::Thinking(text) => self.think(text, out)?,
            Delta::Seal(seal) => {
                self.charge(seal.len())?;
                if !self.is_open(|part| matches!(part, Part::Thinking { .. })) {
                    self.begin(Part::Thinking { text: String::new(), seal: None }, out)?;
                }
                if let Some(Part::Thinking { seal: kept, .. }) = self.items.last_mut() {
                    *kept = Some(seal.clone());
                }
                self.close(out);
            }
            Delta::Redacted(data) => {
                self.charge(data.len())?;
                self.begin(Part::Redacted(data.clone()), out)?;
                self.close(out);
            }
            Delta::Call { id, name, .. } => {
                self.charge(id.len() + name.len())?;
                self.begin(Part::Call { id: id.clone(), name: name.clone(), arguments: String::new() }, out)?;
                self.calls.push(self.items.len() - 1);
            }
            Delta::Arguments { at, text } => self.arguments(*at, text, out)?,
            Delta::Break => {
                self.close(out);
                // Of several open calls it is not known whose end this is.
                let one = self.open_calls.len() == 1;
                self.close_calls(one, out);
            }
            Delta::Usage(more) => self.usage = Some(usage::join(self.usage, *more)),
            Delta::Finish { finish, .. } => self.finish = Some(*finish),
            Delta::Ping => out.extend_from_slice(b": ping\n\n"),
            Delta::Done => self.done(out),
        }
        Ok(())
    }

    /// An event with the fields every event has.
    fn event(&mut self, out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Writer<'_>, &Self)) {
        event(out, Some(name), |w| {
            w.open().field("type", name).key("sequence_number").count(self.sequence);
            write(w, self);
            w.close();
        });
        self.sequence += 1;
    }

    /// An event about the item at `at`.
    fn item_event(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        at: usize,
        write: impl FnOnce(&mut Writer<'_>, &Part),
    ) {
        self.event(out, name, |w, speak| {
            let item = &speak.items[at];
            w.field("item_id", &item_id(item, &speak.context.id, at)).key("output_index").count(at as u64);
            write(w, item);
        });
    }

    /// Bytes kept of the answer.
    pub(crate) fn kept(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > ANSWER_BYTES_MAX { Err(Fault::plain(Code::AnswerTooLarge)) } else { Ok(()) }
    }

    fn is_open(&self, kind: impl FnOnce(&Part) -> bool) -> bool {
        self.open && self.items.last().is_some_and(kind)
    }

    /// Announces a new item, ending the one before.
    fn begin(&mut self, item: Part, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.close(out);
        self.close_calls(false, out);
        // What one item costs beside its text, so that endless empty ones end too.
        self.charge(128)?;
        let at = self.items.len();
        match item {
            Part::Call { .. } => self.open_calls.push((at, Walk::new())),
            _ => self.open = true,
        }
        self.items.push(item);
        self.event(out, "response.output_item.added", |w, speak| {
            w.key("output_index").count(at as u64).key("item");
            let item = &speak.items[at];
            let id = item_id(item, &speak.context.id, at);
            if matches!(item, Part::Text(_) | Part::Refusal(_)) {
                // Announced without content: that comes with the events that follow.
                w.open().field("type", "message").field("id", &id).field("role", "assistant");
                w.field("status", "in_progress").key("content").open_list().close_list().close();
            } else {
                write_item(w, &id, item, "in_progress");
            }
        });
        if matches!(self.items[at], Part::Text(_) | Part::Refusal(_)) {
            self.item_event(out, "response.content_part.added", at, |w, item| {
                w.key("content_index").count(0).key("part");
                write_said(w, item);
            });
        }
        Ok(())
    }

    fn say(&mut self, text: &str, kind: Part, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.charge(text.len())?;
        let same = std::mem::discriminant(&kind);
        if !self.is_open(|part| std::mem::discriminant(part) == same) {
            self.begin(kind, out)?;
        }
        let at = self.items.len() - 1;
        let refusal = match &mut self.items[at] {
            Part::Text(whole) => {
                whole.push_str(text);
                false
            }
            Part::Refusal(whole) => {
                whole.push_str(text);
                true
            }
            _ => return Ok(()),
        };
        let name = if refusal { "response.refusal.delta" } else { "response.output_text.delta" };
        self.item_event(out, name, at, |w, _| {
            w.key("content_index").count(0).field("delta", text);
            if !refusal {
                w.key("logprobs").open_list().close_list();
            }
        });
        Ok(())
    }

    fn think(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.charge(text.len())?;
        if !self.is_open(|part| matches!(part, Part::Thinking { .. })) {
            self.begin(Part::Thinking { text: String::new(), seal: None }, out)?;
        }
        let at = self.items.len() - 1;
        let Part::Thinking { text: whole, .. } = &mut self.items[at] else {
            return Ok(());
        };
        let first = whole.is_empty();
        whole.push_str(text);
        if first {
            self.item_event(out, "response.reasoning_summary_part.added", at, |w, _| {
                summary_part(w, "");
            });
        }
        self.item_event(out, "response.reasoning_summary_text.delta", at, |w, _| {
            w.key("summary_index").count(0).field("delta", text);
        });
        Ok(())
    }

    fn arguments(&mut self, call: usize, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.charge(text.len())?;
        // What comes after a call's end can only be blanks, or would break it.
        let at = self.calls.get(call).copied();
        let Some((at, walk)) = self.open_calls.iter_mut().find(|(open, _)| Some(*open) == at) else {
            return Ok(());
        };
        walk.feed(text.as_bytes(), &mut |_, _| ());
        let at = *at;
        if let Part::Call { arguments, .. } = &mut self.items[at] {
            arguments.push_str(text);
        }
        self.item_event(out, "response.function_call_arguments.delta", at, |w, _| {
            w.field("delta", text);
        });
        Ok(())
    }

    /// Ends the open item that is no call.
    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.open) {
            self.end(self.items.len() - 1, out);
        }
    }

    /// Ends the open calls: all, or those whose arguments are whole.
    fn close_calls(&mut self, all: bool, out: &mut Vec<u8>) {
        for (at, walk) in std::mem::take(&mut self.open_calls) {
            if all || walk.ended() {
                self.end(at, out);
            } else {
                self.open_calls.push((at, walk));
            }
        }
    }

    /// Ends the item at `at`.
    fn end(&mut self, at: usize, out: &mut Vec<u8>) {
        if let Part::Call { arguments, .. } = &mut self.items[at]
            && arguments.is_empty()
        {
            arguments.push_str("{}");
        }
        match self.items[at].clone() {
            Part::Text(text) => {
                self.item_event(out, "response.output_text.done", at, |w, _| {
                    w.key("content_index").count(0).field("text", &text);
                    w.key("logprobs").open_list().close_list();
                });
            }
            Part::Refusal(text) => {
                self.item_event(out, "response.refusal.done", at, |w, _| {
                    w.key("content_index").count(0).field("refusal", &text);
                });
            }
            Part::Thinking { text, .. } if !text.is_empty() => {
                self.item_event(out, "response.reasoning_summary_text.done", at, |w, _| {
                    w.key("summary_index").count(0).field("text", &text);
                });
                self.item_event(out, "response.reasoning_summary_part.done", at, |w, _| {
                    summary_part(w, &text);
                });
            }
            Part::Call { name, arguments, .. } => {
                self.item_event(out, "response.function_call_arguments.done", at, |w, _| {
                    w.field("name", &name).field("arguments", &arguments);
                });
            }
            _ => {}
        }
        if matches!(self.items[at], Part::Text(_) | Part::Refusal(_)) {
            self.item_event(out, "response.content_part.done", at, |w, item| {
                w.key("content_index").count(0).key("part");
                write_said(w, item);
            });
        }
        self.event(out, "response.output_item.done", |w, speak| {
            w.key("output_index").count(at as u64).key("item");
            write_item(w, &item_id(&speak.items[at], &speak.context.id, at), &speak.items[at], "completed");
        });
    }

    fn done(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.close_calls(true, out);
        let finish = self.finish.unwrap_or(Finish::Stop);
        let cut = matches!(finish, Finish::Length | Finish::Refusal);
        let name = if cut { "response.incomplete" } else { "response.completed" };
        self.event(out, name, |w, speak| {
            w.key("response");
            write_response(w, &speak.context, &speak.items, Some(finish), speak.usage.as_ref());
        });
    }
}

fn summary_part(w: &mut Writer<'_>, text: &str) {
    w.key("summary_index").count(0).key("part").open();
    w.field("type", "summary_text").field("text", text).close();
}
