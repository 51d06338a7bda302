//! Every version of the stored format, oldest first.
//!
//! `PRAGMA user_version` counts the steps a file has been through. A step is never
//! edited once released: a change is a new step at the end.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::Error;

/// `PRAGMA application_id` of our files: "SWL1", so that `file(1)` and we can tell a
/// stray database from a store.
const APPLICATION_ID: i32 = 0x5357_4c31;

/// The steps from an empty file to the present format.
pub(crate) const STEPS: &[&str] = &[V1, V2, V3, V4];

// Times are microseconds since the Unix epoch, money millionths of a US dollar.
// `calls` has one index beyond its rowid: records arrive on the hot path, and each
// index would cost every call for the sake of a rare question.
const V1: &str = "
CREATE TABLE keys (
    id        TEXT NOT NULL PRIMARY KEY,
    hash      BLOB NOT NULL UNIQUE,
    name      TEXT NOT NULL,
    tenant    TEXT NOT NULL,
    class     TEXT,
    models    TEXT NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    revoked   INTEGER,
    last_used INTEGER,
    admin     INTEGER NOT NULL
) STRICT;

CREATE TABLE revision (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    count INTEGER NOT NULL
) STRICT;
INSERT INTO revision VALUES (1, 0);

CREATE TABLE accounts (
    account TEXT NOT NULL,
    window  INTEGER NOT NULL,
    ceiling INTEGER NOT NULL,
    spent   INTEGER NOT NULL,
    clean   INTEGER NOT NULL,
    PRIMARY KEY (account, window)
) STRICT, WITHOUT ROWID;

CREATE TABLE calls (
    id              INTEGER PRIMARY KEY,
    trace           TEXT NOT NULL,
    tenant          TEXT NOT NULL,
    run             INTEGER,
    class           TEXT NOT NULL,
    protocol        TEXT NOT NULL,
    model           TEXT NOT NULL,
    engine          TEXT,
    replica         INTEGER,
    stream          INTEGER NOT NULL,
    received        INTEGER NOT NULL,
    took_ms         INTEGER NOT NULL,
    first_token_ms  INTEGER,
    attempts        INTEGER NOT NULL,
    wait_tenant_share_us       INTEGER NOT NULL,
    wait_engine_full_us        INTEGER NOT NULL,
    wait_engine_down_us        INTEGER NOT NULL,
    wait_rate_limit_us         INTEGER NOT NULL,
    wait_tenant_concurrency_us INTEGER NOT NULL,
    wait_budget_us             INTEGER NOT NULL,
    input           INTEGER NOT NULL,
    cached          INTEGER NOT NULL,
    cache_written   INTEGER NOT NULL,
    output          INTEGER NOT NULL,
    reasoning       INTEGER NOT NULL,
    reserved_output INTEGER NOT NULL,
    cost_usd_micro  INTEGER NOT NULL,
    finish          TEXT,
    outcome         TEXT NOT NULL
) STRICT;
CREATE INDEX calls_by_tenant ON calls (tenant, id);
";

// Keys gain a scope, which none that was made before has. Attempts are kept of the few
// calls that took several or failed, and go with their call.
const V2: &str = "
ALTER TABLE keys ADD COLUMN pass_through INTEGER NOT NULL DEFAULT 0;

CREATE TABLE attempts (
    call          INTEGER NOT NULL,
    place         INTEGER NOT NULL,
    engine        TEXT NOT NULL,
    replica       TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    status        INTEGER,
    began_ms      INTEGER NOT NULL,
    first_byte_ms INTEGER,
    took_ms       INTEGER NOT NULL,
    PRIMARY KEY (call, place)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER attempts_go_with_their_call AFTER DELETE ON calls BEGIN
    DELETE FROM attempts WHERE call = OLD.id;
END;
";

// Calls say which agent asked. Answers kept for runs that asked for a memo: the only content in the store. `run` and
// `work` are digests; `attempt` is that of the start of the script which used it last.
const V3: &str = "
ALTER TABLE calls ADD COLUMN agent TEXT;

CREATE TABLE memo_runs (
    run     BLOB NOT NULL PRIMARY KEY,
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    answers INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    used    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX memo_runs_by_use ON memo_runs (used);

CREATE TABLE memo_answers (
    id      INTEGER PRIMARY KEY,
    run     BLOB NOT NULL,
    work    BLOB NOT NULL,
    attempt BLOB,
    kind    TEXT NOT NULL,
    answer  BLOB NOT NULL
) STRICT;
CREATE INDEX memo_answers_by_work ON memo_answers (run, work, id);
CREATE TRIGGER memo_answers_go_with_their_run AFTER DELETE ON memo_runs BEGIN
    DELETE FROM memo_answers WHERE run = OLD.run;
END;
";

// Keys may name the agent and the run of calls that name none. Runs add up their calls:
// `id` is the digest that calls have, and a run is looked for by name, by its parent's name
// and by its last call.
const V4: &str = "
ALTER TABLE keys ADD COLUMN agent TEXT;
ALTER TABLE keys ADD COLUMN run TEXT;

CREATE TABLE runs (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    parent TEXT,
    agent  TEXT,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    calls  INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input  INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost   INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_name ON runs (tenant, name);
CREATE INDEX runs_by_parent ON runs (tenant, parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_last ON runs (last);
";

/// The format version of an open file: 0 for an empty one.
pub(crate) fn version(conn: &Connection, path: &Path) -> Result<usize, Error> {
    let read = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = read("user_version").map_err(|error| Error::not_open(path, &error))?;
    let owner = read("application_id").map_err(|error| Error::not_open(path, &error))?;
    if (found != 0 || owner != 0) && owner != i64::from(APPLICATION_ID) {
        return Err(Error::NotOpen {
            path: path.to_owned(),
            why: "it is another program's database".to_owned(),
            hint: "choose another data folder with --data",
        });
    }
    usize::try_from(found).map_err(|_| Error::corrupt(format!("format version {found}")))
}

/// Refuses a file that a newer Seawall wrote.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), Error> {
    let found = version(conn, path)?;
    if found > STEPS.len() {
        return Err(Error::Newer { path: path.to_owned(), found, known: STEPS.len() });
    }
    Ok(())
}

/// Takes the file through the steps that it has not been through, each in a transaction
/// of its own, so that a crash between two leaves a whole older format.
pub(crate) fn migrate(conn: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), Error> {
    let found = version(conn, path)?;
    if found > steps.len() {
        return Err(Error::Newer { path: path.to_owned(), found, known: steps.len() });
    }
    for (done, step) in steps.iter().enumerate().skip(found) {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        let version = i64::try_from(done + 1).expect("there are few steps");
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
