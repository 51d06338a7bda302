//! How runs begin and end: by API, parent, schedule or mail; by their own turn, by time,
//! by an operator, or with the run above them.

use std::sync::Arc;

use seawall_model::durable::{AgentRow, Item, RunRow, RunState, Standing};
use seawall_model::effect::{Allowance, EffectId, Spend, Work};
use seawall_model::journal::{Ending, Event};
use seawall_model::{Address, Agent, At, Code, Millis, Payload, RunKey, limits};

use super::alarm::Alarm;
use super::apply::BY_MAIL;
use super::effect::{Effect, Reply};
use super::input::{Input, Start, Ticket};
use super::machine::Agents;
use super::supervise::{self, Decision, Which};
use super::turn::Refused;

impl Agents {
    /// Somebody wants a run.
    pub(super) fn start(&mut self, ticket: Ticket, start: Start) {
        let shard = self.shard_of(&start.tenant);
        let key = RunKey::new(self.shards[shard].row.shard, self.shards[shard].row.runs + 1);
        let lasting = start.agent.as_str().contains('/');
        let Some(agent) = named(&start.agent, key) else {
            return self.refuse(ticket, Code::BadField, "the agent's name is too long");
        };
        let address = Address { tenant: start.tenant.clone(), agent };
        if let Err((code, why)) = self.may_start(&address) {
            return self.refuse(ticket, code, why);
        }
        let Some(kind) = self.rules.kind(address.agent.kind()) else {
            let why = format!("no agent of type `{}` is defined", address.agent.kind());
            return self.refuse(ticket, Code::AgentUnknown, why);
        };
        if lasting && !self.may_last(&address, 1) {
            let why = format!("{address} would be one agent more than may be");
            return self.refuse(ticket, Code::TooManyAgents, why);
        }
        let run = RunRow {
            version: start.version.unwrap_or_else(|| kind.version.clone()),
            allowance: kind.allowance.least(start.allowance),
            caller: start.caller,
            fork: start.fork,
            ..new_run(key, &address, start.task, start.by, self.now)
        };
        self.begin(run, lasting, start.state, None);
        self.reply(shard, ticket, Reply::Started { run: key, address });
    }

    fn begin(
        &mut self,
        run: RunRow,
        lasting: bool,
        state: Vec<seawall_model::journal::Change>,
        schedule: Option<At>,
    ) {
        let address = run.agent.clone();
        self.make_slot(&address);
        self.runs_live += 1;
        self.record(&address, Event::Started { run: Box::new(run), lasting, state, schedule });
        self.look(&address);
    }

    fn may_start(&self, address: &Address) -> Result<(), (Code, Arc<str>)> {
        if self.draining {
            return Err((Code::Draining, "Seawall is shutting down".into()));
        }
        if !self.room {
            return Err((Code::DiskFull, "the journal's disk budget is used up, or its disk is full".into()));
        }
        if self.runs_live >= self.rules.runs_max || self.slots.len() >= self.rules.agents_max {
            return Err((Code::AgentsFull, "as many runs are alive as may be".into()));
        }
        if let Some(stop) = self.halted(address, None) {
            return Err((Code::RunStopped, format!("an operator stopped {}", stop.scope).into()));
        }
        match self.agent(address) {
            Some(agent) if agent.standing == Standing::Quarantined => {
                let why = agent.why.clone().unwrap_or_else(|| "it is in quarantine".into());
                Err((Code::AgentQuarantined, why))
            }
            Some(agent) if agent.queue.len() >= limits::RUN_QUEUE_LEN_MAX => {
                Err((Code::MailboxFull, "as many runs wait for this agent as may".into()))
            }
            _ => Ok(()),
        }
    }

