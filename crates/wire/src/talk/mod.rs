//! An agent's conversation as OpenAI chat requests and answers.
//!
//! An agent keeps its conversation message by message, each as the JSON in which it is
//! sent; a kept answer of a model may be the whole body that came. A request puts them
//! together without looking into them. Whatever an engine answers, reading it ends with
//! a message or with a fault of the engine's.

mod answer;
mod message;
mod request;

pub use answer::Answer;
pub use message::{Message, Role, ToolCall, kept};
pub use request::{Format, Function, Pick, Request, written};

use seawall_model::Tokens;

use crate::tokens;

/// How long a prompt is, in parts of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// What it probably is.
    pub likely: Tokens,
    /// No tokenizer makes more of it.
    pub most: Tokens,
}

/// Estimates the length of a prompt from its parts, such as messages and tools, each of
/// them JSON. At least one token.
#[must_use]
pub fn estimate(parts: &[&[u8]]) -> Estimate {
    let length = tokens::of_parts(parts);
    Estimate { likely: length.likely, most: length.most }
}

#[cfg(test)]
mod tests;
