//! The world: one clock, one list of things to come, and the real machine behind a shell
//! that writes, reads, performs and crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_kernel::agents::input::{Input, Report, Start, Ticket};
use seawall_kernel::agents::rules::Rules;
use seawall_kernel::agents::{Agents, Batch, Effect, Shard};
use seawall_load::rng::Rng;
use seawall_model::durable::{AgentRow, RunRow, Scope, ValueRow};
use seawall_model::effect::{Allowance, EffectClass, EffectId, Spend};
use seawall_model::journal::Commit;
use seawall_model::{Address, Agent, At, Millis, Payload, RunKey, Tenant};

use super::books::{Books, first_difference};
use super::cast;
use super::disk::Disk;
use super::door::Asked;
use super::lie::Lie;
use super::plan::{Blow, Plan};
use super::tally::Tally;
use super::tools::Tools;
use super::trouble::Trouble;
use crate::trace::Trace;

/// Events in one world: far more than any needs. Beyond it something goes round in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// What will happen.
#[derive(Debug)]
pub(super) enum Happening {
    Execute(u64),
    Report(u64, Report),
    Took(Address, u64, Result<Box<Commit>, Arc<str>>),
    Deferred(Address, u64),
    Written,
    Loaded(Address, Vec<AgentRow>, Vec<RunRow>),
    DueLoaded(Vec<(Address, At)>, Option<(At, u64)>),
    ValueLoaded(Tenant, Arc<str>, Option<Box<ValueRow>>),
    Tick,
    Client,
    Flood,
    People,
    Blow(Blow),
    Crash,
    Die,
    Reopen,
    Jump,
    Room(bool),
    Calm,
}

impl Happening {
    /// Does it happen though the process has died?
    const fn survives(&self) -> bool {
        matches!(
            self,
            Self::Client
                | Self::People
                | Self::Blow(_)
                | Self::Crash
                | Self::Reopen
                | Self::Jump
                | Self::Room(_)
                | Self::Calm
        )
    }
}

/// An effect that the shell is performing.
#[derive(Clone, Debug)]
pub(super) struct Flying {
    pub(super) effect: EffectId,
    pub(super) address: Address,
    pub(super) class: EffectClass,
    pub(super) undo: bool,
    pub(super) query: bool,
    /// The pool that it has a place in: `model`, or a tool's server.
    pub(super) pool: Option<Arc<str>>,
    /// It will be executed, and has not been.
    pub(super) to_execute: bool,
    /// Nobody waits for it any longer.
    pub(super) aborted: bool,
    /// What it is to be paid when it is over.
    pub(super) price: Spend,
}

/// A handler that has a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turning {
    pub(super) token: u64,
    pub(super) run: RunKey,
    /// How often the run had begun again.
    pub(super) restarts: usize,
}

/// One world.
pub struct World {
    pub(super) plan: Plan,
    pub(super) rules: Rules,
    pub(super) now: At,
    pub(super) rng: Rng,
    /// Nobody while the process is down.
    pub(super) agents: Option<Box<Agents>>,
    pub(super) disk: Disk,
    pub(super) books: Books,
    /// The fold of all records, those included that are not on disk yet.
    pub(super) ahead: Vec<Shard>,
    pub(super) tools: Tools,
    pub(super) trace: Trace,
    events: BTreeMap<(At, u64), (u64, Happening)>,
    number: u64,
    /// Counts the lives of the process.
    pub(super) life: u64,
    pub(super) writing: Option<Batch>,
    pub(super) tick: Option<(At, u64)>,
    pub(super) flights: BTreeMap<u64, Flying>,
    pub(super) turns: BTreeMap<Address, Turning>,
    pub(super) tickets: BTreeMap<Ticket, Asked>,
    pub(super) ticket: Ticket,
    /// Runs of which the shell heard that they are over.
    pub(super) told_over: BTreeSet<RunKey>,
    pub(super) released: BTreeMap<Address, u32>,
    /// What people stopped.
    pub(super) halts: Vec<Scope>,
    pub(super) trouble: Trouble,
    /// Faults, operators and clients have stopped.
    pub(super) calm: bool,
    pub(super) tally: Tally,
}

