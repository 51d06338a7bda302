//! Everything that can happen to agents, closed in one enum.

use std::sync::Arc;

use seawall_model::durable::{AgentRow, Forked, Message, RunRow, Scope, ValueRow};
use seawall_model::effect::{Allowance, Answer, EffectId, Fact, Person, Spend};
use seawall_model::journal::{Change, Commit};
use seawall_model::{Address, Agent, At, Code, Millis, Payload, RunKey, Tenant};

use super::rules::Rules;

/// Names whoever waits for a reply; given out by the shell.
pub type Ticket = u64;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// New rules.
    Configure(Box<Rules>),
    /// Somebody wants a run.
    Start {
        /// Who waits for the reply.
        ticket: Ticket,
        /// What is asked for.
        start: Box<Start>,
    },
    /// A handler took its turn.
    Commit {
        /// The agent.
        address: Address,
        /// The turn, as named in its grant.
        token: u64,
        /// What it made of it.
        commit: Box<Commit>,
    },
    /// A handler failed in its turn.
    Stumble {
        /// The agent.
        address: Address,
        /// The turn, as named in its grant.
        token: u64,
        /// In words, without content.
        why: Arc<str>,
    },
    /// A turn that cannot be taken yet, by no fault of the agent: it gives its place to
    /// others, and is granted again.
    Defer {
        /// The agent.
        address: Address,
        /// The turn, as named in its grant.
        token: u64,
        /// What it waits for, of the causes that needs have.
        cause: &'static str,
        /// Which of them.
        on: Arc<str>,
        /// Not before.
        after: Millis,
    },
    /// What came of performing an effect.
    Report {
        /// Which.
        effect: EffectId,
        /// Its agent.
        address: Address,
        /// What came of it.
        report: Report,
    },
    /// Somebody answers a promise, or says what became of an effect in doubt.
    Resolve {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Which.
        effect: EffectId,
        /// Its agent.
        address: Address,
        /// Who answers; what is in doubt, only an admin.
        who: Box<Person>,
        /// The answer.
        answer: Answer,
    },
    /// Somebody says yes or no: to an effect that asks, or to sending one in doubt again.
    Vote {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Which.
        effect: EffectId,
        /// Its agent.
        address: Address,
        /// What about: it is refused where the effect asks something else by now.
        matter: Matter,
        /// Who.
        who: Box<Person>,
        /// Yes?
        yes: bool,
        /// With these arguments instead; with a no, why not.
        args: Option<Payload>,
        /// These arguments and the effect's labels, for the gate.
        facts: Vec<Fact>,
    },
    /// Somebody hands the vote on an effect on.
    Delegate {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Which.
        effect: EffectId,
        /// Its agent.
        address: Address,
        /// Who.
        who: Box<Person>,
        /// To the key of this name.
        to: Arc<str>,
    },
    /// A message from outside.
    Send {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Whom it is for.
        to: Address,
        /// The message.
        message: Box<Message>,
        /// Who sends it.
        by: Arc<str>,
    },
    /// Somebody ends a run.
    Cancel {
        /// Who waits for the reply.
        ticket: Ticket,
        /// The run.
        run: RunKey,
        /// Its agent.
        address: Address,
        /// Who.
        by: Arc<str>,
    },
    /// A run begins again from its task.
    Again {
        /// Who waits for the reply.
        ticket: Ticket,
        /// The run.
        run: RunKey,
        /// Its agent.
        address: Address,
        /// In words.
        why: Arc<str>,
    },
    /// A run fails by what happened around it.
    Fail {
        /// The run.
        run: RunKey,
        /// Its agent.
        address: Address,
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
    },
    /// An operator stops something, or lets it go on.
    Halt {
        /// Who waits for the reply.
        ticket: Ticket,
        /// What.
        scope: Scope,
        /// Stop?
        on: bool,
        /// Who.
        by: Arc<str>,
    },
    /// An agent's monitor of another, or link to it, is to be made.
    Tie {
        /// The agent.
        address: Address,
        /// The effect.
        effect: EffectId,
        /// The other.
        peer: Address,
    },
    /// An agent's monitor of another is no longer waited for.
    Unwatch {
        /// The effect.
        effect: EffectId,
        /// The other.
        peer: Address,
    },
    /// An agent is to hear that a run is over that its own is tied to.
    Down {
        /// The agent.
        address: Address,
        /// How it is known to the other.
        effect: EffectId,
        /// The other.
        of: Address,
    },
    /// Something that an agent waited for is in memory: what of it is due is done.
    Nudge {
        /// The agent.
        address: Address,
    },
    /// A definition was put into force or removed, and the journal is to say by whom.
    Define {
        /// Who waits for the reply.
        ticket: Ticket,
        /// The type.
        kind: Arc<str>,
        /// The version in force; none where it was removed.
        version: Option<Arc<str>>,
        /// Who.
        by: Arc<str>,
    },
    /// An operator puts an agent back into service.
    Release {
        /// Who waits for the reply.
        ticket: Ticket,
        /// The agent.
        address: Address,
        /// Who.
        by: Arc<str>,
    },
    /// An operator sends a dead letter again, or throws it away.
    Redrive {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Its shard.
        shard: u8,
        /// Its number there.
        number: u64,
        /// Send it?
        send: bool,
        /// Who.
        by: Arc<str>,
    },
    /// A value is written from outside.
    Put {
        /// Who waits for the reply.
        ticket: Ticket,
        /// Whose.
        tenant: Tenant,
        /// Its key.
        key: Arc<str>,
        /// The value; `None` removes it.
        value: Option<Payload>,
        /// The version it must have.
        expect: Option<u64>,
        /// Who.
        by: Arc<str>,
    },
    /// Rows that [`super::Effect::Load`] asked for; none where the agent is not known.
    Loaded {
        /// The agent asked for.
        address: Address,
        /// It and those above it.
        agents: Vec<AgentRow>,
        /// Their runs.
        runs: Vec<RunRow>,
    },
    /// Agents that [`super::Effect::LoadDue`] asked for, as the disk has them.
    DueLoaded {
        /// Who is due when, the next first.
        found: Vec<(Address, At)>,
        /// Where to go on; nowhere if that is all.
        next: Option<(At, u64)>,
    },
    /// A value that [`super::Effect::LoadValue`] asked for.
    ValueLoaded {
        /// Whose.
        tenant: Tenant,
        /// Its key.
        key: Arc<str>,
        /// The row, if there is one.
        row: Option<Box<ValueRow>>,
    },
    /// A shard's records are on disk up to here.
    Durable {
        /// The shard.
        shard: u8,
        /// The last of them.
        seq: u64,
    },
    /// Is there room on the disk for something new?
    Room(bool),
    /// Time passed: sent when [`super::Agents::wake_at`] says so.
    Tick,
    /// No new turns from now on.
    Drain,
}

