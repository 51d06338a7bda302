//! The world: one clock, one list of things to come, and the real kernel in the middle.
//! Single-threaded; every choice comes from the scenario's seed.
//!
//! Here are the loop and the one place where the kernel is stepped and held against
//! every invariant. What the shell would do is in [`crate::shell`], what operators and
//! fate do in [`crate::operate`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use seawall_kernel::plan::Plan;
use seawall_kernel::{Effect, Input, Kernel};
use seawall_load::rng::Rng;
use seawall_model::{At, CallId, Millis, ReplicaId};

use crate::accounts::Accounts;
use crate::attempt::Attempt;
use crate::bounds::Bounds;
use crate::calls::{Calls, Told};
use crate::crowd::Crowd;
use crate::disk::Disk;
use crate::fairness::Fairness;
use crate::fleet::Fleet;
use crate::lie::Lie;
use crate::rules::Rules;
use crate::scenario::Scenario;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::trees::Trees;

/// Something to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A demand's next call.
    Arrive { demand: usize },
    /// A client leaves.
    Leave { call: CallId },
    /// The shell notices.
    Noticed { call: CallId },
    /// An attempt reaches its machine.
    Reach { attempt: u64 },
    /// A machine has worked.
    Work { machine: usize, stamp: u64 },
    /// The shell learns that an attempt failed.
    Fail { attempt: u64 },
    /// Silence may have lasted too long.
    Silence { attempt: u64 },
    /// The deadline of an attempt's call.
    Deadline { attempt: u64 },
    /// A probe comes back.
    Probe { replica: ReplicaId, life: u64 },
    /// The disk has written a draw.
    Durable { life: u64 },
    /// The disk writes what was noted.
    Settle { life: u64 },
    /// Something goes wrong, or is over.
    Incident { index: usize, begins: bool },
    /// An operator acts.
    Operation { index: usize },
    /// A new process starts after a crash.
    Start,
    /// A look around.
    Glance,
    /// Clients stop sending.
    Close,
}

/// An event with its time; earliest first, then in the order they were planned.
#[derive(Debug)]
struct Planned {
    at: At,
    seq: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives its greatest first.
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serving.
    Open,
    /// Draining, to start anew at once.
    Restarting,
    /// Draining for good.
    Closing,
    /// Dead.
    Down,
    /// It is all over.
    Over,
}

/// A world under way.
#[derive(Debug)]
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: At,
    pub(crate) phase: Phase,
    /// How often a process started: what belongs to an earlier one is void.
    pub(crate) life: u64,
    coming: BinaryHeap<Planned>,
    seq: u64,
    pub(crate) kernel: Kernel,
    pub(crate) plan: Plan,
    wake: Option<At>,
    ticks_in_place: u32,
    pub(crate) fleet: Fleet,
    pub(crate) crowd: Crowd,
    pub(crate) disk: Disk,
    pub(crate) calls: Calls,
    pub(crate) attempts: BTreeMap<u64, Attempt>,
    pub(crate) attempt_next: u64,
    pub(crate) accounts: Accounts,
    pub(crate) rules: Rules,
    pub(crate) trees: Trees,
    /// Runs that operators stopped.
    pub(crate) stopped: Vec<seawall_model::RunId>,
    /// Calls to be cut, as the kernel has just said.
    pub(crate) halts: Vec<CallId>,
    pub(crate) bounds: Bounds,
    pub(crate) fairness: Fairness,
    pub(crate) rng: Rng,
    pub(crate) settling: bool,
    pub(crate) tally: Tally,
    trace: Trace,
    effects: Vec<Effect>,
}

/// Ticks at one moment before the kernel is said to spin: each may only end waits that
/// end at that very moment, and no world here has more calls.
const TICKS_IN_PLACE_MAX: u32 = 10_000;
/// How long after the last arrival everything must have ended.
const DRAIN_MAX: Millis = Millis(900_000);

