//! The neutral middle of translation: what a request asks, what an answer says and how
//! a stream unfolds, in words that belong to no protocol. Each protocol only knows how
//! to turn itself into these and back, so that four of them need four files, not twelve.

use seawall_model::{Fault, Finish, Usage};

use crate::json::{self, Object, Raw};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The operator: system and developer prompts.
    System,
    User,
    Assistant,
}

/// Where a picture or file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Inline { media: String, base64: String },
    Url(String),
}

/// A piece of what is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Image {
        source: Source,
        detail: Option<String>,
    },
    File {
        name: Option<String>,
        source: Source,
    },
    /// The assistant calls a tool. `arguments` is JSON text as the model wrote it.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
    /// What a tool returned: text and images.
    Outcome {
        id: String,
        parts: Vec<Part>,
        failed: bool,
    },
    /// Reasoning in the open. The seal is what its provider needs to accept it back.
    Thinking {
        text: String,
        seal: Option<String>,
    },
    /// Reasoning that only its provider can read.
    Redacted(String),
    Refusal(String),
}

/// One speaker's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) parts: Vec<Part>,
}

/// A tool on offer. `schema` is JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) about: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) strict: Option<bool>,
}

/// Which tools may or must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Auto,
    Never,
    Must,
    Named(String),
}

/// What the answer's text must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Json,
    /// JSON of this schema (JSON text).
    Schema { name: String, about: Option<String>, schema: String, strict: Option<bool> },
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) pick: Option<Pick>,
    pub(crate) parallel: Option<bool>,
    pub(crate) output_max: Option<u64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<u64>,
    pub(crate) presence: Option<f64>,
    pub(crate) frequency: Option<f64>,
    /// JSON text, not empty.
    pub(crate) logit_bias: Option<String>,
    /// JSON text.
    pub(crate) seed: Option<String>,
    pub(crate) stop: Vec<String>,
    /// What the client calls the field behind `stop`.
    pub(crate) stop_field: &'static str,
    pub(crate) format: Format,
    /// What the client calls the field behind `format`.
    pub(crate) format_field: &'static str,
    pub(crate) effort: Option<String>,
    pub(crate) verbosity: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) stream: bool,
    /// The client asked for a usage chunk.
    pub(crate) include_usage: bool,
    /// Fields of the request that the client's protocol repeats in its answer.
    pub(crate) echo: Vec<(&'static str, String)>,
}

impl Ask {
    /// Refuses sampling controls that the target does not have. Their neutral values
    /// have been dropped while reading.
    pub(crate) fn refuse_sampling(&self) -> Result<(), Fault> {
        for (name, set) in [
            ("presence_penalty", self.presence.is_some()),
            ("frequency_penalty", self.frequency.is_some()),
            ("logit_bias", self.logit_bias.is_some()),
        ] {
            if set {
                return Err(json::untranslatable(name, "has no counterpart in the engine's protocol"));
            }
        }
        Ok(())
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) parts: Vec<Part>,
    pub(crate) finish: Finish,
    /// The stop sequence that was hit, where the engine tells.
    pub(crate) stopped_by: Option<String>,
    pub(crate) usage: Option<Usage>,
}

impl Answer {
    /// The finish, set right: servers that call tools but report a plain stop exist.
    pub(crate) fn settled(mut self) -> Self {
        let calls = self.parts.iter().any(|part| matches!(part, Part::Call { .. }));
        if calls && self.finish == Finish::Stop {
            self.finish = Finish::Tools;
        }
        self
    }

    /// All text, joined.
    pub(crate) fn text(&self) -> Option<String> {
        join_text(&self.parts, "")
    }
}

/// One step of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delta {
    /// The engine has begun.
    Start,
    Text(String),
    Refusal(String),
    Thinking(String),
    /// The seal of the thinking so far.
    Seal(String),
    Redacted(String),
    /// A tool call begins. Calls are numbered from zero.
    Call {
        at: usize,
        id: String,
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        at: usize,
        text: String,
    },
    /// A block of the answer has ended.
    Break,
    Usage(Usage),
    Finish {
        finish: Finish,
        stopped_by: Option<String>,
    },
    /// The engine is still there.
    Ping,
    /// All has been said.
    Done,
}

/// The text parts joined; none if there are none.
pub(crate) fn join_text(parts: &[Part], between: &str) -> Option<String> {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join(between))
}

/// Reads a URL that may be `data:`.
pub(crate) fn source(url: String, param: &str) -> Result<Source, Fault> {
    let Some(inline) = url.strip_prefix("data:") else {
        return Ok(Source::Url(url));
    };
    match inline.split_once(";base64,") {
        Some((media, base64)) => {
            let media = media.split(';').next().unwrap_or_default();
            Ok(Source::Inline { media: media.to_owned(), base64: base64.to_owned() })
        }
        None => Err(json::bad(param, "must be an http(s) URL or a base64 data URL")),
    }
}

/// How closely to look at a picture, where that is not left to the model.
pub(crate) fn detail(detail: Option<String>) -> Option<String> {
    detail.filter(|detail| detail != "auto")
}

/// A source as a URL.
pub(crate) fn url(source: &Source) -> String {
    match source {
        Source::Inline { media, base64 } => format!("data:{media};base64,{base64}"),
        Source::Url(url) => url.clone(),
    }
}

/// Arguments as a JSON object's text. Models do write broken JSON, and clients send it
/// back as history: it is wrapped, so that the conversation can go on.
pub(crate) fn arguments_object(arguments: &str) -> String {
    let text = arguments.trim();
    if text.is_empty() {
        return "{}".to_owned();
    }
    match serde_json::from_str::<Raw<'_>>(text) {
        Ok(raw) if raw.get().starts_with('{') => raw.get().to_owned(),
        _ => {
            let mut out = br#"{"arguments":"#.to_vec();
            crate::writer::quote(arguments, &mut out);
            out.push(b'}');
            String::from_utf8(out).expect("written from a string")
        }
    }
}

/// A string or list of strings.
pub(crate) fn strings(object: &Object<'_>, name: &str) -> Result<Vec<String>, Fault> {
    let Some(raw) = object.find(name) else {
        return Ok(Vec::new());
    };
    if json::is_text(raw) {
        return Ok(object.text(name)?.into_iter().collect());
    }
    let items = object.list(name)?.unwrap_or_default();
    json::each(name, &items, |item| json::text(item).ok_or_else(|| item_fault("must be a string")))
}

/// A fault of a list's item itself; [`json::each`] names it.
pub(crate) fn item_fault(must: &str) -> Fault {
    Fault::new(seawall_model::Code::BadField, format!("An item {must}."))
}

/// Appends a turn, to the last one if the same speaker goes on.
pub(crate) fn say(turns: &mut Vec<Turn>, role: Role, parts: Vec<Part>) {
    match turns.last_mut() {
        Some(last) if last.role == role => last.parts.extend(parts),
        _ => turns.push(Turn { role, parts }),
    }
}

/// A number that differs from the value that means nothing.
pub(crate) fn unless(number: Option<f64>, neutral: f64) -> Option<f64> {
    number.filter(|number| (number - neutral).abs() > f64::EPSILON)
}

/// The text of a field's value, if it is there.
pub(crate) fn carried(object: &Object<'_>, name: &str) -> Option<String> {
    object.find(name).map(|raw| raw.get().to_owned())
}
