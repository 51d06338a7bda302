//! Who goes next, and with what: from an engine with room to the call that fair order
//! names, through budgets and placement, to its dispatch.

use std::sync::Arc;

use seawall_model::{At, Cause, Class, Code, Millis, Tokens, Waits};

use crate::admit::No;
use crate::budget::{Reservation, Room, need};
use crate::call::{Pause, Running, State, cost};
use crate::effect::{Effect, Grant};
use crate::engine::Gate;
use crate::flow::Terms;
use crate::headroom::epoch;
use crate::kernel::Kernel;
use crate::place::{Place, place};
use crate::plan::Meter;
use crate::purse::Purses;
use crate::retry::pause;
use crate::tenant::Node;
use crate::timer::Alarm;

/// Replicas beyond which an engine-wide index of prefixes is kept.
const HOMES_FROM: usize = 16;

/// What fair order chose.
#[derive(Clone, Copy, Debug)]
struct Choice {
    engine: u32,
    flow: u32,
    at: u32,
    class: usize,
    by_share: bool,
    ready: [bool; 3],
}

/// The outcome of reserving budgets.
enum Reserved {
    Yes,
    /// The tenant node waits; others may go.
    Held,
    /// This account will not do in this window.
    Never(u64),
    /// Others of the call's tree of runs must settle first.
    Crowded(u32),
    /// Its tree has too little left.
    TreeSpent(u32, Meter),
}

impl Kernel {
    /// Gives out what room there is, on every engine where something changed.
    pub(crate) fn pump_all(&mut self, out: &mut Vec<Effect>) {
        while let Some(engine) = self.dirty.pop() {
            let Some(state) = self.engines.get_mut(engine) else {
                continue;
            };
            state.dirty = false;
            while self.pump(engine, out) {}
            self.pull_over(engine, out);
            self.retire(engine);
        }
    }

    /// Deals with the one call that goes next on an engine. False when none can.
    fn pump(&mut self, engine: u32, out: &mut Vec<Effect>) -> bool {
        let now = self.now;
        let state = &mut self.engines[engine];
        if state.waiting() == 0 {
            return false;
        }
        let gate = state.gate(now);
        state.note(gate.cause(), now);
        match gate {
            Gate::Open | Gate::Trial => {}
            Gate::Rate(until) => {
                self.wake_engine(engine, until);
                return false;
            }
            Gate::Down | Gate::Full => return false,
        }
        let ready = state.roots.map(|root| self.flows.ready(root));
        let Some((class, by_share)) = state.choose_class(ready) else {
            return false;
        };
        if !by_share && state.holds_back(now) {
            return match self.choose_light(engine, class, ready) {
                Some(choice) => self.offer(choice, out),
                None => false,
            };
        }
        let aged = self.aged();
        let state = &self.engines[engine];
        let root = state.roots[class];
        let Some((flow, at)) = self.flows.next(root, aged, &self.calls, &state.runs) else {
            return false;
        };
        self.offer(Choice { engine, flow, at, class, by_share, ready }, out)
    }

    fn aged(&self) -> At {
        At(self.now.0.saturating_sub(self.queue.ageing_ms.micros()))
    }

    /// Who may have one of the places that are kept: a tenant below its share. Nobody waits
    /// for batch work, so nothing is kept for it; and no class has them before a higher one
    /// that waits, which would get less than its own share for it.
    fn choose_light(&self, engine: u32, class: usize, ready: [bool; 3]) -> Option<Choice> {
        if class == Class::Batch as usize {
            return None;
        }
        let (state, places) = (&self.engines[engine], self.class_places(engine, class));
        let terms = Terms { places, epoch: epoch(self.now), ahead: state.dearest };
        let world = (&self.calls, &state.runs, &self.tenants);
        let (flow, at) = self.flows.next_light(state.roots[class], &terms, self.aged(), world)?;
        Some(Choice { engine, flow, at, class, by_share: false, ready })
    }

