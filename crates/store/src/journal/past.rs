//! Questions to the records: what happened to a run, an agent or a shard, and what a
//! run's working state was after an earlier turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Row, params};
use seawall_model::durable::RunState;
use seawall_model::effect::Answer;
use seawall_model::journal::{Change, Entry, Event, Next, Turn};
use seawall_model::{Address, EffectId, Payload, RunKey, limits};

use super::codec::{Digest, decode};
use super::rows::{agent_digest, run_key};
use super::{Reader, State};
use crate::{Error, column};

/// Whose history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// A run's own, without those below it. What began it stands in its parent's turn, if
    /// it has a parent.
    Run(RunKey),
    /// An agent's: of its runs that are kept, and what is of none of them.
    Agent(Address),
    /// Everything of a shard.
    Shard(u8),
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record and its place.
    pub entry: Entry,
    /// Its hash, which covers all before it in the shard.
    pub hash: [u8; 32],
}

impl Reader {
    /// Records from the sequence `from` on, in order; at most [`limits::ROWS_MAX`] of
    /// them. What was cut away is not there.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn history(&self, of: &Of, from: u64, limit: usize) -> Result<Vec<Kept>, Error> {
        let from = column::amount(from);
        let limit = column::count(limit.min(limits::ROWS_MAX));
        const COLUMNS: &str = "SELECT shard, epoch, seq, body, hash FROM journal";
        match of {
            Of::Run(key) => {
                let sql = format!("{COLUMNS} WHERE run = ?1 AND seq >= ?2 ORDER BY shard, seq LIMIT ?3");
                self.kept(&sql, params![run_key(*key), from, limit])
            }
            Of::Shard(shard) => {
                let sql = format!("{COLUMNS} WHERE shard = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3");
                self.kept(&sql, params![shard, from, limit])
            }
            Of::Agent(address) => {
                let sql = format!(
                    "{COLUMNS} WHERE run IN (SELECT key FROM runs WHERE agent = ?1) AND seq >= ?2
                     UNION ALL {COLUMNS} WHERE run IS NULL AND agent = ?1 AND seq >= ?2
                     ORDER BY shard, seq LIMIT ?3"
                );
                let mut kept = self.kept(&sql, params![agent_digest(address), from, limit])?;
                // Digests are shorter than addresses.
                kept.retain(|kept| kept.entry.record.agent.as_ref() == Some(address));
                Ok(kept)
            }
        }
    }

    fn kept(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Kept>, Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut kept = Vec::new();
        while let Some(row) = rows.next()? {
            kept.push(read(row)?);
        }
        Ok(kept)
    }

    /// A run's working state after its `turn`-th turn; 0 is before the first. `None` where
    /// the records that it takes are not kept any more, or never were.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn state_at(&self, run: RunKey, turn: u32) -> Result<Option<State>, Error> {
        let mut fold = Fold::default();
        let mut from = 0;
        loop {
            let page = self.history(&Of::Run(run), from, limits::JOURNAL_PAGE_ROWS)?;
            let last = page.len() < limits::JOURNAL_PAGE_ROWS;
            for kept in page {
                from = kept.entry.seq + 1;
                if !self.fold(&mut fold, &kept.entry.record.event, turn)? {
                    return Ok(fold.taken(turn));
                }
            }
            if last {
                return Ok(fold.taken(turn));
            }
        }
    }

    /// Folds one record in; `false` when the state is as it was after `turn`.
    fn fold(&self, fold: &mut Fold, event: &Event, turn: u32) -> Result<bool, Error> {
        match event {
            Event::Started { state, .. } => {
                fold.whole = true;
                self.change(fold, state)?;
            }
            Event::Answered { effect, answer: Answer::Done(body) | Answer::Error(body), .. } => {
                fold.answers.insert(*effect, body.clone());
            }
            Event::Turned(taken) => {
                if taken.number > turn {
                    // The first turn of a run, so there was nothing before it.
                    fold.whole |= taken.number == 1;
                    return Ok(false);
                }
                self.turn(fold, taken)?;
            }
            // The turn's own state is that before what came after it.
            Event::Restarted { .. } if fold.turns == turn => return Ok(false),
            Event::Restarted { .. } => fold.restart(),
            _ => {}
        }
        Ok(true)
    }

    fn turn(&self, fold: &mut Fold, turn: &Turn) -> Result<(), Error> {
        fold.whole |= turn.number == 1;
        fold.turns = turn.number;
        self.change(fold, &turn.changes)?;
        for planned in &turn.effects {
            fold.effects += 1;
            if let Some(child) = &planned.child {
                fold.children.insert(EffectId { run: turn.run, number: fold.effects }, child.key);
            }
        }
        if matches!(turn.next, Next::Again { .. }) {
            fold.restart();
        }
        Ok(())
    }

    fn change(&self, fold: &mut Fold, changes: &[Change]) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::Set { key, value } => drop(fold.state.insert(key.clone(), value.clone())),
                Change::Drop { key } => drop(fold.state.remove(key)),
                Change::Keep { key, effect } => {
                    let value = match (fold.answers.get(effect), fold.children.get(effect)) {
                        (Some(answer), _) => answer.clone(),
                        // A child's end is its own record; its row says the same.
                        (None, Some(child)) => self.output(*child)?,
                        // It failed: there is nothing to keep.
                        (None, None) => Payload::empty(),
                    };
                    fold.state.insert(key.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn output(&self, run: RunKey) -> Result<Payload, Error> {
        Ok(match self.run(run)?.map(|run| run.state) {
            Some(RunState::Done { output }) => output,
            _ => Payload::empty(),
        })
    }
}

/// A run's state while its records are folded.
#[derive(Default)]
struct Fold {
    state: BTreeMap<Arc<str>, Payload>,
    /// What effects were answered: bounded by the run's records.
    answers: BTreeMap<EffectId, Payload>,
    children: BTreeMap<EffectId, RunKey>,
    effects: u32,
    turns: u32,
    /// Nothing before what was folded is missing.
    whole: bool,
}

impl Fold {
    fn restart(&mut self) {
        self.state.clear();
        self.whole = true;
    }

    fn taken(self, turn: u32) -> Option<State> {
        (self.whole && self.turns == turn).then(|| self.state.into_iter().collect())
    }
}

/// A record from the columns shard, epoch, seq, body, hash.
pub(super) fn read(row: &Row<'_>) -> Result<Kept, Error> {
    let record = decode("a record", row.get_ref(3)?.as_blob()?)?;
    let hash: Digest = super::chain::stored(row.get_ref(4)?.as_blob()?, "a record")?;
    let (epoch, seq) = (column::unsigned(row.get(1)?), column::unsigned(row.get(2)?));
    Ok(Kept { entry: Entry { shard: row.get(0)?, epoch, seq, record }, hash })
}
