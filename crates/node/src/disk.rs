//! The thread that owns the store. Calls leave records behind and go on; budget slices
//! come first and are durable before the kernel hears of them. If the disk fails,
//! serving goes on: records are dropped and counted, slices are tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use seawall_model::{At, Millis, Record, limits};
use seawall_store::{Account, Store};

use crate::clock;
use crate::keys::KeyTable;
use crate::tasks::{Kind, Tasks};

/// Records are written in batches this far apart: a batch costs one transaction.
const BATCH: Duration = Duration::from_millis(200);
/// How often keys made by another process are looked for.
const KEYS_EVERY: Millis = Millis(1_000);
/// How often old records and accounts are pruned.
const PRUNE_EVERY: Millis = Millis(60_000);

/// The way to the disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Desk>);

/// What lies on the desk for the disk thread.
#[derive(Debug)]
struct Desk {
    pile: Mutex<Pile>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Pile {
    records: Vec<Arc<Record>>,
    // At most one entry per account and window, so bounded by the kernel's accounts.
    draws: BTreeMap<(Arc<str>, At), u64>,
    spent: BTreeMap<(Arc<str>, At), u64>,
    used: BTreeMap<Arc<str>, At>,
    stop: bool,
}

/// What the disk thread tells of.
pub struct News {
    /// A budget slice is durable.
    pub drawn: Box<dyn Fn(Arc<str>, At, u64) + Send>,
    /// So many records had to be dropped.
    pub dropped: Box<dyn Fn(usize) + Send>,
}

impl Disk {
    /// A desk with no thread behind it yet, so that what needs a `Disk` can be made
    /// before what the thread reports to.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Desk { pile: Mutex::default(), bell: Condvar::new() }))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        &self,
        tasks: &Tasks,
        store: Store,
        keys: Arc<ArcSwap<KeyTable>>,
        records_kept: u64,
        news: News,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let desk = self.0.clone();
        let clerk = Clerk {
            store,
            keys,
            news,
            records_kept,
            revision: None,
            keys_at: At(0),
            pruned_at: clock::now(),
            failing: false,
        };
        tasks.thread(Kind::Disk, move || clerk.work(&desk))
    }

