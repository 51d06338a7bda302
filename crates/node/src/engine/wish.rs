//! What a generating request wants, whatever its protocol: read from the body just as
//! far as the answer depends on it.

use std::borrow::Cow;

use seawall_load::script::Tool;
use seawall_model::{Protocol, limits};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::speech::example;

/// A tool choice that owns its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pick {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// A generating request.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) protocol: Protocol,
    /// As sent, with its suffix.
    pub(super) model: String,
    pub(super) stream: bool,
    /// Usage at the end of the stream, for the protocols that ask for it.
    pub(super) stream_usage: bool,
    pub(super) output_max: Option<u64>,
    pub(super) stop: Vec<String>,
    pub(super) choices: u32,
    pub(super) seed: u64,
    /// The prompt's raw JSON: measured and hashed, not understood.
    pub(super) prompt: Vec<u8>,
    pub(super) tools: Vec<Tool>,
    pub(super) pick: Pick,
    /// The schema that the answer must fit, or any object.
    pub(super) schema: Option<Value>,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) answers: usize,
    pub(super) after_tool: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// The union of the fields that matter, over all protocols.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    stop_sequences: Option<Vec<String>>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    output_config: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Wish {
    /// Reads a body. `scripted` asks for the conversation too, which a script looks at.
    ///
    /// # Errors
    /// Says what is wrong, for a 400.
    pub(super) fn read(protocol: Protocol, body: &[u8], scripted: bool) -> Result<Self, String> {
        let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let (name, said) = match protocol {
            Protocol::Completions => ("prompt", fields.prompt),
            Protocol::Responses => ("input", fields.input),
            _ => ("messages", fields.messages),
        };
        let said = said.ok_or_else(|| format!("`{name}` is required"))?.get();
        if matches!(protocol, Protocol::Chat | Protocol::Messages | Protocol::CountTokens)
            && !said.starts_with('[')
        {
            return Err(format!("`{name}` must be a list"));
        }
        if protocol == Protocol::Messages && fields.max_tokens.is_none() {
            return Err("`max_tokens` is required".into());
        }
        let choices = fields.n.unwrap_or(1);
        if !(1..=limits::SIM_CHOICES_MAX).contains(&choices) {
            return Err(format!("`n` must lie between 1 and {}", limits::SIM_CHOICES_MAX));
        }
        let before = fields.system.or(fields.instructions).map_or("", RawValue::get);
        let mut prompt = Vec::with_capacity(before.len() + said.len());
        prompt.extend_from_slice(before.as_bytes());
        prompt.extend_from_slice(said.as_bytes());
        let mut stop = fields.stop.map(OneOrMany::into_vec).or(fields.stop_sequences).unwrap_or_default();
        stop.retain(|stop| !stop.is_empty());
        let mut wish = Self {
            protocol,
            model: fields.model.into_owned(),
            stream: fields.stream.unwrap_or(false),
            stream_usage: fields.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            output_max: fields.max_completion_tokens.or(fields.max_tokens).or(fields.max_output_tokens),
            stop,
            choices: u32::try_from(choices).unwrap_or(1),
            seed: fields.seed.map_or(0, i64::cast_unsigned),
            prompt,
            tools: fields.tools.map(tools).transpose()?.unwrap_or_default(),
            pick: fields.tool_choice.map(pick).transpose()?.unwrap_or_default(),
            schema: match protocol {
                Protocol::Chat => fields.response_format.map(format).transpose()?.flatten(),
                Protocol::Responses => fields.text.map(format).transpose()?.flatten(),
                Protocol::Messages => fields.output_config.map(format).transpose()?.flatten(),
                _ => None,
            },
            first: String::new(),
            last: String::new(),
            answers: 0,
            after_tool: false,
        };
        if (scripted || !wish.tools.is_empty()) && protocol != Protocol::Completions {
            wish.listen(said)?;
        }
        Ok(wish)
    }

    /// Reads the conversation.
    fn listen(&mut self, said: &str) -> Result<(), String> {
        let said: Value = serde_json::from_str(said).map_err(|error| error.to_string())?;
        let Value::Array(items) = &said else {
            self.hear(&words(&said));
            return Ok(());
        };
        for item in items {
            let role = item["role"].as_str().or_else(|| item["type"].as_str()).unwrap_or_default();
            let results = item["content"]
                .as_array()
                .is_some_and(|parts| parts.iter().any(|part| part["type"] == "tool_result"));
            match role {
                "tool" | "function" | "function_call_output" => self.after_tool = true,
                _ if results => self.after_tool = true,
                "user" => self.hear(&words(&item["content"])),
                // Parallel calls of one answer stand in a row as items of their own.
                "function_call" if self.after_tool || self.answers == 0 => self.reply(),
                "assistant" => self.reply(),
                _ => {}
            }
        }
        Ok(())
    }

    fn hear(&mut self, text: &str) {
        if self.first.is_empty() {
            self.first = text.into();
        }
        self.last = text.into();
        self.after_tool = false;
    }

    fn reply(&mut self) {
        self.answers += 1;
        self.after_tool = false;
    }
}

