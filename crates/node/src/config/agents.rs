//! Reads `[agents]`: where definitions of agents lie, how durable they are, and how many
//! of everything there may be.

use std::path::PathBuf;

use seawall_kernel::agents::gate::Rule;
use seawall_model::{Bytes, Millis, limits};
use seawall_store::journal::Durability;

use super::raw::{Reading, Section};
use crate::agents::define;

/// How agents are run.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentsConfig {
    /// Are they run at all?
    pub enabled: bool,
    /// The folder of definitions.
    pub folder: PathBuf,
    /// When a record counts as durable.
    pub durability: Durability,
    /// Bytes of journal and blobs on the disk.
    pub disk_bytes_max: u64,
    /// Runs that are over, and their records, are kept for so long.
    pub retention: Millis,
    /// Turns at once.
    pub turns_max: u32,
    /// Model calls at once.
    pub models_max: u32,
    /// Calls at once on each tool server.
    pub tool_calls_max: u32,
    /// Runs that are not over.
    pub runs_max: usize,
    /// Agents known at once.
    pub agents_max: usize,
    /// Of these, agents of one root tenant whose key somebody chose.
    pub tenant_agents_max: usize,
    /// An agent that only waits leaves memory after so long.
    pub suspend_after: Millis,
    /// An effect is tried so often.
    pub tries_max: u32,
    /// Pause before its second try; it doubles,
    pub pause: Millis,
    /// up to this.
    pub pause_max: Millis,
    /// An effect is given up after so long.
    pub patience: Millis,
    /// At the start agents wait so long for tool servers to be reached.
    pub tools_wait: Millis,
    /// Gate rules for all types, after each type's own.
    pub permissions: Vec<Rule>,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            folder: "agents".into(),
            durability: Durability::Sync,
            disk_bytes_max: limits::JOURNAL_BYTES_MAX,
            retention: Millis(limits::RETENTION_MS),
            turns_max: 8,
            models_max: 512,
            tool_calls_max: 32,
            runs_max: limits::RUNS_LIVE_MAX,
            agents_max: limits::AGENTS_MAX,
            tenant_agents_max: limits::TENANT_AGENTS_MAX,
            suspend_after: Millis(2_000),
            tries_max: 8,
            pause: Millis(200),
            pause_max: Millis(30_000),
            patience: Millis::from_secs(86_400),
            tools_wait: Millis(10_000),
            permissions: Vec::new(),
        }
    }
}

pub(crate) fn read_agents(r: &mut Reading<'_>, root: &mut Section<'_>) -> AgentsConfig {
    let usual = AgentsConfig::default();
    let mut section = root.table(r, "agents");
    let config = AgentsConfig {
        enabled: section.bool(r, "enabled", usual.enabled),
        folder: section.text(r, "folder", "agents").into(),
        durability: section.choice(
            r,
            "durability",
            &["sync", "relaxed"],
            |word| match word {
                "sync" => Some(Durability::Sync),
                "relaxed" => Some(Durability::Relaxed),
                _ => None,
            },
            (Durability::Sync, "sync"),
        ),
        disk_bytes_max: section.bytes(r, "disk_bytes_max", 1 << 20..=1 << 50, Bytes(usual.disk_bytes_max)).0,
        retention: section.millis(r, "retention", 1_000..=10 * 365 * 86_400_000, usual.retention),
        turns_max: section.count(r, "turns_max", 1..=1_024, usual.turns_max),
        models_max: section.count(r, "models_max", 1..=100_000, usual.models_max),
        tool_calls_max: section.count(r, "tool_calls_max", 1..=10_000, usual.tool_calls_max),
        runs_max: section.whole(r, "runs_max", 1..=10_000_000, usual.runs_max as u64) as usize,
        agents_max: section.whole(r, "agents_max", 1..=10_000_000, usual.agents_max as u64) as usize,
        tenant_agents_max: section.whole(
            r,
            "tenant_agents_max",
            1..=10_000_000,
            usual.tenant_agents_max as u64,
        ) as usize,
        suspend_after: section.millis(r, "suspend_after", 1..=86_400_000, usual.suspend_after),
        tries_max: section.count(r, "tries_max", 1..=1_000, usual.tries_max),
        pause: section.millis(r, "pause", 1..=3_600_000, usual.pause),
        pause_max: section.millis(r, "pause_max", 1..=86_400_000, usual.pause_max),
        patience: section.millis(r, "patience", 1_000..=366 * 86_400_000, usual.patience),
        tools_wait: section.millis(r, "tools_wait", 0..=3_600_000, usual.tools_wait),
        permissions: define::read_rules(r, &mut section),
    };
    section.finish(r);
    config
}
