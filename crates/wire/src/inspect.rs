//! Reads of a request what deciding needs, in one pass over its bytes and without
//! building a tree: which model, how large, streamed or not, and how its prompt begins.

use std::fmt;
use std::ops::Range;

use seawall_model::limits::{CHOICES_MAX, MODEL_NAME_BYTES_MAX};
use seawall_model::{Code, Fault, Protocol, Tokens};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::json::{self, Raw, Text, bad};
use crate::{prefix, tokens};

/// What deciding needs to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The protocol it was read in.
    pub protocol: Protocol,
    /// The model asked for, unescaped.
    pub model: String,
    /// The bytes of its JSON string, quotes included.
    pub model_span: Range<usize>,
    /// Is the answer to be streamed?
    pub stream: bool,
    /// Did the client itself ask for usage at the end of the stream?
    pub include_usage: bool,
    /// The bytes of the value of `stream_options`, where there is one.
    pub stream_options_span: Option<Range<usize>>,
    /// The most output tokens asked for, per choice; the larger where a chat names two.
    pub output_max: Option<Tokens>,
    /// The bytes of the `null` that stands where [`crate::rewrite`] would write a limit.
    pub output_max_span: Option<Range<usize>>,
    /// Choices to be generated, at least one, at most [`CHOICES_MAX`].
    pub choices: u32,
    /// The prompt's estimated length; never zero.
    pub prompt_tokens: Tokens,
    /// A bound that the prompt's length does not exceed whatever the tokenizer: one
    /// token a byte, attachments flat. For reserving money, not for admission.
    pub prompt_max: Tokens,
    /// Does a part of the prompt lie with the engine (an earlier response, a conversation, a
    /// stored prompt), so that neither estimate knows of it?
    pub stored_prompt: bool,
    /// Chained hashes of the prompt's whole blocks (tools, then system prompt, then
    /// messages: the order in which engines lay them out).
    pub prefix: Box<[u64]>,
}

/// The fields of interest, unread.
#[derive(Default)]
struct Seen<'a> {
    model: Option<Raw<'a>>,
    stream: Option<Raw<'a>>,
    stream_options: Option<Raw<'a>>,
    max_tokens: Option<Raw<'a>>,
    max_completion_tokens: Option<Raw<'a>>,
    max_output_tokens: Option<Raw<'a>>,
    n: Option<Raw<'a>>,
    best_of: Option<Raw<'a>>,
    tools: Option<Raw<'a>>,
    system: Option<Raw<'a>>,
    messages: Option<Raw<'a>>,
    input: Option<Raw<'a>>,
    prompt: Option<Raw<'a>>,
    /// Something else that stands in for a prompt.
    stored_prompt: bool,
    /// A field that some servers, which do not mind case, would take for one of these.
    cased: Option<&'static str>,
    /// A field that stands twice: of two values servers take the first or the last.
    twice: Option<&'static str>,
}

/// The fields that decide what a call is and may cost.
const FIELDS: [&str; 17] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "tools",
    "system",
    "instructions",
    "messages",
    "input",
    "prompt",
    "previous_response_id",
    "conversation",
    "prompt_embeds",
];

/// The field that this name is but for its case. Go's JSON reader, which Ollama and others
/// use, takes `Model` for `model`, and so do two letters outside ASCII that fold to k and s.
fn but_for_case(name: &str) -> Option<&'static str> {
    let fold = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    FIELDS.into_iter().find(|field| *field != name && name.chars().map(fold).eq(field.chars()))
}

impl<'de: 'a, 'a> Deserialize<'de> for Seen<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct See;
        impl<'de> Visitor<'de> for See {
            type Value = Seen<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen<'de>, A::Error> {
                let mut seen = Seen::default();
                while let Some(Text(name)) = map.next_key()? {
                    let slot = match name.as_ref() {
                        "model" => &mut seen.model,
                        "stream" => &mut seen.stream,
                        "stream_options" => &mut seen.stream_options,
                        "max_tokens" => &mut seen.max_tokens,
                        "max_completion_tokens" => &mut seen.max_completion_tokens,
                        "max_output_tokens" => &mut seen.max_output_tokens,
                        "n" => &mut seen.n,
                        "best_of" => &mut seen.best_of,
                        "tools" => &mut seen.tools,
                        "system" | "instructions" => &mut seen.system,
                        "messages" => &mut seen.messages,
                        "input" => &mut seen.input,
                        "prompt" => &mut seen.prompt,
                        other => {
                            seen.cased = seen.cased.or_else(|| but_for_case(other));
                            seen.stored_prompt |=
                                matches!(other, "previous_response_id" | "conversation" | "prompt_embeds");
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let before = slot.replace(map.next_value()?);
                    // Two protocols name a system prompt by two names; neither knows the other's.
                    if before.is_some() && !matches!(name.as_ref(), "system" | "instructions") {
                        seen.twice = FIELDS.into_iter().find(|field| *field == name.as_ref());
                    }
                }
                Ok(seen)
            }
        }
        from.deserialize_map(See)
    }
}

