//! What is in memory: agents come when something concerns them, and leave when they have
//! nothing to do but wait. A suspended agent is a row on disk and, if it is due soon, an alarm here.

use std::collections::BTreeMap;

use seawall_model::durable::{AgentRow, RunRow, Stage, Standing};
use seawall_model::effect::Work;
use seawall_model::{Address, Agent, At, Millis, RunKey};

use super::alarm::Alarm;
use super::effect::Effect;
use super::input::Input;
use super::machine::{Agents, Live, Slot};

/// Reads under way, and who left memory while they were: what such a read says of them may
/// be older than what they took along.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Counts reads.
    count: u64,
    /// Agents that are being read, by when that began.
    open: BTreeMap<Address, u64>,
    /// Agents that left, by the last read that had begun; forgotten with the oldest read.
    left: BTreeMap<Address, u64>,
    /// Runs that left before their agent, likewise.
    left_runs: BTreeMap<RunKey, u64>,
}

/// Who left is looked through beyond so many, which is more than leave during most reads.
const LEFT_MAX: usize = 1_024;

/// Who could not leave memory tries again after so long.
const LEAVE_AGAIN: Millis = Millis(50);

impl Reads {
    fn begin(&mut self, address: &Address) {
        self.count += 1;
        self.open.insert(address.clone(), self.count);
    }

    fn leave(&mut self, address: &Address) {
        if self.open.is_empty() {
            return;
        }
        self.left.insert(address.clone(), self.count);
        self.trim();
    }

    fn leave_run(&mut self, run: RunKey) {
        if self.open.is_empty() {
            return;
        }
        self.left_runs.insert(run, self.count);
        self.trim();
    }

    fn trim(&mut self) {
        if self.left.len() + self.left_runs.len() > LEFT_MAX {
            let oldest = self.open.values().min().copied().unwrap_or(u64::MAX);
            self.left.retain(|_, since| *since >= oldest);
            self.left_runs.retain(|_, since| *since >= oldest);
        }
    }

    /// A read is over. Did one of those in it leave memory since it began?
    fn end<'a>(
        &mut self,
        address: &Address,
        mut strangers: impl Iterator<Item = &'a Address>,
        mut runs: impl Iterator<Item = RunKey>,
    ) -> bool {
        let Some(began) = self.open.remove(address) else { return false };
        let old = strangers.any(|row| self.left.get(row).is_some_and(|since| *since >= began))
            || runs.any(|run| self.left_runs.get(&run).is_some_and(|since| *since >= began));
        if self.open.is_empty() {
            self.left.clear();
            self.left_runs.clear();
        }
        old
    }
}

impl Agents {
    /// The input, if all it concerns is in memory; else it waits until it is.
    pub(super) fn await_agent(&mut self, input: Input) -> Option<Input> {
        for address in self.concerns(&input) {
            match self.slots.get_mut(&address) {
                Some(Slot::Here(_)) => {}
                Some(Slot::Coming(waiting)) => {
                    waiting.push(input);
                    return None;
                }
                None => {
                    self.fetch(&address, vec![input]);
                    return None;
                }
            }
        }
        Some(input)
    }

    /// Is the agent in memory? If not it will come, and `then` will happen.
    pub(super) fn bring(&mut self, address: &Address, then: Input) -> bool {
        match self.slots.get_mut(address) {
            Some(Slot::Here(_)) => return true,
            Some(Slot::Coming(waiting)) => {
                // Once is enough, however often one looks for it meanwhile.
                let same = |input: &Input| match (input, &then) {
                    (Input::Nudge { address: one }, Input::Nudge { address: other }) => one == other,
                    _ => false,
                };
                if !waiting.iter().any(same) {
                    waiting.push(then);
                }
            }
            None => self.fetch(address, vec![then]),
        }
        false
    }

    /// Has an agent read, for these inputs.
    fn fetch(&mut self, address: &Address, waiting: Vec<Input>) {
        self.out.push(Effect::Load(address.clone()));
        self.reads.begin(address);
        self.slots.insert(address.clone(), Slot::Coming(waiting));
    }

