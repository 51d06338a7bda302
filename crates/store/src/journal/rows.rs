//! Rows into their tables: the state after the records of the same transaction.

use rusqlite::{Transaction, params};
use seawall_model::durable::{AgentRow, DeadLetter, Row, RunRow, Stage, Standing, ValueRow};
use seawall_model::effect::Work;
use seawall_model::{Address, Payload, RunKey, limits};

use super::blobs;
use super::codec::{Digest, Sink};
use super::wanted::keep_asked;
use crate::{Error, column};

/// A run's key as stored: bit for bit, though real keys are never so large.
pub(super) fn run_key(key: RunKey) -> i64 {
    key.0.cast_signed()
}

/// An agent's digest, by which its records and runs are found.
pub(super) fn agent_digest(address: &Address) -> i64 {
    let digest = blobs::digest(address.to_string().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first) & i64::MAX
}

/// What people are wanted for, as bits of the column `needs`.
pub(super) mod needs {
    /// An effect in doubt.
    pub(in super::super) const DOUBT: i64 = 1;
    /// An effect that waits for a yes.
    pub(in super::super) const APPROVAL: i64 = 2;
    /// A question that somebody has to answer.
    pub(in super::super) const PROMISE: i64 = 4;
}

/// What a standing is stored as; the indexes' conditions name 3.
const fn standing(standing: Standing) -> i64 {
    match standing {
        Standing::Idle => 0,
        Standing::Active => 1,
        Standing::Quarantined => 2,
        Standing::Done => 3,
    }
}

/// The standing that was stored so.
pub(super) const fn standing_of(stored: i64) -> Standing {
    match stored {
        1 => Standing::Active,
        2 => Standing::Quarantined,
        3 => Standing::Done,
        _ => Standing::Idle,
    }
}

/// Keeps one row, and adds the blobs that it names to `named`. `of` is the shard of the
/// row before: a dead letter does not say by itself which it is in.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    row: &Row,
    of: &mut Option<u8>,
    sink: &mut Sink,
    named: &mut Vec<Digest>,
) -> Result<(), Error> {
    match row {
        Row::Shard(shard) => {
            *of = Some(shard.shard);
            let mut update = transaction.prepare_cached("UPDATE shards SET body = ?2 WHERE shard = ?1")?;
            if update.execute(params![shard.shard, sink.hold(shard)])? == 0 {
                return Err(Error::Fenced { shard: shard.shard, epoch: shard.epoch, current: 0 });
            }
        }
        Row::Agent(agent) => {
            *of = Some(agent.shard);
            keep_agent(transaction, agent, sink)?;
        }
        Row::Run(run) => {
            *of = Some(run.key.shard());
            keep_run(transaction, run, sink)?;
        }
        Row::State { run, key, value: Some(value) } => keep_state(transaction, *run, key, value, sink)?,
        Row::State { run, key, value: None } => {
            let mut delete = transaction.prepare_cached("DELETE FROM state WHERE run = ?1 AND key = ?2")?;
            delete.execute(params![run_key(*run), key])?;
        }
        Row::NoState { run } => {
            transaction.prepare_cached("DELETE FROM state WHERE run = ?1")?.execute([run_key(*run)])?;
        }
        Row::Value(value) => keep_value(transaction, value, sink)?,
        Row::Lease(_) | Row::NoLease { .. } | Row::Topic(_) | Row::NoTopic { .. } | Row::Schedule(_) => {
            keep_shared(transaction, row, sink)?;
        }
        Row::Letter(letter) => {
            let shard = of.expect("the rows of a shard stand together, its own among the first");
            keep_letter(transaction, shard, letter, sink)?;
        }
        Row::NoLetter { shard, number } => {
            let mut delete =
                transaction.prepare_cached("DELETE FROM letters WHERE shard = ?1 AND number = ?2")?;
            delete.execute(params![shard, column::amount(*number)])?;
        }
    }
    named.append(&mut sink.blobs);
    Ok(())
}

/// What is a whole tenant's, and small.
fn keep_shared(transaction: &Transaction<'_>, row: &Row, sink: &mut Sink) -> Result<(), Error> {
    match row {
        Row::Lease(lease) => {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO leases (tenant, resource, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET body = excluded.body",
            )?;
            upsert.execute(params![lease.tenant.as_str(), lease.resource, sink.hold(lease)])?;
        }
        Row::Topic(topic) => {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO topics (tenant, topic, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET body = excluded.body",
            )?;
            upsert.execute(params![topic.tenant.as_str(), topic.topic, sink.hold(topic)])?;
        }
        Row::NoLease { tenant, resource } => {
            let mut delete =
                transaction.prepare_cached("DELETE FROM leases WHERE tenant = ?1 AND resource = ?2")?;
            delete.execute(params![tenant.as_str(), resource])?;
        }
        Row::NoTopic { tenant, topic } => {
            let mut delete =
                transaction.prepare_cached("DELETE FROM topics WHERE tenant = ?1 AND topic = ?2")?;
            delete.execute(params![tenant.as_str(), topic])?;
        }
        Row::Schedule(schedule) => {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO schedules (agent, body) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET body = excluded.body",
            )?;
            upsert.execute(params![schedule.agent.to_string(), sink.hold(schedule)])?;
        }
        _ => {}
    }
    Ok(())
}

