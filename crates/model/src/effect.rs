//! What a turn wants done in the world, how it may be repeated, and what came of it.

use std::fmt;
use std::sync::Arc;

use crate::{Agent, At, Code, MicroUsd, Millis, Payload, RunKey, Tenant, Tokens};

/// Decides what happens to an effect whose result a crash swallowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectClass {
    /// Changes nothing: sent again.
    Read,
    /// Carries a key by which the receiver knows it again: sent again with the same key.
    Idempotent,
    /// Can be undone by another tool: asked about where a tool knows of it, else undone, and
    /// then sent again.
    Compensable,
    /// Neither: never sent twice; a human decides.
    Irreversible,
}

impl EffectClass {
    /// All of them, the most harmless first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Idempotent, Self::Compensable, Self::Irreversible];

    /// The name in definitions, the journal's export and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Idempotent => "idempotent",
            Self::Compensable => "compensable",
            Self::Irreversible => "irreversible",
        }
    }

    /// The class with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// May it be sent again without asking anybody?
    #[must_use]
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Read | Self::Idempotent)
    }
}

/// One effect: the n-th of its run, from 1. Never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId {
    /// Its run.
    pub run: RunKey,
    /// Its number there.
    pub number: u32,
}

impl EffectId {
    /// Parses what `Display` writes: `run-1f03.7`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (run, number) = text.rsplit_once('.')?;
        Some(Self { run: RunKey::parse(run)?, number: number.parse().ok()? })
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.number)
    }
}

/// An amount of what runs may use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Tokens in and out.
    pub tokens: Tokens,
    /// Money.
    pub money: MicroUsd,
    /// Calls on models and tools.
    pub calls: u64,
    /// Turns.
    pub steps: u64,
}

impl Spend {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            money: self.money + other.money,
            calls: self.calls.saturating_add(other.calls),
            steps: self.steps.saturating_add(other.steps),
        }
    }

    /// What is left of it, stopping at zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens - other.tokens,
            money: self.money - other.money,
            calls: self.calls.saturating_sub(other.calls),
            steps: self.steps.saturating_sub(other.steps),
        }
    }
}

/// What a run may use, itself and all below it. `None` is no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Tokens in and out.
    pub tokens: Option<Tokens>,
    /// Money.
    pub money: Option<MicroUsd>,
    /// Calls on models and tools.
    pub calls: Option<u64>,
    /// Turns.
    pub steps: Option<u64>,
    /// Time from its start to its end.
    pub wall: Option<Millis>,
    /// Children alive at once.
    pub children: Option<u32>,
    /// Levels of runs below it.
    pub depth: Option<u16>,
}

impl Allowance {
    /// What both leave: the smaller of each limit.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            tokens: least(self.tokens, other.tokens),
            money: least(self.money, other.money),
            calls: least(self.calls, other.calls),
            steps: least(self.steps, other.steps),
            wall: least(self.wall, other.wall),
            children: least(self.children, other.children),
            depth: least(self.depth, other.depth),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Ask a model. The request is made from the agent's state when it is sent, so that
    /// the journal does not grow with the square of a conversation.
    Model {
        /// The alias.
        model: Arc<str>,
        /// What the handler wants to know again when it makes the request.
        recipe: Payload,
    },
    /// Call a tool.
    Tool {
        /// `server.tool`, or the name of an HTTP tool.
        tool: Arc<str>,
        /// Its arguments: a JSON object.
        args: Payload,
        /// The tool that undoes it, for [`EffectClass::Compensable`].
        undo: Option<Arc<str>>,
        /// The tool that says whether it was done, likewise: asked before it is undone.
        query: Option<Arc<str>>,
    },
    /// Have another agent work on a task, below this run; its end is the answer.
    Child {
        /// Whom: `type/key`; a type alone is given a key of its own.
        agent: Agent,
        /// The task.
        task: Payload,
        /// What it may use of what this run has.
        allowance: Allowance,
    },
    /// Leave a message in another agent's mailbox; its acceptance there is the answer.
    Message {
        /// Whose mailbox.
        to: Agent,
        /// The message.
        body: Payload,
    },
    /// Wait until then.
    Timer {
        /// When it rings.
        at: At,
    },
    /// Ask people, or a system outside that calls back: whoever resolves it gives the answer.
    Promise {
        /// What is asked, for those who look at it.
        question: Payload,
    },
    /// Read a value of the tenant's store.
    Get {
        /// Its key.
        key: Arc<str>,
    },
    /// Write or remove a value of the tenant's store.
    Put {
        /// Its key.
        key: Arc<str>,
        /// The value; `None` removes it.
        value: Option<Payload>,
        /// The version that it must have for this to happen; 0 is none yet.
        expect: Option<u64>,
    },
    /// Wait until a value is newer than a version.
    Watch {
        /// Its key.
        key: Arc<str>,
        /// The version known.
        version: u64,
    },
    /// Take units of a resource, waiting until there are enough.
    Acquire {
        /// The resource.
        resource: Arc<str>,
        /// So many of its units.
        units: u32,
        /// So many there are in all; 1 is an exclusive lease.
        of: u32,
        /// Given back by itself after so long, unless renewed by acquiring again.
        ttl: Millis,
    },
    /// Give a lease back.
    Release {
        /// The resource.
        resource: Arc<str>,
        /// The fencing token it was granted with.
        token: u64,
    },
    /// Tell all who subscribed.
    Publish {
        /// The topic.
        topic: Arc<str>,
        /// What.
        body: Payload,
    },
    /// Hear once of the end of what another agent works on: how its run ended, or that the
    /// agent was taken out of service.
    Monitor {
        /// Whom; a type alone is its agent `main`.
        agent: Agent,
    },
    /// Fail with another agent's run, and it with this one.
    Link {
        /// Whom; a type alone is its agent `main`.
        agent: Agent,
        /// Or no longer.
        on: bool,
    },
    /// Have a topic's messages from now on in the own mailbox.
    Subscribe {
        /// The topic.
        topic: Arc<str>,
        /// Or no longer.
        on: bool,
    },
}

