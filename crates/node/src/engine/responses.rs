//! OpenAI's responses.

use seawall_model::{Finish, Usage};

use super::call::{Mark, push_stamp};
use super::chat::call_id;
use super::flow::Token;
use super::json::{id, number, raw, string};
use super::speech::{Block, Speech};

/// Speaks one answer.
#[derive(Debug)]
pub(super) struct Voice {
    mark: Mark,
    /// Number of the next event.
    sequence: u64,
    within: Option<usize>,
}

impl Voice {
    pub(super) const fn new(mark: Mark) -> Self {
        Self { mark, sequence: 0, within: None }
    }

    /// Begins an event, up to its own fields.
    fn event(&mut self, out: &mut Vec<u8>, name: &str) {
        raw(out, "event: ");
        raw(out, name);
        raw(out, "\ndata: {\"type\":\"");
        raw(out, name);
        raw(out, "\",\"sequence_number\":");
        number(out, self.sequence);
        self.sequence += 1;
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        for name in ["response.created", "response.in_progress"] {
            self.event(out, name);
            raw(out, ",\"response\":");
            self.object(out, "in_progress", None);
            raw(out, "}\n\n");
        }
    }

    /// An event about the item of a block; its own fields follow.
    fn about(&mut self, out: &mut Vec<u8>, name: &str, speech: &Speech, block: usize) {
        self.event(out, name);
        raw(out, ",\"item_id\":\"");
        raw(out, &self.item_id(speech, block));
        raw(out, "\",\"output_index\":");
        number(out, block as u64);
    }

    fn item_id(&self, speech: &Speech, block: usize) -> String {
        let prefix = if speech.blocks[block] == Block::Text { "msg_" } else { "fc_" };
        call_id(prefix, &self.mark, 1, block)
    }

    fn open(&mut self, out: &mut Vec<u8>, speech: &Speech, block: usize) {
        self.within = Some(block);
        self.event(out, "response.output_item.added");
        raw(out, ",\"output_index\":");
        number(out, block as u64);
        raw(out, ",\"item\":");
        self.item(out, speech, block, false);
        raw(out, "}\n\n");
        if speech.blocks[block] == Block::Text {
            self.about(out, "response.content_part.added", speech, block);
            raw(
                out,
                ",\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\n",
            );
        }
    }

    fn shut(&mut self, out: &mut Vec<u8>, speech: &Speech, block: usize) {
        if let Block::Call { name, .. } = &speech.blocks[block] {
            self.about(out, "response.function_call_arguments.done", speech, block);
            raw(out, ",\"name\":");
            string(out, name);
            raw(out, ",\"arguments\":\"");
            speech.push_block(out, 0, block);
            raw(out, "\"}\n\n");
        } else {
            self.about(out, "response.output_text.done", speech, block);
            raw(out, ",\"content_index\":0,\"logprobs\":[],\"text\":\"");
            speech.push_block(out, 0, block);
            raw(out, "\"}\n\n");
            self.about(out, "response.content_part.done", speech, block);
            raw(out, ",\"content_index\":0,\"part\":");
            part(out, speech, block);
            raw(out, "}\n\n");
        }
        self.event(out, "response.output_item.done");
        raw(out, ",\"output_index\":");
        number(out, block as u64);
        raw(out, ",\"item\":");
        self.item(out, speech, block, true);
        raw(out, "}\n\n");
    }

    pub(super) fn token(&mut self, out: &mut Vec<u8>, token: &Token<'_>) {
        let speech = token.speech;
        if self.sequence == 0 {
            self.start(out);
        }
        let block = speech.block(token.index);
        if self.within != Some(block) {
            if let Some(before) = self.within {
                self.shut(out, speech, before);
            }
            self.open(out, speech, block);
        }
        if speech.blocks[block] == Block::Text {
            self.about(out, "response.output_text.delta", speech, block);
            raw(out, ",\"content_index\":0,\"logprobs\":[],\"delta\":\"");
        } else {
            self.about(out, "response.function_call_arguments.delta", speech, block);
            raw(out, ",\"delta\":\"");
        }
        speech.push(out, 0, token.index);
        out.push(b'"');
        push_stamp(out, token.at.0, token.index);
        raw(out, "}\n\n");
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, speech: &Speech, usage: Usage) {
        if self.sequence == 0 {
            self.start(out);
            self.open(out, speech, 0);
        }
        if let Some(block) = self.within {
            self.shut(out, speech, block);
        }
        let status = status(speech);
        self.event(out, if status == "completed" { "response.completed" } else { "response.incomplete" });
        raw(out, ",\"response\":");
        self.object(out, status, Some((speech, usage)));
        raw(out, "}\n\n");
    }

