//! What befalls a world besides failing calls: clocks that are set, disks that fill up, models
//! that refuse everybody, definitions that change under runs, forks. And what the world must
//! remember of it, to hold the machine against.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::agents::effect::{Grant, Perform};
use seawall_kernel::agents::input::{Input, Report, Start};
use seawall_model::effect::{Allowance, EffectId, Work};
use seawall_model::journal::Change;
use seawall_model::{Address, Agent, At, Millis, Payload, RunKey};

use super::actor::State;
use super::cast::{self, INBOX_MAX, PINNED};
use super::door::Asked;
use super::plan::Blow;
use super::world::{Happening, World};

/// Types whose programs can be gone on with from any state.
const FORKED: &[&str] = &["loop", "worker", "sleeper", "mapper", "thinker", "spender"];
/// Messages in a storm of them, to each of three agents.
const STORM: usize = 4 * INBOX_MAX;

/// What befell the world, as far as it matters later.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// How far the clock is set from the world's time, in microseconds.
    skew_us: i64,
    /// The latest time that the machine was told in this life: it goes on from there.
    pub(super) heard: At,
    /// The process dies with the next write.
    tear: bool,
    /// The disk is full.
    full: bool,
    /// How often the disk became full or was freed.
    rooms: u64,
    /// The process was told to end then.
    pub(super) draining: Option<At>,
    /// Models refuse everybody until then.
    refusing_until: At,
    /// Effects that were refused: not again before. What is asked about or undone meanwhile
    /// may be that earlier, where it was lost.
    not_before: BTreeMap<EffectId, (At, bool)>,
    /// Turns that were put off: not again before.
    put_off: BTreeMap<(Address, RunKey, usize), At>,
    /// Versions in force, and since when.
    versions: Vec<(At, Arc<str>)>,
    /// The number of the newest, and the percentage of its allowances.
    version: (u64, u64),
    /// Runs that go on from a state.
    pub(super) forks: BTreeMap<RunKey, State>,
}

impl Trouble {
    /// None yet.
    pub(super) fn new(begin: At) -> Self {
        Self {
            skew_us: 0,
            heard: begin,
            tear: false,
            full: false,
            rooms: 0,
            draining: None,
            refusing_until: At(0),
            not_before: BTreeMap::new(),
            put_off: BTreeMap::new(),
            versions: Vec::new(),
            version: (1, 100),
            forks: BTreeMap::new(),
        }
    }

    /// What goes with the process.
    pub(super) fn die(&mut self) {
        (self.tear, self.full, self.draining) = (false, false, None);
        self.rooms += 1;
        self.not_before.clear();
        self.put_off.clear();
        self.versions.clear();
    }

    /// Somebody says that it may be tried again.
    pub(super) fn forgive(&mut self, effect: EffectId) {
        self.not_before.remove(&effect);
    }

    /// The disk became full, or was freed.
    pub(super) fn room(&mut self, room: bool) {
        self.full = !room;
        self.rooms += 1;
    }

    /// Names the time during which the disk is full, if it is.
    pub(super) fn full(&self) -> Option<u64> {
        self.full.then_some(self.rooms)
    }

    /// Does the process die with the write that begins now?
    pub(super) fn tears(&mut self) -> bool {
        std::mem::take(&mut self.tear)
    }
}

impl World {
    /// The time as the machine's clock has it.
    pub(super) fn clock(&self) -> At {
        At(self.now.0.saturating_add_signed(self.trouble.skew_us))
    }

    /// The world's time at which the machine's clock will show this.
    pub(super) fn when(&self, shown: At) -> At {
        At(shown.0.saturating_add_signed(-self.trouble.skew_us)).max(self.now)
    }

