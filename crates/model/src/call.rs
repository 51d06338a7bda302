//! A call's class, what it waits for, how it ends, and the record kept of it.

use std::sync::Arc;

use crate::{
    Agent, At, CallId, Code, EngineId, Finish, MicroUsd, Millis, ModelId, Protocol, ReplicaId, RunId, Tenant,
    Tokens, Usage,
};

/// Priority class. Each has a guaranteed minimum share, so none starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A person is waiting.
    #[default]
    Interactive,
    /// A step of an agent.
    Agent,
    /// Nobody is waiting.
    Batch,
}

impl Class {
    /// All of them, highest first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Agent, Self::Batch];

    /// The name in headers, config and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Agent => "agent",
            Self::Batch => "batch",
        }
    }

    /// The class with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

/// What a waiting call waits for. Every millisecond in a queue has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Others have had less than their share and go first.
    TenantShare,
    /// Every replica is at its concurrency limit.
    EngineFull,
    /// Every replica is down or its circuit is open; also the pause before a retry.
    EngineDown,
    /// A configured or provider rate is used up.
    RateLimit,
    /// The tenant's own limit of calls in flight.
    TenantConcurrency,
    /// The next slice of a budget is being made durable.
    Budget,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TenantShare,
        Self::EngineFull,
        Self::EngineDown,
        Self::RateLimit,
        Self::TenantConcurrency,
        Self::Budget,
    ];

    /// The name in headers, metrics and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TenantShare => "tenant_share",
            Self::EngineFull => "engine_full",
            Self::EngineDown => "engine_down",
            Self::RateLimit => "rate_limit",
            Self::TenantConcurrency => "tenant_concurrency",
            Self::Budget => "budget",
        }
    }
}

/// Time waited, by cause, in microseconds, indexed by [`Cause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits(pub [u64; Cause::ALL.len()]);

impl Waits {
    /// Adds a stretch of waiting.
    pub fn add(&mut self, cause: Cause, micros: u64) {
        self.0[cause as usize] += micros;
    }

    /// The time waited for one cause.
    #[must_use]
    pub const fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// All waiting.
    #[must_use]
    pub fn total(&self) -> Millis {
        Millis(self.0.iter().sum::<u64>() / 1_000)
    }

    /// The cause that took longest, if any wait reached a millisecond.
    #[must_use]
    pub fn main(&self) -> Option<Cause> {
        let longest = Cause::ALL.into_iter().max_by_key(|cause| self.of(*cause))?;
        (self.of(longest) >= 1_000).then_some(longest)
    }
}

/// How a call ended. Every admitted call ends in exactly one of these (I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered in full.
    Done,
    /// Ended by a fault.
    Failed(Code),
    /// The client left.
    Cancelled,
}

impl Outcome {
    /// The name in metrics and records; a failure is named by its code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(code) => code.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// One attempt of a call: one request to one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The engine's name.
    pub engine: Arc<str>,
    /// The replica's address.
    pub replica: Arc<str>,
    /// How it went: `answered`, `cancelled`, or a failure by its name in metrics.
    pub outcome: &'static str,
    /// The status it was answered with, where it was.
    pub status: Option<u16>,
    /// From receipt of the call to its sending.
    pub began: Millis,
    /// From its sending to the first byte of an answer, where there was one.
    pub first_byte: Option<Millis>,
    /// From its sending to its end.
    pub took: Millis,
}

/// A run by the names that its client gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The run's name.
    pub run: Arc<str>,
    /// The name of the run that it works for.
    pub parent: Option<Arc<str>>,
}

/// What is kept of a call after its end. No content.
#[derive(Clone, Debug)]
pub struct Record {
    /// The call.
    pub call: CallId,
    /// W3C trace id, 32 hex digits.
    pub trace: Arc<str>,
    /// Who asked.
    pub tenant: Tenant,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// That run's name and its parent's.
    pub lineage: Option<Arc<Lineage>>,
    /// The agent that asked, as it calls itself.
    pub agent: Option<Agent>,
    /// Its class.
    pub class: Class,
    /// The protocol the client spoke.
    pub protocol: Protocol,
    /// The alias asked for.
    pub model: ModelId,
    /// Its name.
    pub model_name: Arc<str>,
    /// Where it was served, if it was.
    pub engine: Option<EngineId>,
    /// The engine's name, if it was served.
    pub engine_name: Option<Arc<str>>,
    /// The replica of the last attempt.
    pub replica: Option<ReplicaId>,
    /// Was it streamed?
    pub stream: bool,
    /// When it was received.
    pub received: At,
    /// Waiting by cause.
    pub waits: Waits,
    /// How often it was sent to an engine.
    pub attempts: u32,
    /// Each of them in order, where there were several or one failed: at most
    /// [`crate::limits::ATTEMPTS_CEILING`]. Empty for the call that went well at once.
    pub tried: Box<[Attempt]>,
    /// From receipt to the first byte of the answer.
    pub first_token: Option<Millis>,
    /// From receipt to the end.
    pub took: Millis,
    /// What it used.
    pub usage: Usage,
    /// Output tokens reserved for it beforehand.
    pub reserved_output: Tokens,
    /// What it cost.
    pub cost: MicroUsd,
    /// Why generation ended.
    pub finish: Option<Finish>,
    /// How the call ended.
    pub outcome: Outcome,
}
