//! The tree of tenants over all engines: limits, what blocks each node, and its budget
//! accounts. A tenant path is a leaf below the nodes of its proper prefixes; where a
//! rule hangs on the path itself or other paths lie below it, below the node of that
//! prefix too. So a rule always covers the whole subtree, and a tenant with its users
//! below it has one share, not two.
//!
//! The rule `*` limits each path that has no rule of its own, and each root (a path's
//! first segment) in whose tree no rule names anything, as a whole: users are named by
//! whoever has the root's key, so a limit on each of them alone would be none. An operator
//! who wants the root to have more than one of its users names the root.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use seawall_model::{At, Cause, Tenant, limits};

use crate::budget::Accounts;
use crate::plan::{BudgetRule, TenantRule};
use crate::rate::Bucket;
use crate::slab::Slab;

/// A leaf and the prefixes above it.
pub(crate) const CHAIN_MAX: usize = limits::TENANT_DEPTH_MAX + 1;
/// Share of a node that no rule names.
pub(crate) const WEIGHT: u32 = 100;
/// Slots looked at for one that may go before a newcomer is refused.
const SWEEP: usize = 1_024;
/// The causes a node can block for, in the order of its clocks.
const CAUSES: [Cause; 3] = [Cause::RateLimit, Cause::TenantConcurrency, Cause::Budget];

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) path: Arc<str>,
    /// A whole path (which calls hang on) rather than a prefix.
    pub(crate) leaf: bool,
    pub(crate) parent: Option<u32>,
    /// Never reused, unlike the slot.
    pub(crate) serial: u64,
    pub(crate) weight: u32,
    calls_max: Option<u32>,
    pub(crate) calls: Option<Bucket>,
    pub(crate) tokens: Option<Bucket>,
    pub(crate) accounts: Vec<(BudgetRule, u64)>,
    /// Does the rule `*` stand behind its limits?
    pub(crate) general: bool,
    pub(crate) running: u32,
    pub(crate) queued: usize,
    /// Calls of this leaf that pause, and come back to it.
    pub(crate) aside: usize,
    children: u32,
    /// Cost served, in tenths of a unit.
    pub(crate) served: i64,
    /// A budget account of this node has no room for the call at its head.
    pub(crate) held: bool,
    pub(crate) blocked: Option<Cause>,
    since: At,
    clocks: [u64; 3],
    pub(crate) alarm: Option<At>,
    /// Its flows, by engine and class.
    pub(crate) flows: Vec<(u32, u32)>,
    used: bool,
}

impl Node {
    /// Does any rule limit it, so that it must be asked before and after each call?
    pub(crate) fn limited(&self) -> bool {
        self.calls_max.is_some()
            || self.calls.is_some()
            || self.tokens.is_some()
            || self.held
            || self.blocked.is_some()
    }

    /// What keeps its calls from being dispatched now, and until when if time alone
    /// will clear it.
    pub(crate) fn gate(&mut self, now: At) -> (Option<Cause>, Option<At>) {
        if self.calls_max.is_some_and(|max| self.running >= max) {
            return (Some(Cause::TenantConcurrency), None);
        }
        let buckets = self.calls.iter_mut().chain(&mut self.tokens);
        if let Some(at) = buckets.filter_map(|bucket| bucket.ready_at(now)).max() {
            return (Some(Cause::RateLimit), Some(at));
        }
        (self.held.then_some(Cause::Budget), None)
    }

    pub(crate) fn block(&mut self, cause: Option<Cause>, now: At) {
        self.clocks = self.clocks_at(now);
        self.since = now;
        self.blocked = cause;
    }

    fn clocks_at(&self, now: At) -> [u64; 3] {
        let mut clocks = self.clocks;
        if let Some(at) = CAUSES.iter().position(|cause| Some(*cause) == self.blocked) {
            clocks[at] += now.micros_since(self.since);
        }
        clocks
    }

    pub(crate) fn flow(&self, slot: u32) -> Option<u32> {
        self.flows.iter().find(|(at, _)| *at == slot).map(|(_, flow)| *flow)
    }

    fn idle(&self) -> bool {
        self.running == 0 && self.queued == 0 && self.aside == 0 && self.children == 0
    }
}