/// The text of a content: a string, or the text parts of a list.
fn words(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// The tools of a request: OpenAI's chat shape, its flat responses shape, Anthropic's.
fn tools(raw: &RawValue) -> Result<Vec<Tool>, String> {
    let tools: Vec<Value> =
        serde_json::from_str(raw.get()).map_err(|_| "`tools` must be a list".to_owned())?;
    let named = tools.iter().filter_map(|tool| {
        let inner = if tool["function"].is_object() { &tool["function"] } else { tool };
        let schema =
            if inner["parameters"].is_object() { &inner["parameters"] } else { &inner["input_schema"] };
        // A built-in tool of a provider has a type but no name: the model never calls it here.
        let name = inner["name"].as_str()?.to_owned();
        Some(Tool { name, arguments: example(schema).to_string() })
    });
    Ok(named.collect())
}

fn pick(raw: &RawValue) -> Result<Pick, String> {
    let pick: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let kind = pick.as_str().or_else(|| pick["type"].as_str()).unwrap_or("auto");
    let name = pick["name"].as_str().or_else(|| pick["function"]["name"].as_str());
    Ok(match (kind, name) {
        (_, Some(name)) => Pick::Named(name.into()),
        ("none", _) => Pick::None,
        ("required" | "any", _) => Pick::Required,
        _ => Pick::Auto,
    })
}

/// The schema in a `response_format`, `text` or `output_config`.
fn format(raw: &RawValue) -> Result<Option<Value>, String> {
    let mut format: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    if format["format"].is_object() {
        format = format["format"].take();
    }
    Ok(match format["type"].as_str() {
        Some("json_schema") if format["json_schema"].is_object() => {
            Some(format["json_schema"]["schema"].take())
        }
        Some("json_schema") => Some(format["schema"].take()),
        Some("json_object") => Some(Value::Null),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_is_read_as_far_as_needed() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stop":"x",
            "stream":true,"stream_options":{"include_usage":true},"unknown":{"a":1}}"#;
        let wish = Wish::read(Protocol::Chat, body, true).expect("valid");
        assert!(wish.stream && wish.stream_usage);
        assert_eq!((wish.output_max, wish.stop.as_slice()), (Some(5), &["x".to_owned()][..]));
        assert_eq!((wish.first.as_str(), wish.last.as_str()), ("hi", "hi"));
    }

    #[test]
    fn tools_and_turns_are_read_in_every_shape() {
        let chat = br#"{"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":
            {"type":"object","properties":{"q":{"type":"string"}},"required":["q"]}}}],
            "tool_choice":{"type":"function","function":{"name":"f"}},"messages":[{"role":"user","content":"a"},
            {"role":"assistant","tool_calls":[]},{"role":"tool","content":"r"}]}"#;
        let wish = Wish::read(Protocol::Chat, chat, false).expect("valid");
        assert_eq!(wish.pick, Pick::Named("f".into()));
        assert_eq!(
            (wish.tools[0].arguments.as_str(), wish.answers, wish.after_tool),
            (r#"{"q":"text"}"#, 1, true)
        );
        let messages = br#"{"model":"m","max_tokens":9,"tools":[{"name":"f","input_schema":{"type":"object"}}],
            "tool_choice":{"type":"any"},"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},
            {"role":"assistant","content":"b"},{"role":"user","content":[{"type":"tool_result","content":"r"}]}]}"#;
        let wish = Wish::read(Protocol::Messages, messages, false).expect("valid");
        assert_eq!((wish.pick.clone(), wish.first.as_str(), wish.after_tool), (Pick::Required, "a", true));
        let responses =
            br#"{"model":"m","tools":[{"type":"function","name":"f"}],"input":[{"role":"user","content":"a"},
            {"type":"function_call","name":"f"},{"type":"function_call","name":"f"},
            {"type":"function_call_output","output":"r"}]}"#;
        let wish = Wish::read(Protocol::Responses, responses, false).expect("valid");
        assert_eq!((wish.answers, wish.after_tool), (1, true));
    }

    #[test]
    fn wrong_bodies_are_refused() {
        let refused = |protocol, body: &str| Wish::read(protocol, body.as_bytes(), false).expect_err(body);
        assert!(refused(Protocol::Chat, "{").contains("EOF"));
        assert!(refused(Protocol::Chat, r#"{"model":"m"}"#).contains("messages"));
        assert!(refused(Protocol::Chat, r#"{"model":"m","messages":"x"}"#).contains("list"));
        assert!(refused(Protocol::Chat, r#"{"messages":[]}"#).contains("model"));
        assert!(refused(Protocol::Chat, r#"{"model":"m","messages":[],"n":0}"#).contains("`n`"));
        assert!(refused(Protocol::Messages, r#"{"model":"m","messages":[]}"#).contains("max_tokens"));
    }
}