    /// A class's part of an engine's places, in 256ths, by the weights of the tenants that
    /// were active in each of late: a tenant is not light in one class for flooding another.
    pub(crate) fn class_places(&self, engine: u32, class: usize) -> u64 {
        let (state, epoch) = (&self.engines[engine], epoch(self.now));
        let weights = state.roots.map(|root| self.flows.weight_lately(root, epoch));
        let all: u64 = weights.iter().sum();
        u64::from(state.places) * 256 * weights[class].max(1) / all.max(1)
    }

    /// Offers the engine's room to the chosen call. False if it cannot be placed, and
    /// then nobody goes before it: passing it by would starve large calls.
    fn offer(&mut self, choice: Choice, out: &mut Vec<Effect>) -> bool {
        let Choice { engine, at, .. } = choice;
        let now = self.now;
        let call = &self.calls[at];
        if call.queued().is_some_and(|queued| queued.latest < now) {
            let after = Some(self.patience(engine));
            self.drop_queued(choice, No { retry_after: after, ..No::plain(Code::DeadlineMissed) }, out);
            return true;
        }
        let (replica, uncached) = match place(&self.engines[engine], call, &mut self.rng, now) {
            Place::On(replica, uncached) => (replica, uncached),
            Place::Nowhere => {
                self.engines[engine].note(Some(Cause::EngineFull), now);
                return false;
            }
            Place::Silent(until) => {
                self.park(choice, until, out);
                return true;
            }
            Place::OnlyFailed if call.queued().is_none_or(|queued| queued.expires <= now) => {
                // It may not wait for another: better the same again than none.
                self.calls[at].failed = None;
                return true;
            }
            Place::OnlyFailed => {
                self.leave_queue(at);
                self.leave_run(at, engine);
                self.pause_call(at);
                return true;
            }
        };
        match self.reserve(at, out) {
            Reserved::Yes => self.dispatch(choice, replica, uncached, out),
            Reserved::Held => {}
            Reserved::Crowded(purse) => self.hold_for_tree(at, purse, out),
            Reserved::TreeSpent(purse, meter) => {
                let no = self.tree_spent(purse, meter);
                self.drop_queued(choice, no, out);
            }
            Reserved::Never(account) => {
                let no = self.spent_out(account);
                self.drop_queued(choice, no, out);
            }
        }
        true
    }

    fn drop_queued(&mut self, choice: Choice, no: No, out: &mut Vec<Effect>) {
        self.leave_queue(choice.at);
        self.leave_run(choice.at, choice.engine);
        let cause = self.calls[choice.at].waits.main();
        self.refuse(choice.at, No { cause, ..no }, out);
    }

    /// Lets a call that is nowhere pause before it is tried again.
    pub(crate) fn pause_call(&mut self, at: u32) {
        let pause = pause(&self.retry, self.calls[at].attempts + 1, &mut self.rng);
        // At least a millisecond: with nothing changed, trying again at once is a loop.
        let until = self.now.plus(pause.max(Millis(1)));
        self.set_aside(at, Pause { since: self.now, until, cause: Cause::EngineDown, counted: None });
    }

    pub(crate) fn set_aside(&mut self, at: u32, pause: Pause) {
        let call = &mut self.calls[at];
        call.state = State::Paused(pause);
        self.tenants.nodes[call.node].aside += 1;
        self.timers.arm(pause.until, Alarm::Retry(call.submit.call));
    }

