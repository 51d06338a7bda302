//! The thread that owns the store. Calls leave records behind and go on; budget slices
//! come first and are durable before the kernel hears of them. If the disk fails,
//! serving goes on: records are dropped and counted, slices are tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use seawall_model::{At, Millis, Record, limits};
use seawall_store::{Account, Answer, Asked, Kept, MemoRule, Run, Store};
use tokio::sync::oneshot;

use crate::clock;
use crate::keys::KeyTable;
use crate::memory::Hold;
use crate::process;
use crate::tasks::{Kind, Tasks};

/// Records are written in batches this far apart: a batch costs one transaction.
const BATCH: Duration = Duration::from_millis(200);
/// How often keys made by another process are looked for.
const KEYS_EVERY: Millis = Millis(1_000);
/// How often records over the limit are looked for.
const PRUNE_EVERY: Millis = Millis(10_000);
/// Longest that one round goes on deleting before the desk is looked at again. A round
/// that is cut short goes on after the next batch, so deleting keeps up with any rate.
const PRUNE_FOR: Millis = Millis(200);
/// How often accounts nobody uses any more are looked for.
const ACCOUNTS_EVERY: Millis = Millis(3_600_000);
/// Accounts of windows that began earlier than this are forgotten: the longest window
/// that ends is a month, and the one before it is kept as well.
const ACCOUNTS_KEPT: Millis = Millis(62 * 86_400_000);
/// After so long without a record the memory that a burst filled is given back.
const QUIET: Millis = Millis(10_000);

/// The way to the disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Desk>);

/// What lies on the desk for the disk thread.
#[derive(Debug)]
struct Desk {
    pile: Mutex<Pile>,
    bell: Condvar,
    /// How much the memo keeps.
    memo: ArcSwap<MemoRule>,
}

#[derive(Debug, Default)]
struct Pile {
    records: Vec<Arc<Record>>,
    ledger: Ledger,
    used: BTreeMap<Arc<str>, At>,
    memo: Vec<Errand>,
    runs: Vec<(Which, oneshot::Sender<Option<Vec<Run>>>)>,
    /// It is over; was the kernel idle by then?
    stop: Option<bool>,
}

/// What is asked of the memo; in the order in which it was, so that an answer that was
/// kept is found.
#[derive(Debug)]
enum Errand {
    Replay(Asked, oneshot::Sender<Option<Kept>>),
    /// The answer, and its bytes in the byte budget.
    Keep(Box<Answer>, Hold),
}

/// Which runs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last so many of a tenant and all below it, or of all.
    Last {
        /// The tenant.
        tenant: Option<String>,
        /// So many.
        count: usize,
    },
    /// A run and all below it.
    Tree {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
}

/// Figures by account and window.
type Figures = BTreeMap<(Arc<str>, At), u64>;

/// What is to be written of budgets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger {
    draws: Figures,
    spent: Figures,
}

/// Entries of each kind that wait for a disk that fails. The kernel holds so many
/// accounts; more can only be of windows that are over.
const FIGURES_MAX: usize = limits::BUDGETS_MAX * limits::ACCOUNT_WINDOWS_KEPT;

impl Ledger {
    fn is_empty(&self) -> bool {
        self.draws.is_empty() && self.spent.is_empty()
    }

    /// Takes back what could not be written, unless newer figures came. `false` if some
    /// of what was spent had to be let go.
    fn take_back(&mut self, undone: Self) -> bool {
        for (place, ceiling) in undone.draws {
            self.draws.entry(place).or_insert(ceiling);
        }
        for (place, spent) in undone.spent {
            self.spent.entry(place).or_insert(spent);
        }
        // The kernel takes a slice for its present window only.
        keep_newest(&mut self.draws, 1);
        keep_newest(&mut self.spent, limits::ACCOUNT_WINDOWS_KEPT);
        cut(&mut self.draws, FIGURES_MAX);
        cut(&mut self.spent, FIGURES_MAX)
    }
}

/// Keeps the newest windows of each account.
fn keep_newest(figures: &mut Figures, windows: usize) {
    let places: Vec<_> = figures.keys().cloned().collect();
    for (at, place) in places.iter().enumerate() {
        if places.get(at + windows).is_some_and(|newer| newer.0 == place.0) {
            figures.remove(place);
        }
    }
}

