//! What is durable of agents: plain rows, each of which can be rebuilt by folding the
//! journal. The kernel changes them by applying records, the store keeps them.

use std::fmt;
use std::sync::Arc;

use crate::effect::{
    Allowance, Answer, Approval, EffectClass, EffectId, Handed, Person, Ruling, Spend, Verdict, Work,
};
use crate::{Address, At, Code, Payload, RunKey, limits};

/// How an agent stands between turns. Whether it runs just now is not durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It has no task.
    #[default]
    Idle,
    /// It has one: it waits, may run or is running.
    Active,
    /// It was taken out of service: nothing wakes it but a human.
    Quarantined,
    /// It had one task, which is over.
    Done,
}

/// One of the six states that an agent is in, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentState {
    /// It has no task.
    Idle,
    /// Its turn may come.
    Runnable,
    /// It has its turn.
    Running,
    /// It waits for something that has a name.
    Waiting,
    /// It was taken out of service.
    Quarantined,
    /// Its only task is over.
    Done,
}

impl AgentState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Runnable, Self::Running, Self::Waiting, Self::Quarantined, Self::Done];

    /// The name in the API and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
            Self::Done => "done",
        }
    }
}

/// What gives an agent that waits its next turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// Any answer or message.
    #[default]
    Any,
    /// The answers to all effects under way; messages wait meanwhile.
    All,
}

/// A durable agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Its address.
    pub address: Address,
    /// The shard that holds it.
    pub shard: u8,
    /// The sequence of the last record that changed it.
    pub seq: u64,
    /// When that was.
    pub changed: At,
    /// How it stands.
    pub standing: Standing,
    /// Was it addressed by a key of somebody's choosing? Then it outlives its runs.
    pub lasting: bool,
    /// The run it works on.
    pub run: Option<RunKey>,
    /// Runs that wait for it, oldest first.
    pub queue: Vec<RunKey>,
    /// What its next turn will see, oldest first.
    pub inbox: Vec<Item>,
    /// Effects under way.
    pub pending: Vec<Pending>,
    /// What it waits for.
    pub wake: Wake,
    /// It gets no turn before.
    pub rests_until: At,
    /// Its run fails then, if it is not over.
    pub expires: At,
    /// Turns that failed in a row.
    pub strikes: u32,
    /// What the progress guard remembers.
    pub progress: Progress,
    /// Digests of the messages it took last, each of its id and of what it says: none is
    /// taken twice, and another one by the same id is told apart.
    pub seen: Vec<(u64, u64)>,
    /// Topics that it subscribed to.
    pub topics: Vec<Arc<str>>,
    /// Why it is in quarantine.
    pub why: Option<Arc<str>>,
    /// Who is to hear of the end of its run, by monitors and links.
    pub ties: Vec<Tie>,
}

/// Somebody who is to hear of the end of an agent's run: once, however it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The run that it is about.
    pub run: RunKey,
    /// The monitor that is answered; of a link the run that fails with it, and the effect
    /// that made it or 0.
    pub effect: EffectId,
    /// The other agent.
    pub peer: Address,
    /// Does the other fail with it? Else it is told.
    pub linked: bool,
    /// How the run ended: the other is yet to be told.
    pub fate: Option<Fate>,
}

/// What became of a run, as others are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ended well.
    Done,
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
    /// Its agent was taken out of service.
    Quarantined {
        /// In words.
        why: Arc<str>,
    },
}

impl AgentRow {
    /// Does something in its inbox give it a turn, apart from time and operators?
    #[must_use]
    pub fn is_wakeful(&self) -> bool {
        if self.standing != Standing::Active || self.run.is_none() {
            return false;
        }
        let task = self.inbox.iter().any(|item| matches!(item, Item::Task { .. }));
        let some = self.inbox.iter().any(|item| !matches!(item, Item::Note(_)));
        let mut own = self.pending.iter().filter(|pending| Some(pending.id.run) == self.run);
        match self.wake {
            Wake::Any => some,
            Wake::All => task || (some && !own.any(|pending| !pending.is_dropped())),
        }
    }

    /// When time alone makes something happen to it, whoever else comes before; [`At::MAX`]
    /// is never. `At(0)` is an agent that has something to do now. By this a suspended
    /// agent is found on the disk.
    #[must_use]
    pub fn due(&self) -> At {
        let mut due = self.expires;
        if self.ties.iter().any(|tie| tie.fate.is_some()) {
            // Long past: it is found whatever it stands like.
            due = At(1);
        }
        if self.is_wakeful() {
            due = due.min(self.rests_until);
        }
        for pending in &self.pending {
            let next = match (&pending.stage, &pending.work) {
                (Stage::Doubtful { .. }, _) => continue,
                (Stage::Attempted, _) => At(0),
                // It was never put off: it waits for a place, or has one.
                (Stage::Ready { after }, _) if *after <= pending.asked => At(0),
                (Stage::Ready { after: at }, _)
                | (Stage::Approving { until: at, .. }, _)
                | (Stage::Waiting, Work::Timer { at }) => *at,
                (Stage::Waiting, _) => pending.until,
            };
            let deputy = pending.asks_deputy().unwrap_or(At::MAX);
            due = due.min(next).min(pending.until).min(deputy);
        }
        due
    }
}