/// Inspects the body of a request in this protocol.
///
/// # Errors
/// `bad_json`, with line and column, for a body that is not JSON; `bad_field`, naming
/// the field, for one that is missing or of a wrong type or value.
pub fn inspect(protocol: Protocol, body: &[u8]) -> Result<Inspected, Fault> {
    let text = json::utf8(body)?;
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| json::broken(&error))?;
        return Err(Fault::new(Code::BadField, "The request body must be a JSON object."));
    }
    let seen: Seen<'_> = serde_json::from_str(text).map_err(|error| json::broken(&error))?;
    json::shallow(body)?;
    if let Some(field) = seen.twice {
        return Err(bad(field, "stands there twice, and servers differ in which they read"));
    }
    if let Some(field) = seen.cased {
        let what = "stands there in another case too, which servers read differently";
        return Err(bad(field, what));
    }
    let model_raw = present(seen.model).ok_or_else(|| bad("model", "is required"))?;
    let model = json::text(model_raw).ok_or_else(|| bad("model", "must be a string"))?;
    if model.is_empty() {
        return Err(bad("model", "must not be empty"));
    }
    if model.len() > MODEL_NAME_BYTES_MAX {
        return Err(bad("model", "is longer than any model's name"));
    }
    let stream = flag("stream", seen.stream)?.unwrap_or(false);
    let prompt = seen.prompt_parts(protocol)?;
    let prompt: Vec<&[u8]> = prompt.iter().map(|raw| raw.get().as_bytes()).collect();
    let whole = [body];
    let counted = if protocol == Protocol::Other { &whole[..] } else { &prompt };
    let length = tokens::of_parts(counted);
    Ok(Inspected {
        protocol,
        model,
        model_span: span(text, model_raw),
        stream,
        include_usage: seen.include_usage()?,
        stream_options_span: seen.stream_options.map(|raw| span(text, raw)),
        output_max: seen.output_max(protocol)?,
        output_max_span: seen.unset_limit(protocol).map(|raw| span(text, raw)),
        choices: seen.choices(protocol)?,
        prompt_tokens: length.likely,
        prompt_max: length.most,
        stored_prompt: seen.is_elsewhere(protocol),
        prefix: prefix::hashes(&prompt),
    })
}

/// A field that is there and not null.
fn present(raw: Option<Raw<'_>>) -> Option<Raw<'_>> {
    raw.filter(|raw| raw.get() != "null")
}

/// Where in the body the piece stands.
fn span(body: &str, piece: Raw<'_>) -> Range<usize> {
    let start = piece.get().as_ptr().addr() - body.as_ptr().addr();
    start..start + piece.get().len()
}

fn flag(name: &str, raw: Option<Raw<'_>>) -> Result<Option<bool>, Fault> {
    match present(raw).map(|raw| raw.get()) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(bad(name, "must be true or false")),
    }
}

/// A whole number from `least` on.
fn count(name: &str, raw: Option<Raw<'_>>, least: u64) -> Result<Option<u64>, Fault> {
    let Some(raw) = present(raw) else { return Ok(None) };
    match serde_json::from_str::<u64>(raw.get()) {
        Ok(count) if count >= least => Ok(Some(count)),
        _ => Err(bad(name, &format!("must be a whole number from {least} on"))),
    }
}

