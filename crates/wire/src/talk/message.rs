//! One message of a conversation, as it is kept and sent.

use seawall_model::Fault;
use serde::de::IgnoredAny;

use super::answer::Answer;
use crate::json::{self, Object, bad};
use crate::writer::{Writer, written};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever wrote the agent's instructions.
    System,
    /// Whoever gives it tasks and sends it messages.
    User,
    /// The model.
    Assistant,
    /// A tool.
    Tool,
}

impl Role {
    /// The word in the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A tool that the model wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// What its result is named by. Unique in its message and never empty, whatever the
    /// engine sent.
    pub id: String,
    /// The function's name, as it was offered.
    pub name: String,
    /// Its arguments: JSON text as the model wrote it, which may be no JSON at all.
    pub arguments: String,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
    /// Tools that the model wants called; empty for all others.
    pub calls: Vec<ToolCall>,
    /// The call that a tool answers; empty for all others.
    pub call: String,
}

impl Message {
    /// Somebody says something.
    #[must_use]
    pub fn said(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), calls: Vec::new(), call: String::new() }
    }

    /// A tool answers a call.
    #[must_use]
    pub fn outcome(call: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: Role::Tool, text: text.into(), calls: Vec::new(), call: call.into() }
    }

    /// The JSON in which it is kept and sent.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        written(|w| self.write(w))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.open().field("role", self.role.as_str());
        if self.calls.is_empty() {
            w.field("content", &self.text);
        } else {
            w.key("content").text_or_null(Some(self.text.as_str()).filter(|text| !text.is_empty()));
            w.key("tool_calls").open_list();
            for call in &self.calls {
                w.open().field("id", &call.id).field("type", "function").key("function").open();
                w.field("name", &call.name).field("arguments", sound(&call.arguments)).close().close();
            }
            w.close_list();
        }
        if self.role == Role::Tool {
            w.field("tool_call_id", &self.call);
        }
        w.close();
    }

    /// Reads what [`Self::json`] wrote, or any message of text.
    ///
    /// # Errors
    /// `bad_json` and `bad_field` for what is no message.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        Self::of(&json::body(bytes)?)
    }

    fn of(object: &Object<'_>) -> Result<Self, Fault> {
        let role = match object.need_text("role")?.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => return Err(bad("role", "must be system, user, assistant or tool")),
        };
        let text = read_text(object)?;
        let calls = object.list("tool_calls")?.unwrap_or_default();
        let mut calls = json::each("tool_calls", &calls, |raw| read_call(&json::object(raw)?))?;
        name_calls(&mut calls);
        let call = object.text("tool_call_id")?.unwrap_or_default();
        Ok(Self { role, text, calls, call })
    }

    /// As [`Self::read`], for the message of an engine's answer, which may leave out its role.
    pub(super) fn answered(object: &Object<'_>) -> Result<Self, Fault> {
        let calls = object.list("tool_calls")?.unwrap_or_default();
        let mut calls = json::each("tool_calls", &calls, |raw| read_call(&json::object(raw)?))?;
        name_calls(&mut calls);
        Ok(Self { role: Role::Assistant, text: read_text(object)?, calls, call: String::new() })
    }
}

/// Arguments as they may be sent back: chat templates parse them, and one that a model
/// broke must not make the whole conversation unusable.
fn sound(arguments: &str) -> &str {
    let object = arguments.trim_start().starts_with('{');
    if object && serde_json::from_str::<IgnoredAny>(arguments).is_ok() { arguments } else { "{}" }
}

/// The text of a message: a string, or the texts of its parts joined.
fn read_text(object: &Object<'_>) -> Result<String, Fault> {
    let Some(raw) = object.find("content") else {
        return Ok(String::new());
    };
    if let Some(text) = json::text(raw) {
        return Ok(text);
    }
    let items = json::items(raw).ok_or_else(|| bad("content", "must be a string or a list of parts"))?;
    let parts = json::each("content", &items, |raw| Ok(json::object(raw)?.hint("text").unwrap_or_default()))?;
    Ok(parts.concat())
}

fn read_call(call: &Object<'_>) -> Result<ToolCall, Fault> {
    let function = call.need_inner("function")?;
    let arguments = match function.find("arguments") {
        // Some servers send the object itself instead of its text.
        Some(raw) if !json::is_text(raw) => raw.get().to_owned(),
        _ => function.hint("arguments").unwrap_or_default(),
    };
    Ok(ToolCall {
        id: call.hint("id").unwrap_or_default(),
        name: function.hint("name").unwrap_or_default(),
        arguments,
    })
}

/// Gives calls without an id, or with that of another, one of their own. The same message
/// is given the same ids whenever it is read.
fn name_calls(calls: &mut [ToolCall]) {
    for at in 0..calls.len() {
        let (before, rest) = calls.split_at_mut(at);
        let id = &mut rest[0].id;
        if id.is_empty() || before.iter().any(|call| call.id == *id) {
            let free = (at..).map(|number| format!("call_{number}"));
            let mut free = free.filter(|name| before.iter().all(|call| call.id != *name));
            *id = free.next().unwrap_or_default();
        }
    }
}

/// Reads a kept message: one that [`Message::json`] wrote, or the whole body of an answer.
///
/// # Errors
/// As [`Message::read`] and [`Answer::read`].
pub fn kept(bytes: &[u8]) -> Result<Message, Fault> {
    let object = json::body(bytes)?;
    if object.find("choices").is_some() {
        return Answer::read(bytes).map(|answer| answer.message);
    }
    Message::of(&object)
}