impl World {
    /// The world of a plan; `whole` keeps every line of its trace.
    #[must_use]
    pub fn new(plan: Plan, whole: bool) -> Self {
        let rules = cast::rules(&plan);
        let mut world = Self {
            now: plan.begin,
            rng: Rng::branch(plan.seed, 2),
            agents: None,
            disk: Disk::new(plan.shards),
            books: Books::new(plan.shards),
            ahead: (0..plan.shards).map(Shard::new).collect(),
            tools: Tools::new(plan.lie == Some(Lie::ForgetKeys)),
            trace: Trace::new(whole),
            events: BTreeMap::new(),
            number: 0,
            life: 0,
            writing: None,
            tick: None,
            flights: BTreeMap::new(),
            turns: BTreeMap::new(),
            tickets: BTreeMap::new(),
            ticket: 0,
            told_over: BTreeSet::new(),
            released: BTreeMap::new(),
            halts: Vec::new(),
            trouble: Trouble::new(plan.begin),
            calm: false,
            tally: Tally::default(),
            rules,
            plan,
        };
        world.foresee();
        world
    }

    /// Puts down what fate has in store.
    fn foresee(&mut self) {
        let length = self.plan.length.0;
        let at = |world: &mut Self, what| {
            let when = Millis(world.rng.below(length));
            world.later(when, what);
        };
        for _ in 0..self.plan.starts {
            at(self, Happening::Client);
        }
        if self.plan.flood {
            self.later(Millis(10), Happening::Flood);
        }
        for _ in 0..self.plan.crashes {
            at(self, Happening::Crash);
        }
        for _ in 0..self.plan.jumps {
            at(self, Happening::Jump);
        }
        for _ in 0..self.plan.full {
            at(self, Happening::Room(false));
        }
        for (blow, times) in self.plan.blows.clone() {
            for _ in 0..times {
                at(self, Happening::Blow(blow));
            }
        }
        self.later(Millis(1_000), Happening::People);
        self.later(Millis(length), Happening::Calm);
    }

