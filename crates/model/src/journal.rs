//! What is written into the journal: one record per thing that happened, decisions
//! included, so that folding it decides nothing again.

use std::sync::Arc;

use crate::durable::{Message, Progress, RunRow, Scope, Stage, Wake};
use crate::effect::{Answer, Ask, EffectId, Ruling, Spend};
use crate::{Address, At, Code, Payload, RunKey};

/// One record. It belongs to one shard; its place there (epoch and sequence) and the hash
/// chain are the journal's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: At,
    /// The agent it is about, if it is about one.
    pub agent: Option<Address>,
    /// What happened.
    pub event: Event,
}

/// A record's place and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The shard.
    pub shard: u8,
    /// How often the shard had been opened.
    pub epoch: u64,
    /// Its place in the shard, from 1, without gaps.
    pub seq: u64,
    /// The record.
    pub record: Record,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The shard was opened; whoever had it before may write no more.
    Opened,
    /// A run was asked for.
    Started {
        /// The run as it begins.
        run: Box<RunRow>,
        /// Does its agent outlive it?
        lasting: bool,
        /// The state it begins with, where it is a fork.
        state: Vec<Change>,
        /// The time of the schedule that it was started by.
        schedule: Option<At>,
    },
    /// A turn was taken: the commit record.
    Turned(Box<Turn>),
    /// A turn failed.
    Stumbled {
        /// The run.
        run: RunKey,
        /// In words.
        why: Arc<str>,
        /// The next try is not before.
        rests_until: At,
    },
    /// An effect is about to be sent: noted beforehand for what must not be sent twice.
    Attempted {
        /// Which.
        effect: EffectId,
    },
    /// An effect was tried in vain and will be tried again, or found ready again.
    Postponed {
        /// Which.
        effect: EffectId,
        /// Not before.
        until: At,
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
        /// Does it count as an attempt?
        counts: bool,
        /// What the try used. What is reserved stays so, for the next one.
        used: Spend,
    },
    /// An effect was answered.
    Answered {
        /// Which.
        effect: EffectId,
        /// The answer.
        answer: Answer,
        /// What it used.
        used: Spend,
        /// Who answered, if not the world.
        by: Option<Arc<str>>,
    },
    /// Nobody knows whether an effect was done.
    Doubted {
        /// Which.
        effect: EffectId,
        /// What is known.
        why: Arc<str>,
    },
    /// Somebody said yes or no to an effect, or to sending one in doubt again.
    Voted {
        /// Which.
        effect: EffectId,
        /// Who.
        by: Arc<str>,
        /// Yes?
        yes: bool,
        /// With these arguments instead; with a no, why not.
        args: Option<Payload>,
        /// The stage it is in thereafter; `None` where a no ended it (an
        /// [`Event::Answered`] follows).
        stage: Option<Stage>,
        /// What the gate said of the arguments, where they are others.
        ruling: Option<Ruling>,
    },
    /// Somebody handed the vote on an effect on, or its rule asks somebody else as well.
    Delegated {
        /// Which.
        effect: EffectId,
        /// By whom; `None` is by the rule.
        by: Option<Arc<str>>,
        /// To the key of this name.
        to: Arc<str>,
    },
    /// A message was taken into a mailbox.
    Mailed {
        /// The message.
        message: Message,
        /// Who sent it, or sent it again, from outside; nobody where an agent did.
        by: Option<Arc<str>>,
    },
    /// A message was not taken.
    Lettered {
        /// The message.
        message: Message,
        /// Why.
        why: Code,
    },
    /// A dead letter was sent again or thrown away.
    Unlettered {
        /// Its number.
        number: u64,
        /// Sent again?
        sent: bool,
        /// Who did.
        by: Arc<str>,
    },
    /// A run is over, by no turn of its own.
    Ended {
        /// The run.
        run: RunKey,
        /// How: [`Ending::Done`] is not among them.
        ending: Ending,
    },
    /// A run begins again from its task.
    Restarted {
        /// The run.
        run: RunKey,
        /// Not before.
        rests_until: At,
        /// In words.
        why: Arc<str>,
    },
    /// An agent was taken out of service.
    Quarantined {
        /// In words.
        why: Arc<str>,
    },
    /// An agent was put back into service.
    Released {
        /// Who did.
        by: Arc<str>,
    },
    /// Something was stopped, or may go on.
    Halted {
        /// What.
        scope: Scope,
        /// Stopped?
        on: bool,
        /// Who did.
        by: Arc<str>,
    },
    /// A definition was put into force or removed through the API.
    Defined {
        /// The type.
        kind: Arc<str>,
        /// The version in force from here on; none where it was removed.
        version: Option<Arc<str>>,
        /// Who did.
        by: Arc<str>,
    },
    /// A run is on another version of its definition from here on.
    Moved {
        /// The run.
        run: RunKey,
        /// The version.
        version: Arc<str>,
    },
    /// A value was written or removed.
    Put {
        /// Whose.
        tenant: crate::Tenant,
        /// Its key.
        key: Arc<str>,
        /// The value.
        value: Option<Payload>,
        /// Its version.
        version: u64,
        /// The effect that did it.
        by: Option<EffectId>,
        /// Who did it from outside.
        who: Option<Arc<str>>,
    },
    /// A lease was granted or renewed.
    Granted {
        /// Whose.
        tenant: crate::Tenant,
        /// The resource.
        resource: Arc<str>,
        /// Units there are in all.
        of: u32,
        /// Who has it.
        holder: crate::durable::Holder,
    },
    /// A lease ended.
    Freed {
        /// Whose.
        tenant: crate::Tenant,
        /// The resource.
        resource: Arc<str>,
        /// Its token.
        token: u64,
    },
    /// Another run is to hear of the end of this agent's.
    Tied {
        /// Which, of which, and how.
        tie: crate::durable::Tie,
    },
    /// It is not any more, or has heard.
    Untied {
        /// The run of this agent.
        run: RunKey,
        /// The effect by which the other is known.
        effect: EffectId,
    },
    /// A topic has one subscriber more or less.
    Subscribed {
        /// Whose.
        tenant: crate::Tenant,
        /// The topic.
        topic: Arc<str>,
        /// The agent.
        agent: Address,
        /// More?
        on: bool,
    },
}

