//! The world's own book of calls, against which every word of the kernel is held: each
//! call ends exactly once (I6), nothing is dispatched that should not be, and every
//! microsecond of waiting has a cause.

use std::collections::BTreeMap;

use seawall_kernel::effect::{Grant, Refusal, Settlement};
use seawall_kernel::input::{Failure, Submit};
use seawall_kernel::plan::{Plan, Price};
use seawall_model::{At, CallId, Code, EngineId, Finish, Millis, Outcome, ReplicaId, Retry, Usage};

/// What the kernel was last told of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// That it wants in, or that it streams.
    Alive,
    /// That it was answered.
    Finished(Option<Finish>),
    /// That an attempt failed, and whether the client had seen anything.
    Failed(Failure, bool),
    /// That its client left.
    Cancelled,
}

/// One call of which the last word has not been said.
#[derive(Clone, Debug)]
pub struct Call {
    /// As submitted.
    pub submit: Submit,
    /// When.
    pub submitted: At,
    /// The number of its model's name at its engines, where the plan has one.
    pub upstream: Option<u32>,
    /// Prompt tokens by the engine's own count.
    pub prompt: u64,
    /// Output tokens the engine will generate.
    pub output: u64,
    /// Does the client see tokens as they come?
    pub stream: bool,
    /// Which demand made it.
    pub demand: usize,
    /// What its client will do.
    pub whim: Whim,
    /// The attempt under way.
    pub attempt: Option<u64>,
    /// When that, or the last one, was dispatched.
    pub dispatched: At,
    /// When the first attempt was.
    pub dispatched_first: Option<At>,
    /// Attempts so far.
    pub attempts: u32,
    /// Time spent in attempts that ended, in microseconds.
    pub ran_us: u64,
    /// Usage of attempts that ended.
    pub used: Usage,
    /// What a token costs.
    pub price: Price,
    /// What the ended attempts cost one by one, each rounded up.
    pub cost_most: u64,
    /// Where the last attempt went.
    pub place: Option<(EngineId, ReplicaId)>,
    /// What the kernel was told last.
    pub told: Told,
    /// The refusal that announced its end.
    pub refused: Option<Code>,
    /// When it said to come back.
    pub retry_after: Option<Millis>,
    /// When the first piece of the answer came.
    pub first_token: Option<At>,
    /// Was it cut by an operator?
    pub halted: bool,
    /// Is it counted as waiting by the watch over fairness?
    pub queued: bool,
    /// Cost of the attempt under way that counts as served, and what of it is unsure.
    pub served: (u64, u64),
}

impl Call {
    /// A call about to be submitted, whose client sees all of it at once and stays.
    #[must_use]
    pub fn new(submit: Submit, submitted: At) -> Self {
        Self {
            upstream: None,
            prompt: submit.prompt.0,
            submit,
            submitted,
            output: 0,
            stream: false,
            demand: 0,
            whim: Whim::Stay,
            attempt: None,
            dispatched: submitted,
            dispatched_first: None,
            attempts: 0,
            ran_us: 0,
            used: Usage::default(),
            price: Price::default(),
            cost_most: 0,
            place: None,
            told: Told::Alive,
            refused: None,
            retry_after: None,
            first_token: None,
            halted: false,
            queued: false,
            served: (0, 0),
        }
    }
}

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    /// It stays.
    Stay,
    /// As soon as it sees the first token.
    AtFirst,
    /// At the very moment the answer is complete.
    AtEnd,
}

/// How a call that is over ended, for those who keep figures.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The call as it was.
    pub call: Call,
    /// How.
    pub outcome: Outcome,
}

/// The book.
#[derive(Debug, Default)]
pub struct Calls {
    live: BTreeMap<CallId, Call>,
    next: u64,
    draining: bool,
    /// How many of them are in an attempt, by replica.
    running: BTreeMap<ReplicaId, u32>,
    /// Longest stay in a queue and longest pause before a retry, in microseconds, by any
    /// plan that this kernel has had: calls keep what they were granted.
    stay_us: u64,
    pause_us: u64,
}

impl Calls {
    /// The next id.
    pub fn name(&mut self) -> CallId {
        self.next += 1;
        CallId(self.next)
    }

    /// Enters a call about to be submitted.
    pub fn enter(&mut self, call: Call) {
        self.live.insert(call.submit.call, call);
    }

    /// A live call.
    #[must_use]
    pub fn live(&self, call: CallId) -> Option<&Call> {
        self.live.get(&call)
    }

    /// A live call.
    pub fn live_mut(&mut self, call: CallId) -> Option<&mut Call> {
        self.live.get_mut(&call)
    }

