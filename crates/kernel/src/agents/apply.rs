//! Applying records: the only way in which durable state changes. Nothing is decided
//! here; a record that does not fit the state (which only a broken journal holds) changes
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_model::durable::{
    AgentRow, DeadLetter, Fate, Item, LeaseRow, Message, Pending, Progress, RunRow, RunState, ScheduleRow,
    Setback, Stage, Standing, Stop, Tie, TopicRow, ValueRow, Wake,
};
use seawall_model::effect::{Answer, EffectId, Handed, Ruling, Spend, Work};
use seawall_model::journal::{Change, Ending, Entry, Event, Next, Planned, Turn};
use seawall_model::{Address, At, Code, EffectClass, Payload, RunKey, limits};

use super::shard::{Dirty, Name, Shard, pending};
use super::watch::said;

/// Beginnings of a run that supervision can look back on.
const RESTARTS_KEPT: usize = limits::RESTARTS_MAX;
/// Where there is no room for letters, one in so many leaves, of one tenant.
const LETTERS_LEAVE: usize = 100;
/// [`RunRow::by`] of runs that a message began.
pub(super) const BY_MAIL: &str = "mail";

impl Shard {
    /// Folds one entry into the state.
    pub fn fold(&mut self, entry: &Entry) {
        self.apply(entry, &mut Dirty::default());
    }

    /// Applies one entry and notes what it changed.
    pub(crate) fn apply(&mut self, entry: &Entry, dirty: &mut Dirty) {
        self.row.epoch = entry.epoch;
        self.row.seq = entry.seq;
        dirty.own();
        let at = entry.record.at;
        if let Some(address) = &entry.record.agent {
            self.apply_to_agent(address, at, &entry.record.event, dirty);
            if self.agents.contains_key(address) {
                dirty.agent(address);
            }
        }
        self.apply_to_shard(at, &entry.record.event, dirty);
        self.stamp(at, dirty);
    }

    fn apply_to_agent(&mut self, address: &Address, at: At, event: &Event, dirty: &mut Dirty) {
        match event {
            Event::Started { run, lasting, state, schedule } => {
                self.start(run, *lasting, dirty);
                self.change(run.key, state, &[], dirty);
                if let Some(fired) = schedule {
                    let row = ScheduleRow { agent: address.clone(), fired: *fired };
                    self.schedules.insert(address.clone(), row);
                    dirty.schedule(address);
                }
            }
            Event::Turned(turn) => self.turned(address, at, turn, dirty),
            Event::Stumbled { rests_until, .. } => {
                if let Some(agent) = self.agents.get_mut(address) {
                    agent.strikes = agent.strikes.saturating_add(1);
                    agent.rests_until = *rests_until;
                }
            }
            Event::Attempted { effect } => {
                self.stage(address, *effect, &Stage::Attempted, false);
                let row =
                    self.agents.get(address).and_then(|agent| Some(&agent.pending[pending(agent, *effect)?]));
                if row.is_some_and(changes_something) {
                    self.touch(effect.run, dirty);
                }
            }
            Event::Postponed { effect, until, code, why, counts, used } => {
                self.stage(address, *effect, &Stage::Ready { after: *until }, *counts);
                self.set_back(address, *effect, at, (*code, why));
                // Where the clock was set back since, it is told from what was never put off.
                self.asked_by(address, *effect, at);
                if *used != Spend::default() {
                    self.settle(effect.run, Spend::default(), *used, dirty);
                }
            }
            Event::Doubted { effect, why } => {
                self.stage(address, *effect, &Stage::Doubtful { why: why.clone() }, false);
            }
            Event::Answered { effect, answer, used, .. } => {
                self.answered(address, *effect, answer, *used, dirty);
            }
            Event::Voted { effect, args, stage, ruling, .. } => {
                self.voted(address, *effect, at, args.as_ref(), stage.as_ref(), ruling.as_ref());
            }
            Event::Delegated { effect, by, to } => {
                self.delegated(address, *effect, Handed { by: by.clone(), to: to.clone(), at });
            }
            Event::Mailed { message, .. } => self.mailed(address, message, dirty),
            Event::Lettered { message, why } => self.letter(address, message, *why, dirty),
            Event::Ended { run, ending } => self.end(*run, ending, at, dirty),
            Event::Restarted { run, rests_until, .. } => self.restart(*run, *rests_until, at, dirty),
            Event::Quarantined { why } => self.quarantined(address, why),
            Event::Released { .. } => self.released(address, dirty),
            Event::Tied { tie } => self.tied(address, tie, dirty),
            Event::Untied { run, effect } => {
                if let Some(agent) = self.agents.get_mut(address) {
                    agent.ties.retain(|tie| tie.run != *run || tie.effect != *effect);
                }
            }
            Event::Moved { run, version } => {
                if let Some(row) = self.runs.get_mut(run) {
                    row.version = version.clone();
                    dirty.run(*run);
                }
            }
            _ => {}
        }
    }

