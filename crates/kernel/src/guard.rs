//! The guard against loops: a run that is answered the same request again and again gets
//! no further by one more answer.
//!
//! What counts is calls that were answered, one after the other: a client's retries of
//! failed calls are none, and calls sent at once (several samples of one prompt) count
//! as one, because none of them was sent in the knowledge of another's answer. A tree of
//! runs that goes round in longer circles is what [`crate::round`] notices, and one that
//! grows without end is told by its depth and its live runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_model::{At, RunId, Tenant, limits};

use crate::input::Submit;
use crate::kin::Kin;
use crate::plan::GuardRule;
use crate::round::Rounds;
use crate::slab::Slab;

/// Slots looked at for one that may go.
const SWEEP: usize = 64;

/// What a run was answered last.
#[derive(Clone, Debug)]
struct Row {
    run: RunId,
    tenant: Tenant,
    /// The request.
    work: u64,
    /// How often in a row.
    repeats: u32,
    /// When last; what was sent before then does not count as another.
    answered: At,
    used: bool,
}

/// The runs seen lately, at most [`limits::GUARD_RUNS_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    index: BTreeMap<RunId, u32>,
    rows: Slab<Row>,
    rounds: Rounds,
}

/// What the guard has to say of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Nothing.
    Clear,
    /// So often it has gone round: it is told, and served.
    Warn(u32),
    /// It is refused, for this reason.
    Stop(Arc<str>),
}

impl Guard {
    /// Looks at a call before it is admitted.
    pub(crate) fn look(&self, submit: &Submit, kin: &Kin, rule: &GuardRule) -> Sign {
        let Some(run) = submit.run.filter(|_| rule.repeats > 0) else { return Sign::Clear };
        let stop =
            |times: u32, what: String| if rule.refuse { Sign::Stop(what.into()) } else { Sign::Warn(times) };
        let repeats = self.repeats(submit, rule);
        if repeats > 0 {
            return stop(repeats, format!("{repeats} identical calls in a row"));
        }
        if kin.is_deeper(run, rule.depth) {
            return stop(rule.depth, format!("more than {} generations of runs", rule.depth));
        }
        let others = kin.others(run);
        if others >= rule.live as usize {
            return stop(others as u32, format!("{others} runs of one tree at work at once"));
        }
        match self.rounds.goes_on(submit, kin.root(run), rule) {
            Some(round) if rule.refuse && round.times >= round.most => Sign::Stop(round.what),
            Some(round) => Sign::Warn(round.times),
            None => Sign::Clear,
        }
    }

    /// How many identical calls of its run were answered in a row before this one, where
    /// that is as many as the rule allows or more; else 0.
    fn repeats(&self, submit: &Submit, rule: &GuardRule) -> u32 {
        let row = submit.run.and_then(|run| self.index.get(&run)).map(|at| &self.rows[*at]);
        let same = row.filter(|row| Some(row.work) == submit.work && row.tenant == submit.tenant);
        let repeats = same.map_or(0, |row| row.repeats);
        if rule.repeats > 0 && repeats >= rule.repeats { repeats } else { 0 }
    }

    /// A call that was submitted then has been answered.
    pub(crate) fn answered(&mut self, submit: &Submit, kin: &Kin, submitted: At, now: At) {
        let (Some(run), Some(_)) = (submit.run, submit.work) else { return };
        self.rounds.answered(submit, kin.root(run), submitted, now);
        self.count(submit, submitted, now);
    }

    fn count(&mut self, submit: &Submit, submitted: At, now: At) {
        let (Some(run), Some(work)) = (submit.run, submit.work) else { return };
        let Some(at) = self.index.get(&run).copied().or_else(|| self.open(run, submit)) else { return };
        let row = &mut self.rows[at];
        if row.tenant != submit.tenant {
            return;
        }
        row.used = true;
        if row.work != work {
            (row.work, row.repeats, row.answered) = (work, 1, now);
        } else if row.repeats == 0 || submitted >= row.answered {
            row.repeats = row.repeats.saturating_add(1);
            row.answered = now;
        }
    }

    fn open(&mut self, run: RunId, submit: &Submit) -> Option<u32> {
        if self.rows.len() >= limits::GUARD_RUNS_MAX {
            let old = self.rows.sweep(SWEEP, |_| true, |row| &mut row.used)?;
            let old = self.rows.remove(old)?;
            self.index.remove(&old.run);
        }
        let (tenant, work) = (submit.tenant.clone(), submit.work?);
        let at = self.rows.insert(Row { run, tenant, work, repeats: 0, answered: At(0), used: true });
        self.index.insert(run, at);
        Some(at)
    }

    pub(crate) fn check(&self) {
        self.rounds.check();
        assert!(self.rows.len() <= limits::GUARD_RUNS_MAX, "guarded runs are bounded");
        assert_eq!(self.rows.len(), self.index.len(), "each guarded run is found by its id");
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::{Bytes, CallId, Class, ModelId, Tokens};

    use super::*;
    use crate::plan::RunBudget;

    fn submit(run: u64, work: u64) -> Submit {
        Submit {
            call: CallId(1),
            tenant: Tenant::local(),
            model: ModelId(1),
            targets: Vec::new(),
            class: Class::Agent,
            run: Some(RunId(run)),
            parent: None,
            agent: None,
            work: Some(work),
            prompt: Tokens(1),
            prompt_max: Tokens(1),
            output_max: None,
            generates: true,
            bytes: Bytes(1),
            deadline: None,
            prefix: Box::default(),
        }
    }

    const RULE: GuardRule = GuardRule {
        repeats: 3,
        rounds: 3,
        depth: 16,
        live: 1_500,
        refuse: true,
        tree: RunBudget { tokens: None, calls: None, money: None },
    };

    #[test]
    fn a_row_is_broken_by_anything_else_and_belongs_to_one_tenant() {
        let mut guard = Guard::default();
        for at in 1..=3 {
            assert_eq!(guard.repeats(&submit(1, 7), &RULE), 0);
            guard.count(&submit(1, 7), At(at * 10), At(at * 10 + 5));
        }
        assert_eq!(guard.repeats(&submit(1, 7), &RULE), 3);
        assert_eq!(guard.repeats(&submit(2, 7), &RULE), 0, "another run");
        assert_eq!(guard.repeats(&submit(1, 8), &RULE), 0, "another request");
        assert_eq!(guard.repeats(&submit(1, 7), &GuardRule { repeats: 0, ..RULE }), 0, "the rule is off");
        let stranger = Submit { tenant: Tenant::parse("other").expect("valid"), ..submit(1, 7) };
        assert_eq!(guard.repeats(&stranger, &RULE), 0);
        guard.count(&stranger, At(90), At(95));
        assert_eq!(guard.repeats(&submit(1, 7), &RULE), 3, "a stranger neither adds nor breaks");
        guard.count(&submit(1, 8), At(100), At(105));
        assert_eq!(guard.repeats(&submit(1, 7), &RULE), 0, "the row is broken");
    }

    #[test]
    fn samples_taken_at_once_count_as_one() {
        let mut guard = Guard::default();
        for answered in 20..40 {
            guard.count(&submit(1, 7), At(10), At(answered));
        }
        assert_eq!(guard.repeats(&submit(1, 7), &GuardRule { repeats: 2, ..RULE }), 0);
    }

    #[test]
    fn the_guard_remembers_so_many_runs() {
        let mut guard = Guard::default();
        for run in 0..limits::GUARD_RUNS_MAX as u64 + 500 {
            guard.count(&submit(run, 7), At(run), At(run));
        }
        guard.check();
    }
}
