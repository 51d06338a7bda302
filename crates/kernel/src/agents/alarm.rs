//! What will happen by itself, in order of time; one alarm per subject.

use std::collections::BTreeSet;
use std::sync::Arc;

use seawall_model::{Address, At};

use super::shard::Name;

/// What an alarm is for. A stale one finds nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// Something of an agent is due: a timer, a retry, a deadline, or its rest is over.
    Agent(Address),
    /// A lease ends.
    Lease(Name),
    /// A type's schedule fires.
    Schedule(Arc<str>),
    /// It is time to look further ahead.
    Ahead,
}

/// All alarms.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms(BTreeSet<(At, Alarm)>);

impl Alarms {
    pub(super) fn arm(&mut self, at: At, alarm: Alarm) {
        if at < At::MAX {
            self.0.insert((at, alarm));
        }
    }

    pub(super) fn disarm(&mut self, at: At, alarm: Alarm) {
        self.0.remove(&(at, alarm));
    }

    pub(super) fn disarm_schedules(&mut self) {
        self.0.retain(|(_, alarm)| !matches!(alarm, Alarm::Schedule(_)));
    }

    pub(super) fn next(&self) -> Option<At> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn pop(&mut self, now: At) -> Option<Alarm> {
        let due = self.0.first().is_some_and(|(at, _)| *at <= now);
        if due { self.0.pop_first().map(|(_, alarm)| alarm) } else { None }
    }

    #[cfg(test)]
    pub(super) fn leases(&self) -> usize {
        self.0.iter().filter(|(_, alarm)| matches!(alarm, Alarm::Lease(_))).count()
    }
}
