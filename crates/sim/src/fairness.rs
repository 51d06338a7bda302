//! I7 from outside: who was served how much, and the bound within which siblings with
//! waiting work must stay.
//!
//! For a node f of the tenant tree that has had work waiting in one engine and class
//! without a break since t0, and any sibling g, the law is (VTC, arXiv 2401.00588,
//! theorems 4.4 and 4.9, with weights w and service W since t0):
//!
//! ```text
//! W(g)/w(g) - W(f)/w(f)  <=  4 L / min(w(f), w(g))  +  P(f)/w(f) + P(g)/w(g)
//! ```
//!
//! L is the largest cost of a single call so far. P is what prediction can be wrong by:
//! a call is charged its expected output when it is dispatched and its real output as it
//! goes, so at t0 and now each call in flight may be charged up to its whole cost without
//! having been served it, or the other way round.
//!
//! Classes: one with work waiting since t0 gets its guaranteed share of all that its
//! engine serves, less the same kind of slack.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::plan::Plan;
use seawall_model::{At, Class, EngineId, Tenant};

/// Fixed point of normalised service: weights of a hundred lose nothing.
const SCALE: i128 = 1_000_000;

/// What one node, or one class as a whole, has had on one engine.
#[derive(Clone, Debug, Default)]
struct Lane {
    parent: Option<usize>,
    weight: i128,
    waiting: u32,
    served: i128,
    /// What of its calls in flight is unsure.
    slack: i128,
    /// Since when work has waited without a break.
    since: Option<Baseline>,
}

/// Everyone's service when a lane's work began to wait.
#[derive(Clone, Debug)]
struct Baseline {
    at: At,
    /// By lane: served and slack.
    then: BTreeMap<usize, (i128, i128)>,
}

/// One engine's class.
#[derive(Debug, Default)]
struct Tier {
    lanes: Vec<Lane>,
    by_path: BTreeMap<Arc<str>, usize>,
    /// Children of each lane; of the root under `None`.
    children: BTreeMap<Option<usize>, Vec<usize>>,
    whole: Lane,
}

/// The watch.
#[derive(Debug)]
pub struct Fairness {
    tiers: BTreeMap<(EngineId, Class), Tier>,
    call_most: i128,
    touched: Vec<(EngineId, Class, usize)>,
    /// Comparisons made, so that a summary shows the watch was awake.
    pub compared: u64,
    /// Largest gap seen as a share of its bound, in percent.
    pub worst: i128,
}