    fn concerns(&self, input: &Input) -> Vec<Address> {
        let keyed = |agent: &Agent| agent.as_str().contains('/');
        match input {
            Input::Start { start, .. } if keyed(&start.agent) => {
                vec![Address { tenant: start.tenant.clone(), agent: start.agent.clone() }]
            }
            Input::Commit { address, commit, .. } => {
                let mut all = vec![address.clone()];
                all.extend(commit.asks.iter().filter_map(|ask| match &ask.work {
                    Work::Child { agent, .. } if keyed(agent) => {
                        Some(Address { tenant: address.tenant.clone(), agent: agent.clone() })
                    }
                    _ => None,
                }));
                all
            }
            Input::Stumble { address, .. }
            | Input::Defer { address, .. }
            | Input::Report { address, .. }
            | Input::Resolve { address, .. }
            | Input::Vote { address, .. }
            | Input::Delegate { address, .. }
            | Input::Send { to: address, .. }
            | Input::Cancel { address, .. }
            | Input::Again { address, .. }
            | Input::Fail { address, .. }
            | Input::Nudge { address }
            | Input::Release { address, .. } => vec![address.clone()],
            Input::Tie { address, peer: other, .. } | Input::Down { address, of: other, .. } => {
                vec![address.clone(), other.clone()]
            }
            Input::Unwatch { peer, .. } => vec![peer.clone()],
            Input::Redrive { shard, number, send: true, .. } => {
                let letter = self.shards.get(usize::from(*shard)).and_then(|shard| shard.letters.get(number));
                letter.map(|letter| letter.to.clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Rows that were asked for.
    pub(super) fn loaded(&mut self, address: &Address, agents: Vec<AgentRow>, runs: Vec<RunRow>) {
        let away = |row: &&AgentRow| !matches!(self.slots.get(&row.address), Some(Slot::Here(_)));
        let strangers = agents.iter().filter(away).map(|row| &row.address);
        let shards = &self.shards;
        let gone = |run: &RunKey| {
            shards.get(usize::from(run.shard())).is_none_or(|shard| !shard.runs.contains_key(run))
        };
        if self.reads.end(address, strangers, runs.iter().map(|run| run.key).filter(gone)) {
            // One of its family changed and left memory meanwhile: these rows are old.
            self.reads.begin(address);
            return self.out.push(Effect::Load(address.clone()));
        }
        let mut waiting = Vec::new();
        for address in agents.iter().map(|row| &row.address).chain([address]) {
            if let Some(Slot::Coming(inputs)) = self.slots.get_mut(address) {
                waiting.append(inputs);
                self.slots.remove(address);
            }
        }
        let new = self.admit_rows(agents, runs);
        self.make_slot(address);
        if self.agent(address).is_none() {
            // Nobody by that name: the place is given up again.
            self.alarms.arm(self.now.plus(self.rules.suspend_after), Alarm::Agent(address.clone()));
        }
        for address in new {
            self.recover(&address);
        }
        for input in waiting {
            self.follow(input);
        }
    }

    /// Takes rows into memory that are not there; answers with the agents among them.
    pub(super) fn admit_rows(&mut self, agents: Vec<AgentRow>, runs: Vec<RunRow>) -> Vec<Address> {
        let mut over = Vec::new();
        for run in runs {
            let shard = self.shard_of(&run.agent.tenant);
            let known = self.shards[shard].runs.contains_key(&run.key);
            if !known {
                if run.state.over() {
                    over.push((run.agent.clone(), run.key));
                }
                self.shards[shard].runs.insert(run.key, Box::new(run));
            }
        }
        let mut new = Vec::new();
        for row in agents {
            let shard = self.shard_of(&row.address.tenant);
            if self.shards[shard].agents.contains_key(&row.address) {
                continue;
            }
            let address = row.address.clone();
            self.forget(&address);
            self.make_slot(&address);
            self.shards[shard].agents.insert(address.clone(), Box::new(row));
            new.push(address);
        }
        // Runs above others that are not over yet, though they are: they leave with their agent.
        for (address, run) in over {
            if let Some(live) = self.live(&address) {
                live.over.push(run);
            }
        }
        new
    }

    /// When the agent must be looked at again, whoever comes first.
    fn next_due(&self, row: &AgentRow) -> At {
        let mut due = At::MAX;
        let mut at = |moment: At| due = due.min(moment);
        if let Some(run) = row.run.and_then(|run| self.run(&row.address, run)) {
            at(self.expires(run.began, run.allowance.wall));
        }
        if row.rests_until > self.now && row.is_wakeful() {
            at(row.rests_until);
        }
        for pending in &row.pending {
            at(self.rests_until(&row.address, pending.id).unwrap_or(At::MAX));
            match (&pending.stage, &pending.work) {
                (Stage::Doubtful { .. }, _) => continue,
                (Stage::Waiting, Work::Timer { at: rings }) => at(*rings),
                (Stage::Approving { until, .. }, _) => {
                    at(*until);
                    at(pending.asks_deputy().unwrap_or(At::MAX));
                }
                (Stage::Ready { after }, _) if !pending.is_ready(self.now) => at(*after),
                (Stage::Attempted, _) if self.waits_to_be_undone(&row.address, pending.id) => continue,
                _ => {}
            }
            at(self.gives_up(&row.address, pending));
        }
        due
    }

    /// Sets the agent's alarm for whatever of it is due next, its leaving included.
    pub(super) fn set_alarm(&mut self, address: &Address) {
        let Some(row) = self.agent(address) else { return };
        let mut at = self.next_due(row);
        if self.may_leave(row) {
            let since = match self.slots.get(address) {
                Some(Slot::Here(live)) => live.since,
                _ => self.now,
            };
            // Never now: what is due now has just been done, and who could not leave waits
            // for the disk.
            let leaves = since.plus(self.rules.suspend_after).max(self.now.plus(LEAVE_AGAIN));
            at = at.min(leaves);
        }
        if let Some(Slot::Here(Live { deferred: Some(deferred), .. })) = self.slots.get(address)
            && deferred.until > self.now
        {
            at = at.min(deferred.until);
        }
        let at = at.max(At(self.now.0 + 1));
        let Some(live) = self.live(address) else { return };
        let before = live.alarm.replace(at);
        if before == Some(at) {
            return;
        }
        if let Some(before) = before {
            self.alarms.disarm(before, Alarm::Agent(address.clone()));
        }
        self.alarms.arm(at, Alarm::Agent(address.clone()));
    }

    /// An agent's alarm rings.
    pub(super) fn agent_rings(&mut self, address: &Address) {
        self.forget(address);
        if !self.bring(address, Input::Nudge { address: address.clone() }) {
            return;
        }
        let now = self.now;
        if let Some(live) = self.live(address) {
            // Another one that is still to ring stays.
            live.alarm.take_if(|at| *at <= now);
        }
        self.due(address);
        self.look(address);
        self.suspend(address);
    }

    /// Has it nothing to do but wait?
    fn may_leave(&self, row: &AgentRow) -> bool {
        let Some(Slot::Here(live)) = self.slots.get(&row.address) else { return false };
        if live.turn.is_some() || live.lined_up || !live.lined.is_empty() || !live.flights.is_empty() {
            return false;
        }
        let waits = row.pending.iter().all(|pending| match (&pending.stage, &pending.work) {
            (Stage::Waiting | Stage::Approving { .. } | Stage::Doubtful { .. }, _) => true,
            (Stage::Ready { .. }, Work::Watch { .. } | Work::Acquire { .. }) => false,
            (Stage::Ready { .. }, _) => !pending.is_ready(self.now),
            (Stage::Attempted, _) => false,
        });
        // Whoever has something to do and is stopped stays: it goes on when the stop is lifted.
        let quiet = row.standing != Standing::Active || !row.is_wakeful() || row.rests_until > self.now;
        // Whoever is yet to hear of an end is on the way into memory.
        let told = row.ties.iter().all(|tie| tie.fate.is_none());
        waits && quiet && told && !self.has_company(row)
    }

    /// Is one of its children in memory? Then so is it: what they use is booked on its run.
    fn has_company(&self, row: &AgentRow) -> bool {
        let shard = self.shard(&row.address);
        let over = match self.slots.get(&row.address) {
            Some(Slot::Here(live)) => &live.over[..],
            _ => &[],
        };
        let runs = row.run.iter().chain(&row.queue).chain(over);
        let mut children = runs.filter_map(|run| shard.runs.get(run)).flat_map(|run| &run.children);
        children.any(|child| shard.runs.contains_key(child))
    }

    /// Runs that are over leave memory before an agent that is never idle does, but for the
    /// last one: once they are on disk, nothing below them is here, and nothing of theirs is
    /// in doubt.
    pub(super) fn forget_over(&mut self, address: &Address) {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return };
        let Some((_, older)) = live.over.split_last() else { return };
        let at = self.shard_of(&address.tenant);
        let shard = &self.shards[at];
        let is_wanted = |run: &RunKey| {
            let of = |row: &AgentRow| row.pending.iter().any(|pending| pending.id.run == *run);
            self.agent(address).is_some_and(of) || live.flights.keys().any(|effect| effect.run == *run)
        };
        let is_spent = |run: &&RunKey| match shard.runs.get(run) {
            Some(row) => {
                let alone = row.children.iter().all(|child| !shard.runs.contains_key(child));
                alone && self.is_durable(at, row.seq) && !is_wanted(run)
            }
            None => true,
        };
        let spent: Vec<RunKey> = older.iter().filter(is_spent).copied().collect();
        for run in &spent {
            self.shards[at].runs.remove(run);
            self.reads.leave_run(*run);
        }
        if let Some(live) = self.live(address) {
            live.over.retain(|run| !spent.contains(run));
        }
    }

    /// Lets an agent leave memory that has been waiting long enough, if all of it is on
    /// disk.
    fn suspend(&mut self, address: &Address) {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return };
        let waited = live.since.plus(self.rules.suspend_after) <= self.now;
        let Some(row) = self.agent(address) else {
            self.slots.remove(address);
            return;
        };
        let shard = self.shard_of(&address.tenant);
        // Its runs may have changed after it did, by what its children used.
        let runs = row.run.iter().chain(&row.queue).chain(&live.over);
        let newest = runs.filter_map(|run| self.run(address, *run)).map(|run| run.seq).max().unwrap_or(0);
        let on_disk = self.is_durable(shard, row.seq.max(newest));
        if !waited || !on_disk || !self.may_leave(row) {
            return;
        }
        let due = self.next_due(row);
        let runs: Vec<RunKey> = row.run.iter().chain(&row.queue).copied().collect();
        if let Some(Slot::Here(live)) = self.slots.remove(address) {
            if let Some(alarm) = live.alarm {
                self.alarms.disarm(alarm, Alarm::Agent(address.clone()));
            }
            for run in runs.into_iter().chain(live.over) {
                self.shards[shard].runs.remove(&run);
            }
        }
        let left = self.shards[shard].agents.remove(address);
        for pending in left.iter().flat_map(|row| &row.pending) {
            self.told.remove(&pending.id);
        }
        self.reads.leave(address);
        self.remember(address, due);
    }
}
