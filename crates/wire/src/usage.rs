//! Token counts and reasons to end, read from and written in every protocol's words.

use seawall_model::{Finish, Protocol, Tokens, Usage};
use serde::Deserialize;
use serde_json::Number;

use crate::writer::Writer;

/// Every field of a `usage` object that any protocol has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<Number>,
    completion_tokens: Option<Number>,
    input_tokens: Option<Number>,
    output_tokens: Option<Number>,
    cache_read_input_tokens: Option<Number>,
    cache_creation_input_tokens: Option<Number>,
    prompt_cache_hit_tokens: Option<Number>,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<Number>,
    cache_write_tokens: Option<Number>,
    reasoning_tokens: Option<Number>,
    thinking_tokens: Option<Number>,
}

fn count(number: Option<&Number>) -> Option<Tokens> {
    let number = number?;
    // Some servers compute their counts in floating point; the cast stops at the ends.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is meant")]
    number.as_u64().or_else(|| number.as_f64().map(|float| float as u64)).map(Tokens)
}

/// Reads a `usage` object of an answer in this protocol; none if it holds no counts.
/// Anthropic's `input_tokens` leaves out what the cache gave or took: it is added, so
/// that `input` means the same for every protocol.
pub(crate) fn read(protocol: Protocol, json: &[u8]) -> Option<Usage> {
    let counts: Counts = serde_json::from_slice(json).ok()?;
    let input = count(counts.input_tokens.as_ref()).or_else(|| count(counts.prompt_tokens.as_ref()));
    let output = count(counts.output_tokens.as_ref()).or_else(|| count(counts.completion_tokens.as_ref()));
    let from = counts.input_tokens_details.or(counts.prompt_tokens_details).unwrap_or_default();
    let into = counts.output_tokens_details.or(counts.completion_tokens_details).unwrap_or_default();
    let cached = count(counts.cache_read_input_tokens.as_ref())
        .or_else(|| count(from.cached_tokens.as_ref()))
        .or_else(|| count(counts.prompt_cache_hit_tokens.as_ref()));
    let cache_written = count(counts.cache_creation_input_tokens.as_ref())
        .or_else(|| count(from.cache_write_tokens.as_ref()));
    let reasoning = count(into.reasoning_tokens.as_ref()).or_else(|| count(into.thinking_tokens.as_ref()));
    if input.is_none() && output.is_none() {
        return None;
    }
    let mut usage = Usage {
        input: input.unwrap_or_default(),
        cached: cached.unwrap_or_default(),
        cache_written: cache_written.unwrap_or_default(),
        output: output.unwrap_or_default(),
        reasoning: reasoning.unwrap_or_default(),
    };
    if protocol.is_anthropic() {
        usage.input = usage.input + usage.cached + usage.cache_written;
    }
    Some(usage)
}

/// Joins what two events of one stream reported. Counts are running totals, and an
/// event leaves out (or reports as zero) what an earlier one has said: the larger of
/// each is the truth.
pub(crate) fn join(known: Option<Usage>, more: Usage) -> Usage {
    let Some(known) = known else { return more };
    Usage {
        input: known.input.max(more.input),
        cached: known.cached.max(more.cached),
        cache_written: known.cache_written.max(more.cache_written),
        output: known.output.max(more.output),
        reasoning: known.reasoning.max(more.reasoning),
    }
}

/// What is to be paid for now: until the last count has come an engine may have
/// reported only its beginning (Anthropic's says one token), so what was seen to be
/// generated counts where it is more.
pub(crate) fn so_far(reported: Option<Usage>, settled: bool, seen: u64) -> Option<Usage> {
    let seen = if settled { 0 } else { seen };
    reported.map(|usage| Usage { output: usage.output.max(Tokens(seen)), ..usage })
}

/// Writes Chat's (and Completions') `usage` object.
pub(crate) fn write_chat(w: &mut Writer<'_>, usage: &Usage) {
    w.open();
    w.key("prompt_tokens").count(usage.input.0);
    w.key("completion_tokens").count(usage.output.0);
    w.key("total_tokens").count(usage.total().0);
    w.key("prompt_tokens_details").open().key("cached_tokens").count(usage.cached.0);
    if usage.cache_written > Tokens::ZERO {
        w.key("cache_write_tokens").count(usage.cache_written.0);
    }
    w.close();
    w.key("completion_tokens_details").open().key("reasoning_tokens").count(usage.reasoning.0).close();
    w.close();
}

