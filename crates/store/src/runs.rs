//! Runs of agents as their calls have told of them: who, below whom, since when, and what
//! they used. One row for each run, written with the records of its calls, so that the list
//! and the records never say different things. The rows seen last are kept.

use rusqlite::{Row, Transaction, params};
use seawall_model::{At, MicroUsd, Outcome, Record, RunId, Tokens, limits};

use crate::{Error, Store, Sync, column};

/// A run, as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Digest of tenant and name, as records have it.
    pub id: RunId,
    /// Whose it is.
    pub tenant: String,
    /// Its name, as its client sends it.
    pub name: String,
    /// The name of the run that it works for, as said last.
    pub parent: Option<String>,
    /// The agent, as it called itself last.
    pub agent: Option<String>,
    /// When its first call was received, and its last.
    pub seen: (At, At),
    /// Its calls that are over.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Tokens read.
    pub input: Tokens,
    /// Tokens written.
    pub output: Tokens,
    /// What they cost.
    pub cost: MicroUsd,
    /// Generations below the run asked for; 0 in a plain list.
    pub depth: u32,
}

impl Store {
    /// The runs seen last, at most [`limits::ROWS_MAX`], newest first: of this tenant and all
    /// below it, or of all.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn runs(&self, tenant: Option<&str>, count: usize) -> Result<Vec<Run>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, 0 FROM runs
             WHERE ?1 IS NULL OR tenant = ?1 OR (tenant > ?1 || '/' AND tenant < ?1 || '0')
             ORDER BY last DESC, id LIMIT ?2"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map(params![tenant, column::count(count.min(limits::ROWS_MAX))], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A run and all below it, each after those above it, at most [`limits::ROWS_MAX`] and
    /// [`limits::RUN_DEPTH_MAX`] generations. The run itself may have made no call.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn run_tree(&self, tenant: &str, name: &str) -> Result<Vec<Run>, Error> {
        // Whoever named each other as parents is walked to the depth and listed once.
        let sql = format!(
            "WITH RECURSIVE tree(below, depth) AS (
                 VALUES (?2, 0)
                 UNION
                 SELECT name, depth + 1 FROM runs JOIN tree ON parent = below
                 WHERE tenant = ?1 AND depth < ?3 LIMIT ?4)
             SELECT {COLUMNS}, min(depth) FROM tree JOIN runs ON tenant = ?1 AND name = below
             GROUP BY id ORDER BY min(depth), first, id"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let (depth, rows) = (column::count(limits::RUN_DEPTH_MAX), column::count(limits::ROWS_MAX));
        let rows = statement.query_map(params![tenant, name, depth, rows], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deletes one slice of the runs that were not seen for longest, beyond the newest `keep`;
    /// answers with how many. Call again, between other work, while that equals
    /// [`limits::PRUNE_ROWS_MAX`].
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prune_runs(&mut self, keep: usize) -> Result<usize, Error> {
        let count: i64 = self.conn.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
        let over = count.saturating_sub(column::count(keep));
        if over <= 0 {
            return Ok(0);
        }
        self.write(Sync::Normal, |transaction| {
            let mut statement = transaction.prepare_cached(
                "DELETE FROM runs WHERE id IN (SELECT id FROM runs ORDER BY last, id LIMIT ?1)",
            )?;
            Ok(statement.execute([over.min(column::count(limits::PRUNE_ROWS_MAX))])?)
        })
    }
}

const COLUMNS: &str = "id, tenant, name, parent, agent, first, last, calls, failed, input, output, cost";

/// Books a call to its run.
pub(crate) fn book(transaction: &Transaction<'_>, record: &Record) -> Result<(), Error> {
    let (Some(id), Some(lineage)) = (record.run, &record.lineage) else { return Ok(()) };
    // Sums stop at the largest number rather than turn into floating point.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO runs (id, tenant, name, parent, agent, first, last, calls, failed, input, output, cost)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 1, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET
             parent = ifnull(?4, parent), agent = ifnull(?5, agent), first = min(first, ?6),
             last = max(last, ?6), calls = calls + 1, failed = failed + ?7,
             input = input + min(?8, 9223372036854775807 - input),
             output = output + min(?9, 9223372036854775807 - output),
             cost = cost + min(?10, 9223372036854775807 - cost)",
    )?;
    statement.execute(params![
        id.0.cast_signed(),
        record.tenant.as_str(),
        &*lineage.run,
        lineage.parent.as_deref(),
        record.agent.as_ref().map(seawall_model::Agent::as_str),
        column::time(record.received),
        i64::from(matches!(record.outcome, Outcome::Failed(_))),
        column::tokens(record.usage.input),
        column::tokens(record.usage.output),
        column::amount(record.cost.0),
    ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    let amount = |index| row.get::<_, i64>(index).map(column::unsigned);
    Ok(Run {
        id: RunId(row.get::<_, i64>(0)?.cast_unsigned()),
        tenant: row.get(1)?,
        name: row.get(2)?,
        parent: row.get(3)?,
        agent: row.get(4)?,
        seen: (At(amount(5)?), At(amount(6)?)),
        calls: amount(7)?,
        failed: amount(8)?,
        input: Tokens(amount(9)?),
        output: Tokens(amount(10)?),
        cost: MicroUsd(amount(11)?),
        depth: row.get(12)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use seawall_model::{Agent, Code, Lineage, Tenant};

    use super::*;

    fn call(tenant: &str, name: &str, parent: Option<&str>, at: u64) -> Record {
        let digest = name.bytes().fold(tenant.len() as u64, |digest, byte| digest * 31 + u64::from(byte));
        Record {
            // The largest digests are negative where they are stored.
            run: Some(RunId(u64::MAX - digest)),
            lineage: Some(Arc::new(Lineage { run: name.into(), parent: parent.map(Into::into) })),
            ..crate::tests::record(tenant, at, Outcome::Done)
        }
    }

    fn names(runs: &[Run]) -> Vec<&str> {
        runs.iter().map(|run| run.name.as_str()).collect()
    }

    #[test]
    fn calls_add_up_to_their_run() {
        let mut store = Store::in_memory().expect("memory");
        let first = call("acme", "report", None, 5);
        let failed = Record {
            outcome: Outcome::Failed(Code::EngineDown),
            agent: Agent::parse("writer/2").ok(),
            ..call("acme", "report", Some("top"), 9)
        };
        let unnamed = Record { lineage: None, ..first.clone() };
        store.record(&[failed, first.clone(), unnamed]).expect("kept");
        let runs = store.runs(None, 10).expect("read");
        let expected = Run {
            id: first.run.expect("named"),
            tenant: "acme".into(),
            name: "report".into(),
            parent: Some("top".into()),
            agent: Some("researcher/7".into()),
            seen: (At(5), At(9)),
            calls: 2,
            failed: 1,
            input: Tokens(200),
            output: first.usage.output + first.usage.output,
            cost: first.cost + first.cost,
            depth: 0,
        };
        assert_eq!(runs, [expected]);
        let mut liar = call("acme", "liar", None, 1);
        liar.usage.input = Tokens(u64::MAX);
        store.record(&[liar.clone(), liar]).expect("sums stop at the largest");
    }

    #[test]
    fn lists_are_of_a_tenant_and_newest_first() {
        let mut store = Store::in_memory().expect("memory");
        for (tenant, name, at) in [("acme", "a", 1), ("acme/x", "b", 3), ("acme-2", "c", 2)] {
            store.record(&[call(tenant, name, None, at)]).expect("kept");
        }
        assert_eq!(names(&store.runs(None, 10).expect("read")), ["b", "c", "a"]);
        assert_eq!(names(&store.runs(None, 1).expect("read")), ["b"]);
        assert_eq!(names(&store.runs(Some("acme"), 10).expect("read")), ["b", "a"]);
        assert_eq!(names(&store.runs(Some("nobody"), 10).expect("read")), [] as [&str; 0]);
    }

    #[test]
    fn a_tree_is_listed_from_its_top_down() {
        let mut store = Store::in_memory().expect("memory");
        for (name, parent, at) in
            [("a", Some("top"), 1), ("b", Some("top"), 2), ("a1", Some("a"), 3), ("other", None, 4)]
        {
            store.record(&[call("acme", name, parent, at)]).expect("kept");
        }
        store.record(&[call("acme/x", "a2", Some("a"), 5)]).expect("kept");
        let tree = store.run_tree("acme", "top").expect("read");
        assert_eq!(names(&tree), ["a", "b", "a1"], "the top has made no call itself");
        assert_eq!(tree.iter().map(|run| run.depth).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(names(&store.run_tree("acme", "other").expect("read")), ["other"]);
        // Two that name each other.
        store.record(&[call("acme", "x", Some("y"), 6), call("acme", "y", Some("x"), 7)]).expect("kept");
        assert_eq!(names(&store.run_tree("acme", "x").expect("read")), ["x", "y"]);
    }

    #[test]
    fn so_many_runs_are_kept() {
        let mut store = Store::in_memory().expect("memory");
        let calls: Vec<Record> = (0..50).map(|at| call("acme", &format!("run-{at}"), None, at)).collect();
        store.record(&calls).expect("kept");
        assert_eq!(store.prune_runs(50).expect("works"), 0);
        assert_eq!(store.prune_runs(20).expect("works"), 30);
        let left = store.runs(None, 100).expect("read");
        assert_eq!((left.len(), left[19].name.as_str()), (20, "run-30"));
        assert!(Tenant::parse(&left[0].tenant).is_ok());
    }
}