    /// Something happens.
    pub(super) fn blow(&mut self, blow: Blow) {
        if self.calm || self.agents.is_none() {
            return;
        }
        match blow {
            Blow::Tear => self.trouble.tear = true,
            Blow::Full => {
                let length = Millis(3_000 + self.rng.below(20_000));
                self.later(length, Happening::Room(true));
                self.tell_room(false);
            }
            Blow::Ahead => {
                self.tally.happen("set forward");
                self.trouble.skew_us += 1_000_000 * (1 + self.rng.below(600)) as i64;
            }
            Blow::Back => {
                self.tally.happen("set back");
                self.trouble.skew_us -= 1_000_000 * (1 + self.rng.below(300)) as i64;
            }
            Blow::Refusals => {
                self.trouble.refusing_until = self.now.plus(Millis(3_000 + self.rng.below(20_000)));
            }
            Blow::Mails => self.storm(),
            Blow::Reload => self.redefine(100),
            Blow::Cut => self.redefine(60),
            Blow::Drain => self.drain(),
            Blow::Fork => self.fork(),
        }
    }

    /// The machine is told whether there is room on the disk.
    pub(super) fn tell_room(&mut self, room: bool) {
        if self.agents.is_some() {
            self.trouble.room(room);
        }
        self.step(Input::Room(room));
    }

    /// Are all models told to refuse?
    pub(super) fn refuses(&self) -> bool {
        !self.calm && self.now < self.trouble.refusing_until
    }

    /// What is reported of a call may say when it can be tried again.
    pub(super) fn note_refusal(&mut self, effect: EffectId, report: &Report) {
        let now = self.trouble.heard.max(self.clock());
        if let Report::NotDone { retry_after: Some(after), .. } = report {
            self.trouble.not_before.insert(effect, (now.plus(*after), false));
        }
        if let Report::Lost { retry_after: Some(after), .. } = report {
            self.trouble.not_before.insert(effect, (now.plus(*after), true));
        }
    }

    /// Is the turn one that cannot be taken yet?
    pub(super) fn defers(&mut self) -> bool {
        let percent = self.plan.faults.deferrals;
        percent > 0 && !self.calm && self.rng.below(100) < percent
    }

    /// A turn that is granted is put off for a while.
    pub(super) fn deferred(&mut self, address: Address, token: u64) {
        let Some(turning) = self.turns.get(&address).filter(|turning| turning.token == token) else {
            return;
        };
        let after = Millis(50 + self.rng.below(2_000));
        self.tally.happen("deferred");
        let until = self.trouble.heard.max(self.clock()).plus(after);
        self.trouble.put_off.insert((address.clone(), turning.run, turning.restarts), until);
        self.turns.remove(&address);
        self.step(Input::Defer { address, token, cause: "tool_server", on: "shop".into(), after });
    }

    /// Holds a call against what was said of it: when it may be tried, and with what.
    pub(super) fn check_promises(&mut self, perform: &Perform) {
        let heard = self.trouble.heard;
        let amends = perform.undo || perform.query;
        let held = self.trouble.not_before.get(&perform.effect).filter(|(_, lost)| !(*lost && amends));
        if let Some((from, _)) = held.copied() {
            self.trouble.not_before.remove(&perform.effect);
            let early = from.micros_since(heard);
            assert!(heard >= from, "retry: {} is tried again {early} us early", perform.effect);
        }
        let line = &self.books.lines[&perform.effect];
        if let Work::Tool { .. } = perform.work {
            assert!(perform.work == line.work, "edit: {} is done with other arguments", perform.effect);
        }
    }