    fn apply_to_shard(&mut self, at: At, event: &Event, dirty: &mut Dirty) {
        match event {
            Event::Unlettered { number, .. } => {
                self.letters.remove(number);
                dirty.letter(*number);
            }
            Event::Halted { scope, on, by } => {
                self.row.halts.retain(|stop| stop.scope != *scope);
                if *on {
                    self.row.halts.push(Stop { scope: scope.clone(), by: by.clone(), at });
                }
            }
            Event::Put { tenant, key, value, version, by, .. } => {
                let row = ValueRow {
                    tenant: tenant.clone(),
                    key: key.clone(),
                    version: *version,
                    value: value.clone(),
                    by: *by,
                    at,
                };
                let name = (tenant.clone(), key.clone());
                self.values.insert(name.clone(), row);
                dirty.value(name);
            }
            Event::Granted { tenant, resource, of, holder } => {
                let name = (tenant.clone(), resource.clone());
                let row = self.leases.entry(name.clone()).or_insert_with(|| LeaseRow {
                    tenant: tenant.clone(),
                    resource: resource.clone(),
                    token: self.row.tokens,
                    of: *of,
                    holders: Vec::new(),
                });
                row.of = *of;
                row.token = row.token.max(holder.token);
                row.holders.retain(|held| held.effect != holder.effect);
                row.holders.push(holder.clone());
                dirty.lease(name);
            }
            Event::Freed { tenant, resource, token } => {
                let name = (tenant.clone(), resource.clone());
                if let Some(row) = self.leases.get_mut(&name) {
                    row.holders.retain(|held| held.token != *token);
                    if row.holders.is_empty() {
                        self.row.tokens = self.row.tokens.max(row.token);
                        self.leases.remove(&name);
                    }
                    dirty.lease(name);
                }
            }
            Event::Subscribed { tenant, topic, agent, on } => {
                self.subscribe((tenant.clone(), topic.clone()), agent, *on, dirty);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, name: Name, subscriber: &Address, on: bool, dirty: &mut Dirty) {
        if let Some(agent) = self.agents.get_mut(subscriber) {
            agent.topics.retain(|known| *known != name.1);
            agent.topics.extend(on.then(|| name.1.clone()));
            dirty.agent(subscriber);
        }
        let row = self.topics.entry(name.clone()).or_insert_with(|| TopicRow {
            tenant: name.0.clone(),
            topic: name.1.clone(),
            agents: Vec::new(),
        });
        row.agents.retain(|known| known != subscriber);
        row.agents.extend(on.then(|| subscriber.clone()));
        if row.agents.is_empty() {
            self.topics.remove(&name);
        }
        dirty.topic(name);
    }

    /// A run begins, or waits until its agent is free.
    fn start(&mut self, run: &RunRow, lasting: bool, dirty: &mut Dirty) {
        self.row.runs = self.row.runs.max(run.key.0 >> 8);
        let mut run = Box::new(run.clone());
        let lasted = self.agents.get(&run.agent).is_some_and(|agent| agent.lasting);
        if lasting && !lasted {
            dirty.lasting(&run.agent);
        }
        let agent = self.agent_or_new(&run.agent);
        agent.lasting = lasting || lasted;
        if agent.run.is_none() && agent.standing != Standing::Quarantined {
            begin(agent, &mut run);
        } else {
            agent.queue.push(run.key);
            run.state = RunState::Queued;
        }
        dirty.agent(&run.agent);
        dirty.run(run.key);
        if let Some(parent) = run.parent
            && let Some(above) = self.runs.get_mut(&parent.run)
        {
            above.children.push(run.key);
            dirty.run(parent.run);
            let address = above.agent.clone();
            self.bind_child(&address, parent, run.key, dirty);
        }
        self.runs.insert(run.key, run);
    }

    /// An effect that people were asked about has its run now.
    fn bind_child(&mut self, address: &Address, effect: EffectId, child: RunKey, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let Some(at) = pending(agent, effect) else { return };
        agent.pending[at].child = Some(child);
        agent.pending[at].stage = Stage::Waiting;
        dirty.agent(address);
    }

    fn turned(&mut self, address: &Address, at: At, turn: &Turn, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let seen: Vec<Item> = agent.inbox.drain(..(turn.seen as usize).min(agent.inbox.len())).collect();
        agent.strikes = 0;
        agent.progress = turn.progress.clone();
        agent.rests_until = turn.rests_until;
        if let Next::Wait(wake) = turn.next {
            agent.wake = wake;
        }
        agent.inbox.extend(turn.note.clone().map(Item::Note));
        self.change(turn.run, &turn.changes, &seen, dirty);
        self.settle(turn.run, Spend::default(), Spend { steps: 1, ..Spend::default() }, dirty);
        let Some(run) = self.runs.get_mut(&turn.run) else { return };
        run.turns = turn.number;
        run.hop = turn.hop;
        for planned in &turn.effects {
            self.plan(address, turn.run, at, planned, dirty);
        }
        match &turn.next {
            Next::Wait(_) => {}
            Next::End(ending) => self.end(turn.run, ending, at, dirty),
            Next::Again { rests_until, .. } => self.restart(turn.run, *rests_until, at, dirty),
        }
    }

    /// An effect of a turn: under way from now on, or answered by its refusal.
    fn plan(&mut self, address: &Address, run: RunKey, at: At, planned: &Planned, dirty: &mut Dirty) {
        let Some(row) = self.runs.get_mut(&run) else { return };
        row.effects += 1;
        dirty.run(run);
        let id = EffectId { run, number: row.effects };
        let Some(agent) = self.agents.get_mut(address) else { return };
        if let Some((code, why)) = &planned.refused {
            let answer = Answer::Failed { code: *code, why: why.clone() };
            let (tag, twin) = (planned.ask.tag.clone(), planned.ask.twin);
            let kind = planned.ask.work.kind().into();
            agent.inbox.push(Item::Answer { effect: id, tag, kind, twin, answer });
            return;
        }
        agent.pending.push(Pending {
            id,
            tag: planned.ask.tag.clone(),
            work: planned.ask.work.clone(),
            class: planned.ask.class,
            ruling: planned.ruling.clone(),
            reserved: planned.reserved,
            twin: planned.ask.twin,
            stage: planned.stage.clone().unwrap_or(Stage::Waiting),
            attempts: 0,
            asked: at,
            until: planned.until,
            child: planned.child.as_ref().map(|child| child.key),
            handed: Vec::new(),
            setback: None,
        });
        self.reserve(run, planned.reserved, dirty);
        if let Some(child) = &planned.child {
            let named = !child.agent.agent.as_str().ends_with(&child.key.to_string());
            self.start(child, named, dirty);
        }
    }

    fn change(&mut self, run: RunKey, changes: &[Change], seen: &[Item], dirty: &mut Dirty) {
        for change in changes {
            match change {
                Change::Set { key, value } => dirty.state(run, key.clone(), Some(value.clone())),
                Change::Drop { key } => dirty.state(run, key.clone(), None),
                Change::Keep { key, effect } => dirty.state(run, key.clone(), Some(kept(seen, *effect))),
            }
        }
    }

    fn stage(&mut self, address: &Address, effect: EffectId, stage: &Stage, counts: bool) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let Some(at) = pending(agent, effect) else { return };
        agent.pending[at].stage = stage.clone();
        agent.pending[at].attempts += u32::from(counts);
    }

    fn asked_by(&mut self, address: &Address, effect: EffectId, at: At) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        if let Some(nth) = pending(agent, effect) {
            agent.pending[nth].asked = agent.pending[nth].asked.min(at);
        }
    }

