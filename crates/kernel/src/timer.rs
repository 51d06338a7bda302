//! What will happen by itself: alarms in order of time, then of kind, so that two at
//! the same moment always ring in the same order.

use std::collections::BTreeSet;

use seawall_model::{At, CallId, EngineId, ReplicaId};

/// What an alarm is for. Each names its subject by an id that is never reused, and a
/// stale alarm finds nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A replica's circuit half-opens.
    Circuit(EngineId, ReplicaId),
    /// An engine's rate or a replica's pause is over.
    Engine(EngineId),
    /// An engine has been down as long as its callers should wait.
    Down(EngineId),
    /// A tenant node's rate has room again.
    Node(u32, u64),
    /// A budget's window ends.
    Account(u64),
    /// A retry's pause is over.
    Retry(CallId),
    /// A call has waited its longest, or can no longer meet its deadline.
    Call(CallId),
    /// Time to tell what was spent.
    Spent,
}

/// All alarms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(At, Alarm)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: At, alarm: Alarm) {
        if at < At::MAX {
            self.set.insert((at, alarm));
        }
    }

    pub(crate) fn disarm(&mut self, at: At, alarm: Alarm) {
        self.set.remove(&(at, alarm));
    }

    pub(crate) fn next(&self) -> Option<At> {
        self.set.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self, now: At) -> Option<Alarm> {
        let (at, alarm) = *self.set.first()?;
        (at <= now).then(|| {
            self.set.pop_first();
            alarm
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }
}
