//! In and out of the queues: what a call must pass to wait at all, which engine it
//! waits for, and what its waiting is put down to.

use std::sync::Arc;

use seawall_model::{At, CallId, Cause, Code, MicroUsd, Millis, Outcome, Tokens, Usage, Waits, limits};

use crate::budget::{Room, need};
use crate::call::{Call, Link, Queued, State, TOKENS_MAX};
use crate::effect::{Effect, Refusal, Settlement};
use crate::input::Submit;
use crate::kernel::{DOWN_WAIT_MS, Kernel};
use crate::plan::Model;
use crate::tenant::Tenants;
use crate::timer::Alarm;

/// Output expected of a model that has not answered yet.
const OUTPUT_GUESS: u64 = 256;
/// Bounds of the time after which a refused client should come back.
const RETRY_AFTER_MIN: Millis = Millis(1_000);
const RETRY_AFTER_MAX: Millis = Millis(60_000);

/// Why a call is turned away.
#[derive(Clone, Debug)]
pub(crate) struct No {
    pub(crate) code: Code,
    pub(crate) retry_after: Option<Millis>,
    pub(crate) cause: Option<Cause>,
    pub(crate) what: Option<Arc<str>>,
}

impl No {
    pub(crate) fn plain(code: Code) -> Self {
        Self {
            code,
            retry_after: None,
            cause: None,
            what: None,
        }
    }
}

impl Kernel {
    /// A client asks.
    pub(crate) fn submit(&mut self, submit: Box<Submit>, out: &mut Vec<Effect>) {
        let id = submit.call;
        if self.index.contains_key(&id) {
            return;
        }
        let call = match self.judge(submit) {
            Ok(call) => call,
            Err(no) => return turn_away(id, no, out),
        };
        let at = self.calls.insert(call);
        self.index.insert(id, at);
        self.enqueue(at, out);
        self.pump_all(out);
        // Only what really has to wait counts against the bounds of waiting.
        if self.calls.get(at).is_some_and(|call| call.submit.call == id)
            && let Some(queued) = self.calls[at].queued()
            && let Some(no) = self.overfull(queued.engine, at, 0)
        {
            self.leave_queue(at);
            self.refuse(at, no, out);
        }
    }

    /// May the call wait, as far as can be told now?
    fn judge(&mut self, submit: Box<Submit>) -> Result<Call, No> {
        if self.draining {
            return Err(No::plain(Code::Draining));
        }
        let Some(model) = self.models.get(&submit.model) else {
            return Err(No::plain(Code::ModelUnknown));
        };
        let longest = submit.prompt + submit.output_max.unwrap_or(Tokens(u64::from(submit.generates)));
        if model.context_tokens_max.is_some_and(|max| longest > max) {
            return Err(No::plain(Code::ContextTooLong));
        }
        if self.calls.len() >= limits::CALLS_MAX {
            return Err(No {
                retry_after: Some(RETRY_AFTER_MIN),
                ..No::plain(Code::QueueFull)
            });
        }
        let mut call = fresh(submit, model, self.now);
        let tenant = call.submit.tenant.clone();
        let leaf = self
            .tenants
            .leaf(&tenant, &mut self.accounts, self.now, &mut self.evicted);
        while let Some(node) = self.evicted.pop() {
            self.flows.forget(&node);
        }
        let Some(leaf) = leaf else {
            return Err(No {
                retry_after: Some(RETRY_AFTER_MIN),
                ..No::plain(Code::QueueFull)
            });
        };
        call.node = leaf;
        self.predict(&mut call);
        if let Some(no) = self.exhausted(&call) {
            return Err(no);
        }
        Ok(call)
    }

    fn predict(&mut self, call: &mut Call) {
        if !call.submit.generates {
            return;
        }
        let serial = self.tenants.nodes[call.node].serial;
        let (median, high) = self
            .sketches
            .predict(serial, call.submit.model)
            .unwrap_or((OUTPUT_GUESS, OUTPUT_GUESS));
        call.expected = median.min(call.output_max);
        call.likely = high.min(call.output_max);
    }

    /// Is a budget spent so far that the call can never run in this window?
    fn exhausted(&mut self, call: &Call) -> Option<No> {
        for node in self.tenants.chain(call.node).nodes() {
            for at in 0..self.tenants.nodes[*node].accounts.len() {
                let (_, serial) = self.tenants.nodes[*node].accounts[at];
                let Some(account) = self.accounts.get_mut(serial) else {
                    continue;
                };
                account.roll(self.now);
                let need = need(
                    account.meter,
                    &call.price,
                    Tokens(call.prompt()),
                    Tokens(call.output_max),
                );
                if account.room(need) == Room::Exhausted {
                    return Some(self.spent_out(serial));
                }
            }
        }
        None
    }

