//! The world's own book of budgets, kept by another method than the kernel's, and the
//! law it is held to: no budget is ever overspent on priced effects, not even across a
//! crash (I12).
//!
//! Where a call touches two windows (dispatched before midnight, answered after it) the
//! law does not say which one pays, so such amounts widen the range in which the
//! kernel's figure must lie instead of moving it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_kernel::plan::{BudgetRule, Meter, Period, Plan, Price};
use seawall_kernel::view::BudgetView;
use seawall_model::{At, Outcome, Tenant, Usage};

use crate::calls::Ended;
use crate::rules::is_unnamed_root;

const MINUTE: u64 = 60_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// One account of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// Spent by calls that began and ended in this window.
    sure: u64,
    /// Perhaps spent here as well.
    maybe: u64,
    /// What counted as spent when the kernel started.
    restored: u64,
    /// Really used by attempts dispatched in this window, over all lives of the kernel.
    truth: u64,
    /// May be spent up to here, on disk.
    durable: u64,
    /// The highest limit it had.
    limit: u64,
}

/// The book.
#[derive(Debug, Default)]
pub struct Accounts {
    pages: BTreeMap<(Arc<str>, At), Page>,
    by_tenant: BTreeMap<Tenant, Arc<[Account]>>,
    /// Tenants dispatched in the step under way.
    granted: BTreeSet<Tenant>,
}

/// An account of a tenant.
#[derive(Clone, Debug)]
pub struct Account {
    /// `prefix#meter/period`.
    pub name: Arc<str>,
    /// Its rule.
    pub rule: BudgetRule,
}

/// What an attempt used.
#[derive(Clone, Copy, Debug)]
pub struct UsedUp<'a> {
    /// Who pays.
    pub tenant: &'a Tenant,
    /// When it was dispatched.
    pub dispatched: At,
    /// What the engine really did.
    pub truth: Usage,
    /// What the kernel is told.
    pub told: Usage,
    /// At this price.
    pub price: Price,
}

/// Where the window around `at` begins.
#[must_use]
pub fn window(period: Period, at: At) -> At {
    match period {
        Period::Minute => At(at.0 - at.0 % MINUTE),
        Period::Hour => At(at.0 - at.0 % HOUR),
        Period::Day => At(at.0 - at.0 % DAY),
        Period::Month => month(at),
        Period::Total => At(0),
    }
}

/// The first of the month, counted up year by year: slow, plain, and not the kernel's way.
fn month(at: At) -> At {
    let mut day = 0;
    let today = at.0 / DAY;
    for year in 1_970u64.. {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for length in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if today < day + length {
                return At(day * DAY);
            }
            day += length;
        }
    }
    unreachable!("time ends before the years do")
}

fn period_of(account: &str) -> Option<Period> {
    Some(match account.rsplit_once('/')?.1 {
        "minute" => Period::Minute,
        "hour" => Period::Hour,
        "day" => Period::Day,
        "month" => Period::Month,
        "total" => Period::Total,
        _ => return None,
    })
}

fn name_of(prefix: &str, rule: BudgetRule) -> Arc<str> {
    let meter = match rule.meter {
        Meter::Tokens => "tokens",
        Meter::Money => "usd",
        Meter::Calls => "calls",
    };
    let period = match rule.period {
        Period::Minute => "minute",
        Period::Hour => "hour",
        Period::Day => "day",
        Period::Month => "month",
        Period::Total => "total",
    };
    format!("{prefix}#{meter}/{period}").into()
}

const fn amount(meter: Meter, usage: &Usage, cost: u64) -> u64 {
    match meter {
        Meter::Tokens => usage.input.0 + usage.output.0,
        Meter::Money => cost,
        Meter::Calls => 1,
    }
}

impl Accounts {
    /// The accounts a call of this tenant draws on.
    pub fn of(&mut self, plan: &Plan, tenant: &Tenant) -> Arc<[Account]> {
        if let Some(known) = self.by_tenant.get(tenant) {
            return Arc::clone(known);
        }
        let rule_of = |prefix: &str| plan.tenants.iter().find(|rule| &*rule.prefix == prefix);
        let mut accounts = Vec::new();
        for prefix in tenant.prefixes() {
            let whole = prefix.len() == tenant.as_str().len() || is_unnamed_root(plan, prefix);
            let rule = rule_of(prefix).or_else(|| if whole { rule_of("*") } else { None });
            for rule in rule.iter().flat_map(|rule| &rule.budgets) {
                accounts.push(Account { name: name_of(prefix, *rule), rule: *rule });
            }
        }
        let accounts: Arc<[Account]> = accounts.into();
        self.by_tenant.insert(tenant.clone(), Arc::clone(&accounts));
        accounts
    }

    /// The plan has changed.
    pub fn forget_rules(&mut self) {
        self.by_tenant.clear();
    }

    /// A new kernel starts: what it was told of each account is all it knows.
    pub fn restart(&mut self) {
        for page in self.pages.values_mut() {
            page.sure = 0;
            page.maybe = 0;
            page.restored = 0;
        }
        self.granted.clear();
    }

