//! How attempts and calls end: what is learned from an answer, what is charged, whether
//! a failed call is tried again and where, and the one last word on each call (I6).

use std::sync::Arc;

use seawall_model::{CallId, Code, Finish, Millis, Outcome, Tokens, Usage};

use crate::admit::No;
use crate::budget::used;
use crate::call::{Running, State, TOKENS_MAX, cost};
use crate::effect::{Effect, Settlement};
use crate::input::Failure;
use crate::kernel::{Kernel, pause_of};
use crate::plan::Meter;

/// An answer that ended within this time of its first byte came in one piece.
const ONE_PIECE_MICROS: u64 = 5_000;

/// A client that takes less than this part of a stretch of its stream slows it by less
/// than a third, which is far from what cuts an engine's limit.
const HELD_UP_PART: u64 = 4;

impl Kernel {
    fn running_at(&self, id: CallId) -> Option<(u32, Running)> {
        let at = *self.index.get(&id)?;
        Some((at, *self.calls[at].running()?))
    }

    /// The engine began to answer.
    pub(crate) fn first_token(&mut self, id: CallId) {
        let Some((at, run)) = self.running_at(id) else {
            return;
        };
        if run.first.is_some() {
            return;
        }
        let now = self.now;
        let generates = self.calls[at].submit.generates;
        if let Some(running) = self.calls[at].running_mut() {
            running.first = Some(now);
            running.heard = (now, 1);
            running.load -= running.uncached;
            // Nothing is generated, so the first byte tells the whole time already; a
            // generated answer must first show whether it is streamed.
            running.sampled = !generates;
        }
        self.replica_succeeded(run.engine, run.replica, false);
        let state = &mut self.engines[run.engine];
        if let Some(place) = state.find(run.replica) {
            let replica = &mut state.replicas[place];
            replica.load -= run.uncached;
            replica.prompts -= run.uncached;
            if !generates {
                replica.limit.first_token(run.uncached, now.micros_since(run.since), &state.pace, now);
            }
        }
    }

    /// Output so far: what goes beyond the estimate is charged as it is served.
    pub(crate) fn progress(&mut self, id: CallId, output: Tokens, waited: Millis) {
        let Some((at, mut run)) = self.running_at(id) else {
            return;
        };
        run.held_up |= waited.micros() > self.now.micros_since(run.heard.0) / HELD_UP_PART;
        let output = output.0.min(TOKENS_MAX);
        self.learn_first(at, &run);
        self.learn_pace(at, &run, output);
        let more = output.saturating_sub(run.charged_output);
        if more == 0 {
            return;
        }
        let likely = self.calls[at].likely;
        let state = &mut self.engines[run.engine];
        let charge = cost(state.weights(), 0, 0, more);
        let overrun = output.saturating_sub(likely.max(run.charged_output));
        if let Some(place) = state.find(run.replica) {
            state.replicas[place].kv += overrun;
        }
        if let Some(running) = self.calls[at].running_mut() {
            running.charged += charge;
            running.charged_output = output;
            running.rated += more;
            running.kv += overrun;
        }
        self.charge_engine(at, &run, charge, more as i64);
        self.charge_tenants(self.calls[at].node, 0, charge, more as i64);
    }

    /// Learns from the time to first token, once it is known that the answer streams.
    fn learn_first(&mut self, at: u32, run: &Running) {
        let Some(first) = run.first.filter(|_| !run.sampled) else {
            return;
        };
        if let Some(running) = self.calls[at].running_mut() {
            running.sampled = true;
        }
        let now = self.now;
        let state = &mut self.engines[run.engine];
        if let Some(place) = state.find(run.replica) {
            let limit = &mut state.replicas[place].limit;
            limit.first_token(run.uncached, first.micros_since(run.since), &state.pace, now);
        }
    }

    /// Learns from the time that a stretch of a stream took.
    fn learn_pace(&mut self, at: u32, run: &Running, output: u64) {
        let (since, before) = run.heard;
        let now = self.now;
        if run.first.is_none() || output <= before {
            return;
        }
        if let Some(running) = self.calls[at].running_mut() {
            running.heard = (now, output);
            running.held_up = run.held_up;
        }
        let micros = (!run.held_up).then(|| now.micros_since(since));
        let state = &mut self.engines[run.engine];
        if let Some(place) = state.find(run.replica) {
            state.replicas[place].limit.streamed(output - before, micros);
            state.learn_ratio(place);
        }
    }

