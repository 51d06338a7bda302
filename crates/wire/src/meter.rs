//! Watches an answer go by unchanged: counts what it used and how it ended, for calls
//! whose engine speaks the client's own protocol. The bytes are walked once and none
//! are kept, so the cost of a token is a fraction of a microsecond and the cost of a
//! gigabyte is no memory.

use bytes::{Bytes, BytesMut};
use seawall_model::limits::STREAM_WINDOW_BYTES;
use seawall_model::{Finish, Protocol, Usage};

use crate::scan::{Found, Key, Walk};
use crate::usage;

/// The relay scanner of one answer.
#[derive(Debug)]
pub struct Meter {
    walk: Walk,
    tally: Tally,
    lines: Option<Lines>,
    hide_usage: bool,
    /// The beginning of an event that may yet have to be cut out.
    held: Bytes,
    /// Part of the present event has been forwarded already.
    committed: bool,
}

/// What has been seen.
#[derive(Debug)]
struct Tally {
    protocol: Protocol,
    usage: Option<Usage>,
    /// Usage has come with or after the reason to end: it is the last.
    settled: bool,
    finish: Option<Finish>,
    /// A reason to end has come, and no output of another choice after it.
    rests: bool,
    tokens: u64,
    complete: bool,
    failed: bool,
    tools: bool,
    /// Of the present event: does it carry output?
    output: bool,
    /// Of the present event: was there an empty (so far) list of choices, and usage?
    choices_list: bool,
    choices: bool,
    usage_here: bool,
    finish_here: bool,
}

/// Where in an event stream's lines the scanner stands.
#[derive(Debug, Default)]
struct Lines {
    at: Place,
    field: [u8; 5],
    field_len: usize,
    head: [u8; 6],
    head_len: usize,
    after_cr: bool,
    /// Bytes of the byte order mark seen; past it once anything else came.
    mark: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In a field's name.
    #[default]
    Field,
    /// Just behind the colon of `data:`.
    Colon,
    Data,
    /// In a line that means nothing here.
    Skip,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Meter {
    /// For an event stream. With `hide_usage` the final chunk that holds only usage is
    /// cut out: it was asked for by us, not by the client.
    #[must_use]
    pub fn stream(protocol: Protocol, hide_usage: bool) -> Self {
        Self { lines: Some(Lines::default()), hide_usage, ..Self::unary(protocol) }
    }

    /// For a single JSON body.
    #[must_use]
    pub fn unary(protocol: Protocol) -> Self {
        Self {
            walk: Walk::new(),
            tally: Tally::new(protocol),
            lines: None,
            hide_usage: false,
            held: Bytes::new(),
            committed: false,
        }
    }

    /// Scans a chunk and returns what to forward: nearly always the chunk itself,
    /// untouched and uncopied. While usage is to be hidden, the beginning of an event
    /// whose kind is not clear yet is held back, up to [`STREAM_WINDOW_BYTES`].
    pub fn relay(&mut self, chunk: Bytes) -> Bytes {
        if self.lines.is_none() {
            let tally = &mut self.tally;
            self.walk.feed(&chunk, &mut |path, found| tally.note(path, &found));
            chunk
        } else if self.hide_usage {
            self.relay_hiding(&chunk)
        } else {
            self.scan(&chunk, &mut |_, _| ());
            chunk
        }
    }

    /// The answer has ended: what was held back. To be forwarded after the last chunk,
    /// and before [`Meter::complete`] is asked.
    pub fn flush(&mut self) -> Bytes {
        if let Some(lines) = &self.lines {
            self.tally.end_event();
            let chat = matches!(self.tally.protocol, Protocol::Chat | Protocol::Completions);
            let rests = chat && self.tally.rests && !self.walk.broken_off();
            self.tally.complete |= rests || lines.said_done();
        }
        std::mem::take(&mut self.held)
    }

    /// What the call used, as last reported; before the last report at least the tokens
    /// seen. None while nothing was reported.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        usage::so_far(self.tally.usage, self.tally.settled, self.tally.tokens)
    }

