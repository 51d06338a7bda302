//! Anthropic Messages, streamed: blocks one after another, each begun, filled and
//! ended, inside one message.

use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::chat_stream::CALLS_MAX;
use super::messages::stop_reason;
use super::talk::Delta;
use super::{Context, engine_failed, garbled};
use crate::fault::engine_message;
use crate::json::{Object, bad};
use crate::scan::Walk;
use crate::sse::Event;
use crate::usage;
use crate::writer::{Writer, event};

/// Understands a Messages stream.
#[derive(Debug, Default)]
pub(crate) struct Hear {
    /// The engine's index of each tool block, in order of appearance.
    calls: Vec<u64>,
}

impl Hear {
    /// Translates one event into steps.
    pub(crate) fn event(&mut self, event: Event<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let body = Object::parse(event.data).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
        let kind = body.hint("type").or_else(|| event.event.map(str::to_owned)).unwrap_or_default();
        match kind.as_str() {
            "message_start" => {
                let message = body.need_inner("message").map_err(garbled)?;
                read_usage(&message, steps);
            }
            "content_block_start" => self.begin(&body, steps).map_err(garbled)?,
            "content_block_delta" => self.more(&body, steps).map_err(garbled)?,
            "content_block_stop" => steps.push(Delta::Break),
            "message_delta" => {
                read_usage(&body, steps);
                let delta = body.need_inner("delta").map_err(garbled)?;
                if let Some(reason) = delta.text("stop_reason").map_err(garbled)? {
                    let stopped_by = delta.hint("stop_sequence");
                    steps.push(Delta::Finish { finish: usage::finish(reason.as_bytes()), stopped_by });
                }
            }
            "message_stop" => steps.push(Delta::Done),
            "ping" => steps.push(Delta::Ping),
            "error" => return Err(engine_failed(engine_message(event.data).as_deref())),
            // New kinds of events may come at any time, says the protocol.
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, body: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let index = body.count("index")?.unwrap_or_default();
        let block = body.need_inner("content_block")?;
        let begun = |name: &str| block.hint(name).filter(|text| !text.is_empty());
        match block.need_text("type")?.as_str() {
            "text" => steps.extend(begun("text").map(Delta::Text)),
            "thinking" => steps.extend(begun("thinking").map(Delta::Thinking)),
            "redacted_thinking" => steps.push(Delta::Redacted(block.need_text("data")?)),
            "tool_use" => {
                if self.calls.len() == CALLS_MAX {
                    return Err(bad("content_block", "is one tool call too many"));
                }
                let at = self.calls.len();
                self.calls.push(index);
                steps.push(Delta::Call { at, id: block.need_text("id")?, name: block.need_text("name")? });
                // Some servers send the whole input at once.
                let input = block.find("input").map(|raw| raw.get()).filter(|input| input.len() > 2);
                steps.extend(input.map(|input| Delta::Arguments { at, text: input.to_owned() }));
            }
            _ => {}
        }
        Ok(())
    }

    fn more(&self, body: &Object<'_>, steps: &mut Vec<Delta>) -> Result<(), Fault> {
        let delta = body.need_inner("delta")?;
        let filled = |text: String| (!text.is_empty()).then_some(text);
        match delta.need_text("type")?.as_str() {
            "text_delta" => steps.extend(filled(delta.need_text("text")?).map(Delta::Text)),
            "thinking_delta" => steps.extend(filled(delta.need_text("thinking")?).map(Delta::Thinking)),
            "signature_delta" => steps.extend(filled(delta.need_text("signature")?).map(Delta::Seal)),
            "input_json_delta" => {
                let index = body.count("index")?.unwrap_or_default();
                let text = filled(delta.need_text("partial_json")?);
                if let Some(at) = self.calls.iter().rposition(|known| *known == index) {
                    steps.extend(text.map(|text| Delta::Arguments { at, text }));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn read_usage(from: &Object<'_>, steps: &mut Vec<Delta>) {
    let used = from.find("usage").and_then(|raw| usage::read(Protocol::Messages, raw.get().as_bytes()));
    steps.extend(used.map(Delta::Usage));
}

/// The block that is open, where it is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
}

/// Speaks a Messages stream.
#[derive(Debug)]
pub(crate) struct Speak {
    context: Context,
    open: Option<Block>,
    /// Blocks begun so far.
    blocks: u64,
    /// The block of each call.
    calls: Vec<u64>,
    /// The blocks of calls that are open (parallel ones may be filled in turns), and how
    /// far their arguments are.
    open_calls: Vec<(u64, Walk)>,
    begun: bool,
    finish: Option<(Finish, Option<String>)>,
    usage: Option<Usage>,
}

impl Speak {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            open: None,
            blocks: 0,
            calls: Vec::new(),
            open_calls: Vec::new(),
            begun: false,
            finish: None,
            usage: None,
        }
    }

    pub(crate) fn put(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            // Waits one step, for the usage that an engine may report at its start.
            Delta::Start => return,
            Delta::Usage(more) => {
                self.usage = Some(usage::join(self.usage, *more));
                return;
            }
            _ => self.begin(out),
        }
        match delta {
            Delta::Text(text) | Delta::Refusal(text) => {
                self.block(Block::Text, out, |w| {
                    w.field("type", "text").field("text", "");
                });
                self.more(self.blocks - 1, out, |w| {
                    w.field("type", "text_delta").field("text", text);
                });
            }
            Delta::Thinking(text) => {
                self.think(out);
                self.more(self.blocks - 1, out, |w| {
                    w.field("type", "thinking_delta").field("thinking", text);
                });
            }
            Delta::Seal(seal) => {
                self.think(out);
                self.more(self.blocks - 1, out, |w| {
                    w.field("type", "signature_delta").field("signature", seal);
                });
                self.close(out);
            }
            Delta::Redacted(data) => {
                self.close(out);
                self.start(out, |w| {
                    w.field("type", "redacted_thinking").field("data", data);
                });
                self.stop(self.blocks - 1, out);
            }
            Delta::Call { id, name, .. } => {
                self.close(out);
                self.start(out, |w| {
                    w.field("type", "tool_use").field("id", id).field("name", name);
                    w.key("input").open().close();
                });
                self.calls.push(self.blocks - 1);
                self.open_calls.push((self.blocks - 1, Walk::new()));
            }
            Delta::Arguments { at, text } => self.arguments(*at, text, out),
            Delta::Break => {
                self.close(out);
                // Of several open calls it is not known whose end this is.
                let one = self.open_calls.len() == 1;
                self.close_calls(one, out);
            }
            Delta::Finish { finish, stopped_by } => self.finish = Some((*finish, stopped_by.clone())),
            Delta::Ping => event(out, Some("ping"), |w| {
                w.open().field("type", "ping").close();
            }),
            Delta::Done => self.done(out),
            Delta::Start | Delta::Usage(_) => {}
        }
    }

    /// The message's beginning, once.
    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        event(out, Some("message_start"), |w| {
            w.open().field("type", "message_start").key("message").open();
            w.field("id", &format!("msg_{}", self.context.id))
                .field("type", "message")
                .field("role", "assistant");
            w.field("model", &self.context.model).key("content").open_list().close_list();
            w.key("stop_reason").null().key("stop_sequence").null().key("usage");
            usage::write_messages(w, &self.usage.unwrap_or_default());
            w.close().close();
        });
    }

    /// Makes sure a block of this kind is open.
    fn block(&mut self, kind: Block, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
        if self.open != Some(kind) {
            self.close(out);
            self.open = Some(kind);
            self.start(out, write);
        }
    }

    fn think(&mut self, out: &mut Vec<u8>) {
        self.block(Block::Thinking, out, |w| {
            w.field("type", "thinking").field("thinking", "").field("signature", "");
        });
    }

    fn arguments(&mut self, call: usize, text: &str, out: &mut Vec<u8>) {
        // What comes after a call's end can only be blanks, or would break it.
        let block = self.calls.get(call).copied();
        let Some((block, walk)) = self.open_calls.iter_mut().find(|(open, _)| Some(*open) == block) else {
            return;
        };
        walk.feed(text.as_bytes(), &mut |_, _| ());
        let block = *block;
        self.more(block, out, |w| {
            w.field("type", "input_json_delta").field("partial_json", text);
        });
    }

    fn start(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
        self.close_calls(false, out);
        event(out, Some("content_block_start"), |w| {
            w.open().field("type", "content_block_start").key("index").count(self.blocks);
            w.key("content_block").open();
            write(w);
            w.close().close();
        });
        self.blocks += 1;
    }

    fn more(&self, index: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
        event(out, Some("content_block_delta"), |w| {
            w.open().field("type", "content_block_delta").key("index").count(index).key("delta").open();
            write(w);
            w.close().close();
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            self.stop(self.blocks - 1, out);
        }
    }

    /// Ends the open calls: all, or those whose arguments are whole.
    fn close_calls(&mut self, all: bool, out: &mut Vec<u8>) {
        for (block, walk) in std::mem::take(&mut self.open_calls) {
            if all || walk.ended() {
                self.stop(block, out);
            } else {
                self.open_calls.push((block, walk));
            }
        }
    }

    fn stop(&self, index: u64, out: &mut Vec<u8>) {
        event(out, Some("content_block_stop"), |w| {
            w.open().field("type", "content_block_stop").key("index").count(index).close();
        });
    }

    fn done(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        self.close_calls(true, out);
        let (finish, stopped_by) = self.finish.take().unwrap_or((Finish::Stop, None));
        event(out, Some("message_delta"), |w| {
            w.open().field("type", "message_delta").key("delta").open();
            w.field("stop_reason", stop_reason(finish, stopped_by.as_deref()));
            w.key("stop_sequence").text_or_null(stopped_by.as_deref()).close().key("usage");
            usage::write_messages(w, &self.usage.unwrap_or_default());
            w.close();
        });
        event(out, Some("message_stop"), |w| {
            w.open().field("type", "message_stop").close();
        });
    }
}
