//! The kernel itself: its state, and the one function that changes it. What each input
//! does stands in the room of its name: `admit` (into the queues), `wait` (out of them
//! unserved), `pump` (who goes next), `settle` (how attempts end), `reload` and `show`.

use std::collections::BTreeMap;

use seawall_model::{At, CallId, EngineId, Millis, ModelId, ReplicaId};

use crate::budget::Accounts;
use crate::call::{Call, State, Upstream};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::flow::Flows;
use crate::guard::Guard;
use crate::halt::Halts;
use crate::input::{Input, RateReport};
use crate::kin::Kin;
use crate::plan::{GuardRule, Model, Plan, QueueRule, RetryRule};
use crate::purse::Trees;
use crate::rng::Rng;
use crate::sketch::Sketches;
use crate::slab::Slab;
use crate::tenant::{Node, Tenants};
use crate::timer::{Alarm, Timers};

/// How long a call waits for an engine whose every circuit is open: long enough for a
/// first half-open trial, short enough that a dead engine does not hang its clients.
pub(crate) const DOWN_WAIT_MS: Millis = Millis(5_000);
/// Pause after a provider's "too many" that names no time.
pub(crate) const PAUSE_MS: Millis = Millis(1_000);
/// The longest pause that a provider can ask for: no client waits longer, one call a
/// minute costs nothing, and a header gone wrong must not shut an engine for days.
pub(crate) const PAUSE_MAX_MS: Millis = Millis(60_000);
/// What is spent is told at most this often per account.
const SPENT_MS: Millis = Millis(1_000);

/// The decider. One [`Kernel::step`] per thing that happened; the shell performs the
/// effects and sends [`Input::Tick`] when [`Kernel::wake_at`] says so.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) now: At,
    pub(crate) queue: QueueRule,
    pub(crate) retry: RetryRule,
    pub(crate) guard_rule: GuardRule,
    pub(crate) guard: Guard,
    pub(crate) kin: Kin,
    pub(crate) halts: Halts,
    pub(crate) trees: Trees,
    pub(crate) class_share: [u32; 3],
    pub(crate) models: BTreeMap<ModelId, Model>,
    pub(crate) calls: Slab<Call>,
    pub(crate) index: BTreeMap<CallId, u32>,
    pub(crate) engines: Slab<Engine>,
    pub(crate) engine_ids: BTreeMap<EngineId, u32>,
    pub(crate) replica_homes: BTreeMap<ReplicaId, u32>,
    pub(crate) tenants: Tenants,
    pub(crate) flows: Flows,
    pub(crate) accounts: Accounts,
    pub(crate) sketches: Sketches,
    pub(crate) timers: Timers,
    pub(crate) rng: Rng,
    pub(crate) draining: bool,
    /// Engines to pump before the step ends.
    pub(crate) dirty: Vec<u32>,
    /// Calls that were queued in this step and have no alarm yet.
    pub(crate) unarmed: Vec<(u32, CallId)>,
    /// Tenant nodes that were evicted in this step.
    pub(crate) evicted: Vec<Node>,
    /// No engine pauses after this.
    pub(crate) paused_until: At,
    spent_armed: bool,
}

impl Kernel {
    /// A kernel with this plan and nothing to do.
    #[must_use]
    pub fn new(now: At, plan: Plan) -> Self {
        let mut kernel = Self {
            now,
            queue: plan.queue,
            retry: plan.retry,
            guard_rule: plan.guard,
            guard: Guard::default(),
            kin: Kin::default(),
            halts: Halts::default(),
            trees: Trees::default(),
            class_share: plan.class_share,
            models: BTreeMap::new(),
            calls: Slab::default(),
            index: BTreeMap::new(),
            engines: Slab::default(),
            engine_ids: BTreeMap::new(),
            replica_homes: BTreeMap::new(),
            tenants: Tenants::new(&[]),
            flows: Flows::default(),
            accounts: Accounts::default(),
            sketches: Sketches::default(),
            timers: Timers::default(),
            rng: Rng::seed(plan.retry.seed),
            draining: false,
            dirty: Vec::new(),
            unarmed: Vec::new(),
            evicted: Vec::new(),
            paused_until: At(0),
            spent_armed: false,
        };
        kernel.configure(plan, &mut Vec::new());
        kernel.pump_all(&mut Vec::new());
        kernel
    }

