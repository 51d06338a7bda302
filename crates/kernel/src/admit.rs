//! Into the queues: what a call must pass to wait at all, which engine it waits for, and
//! when a client that is turned away should come back.

use std::sync::Arc;

use seawall_model::{
    At, CallId, Cause, Class, Code, MicroUsd, Millis, Outcome, Tokens, Usage, Waits, limits,
};

use crate::budget::{Room, need};
use crate::call::{Call, Link, Queued, State, TOKENS_MAX};
use crate::crowd::root;
use crate::effect::{Effect, Refusal, Settlement};
use crate::guard::Sign;
use crate::headroom::epoch;
use crate::input::Submit;
use crate::kernel::Kernel;
use crate::plan::Model;

/// Output expected of a model that has not answered yet.
const OUTPUT_GUESS: u64 = 256;
/// Bounds of the time after which a refused client should come back.
pub(crate) const RETRY_AFTER_MIN: Millis = Millis(1_000);
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
        Self { code, retry_after: None, cause: None, what: None }
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
        if let Some(run) = call.submit.run {
            self.kin.begin(run);
        }
        let at = self.calls.insert(call);
        self.index.insert(id, at);
        self.enqueue(at, out);
        self.pump_all(out);
        // Only what really has to wait counts against the bounds of waiting.
        if self.calls.get(at).is_some_and(|call| call.submit.call == id) {
            self.keep_bounds(at, out);
        }
    }

    /// Counts a call that has come to wait, and turns calls away until the bounds of its
    /// queue hold: others where it has less than its even share, else itself.
    pub(crate) fn keep_bounds(&mut self, at: u32, out: &mut Vec<Effect>) {
        let Some(engine) = self.calls[at].queued().map(|queued| queued.engine) else {
            return;
        };
        self.count_in(at);
        while let Some(no) = self.overfull(engine, at) {
            let crowd = &self.engines[engine].crowd;
            let instead = crowd.gives_way(&self.calls[at].submit.tenant, &self.queue);
            let instead = instead.filter(|_| no.code == Code::QueueFull);
            let victim = instead.and_then(|id| self.index.get(&id).copied()).unwrap_or(at);
            self.withdraw(victim);
            let cause = self.calls[victim].waits.main();
            self.refuse(victim, No { cause, ..no }, out);
            if victim == at {
                return;
            }
        }
    }

    /// Counts a call among those who wait for its engine.
    pub(crate) fn count_in(&mut self, at: u32) {
        let call = &mut self.calls[at];
        if let State::Queued(queued) = &mut call.state
            && !std::mem::replace(&mut queued.counted, true)
        {
            let crowd = &mut self.engines[queued.engine].crowd;
            crowd.join(&call.submit.tenant, call.submit.call, call.submit.bytes.0);
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
            return Err(No { retry_after: Some(RETRY_AFTER_MIN), ..No::plain(Code::QueueFull) });
        }
        if let (Some(run), Some(parent)) = (submit.run, submit.parent) {
            self.kin.learn(run, parent);
        }
        if submit.run.is_some_and(|run| self.halts.holds(run, &self.kin)) {
            return Err(No::plain(Code::RunStopped));
        }
        let repeats = match self.guard.look(&submit, &self.kin, &self.guard_rule) {
            Sign::Clear => 0,
            Sign::Warn(times) => times,
            Sign::Stop(what) => return Err(No { what: Some(what), ..No::plain(Code::LoopStopped) }),
        };
        let mut call = fresh(submit, model, self.now);
        call.repeats = repeats;
        let tenant = call.submit.tenant.clone();
        let leaf = self.tenants.leaf(&tenant, &mut self.accounts, self.now, &mut self.evicted);
        while let Some(node) = self.evicted.pop() {
            self.flows.forget(&node);
        }
        while let Some(covered) = self.tenants.uncovered.pop() {
            self.cover(covered);
        }
        let Some(leaf) = leaf else {
            return Err(No { retry_after: Some(RETRY_AFTER_MIN), ..No::plain(Code::QueueFull) });
        };
        call.node = leaf;
        self.predict(&mut call);
        if let Some(no) = self.exhausted(&call) {
            return Err(no);
        }
        self.join_trees(&mut call)?;
        Ok(call)
    }

    fn predict(&mut self, call: &mut Call) {
        if !call.submit.generates {
            return;
        }
        let serial = self.tenants.nodes[call.node].serial;
        let (median, high) =
            self.sketches.predict(serial, call.submit.model).unwrap_or((OUTPUT_GUESS, OUTPUT_GUESS));
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
                let need =
                    need(account.meter, &call.price, Tokens(call.prompt_max()), Tokens(call.output_max));
                if account.room(need) == Room::Exhausted {
                    return Some(self.spent_out(serial));
                }
            }
        }
        None
    }

    /// The refusal for an exhausted account, or for one that the full table has no place for.
    pub(crate) fn spent_out(&self, serial: u64) -> No {
        let Some(account) = self.accounts.get(serial) else {
            return No { retry_after: Some(RETRY_AFTER_MAX), ..No::plain(Code::BudgetExhausted) };
        };
        let left = Millis(account.end.micros_since(self.now).div_ceil(1_000));
        No {
            retry_after: (account.end < At::MAX).then_some(left),
            what: Some(Arc::clone(&account.name)),
            ..No::plain(Code::BudgetExhausted)
        }
    }

    /// Does the queue of this engine break a bound, now that this call waits in it?
    fn overfull(&self, engine: u32, at: u32) -> Option<No> {
        let (state, tenant) = (&self.engines[engine], &self.calls[at].submit.tenant);
        let after = Some(self.patience(engine));
        if state.crowd.len_of(tenant) > self.queue.tenant_len_max {
            return Some(No {
                retry_after: after,
                what: Some(root(tenant).into()),
                ..No::plain(Code::TenantQueueFull)
            });
        }
        state.crowd.is_over(&self.queue).then(|| No {
            retry_after: after,
            what: Some(Arc::clone(&state.name)),
            ..No::plain(Code::QueueFull)
        })
    }

    /// When a client that is refused because of this engine's queue should come back.
    pub(crate) fn patience(&self, engine: u32) -> Millis {
        let state = &self.engines[engine];
        state.lasts(state.waiting()).unwrap_or(RETRY_AFTER_MIN).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    /// The target to wait for: the first that is not down, else the first at all. Where
    /// the provider of that first one asked for a pause, another with room goes before it.
    pub(crate) fn best_target(&self, at: u32) -> Option<usize> {
        let call = &self.calls[at];
        let (mut paused, mut fallback) = (None, None);
        for (target, (_, id)) in call.targets.iter().enumerate() {
            let Some(engine) = self.engine_ids.get(id) else {
                continue;
            };
            let engine = &self.engines[*engine];
            let upstream = call.upstreams.get(target).copied().flatten();
            if call.barred & (1 << target) != 0
                || engine.gone
                || engine.replicas.iter().all(|replica| replica.gone)
            {
                continue;
            }
            if engine.is_down() {
                fallback = fallback.or(Some(target));
            } else if paused.is_none() && engine.paused(upstream, self.now).is_none()
                || engine.has_spare(upstream, self.now)
            {
                return Some(target);
            } else {
                paused = paused.or(Some(target));
            }
        }
        paused.or(fallback)
    }

    /// Queues a call that is in no queue at its best target, or refuses it.
    pub(crate) fn enqueue(&mut self, at: u32, out: &mut Vec<Effect>) {
        match self.best_target(at) {
            Some(target) => self.enqueue_on(at, target, out),
            None => {
                self.refuse(
                    at,
                    No { retry_after: Some(RETRY_AFTER_MIN), ..No::plain(Code::EngineDown) },
                    out,
                );
            }
        }
    }

    pub(crate) fn enqueue_on(&mut self, at: u32, target: usize, out: &mut Vec<Effect>) {
        let engine = self.engine_ids[&self.calls[at].targets[target].1];
        let now = self.now;
        self.calls[at].target = target;
        let latest = self.latest_start(engine, at);
        if latest < now || self.hopeless(engine, at, latest) {
            let after = Some(self.patience(engine));
            return self.refuse(at, No { retry_after: after, ..No::plain(Code::DeadlineMissed) }, out);
        }
        let state = &mut self.engines[engine];
        let gate = state.gate(now);
        state.note(gate.cause(), now);
        let call = &mut self.calls[at];
        let Some(flow) = self.flows.open(state.roots[call.class()], call.node, &mut self.tenants) else {
            let after = Some(self.patience(engine));
            return self.refuse(at, No { retry_after: after, ..No::plain(Code::QueueFull) }, out);
        };
        let kin = &self.kin;
        call.run = call.submit.run.and_then(|run| state.runs.open(run, kin.root(run), &call.submit.tenant));
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
            expires: At(now.0.saturating_add(self.queue.wait_ms_max.micros().saturating_sub(waited))),
            latest,
            armed: None,
            counted: false,
        });
        let (id, node, class) = (call.submit.call, call.node, call.class());
        self.flows.see(flow, epoch(now), &self.tenants);
        if class != Class::Batch as usize && self.flows.get(flow).queued == 0 {
            let places = self.class_places(engine, class);
            if self.flows.is_light(flow, places, epoch(now), &self.tenants) {
                self.engines[engine].headroom.light_came(now);
            }
        }
        let state = &mut self.engines[engine];
        self.flows.push(flow, at, &mut self.calls, &mut state.runs, &self.tenants);
        for node in self.tenants.chain(node).nodes() {
            self.tenants.nodes[*node].queued += 1;
        }
        self.unarmed.push((at, id));
        self.mark(engine);
    }

    /// The last moment at which starting the call makes sense.
    pub(crate) fn latest_start(&self, engine: u32, at: u32) -> At {
        let call = &self.calls[at];
        let Some(deadline) = call.submit.deadline else {
            return At::MAX;
        };
        let replicas = self.engines[engine].replicas.iter().filter(|replica| !replica.gone);
        let least = replicas.filter_map(|replica| replica.limit.expected(call.prompt())).min().unwrap_or(0);
        At(deadline.0.saturating_sub(least))
    }

    /// Will the calls that go first take longer than the deadline leaves? Fair order
    /// lets each rival go once for each of the tenant's own calls, if there are so many.
    fn hopeless(&self, engine: u32, at: u32, latest: At) -> bool {
        let state = &self.engines[engine];
        if latest == At::MAX {
            return false;
        }
        let call = &self.calls[at];
        let upstream = call.upstream();
        if state.replicas.iter().any(|replica| replica.usable(upstream, self.now) && replica.has_room()) {
            return false;
        }
        let root = state.roots[call.class()];
        let own = self.tenants.nodes[call.node].flow(engine * 3 + call.class() as u32);
        let own = own.map_or(0, |flow| self.flows.get(flow).queued);
        let ahead = state.waiting().min((own + 1).saturating_mul(self.flows.rivals(root).max(1)));
        state.lasts(ahead + 1).is_some_and(|wait| self.now.plus(wait) > latest)
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
    for (place, target) in submit.targets.iter().take(limits::TARGETS_MAX).enumerate() {
        if !targets.iter().any(|(_, known)| known == target) {
            // The list has at most TARGETS_MAX entries, so its length fits.
            targets.push((place as u8, *target));
        }
    }
    let upstreams = targets.iter().map(|(_, id)| model.upstream(*id)).collect();
    let most = submit.output_max.map_or(model.output_tokens_max, |max| max.min(Tokens(TOKENS_MAX)));
    let output_max = if submit.generates { most.0.min(TOKENS_MAX) } else { 0 };
    Call {
        upstreams,
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
        parts: Vec::new(),
        reserved_output: Tokens::ZERO,
        last: None,
        failed: None,
        failed_here: 0,
        state: State::Fresh,
        arrival: Link::default(),
        in_run: Link::default(),
        run: None,
        repeats: 0,
        halted: false,
        submit,
    }
}