    /// The refusal for an exhausted account.
    pub(crate) fn spent_out(&self, serial: u64) -> No {
        let account = self.accounts.get(serial);
        let end = account.map(|account| account.end).filter(|end| *end < At::MAX);
        let left = end.map(|end| Millis(end.micros_since(self.now).div_ceil(1_000)));
        No {
            retry_after: left,
            what: account.map(|account| Arc::clone(&account.name)),
            ..No::plain(Code::BudgetExhausted)
        }
    }

    /// Is there no room in the queue of this engine for `more` calls like this one?
    fn overfull(&self, engine: u32, at: u32, more: usize) -> Option<No> {
        let (state, call) = (&self.engines[engine], &self.calls[at]);
        let after = Some(self.patience(engine));
        let bytes = if more > 0 {
            state.queued_bytes.saturating_add(call.submit.bytes.0)
        } else {
            state.queued_bytes
        };
        if state.waiting() + more > self.queue.len_max || bytes > self.queue.bytes_max.0 {
            return Some(No {
                retry_after: after,
                what: Some(Arc::clone(&state.name)),
                ..No::plain(Code::QueueFull)
            });
        }
        let node = &self.tenants.nodes[call.node];
        let flows = (0..3).filter_map(|class| node.flow(engine * 3 + class));
        let own: usize = flows.map(|flow| self.flows.get(flow).queued).sum();
        (own + more > self.queue.tenant_len_max).then(|| No {
            retry_after: after,
            what: Some(Arc::clone(&node.path)),
            ..No::plain(Code::TenantQueueFull)
        })
    }