    /// Books a change of cost to the call's place in fair order and to its engine's rate.
    fn charge_engine(&mut self, at: u32, run: &Running, tenths: i64, tokens: i64) {
        let call = &self.calls[at];
        let (class, node) = (call.class(), call.node);
        if let Some(flow) = self.tenants.nodes[node].flow(run.engine * 3 + class as u32) {
            self.flows.charge(flow, tenths, false, &self.tenants);
        }
        let now = self.now;
        let state = &mut self.engines[run.engine];
        let ready = state.roots.map(|root| self.flows.ready(root));
        state.share(class, tenths, run.by_share, ready, self.class_share);
        if let Some(bucket) = &mut state.tokens {
            bucket.take(tokens, now);
        }
        if let Some(record) = self.calls[at].run {
            self.flows.serve_run(record, tenths, &self.calls, &mut state.runs);
        }
    }

    /// The engine answered in full.
    pub(crate) fn finished(
        &mut self,
        id: CallId,
        usage: &Usage,
        finish: Option<Finish>,
        out: &mut Vec<Effect>,
    ) {
        let Some((at, run)) = self.running_at(id) else {
            return;
        };
        let now = self.now;
        let in_one_piece = run.first.is_none_or(|first| now.micros_since(first) < ONE_PIECE_MICROS);
        let output = usage.output.0.min(TOKENS_MAX);
        let call = &self.calls[at];
        let (generates, node, model) = (call.submit.generates, call.node, call.submit.model);
        if in_one_piece && !run.sampled {
            let state = &mut self.engines[run.engine];
            if let Some(place) = state.find(run.replica) {
                let limit = &mut state.replicas[place].limit;
                limit.whole(
                    run.uncached,
                    if generates { output } else { 0 },
                    now.micros_since(run.since),
                    &state.pace,
                    now,
                );
            }
        } else {
            self.learn_first(at, &run);
            self.learn_pace(at, &run, output);
        }
        if generates && output > 0 {
            let serial = self.tenants.nodes[node].serial;
            self.sketches.add(serial, model, output);
        }
        self.end_attempt(at, usage);
        self.replica_succeeded(run.engine, run.replica, false);
        self.settle(at, Outcome::Done, finish, out);
    }

    /// The client left.
    pub(crate) fn cancelled(&mut self, id: CallId, usage: &Usage, out: &mut Vec<Effect>) {
        let Some(at) = self.index.get(&id).copied() else {
            return;
        };
        match self.calls[at].state {
            State::Fresh => {}
            State::Queued(_) | State::Paused(_) => self.withdraw(at),
            State::Running(_) => self.end_attempt(at, usage),
        }
        let halted = self.calls[at].halted;
        let outcome = if halted { Outcome::Failed(Code::RunStopped) } else { Outcome::Cancelled };
        self.settle(at, outcome, None, out);
    }

    /// An attempt failed.
    pub(crate) fn failed(
        &mut self,
        id: CallId,
        failure: Failure,
        client_began: bool,
        usage: &Usage,
        out: &mut Vec<Effect>,
    ) {
        let Some((at, run)) = self.running_at(id) else {
            return;
        };
        self.end_attempt(at, usage);
        self.calls[at].failed = Some(run.replica);
        self.calls[at].failed_here += 1;
        self.note_failure(at, &run, failure, out);
        let halted = self.calls[at].halted;
        if !client_began && !halted && self.try_again(at, &run, failure, out) {
            return;
        }
        let code = if halted { Code::RunStopped } else { code_of(failure) };
        if client_began {
            return self.settle(at, Outcome::Failed(code), None, out);
        }
        let retry_after = match failure {
            Failure::Limited { retry_after } => Some(pause_of(retry_after)),
            _ if code.row().retry == seawall_model::Retry::After => Some(self.patience(run.engine)),
            _ => None,
        };
        let what = Some(Arc::clone(&self.engines[run.engine].name));
        let cause = self.calls[at].waits.main();
        self.refuse(at, No { code, retry_after, cause, what }, out);
    }

