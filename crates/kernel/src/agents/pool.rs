//! A bounded number of places, shared fairly among those who wait for one.
//!
//! The law: of the tenants that wait, the one with the least virtual time goes first (what it
//! was served, by its weight: VTC, arXiv 2401.00588); of its run trees the one that has been
//! served least (least attained service, Autellix, arXiv 2502.13965); of that tree's waiters
//! the one with the earliest deadline, and of those without its runs in turn, one of each by
//! round (round robin, Nagle, RFC 970), so that an agent that asks for a thousand things
//! does not stand before its sibling that asks for one. Of trees served alike, to within one
//! place's cost, the one whose waiter has the earliest deadline goes first. Only deadlines
//! that are close count ([`CLOSE`]), so that a far one is no way to the front. Whoever waits
//! longer than [`AGED`] goes first within its tenant, so that newer trees cannot starve an
//! old one. A place is charged at what places cost of late while it is held, and at what it
//! really used thereafter; a place itself costs one unit, so that turns are shared too.
//!
//! A tenant that comes back starts at the virtual time of those who wait: it gets no credit
//! for its absence. What it had above that is remembered, so that leaving is no way to be
//! rid of it. Tenants are told apart by the first segment of their path, as in the queue of
//! calls. Every step is O(log n). Who waits is bounded by who may ask: one turn of each live
//! run, and as many effects of each as a run may have under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_model::{At, Millis, RunKey, Tenant, limits};

/// The weight of root tenants that no rule names, as in the queues of calls.
const WEIGHT: u32 = 100;
/// Virtual time of one unit of cost at weight 1: enough that weights up to a million divide
/// it without being rounded away.
const SCALE: u128 = 1 << 20;
/// Whoever waits longer goes first within its tenant: half of what people wait for an
/// answer before they give up.
const AGED: Millis = Millis(30_000);
/// A deadline counts if it is as near as this when its waiter comes. One that is further
/// away needs no help: its waiter is [`AGED`] long before.
const CLOSE: Millis = Millis(60_000);
/// So many of the trees served alike are looked at for a deadline, the least served first:
/// a step takes no longer however many there are.
const ALIKE: usize = 8;
/// Of the estimate of what a place costs, the newest cost makes this part.
const ESTIMATE_PART: u64 = 8;

/// Earliest deadline, then first round, then first come.
type Turn = (At, u64, u64);

/// Whose a waiter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kin {
    /// The top of the tree of runs.
    pub(crate) tree: RunKey,
    /// The run itself.
    pub(crate) run: RunKey,
}

/// Somebody who waits.
#[derive(Clone, Debug)]
struct Waiting {
    tenant: Arc<str>,
    kin: Kin,
    entered: At,
    /// Its run's turn in the tree.
    round: u64,
    /// Its place in the order of arrival.
    came: u64,
    deadline: At,
}

impl Waiting {
    fn turn(&self) -> Turn {
        (self.deadline, self.round, self.came)
    }
}

/// Somebody who has a place.
#[derive(Clone, Debug)]
struct Holding {
    tenant: Arc<str>,
    tree: RunKey,
    /// What it was charged until its real cost is known.
    estimate: u64,
}

#[derive(Clone, Debug, Default)]
struct Account {
    virtual_time: u128,
    weight: u32,
    /// When it began to wait or was served last: who waits longer goes first among equals.
    since: u64,
    /// Places that it has.
    held: u32,
    /// Its trees that wait, the least served first.
    trees: BTreeSet<(u64, u64, RunKey)>,
    /// So many of its waiters.
    waiters: u32,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    served: u64,
    /// As for tenants. For trees that do not wait: when they were last seen.
    since: u64,
    waiting: u32,
    /// The round of whoever of it was served last.
    round: u64,
}

/// A run that waits.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    waiting: u32,
    /// The round of its newest waiter.
    round: u64,
}

/// The pool; `I` is who waits, once in a pool.
#[derive(Clone, Debug)]
pub(crate) struct Pool<I> {
    places: u32,
    /// What a place costs of late.
    estimate: u64,
    /// The virtual time at which newcomers start: that of whoever was served last.
    floor: u128,
    /// Counts arrivals and grants.
    clock: u64,
    weights: BTreeMap<Arc<str>, u32>,
    waiting: BTreeMap<I, Waiting>,
    holding: BTreeMap<I, Holding>,
    accounts: BTreeMap<Arc<str>, Account>,
    /// Tenants that wait, the least virtual time first.
    ready: BTreeSet<(u128, u64, Arc<str>)>,
    /// Tenants that neither wait nor have places, likewise.
    idle: BTreeSet<(u128, Arc<str>)>,
    /// All waiters of each tenant as they came.
    came: BTreeMap<(Arc<str>, u64), I>,
    /// All waiters of each tree in their order.
    turns: BTreeMap<(Arc<str>, RunKey, Turn), I>,
    trees: BTreeMap<(Arc<str>, RunKey), Tree>,
    /// Runs that wait.
    runs: BTreeMap<RunKey, Run>,
    /// Trees that do not wait, the longest unseen first.
    idle_trees: BTreeMap<u64, (Arc<str>, RunKey)>,
}

