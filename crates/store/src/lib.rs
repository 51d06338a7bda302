//! Remembers: API keys, budget accounts, call records and runs, on one machine in SQLite.
//!
//! Why SQLite, and why not a server: `docs/adr/0002-sqlite.md`. Every function here is
//! synchronous and does its disk work before it returns; the shell gives the store a
//! thread of its own. One [`Store`] is one connection, owned by one thread.
//!
//! One file per table family; `schema` holds every version of the stored format, and a
//! file written by a newer Seawall is refused rather than guessed at.
//!
//! What is durable when: keys and budget draws are on the disk when the call returns
//! (`synchronous=FULL`); call records may lose their last moments in a power cut, but
//! never in a crash of the process (`synchronous=NORMAL` over a write-ahead log).

pub mod calls;
mod column;
mod error;
mod file;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod memo;
pub mod runs;
mod schema;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use calls::{By, Call, Ended, Filter, Total, Tried};
pub use error::Error;
pub use keys::Key;
pub use ledger::Account;
pub use memo::{Answer, Asked, Kept, MemoRule};
pub use runs::Run;

/// How long a write waits for another process's write. The only other writer is a
/// `seawall key` command, whose transactions take milliseconds.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this after a checkpoint, so that one burst does
/// not hold disk space for ever.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Pages kept in memory, in KiB. SQLite would keep 2 MiB that a burst of records fills
/// and nobody reads again; the system's page cache holds the file better.
const CACHE_KIB: i64 = 512;
/// Prepared statements kept: every statement of this crate, with room.
const STATEMENTS_KEPT: usize = 32;

/// An open store: one connection to `seawall.db`.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    recovered: usize,
    path: PathBuf,
    /// Held for the store's life by its owner; the lock goes with the descriptor, so a
    /// killed process never leaves it behind.
    _lock: Option<File>,
}

/// How durable a transaction is when it returns.
#[derive(Clone, Copy)]
enum Sync {
    /// On the disk.
    Full,
    /// In the operating system's hands: survives this process, not a power cut.
    Normal,
}

impl Store {
    /// Opens `dir/seawall.db` as its owner, making both if they are missing (the
    /// folder with mode 0700, the file with 0600), and brings the stored format up to
    /// date. Accounts that were not closed cleanly are counted as spent up to their
    /// ceiling: see [`ledger`].
    ///
    /// # Errors
    /// [`Error::InUse`] if another process owns it, [`Error::Newer`] if a newer Seawall
    /// wrote it, [`Error::NotOpen`] if it cannot be opened for another reason.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        file::make_dir(dir)?;
        let lock = file::lock(dir, file::LOCK_NAME)?;
        let mut store = Self::connect(dir, Some(lock))?;
        schema::migrate(&mut store.conn, &store.path, schema::STEPS)?;
        store.recovered = store.recover_accounts()?;
        Ok(store)
    }

    /// Opens the same file beside a running owner, for commands such as `seawall key
    /// add`. Changes no account. Without a running owner it brings the format up to
    /// date as [`Store::open`] does; under one it leaves an old format alone.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::InUse`] only if the format is old and owned.
    pub fn open_beside(dir: &Path) -> Result<Self, Error> {
        file::make_dir(dir)?;
        let mut store = Self::connect(dir, None)?;
        if schema::version(&store.conn, &store.path)? < schema::STEPS.len() {
            let lock = file::lock(dir, file::LOCK_NAME)?;
            schema::migrate(&mut store.conn, &store.path, schema::STEPS)?;
            drop(lock);
        }
        schema::check(&store.conn, &store.path)?;
        Ok(store)
    }

    /// A store that lives in memory, for tests, simulation and `serve` without a data
    /// folder.
    ///
    /// # Errors
    /// Only if memory itself cannot be had.
    pub fn in_memory() -> Result<Self, Error> {
        let conn = Connection::open_in_memory()?;
        let mut store = Self { conn, recovered: 0, path: PathBuf::from(":memory:"), _lock: None };
        store.tune()?;
        schema::migrate(&mut store.conn, &store.path, schema::STEPS)?;
        Ok(store)
    }

    /// How many accounts the opening found unclosed and counted up to their ceiling:
    /// above zero, the last owner did not stop cleanly while it held budget.
    #[must_use]
    pub const fn recovered(&self) -> usize {
        self.recovered
    }

    /// Closes the file, folding the write-ahead log into it.
    ///
    /// # Errors
    /// If the disk fails; everything that was durable before still is.
    pub fn close(self) -> Result<(), Error> {
        self.conn.close().map_err(|(_, error)| error.into())
    }

    /// Gives the memory that a burst filled back to the allocator: SQLite keeps its pages
    /// for the next write, which on a quiet machine may be hours away. Costs a few reads
    /// at the next use, so it is for a quiet moment.
    ///
    /// # Errors
    /// Only if the connection is broken.
    pub fn shrink(&self) -> Result<(), Error> {
        Ok(self.conn.execute_batch("PRAGMA shrink_memory")?)
    }

    fn connect(dir: &Path, lock: Option<File>) -> Result<Self, Error> {
        let path = dir.join(file::NAME);
        file::make_private(&path)?;
        let conn = Connection::open(&path).map_err(|error| Error::not_open(&path, &error))?;
        let store = Self { conn, recovered: 0, path, _lock: lock };
        store.tune().map_err(|error| error.at(&store.path))?;
        Ok(store)
    }

    fn tune(&self) -> Result<(), Error> {
        self.conn.busy_timeout(BUSY_WAIT)?;
        self.conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // Answers with the mode: `memory` stays `memory`.
        self.conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        self.conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
        self.conn.pragma_update(None, "synchronous", "full")?;
        // Negative: in KiB, not in pages.
        self.conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // Sorting spills would land in /tmp, which a container may not have.
        self.conn.pragma_update(None, "temp_store", "memory")?;
        Ok(())
    }

    /// Runs `work` in one transaction: all of it happens, or nothing.
    fn write<T>(
        &mut self,
        sync: Sync,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let level = match sync {
            Sync::Full => "full",
            Sync::Normal => "normal",
        };
        // Set each time, not only on change: it costs a microsecond and cannot be
        // left wrong by an early return.
        self.conn.pragma_update(None, "synchronous", level)?;
        // Immediate: a transaction that starts by reading cannot wait for a writer later.
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
