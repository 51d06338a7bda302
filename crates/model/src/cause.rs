//! What an agent waits for, as far as its row tells: by this those that are rows alone are
//! counted.

use crate::At;
use crate::durable::{AgentRow, Pending, Rung, Stage, Standing};
use crate::effect::Work;

impl AgentRow {
    /// The name of what it waits for, the nearest: one of a closed list, as in metrics. `None`
    /// where it does not wait. Of the time it knows when the row was changed: what rests by
    /// itself, or is tried again later, is due then and changed by it. Stops are not in it.
    #[must_use]
    pub fn cause(&self) -> Option<&'static str> {
        match self.standing {
            Standing::Quarantined => return Some("quarantine"),
            Standing::Idle | Standing::Done => return None,
            Standing::Active => {}
        }
        if self.is_held_by_guard() {
            return Some("guard");
        }
        let wakeful = self.is_wakeful();
        if wakeful && self.rests_until > self.changed {
            return Some("rest");
        }
        self.awaited().next().map(Pending::cause).or_else(|| (!wakeful).then_some("message"))
    }

    /// Effects under way of the run it works on, the nearest first: a doubt is what only
    /// people can end, so it stands before what ends by itself.
    pub fn awaited(&self) -> impl Iterator<Item = &Pending> {
        let own = || self.pending.iter().filter(|pending| Some(pending.id.run) == self.run);
        let is_doubt =
            |pending: &&Pending| matches!(pending.stage, Stage::Doubtful { .. }) && !pending.is_dropped();
        own().filter(is_doubt).chain(own().filter(move |pending| !is_doubt(pending)))
    }

    /// Does it wait for a human, because it made no progress?
    #[must_use]
    pub fn is_held_by_guard(&self) -> bool {
        self.rests_until == At::MAX && self.progress.rung >= Rung::Paused
    }
}

impl Pending {
    /// The name of what it waits for.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match (&self.stage, &self.work) {
            (Stage::Approving { .. }, _) => "approval",
            (Stage::Doubtful { .. }, _) => "in_doubt",
            (Stage::Ready { after }, _) if *after > self.asked => "retry",
            (Stage::Attempted, Work::Model { .. }) => "model_call",
            (Stage::Attempted, Work::Tool { .. }) => "tool_call",
            (_, Work::Model { .. }) => "model_slot",
            (_, Work::Tool { .. }) => "tool_slot",
            (_, Work::Timer { .. }) => "timer",
            (_, Work::Acquire { .. }) => "lease",
            (_, work) => work.kind(),
        }
    }
}
