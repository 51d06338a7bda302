//! What a call used, in one vocabulary for every protocol.

use crate::Tokens;

/// Token counts of one call. OpenAI's convention: `input` includes the cached part,
/// `output` includes the reasoning part (Anthropic's counts are converted by wire).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All prompt tokens.
    pub input: Tokens,
    /// Prompt tokens answered from a cache.
    pub cached: Tokens,
    /// Prompt tokens written to a cache (Anthropic's cache creation).
    pub cache_written: Tokens,
    /// All generated tokens.
    pub output: Tokens,
    /// Generated tokens spent on hidden reasoning.
    pub reasoning: Tokens,
}

impl Usage {
    /// Prompt and generated tokens together.
    #[must_use]
    pub fn total(&self) -> Tokens {
        self.input + self.output
    }

    /// Prompt tokens that the engine had to compute.
    #[must_use]
    pub fn uncached(&self) -> Tokens {
        self.input - self.cached
    }
}

/// Why generation ended, in one vocabulary for every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The model said it was done (or hit a stop sequence).
    Stop,
    /// The token limit was reached.
    Length,
    /// The model asks for tools to be called.
    Tools,
    /// A content filter or refusal ended it.
    Refusal,
}

impl Finish {
    /// The name in metrics and records (OpenTelemetry's `gen_ai.response.finish_reasons`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Tools => "tool_calls",
            Self::Refusal => "content_filter",
        }
    }
}
