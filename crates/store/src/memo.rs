//! Answers that runs asked to have kept, so that a script that is started again after a
//! crash replays what it already paid for.
//!
//! The law (`docs/adr/0010-zero-sdk-door.md`): an answer belongs to a run and to one
//! exact request. Each start of the script (an *attempt*) is given every answer at most
//! once, oldest first, so the n-th time that it sends the same request it gets the n-th
//! answer. Which attempt used an answer last stands beside it, so the law holds across a
//! restart of Seawall as well. Without an attempt the oldest answer is given each time.

use rusqlite::{OptionalExtension, Transaction, params};
use seawall_model::{At, Bytes, Millis, Tenant, limits};

use crate::{Error, Store, Sync, column};

/// A SHA-256.
pub type Digest = [u8; 32];

/// Which answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Digest of tenant and run name.
    pub run: Digest,
    /// Digest of the request.
    pub work: Digest,
    /// Digest of the name of this start of the script, if it has one.
    pub attempt: Option<Digest>,
}

/// An answer as it went to the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its content type.
    pub kind: String,
    /// Its bytes; of a stream, all of its events.
    pub answer: Vec<u8>,
}

// Content never reaches a log line, not even by way of `{:?}`.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("kind", &self.kind).field("bytes", &self.answer.len()).finish()
    }
}

/// An answer to keep.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it answers.
    pub asked: Asked,
    /// Whose run.
    pub tenant: Tenant,
    /// The run's name.
    pub name: String,
    /// The answer.
    pub kept: Kept,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoRule {
    /// Largest answer.
    pub answer_bytes_max: Bytes,
    /// Answers of one run.
    pub run_answers_max: u64,
    /// Their bytes; at least those of one answer.
    pub run_bytes_max: Bytes,
    /// Runs.
    pub runs_max: u64,
    /// Bytes of all runs together; at least those of one.
    pub bytes_max: Bytes,
    /// What is kept of a run that was not used for so long is deleted.
    pub idle_ms_max: Millis,
}

impl Default for MemoRule {
    fn default() -> Self {
        Self {
            answer_bytes_max: Bytes(limits::MEMO_ANSWER_BYTES_MAX),
            run_answers_max: limits::MEMO_RUN_ANSWERS_MAX,
            run_bytes_max: Bytes(limits::MEMO_RUN_BYTES_MAX),
            runs_max: limits::MEMO_RUNS_MAX,
            bytes_max: Bytes(limits::MEMO_BYTES_MAX),
            idle_ms_max: Millis(limits::MEMO_IDLE_MS_MAX),
        }
    }
}