/// A leaf and its ancestors, leaf first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    nodes: [u32; CHAIN_MAX],
    len: usize,
}

impl Chain {
    pub(crate) fn nodes(&self) -> &[u32] {
        &self.nodes[..self.len]
    }
}

/// All nodes, at most [`limits::TENANTS_MAX`]; idle ones leave first. Forgetting an idle
/// node loses nothing but a debt: on its return it is lifted to its busy siblings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants {
    pub(crate) nodes: Slab<Node>,
    leaves: BTreeMap<Arc<str>, u32>,
    prefixes: BTreeMap<Arc<str>, u32>,
    rules: BTreeMap<Arc<str>, TenantRule>,
    serial: u64,
    /// Leaves whose path has become a prefix of others just now: they are to be covered.
    pub(crate) uncovered: Vec<u32>,
}

impl Tenants {
    pub(crate) fn new(rules: &[TenantRule]) -> Self {
        Self { rules: by_prefix(rules), ..Self::default() }
    }

    pub(crate) fn chain(&self, leaf: u32) -> Chain {
        let mut chain = Chain { nodes: [leaf; CHAIN_MAX], len: 1 };
        let mut at = self.nodes[leaf].parent;
        while let Some(node) = at {
            chain.nodes[chain.len] = node;
            chain.len += 1;
            at = self.nodes[node].parent;
        }
        chain
    }

    /// Time that the nodes of a leaf's chain were blocked, all together, by cause.
    pub(crate) fn clocks(&self, leaf: u32, now: At) -> [u64; 3] {
        let mut sum = [0; 3];
        for node in self.chain(leaf).nodes() {
            let clocks = self.nodes[*node].clocks_at(now);
            sum.iter_mut().zip(clocks).for_each(|(sum, clock)| *sum += clock);
        }
        sum
    }

    /// The cause of each of those clocks.
    pub(crate) const fn causes() -> [Cause; 3] {
        CAUSES
    }

    pub(crate) fn find(&self, tenant: &Tenant) -> Option<u32> {
        self.leaves.get(tenant.as_str()).copied()
    }

    /// The leaf of a tenant, made with its ancestors if need be. Evicted nodes are
    /// appended to `gone` with their flows; `None` when all places are in use.
    pub(crate) fn leaf(
        &mut self,
        tenant: &Tenant,
        accounts: &mut Accounts,
        now: At,
        gone: &mut Vec<Node>,
    ) -> Option<u32> {
        if let Some(at) = self.find(tenant) {
            self.nodes[at].used = true;
            return Some(at);
        }
        if self.nodes.len() + CHAIN_MAX > limits::TENANTS_MAX && !self.make_room(gone) {
            return None;
        }
        let parent = self.ancestors(tenant.as_str(), accounts, now);
        Some(self.insert(tenant.as_str(), true, parent, accounts, now))
    }

    fn make_room(&mut self, gone: &mut Vec<Node>) -> bool {
        while self.nodes.len() + CHAIN_MAX > limits::TENANTS_MAX {
            let old = self.nodes.sweep(SWEEP, Node::idle, |node| &mut node.used);
            let Some(node) = old.and_then(|old| self.nodes.remove(old)) else {
                return false;
            };
            if node.leaf {
                self.leaves.remove(&node.path)
            } else {
                self.prefixes.remove(&node.path)
            };
            if let Some(parent) = node.parent {
                self.nodes[parent].children -= 1;
            }
            gone.push(node);
        }
        true
    }

    /// The node that the leaf of `path` hangs under.
    fn ancestors(&mut self, path: &str, accounts: &mut Accounts, now: At) -> Option<u32> {
        let ends =
            path.match_indices('/').map(|(at, _)| at).chain(self.is_prefix(path).then_some(path.len()));
        let ends: Vec<usize> = ends.collect();
        let mut parent = None;
        for end in ends {
            let prefix = &path[..end];
            parent = Some(match self.prefixes.get(prefix) {
                Some(at) => *at,
                None => self.insert(prefix, false, parent, accounts, now),
            });
        }
        parent
    }

    /// Does a rule hang on this very path, or do others lie below it?
    fn is_prefix(&self, path: &str) -> bool {
        self.rules.contains_key(path) || self.prefixes.contains_key(path)
    }