impl World {
    /// A world about to begin. `whole` keeps every line of the trace.
    #[must_use]
    pub fn new(scenario: Scenario, whole: bool) -> Self {
        let start = scenario.start;
        Self {
            now: start,
            phase: Phase::Open,
            life: 0,
            coming: BinaryHeap::new(),
            seq: 0,
            kernel: Kernel::new(start, told_plan(scenario.lie, &scenario.plan)),
            plan: scenario.plan.clone(),
            wake: None,
            ticks_in_place: 0,
            fleet: Fleet::new(&scenario.machines, start),
            crowd: Crowd::new(&scenario),
            disk: Disk::new(),
            calls: Calls::default(),
            attempts: BTreeMap::new(),
            attempt_next: 0,
            accounts: Accounts::default(),
            rules: Rules::default(),
            trees: Trees::default(),
            stopped: Vec::new(),
            halts: Vec::new(),
            bounds: Bounds::default(),
            fairness: Fairness::new(),
            rng: Rng::branch(scenario.seed, 0x0011_d000),
            settling: false,
            tally: Tally::new(scenario.demands.len()),
            trace: Trace::new(whole),
            effects: Vec::new(),
            scenario,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When an invariant does not hold; the message begins with its id.
    pub fn run(&mut self) {
        self.begin();
        while self.turn() {}
        self.tally.took_us = self.now.micros_since(self.scenario.start);
        self.tally.hash = self.trace.hash();
        self.tally.tripped = self.accounts.tripped();
        self.tally.compared = self.fairness.compared;
        self.tally.gap_most = u64::try_from(self.fairness.worst).unwrap_or(0);
        self.tally.queued_most = self.bounds.queued_most;
    }

    /// What it has come to.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> At {
        self.now
    }

    /// The last lines of the trace.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.trace.tail()
    }

    /// The whole trace, where it was kept.
    #[must_use]
    pub fn into_trace(self) -> Option<String> {
        self.trace.into_whole()
    }

    pub(crate) fn plan_event(&mut self, at: At, event: Event) {
        self.seq += 1;
        self.coming.push(Planned { at: at.max(self.now), seq: self.seq, event });
    }

    /// Something happens `micros` from now.
    pub(crate) fn plan_in(&mut self, micros: u64, event: Event) {
        self.plan_event(At(self.now.0.saturating_add(micros)), event);
    }

    pub(crate) fn note(&mut self, what: &impl std::fmt::Debug) {
        self.trace.add(self.now, '-', what);
    }

    /// Takes in a plan that holds from now on.
    pub(crate) fn learn(&mut self, plan: Plan) {
        self.calls.learn(&plan);
        self.bounds.learn(&plan);
        self.plan = plan;
    }

    fn begin(&mut self) {
        self.learn(self.scenario.plan.clone());
        for (at, demand) in self.crowd.begin() {
            self.plan_event(at, Event::Arrive { demand });
        }
        for (index, incident) in self.scenario.incidents.clone().into_iter().enumerate() {
            let from = self.scenario.start.plus(incident.from);
            self.plan_event(from, Event::Incident { index, begins: true });
            self.plan_event(from.plus(incident.length), Event::Incident { index, begins: false });
        }
        for index in 0..self.scenario.operations.len() {
            let at = self.scenario.start.plus(self.scenario.operations[index].0);
            self.plan_event(at, Event::Operation { index });
        }
        self.plan_event(self.scenario.end(), Event::Close);
        self.plan_event(self.now, Event::Glance);
    }

