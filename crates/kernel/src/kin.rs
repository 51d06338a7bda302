//! Runs and their kin: which run hangs below which, as far as their calls have said, and
//! which of them have calls at present. Whoever deals with a tree of runs asks here: the
//! kill switch, the guard against loops, and fair order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use seawall_model::{RunId, limits};

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

/// A run that has calls waiting or running, or is the root of others that have.
#[derive(Clone, Copy, Debug)]
struct Live {
    calls: u32,
    /// Its root when the first of them came: where it is counted.
    root: RunId,
    /// Other live runs that are counted here.
    below: u32,
}

/// The trees of runs, with at most [`limits::RUN_CHILDREN_MAX`] children; those not seen
/// lately leave first. What is live is bounded by the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kin {
    index: BTreeMap<RunId, u32>,
    children: Slab<Child>,
    live: BTreeMap<RunId, Live>,
}

impl Kin {
    /// Learns where a run hangs. What is said last counts, unless the tree would bite its
    /// own tail: then it is not heard.
    pub(crate) fn learn(&mut self, run: RunId, parent: RunId) {
        if let Some(at) = self.index.get(&run) {
            let child = &mut self.children[*at];
            child.used = true;
            if child.parent == parent {
                return;
            }
        }
        if self.line(parent).any(|above| above == run) {
            return;
        }
        if let Some(at) = self.index.get(&run) {
            self.children[*at].parent = parent;
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

    fn parent(&self, run: RunId) -> Option<RunId> {
        self.index.get(&run).map(|at| self.children[*at].parent)
    }

    /// The run and those above it, at most [`limits::RUN_DEPTH_MAX`], so that no tree that
    /// a client makes up is without an end.
    pub(crate) fn line(&self, run: RunId) -> impl Iterator<Item = RunId> {
        std::iter::successors(Some(run), |run| self.parent(*run)).take(limits::RUN_DEPTH_MAX)
    }

    /// The topmost run above a run; itself, if there is none.
    pub(crate) fn root(&self, run: RunId) -> RunId {
        self.line(run).last().unwrap_or(run)
    }

    /// Are there more generations than so many from the root down to the run?
    pub(crate) fn is_deeper(&self, run: RunId, most: u32) -> bool {
        std::iter::successors(Some(run), |run| self.parent(*run)).nth(most as usize).is_some()
    }

    /// Live runs in the tree of a run that is not live itself.
    pub(crate) fn others(&self, run: RunId) -> usize {
        let root = self.root(run);
        if root != run && self.calls(run) > 0 {
            return 0;
        }
        let Some(live) = self.live.get(&root) else { return 0 };
        match live.calls {
            0 => live.below as usize,
            _ if root == run => 0,
            _ => live.below as usize + 1,
        }
    }

    /// Calls that wait or run of this run.
    pub(crate) fn calls(&self, run: RunId) -> u32 {
        self.live.get(&run).map_or(0, |live| live.calls)
    }

    /// A call of the run is known from now on.
    pub(crate) fn begin(&mut self, run: RunId) {
        let root = self.root(run);
        let live = self.live.entry(run).or_insert(Live { calls: 0, root, below: 0 });
        live.calls += 1;
        if live.calls > 1 {
            return;
        }
        live.root = root;
        if root != run {
            self.live.entry(root).or_insert(Live { calls: 0, root, below: 0 }).below += 1;
        }
    }

    /// A call of the run is over.
    pub(crate) fn end(&mut self, run: RunId) {
        let Entry::Occupied(mut live) = self.live.entry(run) else { return };
        live.get_mut().calls -= 1;
        let Live { calls, root, below } = *live.get();
        if calls > 0 {
            return;
        }
        if below == 0 {
            live.remove();
        }
        if root == run {
            return;
        }
        if let Some(live) = self.live.get_mut(&root) {
            live.below -= 1;
            if live.below == 0 && live.calls == 0 {
                self.live.remove(&root);
            }
        }
    }

    pub(crate) fn check(&self, calls: impl Iterator<Item = RunId>) {
        assert!(self.children.len() <= limits::RUN_CHILDREN_MAX, "known children are bounded");
        assert_eq!(self.children.len(), self.index.len(), "each child is found by its id");
        let mut counted = BTreeMap::<RunId, u32>::new();
        for run in calls {
            *counted.entry(run).or_default() += 1;
        }
        let at_work = self.live.iter().filter(|(_, live)| live.calls > 0);
        assert!(
            at_work.clone().map(|(run, live)| (*run, live.calls)).eq(counted),
            "runs count the calls that are known"
        );
        let below = at_work.filter(|(run, live)| **run != live.root).count();
        let counted: u32 = self.live.values().map(|live| live.below).sum();
        assert_eq!(counted as usize, below, "roots count the live runs below them");
        assert!(self.live.values().all(|live| live.calls + live.below > 0), "who rests is forgotten");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin(pairs: &[(u64, u64)]) -> Kin {
        let mut kin = Kin::default();
        for (run, parent) in pairs {
            kin.learn(RunId(*run), RunId(*parent));
        }
        kin
    }

    #[test]
    fn every_run_of_a_tree_has_its_root() {
        let mut kin = kin(&[(2, 1), (3, 2), (4, 1), (6, 5)]);
        let roots: Vec<u64> = (1..=7).map(|run| kin.root(RunId(run)).0).collect();
        assert_eq!(roots, [1, 1, 1, 1, 5, 5, 7]);
        kin.learn(RunId(2), RunId(5));
        assert_eq!(kin.root(RunId(3)), RunId(5), "what is said last counts");
    }

    #[test]
    fn no_tree_bites_its_tail_and_each_has_an_end() {
        let mut kin = kin(&[(1, 1), (2, 1), (3, 2), (1, 3)]);
        assert_eq!(kin.root(RunId(3)), RunId(1), "a claim that makes a circle is not heard");
        let bottom = 100 + 2 * limits::RUN_DEPTH_MAX as u64;
        for run in 100..bottom {
            kin.learn(RunId(run + 1), RunId(run));
        }
        for most in [1, 16, limits::RUN_DEPTH_MAX as u32] {
            assert!(!kin.is_deeper(RunId(100 + u64::from(most) - 1), most));
            assert!(kin.is_deeper(RunId(100 + u64::from(most)), most));
        }
        // Too long to be seen as a circle; its walk still ends.
        kin.learn(RunId(100), RunId(bottom));
        assert_eq!(kin.line(RunId(120)).count(), limits::RUN_DEPTH_MAX);
        assert!(kin.is_deeper(RunId(120), limits::RUN_DEPTH_MAX as u32));
    }

    #[test]
    fn live_runs_are_counted_by_tree() {
        let mut kin = kin(&[(2, 1), (3, 1)]);
        let calls = [1, 2, 2, 3].map(RunId);
        for run in calls {
            kin.begin(run);
        }
        kin.check(calls.into_iter());
        kin.learn(RunId(4), RunId(3));
        assert_eq!((kin.others(RunId(4)), kin.others(RunId(2)), kin.others(RunId(9))), (3, 0, 0));
        // A run that moves while it is live is counted where it came in.
        kin.learn(RunId(2), RunId(9));
        for run in calls {
            kin.end(run);
        }
        kin.check(std::iter::empty());
        assert_eq!(kin.others(RunId(4)), 0);
    }

    #[test]
    fn so_many_children_are_remembered() {
        let mut kin = Kin::default();
        for run in 1..limits::RUN_CHILDREN_MAX as u64 + 500 {
            kin.learn(RunId(run), RunId(0));
        }
        kin.check(std::iter::empty());
    }
}
