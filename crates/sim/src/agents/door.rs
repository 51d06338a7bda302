//! The machine's door: every effect that comes out of it is held against what is on disk
//! and what people said, before it is performed.

use seawall_kernel::agents::effect::{Grant, Notice, Perform, Reply};
use seawall_kernel::agents::input::Ticket;
use seawall_kernel::agents::{Agents, Effect};
use seawall_model::durable::{Item, Rung, Scope};
use seawall_model::effect::{EffectId, Work};
use seawall_model::{Address, Code, Millis, Payload, RunKey};

use super::actor::{self, State};
use super::books::is_gated;
use super::cast::{self, DISHONEST, INBOX_MAX, QUORUM};
use super::lie::Lie;
use super::plan::Plan;
use super::world::{Happening, Turning, World};

/// What somebody waits to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A run; while the disk was full, or the process was about to end.
    Start {
        full: Option<u64>,
        draining: bool,
    },
    /// A run that goes on from this.
    Fork(Box<State>),
    Send(Address, u64),
    Cancel(RunKey),
    /// A yes to other arguments.
    Edit(EffectId, Payload),
    Resolve(EffectId),
    Other,
}

impl World {
    /// Does what the machine says.
    pub(super) fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Turn(grant) => self.turn(*grant),
            Effect::Perform(perform) => self.fly(*perform),
            Effect::Abort(effect) => self.abort(effect),
            Effect::Reply(ticket, reply) => self.reply(ticket, &reply),
            Effect::Load(address) => {
                let (mut agents, runs) = self.disk.load(&address);
                if let Some(lie) = self.plan.lie {
                    lie.rows(&mut agents);
                }
                let latency = self.read_latency();
                self.later_us(latency, Happening::Loaded(address, agents, runs));
            }
            Effect::LoadDue { from, before, max } => {
                let (mut found, next) = self.disk.due(from, before, max);
                if self.plan.lie == Some(Lie::LoseDue) {
                    found.clear();
                }
                let latency = self.read_latency();
                self.later_us(latency, Happening::DueLoaded(found, next));
            }
            Effect::LoadValue(tenant, key) => {
                let row = self.disk.value(&tenant, &key).cloned().map(Box::new);
                let latency = self.read_latency();
                self.later_us(latency, Happening::ValueLoaded(tenant, key, row));
            }
            Effect::Over { run, state } => {
                let line = self.books.runs.get(&run);
                let over = line.and_then(|line| line.over);
                assert!(
                    over == Some(state.as_str()),
                    "I3: {run} is said to be {} and is {over:?} on disk",
                    state.as_str()
                );
                if self.plan.flood && self.tally.shares.is_empty() {
                    // All had work until now.
                    self.tally.shares = self.tally.tokens.values().copied().collect();
                }
                if self.plan.lie != Some(Lie::HideOver) {
                    assert!(self.told_over.insert(run), "I6: {run} was over twice");
                }
            }
            Effect::Notice(notice) => self.notice(&notice),
        }
    }

    fn read_latency(&mut self) -> u64 {
        let slow = !self.calm && self.rng.below(100) < self.plan.faults.slow_reads;
        if slow {
            self.tally.happen("slow reads");
        }
        if slow { self.rng.below(5_000_000) } else { 100 + self.rng.below(2_000) }
    }

    fn live(&self) -> &Agents {
        self.agents.as_ref().expect("only a machine that is there has effects")
    }

    fn turn(&mut self, grant: Grant) {
        let (address, run) = (&grant.address, grant.run.key);
        let shard = &self.books.fold[usize::from(run.shard())];
        let inbox = shard.agents.get(address).map_or(&[][..], |row| &row.inbox);
        assert!(
            inbox.starts_with(&grant.items),
            "I3: {address} sees {:?}, and on disk is {inbox:?}",
            grant.items
        );
        let row = self.live().row(address);
        assert!(
            row.is_some_and(|row| row.run == Some(run)),
            "effects: {address} has a turn for {run}, which is over"
        );
        assert!(self.books.is_allowed(run), "gate: {run} has a turn and nobody said yes");
        let halted = self.halted(address, run);
        assert!(halted.is_none(), "halt: {address} has a turn under {halted:?}");
        self.check_grant(&grant);
        self.tally.turns += 1;
        let turning = Turning { token: grant.token, run, restarts: grant.run.restarts.len() };
        self.turns.insert(address.clone(), turning);
        self.check_turns();
        self.books.show(run, grant.number, &grant.items);
        if self.defers() {
            self.later(Millis(1), Happening::Deferred(grant.address, grant.token));
            return;
        }
        let nothing = State::new();
        let state = self.disk.states.get(&run).unwrap_or(&nothing);
        let commit = actor::play(self.plan.seed, &grant, state).map(Box::new);
        let latency = if self.rng.chance(0.05) { 3_000_000 } else { 2_000 + self.rng.below(100_000) };
        self.later_us(latency, Happening::Took(grant.address, grant.token, commit));
    }

    /// Never more turns than places, those apart whose run is over or began anew meanwhile.
    fn check_turns(&self) {
        let agents = self.live();
        let counts = |(address, turning): &(&Address, &Turning)| {
            let works = agents.row(address).is_some_and(|row| row.run == Some(turning.run));
            works && agents.run_row(turning.run).is_some_and(|run| run.restarts.len() == turning.restarts)
        };
        let (turns, most) = (self.turns.iter().filter(counts).count(), self.rules.turns_max as usize);
        assert!(turns <= most || self.plan.meddling, "I5: {turns} turns at once of {most}");
    }

    /// Is it under a stop?
    fn halted(&self, address: &Address, run: RunKey) -> Option<Scope> {
        let above = |top: RunKey| {
            let mut next = Some(run);
            while let Some(key) = next {
                if key == top {
                    return true;
                }
                let parent = self.books.runs.get(&key).and_then(|line| line.parent);
                next = parent.map(|effect| effect.run);
            }
            false
        };
        let covers = |scope: &&Scope| match scope {
            Scope::All => true,
            Scope::Tenant(prefix) => address.tenant.is_under(prefix),
            Scope::Type(kind) => address.agent.kind() == &**kind,
            Scope::Agent(agent) => agent == address,
            Scope::Tree(top) => above(*top),
            Scope::Tool(_) => false,
        };
        self.halts.iter().find(covers).cloned()
    }

    /// Holds an effect that is to be performed against everything that must be true then.
    pub(super) fn check_perform(&mut self, perform: &Perform) {
        self.check_promises(perform);
        let effect = perform.effect;
        let line = self.books.lines.get(&effect);
        let line = line.unwrap_or_else(|| panic!("I3: {effect} is performed and not on disk"));
        let once = !perform.class.repeats() && !perform.undo;
        assert!(line.open || !once, "I3: {effect} must not be sent twice, and its attempt is not on disk");
        assert!(!perform.undo || !self.books.is_known(effect), "effects: {effect} is undone without need");
        let gated = is_gated(&perform.address, &line.work);
        assert!(!gated || line.yes.len() >= usize::from(QUORUM), "gate: {effect} is performed without a yes");
        let row = self.live().row(&perform.address);
        let known = row.is_some_and(|row| row.pending.iter().any(|pending| pending.id == effect));
        assert!(known, "effects: {effect} is performed and no longer under way");
        if let Work::Model { .. } | Work::Tool { .. } = &perform.work
            && !perform.undo
            && !perform.query
        {
            let halted = self.halted(&perform.address, effect.run);
            assert!(halted.is_none(), "halt: {effect} is performed under {halted:?}");
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: &Reply) {
        let asked =
            self.tickets.remove(&ticket).unwrap_or_else(|| panic!("I6: ticket {ticket} is answered again"));
        match (asked, reply) {
            (_, Reply::Refused { code, .. }) => {
                self.tally.refused += 1;
                match code {
                    Code::DiskFull => self.tally.happen("refused, disk full"),
                    Code::Draining => self.tally.happen("refused, draining"),
                    Code::MailboxFull => self.tally.happen("refused, mailbox full"),
                    _ => {}
                }
            }
            (Asked::Fork(state), Reply::Started { run, .. }) => {
                self.trouble.forks.insert(*run, *state);
            }
            (Asked::Start { full, draining }, Reply::Started { run, .. }) => {
                assert!(!draining, "drain: {run} was started by a process that was to end");
                let still = full.is_some() && full == self.trouble.full();
                assert!(!still, "room: {run} was started while the disk was full");
                assert!(
                    self.books.runs.contains_key(run),
                    "I3: {run} is said to be started and is not on disk"
                );
                self.tally.started += 1;
            }
            (Asked::Send(to, id), _) => {
                let row = self.books.fold.iter().find_map(|shard| shard.agents.get(&to));
                assert!(
                    row.is_some_and(|row| row.seen.iter().any(|(known, _)| *known == id)),
                    "I3: {to} is said to have {id} and has not"
                );
            }
            (Asked::Edit(effect, args), _) => {
                let taken = self.books.edits.get(&effect).is_some_and(|edits| edits.contains(&args));
                assert!(taken, "edit: other arguments of {effect} are said to be taken and are on no record");
            }
            (Asked::Cancel(run), _) => {
                let over = self.books.runs.get(&run).is_some_and(|line| line.over.is_some());
                assert!(over, "I3: {run} is said to be over and is not");
            }
            (Asked::Resolve(effect), _) => {
                let shard = &self.books.fold[usize::from(effect.run.shard())];
                let open =
                    shard.agents.values().any(|row| row.pending.iter().any(|pending| pending.id == effect));
                assert!(!open, "I3: {effect} is said to be answered and is not");
            }
            _ => {}
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let (address, rung) = match notice {
            Notice::Rung { address, rung, .. } => (address, *rung),
            Notice::Quarantined { address, .. } => (address, Rung::Quarantined),
            Notice::Doubt { .. } => {
                self.tally.doubts += 1;
                return;
            }
            _ => return,
        };
        if rung >= Rung::Paused {
            let kind = address.agent.kind();
            assert!(DISHONEST.contains(&kind), "guard: {address} was honest and is stopped: {notice:?}");
            self.tally.stopped += 1;
        }
    }

    /// What must hold of the machine after every step.
    pub(super) fn check_live(&self) {
        let agents = self.live();
        if let Err(says) = agents.check() {
            panic!("reconciler: {says}");
        }
        for row in agents.shards().iter().flat_map(|shard| shard.agents.values()) {
            let mail = row.inbox.iter().filter(|item| matches!(item, Item::Mail(_))).count();
            assert!(mail <= INBOX_MAX, "I5: {mail} messages wait for {}", row.address);
        }
    }

    /// What must hold once everything is over and whoever waits has left memory.
    pub(super) fn close(&mut self) {
        self.books.compare(&self.disk);
        self.books.close();
        for (run, line) in &self.books.runs {
            assert!(self.told_over.contains(run), "I6: nobody was told that {run} of {} is over", line.agent);
        }
        let waiting = &self.tickets;
        assert!(waiting.is_empty(), "I6: nobody answered {waiting:?}");
        for ((from, to), count) in &self.books.exchanged {
            let loops =
                matches!(from.agent.kind(), "ping" | "pong") && matches!(to.agent.kind(), "ping" | "pong");
            // Each of a pair may have several runs, and be released by people: then it begins anew.
            let again: u64 =
                [from, to].iter().filter_map(|who| self.released.get(*who)).map(|n| u64::from(*n)).sum();
            let runs = again
                + self.books.runs.values().filter(|line| line.agent == *from || line.agent == *to).count()
                    as u64;
            assert!(
                !loops || *count <= 4 * runs,
                "guard: {from} and {to} exchanged {count} messages in {runs} runs"
            );
        }
        let agents = self.live();
        let view = agents.view();
        assert!((view.turns, view.models) == ((0, 0), (0, 0)), "I5: places are held by nobody: {view:?}");
        assert!(view.tools.values().all(|tool| *tool == (0, 0)), "I5: places are held by nobody: {view:?}");
        assert!(view.runs_live == 0, "I5: {} runs are said to be alive", view.runs_live);
        for shard in agents.shards() {
            let (rows, runs) = (shard.agents.len(), shard.runs.len());
            assert!(
                rows == 0,
                "I5: {rows} agents are in memory for nothing: {:?}",
                shard.agents.values().next()
            );
            assert!(runs == 0, "I5: {runs} runs are in memory for nothing: {:?}", shard.runs.values().next());
            assert!(shard.values.is_empty(), "I5: values are in memory for nothing: {:?}", shard.values);
        }
        self.tally.finish(&self.books, &self.tools, &self.trace);
    }

    /// How many may be performed at once, by pool.
    pub(super) fn places(&self, plan: &Plan, pool: &str) -> usize {
        let places = if pool == "model" { plan.places.1 } else { cast::places_of(&self.rules, pool) };
        places as usize
    }
}
