//! What the kernel shows of itself, held against the limits (I5), the fleet (I8) and the
//! rules of circuits and provider pauses.

use std::collections::BTreeMap;

use seawall_kernel::plan::Plan;
use seawall_kernel::view::{Circuit, ReplicaView, View};
use seawall_model::{At, Bytes, CallId, Millis, ReplicaId, limits};

use crate::calls::Calls;

/// What is known of a replica from outside.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Dispatched while half-open and not ended since.
    trials: Vec<CallId>,
    /// The provider asked for silence until then.
    pause_until: At,
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
    }

    /// A call goes to a replica.
    ///
    /// # Panics
    /// When its provider asked for silence.
    pub fn grant(&mut self, now: At, call: CallId, replica: ReplicaId) {
        let known = self.replicas.entry(replica).or_default();
        assert!(
            now >= known.pause_until,
            "rate: {call:?} went to {replica:?} {} us before the end of its provider's pause",
            known.pause_until.micros_since(now)
        );
        self.granted.push((call, replica));
    }

    /// An attempt ended.
    pub fn end(&mut self, call: CallId, replica: ReplicaId) {
        if let Some(known) = self.replicas.get_mut(&replica) {
            known.trials.retain(|trial| *trial != call);
        }
    }

    /// A provider asked for silence for so long.
    pub fn pause(&mut self, now: At, replica: ReplicaId, span: Millis) {
        let known = self.replicas.entry(replica).or_default();
        known.pause_until = known.pause_until.max(now.plus(span.min(PAUSE_MAX)));
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
    ///
    /// # Panics
    /// When one does not hold (I5, I6, I8).
    pub fn check(&mut self, now: At, plan: &Plan, view: &View, calls: &Calls, plain: bool) {
        assert_eq!(view.calls, calls.len(), "I6: the kernel knows another number of calls than the world");
        assert!(view.calls <= limits::CALLS_MAX, "I5: {} calls known", view.calls);
        assert!(view.tenants_len <= limits::TENANTS_MAX, "I5: {} tenants kept", view.tenants_len);
        assert!(view.tenants.len() <= limits::TENANT_LABELS_MAX, "I5: {} tenants shown", view.tenants.len());
        assert!(view.budgets.len() <= limits::BUDGETS_MAX, "I5: {} accounts shown", view.budgets.len());
        let mut queued_all = 0;
        for engine in &view.engines {
            let queued: usize = engine.queued.iter().sum();
            if queued > self.len_max || engine.queued_bytes > self.bytes_max {
                // A call that was admitted once keeps its right to a place when it is retried.
                let again: Vec<Bytes> = calls.iter().filter(|call| call.attempts > 0).map(|call| call.submit.bytes).collect();
                assert!(queued <= self.len_max + again.len(), "I5: {queued} calls wait for {:?}", engine.engine);
                let bytes = self.bytes_max + again.into_iter().sum();
                assert!(engine.queued_bytes <= bytes, "I5: {} wait for {:?}", engine.queued_bytes, engine.engine);
            }
            assert!(queued > 0 || engine.queued_bytes.0 == 0, "I5: bytes without calls wait for {:?}", engine.engine);
            queued_all += queued;
            let running: u32 = engine.replicas.iter().map(|replica| replica.running).sum();
            assert!(!plain || queued == 0 || running > 0, "I7: {queued} calls wait for {:?}, which is idle", engine.engine);
            for replica in &engine.replicas {
                let seen = calls.running(replica.replica);
                assert_eq!(replica.running, seen, "I8: {:?} runs {seen} calls, the kernel thinks {}", replica.replica, replica.running);
                assert!(
                    usize::try_from(replica.prefix_bytes.0).is_ok_and(|bytes| bytes <= limits::PREFIX_INDEX_BYTES_MAX),
                    "I5: the prefix index of {:?} has {}",
                    replica.replica, replica.prefix_bytes
                );
            }
        }
        let waiting = calls.len() - calls.running_all() as usize;
        assert!(queued_all <= waiting, "I6: {queued_all} calls in queues, but only {waiting} wait");
        self.queued_most = self.queued_most.max(queued_all);
        for (call, replica) in std::mem::take(&mut self.granted) {
            let engine = plan.engines.iter().find(|engine| engine.replicas.iter().any(|known| known.id == replica));
            let pace = engine.map(|engine| &engine.pace);
            let shown = view.engines.iter().flat_map(|engine| &engine.replicas).find(|shown| shown.replica == replica);
            let (Some(shown), Some(pace)) = (shown, pace) else { panic!("I6: {call:?} went to {replica:?}, which is not shown") };
            assert!(shown.running <= shown.limit, "I5: {replica:?} runs {} calls over its limit {}", shown.running, shown.limit);
            assert!(
                (pace.calls_min.max(1)..=pace.calls_max.max(1)).contains(&shown.limit),
                "I5: {replica:?} has a limit of {} calls, outside {}..={}",
                shown.limit, pace.calls_min, pace.calls_max
            );
            self.check_circuit(now, call, shown);
        }
    }

    fn check_circuit(&mut self, now: At, call: CallId, shown: &ReplicaView) {
        let known = self.replicas.entry(shown.replica).or_default();
        match shown.circuit {
            Circuit::Open => panic!("I6: {call:?} went to {:?} at {now:?}, whose circuit is open until {:?}", shown.replica, shown.open_until),
            Circuit::HalfOpen => {
                known.trials.push(call);
                assert!(known.trials.len() <= 1, "I6: {:?} is half-open and is tried by {:?}", shown.replica, known.trials);
            }
            Circuit::Closed => known.trials.clear(),
        }
    }
}