impl Event {
    /// The kind's name in the API, the export and the console.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Started { .. } => "started",
            Self::Turned(_) => "turned",
            Self::Stumbled { .. } => "stumbled",
            Self::Attempted { .. } => "attempted",
            Self::Postponed { .. } => "postponed",
            Self::Answered { .. } => "answered",
            Self::Doubted { .. } => "doubted",
            Self::Voted { .. } => "voted",
            Self::Delegated { .. } => "delegated",
            Self::Mailed { .. } => "mailed",
            Self::Lettered { .. } => "lettered",
            Self::Unlettered { .. } => "unlettered",
            Self::Ended { .. } => "ended",
            Self::Restarted { .. } => "restarted",
            Self::Quarantined { .. } => "quarantined",
            Self::Released { .. } => "released",
            Self::Halted { .. } => "halted",
            Self::Defined { .. } => "defined",
            Self::Moved { .. } => "moved",
            Self::Put { .. } => "put",
            Self::Granted { .. } => "granted",
            Self::Freed { .. } => "freed",
            Self::Subscribed { .. } => "subscribed",
            Self::Tied { .. } => "tied",
            Self::Untied { .. } => "untied",
        }
    }
}

/// What a handler makes of its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What changes in the run's working state.
    pub changes: Vec<Change>,
    /// The effects it wants.
    pub asks: Vec<Ask>,
    /// What comes next.
    pub next: Next,
}

/// Begins the keys of a run's conversation.
pub const SAID: &str = "m/";

/// What comes after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until it is woken.
    Wait(Wake),
    /// The run is over.
    End(Ending),
    /// It failed, and begins again from its task: what supervision said.
    Again {
        /// Not before.
        rests_until: At,
        /// In words.
        why: Arc<str>,
    },
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Well, with this.
    Done(Payload),
    /// It failed.
    Failed {
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
    },
    /// Somebody ended it.
    Cancelled {
        /// Who.
        by: Arc<str>,
    },
}

/// One change of a run's working state: named values that only its handler understands.
/// Keys that begin with [`SAID`] hold what it saw and said; to the progress guard such
/// changes are no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a value.
    Set {
        /// Its key.
        key: Arc<str>,
        /// The value.
        value: Payload,
    },
    /// Sets a value to what came of an effect that this turn sees, without writing it
    /// into the journal a second time.
    Keep {
        /// Its key.
        key: Arc<str>,
        /// The effect.
        effect: EffectId,
    },
    /// Removes a value.
    Drop {
        /// Its key.
        key: Arc<str>,
    },
}

/// The commit record of a turn, with what was decided on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The run.
    pub run: RunKey,
    /// Its number in the run, from 1.
    pub number: u32,
    /// So many items of the inbox were seen, from the oldest.
    pub seen: u32,
    /// What changes in the state.
    pub changes: Vec<Change>,
    /// The effects, in order; they are numbered on from the run's last.
    pub effects: Vec<Planned>,
    /// What comes next.
    pub next: Next,
    /// What the progress guard remembers thereafter.
    pub progress: Progress,
    /// How many messages led to those that this turn sends, one by the other.
    pub hop: u16,
    /// What the guard tells the agent.
    pub note: Option<Arc<str>>,
    /// The next turn is not before.
    pub rests_until: At,
}

/// An effect of a turn with what was decided on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What was asked for; its facts are not kept.
    pub ask: Ask,
    /// What the gate said.
    pub ruling: Ruling,
    /// Where it begins; `None` where it was refused.
    pub stage: Option<Stage>,
    /// Why it was refused.
    pub refused: Option<(Code, Arc<str>)>,
    /// What was reserved for it.
    pub reserved: Spend,
    /// It is given up then.
    pub until: At,
    /// The run made for it and its agent, for a child.
    pub child: Option<Box<RunRow>>,
}
