//! JSON text for the journal's export, straight into a buffer, with content left out
//! unless it was asked for.

use std::fmt::Write as _;

use seawall_model::Payload;

use super::blobs::{digest, hex};

/// Fields whose text may quote what a model or a tool said: content like any payload.
const PROSE: [&str; 3] = ["why", "note", "refused"];

/// JSON being written.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) out: String,
    content: bool,
    /// Is the field one of [`PROSE`]?
    prose: bool,
}

impl Json {
    pub(super) fn new(content: bool) -> Self {
        Self { out: String::new(), content, prose: false }
    }

    pub(super) fn open(&mut self) {
        self.out.push('{');
    }

    pub(super) fn close(&mut self) {
        self.out.push('}');
    }

    pub(super) fn list(&mut self) {
        self.out.push('[');
    }

    pub(super) fn end_list(&mut self) {
        self.out.push(']');
    }

    /// Before each item of a list.
    pub(super) fn item(&mut self) {
        if !self.out.ends_with('[') {
            self.out.push(',');
        }
    }

    /// Before each field of an object.
    pub(super) fn key(&mut self, name: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.text(name);
        self.out.push(':');
        self.prose = PROSE.contains(&name);
    }

    /// A text of a noun: of prose only its size, unless content was asked for.
    pub(super) fn words(&mut self, text: &str) {
        if !self.prose || self.content {
            return self.text(text);
        }
        self.open();
        self.key("bytes");
        self.number(text.len() as u64);
        self.close();
    }

    pub(super) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    pub(super) fn number(&mut self, value: u64) {
        let _ = write!(self.out, "{value}");
    }

    pub(super) fn text(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                char if char < ' ' => {
                    let _ = write!(self.out, "\\u{:04x}", u32::from(char));
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }

    /// A payload's size and digest, and if content was asked for its text, or in hex what
    /// is no text. What lies in a blob stays there.
    pub(super) fn payload(&mut self, payload: &Payload) {
        self.open();
        self.key("bytes");
        self.number(payload.len());
        self.key("sha256");
        match payload {
            Payload::Blob { digest, .. } => self.text(&hex(digest)),
            Payload::Here(bytes) => {
                self.text(&hex(&digest(bytes)));
                if self.content {
                    match std::str::from_utf8(bytes) {
                        Ok(text) => {
                            self.key("text");
                            self.text(text);
                        }
                        Err(_) => {
                            self.key("hex");
                            self.text(&hex(bytes));
                        }
                    }
                }
            }
        }
        self.close();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Panics if the text is not one whole JSON value.
    pub(in super::super) fn check(text: &str) {
        let rest = value(text.as_bytes());
        assert!(rest.is_empty(), "something follows the value in {text}");
    }

    fn value(text: &[u8]) -> &[u8] {
        match text[0] {
            b'{' => members(&text[1..], b'}', true),
            b'[' => members(&text[1..], b']', false),
            b'"' => string(&text[1..]),
            b'0'..=b'9' => &text[text.iter().take_while(|byte| byte.is_ascii_digit()).count()..],
            _ => [&b"true"[..], b"false", b"null"]
                .into_iter()
                .find_map(|word| text.strip_prefix(word))
                .expect("a value"),
        }
    }

    fn members(mut text: &[u8], end: u8, keyed: bool) -> &[u8] {
        if text[0] == end {
            return &text[1..];
        }
        loop {
            if keyed {
                text = string(text.strip_prefix(b"\"").expect("a key"));
                text = text.strip_prefix(b":").expect("a colon");
            }
            text = value(text);
            match text[0] {
                b',' => text = &text[1..],
                byte => {
                    assert_eq!(byte, end, "in {}", String::from_utf8_lossy(text));
                    return &text[1..];
                }
            }
        }
    }

    fn string(mut text: &[u8]) -> &[u8] {
        loop {
            match text[0] {
                b'"' => return &text[1..],
                b'\\' => text = &text[2..],
                byte => {
                    assert!(byte >= b' ', "control characters are escaped");
                    text = &text[1..];
                }
            }
        }
    }

    #[test]
    fn what_says_why_may_quote_content_and_is_left_out_with_it() {
        use seawall_model::effect::{Answer, EffectId, Spend};
        use seawall_model::journal::Event;
        use seawall_model::{Code, RunKey};

        use super::super::codec::Noun;

        let effect = EffectId { run: RunKey(0x1f03), number: 7 };
        let answer = Answer::Failed { code: Code::ToolFailed, why: "no \"Ada\" here".into() };
        let event = Event::Answered { effect, answer, used: Spend::default(), by: Some("ann".into()) };
        for content in [false, true] {
            let mut json = Json::new(content);
            event.show(&mut json);
            check(&json.out);
            assert_eq!(json.out.contains("Ada"), content, "{}", json.out);
            assert_eq!(json.out.contains("\"why\":{\"bytes\":13}"), !content, "{}", json.out);
            assert!(json.out.contains("tool_failed") && json.out.contains("\"by\":\"ann\""));
        }
    }

    #[test]
    fn content_is_left_out_unless_asked_for() {
        let secret = Payload::text("the prompt");
        for (content, shown) in [(false, false), (true, true)] {
            let mut json = Json::new(content);
            json.payload(&secret);
            check(&json.out);
            assert_eq!(json.out.contains("the prompt"), shown);
        }
        let mut json = Json::new(true);
        json.payload(&vec![0xff, 0x00].into());
        assert!(json.out.ends_with(",\"hex\":\"ff00\"}"), "{}", json.out);
    }
}
