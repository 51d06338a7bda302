//! Those who wait: what their waiting is put down to, and what ends it other than being
//! served: time, an engine that is gone, a retry's pause that is over.

use std::sync::Arc;

use seawall_model::{At, CallId, Cause, Code, EngineId, Waits};

use crate::admit::{No, RETRY_AFTER_MIN};
use crate::call::{Queued, State, Upstream};
use crate::effect::Effect;
use crate::kernel::{DOWN_WAIT_MS, Kernel};
use crate::tenant::Tenants;
use crate::timer::Alarm;

impl Kernel {
    /// Takes a call out of its queue and books its waiting. It is then nowhere.
    pub(crate) fn leave_queue(&mut self, at: u32) -> Option<Queued> {
        let State::Queued(queued) = self.calls[at].state else {
            return None;
        };
        let now = self.now;
        let state = &mut self.engines[queued.engine];
        self.flows.take(queued.flow, at, &mut self.calls, &mut state.runs, &self.tenants);
        let call = &mut self.calls[at];
        if queued.counted {
            state.crowd.leave(&call.submit.tenant, call.submit.call, call.submit.bytes.0);
        }
        call.state = State::Fresh;
        state.queued[call.class()] -= 1;
        state.queued_bytes = state.queued_bytes.saturating_sub(call.submit.bytes.0);
        if let Some(armed) = queued.armed {
            self.timers.disarm(armed, Alarm::Call(call.submit.call));
        }
        let waited = now.micros_since(queued.since);
        if waited > 0 {
            let clocks = self.tenants.clocks(call.node, now);
            let passed = state.was_passed(queued.seq, call.node);
            attribute(&mut call.waits, waited, &queued, state.clocks(now), clocks, passed);
        }
        let node = call.node;
        for node in self.tenants.chain(node).nodes() {
            self.tenants.nodes[*node].queued -= 1;
        }
        Some(queued)
    }

    /// The call has nothing more to do with its engine's record of runs.
    pub(crate) fn leave_run(&mut self, at: u32, engine: u32) {
        if let Some(run) = self.calls[at].run.take() {
            self.engines[engine].runs.slab[run].live -= 1;
        }
    }

    /// A queued call's alarm rang.
    pub(crate) fn expire(&mut self, id: CallId, out: &mut Vec<Effect>) {
        let Some(at) = self.index.get(&id).copied() else {
            return;
        };
        let State::Queued(queued) = &mut self.calls[at].state else {
            return;
        };
        let (now, engine) = (self.now, queued.engine);
        if queued.armed.is_none_or(|armed| armed > now) {
            return;
        }
        queued.armed = None;
        let state = &self.engines[engine];
        let hung =
            state.is_down() && now >= queued.since.max(state.down_since.unwrap_or(now)).plus(DOWN_WAIT_MS);
        let (late, expired) = (queued.latest < now, queued.expires <= now);
        if !(late || expired || hung) {
            return self.rearm(at, id);
        }
        let after = Some(self.patience(engine));
        self.leave_queue(at);
        self.leave_run(at, engine);
        let main = self.calls[at].waits.main();
        let code = match main {
            _ if late => Code::DeadlineMissed,
            _ if hung => Code::EngineDown,
            // The engine's own rate, unless it is the tenant's.
            Some(Cause::RateLimit) if self.limited_tenant(at).is_none() => Code::EngineRateLimited,
            Some(Cause::RateLimit) => Code::RateLimited,
            Some(Cause::TenantConcurrency) => Code::ConcurrencyLimited,
            Some(Cause::EngineDown) => Code::EngineDown,
            _ => Code::QueueTimeout,
        };
        let what = Some(self.blamed(at, engine));
        self.refuse(at, No { code, retry_after: after, cause: main, what }, out);
    }