    /// Hangs a leaf below the node of its own path.
    pub(crate) fn cover(&mut self, leaf: u32, accounts: &mut Accounts, now: At) {
        let parent = self.prefixes.get(&self.nodes[leaf].path).copied();
        if parent.is_some() && parent != self.nodes[leaf].parent {
            self.reparent(leaf, parent);
            // What limited it alone may now limit the whole tree.
            self.nodes[leaf].held = false;
            self.apply_rule(leaf, accounts, now);
        }
    }

    fn insert(
        &mut self,
        path: &str,
        leaf: bool,
        parent: Option<u32>,
        accounts: &mut Accounts,
        now: At,
    ) -> u32 {
        self.serial += 1;
        let node = Node {
            path: path.into(),
            leaf,
            parent,
            serial: self.serial,
            weight: WEIGHT,
            calls_max: None,
            calls: None,
            tokens: None,
            accounts: Vec::new(),
            general: false,
            running: 0,
            queued: 0,
            aside: 0,
            children: 0,
            served: 0,
            held: false,
            blocked: None,
            since: now,
            clocks: [0; 3],
            alarm: None,
            flows: Vec::new(),
            used: true,
        };
        let name = Arc::clone(&node.path);
        let at = self.nodes.insert(node);
        if leaf {
            self.leaves.insert(name, at)
        } else {
            self.uncovered.extend(self.leaves.get(&name));
            self.prefixes.insert(name, at)
        };
        if let Some(parent) = parent {
            self.nodes[parent].children += 1;
        }
        self.apply_rule(at, accounts, now);
        at
    }

    /// The rule that hangs on this very node, and whether it is `*`.
    fn rule(&self, at: u32) -> (Option<&TenantRule>, bool) {
        let node = &self.nodes[at];
        let general = || (self.rules.get("*"), true);
        match (node.leaf, self.rules.get(&node.path)) {
            (false, None) if self.is_unnamed_root(&node.path) => general(),
            (false, rule) => (rule, false),
            // The prefix node above the leaf carries the rule, be it its own or `*`.
            (true, Some(_)) => (None, false),
            (true, None) if self.prefixes.contains_key(&node.path) && self.is_unnamed_root(&node.path) => {
                (None, false)
            }
            (true, None) => general(),
        }
    }

    /// Is this a first segment in whose tree no rule names anything?
    fn is_unnamed_root(&self, path: &str) -> bool {
        let within = |rule: &str| rule.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        // Between `acme` and `acme/..` may stand others, such as `acme-2`.
        let below = format!("{path}/");
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        !path.contains('/')
            && !self.rules.contains_key(path)
            && !self.rules.range::<str, _>(from).next().is_some_and(|(rule, _)| within(rule))
    }

    fn apply_rule(&mut self, at: u32, accounts: &mut Accounts, now: At) {
        let (rule, general) = self.rule(at);
        let rule = rule.cloned();
        let node = &mut self.nodes[at];
        // A root that nobody names shares like any other: `*` only limits it.
        let weighs = rule.as_ref().filter(|_| node.leaf || !general);
        node.weight = weighs.map_or(WEIGHT, |rule| rule.weight.max(1));
        node.general = general;
        node.calls_max = rule.as_ref().and_then(|rule| rule.calls_max);
        let rate = rule.as_ref().map(|rule| rule.rate).unwrap_or_default();
        tune(&mut node.calls, rate.calls_per_min.map(u64::from), now);
        tune(&mut node.tokens, rate.tokens_per_min, now);
        let budgets = rule.map(|rule| rule.budgets).unwrap_or_default();
        // A full table gives serial 0, which no account has: reserving tries again.
        node.accounts.clear();
        for (place, rule) in budgets.iter().enumerate() {
            // Two rules for one account would reserve twice: the first counts.
            let same = |other: &BudgetRule| (other.meter, other.period) == (rule.meter, rule.period);
            if !budgets[..place].iter().any(same) {
                let account = accounts.open(&node.path, rule, general, now);
                node.accounts.push((*rule, account.unwrap_or(0)));
            }
        }
    }

