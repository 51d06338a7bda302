//! The kernel's slice of the configuration: what exists and what the rules are.
//! The shell builds it from the config file and from discovery, checks it, and hands
//! in a whole new one on reload. Ids are stable across reloads.

use std::sync::Arc;

use seawall_model::{Bytes, EngineId, MicroUsd, Millis, ModelId, ReplicaId, Tokens, limits};

/// Everything the kernel knows of the world before the first call.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Engines, by rising id.
    pub engines: Vec<Engine>,
    /// Model aliases, by rising id.
    pub models: Vec<Model>,
    /// Rules hung on tenant prefixes, by prefix. The prefix `*` is the rule of every
    /// full tenant path that has none of its own.
    pub tenants: Vec<TenantRule>,
    /// Bounds of each engine's queue.
    pub queue: QueueRule,
    /// Guaranteed shares of the classes, in percent, indexed by class. Their sum is at
    /// most 100; what is left goes to the highest class with work.
    pub class_share: [u32; 3],
    /// Recovery.
    pub retry: RetryRule,
    /// When a run is held to go round in circles.
    pub guard: GuardRule,
}

/// Something that answers calls.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Its id.
    pub id: EngineId,
    /// Its name, for messages.
    pub name: Arc<str>,
    /// Its endpoints, by rising id.
    pub replicas: Vec<Replica>,
    /// How concurrency is found.
    pub pace: Pace,
    /// Configured ceilings per minute, over all replicas.
    pub rate: Rate,
    /// Weight of one prompt and one generated token in the unit of cost; 1 and 2 unless
    /// measured (VTC, arXiv 2401.00588).
    pub cost: CostRule,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
}

/// How the concurrency limit of each replica of an engine is found.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Calls in flight: never fewer allowed than this (at least 1).
    pub calls_min: u32,
    /// Calls in flight: never more than this.
    pub calls_max: u32,
    /// The limit to start from.
    pub calls_start: u32,
    /// Predicted key-value tokens in flight (prompt and expected output) per replica,
    /// where the engine's cache size is known.
    pub kv_tokens_max: Option<Tokens>,
    /// Adapt between min and max; otherwise the limit stays at `calls_max`.
    pub adaptive: bool,
    /// Queueing inside the engine that counts as saturated: time to first token above
    /// the learned unloaded one.
    pub queue_delay_ms_max: Millis,
    /// A batch that makes streams so many times as slow as the fastest seen is too large.
    pub slowdown_max: u32,
}

/// Ceilings per minute; `None` is no ceiling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Calls per minute.
    pub calls_per_min: Option<u32>,
    /// Tokens per minute, prompt and output.
    pub tokens_per_min: Option<u64>,
}

/// What one token costs in the unit of fairness.
#[derive(Clone, Copy, Debug)]
pub struct CostRule {
    /// Cost of one uncached prompt token.
    pub input: u32,
    /// Cost of one generated token.
    pub output: u32,
    /// Learn the cost of a generated token next to a prompt token's from the engine's own
    /// times, so that shares are shares of its time; `output` counts until then.
    pub learned: bool,
}

impl Default for CostRule {
    fn default() -> Self {
        Self { input: 1, output: 2, learned: false }
    }
}

/// A name that clients ask for.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// Engines in order of preference. At least one.
    pub targets: Vec<EngineId>,
    /// For each target, the number of the model's name there: a provider limits each of
    /// its models apart, so a "too many" for one number says nothing of others. Empty, or
    /// shorter than `targets`, where the names are not known: then it is the engine's.
    pub upstreams: Vec<u32>,
    /// Its price.
    pub price: Price,
    /// Longest prompt plus output, where known.
    pub context_tokens_max: Option<Tokens>,
    /// Most output tokens a call can have when it names no limit (used to reserve).
    pub output_tokens_max: Tokens,
}

/// Prices in micro-dollars per million tokens; zero is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Uncached prompt tokens.
    pub input: u64,
    /// Prompt tokens from a cache.
    pub cached: u64,
    /// Prompt tokens written to a cache.
    pub cache_written: u64,
    /// Generated tokens.
    pub output: u64,
}

/// Rules hung on one tenant prefix. They hold for the prefix as a whole, all tenants
/// below it together.
#[derive(Clone, Debug)]
pub struct TenantRule {
    /// The prefix, such as `acme` or `acme/search`; `*` is the default of full paths.
    pub prefix: Arc<str>,
    /// Share relative to its siblings; at least 1. Unnamed siblings weigh 100.
    pub weight: u32,
    /// Calls in flight at once.
    pub calls_max: Option<u32>,
    /// Ceilings per minute.
    pub rate: Rate,
    /// Budgets per period.
    pub budgets: Vec<BudgetRule>,
}

/// One budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetRule {
    /// What is counted.
    pub meter: Meter,
    /// Over which period.
    pub period: Period,
    /// How much of it: tokens, micro-dollars or calls.
    pub limit: u64,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meter {
    /// Prompt and output tokens.
    Tokens,
    /// Money, in micro-dollars, by the model's price.
    Money,
    /// Calls admitted to an engine.
    Calls,
}

