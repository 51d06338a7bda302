//! Turns: who may have one, what it sees, and what is made of its commit.

use std::sync::Arc;

use seawall_model::code::Retry;
use seawall_model::durable::{Pending, RunRow, Rung, Stage, Standing};
use seawall_model::effect::{Ask, EffectId, Ruling, Spend, Verdict, Work};
use seawall_model::journal::{Change, Commit, Ending, Event, Next, Planned, Turn};
use seawall_model::{Address, Agent, At, Code, Millis, RunKey, limits};

use super::apply::changes_something;
use super::effect::{Effect, Grant, Notice};
use super::machine::{Agents, Deferred, Live, Slot};
use super::pool::Kin;
use super::progress::{Judgement, Offence};
use super::rules::Kind;
use super::{gate, ledger, supervise, watch};

/// One effect's decision, before it is recorded.
pub(super) struct Refused(pub(super) Code, pub(super) Arc<str>);

impl Agents {
    /// Looks at an agent after anything about it changed: does it want a turn, and when
    /// must it be looked at again?
    pub(super) fn look(&mut self, address: &Address) {
        self.begin_by_mail(address);
        let Some(agent) = self.agent(address) else { return };
        let ready =
            agent.rests_until <= self.now && agent.is_wakeful() && self.halted(address, agent.run).is_none();
        let (tenant, run, expires) = (agent.address.tenant.clone(), agent.run, agent.expires);
        let now = self.now;
        let kin = run.and_then(|run| self.run(address, run)).map(|run| Kin { tree: run.root, run: run.key });
        if ready
            && let (Some(kin), Some(live)) = (kin, self.live(address))
            && live.turn.is_none()
            && !live.lined_up
            && live.deferred.as_ref().is_none_or(|deferred| deferred.until <= now)
        {
            live.lined_up = true;
            live.since = now;
            self.turns.enter(address.clone(), &tenant, kin, now, expires);
        }
        self.set_alarm(address);
    }

    /// A place for a turn is this agent's.
    pub(super) fn grant(&mut self, address: &Address) {
        if let Some(live) = self.live(address) {
            live.lined_up = false;
        }
        if !self.may_turn(address) {
            // If its run ended of that, it waits for its next one's turn already.
            if !self.live(address).is_some_and(|live| live.lined_up) {
                self.turns.leave(address);
            }
            return self.look(address);
        }
        self.move_version(address);
        let Some(agent) = self.agent(address) else { return self.turns.leave(address) };
        let items = agent.inbox.clone();
        let seen = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let Some(run) = agent.run.and_then(|run| self.run(address, run)).cloned() else {
            return self.turns.leave(address);
        };
        self.token += 1;
        let (token, now) = (self.token, self.now);
        let mut deferred = 0;
        if let Some(live) = self.live(address) {
            live.turn = Some((token, seen));
            live.since = now;
            deferred = live.deferred.as_ref().map_or(0, |deferred| deferred.times);
        }
        let number = run.turns + 1;
        let grant = Grant { address: address.clone(), token, number, run, items, deferred, at: now };
        // What it sees is on disk first: nothing it does may rest on what a crash undoes.
        self.once_durable(self.shard_of(&address.tenant), Effect::Turn(Box::new(grant)));
    }

    /// Things may have changed while it waited for its place.
    fn may_turn(&mut self, address: &Address) -> bool {
        let Some(agent) = self.agent(address) else { return false };
        let Some(run) = agent.run else { return false };
        if agent.rests_until > self.now || !agent.is_wakeful() || self.halted(address, Some(run)).is_some() {
            return false;
        }
        let step = Spend { steps: 1, ..Spend::default() };
        if let Err(spent) = self.room(address, run, step) {
            self.count_short(address, run, step);
            let ending = Ending::Failed { code: spent.0, why: spent.1 };
            self.close(address, run, Event::Ended { run, ending });
            return false;
        }
        true
    }

    /// A fork stays on the version that it was made on: that may be what is another.
    fn move_version(&mut self, address: &Address) {
        let Some(kind) = self.rules.kind(address.agent.kind()) else { return };
        let (moves, version) = (kind.moves, kind.version.clone());
        let Some(run) = self.agent(address).and_then(|agent| agent.run) else { return };
        if moves && self.run(address, run).is_some_and(|row| row.version != version && row.fork.is_none()) {
            self.record(address, Event::Moved { run, version });
        }
    }