/// Something that a turn sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A run begins, or begins again.
    Task {
        /// The run; its row has the task.
        run: RunKey,
    },
    /// What came of an effect.
    Answer {
        /// Which.
        effect: EffectId,
        /// The handler's name for it.
        tag: Arc<str>,
        /// [`Work::kind`] of it.
        kind: Arc<str>,
        /// Equal for equal work.
        twin: u64,
        /// The answer.
        answer: Answer,
    },
    /// A message.
    Mail(Message),
    /// What the runtime has to say to the agent itself, such as a warning.
    Note(Arc<str>),
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Digest that is equal for the same message sent again.
    pub id: u64,
    /// The agent it is from; `None` is from outside.
    pub from: Option<Address>,
    /// The topic or signal it came by.
    pub name: Option<Arc<str>>,
    /// When it was taken.
    pub at: At,
    /// How many messages led to it, one by the other.
    pub hop: u16,
    /// What it says.
    pub body: Payload,
}

/// A message nobody could take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the shard of the agent that it was for.
    pub number: u64,
    /// Whom it was for.
    pub to: Address,
    /// The message.
    pub message: Message,
    /// Why it was not taken.
    pub why: Code,
}

/// How far an effect is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// People are asked.
    Approving {
        /// Who said yes.
        yes: Vec<Arc<str>>,
        /// Silence is a no from then on.
        until: At,
    },
    /// It may be done from then on.
    Ready {
        /// Not before.
        after: At,
    },
    /// It is about to be sent, or was: noted beforehand for what must not be sent twice.
    Attempted,
    /// Somebody else will answer: time, a child, people, another agent.
    Waiting,
    /// Nobody knows whether it was done: in the in-doubt inbox.
    Doubtful {
        /// What is known.
        why: Arc<str>,
    },
}

/// An effect under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub id: EffectId,
    /// The handler's name for it.
    pub tag: Arc<str>,
    /// What is to be done.
    pub work: Work,
    /// How it may be repeated.
    pub class: EffectClass,
    /// What the gate said.
    pub ruling: Ruling,
    /// What is reserved for it on its run and all above.
    pub reserved: Spend,
    /// Equal for equal work.
    pub twin: u64,
    /// How far it is.
    pub stage: Stage,
    /// So often it was tried in vain.
    pub attempts: u32,
    /// When the turn asked for it.
    pub asked: At,
    /// It is given up then.
    pub until: At,
    /// The run that works on it, for a child.
    pub child: Option<RunKey>,
    /// Votes on it that were handed on, in order; at most
    /// [`limits::VOTES_HANDED_MAX`].
    pub handed: Vec<Handed>,
    /// Why it is tried again, where it is.
    pub setback: Option<Setback>,
}

/// What came of the tries of an effect, all in vain so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// The row of the table that the last try ended with.
    pub code: Code,
    /// In words, the same.
    pub why: Arc<str>,
    /// When the first try failed.
    pub first: At,
    /// When the last did.
    pub last: At,
}

impl Pending {
    /// The approval that it asks for, if people are asked.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match (&self.stage, &self.ruling.verdict) {
            (Stage::Approving { .. }, Verdict::Ask(approval)) => Some(approval),
            _ => None,
        }
    }

    /// May this one say yes or no to it? Whoever is named by the approval, unless the vote
    /// was handed on, and whom one was handed to.
    #[must_use]
    pub fn has_vote(&self, who: &Person) -> bool {
        let Some(approval) = self.approval() else { return false };
        let gave = |handed: &Handed| handed.by.as_ref() == Some(&who.name);
        let last = self.handed.iter().rev().find(|handed| gave(handed) || handed.to == who.name);
        last.map_or_else(|| approval.names(who), |handed| handed.to == who.name)
    }

    /// Is it to be done by now? What was never put off is, even where the clock was set back
    /// since it was asked for.
    #[must_use]
    pub fn is_ready(&self, now: At) -> bool {
        matches!(self.stage, Stage::Ready { after } if after <= now || after <= self.asked)
    }

    /// When its [`crate::effect::Deputy`] is asked as well: counted from when those were
    /// asked who are named now, which another rule may have begun anew.
    #[must_use]
    pub fn asks_deputy(&self) -> Option<At> {
        let (approval, Stage::Approving { until, .. }) = (self.approval()?, &self.stage) else { return None };
        let deputy = approval.deputy.as_ref()?;
        let patience = approval.patience.0.saturating_mul(1_000);
        let begun = self.asked.max(At(until.0.saturating_sub(patience)));
        let asked = self.handed.iter().any(|handed| handed.by.is_none());
        (!asked).then(|| begun.plus(deputy.after))
    }

    /// Was it in doubt when its run ended or began anew? It was settled then, and nobody
    /// waits for it.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        matches!(self.stage, Stage::Doubtful { .. }) && self.reserved == Spend::default()
    }
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It waits until its agent is free.
    Queued,
    /// Its agent works on it.
    Active,
    /// It ended well.
    Done {
        /// With this.
        output: Payload,
    },
    /// It ended otherwise.
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

