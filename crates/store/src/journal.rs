//! The journal: everything that happens to durable agents, in `journal.db`.
//!
//! Two things stand in it, changed in one transaction: the records of each shard, only
//! ever added to and chained by hashes (`chain`), and rows, which are the state after
//! these records. Recovery reads rows; records are history, evidence, and that from which
//! the rows can be made again (I4). Why a file of its own, and how it is cut back:
//! `docs/adr/0011-journal.md`.
//!
//! A [`Journal`] is the one writer, on a thread of its own; any number of [`Reader`]s,
//! in this process or another, look at the file beside it.

mod blobs;
mod books;
mod chain;
mod check;
mod codec;
mod json;
mod nouns;
mod past;
mod prune;
mod reader;
mod rows;
mod schema;
mod sweep;
mod wanted;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use seawall_model::RunKey;
use seawall_model::durable::{AgentRow, Row, RunRow, ShardRow};
use seawall_model::journal::{Entry, Event, Record};

pub use blobs::Blobs;
pub use books::{Books, Place, Wrong};
pub use check::{Bad, Checked, Report};
pub use past::{Kept, Of};
pub use prune::{Pruned, Retention};
pub use reader::{Due, Live, Reader, RunFilter, Search};
pub use sweep::Swept;
pub use wanted::{Need, Page, Wanted, Whose};

use crate::{Error, column};
use chain::Tip;
use codec::Sink;
use sweep::Sweep;

/// The database's name in the data folder.
const NAME: &str = "journal.db";
/// The name of the file that the owner holds locked.
const LOCK_NAME: &str = "journal.lock";
/// The write-ahead log is folded into the file when it has so many pages (16 MiB): each
/// folding syncs twice, so it should be rare, and a page that many commits changed is then
/// written once.
const CHECKPOINT_PAGES: i64 = 4_000;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Pages kept in memory, in KiB: the inner pages of every table and the leaves that many
/// thousand working agents touch again and again.
const CACHE_KIB: i64 = 16 << 10;
/// Prepared statements kept: every statement of the journal, with room.
const STATEMENTS_KEPT: usize = 96;

/// When a transaction counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: it survives a power cut.
    #[default]
    Sync,
    /// In the operating system's hands: it survives this process, and a power cut may take
    /// the last moments with it.
    Relaxed,
}

/// How much room there is for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// For anything.
    Plenty,
    /// For what is under way: nothing new should begin.
    Tight,
    /// For nothing.
    None,
}

/// A run's working state: its values by key, in the keys' order.
pub type State = Vec<(std::sync::Arc<str>, seawall_model::Payload)>;

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records and rows.
    pub journal_bytes: u64,
    /// Blobs.
    pub blob_bytes: u64,
    /// Inside the file and free to be written again.
    pub free_bytes: u64,
}

/// From so many percent of its budget on the journal has no room for anything new: what
/// is left serves runs that are under way.
const TIGHT_PERCENT: u64 = 90;

/// An open journal: its one writer.
#[derive(Debug)]
pub struct Journal {
    reader: Reader,
    sink: Sink,
    sweep: Sweep,
    /// The last write found the disk full.
    full: bool,
    _lock: Option<File>,
}