    /// A handler took its turn.
    pub(super) fn commit(&mut self, address: &Address, token: u64, commit: Commit) {
        let Some((run, seen)) = self.end_turn(address, token) else { return };
        if let Err(why) = self.within_bounds(address, &commit) {
            return self.stumbled(address, run, why.into());
        }
        // Others of its tree may have used up the steps since the turn was granted.
        let step = Spend { steps: 1, ..Spend::default() };
        if let Err((code, why)) = self.room(address, run, step) {
            self.count_short(address, run, step);
            return self.close(address, run, Event::Ended { run, ending: Ending::Failed { code, why } });
        }
        let kind = self.rules.kind(address.agent.kind()).cloned();
        let (progress, judgement) = self.judge(address, &commit, kind.as_ref(), seen);
        let hop = judgement.hop;
        let effects = self.plan(address, run, commit.asks, kind.as_ref());
        let number = self.run(address, run).map_or(1, |row| row.turns + 1);
        let next = self.supervise(address, run, commit.next);
        let (note, rests_until) = (judgement.note.clone(), self.rest(&judgement));
        let changes = commit.changes;
        let turn = Turn { run, number, seen, changes, effects, next, progress, hop, note, rests_until };
        self.turned(address, turn);
        self.climb(address, &judgement);
        self.look(address);
    }

    /// A turn that cannot be taken yet gives its place to others.
    pub(super) fn defer(
        &mut self,
        address: &Address,
        token: u64,
        cause: &'static str,
        on: Arc<str>,
        after: Millis,
    ) {
        let now = self.now;
        let before = self.live(address).and_then(|live| live.deferred.take());
        if self.end_turn(address, token).is_none() {
            // Its run has ended meanwhile, or begun again: nothing is put off.
            return self.look(address);
        }
        let before = before.filter(|before| before.cause == cause && before.on == on);
        let (since, times) = before.map_or((now, 0), |before| (before.since, before.times));
        if let Some(live) = self.live(address) {
            let (times, until) = (times.saturating_add(1), now.plus(after));
            live.deferred = Some(Deferred { cause, on, since, times, until });
        }
        self.look(address);
    }

    /// The turn is over; its run, and how many items it saw.
    fn end_turn(&mut self, address: &Address, token: u64) -> Option<(RunKey, u32)> {
        let now = self.now;
        let live = self.live(address)?;
        let (_, seen) = live.turn.take_if(|(of, _)| *of == token)?;
        live.since = now;
        live.deferred = None;
        self.turns.leave(address);
        let run = self.agent(address).and_then(|agent| agent.run)?;
        Some((run, seen))
    }

