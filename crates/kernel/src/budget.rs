//! Budgets, exact under concurrency (I12): what a call may use at most is reserved
//! before it is dispatched and settled to what it used. Below the limit lies a durable
//! ceiling that is drawn in slices, so that a crash forgets no spending: after it,
//! everything up to the ceiling counts as spent.
//!
//! A use belongs to the window in which it was admitted: a call that runs past the end
//! of a minute still weighs on the minute that let it in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_model::{At, Millis, Tokens, Usage, limits};

use crate::calendar::window;
use crate::plan::{BudgetRule, Meter, Period, Price};
use crate::view::BudgetView;

/// A slice is this part of the limit: small enough that a crash wastes little, large
/// enough that drawing is rare.
const SLICES: u64 = 64;
/// Accounts that one root tenant can open through users that no rule names: an eighth of
/// the table, so that whoever invents users shuts out only new ones of its own.
const INVENTED_MAX: usize = limits::BUDGETS_MAX / 8;
/// A table without room is swept at most this often: a sweep looks at every account.
const SWEEP_MS: Millis = Millis(1_000);

/// One account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: Arc<str>,
    pub(crate) meter: Meter,
    period: Period,
    pub(crate) limit: u64,
    /// Does a rule of the current plan stand behind it?
    pub(crate) active: bool,
    pub(crate) start: At,
    pub(crate) end: At,
    pub(crate) spent: u64,
    pub(crate) reserved: u64,
    ceiling: u64,
    asked: Option<u64>,
    told: u64,
    /// Does it stand under the rule `*`, for a path that no rule names?
    invented: bool,
    /// The tenant node that waits for this account.
    pub(crate) held: Option<u32>,
}

/// Room taken for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) account: u64,
    pub(crate) window: At,
    pub(crate) amount: u64,
}

/// Is there room?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes.
    Fits,
    /// Once the next slice is durable.
    Draw,
    /// Once calls in flight have settled.
    Wait,
    /// Not in this window.
    Exhausted,
}

impl Account {
    /// Begins a new window if the old one is over.
    pub(crate) fn roll(&mut self, now: At) {
        if now >= self.end {
            (self.start, self.end) = window(self.period, now);
            (self.spent, self.reserved, self.ceiling, self.told) = (0, 0, 0, 0);
            self.asked = None;
        }
    }

    pub(crate) fn room(&self, need: u64) -> Room {
        let used = self.spent.saturating_add(self.reserved).saturating_add(need);
        if self.spent.saturating_add(need) > self.limit {
            Room::Exhausted
        } else if used > self.limit {
            Room::Wait
        } else if used > self.ceiling {
            Room::Draw
        } else {
            Room::Fits
        }
    }

    fn slice(&self) -> u64 {
        (self.limit / SLICES).max(1)
    }

    /// The ceiling to ask for so that `need` fits, unless one was asked for already.
    pub(crate) fn ask(&mut self, need: u64) -> Option<u64> {
        if self.asked.is_some() {
            return None;
        }
        let used = self.spent.saturating_add(self.reserved).saturating_add(need);
        let ceiling = self.limit.min(self.ceiling.max(used).saturating_add(self.slice()));
        self.asked = Some(ceiling);
        Some(ceiling)
    }

    /// The ceiling to ask for ahead of need, when three quarters of the slice are used.
    pub(crate) fn ask_early(&mut self) -> Option<u64> {
        let left = self.ceiling.saturating_sub(self.spent.saturating_add(self.reserved));
        if left >= self.slice() / 4 || self.ceiling >= self.limit {
            return None;
        }
        self.ask(0)
    }

    /// A slice is durable. Says whether it was one for this window.
    pub(crate) fn drawn(&mut self, window: At, ceiling: u64) -> bool {
        let ours = window == self.start;
        if ours {
            self.asked = None;
            self.ceiling = self.ceiling.max(ceiling.min(self.limit));
        }
        ours
    }
}

/// All accounts, by name and by a serial number that is never reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    names: BTreeMap<Arc<str>, u64>,
    map: BTreeMap<u64, Account>,
    serial: u64,
    /// Accounts under the rule `*`, by root tenant.
    invented: BTreeMap<Arc<str>, usize>,
    swept: Option<At>,
    /// Accounts whose spending has changed since it was last told.
    pub(crate) untold: BTreeSet<u64>,
}