    /// Why the effect is tried again; what an operator stopped did not fail.
    fn set_back(&mut self, address: &Address, effect: EffectId, last: At, (code, why): (Code, &Arc<str>)) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let Some(at) = pending(agent, effect).filter(|_| code != Code::RunStopped) else { return };
        let setback = &mut agent.pending[at].setback;
        let first = setback.as_ref().map_or(last, |before| before.first);
        *setback = Some(Setback { code, why: why.clone(), first, last });
    }

    fn voted(
        &mut self,
        address: &Address,
        effect: EffectId,
        now: At,
        args: Option<&Payload>,
        stage: Option<&Stage>,
        ruling: Option<&Ruling>,
    ) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let Some(at) = pending(agent, effect) else { return };
        if let Some(stage) = stage {
            let row = &mut agent.pending[at];
            let from = match row.stage {
                Stage::Approving { until, .. } => until,
                _ => row.asked,
            };
            // Its own time begins when people have had theirs.
            if row.until != At::MAX {
                let begins = if let Stage::Approving { until, .. } = stage { *until } else { now };
                row.until = begins.plus(row.until.since(from));
            }
            row.stage = stage.clone();
            if let Some(ruling) = ruling {
                // Another rule asks others.
                if ruling.rule != row.ruling.rule {
                    row.handed.clear();
                }
                row.ruling = ruling.clone();
            }
        }
        if let (Some(edited), Work::Tool { args, .. }) = (args, &mut agent.pending[at].work) {
            *args = edited.clone();
        }
    }

    fn answered(
        &mut self,
        address: &Address,
        effect: EffectId,
        answer: &Answer,
        used: Spend,
        dirty: &mut Dirty,
    ) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let Some(at) = pending(agent, effect) else { return };
        let pending = agent.pending.remove(at);
        // What was in doubt when its run ended or began anew was settled then, and nobody
        // waits for it.
        let dropped = !pending.class.repeats() && pending.reserved == Spend::default();
        if agent.run == Some(effect.run) && !(dropped && matches!(pending.work, Work::Tool { .. })) {
            agent.inbox.push(answer_to(&pending, answer.clone()));
            self.settle(effect.run, pending.reserved, used, dirty);
            let failed = matches!(answer, Answer::Failed { .. });
            if changes_something(&pending) && (!failed || pending.attempts > 0) {
                self.touch(effect.run, dirty);
            }
        }
    }

    fn mailed(&mut self, address: &Address, message: &Message, dirty: &mut Dirty) {
        if !self.agents.contains_key(address) {
            dirty.lasting(address);
        }
        let agent = self.agent_or_new(address);
        if agent.seen.len() >= limits::SEEN_MAX {
            agent.seen.drain(..limits::SEEN_MAX / 4);
        }
        agent.seen.push((message.id, said(message)));
        agent.inbox.push(Item::Mail(message.clone()));
    }

    fn letter(&mut self, address: &Address, message: &Message, why: Code, dirty: &mut Dirty) {
        if self.letters.len() >= limits::LETTERS_MAX {
            self.drop_letters(dirty);
        }
        self.row.letters += 1;
        let number = self.row.letters;
        let letter = DeadLetter { number, to: address.clone(), message: message.clone(), why };
        self.letters.insert(number, letter);
        dirty.letter(number);
    }

    /// Makes room for letters: the oldest leave of the tenant that has the most, so that
    /// nobody's are lost by what another was sent. Some at a time, since all are counted.
    fn drop_letters(&mut self, dirty: &mut Dirty) {
        let mut tenants: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (number, letter) in &self.letters {
            tenants.entry(letter.to.tenant.root()).or_default().push(*number);
        }
        let Some(most) = tenants.into_values().max_by_key(Vec::len) else { return };
        for number in &most[..most.len().div_ceil(LETTERS_LEAVE)] {
            self.letters.remove(number);
            dirty.letter(*number);
        }
    }

    fn tied(&mut self, address: &Address, tie: &Tie, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        agent.ties.push(tie.clone());
        if !tie.linked {
            self.stage(&tie.peer, tie.effect, &Stage::Waiting, false);
            dirty.agent(&tie.peer);
        }
    }

    fn delegated(&mut self, address: &Address, effect: EffectId, handed: Handed) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        if let Some(nth) = pending(agent, effect) {
            agent.pending[nth].handed.push(handed);
        }
    }

    fn quarantined(&mut self, address: &Address, why: &Arc<str>) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        agent.standing = Standing::Quarantined;
        agent.why = Some(why.clone());
        if let Some(run) = agent.run {
            seal(agent, run, &Fate::Quarantined { why: why.clone() });
        }
    }

    fn released(&mut self, address: &Address, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let quarantined = agent.standing == Standing::Quarantined;
        if quarantined && agent.run.is_some() {
            agent.standing = Standing::Active;
        }
        agent.why = None;
        agent.strikes = 0;
        agent.rests_until = At(0);
        super::progress::resume(&mut agent.progress);
        if quarantined && agent.run.is_none() {
            self.begin_next(address, dirty);
        }
    }

    /// A run is over: what it reserved is free, who waits for it is told, and the next
    /// run of its agent begins.
    fn end(&mut self, key: RunKey, ending: &Ending, at: At, dirty: &mut Dirty) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        if run.state.over() {
            return;
        }
        run.state = match ending.clone() {
            Ending::Done(output) => RunState::Done { output },
            Ending::Failed { code, why } => RunState::Failed { code, why },
            Ending::Cancelled { by } => RunState::Cancelled { by },
        };
        run.ended = Some(at);
        dirty.run(key);
        let (address, parent) = (run.agent.clone(), run.parent);
        if let Some(agent) = self.agents.get_mut(&address) {
            seal(agent, key, &fate_of(ending));
        }
        self.drop_effects(&address, key, dirty);
        self.leave_run(&address, key, dirty);
        if let Some(parent) = parent {
            self.tell_parent(parent, key, ending, dirty);
        }
    }

    /// Effects of a run that is over or begins again: what may have been done without
    /// anybody knowing stays in doubt, the rest is forgotten.
    fn drop_effects(&mut self, address: &Address, run: RunKey, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        let mut freed = Vec::new();
        agent.pending.retain_mut(|pending| {
            if pending.id.run != run {
                return true;
            }
            if pending.stage == Stage::Attempted {
                pending.stage = Stage::Doubtful { why: "its run ended while it was under way".into() };
            }
            // What may have been done counts as done, at the most that it can cost.
            let stays = matches!(pending.stage, Stage::Doubtful { .. });
            let reserved = std::mem::take(&mut pending.reserved);
            freed.push((reserved, if stays { reserved } else { Spend::default() }));
            stays
        });
        for (reserved, used) in freed {
            self.settle(run, reserved, used, dirty);
        }
    }

    fn leave_run(&mut self, address: &Address, run: RunKey, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        dirty.agent(address);
        agent.queue.retain(|queued| *queued != run);
        if agent.run != Some(run) {
            return;
        }
        agent.run = None;
        agent.expires = At::MAX;
        agent.inbox.retain(|item| matches!(item, Item::Mail(_)));
        // Only a human ends a quarantine: what is queued waits for that.
        if agent.standing != Standing::Quarantined {
            self.begin_next(address, dirty);
        }
    }

    /// An agent without a run takes up the next that waits for it, or rests.
    fn begin_next(&mut self, address: &Address, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        agent.standing = if agent.lasting { Standing::Idle } else { Standing::Done };
        let next = (!agent.queue.is_empty()).then(|| agent.queue.remove(0));
        let Some(next) = next else { return self.bury(address, dirty) };
        let (Some(agent), Some(run)) = (self.agents.get_mut(address), self.runs.get_mut(&next)) else {
            return;
        };
        begin(agent, run);
        dirty.run(next);
    }

    /// Mail of an agent that will have no turn any more, and what would bring it more.
    fn bury(&mut self, address: &Address, dirty: &mut Dirty) {
        let Some(agent) = self.agents.get_mut(address) else { return };
        if agent.standing != Standing::Done {
            return;
        }
        let topics = std::mem::take(&mut agent.topics);
        for item in std::mem::take(&mut agent.inbox) {
            if let Item::Mail(message) = item {
                self.letter(address, &message, Code::AgentUnknown, dirty);
            }
        }
        for topic in topics {
            self.subscribe((address.tenant.clone(), topic), address, false, dirty);
        }
    }

    fn tell_parent(&mut self, effect: EffectId, child: RunKey, ending: &Ending, dirty: &mut Dirty) {
        let Some(parent) = self.runs.get_mut(&effect.run) else { return };
        parent.children.retain(|known| *known != child);
        dirty.run(effect.run);
        let address = parent.agent.clone();
        let Some(agent) = self.agents.get_mut(&address) else { return };
        let Some(at) = pending(agent, effect) else { return };
        dirty.agent(&address);
        let waiting = agent.pending.remove(at);
        if agent.run == Some(effect.run) {
            agent.inbox.push(answer_to(&waiting, answer_of(ending)));
        }
        self.settle(effect.run, waiting.reserved, Spend::default(), dirty);
    }

    fn restart(&mut self, key: RunKey, rests_until: At, at: At, dirty: &mut Dirty) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        if run.restarts.len() >= RESTARTS_KEPT {
            run.restarts.remove(0);
        }
        run.restarts.push(at);
        dirty.run(key);
        dirty.no_state(key);
        let address = run.agent.clone();
        self.drop_effects(&address, key, dirty);
        let Some(agent) = self.agents.get_mut(&address) else { return };
        agent.inbox.retain(|item| matches!(item, Item::Mail(_)));
        agent.inbox.insert(0, Item::Task { run: key });
        agent.progress = Progress::default();
        agent.wake = Wake::Any;
        agent.strikes = 0;
        agent.rests_until = rests_until;
        dirty.agent(&address);
    }
}