    /// Why generation ended, once it has.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.tally.finish
    }

    /// Events so far that carried output: an estimate of the tokens generated, to go by
    /// until usage arrives.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tally.tokens
    }

    /// Has the terminal event been seen? Of a single body: has its JSON ended? A Chat or
    /// Completions stream that was flushed after a reason to end is whole too: some
    /// servers just close.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.tally.complete || (self.lines.is_none() && self.walk.ended())
    }

    /// Has an error been seen inside the answer?
    #[must_use]
    pub fn failed(&self) -> bool {
        self.tally.failed
    }

    fn relay_hiding(&mut self, chunk: &Bytes) -> Bytes {
        if chunk.is_empty() {
            return Bytes::new();
        }
        let held = std::mem::take(&mut self.held);
        let mut held_cut = false;
        let mut committed = self.committed;
        let mut cuts: Vec<(usize, usize)> = Vec::new();
        // Where the last, unfinished event begins in this chunk; at zero it is the one
        // whose beginning is held.
        let mut begun = 0;
        self.scan(chunk, &mut |end, usage_only| {
            if usage_only && !committed {
                held_cut |= begun == 0;
                cuts.push((begun, end));
            }
            committed = false;
            begun = end;
        });
        let pending = chunk.len() - begun + if begun == 0 { held.len() } else { 0 };
        let release = committed || self.tally.choices || pending > STREAM_WINDOW_BYTES;
        self.committed = pending > 0 && release;
        if begun == 0 && !release {
            self.held = joined(&[held, chunk.clone()]);
            return Bytes::new();
        }
        let mut to = chunk.len();
        if !release {
            self.held = chunk.slice(begun..);
            to = begun;
        }
        if cuts.is_empty() {
            return joined(&[held, chunk.slice(..to)]);
        }
        let mut parts = Vec::with_capacity(cuts.len() + 2);
        if !held_cut {
            parts.push(held);
        }
        let mut from = 0;
        for (cut, end) in cuts {
            parts.push(chunk.slice(from..cut));
            from = end;
        }
        parts.push(chunk.slice(from..to));
        parts.retain(|part| !part.is_empty());
        joined(&parts)
    }

    /// Walks over a chunk of an event stream. `ended` is told where each event ends
    /// and whether it held nothing but usage.
    fn scan(&mut self, chunk: &[u8], ended: &mut impl FnMut(usize, bool)) {
        let Some(lines) = self.lines.as_mut() else { return };
        let (walk, tally) = (&mut self.walk, &mut self.tally);
        let mut at = 0;
        while at < chunk.len() {
            let byte = chunk[at];
            if std::mem::take(&mut lines.after_cr) && byte == b'\n' {
                at += 1;
                continue;
            }
            match lines.at {
                Place::Field => {
                    at += 1;
                    if lines.field(byte) {
                        let usage_only = tally.usage_only();
                        tally.end_event();
                        walk.reset();
                        lines.head_len = 0;
                        // A CRLF's second half belongs to the event it ends.
                        if byte == b'\r' && chunk.get(at) == Some(&b'\n') {
                            lines.after_cr = false;
                            at += 1;
                        }
                        ended(at, usage_only);
                    }
                }
                Place::Colon => {
                    lines.at = Place::Data;
                    at += usize::from(byte == b' ');
                }
                Place::Data | Place::Skip => {
                    let rest = &chunk[at..];
                    let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    if lines.at == Place::Data {
                        lines.head(&rest[..end]);
                        walk.feed(&rest[..end], &mut |path, found| tally.note(path, &found));
                    }
                    if end < rest.len() {
                        if lines.at == Place::Data {
                            tally.complete |= lines.said_done();
                            walk.feed(b"\n", &mut |path, found| tally.note(path, &found));
                        }
                        lines.after_cr = rest[end] == b'\r';
                        lines.at = Place::Field;
                        at += 1;
                    }
                    at += end;
                }
            }
        }
    }
}

/// One piece of bytes from several; copies only if there is more than one.
fn joined(parts: &[Bytes]) -> Bytes {
    match parts {
        [] => Bytes::new(),
        [one] => one.clone(),
        [first, second] if first.is_empty() => second.clone(),
        many => {
            let mut whole = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            for part in many {
                whole.extend_from_slice(part);
            }
            whole.freeze()
        }
    }
}

impl Lines {
    /// Takes a byte of a field's name. True if it ends an empty line, and so an event.
    fn field(&mut self, byte: u8) -> bool {
        if self.mark < BYTE_ORDER_MARK.len() {
            if self.field_len == 0 && byte == BYTE_ORDER_MARK[self.mark] {
                self.mark += 1;
                return false;
            }
            self.mark = BYTE_ORDER_MARK.len();
        }
        match byte {
            b'\n' | b'\r' => {
                self.after_cr = byte == b'\r';
                let blank = self.field_len == 0;
                self.field_len = 0;
                return blank;
            }
            b':' => {
                let data = self.field[..self.field_len] == *b"data";
                self.at = if data { Place::Colon } else { Place::Skip };
                self.field_len = 0;
            }
            _ if self.field_len == self.field.len() => {
                self.at = Place::Skip;
                self.field_len = 0;
            }
            _ => {
                self.field[self.field_len] = byte;
                self.field_len += 1;
            }
        }
        false
    }