    /// The run that a child effect makes, the `more`-th of its turn.
    pub(super) fn child(
        &self,
        above: &Address,
        parent: RunKey,
        work: &Work,
        more: u64,
        offset: u32,
    ) -> Option<RunRow> {
        let Work::Child { agent, task, allowance } = work else { return None };
        let shard = self.shard(above);
        let row = shard.runs.get(&parent)?;
        let key = RunKey::new(shard.row.shard, shard.row.runs + 1 + more);
        let kind = self.rules.kind(agent.kind())?;
        let address = Address { tenant: above.tenant.clone(), agent: named(agent, key)? };
        Some(RunRow {
            parent: Some(EffectId { run: parent, number: row.effects + 1 + offset }),
            root: row.root,
            depth: row.depth + 1,
            hop: row.hop,
            version: kind.version.clone(),
            allowance: kind.allowance.least(*allowance),
            caller: row.caller.clone(),
            ..new_run(key, &address, task.clone(), Arc::from(above.agent.as_str()), self.now)
        })
    }

    /// A child that people said yes to begins.
    pub(super) fn begin_child(&mut self, address: &Address, effect: EffectId) {
        let Some(work) = self.pending(address, effect).map(|row| row.work.clone()) else { return };
        let Work::Child { agent, .. } = &work else { return };
        let keyed = agent.as_str().contains('/');
        let known = Address { tenant: address.tenant.clone(), agent: agent.clone() };
        if keyed && !self.bring(&known, Input::Nudge { address: address.clone() }) {
            return;
        }
        // Much may have changed since it was asked for.
        if let Err(Refused(code, why)) = self.permit_child(address, effect.run, agent, 0) {
            return self.answer_failed(address, effect, code, why);
        }
        let Some(mut run) = self.child(address, effect.run, &work, 0, 0) else {
            return self.answer_failed(
                address,
                effect,
                Code::AgentUnknown,
                "its type is not defined any more",
            );
        };
        run.parent = Some(effect);
        self.begin(run, keyed, Vec::new(), None);
    }

    /// An idle agent whose type wants it begins a run when it has mail.
    pub(super) fn begin_by_mail(&mut self, address: &Address) {
        if !self.agent(address).is_some_and(|agent| self.mail_begins(agent)) {
            return;
        }
        let Some(kind) = self.rules.kind(address.agent.kind()) else { return };
        let (version, allowance) = (kind.version.clone(), kind.allowance);
        // Mail that was taken is worked on: under a stop the run begins and has no turn.
        let shard = self.shard(address);
        let key = RunKey::new(shard.row.shard, shard.row.runs + 1);
        let run = RunRow {
            version,
            allowance,
            ..new_run(key, address, Payload::empty(), BY_MAIL.into(), self.now)
        };
        self.runs_live += 1;
        let event = Event::Started { run: Box::new(run), lasting: true, state: Vec::new(), schedule: None };
        self.record(address, event);
    }

    /// Has it mail that should begin a run?
    pub(super) fn mail_begins(&self, agent: &AgentRow) -> bool {
        agent.standing == Standing::Idle
            && agent.inbox.iter().any(|item| matches!(item, Item::Mail(_)))
            && self.rules.kind(agent.address.agent.kind()).is_some_and(|kind| kind.starts_on_mail)
    }

    /// Sets an alarm for the next time of every schedule.
    pub(super) fn arm_schedules(&mut self) {
        self.alarms.disarm_schedules();
        for kind in &self.rules.kinds {
            let Some(schedule) = &kind.schedule else { continue };
            let address = scheduled(&kind.name, schedule.tenant.clone());
            let shard = &self.shards[self.shard_of(&schedule.tenant)];
            // A firing that was missed while nobody was here is made up for, once.
            let last = shard.schedules.get(&address).map_or(self.now, |row| row.fired);
            if let Some(at) = schedule.cron.next(last) {
                self.alarms.arm(at, Alarm::Schedule(kind.name.clone()));
            }
        }
    }

