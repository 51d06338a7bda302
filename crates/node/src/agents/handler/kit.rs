//! The tools that a type of agent is offered: its patterns applied to what there is, once
//! for all of its agents.

use std::collections::BTreeSet;
use std::sync::Arc;

use seawall_kernel::agents::gate::Pattern;
use seawall_model::{EffectClass, limits};
use seawall_wire::talk::Function;
use serde_json::{Value, json};

use super::builtin::{self, Builtin};
use crate::agents::define::Definition;
use crate::agents::schema::Schema;
use crate::tools::ToolCard;

/// Longest name of a function that engines take.
const CALLED_LEN_MAX: usize = 64;

/// All there is to be offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Tools outside: of MCP servers and HTTP endpoints.
    pub tools: Vec<ToolCard>,
    /// Types of agents, each with what it is for.
    pub agents: Vec<(Arc<str>, Arc<str>)>,
}

/// How a tool that is offered is performed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum How {
    Outside { class: EffectClass, undo: Option<Arc<str>>, query: Option<Arc<str>> },
    Agent { kind: Arc<str> },
    Built(Builtin),
}

/// A tool on offer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offered {
    /// Its name with us.
    pub(super) name: Arc<str>,
    /// Its name with the model, which takes no dots and colons.
    pub(super) called: String,
    about: Arc<str>,
    /// The schema as the model is told it.
    told: Arc<str>,
    /// The schema that arguments are checked against.
    pub(super) schema: Schema,
    pub(super) how: How,
}

/// The tools of one definition. Made again when either changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kit {
    offered: Vec<Offered>,
    /// Patterns that select nothing.
    unmet: Vec<Arc<str>>,
}

impl Kit {
    /// Selects what a definition asks for, in the order of its patterns, and by name where
    /// one pattern selects several.
    #[must_use]
    pub fn new(definition: &Definition, catalogue: &Catalogue) -> Self {
        let mut all = catalogue.tools.iter().map(outside).collect::<Vec<_>>();
        all.extend(catalogue.agents.iter().map(agent));
        all.extend(Builtin::ALL.into_iter().map(built));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut kit = Self::default();
        let mut patterns = definition.tools.clone();
        if definition.memory.notes {
            patterns.extend(["notes.add".into(), "notes.search".into()]);
        }
        let mut names = BTreeSet::new();
        for pattern in &patterns {
            let fits = Pattern::new(pattern);
            let mut found = all.iter().filter(|one| fits.fits(&one.name)).peekable();
            if found.peek().is_none() {
                kit.unmet.push(pattern.clone());
            }
            for one in found {
                if kit.offered.len() < limits::AGENT_TOOLS_MAX && names.insert(one.name.clone()) {
                    kit.offered.push(one.clone());
                }
            }
        }
        kit.name_apart();
        kit
    }

    /// Patterns of the definition that select nothing: a server that is not there (yet),
    /// or a mistyped name.
    #[must_use]
    pub fn unmet(&self) -> &[Arc<str>] {
        &self.unmet
    }

    /// Names of all tools on offer.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.offered.iter().map(|one| &one.name)
    }

    /// Names of all tools on offer, as the model calls them.
    pub(super) fn called(&self) -> impl Iterator<Item = &str> {
        self.offered.iter().map(|one| one.called.as_str())
    }

    /// As they are told to the model.
    pub(super) fn functions(&self) -> Vec<Function<'_>> {
        self.offered
            .iter()
            .map(|one| Function { name: &one.called, about: &one.about, schema: &one.told })
            .collect()
    }

    /// The tool that a model calls by this name; its own name with us is understood too.
    pub(super) fn find(&self, called: &str) -> Option<&Offered> {
        let by_call = self.offered.iter().find(|one| one.called == called);
        by_call.or_else(|| self.offered.iter().find(|one| *one.name == *called))
    }

    /// Gives tools that the model could not tell apart names with a digest.
    fn name_apart(&mut self) {
        let mut taken = BTreeSet::new();
        for one in &mut self.offered {
            if !taken.insert(one.called.clone()) {
                one.called = digested(&one.name);
                taken.insert(one.called.clone());
            }
        }
    }
}

fn outside(tool: &ToolCard) -> Offered {
    // A schema that cannot be checked is the server's to check; what is no object at all
    // would be refused by engines.
    let object = serde_json::from_str::<Value>(&tool.schema).ok().filter(Value::is_object);
    let told = if object.is_some() { tool.schema.clone() } else { any_object().text().into() };
    let schema = object.and_then(|value| Schema::of(value).ok()).unwrap_or_else(any_object);
    Offered {
        name: tool.name.clone(),
        called: called(&tool.name),
        about: tool.about.clone(),
        told,
        schema,
        how: How::Outside { class: tool.class, undo: tool.undo.clone(), query: tool.query.clone() },
    }
}

fn any_object() -> Schema {
    Schema::of(json!({ "type": "object" })).expect("it is a schema")
}

fn agent((kind, about): &(Arc<str>, Arc<str>)) -> Offered {
    let name: Arc<str> = format!("agent:{kind}").into();
    let about = format!("Gives a task to an agent of the type {kind} and waits for its result. {about}");
    let schema = Schema::of(builtin::agent_schema()).expect("it is a schema");
    Offered {
        called: called(&name),
        about: about.trim().into(),
        told: schema.text().into(),
        schema,
        how: How::Agent { kind: kind.clone() },
        name,
    }
}

fn built(builtin: Builtin) -> Offered {
    let schema = Schema::of(builtin.schema()).expect("it is a schema");
    let name: Arc<str> = builtin.name().into();
    Offered {
        called: called(&name),
        about: builtin.about().into(),
        told: schema.text().into(),
        schema,
        how: How::Built(builtin),
        name,
    }
}

/// A name as engines take it: `github.search` is `github__search`.
fn called(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        match c {
            '.' | ':' | '/' => out.push_str("__"),
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => out.push(c),
            _ => out.push('_'),
        }
    }
    if out.len() > CALLED_LEN_MAX || out.is_empty() { digested(name) } else { out }
}

/// The start of a name and a digest of all of it.
fn digested(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let start: String = name.chars().take(CALLED_LEN_MAX - 17).map(plain).collect();
    format!("{start}_{:016x}", builtin::digest(&[name.as_bytes()]))
}