/// Lets the oldest windows go that are beyond `len_max`; `false` if there were any.
fn cut(figures: &mut Figures, len_max: usize) -> bool {
    let excess = figures.len().saturating_sub(len_max);
    let mut places: Vec<_> = if excess > 0 { figures.keys().cloned().collect() } else { Vec::new() };
    places.sort_by_key(|(_, window)| *window);
    for place in &places[..excess] {
        figures.remove(place);
    }
    excess == 0
}

/// What the disk thread tells of.
pub struct News {
    /// A budget slice is durable.
    pub drawn: Box<dyn Fn(Arc<str>, At, u64) + Send>,
    /// So many records had to be dropped.
    pub dropped: Box<dyn Fn(usize) + Send>,
    /// What came of an answer for the memo, by its name in metrics.
    pub memo: Box<dyn Fn(&'static str) + Send>,
}

impl Disk {
    /// A desk with no thread behind it yet, so that what needs a `Disk` can be made
    /// before what the thread reports to.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Desk { pile: Mutex::default(), bell: Condvar::new(), memo: ArcSwap::default() }))
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
            accounts_at: At(0),
            busy_at: None,
            failing: false,
            lost: false,
        };
        tasks.thread(Kind::Disk, move || process::vital_work("disk thread", || clerk.work(&desk)))
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
            pile.ledger.draws.insert((account, window), ceiling);
            true
        });
        self.0.bell.notify_one();
    }

    /// Leaves what is really spent.
    pub fn spent(&self, account: Arc<str>, window: At, spent: u64) {
        self.put(|pile| {
            pile.ledger.spent.insert((account, window), spent);
            true
        });
    }

    /// Asks the memo for an answer; `None` if too many ask.
    #[must_use]
    pub fn replay(&self, asked: Asked) -> Option<oneshot::Receiver<Option<Kept>>> {
        let (sender, receiver) = oneshot::channel();
        self.memo(Errand::Replay(asked, sender)).then_some(receiver)
    }

    /// How much the memo keeps from now on.
    pub fn bound_memo(&self, rule: MemoRule) {
        self.0.memo.store(Arc::new(rule));
    }

    /// Leaves an answer for the memo; `false` if it had to be dropped.
    #[must_use]
    pub fn keep(&self, answer: Answer, hold: Hold) -> bool {
        self.memo(Errand::Keep(Box::new(answer), hold))
    }

    fn memo(&self, errand: Errand) -> bool {
        let put = self.put(|pile| {
            let room = pile.memo.len() < limits::MEMO_PENDING_MAX;
            if room {
                pile.memo.push(errand);
            }
            room
        });
        self.0.bell.notify_one();
        put
    }

    /// Asks for runs, among them what was recorded until now; `None` if too many ask. The
    /// answer is `None` if the disk fails.
    #[must_use]
    pub fn runs(&self, which: Which) -> Option<oneshot::Receiver<Option<Vec<Run>>>> {
        let (sender, receiver) = oneshot::channel();
        let put = self.put(|pile| {
            let room = pile.runs.len() < limits::RUN_QUESTIONS_MAX;
            if room {
                pile.runs.push((which, sender));
            }
            room
        });
        self.0.bell.notify_one();
        put.then_some(receiver)
    }

    /// Notes that a key carried a call.
    pub fn key_used(&self, id: &Arc<str>, at: At) {
        self.put(|pile| {
            pile.used.insert(id.clone(), at);
            true
        });
    }

    /// Tells the thread to write everything down and end. `clean` if the kernel has no
    /// call left, so that what was spent is what will ever have been; otherwise budgets
    /// count as spent up to their slices at the next start.
    pub fn stop(&self, clean: bool) {
        self.put(|pile| {
            pile.stop = Some(clean);
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
    accounts_at: At,
    /// When the store last wrote or deleted much; `None` once its memory was given back.
    busy_at: Option<At>,
    failing: bool,
    /// Some of what was spent never reached the store.
    lost: bool,
}

impl Clerk {
    fn work(mut self, desk: &Desk) {
        loop {
            let pile = wait(desk);
            let undone = self.ledger(pile.ledger);
            self.memo(pile.memo, &desk.memo.load());
            self.records(&pile.records);
            self.runs(pile.runs);
            self.used(pile.used);
            if let Some(clean) = pile.stop {
                self.close(clean && undone.is_empty());
                return;
            }
            self.chores(desk);
            self.put_back(desk, undone);
        }
    }

    /// Writes the ledger; gives back what could not be made durable.
    fn ledger(&mut self, mut due: Ledger) -> Ledger {
        // What a drawn account has spent stays as it is: `settle` below tells that.
        let drawn = accounts(&due.draws, |ceiling| (ceiling, 0));
        if !drawn.is_empty() {
            let written = self.store.draw(&drawn);
            if self.went_well("budget slices", written).is_none() {
                return due;
            }
            for ((account, window), ceiling) in std::mem::take(&mut due.draws) {
                (self.news.drawn)(account, window, ceiling);
            }
        }
        let settled = accounts(&due.spent, |spent| (0, spent));
        if !settled.is_empty() {
            let written = self.store.settle(&settled);
            if self.went_well("budgets", written).is_some() {
                due.spent.clear();
            }
        }
        due
    }

    /// Puts back what could not be written.
    fn put_back(&mut self, desk: &Desk, undone: Ledger) {
        if undone.is_empty() {
            return;
        }
        let kept = desk.lock().ledger.take_back(undone);
        self.lost |= !kept;
        // A full disk stays full for a while: do not spin on it.
        std::thread::park_timeout(BATCH);
    }

    fn records(&mut self, records: &[Arc<Record>]) {
        if records.is_empty() {
            return;
        }
        self.busy_at = Some(clock::now());
        let owned: Vec<Record> = records.iter().map(|record| (**record).clone()).collect();
        let written = self.store.record(&owned);
        if self.went_well("call records", written).is_none() {
            (self.news.dropped)(records.len());
        }
    }

    fn memo(&mut self, errands: Vec<Errand>, rule: &MemoRule) {
        let now = clock::wall(clock::now());
        for errand in errands {
            match errand {
                Errand::Replay(asked, sender) => {
                    let found = self.store.replay(&asked, now);
                    // Whoever asked may have left; the answer then counts as given.
                    let _ = sender.send(self.went_well("memo", found).flatten());
                }
                Errand::Keep(answer, _hold) => {
                    let kept = self.store.keep(&answer, rule, now);
                    let kept = self.went_well("memo", kept).unwrap_or(false);
                    (self.news.memo)(if kept { "kept" } else { "not_kept" });
                }
            }
        }
    }

    fn runs(&mut self, questions: Vec<(Which, oneshot::Sender<Option<Vec<Run>>>)>) {
        for (which, sender) in questions {
            let found = match which {
                Which::Last { tenant, count } => self.store.runs(tenant.as_deref(), count),
                Which::Tree { tenant, name } => self.store.run_tree(&tenant, &name),
            };
            // Whoever asked may have left.
            let _ = sender.send(self.went_well("list of runs", found));
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
    fn went_well<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(done) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the store is written again");
                }
                Some(done)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%why, "the store cannot take {what}; serving goes on without");
                }
                None
            }
        }
    }

    fn chores(&mut self, desk: &Desk) {
        let now = clock::now();
        if now.since(self.keys_at) >= KEYS_EVERY {
            self.keys_at = now;
            self.look_at_keys();
        }
        if now.since(self.pruned_at) >= PRUNE_EVERY {
            self.prune_calls(desk, now);
        }
        if now.since(self.accounts_at) >= ACCOUNTS_EVERY {
            let idle = desk.memo.load().idle_ms_max;
            let idle = At(clock::wall(now).0.saturating_sub(idle.micros()));
            let mut pruned = true;
            while pruned && !urgent(&desk.lock()) {
                let gone = self.store.prune_memo(idle);
                pruned = self.went_well("pruning", gone).unwrap_or(false);
            }
            let before = At(now.0.saturating_sub(ACCOUNTS_KEPT.micros()));
            let pruned = self.store.prune_accounts(before);
            // A full slice: there may be more, for the next round.
            if self.went_well("pruning", pruned) != Some(limits::PRUNE_ROWS_MAX) {
                self.accounts_at = now;
            }
        }
        if self.busy_at.is_some_and(|busy| now.since(busy) >= QUIET) {
            self.busy_at = None;
            let shrunk = self.store.shrink();
            self.went_well("giving memory back", shrunk);
        }
    }

    /// Deletes records over the limit, slice by slice, until none is left, the round's
    /// time is up, or somebody waits for the disk.
    fn prune_calls(&mut self, desk: &Desk, now: At) {
        let until = now.plus(PRUNE_FOR);
        loop {
            let pruned = self.store.prune_calls(self.records_kept, None);
            match self.went_well("pruning", pruned) {
                Some(limits::PRUNE_ROWS_MAX) => self.busy_at = Some(now),
                _ => break,
            }
            if clock::now() >= until || urgent(&desk.lock()) {
                // More is left: the next round goes on.
                return;
            }
        }
        let pruned = self.store.prune_runs(limits::RUNS_KEPT_MAX);
        if self.went_well("pruning", pruned) != Some(limits::PRUNE_ROWS_MAX) {
            self.pruned_at = now;
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

    /// Closes the store. Unless all that was spent stands in it, the accounts stay
    /// unclosed, and the next start counts them as spent up to their ceilings.
    fn close(self, clean: bool) {
        let unsure = "the store could not be closed cleanly; budgets count as spent up to their slices";
        let mut store = self.store;
        let closed = if clean && !self.lost {
            store.accounts().and_then(|accounts| store.close_clean(&accounts))
        } else {
            tracing::warn!("{unsure}");
            Ok(())
        };
        if let Err(why) = closed.and_then(|()| store.close()) {
            tracing::error!(%why, "{unsure}");
        }
    }
}

/// Rows of the ledger; `figures` makes ceiling and spent of a figure.
fn accounts(of: &Figures, figures: impl Fn(u64) -> (u64, u64)) -> Vec<Account> {
    let row = |((account, window), figure): (&(Arc<str>, At), &u64)| {
        let (ceiling, spent) = figures(*figure);
        Account { account: account.to_string(), window: *window, ceiling, spent }
    };
    of.iter().map(row).collect()
}

/// Does somebody wait for the disk?
fn urgent(pile: &Pile) -> bool {
    !pile.ledger.draws.is_empty() || !pile.memo.is_empty() || !pile.runs.is_empty() || pile.stop.is_some()
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pile> {
        self.pile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a slice, an end, or the next batch; takes what lies there.
fn wait(desk: &Desk) -> Pile {
    let idle = |pile: &mut Pile| !urgent(pile);
    let waited = desk.bell.wait_timeout_while(desk.lock(), BATCH, idle);
    let (mut pile, _) = waited.unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *pile)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make and remove a folder of their own")]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;

    use seawall_model::{CallId, Class, MicroUsd, ModelId, Outcome, Protocol, Tenant, Tokens, Usage, Waits};

    use super::*;

    /// A folder of its own for each test, gone at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("seawall-disk-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            Self(dir)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// One run of the disk thread: draws, spends, draws again, stops.
    fn spend(folder: &Folder, window: At, clean: bool) {
        let store = Store::open(&folder.0).expect("opens");
        let (told, drawn) = mpsc::channel();
        let news = News {
            drawn: Box::new(move |_, _, ceiling| told.send(ceiling).expect("somebody listens")),
            dropped: Box::new(|_| {}),
            memo: Box::new(|_| {}),
        };
        let disk = Disk::new();
        let clerk = disk.start(&Tasks::default(), store, Arc::default(), 1_000, news).expect("starts");
        let account: Arc<str> = "acme#usd/day".into();
        disk.draw(account.clone(), window, 100);
        assert_eq!(drawn.recv(), Ok(100));
        disk.spent(account.clone(), window, 90);
        disk.draw(account.clone(), window, 200);
        assert_eq!(drawn.recv(), Ok(200));
        disk.draw(account, window, 300);
        assert_eq!(drawn.recv(), Ok(300));
        disk.stop(clean);
        clerk.join().expect("ends well");
    }

    fn spent(folder: &Folder) -> (usize, u64) {
        let store = Store::open(&folder.0).expect("opens again");
        (store.recovered(), store.accounts().expect("read")[0].spent)
    }

    #[test]
    fn a_clean_stop_remembers_what_was_spent_however_often_was_drawn() {
        let folder = Folder::new("clean");
        spend(&folder, clock::now(), true);
        assert_eq!(spent(&folder), (0, 90));
    }

    #[test]
    fn a_stop_with_calls_in_flight_counts_the_slice() {
        let folder = Folder::new("unclean");
        spend(&folder, clock::now(), false);
        assert_eq!(spent(&folder), (1, 300));
    }

    fn record(at: u64) -> Record {
        Record {
            call: CallId(at),
            trace: "0af7651916cd43dd8448eb211c80319c".into(),
            tenant: Tenant::local(),
            run: None,
            lineage: None,
            agent: None,
            class: Class::Agent,
            protocol: Protocol::Chat,
            model: ModelId(1),
            model_name: "small".into(),
            engine: None,
            engine_name: None,
            replica: None,
            stream: false,
            received: At(at),
            waits: Waits::default(),
            attempts: 1,
            tried: Box::default(),
            first_token: None,
            took: Millis(1),
            usage: Usage::default(),
            reserved_output: Tokens(1),
            cost: MicroUsd(0),
            finish: None,
            outcome: Outcome::Done,
        }
    }

    #[test]
    fn deleting_goes_on_until_the_limit_holds_and_steps_aside_for_a_slice() {
        let mut store = Store::in_memory().expect("opens");
        let slice = limits::PRUNE_ROWS_MAX as u64;
        store.record(&(0..3 * slice + 10).map(record).collect::<Vec<_>>()).expect("kept");
        let news = News { drawn: Box::new(|_, _, _| {}), dropped: Box::new(|_| {}), memo: Box::new(|_| {}) };
        let mut clerk = Clerk {
            store,
            keys: Arc::default(),
            news,
            records_kept: 10,
            revision: None,
            keys_at: At(0),
            pruned_at: At(0),
            accounts_at: At(0),
            busy_at: None,
            failing: false,
            lost: false,
        };
        let disk = Disk::new();
        disk.draw("a#usd/day".into(), At(1), 5);
        clerk.prune_calls(&disk.0, clock::now());
        assert_eq!(clerk.store.calls_kept().expect("read"), 2 * slice + 10, "one slice, as somebody waits");
        assert_eq!(clerk.pruned_at, At(0), "the next round goes on at once");

        wait(&disk.0);
        // A slow machine may need more than one round for the rest; the loop needs an end.
        let rounds = (0..10).take_while(|_| {
            clerk.prune_calls(&disk.0, clock::now());
            clerk.pruned_at == At(0)
        });
        assert!(rounds.count() < 10);
        assert_eq!(clerk.store.calls_kept().expect("read"), 10);
    }

    fn figures(of: &[(&str, u64, u64)]) -> Figures {
        of.iter().map(|(name, window, figure)| (((*name).into(), At(*window)), *figure)).collect()
    }

    #[test]
    fn what_could_not_be_written_is_kept_unless_newer_figures_came() {
        let undone = Ledger {
            draws: figures(&[("a", 1, 50), ("b", 1, 60)]),
            spent: figures(&[("a", 0, 1), ("a", 1, 40), ("b", 1, 7)]),
        };
        let mut pile =
            Ledger { draws: figures(&[("a", 2, 10)]), spent: figures(&[("a", 2, 3), ("b", 1, 9)]) };
        assert!(pile.take_back(undone));
        assert_eq!(pile.draws, figures(&[("a", 2, 10), ("b", 1, 60)]));
        assert_eq!(pile.spent, figures(&[("a", 1, 40), ("a", 2, 3), ("b", 1, 9)]));
    }

    #[test]
    fn a_disk_that_fails_for_long_does_not_fill_the_memory() {
        let account = |at: usize| (Arc::from(format!("user-{at}#usd/minute")), At(at as u64));
        let undone = Ledger {
            draws: Figures::new(),
            spent: (0..FIGURES_MAX + 3).map(|at| (account(at), 1)).collect(),
        };
        let mut pile = Ledger::default();
        assert!(!pile.take_back(undone), "it is said that some were let go");
        assert_eq!(pile.spent.len(), FIGURES_MAX);
        assert!(pile.spent.keys().all(|(_, window)| window.0 >= 3), "the oldest went");
    }
}
