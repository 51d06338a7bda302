//! Rounds: requests of one tree of runs that come back in the same order, as when two
//! agents answer each other for ever.
//!
//! The law: look at the answered requests of a tree one after the other. If for a period of
//! two to four each is the same as the one so many places before it, the tree goes round.
//! Rounds that several runs or agents take part in are a loop after
//! [`GuardRule::rounds`]; those of one alone are a row of longer breath, and get as many
//! as its row may have. Anything new, and anything at the same time, begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_model::{Agent, At, RunId, Tenant, limits};

use crate::input::Submit;
use crate::plan::GuardRule;
use crate::slab::Slab;

/// Slots looked at for one that may go.
const SWEEP: usize = 64;
/// The longest round that is noticed: more agents than four in one circle are told by the
/// depth of their tree.
const PERIOD_MAX: usize = 4;

/// What was answered, and to whom.
#[derive(Clone, Debug)]
struct Said {
    work: u64,
    run: RunId,
    agent: Option<Agent>,
}

/// What a tree was answered of late.
#[derive(Clone, Debug)]
struct Talk {
    root: RunId,
    tenant: Tenant,
    /// Newest first.
    last: [Option<Said>; PERIOD_MAX],
    /// For each distance: how many answers in a row were to the request that stood so far
    /// before.
    same: [u32; PERIOD_MAX],
    /// When last; what was sent before then was not sent in its knowledge.
    answered: At,
    used: bool,
}

/// A tree that goes round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Whole rounds so far.
    pub(crate) times: u32,
    /// So many make a loop.
    pub(crate) most: u32,
    /// In words.
    pub(crate) what: Arc<str>,
}

/// The trees seen lately, at most [`limits::GUARD_TREES_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    index: BTreeMap<RunId, u32>,
    talks: Slab<Talk>,
}

impl Rounds {
    /// Would this call go on with a round of its tree, one short of a loop or more?
    pub(crate) fn goes_on(&self, submit: &Submit, root: RunId, rule: &GuardRule) -> Option<Round> {
        let work = submit.work?;
        let talk = &self.talks[*self.index.get(&root)?];
        if talk.tenant != submit.tenant {
            return None;
        }
        (2..=PERIOD_MAX).find_map(|period| talk.round(period, work, rule))
    }

    /// A call that was submitted then has been answered.
    pub(crate) fn answered(&mut self, submit: &Submit, root: RunId, submitted: At, now: At) {
        let (Some(run), Some(work)) = (submit.run, submit.work) else { return };
        let at = self.index.get(&root).copied().or_else(|| self.open(root, &submit.tenant));
        let Some(talk) = at.map(|at| &mut self.talks[at]) else { return };
        if talk.tenant == submit.tenant {
            talk.used = true;
            talk.hear(Said { work, run, agent: submit.agent.clone() }, submitted, now);
        }
    }

    fn open(&mut self, root: RunId, tenant: &Tenant) -> Option<u32> {
        if self.talks.len() >= limits::GUARD_TREES_MAX {
            let old = self.talks.sweep(SWEEP, |_| true, |talk| &mut talk.used)?;
            let old = self.talks.remove(old)?;
            self.index.remove(&old.root);
        }
        let talk = Talk {
            root,
            tenant: tenant.clone(),
            last: [const { None }; PERIOD_MAX],
            same: [0; PERIOD_MAX],
            answered: At(0),
            used: true,
        };
        let at = self.talks.insert(talk);
        self.index.insert(root, at);
        Some(at)
    }

    pub(crate) fn check(&self) {
        assert!(self.talks.len() <= limits::GUARD_TREES_MAX, "guarded trees are bounded");
        assert_eq!(self.talks.len(), self.index.len(), "each guarded tree is found by its root");
    }
}

impl Talk {
    fn hear(&mut self, said: Said, submitted: At, now: At) {
        let is = |last: &Option<Said>| last.as_ref().is_some_and(|last| last.work == said.work);
        if submitted < self.answered {
            if is(&self.last[0]) {
                // A sample of the same, taken at once.
                return;
            }
            self.last = [const { None }; PERIOD_MAX];
            self.same = [0; PERIOD_MAX];
        }
        for (same, last) in self.same.iter_mut().zip(&self.last) {
            *same = if is(last) { same.saturating_add(1) } else { 0 };
        }
        self.last.rotate_right(1);
        self.last[0] = Some(said);
        self.answered = now;
    }