impl Fairness {
    /// A watch that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { tiers: BTreeMap::new(), call_most: 1, touched: Vec::new(), compared: 0, worst: 0 }
    }

    /// Forgets everything: weights have changed, or the kernel has.
    pub fn restart(&mut self, plan: &Plan) {
        for tier in self.tiers.values_mut() {
            for lane in &mut tier.lanes {
                lane.since = None;
            }
            tier.whole.since = None;
            for (path, index) in &tier.by_path {
                tier.lanes[*index].weight = weight(plan, path);
            }
        }
        self.touched.clear();
    }

    /// Work that waited or ran is gone with the kernel.
    pub fn lose(&mut self) {
        self.tiers.clear();
        self.touched.clear();
    }

    /// A call waits, or waits no more.
    pub fn wait(&mut self, plan: &Plan, engine: EngineId, class: Class, tenant: &Tenant, more: bool) {
        let tier = self.tiers.entry((engine, class)).or_default();
        let mut lane = Some(tier.leaf(plan, tenant));
        while let Some(index) = lane {
            tier.lanes[index].shift_waiting(more);
            self.touched.push((engine, class, index));
            lane = tier.lanes[index].parent;
        }
        tier.whole.shift_waiting(more);
    }

    /// A call goes out, of which so much counts as served at once, and so much is unsure
    /// until it ends.
    pub fn dispatch(
        &mut self,
        plan: &Plan,
        engine: EngineId,
        class: Class,
        tenant: &Tenant,
        (served, unsure): (u64, u64),
    ) {
        self.call_most = self.call_most.max(i128::from(served + unsure));
        self.serve(plan, engine, class, tenant, i128::from(served), i128::from(unsure));
    }

    /// An attempt ended: what was really served counts now, less what counted before, and
    /// nothing of it is unsure any more.
    pub fn end(
        &mut self,
        plan: &Plan,
        engine: EngineId,
        class: Class,
        tenant: &Tenant,
        (before, unsure): (u64, u64),
        served: u64,
    ) {
        let more = i128::from(served) - i128::from(before);
        self.serve(plan, engine, class, tenant, more, -i128::from(unsure));
    }

    fn serve(
        &mut self,
        plan: &Plan,
        engine: EngineId,
        class: Class,
        tenant: &Tenant,
        served: i128,
        slack: i128,
    ) {
        let tier = self.tiers.entry((engine, class)).or_default();
        let mut lane = Some(tier.leaf(plan, tenant));
        while let Some(index) = lane {
            tier.lanes[index].served += served;
            tier.lanes[index].slack += slack;
            self.touched.push((engine, class, index));
            lane = tier.lanes[index].parent;
        }
        tier.whole.served += served;
        tier.whole.slack += slack;
    }

    /// Looks at every node touched in the step, and at its siblings.
    ///
    /// # Panics
    /// When one with waiting work was left behind its bound (I7).
    pub fn check(&mut self, now: At, plan: &Plan) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for (engine, class, index) in &touched {
            let Some(tier) = self.tiers.get_mut(&(*engine, *class)) else {
                continue;
            };
            tier.begin_or_end(*index, now);
            let parent = tier.lanes[*index].parent;
            let siblings = tier.children.get(&parent).map_or(&[][..], Vec::as_slice);
            for sibling in siblings.iter().filter(|sibling| *sibling != index) {
                // The one touched may have run ahead, or its sibling fallen behind.
                if let Some((gap, bound)) = tier.gap(*sibling, *index, self.call_most) {
                    self.compared += 1;
                    self.worst = self.worst.max(gap * 100 / bound.max(1));
                    assert!(gap <= bound, "I7: {}", tier.describe(*sibling, *index, gap, bound));
                }
            }
        }
        touched.clear();
        self.touched = touched;
        self.check_classes(now, plan);
    }

    fn check_classes(&mut self, now: At, plan: &Plan) {
        for engine in plan.engines.iter().map(|engine| engine.id) {
            let of = |class| (engine, class);
            let sums: Vec<(i128, i128)> = Class::ALL
                .iter()
                .map(|class| {
                    self.tiers.get(&of(*class)).map_or((0, 0), |tier| (tier.whole.served, tier.whole.slack))
                })
                .collect();
            for class in Class::ALL {
                let Some(tier) = self.tiers.get_mut(&of(class)) else {
                    continue;
                };
                if tier.whole.waiting == 0 {
                    tier.whole.since = None;
                    continue;
                }
                let Some(since) = &tier.whole.since else {
                    let then = sums.iter().copied().enumerate().collect();
                    tier.whole.since = Some(Baseline { at: now, then });
                    continue;
                };
                let then = |index| since.then.get(&index).copied().unwrap_or((0, 0));
                let all: i128 = (0..sums.len()).map(|index| sums[index].0 - then(index).0).sum();
                let slack: i128 = (0..sums.len()).map(|index| sums[index].1 + then(index).1).sum();
                let own = sums[class as usize].0 - then(class as usize).0;
                let due = all * i128::from(plan.class_share[class as usize]) / 100;
                let bound = 4 * self.call_most + slack;
                self.compared += 1;
                assert!(
                    due - own <= bound,
                    "I7: class {} had {own} of {all} units of {engine:?} since {:?}, {due} is its share (slack {bound})",
                    class.as_str(),
                    since.at
                );
            }
        }
    }
}

impl Default for Fairness {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    const fn shift_waiting(&mut self, more: bool) {
        if more {
            self.waiting += 1;
        } else {
            self.waiting -= 1;
        }
    }
}

impl Tier {
    /// The lane of a whole path, made with all above it when it is new.
    fn leaf(&mut self, plan: &Plan, tenant: &Tenant) -> usize {
        if let Some(index) = self.by_path.get(tenant.as_str()) {
            return *index;
        }
        let mut parent = None;
        for prefix in tenant.prefixes() {
            let index = match self.by_path.get(prefix) {
                Some(index) => *index,
                None => {
                    let index = self.lanes.len();
                    self.lanes.push(Lane { parent, weight: weight(plan, prefix), ..Lane::default() });
                    self.by_path.insert(prefix.into(), index);
                    self.children.entry(parent).or_default().push(index);
                    index
                }
            };
            parent = Some(index);
        }
        parent.expect("a path has at least one segment")
    }

