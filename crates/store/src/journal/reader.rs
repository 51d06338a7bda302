//! Questions to the journal's rows: for recovery, for agents that come back into memory,
//! and for people.

use std::collections::BTreeSet;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Params, params};
use seawall_model::durable::{
    AgentRow, DeadLetter, LeaseRow, RunRow, ScheduleRow, ShardRow, Standing, TopicRow, ValueRow,
};
use seawall_model::{Address, At, Payload, RunKey, Tenant, limits};

use super::codec::{Noun, decode};
use super::rows::{agent_digest, run_key, standing_of, tenant_word};
use super::{Blobs, State, Usage, chain};
use crate::{Error, column};

/// A connection that looks at the journal. Every answer is bounded by
/// [`limits::ROWS_MAX`] where it does not say otherwise.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
    pub(super) blobs: Blobs,
}

/// Agents that have work, with the runs that they need to go on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The agents, in the order in which they first came.
    pub agents: Vec<AgentRow>,
    /// Their runs, those that wait for them, and all above these; each once.
    pub runs: Vec<RunRow>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
}

/// Agents that time will wake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Who, and when: the next first.
    pub found: Vec<(Address, At)>,
    /// Where to go on, if there may be more.
    pub next: Option<(At, u64)>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this tenant and all below it.
    pub tenant: Option<String>,
    /// Of agents of this type.
    pub kind: Option<String>,
    /// In this state, by [`seawall_model::durable::RunState::as_str`].
    pub state: Option<String>,
    /// Begun for this run.
    pub parent: Option<RunKey>,
    /// Begun since then.
    pub since: Option<At>,
    /// Begun before this one of the last page, or at its time with a smaller key.
    pub before: Option<(At, RunKey)>,
}

/// Which values to find by the words in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search<'a> {
    /// Their keys begin with this.
    pub prefix: &'a str,
    /// A text with the words.
    pub words: &'a str,
    /// Is one of the words enough?
    pub any: bool,
    /// Keys that begin with this are left out; empty leaves none out.
    pub but: &'a str,
    /// So many at most.
    pub limit: usize,
}

impl Search<'_> {
    /// The words, each quoted as the index reads it. Of more than
    /// [`limits::SEARCH_WORDS_MAX`] the longest are kept: what is frequent is short.
    fn wanted(&self) -> Vec<String> {
        let words = self.words.split(|char: char| !char.is_alphanumeric());
        let mut known = BTreeSet::new();
        let mut words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        words.retain(|word| known.insert(word.clone()));
        if words.len() > limits::SEARCH_WORDS_MAX {
            words.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
            words.truncate(limits::SEARCH_WORDS_MAX);
        }
        words.into_iter().map(|word| format!("\"{word}\"")).collect()
    }
}

/// `tenant` is the path in parameter `?n`, or below it; every tenant, where that is null.
pub(super) fn under(n: usize) -> String {
    // `0` follows `/` in ASCII.
    format!("(?{n} IS NULL OR tenant = ?{n} OR (tenant > ?{n} || '/' AND tenant < ?{n} || '0'))")
}

/// As many rows as were asked for, within the limit.
fn bounded(limit: usize) -> i64 {
    column::count(limit.min(limits::ROWS_MAX))
}

