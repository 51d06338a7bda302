//! Call records: written in batches off the hot path, asked for by the CLI, and pruned
//! in small slices so that no transaction is long. No content is ever stored (I11).

use rusqlite::{Row, ToSql, Transaction, params};
use seawall_model::{At, Cause, Code, MicroUsd, Millis, Record, RunId, Tokens, Usage, Waits, limits};

use crate::{Error, Store, Sync, column, runs};

/// A call record as kept. Names are stored rather than ids, which are given out anew by
/// every process; they are plain text so that a record outlives the code that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place in the store; rises with the end of the call.
    pub id: u64,
    /// W3C trace id.
    pub trace: String,
    /// Who asked.
    pub tenant: String,
    /// The run it belonged to.
    pub run: Option<RunId>,
    /// The agent that asked, as it calls itself.
    pub agent: Option<String>,
    /// [`seawall_model::Class::as_str`].
    pub class: String,
    /// [`seawall_model::Protocol::as_str`].
    pub protocol: String,
    /// The alias asked for.
    pub model: String,
    /// The engine that served it, if one did.
    pub engine: Option<String>,
    /// The replica of the last attempt, as numbered by the process that wrote it.
    pub replica: Option<u32>,
    /// Was it streamed?
    pub stream: bool,
    /// When it was received.
    pub received: At,
    /// From receipt to the end.
    pub took: Millis,
    /// From receipt to the first byte of the answer.
    pub first_token: Option<Millis>,
    /// How often it was sent to an engine.
    pub attempts: u32,
    /// Each of them, where there were several or one failed.
    pub tried: Vec<Tried>,
    /// Waiting by cause.
    pub waits: Waits,
    /// What it used.
    pub usage: Usage,
    /// Output tokens reserved for it beforehand.
    pub reserved_output: Tokens,
    /// What it cost.
    pub cost: MicroUsd,
    /// [`seawall_model::Finish::as_str`].
    pub finish: Option<String>,
    /// [`seawall_model::Outcome::as_str`]: `done`, `cancelled`, or an error code.
    pub outcome: String,
}

/// One attempt of a call, as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The engine's name.
    pub engine: String,
    /// The replica's address.
    pub replica: String,
    /// How it went: as [`seawall_model::Attempt::outcome`].
    pub outcome: String,
    /// The status it was answered with, where it was.
    pub status: Option<u16>,
    /// From receipt of the call to its sending.
    pub began: Millis,
    /// From its sending to the first byte of an answer.
    pub first_byte: Option<Millis>,
    /// From its sending to its end.
    pub took: Millis,
}

/// How calls ended, as a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Answered in full.
    Done,
    /// Left by the client.
    Cancelled,
    /// Failed, with any code.
    Failed,
    /// Failed with this code.
    With(Code),
}

/// Which calls are asked for. Empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this tenant and all below it.
    pub tenant: Option<String>,
    /// For this model.
    pub model: Option<String>,
    /// Received at or after.
    pub since: Option<At>,
    /// Received before.
    pub until: Option<At>,
    /// Ended so.
    pub ended: Option<Ended>,
}

/// What totals are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The whole tenant path.
    Tenant,
    /// The alias asked for.
    Model,
    /// The engine that served; calls served by none are under the empty name.
    Engine,
    /// The day of receipt in UTC, as `2026-08-22`.
    Day,
}

/// One line of totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// The tenant, model, engine or day.
    pub name: String,
    /// All calls.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that the client left.
    pub cancelled: u64,
    /// Token counts.
    pub usage: Usage,
    /// Money.
    pub cost: MicroUsd,
    /// Time spent waiting, all causes.
    pub waited: Millis,
    /// Time from receipt to end.
    pub took: Millis,
}

impl Store {
    /// Appends records, in their order, in one transaction. On return they survive this
    /// process, but their last moments may be lost in a power cut.
    ///
    /// # Errors
    /// If the disk fails or is full; then none of the batch is kept.
    pub fn record(&mut self, records: &[Record]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.write(Sync::Normal, |transaction| {
            for record in records {
                insert(transaction, record)?;
                runs::book(transaction, record)?;
            }
            Ok(())
        })
    }