    /// Figures of the world.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> At {
        self.now
    }

    /// The books.
    #[must_use]
    pub const fn books(&self) -> &Books {
        &self.books
    }

    /// The last lines of the trace.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.trace.tail()
    }

    /// The whole trace, if it was kept.
    #[must_use]
    pub fn into_trace(self) -> Option<String> {
        self.trace.into_whole()
    }

    pub(super) fn later(&mut self, after: Millis, what: Happening) -> (At, u64) {
        self.later_us(after.micros(), what)
    }

    pub(super) fn later_us(&mut self, after: u64, what: Happening) -> (At, u64) {
        self.at(At(self.now.0.saturating_add(after)), what)
    }

    fn at(&mut self, at: At, what: Happening) -> (At, u64) {
        self.number += 1;
        self.events.insert((at, self.number), (self.life, what));
        (at, self.number)
    }

    /// From the beginning until everything is over and forgotten.
    ///
    /// # Panics
    /// When a law does not hold.
    pub fn run(&mut self) {
        self.open();
        let deadline = self.plan.begin.plus(self.plan.length).plus(self.plan.calm);
        let mut events = 0_u64;
        while !(self.calm && self.is_over()) {
            if !self.tally.shares.is_empty() {
                // A flood is over as soon as its figures are there.
                return self.tally.hash = self.trace.hash();
            }
            let Some(((at, _), (life, what))) = self.events.pop_first() else { break };
            self.now = self.now.max(at);
            events += 1;
            if self.now > deadline || events > EVENTS_MAX {
                panic!("progress: {}", self.stuck());
            }
            if life == self.life || what.survives() {
                self.happen(what);
            }
        }
        assert!(self.is_over(), "progress: nothing more happens, and {}", self.stuck());
        self.forget();
        self.close();
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Execute(flight) => self.execute(flight),
            Happening::Report(flight, report) => self.reported(flight, report),
            Happening::Took(address, token, commit) => self.took(address, token, commit),
            Happening::Deferred(address, token) => self.deferred(address, token),
            Happening::Written => self.written(),
            Happening::Loaded(address, agents, runs) => self.step(Input::Loaded { address, agents, runs }),
            Happening::DueLoaded(found, next) => self.step(Input::DueLoaded { found, next }),
            Happening::ValueLoaded(tenant, key, row) => self.step(Input::ValueLoaded { tenant, key, row }),
            Happening::Tick => {
                self.tick = None;
                if self.plan.lie != Some(Lie::HideTicks) {
                    self.step(Input::Tick);
                }
            }
            Happening::Client => self.client(),
            Happening::Flood => self.flood(),
            Happening::People => self.people(),
            Happening::Blow(blow) => self.blow(blow),
            Happening::Crash => self.crash(),
            Happening::Die => self.die(),
            Happening::Reopen => self.open(),
            Happening::Jump => {
                let jump = 1_000_000 * (1 + self.rng.below(1_200));
                self.now = At(self.now.0 + jump);
                self.step(Input::Tick);
            }
            Happening::Room(room) => {
                if !room {
                    let length = Millis(self.rng.below(20_000));
                    self.later(length, Happening::Room(true));
                }
                self.tell_room(room || self.calm);
            }
            Happening::Calm => self.calm_down(),
        }
    }

    /// One step of the machine, and what follows from it.
    pub(super) fn step(&mut self, input: Input) {
        let input = match self.plan.lie {
            Some(lie) => lie.input(input),
            None => input,
        };
        let Some(mut agents) = self.agents.take() else { return };
        self.tally.steps += 1;
        self.trouble.heard = self.trouble.heard.max(self.clock());
        let now = self.plan.lie.map_or(self.clock(), |lie| lie.now(self.clock(), self.tally.steps));
        self.trace.add(self.now, '>', &input);
        let mut out = Vec::new();
        agents.step(now, input, &mut out);
        self.agents = Some(agents);
        self.after(out);
    }

    pub(super) fn after(&mut self, out: Vec<Effect>) {
        if self.tally.steps.is_multiple_of(self.plan.check_every) {
            self.check_live();
        }
        self.write();
        for effect in out {
            self.trace.add(self.now, '<', &effect);
            self.effect(effect);
        }
        let Some(wake) = self.agents.as_ref().and_then(|agents| agents.wake_at()) else { return };
        let wake = if wake == At::MAX { wake } else { self.when(wake) };
        if wake < At::MAX && self.tick.is_none_or(|(at, _)| wake < at) {
            if let Some(old) = self.tick.take() {
                self.events.remove(&old);
            }
            self.tick = Some(self.at(wake, Happening::Tick));
        }
    }

    /// Takes what is to be written, unless a write is under way: group commit.
    fn write(&mut self) {
        let Some(agents) = self.agents.as_mut().filter(|agents| self.writing.is_none() && agents.has_batch())
        else {
            return;
        };
        let batch = agents.batch();
        for entry in &batch.entries {
            self.trace.add(self.now, '=', entry);
            self.ahead[usize::from(entry.shard)].fold(entry);
        }
        if self.plan.thorough {
            self.compare_live();
        }
        let slow = !self.calm && self.rng.below(100) < self.plan.faults.slow_disk;
        if slow {
            self.tally.happen("slow writes");
        }
        let latency = if slow { 50_000 + self.rng.below(900_000) } else { 500 + self.rng.below(4_000) };
        let early = (self.plan.lie == Some(Lie::EarlyDurable)).then(|| newest(&batch));
        self.writing = Some(batch);
        if self.trouble.tears() {
            let dies = self.rng.below(latency);
            self.later_us(dies, Happening::Crash);
        }
        self.later_us(latency, Happening::Written);
        for (shard, seq) in early.into_iter().flatten() {
            self.step(Input::Durable { shard, seq });
        }
    }

    /// A transaction is on disk.
    fn written(&mut self) {
        let Some(mut batch) = self.writing.take() else { return };
        if self.plan.lie == Some(Lie::LoseRows) && self.disk.commits % 20 == 19 {
            batch.rows.pop();
        }
        self.commit(&batch);
        let crash = self.plan.crash_at.filter(|(at, _)| *at == self.disk.commits);
        if crash == Some((self.disk.commits, false)) {
            return self.crash();
        }
        for (shard, seq) in newest(&batch) {
            self.step(Input::Durable { shard, seq });
        }
        if crash.is_some() {
            return self.crash();
        }
        self.write();
    }

    pub(super) fn commit(&mut self, batch: &Batch) {
        self.disk.commit(batch);
        for entry in &batch.entries {
            self.books.read(self.trouble.heard, entry);
        }
        self.tally.records += batch.entries.len() as u64;
        if self.plan.thorough || self.disk.commits.is_multiple_of(97) {
            self.books.compare(&self.disk);
        }
    }

    /// Live rows against the fold of everything that was recorded (I4).
    fn compare_live(&self) {
        let Some(agents) = &self.agents else { return };
        for (live, ahead) in agents.shards().iter().zip(&self.ahead) {
            let same = live.row == ahead.row
                && live.agents.iter().all(|(address, row)| ahead.agents.get(address) == Some(row))
                && live.runs.iter().all(|(key, row)| ahead.runs.get(key) == Some(row))
                && live.values.iter().all(|(name, row)| ahead.values.get(name) == Some(row))
                && (&live.leases, &live.topics) == (&ahead.leases, &ahead.topics)
                && (&live.schedules, &live.letters) == (&ahead.schedules, &ahead.letters);
            assert!(same, "I4: live {}", first_difference(live, ahead));
        }
    }

    /// Clients start runs, send messages and write values.
    fn client(&mut self) {
        if self.agents.is_none() {
            return;
        }
        let tenant = cast::tenant(self.rng.below(self.plan.tenants));
        match self.rng.below(20) {
            0 if self.plan.only.is_none() => self.outside_mail(tenant.clone()),
            1 if self.plan.only.is_none() => self.outside_put(tenant.clone()),
            _ => {}
        }
        let among = self.plan.among;
        let kind = self.plan.only.unwrap_or_else(|| among[self.rng.below(among.len() as u64) as usize]);
        if among.len() < cast::STARTED.len() && kind != "guard" {
            return self.start(tenant, &format!("{kind}/0"));
        }
        let talks = matches!(kind, "ping" | "chat" | "reader");
        let keyed = talks || self.rng.chance(0.3);
        let name = if keyed { format!("{kind}/{}", self.rng.below(3)) } else { kind.to_owned() };
        self.start(tenant, &name);
    }

    /// Two runs of each tenant, and two hundred of the first.
    fn flood(&mut self) {
        for nth in 0..200 {
            let alone = Tenant::parse(&format!("x{nth}/team")).expect("a valid path");
            let scattered = self.plan.lie == Some(Lie::Scatter);
            self.start(if scattered { alone } else { cast::tenant(0) }, "thinker");
            for polite in (1..self.plan.tenants).filter(|_| nth < 2) {
                self.start(cast::tenant(polite), "thinker");
            }
        }
    }

    fn start(&mut self, tenant: Tenant, name: &str) {
        let start = Start {
            tenant,
            agent: Agent::parse(name).expect("the cast's names are valid"),
            task: Payload::text("do it"),
            allowance: Allowance::default(),
            by: "client".into(),
            caller: None,
            fork: None,
            version: None,
            state: Vec::new(),
        };
        let (full, draining) = (self.trouble.full(), self.trouble.draining.is_some());
        let ticket = self.ticket(Asked::Start { full, draining });
        let input = Input::Start { ticket, start: Box::new(start) };
        if self.plan.lie == Some(Lie::EchoStarts) {
            self.step(input.clone());
        }
        self.step(input);
    }

    pub(super) fn ticket(&mut self, asked: Asked) -> Ticket {
        self.ticket += 1;
        self.tickets.insert(self.ticket, asked);
        self.ticket
    }

    fn calm_down(&mut self) {
        self.calm = true;
        self.trace.add(self.now, '-', &"calm");
        for kind in &mut self.rules.kinds {
            kind.schedule = None;
        }
        if self.agents.is_none() {
            self.open();
        }
        self.step(Input::Configure(Box::new(self.rules.clone())));
        self.tell_room(true);
    }

    /// Is every run over, and nothing under way?
    fn is_over(&self) -> bool {
        let Some(agents) = &self.agents else { return false };
        self.writing.is_none()
            && !agents.has_batch()
            && agents.is_quiet()
            && self.flights.values().all(|flight| flight.aborted)
            && self.books.runs.values().all(|run| run.over.is_some())
            && self.books.unread().is_none()
    }

    /// Who is not over, and why.
    fn stuck(&self) -> String {
        let live = self.books.runs.iter().filter(|(_, line)| line.over.is_none());
        let told = live.take(5).map(|(run, line)| {
            let row = self.books.fold.iter().find_map(|shard| shard.agents.get(&line.agent));
            let needs = row.zip(self.agents.as_ref()).map(|(row, agents)| agents.needs(row));
            format!("{run} of {} waits for {needs:?}: {row:?}", line.agent)
        });
        let told: Vec<String> =
            told.chain(self.books.unread().map(|row| format!("{row:?} has mail"))).collect();
        told.join("\n")
    }

    /// Time passes until whoever has nothing to do has left memory.
    fn forget(&mut self) {
        let until = self.now.plus(Millis(4 * self.plan.suspend_after.0 + 60_000));
        while let Some(((at, number), (life, what))) = self.events.pop_first() {
            if at > until {
                self.events.insert((at, number), (life, what));
                break;
            }
            self.now = self.now.max(at);
            if life == self.life && !matches!(what, Happening::People | Happening::Client) {
                self.happen(what);
            }
        }
    }
}

/// The last sequence of each shard in a batch.
fn newest(batch: &Batch) -> Vec<(u8, u64)> {
    let newest: BTreeMap<u8, u64> = batch.entries.iter().map(|entry| (entry.shard, entry.seq)).collect();
    newest.into_iter().collect()
}