/// The root tenant of a path or of an account's name.
fn root(path: &str) -> &str {
    path.split(['/', '#']).next().unwrap_or_default()
}

/// The name of an account: `prefix#meter/period`.
pub(crate) fn name(prefix: &str, rule: &BudgetRule) -> Arc<str> {
    let meter = match rule.meter {
        Meter::Tokens => "tokens",
        Meter::Money => "usd",
        Meter::Calls => "calls",
    };
    let period = PERIODS.iter().find(|(_, period)| *period == rule.period).map_or("total", |(name, _)| name);
    format!("{prefix}#{meter}/{period}").into()
}

const PERIODS: [(&str, Period); 5] = [
    ("minute", Period::Minute),
    ("hour", Period::Hour),
    ("day", Period::Day),
    ("month", Period::Month),
    ("total", Period::Total),
];

fn parse(name: &str) -> Option<(Meter, Period)> {
    let (_, tail) = name.rsplit_once('#')?;
    let (meter, period) = tail.split_once('/')?;
    let meter = match meter {
        "tokens" => Meter::Tokens,
        "usd" => Meter::Money,
        "calls" => Meter::Calls,
        _ => return None,
    };
    PERIODS.iter().find(|(name, _)| *name == period).map(|(_, period)| (meter, *period))
}

impl Accounts {
    pub(crate) fn get(&self, account: u64) -> Option<&Account> {
        self.map.get(&account)
    }

    pub(crate) fn get_mut(&mut self, account: u64) -> Option<&mut Account> {
        self.map.get_mut(&account)
    }

    pub(crate) fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// The account of a rule, made if need be; `invented` where it is the rule `*`. `None`
    /// when the table, or the part of it that the root tenant may fill so, is full of
    /// accounts whose windows still count.
    pub(crate) fn open(&mut self, prefix: &str, rule: &BudgetRule, invented: bool, now: At) -> Option<u64> {
        let name = name(prefix, rule);
        let serial = if let Some(serial) = self.find(&name) {
            serial
        } else {
            let full = |accounts: &Self| accounts.invented.get(root(prefix)) >= Some(&INVENTED_MAX);
            if invented && full(self) && (!self.make_room(now) || full(self)) {
                return None;
            }
            self.insert(name, rule.meter, rule.period, rule.limit, true, now)?
        };
        let account = self.map.get_mut(&serial)?;
        account.limit = rule.limit;
        account.active = true;
        if invented && !std::mem::replace(&mut account.invented, true) {
            *self.invented.entry(root(prefix).into()).or_default() += 1;
        }
        Some(serial)
    }

    fn insert(
        &mut self,
        name: Arc<str>,
        meter: Meter,
        period: Period,
        limit: u64,
        active: bool,
        now: At,
    ) -> Option<u64> {
        if self.map.len() >= limits::BUDGETS_MAX && !self.make_room(now) {
            return None;
        }
        self.serial += 1;
        let (start, end) = window(period, now);
        let account = Account {
            name: Arc::clone(&name),
            meter,
            period,
            limit,
            active,
            start,
            end,
            spent: 0,
            reserved: 0,
            ceiling: 0,
            asked: None,
            told: 0,
            invented: false,
            held: None,
        };
        self.names.insert(name, self.serial);
        self.map.insert(self.serial, account);
        Some(self.serial)
    }

    /// Drops the accounts that hold nothing: their window is over or nothing was spent.
    /// The tenant nodes that knew them open them again when they need them.
    fn make_room(&mut self, now: At) -> bool {
        if self.swept.is_some_and(|swept| now < swept.plus(SWEEP_MS)) {
            return false;
        }
        self.swept = Some(now);
        let before = self.map.len();
        let invented = &mut self.invented;
        self.map.retain(|_, account| {
            let over = now >= account.end;
            let empty = account.spent == 0 && account.ceiling == 0 && account.asked.is_none();
            let keep = !((over || empty) && account.reserved == 0 && account.held.is_none());
            if !keep
                && account.invented
                && let Some(count) = invented.get_mut(root(&account.name))
            {
                *count -= 1;
            }
            keep
        });
        invented.retain(|_, count| *count > 0);
        let map = &self.map;
        self.names.retain(|_, serial| map.contains_key(serial));
        self.untold.retain(|serial| map.contains_key(serial));
        self.map.len() < before
    }