    /// The last `count` calls (at most [`limits::ROWS_MAX`]) that match, newest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn recent(&self, count: usize, filter: &Filter) -> Result<Vec<Call>, Error> {
        let clause = Clause::of(filter);
        let sql = format!(
            "SELECT {COLUMNS} FROM calls WHERE {} ORDER BY id DESC LIMIT {}",
            clause.text,
            count.min(limits::ROWS_MAX)
        );
        let mut statement = self.conn.prepare(&sql)?;
        let mut rows = statement.query(clause.values().as_slice())?;
        let mut calls = Vec::new();
        while let Some(row) = rows.next()? {
            calls.push(read(row)?);
        }
        for call in calls.iter_mut().filter(|call| call.attempts > 0) {
            call.tried = self.tried(call.id)?;
        }
        Ok(calls)
    }

    /// The attempts kept of a call, in order.
    fn tried(&self, call: u64) -> Result<Vec<Tried>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT engine, replica, outcome, status, began_ms, first_byte_ms, took_ms
             FROM attempts WHERE call = ?1 ORDER BY place LIMIT ?2",
        )?;
        let rows = statement.query_map(params![column::amount(call), limits::ATTEMPTS_CEILING], tried)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Totals over the calls that match, dearest first (days: newest first), at most
    /// [`limits::ROWS_MAX`] lines. Reads every matching record: for people, not for
    /// the hot path.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn totals(&self, by: By, filter: &Filter) -> Result<Vec<Total>, Error> {
        let (name, order) = match by {
            By::Tenant => ("tenant", "11 DESC, 2 DESC, 1"),
            By::Model => ("model", "11 DESC, 2 DESC, 1"),
            By::Engine => ("ifnull(engine, '')", "11 DESC, 2 DESC, 1"),
            By::Day => ("ifnull(date(received / 1000000, 'unixepoch'), '')", "1 DESC"),
        };
        let clause = Clause::of(filter);
        // total() adds in floating point: a client that claims 2^62 tokens makes the
        // sum imprecise, where sum() would refuse to answer at all.
        let sql = format!(
            "SELECT {name}, count(*),
                    count(*) FILTER (WHERE outcome NOT IN ('done', 'cancelled')),
                    count(*) FILTER (WHERE outcome = 'cancelled'),
                    cast(total(input) AS INTEGER), cast(total(cached) AS INTEGER),
                    cast(total(cache_written) AS INTEGER), cast(total(output) AS INTEGER),
                    cast(total(reasoning) AS INTEGER), cast(total({WAITED_US}) AS INTEGER),
                    cast(total(cost_usd_micro) AS INTEGER), cast(total(took_ms) AS INTEGER)
             FROM calls WHERE {} GROUP BY 1 ORDER BY {order} LIMIT {}",
            clause.text,
            limits::ROWS_MAX
        );
        let mut statement = self.conn.prepare(&sql)?;
        let rows = statement.query_map(clause.values().as_slice(), total)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// How many records are kept.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn calls_kept(&self) -> Result<u64, Error> {
        let mut statement = self.conn.prepare_cached("SELECT count(*) FROM calls")?;
        Ok(column::unsigned(statement.query_row([], |row| row.get(0))?))
    }

    /// Deletes one slice of the oldest records: those beyond the newest `keep`, and those
    /// received before `before`. Looks at no more than [`limits::PRUNE_ROWS_MAX`] rows;
    /// returns how many it deleted. Call again, between other work, while that equals
    /// the limit.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prune_calls(&mut self, keep: u64, before: Option<At>) -> Result<usize, Error> {
        self.write(Sync::Normal, |transaction| {
            let mut statement = transaction.prepare_cached(
                "DELETE FROM calls WHERE id IN (
                     SELECT id FROM (SELECT id, received FROM calls ORDER BY id LIMIT ?1)
                     WHERE id <= (SELECT ifnull(max(id), 0) FROM calls) - ?2 OR received < ?3)",
            )?;
            let before = column::time(before.unwrap_or_default());
            Ok(statement.execute(params![
                column::count(limits::PRUNE_ROWS_MAX),
                column::amount(keep),
                before
            ])?)
        })
    }
}