    /// Takes one input and appends what is to be done. Inputs may come in any order: one
    /// about a call that is already over is ignored, and a `now` before the last one
    /// counts as the last one.
    pub fn step(&mut self, now: At, input: Input, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        // A new call meets the state as time has made it. News of known calls comes before
        // the alarms: what a client has left, or what was said of an attempt that is over,
        // must not meet a call that an alarm dispatches in this very step (I8).
        let is_news = !matches!(input, Input::Submit(_) | Input::Configure(_));
        if !is_news {
            self.ring(out);
        }
        self.take(input, out);
        if is_news {
            self.ring(out);
        }
        self.pump_all(out);
        while self.wake_held(out) {
            self.pump_all(out);
        }
        self.arm_waiting();
        self.tell_spending(out);
    }

    fn take(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Configure(plan) => self.configure(*plan, out),
            Input::Submit(submit) => self.submit(submit, out),
            Input::FirstToken { call } => self.first_token(call),
            Input::Progress { call, output, waited } => self.progress(call, output, waited),
            Input::Failed { call, failure, client_began, usage } => {
                self.failed(call, failure, client_began, &usage, out);
            }
            Input::Finished { call, usage, finish } => self.finished(call, &usage, finish, out),
            Input::Rate { replica, call, report } => self.rate(replica, call, report, out),
            Input::Probed { replica, healthy } => self.probed(replica, healthy, out),
            Input::Drawn { account, window, ceiling } => self.drawn(&account, window, ceiling),
            Input::Restored { account, window, spent } => {
                self.accounts.restore(&account, window, spent, self.now);
            }
            Input::Cancelled { call, usage } => self.cancelled(call, &usage, out),
            Input::Below { run, parent } => self.kin.learn(run, parent),
            Input::Bound { run, tenant, name, budget } => self.trees.bound(run, &tenant, &name, &budget),
            Input::Stop { run } => self.stop(run, out),
            Input::Resume { run } => self.resume_run(run),
            Input::Tick => {}
            Input::Drain => self.draining = true,
        }
    }

    /// When the next [`Input::Tick`] is due, if time alone will change anything.
    #[must_use]
    pub fn wake_at(&self) -> Option<At> {
        self.timers.next()
    }

    /// Is no call known?
    #[must_use]
    pub fn idle(&self) -> bool {
        self.index.is_empty()
    }

    /// Everything whose time has come.
    fn ring(&mut self, out: &mut Vec<Effect>) {
        while let Some(alarm) = self.timers.pop(self.now) {
            match alarm {
                Alarm::Circuit(engine, replica) => self.half_open(engine, replica, out),
                Alarm::Engine(id) => {
                    if let Some(at) = self.engine_ids.get(&id).copied() {
                        self.engines[at].alarm = None;
                        self.mark(at);
                    }
                }
                Alarm::Down(id) => self.give_up_on(id, out),
                Alarm::Node(at, serial) => {
                    if self.tenants.nodes.get(at).is_some_and(|node| node.serial == serial) {
                        self.tenants.nodes[at].alarm = None;
                        self.regate(at);
                    }
                }
                Alarm::Account(serial) => {
                    if let Some(account) = self.accounts.get_mut(serial) {
                        account.roll(self.now);
                    }
                    self.unhold(serial);
                }
                Alarm::Retry(id) => self.resume(id, out),
                Alarm::Call(id) => {
                    // Room that came about in the meantime is given out first.
                    self.pump_all(out);
                    self.expire(id, out);
                }
                Alarm::Spent => {
                    self.spent_armed = false;
                    self.tell_all(out);
                }
            }
        }
    }

    /// Notes that an engine may have work to give out.
    pub(crate) fn mark(&mut self, engine: u32) {
        if let Some(state) = self.engines.get_mut(engine)
            && !std::mem::replace(&mut state.dirty, true)
        {
            self.dirty.push(engine);
        }
    }

    /// Gives every call that was queued in this step and still waits its alarm. Most
    /// calls are dispatched at once and never need one.
    fn arm_waiting(&mut self) {
        while let Some((at, id)) = self.unarmed.pop() {
            if self.calls.get(at).is_some_and(|call| call.submit.call == id) {
                self.count_in(at);
            }
            let Some(call) = self.calls.get_mut(at).filter(|call| call.submit.call == id) else {
                continue;
            };
            let State::Queued(queued) = &mut call.state else {
                continue;
            };
            if queued.armed.is_some() {
                continue;
            }
            let mut due = queued.expires.min(At(queued.latest.0.saturating_add(1)));
            if self.engines[queued.engine].is_down() {
                due = due.min(queued.since.plus(DOWN_WAIT_MS));
            }
            queued.armed = Some(due);
            self.timers.arm(due, Alarm::Call(id));
        }
    }

    fn tell_spending(&mut self, out: &mut Vec<Effect>) {
        if self.accounts.untold.is_empty() {
            return;
        }
        if self.draining && self.idle() {
            self.tell_all(out);
        } else if !self.spent_armed {
            self.spent_armed = true;
            self.timers.arm(self.now.plus(SPENT_MS), Alarm::Spent);
        }
    }

    fn tell_all(&mut self, out: &mut Vec<Effect>) {
        while let Some((account, window, spent)) = self.accounts.tell() {
            out.push(Effect::Spent { account, window, spent });
        }
    }

    fn half_open(&mut self, engine: EngineId, replica: ReplicaId, out: &mut Vec<Effect>) {
        let Some(at) = self.engine_ids.get(&engine).copied() else {
            return;
        };
        let Some(place) = self.engines[at].find(replica) else {
            return;
        };
        let state = &mut self.engines[at].replicas[place];
        if !state.gone && state.breaker.expire(self.now) {
            out.push(Effect::Probe { replica });
            self.mark(at);
        }
    }

    fn rate(&mut self, replica: ReplicaId, call: CallId, report: RateReport, out: &mut Vec<Effect>) {
        let Some(at) = self.replica_homes.get(&replica).copied() else {
            return;
        };
        let wanted = self.wanted(at);
        let spent = report.calls_left == Some(0) || report.tokens_left.is_some_and(|left| left < wanted);
        if spent {
            // Of a call that is over nobody knows what it was for.
            let upstream = self.index.get(&call).and_then(|at| self.calls[*at].upstream());
            self.pause(at, replica, upstream, report.reset, out);
        }
    }

    /// Tokens that the call at the head of an engine's queue is expected to take.
    fn wanted(&self, engine: u32) -> u64 {
        let state = &self.engines[engine];
        let heads =
            state.roots.iter().filter_map(|root| self.flows.next(*root, At(0), &self.calls, &state.runs));
        heads.map(|(_, at)| self.calls[at].prompt() + self.calls[at].expected).min().unwrap_or(1)
    }

    /// No more calls to this replica, for this model or at all, for as long as its provider
    /// says.
    pub(crate) fn pause(
        &mut self,
        engine: u32,
        replica: ReplicaId,
        upstream: Upstream,
        pause: Option<Millis>,
        out: &mut Vec<Effect>,
    ) {
        let (now, state) = (self.now, &mut self.engines[engine]);
        let Some(place) = state.find(replica) else { return };
        let was_paused = state.paused(upstream, now).is_some();
        let pauses = &mut state.replicas[place].pauses;
        pauses.add(upstream, now.plus(pause_of(pause)), now);
        let until = pauses.until(upstream);
        self.paused_until = self.paused_until.max(until);
        let paused = state.paused(upstream, now).is_some();
        self.wake_engine(engine, until);
        self.mark(engine);
        if paused && !was_paused {
            self.spill(engine, upstream, out);
        }
    }

    /// Pumps the engine again at that time.
    pub(crate) fn wake_engine(&mut self, engine: u32, at: At) {
        let state = &mut self.engines[engine];
        if state.alarm.is_none_or(|armed| at < armed) {
            if let Some(old) = state.alarm.replace(at) {
                self.timers.disarm(old, Alarm::Engine(state.id));
            }
            self.timers.arm(at, Alarm::Engine(state.id));
        }
    }

    fn probed(&mut self, replica: ReplicaId, healthy: bool, out: &mut Vec<Effect>) {
        let Some(at) = self.replica_homes.get(&replica).copied() else {
            return;
        };
        if healthy {
            self.replica_succeeded(at, replica, true);
        } else {
            self.replica_failed(at, replica, 1, out);
        }
    }

    /// A replica answered. A probe's answer closes a half-open circuit but does not
    /// excuse failures of real calls.
    pub(crate) fn replica_succeeded(&mut self, engine: u32, replica: ReplicaId, probe: bool) {
        let now = self.now;
        let state = &mut self.engines[engine];
        let Some(place) = state.find(replica) else { return };
        let breaker = &mut state.replicas[place].breaker;
        let half_open = breaker.state() == crate::view::Circuit::HalfOpen;
        if half_open || !probe {
            breaker.succeeded();
        }
        if half_open {
            state.judge(now);
            self.mark(engine);
        }
    }

    /// A replica failed; if that opens the last closed circuit of its engine, those who
    /// can go elsewhere do.
    pub(crate) fn replica_failed(
        &mut self,
        engine: u32,
        replica: ReplicaId,
        weight: u32,
        out: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let state = &mut self.engines[engine];
        let Some(place) = state.find(replica) else { return };
        let failing = &mut state.replicas[place];
        if failing.gone || !failing.breaker.failed(weight, &self.retry, now) {
            return;
        }
        // Whatever made it fail has probably cost it its cache too.
        failing.prefixes.clear();
        let until = failing.breaker.open_until().expect("it has just opened");
        self.timers.arm(until, Alarm::Circuit(state.id, replica));
        if state.judge(now) {
            self.timers.arm(now.plus(DOWN_WAIT_MS), Alarm::Down(state.id));
            self.move_away(engine, out);
        }
        self.mark(engine);
    }

    /// Recomputes what blocks a tenant node, and puts its flows in or out accordingly.
    pub(crate) fn regate(&mut self, at: u32) {
        let node = &mut self.tenants.nodes[at];
        let (cause, until) = node.gate(self.now);
        if node.alarm != until {
            let serial = node.serial;
            if let Some(old) = std::mem::replace(&mut node.alarm, until) {
                self.timers.disarm(old, Alarm::Node(at, serial));
            }
            if let Some(until) = until {
                self.timers.arm(until, Alarm::Node(at, serial));
            }
        }
        if node.blocked == cause {
            return;
        }
        node.block(cause, self.now);
        for at_flow in 0..self.tenants.nodes[at].flows.len() {
            let (slot, flow) = self.tenants.nodes[at].flows[at_flow];
            self.flows.refresh(flow, &self.tenants);
            if cause.is_none() {
                self.mark(slot / 3);
            }
        }
    }

    /// Lets the tenant node that waits for an account try again.
    pub(crate) fn unhold(&mut self, account: u64) {
        let held = self.accounts.get_mut(account).and_then(|account| account.held.take());
        if let Some(at) = held
            && let Some(node) = self.tenants.nodes.get_mut(at)
        {
            node.held = false;
            self.regate(at);
        }
    }

    fn drawn(&mut self, account: &str, window: At, ceiling: u64) {
        let Some(serial) = self.accounts.find(account) else {
            return;
        };
        let now = self.now;
        let ours = self.accounts.get_mut(serial).is_some_and(|account| {
            account.roll(now);
            account.drawn(window, ceiling)
        });
        if ours {
            self.unhold(serial);
        }
    }
}

/// How long a provider's pause is taken to be.
pub(crate) fn pause_of(asked: Option<Millis>) -> Millis {
    asked.unwrap_or(PAUSE_MS).min(PAUSE_MAX_MS)
}
