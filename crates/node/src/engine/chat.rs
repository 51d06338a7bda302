//! OpenAI's chat completions.

use seawall_load::rng::mix;
use seawall_model::Usage;

use super::call::{Mark, push_stamp, push_usage};
use super::flow::Token;
use super::json::{id, number, raw};
use super::speech::{Block, Speech};

/// Speaks one answer.
#[derive(Debug)]
pub(super) struct Voice {
    mark: Mark,
    /// All of a chunk up to the number of its choice: the same for every token.
    head: Vec<u8>,
    stream_usage: bool,
    choices: u32,
    /// The block that each choice is in; `None` before its role is sent.
    within: Vec<Option<usize>>,
}

impl Voice {
    pub(super) fn new(mark: Mark, choices: u32, stream_usage: bool) -> Self {
        let mut head = b"data: ".to_vec();
        push_head(&mut head, &mark, "chat.completion.chunk");
        raw(&mut head, "[{\"index\":");
        Self { mark, head, stream_usage, choices, within: vec![None; choices as usize] }
    }

    /// Begins a chunk, up to its delta.
    fn chunk(&self, out: &mut Vec<u8>, choice: u32) {
        out.extend_from_slice(&self.head);
        number(out, u64::from(choice));
    }

    fn role(&mut self, out: &mut Vec<u8>, choice: u32) {
        self.chunk(out, choice);
        raw(
            out,
            ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        );
        self.within[choice as usize] = Some(usize::MAX);
    }

    pub(super) fn token(&mut self, out: &mut Vec<u8>, token: &Token<'_>) {
        let (speech, choice) = (token.speech, token.choice);
        if self.within[choice as usize].is_none() {
            self.role(out, choice);
        }
        let block = speech.block(token.index);
        if let Block::Call { name, .. } = &speech.blocks[block] {
            if self.within[choice as usize] != Some(block) {
                self.chunk(out, choice);
                raw(out, ",\"delta\":{\"tool_calls\":[{\"index\":");
                number(out, block as u64);
                push_call(out, &self.mark, choice, block, name);
                raw(out, "\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
            }
            self.chunk(out, choice);
            raw(out, ",\"delta\":{\"tool_calls\":[{\"index\":");
            number(out, block as u64);
            raw(out, ",\"function\":{\"arguments\":\"");
            speech.push(out, choice, token.index);
            raw(out, "\"}}]},\"logprobs\":null,\"finish_reason\":null}]");
        } else {
            self.chunk(out, choice);
            raw(out, ",\"delta\":{\"content\":\"");
            speech.push(out, choice, token.index);
            raw(out, "\"},\"logprobs\":null,\"finish_reason\":null}]");
        }
        self.within[choice as usize] = Some(block);
        push_stamp(out, token.at.0, token.index);
        raw(out, "}\n\n");
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, speech: &Speech, usage: Usage) {
        for choice in 0..self.choices {
            if self.within[choice as usize].is_none() {
                self.role(out, choice);
            }
            self.chunk(out, choice);
            raw(out, ",\"delta\":{},\"logprobs\":null,\"finish_reason\":\"");
            raw(out, speech.finish.as_str());
            raw(out, "\"}]}\n\n");
        }
        if self.stream_usage {
            raw(out, "data: ");
            push_head(out, &self.mark, "chat.completion.chunk");
            raw(out, "[],\"usage\":");
            push_usage(out, usage);
            raw(out, "}\n\n");
        }
        raw(out, "data: [DONE]\n\n");
    }

    pub(super) fn whole(&self, speech: &Speech, usage: Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + 8 * speech.len() as usize * self.choices as usize);
        push_head(&mut out, &self.mark, "chat.completion");
        out.push(b'[');
        for choice in 0..self.choices {
            raw(&mut out, if choice == 0 { "{\"index\":" } else { ",{\"index\":" });
            number(&mut out, u64::from(choice));
            raw(&mut out, ",\"message\":{\"role\":\"assistant\",\"content\":");
            self.message(&mut out, speech, choice);
            raw(&mut out, ",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"");
            raw(&mut out, speech.finish.as_str());
            raw(&mut out, "\"}");
        }
        raw(&mut out, "],\"usage\":");
        push_usage(&mut out, usage);
        out.push(b'}');
        out
    }

    /// The content of a message and, where there are, its tool calls.
    fn message(&self, out: &mut Vec<u8>, speech: &Speech, choice: u32) {
        if speech.blocks == [Block::Text] {
            out.push(b'"');
            speech.push_block(out, choice, 0);
            out.push(b'"');
            return;
        }
        raw(out, "null,\"tool_calls\":[");
        for (at, block) in speech.blocks.iter().enumerate() {
            let Block::Call { name, .. } = block else { continue };
            raw(out, if at == 0 { "{\"index\":" } else { ",{\"index\":" });
            number(out, at as u64);
            push_call(out, &self.mark, choice, at, name);
            speech.push_block(out, choice, at);
            raw(out, "\"}}");
        }
        out.push(b']');
    }
}

/// Appends an answer's head, up to the value of `choices`.
pub(super) fn push_head(out: &mut Vec<u8>, mark: &Mark, object: &str) {
    let prefix = if object == "text_completion" { "cmpl-" } else { "chatcmpl-" };
    raw(out, "{\"id\":\"");
    raw(out, &id(prefix, mark.call));
    raw(out, "\",\"object\":\"");
    raw(out, object);
    raw(out, "\",\"created\":");
    number(out, mark.created);
    raw(out, ",\"model\":");
    raw(out, &mark.model);
    raw(out, ",\"system_fingerprint\":\"fp_sim\",\"choices\":");
}

/// Appends a tool call after its index, up to the text of its arguments.
fn push_call(out: &mut Vec<u8>, mark: &Mark, choice: u32, block: usize, name: &str) {
    raw(out, ",\"id\":\"");
    raw(out, &call_id("call_", mark, choice, block));
    raw(out, "\",\"type\":\"function\",\"function\":{\"name\":");
    super::json::string(out, name);
    raw(out, ",\"arguments\":\"");
}

/// The id of a tool call, unique within and between answers.
pub(super) fn call_id(prefix: &str, mark: &Mark, choice: u32, block: usize) -> String {
    id(prefix, mix(mark.call) ^ (u64::from(choice) << 32) ^ block as u64)
}