impl Store {
    /// The next answer for this request that the attempt has not had yet, which from then
    /// on it has had.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn replay(&mut self, asked: &Asked, now: At) -> Result<Option<Kept>, Error> {
        self.write(Sync::Normal, |transaction| {
            let Some((id, kept)) = next(transaction, asked)? else { return Ok(None) };
            if let Some(attempt) = &asked.attempt {
                let mut mark =
                    transaction.prepare_cached("UPDATE memo_answers SET attempt = ?1 WHERE id = ?2")?;
                mark.execute(params![attempt, id])?;
            }
            let mut used = transaction.prepare_cached("UPDATE memo_runs SET used = ?1 WHERE run = ?2")?;
            used.execute(params![column::time(now), asked.run])?;
            Ok(Some(kept))
        })
    }

    /// Keeps an answer; `false` if it or its run is too large for that. Where all runs
    /// together are, those unused for longest are forgotten.
    ///
    /// # Errors
    /// If the disk fails or is full; then nothing has changed.
    pub fn keep(&mut self, answer: &Answer, rule: &MemoRule, now: At) -> Result<bool, Error> {
        let bytes = answer.kept.answer.len() as u64;
        if bytes > rule.answer_bytes_max.0 {
            return Ok(false);
        }
        self.write(Sync::Normal, |transaction| {
            let run = &answer.asked.run;
            let mut size =
                transaction.prepare_cached("SELECT answers, bytes FROM memo_runs WHERE run = ?1")?;
            let size = size.query_row([run], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let (answers, held): (i64, i64) = size.unwrap_or_default();
            let over = column::unsigned(answers) >= rule.run_answers_max
                || column::unsigned(held) + bytes > rule.run_bytes_max.0;
            if over {
                return Ok(false);
            }
            make_room(transaction, run, bytes, rule)?;
            let mut grow = transaction.prepare_cached(
                "INSERT INTO memo_runs (run, tenant, name, answers, bytes, used) VALUES (?1, ?2, ?3, 1, ?4, ?5)
                 ON CONFLICT (run) DO UPDATE SET answers = answers + 1, bytes = bytes + ?4, used = ?5",
            )?;
            let size = column::amount(bytes);
            grow.execute(params![run, answer.tenant.as_str(), answer.name, size, column::time(now)])?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO memo_answers (run, work, attempt, kind, answer) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let (asked, kept) = (&answer.asked, &answer.kept);
            insert.execute(params![run, asked.work, asked.attempt, kept.kind, kept.answer])?;
            Ok(true)
        })
    }

    /// Deletes what is kept of a run, overwriting it on the disk; answers with how many
    /// answers it was.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn forget_run(&mut self, tenant: &Tenant, name: &str) -> Result<u64, Error> {
        self.conn.pragma_update(None, "secure_delete", true)?;
        let forgotten = self.write(Sync::Full, |transaction| {
            let mut delete = transaction
                .prepare_cached("DELETE FROM memo_runs WHERE tenant = ?1 AND name = ?2 RETURNING answers")?;
            let answers = delete.query_row(params![tenant.as_str(), name], |row| row.get(0)).optional()?;
            Ok(column::unsigned(answers.unwrap_or(0)))
        });
        self.conn.pragma_update(None, "secure_delete", false)?;
        forgotten
    }

    /// Deletes what is kept of one run that was last used before `before`; `false` if
    /// there is none. Call again, between other work, while it is `true`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn prune_memo(&mut self, before: At) -> Result<bool, Error> {
        self.write(Sync::Normal, |transaction| {
            let mut delete = transaction.prepare_cached(
                "DELETE FROM memo_runs WHERE run =
                     (SELECT run FROM memo_runs WHERE used < ?1 ORDER BY used, run LIMIT 1)",
            )?;
            Ok(delete.execute([column::time(before)])? > 0)
        })
    }
}

/// The oldest answer for a request that its attempt has not had.
fn next(transaction: &Transaction<'_>, asked: &Asked) -> Result<Option<(i64, Kept)>, Error> {
    // `?3 IS NULL`: without an attempt nothing counts as had.
    let mut oldest = transaction.prepare_cached(
        "SELECT id, kind, answer FROM memo_answers
         WHERE run = ?1 AND work = ?2 AND (?3 IS NULL OR attempt IS NOT ?3) ORDER BY id LIMIT 1",
    )?;
    let found = oldest.query_row(params![asked.run, asked.work, asked.attempt], |row| {
        Ok((row.get(0)?, Kept { kind: row.get(1)?, answer: row.get(2)? }))
    });
    Ok(found.optional()?)
}

