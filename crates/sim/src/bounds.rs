//! What the kernel shows of itself, held against the limits (I5), the fleet (I8) and the
//! rules of circuits and provider pauses.

use std::collections::{BTreeMap, BTreeSet};

use seawall_kernel::plan::{Engine, Plan};
use seawall_kernel::view::{Circuit, EngineView, ReplicaView, View};
use seawall_model::{At, Bytes, CallId, Millis, ReplicaId, limits};

use crate::calls::{Call, Calls};

/// What is known of a replica from outside.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Dispatched while half-open and not ended since.
    trials: Vec<CallId>,
    /// The provider asked for silence until then: for a model, or for all.
    pauses: BTreeMap<Option<u32>, At>,
}

/// The watch over replicas.
#[derive(Debug, Default)]
pub struct Bounds {
    replicas: BTreeMap<ReplicaId, Known>,
    /// Dispatched in the step under way.
    granted: Vec<(CallId, ReplicaId)>,
    /// Largest queue that any plan of this kernel allowed: calls keep their places.
    len_max: usize,
    bytes_max: Bytes,
    /// Replicas of the present plan: of others the kernel need not remember what they said.
    present: BTreeSet<ReplicaId>,
    /// Most calls seen in queues at once, for the summary.
    pub queued_most: usize,
}

/// Longest pause that a provider is taken at its word for.
const PAUSE_MAX: Millis = Millis(60_000);

impl Bounds {
    /// A plan holds from now on.
    pub fn learn(&mut self, plan: &Plan) {
        self.len_max = self.len_max.max(plan.queue.len_max);
        self.bytes_max = self.bytes_max.max(plan.queue.bytes_max);
        self.present =
            plan.engines.iter().flat_map(|engine| engine.replicas.iter().map(|replica| replica.id)).collect();
        // One that leaves the plan may come back as a stranger.
        let present = &self.present;
        self.replicas.retain(|id, _| present.contains(id));
        // A new plan may have come with a new key: the provider is asked again.
        self.replicas.values_mut().for_each(|known| known.pauses.clear());
    }

    /// A circuit half-opens: earlier trials were of earlier times.
    pub fn half_open(&mut self, replica: ReplicaId) {
        self.replicas.entry(replica).or_default().trials.clear();
    }

    /// A call goes to a replica.
    ///
    /// # Panics
    /// When its provider asked for silence.
    pub fn grant(&mut self, now: At, call: CallId, replica: ReplicaId, upstream: Option<u32>) {
        let known = self.replicas.entry(replica).or_default();
        for of in [None, upstream] {
            let until = known.pauses.get(&of).copied().unwrap_or(At(0));
            assert!(
                now >= until,
                "rate: {call:?} went to {replica:?} {} us before the end of its provider's pause",
                until.micros_since(now)
            );
        }
        self.granted.push((call, replica));
    }

    /// An attempt ended.
    pub fn end(&mut self, call: CallId, replica: ReplicaId) {
        if let Some(known) = self.replicas.get_mut(&replica) {
            known.trials.retain(|trial| *trial != call);
        }
    }

    /// A provider asked for silence for so long, of calls for this model or of all.
    pub fn pause(&mut self, now: At, replica: ReplicaId, upstream: Option<u32>, span: Millis) {
        if !self.present.contains(&replica) {
            return;
        }
        let known = self.replicas.entry(replica).or_default();
        let until = known.pauses.entry(upstream).or_insert(At(0));
        *until = (*until).max(now.plus(span.min(PAUSE_MAX)));
    }

    /// The kernel is started anew and knows nothing of pauses and trials.
    pub fn restart(&mut self) {
        self.replicas.clear();
        self.granted.clear();
        (self.len_max, self.bytes_max) = (0, Bytes::ZERO);
    }

    /// The step under way is not looked at.
    pub fn skip(&mut self) {
        self.granted.clear();
    }