    /// Sets a waiting call aside while its provider wants none for its model, so that it
    /// does not stand before calls for others. It goes on counting among those who wait.
    fn park(&mut self, choice: Choice, until: At, out: &mut Vec<Effect>) {
        let Choice { engine, at, .. } = choice;
        let Some(queued) = self.calls[at].queued().copied() else {
            return;
        };
        if queued.expires <= self.now {
            let what = Some(Arc::clone(&self.engines[engine].name));
            let retry_after = Some(Millis(until.micros_since(self.now).div_ceil(1_000)));
            let no = No { retry_after, what, ..No::plain(Code::EngineRateLimited) };
            return self.drop_queued(choice, no, out);
        }
        let better = self.best_target(at).filter(|target| *target != self.calls[at].target);
        self.withdraw(at);
        if let Some(target) = better.filter(|target| self.has_spare(at, *target)) {
            return self.enqueue_on(at, target, out);
        }
        let until = until.min(queued.expires).min(At(queued.latest.0.saturating_add(1)));
        let call = &self.calls[at];
        let crowd = &mut self.engines[engine].crowd;
        crowd.join(&call.submit.tenant, call.submit.call, call.submit.bytes.0);
        let pause = Pause { since: self.now, until, cause: Cause::RateLimit, counted: Some(engine) };
        self.set_aside(at, pause);
        self.offer_around(at);
    }

    /// Reserves what the call may use at most on every account of its path, or nothing.
    fn reserve(&mut self, at: u32, out: &mut Vec<Effect>) -> Reserved {
        match self.tree_room(at) {
            Purses::Fit => {}
            Purses::Wait(purse) => return Reserved::Crowded(purse),
            Purses::Never(purse, meter) => return Reserved::TreeSpent(purse, meter),
        }
        let (now, leaf) = (self.now, self.calls[at].node);
        let chain = self.tenants.chain(leaf);
        let mut hold = None;
        for node in chain.nodes() {
            for place in 0..self.tenants.nodes[*node].accounts.len() {
                let Some(serial) = self.account(*node, place) else {
                    // No room for the account itself: fail closed.
                    return Reserved::Never(0);
                };
                let need = self.need(at, serial);
                let Some(account) = self.accounts.get_mut(serial) else {
                    continue;
                };
                account.roll(now);
                match account.room(need) {
                    Room::Fits => continue,
                    Room::Exhausted => return Reserved::Never(serial),
                    Room::Wait => {}
                    Room::Draw => {
                        if let Some(ceiling) = account.ask(need) {
                            out.push(Effect::Draw {
                                account: account.name.clone(),
                                window: account.start,
                                ceiling,
                            });
                        }
                    }
                }
                hold = hold.or(Some((*node, serial)));
            }
        }
        if let Some((node, serial)) = hold {
            self.hold(node, serial);
            return Reserved::Held;
        }
        for node in chain.nodes() {
            for place in 0..self.tenants.nodes[*node].accounts.len() {
                let (_, serial) = self.tenants.nodes[*node].accounts[place];
                self.book(at, serial, out);
            }
        }
        self.book_trees(at);
        Reserved::Yes
    }

    /// The account at one place of a node, opened again if it was forgotten meanwhile.
    fn account(&mut self, node: u32, place: usize) -> Option<u64> {
        let (rule, serial) = self.tenants.nodes[node].accounts[place];
        if self.accounts.get(serial).is_some() {
            return Some(serial);
        }
        let Node { path, general, .. } = &self.tenants.nodes[node];
        let serial = self.accounts.open(path, &rule, *general, self.now)?;
        self.tenants.nodes[node].accounts[place].1 = serial;
        Some(serial)
    }

    fn need(&self, at: u32, serial: u64) -> u64 {
        let call = &self.calls[at];
        let Some(account) = self.accounts.get(serial) else {
            return 0;
        };
        let first = call.attempts == 0;
        if account.meter == Meter::Calls && !first {
            // It was counted with its first attempt.
            return 0;
        }
        need(account.meter, &call.price, Tokens(call.prompt_max()), Tokens(call.output_max))
    }

    fn hold(&mut self, node: u32, serial: u64) {
        self.tenants.nodes[node].held = true;
        if let Some(account) = self.accounts.get_mut(serial) {
            account.held = Some(node);
            self.timers.arm(account.end, Alarm::Account(serial));
        }
        self.regate(node);
    }

