//! Budgets that survive restarts, without a disk write per call.
//!
//! The kernel reserves a budget in slices. A slice is drawn ahead: the account's
//! `ceiling` is made durable first ([`Store::draw`]), and only then may calls spend up
//! to it. What was really spent is written lazily ([`Store::settle`]) and exactly at a
//! clean stop ([`Store::close_clean`]). After a crash an account counts as spent up to
//! its ceiling, so a crash can only under-spend a budget, never over-spend it (I12).
//! The reasoning, and what it costs: `docs/adr/0007-budget-slices.md`.

use rusqlite::{Transaction, params};
use seawall_model::{At, limits};

use crate::{Error, Store, Sync, column};

/// One budget in one window of time. Amounts are in the budget's own unit (tokens,
/// millionths of a dollar, calls), which the account's name implies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Tenant prefix and budget, such as `acme/search#usd/day`.
    pub account: String,
    /// Start of the window.
    pub window: At,
    /// May be spent up to here; durable before it is used.
    pub ceiling: u64,
    /// Spent so far.
    pub spent: u64,
}

/// Rows that a start reads: every account the kernel can hold, in each window kept.
const ACCOUNTS_READ_MAX: usize = limits::BUDGETS_MAX * limits::ACCOUNT_WINDOWS_KEPT;

// `prune` below keeps the drawn window and the one before it.
const _: () = assert!(limits::ACCOUNT_WINDOWS_KEPT == 2, "the pruning statement keeps two windows");

impl Store {
    /// All accounts as of now, by name and window. Beyond the kernel's limit those whose
    /// window never ends win, then the newest windows.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn accounts(&self) -> Result<Vec<Account>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT account, window, ceiling, spent FROM accounts
             ORDER BY window = 0 DESC, window DESC, account LIMIT ?1",
        )?;
        let rows = statement.query_map(params![column::count(ACCOUNTS_READ_MAX)], |row| {
            Ok(Account {
                account: row.get(0)?,
                window: column::at(row.get(1)?),
                ceiling: column::unsigned(row.get(2)?),
                spent: column::unsigned(row.get(3)?),
            })
        })?;
        let mut accounts = rows.collect::<Result<Vec<_>, _>>()?;
        accounts.sort_unstable_by(|a, b| (&a.account, a.window).cmp(&(&b.account, b.window)));
        Ok(accounts)
    }

    /// Raises the ceilings of these accounts in one transaction, durable on return. A
    /// ceiling never falls here, and what a known account has spent is left as it is:
    /// `spent` counts only for an account's first draw in a window. Windows two behind
    /// the drawn one are forgotten.
    ///
    /// # Errors
    /// If the disk fails; then nothing was drawn, and nothing of it may be spent.
    pub fn draw(&mut self, accounts: &[Account]) -> Result<(), Error> {
        if accounts.is_empty() {
            return Ok(());
        }
        self.write(Sync::Full, |transaction| {
            for account in accounts {
                draw_one(transaction, account)?;
                prune(transaction, account)?;
            }
            Ok(())
        })
    }

    /// Notes what these accounts have spent. Accounts never drawn are passed over; one
    /// that spent past its ceiling (an engine used more than was reserved) takes its
    /// ceiling along.
    ///
    /// # Errors
    /// If the disk fails; then none of it is noted, and a crash counts the ceilings.
    pub fn settle(&mut self, accounts: &[Account]) -> Result<(), Error> {
        if accounts.is_empty() {
            return Ok(());
        }
        self.write(Sync::Normal, |transaction| {
            let mut statement = transaction.prepare_cached(
                "UPDATE accounts SET spent = ?3, ceiling = max(ceiling, ?3), clean = 0
                 WHERE account = ?1 AND window = ?2",
            )?;
            for account in accounts {
                statement.execute(params![
                    account.account,
                    column::time(account.window),
                    column::amount(account.spent)
                ])?;
            }
            Ok(())
        })
    }

    /// Writes what these accounts spent, exactly, and gives back what they had drawn
    /// beyond it. For a clean stop, after the last call has settled; durable on return.
    ///
    /// # Errors
    /// If the disk fails; then the next start counts the ceilings.
    pub fn close_clean(&mut self, accounts: &[Account]) -> Result<(), Error> {
        if accounts.is_empty() {
            return Ok(());
        }
        self.write(Sync::Full, |transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO accounts (account, window, ceiling, spent, clean) VALUES (?1, ?2, ?3, ?3, 1)
                 ON CONFLICT (account, window) DO UPDATE SET
                     ceiling = excluded.ceiling, spent = excluded.spent, clean = 1",
            )?;
            for account in accounts {
                statement.execute(params![
                    account.account,
                    column::time(account.window),
                    column::amount(account.spent)
                ])?;
            }
            Ok(())
        })
    }

    /// Forgets accounts whose window began before `before`: budgets that were taken out
    /// of the config, tenants that never came back. A window that began at the epoch is
    /// that of a budget for good, which never ends: it stays. Returns how many went; call
    /// again while it returns [`limits::PRUNE_ROWS_MAX`].
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prune_accounts(&mut self, before: At) -> Result<usize, Error> {
        self.write(Sync::Normal, |transaction| {
            let deleted = transaction.execute(
                "DELETE FROM accounts WHERE (account, window) IN
                     (SELECT account, window FROM accounts WHERE window > 0 AND window < ?1 LIMIT ?2)",
                params![column::time(before), column::count(limits::PRUNE_ROWS_MAX)],
            )?;
            Ok(deleted)
        })
    }

    /// Counts every account that was not closed cleanly as spent up to its ceiling, and
    /// returns how many that changed. Doing it twice changes nothing more.
    pub(crate) fn recover_accounts(&mut self) -> Result<usize, Error> {
        self.write(Sync::Full, |transaction| {
            let changed = transaction
                .execute("UPDATE accounts SET spent = ceiling WHERE clean = 0 AND spent < ceiling", [])?;
            Ok(changed)
        })
    }
}

fn draw_one(transaction: &Transaction<'_>, account: &Account) -> Result<(), Error> {
    // A draw knows nothing of what was spent: that is for `settle` to say.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO accounts (account, window, ceiling, spent, clean) VALUES (?1, ?2, max(?3, ?4), ?4, 0)
         ON CONFLICT (account, window) DO UPDATE SET ceiling = max(ceiling, excluded.ceiling), clean = 0",
    )?;
    statement.execute(params![
        account.account,
        column::time(account.window),
        column::amount(account.ceiling),
        column::amount(account.spent),
    ])?;
    Ok(())
}

fn prune(transaction: &Transaction<'_>, account: &Account) -> Result<(), Error> {
    // Relative to the drawn window, not the newest: a clock set back must not delete
    // the window that is being spent from.
    let mut statement = transaction.prepare_cached(
        "DELETE FROM accounts WHERE account = ?1 AND window <
             (SELECT max(window) FROM accounts WHERE account = ?1 AND window < ?2)",
    )?;
    statement.execute(params![account.account, column::time(account.window)])?;
    Ok(())
}
