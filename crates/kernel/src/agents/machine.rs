//! The machine: shards, what is live beside them, and the one function that changes both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use seawall_model::durable::{AgentRow, RunRow, Scope, Stop, ValueRow};
use seawall_model::effect::EffectId;
use seawall_model::journal::{Entry, Event, Record};
use seawall_model::{Address, At, Code, RunKey, Tenant};

use super::ahead::Ahead;
use super::alarm::{Alarm, Alarms};
use super::effect::{Batch, Effect, Reply};
use super::input::{Input, Ticket};
use super::memory::Reads;
use super::pool::Pool;
use super::rules::Rules;
use super::shard::{Dirty, Name, Shard};
use crate::rng::Rng;

/// Steps that one input may lead to by itself (a parent's end cancels its children, and so
/// on): far more than any tree has runs. More is a bug, which must not hang the process.
const FOLLOWING_MAX: usize = 1_000_000;

/// All agents of this node.
#[derive(Clone, Debug)]
pub struct Agents {
    pub(super) rules: Rules,
    pub(super) now: At,
    pub(super) rng: Rng,
    pub(super) shards: Vec<Shard>,
    dirty: Vec<Dirty>,
    durable: Vec<u64>,
    /// Effects that wait for a record to be on disk.
    held: Vec<VecDeque<(u64, Effect)>>,
    entries: Vec<Entry>,
    pub(super) slots: BTreeMap<Address, Slot>,
    pub(super) ahead: Ahead,
    pub(super) reads: Reads,
    pub(super) alarms: Alarms,
    pub(super) turns: Pool<Address>,
    pub(super) models: Pool<EffectId>,
    pub(super) tools: BTreeMap<Arc<str>, Pool<EffectId>>,
    pub(super) values: BTreeMap<Name, ValueSlot>,
    /// Who waits for a lease, in order.
    pub(super) acquirers: BTreeMap<Name, VecDeque<(EffectId, Address)>>,
    /// What each run was lent, perhaps ended since: what is looked at when it is over.
    pub(super) lent: BTreeMap<RunKey, BTreeSet<Name>>,
    /// Subscribers that have what an effect publishes, while others are yet to come or have no
    /// room; forgotten when its agent leaves memory: then those who have it know it again.
    pub(super) told: BTreeMap<EffectId, BTreeSet<Address>>,
    /// Values that nobody waits for, which leave once they are on disk up to a sequence.
    pub(super) values_idle: VecDeque<(usize, u64, Name)>,
    pub(super) room: bool,
    pub(super) draining: bool,
    pub(super) runs_live: usize,
    /// Agents that outlive their runs, by root tenant, and all of them.
    lasting: (BTreeMap<Arc<str>, usize>, usize),
    pub(super) token: u64,
    pub(super) tolls: Tolls,
    todo: VecDeque<Input>,
    pub(super) out: Vec<Effect>,
}

/// What was refused and told off since the machine was opened; for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tolls {
    /// Bookings that had no room, by meter.
    pub(super) short: BTreeMap<&'static str, u64>,
    /// What the progress guard found, by its name.
    pub(super) offences: BTreeMap<&'static str, u64>,
}

/// An agent that is in memory, or will be.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// It is being read; these inputs wait for it.
    Coming(Vec<Input>),
    /// It is here.
    Here(Live),
}

/// What is known of an agent in memory and not durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// The turn it has, and how many items it was granted with: what comes meanwhile is
    /// for the next one.
    pub(super) turn: Option<(u64, u32)>,
    /// Does it wait for one?
    pub(super) lined_up: bool,
    /// Effects that wait for a place.
    pub(super) lined: BTreeSet<EffectId>,
    /// Effects that the shell is performing.
    pub(super) flights: BTreeMap<EffectId, Flight>,
    /// Errands that could not be run, and when they are tried again.
    pub(super) rests: BTreeMap<EffectId, (At, Flight)>,
    /// When its alarm rings.
    pub(super) alarm: Option<At>,
    /// What its next turn waits for.
    pub(super) deferred: Option<Deferred>,
    /// Since when it has been as it is.
    pub(super) since: At,
    /// Runs of its that are over, and still in memory.
    pub(super) over: Vec<RunKey>,
}

/// A turn that could not be taken.
#[derive(Clone, Debug)]
pub(super) struct Deferred {
    /// What for.
    pub(super) cause: &'static str,
    /// Which of them.
    pub(super) on: Arc<str>,
    /// Since when,
    pub(super) since: At,
    /// how often,
    pub(super) times: u32,
    /// and until when at least.
    pub(super) until: At,
}

