//! Sweeping up blobs that nothing names any more.
//!
//! A sweep first reads every row and kept record that names a blob, in bounded steps,
//! then goes through the shelves. Commits go on meanwhile: whatever they name is added to
//! what the sweep has read, and what was put but is not named yet is fresh (see `blobs`).

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use seawall_model::durable::{AgentRow, DeadLetter, RunRow, ValueRow};
use seawall_model::journal::Record;
use seawall_model::{Payload, limits};

use super::Journal;
use super::codec::{Digest, Flaw, read};
use crate::{Error, column};

/// What one step of a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sweep is over; the next step begins another.
    pub done: bool,
}

/// A sweep under way.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    phase: Phase,
    named: BTreeSet<Digest>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Reads a table from a place on: of the journal by shard, of the others by id.
    Reading { table: usize, shard: i64, after: i64 },
    /// Goes through a shelf.
    Removing { shelf: u8 },
}

/// Reads a body and names its blobs.
type Naming = fn(&[u8]) -> Result<Vec<Digest>, Flaw>;

/// What names blobs: the table's rows after a place, as shard, place and body.
const TABLES: [(&str, Naming); 6] = [
    (
        "SELECT shard, seq, body FROM journal WHERE blobs > 0 AND (shard, seq) > (?1, ?2)
      ORDER BY shard, seq LIMIT ?3",
        |body| Ok(read::<Record>(body)?.1),
    ),
    ("SELECT ?1, id, body FROM agents WHERE blobs > 0 AND id > ?2 ORDER BY id LIMIT ?3", |body| {
        Ok(read::<AgentRow>(body)?.1)
    }),
    ("SELECT ?1, key, body FROM runs WHERE blobs > 0 AND key > ?2 ORDER BY key LIMIT ?3", |body| {
        Ok(read::<RunRow>(body)?.1)
    }),
    ("SELECT ?1, id, body FROM state WHERE blobs > 0 AND id > ?2 ORDER BY id LIMIT ?3", |body| {
        Ok(read::<Payload>(body)?.1)
    }),
    ("SELECT ?1, id, body FROM vals WHERE blobs > 0 AND id > ?2 ORDER BY id LIMIT ?3", |body| {
        Ok(read::<ValueRow>(body)?.1)
    }),
    ("SELECT ?1, id, body FROM letters WHERE blobs > 0 AND id > ?2 ORDER BY id LIMIT ?3", |body| {
        Ok(read::<DeadLetter>(body)?.1)
    }),
];

impl Sweep {
    /// Notes what a commit names, if a sweep is under way.
    pub(super) fn spare(&mut self, named: &[Digest]) {
        if !matches!(self.phase, Phase::Idle) {
            self.named.extend(named);
        }
    }

    fn end(&mut self) {
        *self = Self::default();
    }

    /// Reads the next rows of a table; the phase thereafter.
    fn read(&mut self, conn: &Connection, table: usize, from: (i64, i64)) -> Result<Phase, Error> {
        let (sql, naming) = TABLES[table];
        let mut statement = conn.prepare_cached(sql)?;
        let limit = limits::JOURNAL_PAGE_ROWS;
        let mut rows = statement.query(params![from.0, from.1, column::count(limit)])?;
        let (mut count, mut last) = (0, from);
        while let Some(row) = rows.next()? {
            count += 1;
            last = (row.get(0)?, row.get(1)?);
            let body = row.get_ref(2)?.as_blob()?;
            self.named.extend(naming(body).map_err(|flaw| flaw.of("what names blobs"))?);
        }
        Ok(if count == limit {
            Phase::Reading { table, shard: last.0, after: last.1 }
        } else if table + 1 < TABLES.len() {
            Phase::Reading { table: table + 1, shard: 0, after: i64::MIN }
        } else {
            Phase::Removing { shelf: 0 }
        })
    }
}

impl Journal {
    /// Takes one step of a sweep: reads some rows, or removes from one of 256 shelves the
    /// blobs that nothing names. Call it again, between other work, until
    /// [`Swept::done`]; begin another no sooner than an hour later, as what was put before
    /// the last sweep but is not named by then is lost.
    ///
    /// # Errors
    /// If the disk fails, or what names blobs is damaged: nothing is removed then.
    pub fn sweep(&mut self) -> Result<Swept, Error> {
        let result = self.sweep_on();
        if result.is_err() {
            self.sweep.end();
        }
        result
    }

    fn sweep_on(&mut self) -> Result<Swept, Error> {
        let Self { reader, sweep, .. } = self;
        match sweep.phase {
            Phase::Idle => {
                reader.blobs.age();
                sweep.phase = Phase::Reading { table: 0, shard: 0, after: i64::MIN };
            }
            Phase::Reading { table, shard, after } => {
                sweep.phase = sweep.read(&reader.conn, table, (shard, after))?;
                if sweep.named.len() > limits::BLOBS_NAMED_MAX {
                    sweep.end();
                    return Ok(Swept { done: true, ..Swept::default() });
                }
            }
            Phase::Removing { shelf } => {
                let (blobs, bytes) = reader.blobs.sweep(shelf, &sweep.named)?;
                match shelf.checked_add(1) {
                    Some(shelf) => sweep.phase = Phase::Removing { shelf },
                    None => {
                        sweep.end();
                        return Ok(Swept { blobs, bytes, done: true });
                    }
                }
                return Ok(Swept { blobs, bytes, done: false });
            }
        }
        Ok(Swept::default())
    }
}
