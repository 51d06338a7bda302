//! Looking ahead: a suspended agent is a row on disk and nothing here. Those whom time wakes
//! within the next minutes are looked up in good time and have an alarm; whatever happens
//! before brings them into memory anyway, so that what was looked up can only be too much.

use std::collections::BTreeMap;

use seawall_model::{Address, At, Millis, limits};

use super::alarm::Alarm;
use super::effect::Effect;
use super::machine::Agents;

/// So far ahead suspended agents have alarms.
const HORIZON: Millis = Millis::from_secs(300);
/// It is moved when it is as near as this: far longer than reading takes.
const LEAD: Millis = Millis::from_secs(60);
/// Rows read at once.
const PAGE: usize = 1_000;

/// How far ahead is known who will be due.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    /// Time has begun to pass: what had work when the journal was opened is in memory.
    awake: bool,
    /// Whoever is suspended and due before has an alarm.
    reach: At,
    /// A read is under way that will move it to there.
    reading: Option<At>,
    /// Suspended agents that have an alarm, and when it rings.
    near: BTreeMap<Address, At>,
    /// So many at most.
    near_max: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            awake: false,
            reach: At(0),
            reading: None,
            near: BTreeMap::new(),
            near_max: limits::ALARMS_NEAR_MAX,
        }
    }
}

impl Ahead {
    /// From here on nobody who leaves memory needs an alarm: they will be read.
    fn end(&self) -> At {
        self.reading.map_or(self.reach, |to| to.max(self.reach))
    }
}

impl Agents {
    /// Time passes.
    pub(super) fn wake_up(&mut self) {
        self.ahead.awake = true;
    }

    pub(super) const fn is_awake(&self) -> bool {
        self.ahead.awake
    }

    /// Has those read who are due next, if it is time to.
    pub(super) fn look_ahead(&mut self) {
        let soon = self.ahead.reach <= self.now.plus(LEAD);
        let room = self.ahead.near.len() <= self.ahead.near_max / 2;
        if self.ahead.awake && soon && room && self.ahead.reading.is_none() {
            self.ahead.reading = Some(self.now.plus(HORIZON));
            self.read_due((self.ahead.reach, 0));
        }
    }

    fn read_due(&mut self, from: (At, u64)) {
        let before = self.ahead.end();
        self.out.push(Effect::LoadDue { from, before, max: PAGE });
    }

    /// Who is due next on disk, in that order, and where to go on if there may be more. They
    /// were so when they were read: one that was loaded since is looked at in vain.
    pub(super) fn due_loaded(&mut self, found: Vec<(Address, At)>, next: Option<(At, u64)>) {
        if self.ahead.reading.is_none() {
            return;
        }
        let mut full = None;
        for (address, due) in found {
            if self.ahead.reading.is_none_or(|to| due >= to) {
                break;
            }
            if self.slots.contains_key(&address) || self.ahead.near.contains_key(&address) {
                continue;
            }
            if self.ahead.near.len() >= self.ahead.near_max {
                // Half of them ring first, and then there is room.
                if due >= self.middle() {
                    full = Some(due);
                    break;
                }
                self.look_less_far();
            }
            self.alarms.arm(due, Alarm::Agent(address.clone()));
            self.ahead.near.insert(address, due);
        }
        let to = self.ahead.reading.unwrap_or(self.ahead.reach);
        match next.filter(|(at, _)| full.is_none() && *at < to) {
            Some(from) => self.read_due(from),
            None => {
                self.ahead.reading = None;
                self.ahead.reach = self.ahead.reach.max(full.unwrap_or(to));
                let again = At(self.ahead.reach.0.saturating_sub(LEAD.micros())).max(At(self.now.0 + 1));
                self.alarms.arm(again, Alarm::Ahead);
            }
        }
    }

    /// An agent left memory and is on disk. If it is due before what is still to be read,
    /// it has an alarm.
    pub(super) fn remember(&mut self, address: &Address, due: At) {
        if due >= self.ahead.end() {
            return;
        }
        if self.ahead.near.len() >= self.ahead.near_max {
            self.look_less_far();
            return self.remember(address, due);
        }
        self.alarms.arm(due, Alarm::Agent(address.clone()));
        self.ahead.near.insert(address.clone(), due);
    }

    /// It is in memory again, or its alarm has rung.
    pub(super) fn forget(&mut self, address: &Address) {
        if let Some(due) = self.ahead.near.remove(address) {
            self.alarms.disarm(due, Alarm::Agent(address.clone()));
        }
    }

    /// Half of those who have an alarm ring by then.
    fn middle(&self) -> At {
        let mut times: Vec<At> = self.ahead.near.values().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(At::MAX)
    }

