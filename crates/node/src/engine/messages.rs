//! Anthropic's messages.

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
    started: bool,
    within: Option<usize>,
}

impl Voice {
    pub(super) const fn new(mark: Mark) -> Self {
        Self { mark, started: false, within: None }
    }

    fn start(&mut self, out: &mut Vec<u8>, usage: Usage) {
        self.started = true;
        raw(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{");
        self.head(out);
        raw(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
        push_usage(out, usage, 1);
        raw(out, "}}\n\n");
    }

    /// The fields that a message begins with.
    fn head(&self, out: &mut Vec<u8>) {
        raw(out, "\"id\":\"");
        raw(out, &id("msg_", self.mark.call));
        raw(out, "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        raw(out, &self.mark.model);
    }

    fn open(&mut self, out: &mut Vec<u8>, speech: &Speech, block: usize) {
        raw(out, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":");
        number(out, block as u64);
        raw(out, ",\"content_block\":");
        match &speech.blocks[block] {
            Block::Text => raw(out, "{\"type\":\"text\",\"text\":\"\"}"),
            Block::Call { name, .. } => self.call(out, block, name, "{}"),
        }
        raw(out, "}\n\n");
        if self.within.is_none() {
            raw(out, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
        }
        self.within = Some(block);
    }

    fn call(&self, out: &mut Vec<u8>, block: usize, name: &str, input: &str) {
        raw(out, "{\"type\":\"tool_use\",\"id\":\"");
        raw(out, &call_id("toolu_", &self.mark, 0, block));
        raw(out, "\",\"name\":");
        string(out, name);
        raw(out, ",\"input\":");
        raw(out, input);
        out.push(b'}');
    }

    pub(super) fn token(&mut self, out: &mut Vec<u8>, token: &Token<'_>) {
        if !self.started {
            self.start(out, token.usage);
        }
        let block = token.speech.block(token.index);
        if self.within != Some(block) {
            if let Some(before) = self.within {
                stop(out, before);
            }
            self.open(out, token.speech, block);
        }
        raw(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
        number(out, block as u64);
        raw(
            out,
            match token.speech.blocks[block] {
                Block::Text => ",\"delta\":{\"type\":\"text_delta\",\"text\":\"",
                Block::Call { .. } => ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"",
            },
        );
        token.speech.push(out, 0, token.index);
        raw(out, "\"}");
        push_stamp(out, token.at.0, token.index);
        raw(out, "}\n\n");
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, speech: &Speech, usage: Usage) {
        if !self.started {
            self.start(out, usage);
            self.open(out, speech, 0);
        }
        if let Some(block) = self.within {
            stop(out, block);
        }
        raw(out, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
        push_reason(out, speech);
        raw(out, "},\"usage\":");
        push_usage(out, usage, usage.output.0);
        raw(out, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    pub(super) fn whole(&self, speech: &Speech, usage: Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(384 + 8 * speech.len() as usize);
        out.push(b'{');
        self.head(&mut out);
        raw(&mut out, ",\"content\":[");
        for (at, block) in speech.blocks.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match block {
                Block::Text => {
                    raw(&mut out, "{\"type\":\"text\",\"text\":\"");
                    speech.push_block(&mut out, 0, at);
                    raw(&mut out, "\"}");
                }
                Block::Call { name, arguments } => self.call(&mut out, at, name, arguments),
            }
        }
        raw(&mut out, "],");
        push_reason(&mut out, speech);
        raw(&mut out, ",\"usage\":");
        push_usage(&mut out, usage, usage.output.0);
        out.push(b'}');
        out
    }
}

fn stop(out: &mut Vec<u8>, block: usize) {
    raw(out, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":");
    number(out, block as u64);
    raw(out, "}\n\n");
}

fn push_reason(out: &mut Vec<u8>, speech: &Speech) {
    raw(out, "\"stop_reason\":\"");
    raw(
        out,
        match (speech.finish, &speech.stopped_at) {
            (_, Some(_)) => "stop_sequence",
            (Finish::Length, _) => "max_tokens",
            (Finish::Tools, _) => "tool_use",
            (Finish::Refusal, _) => "refusal",
            (Finish::Stop, _) => "end_turn",
        },
    );
    raw(out, "\",\"stop_sequence\":");
    match &speech.stopped_at {
        Some(text) => string(out, text),
        None => raw(out, "null"),
    }
}

/// Anthropic counts the cached part of a prompt apart from the rest.
fn push_usage(out: &mut Vec<u8>, usage: Usage, output: u64) {
    raw(out, "{\"input_tokens\":");
    number(out, usage.uncached().0);
    raw(out, ",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":");
    number(out, usage.cached.0);
    raw(out, ",\"output_tokens\":");
    number(out, output);
    out.push(b'}');
}