impl Journal {
    /// Opens `folder/journal.db` as its owner, making both if they are missing, and brings
    /// the stored format up to date.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process owns it, [`Error::Newer`] if a newer Seawall
    /// wrote it, [`Error::NotOpen`] if it cannot be opened for another reason.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, Error> {
        crate::file::make_dir(folder)?;
        let lock = crate::file::lock(folder, LOCK_NAME)?;
        let path = folder.join(NAME);
        crate::file::make_private(&path)?;
        let conn = Connection::open(&path).map_err(|error| Error::not_open(&path, &error))?;
        let blobs = Blobs::at(folder);
        blobs.prepare()?;
        Self::tuned(conn, &path, blobs, durability, Some(lock))
    }

    /// A journal that lives in memory, for tests, simulation and `serve` without a data
    /// folder.
    ///
    /// # Errors
    /// Only if memory itself cannot be had.
    pub fn in_memory() -> Result<Self, Error> {
        let conn = Connection::open_in_memory()?;
        Self::tuned(conn, Path::new(":memory:"), Blobs::in_memory(), Durability::Relaxed, None)
    }

    fn tuned(
        mut conn: Connection,
        path: &Path,
        blobs: Blobs,
        durability: Durability,
        lock: Option<File>,
    ) -> Result<Self, Error> {
        tune(&conn, durability).map_err(|error| error.at(path))?;
        crate::schema::migrate(&mut conn, path, schema::STEPS)?;
        let reader = Reader { conn, blobs };
        Ok(Self { reader, sink: Sink::default(), sweep: Sweep::default(), full: false, _lock: lock })
    }

    /// The same file to look at, as it is between two writes.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The store of large payloads.
    #[must_use]
    pub const fn blobs(&self) -> &Blobs {
        &self.reader.blobs
    }

    /// The rows of the first `count` shards, made where they are not there yet. A shard is
    /// owned by whoever appends [`Event::Opened`] with a later epoch than the row's.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn open_shards(&mut self, count: u8) -> Result<Vec<ShardRow>, Error> {
        let Self { reader, sink, .. } = self;
        let transaction = reader.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let rows = (0..count).map(|shard| chain::open(&transaction, shard, sink)).collect();
        transaction.commit()?;
        rows
    }

    /// Appends records to their shards and keeps the rows as they are after them: all of
    /// it, durably, or nothing. The rows of a shard stand together, and a dead letter follows
    /// its shard's own row.
    ///
    /// # Errors
    /// [`Error::Fenced`] if somebody opened a shard since, [`Error::Gap`] if a record is
    /// not the next of its shard, [`Error::Full`] if the disk is; nothing is written then.
    pub fn append(&mut self, entries: &[Entry], rows: &[Row]) -> Result<(), Error> {
        let mut result = self.write(entries, rows);
        if matches!(result, Err(Error::Full)) && self.cut_log() {
            result = self.write(entries, rows);
        }
        self.full = matches!(result, Err(Error::Full));
        result
    }

    /// Folds the write-ahead log into the file and gives its room back: on a disk that is
    /// full this is often the last there is. `false` if that cannot be done now.
    fn cut_log(&self) -> bool {
        let busy = self.reader.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        busy.is_ok_and(|busy: i64| busy == 0)
    }

    fn write(&mut self, entries: &[Entry], rows: &[Row]) -> Result<(), Error> {
        let Self { reader, sink, sweep, .. } = self;
        let transaction = reader.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut named = Vec::new();
        let mut tips = BTreeMap::new();
        for entry in entries {
            let tip = tip(&transaction, &mut tips, entry)?;
            sink.hold(&entry.record);
            insert(&transaction, entry, tip, sink)?;
            named.append(&mut sink.blobs);
        }
        for tip in tips.values() {
            tip.keep(&transaction)?;
        }
        let mut shard = None;
        for row in rows {
            rows::keep(&transaction, row, &mut shard, sink, &mut named)?;
        }
        sweep.spare(&named);
        Ok(transaction.commit()?)
    }

    /// What is used on the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn usage(&self) -> Result<Usage, Error> {
        self.reader.usage()
    }

    /// How much room there is, by a budget for journal and blobs together and by whether
    /// the disk was full just now.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn room(&self, bytes_max: u64) -> Result<Room, Error> {
        if self.full {
            return Ok(Room::None);
        }
        let usage = self.usage()?;
        let used = usage.journal_bytes.saturating_add(usage.blob_bytes);
        let tight = bytes_max / 100 * TIGHT_PERCENT;
        Ok(if used >= bytes_max {
            Room::None
        } else if used >= tight {
            Room::Tight
        } else {
            Room::Plenty
        })
    }

    /// Gives the memory that a burst filled back to the allocator.
    ///
    /// # Errors
    /// Only if the connection is broken.
    pub fn shrink(&self) -> Result<(), Error> {
        Ok(self.reader.conn.execute_batch("PRAGMA shrink_memory")?)
    }

    /// Closes the file, folding the write-ahead log into it.
    ///
    /// # Errors
    /// If the disk fails; everything that was durable before still is.
    pub fn close(self) -> Result<(), Error> {
        self.reader.conn.close().map_err(|(_, error)| error.into())
    }
}

