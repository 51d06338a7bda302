//! A chat request, put together from kept messages.

use std::borrow::Cow;

use seawall_model::{Code, Fault, Tokens};
use serde_json::value::RawValue;

use super::message::{Message, kept};
use crate::json;
use crate::writer::{self, Writer};

/// A tool on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name: letters, digits, `_` and `-`, at most 64.
    pub name: &'a str,
    /// What it is for.
    pub about: &'a str,
    /// JSON Schema of its arguments, as JSON text.
    pub schema: &'a str,
}

/// Which tools the model may call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// As it likes.
    #[default]
    Auto,
    /// None: it must answer.
    Never,
}

/// The shape that the answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format<'a> {
    /// A name for it.
    pub name: &'a str,
    /// JSON Schema, as JSON text.
    pub schema: &'a str,
}

/// A request to be written.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The model's alias.
    pub model: &'a str,
    /// Kept messages, in order.
    pub messages: Vec<Cow<'a, [u8]>>,
    /// Tools on offer.
    pub tools: Vec<Function<'a>>,
    /// Which of them may be called.
    pub pick: Pick,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Longest answer.
    pub output_max: Option<Tokens>,
    /// Shape of the answer.
    pub format: Option<Format<'a>>,
}

/// The JSON of a request.
///
/// # Errors
/// `internal` where a kept message or a schema is no JSON, which names the message.
pub fn written(request: &Request<'_>) -> Result<Vec<u8>, Fault> {
    let mut messages = Vec::with_capacity(request.messages.len());
    for (at, bytes) in request.messages.iter().enumerate() {
        let broken = |_| Fault::new(Code::Internal, format!("Message {at} of the agent's state is broken."));
        messages.push(sendable(bytes).map_err(broken)?);
    }
    let schemas = request.tools.iter().map(|tool| (tool.name, tool.schema));
    let schemas = schemas.chain(request.format.iter().map(|format| (format.name, format.schema)));
    for (name, schema) in schemas {
        if serde_json::from_str::<&RawValue>(schema).is_err() {
            return Err(Fault::new(Code::Internal, format!("The schema of {name} is no JSON.")));
        }
    }
    Ok(writer::written(|w| {
        w.open().field("model", request.model).key("messages").open_list();
        for message in &messages {
            w.raw(message);
        }
        w.close_list();
        write_tools(w, request);
        if let Some(temperature) = request.temperature {
            w.key("temperature").number(temperature);
        }
        if let Some(top_p) = request.top_p {
            w.key("top_p").number(top_p);
        }
        if let Some(max) = request.output_max {
            w.key("max_tokens").count(max.0);
        }
        if let Some(format) = &request.format {
            w.key("response_format").open().field("type", "json_schema").key("json_schema").open();
            w.field("name", format.name).carry("schema", format.schema).close().close();
        }
        w.close();
    }))
}

fn write_tools(w: &mut Writer<'_>, request: &Request<'_>) {
    if request.tools.is_empty() {
        return;
    }
    w.key("tools").open_list();
    for tool in &request.tools {
        w.open().field("type", "function").key("function").open().field("name", tool.name);
        if !tool.about.is_empty() {
            w.field("description", tool.about);
        }
        w.carry("parameters", tool.schema).close().close();
    }
    w.close_list();
    if request.pick == Pick::Never {
        w.field("tool_choice", "none");
    }
}

/// A kept message as it is sent: itself, unless it is the whole body of an answer.
fn sendable(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    let object = json::body(bytes)?;
    if object.find("choices").is_none() && object.find("role").is_some() {
        return json::utf8(bytes).map(Cow::Borrowed);
    }
    let message: Message = kept(bytes)?;
    let text = String::from_utf8(message.json()).map_err(|_| Fault::plain(Code::Internal))?;
    Ok(Cow::Owned(text))
}