    /// The alarm rang for an engine that has come back since: from now on only the
    /// call's own bounds count.
    fn rearm(&mut self, at: u32, id: CallId) {
        let State::Queued(queued) = &mut self.calls[at].state else {
            return;
        };
        let mut due = queued.expires.min(At(queued.latest.0.saturating_add(1)));
        if let Some(since) = self.engines[queued.engine].down_since {
            due = due.min(since.max(queued.since).plus(DOWN_WAIT_MS));
        }
        queued.armed = Some(due);
        self.timers.arm(due, Alarm::Call(id));
    }

    /// The tenant prefix whose limit blocks the call, or else the engine.
    fn blamed(&self, at: u32, engine: u32) -> Arc<str> {
        self.limited_tenant(at).unwrap_or_else(|| Arc::clone(&self.engines[engine].name))
    }

    /// The shortest tenant prefix above the call that is blocked now.
    fn limited_tenant(&self, at: u32) -> Option<Arc<str>> {
        let chain = self.tenants.chain(self.calls[at].node);
        let mut nodes = chain.nodes().iter().rev().map(|node| &self.tenants.nodes[*node]);
        nodes.find(|node| node.blocked.is_some()).map(|node| Arc::clone(&node.path))
    }

    /// All who waited since the engine went down are told so.
    pub(crate) fn give_up_on(&mut self, id: EngineId, out: &mut Vec<Effect>) {
        let Some(engine) = self.engine_ids.get(&id).copied() else {
            return;
        };
        let Some(since) =
            self.engines[engine].down_since.filter(|since| self.now >= since.plus(DOWN_WAIT_MS))
        else {
            return;
        };
        for at in self.waiting_on(engine) {
            if self.calls[at].queued().is_some_and(|queued| queued.since <= since) {
                let after = Some(self.patience(engine));
                self.leave_queue(at);
                self.leave_run(at, engine);
                let what = Some(Arc::clone(&self.engines[engine].name));
                let cause = Some(Cause::EngineDown);
                self.refuse(at, No { code: Code::EngineDown, retry_after: after, cause, what }, out);
            }
        }
    }

    pub(crate) fn waiting_on(&self, engine: u32) -> Vec<u32> {
        if self.engines[engine].waiting() == 0 {
            return Vec::new();
        }
        (0..3).flat_map(|class| self.flows.waiting(engine * 3 + class, &self.calls)).collect()
    }

    /// Moves the calls that wait for a dead engine to their next target, where there is
    /// one. They keep their time of arrival.
    pub(crate) fn move_away(&mut self, engine: u32, out: &mut Vec<Effect>) {
        let gone = self.engines[engine].gone;
        for at in self.waiting_on(engine) {
            let target = self.best_target(at);
            let better = target.filter(|target| {
                let id = self.calls[at].targets[*target].1;
                self.engine_ids
                    .get(&id)
                    .is_some_and(|other| *other != engine && !self.engines[*other].is_down())
            });
            if gone || better.is_some() {
                self.leave_queue(at);
                self.leave_run(at, engine);
                match better.or(target) {
                    Some(target) => self.move_to(at, target, out),
                    None => self.refuse(
                        at,
                        No { retry_after: Some(RETRY_AFTER_MIN), ..No::plain(Code::EngineDown) },
                        out,
                    ),
                }
            }
        }
    }

    /// Every replica of an engine pauses, for one model or for all: those who wait for it
    /// and have another target with room go there at once. The rest wait as they did.
    pub(crate) fn spill(&mut self, engine: u32, upstream: Upstream, out: &mut Vec<Effect>) {
        for at in self.waiting_on(engine) {
            if upstream.is_some() && self.calls[at].upstream() != upstream {
                continue;
            }
            let Some(target) = self.best_target(at) else {
                continue;
            };
            let Some(other) = self.engine_ids.get(&self.calls[at].targets[target].1).copied() else {
                continue;
            };
            let fits = other != engine && self.has_spare(at, target);
            if fits {
                self.leave_queue(at);
                self.leave_run(at, engine);
                self.enqueue_on(at, target, out);
            }
        }
    }