    /// Takes on new rules. Counters, buckets and accounts stay; leaves whose path gained
    /// or lost a rule of its own move below or above that prefix's node.
    pub(crate) fn reload(&mut self, rules: &[TenantRule], accounts: &mut Accounts, now: At) -> Vec<u32> {
        self.rules = by_prefix(rules);
        let mut moved = Vec::new();
        for at in self.nodes.indices() {
            self.nodes[at].held = false;
            if self.nodes[at].leaf {
                let path = Arc::clone(&self.nodes[at].path);
                let parent = self.ancestors(&path, accounts, now);
                if parent != self.nodes[at].parent {
                    self.reparent(at, parent);
                    moved.push(at);
                }
            }
        }
        // Each leaf has just found its place.
        self.uncovered.clear();
        for at in self.nodes.indices() {
            self.apply_rule(at, accounts, now);
        }
        moved
    }

    fn reparent(&mut self, leaf: u32, parent: Option<u32>) {
        let (running, queued) = (self.nodes[leaf].running, self.nodes[leaf].queued);
        for node in &self.chain(leaf).nodes()[1..] {
            self.nodes[*node].running -= running;
            self.nodes[*node].queued -= queued;
        }
        if let Some(old) = self.nodes[leaf].parent {
            self.nodes[old].children -= 1;
        }
        self.nodes[leaf].parent = parent;
        if let Some(new) = parent {
            self.nodes[new].children += 1;
        }
        for node in &self.chain(leaf).nodes()[1..] {
            self.nodes[*node].running += running;
            self.nodes[*node].queued += queued;
        }
    }

    pub(crate) fn check(&self) {
        assert!(self.nodes.len() <= limits::TENANTS_MAX, "tenant nodes are bounded");
        assert_eq!(
            self.nodes.len(),
            self.leaves.len() + self.prefixes.len(),
            "each node is found by its path"
        );
        assert!(self.uncovered.is_empty(), "a step leaves nothing over");
        for (_, node) in self.nodes.iter().filter(|(_, node)| node.leaf) {
            if let Some(prefix) = self.prefixes.get(&node.path) {
                assert_eq!(node.parent, Some(*prefix), "{} and its users are one share", node.path);
            }
        }
        for (at, node) in self.nodes.iter().filter(|(_, node)| !node.leaf) {
            let children = self.nodes.iter().filter(|(_, child)| child.parent == Some(at));
            let sum =
                children.fold((0, 0, 0), |sum, (_, c)| (sum.0 + 1, sum.1 + c.running, sum.2 + c.queued));
            assert_eq!(
                sum,
                (node.children, node.running, node.queued),
                "{} counts what is below it",
                node.path
            );
        }
    }
}

fn by_prefix(rules: &[TenantRule]) -> BTreeMap<Arc<str>, TenantRule> {
    rules.iter().map(|rule| (Arc::clone(&rule.prefix), rule.clone())).collect()
}

/// Sets a bucket's rate, keeping what is owed if it had one.
pub(crate) fn tune(bucket: &mut Option<Bucket>, per_min: Option<u64>, now: At) {
    match (bucket.as_mut(), per_min) {
        (Some(bucket), Some(rate)) if bucket.per_min() == rate => {}
        (Some(bucket), Some(rate)) => bucket.retune(rate, now),
        (None, Some(rate)) => *bucket = Some(Bucket::new(rate, now)),
        (_, None) => *bucket = None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_whose_calls_pause_is_not_forgotten() {
        let mut tenants = Tenants::new(&[]);
        let (mut accounts, mut gone) = (Accounts::default(), Vec::new());
        let mut leaf = |tenants: &mut Tenants, path: &str| {
            let tenant = Tenant::parse(path).expect("valid");
            tenants.leaf(&tenant, &mut accounts, At(0), &mut gone).expect("room")
        };
        let (pausing, idle) = (leaf(&mut tenants, "pausing"), leaf(&mut tenants, "idle"));
        tenants.nodes[pausing].aside = 1;
        for nth in 0..3 * limits::TENANTS_MAX {
            leaf(&mut tenants, &format!("t-{nth}"));
        }
        assert_eq!(tenants.find(&Tenant::parse("pausing").expect("valid")), Some(pausing));
        assert_ne!(tenants.find(&Tenant::parse("idle").expect("valid")), Some(idle), "others make room");
    }
}
