//! Cutting the journal back: old records from the front of each shard, and the rows of
//! runs and agents that are over.
//!
//! A shard is only ever cut from its front, and keeps the hash that it was cut at, so
//! what is left is still a whole chain. Records of runs that go on are cut like any
//! other: for what lies before a cut the rows are the truth, and nothing that is needed
//! to go on stands in records alone. Runs go from the leaves of their tree up, so that
//! what is above a live run stays.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use seawall_model::durable::{AgentRow, Stage};
use seawall_model::{At, limits};

use super::Journal;
use super::codec::decode;
use super::rows::{needs, run_key};
use crate::{Error, column};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What happened since then is kept,
    pub since: At,
    /// unless journal and blobs are larger than this:
    pub bytes_max: u64,
    /// then older records go sooner, though none that happened since this.
    pub floor: At,
}

/// What one slice of cutting back removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records.
    pub records: u64,
    /// Runs, with their working state.
    pub runs: u64,
    /// Agents that had one task.
    pub agents: u64,
    /// There may be more to remove.
    pub more: bool,
}

impl Journal {
    /// Removes one slice of what need not be kept: looks at no more than
    /// [`limits::PRUNE_ROWS_MAX`] records and as many runs and agents. Call again,
    /// between other work, while [`Pruned::more`].
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prune(&mut self, retention: &Retention) -> Result<Pruned, Error> {
        let usage = self.usage()?;
        let over = usage.journal_bytes.saturating_add(usage.blob_bytes) > retention.bytes_max;
        let before = if over { retention.floor.max(retention.since) } else { retention.since };
        let transaction = self.reader.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pruned = Pruned {
            records: cut(&transaction, before)?,
            runs: drop_runs(&transaction, before, &doubted(&transaction)?)?,
            agents: drop_agents(&transaction)?,
            more: false,
        };
        transaction.commit()?;
        // Room was made, perhaps.
        self.full &= pruned == Pruned::default();
        Ok(Pruned { more: pruned != Pruned::default(), ..pruned })
    }
}

/// Cuts the shard whose first record is the oldest.
fn cut(transaction: &Transaction<'_>, before: At) -> Result<u64, Error> {
    let mut oldest = transaction.prepare_cached(
        "SELECT shard, cut_seq, (SELECT at FROM journal WHERE journal.shard = shards.shard
                                     AND seq > cut_seq ORDER BY seq LIMIT 1) AS first
         FROM shards WHERE first < ?1 ORDER BY first, shard LIMIT 1",
    )?;
    let row = oldest.query_row([column::time(before)], |row| Ok((row.get(0)?, row.get(1)?)));
    let Some((shard, cut)): Option<(u8, i64)> = row.optional()? else { return Ok(0) };
    let mut old = transaction.prepare_cached(
        "SELECT seq, at, hash FROM journal WHERE shard = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = old.query(params![shard, cut, column::count(limits::PRUNE_ROWS_MAX)])?;
    let mut last: Option<(i64, Vec<u8>)> = None;
    while let Some(row) = rows.next()? {
        if column::at(row.get(1)?) >= before {
            break;
        }
        last = Some((row.get(0)?, row.get(2)?));
    }
    let Some((seq, hash)) = last else { return Ok(0) };
    let mut delete = transaction.prepare_cached("DELETE FROM journal WHERE shard = ?1 AND seq <= ?2")?;
    let deleted = delete.execute(params![shard, seq])?;
    let mut keep =
        transaction.prepare_cached("UPDATE shards SET cut_seq = ?2, cut_hash = ?3 WHERE shard = ?1")?;
    keep.execute(params![shard, seq, hash])?;
    Ok(deleted as u64)
}

/// Runs of which an effect is in doubt: whoever looks into it needs to know what it was for.
fn doubted(transaction: &Transaction<'_>) -> Result<BTreeSet<i64>, Error> {
    let mut wanted =
        transaction.prepare_cached("SELECT body FROM agents WHERE needs > 0 AND needs & ?1 > 0")?;
    let mut rows = wanted.query([needs::DOUBT])?;
    let mut runs = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let agent: AgentRow = decode("agent", row.get_ref(0)?.as_blob()?)?;
        let doubts = agent.pending.iter().filter(|row| matches!(row.stage, Stage::Doubtful { .. }));
        runs.extend(doubts.map(|row| run_key(row.id.run)));
    }
    Ok(runs)
}

