//! How a simulated engine is set up, as given and as checked.

use seawall_load::engine::Spec;
use seawall_load::fault::{self, FaultPlan};
use seawall_load::length::{self, Lengths};
use seawall_load::pace::{PRESETS, Pace};
use seawall_load::script::{self, Script};
use seawall_model::{Tokens, limits};

/// How a simulated engine is set up. The default is a quick small model without faults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything drawn.
    pub seed: u64,
    /// Name of the step-time preset, see [`seawall_load::pace::PRESETS`].
    pub pace: String,
    /// Sequences that run together.
    pub slots: u32,
    /// KV memory in tokens.
    pub kv_tokens: u64,
    /// Prompt tokens computed in one step.
    pub prefill_chunk: u64,
    /// Calls that may wait for a slot; the next get 503.
    pub queue_len_max: u32,
    /// Steps take up to this much longer or shorter.
    pub jitter_percent: u32,
    /// Models served; a call for another gets 404. Empty: every name is served.
    pub models: Vec<String>,
    /// Lengths of answers: `256`, `100..500` or `lognormal:MEDIAN,P99`.
    pub output: String,
    /// Faults, see [`seawall_load::fault`]: `429:0.1,cut@5:0.02`.
    pub faults: String,
    /// A script of answers, see [`seawall_load::script`].
    pub script: Option<String>,
    /// Milliseconds to the first token. Given one of the three, the batching model is
    /// not used: answers follow a timer each.
    pub first_ms: Option<u64>,
    /// Milliseconds between tokens.
    pub token_ms: Option<u64>,
    /// Milliseconds to an answer that is not streamed; else first and tokens add up.
    pub unary_ms: Option<u64>,
    /// Length of embedding vectors.
    pub dimensions: usize,
    /// Asked of callers when set, as `Authorization: Bearer` or `x-api-key`.
    pub api_key: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let spec = Spec::default();
        Self {
            seed: 0,
            pace: PRESETS[0].0.into(),
            slots: spec.slots,
            kv_tokens: spec.kv_tokens.0,
            prefill_chunk: spec.prefill_chunk.0,
            queue_len_max: spec.queue_len_max,
            jitter_percent: 0,
            models: vec!["sim-small".into(), "sim-embed".into()],
            output: "lognormal:120,600".into(),
            faults: String::new(),
            script: None,
            first_ms: None,
            token_ms: None,
            unary_ms: None,
            dimensions: 256,
            api_key: None,
        }
    }
}

/// Why a simulated engine cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such preset.
    #[error("no pace preset is called `{name}`; there are: {known}")]
    Pace {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A size of zero.
    #[error("slots, kv_tokens and prefill_chunk must be above zero")]
    Size,
    /// A vector too long or empty.
    #[error("embedding dimensions must lie between 1 and {}", limits::SIM_DIMENSIONS_MAX)]
    Dimensions,
    /// More models than one config holds.
    #[error("at most {} models", limits::MODELS_MAX)]
    Models,
    /// Unreadable output lengths.
    #[error("output: {0}")]
    Output(#[from] length::Error),
    /// Unreadable faults.
    #[error("faults: {0}")]
    Faults(#[from] fault::Error),
    /// Unreadable script.
    #[error("script: {0}")]
    Script(#[from] script::Error),
}

/// Tokens in one block of the prefix cache: the blocks that are hashed per prompt then
/// cover 16,000 tokens.
const BLOCK_TOKENS: u64 = 64;

/// Options that hold together.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) spec: Spec,
    pub(super) options: Options,
    pub(super) lengths: Lengths,
    pub(super) script: Script,
    pub(super) scripted: bool,
    pub(super) faults: FaultPlan,
}

impl Options {
    /// Checks without serving, for a start-up that reports all problems at once.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result<(), Error> {
        Settings::check(self.clone()).map(drop)
    }
}

impl Settings {
    pub(super) fn check(options: Options) -> Result<Self, Error> {
        let pace = Pace::preset(&options.pace).ok_or_else(|| Error::Pace {
            name: options.pace.clone(),
            known: PRESETS.iter().map(|preset| preset.0).collect::<Vec<_>>().join(", "),
        })?;
        if options.slots == 0 || options.kv_tokens == 0 || options.prefill_chunk == 0 {
            return Err(Error::Size);
        }
        if !(1..=limits::SIM_DIMENSIONS_MAX).contains(&options.dimensions) {
            return Err(Error::Dimensions);
        }
        if options.models.len() > limits::MODELS_MAX {
            return Err(Error::Models);
        }
        let script = Script::parse(options.script.as_deref().unwrap_or_default())?;
        Ok(Self {
            spec: Spec {
                slots: options.slots,
                kv_tokens: Tokens(options.kv_tokens),
                prefill_chunk: Tokens(options.prefill_chunk),
                queue_len_max: options.queue_len_max,
                block_tokens: Tokens(BLOCK_TOKENS),
                pace,
                reserves: false,
                jitter_percent: options.jitter_percent,
                seed: options.seed,
            },
            lengths: Lengths::parse(&options.output)?,
            scripted: script != Script::default(),
            script,
            faults: FaultPlan::parse(&options.faults, options.seed)?,
            options,
        })
    }

    /// Is this model served here?
    pub(super) fn serves(&self, model: &str) -> bool {
        self.options.models.is_empty() || self.options.models.iter().any(|name| name == model)
    }
}
