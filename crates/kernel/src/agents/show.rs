//! Looking at agents: what each waits for, figures for metrics, and the checks that tests,
//! the simulation and a running node make (the reconciler).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use seawall_model::durable::{AgentRow, AgentState, Pending, RunRow, RunState, Stage, Standing, Stop};
use seawall_model::effect::{EffectId, Spend, Work};
use seawall_model::{Address, At, RunKey};

use super::machine::{Agents, Errand, Slot};
use super::pool::Pool;
use super::shard::Shard;

/// What an agent waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its name: one of a closed list, for metrics.
    pub cause: &'static str,
    /// The tool, model, child, resource or person waited for.
    pub on: Arc<str>,
    /// Since when.
    pub since: At,
    /// Until when at most.
    pub until: Option<At>,
    /// The effect, if it is one.
    pub effect: Option<EffectId>,
}

/// How agents in memory stand, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By type and state.
    pub states: BTreeMap<Arc<str>, BTreeMap<&'static str, u64>>,
    /// Those that wait, by the cause that is nearest.
    pub needs: BTreeMap<&'static str, u64>,
    /// Likewise, as their rows tell it: so they are counted among those on disk.
    pub by_row: BTreeMap<&'static str, u64>,
}

/// Figures of all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Agents in memory by state.
    pub states: BTreeMap<&'static str, u64>,
    /// Agents in memory that wait, by cause.
    pub needs: BTreeMap<&'static str, u64>,
    /// Runs that are not over, suspended ones included.
    pub runs_live: usize,
    /// Turns under way, and agents that wait for one.
    pub turns: (u32, usize),
    /// Model calls under way, and those that wait for a place.
    pub models: (u32, usize),
    /// Likewise for each tool server.
    pub tools: BTreeMap<Arc<str>, (u32, usize)>,
    /// Records that are not on disk yet.
    pub undurable: u64,
    /// Dead letters.
    pub letters: usize,
    /// Bookings that had no room since the machine was opened, by meter.
    pub short: BTreeMap<&'static str, u64>,
    /// What the progress guard found since then, by its name.
    pub offences: BTreeMap<&'static str, u64>,
}

impl View {
    /// With agents in memory as they were counted.
    #[must_use]
    pub fn with(mut self, tally: &Tally) -> Self {
        for (state, count) in tally.states.values().flatten() {
            *self.states.entry(state).or_default() += count;
        }
        self.needs.clone_from(&tally.needs);
        self
    }
}

impl Agents {
    /// The state of an agent by its row; live if it is in memory.
    #[must_use]
    pub fn state(&self, row: &AgentRow) -> AgentState {
        match row.standing {
            Standing::Idle => AgentState::Idle,
            Standing::Done => AgentState::Done,
            Standing::Quarantined => AgentState::Quarantined,
            Standing::Active => match self.slots.get(&row.address) {
                Some(Slot::Here(live)) if live.turn.is_some() => AgentState::Running,
                Some(Slot::Here(live)) if live.lined_up => AgentState::Runnable,
                _ => AgentState::Waiting,
            },
        }
    }

    /// Everything that an agent waits for, the nearest first; empty where it does not.
    #[must_use]
    pub fn needs(&self, row: &AgentRow) -> Vec<Need> {
        let mut needs = Vec::new();
        let live = match self.slots.get(&row.address) {
            Some(Slot::Here(live)) => Some(live),
            _ => None,
        };
        // What it did last, or what became of it: it waits since then.
        let since = row.changed;
        let mut need = |cause, on: &str, since, until| {
            needs.push(Need { cause, on: on.into(), since, until, effect: None });
        };
        if row.standing == Standing::Quarantined {
            need("quarantine", row.why.as_deref().unwrap_or_default(), since, None);
        }
        let stop = self.halted(&row.address, row.run);
        if let Some(stop) = stop {
            need("halted", &stop.scope.to_string(), stop.at, None);
        }
        if row.is_held_by_guard() {
            need("guard", "a human, after no progress", since, None);
        } else if row.rests_until > self.now {
            need("rest", "", since, Some(row.rests_until));
        }
        if let Some(live) = live.filter(|live| live.lined_up && stop.is_none()) {
            let (cause, since) = ("turn_slot", row.changed.max(live.since));
            needs.push(Need { cause, on: "".into(), since, until: None, effect: None });
        }
        if let Some(put_off) = live.and_then(|live| live.deferred.as_ref()).filter(|it| it.until > self.now) {
            let (cause, on, since) = (put_off.cause, put_off.on.clone(), put_off.since);
            needs.push(Need { cause, on, since, until: None, effect: None });
        }
        // No place is given to what is stopped: it waits for none.
        let is_moot = |need: &Need| stop.is_some() && matches!(need.cause, "model_slot" | "tool_slot");
        needs.extend(row.awaited().map(|pending| self.need_of(row, pending)).filter(|need| !is_moot(need)));
        if needs.is_empty() && row.standing == Standing::Active && !row.is_wakeful() {
            needs.push(Need { cause: "message", on: "".into(), since, until: None, effect: None });
        }
        needs
    }