const COLUMNS: &str = "id, trace, tenant, run, class, protocol, model, engine, replica, stream, received,
    took_ms, first_token_ms, attempts, wait_tenant_share_us, wait_engine_full_us, wait_engine_down_us,
    wait_rate_limit_us, wait_tenant_concurrency_us, wait_budget_us, input, cached, cache_written,
    output, reasoning, reserved_output, cost_usd_micro, finish, outcome, agent";

const WAITED_US: &str = "wait_tenant_share_us + 0.0 + wait_engine_full_us + wait_engine_down_us
    + wait_rate_limit_us + wait_tenant_concurrency_us + wait_budget_us";

/// The columns of waiting, in the order of the table.
const CAUSES: [Cause; 6] = [
    Cause::TenantShare,
    Cause::EngineFull,
    Cause::EngineDown,
    Cause::RateLimit,
    Cause::TenantConcurrency,
    Cause::Budget,
];
/// Where they begin in [`COLUMNS`].
const WAITS_AT: usize = 14;

const _: () = assert!(CAUSES.len() == Cause::ALL.len(), "a new cause of waiting needs a column");

fn insert(transaction: &Transaction<'_>, record: &Record) -> Result<(), Error> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO calls (trace, tenant, run, class, protocol, model, engine, replica, stream, received,
             took_ms, first_token_ms, attempts, wait_tenant_share_us, wait_engine_full_us,
             wait_engine_down_us, wait_rate_limit_us, wait_tenant_concurrency_us, wait_budget_us, input,
             cached, cache_written, output, reasoning, reserved_output, cost_usd_micro, finish, outcome, agent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,
             ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)",
    )?;
    let waited = |cause| column::amount(record.waits.of(cause));
    statement.execute(params![
        &*record.trace,
        record.tenant.as_str(),
        // A run id is a digest that fills all 64 bits: kept bit for bit.
        record.run.map(|run| run.0.cast_signed()),
        record.class.as_str(),
        record.protocol.as_str(),
        &*record.model_name,
        record.engine_name.as_deref(),
        record.replica.map(|replica| replica.0),
        record.stream,
        column::time(record.received),
        column::amount(record.took.0),
        record.first_token.map(|wait| column::amount(wait.0)),
        record.attempts,
        waited(CAUSES[0]),
        waited(CAUSES[1]),
        waited(CAUSES[2]),
        waited(CAUSES[3]),
        waited(CAUSES[4]),
        waited(CAUSES[5]),
        column::tokens(record.usage.input),
        column::tokens(record.usage.cached),
        column::tokens(record.usage.cache_written),
        column::tokens(record.usage.output),
        column::tokens(record.usage.reasoning),
        column::tokens(record.reserved_output),
        column::amount(record.cost.0),
        record.finish.map(seawall_model::Finish::as_str),
        record.outcome.as_str(),
        record.agent.as_ref().map(seawall_model::Agent::as_str),
    ])?;
    if record.tried.is_empty() {
        return Ok(());
    }
    let call = transaction.last_insert_rowid();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO attempts (call, place, engine, replica, outcome, status, began_ms, first_byte_ms, took_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for (place, attempt) in record.tried.iter().enumerate() {
        statement.execute(params![
            call,
            column::count(place),
            &*attempt.engine,
            &*attempt.replica,
            attempt.outcome,
            attempt.status,
            column::amount(attempt.began.0),
            attempt.first_byte.map(|wait| column::amount(wait.0)),
            column::amount(attempt.took.0),
        ])?;
    }
    Ok(())
}

