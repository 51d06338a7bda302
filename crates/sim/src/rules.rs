//! Rules hung on tenants, checked from outside: calls in flight and calls per minute of
//! every prefix, whatever the kernel believes it granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::plan::{Plan, TenantRule};
use seawall_model::{At, Tenant};

/// A minute in microseconds: a bucket's level is counted in calls times this.
const MINUTE: u64 = 60_000_000;

/// Calls under one rule.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    running: u32,
    /// Calls that could still be granted, in microseconds of the rate.
    level: u64,
    filled: At,
}

/// The book of every prefix, and of every whole path by itself (where `*` counts).
#[derive(Debug, Default)]
pub struct Rules {
    below: BTreeMap<Arc<str>, Usage>,
    exact: BTreeMap<Arc<str>, Usage>,
}

fn rule_of<'a>(plan: &'a Plan, prefix: &str) -> Option<&'a TenantRule> {
    plan.tenants.iter().find(|rule| &*rule.prefix == prefix)
}

/// Is this a first segment in whose tree no rule names anything? Then `*` limits it as a
/// whole.
pub(crate) fn is_unnamed_root(plan: &Plan, path: &str) -> bool {
    let mut named = plan.tenants.iter().filter_map(|rule| rule.prefix.split('/').next());
    !path.contains('/') && !named.any(|root| root == path)
}

fn usage<'a>(book: &'a mut BTreeMap<Arc<str>, Usage>, path: &str) -> &'a mut Usage {
    // Buckets begin full.
    book.entry(path.into()).or_insert_with(|| Usage { level: u64::MAX, ..Usage::default() })
}

impl Rules {
    /// A call is dispatched; `first` if it is its first attempt.
    ///
    /// # Panics
    /// When a rule forbids it.
    pub fn grant(&mut self, now: At, plan: &Plan, tenant: &Tenant, first: bool) {
        for prefix in tenant.prefixes() {
            let default = if is_unnamed_root(plan, prefix) { rule_of(plan, "*") } else { None };
            let rule = rule_of(plan, prefix).or(default);
            usage(&mut self.below, prefix).grant(now, rule, prefix, first);
        }
        let path = tenant.as_str();
        let default = if rule_of(plan, path).is_none() { rule_of(plan, "*") } else { None };
        usage(&mut self.exact, path).grant(now, default, path, first);
    }

    /// An attempt ended.
    pub fn release(&mut self, tenant: &Tenant) {
        for prefix in tenant.prefixes() {
            usage(&mut self.below, prefix).running -= 1;
        }
        usage(&mut self.exact, tenant.as_str()).running -= 1;
    }

    /// Rates have changed, or the kernel was started anew: buckets begin full.
    pub fn refill(&mut self, running_lost: bool) {
        for usage in self.below.values_mut().chain(self.exact.values_mut()) {
            usage.level = u64::MAX;
            if running_lost {
                usage.running = 0;
            }
        }
    }
}

impl Usage {
    fn grant(&mut self, now: At, rule: Option<&TenantRule>, path: &str, first: bool) {
        self.running += 1;
        let Some(rule) = rule else { return };
        if let Some(most) = rule.calls_max {
            assert!(
                self.running <= most,
                "rules: {path} has {} calls in flight, {most} allowed",
                self.running
            );
        }
        let Some(rate) = rule.rate.calls_per_min.filter(|_| first) else {
            return;
        };
        let rate = u64::from(rate);
        // The burst: a tenth of a minute, at least one call; and one more for rounding.
        let most = ((rate / 10).max(1) + 1) * MINUTE;
        self.level = self.level.saturating_add(now.micros_since(self.filled).saturating_mul(rate)).min(most);
        self.filled = now;
        assert!(self.level >= MINUTE, "rules: {path} was granted more than {rate} calls per minute");
        self.level -= MINUTE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_kernel::plan::Rate;

    fn plan(calls_max: Option<u32>, calls_per_min: Option<u32>) -> Plan {
        let rate = Rate { calls_per_min, tokens_per_min: None };
        Plan {
            tenants: vec![TenantRule {
                prefix: "acme".into(),
                weight: 1,
                calls_max,
                rate,
                budgets: Vec::new(),
            }],
            ..Plan::default()
        }
    }

    fn grants(plan: &Plan, times: &[u64]) {
        let mut rules = Rules::default();
        for (nth, at) in times.iter().enumerate() {
            let tenant = Tenant::parse(&format!("acme/{nth}")).expect("valid");
            rules.grant(At(*at), plan, &tenant, true);
        }
    }

    #[test]
    fn what_the_rules_allow_passes() {
        grants(&plan(Some(3), None), &[1, 2, 3]);
        // Sixty a minute: a burst of six (and one for rounding), then one a second.
        grants(&plan(None, Some(60)), &[0, 0, 0, 0, 0, 0, 0, 1_000_000, 2_000_000]);
    }

    #[test]
    #[should_panic(expected = "4 calls in flight, 3 allowed")]
    fn one_call_too_many_below_a_prefix_is_caught() {
        grants(&plan(Some(3), None), &[1, 2, 3, 4]);
    }

    #[test]
    #[should_panic(expected = "more than 60 calls per minute")]
    fn too_many_calls_in_a_minute_are_caught() {
        grants(&plan(None, Some(60)), &[0, 0, 0, 0, 0, 0, 0, 1_000_000, 1_500_000]);
    }
}
