//! A call of a tool and what came of it, in the words of the kernel: was it done, may it be
//! sent again, did the other side ever see it?

use std::sync::Arc;

use seawall_model::limits::TOOL_ANSWER_BYTES_MAX;
use seawall_model::{At, Millis};

/// A tool call to perform. Whether it may be done was decided before.
#[derive(Clone, Debug)]
pub struct Call {
    /// `server.tool`, or the name of an HTTP tool.
    pub tool: Arc<str>,
    /// Its arguments: the text of a JSON object. Empty text is an empty object.
    pub args: Arc<str>,
    /// Names the effect: equal for every attempt at it, unless it was undone in between. The other side may know a call again
    /// by it (`Idempotency-Key`, or `seawall/idempotency-key` in MCP's `_meta`).
    pub key: Arc<str>,
    /// It is given up then, or after the tool's own timeout.
    pub deadline: At,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The tool answered.
    Done {
        /// Text, or the text of a JSON value; for the model.
        text: String,
        /// The tool itself, or what was asked of it, is wrong: the model should see it and
        /// do otherwise. Sending the same again is of no use.
        is_error: bool,
    },
    /// There is no answer.
    Failed {
        /// Is it worth another attempt? Whether one is made depends on the effect's class.
        retry: bool,
        /// May the other side have seen the call? `false` only where it is certain that it
        /// did not: such a call may be made again whatever its class is.
        sent: bool,
        /// Not before so long.
        retry_after: Option<Millis>,
        /// In words, without content.
        why: String,
    },
}

impl Outcome {
    /// The tool's answer, if it is not too large. A larger one is an error with a hint,
    /// never cut silently: half a list looks like a whole one to a model.
    #[must_use]
    pub(super) fn done(text: String, is_error: bool) -> Self {
        if text.len() > TOOL_ANSWER_BYTES_MAX {
            return Self::too_large(Some(text.len()));
        }
        Self::Done { text, is_error }
    }

    /// The answer was too large; its size, if it was read to the end.
    #[must_use]
    pub(super) fn too_large(len: Option<usize>) -> Self {
        let size = len.map_or_else(
            || "The tool's answer".to_owned(),
            |len| format!("The tool's answer of {len} bytes"),
        );
        Self::refused(format!(
            "{size} is larger than the limit of {TOOL_ANSWER_BYTES_MAX} bytes and was left out. The tool did run. \
             Ask it for less: a page, a range, a filter."
        ))
    }

    /// What was asked cannot be done, as the model is told.
    #[must_use]
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self::Done { text: text.into(), is_error: true }
    }

    /// It certainly did not reach the other side, and may later.
    #[must_use]
    pub(super) fn unsent(why: impl Into<String>) -> Self {
        Self::Failed { retry: true, sent: false, retry_after: None, why: why.into() }
    }

    /// It may have reached the other side.
    #[must_use]
    pub(super) fn in_doubt(why: impl Into<String>) -> Self {
        Self::Failed { retry: true, sent: true, retry_after: None, why: why.into() }
    }

    /// There is nothing to send it to, nor will there be.
    #[must_use]
    pub(super) fn hopeless(why: impl Into<String>) -> Self {
        Self::Failed { retry: false, sent: false, retry_after: None, why: why.into() }
    }

    /// With a time before which another attempt is of no use.
    #[must_use]
    pub(super) fn after(mut self, wait: Option<Millis>) -> Self {
        if let Self::Failed { retry_after, .. } = &mut self {
            *retry_after = wait;
        }
        self
    }
}

/// The arguments as a JSON object.
///
/// # Errors
/// What to tell the model.
pub(super) fn object(args: &str) -> Result<serde_json::Map<String, serde_json::Value>, Outcome> {
    if args.trim().is_empty() {
        return Ok(serde_json::Map::new());
    }
    serde_json::from_str(args)
        .map_err(|why| Outcome::refused(format!("The arguments are not a JSON object: {why}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_is_an_error_with_a_hint() {
        let Outcome::Done { text, is_error: true } =
            Outcome::done("x".repeat(TOOL_ANSWER_BYTES_MAX + 1), false)
        else {
            panic!("an error");
        };
        assert!(text.contains(&(TOOL_ANSWER_BYTES_MAX + 1).to_string()) && text.len() < 300);
        let fits = "x".repeat(TOOL_ANSWER_BYTES_MAX);
        assert_eq!(Outcome::done(fits.clone(), false), Outcome::Done { text: fits, is_error: false });
    }

    #[test]
    fn arguments_that_are_no_object_are_the_models_mistake() {
        assert!(object("").expect("empty").is_empty());
        assert_eq!(object("{\"a\":1}").expect("one").len(), 1);
        for bad in ["[]", "1", "{", "null", "{\"a\":1} x"] {
            assert!(matches!(object(bad), Err(Outcome::Done { is_error: true, .. })), "{bad}");
        }
    }
}
