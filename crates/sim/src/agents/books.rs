//! The world's own books, kept from committed records and from what the world itself did:
//! each effect, run, message and vote, and what may come of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_kernel::agents::Shard;
use seawall_kernel::agents::input::{Finding, Report};
use seawall_model::durable::{AgentRow, Item, RunRow, Stage, Standing};
use seawall_model::effect::{Allowance, Answer, EffectId, Spend, Work};
use seawall_model::journal::{Change, Ending, Entry, Event, Next, Turn};
use seawall_model::{Address, At, EffectClass, Payload, RunKey, Tenant};

use super::actor::State;
use super::bonds::Bonds;
use super::cast::{self, QUORUM};
use super::disk::Disk;
use super::lent::Lent;
use super::purse::Purse;

/// One effect.
#[derive(Clone, Debug)]
pub struct Line {
    /// What.
    pub work: Work,
    /// How it may be repeated.
    pub class: EffectClass,
    /// The most that it can cost.
    pub cost: Spend,
    /// Who said yes.
    pub yes: BTreeSet<Arc<str>>,
    /// It may have been done, and nobody knows.
    pub open: bool,
    /// It was handed to the shell since it became open.
    sent: bool,
    /// It was refused.
    refused: bool,
    /// It was answered.
    answered: bool,
    /// Its run ended or began anew while it was in doubt: it was booked at its most then.
    booked: bool,
}

/// One run.
#[derive(Clone, Debug)]
pub struct RunLine {
    /// Its agent.
    pub agent: Address,
    /// The effect that waits for it.
    pub parent: Option<EffectId>,
    /// How it ended.
    pub over: Option<&'static str>,
    /// The version that it began with.
    pub version: Arc<str>,
}

/// What was reported of one effect, and whether that was of its undoing, or by whom it was
/// asked about.
#[derive(Clone, Debug)]
struct Told {
    report: Report,
    undo: bool,
    query: bool,
}

/// All books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// The fold of all committed records, with everything in memory.
    pub fold: Vec<Shard>,
    /// All effects.
    pub lines: BTreeMap<EffectId, Line>,
    /// All runs.
    pub runs: BTreeMap<RunKey, RunLine>,
    /// Budgets.
    pub purse: Purse,
    /// What models are to be paid: the run, and up to where the disk must have its shard.
    pub bills: Vec<(RunKey, u64, Spend)>,
    /// Leases.
    pub lent: Lent,
    /// Monitors and links.
    pub bonds: Bonds,
    /// Records so far, by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Messages to and fro between two agents.
    pub exchanged: BTreeMap<(Address, Address), u64>,
    states: BTreeMap<RunKey, State>,
    shown: BTreeMap<(RunKey, u32), Vec<Item>>,
    told: BTreeMap<EffectId, Vec<Told>>,
    people: BTreeSet<EffectId>,
    /// Dead letters that people sent again.
    redriven: BTreeSet<(u8, u64)>,
    /// Dead letters that were dealt with.
    pub unlettered: u64,
    /// Arguments that people gave in place of others.
    pub edits: BTreeMap<EffectId, Vec<Payload>>,
    /// Who was sent a message last.
    last_mail: Option<Address>,
    mailed: BTreeSet<(Address, u64)>,
    /// Messages by sender: taken or buried, and answered as taken.
    letters: BTreeMap<Address, (u64, u64)>,
}

/// Must what is asked for have the yes of people? The world's own word for it.
#[must_use]
pub fn is_gated(agent: &Address, work: &Work) -> bool {
    match work {
        Work::Tool { tool, .. } => &**tool == "bank.pay",
        Work::Child { agent, .. } => agent.kind() == "guarded",
        Work::Timer { .. } => agent.agent.kind() == "asker",
        _ => false,
    }
}

impl Books {
    /// Empty books of so many shards.
    #[must_use]
    pub fn new(shards: u8) -> Self {
        Self { fold: (0..shards).map(Shard::new).collect(), ..Self::default() }
    }

