//! Estimates a prompt's or an answer's length from its bytes, for admission, for
//! clients who ask and for engines that report nothing. No tokenizer: engines differ,
//! and the kernel corrects the estimate by what they report.

use seawall_model::limits::JSON_DEPTH_MAX;
use seawall_model::{Protocol, Tokens};

use crate::json::{self, Object, Raw};
use crate::writer::written;

/// The weight of one token. ASCII weighs 5 a byte, so four bytes make a token: English
/// prose has about four and a half, and quotes, names and code bring it down.
const TOKEN_WEIGHT: usize = 20;
/// The weight of an ASCII byte.
const ASCII_WEIGHT: usize = 5;
/// The weight of any other byte, so that two and a half make a token: a Chinese
/// character has three bytes and is one token or more, a Cyrillic letter has two and
/// is half of one.
const OTHER_WEIGHT: usize = 8;
/// What one picture, sound or file costs, whatever its bytes: between OpenAI's 85 to
/// 1,105 and Anthropic's up to 1,600 for the usual sizes.
const ATTACHMENT_TOKENS: usize = 1_000;
/// Where the head of a `data:` URL must have ended: no media type is longer.
const DATA_URL_HEAD_BYTES_MAX: usize = 256;

/// How long a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    /// The estimate; at least one.
    pub(crate) likely: Tokens,
    /// No tokenizer makes more of it: one token for each byte of the text as written
    /// (names and quotes make up for what a chat template adds), attachments flat.
    pub(crate) most: Tokens,
}

/// The length of a prompt in parts, each of them JSON.
pub(crate) fn of_parts(parts: &[&[u8]]) -> Length {
    let (mut weight, mut bytes, mut attachments) = (0, 0, 0);
    for part in parts {
        weight += weigh(part);
        bytes += part.len();
        each_attachment(part, |inside| {
            weight -= weigh(inside);
            bytes -= inside.len();
            attachments += 1;
        });
    }
    let flat = attachments * ATTACHMENT_TOKENS;
    let likely = count(weight.div_ceil(TOKEN_WEIGHT) + flat).max(Tokens(1));
    Length { likely, most: count(bytes + flat).max(likely) }
}

fn count(tokens: usize) -> Tokens {
    Tokens(u64::try_from(tokens).unwrap_or(u64::MAX))
}

fn weigh(text: &[u8]) -> usize {
    let other = text.iter().filter(|byte| !byte.is_ascii()).count();
    (text.len() - other) * ASCII_WEIGHT + other * OTHER_WEIGHT
}

/// Finds the strings that hold (or name) a picture, a sound or a file, and so are never
/// read as text by a model. Only their place makes them one: text however long and
/// without blanks, and whatever a tool is given, stays text.
fn each_attachment<'a>(json: &'a [u8], mut found: impl FnMut(&'a [u8])) {
    let marks: [&[u8]; 5] = [b"_url\"", b"\"file_data\"", b"\"source\"", b"\"input_audio\"", b"\"data:"];
    if marks.iter().all(|mark| memchr::memmem::find(json, mark).is_none()) {
        return;
    }
    // The names of the lists and objects around, outermost first; `""` for an item.
    let mut around: Vec<&[u8]> = Vec::new();
    let mut name: &[u8] = b"";
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'{' | b'[' if around.len() >= JSON_DEPTH_MAX => return,
            b'{' | b'[' => around.push(std::mem::take(&mut name)),
            b'}' | b']' => drop(around.pop()),
            b'"' => {
                let Some(end) = json::string_end(json, at + 1) else { return };
                let text = &json[at + 1..end];
                at = end + 1;
                let next = json[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                if next == Some(&b':') {
                    name = text;
                } else if is_attachment(&around, std::mem::take(&mut name), text) {
                    found(text);
                }
                continue;
            }
            b',' => name = b"",
            _ => {}
        }
        at += 1;
    }
}

/// Is this string, of this name and inside these, an attachment?
fn is_attachment(around: &[&[u8]], name: &[u8], text: &[u8]) -> bool {
    // What a tool takes or was given is text; a request's own `input` is further out.
    let tool = |name: &&[u8]| matches!(*name, b"input" | b"arguments" | b"parameters" | b"input_schema");
    if around.iter().skip(2).any(tool) {
        return false;
    }
    match name {
        b"url" => {
            matches!(around.last(), Some(&(b"image_url" | b"video_url" | b"audio_url" | b"source")))
        }
        b"data" => match around.last() {
            // A file may also be given as plain text, which is read as such.
            Some(&b"source") => is_base64(text),
            Some(&b"input_audio") => true,
            _ => is_data_url(text),
        },
        b"image_url" | b"file_url" | b"file_data" => true,
        b"" | b"text" | b"content" | b"output" => false,
        _ => is_data_url(text),
    }
}

fn is_data_url(text: &[u8]) -> bool {
    let head = &text[..text.len().min(DATA_URL_HEAD_BYTES_MAX)];
    text.starts_with(b"data:")
        && memchr::memmem::find(head, b";base64,").is_some_and(|at| is_base64(&text[at + 8..]))
}

/// Base64 of either alphabet; a slash may be escaped.
fn is_base64(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte))
}