/// Runs that were over before then, have none below them, and are not to be kept.
fn drop_runs(transaction: &Transaction<'_>, before: At, kept: &BTreeSet<i64>) -> Result<u64, Error> {
    let mut old = transaction.prepare_cached(
        "SELECT key FROM runs WHERE ended IS NOT NULL AND ended < ?1
             AND NOT EXISTS (SELECT 1 FROM runs AS below WHERE below.parent = runs.key)
         ORDER BY ended LIMIT ?2",
    )?;
    let rows = old.query_map(
        params![column::time(before), column::count(limits::PRUNE_ROWS_MAX + kept.len())],
        |row| row.get::<_, i64>(0),
    )?;
    let mut keys = rows.collect::<Result<Vec<_>, _>>()?;
    keys.retain(|key| !kept.contains(key));
    let mut state = transaction.prepare_cached("DELETE FROM state WHERE run = ?1")?;
    let mut run = transaction.prepare_cached("DELETE FROM runs WHERE key = ?1")?;
    for key in &keys {
        state.execute([key])?;
        run.execute([key])?;
    }
    Ok(keys.len() as u64)
}

/// Agents whose one task is over and whose last record was cut away; not those of which
/// something is wanted still.
fn drop_agents(transaction: &Transaction<'_>) -> Result<u64, Error> {
    let mut delete = transaction.prepare_cached(
        "DELETE FROM agents WHERE id IN (
             SELECT id FROM agents WHERE standing = 3 AND needs = 0
                 AND seq <= (SELECT cut_seq FROM shards WHERE shards.shard = agents.shard) LIMIT ?1)",
    )?;
    Ok(delete.execute([column::count(limits::PRUNE_ROWS_MAX)])? as u64)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use seawall_model::durable::{Pending, Progress, Standing, Wake};
    use seawall_model::effect::{Ruling, Spend, Verdict, Work};
    use seawall_model::{Address, EffectClass, EffectId, Payload, RunKey};

    use super::super::codec::Sink;
    use super::*;

    fn in_doubt(run: RunKey) -> AgentRow {
        let pending = Pending {
            id: EffectId { run, number: 1 },
            tag: "t".into(),
            work: Work::Tool { tool: "mail.send".into(), args: Payload::empty(), undo: None, query: None },
            class: EffectClass::Irreversible,
            ruling: Ruling { rule: "default".into(), verdict: Verdict::Allow },
            reserved: Spend::default(),
            twin: 0,
            stage: Stage::Doubtful { why: "cut".into() },
            attempts: 0,
            asked: At(1),
            until: At::MAX,
            child: None,
            handed: Vec::new(),
            setback: None,
        };
        AgentRow {
            address: Address::parse("acme/a/1").expect("valid"),
            shard: 0,
            seq: 1,
            changed: At(0),
            standing: Standing::Idle,
            lasting: true,
            run: None,
            queue: Vec::new(),
            inbox: Vec::new(),
            pending: vec![pending],
            wake: Wake::Any,
            rests_until: At(0),
            expires: At::MAX,
            strikes: 0,
            progress: Progress::default(),
            seen: Vec::new(),
            topics: Vec::new(),
            why: None,
            ties: Vec::new(),
        }
    }

    #[test]
    fn a_run_stays_as_long_as_an_effect_of_it_is_in_doubt() {
        let mut conn = Connection::open_in_memory().expect("opens");
        conn.execute_batch(
            "CREATE TABLE runs (key INTEGER PRIMARY KEY, parent INTEGER, ended INTEGER);
             CREATE TABLE state (run INTEGER);
             CREATE TABLE agents (needs INTEGER, body BLOB);
             INSERT INTO runs VALUES (256, NULL, 5), (512, NULL, 6), (768, NULL, 7);",
        )
        .expect("made");
        let transaction = conn.transaction().expect("begins");
        let mut sink = Sink::default();
        let body = sink.hold(&in_doubt(RunKey(512)));
        transaction.execute("INSERT INTO agents VALUES (?1, ?2)", params![needs::DOUBT, body]).expect("kept");
        let kept = doubted(&transaction).expect("read");
        assert_eq!(drop_runs(&transaction, At(100), &kept).expect("dropped"), 2);
        let left: i64 = transaction.query_row("SELECT key FROM runs", [], |row| row.get(0)).expect("one");
        assert_eq!(left, 512);
        transaction.execute("DELETE FROM agents", []).expect("answered");
        let kept = doubted(&transaction).expect("read");
        assert_eq!(drop_runs(&transaction, At(100), &kept).expect("dropped"), 1);
    }
}