/// Writes Responses' `usage` object.
pub(crate) fn write_responses(w: &mut Writer<'_>, usage: &Usage) {
    w.open();
    w.key("input_tokens").count(usage.input.0);
    w.key("input_tokens_details").open();
    w.key("cached_tokens")
        .count(usage.cached.0)
        .key("cache_write_tokens")
        .count(usage.cache_written.0)
        .close();
    w.key("output_tokens").count(usage.output.0);
    w.key("output_tokens_details").open().key("reasoning_tokens").count(usage.reasoning.0).close();
    w.key("total_tokens").count(usage.total().0);
    w.close();
}

/// Writes Anthropic's `usage` object, whose `input_tokens` leaves out the cache.
pub(crate) fn write_messages(w: &mut Writer<'_>, usage: &Usage) {
    w.open();
    w.key("input_tokens").count((usage.input - usage.cached - usage.cache_written).0);
    w.key("cache_creation_input_tokens").count(usage.cache_written.0);
    w.key("cache_read_input_tokens").count(usage.cached.0);
    w.key("output_tokens").count(usage.output.0);
    if usage.reasoning > Tokens::ZERO {
        w.key("output_tokens_details").open().key("thinking_tokens").count(usage.reasoning.0).close();
    }
    w.close();
}

/// Reads a `finish_reason` or `stop_reason`. Reasons nobody has documented count as an
/// ordinary stop: the answer did end.
pub(crate) fn finish(reason: &[u8]) -> Finish {
    match reason {
        b"length" | b"max_tokens" | b"model_context_window_exceeded" | b"max_output_tokens" => Finish::Length,
        b"tool_calls" | b"function_call" | b"tool_use" => Finish::Tools,
        b"content_filter" | b"refusal" => Finish::Refusal,
        _ => Finish::Stop,
    }
}

/// Chat's `finish_reason`.
pub(crate) fn finish_chat(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Tools => "tool_calls",
        Finish::Refusal => "content_filter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::written;

    const FULL: Usage = Usage {
        input: Tokens(100),
        cached: Tokens(60),
        cache_written: Tokens(30),
        output: Tokens(20),
        reasoning: Tokens(5),
    };

    #[test]
    fn every_protocol_reads_what_it_writes() {
        assert_eq!(read(Protocol::Chat, &written(|w| write_chat(w, &FULL))), Some(FULL));
        assert_eq!(read(Protocol::Responses, &written(|w| write_responses(w, &FULL))), Some(FULL));
        assert_eq!(read(Protocol::Messages, &written(|w| write_messages(w, &FULL))), Some(FULL));
    }

    #[test]
    fn anthropic_leaves_the_cache_out_of_the_input() {
        let text = written(|w| write_messages(w, &FULL));
        assert!(text.starts_with(br#"{"input_tokens":10,"cache_creation_input_tokens":30,"#));
    }

    #[test]
    fn odd_counts_do_not_break_it() {
        let usage = read(Protocol::Chat, br#"{"prompt_tokens":3.0,"completion_tokens":-1,"x":{}}"#);
        assert_eq!(usage, Some(Usage { input: Tokens(3), ..Usage::default() }));
        assert_eq!(read(Protocol::Chat, b"{}"), None);
        assert_eq!(read(Protocol::Chat, br#"{"prompt_tokens":"x"}"#), None);
        let most = format!(r#"{{"input_tokens":{0},"cache_read_input_tokens":{0}}}"#, u64::MAX);
        assert_eq!(read(Protocol::Messages, most.as_bytes()).map(|usage| usage.input), Some(Tokens::MAX));
    }

    #[test]
    fn events_of_one_stream_are_joined_by_the_larger_count() {
        let first = read(Protocol::Messages, br#"{"input_tokens":9,"output_tokens":1}"#).expect("counts");
        let last = read(Protocol::Messages, br#"{"output_tokens":7}"#).expect("counts");
        assert_eq!(
            join(Some(first), last),
            Usage { input: Tokens(9), output: Tokens(7), ..Usage::default() }
        );
    }
}