    /// The next thing; false when all is over.
    fn turn(&mut self) -> bool {
        let next = self.coming.peek().map(|planned| planned.at);
        let wake = self.wake.filter(|_| self.phase != Phase::Down).map(|wake| wake.max(self.now));
        // What falls due at the moment of an event comes before it: the kernel rings its
        // own alarms first in any step.
        if let Some(wake) = wake.filter(|wake| next.is_none_or(|next| *wake <= next)) {
            self.ticks_in_place = if wake == self.now { self.ticks_in_place + 1 } else { 0 };
            assert!(
                self.ticks_in_place < TICKS_IN_PLACE_MAX,
                "I1: the kernel wants to be woken at {wake:?} for ever"
            );
            self.now = wake;
            self.step(Input::Tick);
        } else {
            let Some(planned) = self.coming.pop() else {
                return false;
            };
            if planned.at > self.now {
                self.ticks_in_place = 0;
            }
            self.now = planned.at;
            self.happen(planned.event);
        }
        assert!(
            self.now < self.scenario.end().plus(DRAIN_MAX),
            "I6: {} calls do not end: {:?}",
            self.calls.len(),
            self.calls.iter().next()
        );
        self.end_if_drained();
        self.phase != Phase::Over
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { demand } => self.arrive(demand),
            Event::Leave { call } => self.leave(call),
            Event::Noticed { call } => self.notice(call),
            Event::Reach { attempt } => self.reach(attempt),
            Event::Work { machine, stamp } => self.work(machine, stamp),
            Event::Fail { attempt } => self.failed(attempt),
            Event::Silence { attempt } => self.silence(attempt),
            Event::Deadline { attempt } => self.deadline(attempt),
            Event::Probe { replica, life } => self.probed(replica, life),
            Event::Durable { life } => self.durable(life),
            Event::Settle { life } => self.settle_disk(life),
            Event::Incident { index, begins } => self.incident(index, begins),
            Event::Operation { index } => self.operation(index),
            Event::Start => self.start(),
            Event::Glance => self.glance(),
            Event::Close => self.close(),
        }
    }

    /// Hands one input to the kernel, performs what it asks for, and checks everything.
    pub(crate) fn step(&mut self, input: Input) {
        self.trace.add(self.now, '>', &input);
        self.tally.steps += 1;
        let told = told_of(&input);
        let submitted = if let Input::Submit(submit) = &input { Some(submit.call) } else { None };
        let mut effects = std::mem::take(&mut self.effects);
        let (now, input) = match self.scenario.lie {
            Some(lie) => (lie.now(self.now, self.tally.steps), lie.input(input)),
            None => (self.now, input),
        };
        self.kernel.step(now, input, &mut effects);
        self.wake = self.kernel.wake_at();
        self.tally.effects += effects.len() as u64;
        let mut moved = false;
        for effect in effects.drain(..) {
            self.trace.add(self.now, '<', &effect);
            moved |= matches!(effect, Effect::Dispatch(_) | Effect::Settle(_));
            self.perform(effect);
        }
        self.effects = effects;
        if let Some(call) = submitted {
            self.count_waiting(call);
        }
        if let Some((call, told)) = told {
            self.calls.check_told(call, told);
        }
        self.check(moved);
    }

    fn check(&mut self, moved: bool) {
        if self.scenario.plain {
            self.fairness.check(self.now, &self.plan);
        }
        if !self.tally.steps.is_multiple_of(self.scenario.check_every) {
            self.bounds.skip();
            self.accounts.skip();
            return;
        }
        self.kernel.check();
        if moved {
            let view = self.kernel.view();
            self.bounds.check(self.now, &self.plan, &view, &self.calls, self.scenario.plain);
            self.accounts.check(self.now, &self.plan, &view.budgets, self.scenario.strict);
        }
    }

    /// A submitted call that was neither dispatched nor refused waits.
    fn count_waiting(&mut self, id: CallId) {
        if !self.scenario.plain {
            return;
        }
        let Some(call) = self.calls.live_mut(id).filter(|call| call.attempt.is_none()) else {
            return;
        };
        call.queued = true;
        let (class, tenant, model) = (call.submit.class, call.submit.tenant.clone(), call.submit.model);
        if let Some(engine) =
            self.plan.models.iter().find(|known| known.id == model).map(|model| model.targets[0])
        {
            self.fairness.wait(&self.plan, engine, class, &tenant, true);
        }
    }
}

/// The plan as a new kernel is told.
pub(crate) fn told_plan(lie: Option<Lie>, plan: &Plan) -> Plan {
    lie.map_or_else(|| plan.clone(), |lie| lie.plan(plan.clone()))
}

/// What an input says of a call.
const fn told_of(input: &Input) -> Option<(CallId, Told)> {
    match input {
        Input::Finished { call, finish, .. } => Some((*call, Told::Finished(*finish))),
        Input::Failed { call, failure, client_began, .. } => {
            Some((*call, Told::Failed(*failure, *client_began)))
        }
        Input::Cancelled { call, .. } => Some((*call, Told::Cancelled)),
        Input::Submit(submit) => Some((submit.call, Told::Alive)),
        _ => None,
    }
}
