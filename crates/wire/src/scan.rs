//! Walks JSON text as it streams by, in any pieces, without building anything. It knows
//! strings from structure, so that what a model writes can never be taken for what a
//! server reports, and it keeps no more than the path it stands on.

use seawall_model::limits::{JSON_DEPTH_MAX, USAGE_BYTES_MAX};

/// Names that mean something in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// An item of a list.
    Item,
    /// Any name not listed here.
    Other,
    Arguments,
    Choices,
    Content,
    ContentBlock,
    Delta,
    Error,
    FinishReason,
    Function,
    IncompleteDetails,
    Message,
    Name,
    Output,
    OutputItem,
    PartialJson,
    Reason,
    Reasoning,
    Refusal,
    Response,
    Status,
    StopReason,
    Text,
    Thinking,
    ToolCalls,
    Type,
    Usage,
}

impl Key {
    fn named(name: &[u8]) -> Self {
        match name {
            b"arguments" => Self::Arguments,
            b"choices" => Self::Choices,
            b"content" => Self::Content,
            b"content_block" => Self::ContentBlock,
            b"delta" => Self::Delta,
            b"error" => Self::Error,
            b"finish_reason" => Self::FinishReason,
            b"function" => Self::Function,
            b"incomplete_details" => Self::IncompleteDetails,
            b"item" => Self::OutputItem,
            b"message" => Self::Message,
            b"name" => Self::Name,
            b"output" => Self::Output,
            b"partial_json" => Self::PartialJson,
            b"reason" => Self::Reason,
            b"reasoning" | b"reasoning_content" => Self::Reasoning,
            b"refusal" => Self::Refusal,
            b"response" => Self::Response,
            b"status" => Self::Status,
            b"stop_reason" => Self::StopReason,
            b"text" => Self::Text,
            b"thinking" => Self::Thinking,
            b"tool_calls" => Self::ToolCalls,
            b"type" => Self::Type,
            b"usage" => Self::Usage,
            _ => Self::Other,
        }
    }
}