    fn within_bounds(&self, address: &Address, commit: &Commit) -> Result<(), &'static str> {
        let pending = self.agent(address).map_or(0, |agent| agent.pending.len());
        if pending + commit.asks.len() > limits::EFFECTS_PENDING_MAX {
            return Err("the turn asks for more effects than a run may have under way");
        }
        if commit.changes.len() > limits::CHANGES_MAX {
            return Err("the turn changes more of its state than one record may");
        }
        if matches!(commit.next, Next::End(_)) && !commit.asks.is_empty() {
            return Err("the turn ends its run and asks for effects that nobody would see the end of");
        }
        let key = |change: &Change| match change {
            Change::Set { key, .. } | Change::Keep { key, .. } | Change::Drop { key } => key.len(),
        };
        let objects = commit.asks.iter().map(|ask| ask.work.object().len());
        if commit.changes.iter().map(key).chain(objects).any(|len| len > limits::NAME_LEN_MAX) {
            return Err("the turn uses a name that is too long");
        }
        Ok(())
    }

    fn turned(&mut self, address: &Address, turn: Turn) {
        let run = turn.run;
        let before = self.run(address, run).map_or(0, |row| row.effects);
        let children: Vec<Address> = turn
            .effects
            .iter()
            .filter_map(|planned| planned.child.as_ref())
            .map(|child| child.agent.clone())
            .collect();
        let closing = !matches!(turn.next, Next::Wait(_));
        self.runs_live += children.len();
        for child in &children {
            self.make_slot(child);
        }
        let event = Event::Turned(Box::new(turn));
        if closing {
            return self.close(address, run, event);
        }
        self.record(address, event);
        let Some(agent) = self.agent(address) else { return };
        let new: Vec<EffectId> = agent
            .pending
            .iter()
            .filter(|pending| pending.id.run == run && pending.id.number > before)
            .map(|pending| pending.id)
            .collect();
        for effect in new {
            self.begin_effect(address, effect);
        }
        for child in &children {
            self.look(child);
        }
    }

    /// Decides on every effect that a turn asks for, in order.
    fn plan(&mut self, address: &Address, run: RunKey, asks: Vec<Ask>, kind: Option<&Kind>) -> Vec<Planned> {
        let mut total = Spend::default();
        let mut children = 0;
        let mut planned = Vec::with_capacity(asks.len());
        let halted = self.halted(address, Some(run)).is_some();
        for mut ask in asks {
            let ruling = self.rule(address, &ask, kind);
            ask.facts = Vec::new();
            let until = self.until(&ask, &ruling.verdict);
            let decided = self.permit(address, run, &ask, &ruling.verdict, total, children);
            let mut row = Planned {
                ask,
                ruling,
                stage: None,
                refused: None,
                reserved: Spend::default(),
                until,
                child: None,
            };
            match decided {
                Err(Refused(code, why)) => {
                    if code == Code::AllowanceSpent {
                        match row.ask.work {
                            Work::Child { .. } => self.count_short_of_children(address, run, children),
                            _ => self.count_short(address, run, total.plus(cost_of(&row.ask))),
                        }
                    }
                    row.refused = Some((code, why));
                }
                Ok(reserved) => {
                    total = total.plus(reserved);
                    row.reserved = reserved;
                    row.stage = Some(self.first_stage(&row, halted));
                    // One that people are asked about begins when they have said yes.
                    if let (Work::Child { .. }, Some(Stage::Waiting)) = (&row.ask.work, &row.stage) {
                        let number = planned.len() as u32;
                        row.child = self.child(address, run, &row.ask.work, children, number).map(Box::new);
                        children += 1;
                    }
                }
            }
            planned.push(row);
        }
        planned
    }

    /// What the gate says.
    pub(super) fn rule(&self, address: &Address, ask: &Ask, kind: Option<&Kind>) -> Ruling {
        // Without its definition nobody knows what it may not do.
        if kind.is_none() && matches!(ask.work, Work::Tool { .. }) {
            return Ruling { rule: gate::DEFAULT.into(), verdict: Verdict::Deny };
        }
        let own = kind.map_or(&[][..], |kind| &kind.gate);
        gate::decide_first(own, address, ask).unwrap_or_else(|| gate::decide(&self.rules.gate, address, ask))
    }

    /// May the effect be done at all, and what is reserved for it?
    fn permit(
        &self,
        address: &Address,
        run: RunKey,
        ask: &Ask,
        verdict: &Verdict,
        total: Spend,
        children: u64,
    ) -> Result<Spend, Refused> {
        // Only tools have arguments that can be left out; the rest is not done with them.
        let unredacted = matches!(verdict, Verdict::Redact(_)) && !matches!(ask.work, Work::Tool { .. });
        if *verdict == Verdict::Deny || unredacted {
            // As `rule` denies it.
            let gone =
                matches!(ask.work, Work::Tool { .. }) && self.rules.kind(address.agent.kind()).is_none();
            let more = if gone { ": the agent's definition is gone" } else { "" };
            let why = format!("{} `{}` is not allowed{more}", ask.work.kind(), ask.work.object());
            return Err(Refused(Code::GateDenied, why.into()));
        }
        if ask.work.tool().is_some_and(|tool| self.tool_halted(tool)) {
            return Err(Refused(Code::RunStopped, "an operator stopped this tool".into()));
        }
        if let Work::Child { agent, .. } = &ask.work {
            self.permit_child(address, run, agent, children)?;
        }
        let cost = cost_of(ask);
        self.room(address, run, total.plus(cost)).map_err(|(code, why)| Refused(code, why))?;
        Ok(cost)
    }

    /// May the run have this child, beside `more` others that its turn begins?
    pub(super) fn permit_child(
        &self,
        address: &Address,
        run: RunKey,
        agent: &Agent,
        more: u64,
    ) -> Result<(), Refused> {
        let kind = agent.kind();
        if !self.room {
            return Err(Refused(
                Code::DiskFull,
                "the journal's disk budget is used up, or its disk is full".into(),
            ));
        }
        if self.rules.kind(kind).is_none() {
            return Err(Refused(Code::AgentUnknown, format!("no agent of type `{kind}` is defined").into()));
        }
        if self.runs_live as u64 + more >= self.rules.runs_max as u64 {
            return Err(Refused(Code::AgentsFull, "as many runs are alive as may be".into()));
        }
        let child = Address { tenant: address.tenant.clone(), agent: agent.clone() };
        if self.agent(&child).is_some_and(|row| row.standing == Standing::Quarantined) {
            return Err(Refused(Code::AgentQuarantined, format!("{agent} is in quarantine").into()));
        }
        if agent.as_str().contains('/') && !self.may_last(&child, 1 + more as usize) {
            let why = format!("{agent} would be one agent more than may be");
            return Err(Refused(Code::TooManyAgents, why.into()));
        }
        let queued = self.agent(&child).map_or(0, |row| row.queue.len()) + more as usize;
        if queued >= limits::RUN_QUEUE_LEN_MAX && self.agent(&child).is_some() {
            return Err(Refused(Code::MailboxFull, format!("as many runs wait for {agent} as may").into()));
        }
        let path = self.path(address, run);
        if path.iter().any(|row| row.agent == child) {
            let why = format!("{agent} waits for this run to end, and would never begin another");
            return Err(Refused(Code::BadField, why.into()));
        }
        let short =
            |(run, meter)| Refused(Code::AllowanceSpent, format!("{run} may have no more {meter}").into());
        ledger::room_for_child(&path, more as usize).map_err(short)
    }

    /// The run and all above it.
    fn path(&self, address: &Address, run: RunKey) -> Vec<&RunRow> {
        let shard = self.shard(address);
        shard.path(run).iter().filter_map(|key| shard.runs.get(key)).map(|row| &**row).collect()
    }

    /// Is there room for this on the run and all above it?
    pub(super) fn room(&self, address: &Address, run: RunKey, cost: Spend) -> Result<(), (Code, Arc<str>)> {
        ledger::room(&self.path(address, run), cost)
            .map_err(|(run, meter)| (Code::AllowanceSpent, format!("{run} has used its {meter}").into()))
    }

    /// A booking found no room: by which meter, for metrics.
    pub(super) fn count_short(&mut self, address: &Address, run: RunKey, cost: Spend) {
        if let Err((_, meter)) = ledger::room(&self.path(address, run), cost) {
            *self.tolls.short.entry(meter).or_default() += 1;
        }
    }

    fn count_short_of_children(&mut self, address: &Address, run: RunKey, more: u64) {
        if let Err((_, meter)) = ledger::room_for_child(&self.path(address, run), more as usize) {
            *self.tolls.short.entry(meter).or_default() += 1;
        }
    }

    /// When an effect is given up: after its own patience, which begins where that of those
    /// who are asked about it ends. What others answer in their own time is waited for.
    fn until(&self, ask: &Ask, verdict: &Verdict) -> At {
        let patience = match (ask.patience, &ask.work) {
            (Some(patience), _) => patience,
            (None, Work::Timer { .. } | Work::Promise { .. } | Work::Child { .. }) => return At::MAX,
            (None, _) => self.rules.patience,
        };
        match verdict {
            Verdict::Ask(approval) => self.now.plus(approval.patience).plus(patience),
            _ => self.now.plus(patience),
        }
    }

    fn first_stage(&self, planned: &Planned, halted: bool) -> Stage {
        if let Verdict::Ask(approval) = &planned.ruling.verdict {
            return Stage::Approving { yes: Vec::new(), until: self.now.plus(approval.patience) };
        }
        match planned.ask.work {
            // It begins when the stop is lifted.
            Work::Child { .. } if halted => Stage::Ready { after: self.now },
            Work::Child { .. } | Work::Timer { .. } | Work::Promise { .. } => Stage::Waiting,
            _ => Stage::Ready { after: self.now },
        }
    }

    /// What the progress guard makes of the turn.
    fn judge(
        &self,
        address: &Address,
        commit: &Commit,
        kind: Option<&Kind>,
        seen: u32,
    ) -> (seawall_model::durable::Progress, Judgement) {
        let Some(agent) = self.agent(address) else { return Default::default() };
        let mut progress = agent.progress.clone();
        let Some(kind) = kind else { return (progress, Judgement::default()) };
        let hop = agent.run.and_then(|run| self.run(address, run)).map_or(0, |run| run.hop);
        let judgement = watch::judge(&mut progress, &kind.guard, (agent, seen as usize), commit, hop);
        (progress, judgement)
    }

    fn rest(&self, judgement: &Judgement) -> At {
        match judgement.rung {
            Rung::Paused if judgement.offence.is_some() => At::MAX,
            // Not the present time, which would be another one with every turn.
            _ if judgement.rests == Millis(0) => At(0),
            _ => self.now.plus(judgement.rests),
        }
    }

    /// Tells operators how far up the ladder the agent is, and takes it out of service at
    /// its top.
    fn climb(&mut self, address: &Address, judgement: &Judgement) {
        if judgement.offence.is_none() {
            return;
        }
        let offence = judgement.offence.map_or("", Offence::as_str);
        *self.tolls.offences.entry(offence).or_default() += 1;
        let why = judgement.note.clone().unwrap_or_else(|| "no progress".into());
        if judgement.rung == Rung::Quarantined {
            return self.quarantine(address, why);
        }
        let notice = Notice::Rung { address: address.clone(), rung: judgement.rung, offence, why };
        self.once_durable(self.shard_of(&address.tenant), Effect::Notice(notice));
    }

    pub(super) fn quarantine(&mut self, address: &Address, why: Arc<str>) {
        if self.agent(address).is_none_or(|agent| agent.standing == Standing::Quarantined) {
            return;
        }
        self.record(address, Event::Quarantined { why: why.clone() });
        self.tell_ties(address);
        let notice = Notice::Quarantined { address: address.clone(), why };
        self.once_durable(self.shard_of(&address.tenant), Effect::Notice(notice));
    }

    /// What supervision makes of an end.
    fn supervise(&mut self, address: &Address, run: RunKey, next: Next) -> Next {
        let Next::End(ending) = next else { return next };
        // What would fail again is not begun again: only time, luck or others can mend a run.
        let hopeless = match &ending {
            // Nor is a budget filled by beginning again.
            Ending::Failed { code, .. } => code.row().retry == Retry::Never || *code == Code::BudgetExhausted,
            Ending::Cancelled { .. } => true,
            Ending::Done(_) => false,
        };
        let well = matches!(ending, Ending::Done(_));
        if hopeless || (!well && self.touched(address, run)) {
            return Next::End(ending);
        }
        let Some(after) = self.begins_again(address, run, well) else {
            return Next::End(ending);
        };
        let why = match &ending {
            Ending::Failed { code, why } => Arc::from(format!("{}: {why}", code.as_str())),
            _ => Arc::from("its type is permanent"),
        };
        Next::Again { rests_until: self.now.plus(after), why }
    }

    /// Did a tool change something for the run, or may have, that it would do again if it
    /// began again?
    pub(super) fn touched(&self, address: &Address, run: RunKey) -> bool {
        let Some(agent) = self.agent(address).filter(|agent| agent.run == Some(run)) else { return false };
        let flies = |effect| matches!(self.slots.get(address), Some(Slot::Here(live)) if live.flights.contains_key(&effect));
        let sent = |row: &&Pending| {
            row.id.run == run && (row.attempts > 0 || row.stage == Stage::Attempted || flies(row.id))
        };
        agent.progress.touched || agent.pending.iter().filter(sent).any(changes_something)
    }

    /// A handler failed in its turn.
    pub(super) fn stumble(&mut self, address: &Address, token: u64, why: Arc<str>) {
        if let Some((run, _)) = self.end_turn(address, token) {
            self.stumbled(address, run, why);
        }
    }

    fn stumbled(&mut self, address: &Address, run: RunKey, why: Arc<str>) {
        let strikes = self.agent(address).map_or(0, |agent| agent.strikes) + 1;
        let jitter = self.rng.next();
        match supervise::on_stumble(strikes, jitter) {
            supervise::Stumble::Retry { after } => {
                let rests_until = self.now.plus(after);
                self.record(address, Event::Stumbled { run, why, rests_until });
            }
            supervise::Stumble::Quarantine => {
                self.record(address, Event::Stumbled { run, why: why.clone(), rests_until: At::MAX });
                self.quarantine(address, format!("the same turn failed {strikes} times: {why}").into());
            }
        }
        self.look(address);
    }

    /// The agent's place in memory.
    pub(super) fn make_slot(&mut self, address: &Address) {
        let since = self.now;
        let slot = || Slot::Here(Live { since, ..Live::default() });
        self.slots.entry(address.clone()).or_insert_with(slot);
    }
}

/// The most that an effect can cost, with the call that it is.
fn cost_of(ask: &Ask) -> Spend {
    let calls = u64::from(matches!(ask.work, Work::Model { .. } | Work::Tool { .. }));
    Spend { calls, ..ask.cost_max }
}