    /// Holds a turn against the version and the state that its run must have.
    pub(super) fn check_grant(&mut self, grant: &Grant) {
        let (address, run) = (&grant.address, &grant.run);
        let put_off = self.trouble.put_off.remove(&(address.clone(), run.key, run.restarts.len()));
        if let Some(from) = put_off {
            assert!(grant.at >= from, "retry: {address} has its turn before the time it was put off to");
        }
        if let Some(since) = self.trouble.draining {
            assert!(grant.at <= since, "drain: {address} has a turn, granted {:?} after {since:?}", grant.at);
        }
        let began = self.books.runs.get(&run.key).map(|line| line.version.clone());
        if PINNED.contains(&address.agent.kind()) {
            assert!(began.as_ref() == Some(&run.version), "version: {} left {began:?}", run.key);
            let newest = self.trouble.versions.last();
            if newest.is_some_and(|(_, newest)| *newest != run.version) {
                self.tally.happen("stayed");
            }
        } else {
            let before = self.trouble.versions.iter().rposition(|(since, _)| *since < grant.at);
            let since = before.unwrap_or(0);
            let mut able = self.trouble.versions[since..].iter().take_while(|(since, _)| *since <= grant.at);
            let known = able.any(|(_, version)| *version == run.version);
            assert!(known, "version: {} of {address} is on {}, not the newest", run.key, run.version);
        }
        if grant.number == 1
            && run.restarts.is_empty()
            && let Some(from) = self.trouble.forks.get(&run.key)
        {
            let nothing = State::new();
            let state = self.disk.states.get(&run.key).unwrap_or(&nothing);
            assert!(state == from, "fork: {} begins with {state:?}, not with {from:?}", run.key);
            self.tally.happen("forked");
        }
    }

    /// The rules that the machine was told last are in force from now on.
    pub(super) fn in_force(&mut self) {
        let (number, percent) = self.trouble.version;
        self.trouble.versions.push((self.trouble.heard, cast::version(number, percent)));
    }

    /// Definitions change: a new version, which allows this part of what the last one did.
    pub(super) fn redefine(&mut self, percent: u64) {
        if self.agents.is_none() {
            return;
        }
        let (number, before) = self.trouble.version;
        self.trouble.version = (number + 1, before * percent / 100);
        let version = cast::version(number + 1, before * percent / 100);
        for kind in &mut self.rules.kinds {
            kind.version = version.clone();
            kind.allowance = cast::allowance_of(&kind.name, &version);
        }
        if self.books.runs.values().any(|line| line.over.is_none()) {
            self.tally.happen(if percent < 100 { "cut" } else { "reloaded" });
        }
        self.in_force();
        self.step(Input::Configure(Box::new(self.rules.clone())));
    }

    /// Hundreds of messages to a few agents.
    fn storm(&mut self) {
        self.tally.happen("storms");
        for name in ["mate/0", "reader/1", "pong/2"] {
            let tenant = cast::tenant(self.rng.below(self.plan.tenants));
            let agent = Agent::parse(name).expect("the cast's names are valid");
            self.mails(tenant, agent, STORM);
        }
    }

    /// Somebody goes on, as a new run, from what a run was after its last turn.
    fn fork(&mut self) {
        let able = |run: &RunKey| {
            let line = self.books.runs.get(run)?;
            let state = self.books.state_of(*run).filter(|state| !state.is_empty())?;
            FORKED.contains(&line.agent.agent.kind()).then(|| (line.clone(), state.clone()))
        };
        let all: Vec<_> = self.books.runs.keys().filter_map(able).collect();
        if all.is_empty() {
            // Nobody has come far enough yet.
            self.later(Millis(500), Happening::Blow(Blow::Fork));
            return;
        }
        let (line, state) = all[self.rng.below(all.len() as u64) as usize].clone();
        let set =
            |(key, value): (&Arc<str>, &Payload)| Change::Set { key: key.clone(), value: value.clone() };
        let start = Start {
            tenant: line.agent.tenant.clone(),
            agent: Agent::parse(line.agent.agent.kind()).expect("the cast's names are valid"),
            task: Payload::text("do it otherwise"),
            allowance: Allowance::default(),
            by: "client".into(),
            caller: None,
            fork: None,
            version: Some(line.version.clone()),
            state: state.iter().map(set).collect(),
        };
        let ticket = self.ticket(Asked::Fork(Box::new(state)));
        self.step(Input::Start { ticket, start: Box::new(start) });
    }
}