    pub(super) fn schedule_rings(&mut self, name: &Arc<str>) {
        let Some(kind) = self.rules.kind(name) else { return };
        let Some(schedule) = kind.schedule.clone() else { return };
        let (version, allowance) = (kind.version.clone(), kind.allowance);
        if let Some(next) = schedule.cron.next(self.now) {
            self.alarms.arm(next, Alarm::Schedule(name.clone()));
        }
        let address = scheduled(name, schedule.tenant);
        if !self.bring(&address, Input::Tick) {
            // It rings again as soon as the agent is here.
            self.alarms.arm(self.now.plus(Millis(10)), Alarm::Schedule(name.clone()));
            return;
        }
        // A run that still works on the last firing is not overtaken.
        let busy = self.agent(&address).is_some_and(|agent| agent.run.is_some());
        if busy || self.may_start(&address).is_err() {
            return;
        }
        let shard = self.shard(&address);
        let key = RunKey::new(shard.row.shard, shard.row.runs + 1);
        let run =
            RunRow { version, allowance, ..new_run(key, &address, schedule.task, "cron".into(), self.now) };
        self.begin(run, true, Vec::new(), Some(self.now));
    }

    /// Somebody ends a run.
    pub(super) fn cancel(&mut self, ticket: Ticket, run: RunKey, address: &Address, by: Arc<str>) {
        let Some(row) = self.run(address, run) else {
            return self.refuse(
                ticket,
                Code::RunUnknown,
                format!("{run} is not known, or was over long ago"),
            );
        };
        if !row.state.over() {
            self.close(address, run, Event::Ended { run, ending: Ending::Cancelled { by } });
        }
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// A run begins again from its task, with the siblings that its supervision names.
    pub(super) fn again(&mut self, ticket: Ticket, run: RunKey, address: &Address, why: Arc<str>) {
        match self.run(address, run) {
            // Beside one that failed, what would be done twice goes on.
            Some(row) if row.state == RunState::Active && ticket == 0 && self.touched(address, run) => {}
            Some(row) if row.state == RunState::Active => {
                self.close(address, run, Event::Restarted { run, rests_until: self.now, why });
                self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
            }
            _ => self.refuse(ticket, Code::RunUnknown, format!("{run} is not active")),
        }
    }

    /// Records the end of a run, or its beginning anew, and does what follows from it.
    pub(super) fn close(&mut self, address: &Address, run: RunKey, event: Event) {
        let Some(row) = self.run(address, run) else { return };
        let parent = row.parent;
        let children: Vec<(RunKey, Address)> = row
            .children
            .iter()
            .filter_map(|child| Some((*child, self.agent_of_child(address, *child)?)))
            .collect();
        self.drop_live(address, run);
        self.record(address, event);
        let shard = self.shard_of(&address.tenant);
        if let Some(state) = self.run(address, run).map(|row| row.state.clone()).filter(RunState::over) {
            self.runs_live = self.runs_live.saturating_sub(1);
            if let Some(live) = self.live(address) {
                live.over.push(run);
            }
            self.forget_over(address);
            self.free_run(run);
            self.tell_ties(address);
            if parent.is_none() {
                self.forget_tree(&address.tenant, run);
            }
            self.once_durable(shard, Effect::Over { run, state });
            if let Some(parent) = parent.and_then(|effect| self.shards[shard].agent_of(effect.run)) {
                self.look(&parent);
            }
        }
        for (child, below) in children {
            let by = Arc::from(format!("the end of {run}"));
            self.follow(Input::Cancel { ticket: 0, run: child, address: below, by });
        }
        self.look(address);
    }

    /// A child that is not in memory still has a name: that of its effect, or its own key.
    pub(super) fn agent_of_child(&self, above: &Address, child: RunKey) -> Option<Address> {
        if let Some(known) = self.shard(above).agent_of(child) {
            return Some(known);
        }
        let pending = self.agent(above)?.pending.iter().find(|pending| pending.child == Some(child))?;
        let Work::Child { agent, .. } = &pending.work else { return None };
        Some(Address { tenant: above.tenant.clone(), agent: named(agent, child)? })
    }

    /// After how long a run that ended begins again; `None` if it does not.
    pub(super) fn begins_again(&mut self, address: &Address, run: RunKey, well: bool) -> Option<Millis> {
        let row = self.run(address, run)?;
        let above = row.parent.and_then(|effect| self.shard(address).agent_of(effect.run));
        let own = self.rules.kind(address.agent.kind())?.supervision.clone();
        let mut rule = own.clone();
        if let Some(kind) = above.as_ref().and_then(|above| self.rules.kind(above.agent.kind())) {
            // A child is begun again by its own type's wish and its parent's means.
            rule = supervise::Supervision { restart: own.restart, ..kind.supervision.clone() };
        }
        let restarts = row.restarts.clone();
        let jitter = self.rng.next();
        match supervise::on_end(&rule, &restarts, well, self.now, jitter) {
            Decision::Restart { which, after } => {
                self.restart_siblings(address, run, which);
                Some(after)
            }
            Decision::GiveUp => None,
            Decision::Escalate => {
                self.escalate(address, run);
                None
            }
        }
    }

    fn restart_siblings(&mut self, address: &Address, run: RunKey, which: Which) {
        let Some(parent) = self.run(address, run).and_then(|row| row.parent) else { return };
        let shard = self.shard(address);
        let Some(siblings) = shard.runs.get(&parent.run).map(|row| row.children.clone()) else { return };
        let chosen: Vec<RunKey> = match which {
            Which::This => Vec::new(),
            Which::All => siblings.into_iter().filter(|key| *key != run).collect(),
            Which::Rest => siblings.into_iter().filter(|key| *key > run).collect(),
        };
        let above = self.shard(address).agent_of(parent.run);
        for sibling in chosen {
            let Some(agent) = above.as_ref().and_then(|above| self.agent_of_child(above, sibling)) else {
                continue;
            };
            let why = Arc::from(format!("{run} failed beside it"));
            self.follow(Input::Again { ticket: 0, run: sibling, address: agent, why });
        }
    }

    /// The child failed too often: so has the run above it.
    fn escalate(&mut self, address: &Address, run: RunKey) {
        let Some(parent) = self.run(address, run).and_then(|row| row.parent) else { return };
        let Some(above) = self.shard(address).agent_of(parent.run) else { return };
        let why = Arc::from(format!("its child {run} failed more often than its supervision allows"));
        self.follow(Input::Fail { run: parent.run, address: above, code: Code::RunFailed, why });
    }

    /// A run fails by what happened to it.
    pub(super) fn fail(&mut self, address: &Address, run: RunKey, code: Code, why: Arc<str>) {
        if self.run(address, run).is_some_and(|row| !row.state.over()) {
            self.close(address, run, Event::Ended { run, ending: Ending::Failed { code, why } });
        }
    }
}

fn new_run(key: RunKey, address: &Address, task: Payload, by: Arc<str>, now: At) -> RunRow {
    RunRow {
        key,
        agent: address.clone(),
        parent: None,
        root: key,
        depth: 0,
        version: Arc::from(""),
        task,
        allowance: Allowance::default(),
        used: Spend::default(),
        reserved: Spend::default(),
        state: RunState::Queued,
        began: now,
        ended: None,
        turns: 0,
        effects: 0,
        children: Vec::new(),
        restarts: Vec::new(),
        hop: 0,
        seq: 0,
        by,
        caller: None,
        fork: None,
    }
}

/// The agent's name: its own key, or that of the run made for it.
fn named(agent: &Agent, run: RunKey) -> Option<Agent> {
    if agent.as_str().contains('/') {
        return Some(agent.clone());
    }
    Agent::parse(&format!("{agent}/{run}")).ok()
}

/// The agent that works on a type's schedule.
fn scheduled(kind: &str, tenant: seawall_model::Tenant) -> Address {
    let agent =
        Agent::parse(&format!("{kind}/cron")).expect("a type's name was checked, with room for a key");
    Address { tenant, agent }
}
