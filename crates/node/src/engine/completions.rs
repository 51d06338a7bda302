//! OpenAI's legacy text completions.

use seawall_model::{Finish, Usage};

use super::call::{Mark, push_stamp, push_usage};
use super::chat::push_head;
use super::flow::Token;
use super::json::{number, raw};
use super::speech::Speech;

/// Speaks one answer.
#[derive(Debug)]
pub(super) struct Voice {
    mark: Mark,
    head: Vec<u8>,
    choices: u32,
    stream_usage: bool,
}

impl Voice {
    pub(super) fn new(mark: Mark, choices: u32, stream_usage: bool) -> Self {
        let mut head = b"data: ".to_vec();
        push_head(&mut head, &mark, "text_completion");
        raw(&mut head, "[{\"index\":");
        Self { mark, head, choices, stream_usage }
    }

    pub(super) fn token(&mut self, out: &mut Vec<u8>, token: &Token<'_>) {
        out.extend_from_slice(&self.head);
        number(out, u64::from(token.choice));
        raw(out, ",\"text\":\"");
        token.speech.push(out, token.choice, token.index);
        raw(out, "\",\"logprobs\":null,\"finish_reason\":null}]");
        push_stamp(out, token.at.0, token.index);
        raw(out, "}\n\n");
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, speech: &Speech, usage: Usage) {
        for choice in 0..self.choices {
            out.extend_from_slice(&self.head);
            number(out, u64::from(choice));
            raw(out, ",\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"");
            raw(out, finish(speech));
            raw(out, "\"}]}\n\n");
        }
        if self.stream_usage {
            raw(out, "data: ");
            push_head(out, &self.mark, "text_completion");
            raw(out, "[],\"usage\":");
            push_usage(out, usage);
            raw(out, "}\n\n");
        }
        raw(out, "data: [DONE]\n\n");
    }

    pub(super) fn whole(&self, speech: &Speech, usage: Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(384 + 8 * speech.len() as usize * self.choices as usize);
        push_head(&mut out, &self.mark, "text_completion");
        out.push(b'[');
        for choice in 0..self.choices {
            raw(&mut out, if choice == 0 { "{\"index\":" } else { ",{\"index\":" });
            number(&mut out, u64::from(choice));
            raw(&mut out, ",\"text\":\"");
            speech.push_block(&mut out, choice, 0);
            raw(&mut out, "\",\"logprobs\":null,\"finish_reason\":\"");
            raw(&mut out, finish(speech));
            raw(&mut out, "\"}");
        }
        raw(&mut out, "],\"usage\":");
        push_usage(&mut out, usage);
        out.push(b'}');
        out
    }
}

/// Tools do not exist in this protocol.
fn finish(speech: &Speech) -> &'static str {
    if speech.finish == Finish::Length { "length" } else { "stop" }
}