    /// Does the present event's data begin with `[DONE]`?
    fn said_done(&self) -> bool {
        self.head_len == self.head.len() && self.head == *b"[DONE]"
    }

    /// Keeps the first bytes of an event's data, to know `[DONE]` by.
    fn head(&mut self, data: &[u8]) {
        let take = data.len().min(self.head.len() - self.head_len);
        self.head[self.head_len..self.head_len + take].copy_from_slice(&data[..take]);
        self.head_len += take;
    }
}

impl Tally {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            usage: None,
            settled: false,
            finish: None,
            rests: false,
            tokens: 0,
            complete: false,
            failed: false,
            tools: false,
            output: false,
            choices_list: false,
            choices: false,
            usage_here: false,
            finish_here: false,
        }
    }

    fn usage_only(&self) -> bool {
        self.usage_here && self.choices_list && !self.choices
    }

    fn end_event(&mut self) {
        self.tokens += u64::from(self.output);
        self.settled |= self.usage_here && (self.finish.is_some() || self.complete);
        self.rests = self.finish_here || (self.rests && !self.output);
        self.finish_here = false;
        self.output = false;
        self.choices_list = false;
        self.choices = false;
        self.usage_here = false;
    }

    fn note(&mut self, path: &[Key], found: &Found<'_>) {
        match found {
            Found::Usage(json) => self.note_usage(path, json),
            _ if path == [Key::Error] => {
                self.failed |= !matches!(found, Found::Literal(b"null" | b"false"));
            }
            _ => match self.protocol {
                Protocol::Chat | Protocol::Completions => self.note_chat(path, found),
                Protocol::Messages => self.note_messages(path, found),
                Protocol::Responses => self.note_responses(path, found),
                Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => {}
            },
        }
    }

    fn note_usage(&mut self, path: &[Key], json: &[u8]) {
        let here = match self.protocol {
            Protocol::Messages => matches!(path, [Key::Usage] | [Key::Message, Key::Usage]),
            Protocol::Responses => matches!(path, [Key::Usage] | [Key::Response, Key::Usage]),
            _ => path == [Key::Usage],
        };
        if !here {
            return;
        }
        self.usage_here = true;
        if let Some(more) = usage::read(self.protocol, json) {
            self.usage = Some(usage::join(self.usage, more));
        }
    }

    fn note_chat(&mut self, path: &[Key], found: &Found<'_>) {
        match (path, found) {
            ([Key::Choices], Found::List) => self.choices_list = true,
            ([Key::Choices, Key::Item], _) => self.choices = true,
            ([Key::Choices, Key::Item, Key::FinishReason], Found::Text(reason)) if !reason.is_empty() => {
                self.finish_here = true;
                self.finish = Some(usage::finish(reason));
            }
            (
                [Key::Choices, Key::Item, Key::Text]
                | [Key::Choices, Key::Item, Key::Delta, Key::Content | Key::Reasoning | Key::Refusal]
                | [Key::Choices, Key::Item, Key::Delta, Key::ToolCalls, Key::Item, Key::Function, _],
                Found::Text(text),
            ) => self.output |= !text.is_empty(),
            _ => {}
        }
    }

    fn note_messages(&mut self, path: &[Key], found: &Found<'_>) {
        match (path, found) {
            ([Key::Type], Found::Text(b"message_stop")) => self.complete = true,
            ([Key::Type], Found::Text(b"error")) => self.failed = true,
            ([Key::StopReason] | [Key::Delta, Key::StopReason], Found::Text(reason)) => {
                self.finish = Some(usage::finish(reason));
            }
            (
                [Key::Delta, Key::Text | Key::Thinking | Key::PartialJson] | [Key::ContentBlock, Key::Name],
                Found::Text(text),
            ) => self.output |= !text.is_empty(),
            _ => {}
        }
    }

    fn note_responses(&mut self, path: &[Key], found: &Found<'_>) {
        match (path, found) {
            ([Key::Type], Found::Text(name)) => match *name {
                b"response.completed" | b"response.incomplete" => self.complete = true,
                b"response.failed" => {
                    self.complete = true;
                    self.failed = true;
                }
                b"error" => self.failed = true,
                _ => {}
            },
            ([Key::Delta], Found::Text(text)) => self.output |= !text.is_empty(),
            (
                [Key::OutputItem, Key::Type]
                | [Key::Output, Key::Item, Key::Type]
                | [Key::Response, Key::Output, Key::Item, Key::Type],
                Found::Text(b"function_call"),
            ) => {
                self.tools = true;
                if self.finish == Some(Finish::Stop) {
                    self.finish = Some(Finish::Tools);
                }
            }
            ([Key::Status] | [Key::Response, Key::Status], Found::Text(b"completed")) => {
                self.finish = Some(if self.tools { Finish::Tools } else { Finish::Stop });
            }
            ([Key::Status] | [Key::Response, Key::Status], Found::Text(b"failed")) => self.failed = true,
            (
                [Key::IncompleteDetails, Key::Reason] | [Key::Response, Key::IncompleteDetails, Key::Reason],
                Found::Text(reason),
            ) => self.finish = Some(usage::finish(reason)),
            _ => {}
        }
    }
}

