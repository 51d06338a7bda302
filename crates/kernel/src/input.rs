//! Everything that can happen to the kernel, closed in one enum.

use seawall_model::{
    Agent, At, Bytes, CallId, Class, EngineId, Finish, Millis, ModelId, ReplicaId, RunId, Tenant, Tokens,
    Usage,
};

use crate::plan::{Plan, RunBudget};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A new configuration; calls in flight keep what they were granted.
    Configure(Box<Plan>),
    /// A client asks.
    Submit(Box<Submit>),
    /// The first byte of the answer came from the engine.
    FirstToken {
        /// The call.
        call: CallId,
    },
    /// Output so far, now and then while a stream runs, so that tenants are charged as
    /// they are served (never only at the end).
    Progress {
        /// The call.
        call: CallId,
        /// Output tokens so far, all in all.
        output: Tokens,
        /// How much of the time since the last such report it was the client that was
        /// waited for, and not the engine.
        waited: Millis,
    },
    /// An attempt failed. The kernel decides what comes next.
    Failed {
        /// The call.
        call: CallId,
        /// How.
        failure: Failure,
        /// Has the client seen any byte of an answer? Then there is no second attempt.
        client_began: bool,
        /// What is known to have been used.
        usage: Usage,
    },
    /// The engine answered in full.
    Finished {
        /// The call.
        call: CallId,
        /// The engine's own count, or the best estimate where it gave none.
        usage: Usage,
        /// Why generation ended.
        finish: Option<Finish>,
    },
    /// The client left; the shell has already ended the upstream call.
    Cancelled {
        /// The call.
        call: CallId,
        /// What was used until then.
        usage: Usage,
    },
    /// What a provider said about its rate in the headers of any answer.
    Rate {
        /// The replica that answered.
        replica: ReplicaId,
        /// Whom it answered: a provider limits each of its models apart.
        call: CallId,
        /// What it said.
        report: RateReport,
    },
    /// A probe that the kernel asked for, or a passive health check, came back.
    Probed {
        /// The replica.
        replica: ReplicaId,
        /// Is it well?
        healthy: bool,
    },
    /// A slice of a budget is on disk.
    Drawn {
        /// The account, as named in the effect.
        account: std::sync::Arc<str>,
        /// The window, as named in the effect.
        window: At,
        /// It may be spent up to here.
        ceiling: u64,
    },
    /// What the store remembers of a budget account, once, at start.
    Restored {
        /// The account.
        account: std::sync::Arc<str>,
        /// Its window.
        window: At,
        /// What counts as spent.
        spent: u64,
    },
    /// A run works for another, which no call of it has said yet.
    Below {
        /// The run.
        run: RunId,
        /// The run that it works for.
        parent: RunId,
    },
    /// A call says what its run and all below it may use: never more than was said before.
    Bound {
        /// The run.
        run: RunId,
        /// Whose it is.
        tenant: Tenant,
        /// Its name, for words.
        name: std::sync::Arc<str>,
        /// So much at most.
        budget: RunBudget,
    },
    /// An operator stops a run and all below it.
    Stop {
        /// The run.
        run: RunId,
    },
    /// An operator lets a stopped run go on.
    Resume {
        /// The run.
        run: RunId,
    },
    /// Time passed: sent when [`crate::Kernel::wake_at`] says so.
    Tick,
    /// No new calls from now on.
    Drain,
}

/// A call that asks to be admitted.
#[derive(Clone, Debug)]
pub struct Submit {
    /// Its id, higher than all before.
    pub call: CallId,
    /// Who asks.
    pub tenant: Tenant,
    /// The alias.
    pub model: ModelId,
    /// Engines that can serve its protocol, in order of preference, as the shell knew
    /// them when the client asked: a reload meanwhile changes nothing. At least one.
    pub targets: Vec<EngineId>,
    /// Priority.
    pub class: Class,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// The run that this run works for.
    pub parent: Option<RunId>,
    /// The agent that asks, as it calls itself; for words only.
    pub agent: Option<Agent>,
    /// What it asks for, as a number that is equal for identical requests: what the guard
    /// against loops goes by. `None` is never a loop.
    pub work: Option<u64>,
    /// Estimated prompt tokens: what fairness, rates and placement go by.
    pub prompt: Tokens,
    /// Prompt tokens that it surely does not exceed: what budgets reserve by, so that an
    /// estimate that is too low overspends nothing. Counts as `prompt` where lower.
    pub prompt_max: Tokens,
    /// The client's own limit of output tokens, times the choices asked for.
    pub output_max: Option<Tokens>,
    /// Does it generate at all (embeddings and pass-through do not)?
    pub generates: bool,
    /// Size of the body that waits.
    pub bytes: Bytes,
    /// The answer must have begun by then, or the call is not worth starting.
    pub deadline: Option<At>,
    /// Chained hashes of the prompt's blocks, at most
    /// [`seawall_model::limits::PREFIX_BLOCKS_MAX`].
    pub prefix: Box<[u64]>,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// Nothing came in time.
    Timeout,
    /// The engine said 429 or 529, perhaps with a time.
    Limited {
        /// Its `retry-after`.
        retry_after: Option<Millis>,
    },
    /// The engine said 5xx.
    Server {
        /// The status.
        status: u16,
    },
    /// The engine refused the request itself: 4xx. Sending it again is useless, and the
    /// replica is well.
    Refused {
        /// The status.
        status: u16,
    },
    /// The engine rejected our credentials: 401 or 403.
    Credentials,
    /// The answer was no answer.
    Garbled,
    /// The answer ended in the middle.
    Cut,
    /// The answer was too large to hold.
    TooLarge,
    /// The deadline passed while the engine was at work.
    Deadline,
    /// The request did not go out whole, and not for the engine's sake: the client's
    /// upload broke off, or a reload took the replica away. It says nothing of the replica.
    Unsent,
}

/// A provider's own words about its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateReport {
    /// `x-ratelimit-remaining-requests` or Anthropic's equivalent.
    pub calls_left: Option<u32>,
    /// `x-ratelimit-remaining-tokens` or Anthropic's equivalent.
    pub tokens_left: Option<u64>,
    /// When the count starts anew, from now.
    pub reset: Option<Millis>,
}