    /// All live calls, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Call> {
        self.live.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// None?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Calls in an attempt at this replica.
    #[must_use]
    pub fn running(&self, replica: ReplicaId) -> u32 {
        self.running.get(&replica).copied().unwrap_or(0)
    }

    /// Calls in any attempt.
    #[must_use]
    pub fn running_all(&self) -> u32 {
        self.running.values().sum()
    }

    /// A plan holds from now on.
    pub fn learn(&mut self, plan: &Plan) {
        self.stay_us = self.stay_us.max(plan.queue.wait_ms_max.micros());
        self.pause_us = self.pause_us.max(plan.retry.pause_ms_max.micros());
    }

    /// No new calls from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The kernel is gone and all its calls with it: returns them.
    pub fn lose(&mut self) -> Vec<Call> {
        self.running.clear();
        self.draining = false;
        (self.stay_us, self.pause_us) = (0, 0);
        std::mem::take(&mut self.live).into_values().collect()
    }

    /// The kernel is about to be told that the attempt under way, if any, is over.
    pub fn end_attempt(&mut self, now: At, id: CallId, told: Told, usage: Usage) {
        let call = self.live.get_mut(&id).expect("the shell tells of live calls only");
        call.told = told;
        if call.attempt.take().is_some() {
            call.ran_us += now.micros_since(call.dispatched);
            let (_, replica) = call.place.expect("an attempt has a place");
            let running = self.running.get_mut(&replica).expect("a running call is counted");
            *running -= 1;
        }
        call.used = sum(call.used, usage);
        call.cost_most += call.price.of(&usage).0;
    }

    /// The kernel dispatches a call.
    ///
    /// # Panics
    /// When it should not (I6).
    pub fn dispatch(&mut self, now: At, grant: &Grant, attempt: u64, plan: &Plan) -> &mut Call {
        let id = grant.call;
        let Some(call) = self.live.get_mut(&id) else { panic!("I6: {id:?} dispatched but not alive") };
        assert!(call.attempt.is_none(), "I6: {id:?} dispatched while an attempt is under way");
        assert!(call.refused.is_none(), "I6: {id:?} dispatched after its refusal");
        assert!(
            matches!(call.told, Told::Alive | Told::Failed(_, false)),
            "I6: {id:?} dispatched after {:?}",
            call.told
        );
        assert_eq!(grant.attempt, call.attempts + 1, "I6: attempts of {id:?} are not counted one by one");
        assert!(
            grant.attempt <= plan.retry.attempts_max.max(1),
            "I6: {id:?} has more attempts than {}",
            plan.retry.attempts_max
        );
        if let Some(deadline) = call.submit.deadline {
            assert!(
                now <= deadline,
                "I6: {id:?} dispatched {} us after its deadline",
                now.micros_since(deadline)
            );
        }
        let engine = plan.engines.iter().find(|engine| engine.id == grant.engine);
        let Some(engine) = engine else { panic!("I6: {id:?} dispatched to vanished {:?}", grant.engine) };
        assert!(
            engine.replicas.iter().any(|replica| replica.id == grant.replica),
            "I6: {id:?} dispatched to vanished {:?}",
            grant.replica
        );
        assert_eq!(
            call.submit.targets.get(usize::from(grant.target)),
            Some(&grant.engine),
            "I6: {id:?} has target {} which is another engine, or none that can serve it",
            grant.target
        );
        let waited = now.micros_since(call.submitted) - call.ran_us;
        let told: u64 = grant.waits.0.iter().sum();
        assert_eq!(told, waited, "waits: {id:?} waited {waited} us, told causes sum to {:?}", grant.waits);
        call.attempts += 1;
        call.attempt = Some(attempt);
        call.dispatched = now;
        call.dispatched_first.get_or_insert(now);
        call.place = Some((grant.engine, grant.replica));
        *self.running.entry(grant.replica).or_default() += 1;
        call
    }

    /// The kernel turns a call away.
    ///
    /// # Panics
    /// When it may not any more, or does not say when to come back (I6).
    pub fn refuse(&mut self, refusal: &Refusal) {
        let id = refusal.call;
        let Some(call) = self.live.get_mut(&id) else { panic!("I6: {id:?} refused but not alive") };
        assert!(call.attempt.is_none(), "I6: {id:?} refused while an attempt is under way");
        assert!(call.refused.is_none(), "I6: {id:?} refused twice");
        assert!(
            matches!(call.told, Told::Alive | Told::Failed(_, false)),
            "I6: {id:?} refused after {:?}",
            call.told
        );
        if refusal.code.row().retry == Retry::After {
            // A budget for good never ends, so there is no time to name.
            let never = refusal.what.as_ref().is_some_and(|what| what.ends_with("/total"));
            let after = refusal.retry_after.or(never.then_some(Millis::MAX));
            assert!(
                after.is_some_and(|after| after > Millis::ZERO),
                "I6: {id:?} refused with {:?} and no time",
                refusal.code
            );
        }
        if refusal.code == Code::Draining {
            assert!(self.draining, "I6: {id:?} refused as draining, but nobody drains");
        }
        call.refused = Some(refusal.code);
        call.retry_after = refusal.retry_after;
    }