/// Forgets runs unused for longest until so many more bytes fit, but never `but`.
fn make_room(transaction: &Transaction<'_>, but: &Digest, bytes: u64, rule: &MemoRule) -> Result<(), Error> {
    let mut sums = transaction
        .prepare_cached("SELECT count(*), ifnull(sum(bytes), 0) FROM memo_runs WHERE run <> ?1")?;
    let (mut runs, mut held): (i64, i64) = sums.query_row([but], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut own = transaction.prepare_cached("SELECT ifnull(sum(bytes), 0) FROM memo_runs WHERE run = ?1")?;
    let own: i64 = own.query_row([but], |row| row.get(0))?;
    let most = column::amount(rule.bytes_max.0.saturating_sub(column::unsigned(own) + bytes));
    while runs > 0 && (held > most || runs >= column::amount(rule.runs_max)) {
        let mut oldest = transaction.prepare_cached(
            "DELETE FROM memo_runs WHERE run =
                 (SELECT run FROM memo_runs WHERE run <> ?1 ORDER BY used, run LIMIT 1) RETURNING bytes",
        )?;
        let freed: i64 = oldest.query_row([but], |row| row.get(0))?;
        (runs, held) = (runs - 1, held - freed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(run: u8, work: u8, attempt: Option<u8>) -> Asked {
        Asked { run: [run; 32], work: [work; 32], attempt: attempt.map(|attempt| [attempt; 32]) }
    }

    fn answer(asked: Asked, text: &str) -> Answer {
        let kept = Kept { kind: "application/json".into(), answer: text.into() };
        Answer { asked, tenant: Tenant::local(), name: format!("run-{}", asked.run[0]), kept }
    }

    fn replayed(store: &mut Store, asked: Asked) -> Option<String> {
        let kept = store.replay(&asked, At(9)).expect("memory does not fail")?;
        Some(String::from_utf8(kept.answer).expect("text"))
    }

    #[test]
    fn each_start_of_a_script_gets_every_answer_once_and_in_order() {
        let mut store = Store::in_memory().expect("memory");
        let first = asked(1, 1, Some(1));
        for text in ["a", "b"] {
            assert_eq!(replayed(&mut store, first), None, "its own answers are not given back to it");
            assert!(store.keep(&answer(first, text), &MemoRule::default(), At(1)).expect("kept"));
        }
        let second = asked(1, 1, Some(2));
        assert_eq!(replayed(&mut store, second).as_deref(), Some("a"));
        assert_eq!(replayed(&mut store, second).as_deref(), Some("b"));
        assert_eq!(replayed(&mut store, second), None, "the third time is new");
        assert_eq!(replayed(&mut store, asked(1, 2, Some(2))), None, "another request");
        assert_eq!(replayed(&mut store, asked(2, 1, Some(2))), None, "another run");
        assert!(store.keep(&answer(second, "c"), &MemoRule::default(), At(2)).expect("kept"));
        let third = asked(1, 1, Some(3));
        let all: Vec<_> = std::iter::from_fn(|| replayed(&mut store, third)).collect();
        assert_eq!(all, ["a", "b", "c"]);
    }

    #[test]
    fn without_an_attempt_the_same_request_gets_the_same_answer() {
        let mut store = Store::in_memory().expect("memory");
        let plain = asked(1, 1, None);
        assert!(store.keep(&answer(plain, "a"), &MemoRule::default(), At(1)).expect("kept"));
        assert!(store.keep(&answer(plain, "b"), &MemoRule::default(), At(1)).expect("kept"));
        for _ in 0..3 {
            assert_eq!(replayed(&mut store, plain).as_deref(), Some("a"));
        }
    }

    #[test]
    fn what_is_forgotten_or_old_is_gone_and_the_rest_stays() {
        let mut store = Store::in_memory().expect("memory");
        for run in 1..=3 {
            assert!(
                store
                    .keep(&answer(asked(run, 1, None), "x"), &MemoRule::default(), At(u64::from(run)))
                    .expect("kept")
            );
        }
        assert_eq!(store.forget_run(&Tenant::local(), "run-2").expect("works"), 1);
        assert_eq!(store.forget_run(&Tenant::local(), "run-2").expect("works"), 0);
        assert!(store.prune_memo(At(3)).expect("works"), "run 1 is old");
        assert!(!store.prune_memo(At(3)).expect("works"));
        let left: i64 =
            store.conn.query_row("SELECT count(*) FROM memo_answers", [], |row| row.get(0)).expect("counts");
        assert_eq!(left, 1, "answers go with their run");
        assert_eq!(replayed(&mut store, asked(3, 1, None)).as_deref(), Some("x"));
    }

    #[test]
    fn a_run_keeps_so_much_and_no_more() {
        let mut store = Store::in_memory().expect("memory");
        let rule = MemoRule {
            answer_bytes_max: Bytes(100),
            run_answers_max: 5,
            run_bytes_max: Bytes(300),
            runs_max: 3,
            bytes_max: Bytes(600),
            ..MemoRule::default()
        };
        let mut keep = |run, len: usize| {
            let kept = answer(asked(run, 1, None), &"x".repeat(len));
            store.keep(&kept, &rule, At(u64::from(run))).expect("works")
        };
        assert!(!keep(1, 101), "too large an answer");
        assert!((0..3).all(|_| keep(1, 100)));
        assert!(!keep(1, 1), "too much of one run");
        assert!((0..5).all(|_| keep(2, 1)));
        assert!(!keep(2, 1), "too many of one run");
        // More runs than may be, and more bytes: those unused for longest go.
        assert!(keep(3, 1) && keep(4, 1));
        assert!((0..2).all(|_| keep(5, 100)));
        let left = |run| replayed(&mut store, asked(run, 1, None)).is_some();
        assert_eq!([1, 2, 3, 4, 5].map(left), [false, false, true, true, true]);
    }
}