/// Estimates the output of a whole answer whose engine reported no usage, from the text
/// and calls in it. Zero for protocols that generate nothing; by all its bytes for a
/// body that is not understood.
#[must_use]
pub fn estimate_answer(protocol: Protocol, body: &[u8]) -> Tokens {
    if matches!(protocol, Protocol::Embeddings | Protocol::CountTokens) {
        return Tokens::ZERO;
    }
    let weight =
        said(protocol, body).map_or_else(|| weigh(body), |parts| parts.iter().copied().map(weigh).sum());
    count(weight.div_ceil(TOKEN_WEIGHT))
}

/// The pieces of an answer that were generated; none if they are not found.
fn said<'a>(protocol: Protocol, body: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let answer = Object::parse(body)?;
    let mut parts: Vec<Raw<'a>> = Vec::new();
    match protocol {
        Protocol::Messages => parts.push(answer.find("content")?),
        Protocol::Responses => parts.push(answer.find("output")?),
        _ => {
            for choice in json::items(answer.find("choices")?)? {
                let choice = json::object(choice).ok()?;
                parts.extend(choice.find("text"));
                let message = choice.find("message").and_then(|raw| json::object(raw).ok());
                let names = ["content", "reasoning_content", "reasoning", "refusal", "tool_calls"];
                parts.extend(
                    message.iter().flat_map(|message| names.iter().filter_map(|name| message.find(name))),
                );
            }
        }
    }
    // Of a string, without its quotes: an empty one is nothing.
    let inside = |raw: Raw<'a>| raw.get().trim_matches('"').as_bytes();
    Some(parts.into_iter().map(inside).collect())
}

/// The body of an answer to `count_tokens`.
#[must_use]
pub fn count_tokens_answer(tokens: Tokens) -> Vec<u8> {
    written(|w| {
        w.open().key("input_tokens").count(tokens.0).close();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(json: &str) -> Length {
        of_parts(&[json.as_bytes()])
    }

    #[test]
    fn an_attachment_counts_flat_wherever_a_protocol_has_it() {
        let base64 = "A".repeat(400_000);
        for part in [
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,@"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"@","format":"wav"}}"#,
            r#"{"type":"file","file":{"file_data":"data:application/pdf;base64,@"}}"#,
            r#"{"type":"input_image","image_url":"data:image/png;base64,@"}"#,
            r#"{"type":"image","source":{"type":"base64","data":"@"}}"#,
            r#"{"type":"image","source":{"type":"url","url":"https://example.org/@"}}"#,
        ] {
            let length = length(&format!(r#"[{{"content":[{part}]}}]"#).replace('@', &base64));
            assert!((1_000..1_050).contains(&length.likely.0), "{part} {length:?}");
            assert!((1_000..1_200).contains(&length.most.0), "{part} {length:?}");
        }
    }

    #[test]
    fn text_is_counted_however_it_looks() {
        let (han, base64) = ("\u{6f22}".repeat(40_000), "A".repeat(120_000));
        for part in [
            format!(r#""base64 {han}""#),
            format!(r#"[{{"type":"text","text":"base64{han}"}}]"#),
            format!(r#"[{{"type":"text","text":"data:image/png;base64,{base64}"}}]"#),
            format!(r#"[{{"type":"document","source":{{"type":"text","data":"{han}"}}}}]"#),
            format!(r#"[{{"type":"tool_use","input":{{"source":{{"data":"{base64}"}}}}}}]"#),
            format!(r#"[{{"type":"text","text":"x","data_url":"no {base64}"}}]"#),
        ] {
            let length = length(&format!(r#"[{{"role":"user","content":{part}}}]"#));
            assert!(length.likely.0 >= 30_000, "{length:?}");
            assert!(length.most.0 >= 120_000, "{length:?}");
        }
        let han = length(&format!(r#""{han}""#)).likely.0;
        assert!((40_000..60_000).contains(&han), "between two and three bytes a token: {han}");
    }

    #[test]
    fn the_most_is_never_less_than_one_token_a_byte() {
        let length = length(r#"[{"role":"user","content":"!?;:"}]"#);
        assert_eq!(length, Length { likely: Tokens(9), most: Tokens(34) });
        assert_eq!(of_parts(&[]), Length { likely: Tokens(1), most: Tokens(1) });
    }

    #[test]
    fn an_answer_without_usage_is_estimated_by_what_it_says() {
        let text = "a".repeat(400);
        for (protocol, body, least) in [
            (Protocol::Chat, r#"{"id":"x","choices":[{"message":{"content":"@"}}]}"#, 100),
            (Protocol::Chat, r#"{"choices":[{"message":{"content":"@"}},{"message":{"refusal":"@"}}]}"#, 200),
            (Protocol::Completions, r#"{"choices":[{"text":"@"}]}"#, 100),
            (Protocol::Messages, r#"{"content":[{"type":"text","text":"@"}]}"#, 100),
            (Protocol::Responses, r#"{"output":[{"content":[{"text":"@"}]}]}"#, 100),
            (Protocol::Other, "not JSON @", 100),
        ] {
            let tokens = estimate_answer(protocol, body.replace('@', &text).as_bytes());
            assert!((least..least + 12).contains(&tokens.0), "{body} {tokens:?}");
        }
        let empty = br#"{"choices":[{"message":{"content":"","refusal":null}}]}"#;
        assert_eq!(estimate_answer(Protocol::Chat, empty), Tokens::ZERO);
        assert_eq!(estimate_answer(Protocol::Embeddings, b"{}"), Tokens::ZERO);
    }

    #[test]
    fn the_answer_to_count_tokens() {
        assert_eq!(count_tokens_answer(Tokens(7)), br#"{"input_tokens":7}"#);
    }
}