    /// The cause of the first of [`Self::needs`], for counting.
    fn cause(&self, row: &AgentRow) -> Option<&'static str> {
        let live = match self.slots.get(&row.address) {
            Some(Slot::Here(live)) => Some(live),
            _ => None,
        };
        let rests = row.rests_until > self.now;
        let put_off = live.and_then(|live| live.deferred.as_ref()).filter(|it| it.until > self.now);
        let mut pending = row.awaited();
        Some(match () {
            () if row.standing == Standing::Quarantined => "quarantine",
            () if self.halted(&row.address, row.run).is_some() => "halted",
            () if row.is_held_by_guard() => "guard",
            () if rests => "rest",
            () if live.is_some_and(|live| live.lined_up) => "turn_slot",
            () => match (put_off, pending.next()) {
                (Some(put_off), _) => put_off.cause,
                (None, Some(pending)) => {
                    let flies = live.is_some_and(|live| live.flights.contains_key(&pending.id));
                    self.cause_of(pending, flies, self.rests_until(&row.address, pending.id)).0
                }
                (None, None) if row.standing == Standing::Active && !row.is_wakeful() => "message",
                (None, None) => return None,
            },
        })
    }

    /// The stop that an agent is under.
    #[must_use]
    pub fn stop_of(&self, row: &AgentRow) -> Option<&Stop> {
        self.halted(&row.address, row.run)
    }

    fn need_of(&self, row: &AgentRow, pending: &Pending) -> Need {
        let flight = match self.slots.get(&row.address) {
            Some(Slot::Here(live)) => live.flights.get(&pending.id).copied(),
            _ => None,
        };
        let (cause, until) =
            self.cause_of(pending, flight.is_some(), self.rests_until(&row.address, pending.id));
        let since = flight.map_or(pending.asked, |flight| flight.since);
        let on = match pending.child {
            Some(child) => format!("{} {child}", pending.work.object()).into(),
            None => pending.work.object().into(),
        };
        Need { cause, on, since, until: until.or(Some(pending.until)), effect: Some(pending.id) }
    }

    /// What an effect waits for, and until when where that is not its own end.
    fn cause_of(
        &self,
        pending: &Pending,
        flies: bool,
        rests_until: Option<At>,
    ) -> (&'static str, Option<At>) {
        match (&pending.stage, &pending.work) {
            (Stage::Approving { until, .. }, _) => ("approval", Some(*until)),
            (Stage::Doubtful { .. }, _) => ("in_doubt", None),
            (Stage::Ready { after }, _) if !pending.is_ready(self.now) => ("retry", Some(*after)),
            (Stage::Attempted, _) if rests_until.is_some() => ("retry", rests_until),
            (_, Work::Model { .. }) if flies => ("model_call", None),
            (_, Work::Tool { .. }) if flies => ("tool_call", None),
            (_, Work::Model { .. }) => ("model_slot", None),
            (_, Work::Tool { .. }) => ("tool_slot", None),
            (_, Work::Timer { at }) => ("timer", Some(*at)),
            (_, Work::Acquire { .. }) => ("lease", None),
            (_, work) => (work.kind(), None),
        }
    }

    /// An agent that is in memory.
    #[must_use]
    pub fn row(&self, address: &Address) -> Option<&AgentRow> {
        self.agent(address)
    }

    /// Is this turn still the agent's? One that was taken back counts for nothing.
    #[must_use]
    pub fn has_turn(&self, address: &Address, token: u64) -> bool {
        matches!(self.slots.get(address), Some(Slot::Here(live)) if live.turn.is_some_and(|(of, _)| of == token))
    }

    /// A run that is in memory.
    #[must_use]
    pub fn run_row(&self, run: RunKey) -> Option<&RunRow> {
        self.shards.get(usize::from(run.shard()))?.runs.get(&run).map(|row| &**row)
    }

    /// How a run ended, if it is in memory, over, and on disk so.
    #[must_use]
    pub fn ended(&self, run: RunKey) -> Option<RunState> {
        let row = self.run_row(run).filter(|row| row.state.over())?;
        self.is_durable(usize::from(run.shard()), row.seq).then(|| row.state.clone())
    }

    /// The shards as they are in memory.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &super::Rules {
        &self.rules
    }

    /// Is nothing under way or waiting for its turn?
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let busy = |slot: &Slot| match slot {
            Slot::Here(live) => {
                live.turn.is_some() || live.lined_up || !live.flights.is_empty() || !live.lined.is_empty()
            }
            Slot::Coming(_) => true,
        };
        !self.slots.values().any(busy)
    }

    /// Counts how the agents of a tenant and all below it stand, those in memory: so many at
    /// most, from the one after `from` on. Answers with the last that was counted, if there
    /// may be more: whoever holds a lock can give it up between.
    #[must_use]
    pub fn tally(
        &self,
        tenant: Option<&str>,
        from: Option<&Address>,
        max: usize,
        tally: &mut Tally,
    ) -> Option<Address> {
        let first = from.map_or(0, |from| self.shard_of(&from.tenant));
        let begin = |at: usize| match from.filter(|_| at == first) {
            Some(from) => Bound::Excluded(from.clone()),
            None => Bound::Unbounded,
        };
        let shards = self.shards.iter().enumerate().skip(first);
        let rows = shards
            .flat_map(|(at, shard)| shard.agents.range((begin(at), Bound::Unbounded)).map(|(_, row)| row));
        let mut last = None;
        for row in rows.take(max) {
            last = Some(&row.address);
            if tenant.is_some_and(|prefix| !row.address.tenant.is_under(prefix)) {
                continue;
            }
            let kind = row.address.agent.kind();
            if !tally.states.contains_key(kind) {
                tally.states.insert(kind.into(), BTreeMap::new());
            }
            let states = tally.states.get_mut(kind).expect("it was just put there");
            *states.entry(self.state(row).as_str()).or_default() += 1;
            if let Some(cause) = self.cause(row) {
                *tally.needs.entry(cause).or_default() += 1;
            }
            if let Some(cause) = row.cause() {
                *tally.by_row.entry(cause).or_default() += 1;
            }
        }
        last.cloned()
    }

    /// Figures for metrics; agents in memory are counted by [`Self::tally`].
    #[must_use]
    pub fn figures(&self) -> View {
        View {
            runs_live: self.runs_live,
            turns: figures(&self.turns),
            models: figures(&self.models),
            tools: self.tools.iter().map(|(name, line)| (name.clone(), figures(line))).collect(),
            undurable: self.undurable(),
            letters: self.shards.iter().map(|shard| shard.letters.len()).sum(),
            short: self.tolls.short.clone(),
            offences: self.tolls.offences.clone(),
            ..View::default()
        }
    }

    /// Figures, and how all agents in memory stand.
    #[must_use]
    pub fn view(&self) -> View {
        let mut tally = Tally::default();
        let _ = self.tally(None, None, usize::MAX, &mut tally);
        self.figures().with(&tally)
    }

    /// The reconciler: nothing runs without an owner, no reservation is older than its
    /// effect, nothing waits without a wake source, and no budget is overspent.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.turns.check();
        self.models.check();
        for shard in &self.shards {
            for row in shard.agents.values() {
                self.check_agent(row)?;
            }
            check_runs(shard)?;
        }
        Ok(())
    }

    fn check_agent(&self, row: &AgentRow) -> Result<(), String> {
        let Some(Slot::Here(live)) = self.slots.get(&row.address) else {
            return Err(format!("{} is in memory without a place", row.address));
        };
        for effect in live.flights.keys().chain(&live.lined) {
            if !row.pending.iter().any(|pending| pending.id == *effect) {
                return Err(format!("{effect} is performed and not under way"));
            }
        }
        for effect in live.rests.keys() {
            let is_its = |pending: &&Pending| pending.id == *effect && pending.stage == Stage::Attempted;
            if !row.pending.iter().any(|pending| is_its(&pending)) || live.flights.contains_key(effect) {
                return Err(format!("{effect} is to be asked about or undone, and was not lost"));
            }
        }
        if let Some(run) = row.run
            && !self.run(&row.address, run).is_some_and(|run| run.state == RunState::Active)
        {
            return Err(format!("{} works on {run}, which is not active", row.address));
        }
        if row.standing == Standing::Active && self.needs(row).is_empty() && live.turn.is_none() {
            return Err(format!("{} waits without a reason", row.address));
        }
        let first = self.needs(row).first().map(|need| need.cause);
        if self.cause(row) != first {
            return Err(format!("{} waits for {first:?} and is counted otherwise", row.address));
        }
        self.check_ties(row)?;
        if live.alarm.is_none() {
            return Err(format!("{} is in memory without an alarm", row.address));
        }
        let waits = row.pending.iter().filter(|pending| matches!(pending.stage, Stage::Attempted));
        for pending in waits {
            // Under a stop what is to be undone waits.
            let stopped = self.is_held(&row.address, pending.id, Errand::Undo)
                || self.waits_to_be_undone(&row.address, pending.id);
            let cared_for = live.flights.contains_key(&pending.id) || live.rests.contains_key(&pending.id);
            if !stopped && !cared_for {
                return Err(format!("{} was attempted and nobody performs it", pending.id));
            }
        }
        Ok(())
    }
}