impl Reader {
    /// Opens the journal of a data folder to look at, beside a running owner or without
    /// one.
    ///
    /// # Errors
    /// [`Error::NotOpen`] if there is none, or it is of an older format, which its owner
    /// brings up to date; [`Error::Newer`] if a newer Seawall wrote it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let refused = |why: &str, hint| Error::NotOpen { path: path.clone(), why: why.to_owned(), hint };
        if !path.is_file() {
            return Err(refused("it is not there", "`seawall serve` with this data folder makes it"));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn =
            Connection::open_with_flags(&path, flags).map_err(|error| Error::not_open(&path, &error))?;
        conn.busy_timeout(crate::BUSY_WAIT)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        conn.pragma_update(None, "temp_store", "memory")?;
        let (found, known) = (crate::schema::version(&conn, &path)?, schema::STEPS.len());
        if found > known {
            return Err(Error::Newer { path, found, known });
        }
        if found < known {
            return Err(refused("its format is older than this Seawall", "start `seawall serve` once"));
        }
        Ok(Self { conn, blobs: Blobs::at(folder) })
    }
}

fn tune(conn: &Connection, durability: Durability) -> Result<(), Error> {
    conn.busy_timeout(crate::BUSY_WAIT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Answers with the mode: `memory` stays `memory`.
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    let level = match durability {
        Durability::Sync => "full",
        Durability::Relaxed => "normal",
    };
    conn.pragma_update(None, "synchronous", level)?;
    // Negative: in KiB, not in pages.
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

/// The end of an entry's shard, read once in a transaction.
fn tip<'a>(
    transaction: &Transaction<'_>,
    tips: &'a mut BTreeMap<u8, Tip>,
    entry: &Entry,
) -> Result<&'a mut Tip, Error> {
    match tips.entry(entry.shard) {
        std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
        std::collections::btree_map::Entry::Vacant(place) => {
            let never = Error::Fenced { shard: entry.shard, epoch: entry.epoch, current: 0 };
            Ok(place.insert(Tip::read(transaction, entry.shard)?.ok_or(never)?))
        }
    }
}

fn insert(transaction: &Transaction<'_>, entry: &Entry, tip: &mut Tip, sink: &Sink) -> Result<(), Error> {
    let hash = tip.extend(entry, &sink.bytes)?;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO journal (shard, seq, epoch, at, kind, agent, run, blobs, body, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let record = &entry.record;
    statement.execute(params![
        entry.shard,
        column::amount(entry.seq),
        column::amount(entry.epoch),
        column::time(record.at),
        record.event.kind(),
        record.agent.as_ref().map(rows::agent_digest),
        run_of(&record.event).map(rows::run_key),
        sink.named(),
        sink.bytes,
        hash,
    ])?;
    Ok(())
}

/// The run that an event belongs to.
fn run_of(event: &Event) -> Option<RunKey> {
    match event {
        Event::Started { run, .. } => Some(run.key),
        Event::Turned(turn) => Some(turn.run),
        Event::Stumbled { run, .. }
        | Event::Ended { run, .. }
        | Event::Restarted { run, .. }
        | Event::Moved { run, .. } => Some(*run),
        Event::Attempted { effect }
        | Event::Postponed { effect, .. }
        | Event::Answered { effect, .. }
        | Event::Doubted { effect, .. }
        | Event::Delegated { effect, .. }
        | Event::Voted { effect, .. } => Some(effect.run),
        Event::Put { by, .. } => by.map(|effect| effect.run),
        Event::Granted { holder, .. } => Some(holder.effect.run),
        Event::Tied { tie } => Some(tie.run),
        Event::Untied { run, .. } => Some(*run),
        Event::Opened
        | Event::Mailed { .. }
        | Event::Lettered { .. }
        | Event::Unlettered { .. }
        | Event::Quarantined { .. }
        | Event::Released { .. }
        | Event::Halted { .. }
        | Event::Defined { .. }
        | Event::Freed { .. }
        | Event::Subscribed { .. } => None,
    }
}

/// A record in its stored form, as the journal writes it.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let mut sink = Sink::default();
    sink.hold(record);
    sink.bytes
}

/// A record from its stored form.
///
/// # Errors
/// [`Error::NewerForm`] for a later format, [`Error::Corrupt`] for anything else that is
/// no record.
pub fn decode(bytes: &[u8]) -> Result<Record, Error> {
    codec::decode("a record", bytes)
}

/// An agent's row from its stored form.
///
/// # Errors
/// As [`decode`].
pub fn decode_agent(bytes: &[u8]) -> Result<AgentRow, Error> {
    codec::decode("an agent's row", bytes)
}

/// A run's row from its stored form.
///
/// # Errors
/// As [`decode`].
pub fn decode_run(bytes: &[u8]) -> Result<RunRow, Error> {
    codec::decode("a run's row", bytes)
}

#[cfg(test)]
mod tests;