impl<I: Ord + Clone> Pool<I> {
    /// So many places, all free.
    pub(crate) fn new(places: u32) -> Self {
        Self {
            places,
            estimate: 1,
            floor: 0,
            clock: 0,
            weights: BTreeMap::new(),
            waiting: BTreeMap::new(),
            holding: BTreeMap::new(),
            accounts: BTreeMap::new(),
            ready: BTreeSet::new(),
            idle: BTreeSet::new(),
            came: BTreeMap::new(),
            turns: BTreeMap::new(),
            trees: BTreeMap::new(),
            runs: BTreeMap::new(),
            idle_trees: BTreeMap::new(),
        }
    }

    /// From now on so many places. Those held beyond it are not taken back.
    pub(crate) fn resize(&mut self, places: u32) {
        self.places = places;
    }

    /// From now on root tenants have these weights, and all others [`WEIGHT`].
    pub(crate) fn weigh(&mut self, weights: &[(Arc<str>, u32)]) {
        self.weights = weights.iter().map(|(tenant, weight)| (tenant.clone(), (*weight).max(1))).collect();
        for (tenant, account) in &mut self.accounts {
            account.weight = self.weights.get(tenant).copied().unwrap_or(WEIGHT);
        }
    }

    /// Places that are held.
    pub(crate) fn held(&self) -> usize {
        self.holding.len()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Is there a place, and somebody who waits for it?
    pub(crate) fn is_ready(&self) -> bool {
        !self.waiting.is_empty() && self.holding.len() < self.places as usize
    }

    /// Somebody waits from now on, who should have its place by then. Whoever waits or has a
    /// place already stays as it is.
    pub(crate) fn enter(&mut self, id: I, tenant: &Tenant, kin: Kin, now: At, deadline: At) {
        if self.waiting.contains_key(&id) || self.holding.contains_key(&id) {
            return;
        }
        let deadline = if deadline.since(now) <= CLOSE { deadline } else { At::MAX };
        self.clock += 1;
        let (tenant, came) = (self.name(tenant), self.clock);
        let tree = self.trees.entry((tenant.clone(), kin.tree)).or_default();
        if tree.waiting == 0 {
            self.idle_trees.remove(&tree.since);
            tree.since = came;
        }
        tree.waiting += 1;
        let order = (tree.served, tree.since, kin.tree);
        // Newcomers join the next round, and what a run asks for besides those after it.
        let run = self.runs.entry(kin.run).or_default();
        run.waiting += 1;
        run.round = run.round.max(tree.round) + 1;
        let waiting = Waiting { tenant, kin, entered: now, round: run.round, came, deadline };
        self.join(&waiting, order);
        self.came.insert((waiting.tenant.clone(), came), id.clone());
        self.turns.insert((waiting.tenant.clone(), kin.tree, waiting.turn()), id.clone());
        self.waiting.insert(id, waiting);
    }

    /// One more of the tenant waits.
    fn join(&mut self, waiting: &Waiting, tree: (u64, u64, RunKey)) {
        let tenant = &waiting.tenant;
        let account = self.accounts.entry(tenant.clone()).or_insert_with(|| Account {
            weight: self.weights.get(tenant).copied().unwrap_or(WEIGHT),
            ..Account::default()
        });
        if account.waiters == 0 {
            self.idle.remove(&(account.virtual_time, tenant.clone()));
            account.virtual_time = account.virtual_time.max(self.floor);
            account.since = waiting.came;
            self.ready.insert((account.virtual_time, account.since, tenant.clone()));
        }
        account.waiters += 1;
        account.trees.insert(tree);
    }

    /// The first segment of the path, shared with those who have it already.
    fn name(&self, tenant: &Tenant) -> Arc<str> {
        let root = tenant.prefixes().next().unwrap_or_default();
        self.accounts.get_key_value(root).map_or_else(|| root.into(), |(name, _)| name.clone())
    }

    /// Somebody no longer waits, or gives its place back.
    pub(crate) fn leave(&mut self, id: &I) {
        if let Some(waiting) = self.waiting.remove(id) {
            self.clock += 1;
            self.part(&waiting);
        } else if let Some(holding) = self.holding.remove(id) {
            // The estimate ends here; that there was a place at all is what it cost.
            self.move_tree(&holding.tenant, holding.tree, 1, holding.estimate, None);
            self.move_tenant(&holding.tenant, 1, holding.estimate, None);
            if let Some(account) = self.accounts.get_mut(&holding.tenant) {
                account.held = account.held.saturating_sub(1);
            }
            self.rest(&holding.tenant);
        }
        self.trim();
    }

    /// Takes a waiter out of all orders.
    fn part(&mut self, waiting: &Waiting) {
        let (tenant, key) = (&waiting.tenant, waiting.kin.tree);
        self.came.remove(&(tenant.clone(), waiting.came));
        self.turns.remove(&(tenant.clone(), key, waiting.turn()));
        let tree = self.trees.get_mut(&(tenant.clone(), key)).expect("whoever waits has a tree");
        let account = self.accounts.get_mut(tenant).expect("whoever waits has an account");
        let run = self.runs.get_mut(&waiting.kin.run).expect("whoever waits has a run");
        tree.waiting -= 1;
        account.waiters -= 1;
        run.waiting -= 1;
        if run.waiting == 0 {
            self.runs.remove(&waiting.kin.run);
        }
        if tree.waiting == 0 {
            account.trees.remove(&(tree.served, tree.since, key));
            tree.since = self.clock;
            self.idle_trees.insert(tree.since, (tenant.clone(), key));
        }
        if account.waiters == 0 {
            self.ready.remove(&(account.virtual_time, account.since, tenant.clone()));
        }
        self.rest(tenant);
    }

    /// A tenant that neither waits nor has places is remembered among those.
    fn rest(&mut self, tenant: &Arc<str>) {
        if let Some(account) = self.accounts.get(tenant)
            && account.waiters == 0
            && account.held == 0
        {
            self.idle.insert((account.virtual_time, tenant.clone()));
        }
    }

    /// Gives a place to whoever is next, if one is free; it is given back by
    /// [`Self::leave`].
    pub(crate) fn next(&mut self, now: At) -> Option<I> {
        if !self.is_ready() {
            return None;
        }
        let (virtual_time, _, tenant) = self.ready.first()?.clone();
        let id = self.first_of(&tenant, now);
        let waiting = self.waiting.remove(&id).expect("whoever is in an order waits");
        let account = self.accounts.get_mut(&tenant).expect("a tenant that is ready has an account");
        account.held += 1;
        self.floor = self.floor.max(virtual_time);
        self.clock += 1;
        self.part(&waiting);
        let estimate = self.estimate.max(1);
        let (tree, round) = (waiting.kin.tree, waiting.round);
        if let Some(tree) = self.trees.get_mut(&(tenant.clone(), tree)) {
            tree.round = tree.round.max(round);
        }
        self.move_tree(&tenant, tree, estimate, 0, Some(self.clock));
        self.move_tenant(&tenant, estimate, 0, Some(self.clock));
        self.holding.insert(id.clone(), Holding { tenant, tree, estimate });
        self.trim();
        Some(id)
    }

    /// Whose turn it is within a tenant that waits.
    fn first_of(&self, tenant: &Arc<str>, now: At) -> I {
        let (_, oldest) =
            self.came.range((tenant.clone(), 0)..).next().expect("a tenant that is ready has waiters");
        if now.since(self.waiting[oldest].entered) >= AGED {
            return oldest.clone();
        }
        let trees = &self.accounts[tenant].trees;
        let (least, _, _) = trees.first().expect("a tenant that is ready has a tree");
        let alike = least.saturating_add(self.estimate.max(1));
        let first = |tree: &RunKey| {
            let from = (tenant.clone(), *tree, (At(0), 0, 0));
            self.turns.range(from..).next().expect("a tree that waits has waiters")
        };
        let firsts = trees.iter().take(ALIKE).take_while(|(served, _, _)| *served <= alike);
        let ((..), id) = firsts
            .map(|(_, _, tree)| first(tree))
            .min_by_key(|((_, _, (deadline, ..)), _)| *deadline)
            .expect("the least served tree is among them");
        id.clone()
    }

    /// What a place really used, besides being one. Called before it is given back, so that
    /// its tenant is still known.
    pub(crate) fn charge(&mut self, tenant: &Tenant, tree: RunKey, cost: u64) {
        let tenant = self.name(tenant);
        self.estimate = self.estimate - self.estimate / ESTIMATE_PART + cost.min(1 << 40) / ESTIMATE_PART;
        self.move_tree(&tenant, tree, cost, 0, None);
        self.move_tenant(&tenant, cost, 0, None);
        self.trim();
    }

    /// A tree of runs is over: what it was served is forgotten, unless it still waits.
    pub(crate) fn forget(&mut self, tenant: &Tenant, tree: RunKey) {
        let key = (self.name(tenant), tree);
        if let Some(found) = self.trees.get(&key)
            && found.waiting == 0
        {
            self.idle_trees.remove(&found.since);
            self.trees.remove(&key);
        }
    }

    fn move_tree(&mut self, tenant: &Arc<str>, key: RunKey, more: u64, less: u64, since: Option<u64>) {
        let Some(tree) = self.trees.get_mut(&(tenant.clone(), key)) else { return };
        let old = (tree.served, tree.since, key);
        tree.served = tree.served.saturating_add(more).saturating_sub(less);
        if tree.waiting == 0 {
            // Its `since` is where it is found among those who do not wait.
            return;
        }
        tree.since = since.unwrap_or(tree.since);
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.trees.remove(&old);
            account.trees.insert((tree.served, tree.since, key));
        }
    }