    /// The later half of those who have an alarm is read again when they are nearer.
    fn look_less_far(&mut self) {
        let until = self.middle();
        let far: Vec<Address> =
            self.ahead.near.iter().filter(|(_, due)| **due >= until).map(|(who, _)| who.clone()).collect();
        for address in far {
            self.forget(&address);
        }
        self.ahead.reach = self.ahead.reach.min(until);
        self.ahead.reading = self.ahead.reading.map(|to| to.min(until));
        let again = At(until.0.saturating_sub(LEAD.micros())).max(At(self.now.0 + 1));
        self.alarms.arm(again, Alarm::Ahead);
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::durable::{Row, RunRow, Wake};
    use seawall_model::effect::{Allowance, Ask, EffectClass, Spend, Work};
    use seawall_model::journal::{Commit, Ending, Event, Next};
    use seawall_model::{Agent, Payload, RunKey, Tenant};

    use super::super::progress::GuardRule;
    use super::super::rules::Kind;
    use super::super::supervise::Supervision;
    use super::super::{Input, Rules, Shard, Start};
    use super::*;

    const BEGIN: At = At(1_000_000_000);

    /// Agents that sleep until a time of their own and are over then, with a disk beside.
    struct Dormitory {
        agents: Agents,
        now: At,
        rows: BTreeMap<Address, seawall_model::durable::AgentRow>,
        runs: BTreeMap<RunKey, RunRow>,
        shard: seawall_model::durable::ShardRow,
        /// How often each was woken.
        woken: BTreeMap<Address, u32>,
        sleep: fn(u64) -> At,
        reads: u32,
    }

    fn rules() -> Rules {
        let kind = Kind {
            name: "a".into(),
            version: "1".into(),
            moves: true,
            allowance: Allowance::default(),
            supervision: Supervision::default(),
            guard: GuardRule::default(),
            gate: Vec::new(),
            schedule: None,
            starts_on_mail: false,
            inbox_max: 10,
        };
        Rules { shards: 1, kinds: vec![kind], suspend_after: Millis(100), turns_max: 64, ..Rules::default() }
    }

    fn opened(now: At, shard: Shard, runs: usize, near_max: usize) -> Agents {
        let mut agents = Agents::open(now, rules(), vec![shard], runs);
        agents.ahead.near_max = near_max;
        agents
    }

    impl Dormitory {
        fn new(near_max: usize, sleep: fn(u64) -> At) -> Self {
            Self {
                agents: opened(BEGIN, Shard::new(0), 0, near_max),
                now: BEGIN,
                rows: BTreeMap::new(),
                runs: BTreeMap::new(),
                shard: Shard::new(0).row,
                woken: BTreeMap::new(),
                sleep,
                reads: 0,
            }
        }

        fn step(&mut self, input: Input) {
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                let mut out = Vec::new();
                self.agents.step(self.now, input, &mut out);
                let batch = self.agents.batch();
                for entry in &batch.entries {
                    if matches!(entry.record.event, Event::Answered { .. }) {
                        let who = entry.record.agent.clone().expect("an agent's");
                        assert!((self.sleep)(number(&who)) <= self.now, "{who} woke early");
                        *self.woken.entry(who).or_default() += 1;
                    }
                }
                for row in batch.rows {
                    match row {
                        Row::Agent(row) => drop(self.rows.insert(row.address.clone(), *row)),
                        Row::Run(row) => drop(self.runs.insert(row.key, *row)),
                        Row::Shard(row) => self.shard = row,
                        _ => {}
                    }
                }
                let near = self.agents.ahead.near.len();
                assert!(near <= self.agents.ahead.near_max, "{near} have alarms");
                inputs.extend(out.into_iter().filter_map(|effect| self.answer(effect)));
                if let Some(last) = batch.entries.last() {
                    inputs.push(Input::Durable { shard: 0, seq: last.seq });
                }
            }
        }

        fn answer(&mut self, effect: Effect) -> Option<Input> {
            match effect {
                Effect::Turn(grant) => {
                    let (asks, next) = match grant.number {
                        1 => (vec![timer((self.sleep)(number(&grant.address)))], Next::Wait(Wake::Any)),
                        _ => (Vec::new(), Next::End(Ending::Done(Payload::empty()))),
                    };
                    let commit = Box::new(Commit { changes: Vec::new(), asks, next });
                    Some(Input::Commit { address: grant.address, token: grant.token, commit })
                }
                Effect::Load(address) => {
                    let row = self.rows.get(&address).cloned();
                    let runs = row.iter().filter_map(|row| self.runs.get(&row.run?).cloned()).collect();
                    Some(Input::Loaded { address, agents: row.into_iter().collect(), runs })
                }
                Effect::LoadDue { from, before, max } => {
                    self.reads += 1;
                    let rows = self.rows.values().map(|row| (row.due(), number(&row.address), &row.address));
                    let mut due: Vec<_> =
                        rows.filter(|(at, id, _)| *at > At(0) && *at < before && (*at, *id) > from).collect();
                    due.sort_unstable();
                    let next = due.get(max - 1).map(|(at, id, _)| (*at, *id));
                    let found = due.into_iter().take(max).map(|(at, _, who)| (who.clone(), at)).collect();
                    Some(Input::DueLoaded { found, next })
                }
                _ => None,
            }
        }

        fn start(&mut self, count: u64) {
            for number in 1..=count {
                let start = Start {
                    tenant: Tenant::local(),
                    agent: Agent::parse(&format!("a/{number}")).expect("valid"),
                    task: Payload::empty(),
                    allowance: Allowance::default(),
                    by: "test".into(),
                    version: None,
                    state: Vec::new(),
                    caller: None,
                    fork: None,
                };
                self.step(Input::Start { ticket: 0, start: Box::new(start) });
                self.pass(Millis(1));
            }
        }

        fn pass(&mut self, span: Millis) {
            let until = self.now.plus(span);
            while let Some(at) = self.agents.wake_at().filter(|at| *at <= until) {
                self.now = self.now.max(at);
                self.step(Input::Tick);
            }
            self.now = until;
            self.step(Input::Tick);
        }

        /// The process is killed, and comes again after a while.
        fn crash(&mut self, down: Millis) {
            self.now = self.now.plus(down);
            let shard = Shard { row: self.shard.clone(), ..Shard::default() };
            let alive = self.runs.values().filter(|run| !run.state.over());
            self.agents = opened(self.now, shard, alive.count(), self.agents.ahead.near_max);
            let now = self.now;
            let work = self.rows.values().filter(|row| row.run.is_some() && row.due() <= now);
            let work: Vec<_> = work.cloned().collect();
            let runs = work.iter().filter_map(|row| self.runs.get(&row.run?).cloned()).collect();
            self.agents.restore(now, work, runs, &mut Vec::new());
            self.step(Input::Tick);
        }

        /// All of memory that knows of a suspended agent.
        fn known(&self) -> usize {
            let shard = &self.agents.shards()[0];
            let rows = shard.agents.len() + shard.runs.len();
            rows + self.agents.slots.len() + self.agents.ahead.near.len()
        }

        fn all_woke_once(&self, count: u64) {
            assert_eq!(self.woken.len() as u64, count);
            assert!(self.woken.values().all(|times| *times == 1), "{:?}", self.woken);
        }
    }