    /// Holds a picture of the kernel against the limits and the world, after a step.
    /// `plain` worlds have engines that never fail, so none may idle while calls wait.
    ///
    /// # Panics
    /// When one does not hold (I5, I6, I7, I8).
    pub fn check(&mut self, now: At, plan: &Plan, view: &View, calls: &Calls, plain: bool) {
        let known = calls.len();
        assert_eq!(view.calls, known, "I6: the kernel knows another number of calls than the world");
        let bounds = [
            ("calls known", view.calls, limits::CALLS_MAX),
            ("tenants kept", view.tenants_len, limits::TENANTS_MAX),
            ("tenants shown", view.tenants.len(), limits::TENANT_LABELS_MAX),
            ("accounts shown", view.budgets.len(), limits::BUDGETS_MAX),
        ];
        for (what, count, most) in bounds {
            assert!(count <= most, "I5: {count} {what}, over {most}");
        }
        let mut queued = 0;
        for engine in &view.engines {
            queued += self.check_engine(engine, calls, plain);
        }
        let waiting = known - calls.running_all() as usize;
        assert!(queued <= waiting, "I6: {queued} calls in queues, but only {waiting} wait");
        self.queued_most = self.queued_most.max(queued);
        for (call, replica) in std::mem::take(&mut self.granted) {
            self.check_grant(now, plan, view, call, replica);
        }
    }

    /// Returns how many calls wait for it.
    fn check_engine(&self, engine: &EngineView, calls: &Calls, plain: bool) -> usize {
        let id = engine.engine;
        let (queued, bytes) = (engine.queued.iter().sum(), engine.queued_bytes);
        if queued > self.len_max || bytes > self.bytes_max {
            // A call that was admitted once keeps its right to a place when it is retried.
            let again: Vec<&Call> = calls.iter().filter(|call| call.attempts > 0).collect();
            assert!(queued <= self.len_max + again.len(), "I5: {queued} calls wait for {id:?}");
            let most = self.bytes_max + again.iter().map(|call| call.submit.bytes).sum();
            assert!(bytes <= most, "I5: {bytes} wait for {id:?}");
        }
        assert!(queued > 0 || bytes == Bytes::ZERO, "I5: bytes without calls wait for {id:?}");
        let running: u32 = engine.replicas.iter().map(|replica| replica.running).sum();
        assert!(!plain || queued == 0 || running > 0, "I7: {queued} calls wait for {id:?}, which is idle");
        for replica in &engine.replicas {
            let (id, thinks) = (replica.replica, replica.running);
            let runs = calls.running(id);
            assert_eq!(thinks, runs, "I8: {id:?} runs {runs} calls, the kernel thinks {thinks}");
            let bytes = replica.prefix_bytes;
            let within = usize::try_from(bytes.0).is_ok_and(|bytes| bytes <= limits::PREFIX_INDEX_BYTES_MAX);
            assert!(within, "I5: the prefix index of {id:?} has {bytes}");
        }
        queued
    }

    /// A call was just dispatched to this replica: was there room, and a closed circuit?
    fn check_grant(&mut self, now: At, plan: &Plan, view: &View, call: CallId, id: ReplicaId) {
        let has = |engine: &&Engine| engine.replicas.iter().any(|known| known.id == id);
        let pace = plan.engines.iter().find(has).map(|engine| &engine.pace);
        let mut replicas = view.engines.iter().flat_map(|engine| &engine.replicas);
        let shown = replicas.find(|shown| shown.replica == id);
        let (Some(shown), Some(pace)) = (shown, pace) else {
            panic!("I6: {call:?} went to {id:?}, which is not shown")
        };
        let (running, limit) = (shown.running, shown.limit);
        assert!(running <= limit, "I5: {id:?} runs {running} calls over its limit {limit}");
        let range = pace.calls_min.max(1)..=pace.calls_max.max(1);
        assert!(range.contains(&limit), "I5: {id:?} has a limit of {limit} calls, outside {range:?}");
        self.check_circuit(now, call, shown);
    }

    fn check_circuit(&mut self, now: At, call: CallId, shown: &ReplicaView) {
        let known = self.replicas.entry(shown.replica).or_default();
        match shown.circuit {
            Circuit::Open => panic!(
                "I6: {call:?} went to {:?} at {now:?}, whose circuit is open until {:?}",
                shown.replica, shown.open_until
            ),
            Circuit::HalfOpen => {
                known.trials.push(call);
                assert!(
                    known.trials.len() <= 1,
                    "I6: {:?} is half-open and is tried by {:?}",
                    shown.replica,
                    known.trials
                );
            }
            Circuit::Closed => known.trials.clear(),
        }
    }
}
