//! Runs on one engine, and the trees they form: what each has been served (least attained
//! service goes first, Autellix, arXiv 2502.13965) and where a run's last call ran.
//!
//! Service is attained by the tree first: a run that sets a hundred others to work does not
//! get a hundred shares for it. Within a tree the run that had least goes first.

use std::collections::{BTreeMap, BTreeSet};

use seawall_model::{CallId, ReplicaId, RunId, Tenant, limits};

use crate::call::{By, Call, List, id_of};
use crate::slab::Slab;

/// Slots looked at for one that may go.
const SWEEP: usize = 512;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    id: RunId,
    tenant: Tenant,
    /// The tree it belongs to.
    pub(crate) tree: u32,
    /// Cost served to it, in tenths of a unit.
    service: u64,
    /// Its last replica.
    pub(crate) replica: Option<ReplicaId>,
    /// Its waiting calls, by class.
    lists: [List; 3],
    /// Its calls waiting or running on this engine.
    pub(crate) live: u32,
    used: bool,
}

/// A tree of runs. Most are of one run.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: RunId,
    tenant: Tenant,
    /// Cost served to all its runs, in tenths of a unit.
    pub(crate) service: u64,
    /// Its runs; without any it is gone.
    runs: u32,
    /// The runs with waiting calls, by class.
    pub(crate) orders: [Order; 3],
    /// The flows they wait in.
    pub(crate) homes: [u32; 3],
}

/// What stands in a tree's order: service, first call, run.
type Place = (u64, CallId, u32);

/// Runs in the order in which they go. The first stands apart, so that a tree of one run
/// takes no memory of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    first: Option<Place>,
    rest: BTreeSet<Place>,
}

impl Order {
    pub(crate) const fn first(&self) -> Option<&Place> {
        self.first.as_ref()
    }

    fn insert(&mut self, place: Place) {
        match self.first {
            Some(first) if first < place => {
                self.rest.insert(place);
            }
            first => {
                self.first = Some(place);
                self.rest.extend(first);
            }
        }
    }

    fn remove(&mut self, place: &Place) {
        if self.first.as_ref() == Some(place) {
            self.first = self.rest.pop_first();
        } else {
            self.rest.remove(place);
        }
    }

    fn contains(&self, place: &Place) -> bool {
        self.first.as_ref() == Some(place) || self.rest.contains(place)
    }

    fn len(&self) -> usize {
        self.rest.len() + usize::from(self.first.is_some())
    }
}

/// The runs of one engine, at most [`limits::RUNS_MAX`]; those not used lately leave first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    index: BTreeMap<RunId, u32>,
    pub(crate) slab: Slab<Run>,
    roots: BTreeMap<RunId, u32>,
    /// No more than there are runs.
    pub(crate) trees: Slab<Tree>,
}

impl Runs {
    /// The run, made if need be, in the tree of that root. `None` if all places are taken by
    /// runs at work, or if an id belongs to another tenant: then the call counts as a run of
    /// its own.
    pub(crate) fn open(&mut self, id: RunId, root: RunId, tenant: &Tenant) -> Option<u32> {
        if let Some(at) = self.index.get(&id).copied() {
            let run = &mut self.slab[at];
            run.used = true;
            if run.tenant != *tenant {
                return None;
            }
            // A run with calls on the way stays where they are counted until they are over.
            if run.live == 0 && self.trees[run.tree].root != root {
                self.move_to(at, root, tenant);
            }
            return Some(at);
        }
        if self.slab.len() >= limits::RUNS_MAX {
            let old = self.slab.sweep(SWEEP, |run| run.live == 0, |run| &mut run.used)?;
            let old = self.slab.remove(old)?;
            self.index.remove(&old.id);
            self.forsake(old.tree);
        }
        let tree = self.tree(root, tenant)?;
        let run = Run {
            id,
            tenant: tenant.clone(),
            tree,
            service: 0,
            replica: None,
            lists: [List::default(); 3],
            live: 0,
            used: true,
        };
        let at = self.slab.insert(run);
        self.index.insert(id, at);
        Some(at)
    }

    /// A tree with room for one more run, which is counted. `None` if it is another tenant's.
    fn tree(&mut self, root: RunId, tenant: &Tenant) -> Option<u32> {
        let at = match self.roots.get(&root) {
            Some(at) if self.trees[*at].tenant != *tenant => return None,
            Some(at) => *at,
            None => {
                let at = self.trees.insert(Tree {
                    root,
                    tenant: tenant.clone(),
                    service: 0,
                    runs: 0,
                    orders: Default::default(),
                    homes: [0; 3],
                });
                self.roots.insert(root, at);
                at
            }
        };
        self.trees[at].runs += 1;
        Some(at)
    }

    /// A run has left this tree.
    fn forsake(&mut self, tree: u32) {
        self.trees[tree].runs -= 1;
        if self.trees[tree].runs == 0
            && let Some(gone) = self.trees.remove(tree)
        {
            self.roots.remove(&gone.root);
        }
    }

    /// An idle run turns out to hang elsewhere. What it was served stays with the old tree.
    fn move_to(&mut self, run: u32, root: RunId, tenant: &Tenant) {
        if let Some(tree) = self.tree(root, tenant) {
            let old = std::mem::replace(&mut self.slab[run].tree, tree);
            self.forsake(old);
        }
    }