    /// Has a call's target room for it at once?
    pub(crate) fn has_spare(&self, at: u32, target: usize) -> bool {
        let call = &self.calls[at];
        let engine = call.targets.get(target).and_then(|(_, id)| self.engine_ids.get(id)).copied();
        engine.is_some_and(|engine| {
            let state = &self.engines[engine];
            state.has_spare(call.upstreams[target], self.now)
                && self.latest_start(engine, at) >= self.now
                && state.crowd.fits(&call.submit, &self.queue)
        })
    }

    fn move_to(&mut self, at: u32, target: usize, out: &mut Vec<Effect>) {
        let id = self.calls[at].submit.call;
        self.enqueue_on(at, target, out);
        if self.calls.get(at).is_some_and(|call| call.submit.call == id) {
            self.keep_bounds(at, out);
        }
    }

    /// A retry's pause is over.
    pub(crate) fn resume(&mut self, id: CallId, out: &mut Vec<Effect>) {
        let Some(at) = self.index.get(&id).copied() else {
            return;
        };
        if !matches!(self.calls[at].state, State::Paused(pause) if pause.until <= self.now) {
            return;
        }
        self.go_on(at, out);
    }

    /// Queues a call that pauses again, or refuses it.
    pub(crate) fn go_on(&mut self, at: u32, out: &mut Vec<Effect>) {
        let id = self.calls[at].submit.call;
        let counted = self.end_pause(at);
        let target = self.calls[at].target;
        let engine = self.calls[at].targets.get(target).and_then(|(_, id)| self.engine_ids.get(id));
        let well = engine.is_some_and(|engine| {
            let engine = &self.engines[*engine];
            !engine.is_down() && engine.paused(self.calls[at].upstream(), self.now).is_none()
        });
        if well {
            self.enqueue_on(at, target, out);
        } else {
            self.enqueue(at, out);
        }
        // Who counted among those who wait goes on counting, wherever it waits now.
        if counted && self.calls.get(at).is_some_and(|call| call.submit.call == id) {
            self.count_in(at);
        }
    }

    /// Ends a call's pause and books it. Says whether it counted among those who wait.
    pub(crate) fn end_pause(&mut self, at: u32) -> bool {
        let call = &mut self.calls[at];
        let State::Paused(pause) = call.state else {
            return false;
        };
        call.state = State::Fresh;
        call.waits.add(pause.cause, self.now.micros_since(pause.since));
        self.timers.disarm(pause.until, Alarm::Retry(call.submit.call));
        self.tenants.nodes[call.node].aside -= 1;
        if pause.cause == Cause::Budget {
            self.trees.unhold(call.submit.call, &call.parts);
        }
        if let Some(engine) = pause.counted {
            let crowd = &mut self.engines[engine].crowd;
            crowd.leave(&call.submit.tenant, call.submit.call, call.submit.bytes.0);
            self.mark(engine);
            self.call_back(at);
        }
        pause.counted.is_some()
    }

    /// Takes a call from wherever it waits. It is then nowhere.
    pub(crate) fn withdraw(&mut self, at: u32) {
        match self.leave_queue(at) {
            Some(queued) => self.leave_run(at, queued.engine),
            None => {
                self.end_pause(at);
            }
        }
    }
}

/// Splits a wait by cause, exactly: each blocked clock's advance in turn, as far as the
/// wait goes (they may overlap), and what is left to the order of service.
fn attribute(
    waits: &mut Waits,
    waited: u64,
    queued: &Queued,
    engine: [u64; 2],
    tenant: [u64; 3],
    passed: bool,
) {
    let mut left = waited;
    let mut take = |cause: Cause, micros: u64| {
        let part = micros.min(left);
        left -= part;
        waits.add(cause, part);
    };
    take(Cause::EngineDown, engine[0].saturating_sub(queued.engine_clocks[0]));
    for (at, cause) in Tenants::causes().into_iter().enumerate() {
        take(cause, tenant[at].saturating_sub(queued.tenant_clocks[at]));
    }
    take(Cause::RateLimit, engine[1].saturating_sub(queued.engine_clocks[1]));
    take(if passed { Cause::TenantShare } else { Cause::EngineFull }, u64::MAX);
}