    /// What a failure says about the replica.
    fn note_failure(&mut self, at: u32, run: &Running, failure: Failure, out: &mut Vec<Effect>) {
        match failure {
            Failure::Connect => self.replica_failed(run.engine, run.replica, 2, out),
            Failure::Timeout | Failure::Server { .. } | Failure::Garbled | Failure::Cut => {
                self.replica_failed(run.engine, run.replica, 1, out);
            }
            Failure::Limited { retry_after } => {
                let now = self.now;
                let state = &mut self.engines[run.engine];
                if let Some(place) = state.find(run.replica) {
                    state.replicas[place].limit.limited(&state.pace, now);
                }
                // It answers, so a half-open circuit has its verdict.
                self.replica_succeeded(run.engine, run.replica, true);
                let upstream = self.calls[at].upstream();
                self.pause(run.engine, run.replica, upstream, retry_after, out);
            }
            // The request or our key is at fault; the replica answered.
            Failure::Refused { .. } | Failure::Credentials => {
                self.replica_succeeded(run.engine, run.replica, false);
            }
            Failure::TooLarge | Failure::Deadline | Failure::Unsent => {}
        }
    }

    /// Tries a failed call again, if that makes sense: on another replica, then on the
    /// next target, then where it was.
    fn try_again(&mut self, at: u32, run: &Running, failure: Failure, out: &mut Vec<Effect>) -> bool {
        let call = &self.calls[at];
        let lost = matches!(
            failure,
            Failure::Refused { .. } | Failure::TooLarge | Failure::Deadline | Failure::Unsent
        );
        if lost
            || call.attempts >= self.retry.attempts_max
            || call.submit.deadline.is_some_and(|at| at <= self.now)
        {
            return false;
        }
        let (now, here) = (self.now, call.target);
        let rejected = failure == Failure::Credentials;
        let state = &self.engines[run.engine];
        // As many failures as replicas: each has most likely had its turn.
        let others = state
            .replicas
            .iter()
            .filter(|replica| replica.id != run.replica && replica.usable(call.upstream(), now));
        let another = !rejected && !state.gone && others.count() >= call.failed_here.max(1);
        if !another {
            // Elsewhere, if any target is left that has not failed this call.
            self.calls[at].barred |= 1 << here;
            let next = self.best_target(at).filter(|next| self.target_is_up(at, *next));
            if let Some(next) = next {
                self.calls[at].failed = None;
                self.calls[at].failed_here = 0;
                self.enqueue_on(at, next, out);
                return true;
            }
            if rejected || self.engines[run.engine].gone || self.outlasts(at, failure) {
                return false;
            }
            self.calls[at].barred &= !(1 << here);
        }
        if !self.engines[run.engine].allowance.take(now) {
            return false;
        }
        self.pause_call(at);
        true
    }

    /// Does the provider want a longer pause than the call may wait?
    fn outlasts(&self, at: u32, failure: Failure) -> bool {
        let Failure::Limited { retry_after: Some(pause) } = failure else {
            return false;
        };
        let waited: u64 = self.calls[at].waits.0.iter().sum();
        waited.saturating_add(pause_of(Some(pause)).micros()) > self.queue.wait_ms_max.micros()
    }

    fn target_is_up(&self, at: u32, target: usize) -> bool {
        let id = self.calls[at].targets[target].1;
        self.engine_ids.get(&id).is_some_and(|engine| !self.engines[*engine].is_down())
    }