impl<'a> Seen<'a> {
    /// The parts of the prompt in the order engines lay them out.
    fn prompt_parts(&self, protocol: Protocol) -> Result<Vec<Raw<'a>>, Fault> {
        let (name, main) = match protocol {
            Protocol::Chat | Protocol::Messages | Protocol::CountTokens => {
                ("messages", present(self.messages))
            }
            Protocol::Completions => ("prompt", present(self.prompt)),
            Protocol::Embeddings | Protocol::Responses => ("input", present(self.input)),
            Protocol::Other => return Ok(Vec::new()),
        };
        let Some(main) = main else {
            let stands_in = match protocol {
                Protocol::Responses => self.stored_prompt || present(self.prompt).is_some(),
                Protocol::Completions => self.stored_prompt,
                _ => false,
            };
            if stands_in {
                return Ok([self.tools, self.system].into_iter().filter_map(present).collect());
            }
            return Err(bad(name, "is required"));
        };
        let first = main.get().as_bytes()[0];
        match protocol {
            Protocol::Chat | Protocol::Messages | Protocol::CountTokens if first != b'[' => {
                Err(bad(name, "must be a list"))
            }
            _ if first != b'[' && first != b'"' => Err(bad(name, "must be a string or a list")),
            Protocol::Completions | Protocol::Embeddings => Ok(vec![main]),
            _ => Ok([self.tools, self.system, Some(main)].into_iter().filter_map(present).collect()),
        }
    }

    /// Does a part of the prompt lie with the engine?
    fn is_elsewhere(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Responses && (self.stored_prompt || present(self.prompt).is_some())
    }

    fn include_usage(&self) -> Result<bool, Fault> {
        let Some(raw) = present(self.stream_options) else {
            return Ok(false);
        };
        let options = json::object(raw).map_err(|_| bad("stream_options", "must be an object"))?;
        let asked = options.flag("include_usage").map_err(|fault| json::under(fault, "stream_options"))?;
        Ok(asked.unwrap_or(false))
    }

    fn output_max(&self, protocol: Protocol) -> Result<Option<Tokens>, Fault> {
        let max = match protocol {
            // Engines differ in which of the two they follow.
            Protocol::Chat => {
                // What zero means here is the engine's to say (the official client's own
                // suite sends it); to us it is no limit. No other protocol can say it, so a
                // translation refuses it.
                let new = count("max_completion_tokens", self.max_completion_tokens, 0)?;
                new.max(count("max_tokens", self.max_tokens, 0)?).filter(|max| *max > 0)
            }
            // Zero is the classic way to score a prompt without generating.
            Protocol::Completions => count("max_tokens", self.max_tokens, 0)?,
            Protocol::Responses => count("max_output_tokens", self.max_output_tokens, 1)?,
            Protocol::Messages => {
                let max = count("max_tokens", self.max_tokens, 1)?;
                Some(max.ok_or_else(|| bad("max_tokens", "is required"))?)
            }
            Protocol::Embeddings | Protocol::CountTokens => Some(0),
            Protocol::Other => None,
        };
        Ok(max.map(Tokens))
    }

    /// The limit's field where it is there but null.
    fn unset_limit(&self, protocol: Protocol) -> Option<Raw<'a>> {
        let limit = match protocol {
            Protocol::Chat | Protocol::Completions | Protocol::Messages => self.max_tokens,
            Protocol::Responses => self.max_output_tokens,
            Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => None,
        };
        limit.filter(|raw| raw.get() == "null")
    }

    fn choices(&self, protocol: Protocol) -> Result<u32, Fault> {
        let mut choices = 1;
        for (name, raw) in [("n", self.n), ("best_of", self.best_of)] {
            if !matches!(protocol, Protocol::Chat | Protocol::Completions) {
                break;
            }
            // The official client's own suite sends `best_of: 0`.
            let least = u64::from(name == "n");
            let asked = count(name, raw, least)?.unwrap_or(1).max(1);
            let asked = u32::try_from(asked).ok().filter(|asked| *asked <= CHOICES_MAX);
            choices = asked.ok_or_else(|| bad(name, &format!("must be at most {CHOICES_MAX}")))?.max(choices);
        }
        Ok(choices)
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::limits::JSON_DEPTH_MAX;

    use super::*;

    fn param(protocol: Protocol, body: &str) -> (Code, String) {
        let fault = inspect(protocol, body.as_bytes()).expect_err(body);
        (fault.code, fault.param.unwrap_or_default().into_owned())
    }

    #[test]
    fn a_chat_request() {
        let body = r#" {"messages":[{"role":"user","content":"hi"}],"model":"gpt\u002d4","stream":true,
            "max_completion_tokens":9,"max_tokens":5,"n":2,"user":"u1","stream_options":{"include_usage":true},"other":{"model":3}}"#;
        let seen = inspect(Protocol::Chat, body.as_bytes()).expect("good");
        assert_eq!(seen.model, "gpt-4");
        assert_eq!(&body[seen.model_span.clone()], r#""gpt\u002d4""#);
        assert_eq!(seen.stream_options_span.map(|span| &body[span]), Some(r#"{"include_usage":true}"#));
        assert!(seen.stream && seen.include_usage);
        assert_eq!((seen.output_max, seen.choices), (Some(Tokens(9)), 2));
        assert_eq!(seen.prompt_tokens, Tokens(8));
        assert!(seen.prefix.is_empty());
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        for (body, name) in [
            (r#"{"model":"dear","model":"m","messages":[]}"#, "model"),
            (r#"{"model":"m","max_tokens":1,"messages":[],"max\u005ftokens":9}"#, "max_tokens"),
        ] {
            assert_eq!(param(Protocol::Chat, body), (Code::BadField, name.to_owned()), "{body}");
        }
        let other = r#"{"model":"m","messages":[{"a":1,"a":2}],"x":1,"x":2}"#;
        assert!(inspect(Protocol::Chat, other.as_bytes()).is_ok(), "what decides nothing passes");
    }

    #[test]
    fn a_field_in_another_case_is_refused() {
        for (body, field) in [
            (r#"{"model":"m","messages":[],"Model":"dear"}"#, "model"),
            (r#"{"model":"m","messages":[],"MAX_TOKENS":9}"#, "max_tokens"),
            ("{\"model\":\"m\",\"messages\":[],\"max_to\u{212a}ens\":9}", "max_tokens"),
            ("{\"model\":\"m\",\"messages\":[],\"me\u{17f}sages\":[]}", "messages"),
        ] {
            assert_eq!(param(Protocol::Chat, body), (Code::BadField, field.to_owned()), "{body}");
        }
        let other = r#"{"model":"m","messages":[],"Metadata":{"Model":"x"},"N_keep":1}"#;
        inspect(Protocol::Chat, other.as_bytes()).expect("other names are the engine's business");
    }

    #[test]
    fn a_prompt_that_lies_with_the_engine_is_seen() {
        for (body, elsewhere) in [
            (r#"{"model":"m","input":"i"}"#, false),
            (r#"{"model":"m","input":"i","previous_response_id":"r"}"#, true),
            (r#"{"model":"m","prompt":{"id":"p"}}"#, true),
            (r#"{"model":"m","input":"i","prompt":null}"#, false),
        ] {
            let seen = inspect(Protocol::Responses, body.as_bytes()).expect(body);
            assert_eq!(seen.stored_prompt, elsewhere, "{body}");
        }
    }

    #[test]
    fn requests_of_every_protocol() {
        for (protocol, body) in [
            (Protocol::Completions, r#"{"model":"m","prompt":"p","max_tokens":0}"#),
            (Protocol::Embeddings, r#"{"model":"m","input":[1,2]}"#),
            (Protocol::Responses, r#"{"model":"m","input":"i","max_output_tokens":4,"stream":null}"#),
            (Protocol::Responses, r#"{"model":"m","previous_response_id":"r"}"#),
            (Protocol::Messages, r#"{"model":"m","max_tokens":1,"messages":[],"metadata":{"user_id":"u"}}"#),
            (Protocol::CountTokens, r#"{"model":"m","messages":[]}"#),
            (Protocol::Other, r#"{"model":"m","query":"q"}"#),
        ] {
            let seen = inspect(protocol, body.as_bytes()).expect(body);
            assert!(seen.prompt_tokens >= Tokens(1));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use Protocol::{Chat, Completions, Embeddings, Messages, Responses};
        for (protocol, body, field) in [
            (Chat, r#"{"messages":[]}"#, "model"),
            (Chat, r#"{"messages":[],"model":null}"#, "model"),
            (Chat, r#"{"messages":[],"model":5}"#, "model"),
            (Chat, r#"{"messages":[],"model":""}"#, "model"),
            (Chat, r#"{"messages":[],"model":"\ud800"}"#, "model"),
            (Chat, r#"{"model":"m"}"#, "messages"),
            (Chat, r#"{"model":"m","messages":"hi"}"#, "messages"),
            (Chat, r#"{"model":"m","messages":{}}"#, "messages"),
            (Chat, r#"{"model":"m","messages":[],"stream":"yes"}"#, "stream"),
            (Chat, r#"{"model":"m","messages":[],"max_tokens":1.5}"#, "max_tokens"),
            (Chat, r#"{"model":"m","messages":[],"max_tokens":-1}"#, "max_tokens"),
            (Chat, r#"{"model":"m","messages":[],"max_tokens":"9"}"#, "max_tokens"),
            (Chat, r#"{"model":"m","messages":[],"n":0}"#, "n"),
            (Chat, r#"{"model":"m","messages":[],"n":1000}"#, "n"),
            (Chat, r#"{"model":"m","messages":[],"stream_options":[]}"#, "stream_options"),
            (
                Chat,
                r#"{"model":"m","messages":[],"stream_options":{"include_usage":1}}"#,
                "stream_options.include_usage",
            ),
            (Completions, r#"{"model":"m"}"#, "prompt"),
            (Completions, r#"{"model":"m","prompt":5}"#, "prompt"),
            (Embeddings, r#"{"model":"m"}"#, "input"),
            (Responses, r#"{"model":"m","input":{}}"#, "input"),
            (Messages, r#"{"model":"m","messages":[]}"#, "max_tokens"),
        ] {
            assert_eq!(param(protocol, body), (Code::BadField, field.to_owned()), "{body}");
        }
        assert_eq!(param(Chat, "[1]").0, Code::BadField);
    }

    #[test]
    fn broken_json_is_placed_and_not_quoted() {
        for body in
            ["", "{", "{\"model\":\"m\",\n \"secret prompt\" \"x\"}", "nul", "{} x", "\"secret prompt"]
        {
            let fault = inspect(Protocol::Chat, body.as_bytes()).expect_err(body);
            assert_eq!(fault.code, Code::BadJson, "{body}");
            assert!(fault.message.contains("line "), "{}", fault.message);
            assert!(!fault.message.contains("secret"), "{}", fault.message);
        }
        assert_eq!(inspect(Protocol::Chat, b"\xff").map_err(|fault| fault.code), Err(Code::BadJson));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize, text: &str| {
            let lists = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!(r#"{{"model":"m","messages":{}"{text}"{}}}"#, lists.0, lists.1)
        };
        for (depth, text) in [(2, "x"), (JSON_DEPTH_MAX, "x"), (JSON_DEPTH_MAX, r#"\"[{"#)] {
            let body = nested(depth, &text.repeat(200));
            assert!(inspect(Protocol::Chat, body.as_bytes()).is_ok(), "{depth}");
        }
        for depth in [JSON_DEPTH_MAX + 1, 1_000_000] {
            let fault = inspect(Protocol::Chat, nested(depth, "x").as_bytes()).expect_err("too deep");
            assert_eq!(fault.code, Code::BadJson);
            assert!(fault.message.contains("128"), "{}", fault.message);
        }
        let wide = format!(r#"{{"model":"m","messages":[{}[]]}}"#, "[],".repeat(1_000));
        assert!(inspect(Protocol::Chat, wide.as_bytes()).is_ok());
    }

    #[test]
    fn of_two_limits_the_larger_counts() {
        for (limits, max) in [
            (r#""max_tokens":5,"max_completion_tokens":9"#, Some(Tokens(9))),
            (r#""max_tokens":50,"max_completion_tokens":9"#, Some(Tokens(50))),
            (r#""max_tokens":5,"max_completion_tokens":null"#, Some(Tokens(5))),
            (r#""max_tokens":null"#, None),
        ] {
            let body = format!(r#"{{"model":"m","messages":[],{limits}}}"#);
            assert_eq!(inspect(Protocol::Chat, body.as_bytes()).expect("good").output_max, max, "{limits}");
        }
    }

    #[test]
    fn the_prompt_is_bounded_by_its_bytes() {
        let body = r#"{"model":"a long name that is no prompt","prompt":"!!!!"}"#;
        let seen = inspect(Protocol::Completions, body.as_bytes()).expect("good");
        assert_eq!((seen.prompt_tokens, seen.prompt_max), (Tokens(2), Tokens(6)));
    }

    #[test]
    fn the_next_turn_shares_the_prefix_of_the_last() {
        let turn =
            |role: &str, char: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, char.repeat(5_000));
        let body = |turns: &[String]| format!(r#"{{"messages":[{}],"model":"m"}}"#, turns.join(","));
        let first = inspect(Protocol::Chat, body(&[turn("user", "a")]).as_bytes()).expect("good");
        let second = inspect(Protocol::Chat, body(&[turn("user", "a"), turn("assistant", "b")]).as_bytes())
            .expect("good");
        assert_eq!(first.prefix.len(), 2);
        assert_eq!(first.prefix[..], second.prefix[..2]);
        assert!(second.prefix.len() > 2);
    }
}