    /// A handler was shown this.
    pub fn show(&mut self, run: RunKey, number: u32, items: &[Item]) {
        self.shown.insert((run, number), items.to_vec());
    }

    /// The machine is told this of an effect.
    pub fn tell(&mut self, effect: EffectId, report: &Report, undo: bool, query: bool) {
        self.told.entry(effect).or_default().push(Told { report: report.clone(), undo, query });
    }

    /// Is it known whether the effect was done? Then nobody has a reason to undo it.
    #[must_use]
    pub fn is_known(&self, effect: EffectId) -> bool {
        let last = self.told.get(&effect).and_then(|told| told.last());
        last.is_some_and(|told| {
            matches!(&told.report, Report::Found(Finding::Done(_) | Finding::NotDone)) && told.query
        })
    }

    /// The shell is about to send an effect.
    pub fn send(&mut self, effect: EffectId) {
        if let Some(line) = self.lines.get_mut(&effect) {
            line.sent = true;
        }
    }

    /// Somebody answers an effect.
    pub fn resolve(&mut self, effect: EffectId) {
        self.people.insert(effect);
    }

    /// Somebody sends a dead letter again, or throws it away.
    pub fn redrive(&mut self, shard: u8, number: u64, send: bool) {
        self.redriven.remove(&(shard, number));
        if send {
            self.redriven.insert((shard, number));
        }
    }

    /// One committed record, at the world's time.
    pub fn read(&mut self, now: At, entry: &Entry) {
        let shard = usize::from(entry.shard);
        assert!(self.fold[shard].row.seq + 1 == entry.seq, "I4: a gap before {} of shard {shard}", entry.seq);
        *self.records.entry(entry.record.event.kind()).or_default() += 1;
        let agent = entry.record.agent.as_ref();
        self.bonds.read(agent, &self.fold[shard], &entry.record.event);
        match &entry.record.event {
            Event::Started { run, state, .. } => {
                self.begin(run);
                self.change(run.key, state, &[]);
            }
            Event::Turned(turn) => self.turned(shard, agent.expect("a turn is an agent's"), turn),
            Event::Ended { run, ending } => self.end(*run, ending),
            Event::Restarted { run, .. } => {
                self.states.remove(run);
                self.drop_effects(*run);
            }
            Event::Put { tenant, key, value, version, .. } => {
                self.put(shard, tenant, key, value.as_ref(), *version);
            }
            Event::Granted { tenant, resource, holder, .. } => {
                self.lent.grant(&(tenant.clone(), resource.clone()), holder);
            }
            Event::Freed { tenant, resource, token } => {
                self.lent.free(&(tenant.clone(), resource.clone()), *token);
            }
            event => {
                self.read_effect(shard, agent, now, event);
                self.read_mail(shard, agent, event);
            }
        }
        let quarantined = |books: &Self| {
            let row = agent.and_then(|agent| books.fold[shard].agents.get(agent));
            row.is_some_and(|row| row.standing == Standing::Quarantined)
        };
        let before = quarantined(self);
        self.fold[shard].fold(entry);
        let free = matches!(entry.record.event, Event::Released { .. });
        assert!(!before || free || quarantined(self), "quarantine: {agent:?} left it by itself");
    }

    /// Records of effects under way.
    fn read_effect(&mut self, shard: usize, agent: Option<&Address>, now: At, event: &Event) {
        match event {
            Event::Attempted { effect } => {
                let line = self.under_way(shard, agent, *effect);
                assert!(!line.class.repeats() && !line.open, "effects: {effect} is attempted again");
                (line.open, line.sent) = (true, false);
            }
            Event::Postponed { effect, used, .. } => {
                self.postponed(shard, agent, *effect);
                self.purse.spend(effect.run, *used);
            }
            Event::Doubted { effect, .. } => drop(self.under_way(shard, agent, *effect)),
            Event::Answered { effect, answer, used, by } => {
                self.answered(shard, agent, now, *effect, answer, *used, by.is_some());
            }
            Event::Voted { effect, by, yes, stage, args, .. } => {
                let line = self.under_way(shard, agent, *effect);
                if let (true, Some(new), Work::Tool { args, .. }) = (*yes, args, &mut line.work) {
                    // What others said yes to was something else.
                    *args = new.clone();
                    line.yes.clear();
                    self.edits.entry(*effect).or_default().push(new.clone());
                }
                let line = self.under_way(shard, agent, *effect);
                if *yes {
                    line.yes.insert(by.clone());
                }
                if matches!(stage, Some(Stage::Ready { .. })) {
                    line.open = false;
                }
                self.people.insert(*effect);
            }
            _ => {}
        }
    }