    /// A call waits.
    pub(crate) fn join(&mut self, run: u32, class: usize, at: u32, calls: &mut Slab<Call>) {
        self.change(run, class, calls, |list, calls| list.insert(calls, at, By::Run));
    }

    /// A call waits no more.
    pub(crate) fn leave(&mut self, run: u32, class: usize, at: u32, calls: &mut Slab<Call>) {
        self.change(run, class, calls, |list, calls| list.remove(calls, at, By::Run));
    }

    fn change(
        &mut self,
        run: u32,
        class: usize,
        calls: &mut Slab<Call>,
        how: impl Fn(&mut List, &mut Slab<Call>),
    ) {
        let record = &mut self.slab[run];
        let list = &mut record.lists[class];
        let before = list.head();
        how(list, calls);
        let after = list.head();
        if before == after {
            return;
        }
        let order = &mut self.trees[record.tree].orders[class];
        if let Some(before) = before {
            order.remove(&(record.service, id_of(calls, before), run));
        }
        if let Some(after) = after {
            order.insert((record.service, id_of(calls, after), run));
        }
    }

    /// A run was served: it and its tree have attained more.
    pub(crate) fn serve(&mut self, run: u32, delta: i64, calls: &Slab<Call>) {
        let record = &mut self.slab[run];
        let tree = &mut self.trees[record.tree];
        let service = record.service.saturating_add_signed(delta);
        for (list, order) in record.lists.iter().zip(&mut tree.orders) {
            if let Some(head) = list.head() {
                let id = id_of(calls, head);
                order.remove(&(record.service, id, run));
                order.insert((service, id, run));
            }
        }
        record.service = service;
        tree.service = tree.service.saturating_add_signed(delta);
    }

    /// The call of a tree that goes first in a class.
    pub(crate) fn first(&self, tree: u32, class: usize) -> Option<u32> {
        let (_, _, run) = self.trees[tree].orders[class].first()?;
        self.slab[*run].lists[class].head()
    }

    pub(crate) fn check(&self, calls: &Slab<Call>) {
        assert!(self.slab.len() <= limits::RUNS_MAX, "runs are bounded");
        assert_eq!(self.slab.len(), self.index.len(), "each run is found by its id");
        assert_eq!(self.trees.len(), self.roots.len(), "each tree is found by its root");
        let (mut runs, mut waiting) = (BTreeMap::<u32, u32>::new(), 0);
        for (at, run) in self.slab.iter() {
            *runs.entry(run.tree).or_default() += 1;
            for (list, order) in run.lists.iter().zip(&self.trees[run.tree].orders) {
                if let Some(head) = list.head() {
                    waiting += 1;
                    assert!(
                        order.contains(&(run.service, id_of(calls, head), at)),
                        "who waits stands in its tree"
                    );
                }
            }
        }
        assert!(self.trees.iter().map(|(at, tree)| (at, tree.runs)).eq(runs), "trees count their runs");
        let standing: usize = self.trees.iter().flat_map(|(_, tree)| &tree.orders).map(Order::len).sum();
        assert_eq!(standing, waiting, "only runs that wait stand in their trees");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_runs_make_room_and_busy_ones_stay() {
        let (mut runs, calls) = (Runs::default(), Slab::default());
        let tenant = Tenant::local();
        let busy = runs.open(RunId(0), RunId(0), &tenant).expect("room");
        runs.slab[busy].live = 1;
        for id in 1..limits::RUNS_MAX as u64 + 100 {
            // Some stand alone, and some have a parent that was never seen itself.
            let root = if id % 3 == 0 { id } else { 1_000_000 + id % 50 };
            assert!(runs.open(RunId(id), RunId(root), &tenant).is_some());
        }
        runs.check(&calls);
        assert_eq!(runs.open(RunId(0), RunId(0), &tenant), Some(busy));
        let other = Tenant::parse("other").expect("valid");
        assert_eq!(runs.open(RunId(0), RunId(0), &other), None, "a run belongs to one tenant");
        assert_eq!(runs.open(RunId(7_000_000), RunId(1_000_001), &other), None, "and so does a tree");
    }

    #[test]
    fn an_idle_run_moves_to_its_parents_tree_and_a_busy_one_waits() {
        let (mut runs, calls, tenant) = (Runs::default(), Slab::default(), Tenant::local());
        let root = runs.open(RunId(1), RunId(1), &tenant).expect("room");
        let child = runs.open(RunId(2), RunId(2), &tenant).expect("room");
        runs.serve(root, 50, &calls);
        runs.serve(child, 30, &calls);
        runs.slab[child].live = 1;
        runs.open(RunId(2), RunId(1), &tenant);
        assert_ne!(runs.slab[child].tree, runs.slab[root].tree);
        runs.slab[child].live = 0;
        runs.open(RunId(2), RunId(1), &tenant);
        assert_eq!(runs.slab[child].tree, runs.slab[root].tree);
        runs.check(&calls);
        assert_eq!(runs.trees.len(), 1, "the tree it left is gone");
        runs.serve(child, 5, &calls);
        assert_eq!(runs.trees[runs.slab[root].tree].service, 55);
    }
}
