//! The reconciler on disk: does each agent and run that is not over have what it rests on?
//! It looks at rows alone, whoever is in memory: they are whole after every transaction.

use std::fmt;

use rusqlite::{OptionalExtension, params};
use seawall_model::durable::{AgentRow, Item, RunRow, RunState, Stage, Standing};
use seawall_model::effect::Spend;
use seawall_model::journal::{Event, Record};
use seawall_model::{At, RunKey, limits};

use super::codec::decode;
use super::reader::Reader;
use super::rows::{agent_digest, run_key};
use crate::{Error, column};

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The agent or run it is about.
    pub of: String,
    /// In words.
    pub what: String,
}

/// What a look at the rows of a shard found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Agents looked at.
    pub agents: u64,
    /// Runs looked at.
    pub runs: u64,
    /// What is wrong: the first of it, at most [`limits::BOOKS_WRONG_MAX`].
    pub wrong: Vec<Wrong>,
    /// Where to go on: after this agent's row, or this run. `None` when all was looked at.
    pub next: Option<Place>,
}

/// How far the look is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After the agent of this row; 0 is the beginning.
    Agent(u64),
    /// After this run.
    Run(RunKey),
}

impl Books {
    /// Adds what another look found.
    pub fn add(&mut self, other: Self) {
        self.agents += other.agents;
        self.runs += other.runs;
        self.next = other.next;
        for wrong in other.wrong {
            self.note(&wrong.of, wrong.what);
        }
    }

    fn note(&mut self, of: &dyn fmt::Display, what: impl Into<String>) {
        if self.wrong.len() < limits::BOOKS_WRONG_MAX {
            self.wrong.push(Wrong { of: of.to_string(), what: what.into() });
        }
    }
}

impl Reader {
    /// Looks at some agents or runs of a shard that are at work: at first those after
    /// [`Place::Agent`] 0, then those after [`Books::next`]. A page is read as of one moment.
    ///
    /// # Errors
    /// If the disk fails. What is wrong with rows is the answer's to say.
    pub fn reconcile(&self, shard: u8, from: Place, limit: usize) -> Result<Books, Error> {
        // Rows are compared with each other: none may change between.
        let _moment = self.conn.unchecked_transaction()?;
        match from {
            Place::Agent(after) => self.reconcile_agents(shard, after, limit.clamp(1, limits::ROWS_MAX)),
            Place::Run(after) => self.reconcile_runs(shard, after, limit.clamp(1, limits::ROWS_MAX)),
        }
    }