/// The period after which a budget starts anew, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A clock minute.
    Minute,
    /// A clock hour.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// Never: for good.
    Total,
}

/// Bounds of one engine's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueRule {
    /// Calls waiting.
    pub len_max: usize,
    /// Calls waiting of one root tenant: all paths with the same first segment together.
    pub tenant_len_max: usize,
    /// Bytes of bodies waiting.
    pub bytes_max: Bytes,
    /// Longest wait.
    pub wait_ms_max: Millis,
    /// A waiting run overtaken for this long goes first in its tenant (ageing).
    pub ageing_ms: Millis,
}

/// Recovery from failed attempts.
#[derive(Clone, Copy, Debug)]
pub struct RetryRule {
    /// Attempts for one call over all targets.
    pub attempts_max: u32,
    /// Retries as a share of first attempts, in percent.
    pub percent: u32,
    /// First pause; it doubles with each attempt, with jitter.
    pub pause_ms: Millis,
    /// Longest pause.
    pub pause_ms_max: Millis,
    /// Consecutive failures that open a replica's circuit.
    pub open_after: u32,
    /// First time the circuit stays open; it doubles up to thirty times this.
    pub open_ms: Millis,
    /// Seed of the jitter: the kernel has no randomness of its own.
    pub seed: u64,
}

/// When a run is held to go round in circles, and what is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRule {
    /// So many identical calls of one run may be answered in a row, and so many rounds of one
    /// agent alone; 0 switches the guard off.
    pub repeats: u32,
    /// So many rounds of the same requests between several agents; at least 2.
    pub rounds: u32,
    /// So many generations a tree of runs may have, at most
    /// [`seawall_model::limits::RUN_DEPTH_MAX`].
    pub depth: u32,
    /// So many runs of one tree may be at work at once.
    pub live: u32,
    /// Is the next refused? Otherwise it is served with a warning.
    pub refuse: bool,
    /// What each tree of runs may use, whatever its calls say.
    pub tree: RunBudget,
}

/// What a run and all below it may use; `None` is without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunBudget {
    /// Tokens, of prompts and answers together.
    pub tokens: Option<u64>,
    /// Calls.
    pub calls: Option<u64>,
    /// Millionths of a dollar.
    pub money: Option<u64>,
}

impl RunBudget {
    /// The bound of one meter.
    #[must_use]
    pub fn of(&self, meter: Meter) -> Option<u64> {
        match meter {
            Meter::Tokens => self.tokens,
            Meter::Calls => self.calls,
            Meter::Money => self.money,
        }
    }

    /// Does it bound anything?
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// By each meter the lower of two.
    pub(crate) fn least(&self, other: &Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            tokens: least(self.tokens, other.tokens),
            calls: least(self.calls, other.calls),
            money: least(self.money, other.money),
        }
    }
}

impl Default for GuardRule {
    fn default() -> Self {
        Self {
            repeats: limits::GUARD_REPEATS,
            rounds: limits::GUARD_ROUNDS,
            depth: limits::GUARD_DEPTH,
            live: limits::RUN_TREE_LIVE_MAX as u32,
            refuse: true,
            tree: RunBudget::default(),
        }
    }
}

impl Model {
    /// The number of its name at this engine, where the plan has one.
    #[must_use]
    pub fn upstream(&self, engine: EngineId) -> Option<u32> {
        let place = self.targets.iter().position(|target| *target == engine)?;
        self.upstreams.get(place).copied()
    }
}

impl Default for QueueRule {
    fn default() -> Self {
        use seawall_model::limits as l;
        Self {
            len_max: l::QUEUE_LEN_MAX,
            tenant_len_max: l::TENANT_QUEUE_LEN_MAX,
            bytes_max: Bytes(l::QUEUE_BYTES_MAX),
            wait_ms_max: Millis(l::QUEUE_WAIT_MS_MAX),
            ageing_ms: Millis(10_000),
        }
    }
}

impl Default for RetryRule {
    fn default() -> Self {
        use seawall_model::limits as l;
        Self {
            attempts_max: l::ATTEMPTS_MAX,
            percent: l::RETRY_PERCENT,
            pause_ms: Millis(50),
            pause_ms_max: Millis(2_000),
            open_after: 5,
            open_ms: Millis(1_000),
            seed: 0x5_ea11,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            calls_min: 1,
            calls_max: 1_024,
            calls_start: 64,
            kv_tokens_max: None,
            adaptive: true,
            queue_delay_ms_max: Millis(400),
            slowdown_max: 8,
        }
    }
}

impl Price {
    /// What a use costs, rounded up to a micro-dollar so that a sum of many small
    /// calls is never undercharged.
    #[must_use]
    pub fn of(&self, usage: &seawall_model::Usage) -> MicroUsd {
        let written = usage.cache_written.0.min(usage.uncached().0);
        let plain = usage.uncached().0 - written;
        let sum = u128::from(plain) * u128::from(self.input)
            + u128::from(usage.cached.0) * u128::from(self.cached)
            + u128::from(written) * u128::from(self.cache_written)
            + u128::from(usage.output.0) * u128::from(self.output);
        MicroUsd(u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}
