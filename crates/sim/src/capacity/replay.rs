//! A trace, a gateway and the simulated engines behind it, in simulated time. The loop
//! knows nothing of policy: every contender is driven by the same events in the same
//! order and differs only in what it answers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use seawall_load::engine::{Event as Work, Job, Spec, State};
use seawall_model::{At, Class, EngineId, ReplicaId, Tenant, Tokens};

use crate::fleet::{Fleet, Greeting};
use crate::scenario::{Machine, Trouble};

/// When replays begin: some Tuesday, since the kernel's budgets know a calendar.
const START: At = At(1_700_000_000_000_000);
/// Length of the windows that service is counted in, in microseconds.
pub const WINDOW_US: u64 = 60_000_000;
/// Nothing is waited for longer than this after the last arrival, in microseconds: a gateway
/// that holds calls back for ever would otherwise never end.
const PATIENCE_US: u64 = 6 * 3_600_000_000;

/// One call of a trace.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Microseconds after the beginning.
    pub at_us: u64,
    /// Who asks, as a number from 0.
    pub client: usize,
    /// The same as a path.
    pub tenant: Tenant,
    /// Share relative to all other clients; only ratios count.
    pub weight: f64,
    /// Priority class.
    pub class: Class,
    /// The run it belongs to.
    pub run: Option<u64>,
    /// Prompt tokens.
    pub input: u64,
    /// Tokens it will generate; nobody but the engine knows.
    pub output: u64,
    /// Prefix blocks.
    pub prefix: Box<[u64]>,
    /// Its answer must have begun so many microseconds after it was asked, or it is not
    /// worth starting.
    pub patience_us: Option<u64>,
}

impl Ask {
    /// When it is asked.
    #[must_use]
    pub const fn at(&self) -> At {
        At(START.0 + self.at_us)
    }

    /// When its answer must have begun.
    #[must_use]
    pub fn deadline(&self) -> Option<At> {
        self.patience_us.map(|patience| At(self.at().0 + patience))
    }

    /// What serving it is worth in VTC's units: one per prompt token, two per token generated.
    #[must_use]
    pub const fn cost(&self) -> u64 {
        self.input + 2 * self.output
    }
}

/// What a gateway decides, by the call's place in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to this replica now.
    Send {
        /// The call.
        call: usize,
        /// The replica.
        replica: usize,
    },
    /// Turn it away for good.
    Drop {
        /// The call.
        call: usize,
    },
}

/// What a gateway can see.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The time.
    pub now: At,
    /// The whole trace; an honest gateway looks only at what has been asked, and never at
    /// [`Ask::output`].
    pub asks: &'a [Ask],
    /// What the engines would show at this moment if they were read: fresher than any
    /// real scrape.
    pub engines: &'a [State],
}

/// A contender.
pub trait Gateway {
    /// A client asks.
    fn arrive(&mut self, scene: Scene<'_>, call: usize, out: &mut Vec<Decision>);
    /// The client received its so-many-th token.
    fn token(&mut self, scene: Scene<'_>, call: usize, tokens: u64, out: &mut Vec<Decision>);
    /// The answer is complete; so many prompt tokens had been cached.
    fn finish(&mut self, scene: Scene<'_>, call: usize, cached: u64, out: &mut Vec<Decision>);
    /// An engine ended a step and began the next.
    fn step(&mut self, _scene: Scene<'_>, _out: &mut Vec<Decision>) {}
    /// When time alone will change something.
    fn wake_at(&self) -> Option<At> {
        None
    }
    /// That time has come.
    fn tick(&mut self, _scene: Scene<'_>, _out: &mut Vec<Decision>) {}
}

/// How a call fared. Times are microseconds after the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When it left the gateway.
    pub sent_us: Option<u64>,
    /// Where to.
    pub replica: usize,
    /// When its first token came.
    pub first_us: Option<u64>,
    /// When its last token came.
    pub done_us: Option<u64>,
    /// Was it turned away?
    pub dropped: bool,
    /// Prompt tokens found in the engine's cache.
    pub cached: u64,
    /// Tokens generated.
    pub tokens: u64,
}

/// A stretch of time during which every engine works at a fraction of its speed.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// From so many microseconds after the beginning.
    pub from_us: u64,
    /// Until then.
    pub until_us: u64,
    /// So many times as slow.
    pub times: u64,
}

/// What happened, all in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// By call.
    pub outcomes: Vec<Outcome>,
    /// Cost served, by client and window.
    pub service: Vec<Vec<u64>>,
    /// When the last thing happened, in microseconds after the beginning.
    pub end_us: u64,
    /// Times a sequence lost its memory.
    pub preempted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize),
    Work { machine: usize, stamp: u64 },
    Wake,
    Slow(u64),
    Recover(u64),
}

struct Replay<'a> {
    now: At,
    asks: &'a [Ask],
    gateway: &'a mut dyn Gateway,
    fleet: Fleet,
    states: Vec<State>,
    agenda: BinaryHeap<Reverse<(At, u64, Event)>>,
    planned: u64,
    wake: Option<At>,
    decisions: Vec<Decision>,
    run: Run,
    open: usize,
}