    /// What the store remembers. Anything of a window that is over is forgotten, and a
    /// name that is no account's is ignored.
    pub(crate) fn restore(&mut self, name: &Arc<str>, at: At, spent: u64, now: At) {
        let Some((meter, period)) = parse(name) else {
            return;
        };
        if window(period, now).0 != at {
            return;
        }
        let serial =
            self.find(name).or_else(|| self.insert(Arc::clone(name), meter, period, u64::MAX, false, now));
        if let Some(account) = serial.and_then(|serial| self.map.get_mut(&serial)) {
            account.roll(now);
            account.spent = account.spent.max(spent);
            account.told = account.spent;
            account.ceiling = account.ceiling.max(spent);
        }
    }

    /// Gives room back, without a use.
    pub(crate) fn release(&mut self, reservation: Reservation) {
        if let Some(account) = self.map.get_mut(&reservation.account)
            && account.start == reservation.window
        {
            account.reserved = account.reserved.saturating_sub(reservation.amount);
        }
    }

    /// Books a use to the window that admitted it.
    pub(crate) fn spend(&mut self, reservation: Reservation, amount: u64) {
        if let Some(account) = self.map.get_mut(&reservation.account)
            && account.start == reservation.window
            && amount > 0
        {
            account.spent = account.spent.saturating_add(amount);
            self.untold.insert(reservation.account);
        }
    }

    /// The next account whose spending is to be told, with what was spent.
    pub(crate) fn tell(&mut self) -> Option<(Arc<str>, At, u64)> {
        while let Some(serial) = self.untold.pop_first() {
            if let Some(account) = self.map.get_mut(&serial)
                && account.told != account.spent
            {
                account.told = account.spent;
                return Some((Arc::clone(&account.name), account.start, account.spent));
            }
        }
        None
    }

    /// Before a reload: no account has a rule until one is found again.
    pub(crate) fn deactivate(&mut self) {
        for account in self.map.values_mut() {
            account.active = false;
            account.held = None;
        }
    }

    pub(crate) fn view(&self, now: At) -> Vec<BudgetView> {
        let accounts =
            self.names.values().filter_map(|serial| self.map.get(serial)).filter(|account| account.active);
        accounts
            .map(|account| {
                let over = now >= account.end;
                BudgetView {
                    account: Arc::clone(&account.name),
                    window: if over { window(account.period, now).0 } else { account.start },
                    limit: account.limit,
                    spent: if over { 0 } else { account.spent },
                    reserved: if over { 0 } else { account.reserved },
                }
            })
            .collect()
    }

    pub(crate) fn check(&self) {
        assert!(self.map.len() <= limits::BUDGETS_MAX, "budget accounts are bounded (I5)");
        let invented = self.map.values().filter(|account| account.invented).count();
        assert_eq!(invented, self.invented.values().sum::<usize>(), "accounts under `*` are counted");
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Account)> {
        self.map.iter().map(|(serial, account)| (*serial, account))
    }
}

/// The most a call can take from an account: the whole prompt at its dearest price and
/// every output token it may have.
pub(crate) fn need(meter: Meter, price: &Price, prompt: Tokens, output: Tokens) -> u64 {
    match meter {
        Meter::Tokens => (prompt + output).0,
        Meter::Money => {
            let dearest = price.input.max(price.cache_written).max(price.cached);
            let sum =
                u128::from(prompt.0) * u128::from(dearest) + u128::from(output.0) * u128::from(price.output);
            u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
        }
        Meter::Calls => 1,
    }
}