    fn move_tenant(&mut self, tenant: &Arc<str>, more: u64, less: u64, since: Option<u64>) {
        let Some(account) = self.accounts.get_mut(tenant) else { return };
        let (old, waits_since) = (account.virtual_time, account.since);
        let weight = u128::from(account.weight.max(1));
        let by_weight = |cost: u64| u128::from(cost) * SCALE / weight;
        account.virtual_time = old.saturating_add(by_weight(more)).saturating_sub(by_weight(less));
        account.since = since.unwrap_or(waits_since);
        if account.waiters > 0 {
            self.ready.remove(&(old, waits_since, tenant.clone()));
            self.ready.insert((account.virtual_time, account.since, tenant.clone()));
        } else if self.idle.remove(&(old, tenant.clone())) {
            self.idle.insert((account.virtual_time, tenant.clone()));
        }
    }

    /// Forgets tenants that would start at the floor anyway, and what is beyond the bounds.
    /// At most a few at a time, so that no step takes long: each step adds at most one.
    fn trim(&mut self) {
        for _ in 0..4 {
            let Some((virtual_time, tenant)) = self.idle.first() else { break };
            if *virtual_time > self.floor && self.idle.len() <= limits::POOL_TENANTS_IDLE_MAX {
                break;
            }
            let found = (*virtual_time, tenant.clone());
            self.accounts.remove(&found.1);
            self.idle.remove(&found);
        }
        while self.idle_trees.len() > limits::POOL_TREES_IDLE_MAX {
            if let Some((_, key)) = self.idle_trees.pop_first() {
                self.trees.remove(&key);
            }
        }
    }