/// What a whole body reports of itself. Where it reports no usage,
/// [`crate::tokens::estimate_answer`] has a guess.
#[must_use]
pub fn usage(protocol: Protocol, body: &[u8]) -> (Option<Usage>, Option<Finish>) {
    let mut tally = Tally::new(protocol);
    Walk::new().feed(body, &mut |path, found| tally.note(path, &found));
    (tally.usage, tally.finish)
}

#[cfg(test)]
mod tests {
    use seawall_model::Tokens;

    use super::*;

    const CHAT: &[u8] = b"\xef\xbb\xbfdata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
        : keep alive\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\":null}\n\n\
        data: {\"choices\": [{\"delta\": {\"tool_calls\": [{\"index\": 0, \"function\": {\"arguments\": \"{\"}}]}}]}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
    const USAGE: &[u8] = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2,\"total_tokens\":13}}\n\n";
    const DONE: &[u8] = b"data: [DONE]\n\n";

    fn run(protocol: Protocol, hide: bool, pieces: &[&[u8]]) -> (Vec<u8>, Meter) {
        let mut meter = Meter::stream(protocol, hide);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&meter.relay(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&meter.flush());
        (out, meter)
    }

    fn check_chat(meter: &Meter) {
        assert_eq!(meter.usage(), Some(Usage { input: Tokens(11), output: Tokens(2), ..Usage::default() }));
        assert_eq!(meter.finish(), Some(Finish::Tools));
        assert_eq!(meter.tokens(), 2);
        assert!(meter.complete() && !meter.failed());
    }

    #[test]
    fn a_stream_passes_unchanged_in_any_pieces() {
        let text = [CHAT, USAGE, DONE].concat();
        for cut in 0..text.len() {
            let (out, meter) = run(Protocol::Chat, false, &[&text[..cut], &text[cut..]]);
            assert_eq!(out, text);
            check_chat(&meter);
        }
    }