/// Plays a trace through a gateway.
///
/// # Panics
/// When the gateway sends a call twice or to an engine that cannot hold it: a contender
/// that is wrong must not look merely slow.
pub fn replay(asks: &[Ask], engines: &[Spec], slow: Option<Slow>, gateway: &mut dyn Gateway) -> Run {
    let machine = |(id, spec): (usize, &Spec)| Machine {
        replica: ReplicaId(id as u32),
        engine: EngineId(1),
        spec: spec.clone(),
        provider: None,
    };
    let machines: Vec<Machine> = engines.iter().enumerate().map(machine).collect();
    let clients = asks.iter().map(|ask| ask.client + 1).max().unwrap_or(0);
    let mut replay = Replay {
        now: START,
        asks,
        gateway,
        fleet: Fleet::new(&machines, START),
        states: Vec::new(),
        agenda: BinaryHeap::new(),
        planned: 0,
        wake: None,
        decisions: Vec::new(),
        run: Run {
            outcomes: vec![Outcome::default(); asks.len()],
            service: vec![Vec::new(); clients],
            end_us: 0,
            preempted: 0,
        },
        open: asks.len(),
    };
    replay.states = replay.fleet.iter().map(crate::fleet::Machine::state).collect();
    if let Some(slow) = slow {
        replay.plan(At(START.0 + slow.from_us), Event::Slow(slow.times));
        replay.plan(At(START.0 + slow.until_us), Event::Recover(slow.times));
    }
    if !asks.is_empty() {
        replay.plan(asks[0].at(), Event::Arrive(0));
    }
    replay.play();
    replay.run.preempted = replay.fleet.iter().map(|machine| machine.state().preempted).sum();
    replay.run
}