    /// Records of messages.
    fn read_mail(&mut self, shard: usize, agent: Option<&Address>, event: &Event) {
        match event {
            Event::Mailed { message, .. } => {
                let to = agent.expect("a message is for an agent");
                self.last_mail = Some(to.clone());
                let new = self.mailed.insert((to.clone(), message.id));
                assert!(new, "mail: {to} has message {:x} twice", message.id);
                if let Some(from) = &message.from {
                    self.letters.entry(from.clone()).or_default().0 += 1;
                    *self.exchanged.entry((from.clone(), to.clone())).or_default() += 1;
                }
            }
            Event::Unlettered { number, .. } => {
                let letter = &self.fold[shard].letters[number];
                self.unlettered += 1;
                let sent = self.redriven.remove(&(shard as u8, *number));
                assert!(
                    !sent || self.last_mail.as_ref() == Some(&letter.to),
                    "mail: dead letter {letter:?} is gone"
                );
            }
            Event::Lettered { message, .. } => {
                if let Some(from) = &message.from {
                    self.letters.entry(from.clone()).or_default().0 += 1;
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, run: &RunRow) {
        assert!(!self.runs.contains_key(&run.key), "I6: {} began twice", run.key);
        let own = cast::allowance_of(run.agent.agent.kind(), &run.version);
        self.purse.open(run.key, run.parent.map(|effect| effect.run), narrow(own, run.allowance));
        let version = run.version.clone();
        let line = RunLine { agent: run.agent.clone(), parent: run.parent, over: None, version };
        self.runs.insert(run.key, line);
    }

    fn end(&mut self, run: RunKey, ending: &Ending) {
        let line = self.runs.get_mut(&run).unwrap_or_else(|| panic!("I6: {run} ended and never began"));
        assert!(line.over.is_none(), "I6: {run} ended twice");
        self.bonds.end(run, ending);
        line.over = Some(match ending {
            Ending::Done(_) => "done",
            Ending::Failed { .. } => "failed",
            Ending::Cancelled { .. } => "cancelled",
        });
        self.drop_effects(run);
    }

    /// What is in doubt when its run ends or begins anew counts as done.
    fn drop_effects(&mut self, run: RunKey) {
        let from = EffectId { run, number: 0 };
        let to = EffectId { run, number: u32::MAX };
        let mut most = Vec::new();
        for (_, line) in self.lines.range_mut(from..=to) {
            if line.open && !std::mem::replace(&mut line.booked, true) {
                most.push(Spend { calls: 1, ..line.cost });
            }
        }
        for cost in most {
            self.purse.spend(run, cost);
        }
    }

    fn turned(&mut self, shard: usize, address: &Address, turn: &Turn) {
        let run = turn.run;
        assert!(
            self.runs.get(&run).is_some_and(|line| line.over.is_none()),
            "I6: {run} is over and had a turn"
        );
        let agent = &self.fold[shard].agents[address];
        let drained = &agent.inbox[..(turn.seen as usize).min(agent.inbox.len())];
        let shown = self.shown.remove(&(run, turn.number)).unwrap_or_default();
        assert!(drained == &shown[..], "mail: {address} was shown {shown:?} and {drained:?} is gone");
        self.purse.spend(run, Spend { steps: 1, ..Spend::default() });
        self.change(run, &turn.changes, &shown);
        let before = self.fold[shard].runs[&run].effects;
        for (planned, number) in turn.effects.iter().zip(before + 1..) {
            let line = Line {
                work: planned.ask.work.clone(),
                class: planned.ask.class,
                cost: planned.ask.cost_max,
                yes: BTreeSet::new(),
                open: false,
                sent: false,
                refused: planned.refused.is_some(),
                answered: false,
                booked: false,
            };
            self.lines.insert(EffectId { run, number }, line);
            if let Some(child) = &planned.child {
                self.begin(child);
            }
        }
        match &turn.next {
            Next::End(ending) => self.end(run, ending),
            Next::Again { .. } => {
                self.states.remove(&run);
                self.drop_effects(run);
            }
            Next::Wait(_) => {}
        }
    }

    fn change(&mut self, run: RunKey, changes: &[Change], seen: &[Item]) {
        if changes.is_empty() {
            return;
        }
        let state = self.states.entry(run).or_default();
        for change in changes {
            match change {
                Change::Set { key, value } => drop(state.insert(key.clone(), value.clone())),
                Change::Drop { key } => drop(state.remove(key)),
                Change::Keep { key, effect } => drop(state.insert(key.clone(), body_of(seen, *effect))),
            }
        }
    }

    /// The effect, which must be under way.
    fn under_way(&mut self, shard: usize, agent: Option<&Address>, effect: EffectId) -> &mut Line {
        let row = agent.and_then(|agent| self.fold[shard].agents.get(agent));
        let known = row.is_some_and(|row| row.pending.iter().any(|pending| pending.id == effect));
        assert!(known, "effects: {effect} is not under way");
        self.lines.get_mut(&effect).unwrap_or_else(|| panic!("effects: nobody asked for {effect}"))
    }

    /// Found not done, or undone: only then may it be tried again.
    fn postponed(&mut self, shard: usize, agent: Option<&Address>, effect: EffectId) {
        let told = self.told.get(&effect).and_then(|told| told.last());
        let known = told.is_some_and(|told| match (&told.report, told.undo) {
            (Report::NotDone { .. }, false) => !told.query,
            (Report::Found(finding), false) => *finding == Finding::NotDone,
            (Report::Done { answer, .. }, true) => matches!(answer, Answer::Done(_)),
            _ => false,
        });
        let line = self.under_way(shard, agent, effect);
        assert!(known || !line.open || !line.sent, "effects: {effect} may have been done and is tried again");
        line.open = false;
    }

    #[expect(clippy::too_many_arguments, reason = "it is one record, taken apart")]
    fn answered(
        &mut self,
        shard: usize,
        agent: Option<&Address>,
        now: At,
        effect: EffectId,
        answer: &Answer,
        used: Spend,
        by_people: bool,
    ) {
        let told = self.told.get(&effect).cloned().unwrap_or_default();
        let people = self.people.contains(&effect);
        let line = self.under_way(shard, agent, effect).clone();
        assert!(!line.answered && !line.refused, "effects: {effect} was answered twice");
        let done = !matches!(answer, Answer::Failed { .. });
        assert!(!by_people || people, "effects: nobody answered {effect}");
        match &line.work {
            Work::Model { .. } | Work::Tool { .. } | Work::Get { .. } if !by_people => {
                check_told(effect, &line, &told, answer, used);
            }
            Work::Timer { at } if done => {
                assert!(now >= *at, "timers: {effect} rang {} us early", at.micros_since(now));
            }
            Work::Release { resource, token } => {
                let agent = agent.expect("an effect is an agent's");
                let held = self.lent.holds(&(agent.tenant.clone(), resource.clone()), agent, *token);
                assert!(held || !done, "I13: {effect} gave back {resource} with an old token");
            }
            Work::Monitor { agent: of } => {
                let of = Address {
                    tenant: agent.expect("an effect is an agent's").tenant.clone(),
                    agent: of.clone(),
                };
                let runs = &self.runs;
                let ended = |run| runs.get(&run).and_then(|line| line.over);
                self.bonds.tell(effect, &of, &self.fold[shard], answer, ended);
            }
            Work::Message { .. } if done => {
                let from = agent.expect("an effect is an agent's").clone();
                self.letters.entry(from).or_default().1 += 1;
            }
            Work::Publish { .. } if done => {
                let body = match answer {
                    Answer::Done(body) => body.here().unwrap_or_default(),
                    _ => &[],
                };
                let digits: String =
                    body.iter().filter(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
                let from = agent.expect("an effect is an agent's").clone();
                self.letters.entry(from).or_default().1 += digits.parse::<u64>().unwrap_or(0);
            }
            _ => {}
        }
        if let Some(agent) = agent {
            let enough = line.yes.len() >= usize::from(QUORUM);
            assert!(
                !done || by_people || enough || !is_gated(agent, &line.work),
                "gate: {effect} was done without a yes"
            );
        }
        if !line.booked {
            self.purse.spend(effect.run, used);
        }
        if let Some(line) = self.lines.get_mut(&effect) {
            (line.answered, line.open) = (true, false);
        }
    }

    /// Counters only ever go up by one.
    fn put(&mut self, shard: usize, tenant: &Tenant, key: &Arc<str>, value: Option<&Payload>, version: u64) {
        let row = self.fold[shard].values.get(&(tenant.clone(), key.clone()));
        let before = row.map_or(0, |row| row.version);
        assert!(version == before + 1, "values: {key} went from version {before} to {version}");
        if key.starts_with("count/") {
            let number = |value: Option<&Payload>| -> u64 {
                let text = value.and_then(|value| value.here()).unwrap_or_default();
                std::str::from_utf8(text).unwrap_or_default().parse().unwrap_or(0)
            };
            let (old, new) = (number(row.and_then(|row| row.value.as_ref())), number(value));
            assert!(new == old + 1, "values: {key} went from {old} to {new}: an update is lost");
        }
    }

    /// Holds the fold against what is on disk, and effects in doubt against the world's
    /// own list of them (I4).
    pub fn compare(&self, disk: &Disk) {
        for (fold, rows) in self.fold.iter().zip(&disk.shards) {
            if fold != rows {
                panic!("I4: {}", first_difference(fold, rows));
            }
        }
        assert!(self.states == disk.states, "I4: working states on disk are not those of the journal");
        let open: BTreeSet<EffectId> =
            self.lines.iter().filter(|(_, line)| line.open).map(|(id, _)| *id).collect();
        let agents = self.fold.iter().flat_map(|shard| shard.agents.values());
        let unsure = agents
            .flat_map(|row| &row.pending)
            .filter(|pending| matches!(pending.stage, Stage::Attempted | Stage::Doubtful { .. }));
        let unsure: BTreeSet<EffectId> = unsure.map(|pending| pending.id).collect();
        assert!(open == unsure, "effects: in doubt are {open:?}, and listed are {unsure:?}");
    }

    /// Somebody who should begin a run for its mail.
    #[must_use]
    pub fn unread(&self) -> Option<&AgentRow> {
        let mut agents = self.fold.iter().flat_map(|shard| shard.agents.values()).map(|row| &**row);
        agents.find(|row| {
            row.standing == Standing::Idle
                && matches!(row.address.agent.kind(), "pong" | "mate" | "reader")
                && row.inbox.iter().any(|item| matches!(item, Item::Mail(_)))
        })
    }

    /// Bills for what a crash undid are nobody's to book.
    pub fn forget_bills(&mut self) {
        let fold = &self.fold;
        self.bills.retain(|(run, seq, _)| fold[usize::from(run.shard())].row.seq >= *seq);
    }

    /// What must hold when everything is over.
    pub fn close(&self) {
        let mut purse = self.purse.clone();
        for (run, _, price) in &self.bills {
            purse.bill(*run, *price);
        }
        for (run, line) in &self.runs {
            assert!(line.over.is_some(), "progress: {run} of {} never ended", line.agent);
            let row = self.fold.iter().find_map(|shard| shard.runs.get(run));
            let row = row.unwrap_or_else(|| panic!("I4: {run} is in no shard"));
            assert!(
                row.used == self.purse.used(*run),
                "I12: {run} used {:?}, not {:?}",
                self.purse.used(*run),
                row.used
            );
            let billed = purse.billed(*run);
            let booked = billed.tokens <= row.used.tokens && billed.money <= row.used.money;
            assert!(booked, "I12: {run} is to pay {billed:?} and has booked {:?}", row.used);
        }
        self.bonds.close(&self.fold);
        for (from, (taken, said)) in &self.letters {
            assert!(taken >= said, "mail: {said} messages of {from} are said to be taken, and {taken} were");
        }
    }

    /// A run's working state, by its records.
    #[must_use]
    pub fn state_of(&self, run: RunKey) -> Option<&State> {
        self.states.get(&run)
    }

    /// How a run stands on all above it with people: gated ones need their yes.
    #[must_use]
    pub fn is_allowed(&self, run: RunKey) -> bool {
        let mut next = Some(run);
        while let Some(line) = next.and_then(|key| self.runs.get(&key)) {
            next = line.parent.map(|effect| effect.run);
            let Some(parent) = line.parent else { continue };
            let (Some(above), Some(effect)) = (self.runs.get(&parent.run), self.lines.get(&parent)) else {
                continue;
            };
            if is_gated(&above.agent, &effect.work) && effect.yes.len() < usize::from(QUORUM) {
                return false;
            }
        }
        true
    }
}

/// What the machine makes of an effect is what it was told of it.
fn check_told(effect: EffectId, line: &Line, told: &[Told], answer: &Answer, used: Spend) {
    let done = !matches!(answer, Answer::Failed { .. });
    let same = |told: &Told| match &told.report {
        Report::Done { answer: said, used: cost } => {
            !told.undo && said == answer && (cost.tokens, cost.money) == (used.tokens, used.money)
        }
        // Nobody says what it used: at its most then.
        Report::Found(Finding::Done(said)) => said == answer && used == Spend { calls: 1, ..line.cost },
        _ => false,
    };
    assert!(!done || told.iter().any(same), "effects: {effect} was answered out of thin air");
    let last = told.last();
    let not_done = last.is_some_and(|told| {
        let not_done = matches!(told.report, Report::NotDone { .. }) && !told.query;
        told.undo || not_done || told.report == Report::Found(Finding::NotDone)
    });
    assert!(
        !line.open || !line.sent || done || not_done,
        "effects: {effect} may have been done and is said to have failed"
    );
}

fn body_of(seen: &[Item], effect: EffectId) -> Payload {
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

/// The smaller of both, limit by limit.
fn narrow(one: Allowance, other: Allowance) -> Allowance {
    fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
        one.into_iter().chain(other).min()
    }
    Allowance {
        tokens: least(one.tokens, other.tokens),
        money: least(one.money, other.money),
        calls: least(one.calls, other.calls),
        steps: least(one.steps, other.steps),
        ..one
    }
}

/// In words, which row of two shards differs.
#[must_use]
pub fn first_difference(one: &Shard, other: &Shard) -> String {
    if one.row != other.row {
        return format!("shard {:?} is {:?}", one.row, other.row);
    }
    for (address, row) in &one.agents {
        if other.agents.get(address) != Some(row) {
            return format!("agent {row:?} is {:?}", other.agents.get(address));
        }
    }
    for (key, row) in &one.runs {
        if other.runs.get(key) != Some(row) {
            return format!("run {row:?} is {:?}", other.runs.get(key));
        }
    }
    format!(
        "values {}, leases {}, topics {}, schedules {}, letters {}: same?",
        one.values == other.values,
        one.leases == other.leases,
        one.topics == other.topics,
        one.schedules == other.schedules,
        one.letters == other.letters
    )
}