    /// The kernel's last word.
    ///
    /// # Panics
    /// When it is not the last, or not true (I6).
    pub fn settle(&mut self, now: At, settlement: &Settlement) -> Ended {
        let id = settlement.call;
        let Some(call) = self.live.remove(&id) else {
            panic!("I6: {id:?} settled but not alive: settled twice?")
        };
        assert!(call.attempt.is_none(), "I6: {id:?} settled while an attempt is under way");
        check_outcome(&call, settlement);
        assert_eq!(settlement.attempts, call.attempts, "I6: {id:?} settled with a wrong count of attempts");
        assert_eq!(
            (settlement.engine, settlement.replica),
            (call.place.map(|place| place.0), call.place.map(|place| place.1)),
            "I6: {id:?} settled with a wrong place"
        );
        assert_eq!(
            settlement.usage, call.used,
            "I12: {id:?} settled with a usage that is not the sum of what was reported"
        );
        let cost = call.price.of(&call.used).0..=call.cost_most;
        assert!(
            cost.contains(&settlement.cost.0),
            "I12: {id:?} cost {cost:?} but was charged {}",
            settlement.cost
        );
        let waited = now.micros_since(call.submitted) - call.ran_us;
        let told: u64 = settlement.waits.0.iter().sum();
        assert_eq!(
            told, waited,
            "waits: {id:?} waited {waited} us, told causes sum to {:?}",
            settlement.waits
        );
        Ended { call, outcome: settlement.outcome }
    }

    /// After a step in which the kernel was told `told` of this call: must it be over?
    ///
    /// # Panics
    /// When it must and is not (I6, I8).
    pub fn check_told(&self, id: CallId, told: Told) {
        let Some(call) = self.live.get(&id) else { return };
        if call.attempt.is_some() {
            // Dispatched anew in the same step.
            assert!(matches!(told, Told::Alive | Told::Failed(..)), "I8: {id:?} runs again after {told:?}");
            return;
        }
        match told {
            Told::Finished(_) => panic!("I6: {id:?} finished and was not settled at once"),
            Told::Cancelled => panic!("I8: {id:?} was cancelled and not settled at once"),
            Told::Failed(failure, began) => {
                let last = matches!(
                    failure,
                    Failure::Refused { .. } | Failure::TooLarge | Failure::Deadline | Failure::Unsent
                );
                assert!(
                    !began && !last,
                    "I6: {id:?} failed with {failure:?} (began: {began}) and was not settled at once"
                );
            }
            Told::Alive => {}
        }
        assert!(call.refused.is_none(), "I6: {id:?} refused and not settled at once");
    }

    /// No call waits longer than it may, all its stays in queues together, but for the
    /// pauses before its retries.
    ///
    /// # Panics
    /// When one does: it hangs (I7).
    pub fn check_patience(&self, now: At) {
        for call in self.live.values() {
            if call.attempt.is_some() {
                continue;
            }
            let waited = now.micros_since(call.submitted) - call.ran_us;
            let most = self.stay_us + self.pause_us * u64::from(call.attempts);
            assert!(
                waited <= most,
                "I7: {:?} of {} hangs: waits for {waited} us, {} attempts",
                call.submit.call,
                call.submit.tenant,
                call.attempts
            );
        }
    }
}

fn check_outcome(call: &Call, settlement: &Settlement) {
    let id = settlement.call;
    match settlement.outcome {
        Outcome::Done => {
            let Told::Finished(finish) = call.told else { panic!("I6: {id:?} done after {:?}", call.told) };
            assert_eq!(settlement.finish, finish, "I6: {id:?} settled with another reason for its end");
        }
        Outcome::Cancelled => {
            assert_eq!(call.told, Told::Cancelled, "I6: {id:?} cancelled, but its client stayed");
        }
        Outcome::Failed(code) => {
            if call.refused.is_some() {
                assert_eq!(
                    call.refused,
                    Some(code),
                    "I6: {id:?} settled with another code than its refusal's"
                );
                return;
            }
            if call.halted && code == Code::RunStopped {
                assert_eq!(call.told, Told::Cancelled, "stop: {id:?} was cut before it was stopped");
                return;
            }
            let Told::Failed(failure, true) = call.told else {
                panic!("I6: {id:?} failed with {code:?} without a refusal after {:?}", call.told)
            };
            assert_eq!(code, code_of(failure), "I6: {id:?} failed with {failure:?} but has another code");
        }
    }
}