impl RunState {
    /// The name in the API and in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Active => "active",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Is it over?
    #[must_use]
    pub const fn over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// What becomes of a child of which another failed, and of a run that failed itself
/// (OTP's words).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Begun again whatever its end was.
    Permanent,
    /// Begun again if it failed.
    #[default]
    Transient,
    /// Never begun again.
    Temporary,
}

/// A durable run: one agent's work on one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its key.
    pub key: RunKey,
    /// Who works on it.
    pub agent: Address,
    /// The run it works for, and the effect there that waits for its end.
    pub parent: Option<EffectId>,
    /// The top of its tree; itself where it has no parent.
    pub root: RunKey,
    /// Levels above it.
    pub depth: u16,
    /// The version of the agent's definition that it is on.
    pub version: Arc<str>,
    /// Its task.
    pub task: Payload,
    /// What it may use.
    pub allowance: Allowance,
    /// What it and all below it used.
    pub used: Spend,
    /// What is reserved for effects under way, its own and those below it.
    pub reserved: Spend,
    /// How far it is.
    pub state: RunState,
    /// When it was asked for.
    pub began: At,
    /// When it was over.
    pub ended: Option<At>,
    /// Turns taken.
    pub turns: u32,
    /// Effects asked for: the number of the last.
    pub effects: u32,
    /// Its children that are not over, oldest first.
    pub children: Vec<RunKey>,
    /// When it was begun again, lately.
    pub restarts: Vec<At>,
    /// What its next messages carry as their hop: how many led to them, one by the other.
    pub hop: u16,
    /// The sequence of the last record that changed it.
    pub seq: u64,
    /// By whom it was asked for: a key's name, `cron`, or a parent's agent.
    pub by: Arc<str>,
    /// The run of a client's own that asked for the top of its tree, by the name that the
    /// client gives it (`x-seawall-run`), at most [`crate::limits::RUN_NAME_BYTES_MAX`].
    pub caller: Option<Arc<str>>,
    /// The run that it goes on from, where it was forked.
    pub fork: Option<Forked>,
}

/// Where a fork begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The run it was forked from.
    pub run: RunKey,
    /// After this turn; 0 is before the first.
    pub turn: u32,
}

/// How much of the progress guard's ladder an agent has climbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// All is well.
    #[default]
    Well,
    /// It was told so.
    Warned,
    /// It rests for a while before its next turn.
    Cooled,
    /// It waits for a human.
    Paused,
    /// It is out of service.
    Quarantined,
}

impl Rung {
    /// The name in the API, the journal's export and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Warned => "warned",
            Self::Cooled => "cooled",
            Self::Paused => "paused",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What the progress guard remembers of an agent's present run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Work asked for lately, and how often it was answered the same.
    pub twins: Vec<Twin>,
    /// Turns in a row that changed nothing.
    pub still: u32,
    /// Messages exchanged with others, in a row and without anything else between.
    pub letters: Vec<(u64, u32)>,
    /// How far up the ladder.
    pub rung: Rung,
    /// So often it was made to rest on the present rung.
    pub rests: u32,
    /// Did a tool change something for the run or one below it, or may have? Then the run
    /// is not begun again by itself: that would do it twice.
    pub touched: bool,
}

/// Work that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Twin {
    /// Equal for equal work.
    pub work: u64,
    /// Digest of the last answer to it.
    pub answer: u64,
    /// So often it was asked for and answered the same.
    pub count: u32,
    /// Of these, the last in a row with neither time nor news between.
    pub quick: u32,
}

/// A value of a tenant's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueRow {
    /// Whose.
    pub tenant: crate::Tenant,
    /// Its key.
    pub key: Arc<str>,
    /// Its version, from 1; a removed value keeps its own, so that no version is ever
    /// given twice.
    pub version: u64,
    /// The value; `None` was removed.
    pub value: Option<Payload>,
    /// The effect that wrote it last, which when sent again is answered the same.
    pub by: Option<EffectId>,
    /// When it was written.
    pub at: At,
}

