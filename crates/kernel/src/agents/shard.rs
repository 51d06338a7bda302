//! One shard's durable state, as far as it is in memory: rows that are changed by
//! applying records and by nothing else, so that folding the journal gives them again (I4).
//!
//! A tenant's agents, runs, values, leases and topics are all in one shard: whatever
//! agents do to each other is one record, and folding one shard never needs another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_model::durable::{
    AgentRow, DeadLetter, LeaseRow, Progress, Row, RunRow, ScheduleRow, ShardRow, Standing, TopicRow,
    ValueRow, Wake,
};
use seawall_model::effect::{EffectId, Spend};
use seawall_model::{Address, At, Payload, RunKey, Tenant};

use super::ledger;

/// A tenant's name for a value, resource or topic.
pub(crate) type Name = (Tenant, Arc<str>);

/// The rows of one shard that are in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Its own row.
    pub row: ShardRow,
    /// Agents that are in memory.
    pub agents: BTreeMap<Address, Box<AgentRow>>,
    /// Runs that are in memory: those of the agents that are, and all above them.
    pub runs: BTreeMap<RunKey, Box<RunRow>>,
    /// Values that are in memory.
    pub values: BTreeMap<Name, ValueRow>,
    /// All resources that somebody holds.
    pub leases: BTreeMap<Name, LeaseRow>,
    /// All topics that somebody subscribed to.
    pub topics: BTreeMap<Name, TopicRow>,
    /// When schedules last fired.
    pub schedules: BTreeMap<Address, ScheduleRow>,
    /// Dead letters.
    pub letters: BTreeMap<u64, DeadLetter>,
}

/// What changed since it was last written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    own: bool,
    agents: BTreeSet<Address>,
    runs: BTreeSet<RunKey>,
    values: BTreeSet<Name>,
    leases: BTreeSet<Name>,
    topics: BTreeSet<Name>,
    schedules: BTreeSet<Address>,
    letters: BTreeSet<u64>,
    /// What the record that is being applied changed.
    touched_agents: Vec<Address>,
    touched_runs: Vec<RunKey>,
    /// Agents of these tenants came into being, or are to outlive their runs now.
    lasting: Vec<Tenant>,
    /// Changes of working state, which is not in memory: as they are to be written.
    state: Vec<Row>,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(shard: u8) -> Self {
        Self { row: ShardRow { shard, ..ShardRow::default() }, ..Self::default() }
    }

    /// The run and all above it, from itself to the root.
    pub(crate) fn path(&self, run: RunKey) -> Vec<RunKey> {
        let mut path = Vec::new();
        let mut next = Some(run);
        while let Some(key) = next {
            let Some(row) = self.runs.get(&key) else { break };
            path.push(key);
            next = row.parent.map(|effect| effect.run);
        }
        path
    }

    /// Adds to what is reserved on the run and all above it.
    pub(crate) fn reserve(&mut self, run: RunKey, amount: Spend, dirty: &mut Dirty) {
        self.on_path(run, dirty, |row| ledger::reserve(row, amount));
    }

    /// Takes back what was reserved and books what was used, on the run and all above it.
    pub(crate) fn settle(&mut self, run: RunKey, reserved: Spend, used: Spend, dirty: &mut Dirty) {
        self.on_path(run, dirty, |row| ledger::settle(row, reserved, used));
    }

    fn on_path(&mut self, run: RunKey, dirty: &mut Dirty, change: impl Fn(&mut RunRow)) {
        for key in self.path(run) {
            if let Some(row) = self.runs.get_mut(&key) {
                change(row);
                dirty.run(key);
            }
        }
    }

    /// A tool changed something for the run, or may have: it and all above it know.
    pub(crate) fn touch(&mut self, run: RunKey, dirty: &mut Dirty) {
        for key in self.path(run) {
            let Some(address) = self.agent_of(key) else { continue };
            let Some(agent) = self.agents.get_mut(&address) else { continue };
            if agent.run == Some(key) && !agent.progress.touched {
                agent.progress.touched = true;
                dirty.agent(&address);
            }
        }
    }

    /// The agent, made where it is not known.
    pub(crate) fn agent_or_new(&mut self, address: &Address) -> &mut AgentRow {
        let shard = self.row.shard;
        self.agents.entry(address.clone()).or_insert_with(|| Box::new(new_agent(address, shard)))
    }

    /// The agent whose run waits for the end of another by this effect.
    pub(crate) fn agent_of(&self, run: RunKey) -> Option<Address> {
        self.runs.get(&run).map(|row| row.agent.clone())
    }

    /// Writes the record's sequence into every row that it changed, and its time.
    pub(crate) fn stamp(&mut self, at: At, dirty: &mut Dirty) {
        let seq = self.row.seq;
        for key in dirty.touched_runs.drain(..) {
            if let Some(run) = self.runs.get_mut(&key) {
                run.seq = seq;
                dirty.runs.insert(key);
            }
        }
        for address in dirty.touched_agents.drain(..) {
            if let Some(agent) = self.agents.get_mut(&address) {
                agent.seq = seq;
                agent.changed = at;
                dirty.agents.insert(address);
            }
        }
    }

    /// Takes what changed, as rows.
    pub(crate) fn rows(&self, dirty: &mut Dirty) -> Vec<Row> {
        let dirty = std::mem::take(dirty);
        let mut rows = dirty.state;
        if dirty.own {
            rows.push(Row::Shard(self.row.clone()));
        }
        rows.extend(dirty.runs.iter().filter_map(|key| self.runs.get(key)).cloned().map(Row::Run));
        rows.extend(dirty.agents.iter().filter_map(|key| self.agents.get(key)).cloned().map(Row::Agent));
        rows.extend(dirty.values.iter().filter_map(|key| self.values.get(key)).cloned().map(Row::Value));
        rows.extend(dirty.leases.into_iter().map(|name| match self.leases.get(&name) {
            Some(lease) => Row::Lease(lease.clone()),
            None => Row::NoLease { tenant: name.0, resource: name.1 },
        }));
        rows.extend(dirty.topics.into_iter().map(|name| match self.topics.get(&name) {
            Some(topic) => Row::Topic(topic.clone()),
            None => Row::NoTopic { tenant: name.0, topic: name.1 },
        }));
        let schedules = dirty.schedules.iter().filter_map(|key| self.schedules.get(key));
        rows.extend(schedules.cloned().map(Row::Schedule));
        rows.extend(dirty.letters.iter().map(|number| match self.letters.get(number) {
            Some(letter) => Row::Letter(Box::new(letter.clone())),
            None => Row::NoLetter { shard: self.row.shard, number: *number },
        }));
        rows
    }
}