/// The row of the table for a failure that nothing follows.
const fn code_of(failure: Failure) -> Code {
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
        Failure::Unsent => Code::Internal,
    }
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        input: a.input + b.input,
        cached: a.cached + b.cached,
        cache_written: a.cache_written + b.cache_written,
        output: a.output + b.output,
        reasoning: a.reasoning + b.reasoning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use seawall_kernel::input::Submit;
    use seawall_load::engine::Spec;
    use seawall_model::{Bytes, Class, MicroUsd, ModelId, Tenant, Tokens, Waits};

    fn book() -> (Calls, Plan, CallId) {
        let mut calls = Calls::default();
        let id = calls.name();
        let submit = Submit {
            call: id,
            tenant: Tenant::parse("acme").expect("valid"),
            model: ModelId(0),
            targets: vec![EngineId(0)],
            class: Class::Interactive,
            run: None,
            parent: None,
            agent: None,
            work: None,
            prompt: Tokens(10),
            prompt_max: Tokens(10),
            output_max: None,
            generates: true,
            bytes: Bytes(40),
            deadline: None,
            prefix: Box::default(),
        };
        calls.enter(Call::new(submit, At(1_000)));
        (calls, Scenario::quiet("test", 1, 1, &Spec::default()).plan, id)
    }

    fn grant(call: CallId, waited: u64) -> Grant {
        let waits = Waits([0, waited, 0, 0, 0, 0]);
        Grant { call, attempt: 1, engine: EngineId(0), replica: ReplicaId(0), target: 0, waits, repeats: 0 }
    }

    fn settlement(call: CallId, outcome: Outcome) -> Settlement {
        Settlement {
            call,
            outcome,
            engine: Some(EngineId(0)),
            replica: Some(ReplicaId(0)),
            attempts: 1,
            waits: Waits([0, 500, 0, 0, 0, 0]),
            usage: Usage::default(),
            reserved_output: Tokens::ZERO,
            cost: MicroUsd::ZERO,
            finish: None,
        }
    }

    fn finished() -> (Calls, CallId) {
        let (mut calls, plan, id) = book();
        calls.dispatch(At(1_500), &grant(id, 500), 1, &plan);
        calls.end_attempt(At(9_000), id, Told::Finished(None), Usage::default());
        (calls, id)
    }

    #[test]
    fn a_good_life_passes() {
        let (mut calls, id) = finished();
        calls.settle(At(9_000), &settlement(id, Outcome::Done));
        assert!(calls.is_empty());
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn a_second_last_word_is_caught() {
        let (mut calls, id) = finished();
        calls.settle(At(9_000), &settlement(id, Outcome::Done));
        calls.settle(At(9_000), &settlement(id, Outcome::Done));
    }

    #[test]
    #[should_panic(expected = "its client stayed")]
    fn a_false_last_word_is_caught() {
        let (mut calls, id) = finished();
        calls.settle(At(9_000), &settlement(id, Outcome::Cancelled));
    }

    #[test]
    #[should_panic(expected = "finished and was not settled")]
    fn a_missing_last_word_is_caught() {
        let (calls, id) = finished();
        calls.check_told(id, Told::Finished(None));
    }

    #[test]
    #[should_panic(expected = "waits:")]
    fn a_microsecond_without_a_cause_is_caught() {
        let (mut calls, plan, id) = book();
        calls.dispatch(At(1_500), &grant(id, 499), 1, &plan);
    }

    #[test]
    #[should_panic(expected = "vanished")]
    fn a_dispatch_to_nowhere_is_caught() {
        let (mut calls, plan, id) = book();
        calls.dispatch(At(1_500), &Grant { replica: ReplicaId(9), ..grant(id, 500) }, 1, &plan);
    }

    #[test]
    #[should_panic(expected = "hangs")]
    fn a_call_forgotten_in_the_queue_is_caught() {
        let (mut calls, plan, _) = book();
        calls.learn(&plan);
        calls.check_patience(At(60_000_000));
    }

    #[test]
    #[should_panic(expected = "and no time")]
    fn a_refusal_that_does_not_say_when_is_caught() {
        let (mut calls, _, id) = book();
        let refusal = Refusal { call: id, code: Code::QueueFull, retry_after: None, cause: None, what: None };
        calls.refuse(&refusal);
    }
}