/// What stands at the path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A string; its first [`WORD_BYTES`] bytes, escapes as written.
    Text(&'a [u8]),
    /// A number, `true`, `false` or `null`.
    Literal(&'a [u8]),
    /// An object begins.
    Object,
    /// A list begins.
    List,
    /// A `usage` object, whole.
    Usage(&'a [u8]),
}

/// Levels whose names are remembered; whatever lies deeper is of no interest.
const PATH_MAX: usize = 8;
/// Bytes kept of a name or string: longer than any name of interest.
const WORD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value is due (or the end of an empty list).
    Value,
    /// A name is due (or the end of an empty object).
    Name,
    InName,
    Colon,
    InText,
    InLiteral,
    /// A value has ended: a comma or a closing bracket is due.
    After,
    /// Not JSON, or too deep: the rest is not looked at.
    Lost,
}

/// The walker. One document after another; [`Walk::reset`] between them.
#[derive(Debug)]
pub(crate) struct Walk {
    state: State,
    escaped: bool,
    depth: usize,
    /// Bit *n* is set when the container at depth *n* is an object.
    objects: u128,
    path: [Key; PATH_MAX],
    word: [u8; WORD_BYTES],
    word_len: usize,
    usage: Vec<u8>,
    /// The depth around the `usage` object that is being copied.
    copying: Option<usize>,
    started: bool,
}

const _: () = assert!(JSON_DEPTH_MAX <= 128, "one bit per level");

impl Walk {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Value,
            escaped: false,
            depth: 0,
            objects: 0,
            path: [Key::Other; PATH_MAX],
            word: [0; WORD_BYTES],
            word_len: 0,
            usage: Vec::new(),
            copying: None,
            started: false,
        }
    }

    /// Ready for the next document.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value;
        self.escaped = false;
        self.depth = 0;
        self.objects = 0;
        self.word_len = 0;
        self.usage.clear();
        self.copying = None;
        self.started = false;
    }

    /// Has a whole document gone by?
    pub(crate) fn ended(&self) -> bool {
        self.started && self.depth == 0 && self.state == State::After
    }

    /// Has a document begun that has not gone by whole?
    pub(crate) fn broken_off(&self) -> bool {
        self.started && !self.ended()
    }

    /// Walks on, telling `seen` of every value whose name is known.
    pub(crate) fn feed(&mut self, bytes: &[u8], seen: &mut impl FnMut(&[Key], Found<'_>)) {
        let mut at = 0;
        let mut copied = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.state {
                State::Lost => return,
                State::InName | State::InText => {
                    at = self.string(bytes, at, seen);
                    continue;
                }
                State::InLiteral => {
                    if !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'{' | b'[')
                    {
                        self.push(&[byte]);
                        at += 1;
                        continue;
                    }
                    self.tell(&Found::Literal(&[]), seen);
                    self.state = State::After;
                    continue;
                }
                _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
                State::Value => {
                    if byte == b'{' && self.at_usage() && self.copying.is_none() {
                        self.copying = Some(self.depth);
                        self.usage.clear();
                        copied = at;
                    }
                    self.value(byte, seen);
                }
                State::Name => match byte {
                    b'"' => self.begin(State::InName),
                    b'}' => self.pop(),
                    _ => self.state = State::Lost,
                },
                State::Colon => self.state = if byte == b':' { State::Value } else { State::Lost },
                State::After => self.after(byte),
            }
            at += 1;
            if self.copying == Some(self.depth) && self.state == State::After {
                self.copying = None;
                self.copy(&bytes[copied..at]);
                self.tell_usage(seen);
            }
        }
        if self.copying.is_some() {
            self.copy(&bytes[copied..]);
        }
    }

    fn at_usage(&self) -> bool {
        (1..=PATH_MAX).contains(&self.depth) && self.path[self.depth - 1] == Key::Usage
    }

    fn copy(&mut self, piece: &[u8]) {
        if self.usage.len() + piece.len() > USAGE_BYTES_MAX {
            // No usage object is this large: it is something else, and not kept.
            self.copying = None;
            self.usage = Vec::new();
        } else {
            self.usage.extend_from_slice(piece);
        }
    }

    fn tell_usage(&mut self, seen: &mut impl FnMut(&[Key], Found<'_>)) {
        if !self.usage.is_empty() && self.depth <= PATH_MAX {
            seen(&self.path[..self.depth], Found::Usage(&self.usage));
        }
    }

    /// Tells of the value just read or begun, if its name is known.
    fn tell(&self, found: &Found<'_>, seen: &mut impl FnMut(&[Key], Found<'_>)) {
        if self.depth == 0 || self.depth > PATH_MAX || self.path[self.depth - 1] == Key::Other {
            return;
        }
        let word = &self.word[..self.word_len];
        let path = &self.path[..self.depth];
        match found {
            Found::Text(_) => seen(path, Found::Text(word)),
            Found::Literal(_) => seen(path, Found::Literal(word)),
            Found::Object => seen(path, Found::Object),
            Found::List => seen(path, Found::List),
            Found::Usage(_) => {}
        }
    }

    fn begin(&mut self, state: State) {
        self.word_len = 0;
        self.escaped = false;
        self.state = state;
    }

    fn push(&mut self, piece: &[u8]) {
        let take = piece.len().min(WORD_BYTES - self.word_len);
        self.word[self.word_len..self.word_len + take].copy_from_slice(&piece[..take]);
        self.word_len += take;
    }

    /// Reads on in a string; returns where it stopped.
    fn string(&mut self, bytes: &[u8], at: usize, seen: &mut impl FnMut(&[Key], Found<'_>)) -> usize {
        if self.escaped {
            self.escaped = false;
            self.push(&bytes[at..=at]);
            return at + 1;
        }
        let rest = &bytes[at..];
        let Some(end) = memchr::memchr2(b'"', b'\\', rest) else {
            self.push(rest);
            return bytes.len();
        };
        self.push(&rest[..end]);
        if rest[end] == b'\\' {
            self.escaped = true;
            self.push(b"\\");
        } else if self.state == State::InText {
            self.tell(&Found::Text(&[]), seen);
            self.state = State::After;
        } else {
            if self.depth <= PATH_MAX {
                self.path[self.depth - 1] = Key::named(&self.word[..self.word_len]);
            }
            self.state = State::Colon;
        }
        at + end + 1
    }

    fn value(&mut self, byte: u8, seen: &mut impl FnMut(&[Key], Found<'_>)) {
        self.started = true;
        match byte {
            b'{' | b'[' if self.depth >= JSON_DEPTH_MAX => self.state = State::Lost,
            b'{' => {
                self.tell(&Found::Object, seen);
                self.objects |= 1 << self.depth;
                self.enter(Key::Other);
                self.state = State::Name;
            }
            b'[' => {
                self.tell(&Found::List, seen);
                self.objects &= !(1 << self.depth);
                self.enter(Key::Item);
                self.state = State::Value;
            }
            b'"' => self.begin(State::InText),
            b']' => self.pop(),
            b',' | b':' | b'}' => self.state = State::Lost,
            _ => {
                self.begin(State::InLiteral);
                self.push(&[byte]);
            }
        }
    }

    fn enter(&mut self, key: Key) {
        if self.depth < PATH_MAX {
            self.path[self.depth] = key;
        }
        self.depth += 1;
    }

    fn after(&mut self, byte: u8) {
        match byte {
            _ if self.depth == 0 => self.state = State::Lost,
            b',' if self.in_object() => self.state = State::Name,
            b',' => self.state = State::Value,
            b'}' | b']' => self.pop(),
            _ => self.state = State::Lost,
        }
    }

    fn in_object(&self) -> bool {
        self.objects & (1 << (self.depth - 1)) != 0
    }

    fn pop(&mut self) {
        if self.depth == 0 {
            self.state = State::Lost;
        } else {
            self.depth -= 1;
            self.state = State::After;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(pieces: &[&[u8]]) -> Vec<String> {
        let mut told = Vec::new();
        let mut walk = Walk::new();
        for piece in pieces {
            walk.feed(piece, &mut |path, found| told.push(format!("{path:?} {found:?}")));
        }
        told
    }

    #[test]
    fn values_are_told_with_their_path() {
        let told = walk(&[br#"{"choices":[{"finish_reason":"stop","x":{"usage":1}}],"usage":{"a":[1]}}"#]);
        assert_eq!(
            told,
            [
                "[Choices] List",
                "[Choices, Item] Object",
                "[Choices, Item, FinishReason] Text([115, 116, 111, 112])",
                "[Choices, Item, Other, Usage] Literal([49])",
                "[Usage] Object",
                "[Usage, Other, Item] Literal([49])",
                "[Usage] Usage([123, 34, 97, 34, 58, 91, 49, 93, 125])",
            ]
        );
    }

    #[test]
    fn pieces_of_any_size_tell_the_same() {
        let text = br#" {"usage" : {"a":"\"}","b":null} , "error":"\\\"x","choices":[ ],"type":12} "#;
        let whole = walk(&[text]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(walk(&bytes), whole);
        for cut in 0..text.len() {
            assert_eq!(walk(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_stands_inside_a_string_is_never_structure() {
        let told = walk(&[br#"{"content":"\"usage\":{\"a\":1},\"error\":1"}"#]);
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let mut walk = Walk::new();
        walk.feed(&vec![b'['; 1_000_000], &mut |_, _| ());
        assert_eq!(walk.state, State::Lost);
        let mut told = 0;
        walk.reset();
        walk.feed(br#"{"usage":{"a":""#, &mut |_, _| ());
        for _ in 0..100 {
            walk.feed(&[b'x'; 1_000], &mut |_, _| told += 1);
            assert!(walk.usage.capacity() <= 2 * USAGE_BYTES_MAX);
        }
        walk.feed(br#""}}"#, &mut |_, found| {
            assert!(!matches!(found, Found::Usage(_)));
        });
        assert!(walk.ended());
        assert_eq!(told, 0);
    }
}