impl Dirty {
    pub(crate) fn own(&mut self) {
        self.own = true;
    }

    pub(crate) fn agent(&mut self, address: &Address) {
        self.touched_agents.push(address.clone());
    }

    pub(crate) fn lasting(&mut self, address: &Address) {
        self.lasting.push(address.tenant.clone());
    }

    pub(crate) fn take_lasting(&mut self) -> Vec<Tenant> {
        std::mem::take(&mut self.lasting)
    }

    pub(crate) fn run(&mut self, key: RunKey) {
        self.touched_runs.push(key);
    }

    pub(crate) fn value(&mut self, name: Name) {
        self.values.insert(name);
    }

    pub(crate) fn lease(&mut self, name: Name) {
        self.leases.insert(name);
    }

    pub(crate) fn topic(&mut self, name: Name) {
        self.topics.insert(name);
    }

    pub(crate) fn schedule(&mut self, address: &Address) {
        self.schedules.insert(address.clone());
    }

    pub(crate) fn letter(&mut self, number: u64) {
        self.letters.insert(number);
    }

    pub(crate) fn state(&mut self, run: RunKey, key: Arc<str>, value: Option<Payload>) {
        self.state.push(Row::State { run, key, value });
    }

    pub(crate) fn no_state(&mut self, run: RunKey) {
        self.state.push(Row::NoState { run });
    }
}

fn new_agent(address: &Address, shard: u8) -> AgentRow {
    AgentRow {
        address: address.clone(),
        shard,
        seq: 0,
        changed: At(0),
        standing: Standing::Idle,
        lasting: true,
        run: None,
        queue: Vec::new(),
        inbox: Vec::new(),
        pending: Vec::new(),
        wake: Wake::Any,
        rests_until: At(0),
        expires: At::MAX,
        strikes: 0,
        progress: Progress::default(),
        seen: Vec::new(),
        topics: Vec::new(),
        why: None,
        ties: Vec::new(),
    }
}

/// The effect's place among those under way of its agent.
pub(crate) fn pending(agent: &AgentRow, effect: EffectId) -> Option<usize> {
    agent.pending.iter().position(|pending| pending.id == effect)
}
