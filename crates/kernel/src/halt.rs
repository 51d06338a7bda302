//! The kill switch: a run that was stopped, and every run below it, has its waiting calls
//! refused, its running ones cut, and no new ones admitted, until it is resumed.
//!
//! Which run lies below which is learned from the calls themselves: each names its run's
//! parent.

use std::collections::{BTreeMap, BTreeSet};

use seawall_model::{CallId, Code, RunId, limits};

use crate::admit::No;
use crate::call::State;
use crate::effect::Effect;
use crate::input::Submit;
use crate::kernel::Kernel;
use crate::slab::Slab;

/// Slots looked at for one that may go.
const SWEEP: usize = 64;

/// A run that has a parent.
#[derive(Clone, Debug)]
struct Child {
    run: RunId,
    parent: RunId,
    used: bool,
}

/// What is stopped, and the run trees as far as they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halts {
    stopped: BTreeSet<RunId>,
    index: BTreeMap<RunId, u32>,
    children: Slab<Child>,
}

impl Halts {
    /// Learns where a call's run hangs. What is said last counts.
    pub(crate) fn learn(&mut self, submit: &Submit) {
        let (Some(run), Some(parent)) = (submit.run, submit.parent) else { return };
        if run == parent {
            return;
        }
        if let Some(at) = self.index.get(&run) {
            let child = &mut self.children[*at];
            (child.parent, child.used) = (parent, true);
            return;
        }
        if self.children.len() >= limits::RUN_CHILDREN_MAX {
            let old = self.children.sweep(SWEEP, |_| true, |child| &mut child.used);
            if let Some(old) = old.and_then(|old| self.children.remove(old)) {
                self.index.remove(&old.run);
            }
        }
        let at = self.children.insert(Child { run, parent, used: true });
        self.index.insert(run, at);
    }

    /// Is the run stopped, or one above it?
    pub(crate) fn holds(&self, run: RunId) -> bool {
        if self.stopped.is_empty() {
            return false;
        }
        let mut at = Some(run);
        // A tree that bites its own tail ends here as well.
        for _ in 0..limits::RUN_DEPTH_MAX {
            let Some(run) = at else { return false };
            if self.stopped.contains(&run) {
                return true;
            }
            at = self.index.get(&run).map(|at| self.children[*at].parent);
        }
        false
    }

    pub(crate) fn check(&self) {
        assert!(self.stopped.len() <= limits::RUNS_STOPPED_MAX, "stopped runs are bounded");
        assert!(self.children.len() <= limits::RUN_CHILDREN_MAX, "known children are bounded");
        assert_eq!(self.children.len(), self.index.len(), "each child is found by its id");
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
        self.halts.holds(run)
    }

    /// Stops a run and all below it.
    pub(crate) fn stop(&mut self, run: RunId, out: &mut Vec<Effect>) {
        if !self.can_stop(run) {
            return;
        }
        self.halts.stopped.insert(run);
        let halts = &self.halts;
        let held = |call: &crate::call::Call| call.submit.run.is_some_and(|run| halts.holds(run));
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

    fn tree(pairs: &[(u64, u64)]) -> Halts {
        let mut halts = Halts::default();
        for (run, parent) in pairs {
            let at = halts.children.insert(Child { run: RunId(*run), parent: RunId(*parent), used: true });
            halts.index.insert(RunId(*run), at);
        }
        halts
    }

    #[test]
    fn a_stop_reaches_all_below_and_nothing_beside() {
        let mut halts = tree(&[(2, 1), (3, 2), (4, 1), (6, 5)]);
        halts.stopped.insert(RunId(2));
        let held: Vec<u64> = (1..=6).filter(|run| halts.holds(RunId(*run))).collect();
        assert_eq!(held, [2, 3]);
        halts.check();
    }

    #[test]
    fn a_tree_that_bites_its_tail_is_walked_to_an_end() {
        let mut halts = tree(&[(1, 2), (2, 1)]);
        halts.stopped.insert(RunId(9));
        assert!(!halts.holds(RunId(1)));
        halts.stopped.insert(RunId(2));
        assert!(halts.holds(RunId(1)));
    }
}
