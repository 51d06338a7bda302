//! The world's own book of budgets: what each run and all below it used, added up from
//! records alone, against what the world itself says that each may use, and what it is to
//! pay for (I12).

use std::collections::BTreeMap;

use seawall_model::RunKey;
use seawall_model::effect::{Allowance, Spend};

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    above: Option<RunKey>,
    allowance: Allowance,
    used: Spend,
    billed: Spend,
}

/// All accounts.
#[derive(Clone, Debug, Default)]
pub struct Purse {
    accounts: BTreeMap<RunKey, Account>,
    /// Answers that were booked on a run that had nothing left of something.
    pub tight: u64,
}

impl Purse {
    /// A run begins.
    pub fn open(&mut self, run: RunKey, above: Option<RunKey>, allowance: Allowance) {
        self.accounts.insert(run, Account { above, allowance, ..Account::default() });
    }

    /// Something was used by a run, and so by all above it.
    pub fn spend(&mut self, run: RunKey, used: Spend) {
        let mut next = Some(run);
        while let Some(key) = next {
            let Some(account) = self.accounts.get_mut(&key) else { break };
            account.used = account.used.plus(used);
            let (used, most) = (account.used, account.allowance);
            assert!(
                most.tokens.is_none_or(|most| used.tokens <= most),
                "I12: {key} used {used:?} of {most:?}"
            );
            assert!(most.money.is_none_or(|most| used.money <= most), "I12: {key} used {used:?} of {most:?}");
            assert!(most.calls.is_none_or(|most| used.calls <= most), "I12: {key} used {used:?} of {most:?}");
            assert!(most.steps.is_none_or(|most| used.steps <= most), "I12: {key} used {used:?} of {most:?}");
            self.tight += u64::from(most.calls == Some(used.calls) || most.steps == Some(used.steps));
            next = account.above;
        }
    }

    /// Somebody wants this for what a run had done, and so of all above it.
    pub fn bill(&mut self, run: RunKey, price: Spend) {
        let mut next = Some(run);
        while let Some(account) = next.and_then(|key| self.accounts.get_mut(&key)) {
            account.billed = account.billed.plus(price);
            next = account.above;
        }
    }

    /// What a run and all below it are to pay.
    #[must_use]
    pub fn billed(&self, run: RunKey) -> Spend {
        self.accounts.get(&run).map_or(Spend::default(), |account| account.billed)
    }

    /// What a run used.
    #[must_use]
    pub fn used(&self, run: RunKey) -> Spend {
        self.accounts.get(&run).map_or(Spend::default(), |account| account.used)
    }
}