    fn put(&self, change: impl FnOnce(&mut Pile) -> bool) -> bool {
        let mut pile = self.0.pile.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pile)
    }

    /// Leaves a call's record; `false` if it had to be dropped.
    #[must_use]
    pub fn record(&self, record: Arc<Record>) -> bool {
        self.put(|pile| {
            let room = pile.records.len() < limits::RECORDS_PENDING_MAX;
            if room {
                pile.records.push(record);
            }
            room
        })
    }

    /// Asks for a budget slice to be made durable now.
    pub fn draw(&self, account: Arc<str>, window: At, ceiling: u64) {
        self.put(|pile| {
            pile.draws.insert((account, window), ceiling);
            true
        });
        self.0.bell.notify_one();
    }

    /// Leaves what is really spent.
    pub fn spent(&self, account: Arc<str>, window: At, spent: u64) {
        self.put(|pile| {
            pile.spent.insert((account, window), spent);
            true
        });
    }

    /// Notes that a key carried a call.
    pub fn key_used(&self, id: &Arc<str>, at: At) {
        self.put(|pile| {
            pile.used.insert(id.clone(), at);
            true
        });
    }

    /// Tells the thread to write everything down and end.
    pub fn stop(&self) {
        self.put(|pile| {
            pile.stop = true;
            true
        });
        self.0.bell.notify_one();
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

/// Works off the desk.
struct Clerk {
    store: Store,
    keys: Arc<ArcSwap<KeyTable>>,
    news: News,
    records_kept: u64,
    revision: Option<u64>,
    keys_at: At,
    pruned_at: At,
    failing: bool,
}

impl Clerk {
    fn work(mut self, desk: &Desk) {
        loop {
            let pile = wait(desk);
            let stop = pile.stop;
            let undone = self.ledger(pile.draws, &pile.spent);
            self.records(&pile.records);
            self.used(pile.used);
            if stop {
                self.close();
                return;
            }
            self.chores();
            put_back(desk, undone);
        }
    }

    /// Writes the ledger; gives back the slices that could not be made durable.
    fn ledger(
        &mut self,
        draws: BTreeMap<(Arc<str>, At), u64>,
        spent: &BTreeMap<(Arc<str>, At), u64>,
    ) -> BTreeMap<(Arc<str>, At), u64> {
        let drawn: Vec<Account> = draws
            .iter()
            .map(|((account, window), ceiling)| Account {
                account: account.to_string(),
                window: *window,
                ceiling: *ceiling,
                spent: 0,
            })
            .collect();
        if !drawn.is_empty() {
            let written = self.store.draw(&drawn);
            if !self.went_well("budget slices", written) {
                return draws;
            }
            for ((account, window), ceiling) in draws {
                (self.news.drawn)(account, window, ceiling);
            }
        }
        let settled: Vec<Account> = spent
            .iter()
            .map(|((account, window), spent)| Account {
                account: account.to_string(),
                window: *window,
                ceiling: 0,
                spent: *spent,
            })
            .collect();
        if !settled.is_empty() {
            let written = self.store.settle(&settled);
            self.went_well("budgets", written);
        }
        BTreeMap::new()
    }

    fn records(&mut self, records: &[Arc<Record>]) {
        if records.is_empty() {
            return;
        }
        let owned: Vec<Record> = records.iter().map(|record| (**record).clone()).collect();
        let written = self.store.record(&owned);
        if !self.went_well("call records", written) {
            (self.news.dropped)(records.len());
        }
    }

    fn used(&mut self, used: BTreeMap<Arc<str>, At>) {
        if used.is_empty() {
            return;
        }
        let batch: Vec<(String, At)> = used.into_iter().map(|(id, at)| (id.to_string(), at)).collect();
        let written = self.store.key_used(&batch);
        self.went_well("key uses", written);
    }

    /// Says once that the disk fails, and once that it is well again.
    fn went_well<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> bool {
        match result {
            Ok(_) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the store is written again");
                }
                true
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%why, "the store cannot take {what}; serving goes on without");
                }
                false
            }
        }
    }

    fn chores(&mut self) {
        let now = clock::now();
        if now.since(self.keys_at) >= KEYS_EVERY {
            self.keys_at = now;
            self.look_at_keys();
        }
        if now.since(self.pruned_at) >= PRUNE_EVERY {
            self.pruned_at = now;
            let pruned = self.store.prune_calls(self.records_kept, None);
            self.went_well("pruning", pruned);
        }
    }

    fn look_at_keys(&mut self) {
        let revision = self.store.revision().ok();
        if revision.is_none() || revision == self.revision {
            return;
        }
        if let Ok(keys) = self.store.keys() {
            self.revision = revision;
            self.keys.store(Arc::new(KeyTable::new(keys)));
        }
    }

    fn close(self) {
        let closed = self.store.accounts().and_then(|accounts| {
            let mut store = self.store;
            store.close_clean(&accounts)?;
            store.close()
        });
        if let Err(why) = closed {
            tracing::error!(%why, "the store could not be closed cleanly; budgets count as spent up to their slices");
        }
    }
}

/// Waits for a slice, an end, or the next batch; takes what lies there.
fn wait(desk: &Desk) -> Pile {
    let pile = desk.pile.lock().unwrap_or_else(PoisonError::into_inner);
    let idle = |pile: &mut Pile| pile.draws.is_empty() && !pile.stop;
    let (mut pile, _) =
        desk.bell.wait_timeout_while(pile, BATCH, idle).unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *pile)
}

/// Puts slices back that could not be written, unless newer ones came.
fn put_back(desk: &Desk, undone: BTreeMap<(Arc<str>, At), u64>) {
    if undone.is_empty() {
        return;
    }
    let mut pile = desk.pile.lock().unwrap_or_else(PoisonError::into_inner);
    for (account, ceiling) in undone {
        pile.draws.entry(account).or_insert(ceiling);
    }
    drop(pile);
    // A full disk stays full for a while: do not spin on it.
    std::thread::park_timeout(BATCH);
}