impl Work {
    /// The kind's name in waits, metrics, rules and the journal's export.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Tool { .. } => "tool",
            Self::Child { .. } => "child",
            Self::Message { .. } => "message",
            Self::Timer { .. } => "timer",
            Self::Promise { .. } => "promise",
            Self::Get { .. } => "get",
            Self::Put { .. } => "put",
            Self::Watch { .. } => "watch",
            Self::Acquire { .. } => "acquire",
            Self::Release { .. } => "release",
            Self::Publish { .. } => "publish",
            Self::Subscribe { .. } => "subscribe",
            Self::Monitor { .. } => "monitor",
            Self::Link { .. } => "link",
        }
    }

    /// The tool that asks for such work, as people name it: one from outside, or one of
    /// the runtime's own. Models and children are no tools.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        Some(match self {
            Self::Model { .. } | Self::Child { .. } => return None,
            Self::Tool { tool, .. } => tool,
            Self::Get { .. } => "store.get",
            Self::Put { .. } => "store.put",
            Self::Watch { .. } => "store.watch",
            Self::Timer { .. } => "timer.sleep",
            Self::Promise { .. } => "human.ask",
            Self::Message { .. } => "message.send",
            Self::Publish { .. } => "topic.publish",
            Self::Subscribe { .. } => "topic.subscribe",
            Self::Acquire { .. } => "lease.acquire",
            Self::Release { .. } => "lease.release",
            Self::Monitor { .. } => "agent.monitor",
            Self::Link { .. } => "agent.link",
        })
    }

    /// What it is done to: the model, tool, agent, key, resource or topic.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            Self::Model { model, .. } => model,
            Self::Tool { tool, .. } => tool,
            Self::Child { agent, .. }
            | Self::Message { to: agent, .. }
            | Self::Monitor { agent }
            | Self::Link { agent, .. } => agent.as_str(),
            Self::Timer { .. } | Self::Promise { .. } => "",
            Self::Get { key } | Self::Put { key, .. } | Self::Watch { key, .. } => key,
            Self::Acquire { resource, .. } | Self::Release { resource, .. } => resource,
            Self::Publish { topic, .. } | Self::Subscribe { topic, .. } => topic,
        }
    }
}

/// An effect that a turn asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The handler's own name for it, such as a tool call's id.
    pub tag: Arc<str>,
    /// What is to be done.
    pub work: Work,
    /// How it may be repeated.
    pub class: EffectClass,
    /// The most that it can cost: reserved before it is done.
    pub cost_max: Spend,
    /// It is given up after so long.
    pub patience: Option<Millis>,
    /// Equal for equal work: what the progress guard goes by. 0 is like nothing else.
    pub twin: u64,
    /// Arguments by path and labels, for the conditions of gate rules. Not journaled.
    pub facts: Vec<Fact>,
}

/// One argument or label of an effect, as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// `args.path.to.field`, `label.pii`.
    pub name: Arc<str>,
    /// Its value as text; numbers as they were written.
    pub value: Arc<str>,
}

/// What came of an effect, as the agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done(Payload),
    /// Done, and the tool itself says that it went wrong: the model should see it.
    Error(Payload),
    /// Not done, and it will not be.
    Failed {
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
    },
}

/// What the gate said of an effect. Journaled; never decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Allow,
    /// It may be done without these arguments.
    Redact(Vec<Arc<str>>),
    /// It may be done if people say so.
    Ask(Approval),
    /// It may not.
    Deny,
}

/// What people are asked before an effect is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// So many must say yes; one no is a no.
    pub quorum: u8,
    /// Who may: names of keys or of tenants below which they are; empty is any admin.
    pub approvers: Vec<Arc<str>>,
    /// Silence is a no after so long.
    pub patience: Millis,
    /// Who may say so as well where it takes long.
    pub deputy: Option<Deputy>,
}

impl Approval {
    /// Is this one of those who are asked? Where approvers are named an admin is none by
    /// itself: two pairs of eyes are worth nothing if one may stand for both.
    #[must_use]
    pub fn names(&self, who: &Person) -> bool {
        let named = |name: &Arc<str>| *name == who.name || who.tenant.is_under(name);
        who.alone || if self.approvers.is_empty() { who.admin } else { self.approvers.iter().any(named) }
    }
}

/// Who is asked as well when nobody decided in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deputy {
    /// The name of a key.
    pub to: Arc<str>,
    /// After so long.
    pub after: Millis,
}

/// Somebody who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name of the key, as it is recorded.
    pub name: Arc<str>,
    /// The key's tenant.
    pub tenant: Tenant,
    /// Does everything belong to it?
    pub admin: bool,
    /// Is it whoever has the machine, where there are no keys? Then nobody else can decide.
    pub alone: bool,
}

/// A vote that was handed on: from then on the one has it and the other has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// By whom: the name of a key; `None` is by the rule, to its [`Deputy`].
    pub by: Option<Arc<str>>,
    /// To the key of this name.
    pub to: Arc<str>,
    /// When.
    pub at: At,
}

/// A gate decision with the rule that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The rule's id; `default` where none matched.
    pub rule: Arc<str>,
    /// The decision.
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_named_by_its_run_and_number() {
        let effect = EffectId { run: RunKey(0x1f03), number: 7 };
        assert_eq!(effect.to_string(), "run-1f03.7");
        assert_eq!(EffectId::parse("run-1f03.7"), Some(effect));
        assert_eq!(EffectId::parse("run-1f03"), None);
    }
}