fn keep_agent(transaction: &Transaction<'_>, agent: &AgentRow, sink: &mut Sink) -> Result<(), Error> {
    let mut wanted = 0;
    for pending in &agent.pending {
        wanted |= match (&pending.stage, &pending.work) {
            (Stage::Doubtful { .. }, _) => needs::DOUBT,
            (Stage::Approving { .. }, _) => needs::APPROVAL,
            (Stage::Waiting, Work::Promise { .. }) => needs::PROMISE,
            _ => 0,
        };
    }
    let address = agent.address.to_string();
    sink.hold(agent);
    let (standing, seq) = (standing(agent.standing), column::amount(agent.seq));
    let due = column::time(agent.due());
    let cause = agent.cause().unwrap_or_default();
    // The common case leaves every indexed column alone, and with them the indexes.
    let mut update = transaction.prepare_cached(
        "UPDATE agents SET seq = ?2, body = ?3
         WHERE address = ?1 AND standing = ?4 AND needs = ?5 AND blobs = ?6 AND due = ?7
             AND lasting = ?8 AND cause = ?9",
    )?;
    let changed = update.execute(params![
        address,
        seq,
        sink.bytes,
        standing,
        wanted,
        sink.named(),
        due,
        agent.lasting,
        cause
    ])?;
    if changed == 0 {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO agents
                 (address, tenant, shard, standing, needs, blobs, seq, body, due, lasting, cause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (address) DO UPDATE SET standing = excluded.standing, needs = excluded.needs,
                 blobs = excluded.blobs, seq = excluded.seq, body = excluded.body, due = excluded.due,
                 lasting = excluded.lasting, cause = excluded.cause",
        )?;
        let tenant = agent.address.tenant.as_str();
        let (shard, blobs, lasting) = (agent.shard, sink.named(), agent.lasting);
        upsert.execute(params![
            address, tenant, shard, standing, wanted, blobs, seq, sink.bytes, due, lasting, cause
        ])?;
    }
    if wanted & needs::APPROVAL != 0 {
        keep_asked(transaction, agent)?;
    }
    Ok(())
}

fn keep_run(transaction: &Transaction<'_>, run: &RunRow, sink: &mut Sink) -> Result<(), Error> {
    let key = run_key(run.key);
    sink.hold(run);
    let state = run.state.as_str();
    let ended = run.ended.map(column::time);
    let mut update = transaction.prepare_cached(
        "UPDATE runs SET body = ?2 WHERE key = ?1 AND state = ?3 AND ended IS ?4 AND blobs = ?5",
    )?;
    if update.execute(params![key, sink.bytes, state, ended, sink.named()])? == 0 {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO runs (key, shard, agent, tenant, type, state, root, parent, began, ended, blobs, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (key) DO UPDATE SET state = excluded.state, ended = excluded.ended,
                 blobs = excluded.blobs, body = excluded.body",
        )?;
        upsert.execute(params![
            key,
            run.key.shard(),
            agent_digest(&run.agent),
            run.agent.tenant.as_str(),
            run.agent.agent.kind(),
            state,
            run_key(run.root),
            run.parent.map(|effect| run_key(effect.run)),
            column::time(run.began),
            ended,
            sink.named(),
            sink.bytes,
        ])?;
    }
    Ok(())
}

fn keep_state(
    transaction: &Transaction<'_>,
    run: RunKey,
    key: &str,
    value: &Payload,
    sink: &mut Sink,
) -> Result<(), Error> {
    sink.hold(value);
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO state (run, key, blobs, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (run, key) DO UPDATE SET blobs = excluded.blobs, body = excluded.body",
    )?;
    upsert.execute(params![run_key(run), key, sink.named(), sink.bytes])?;
    Ok(())
}

/// Where agents' notes lie, each by the run and turn that made it.
const NOTES: &str = "notes/";

fn keep_value(transaction: &Transaction<'_>, value: &ValueRow, sink: &mut Sink) -> Result<(), Error> {
    sink.hold(value);
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO vals (tenant, key, version, gone, blobs, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (tenant, key) DO UPDATE SET version = excluded.version, gone = excluded.gone,
             blobs = excluded.blobs, body = excluded.body
         RETURNING id",
    )?;
    let id: i64 = upsert.query_row(
        params![
            value.tenant.as_str(),
            value.key,
            column::amount(value.version),
            value.value.is_none(),
            sink.named(),
            sink.bytes
        ],
        |row| row.get(0),
    )?;
    match searchable(value) {
        Some(text) => {
            let mut index = transaction.prepare_cached(
                "INSERT OR REPLACE INTO vals_words (rowid, tenant, text) VALUES (?1, ?2, ?3)",
            )?;
            index.execute(params![id, tenant_word(value.tenant.as_str()), text])?;
        }
        None => {
            transaction.prepare_cached("DELETE FROM vals_words WHERE rowid = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

/// A tenant as one word of the index.
pub(super) fn tenant_word(tenant: &str) -> String {
    format!("t{}", &blobs::hex(&blobs::digest(tenant.as_bytes()))[..32])
}

/// What a value can be found by: the words of its key, and those at the beginning of a text.
/// The keys of notes say nothing of them.
fn searchable(row: &ValueRow) -> Option<String> {
    let value = row.value.as_ref()?;
    let key = if row.key.starts_with(NOTES) { "" } else { &*row.key };
    let text = value.here().and_then(beginning).unwrap_or_default();
    Some(format!("{key}\n{text}")).filter(|text| text.len() > 1)
}

fn beginning(bytes: &[u8]) -> Option<&str> {
    let head = &bytes[..bytes.len().min(limits::VALUE_INDEXED_BYTES_MAX)];
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

fn keep_letter(
    transaction: &Transaction<'_>,
    shard: u8,
    letter: &DeadLetter,
    sink: &mut Sink,
) -> Result<(), Error> {
    sink.hold(letter);
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO letters (shard, number, tenant, blobs, body) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (shard, number) DO UPDATE SET blobs = excluded.blobs, body = excluded.body",
    )?;
    let (number, tenant) = (column::amount(letter.number), letter.to.tenant.as_str());
    upsert.execute(params![shard, number, tenant, sink.named(), sink.bytes])?;
    Ok(())
}