    /// All of a shard, for those who need not give way to others.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn reconcile_shard(&self, shard: u8) -> Result<Books, Error> {
        let mut books = Books { next: Some(Place::Agent(0)), ..Books::default() };
        while let Some(from) = books.next {
            books.add(self.reconcile(shard, from, limits::JOURNAL_PAGE_ROWS)?);
        }
        Ok(books)
    }

    fn reconcile_agents(&self, shard: u8, after: u64, limit: usize) -> Result<Books, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, body FROM agents
             WHERE shard = ?1 AND standing IN (1, 2) AND id > ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![shard, column::amount(after), column::count(limit)])?;
        let mut books = Books::default();
        let mut last = after;
        while let Some(row) = rows.next()? {
            last = column::unsigned(row.get(0)?);
            let agent: AgentRow = decode("an agent's row", row.get_ref(1)?.as_blob()?)?;
            books.agents += 1;
            self.reconcile_agent(&agent, &mut books)?;
            self.reconcile_mail(&agent, &mut books)?;
        }
        let more = books.agents == limit as u64;
        books.next = Some(if more { Place::Agent(last) } else { Place::Run(RunKey::default()) });
        Ok(books)
    }

    fn reconcile_agent(&self, agent: &AgentRow, books: &mut Books) -> Result<(), Error> {
        let of = &agent.address;
        let its = |run: RunRow| (run.agent == *of).then_some(run.state);
        match agent.run {
            Some(key) if self.run(key)?.and_then(its) != Some(RunState::Active) => {
                books.note(of, format!("it works on {key}, which is not active or another's"));
            }
            None if agent.standing == Standing::Active => books.note(of, "it is active without a run"),
            _ => {}
        }
        for key in &agent.queue {
            if self.run(*key)?.and_then(its) != Some(RunState::Queued) {
                books.note(of, format!("{key} waits for it and is not queued or another's"));
            }
        }
        for effect in &agent.pending {
            let own = Some(effect.id.run) == agent.run;
            if !own && effect.reserved != Spend::default() {
                let id = effect.id;
                books.note(of, format!("{id} reserves {:?} for a run that is over", effect.reserved));
            }
            if let (true, Some(child), Stage::Waiting) = (own, effect.child, &effect.stage)
                && self.run(child)?.is_none_or(|run| run.state.over())
            {
                books.note(of, format!("{} waits for {child}, which is over or gone", effect.id));
            }
        }
        let waits = agent.pending.iter().any(|effect| Some(effect.id.run) == agent.run);
        let comes = !agent.topics.is_empty() || agent.due() != At::MAX;
        if agent.standing == Standing::Active && !waits && !comes && !agent.is_held_by_guard() {
            books.note(of, "it waits without a wake source");
        }
        Ok(())
    }

    /// Letters that came after the last turn of an agent's run are in its inbox: no turn has
    /// taken them, and nothing else does.
    fn reconcile_mail(&self, agent: &AgentRow, books: &mut Books) -> Result<(), Error> {
        let Some(run) = agent.run else { return Ok(()) };
        let sql = "SELECT MAX(seq) FROM journal WHERE run = ?1 AND shard = ?2 AND kind = 'turned'";
        let mut statement = self.conn.prepare_cached(sql)?;
        let turned = statement.query_row(params![run_key(run), agent.shard], |row| row.get(0));
        let Some(turned) = turned.optional()?.flatten() else { return Ok(()) };
        let turned: i64 = turned;
        let mut statement = self.conn.prepare_cached(
            "SELECT body FROM journal
             WHERE agent = ?1 AND run IS NULL AND shard = ?2 AND seq > ?3 AND kind = 'mailed'
             ORDER BY seq LIMIT ?4",
        )?;
        let (digest, limit) = (agent_digest(&agent.address), column::count(limits::ROWS_MAX));
        let mut rows = statement.query(params![digest, agent.shard, turned, limit])?;
        while let Some(row) = rows.next()? {
            let record: Record = decode("a record", row.get_ref(0)?.as_blob()?)?;
            let Event::Mailed { message, .. } = &record.event else { continue };
            let is_it = |item: &Item| matches!(item, Item::Mail(mail) if mail.id == message.id);
            // Digests of agents may be equal.
            if record.agent.as_ref() == Some(&agent.address) && !agent.inbox.iter().any(is_it) {
                books.note(&agent.address, format!("a message of {} was lost", message.at.0));
            }
        }
        Ok(())
    }

    fn reconcile_runs(&self, shard: u8, after: RunKey, limit: usize) -> Result<Books, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT body FROM runs WHERE ended IS NULL AND shard = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
        )?;
        let mut rows = statement.query(params![shard, run_key(after), column::count(limit)])?;
        let mut books = Books::default();
        let mut last = after;
        while let Some(row) = rows.next()? {
            let run: RunRow = decode("a run's row", row.get_ref(0)?.as_blob()?)?;
            last = run.key;
            books.runs += 1;
            self.reconcile_run(&run, &mut books)?;
        }
        books.next = (books.runs == limit as u64).then_some(Place::Run(last));
        Ok(books)
    }

    fn reconcile_run(&self, run: &RunRow, books: &mut Books) -> Result<(), Error> {
        let key = run.key;
        let agent = self.agent(&run.agent)?;
        let knows = agent.as_ref().is_some_and(|agent| match run.state {
            RunState::Active => agent.run == Some(key),
            RunState::Queued => agent.queue.contains(&key),
            _ => false,
        });
        if !knows {
            books.note(&key, format!("it is {} and {} does not know it", run.state.as_str(), run.agent));
        }
        let effects = agent.iter().flat_map(|agent| &agent.pending).filter(|effect| effect.id.run == key);
        let mut all = effects.fold(Spend::default(), |sum, effect| sum.plus(effect.reserved));
        for child in &run.children {
            match self.run(*child)?.filter(|child| !child.state.over()) {
                Some(child) => all = all.plus(child.reserved),
                None => books.note(&key, format!("its child {child} is over or gone")),
            }
        }
        if run.reserved != all {
            books.note(&key, format!("it reserves {:?} for effects of {all:?}", run.reserved));
        }
        let (taken, allowed) = (run.used.plus(run.reserved), run.allowance);
        let over = allowed.calls.is_some_and(|max| taken.calls > max)
            || allowed.steps.is_some_and(|max| taken.steps > max)
            || allowed.tokens.is_some_and(|max| taken.tokens > max)
            || allowed.money.is_some_and(|max| taken.money > max);
        if over {
            books.note(&key, format!("it used {:?} of {allowed:?}", run.used));
        }
        Ok(())
    }
}