/// A resource of which units are lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Whose.
    pub tenant: crate::Tenant,
    /// The resource.
    pub resource: Arc<str>,
    /// The newest fencing token given, or the highest that may have been.
    pub token: u64,
    /// Units in all.
    pub of: u32,
    /// Who holds how many.
    pub holders: Vec<Holder>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The effect that acquired it.
    pub effect: EffectId,
    /// Its agent.
    pub agent: Address,
    /// Its fencing token.
    pub token: u64,
    /// Units.
    pub units: u32,
    /// It ends by itself then.
    pub until: At,
}

/// A topic and who subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRow {
    /// Whose.
    pub tenant: crate::Tenant,
    /// Its name.
    pub topic: Arc<str>,
    /// Subscribers.
    pub agents: Vec<Address>,
}

/// When an agent's schedule last fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The agent.
    pub agent: Address,
    /// Then.
    pub fired: At,
}

/// What an operator stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    All,
    /// A tenant and all below it.
    Tenant(Arc<str>),
    /// All agents of a type, of every tenant.
    Type(Arc<str>),
    /// One agent.
    Agent(Address),
    /// A run and all below it.
    Tree(RunKey),
    /// A tool or all whose name begins with it, where it ends with `*`.
    Tool(Arc<str>),
}

impl Scope {
    /// Parses what `Display` writes: `all`, `tenant:PATH`, `type:NAME`,
    /// `agent:TENANT/TYPE/KEY`, `run:RUN` or `tool:NAME`, the last perhaps with a `*` at
    /// its end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        let (what, name) = text.split_once(':')?;
        if name.is_empty() || name.len() > limits::NAME_LEN_MAX {
            return None;
        }
        Some(match what {
            "tenant" => Self::Tenant(crate::Tenant::parse(name).ok()?.as_str().into()),
            "type" => {
                Self::Type(crate::Agent::parse(name).ok().filter(|_| !name.contains('/'))?.as_str().into())
            }
            "agent" => Self::Agent(Address::parse(name).ok()?),
            "run" => Self::Tree(RunKey::parse(name)?),
            "tool" => Self::Tool(name.into()),
            _ => return None,
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Tenant(path) => write!(f, "tenant:{path}"),
            Self::Type(name) => write!(f, "type:{name}"),
            Self::Agent(address) => write!(f, "agent:{address}"),
            Self::Tree(run) => write!(f, "run:{run}"),
            Self::Tool(name) => write!(f, "tool:{name}"),
        }
    }
}

/// A stop in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What is stopped.
    pub scope: Scope,
    /// Who stopped it.
    pub by: Arc<str>,
    /// When.
    pub at: At,
}

/// A shard's own row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardRow {
    /// Which.
    pub shard: u8,
    /// How often it was opened.
    pub epoch: u64,
    /// The sequence of its last record.
    pub seq: u64,
    /// Runs it has made.
    pub runs: u64,
    /// Dead letters it has made.
    pub letters: u64,
    /// The newest fencing token of all resources that nobody holds any more: those of the
    /// next holder are above it.
    pub tokens: u64,
    /// What is stopped; in shard 0 for all.
    pub halts: Vec<Stop>,
}

/// A row as it is after some records, for the store to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A shard.
    Shard(ShardRow),
    /// An agent.
    Agent(Box<AgentRow>),
    /// A run.
    Run(Box<RunRow>),
    /// One value of an agent's working state; `None` removes it.
    State {
        /// The run whose state it is.
        run: RunKey,
        /// Its key.
        key: Arc<str>,
        /// The value.
        value: Option<Payload>,
    },
    /// All of a run's working state is gone.
    NoState {
        /// The run.
        run: RunKey,
    },
    /// A value.
    Value(ValueRow),
    /// A lease.
    Lease(LeaseRow),
    /// A resource of which nobody holds any units.
    NoLease {
        /// Whose.
        tenant: crate::Tenant,
        /// Which.
        resource: Arc<str>,
    },
    /// A topic.
    Topic(TopicRow),
    /// A topic without subscribers.
    NoTopic {
        /// Whose.
        tenant: crate::Tenant,
        /// Which.
        topic: Arc<str>,
    },
    /// A schedule.
    Schedule(ScheduleRow),
    /// A dead letter.
    Letter(Box<DeadLetter>),
    /// A dead letter that was dealt with.
    NoLetter {
        /// Its shard.
        shard: u8,
        /// Its number.
        number: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_written_as_it_is_read() {
        for text in
            ["all", "tenant:acme/x", "type:clerk", "agent:acme/clerk/7", "run:run-1f03", "tool:github.*"]
        {
            assert_eq!(Scope::parse(text).map(|scope| scope.to_string()).as_deref(), Some(text));
        }
        for bad in ["", "all:", "tenant:", "tenant:a b", "type:a/b", "agent:clerk/7", "run:7", "nobody:x"] {
            assert_eq!(Scope::parse(bad), None, "{bad}");
        }
    }
}
