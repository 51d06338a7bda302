//! Does what a world is named for really happen there? A law that meets nothing holds, so
//! every plan says what must be seen in it, and a plan in which it was not is asleep.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::tally::Tally;

/// Worlds of a plan from which on it must have happened.
const ENOUGH: u64 = 4;

/// Each plan, and what must be seen in it.
pub const SEEN: &[(&str, &[&str])] = &[
    ("agents-calm", &["turns", "done"]),
    ("agents-faults", &["hung", "lost", "failed tools", "refused by models", "deferred"]),
    ("agents-crash", &["crashes", "in doubt"]),
    ("agents-people", &["halts", "released", "cancelled", "delegated"]),
    ("agents-disk", &["slow writes", "slow reads"]),
    ("agents-storm", &["crashes", "torn", "cut", "forked", "drained"]),
    ("agents-torn", &["torn", "torn, whole on disk"]),
    ("agents-full", &["refused, disk full"]),
    ("agents-slow", &["slow writes", "slow reads"]),
    ("agents-clock", &["set forward", "set back", "crashes"]),
    ("agents-hang", &["hung"]),
    ("agents-refusals", &["refused by models"]),
    ("agents-bomb", &["huge", "rubbish", "never"]),
    ("agents-mail", &["storms", "refused, mailbox full"]),
    ("agents-reload", &["reloaded", "moved", "stayed"]),
    ("agents-cut", &["cut", "tight"]),
    ("agents-drain", &["drained", "refused, draining"]),
    ("agents-kill", &["crashes"]),
    ("agents-fork", &["forked"]),
    ("agents-edit", &["edited"]),
    ("agents-ties", &["ends told", "felled", "crashes"]),
    ("agents-query", &["found done", "found not done"]),
];

/// How often each thing happened in the worlds of each plan.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    plans: BTreeMap<String, (u64, BTreeMap<&'static str, u64>)>,
}

impl Coverage {
    /// A world of this plan is over.
    pub fn add(&mut self, plan: &str, tally: &Tally) {
        let (worlds, seen) = self.plans.entry(plan.to_owned()).or_default();
        *worlds += 1;
        let of = |counts: &BTreeMap<&'static str, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
        let figures = [
            ("turns", tally.turns),
            ("crashes", tally.crashes),
            ("in doubt", tally.doubts),
            ("done", of(&tally.ends, "done")),
            ("cancelled", of(&tally.ends, "cancelled")),
            ("halts", of(&tally.kinds, "halted")),
            ("released", of(&tally.kinds, "released")),
            ("delegated", of(&tally.kinds, "delegated")),
            ("dead letters", of(&tally.kinds, "lettered")),
        ];
        for (what, count) in figures.into_iter().chain(tally.happened.iter().map(|(what, n)| (*what, *n))) {
            *seen.entry(what).or_default() += count;
        }
    }

    /// What was to happen in a plan and did not, in as many worlds as should have been enough.
    #[must_use]
    pub fn asleep(&self) -> Vec<(&'static str, &'static str)> {
        let never = |plan: &str, what: &str| {
            self.plans.get(plan).is_some_and(|(worlds, seen)| {
                *worlds >= ENOUGH && seen.get(what).copied().unwrap_or_default() == 0
            })
        };
        let all = SEEN.iter().flat_map(|(plan, whats)| whats.iter().map(move |what| (*plan, *what)));
        all.filter(|(plan, what)| never(plan, what)).collect()
    }

    /// A line for each plan: its worlds, and how often what it is named for happened.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (plan, whats) in SEEN {
            let Some((worlds, seen)) = self.plans.get(*plan) else { continue };
            let counts: Vec<String> = whats
                .iter()
                .map(|what| format!("{what} {}", seen.get(what).copied().unwrap_or_default()))
                .collect();
            writeln!(text, "{plan:<17}{worlds:>4} worlds: {}", counts.join(", "))
                .expect("writing to a string cannot fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::NAMES;

    #[test]
    fn every_plan_says_what_must_be_seen_in_it() {
        let told: Vec<&str> = SEEN.iter().map(|(plan, _)| *plan).collect();
        assert_eq!(told, NAMES[1..]);
        assert!(SEEN.iter().all(|(_, whats)| !whats.is_empty()));
    }

    #[test]
    fn a_plan_in_which_nothing_happens_is_asleep() {
        let mut coverage = Coverage::default();
        for _ in 0..ENOUGH {
            assert!(coverage.asleep().is_empty(), "too few worlds to tell");
            coverage.add("agents-fork", &Tally::default());
        }
        assert_eq!(coverage.asleep(), [("agents-fork", "forked")]);
        coverage.add("agents-fork", &Tally { happened: [("forked", 1)].into(), ..Tally::default() });
        assert!(coverage.asleep().is_empty());
        assert!(coverage.text().contains("5 worlds: forked 1"), "{}", coverage.text());
    }
}