/// What is done about an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// It is done.
    Do,
    /// A tool is asked whether it was done.
    Ask,
    /// It is undone.
    Undo,
}

/// An effect that the shell is performing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// Since when.
    pub(super) since: At,
    /// What is being done about it.
    pub(super) errand: Errand,
    /// It is handed to the shell once its shard is on disk up to here.
    pub(super) seq: u64,
    /// It is given up then.
    pub(super) until: At,
    /// So often the errand could not be run.
    pub(super) tries: u32,
    /// What is undone is not done again before.
    pub(super) again: At,
}

/// A value that is in memory because somebody wants to write it or watches it.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueSlot {
    /// Has it been read?
    pub(super) here: bool,
    /// Who wants to write it once it is.
    pub(super) writers: Vec<Writer>,
    /// Who waits for a version newer than the one named.
    pub(super) watchers: Vec<(EffectId, Address, u64)>,
    /// Nobody waited for it when its shard was at this sequence; 0 while somebody does.
    pub(super) rests: u64,
}

/// Who wants to write a value.
#[derive(Clone, Debug)]
pub(super) enum Writer {
    /// An agent's effect.
    Effect(EffectId, Address),
    /// Somebody outside.
    Outside(Box<Input>),
}

impl Agents {
    /// A machine over shards as they were read, each of which is opened anew: whoever had
    /// it before may write no more. `runs_live` of all runs are not over. Agents that have
    /// work follow by [`Agents::restore`].
    #[must_use]
    pub fn open(now: At, rules: Rules, shards: Vec<Shard>, runs_live: usize) -> Self {
        let count = shards.len();
        let mut agents = Self {
            rng: Rng::seed(rules.seed),
            turns: Pool::new(rules.turns_max),
            models: Pool::new(rules.models_max),
            tools: BTreeMap::new(),
            rules,
            now,
            durable: shards.iter().map(|shard| shard.row.seq).collect(),
            shards,
            dirty: vec![Dirty::default(); count],
            held: vec![VecDeque::new(); count],
            entries: Vec::new(),
            slots: BTreeMap::new(),
            ahead: Ahead::default(),
            reads: Reads::default(),
            alarms: Alarms::default(),
            values: BTreeMap::new(),
            acquirers: BTreeMap::new(),
            lent: BTreeMap::new(),
            told: BTreeMap::new(),
            values_idle: VecDeque::new(),
            room: true,
            draining: false,
            runs_live,
            lasting: (BTreeMap::new(), 0),
            token: 0,
            tolls: Tolls::default(),
            todo: VecDeque::new(),
            out: Vec::new(),
        };
        for shard in 0..count {
            agents.shards[shard].row.epoch += 1;
            agents.append(shard, None, Event::Opened);
        }
        agents.weigh();
        agents.arm_leases();
        agents.arm_schedules();
        agents
    }

    /// How many agents each tenant has on disk that outlive their runs.
    pub fn know(&mut self, lasting: impl IntoIterator<Item = (Tenant, usize)>) {
        for (tenant, count) in lasting {
            self.count_lasting(&tenant, count);
        }
    }

    fn count_lasting(&mut self, tenant: &Tenant, more: usize) {
        let (by_root, all) = &mut self.lasting;
        *all += more;
        match by_root.get_mut(tenant.root()) {
            Some(count) => *count += more,
            None => drop(by_root.insert(tenant.root().into(), more)),
        }
    }

    /// May so many more agents come into being that outlive their runs, this one among them?
    pub(super) fn may_last(&self, address: &Address, more: usize) -> bool {
        let (by_root, all) = &self.lasting;
        let count = by_root.get(address.tenant.root()).copied().unwrap_or(0);
        self.agent(address).is_some_and(|row| row.lasting)
            || (count + more <= self.rules.tenant_agents_max && all + more <= self.rules.agents_max)
    }

    /// Rows of agents that have work, as the store has them: each with its run, its queued
    /// runs, and those above it. What a crash left in doubt is found here.
    pub fn restore(&mut self, now: At, agents: Vec<AgentRow>, runs: Vec<RunRow>, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        let addresses = self.admit_rows(agents, runs);
        for address in addresses {
            self.recover(&address);
        }
        self.settle_down(out);
    }

    /// One step.
    pub fn step(&mut self, now: At, input: Input, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.todo.push_back(input);
        self.settle_down(out);
    }