impl Replay<'_> {
    fn plan(&mut self, at: At, event: Event) {
        self.planned += 1;
        self.agenda.push(Reverse((at, self.planned, event)));
    }

    fn play(&mut self) {
        let last = self.asks.last().map_or(START, Ask::at);
        while self.open > 0 {
            let Some(Reverse((at, _, event))) = self.agenda.pop() else { return };
            if at.micros_since(last) > PATIENCE_US {
                return;
            }
            self.now = at;
            match event {
                Event::Arrive(call) => {
                    if let Some(next) = self.asks.get(call + 1) {
                        self.plan(next.at(), Event::Arrive(call + 1));
                    }
                    self.tell(|gateway, scene, out| gateway.arrive(scene, call, out));
                }
                Event::Work { machine, stamp } => self.work(machine, stamp),
                Event::Wake => {
                    if self.wake == Some(at) {
                        self.wake = None;
                        self.tell(|gateway, scene, out| gateway.tick(scene, out));
                    }
                }
                Event::Slow(times) => self.trouble(Trouble::Slow(times), true),
                Event::Recover(times) => self.trouble(Trouble::Slow(times), false),
            }
            self.arm();
        }
    }

    fn trouble(&mut self, trouble: Trouble, begins: bool) {
        for machine in 0..self.fleet.len() {
            if begins {
                self.fleet.at(machine).suffer(self.now, trouble);
            } else {
                self.fleet.at(machine).recover(self.now, trouble);
            }
            self.appoint(machine);
        }
    }

    fn arm(&mut self) {
        let wake = self.gateway.wake_at();
        if let Some(at) = wake.filter(|at| self.wake.is_none_or(|armed| *at < armed)) {
            self.wake = Some(at.max(self.now));
            self.plan(at.max(self.now), Event::Wake);
        }
    }

    fn appoint(&mut self, machine: usize) {
        if let Some((at, stamp)) = self.fleet.at(machine).appoint() {
            self.plan(at, Event::Work { machine, stamp });
        }
    }

    /// Tells the gateway something and does what it answers.
    fn tell(&mut self, what: impl FnOnce(&mut dyn Gateway, Scene<'_>, &mut Vec<Decision>)) {
        let mut decisions = std::mem::take(&mut self.decisions);
        let scene = Scene { now: self.now, asks: self.asks, engines: &self.states };
        what(self.gateway, scene, &mut decisions);
        for decision in decisions.drain(..) {
            self.perform(decision);
        }
        self.decisions = decisions;
    }

    fn perform(&mut self, decision: Decision) {
        match decision {
            Decision::Send { call, replica } => {
                let (now_us, ask) = (self.now.0 - START.0, &self.asks[call]);
                let outcome = &mut self.run.outcomes[call];
                assert!(outcome.sent_us.is_none() && !outcome.dropped, "call {call} is sent once");
                outcome.sent_us = Some(now_us);
                outcome.replica = replica;
                let job = Job {
                    id: call as u64,
                    prompt: Tokens(ask.input),
                    prefix: ask.prefix.clone(),
                    output: Tokens(ask.output),
                };
                let greeting = self.fleet.at(replica).offer(self.now, job, 100);
                assert_eq!(greeting, Greeting::Taken, "the engines of a replay hold every call of it");
                self.states[replica] = self.fleet.at(replica).state();
                self.appoint(replica);
            }
            Decision::Drop { call } => {
                let outcome = &mut self.run.outcomes[call];
                assert!(outcome.sent_us.is_none() && !outcome.dropped, "call {call} ends once");
                outcome.dropped = true;
                self.open -= 1;
                self.run.end_us = self.run.end_us.max(self.now.0 - START.0);
            }
        }
    }

    fn work(&mut self, machine: usize, stamp: u64) {
        if !self.fleet.at(machine).keep(stamp) {
            return;
        }
        let mut events = Vec::new();
        self.fleet.at(machine).advance(self.now, &mut events);
        self.states[machine] = self.fleet.at(machine).state();
        self.appoint(machine);
        for event in events {
            match event {
                Work::FirstToken { id, cached } => {
                    let call = id as usize;
                    let outcome = &mut self.run.outcomes[call];
                    outcome.cached = cached.0;
                    outcome.first_us = Some(self.now.0 - START.0);
                    self.serve(call, self.asks[call].input);
                    self.token(call);
                }
                Work::Token { id, .. } => self.token(id as usize),
                Work::Done { id } => self.done(id as usize),
                Work::Preempted { .. } => {}
            }
        }
        self.tell(|gateway, scene, out| gateway.step(scene, out));
    }

    fn token(&mut self, call: usize) {
        let outcome = &mut self.run.outcomes[call];
        outcome.tokens += 1;
        let tokens = outcome.tokens;
        self.serve(call, 2);
        self.tell(|gateway, scene, out| gateway.token(scene, call, tokens, out));
    }

    fn done(&mut self, call: usize) {
        let now_us = self.now.0 - START.0;
        let outcome = &mut self.run.outcomes[call];
        outcome.done_us = Some(now_us);
        let cached = outcome.cached;
        self.open -= 1;
        self.run.end_us = now_us;
        self.tell(|gateway, scene, out| gateway.finish(scene, call, cached, out));
    }

    fn serve(&mut self, call: usize, cost: u64) {
        let window = ((self.now.0 - START.0) / WINDOW_US) as usize;
        let windows = &mut self.run.service[self.asks[call].client];
        if windows.len() <= window {
            windows.resize(window + 1, 0);
        }
        windows[window] += cost;
    }
}