impl Reader {
    /// The rows of all shards there are.
    ///
    /// # Errors
    /// If the disk fails or the row is damaged; so with all below.
    pub fn shards(&self) -> Result<Vec<ShardRow>, Error> {
        let sql = "SELECT epoch, seq, body, shard FROM shards ORDER BY shard";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok(chain::row_of(row.get(3)?, row)))?;
        rows.map(|row| row?).collect()
    }

    /// One agent.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn agent(&self, address: &Address) -> Result<Option<AgentRow>, Error> {
        self.one("an agent's row", "SELECT body FROM agents WHERE address = ?1", [address.to_string()])
    }

    /// One agent with what it needs to work: its run, the runs that wait for it, and all
    /// above these.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn load_agent(&self, address: &Address) -> Result<Option<(AgentRow, Vec<RunRow>)>, Error> {
        let Some(agent) = self.agent(address)? else { return Ok(None) };
        let mut runs = Vec::new();
        self.add_runs(&agent, &mut BTreeSet::new(), &mut runs)?;
        Ok(Some((agent, runs)))
    }

    /// Agents of a shard that have a run or are in quarantine, a page at a time: `after`
    /// is 0 and then [`Live::next`]. Without those for whom nothing is due by `now` and who
    /// have no kin: they sleep on, whatever the crash came between.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn live(&self, shard: u8, after: u64, limit: usize, now: At) -> Result<Live, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, body FROM agents
             WHERE shard = ?1 AND standing IN (1, 2) AND id > ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![shard, column::amount(after), bounded(limit)])?;
        let mut live = Live::default();
        let mut known = BTreeSet::new();
        let (mut last, mut count) = (0, 0);
        while let Some(row) = rows.next()? {
            last = column::unsigned(row.get(0)?);
            count += 1;
            let agent: AgentRow = decode("an agent's row", row.get_ref(1)?.as_blob()?)?;
            if agent.due() <= now || self.has_kin(&agent)? {
                self.add_runs(&agent, &mut known, &mut live.runs)?;
                live.agents.push(agent);
            }
        }
        live.next = (count == bounded(limit)).then_some(last);
        Ok(live)
    }

    /// Is one of its runs another's child or parent?
    fn has_kin(&self, agent: &AgentRow) -> Result<bool, Error> {
        for key in agent.run.iter().chain(&agent.queue) {
            if self.run(*key)?.is_none_or(|run| run.parent.is_some() || !run.children.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Agents of all shards by when time alone makes something happen to them, from then on
    /// (and where equal after that one of the last page) and before: the address, when, and
    /// where to go on if there may be more.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn due(&self, from: (At, u64), before: At, limit: usize) -> Result<Due, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, address, due FROM agents
             WHERE due > 0 AND due < 9223372036854775807
                 AND due >= ?1 AND (due > ?1 OR id > ?2) AND due < ?3
             ORDER BY due, id LIMIT ?4",
        )?;
        let (at, id, limit) = (column::time(from.0), column::amount(from.1), bounded(limit));
        let mut rows = statement.query(params![at, id, column::time(before), limit])?;
        let mut due = Due::default();
        let mut last = from;
        while let Some(row) = rows.next()? {
            let at = column::at(row.get(2)?);
            last = (at, column::unsigned(row.get(0)?));
            let address: String = row.get(1)?;
            let address = Address::parse(&address)
                .map_err(|why| Error::Corrupt { why: format!("an agent's address: {why}") })?;
            due.found.push((address, at));
        }
        due.next = (column::count(due.found.len()) == limit).then_some(last);
        Ok(due)
    }

    /// How many agents each tenant has that outlive their runs.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn lasting(&self) -> Result<Vec<(Tenant, usize)>, Error> {
        let sql = "SELECT tenant, COUNT(*) FROM agents WHERE lasting = 1 GROUP BY tenant";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut lasting = Vec::new();
        while let Some(row) = rows.next()? {
            let tenant: String = row.get(0)?;
            let tenant = Tenant::parse(&tenant)
                .map_err(|why| Error::Corrupt { why: format!("an agent's tenant: {why}") })?;
            let count: i64 = row.get(1)?;
            lasting.push((tenant, usize::try_from(count).unwrap_or(0)));
        }
        Ok(lasting)
    }

    /// How many runs are not over.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn runs_alive(&self) -> Result<usize, Error> {
        let sql = "SELECT COUNT(*) FROM runs WHERE ended IS NULL";
        let count: i64 = self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn add_runs(
        &self,
        agent: &AgentRow,
        known: &mut BTreeSet<RunKey>,
        runs: &mut Vec<RunRow>,
    ) -> Result<(), Error> {
        for first in agent.run.iter().chain(&agent.queue) {
            let mut next = Some(*first);
            // Ends at a run that is known, so a loop in damaged rows ends as well.
            while let Some(key) = next.filter(|key| known.insert(*key)) {
                let run = self.run(key)?;
                next = run.as_ref().and_then(|run| run.parent).map(|effect| effect.run);
                runs.extend(run);
            }
        }
        Ok(())
    }

    /// Agents of a tenant and all below it by address, after one of the last page.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn agents(
        &self,
        tenant: Option<&str>,
        after: Option<&Address>,
        limit: usize,
    ) -> Result<Vec<AgentRow>, Error> {
        let sql =
            format!("SELECT body FROM agents WHERE {} AND address > ?2 ORDER BY address LIMIT ?3", under(1));
        let after = after.map(Address::to_string).unwrap_or_default();
        self.many("an agent's row", &sql, params![tenant, after, bounded(limit)])
    }

    /// How many agents there are of a tenant and all below it, by type and standing. Looks
    /// at every agent.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn standings(&self, tenant: Option<&str>) -> Result<Vec<(String, Standing, u64)>, Error> {
        // What follows the tenant in an address is the type and the key.
        let sql = format!(
            "SELECT substr(agent, 1, instr(agent, '/') - 1) AS type, standing, COUNT(*) FROM
                 (SELECT substr(address, length(tenant) + 2) AS agent, standing FROM agents WHERE {})
             GROUP BY type, standing ORDER BY type, standing",
            under(1)
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([tenant])?;
        let mut standings = Vec::new();
        while let Some(row) = rows.next()? {
            let standing = standing_of(row.get(1)?);
            standings.push((row.get(0)?, standing, column::unsigned(row.get(2)?)));
        }
        Ok(standings)
    }

    /// How many agents of a tenant and all below it wait, by [`AgentRow::cause`]. Looks into an
    /// index alone.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn causes(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, Error> {
        let sql = format!(
            "SELECT cause, COUNT(*) FROM agents WHERE cause <> '' AND {} GROUP BY cause ORDER BY cause",
            under(1)
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map([tenant], |row| Ok((row.get(0)?, column::unsigned(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One run.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn run(&self, key: RunKey) -> Result<Option<RunRow>, Error> {
        self.one("a run's row", "SELECT body FROM runs WHERE key = ?1", [run_key(key)])
    }

    /// The run that an agent was asked for last.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn last_run(&self, address: &Address) -> Result<Option<RunRow>, Error> {
        let sql = "SELECT body FROM runs WHERE agent = ?1 ORDER BY began DESC, key DESC LIMIT 1";
        let row: Option<RunRow> = self.one("a run's row", sql, [agent_digest(address)])?;
        Ok(row.filter(|row| row.agent == *address))
    }

    /// Runs of a shard on top of their trees that are not over, by key; the next page begins
    /// after the last key.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn roots_alive(&self, shard: u8, after: RunKey, limit: usize) -> Result<Vec<RunRow>, Error> {
        let sql = "SELECT body FROM runs
                   WHERE ended IS NULL AND parent IS NULL AND shard = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
        self.many("a run's row", sql, params![shard, run_key(after), bounded(limit)])
    }

    /// Runs that match, the newest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunRow>, Error> {
        let mut sql = format!("SELECT body FROM runs WHERE {}", under(1));
        let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(filter.tenant.clone())];
        let mut also = |clause: &str, value: Option<Box<dyn ToSql>>| {
            if let Some(value) = value {
                values.push(value);
                sql.push_str(&format!(" AND {clause} ?{}", values.len()));
            }
        };
        also("type =", filter.kind.clone().map(|kind| Box::new(kind) as _));
        also("state =", filter.state.clone().map(|state| Box::new(state) as _));
        also("parent =", filter.parent.map(|key| Box::new(run_key(key)) as _));
        also("began >=", filter.since.map(|since| Box::new(column::time(since)) as _));
        if let Some((at, key)) = filter.before {
            also("began <=", Some(Box::new(column::time(at))));
            let n = values.len();
            values.push(Box::new(run_key(key)));
            sql.push_str(&format!(" AND (began < ?{n} OR key < ?{})", n + 1));
        }
        sql.push_str(&format!(" ORDER BY began DESC, key DESC LIMIT {}", bounded(limit)));
        self.many("a run's row", &sql, rusqlite::params_from_iter(values.iter()))
    }

    /// A tree of runs, the oldest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn tree(&self, root: RunKey) -> Result<Vec<RunRow>, Error> {
        let sql = "SELECT body FROM runs WHERE root = ?1 ORDER BY began, key LIMIT ?2";
        self.many("a run's row", sql, params![run_key(root), bounded(usize::MAX)])
    }

    /// A run's working state as it is now, by key.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn state(&self, run: RunKey) -> Result<State, Error> {
        let mut statement =
            self.conn.prepare_cached("SELECT key, body FROM state WHERE run = ?1 ORDER BY key")?;
        let mut rows = statement.query([run_key(run)])?;
        let mut state = State::new();
        while let Some(row) = rows.next()? {
            let value = decode("a value of a state", row.get_ref(1)?.as_blob()?)?;
            state.push((row.get(0)?, value));
        }
        Ok(state)
    }

    /// One value of a tenant's store. One that was removed is there still, for its
    /// version.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn value(&self, tenant: &Tenant, key: &str) -> Result<Option<ValueRow>, Error> {
        let sql = "SELECT body FROM vals WHERE tenant = ?1 AND key = ?2";
        self.one("a value", sql, params![tenant.as_str(), key])
    }

    /// Values of a tenant whose key begins so, by key, after one of the last page; without
    /// those that were removed.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn values(
        &self,
        tenant: &Tenant,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ValueRow>, Error> {
        let sql = "SELECT body FROM vals WHERE tenant = ?1 AND key >= ?2 AND key < ?3 AND key > ?4
                       AND gone = 0 ORDER BY key LIMIT ?5";
        let last = format!("{prefix}\u{10ffff}");
        self.many("a value", sql, params![tenant.as_str(), prefix, last, after.unwrap_or(""), bounded(limit)])
    }

    /// Values of a tenant whose key begins so and that hold all of these words, the best match
    /// first: as [`Self::find_values`].
    ///
    /// # Errors
    /// If the disk fails.
    pub fn search_values(
        &self,
        tenant: &Tenant,
        prefix: &str,
        words: &str,
        limit: usize,
    ) -> Result<Vec<ValueRow>, Error> {
        self.find_values(tenant, &Search { prefix, words, any: false, but: "", limit })
    }

    /// Values of a tenant by the words in them, the best match first (BM25, as FTS5 computes
    /// it). Looks at the key and at the first [`limits::VALUE_INDEXED_BYTES_MAX`] of each
    /// value; of a blob, at the key alone. Without words all are found, by key.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn find_values(&self, tenant: &Tenant, search: &Search<'_>) -> Result<Vec<ValueRow>, Error> {
        let words = search.wanted();
        if words.is_empty() {
            return self.values(tenant, search.prefix, None, search.limit);
        }
        let words = words.join(if search.any { " OR " } else { " AND " });
        let query = format!("tenant : {} AND text : ({words})", tenant_word(tenant.as_str()));
        let sql = "SELECT vals.body FROM vals_words JOIN vals ON vals.id = vals_words.rowid
                   WHERE vals_words MATCH ?1 AND vals.tenant = ?2 AND vals.key >= ?3 AND vals.key < ?4
                       AND (?5 = '' OR vals.key < ?5 OR vals.key >= ?6)
                   ORDER BY vals_words.rank, vals.id LIMIT ?7";
        let last = |prefix: &str| format!("{prefix}\u{10ffff}");
        let (but, but_last) = (search.but, last(search.but));
        let limit = bounded(search.limit);
        self.many(
            "a value",
            sql,
            params![query, tenant.as_str(), search.prefix, last(search.prefix), but, but_last, limit],
        )
    }

    /// Leases of a tenant and all below it; of all, for the kernel: without a bound.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn leases(&self, tenant: Option<&str>) -> Result<Vec<LeaseRow>, Error> {
        let sql = format!("SELECT body FROM leases WHERE {} ORDER BY tenant, resource", under(1));
        self.many("a lease", &sql, [tenant])
    }

    /// Topics, likewise.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicRow>, Error> {
        let sql = format!("SELECT body FROM topics WHERE {} ORDER BY tenant, topic", under(1));
        self.many("a topic", &sql, [tenant])
    }

    /// When schedules last fired, all of them.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        self.many("a schedule", "SELECT body FROM schedules ORDER BY agent", [])
    }

    /// Dead letters of a tenant and all below it with their shards, the oldest first of
    /// each. There are at most [`limits::LETTERS_MAX`] per shard.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn letters(&self, tenant: Option<&str>) -> Result<Vec<(u8, DeadLetter)>, Error> {
        let sql = format!("SELECT shard, body FROM letters WHERE {} ORDER BY shard, number", under(1));
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([tenant])?;
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            let letter = decode("a dead letter", row.get_ref(1)?.as_blob()?)?;
            letters.push((row.get(0)?, letter));
        }
        Ok(letters)
    }

    /// So many of these at most, after one of the last page.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn letters_after(
        &self,
        tenant: Option<&str>,
        after: Option<(u8, u64)>,
        limit: usize,
    ) -> Result<Vec<(u8, DeadLetter)>, Error> {
        let sql = format!(
            "SELECT shard, body FROM letters WHERE {} AND (shard, number) > (?2, ?3)
             ORDER BY shard, number LIMIT ?4",
            under(1)
        );
        let (shard, number) = after.map_or((-1, 0), |(shard, number)| (i64::from(shard), number));
        let mut statement = self.conn.prepare_cached(&sql)?;
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![tenant, shard, number, bounded(limit)])?;
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            letters.push((row.get(0)?, decode("a dead letter", row.get_ref(1)?.as_blob()?)?));
        }
        Ok(letters)
    }

    /// How many of these there are.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn count_letters(&self, tenant: Option<&str>) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) FROM letters WHERE {}", under(1));
        let count = self.conn.prepare_cached(&sql)?.query_row([tenant], |row| row.get(0))?;
        Ok(column::unsigned(count))
    }

    /// One dead letter.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn letter(&self, shard: u8, number: u64) -> Result<Option<DeadLetter>, Error> {
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        let sql = "SELECT body FROM letters WHERE shard = ?1 AND number = ?2";
        self.one("a dead letter", sql, params![shard, number])
    }

    /// The bytes of a payload, wherever they are.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its blob is missing or damaged.
    pub fn open_payload(&self, payload: &Payload) -> Result<std::sync::Arc<[u8]>, Error> {
        self.blobs.open(payload)
    }

    /// What is used on the disk. The first question counts the blobs.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn usage(&self) -> Result<Usage, Error> {
        let pragma = |name| -> Result<u64, Error> {
            let value = self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0))?;
            Ok(column::unsigned(value))
        };
        let (size, count, free) = (pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?);
        Ok(Usage {
            journal_bytes: count.saturating_sub(free) * size,
            blob_bytes: self.blobs.bytes()?,
            free_bytes: free * size,
        })
    }

    fn one<N: Noun>(&self, what: &'static str, sql: &str, params: impl Params) -> Result<Option<N>, Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let body: Option<Vec<u8>> = statement.query_row(params, |row| row.get(0)).optional()?;
        body.map(|body| decode(what, &body)).transpose()
    }

    fn many<N: Noun>(&self, what: &'static str, sql: &str, params: impl Params) -> Result<Vec<N>, Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut nouns = Vec::new();
        while let Some(row) = rows.next()? {
            nouns.push(decode(what, row.get_ref(0)?.as_blob()?)?);
        }
        Ok(nouns)
    }
}