    /// When the machine wants to be stepped with [`Input::Tick`].
    #[must_use]
    pub fn wake_at(&self) -> Option<At> {
        // Once at the beginning, when all who had work are here.
        if self.is_awake() { self.alarms.next() } else { Some(self.now) }
    }

    /// What is to be written now, in one transaction: rows as they are after the last of
    /// the entries. Answer with [`Input::Durable`] for each shard among them.
    #[must_use]
    pub fn batch(&mut self) -> Batch {
        let entries = std::mem::take(&mut self.entries);
        let shards = self.shards.iter().zip(&mut self.dirty);
        let rows = shards.flat_map(|(shard, dirty)| shard.rows(dirty)).collect();
        Batch { entries, rows }
    }

    /// Is there something to be written?
    #[must_use]
    pub fn has_batch(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Works off the input, whatever it leads to, alarms that are due, and places that are
    /// free, until nothing more happens by itself.
    fn settle_down(&mut self, out: &mut Vec<Effect>) {
        let mut steps = 0;
        loop {
            while let Some(input) = self.todo.pop_front() {
                self.take(input);
                steps += 1;
                assert!(steps < FOLLOWING_MAX, "one input led to a million others");
            }
            if !self.ring() && !self.pump() && self.todo.is_empty() {
                break;
            }
        }
        self.look_ahead();
        out.append(&mut self.out);
    }

    /// Something that this input leads to, after it.
    pub(super) fn follow(&mut self, input: Input) {
        self.todo.push_back(input);
    }

    fn take(&mut self, input: Input) {
        let input = match self.await_agent(input) {
            Some(input) => input,
            None => return,
        };
        match input {
            Input::Configure(rules) => self.configure(*rules),
            Input::Start { ticket, start } => self.start(ticket, *start),
            Input::Commit { address, token, commit } => self.commit(&address, token, *commit),
            Input::Stumble { address, token, why } => self.stumble(&address, token, why),
            Input::Defer { address, token, cause, on, after } => {
                self.defer(&address, token, cause, on, after);
            }
            Input::Report { effect, address, report } => self.report(effect, &address, report),
            Input::Resolve { ticket, effect, address, who, answer } => {
                self.resolve(ticket, effect, &address, &who, answer);
            }
            Input::Vote { ticket, effect, address, matter, who, yes, args, facts } => {
                self.vote(ticket, effect, &address, matter, &who, yes, args, facts);
            }
            Input::Delegate { ticket, effect, address, who, to } => {
                self.delegate(ticket, effect, &address, &who, to);
            }
            Input::Send { ticket, to, message, by } => self.send(ticket, &to, *message, by),
            Input::Cancel { ticket, run, address, by } => self.cancel(ticket, run, &address, by),
            Input::Again { ticket, run, address, why } => self.again(ticket, run, &address, why),
            Input::Fail { run, address, code, why } => self.fail(&address, run, code, why),
            Input::Halt { ticket, scope, on, by } => self.halt(ticket, &scope, on, by),
            Input::Nudge { address } => self.nudge(&address),
            Input::Tie { address, effect, peer } => self.tie(&address, effect, &peer),
            Input::Unwatch { effect, peer } => self.unwatch(effect, &peer),
            Input::Down { address, effect, of } => self.down(&address, effect, &of),
            Input::Release { ticket, address, by } => self.release(ticket, &address, by),
            Input::Redrive { ticket, shard, number, send, by } => {
                self.redrive(ticket, shard, number, send, by);
            }
            Input::Define { ticket, kind, version, by } => {
                self.append(0, None, Event::Defined { kind, version, by });
                self.reply(0, ticket, Reply::Done);
            }
            Input::Put { .. } => self.put_from_outside(input),
            Input::Loaded { address, agents, runs } => self.loaded(&address, agents, runs),
            Input::ValueLoaded { tenant, key, row } => self.value_loaded(&(tenant, key), row),
            Input::Durable { shard, seq } => self.durable(shard, seq),
            Input::Room(room) => self.room = room,
            Input::DueLoaded { found, next } => self.due_loaded(found, next),
            Input::Tick => self.wake_up(),
            Input::Drain => self.draining = true,
        }
    }

    fn configure(&mut self, rules: Rules) {
        // The number of shards is the journal's, for life.
        self.rules = Rules { shards: self.rules.shards, ..rules };
        self.turns.resize(self.rules.turns_max);
        self.models.resize(self.rules.models_max);
        let places: Vec<(Arc<str>, u32)> =
            self.tools.keys().map(|server| (server.clone(), self.tool_places(server))).collect();
        for (server, places) in places {
            if let Some(pool) = self.tools.get_mut(&server) {
                pool.resize(places);
            }
        }
        self.weigh();
        self.arm_schedules();
    }

    fn weigh(&mut self) {
        self.turns.weigh(&self.rules.weights);
        self.models.weigh(&self.rules.weights);
        for pool in self.tools.values_mut() {
            pool.weigh(&self.rules.weights);
        }
    }

    pub(super) fn tool_places(&self, server: &str) -> u32 {
        let named = self.rules.tools.iter().find(|(name, _)| &**name == server);
        named.map_or(self.rules.tool_max, |(_, places)| *places)
    }

    /// The shard of a tenant: FNV-1a of its path (Fowler, Noll, Vo).
    #[must_use]
    pub fn shard_of(&self, tenant: &Tenant) -> usize {
        shard_of(tenant, self.shards.len())
    }

    pub(super) fn shard(&self, address: &Address) -> &Shard {
        &self.shards[self.shard_of(&address.tenant)]
    }

    pub(super) fn agent(&self, address: &Address) -> Option<&AgentRow> {
        self.shard(address).agents.get(address).map(|row| &**row)
    }

    pub(super) fn run(&self, address: &Address, run: RunKey) -> Option<&RunRow> {
        self.shard(address).runs.get(&run).map(|row| &**row)
    }

    pub(super) fn live(&mut self, address: &Address) -> Option<&mut Live> {
        match self.slots.get_mut(address) {
            Some(Slot::Here(live)) => Some(live),
            _ => None,
        }
    }

    /// Appends a record about an agent and applies it.
    pub(super) fn record(&mut self, address: &Address, event: Event) {
        let shard = self.shard_of(&address.tenant);
        self.append(shard, Some(address.clone()), event);
    }

    /// Appends a record and applies it.
    pub(super) fn append(&mut self, shard: usize, agent: Option<Address>, event: Event) {
        let row = &self.shards[shard].row;
        let (epoch, seq) = (row.epoch, row.seq + 1);
        let record = Record { at: self.now, agent, event };
        let entry = Entry { shard: row.shard, epoch, seq, record };
        self.shards[shard].apply(&entry, &mut self.dirty[shard]);
        for tenant in self.dirty[shard].take_lasting() {
            self.count_lasting(&tenant, 1);
        }
        self.entries.push(entry);
    }

    /// Has the shell do this once all that was recorded so far in the shard is on disk.
    pub(super) fn once_durable(&mut self, shard: usize, effect: Effect) {
        let seq = self.shards[shard].row.seq;
        if self.durable[shard] >= seq {
            self.out.push(effect);
        } else {
            self.held[shard].push_back((seq, effect));
        }
    }

    /// Has the shell drop what it does for an effect. What it was not handed yet is
    /// withdrawn instead: `true`, and nothing of it was ever sent.
    pub(super) fn abort(&mut self, shard: usize, effect: EffectId) -> bool {
        let withdrawn = self.withdraw(shard, |held| matches!(held, Effect::Perform(p) if p.effect == effect));
        if !withdrawn {
            self.out.push(Effect::Abort(effect));
        }
        withdrawn
    }

    /// Takes back what waits for the disk, if it still does.
    pub(super) fn withdraw(&mut self, shard: usize, which: impl Fn(&Effect) -> bool) -> bool {
        let before = self.held[shard].len();
        self.held[shard].retain(|(_, held)| !which(held));
        self.held[shard].len() < before
    }

    /// Is everything about the shard on disk up to here?
    pub(super) fn is_durable(&self, shard: usize, seq: u64) -> bool {
        self.durable[shard] >= seq
    }

    fn durable(&mut self, shard: u8, seq: u64) {
        let at = usize::from(shard);
        if at >= self.shards.len() {
            return;
        }
        self.durable[at] = self.durable[at].max(seq);
        while self.held[at].front().is_some_and(|(needs, _)| *needs <= seq) {
            self.out.extend(self.held[at].pop_front().map(|(_, effect)| effect));
        }
        self.forget_values();
    }

    /// Records that are not on disk yet.
    pub(super) fn undurable(&self) -> u64 {
        self.shards.iter().zip(&self.durable).map(|(shard, durable)| shard.row.seq - durable).sum()
    }

    /// Tells whoever waits that it is done, once it is durable.
    pub(super) fn reply(&mut self, shard: usize, ticket: Ticket, reply: Reply) {
        if ticket != 0 {
            self.once_durable(shard, Effect::Reply(ticket, reply));
        }
    }

    /// Tells whoever waits that it will not be done.
    pub(super) fn refuse(&mut self, ticket: Ticket, code: Code, why: impl Into<Arc<str>>) {
        if ticket != 0 {
            self.out.push(Effect::Reply(ticket, Reply::Refused { code, why: why.into() }));
        }
    }

    /// What alarms are due for; `false` if none was.
    fn ring(&mut self) -> bool {
        let Some(alarm) = self.alarms.pop(self.now) else { return false };
        match alarm {
            Alarm::Agent(address) => self.agent_rings(&address),
            Alarm::Lease(name) => self.lease_rings(&name),
            Alarm::Schedule(kind) => self.schedule_rings(&kind),
            // Every step looks.
            Alarm::Ahead => {}
        }
        true
    }

    /// Gives free places to whoever is next; `false` if nothing happened.
    fn pump(&mut self) -> bool {
        if self.draining {
            return false;
        }
        let mut moved = false;
        while let Some(address) = self.turns.next(self.now) {
            moved = true;
            self.grant(&address);
        }
        while let Some(effect) = self.models.next(self.now) {
            moved = true;
            self.perform(effect);
        }
        let servers: Vec<Arc<str>> =
            self.tools.iter().filter(|(_, pool)| pool.is_ready()).map(|(server, _)| server.clone()).collect();
        for server in servers {
            while let Some(effect) = self.tools.get_mut(&server).and_then(|pool| pool.next(self.now)) {
                moved = true;
                self.perform(effect);
            }
        }
        moved
    }

    /// A tree of runs is over: what it was served matters no more.
    pub(super) fn forget_tree(&mut self, tenant: &Tenant, root: RunKey) {
        self.turns.forget(tenant, root);
        self.models.forget(tenant, root);
        for pool in self.tools.values_mut() {
            pool.forget(tenant, root);
        }
    }

    /// The value, if it is in memory.
    pub(super) fn value(&self, name: &Name) -> Option<&ValueRow> {
        self.shards[self.shard_of(&name.0)].values.get(name)
    }

    /// How many of these the tenant's root and all below it have, where that may be `max`; in
    /// all shards, since those below may be in others.
    pub(super) fn count_of<T>(
        &self,
        tenant: &Tenant,
        max: usize,
        of: impl Fn(&Shard) -> &BTreeMap<Name, T>,
    ) -> usize {
        let all: usize = self.shards.iter().map(|shard| of(shard).len()).sum();
        if all < max {
            return all;
        }
        let Ok(root) = Tenant::parse(tenant.root()) else { return all };
        let begin: Name = (root.clone(), "".into());
        let own = |name: &&Name| name.0.as_str().starts_with(root.as_str());
        let count = |shard: &Shard| {
            let names = of(shard).range(begin.clone()..).map(|(name, _)| name).take_while(own);
            names.filter(|name| name.0.root() == root.as_str()).count()
        };
        self.shards.iter().map(count).sum()
    }

    /// Is this stopped, for this agent's run?
    pub(super) fn halted(&self, address: &Address, run: Option<RunKey>) -> Option<&Stop> {
        let halts = self.shards.first().map_or(&[][..], |shard| &shard.row.halts);
        halts.iter().find(|stop| match &stop.scope {
            Scope::All => true,
            Scope::Tenant(prefix) => address.tenant.is_under(prefix),
            Scope::Type(kind) => address.agent.kind() == &**kind,
            Scope::Agent(agent) => agent == address,
            Scope::Tree(top) => run.is_some_and(|run| self.shard(address).path(run).contains(top)),
            Scope::Tool(_) => false,
        })
    }

    /// Is this tool stopped?
    pub(super) fn tool_halted(&self, tool: &str) -> bool {
        let halts = self.shards.first().map_or(&[][..], |shard| &shard.row.halts);
        halts.iter().any(|stop| match &stop.scope {
            Scope::Tool(name) => match name.strip_suffix('*') {
                Some(begin) => tool.starts_with(begin),
                None => tool == &**name,
            },
            _ => false,
        })
    }
}

/// The shard of a tenant among so many.
#[must_use]
pub fn shard_of(tenant: &Tenant, shards: usize) -> usize {
    let hash = tenant.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV of short texts are the poorer ones.
    ((hash ^ (hash >> 32)) % shards.max(1) as u64) as usize
}