    fn begin_or_end(&mut self, index: usize, now: At) {
        if self.lanes[index].waiting == 0 {
            self.lanes[index].since = None;
        } else if self.lanes[index].since.is_none() {
            let siblings = &self.children[&self.lanes[index].parent];
            let then =
                siblings.iter().map(|at| (*at, (self.lanes[*at].served, self.lanes[*at].slack))).collect();
            self.lanes[index].since = Some(Baseline { at: now, then });
        }
    }

    /// How far `ahead` is ahead of `behind`, whose work waits, and how far it may be.
    fn gap(&self, behind: usize, ahead: usize, call_most: i128) -> Option<(i128, i128)> {
        let (f, g) = (&self.lanes[behind], &self.lanes[ahead]);
        let then = &f.since.as_ref()?.then;
        let start = |index| then.get(&index).copied().unwrap_or((0, 0));
        let (f0, g0) = (start(behind), start(ahead));
        let gap = (g.served - g0.0) * SCALE / g.weight - (f.served - f0.0) * SCALE / f.weight;
        let slack = (g.slack + g0.1) * SCALE / g.weight + (f.slack + f0.1) * SCALE / f.weight;
        Some((gap, 4 * call_most * SCALE / f.weight.min(g.weight) + slack))
    }

    fn describe(&self, behind: usize, ahead: usize, gap: i128, bound: i128) -> String {
        let name = |index| self.by_path.iter().find(|(_, at)| **at == index).map_or("?", |(path, _)| path);
        let since = self.lanes[behind].since.as_ref().map_or(At(0), |since| since.at);
        format!(
            "{} has waited since {since:?} and is {gap} behind {}, over the bound {bound} (units per weight x {SCALE})",
            name(behind),
            name(ahead)
        )
    }
}

fn weight(plan: &Plan, prefix: &str) -> i128 {
    // Unnamed siblings weigh 100.
    plan.tenants
        .iter()
        .find(|rule| &*rule.prefix == prefix)
        .map_or(100, |rule| i128::from(rule.weight.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use seawall_load::engine::Spec;

    const ENGINE: EngineId = EngineId(0);

    /// Serves `rounds` calls of cost 10 to `a` and `b` alternately while both wait, `a`
    /// getting `extra` more in each round.
    fn play(rounds: u64, extra: u64) {
        let plan = Scenario::quiet("test", 1, 1, &Spec::default()).plan;
        let (a, b) = (Tenant::parse("acme/a").expect("valid"), Tenant::parse("acme/b").expect("valid"));
        let mut watch = Fairness::new();
        for tenant in [&a, &b] {
            watch.wait(&plan, ENGINE, Class::Interactive, tenant, true);
        }
        watch.check(At(0), &plan);
        for round in 0..rounds {
            for (tenant, calls) in [(&a, 1 + extra), (&b, 1)] {
                for _ in 0..calls {
                    watch.dispatch(&plan, ENGINE, Class::Interactive, tenant, (4, 6));
                    watch.end(&plan, ENGINE, Class::Interactive, tenant, (4, 6), 10);
                }
            }
            watch.check(At(round), &plan);
        }
        assert!(watch.compared > rounds, "it looked");
    }

    #[test]
    fn equal_service_passes() {
        play(1_000, 0);
    }

    #[test]
    #[should_panic(expected = "I7: acme/b has waited")]
    fn a_sibling_left_behind_is_caught() {
        play(1_000, 1);
    }

    #[test]
    #[should_panic(expected = "I7: class batch")]
    fn a_starved_class_is_caught() {
        let plan = Scenario::quiet("test", 1, 1, &Spec::default()).plan;
        let tenant = Tenant::parse("acme").expect("valid");
        let mut watch = Fairness::new();
        watch.wait(&plan, ENGINE, Class::Batch, &tenant, true);
        for round in 0..1_000 {
            watch.dispatch(&plan, ENGINE, Class::Interactive, &tenant, (4, 6));
            watch.end(&plan, ENGINE, Class::Interactive, &tenant, (4, 6), 10);
            watch.check(At(round), &plan);
        }
    }
}
