//! Runs in trees as the world knows them: which hangs below which, which were stopped, and what
//! each tree was answered. Held against the kernel's kill switch (nothing of a stopped tree goes to
//! an engine) and its guard (two that answer each other for ever are stopped after so many rounds,
//! and nobody else is).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use seawall_kernel::input::Submit;
use seawall_kernel::plan::Plan;
use seawall_model::{Code, RunId};

/// The book.
#[derive(Debug, Default)]
pub struct Trees {
    parents: BTreeMap<RunId, RunId>,
    stopped: BTreeSet<RunId>,
    /// What a tree was answered last, by its root, newest first.
    answered: BTreeMap<RunId, VecDeque<u64>>,
    /// What a run was answered last, and how often in a row.
    rows: BTreeMap<RunId, (u64, u32)>,
}

impl Trees {
    /// A call asks: it says where its run hangs.
    pub fn hear(&mut self, submit: &Submit) {
        if let (Some(run), Some(parent)) = (submit.run, submit.parent) {
            self.parents.insert(run, parent);
        }
    }

    fn line(&self, run: RunId) -> impl Iterator<Item = RunId> {
        std::iter::successors(Some(run), |run| self.parents.get(run).copied())
    }

    fn root(&self, run: RunId) -> RunId {
        self.line(run).last().expect("a line begins with its run")
    }

    /// Operators stop a run and all below it, or let it go on.
    pub fn stop(&mut self, run: RunId, stop: bool) {
        if stop {
            self.stopped.insert(run);
        } else {
            self.stopped.remove(&run);
        }
    }

    /// Is the call's run stopped, or one above it?
    #[must_use]
    pub fn holds(&self, submit: &Submit) -> bool {
        submit.run.is_some_and(|run| self.line(run).any(|run| self.stopped.contains(&run)))
    }

    /// A call was answered in full.
    pub fn answered(&mut self, plan: &Plan, submit: &Submit) {
        let (Some(run), Some(work)) = (submit.run, submit.work) else { return };
        let talk = self.answered.entry(self.root(run)).or_default();
        talk.push_front(work);
        talk.truncate(2 * plan.guard.rounds as usize);
        let row = self.rows.entry(run).or_insert((work, 0));
        *row = if row.0 == work { (work, row.1 + 1) } else { (work, 1) };
    }

    /// Would this call begin one round more than may be: two requests in turn?
    #[must_use]
    pub fn goes_round(&self, plan: &Plan, submit: &Submit) -> bool {
        let (Some(run), Some(work)) = (submit.run, submit.work) else { return false };
        let Some(talk) = self.answered.get(&self.root(run)) else { return false };
        talk.len() >= 2 * plan.guard.rounds as usize
            && talk.iter().skip(1).step_by(2).all(|last| *last == work)
            && talk.iter().step_by(2).all(|last| *last != work && Some(last) == talk.front())
    }

    /// Was its run answered the same so often in a row already? Calls at once count apart
    /// here and not in the kernel, so this allows a stop and demands none.
    fn stands_still(&self, plan: &Plan, submit: &Submit) -> bool {
        let row = submit.run.and_then(|run| self.rows.get(&run));
        row.is_some_and(|(work, times)| Some(*work) == submit.work && *times >= plan.guard.repeats)
    }

    /// The kernel sends a call to an engine.
    ///
    /// # Panics
    /// When its tree is stopped, or goes round.
    pub fn grant(&self, plan: &Plan, submit: &Submit) {
        assert!(!self.holds(submit), "stop: {:?} of a stopped tree goes to an engine", submit.call);
        assert!(!self.goes_round(plan, submit), "loop: {:?} goes round once more", submit.call);
    }

    /// The kernel turns a call away.
    ///
    /// # Panics
    /// When it names a stop or a loop that is none.
    pub fn refuse(&self, plan: &Plan, submit: &Submit, code: Code) {
        match code {
            Code::RunStopped => {
                assert!(
                    self.holds(submit),
                    "stop: {:?} is refused, but nobody stopped its tree",
                    submit.call
                );
            }
            Code::LoopStopped => {
                let loops = self.goes_round(plan, submit) || self.stands_still(plan, submit);
                assert!(loops, "loop: {:?} is refused, but gets somewhere", submit.call);
            }
            _ => {}
        }
    }
}