    fn number(address: &Address) -> u64 {
        address.agent.as_str()[2..].parse().expect("a number")
    }

    fn timer(at: At) -> Ask {
        let work = Work::Timer { at };
        let (class, cost_max) = (EffectClass::Idempotent, Spend::default());
        Ask { tag: "t".into(), work, class, cost_max, patience: None, twin: 0, facts: Vec::new() }
    }

    fn tomorrow(_: u64) -> At {
        BEGIN.plus(Millis::from_secs(86_400))
    }

    fn now_and_then(number: u64) -> At {
        BEGIN.plus(Millis::from_secs(1 + number * 7_919 % 1_800))
    }

    #[test]
    fn a_suspended_agent_is_a_row_and_nothing_here() {
        let mut all = Dormitory::new(100, tomorrow);
        all.start(1_000);
        all.pass(Millis(1_000));
        assert_eq!(all.known(), 0, "a thousand sleep until tomorrow");
        all.pass(Millis::from_secs(86_000));
        assert!(all.known() == 0 && all.woken.is_empty());
        assert!(all.reads < 400, "{} reads in a day", all.reads);
        all.pass(Millis::from_secs(400));
        all.all_woke_once(1_000);
        all.pass(Millis::from_secs(10));
        assert_eq!(all.known(), 0);
    }

    #[test]
    fn whoever_is_due_soon_is_woken_in_time_however_many_there_are() {
        let mut all = Dormitory::new(50, now_and_then);
        all.start(1_000);
        for _ in 0..200 {
            all.pass(Millis::from_secs(10));
            let late = (1..=1_000).filter(|number| now_and_then(*number) <= all.now).count();
            assert_eq!(all.woken.len(), late);
        }
        all.all_woke_once(1_000);
    }

    #[test]
    fn who_is_read_last_and_due_first_is_not_late() {
        let mut all = Dormitory::new(4, tomorrow);
        all.step(Input::Tick);
        let who = |number: u64| Address {
            tenant: Tenant::local(),
            agent: Agent::parse(&format!("a/{number}")).expect("valid"),
        };
        let at = |seconds: u64| BEGIN.plus(Millis::from_secs(seconds));
        // While a read is under way others leave memory, who are due later.
        all.agents.ahead.reading = Some(at(300));
        for number in 0..4 {
            all.agents.remember(&who(number), at(200 + number));
        }
        let found = vec![(who(10), at(61)), (who(11), at(62)), (who(12), at(250))];
        all.agents.due_loaded(found, None);
        let near = |number| all.agents.ahead.near.contains_key(&who(number));
        assert!(near(10) && near(11) && near(0), "{:?}", all.agents.ahead);
        assert!(!near(12) && all.agents.ahead.reach <= at(202), "whoever is not here is read again");
        assert!(all.agents.ahead.near.len() <= 4);
    }

    #[test]
    fn a_crash_wakes_nobody_twice_and_forgets_nobody() {
        for down in [0, 100, 700] {
            let mut all = Dormitory::new(50, now_and_then);
            all.start(300);
            for _ in 0..20 {
                all.pass(Millis::from_secs(100));
                all.crash(Millis::from_secs(down));
            }
            all.all_woke_once(300);
        }
    }
}
