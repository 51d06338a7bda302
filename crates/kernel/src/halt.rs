//! The kill switch: a run that was stopped, and every run below it, has its waiting calls
//! refused, its running ones cut, and no new ones admitted, until it is resumed.
//!
//! Which run lies below which is what [`crate::kin`] has learned from the calls themselves.

use std::collections::BTreeSet;

use seawall_model::{CallId, Code, RunId, limits};

use crate::admit::No;
use crate::call::State;
use crate::effect::Effect;
use crate::kernel::Kernel;
use crate::kin::Kin;

/// What is stopped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halts {
    stopped: BTreeSet<RunId>,
}

impl Halts {
    /// Is the run stopped, or one above it?
    pub(crate) fn holds(&self, run: RunId, kin: &Kin) -> bool {
        !self.stopped.is_empty() && kin.line(run).any(|run| self.stopped.contains(&run))
    }

    pub(crate) fn check(&self) {
        assert!(self.stopped.len() <= limits::RUNS_STOPPED_MAX, "stopped runs are bounded");
    }
}

impl Kernel {
    /// Is there room to stop this run?
    #[must_use]
    pub fn can_stop(&self, run: RunId) -> bool {
        self.halts.stopped.contains(&run) || self.halts.stopped.len() < limits::RUNS_STOPPED_MAX
    }

    /// Is this run stopped, or one above it?
    #[must_use]
    pub fn stopped(&self, run: RunId) -> bool {
        self.halts.holds(run, &self.kin)
    }

    /// Calls of this run that wait or run at present.
    #[must_use]
    pub fn live_calls(&self, run: RunId) -> u32 {
        self.kin.calls(run)
    }

    /// Stops a run and all below it.
    pub(crate) fn stop(&mut self, run: RunId, out: &mut Vec<Effect>) {
        if !self.can_stop(run) {
            return;
        }
        self.halts.stopped.insert(run);
        let (halts, kin) = (&self.halts, &self.kin);
        let held = |call: &crate::call::Call| call.submit.run.is_some_and(|run| halts.holds(run, kin));
        let mut hit: Vec<(CallId, u32)> = self
            .calls
            .iter()
            .filter(|(_, call)| held(call))
            .map(|(at, call)| (call.submit.call, at))
            .collect();
        hit.sort_unstable();
        for (id, at) in hit {
            match self.calls[at].state {
                State::Running(_) => {
                    self.calls[at].halted = true;
                    out.push(Effect::Halt { call: id });
                }
                State::Queued(_) | State::Paused(_) => {
                    self.withdraw(at);
                    self.refuse(at, No::plain(Code::RunStopped), out);
                }
                // Neither queued nor running is only what is being taken in this moment.
                State::Fresh => {}
            }
        }
    }

    /// Lets a run go on.
    pub(crate) fn resume_run(&mut self, run: RunId) {
        self.halts.stopped.remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_reaches_all_below_and_nothing_beside() {
        let mut kin = Kin::default();
        for (run, parent) in [(2, 1), (3, 2), (4, 1), (6, 5)] {
            kin.learn(RunId(run), RunId(parent));
        }
        let mut halts = Halts::default();
        halts.stopped.insert(RunId(2));
        let held: Vec<u64> = (1..=6).filter(|run| halts.holds(RunId(*run), &kin)).collect();
        assert_eq!(held, [2, 3]);
        halts.check();
    }
}
