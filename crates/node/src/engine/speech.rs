//! What the simulated model says: a list of pieces, one to a token, in blocks of text
//! or tool calls.

use seawall_load::prefix::digest;
use seawall_load::rng::Rng;
use seawall_load::script::{Answer, Ask, Choice};
use seawall_load::words;
use seawall_model::{Finish, limits};
use serde_json::{Value, json};

use super::control::Controls;
use super::json::escape;
use super::settings::Settings;
use super::wish::{Pick, Wish};

/// One block of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Text.
    Text,
    /// A tool call; its arguments are JSON text.
    Call {
        /// The tool.
        name: String,
        /// The arguments, whole.
        arguments: String,
    },
}

#[derive(Clone, Debug)]
enum Said {
    /// Words drawn by seed, each `token_bytes` long if given.
    Words { seed: u64, tokens: u32, token_bytes: Option<usize> },
    /// Pieces already escaped for JSON, each in its block.
    Pieces(Vec<(usize, String)>),
}

/// All that one answer says. Every choice of `n` says the same number of tokens.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    said: Said,
    pub(super) blocks: Vec<Block>,
    pub(super) finish: Finish,
    /// The stop sequence that ended it.
    pub(super) stopped_at: Option<String>,
    /// Hidden tokens before the first piece.
    pub(super) reasoning: u32,
}

/// Bytes of tool-call arguments in one piece.
const ARGUMENT_BYTES: usize = 16;

impl Speech {
    /// Decides what to say.
    pub(super) fn compose(settings: &Settings, wish: &Wish, controls: &Controls) -> Self {
        let seed = digest(settings.options.seed ^ wish.seed, &wish.prompt);
        let answer = match &controls.reply {
            Some(reply) => Answer::Text(reply.clone()),
            None => decide(settings, wish),
        };
        let most = wish.output_max.unwrap_or(limits::SIM_OUTPUT_MAX).clamp(1, limits::SIM_OUTPUT_MAX);
        let mut speech = match (answer, &wish.schema) {
            (Answer::Calls(calls), _) => {
                let blocks =
                    calls.into_iter().map(|call| Block::Call { name: call.name, arguments: call.arguments });
                Self::calls(blocks.collect())
            }
            (Answer::Text(text), _) => Self::text(&text, most),
            (Answer::Words, Some(schema)) => Self::text(&example(schema).to_string(), most),
            (Answer::Words, None) => {
                let wanted =
                    controls.output.unwrap_or_else(|| settings.lengths.sample(&mut Rng::branch(seed, 1)).0);
                let tokens = u32::try_from(wanted.clamp(1, most)).unwrap_or(u32::MAX);
                let finish = if wanted > most { Finish::Length } else { Finish::Stop };
                if wish.stop.is_empty() {
                    let said = Said::Words { seed, tokens, token_bytes: controls.token_bytes };
                    Self { said, blocks: vec![Block::Text], finish, stopped_at: None, reasoning: 0 }
                } else {
                    let mut speech = Self::text(&words::text(seed, tokens), most);
                    speech.finish = finish;
                    speech
                }
            }
        };
        speech.stop_at(&wish.stop);
        speech.reasoning = u32::try_from(controls.reasoning).unwrap_or(u32::MAX);
        speech
    }

    fn text(text: &str, most: u64) -> Self {
        let all = words::split(text);
        let finish = if all.len() as u64 > most { Finish::Length } else { Finish::Stop };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let pieces = all.into_iter().take(most).map(|piece| (0, escaped(piece))).collect();
        Self { said: Said::Pieces(pieces), blocks: vec![Block::Text], finish, stopped_at: None, reasoning: 0 }
    }

    fn calls(blocks: Vec<Block>) -> Self {
        let mut pieces = Vec::new();
        for (at, block) in blocks.iter().enumerate() {
            let Block::Call { arguments, .. } = block else {
                continue;
            };
            let mut rest = arguments.as_str();
            while !rest.is_empty() {
                let end = (ARGUMENT_BYTES.min(rest.len())..=rest.len())
                    .find(|end| rest.is_char_boundary(*end))
                    .unwrap_or(rest.len());
                pieces.push((at, escaped(&rest[..end])));
                rest = &rest[end..];
            }
        }
        Self { said: Said::Pieces(pieces), blocks, finish: Finish::Tools, stopped_at: None, reasoning: 0 }
    }