/// Does the effect change something out there that its run, begun again, would change again?
pub(super) fn changes_something(pending: &Pending) -> bool {
    matches!(pending.work, Work::Tool { .. }) && pending.class != EffectClass::Read
}

/// How a run of the agent ended is written where others are yet to be told.
fn seal(agent: &mut AgentRow, run: RunKey, fate: &Fate) {
    for tie in agent.ties.iter_mut().filter(|tie| tie.run == run && tie.fate.is_none()) {
        tie.fate = Some(fate.clone());
    }
}

fn fate_of(ending: &Ending) -> Fate {
    match ending {
        Ending::Done(_) => Fate::Done,
        Ending::Failed { code, why } => Fate::Failed { code: *code, why: why.clone() },
        Ending::Cancelled { by } => Fate::Cancelled { by: by.clone() },
    }
}

/// An agent takes up a run.
fn begin(agent: &mut AgentRow, run: &mut RunRow) {
    run.state = RunState::Active;
    agent.run = Some(run.key);
    agent.expires = run.allowance.wall.map_or(At::MAX, |wall| run.began.plus(wall));
    agent.standing = Standing::Active;
    // Messages to and fro may be one run each: what was exchanged is known to the next that
    // a message begins. Whoever is asked to do the same again does it anew.
    let letters = if &*run.by == BY_MAIL { std::mem::take(&mut agent.progress.letters) } else { Vec::new() };
    agent.progress = Progress { letters, ..Progress::default() };
    agent.wake = Wake::Any;
    agent.rests_until = At(0);
    agent.strikes = 0;
    agent.inbox.push(Item::Task { run: run.key });
}

fn kept(seen: &[Item], effect: EffectId) -> Payload {
    let found = seen.iter().find_map(|item| match item {
        Item::Answer { effect: of, answer: Answer::Done(body) | Answer::Error(body), .. }
            if *of == effect =>
        {
            Some(body.clone())
        }
        _ => None,
    });
    found.unwrap_or_else(Payload::empty)
}

fn answer_to(pending: &Pending, answer: Answer) -> Item {
    let kind = pending.work.kind().into();
    Item::Answer { effect: pending.id, tag: pending.tag.clone(), kind, twin: pending.twin, answer }
}

fn answer_of(ending: &Ending) -> Answer {
    match ending {
        Ending::Done(output) => Answer::Done(output.clone()),
        Ending::Failed { code, why } => Answer::Failed { code: *code, why: why.clone() },
        Ending::Cancelled { by } => {
            Answer::Failed { code: Code::RunCancelled, why: Arc::from(format!("cancelled by {by}")) }
        }
    }
}