    #[test]
    fn only_the_usage_event_is_cut_in_any_pieces() {
        let text = [CHAT, USAGE, DONE].concat();
        let without = [CHAT, DONE].concat();
        for cut in 0..text.len() {
            for second in [cut, (cut + 3).min(text.len()), (cut + 90).min(text.len())] {
                let (out, meter) =
                    run(Protocol::Chat, true, &[&text[..cut], &text[cut..second], &text[second..]]);
                assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&without), "cut at {cut}");
                check_chat(&meter);
            }
        }
        let (out, meter) = run(Protocol::Chat, true, &text.chunks(1).collect::<Vec<_>>());
        assert_eq!(out, without);
        check_chat(&meter);
    }

    #[test]
    fn whole_events_are_forwarded_without_a_copy() {
        let chunk = Bytes::from_static(CHAT);
        for hide in [false, true] {
            let mut meter = Meter::stream(Protocol::Chat, hide);
            let out = meter.relay(chunk.clone());
            assert_eq!(out.as_ptr(), chunk.as_ptr());
            assert_eq!(out.len(), chunk.len());
        }
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut meter = Meter::stream(Protocol::Chat, true);
        let mut sent = meter.relay(Bytes::from_static(b"data: {\"x\":\"")).len();
        for _ in 0..1_000 {
            sent += meter.relay(Bytes::from(vec![b'y'; 1_000])).len();
            assert!(meter.held.len() <= STREAM_WINDOW_BYTES);
        }
        assert_eq!(sent + meter.flush().len(), 12 + 1_000_000);
    }

    #[test]
    fn a_messages_stream() {
        let text = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n\
            event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n\
            event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":{\"output_tokens\":9}}\n\n\
            event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let (_, meter) = run(Protocol::Messages, false, &text.chunks(7).collect::<Vec<_>>());
        let usage = Usage { input: Tokens(12), cached: Tokens(7), output: Tokens(9), ..Usage::default() };
        assert_eq!(meter.usage(), Some(usage));
        assert_eq!(meter.finish(), Some(Finish::Length));
        assert_eq!((meter.tokens(), meter.complete()), (1, true));
    }

    #[test]
    fn a_stream_that_is_cut_is_never_billed_less_than_was_seen() {
        let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n";
        let more =
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n"
                .repeat(30);
        let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":20}}\n\n";
        let output = |pieces: &[&str]| {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            run(Protocol::Messages, false, &pieces).1.usage().map(|usage| usage.output)
        };
        assert_eq!(output(&[start]), Some(Tokens(1)));
        assert_eq!(output(&[start, &more]), Some(Tokens(30)));
        assert_eq!(output(&[start, &more, end]), Some(Tokens(20)));
        assert_eq!(output(&[&more]), None);
    }

    #[test]
    fn a_stream_without_farewell_is_whole_if_it_gave_a_reason_to_end() {
        let said = |index: u8| {
            format!(
                "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"x\"}},\"finish_reason\":\"\"}}]}}\n\n"
            )
        };
        let over = |index: u8| {
            format!(
                "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n"
            )
        };
        let usage = String::from_utf8_lossy(USAGE);
        for (text, whole) in [
            (said(0), false),
            (said(0) + &over(0), true),
            (said(0) + &over(0) + &usage, true),
            (over(0) + &said(1), false),
            (over(0) + &said(1) + &over(1), true),
            (said(0) + "data: [DONE]", true),
            (said(0) + over(0).trim_end_matches(['\n', '}']), false),
        ] {
            let mut meter = Meter::stream(Protocol::Chat, false);
            meter.relay(Bytes::from(text.clone()));
            let early = meter.complete();
            meter.flush();
            assert_eq!((early, meter.complete()), (false, whole), "{text}");
        }
    }

    #[test]
    fn a_responses_stream() {
        let text = b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"error\":null}}\n\n\
            data: {\"type\":\"response.function_call_arguments.delta\",\"delta\":\"{\"}\n\n\
            data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[{\"type\":\"function_call\"}],\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n";
        let (_, meter) = run(Protocol::Responses, false, &text.chunks(5).collect::<Vec<_>>());
        assert_eq!(meter.usage().map(|usage| usage.total()), Some(Tokens(7)));
        assert_eq!(meter.finish(), Some(Finish::Tools));
        assert!(meter.complete() && !meter.failed());
    }

    #[test]
    fn errors_inside_a_stream_are_seen() {
        for (protocol, text) in [
            (Protocol::Chat, "data: {\"error\":{\"message\":\"x\"}}\n\n"),
            (Protocol::Messages, "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"),
            (
                Protocol::Responses,
                "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\"}}\n\n",
            ),
        ] {
            assert!(run(protocol, false, &[text.as_bytes()]).1.failed(), "{protocol:?}");
        }
    }

    #[test]
    fn a_tool_cannot_pretend_to_be_usage() {
        let body = br#"{"type":"message","content":[{"type":"tool_use","input":{"usage":{"input_tokens":0},"stop_reason":"x"}}],"stop_reason":"tool_use","usage":{"input_tokens":4,"output_tokens":2}}"#;
        let (usage, finish) = usage(Protocol::Messages, body);
        assert_eq!(usage.map(|usage| usage.total()), Some(Tokens(6)));
        assert_eq!(finish, Some(Finish::Tools));
    }

    #[test]
    fn single_bodies_of_every_protocol() {
        let chat =
            br#"{"choices":[{"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        assert_eq!(usage(Protocol::Chat, chat).1, Some(Finish::Length));
        let vectors = br#"{"data":[{"embedding":[0.1,0.2]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        assert_eq!(usage(Protocol::Embeddings, vectors).0.map(|usage| usage.input), Some(Tokens(8)));
        let mut meter = Meter::unary(Protocol::Chat);
        assert!(!meter.complete());
        let relayed = meter.relay(Bytes::from_static(chat));
        assert_eq!(relayed, chat[..]);
        assert!(meter.complete());
    }
}