    /// Holds all orders against each other; for tests and the simulation.
    pub(crate) fn check(&self) {
        assert!(self.idle_trees.len() <= limits::POOL_TREES_IDLE_MAX, "idle trees are bounded");
        assert!(self.idle.len() <= limits::POOL_TENANTS_IDLE_MAX, "idle tenants are bounded");
        let busy = self.accounts.values().filter(|account| account.waiters == 0 && account.held > 0).count();
        let known = self.ready.len() + self.idle.len() + busy;
        assert_eq!(known, self.accounts.len(), "each tenant waits, has places, or neither");
        let trees = self.accounts.values().map(|account| account.trees.len()).sum::<usize>();
        assert_eq!(trees + self.idle_trees.len(), self.trees.len(), "each tree waits or does not");
        let orders = (self.came.len(), self.turns.len());
        assert_eq!(orders, (self.waiting.len(), self.waiting.len()), "each waiter is in both orders");
        let by_run: u32 = self.runs.values().map(|run| run.waiting).sum();
        assert_eq!(by_run as usize, self.waiting.len(), "each waiter is its run's");
        let held: u32 = self.accounts.values().map(|account| account.held).sum();
        assert_eq!(held as usize, self.holding.len(), "each place is somebody's");
        for (virtual_time, since, tenant) in &self.ready {
            let account = &self.accounts[tenant];
            assert_eq!(
                (account.virtual_time, account.since),
                (*virtual_time, *since),
                "tenants are in order"
            );
            for (served, since, key) in &account.trees {
                let tree = &self.trees[&(tenant.clone(), *key)];
                assert_eq!((tree.served, tree.since), (*served, *since), "trees are in order");
            }
        }
    }
}

#[cfg(test)]
mod tests;
