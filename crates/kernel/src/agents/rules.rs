//! The kernel's slice of the configuration for agents: which types there are, what they
//! may do, and how many places there are.

use std::sync::Arc;

use seawall_model::effect::Allowance;
use seawall_model::{Millis, Payload, Tenant, limits};

use super::cron::Cron;
use super::gate::Rule;
use super::progress::GuardRule;
use super::supervise::Supervision;

/// All rules. A new set replaces the old one as a whole; runs under way keep what was
/// recorded of them.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Shards of the journal.
    pub shards: u8,
    /// Types of agents.
    pub kinds: Vec<Kind>,
    /// Gate rules for all, after those of the type.
    pub gate: Vec<Rule>,
    /// Turns at once.
    pub turns_max: u32,
    /// Model calls at once, over all models. Which engine serves them, and when, is then
    /// decided by the queue of calls.
    pub models_max: u32,
    /// Calls at once on each tool that is not named in `tools`.
    pub tool_max: u32,
    /// Calls at once on tools by name; the part before the first `.` names a server.
    pub tools: Vec<(Arc<str>, u32)>,
    /// Weights of root tenants in all pools; every other weighs 100.
    pub weights: Vec<(Arc<str>, u32)>,
    /// Runs that are not over, of all agents.
    pub runs_max: usize,
    /// Agents known at once.
    pub agents_max: usize,
    /// Of these, agents with a key of somebody's choosing of one root tenant.
    pub tenant_agents_max: usize,
    /// An agent that only waits leaves memory after so long.
    pub suspend_after: Millis,
    /// An effect is tried so often.
    pub tries_max: u32,
    /// Pause before the second try; it doubles up to `pause_max`.
    pub pause: Millis,
    /// Longest pause between tries.
    pub pause_max: Millis,
    /// An effect is given up after so long, where the turn names no time.
    pub patience: Millis,
    /// Seeds jitter.
    pub seed: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            shards: limits::SHARDS,
            kinds: Vec::new(),
            gate: Vec::new(),
            turns_max: 8,
            models_max: 512,
            tool_max: 32,
            tools: Vec::new(),
            weights: Vec::new(),
            runs_max: limits::RUNS_LIVE_MAX,
            agents_max: limits::AGENTS_MAX,
            tenant_agents_max: limits::TENANT_AGENTS_MAX,
            suspend_after: Millis(2_000),
            tries_max: 8,
            pause: Millis(200),
            pause_max: Millis(30_000),
            patience: Millis::from_secs(86_400),
            seed: 1,
        }
    }
}

impl Rules {
    /// The type of that name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| &*kind.name == name)
    }
}

/// One type of agent, as far as deciding goes.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name.
    pub name: Arc<str>,
    /// The version of its definition.
    pub version: Arc<str>,
    /// Do runs under way move to this version at their next turn?
    pub moves: bool,
    /// What one run may use where its start says nothing.
    pub allowance: Allowance,
    /// What becomes of failed runs.
    pub supervision: Supervision,
    /// What counts as no progress.
    pub guard: GuardRule,
    /// Its own gate rules, before the general ones.
    pub gate: Vec<Rule>,
    /// When a run begins by itself.
    pub schedule: Option<Schedule>,
    /// Does a message to an idle agent begin a run?
    pub starts_on_mail: bool,
    /// Items in the inbox.
    pub inbox_max: usize,
}

/// When runs of a type begin by themselves.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// When.
    pub cron: Cron,
    /// For whom.
    pub tenant: Tenant,
    /// With what.
    pub task: Payload,
}