    pub(super) fn whole(&self, speech: &Speech, usage: Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_024 + 8 * speech.len() as usize);
        self.object(&mut out, status(speech), Some((speech, usage)));
        out
    }

    /// The response object, with its output once there is one.
    fn object(&self, out: &mut Vec<u8>, status: &str, said: Option<(&Speech, Usage)>) {
        raw(out, "{\"id\":\"");
        raw(out, &id("resp_", self.mark.call));
        raw(out, "\",\"object\":\"response\",\"created_at\":");
        number(out, self.mark.created);
        raw(out, ",\"status\":\"");
        raw(out, status);
        raw(out, "\",\"background\":false,\"error\":null,\"incomplete_details\":");
        raw(out, if status == "incomplete" { "{\"reason\":\"max_output_tokens\"}" } else { "null" });
        raw(out, ",\"instructions\":null,\"max_output_tokens\":null,\"model\":");
        raw(out, &self.mark.model);
        raw(out, ",\"output\":[");
        if let Some((speech, _)) = said {
            for block in 0..speech.blocks.len() {
                if block > 0 {
                    out.push(b',');
                }
                self.item(out, speech, block, true);
            }
        }
        raw(
            out,
            "],\"parallel_tool_calls\":true,\"previous_response_id\":null,\"reasoning\":{\"effort\":null,\
             \"summary\":null},\"store\":false,\"temperature\":1.0,\"text\":{\"format\":{\"type\":\"text\"}},\
             \"tool_choice\":\"auto\",\"tools\":[],\"top_p\":1.0,\"truncation\":\"disabled\",\"usage\":",
        );
        match said {
            Some((_, usage)) => push_usage(out, usage),
            None => raw(out, "null"),
        }
        raw(out, ",\"user\":null,\"metadata\":{}}");
    }

    fn item(&self, out: &mut Vec<u8>, speech: &Speech, block: usize, done: bool) {
        raw(out, "{\"id\":\"");
        raw(out, &self.item_id(speech, block));
        let status = if !done { "in_progress" } else { status(speech) };
        raw(out, "\",\"status\":\"");
        raw(out, status);
        if let Block::Call { name, .. } = &speech.blocks[block] {
            raw(out, "\",\"type\":\"function_call\",\"call_id\":\"");
            raw(out, &call_id("call_", &self.mark, 0, block));
            raw(out, "\",\"name\":");
            string(out, name);
            raw(out, ",\"arguments\":\"");
            if done {
                speech.push_block(out, 0, block);
            }
            raw(out, "\"}");
        } else {
            raw(out, "\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[");
            if done {
                part(out, speech, block);
            }
            raw(out, "]}");
        }
    }
}

fn part(out: &mut Vec<u8>, speech: &Speech, block: usize) {
    raw(out, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"");
    speech.push_block(out, 0, block);
    raw(out, "\"}");
}

fn status(speech: &Speech) -> &'static str {
    if speech.finish == Finish::Length { "incomplete" } else { "completed" }
}

fn push_usage(out: &mut Vec<u8>, usage: Usage) {
    let parts = [
        ("{\"input_tokens\":", usage.input),
        (",\"input_tokens_details\":{\"cached_tokens\":", usage.cached),
        ("},\"output_tokens\":", usage.output),
        (",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning),
        ("},\"total_tokens\":", usage.total()),
    ];
    for (name, tokens) in parts {
        raw(out, name);
        number(out, tokens.0);
    }
    out.push(b'}');
}
