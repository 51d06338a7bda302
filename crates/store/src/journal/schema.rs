//! Every version of `journal.db`, oldest first; how versions work: the store's `schema`.

/// The steps from an empty file to the present format.
pub(super) const STEPS: &[&str] = &[V1];

// `body` is the noun in its own versioned form (see `codec`): the truth. The columns
// beside it exist to be searched by. `blobs` counts the blobs that a body names, so that
// a sweep reads only those rows. Digests of agents are the first 63 bits of a SHA-256.
//
// A row is updated at nearly every commit, so its indexes hold only what seldom changes:
// an update that leaves the indexed columns alone touches one page.
//
// `agents.asks` is who may approve what an agent that asks for it wants: see `wanted`.
//
// `agents.due` is `AgentRow::due`: 0 while there is something to do, the largest number where
// time alone changes nothing.
//
// `agents.cause` is `AgentRow::cause`, empty where an agent does not wait.
//
// `journal.hash` chains each shard: see `chain`. Of a shard, `seq` and `hash` are its
// end, `cut_seq` and `cut_hash` what it was cut up to: the chain is whole from there.
const V1: &str = "
CREATE TABLE shards (
    shard    INTEGER NOT NULL PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    hash     BLOB NOT NULL,
    cut_seq  INTEGER NOT NULL,
    cut_hash BLOB NOT NULL,
    body     BLOB NOT NULL
) STRICT;

CREATE TABLE journal (
    shard INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    agent INTEGER,
    run   INTEGER,
    blobs INTEGER NOT NULL,
    body  BLOB NOT NULL,
    hash  BLOB NOT NULL,
    PRIMARY KEY (shard, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX journal_by_run ON journal (run) WHERE run IS NOT NULL;
CREATE INDEX journal_by_agent ON journal (agent) WHERE run IS NULL AND agent IS NOT NULL;
CREATE INDEX journal_with_blobs ON journal (shard, seq) WHERE blobs > 0;

CREATE TABLE agents (
    id       INTEGER PRIMARY KEY,
    address  TEXT NOT NULL UNIQUE,
    tenant   TEXT NOT NULL,
    shard    INTEGER NOT NULL,
    standing INTEGER NOT NULL,
    needs    INTEGER NOT NULL,
    asks     TEXT NOT NULL DEFAULT '',
    due      INTEGER NOT NULL,
    cause    TEXT NOT NULL,
    lasting  INTEGER NOT NULL,
    blobs    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    body     BLOB NOT NULL
) STRICT;
CREATE INDEX agents_at_work ON agents (shard) WHERE standing IN (1, 2);
CREATE INDEX agents_done ON agents (shard) WHERE standing = 3;
CREATE INDEX agents_by_due ON agents (due) WHERE due > 0 AND due < 9223372036854775807;
CREATE INDEX agents_by_cause ON agents (cause, tenant) WHERE cause <> '';
CREATE INDEX agents_lasting ON agents (tenant) WHERE lasting = 1;
CREATE INDEX agents_in_need ON agents (id) WHERE needs > 0;
CREATE INDEX agents_with_blobs ON agents (id) WHERE blobs > 0;

CREATE TABLE runs (
    key    INTEGER PRIMARY KEY,
    shard  INTEGER NOT NULL,
    agent  INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    type   TEXT NOT NULL,
    state  TEXT NOT NULL,
    root   INTEGER NOT NULL,
    parent INTEGER,
    began  INTEGER NOT NULL,
    ended  INTEGER,
    blobs  INTEGER NOT NULL,
    body   BLOB NOT NULL
) STRICT;
CREATE INDEX runs_by_began ON runs (began);
CREATE INDEX runs_by_agent ON runs (agent);
CREATE INDEX runs_by_root ON runs (root);
CREATE INDEX runs_by_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_alive ON runs (shard) WHERE ended IS NULL;
CREATE INDEX runs_by_end ON runs (ended) WHERE ended IS NOT NULL;
CREATE INDEX runs_with_blobs ON runs (key) WHERE blobs > 0;

CREATE TABLE state (
    id    INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL,
    key   TEXT NOT NULL,
    blobs INTEGER NOT NULL,
    body  BLOB NOT NULL,
    UNIQUE (run, key)
) STRICT;
CREATE INDEX state_with_blobs ON state (id) WHERE blobs > 0;

CREATE TABLE vals (
    id      INTEGER PRIMARY KEY,
    tenant  TEXT NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    gone    INTEGER NOT NULL,
    blobs   INTEGER NOT NULL,
    body    BLOB NOT NULL,
    UNIQUE (tenant, key)
) STRICT;
CREATE INDEX vals_with_blobs ON vals (id) WHERE blobs > 0;

-- Rows go by vals.id. The tenant stands in the index as a word of its own, so that one
-- tenant's search never walks through another's texts.
CREATE VIRTUAL TABLE vals_words USING fts5 (tenant, text, content='', contentless_delete=1);

CREATE TABLE leases (
    tenant   TEXT NOT NULL,
    resource TEXT NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;

CREATE TABLE topics (
    tenant TEXT NOT NULL,
    topic  TEXT NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (tenant, topic)
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
    agent TEXT NOT NULL PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE letters (
    id     INTEGER PRIMARY KEY,
    shard  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    blobs  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    UNIQUE (shard, number)
) STRICT;
CREATE INDEX letters_with_blobs ON letters (id) WHERE blobs > 0;
";