    /// The new kernel is told of an account.
    pub fn restore(&mut self, account: &Arc<str>, at: At, spent: u64) {
        let page = self.pages.entry((Arc::clone(account), at)).or_default();
        page.restored = spent;
        page.durable = page.durable.max(spent);
    }

    /// A slice is on disk.
    pub fn draw(&mut self, account: &Arc<str>, at: At, ceiling: u64) {
        let page = self.pages.entry((Arc::clone(account), at)).or_default();
        page.durable = page.durable.max(ceiling);
    }

    /// The step under way is not looked at.
    pub fn skip(&mut self) {
        self.granted.clear();
    }

    /// A call is dispatched.
    pub fn grant(&mut self, now: At, plan: &Plan, tenant: &Tenant, first: bool) {
        let accounts = self.of(plan, tenant);
        for account in accounts.iter() {
            let page = self.page(account, now);
            page.limit = page.limit.max(account.rule.limit);
            if first && account.rule.meter == Meter::Calls {
                // Counted now, or when it ends; a call that is lost may count as none.
                page.truth += 1;
                page.maybe += 1;
            }
        }
        if !accounts.is_empty() {
            self.granted.insert(tenant.clone());
        }
    }

    fn page(&mut self, account: &Account, at: At) -> &mut Page {
        self.pages.entry((Arc::clone(&account.name), window(account.rule.period, at))).or_default()
    }

    /// An attempt ended, having really used `truth`; the kernel is told of `told`.
    pub fn use_up(&mut self, now: At, plan: &Plan, use_up: &UsedUp<'_>) {
        let UsedUp { tenant, dispatched, truth, told, price } = *use_up;
        for account in self.of(plan, tenant).iter() {
            let meter = account.rule.meter;
            if meter == Meter::Calls {
                continue;
            }
            self.page(account, dispatched).truth += amount(meter, &truth, price.of(&truth).0);
            // Until the call settles nobody says when its failed attempts are charged.
            for at in windows(account.rule.period, &[dispatched, now]) {
                self.page(account, at).maybe += amount(meter, &told, price.of(&told).0);
            }
        }
    }

    /// A call is settled and charged.
    pub fn settle(&mut self, now: At, plan: &Plan, ended: &Ended, cost: u64) {
        let call = &ended.call;
        let done = ended.outcome == Outcome::Done;
        let Some(first) = call.dispatched_first else {
            return;
        };
        for account in self.of(plan, &call.submit.tenant).iter() {
            let meter = account.rule.meter;
            let charged = amount(meter, &call.used, cost);
            let spans = windows(account.rule.period, &[first, call.dispatched, now]);
            if meter == Meter::Calls && !done {
                continue;
            }
            if spans.len() == 1 {
                let page = self.page(account, now);
                page.sure += charged;
                page.maybe -= amount(meter, &call.used, call.cost_most);
            } else {
                for at in spans {
                    self.page(account, at).maybe += charged;
                }
            }
        }
    }

    /// Holds the kernel's figures against the book, after a step.
    ///
    /// # Panics
    /// When a budget is overspent, or a figure is wrong (I12).
    pub fn check(&mut self, now: At, plan: &Plan, views: &[BudgetView], strict: bool) {
        for view in views {
            let name = &view.account;
            let period = period_of(name).unwrap_or_else(|| panic!("I12: account {name} names no period"));
            assert_eq!(
                window(period, view.window),
                view.window,
                "I12: {name} has a window that begins at no {period:?}"
            );
            assert!(view.window <= now, "I12: {name} has a window that has not begun");
            let page = self.pages.get(&(Arc::clone(name), view.window)).copied().unwrap_or_default();
            let least = page.restored + page.sure;
            assert!(
                view.spent >= least && view.spent <= least + page.maybe,
                "I12: {name} says {} spent, the book says {least} to {}",
                view.spent,
                least + page.maybe
            );
        }
        for tenant in std::mem::take(&mut self.granted) {
            for account in self.of(plan, &tenant).iter() {
                let at = window(account.rule.period, now);
                let view = views.iter().find(|view| view.account == account.name && view.window == at);
                let Some(view) = view else { panic!("I12: {} was drawn on but is not shown", account.name) };
                let bound = view.spent + view.reserved;
                assert!(
                    bound <= account.rule.limit,
                    "I12: {} has {} spent and {} reserved after a dispatch, over its limit {}",
                    account.name,
                    view.spent,
                    view.reserved,
                    account.rule.limit
                );
                let durable = self.page(account, now).durable;
                assert!(
                    bound <= durable,
                    "I3: {} has {} spent and {} reserved after a dispatch, but only {durable} on disk",
                    account.name,
                    view.spent,
                    view.reserved
                );
            }
        }
        if strict {
            self.check_truth();
        }
    }