/// What somebody says yes or no to. An effect that was approved meanwhile may be in doubt by
/// the time that another yes to it arrives: that one is no word on sending it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    /// May it be done?
    Approval,
    /// Is what may have been done to be sent again? Only an admin says so.
    Doubt,
}

/// A run that somebody wants.
#[derive(Clone, Debug)]
pub struct Start {
    /// For whom.
    pub tenant: Tenant,
    /// Which agent: `type/key`; a type alone is given a key of its own.
    pub agent: Agent,
    /// Its task.
    pub task: Payload,
    /// What it may use, where that is less than its type may.
    pub allowance: Allowance,
    /// By whom.
    pub by: Arc<str>,
    /// The run of a client's own that asks, if it names one.
    pub caller: Option<Arc<str>>,
    /// The run that it goes on from, for a fork.
    pub fork: Option<Forked>,
    /// The version of the definition, if not the newest.
    pub version: Option<Arc<str>>,
    /// The state it begins with, where it is a fork.
    pub state: Vec<Change>,
}

/// What came of performing an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It was answered.
    Done {
        /// The answer.
        answer: Answer,
        /// What it used.
        used: Spend,
    },
    /// It was not sent, or refused before anything was done: it may be sent again.
    NotDone {
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
        /// Not before.
        retry_after: Option<Millis>,
        /// Is it the effect's fault? Want of room is not.
        counts: bool,
        /// What the try used all the same.
        used: Spend,
    },
    /// What the tool says that was asked whether it was done.
    Found(Finding),
    /// It was sent, and nobody knows whether it was done.
    Lost {
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
        /// Not again before.
        retry_after: Option<Millis>,
        /// What it used: where nobody knows, the most that it can.
        used: Spend,
    },
}

/// What became of an effect whose answer was lost, as the tool says that knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was done, with this answer.
    Done(Answer),
    /// It was not, and will not be.
    NotDone,
    /// The tool does not know either.
    Unknown,
}