    /// An attempt is over: everything it held is given back, and estimates are replaced
    /// by what was used.
    fn end_attempt(&mut self, at: u32, usage: &Usage) {
        let State::Running(run) = self.calls[at].state else {
            return;
        };
        let state = &mut self.engines[run.engine];
        let call = &mut self.calls[at];
        call.state = State::Fresh;
        state.running -= 1;
        state.headroom.ended(self.now);
        if let Some(place) = state.find(run.replica) {
            let replica = &mut state.replicas[place];
            replica.running -= 1;
            replica.load -= run.load;
            replica.prompts -= if run.first.is_none() { run.uncached } else { 0 };
            replica.kv -= run.kv;
            replica.breaker.ended(call.submit.call);
            if replica.gone && replica.running == 0 {
                state.sweep();
            }
        }
        let (node, class) = (call.node, call.class());
        let served = cost(state.weights(), usage.input.0, usage.cached.0, usage.output.0);
        let total = usage.total().0.min(2 * TOKENS_MAX);
        self.charge_engine(at, &run, served - run.charged, total as i64 - run.rated as i64);
        if let Some(flow) = self.tenants.nodes[node].flow(run.engine * 3 + class as u32) {
            self.flows.ran(flow, false);
        }
        self.charge_tenants(node, -1, served - run.charged, total as i64 - run.rated as i64);
        self.leave_run(at, run.engine);
        self.settle_budgets(at, usage);
        self.settle_trees(at, usage);
        self.mark(run.engine);
    }

    /// Turns reservations into spending.
    fn settle_budgets(&mut self, at: u32, usage: &Usage) {
        let call = &mut self.calls[at];
        let (price, first) = (call.price, call.attempts == 1);
        call.cost += price.of(usage);
        call.usage.input += usage.input;
        call.usage.cached += usage.cached;
        call.usage.cache_written += usage.cache_written;
        call.usage.output += usage.output;
        call.usage.reasoning += usage.reasoning;
        while let Some(reservation) = self.calls[at].reservations.pop() {
            let meter = self.accounts.get(reservation.account).map_or(Meter::Calls, |account| account.meter);
            self.accounts.release(reservation);
            self.accounts.spend(reservation, used(meter, &price, usage, first));
            self.unhold(reservation.account);
        }
    }

    /// The last word on a call that is in no queue and on no replica.
    pub(crate) fn settle(
        &mut self,
        at: u32,
        outcome: Outcome,
        finish: Option<Finish>,
        out: &mut Vec<Effect>,
    ) {
        let Some(call) = self.calls.remove(at) else { return };
        assert!(matches!(call.state, State::Fresh), "a call is settled when it holds nothing");
        self.index.remove(&call.submit.call);
        if outcome == Outcome::Done {
            self.guard.answered(&call.submit, &self.kin, call.submitted, self.now);
        }
        if let Some(run) = call.submit.run {
            self.kin.end(run);
        }
        self.trees.leave(&call.parts);
        out.push(Effect::Settle(Settlement {
            call: call.submit.call,
            outcome,
            engine: call.last.map(|(engine, _)| engine),
            replica: call.last.map(|(_, replica)| replica),
            attempts: call.attempts,
            waits: call.waits,
            usage: call.usage,
            reserved_output: call.reserved_output,
            cost: call.cost,
            finish,
        }));
    }
}

/// What a client is told when nothing is left to try.
fn code_of(failure: Failure) -> Code {
    match failure {
        Failure::Connect => Code::EngineDown,
        Failure::Timeout => Code::EngineTimeout,
        Failure::Limited { .. } => Code::EngineRateLimited,
        Failure::Server { .. } => Code::EngineFailed,
        Failure::Refused { .. } => Code::EngineRefused,
        Failure::Credentials => Code::EngineRejectedKey,
        Failure::Garbled => Code::EngineGarbled,
        Failure::Cut => Code::EngineCut,
        Failure::TooLarge => Code::AnswerTooLarge,
        Failure::Deadline => Code::DeadlinePassed,
        // The shell, which knows why, names the reason.
        Failure::Unsent => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_model::Blame;

    #[test]
    fn no_failed_attempt_is_the_callers_fault() {
        let status = 500;
        let limited = Failure::Limited { retry_after: None };
        for failure in [
            Failure::Connect,
            Failure::Timeout,
            limited,
            Failure::Server { status },
            Failure::Refused { status },
            Failure::Credentials,
            Failure::Garbled,
            Failure::Cut,
            Failure::TooLarge,
            Failure::Unsent,
        ] {
            assert_ne!(code_of(failure).row().blame, Blame::Caller, "{failure:?}");
        }
        assert_eq!(code_of(limited).status(), 429);
    }
}
