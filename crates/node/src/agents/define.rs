//! What an agent is: its definition, read from `agents/*.toml` or given to the API as JSON.
//!
//! A definition is checked as a whole and every problem is told at once, with its line. It
//! is known by a version, which is a digest of what it says: two that say the same are the
//! same, however they are laid out.

mod amount;
mod limit;
mod permit;
mod policy;
mod read;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_kernel::agents::cron::Cron;
use seawall_kernel::agents::gate::Rule;
use seawall_kernel::agents::progress::GuardRule;
use seawall_kernel::agents::supervise::Supervision;
use seawall_model::effect::Allowance;
use seawall_model::{Tenant, Tokens};

use super::schema::Schema;
use super::template::Template;
use crate::config::Problem;

/// A checked definition of one type of agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The type's name: the first part of its agents' names.
    pub kind: Arc<str>,
    /// The first 12 hexadecimal digits of the SHA-256 of what the definition says.
    pub version: Arc<str>,
    /// What it is for, for people and for models that may delegate to it.
    pub about: Arc<str>,
    /// The alias of the model it thinks with.
    pub model: Arc<str>,
    /// Its instructions: the system prompt.
    pub instructions: Template,
    /// How a task is put to it: the first user message.
    pub task: Template,
    /// Sampling temperature; `None` leaves it to the engine.
    pub temperature: Option<f64>,
    /// Nucleus sampling; `None` leaves it to the engine.
    pub top_p: Option<f64>,
    /// Longest single answer; `None` is the model's own limit.
    pub output_tokens: Option<Tokens>,
    /// Patterns of tools that it is offered: `server.tool` with `*`, names of HTTP tools,
    /// `agent:TYPE`, and built-in ones such as `store.get`.
    pub tools: Vec<Arc<str>>,
    /// Labels that gate rules see as `label.NAME` of each of its effects.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// What one run may use where its start says nothing.
    pub allowance: Allowance,
    /// When a run begins by itself.
    pub schedule: Option<Schedule>,
    /// What becomes of failed runs.
    pub supervision: Supervision,
    /// What counts as no progress.
    pub guard: GuardRule,
    /// Its own gate rules, the first that matches counts.
    pub permissions: Vec<Rule>,
    /// The shape of its output.
    pub output: Option<OutputRule>,
    /// What of a long conversation is kept.
    pub context: ContextRule,
    /// What it remembers beyond one run.
    pub memory: MemoryRule,
    /// Do runs under way move to a new version at their next turn?
    pub moves: bool,
    /// Does a message to an idle agent begin a run? Otherwise it waits for one.
    pub starts_on_mail: bool,
    /// Items that its inbox holds.
    pub inbox_max: usize,
}

/// When runs of a type begin by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Five fields, UTC.
    pub cron: Cron,
    /// Whose they are.
    pub tenant: Tenant,
    /// Their task.
    pub task: Arc<str>,
}

/// The shape of an agent's output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputRule {
    /// Its schema.
    pub schema: Arc<Schema>,
    /// How often the model is asked to mend an output that does not fit.
    pub repairs: u32,
}

/// What of a long conversation is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextRule {
    /// A prompt estimated longer than this is made shorter.
    pub window: Tokens,
    /// So many messages at the end stay as they are.
    pub keep_last: u32,
    /// What must leave is summarised by the same model; otherwise it is forgotten.
    pub summarise: bool,
    /// Tools' outputs leave after so many answers of the model; `None` keeps them.
    pub drop_tool_output_after: Option<u32>,
}

/// What an agent remembers beyond one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRule {
    /// Is it offered `notes.add` and `notes.search`?
    pub notes: bool,
    /// Its notes lie under this name; agents that name the same share them.
    pub namespace: Arc<str>,
}

impl Definition {
    /// Reads a definition from a TOML file whose name without `.toml` is `stem`. Answers
    /// with it and with what is doubtful about it.
    ///
    /// # Errors
    /// Every problem, in the order of the file.
    pub fn from_toml(stem: &str, text: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        read::toml(Some(stem), text)
    }

    /// Reads a definition from a JSON object with the same keys; it must have a `name`.
    ///
    /// # Errors
    /// Every problem, without lines.
    pub fn from_json(body: &[u8]) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        read::json(body)
    }

    /// The TOML file that says what a JSON object says, to be kept beside the others.
    ///
    /// # Errors
    /// What keeps the body from being a definition at all; its keys are not looked at.
    pub fn toml_of_json(body: &[u8]) -> Result<String, Vec<Problem>> {
        read::json_as_toml(body)
    }
}

/// Reads gate rules for all types, from `permissions` of this section.
pub(crate) fn read_rules(
    r: &mut crate::config::raw::Reading<'_>,
    section: &mut crate::config::raw::Section<'_>,
) -> Vec<Rule> {
    permit::read(r, section, "*", "*")
}

/// All definitions there are, by type, each with its problems and warnings told by file.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Those that are sound, by type.
    pub definitions: BTreeMap<Arc<str>, Arc<Definition>>,
    /// What is wrong, with the file's name.
    pub problems: Vec<(String, Problem)>,
    /// What is doubtful, likewise.
    pub warnings: Vec<(String, Problem)>,
}

/// Reads a folder's files, given as name (such as `researcher.toml`) and text, and checks
/// them against one another.
#[must_use]
pub fn read_all(files: &[(String, String)]) -> Reading {
    let mut all = Reading::default();
    let mut from: BTreeMap<Arc<str>, &str> = BTreeMap::new();
    for (name, text) in files {
        let stem = name.strip_suffix(".toml").unwrap_or(name);
        match Definition::from_toml(stem, text) {
            Err(problems) => all.problems.extend(problems.into_iter().map(|one| (name.clone(), one))),
            Ok((definition, warnings)) => {
                all.warnings.extend(warnings.into_iter().map(|one| (name.clone(), one)));
                if let Some(first) = from.insert(definition.kind.clone(), name) {
                    let what = format!("{} is defined in {first} already", definition.kind);
                    all.problems.push((name.clone(), plain("name", what, "give it another name")));
                    continue;
                }
                all.definitions.insert(definition.kind.clone(), Arc::new(definition));
            }
        }
    }
    let known: BTreeSet<&str> = all.definitions.keys().map(|kind| &**kind).collect();
    // Where a file could not be read, who it defines is not known, and nobody is blamed.
    if all.problems.is_empty() {
        for (kind, definition) in &all.definitions {
            let delegates = definition.tools.iter().filter_map(|tool| tool.strip_prefix("agent:"));
            for other in delegates.filter(|other| !other.contains('*') && !known.contains(other)) {
                let what = format!("names agent:{other}, which is not defined");
                let file = from.get(kind).copied().unwrap_or_default().to_owned();
                all.warnings.push((file, plain("tools", what, "")));
            }
        }
    }
    all
}

fn plain(key: &str, what: String, hint: &str) -> Problem {
    Problem { line: None, key: key.to_owned(), what, hint: hint.to_owned() }
}