/// Places held, and how many wait for one.
fn figures<I: Clone + Ord>(pool: &Pool<I>) -> (u32, usize) {
    (u32::try_from(pool.held()).unwrap_or(u32::MAX), pool.len())
}

/// What is reserved on a run is what its effects under way and the runs below it reserve.
fn check_runs(shard: &Shard) -> Result<(), String> {
    let mut below: BTreeMap<RunKey, Spend> = BTreeMap::new();
    for run in shard.runs.values() {
        if let Some(parent) = run.parent {
            let sum = below.entry(parent.run).or_default();
            *sum = sum.plus(run.reserved);
        }
    }
    for run in shard.runs.values() {
        let pending = shard.agents.get(&run.agent).map_or(&[][..], |agent| &agent.pending);
        let own = pending.iter().filter(|pending| pending.id.run == run.key);
        let own = own.fold(Spend::default(), |sum, pending| sum.plus(pending.reserved));
        let below = below.get(&run.key).copied().unwrap_or_default();
        check_run(run, own.plus(below), run.children.iter().any(|child| !shard.runs.contains_key(child)))?;
    }
    Ok(())
}

/// `all` is what is reserved on the run by those in memory; some of its children may not be.
fn check_run(run: &RunRow, all: Spend, some_away: bool) -> Result<(), String> {
    let less =
        run.reserved.calls < all.calls || run.reserved.tokens < all.tokens || run.reserved.money < all.money;
    if less || (!some_away && run.reserved != all) {
        return Err(format!("{} reserves {:?} for effects of {all:?}", run.key, run.reserved));
    }
    let taken = run.used.plus(run.reserved);
    let allowed = run.allowance;
    let over = allowed.calls.is_some_and(|max| taken.calls > max)
        || allowed.steps.is_some_and(|max| taken.steps > max)
        || allowed.tokens.is_some_and(|max| taken.tokens > max)
        || allowed.money.is_some_and(|max| taken.money > max);
    if over {
        return Err(format!("{} used {:?} of {allowed:?}", run.key, run.used));
    }
    Ok(())
}