    /// What was really used, over all lives of the kernel, lies within the limits.
    ///
    /// # Panics
    /// When it does not (I12).
    pub fn check_truth(&self) {
        for ((name, at), page) in &self.pages {
            // A page without a limit was only ever restored.
            assert!(
                page.limit == 0 || page.truth <= page.limit,
                "I12: {name} of {at:?} really used {} of {}",
                page.truth,
                page.limit
            );
        }
    }

    /// Holds what the disk says after a clean stop against the book.
    ///
    /// # Panics
    /// When it is not exact (I12).
    pub fn check_disk(&self, now: At, name: &Arc<str>, at: At, spent: u64) {
        // Of a window that is over nobody writes the last word: nothing depends on it.
        if period_of(name).is_none_or(|period| window(period, now) != at) {
            return;
        }
        let page = self.pages.get(&(Arc::clone(name), at)).copied().unwrap_or_default();
        let least = page.restored + page.sure;
        assert!(
            (least..=least + page.maybe).contains(&spent),
            "I12: the disk has {spent} for {name} after a clean stop, the book {least} to {}",
            least + page.maybe
        );
    }

    /// Accounts that were really used up: at least nine tenths of the limit.
    #[must_use]
    pub fn tripped(&self) -> u64 {
        self.pages.values().filter(|page| page.limit > 0 && page.truth * 10 >= page.limit * 9).count() as u64
    }
}

fn windows(period: Period, times: &[At]) -> BTreeSet<At> {
    times.iter().map(|at| window(period, *at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_kernel::plan::{Rate, TenantRule};
    use seawall_model::Tokens;

    #[test]
    fn windows_begin_where_calendars_say() {
        let eve = crate::scenario::NEW_YEARS_EVE;
        assert_eq!(window(Period::Month, eve), At(1_796_083_200_000_000), "2026-12-01");
        assert_eq!(
            window(Period::Month, eve.plus(seawall_model::Millis(90_000))),
            At(1_798_761_600_000_000),
            "2027-01-01"
        );
        assert_eq!(window(Period::Month, At(951_868_800_000_000)), At(951_868_800_000_000), "2000-03-01");
        assert_eq!(window(Period::Month, At(951_868_799_999_999)), At(949_363_200_000_000), "2000-02-01");
        assert_eq!(window(Period::Minute, eve), At(eve.0 - 30_000_000));
        assert_eq!(window(Period::Total, eve), At(0));
    }

    fn opened(limit: u64, durable: u64) -> (Accounts, Plan, Tenant) {
        let tenant = Tenant::parse("acme/search").expect("valid");
        let budget = BudgetRule { meter: Meter::Tokens, period: Period::Minute, limit };
        let rule = TenantRule {
            prefix: "acme".into(),
            weight: 1,
            calls_max: None,
            rate: Rate::default(),
            budgets: vec![budget],
        };
        let plan = Plan { tenants: vec![rule], ..Plan::default() };
        let mut accounts = Accounts::default();
        accounts.draw(&"acme#tokens/minute".into(), At(0), durable);
        accounts.grant(At(5), &plan, &tenant, true);
        (accounts, plan, tenant)
    }

    fn shows(spent: u64, reserved: u64) -> [BudgetView; 1] {
        [BudgetView { account: "acme#tokens/minute".into(), window: At(0), limit: 100, spent, reserved }]
    }

    fn used(accounts: &mut Accounts, plan: &Plan, tenant: &Tenant, input: u64) {
        let usage = Usage { input: Tokens(input), ..Usage::default() };
        let used = UsedUp { tenant, dispatched: At(5), truth: usage, told: usage, price: Price::default() };
        accounts.use_up(At(9), plan, &used);
    }

    #[test]
    fn figures_within_the_law_pass() {
        let (mut accounts, plan, tenant) = opened(100, 100);
        accounts.check(At(5), &plan, &shows(0, 100), true);
        used(&mut accounts, &plan, &tenant, 60);
        accounts.check(At(9), &plan, &shows(60, 0), true);
    }

    #[test]
    #[should_panic(expected = "over its limit")]
    fn a_reservation_over_the_limit_is_caught() {
        let (mut accounts, plan, _) = opened(100, 1_000);
        accounts.check(At(5), &plan, &shows(0, 101), true);
    }

    #[test]
    #[should_panic(expected = "I3:")]
    fn spending_before_the_disk_knows_is_caught() {
        let (mut accounts, plan, _) = opened(100, 50);
        accounts.check(At(5), &plan, &shows(0, 51), true);
    }

    #[test]
    #[should_panic(expected = "really used")]
    fn real_use_over_the_limit_is_caught() {
        let (mut accounts, plan, tenant) = opened(100, 100);
        used(&mut accounts, &plan, &tenant, 101);
        accounts.check_truth();
    }

    #[test]
    #[should_panic(expected = "the book says")]
    fn a_charge_that_nobody_made_is_caught() {
        let (mut accounts, plan, _) = opened(100, 100);
        accounts.check(At(5), &plan, &shows(1, 0), true);
    }
}