    /// Ends the text before the first stop sequence in it. Whole pieces only: real
    /// engines cut finer, callers cannot tell.
    fn stop_at(&mut self, stops: &[String]) {
        let Said::Pieces(pieces) = &mut self.said else {
            return;
        };
        if self.finish == Finish::Tools || stops.is_empty() {
            return;
        }
        let wanted: Vec<String> = stops.iter().map(|stop| escaped(stop)).collect();
        let mut text = String::new();
        for at in 0..pieces.len() {
            text.push_str(&pieces[at].1);
            let found = wanted
                .iter()
                .enumerate()
                .filter_map(|(which, stop)| Some((text.find(stop.as_str())?, which)));
            if let Some((_, which)) = found.min() {
                pieces.truncate(at);
                self.finish = Finish::Stop;
                self.stopped_at = Some(stops[which].clone());
                return;
            }
        }
    }

    /// Pieces in one choice; zero when a stop sequence came first.
    pub(super) fn len(&self) -> u32 {
        match &self.said {
            Said::Words { tokens, .. } => *tokens,
            Said::Pieces(pieces) => u32::try_from(pieces.len()).unwrap_or(u32::MAX),
        }
    }

    /// Tokens of one choice as the model counts them: hidden ones too, and one at least.
    pub(super) fn tokens(&self) -> u32 {
        self.len().max(1).saturating_add(self.reasoning)
    }

    /// The block of a piece.
    pub(super) fn block(&self, index: u32) -> usize {
        match &self.said {
            Said::Words { .. } => 0,
            Said::Pieces(pieces) => pieces[index as usize].0,
        }
    }

    /// Appends a piece, escaped for JSON. `choice` varies the words.
    pub(super) fn push(&self, out: &mut Vec<u8>, choice: u32, index: u32) {
        match &self.said {
            Said::Words { token_bytes: Some(bytes), .. } => out.resize(out.len() + bytes, b'x'),
            Said::Words { seed, .. } => {
                let (space, word) = words::token(seed.wrapping_add(u64::from(choice)), index);
                out.extend_from_slice(space.as_bytes());
                out.extend_from_slice(word.as_bytes());
            }
            Said::Pieces(pieces) => out.extend_from_slice(pieces[index as usize].1.as_bytes()),
        }
    }