    /// When a client that is refused because of this engine's queue should come back.
    pub(crate) fn patience(&self, engine: u32) -> Millis {
        let state = &self.engines[engine];
        state
            .lasts(state.waiting())
            .unwrap_or(RETRY_AFTER_MIN)
            .clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    /// The target to wait for: the first that is not down, else the first at all.
    pub(crate) fn best_target(&self, at: u32) -> Option<usize> {
        let call = &self.calls[at];
        let mut fallback = None;
        for (target, (_, id)) in call.targets.iter().enumerate() {
            let Some(engine) = self.engine_ids.get(id) else {
                continue;
            };
            let engine = &self.engines[*engine];
            if call.barred & (1 << target) != 0
                || engine.gone
                || engine.replicas.iter().all(|replica| replica.gone)
            {
                continue;
            }
            if !engine.is_down() {
                return Some(target);
            }
            fallback = fallback.or(Some(target));
        }
        fallback
    }

    /// Queues a call that is in no queue at its best target, or refuses it.
    pub(crate) fn enqueue(&mut self, at: u32, out: &mut Vec<Effect>) {
        match self.best_target(at) {
            Some(target) => self.enqueue_on(at, target, out),
            None => self.refuse(
                at,
                No {
                    retry_after: Some(RETRY_AFTER_MIN),
                    ..No::plain(Code::EngineDown)
                },
                out,
            ),
        }
    }

    pub(crate) fn enqueue_on(&mut self, at: u32, target: usize, out: &mut Vec<Effect>) {
        let engine = self.engine_ids[&self.calls[at].targets[target].1];
        let now = self.now;
        let latest = self.latest_start(engine, at);
        if latest < now || self.hopeless(engine, at, latest) {
            let after = Some(self.patience(engine));
            return self.refuse(
                at,
                No {
                    retry_after: after,
                    ..No::plain(Code::DeadlineMissed)
                },
                out,
            );
        }
        let state = &mut self.engines[engine];
        let gate = state.gate(now);
        state.note(gate.cause(), now);
        let call = &mut self.calls[at];
        let Some(flow) = self
            .flows
            .open(state.roots[call.class()], call.node, &mut self.tenants)
        else {
            let after = Some(self.patience(engine));
            return self.refuse(
                at,
                No {
                    retry_after: after,
                    ..No::plain(Code::QueueFull)
                },
                out,
            );
        };
        call.target = target;
        call.run = call
            .submit
            .run
            .and_then(|run| state.runs.open(run, &call.submit.tenant));
        if let Some(run) = call.run {
            state.runs.slab[run].live += 1;
        }
        state.seq += 1;
        state.queued[call.class()] += 1;
        state.queued_bytes = state.queued_bytes.saturating_add(call.submit.bytes.0);
        let waited = call.waits.0.iter().sum::<u64>();
        call.state = State::Queued(Queued {
            engine,
            flow,
            since: now,
            seq: state.seq,
            engine_clocks: state.clocks(now),
            tenant_clocks: self.tenants.clocks(call.node, now),
            expires: At(now
                .0
                .saturating_add(self.queue.wait_ms_max.micros().saturating_sub(waited))),
            latest,
            armed: None,
        });
        let id = call.submit.call;
        let node = call.node;
        self.flows
            .push(flow, at, &mut self.calls, &mut state.runs, &self.tenants);
        for node in self.tenants.chain(node).nodes() {
            self.tenants.nodes[*node].queued += 1;
        }
        self.unarmed.push((at, id));
        self.mark(engine);
    }

    /// The last moment at which starting the call makes sense.
    fn latest_start(&self, engine: u32, at: u32) -> At {
        let call = &self.calls[at];
        let Some(deadline) = call.submit.deadline else {
            return At::MAX;
        };
        let replicas = self.engines[engine]
            .replicas
            .iter()
            .filter(|replica| !replica.gone);
        let least = replicas
            .filter_map(|replica| replica.limit.expected(call.prompt()))
            .min()
            .unwrap_or(0);
        At(deadline.0.saturating_sub(least))
    }

    /// Will the calls that go first take longer than the deadline leaves? Fair order
    /// lets each rival go once for each of the tenant's own calls, if there are so many.
    fn hopeless(&self, engine: u32, at: u32, latest: At) -> bool {
        let state = &self.engines[engine];
        if latest == At::MAX
            || state
                .replicas
                .iter()
                .any(|replica| replica.usable(self.now) && replica.has_room())
        {
            return false;
        }
        let call = &self.calls[at];
        let root = state.roots[call.class()];
        let own = self.tenants.nodes[call.node].flow(engine * 3 + call.class() as u32);
        let own = own.map_or(0, |flow| self.flows.get(flow).queued);
        let ahead = state
            .waiting()
            .min((own + 1).saturating_mul(self.flows.rivals(root).max(1)));
        state
            .lasts(ahead + 1)
            .is_some_and(|wait| self.now.plus(wait) > latest)
    }

    /// Takes a call out of its queue and books its waiting. It is then nowhere.
    pub(crate) fn leave_queue(&mut self, at: u32) -> Option<Queued> {
        let State::Queued(queued) = self.calls[at].state else {
            return None;
        };
        let now = self.now;
        let state = &mut self.engines[queued.engine];
        self.flows
            .take(queued.flow, at, &mut self.calls, &mut state.runs, &self.tenants);
        let call = &mut self.calls[at];
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
            attribute(
                &mut call.waits,
                waited,
                &queued,
                state.clocks(now),
                clocks,
                passed,
            );
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

    /// Turns away a call that is in no queue and on no replica.
    pub(crate) fn refuse(&mut self, at: u32, no: No, out: &mut Vec<Effect>) {
        let (call, code) = (self.calls[at].submit.call, no.code);
        out.push(Effect::Refuse(Refusal {
            call,
            code,
            retry_after: no.retry_after,
            cause: no.cause,
            what: no.what,
        }));
        self.settle(at, Outcome::Failed(code), None, out);
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
        let hung = state.is_down()
            && now
                >= queued
                    .since
                    .max(state.down_since.unwrap_or(now))
                    .plus(DOWN_WAIT_MS);
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
            Some(Cause::RateLimit) => Code::RateLimited,
            Some(Cause::TenantConcurrency) => Code::ConcurrencyLimited,
            Some(Cause::EngineDown) => Code::EngineDown,
            _ => Code::QueueTimeout,
        };
        let what = Some(self.blamed(at, engine));
        self.refuse(
            at,
            No {
                code,
                retry_after: after,
                cause: main,
                what,
            },
            out,
        );
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
        let chain = self.tenants.chain(self.calls[at].node);
        let mut nodes = chain.nodes().iter().rev().map(|node| &self.tenants.nodes[*node]);
        let blocked = nodes.find(|node| node.blocked.is_some());
        blocked.map_or_else(
            || Arc::clone(&self.engines[engine].name),
            |node| Arc::clone(&node.path),
        )
    }

    /// All who waited since the engine went down are told so.
    pub(crate) fn give_up_on(&mut self, id: seawall_model::EngineId, out: &mut Vec<Effect>) {
        let Some(engine) = self.engine_ids.get(&id).copied() else {
            return;
        };
        let Some(since) = self.engines[engine]
            .down_since
            .filter(|since| self.now >= since.plus(DOWN_WAIT_MS))
        else {
            return;
        };
        for at in self.waiting_on(engine) {
            if self.calls[at]
                .queued()
                .is_some_and(|queued| queued.since <= since)
            {
                let after = Some(self.patience(engine));
                self.leave_queue(at);
                self.leave_run(at, engine);
                let what = Some(Arc::clone(&self.engines[engine].name));
                let cause = Some(Cause::EngineDown);
                self.refuse(
                    at,
                    No {
                        code: Code::EngineDown,
                        retry_after: after,
                        cause,
                        what,
                    },
                    out,
                );
            }
        }
    }

    pub(crate) fn waiting_on(&self, engine: u32) -> Vec<u32> {
        if self.engines[engine].waiting() == 0 {
            return Vec::new();
        }
        (0..3)
            .flat_map(|class| self.flows.waiting(engine * 3 + class, &self.calls))
            .collect()
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
                        No {
                            retry_after: Some(RETRY_AFTER_MIN),
                            ..No::plain(Code::EngineDown)
                        },
                        out,
                    ),
                }
            }
        }
    }

    fn move_to(&mut self, at: u32, target: usize, out: &mut Vec<Effect>) {
        let engine = self.engine_ids[&self.calls[at].targets[target].1];
        match self.overfull(engine, at, 1) {
            Some(no) => self.refuse(at, no, out),
            None => self.enqueue_on(at, target, out),
        }
    }

    /// A retry's pause is over.
    pub(crate) fn resume(&mut self, id: CallId, out: &mut Vec<Effect>) {
        let Some(at) = self.index.get(&id).copied() else {
            return;
        };
        let State::Paused { since, until } = self.calls[at].state else {
            return;
        };
        if until > self.now {
            return;
        }
        self.calls[at]
            .waits
            .add(Cause::EngineDown, self.now.micros_since(since));
        self.calls[at].state = State::Fresh;
        let target = self.calls[at].target;
        let engine = self.calls[at]
            .targets
            .get(target)
            .and_then(|(_, id)| self.engine_ids.get(id));
        let well = engine.is_some_and(|engine| !self.engines[*engine].is_down());
        if well {
            self.enqueue_on(at, target, out);
        } else {
            self.enqueue(at, out);
        }
    }
}

