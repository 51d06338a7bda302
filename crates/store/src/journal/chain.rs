//! The hash chain of a shard: each record's hash covers the one before it, its place and
//! its body, so that a record that was changed, moved or taken out shows.
//!
//! `hash = SHA-256(previous hash, shard, epoch, seq, body)`, numbers big-endian in 1, 8
//! and 8 bytes. The first record of a shard follows 32 zero bytes. Whoever can write the
//! file can write a new chain: against that, note the ends (`Checked`) elsewhere.

use rusqlite::{OptionalExtension, Transaction, params};
use seawall_model::durable::ShardRow;
use seawall_model::journal::{Entry, Event};
use sha2::{Digest as _, Sha256};

use super::codec::{Digest, Sink};
use crate::{Error, column};

/// The hash of the record at this place.
pub(super) fn link(previous: &Digest, shard: u8, epoch: u64, seq: u64, body: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update([shard]);
    hash.update(epoch.to_be_bytes());
    hash.update(seq.to_be_bytes());
    hash.update(body);
    hash.finalize().into()
}

/// A digest as stored.
pub(super) fn stored(bytes: &[u8], what: &str) -> Result<Digest, Error> {
    bytes.try_into().map_err(|_| Error::corrupt(format!("{what} has a hash of {} bytes", bytes.len())))
}

/// Where a shard ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    shard: u8,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) hash: Digest,
}

impl Tip {
    /// Reads it; a shard that was never opened has none.
    pub(super) fn read(transaction: &Transaction<'_>, shard: u8) -> Result<Option<Self>, Error> {
        let mut statement =
            transaction.prepare_cached("SELECT epoch, seq, hash FROM shards WHERE shard = ?1")?;
        let row = statement.query_row([shard], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
        let Some((epoch, seq, hash)) = row.optional()? else { return Ok(None) };
        let hash = stored(&hash, "a shard")?;
        Ok(Some(Self { shard, epoch: column::unsigned(epoch), seq: column::unsigned(seq), hash }))
    }

    /// Takes the next record, whose form is `body`, and answers with its hash. Opening a
    /// shard is a record like any other, of a later epoch: once it is in, whoever had the
    /// shard before may write no more.
    pub(super) fn extend(&mut self, entry: &Entry, body: &[u8]) -> Result<Digest, Error> {
        let opens = entry.record.event == Event::Opened && entry.epoch > self.epoch;
        if entry.epoch != self.epoch && !opens {
            return Err(Error::Fenced { shard: self.shard, epoch: entry.epoch, current: self.epoch });
        }
        let expected = self.seq + 1;
        if entry.seq != expected {
            return Err(Error::Gap { shard: self.shard, expected, found: entry.seq });
        }
        self.epoch = entry.epoch;
        self.seq = expected;
        self.hash = link(&self.hash, entry.shard, entry.epoch, entry.seq, body);
        Ok(self.hash)
    }

    /// Writes it.
    pub(super) fn keep(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let mut statement = transaction
            .prepare_cached("UPDATE shards SET epoch = ?2, seq = ?3, hash = ?4 WHERE shard = ?1")?;
        let (epoch, seq) = (column::amount(self.epoch), column::amount(self.seq));
        statement.execute(params![self.shard, epoch, seq, self.hash])?;
        Ok(())
    }
}

/// A shard's row; a shard that is not there yet is made.
pub(super) fn open(transaction: &Transaction<'_>, shard: u8, sink: &mut Sink) -> Result<ShardRow, Error> {
    let fresh = ShardRow { shard, ..ShardRow::default() };
    let mut make = transaction.prepare_cached(
        "INSERT INTO shards (shard, epoch, seq, hash, cut_seq, cut_hash, body)
         VALUES (?1, 0, 0, zeroblob(32), 0, zeroblob(32), ?2) ON CONFLICT DO NOTHING",
    )?;
    make.execute(params![shard, sink.hold(&fresh)])?;
    let mut read = transaction.prepare_cached("SELECT epoch, seq, body FROM shards WHERE shard = ?1")?;
    read.query_row([shard], |row| Ok(row_of(shard, row)))?
}

/// A shard's row, with its place from the columns: those are the journal's own.
pub(super) fn row_of(shard: u8, row: &rusqlite::Row<'_>) -> Result<ShardRow, Error> {
    let body: Vec<u8> = row.get(2)?;
    let kept: ShardRow = super::codec::decode("a shard's row", &body)?;
    let (epoch, seq) = (column::unsigned(row.get(0)?), column::unsigned(row.get(1)?));
    Ok(ShardRow { shard, epoch, seq, ..kept })
}