    /// Appends all pieces of a block, escaped for JSON.
    pub(super) fn push_block(&self, out: &mut Vec<u8>, choice: u32, block: usize) {
        for index in 0..self.len() {
            if self.block(index) == block {
                self.push(out, choice, index);
            }
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    escape(&mut out, text);
    String::from_utf8(out).expect("escaping text gives text")
}

fn decide(settings: &Settings, wish: &Wish) -> Answer {
    if wish.tools.is_empty() && !settings.scripted {
        return Answer::Words;
    }
    settings.script.answer(&Ask {
        tools: &wish.tools,
        choice: match &wish.pick {
            Pick::Auto => Choice::Auto,
            Pick::None => Choice::None,
            Pick::Required => Choice::Required,
            Pick::Named(name) => Choice::Named(name),
        },
        first: &wish.first,
        last: &wish.last,
        answers: wish.answers,
        after_tool: wish.after_tool,
    })
}

/// The smallest value that fits a JSON schema, as far as schemas are commonly used.
pub(super) fn example(schema: &Value) -> Value {
    example_in(schema, schema, &mut { limits::SIM_EXAMPLE_VALUES_MAX }, 0)
}

fn example_in(schema: &Value, root: &Value, room: &mut u32, depth: u32) -> Value {
    if *room == 0 || depth > 16 {
        return Value::Null;
    }
    *room -= 1;
    if let Some(path) = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        return root.pointer(path).map_or(Value::Null, |schema| example_in(schema, root, room, depth + 1));
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    for list in ["enum", "examples"] {
        if let Some(first) = schema[list].get(0) {
            return first.clone();
        }
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[list].get(0) {
            return example_in(first, root, room, depth + 1);
        }
    }
    match schema["type"].as_str().or_else(|| schema["type"][0].as_str()) {
        Some("string") => json!("text"),
        Some("integer") => schema["minimum"].as_i64().map_or(json!(1), Value::from),
        Some("number") => schema["minimum"].as_f64().map_or(json!(1.0), Value::from),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") => {
            let items = schema["minItems"].as_u64().unwrap_or(1).min(8);
            (0..items).map(|_| example_in(&schema["items"], root, room, depth + 1)).collect()
        }
        _ => {
            let names = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
            let fields = names.iter().filter_map(Value::as_str).map(|name| {
                let field = &schema["properties"][name];
                let value =
                    if field.is_null() { json!("text") } else { example_in(field, root, room, depth + 1) };
                (name.to_owned(), value)
            });
            Value::Object(fields.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::Protocol;

    use super::super::settings::Options;
    use super::*;

    fn say(body: &str, controls: &Controls) -> (Speech, String) {
        let settings = Settings::check(Options::default()).expect("valid");
        let wish = Wish::read(Protocol::Chat, body.as_bytes(), false).expect("valid");
        let speech = Speech::compose(&settings, &wish, controls);
        let mut out = Vec::new();
        speech.push_block(&mut out, 0, 0);
        (speech, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn lengths_are_honoured_and_the_same_prompt_says_the_same() {
        let body = r#"{"model":"m","messages":[],"max_tokens":7}"#;
        let many = Controls { output: Some(20), ..Controls::default() };
        let (speech, text) = say(body, &many);
        assert_eq!((speech.len(), speech.finish), (7, Finish::Length));
        assert_eq!(text, say(body, &many).1);
        let few = Controls { output: Some(3), ..Controls::default() };
        assert_eq!((say(body, &few).0.len(), say(body, &few).0.finish), (3, Finish::Stop));
        let fat = Controls { output: Some(3), token_bytes: Some(10), ..Controls::default() };
        assert_eq!(say(body, &fat).1, "x".repeat(30));
    }

    #[test]
    fn stop_sequences_end_the_text() {
        let reply = Controls { reply: Some("one two END three".into()), ..Controls::default() };
        let (speech, text) = say(r#"{"model":"m","messages":[],"stop":["three","END"]}"#, &reply);
        assert_eq!((text.as_str(), speech.finish), ("one two", Finish::Stop));
        assert_eq!(speech.stopped_at.as_deref(), Some("END"));
        let (speech, _) = say(r#"{"model":"m","messages":[],"stop":"one"}"#, &reply);
        assert_eq!((speech.len(), speech.tokens()), (0, 1));
    }

    #[test]
    fn calls_come_in_pieces_that_make_up_the_arguments() {
        let body = r#"{"model":"m","tools":[{"name":"f"}],"messages":[{"role":"user","content":
            "call f {\"city\":\"Zürich and many more places\"}"}]}"#;
        let (speech, text) = say(body, &Controls::default());
        assert_eq!(speech.finish, Finish::Tools);
        assert!(speech.len() > 1);
        let back: String = serde_json::from_str(&format!("\"{text}\"")).expect("escaped");
        assert_eq!(back, r#"{"city":"Zürich and many more places"}"#);
    }

    #[test]
    fn examples_fit_their_schemas() {
        let schema = json!({"$defs": {"P": {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}},
            "type": "object", "required": ["p", "kind", "tags", "loop"], "properties": {"p": {"$ref": "#/$defs/P"},
            "kind": {"enum": ["a", "b"]}, "tags": {"type": "array", "items": {"type": "string"}}, "loop": {"$ref": "#"}}});
        let value = example(&schema);
        assert_eq!(value["p"], json!({"x": 1}));
        assert_eq!((&value["kind"], &value["tags"]), (&json!("a"), &json!(["text"])));
        assert!(value["loop"].is_object());
    }
}
