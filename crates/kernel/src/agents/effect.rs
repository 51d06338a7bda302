//! Everything that agents ask of the shell, closed in one enum. What is durable is not
//! among them: the shell takes it with [`super::Agents::batch`] and writes it down; an
//! effect that depends on a record comes only after [`super::Input::Durable`] (I3).

use std::sync::Arc;

use seawall_model::durable::{Item, Row, RunRow, RunState};
use seawall_model::effect::{EffectId, Spend, Work};
use seawall_model::journal::Entry;
use seawall_model::{Address, At, Code, EffectClass, RunKey, Tenant};

use super::input::Ticket;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An agent has its turn: answer with [`super::Input::Commit`] or
    /// [`super::Input::Stumble`].
    Turn(Box<Grant>),
    /// Do this in the world: answer with [`super::Input::Report`].
    Perform(Box<Perform>),
    /// Drop what is under way for this effect; no report is wanted.
    Abort(EffectId),
    /// Tell whoever waits.
    Reply(Ticket, Reply),
    /// Read this agent, those above it, and their runs.
    Load(Address),
    /// Find suspended agents by their next time ([`seawall_model::durable::AgentRow::due`]):
    /// answer with [`super::Input::DueLoaded`].
    LoadDue {
        /// Due then or later, and where equal after this one of the last answer.
        from: (At, u64),
        /// Due before.
        before: At,
        /// So many at most.
        max: usize,
    },
    /// Read this value.
    LoadValue(Tenant, Arc<str>),
    /// A run is over, durably.
    Over {
        /// Which.
        run: RunKey,
        /// How.
        state: RunState,
    },
    /// Something that an operator should know of.
    Notice(Notice),
}

/// An agent's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The agent.
    pub address: Address,
    /// Names the turn: an answer with another is ignored.
    pub token: u64,
    /// Its number in the run.
    pub number: u32,
    /// The run.
    pub run: RunRow,
    /// What it sees.
    pub items: Vec<Item>,
    /// How often it was put off, in a row.
    pub deferred: u32,
    /// The time that it may know.
    pub at: At,
}

/// An effect to be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perform {
    /// Which: with the installation's name in front it is the idempotency key.
    pub effect: EffectId,
    /// Whose.
    pub address: Address,
    /// The top of the run's tree.
    pub root: RunKey,
    /// The run of a client's own that this tree works for.
    pub caller: Option<Arc<str>>,
    /// The version that its run is on.
    pub version: Arc<str>,
    /// Turns that its run has taken: by this a state is known for the one it is done from.
    pub turns: u32,
    /// What.
    pub work: Work,
    /// How it may be repeated.
    pub class: EffectClass,
    /// Arguments to leave out, by path.
    pub redact: Vec<Arc<str>>,
    /// Which try, from 1.
    pub attempt: u32,
    /// Call the tool that undoes it instead.
    pub undo: bool,
    /// Ask the tool instead that knows whether it was done: answer with
    /// [`super::input::Report::Found`].
    pub query: bool,
    /// It is given up then.
    pub until: At,
    /// What is reserved for it: what it counts as where nobody says what it used.
    pub reserved: Spend,
}

/// What whoever waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The run is durable.
    Started {
        /// Which.
        run: RunKey,
        /// Whose.
        address: Address,
    },
    /// It is done and durable.
    Done,
    /// The message is in the mailbox.
    Taken {
        /// Nobody had written to this agent before, nor had it run.
        created: bool,
        /// It was there before: this is the same message once more.
        before: bool,
    },
    /// The value has this version now.
    Version(u64),
    /// It was refused.
    Refused {
        /// The row of the table.
        code: Code,
        /// In words.
        why: Arc<str>,
    },
}

/// Something that an operator should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An agent climbed the progress guard's ladder.
    Rung {
        /// Which.
        address: Address,
        /// How far.
        rung: seawall_model::durable::Rung,
        /// What it did: `repeats`, `cycle`, `hops` or `still`.
        offence: &'static str,
        /// In words.
        why: Arc<str>,
    },
    /// An agent was taken out of service.
    Quarantined {
        /// Which.
        address: Address,
        /// In words.
        why: Arc<str>,
    },
    /// An effect is in doubt.
    Doubt {
        /// Which.
        effect: EffectId,
        /// Whose.
        address: Address,
    },
    /// People are asked.
    Asked {
        /// Which.
        effect: EffectId,
        /// Whose.
        address: Address,
    },
    /// A message was not taken.
    Letter {
        /// Whom it was for.
        to: Address,
        /// Why.
        why: Code,
    },
}

/// What is to be written in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records, in the order of each shard.
    pub entries: Vec<Entry>,
    /// Rows as they are after these records.
    pub rows: Vec<Row>,
}

impl Batch {
    /// Is there nothing to write?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty()
    }
}
