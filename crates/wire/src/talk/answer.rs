//! What a model answered.

use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::message::Message;
use crate::json::{self, Object};
use crate::usage;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the model said and wants called.
    pub message: Message,
    /// It refused, with these words.
    pub refusal: Option<String>,
    /// Why it ended.
    pub finish: Finish,
    /// What it used, where the engine says.
    pub usage: Option<Usage>,
}

impl Answer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// `engine_garbled` for one that is not understood, `engine_failed` for one that says
    /// that it is an error.
    pub fn read(body: &[u8]) -> Result<Self, Fault> {
        let garbled = |what: &str| {
            Fault::new(Code::EngineGarbled, format!("The engine's answer could not be understood: {what}."))
        };
        let whole = Object::parse(body).ok_or_else(|| garbled("it is no JSON object"))?;
        if let Some(error) = whole.find("error") {
            let told = json::object(error).ok().and_then(|error| error.hint("message"));
            let told = told.or_else(|| json::text(error)).unwrap_or_default();
            let told = format!("The engine failed while answering: {told}");
            return Err(Fault::new(Code::EngineFailed, told));
        }
        let choices = whole.find("choices").and_then(json::items).unwrap_or_default();
        let first = choices.first().ok_or_else(|| garbled("it has no choices"))?;
        let choice = json::object(first).map_err(|_| garbled("its choice is no object"))?;
        let said = choice.find("message").and_then(|raw| json::object(raw).ok());
        let said = said.ok_or_else(|| garbled("its choice has no message"))?;
        let message = Message::answered(&said).map_err(|fault| garbled(&fault.message))?;
        let reason = choice.hint("finish_reason").unwrap_or_default();
        let mut finish = usage::finish(reason.as_bytes());
        // Servers that call tools but report a plain stop exist.
        if !message.calls.is_empty() && finish == Finish::Stop {
            finish = Finish::Tools;
        }
        let refusal = said.hint("refusal").filter(|text| !text.is_empty());
        let usage = whole.find("usage").and_then(|raw| usage::read(Protocol::Chat, raw.get().as_bytes()));
        Ok(Self { message, refusal, finish, usage })
    }
}
