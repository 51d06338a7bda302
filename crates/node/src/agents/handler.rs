//! The loop of a declarative agent: what it sees becomes one commit.
//!
//! Pure and total: [`turn`] is given the definition, the state and what woke the agent, and
//! answers with the changes of the state, the effects it wants and what comes next. Nothing
//! of it is kept in memory between turns. [`request`] makes the model's request from the
//! state when the effect is performed, so that the journal holds each message once.
//!
//! The state of a run is a few named values: `m/00000002` is the third message of the
//! conversation, `m/00000003:call_1` the output of a tool as it came, `summary` what is left
//! of messages that were too old, `notes` what memory had on the task, and `meta` where the
//! loop stands.

mod act;
mod builtin;
mod context;
mod draft;
mod kit;
mod log;
mod memo;
mod think;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::plan::Price;
use seawall_model::durable::{Item, RunRow};
use seawall_model::journal::{Commit, Ending, Next};
use seawall_model::{At, Code, Fault, Payload, Tokens};

use super::define::Definition;

pub use act::facts_of_edit;
pub use builtin::{CALLBACKS, NAMES as BUILTINS, rules_of, tool_of};
pub use kit::{Catalogue, Kit};
pub use log::{FORK, FORK_RETOLD, conversation, may_set};

pub use crate::tools::ToolCard as Tool;

/// What is known of the model that an agent thinks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Longest single answer.
    pub output_tokens_max: Tokens,
    /// Longest prompt and answer together, where known.
    pub context_tokens_max: Option<Tokens>,
    /// Its price.
    pub price: Price,
}

/// What a turn sees. All content is opened: no payload in it lies in a blob.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The run as it is, without this turn.
    pub run: &'a RunRow,
    /// The time of the turn.
    pub now: At,
    /// What happened since the last one, oldest first.
    pub items: &'a [Item],
    /// The run's working state.
    pub state: &'a BTreeMap<Arc<str>, Payload>,
    /// The model's terms.
    pub terms: Terms,
}

/// Takes a turn. The same view gives the same commit, to the byte.
#[must_use]
pub fn turn(definition: &Definition, kit: &Kit, view: &View<'_>) -> Commit {
    draft::Draft::take(definition, kit, view)
}

/// The body of the chat request for a model effect, from the state as it is when the effect
/// is performed and the recipe that the effect was asked for with.
///
/// # Errors
/// `internal` where state or recipe are not what this loop wrote.
pub fn request(
    definition: &Definition,
    kit: &Kit,
    state: &BTreeMap<Arc<str>, Payload>,
    recipe: &[u8],
) -> Result<Vec<u8>, Fault> {
    think::request(definition, kit, state, recipe)
}

/// Is what a model answers to this recipe what the agent says, and not something that the
/// loop asks for itself?
#[must_use]
pub fn is_talk(recipe: &Payload) -> bool {
    think::is_talk(recipe.here().unwrap_or_default())
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stop {
    code: Code,
    why: Arc<str>,
}

impl Stop {
    fn new(code: Code, why: impl Into<Arc<str>>) -> Self {
        Self { code, why: why.into() }
    }

    fn next(self) -> Next {
        Next::End(Ending::Failed { code: self.code, why: self.why })
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, &*fault.message)
    }
}

/// The text of an opened payload, whatever its bytes are.
fn text(payload: &Payload) -> String {
    match payload.here() {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => format!("[{} bytes that were not opened]", payload.len()),
    }
}

/// A text of at most so many bytes, and whether that is all of it.
fn first_bytes(text: &str, bytes: usize) -> (&str, bool) {
    if text.len() <= bytes {
        return (text, true);
    }
    let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    (&text[..end], false)
}