fn tried(row: &Row<'_>) -> rusqlite::Result<Tried> {
    let millis = |value: i64| Millis(column::unsigned(value));
    Ok(Tried {
        engine: row.get(0)?,
        replica: row.get(1)?,
        outcome: row.get(2)?,
        status: row.get(3)?,
        began: millis(row.get(4)?),
        first_byte: row.get::<_, Option<i64>>(5)?.map(millis),
        took: millis(row.get(6)?),
    })
}

fn read(row: &Row<'_>) -> Result<Call, Error> {
    let amount = |index| row.get::<_, i64>(index).map(column::unsigned);
    let mut waits = Waits::default();
    for (index, cause) in CAUSES.into_iter().enumerate() {
        waits.add(cause, amount(WAITS_AT + index)?);
    }
    Ok(Call {
        id: amount(0)?,
        trace: row.get(1)?,
        tenant: row.get(2)?,
        run: row.get::<_, Option<i64>>(3)?.map(|run| RunId(run.cast_unsigned())),
        class: row.get(4)?,
        protocol: row.get(5)?,
        model: row.get(6)?,
        engine: row.get(7)?,
        replica: row.get(8)?,
        stream: row.get(9)?,
        received: At(amount(10)?),
        took: Millis(amount(11)?),
        first_token: row.get::<_, Option<i64>>(12)?.map(|wait| Millis(column::unsigned(wait))),
        attempts: row.get(13)?,
        tried: Vec::new(),
        waits,
        usage: Usage {
            input: Tokens(amount(20)?),
            cached: Tokens(amount(21)?),
            cache_written: Tokens(amount(22)?),
            output: Tokens(amount(23)?),
            reasoning: Tokens(amount(24)?),
        },
        reserved_output: Tokens(amount(25)?),
        cost: MicroUsd(amount(26)?),
        finish: row.get(27)?,
        outcome: row.get(28)?,
        agent: row.get(29)?,
    })
}

fn total(row: &Row<'_>) -> rusqlite::Result<Total> {
    let amount = |index| row.get::<_, i64>(index).map(column::unsigned);
    Ok(Total {
        name: row.get(0)?,
        calls: amount(1)?,
        failed: amount(2)?,
        cancelled: amount(3)?,
        usage: Usage {
            input: Tokens(amount(4)?),
            cached: Tokens(amount(5)?),
            cache_written: Tokens(amount(6)?),
            output: Tokens(amount(7)?),
            reasoning: Tokens(amount(8)?),
        },
        waited: Millis(amount(9)? / 1_000),
        cost: MicroUsd(amount(10)?),
        took: Millis(amount(11)?),
    })
}

/// A filter as the text and values of a WHERE clause.
struct Clause {
    text: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Clause {
    fn of(filter: &Filter) -> Self {
        let mut clause = Self { text: "1".to_owned(), values: Vec::new() };
        if let Some(tenant) = &filter.tenant {
            // Everything under `a/b` sorts between `a/b/` and `a/b0`, as 0 follows the
            // slash: a range of the index, and no pattern to escape.
            clause.and("(tenant = ? OR (tenant > ? AND tenant < ?))");
            clause.values.push(Box::new(tenant.clone()));
            clause.values.push(Box::new(format!("{tenant}/")));
            clause.values.push(Box::new(format!("{tenant}0")));
        }
        if let Some(model) = &filter.model {
            clause.and("model = ?");
            clause.values.push(Box::new(model.clone()));
        }
        if let Some(since) = filter.since {
            clause.and("received >= ?");
            clause.values.push(Box::new(column::time(since)));
        }
        if let Some(until) = filter.until {
            clause.and("received < ?");
            clause.values.push(Box::new(column::time(until)));
        }
        match filter.ended {
            None => {}
            Some(Ended::Done) => clause.and("outcome = 'done'"),
            Some(Ended::Cancelled) => clause.and("outcome = 'cancelled'"),
            Some(Ended::Failed) => clause.and("outcome NOT IN ('done', 'cancelled')"),
            Some(Ended::With(code)) => {
                clause.and("outcome = ?");
                clause.values.push(Box::new(code.as_str()));
            }
        }
        clause
    }

    fn and(&mut self, condition: &str) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
    }

    fn values(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}