/// A call that was never known is refused and over in one go.
fn turn_away(call: CallId, no: No, out: &mut Vec<Effect>) {
    out.push(Effect::Refuse(Refusal {
        call,
        code: no.code,
        retry_after: no.retry_after,
        cause: no.cause,
        what: no.what,
    }));
    out.push(Effect::Settle(Settlement {
        call,
        outcome: Outcome::Failed(no.code),
        engine: None,
        replica: None,
        attempts: 0,
        waits: Waits::default(),
        usage: Usage::default(),
        reserved_output: Tokens::ZERO,
        cost: MicroUsd::ZERO,
        finish: None,
    }));
}

fn fresh(submit: Box<Submit>, model: &Model, now: At) -> Call {
    let mut targets: Vec<(u8, seawall_model::EngineId)> =
        Vec::with_capacity(submit.targets.len().min(limits::TARGETS_MAX));
    for target in submit.targets.iter().take(limits::TARGETS_MAX) {
        if let Some(engine) = model.targets.get(usize::from(*target))
            && !targets.iter().any(|(known, _)| known == target)
        {
            targets.push((*target, *engine));
        }
    }
    let most = submit
        .output_max
        .map_or(model.output_tokens_max, |max| max.min(Tokens(TOKENS_MAX)));
    let output_max = if submit.generates {
        most.0.min(TOKENS_MAX)
    } else {
        0
    };
    Call {
        targets,
        barred: 0,
        target: 0,
        node: 0,
        price: model.price,
        output_max,
        expected: 0,
        likely: 0,
        submitted: now,
        attempts: 0,
        waits: Waits::default(),
        usage: Usage::default(),
        cost: MicroUsd::ZERO,
        reservations: Vec::new(),
        reserved_output: Tokens::ZERO,
        last: None,
        failed: None,
        failed_here: 0,
        state: State::Fresh,
        arrival: Link::default(),
        in_run: Link::default(),
        run: None,
        submit,
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
    take(
        Cause::EngineDown,
        engine[0].saturating_sub(queued.engine_clocks[0]),
    );
    for (at, cause) in Tenants::causes().into_iter().enumerate() {
        take(cause, tenant[at].saturating_sub(queued.tenant_clocks[at]));
    }
    take(
        Cause::RateLimit,
        engine[1].saturating_sub(queued.engine_clocks[1]),
    );
    take(
        if passed {
            Cause::TenantShare
        } else {
            Cause::EngineFull
        },
        u64::MAX,
    );
}