    fn round(&self, period: usize, work: u64, rule: &GuardRule) -> Option<Round> {
        if self.last[period - 1].as_ref()?.work != work {
            return None;
        }
        let round: Vec<&Said> = self.last[..period].iter().flatten().rev().collect();
        let first = *round.first()?;
        if round.iter().all(|said| said.work == first.work) {
            // All the same: that is a row, not a round.
            return None;
        }
        let times = (self.same[period - 1] + period as u32) / period as u32;
        let alone = round.iter().all(|said| said.run == first.run && said.agent == first.agent);
        let most = if alone { rule.repeats } else { rule.rounds };
        if times < 2 || times + 1 < most {
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        for said in round {
            let name = match &said.agent {
                Some(agent) => agent.as_str().to_owned(),
                None => format!("the run {:016x}", said.run.0),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let between = if names.len() > 1 { "between" } else { "by" };
        let what = format!("{times} rounds of the same {period} requests {between} {}", names.join(" and "));
        Some(Round { times, most, what: what.into() })
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::{Bytes, CallId, Class, ModelId, Tokens};

    use super::*;
    use crate::plan::RunBudget;

    const RULE: GuardRule = GuardRule {
        repeats: 8,
        rounds: 3,
        depth: 16,
        live: 1_500,
        refuse: true,
        tree: RunBudget { tokens: None, calls: None, money: None },
    };
    const ROOT: RunId = RunId(1);

    fn submit(run: u64, agent: &str, work: u64) -> Submit {
        Submit {
            call: CallId(1),
            tenant: Tenant::local(),
            model: ModelId(1),
            targets: Vec::new(),
            class: Class::Agent,
            run: Some(RunId(run)),
            parent: None,
            agent: Some(Agent::parse(agent).expect("valid")),
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

    /// Answers calls one after the other, until one would make a loop: the place of that.
    fn stops(calls: impl Iterator<Item = (u64, &'static str, u64)>) -> Option<(usize, String)> {
        let mut rounds = Rounds::default();
        for (at, (run, agent, work)) in calls.enumerate() {
            let call = submit(run, agent, work);
            let now = At(10 * at as u64 + 10);
            if let Some(round) = rounds.goes_on(&call, ROOT, &RULE).filter(|round| round.times >= round.most)
            {
                return Some((at, round.what.to_string()));
            }
            rounds.answered(&call, ROOT, now, At(now.0 + 5));
        }
        None
    }

    #[test]
    fn two_agents_that_answer_each_other_get_three_rounds() {
        let pair = [(2, "planner", 7), (3, "critic", 8)];
        let (at, what) = stops(pair.into_iter().cycle().take(100)).expect("a loop");
        assert_eq!(at, 6);
        assert_eq!(what, "3 rounds of the same 2 requests between planner and critic");
        let four = [(2, "a", 1), (3, "b", 2), (4, "c", 3), (3, "b", 4)];
        let (at, what) = stops(four.into_iter().cycle().take(100)).expect("a loop");
        assert_eq!((at, what.as_str()), (12, "3 rounds of the same 4 requests between a and b and c"));
        // It is noticed from wherever it begins.
        let late = (10..20).map(|work| (2, "planner", work)).chain(pair.into_iter().cycle().take(50));
        assert_eq!(stops(late).map(|found| found.0), Some(16));
    }

    #[test]
    fn one_alone_gets_as_many_rounds_as_its_row_may_have() {
        let alone = [(2, "poller", 7), (2, "poller", 8), (2, "poller", 9)];
        let (at, what) = stops(alone.into_iter().cycle().take(100)).expect("a loop");
        assert_eq!((at, what.as_str()), (24, "8 rounds of the same 3 requests by poller"));
    }

    #[test]
    fn what_changes_or_stands_apart_is_no_round() {
        // A poller whose answer differs each time, beside one that asks the same.
        let polling = (0..200).map(|at| if at % 2 == 0 { (2, "a", 7) } else { (3, "b", 1_000 + at) });
        assert_eq!(stops(polling), None);
        // The same question, now and then.
        let again = (0..200).map(|at| if at % 5 == 0 { (2, "a", 7) } else { (3, "b", 1_000 + at) });
        assert_eq!(stops(again), None);
        // A round of five.
        let wide = [(2, "a", 1), (3, "b", 2), (4, "c", 3), (5, "d", 4), (6, "e", 5)];
        assert_eq!(stops(wide.into_iter().cycle().take(200)), None);
        // Children that all ask the same are a row of each, which is counted elsewhere.
        let samples = (0..200).map(|at| (2 + at % 2, "a", 7));
        assert_eq!(stops(samples), None);
    }

    #[test]
    fn what_is_sent_at_once_makes_no_round() {
        let mut rounds = Rounds::default();
        let calls = [submit(2, "a", 7), submit(3, "b", 8)];
        for at in 0..20 {
            // Both are sent before either is answered.
            let sent = At(100 * at + 10);
            rounds.answered(&calls[0], ROOT, sent, At(sent.0 + 5));
            rounds.answered(&calls[1], ROOT, sent, At(sent.0 + 6));
        }
        assert_eq!(rounds.goes_on(&calls[0], ROOT, &RULE), None);
        // Samples of one request, each time two, do not hide a round.
        let mut rounds = Rounds::default();
        for at in 0..6 {
            let (call, sent) = (&calls[at % 2], At(100 * at as u64 + 10));
            rounds.answered(call, ROOT, sent, At(sent.0 + 5));
            rounds.answered(call, ROOT, sent, At(sent.0 + 6));
        }
        assert!(rounds.goes_on(&calls[0], ROOT, &RULE).is_some_and(|round| round.times == 3));
        let stranger = Submit { tenant: Tenant::parse("other").expect("valid"), ..calls[0].clone() };
        assert_eq!(rounds.goes_on(&stranger, ROOT, &RULE), None);
    }

    #[test]
    fn the_guard_remembers_so_many_trees() {
        let mut rounds = Rounds::default();
        for root in 0..limits::GUARD_TREES_MAX as u64 + 500 {
            rounds.answered(&submit(2, "a", 7), RunId(root), At(root), At(root));
        }
        rounds.check();
    }
}
