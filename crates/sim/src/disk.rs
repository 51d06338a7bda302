//! The disk: the real ledger in memory behind one writer that takes its time. What it
//! has written survives a crash of the kernel; what it has not is gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use seawall_model::At;
use seawall_store::{Account, Store};

/// A slice on its way to the disk.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The account.
    pub account: Arc<str>,
    /// Its window.
    pub window: At,
    /// Up to here.
    pub ceiling: u64,
}

/// The ledger and its writer.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    /// In order; the writer does one at a time.
    waiting: VecDeque<Draw>,
    /// When the writer is done with all of them.
    busy_until: At,
    /// What was last said to be spent.
    spent: BTreeMap<(Arc<str>, At), u64>,
    /// Said since the last write.
    unwritten: BTreeMap<(Arc<str>, At), u64>,
}

impl Disk {
    /// An empty ledger.
    ///
    /// # Panics
    /// When SQLite does not work in memory: then nothing does.
    #[must_use]
    pub fn new() -> Self {
        Self {
            store: Store::in_memory().expect("SQLite works in memory"),
            waiting: VecDeque::new(),
            busy_until: At(0),
            spent: BTreeMap::new(),
            unwritten: BTreeMap::new(),
        }
    }

    /// Takes in a draw; it will be durable at the time returned.
    pub fn draw(&mut self, now: At, draw: Draw, takes_us: u64) -> At {
        self.waiting.push_back(draw);
        self.busy_until = At(self.busy_until.max(now).0 + takes_us);
        self.busy_until
    }

    /// The oldest draw is written.
    ///
    /// # Panics
    /// When the ledger refuses.
    pub fn write_one(&mut self) -> Option<Draw> {
        let draw = self.waiting.pop_front()?;
        let key = (Arc::clone(&draw.account), draw.window);
        let spent = self.spent.get(&key).copied().unwrap_or(0);
        let account = Account {
            account: draw.account.as_ref().into(),
            window: draw.window,
            ceiling: draw.ceiling,
            spent,
        };
        self.store.draw(&[account]).expect("a ledger in memory takes a draw");
        Some(draw)
    }

    /// The kernel says what is spent; written before long.
    pub fn note(&mut self, account: Arc<str>, window: At, spent: u64) {
        self.spent.insert((Arc::clone(&account), window), spent);
        self.unwritten.insert((account, window), spent);
    }

    /// Writes all that was noted.
    ///
    /// # Panics
    /// When the ledger refuses.
    pub fn settle(&mut self) {
        let noted = std::mem::take(&mut self.unwritten);
        self.store.settle(&rows(&noted)).expect("a ledger in memory takes a settlement");
    }

    /// Power is gone: `written` of the draws under way made it to the disk unseen.
    pub fn crash(&mut self, written: usize) {
        for _ in 0..written {
            self.write_one();
        }
        self.waiting.clear();
        self.busy_until = At(0);
        self.unwritten.clear();
        self.spent.clear();
    }

    /// After a crash: every account with what must count as spent.
    ///
    /// # Panics
    /// When the ledger cannot be read.
    pub fn recover(&mut self) -> Vec<(Arc<str>, At, u64)> {
        let accounts = self.store.accounts().expect("a ledger in memory can be read");
        let all: Vec<(Arc<str>, At, u64)> = accounts
            .into_iter()
            .map(|row| (row.account.into(), row.window, row.ceiling.max(row.spent)))
            .collect();
        self.spent =
            all.iter().map(|(account, window, spent)| ((Arc::clone(account), *window), *spent)).collect();
        all
    }

    /// A clean stop: gives back what was drawn beyond what was spent, and returns what
    /// the ledger then says.
    ///
    /// # Panics
    /// When the ledger refuses.
    pub fn close(&mut self) -> Vec<(Arc<str>, At, u64)> {
        self.store.close_clean(&rows(&self.spent)).expect("a ledger in memory closes");
        self.unwritten.clear();
        let accounts = self.store.accounts().expect("a ledger in memory can be read");
        let known = |row: &Account| self.spent.contains_key(&(Arc::from(row.account.as_str()), row.window));
        accounts.into_iter().filter(known).map(|row| (row.account.into(), row.window, row.spent)).collect()
    }

    /// Draws not yet written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

fn rows(spent: &BTreeMap<(Arc<str>, At), u64>) -> Vec<Account> {
    spent
        .iter()
        .map(|((account, window), spent)| Account {
            account: account.as_ref().into(),
            window: *window,
            ceiling: *spent,
            spent: *spent,
        })
        .collect()
}