/// What an attempt took. A call counts once, with its first attempt.
pub(crate) fn used(meter: Meter, price: &Price, usage: &Usage, first: bool) -> u64 {
    match meter {
        Meter::Tokens => usage.total().0,
        Meter::Money => price.of(usage).0,
        Meter::Calls => u64::from(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BudgetRule = BudgetRule { meter: Meter::Tokens, period: Period::Minute, limit: 6_400 };

    fn opened() -> (Accounts, u64) {
        let mut accounts = Accounts::default();
        let serial = accounts.open("acme", &RULE, false, At(0)).expect("room");
        (accounts, serial)
    }

    #[test]
    fn room_is_judged_against_limit_and_ceiling() {
        let (mut accounts, serial) = opened();
        let account = accounts.get_mut(serial).expect("open");
        assert_eq!(account.room(100), Room::Draw);
        assert_eq!(account.ask(100), Some(200));
        assert_eq!(account.ask(100), None, "asked once");
        assert!(!account.drawn(At(60_000_000), 200), "another window's slice is not ours");
        assert!(account.drawn(At(0), 200));
        assert_eq!(account.room(200), Room::Fits);
        account.reserved = 180;
        assert_eq!(account.ask_early(), Some(300));
        account.reserved = 6_000;
        assert_eq!(account.room(500), Room::Wait);
        account.spent = 6_000;
        assert_eq!(account.room(500), Room::Exhausted);
        account.roll(At(60_000_000));
        assert_eq!((account.spent, account.reserved, account.start), (0, 0, At(60_000_000)));
    }

    #[test]
    fn a_use_belongs_to_the_window_that_admitted_it() {
        let (mut accounts, serial) = opened();
        let reservation = Reservation { account: serial, window: At(0), amount: 50 };
        accounts.get_mut(serial).expect("open").reserved = 50;
        accounts.release(reservation);
        accounts.spend(reservation, 40);
        assert_eq!(accounts.tell(), Some(("acme#tokens/minute".into(), At(0), 40)));
        assert_eq!(accounts.tell(), None);
        accounts.get_mut(serial).expect("open").roll(At(60_000_000));
        accounts.spend(reservation, 40);
        assert_eq!(accounts.get(serial).map(|account| account.spent), Some(0));
    }

    #[test]
    fn what_the_store_remembers_counts_as_spent() {
        let mut accounts = Accounts::default();
        let name: Arc<str> = "acme#tokens/minute".into();
        accounts.restore(&name, At(0), 500, At(30_000_000));
        accounts.restore(&"nonsense".into(), At(0), 500, At(0));
        accounts.restore(&"old#calls/minute".into(), At(0), 500, At(70_000_000));
        let serial = accounts.open("acme", &RULE, false, At(30_000_000)).expect("room");
        assert_eq!(accounts.find(&name), Some(serial));
        assert_eq!(accounts.get(serial).map(|account| (account.spent, account.limit)), Some((500, 6_400)));
        assert_eq!(accounts.view(At(30_000_000)).len(), 1);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_empty_first() {
        let mut accounts = Accounts::default();
        for at in 0..limits::BUDGETS_MAX {
            let serial = accounts.open(&format!("t{at}"), &RULE, false, At(0)).expect("room");
            accounts.get_mut(serial).expect("open").spent = 1;
        }
        assert_eq!(accounts.open("late", &RULE, false, At(1)), None);
        assert!(accounts.open("late", &RULE, false, At(60_000_000)).is_some(), "old windows make room");
    }

    #[test]
    fn inventing_users_fills_an_eighth_and_no_more() {
        let mut accounts = Accounts::default();
        for at in 0..INVENTED_MAX {
            let serial = accounts.open(&format!("acme/u{at}"), &RULE, true, At(0)).expect("room");
            accounts.get_mut(serial).expect("open").spent = 1;
        }
        assert_eq!(accounts.open("acme/late", &RULE, true, At(1)), None);
        assert!(accounts.open("acme/u0", &RULE, true, At(1)).is_some(), "a known one stays");
        assert!(
            accounts.open("acme/named", &RULE, false, At(1)).is_some(),
            "a rule of its own has its place"
        );
        assert!(accounts.open("beta/u0", &RULE, true, At(1)).is_some(), "others are not shut out");
        accounts.check();
        assert!(accounts.open("acme/late", &RULE, true, At(60_000_000)).is_some(), "old windows make room");
        accounts.check();
    }
}