    fn book(&mut self, at: u32, serial: u64, out: &mut Vec<Effect>) {
        let amount = self.need(at, serial);
        let Some(account) = self.accounts.get_mut(serial) else {
            return;
        };
        account.reserved += amount;
        assert!(
            account.spent + account.reserved <= account.limit,
            "I12: {} never has more spent and reserved than its limit when a call is dispatched",
            account.name
        );
        if let Some(ceiling) = account.ask_early() {
            out.push(Effect::Draw { account: account.name.clone(), window: account.start, ceiling });
        }
        let reservation = Reservation { account: serial, window: account.start, amount };
        self.calls[at].reservations.push(reservation);
    }

    fn dispatch(&mut self, choice: Choice, replica: usize, uncached: u64, out: &mut Vec<Effect>) {
        let Choice { engine, flow, at, class, by_share, ready } = choice;
        let (now, before) = (self.now, self.calls[at].waits);
        let Some(queued) = self.leave_queue(at) else {
            return;
        };
        let state = &mut self.engines[engine];
        let call = &mut self.calls[at];
        let waited = room_wait(&call.waits) - room_wait(&before);
        call.attempts += 1;
        call.reserved_output = Tokens(call.output_max);
        let (id, node, prompt, expected) = (call.submit.call, call.node, call.prompt(), call.expected);
        let charged = cost(state.weights(), prompt, prompt - uncached, expected);
        let rated = prompt + expected;
        if call.attempts == 1 {
            state.allowance.first(&self.retry);
        }
        state.share(class, charged, by_share, ready, self.class_share);
        state.pass(queued.seq, node, waited, now);
        for (bucket, amount) in [(&mut state.calls, 1), (&mut state.tokens, rated)] {
            if let Some(bucket) = bucket {
                bucket.take(amount as i64, now);
            }
        }
        state.running += 1;
        state.chosen += 1;
        if state.replicas.len() > HOMES_FROM {
            state.homes.insert(&call.submit.prefix, state.replicas[replica].id.0);
        }
        let chosen = &mut state.replicas[replica];
        let (load, kv) = (uncached + expected, prompt + call.likely);
        chosen.begin(&call.submit, uncached, load, kv);
        chosen.chosen = state.chosen;
        let replica = chosen.id;
        call.last = Some((state.id, replica));
        call.state = State::Running(Running {
            engine,
            replica,
            since: now,
            first: None,
            heard: (now, 0),
            held_up: false,
            sampled: false,
            uncached,
            load,
            kv,
            charged,
            charged_output: expected,
            rated,
            by_share,
        });
        out.push(Effect::Dispatch(Grant {
            call: id,
            attempt: call.attempts,
            engine: state.id,
            replica,
            target: call.targets[call.target].0,
            waits: call.waits,
            repeats: call.repeats,
        }));
        if let Some(run) = call.run {
            state.runs.slab[run].replica = Some(replica);
            self.flows.serve_run(run, charged, &self.calls, &mut state.runs);
        }
        state.dearest = charged.max(state.dearest - state.dearest / 256);
        self.flows.see(flow, epoch(now), &self.tenants);
        self.flows.ran(flow, true);
        self.flows.charge(flow, charged, true, &self.tenants);
        self.charge_tenants(node, 1, charged, rated as i64);
    }

    /// Books a call's beginning (1) or end (-1) to every node of its path, with a change
    /// of cost served and of tokens taken from its rates.
    pub(crate) fn charge_tenants(&mut self, leaf: u32, calls: i32, tenths: i64, tokens: i64) {
        let now = self.now;
        for at in self.tenants.chain(leaf).nodes() {
            let node = &mut self.tenants.nodes[*at];
            node.running = node.running.saturating_add_signed(calls);
            node.served = node.served.saturating_add(tenths);
            if !node.limited() {
                continue;
            }
            if let Some(bucket) = &mut node.calls
                && calls > 0
            {
                bucket.take(1, now);
            }
            if let Some(bucket) = &mut node.tokens {
                bucket.take(tokens, now);
            }
            self.regate(*at);
        }
    }
}

/// Time waited for room on the engine, for its own limits or behind others.
fn room_wait(waits: &Waits) -> u64 {
    waits.of(Cause::EngineFull) + waits.of(Cause::TenantShare)
}
