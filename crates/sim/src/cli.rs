//! The command line of `seawall-sim`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use seawall_model::Millis;

use crate::agents;
use crate::invent::{NAMES, invent};
use crate::run::{Broken, run, run_twice};
use crate::tally::Tally;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How many seeds.
    pub seeds: u64,
    /// The first of them.
    pub seed: Option<u64>,
    /// How long clients send in each world, in place of the length it would have.
    pub length: Option<Millis>,
    /// The kind of world.
    pub plan: String,
    /// Where to write the trace of the one seed.
    pub trace: Option<String>,
    /// Run each world twice and compare.
    pub twice: bool,
    /// Say how to use it instead.
    pub help: bool,
}

/// How to use it.
pub const USAGE: &str = "\
Usage: seawall-sim [--seeds N] [--seed S] [--hours H] [--plan NAME] [--trace FILE] [--twice]

  --seeds N     run N seeds (default 200, or 1 with --seed)
  --seed S      begin with this seed
  --hours H     clients send for H virtual hours in each world, such as 0.5
  --plan NAME   the kind of world (default any):
                any calm fair flood overload faults budgets crash reload provider storm trees;
                agents, which is each of these in its turn, as many as of any:
                agents-calm agents-faults agents-crash agents-people agents-disk
                agents-storm agents-torn agents-full agents-slow agents-clock agents-hang
                agents-refusals agents-bomb agents-mail agents-reload agents-cut
                agents-drain agents-kill agents-fork agents-edit agents-ties agents-query
  --trace FILE  write every input and effect of the one seed to FILE
  --twice       run each world twice; the same seed must give the same bytes
";

/// Worlds that once failed, and what was wrong: replayed first, always.
const KEPT: &str = include_str!("../seeds.txt");

/// Seeds run when nobody says how many: what a push runs.
const SEEDS: u64 = 200;

impl Wish {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut wish = Self {
            seeds: 0,
            seed: None,
            length: None,
            plan: "any".into(),
            trace: None,
            twice: false,
            help: false,
        };
        let mut seeds = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seeds" => seeds = Some(number(&argument, &value()?)?),
                "--seed" => wish.seed = Some(number(&argument, &value()?)?),
                "--hours" => wish.length = Some(hours(&value()?)?),
                "--plan" => wish.plan = value()?,
                "--trace" => wish.trace = Some(value()?),
                "--twice" => wish.twice = true,
                "--help" | "-h" => wish.help = true,
                _ => return Err(format!("there is no argument {argument}")),
            }
        }
        if !NAMES.contains(&wish.plan.as_str()) && !agents::NAMES.contains(&wish.plan.as_str()) {
            let (calls, agents) = (NAMES.join(", "), agents::NAMES.join(", "));
            return Err(format!("there is no plan {}; there are {calls}, {agents}", wish.plan));
        }
        if wish.trace.is_some() && wish.seed.is_none() {
            return Err("--trace needs --seed: it writes one world".into());
        }
        wish.seeds = seeds.unwrap_or(if wish.seed.is_some() { 1 } else { SEEDS });
        Ok(wish)
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{name} needs a whole number, not {text}"))
}

fn hours(text: &str) -> Result<Millis, String> {
    let hours: f64 = text.parse().map_err(|_| format!("--hours needs a number, not {text}"))?;
    if !(0.0001..=10_000.0).contains(&hours) {
        return Err(format!("--hours must lie between 0.0001 and 10000, not {text}"));
    }
    Ok(Millis((hours * 3.6e6) as u64))
}

/// Kept worlds: plan and seed.
///
/// # Panics
/// When the list is malformed.
#[must_use]
pub fn kept() -> Vec<(&'static str, u64)> {
    let lines =
        KEPT.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (plan, seed) = line.split_once(' ').expect("seeds.txt has lines `PLAN SEED # why`");
            (plan, seed.trim().parse().expect("a seed is a whole number"))
        })
        .collect()
}

/// Results of many worlds.
#[derive(Debug, Default)]
pub struct Summary {
    worlds: u64,
    failed: u64,
    steps: u64,
    virtual_us: u64,
    calls: u64,
    lost: u64,
    compared: u64,
    gap_most: u64,
    tripped: u64,
    outcomes: BTreeMap<&'static str, u64>,
    agents: agents::tally::Tally,
    agent_worlds: u64,
    coverage: agents::coverage::Coverage,
}

impl Summary {
    fn add(&mut self, tally: &Tally) {
        self.steps += tally.steps;
        self.virtual_us += tally.took_us;
        self.calls += tally.submitted();
        self.lost += tally.lost;
        self.compared += tally.compared;
        self.gap_most = self.gap_most.max(tally.gap_most);
        self.tripped += tally.tripped;
        for (name, count) in tally.outcomes() {
            *self.outcomes.entry(name).or_default() += count;
        }
    }

    /// Did every world hold, and everything happen that was to?
    #[must_use]
    pub fn held(&self) -> bool {
        self.failed == 0 && self.coverage.asleep().is_empty()
    }

    /// The summary for people; `seconds` is the time it took.
    #[must_use]
    pub fn text(&self, seconds: f64) -> String {
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments<'_>| {
            writeln!(text, "{what}").expect("writing to a string cannot fail");
        };
        line(format_args!(
            "worlds    {} ({} failed), {:.2} virtual hours",
            self.worlds,
            self.failed,
            self.virtual_us as f64 / 3.6e9
        ));
        line(format_args!("calls     {} ({} lost in crashes)", self.calls, self.lost));
        for (name, count) in self.outcomes.iter().filter(|(_, count)| **count > 0) {
            line(format_args!("          {count:>9} {name}"));
        }
        line(format_args!(
            "fairness  {} comparisons, largest gap {} % of its bound",
            self.compared, self.gap_most
        ));
        line(format_args!("budgets   {} accounts used up, none overspent", self.tripped));
        if self.agent_worlds > 0 {
            let agents = &self.agents;
            line(format_args!(
                "agents    {} worlds, {} steps, {} turns, {} effects performed, {} records, {} crashes",
                self.agent_worlds,
                agents.steps,
                agents.turns,
                agents.performed,
                agents.records,
                agents.crashes
            ));
            line(format_args!(
                "runs      {:?}; {} in doubt, {} stopped",
                agents.ends, agents.doubts, agents.stopped
            ));
            line(format_args!("executed  {:?} (times, effects)", agents.executed));
            line(format_args!("{}", self.coverage.text().trim_end()));
            for (plan, what) in self.coverage.asleep() {
                line(format_args!(
                    "ASLEEP    {plan}: \"{what}\" never happened, so no law about it was tried"
                ));
            }
        }
        let rate = self.steps as f64 / seconds.max(1e-9);
        line(format_args!("steps     {} in {seconds:.1} s, {rate:.0} per second", self.steps));
        text
    }
}

/// Runs what was wished for, handing each line to `say`. Before all else one world is
/// run twice (I2), and the kept worlds are replayed.
pub fn play(wish: &Wish, say: &mut impl FnMut(&str)) -> Summary {
    let mut summary = Summary::default();
    let mut worlds: Vec<(&str, u64, bool)> = Vec::new();
    let first = wish.seed.unwrap_or(1);
    if wish.seed.is_none() {
        worlds.push((&wish.plan, first, true));
        worlds.extend(kept().into_iter().map(|(plan, seed)| (plan, seed, false)));
    }
    worlds.extend((0..wish.seeds).map(|nth| (wish.plan.as_str(), first.wrapping_add(nth), wish.twice)));
    if wish.plan == "any" && wish.seed.is_none() {
        worlds.push(("agents", first, true));
        worlds.extend((0..wish.seeds).map(|nth| ("agents", first.wrapping_add(nth), wish.twice)));
    }
    for (plan, seed, twice) in worlds {
        summary.worlds += 1;
        if let Some(world) = agents::invent(plan, seed, wish.length) {
            summary.agent_worlds += 1;
            match if twice { agents::run_twice(&world) } else { agents::run(&world) } {
                Ok(tally) => {
                    summary.agents.add(&tally);
                    summary.coverage.add(&world.name, &tally);
                }
                Err(broken) => {
                    summary.failed += 1;
                    say(&line_of(plan, &broken, wish, summary.failed <= 1));
                }
            }
            continue;
        }
        let Some(scenario) = invent(plan, seed, wish.length) else {
            continue;
        };
        let result = if twice { run_twice(&scenario) } else { run(&scenario) };
        match result {
            Ok(tally) => summary.add(&tally),
            Err(broken) => {
                summary.failed += 1;
                say(&line_of(plan, &broken, wish, summary.failed <= 1));
            }
        }
    }
    summary
}

/// One line per failing seed with how to repeat it; the first with what went before.
fn line_of(plan: &str, broken: &Broken, wish: &Wish, tail: bool) -> String {
    let hours = wish.length.map_or(String::new(), |length| format!(" --hours {}", length.0 as f64 / 3.6e6));
    let mut line = format!(
        "FAILED {} at {} us: {}\n  repeat: cargo x sim --plan {plan} --seed {}{hours}\n",
        broken.name, broken.at.0, broken.says, broken.seed
    );
    if tail {
        for event in &broken.tail {
            line.push_str("    ");
            line.push_str(event);
            line.push('\n');
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wish, String> {
        Wish::read(text.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        assert_eq!(read("").expect("valid").seeds, SEEDS);
        let wish = read("--seed 7 --plan storm --hours 0.5 --twice").expect("valid");
        assert_eq!((wish.seeds, wish.seed, wish.twice), (1, Some(7), true));
        assert_eq!(wish.length, Some(Millis(1_800_000)));
        for wrong in
            ["--seeds", "--seeds x", "--plan nothing", "--hours -1", "--hours NaN", "--trace f", "--what"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kept_seeds_name_plans_that_exist() {
        for (plan, _) in kept() {
            assert!(NAMES.contains(&plan) || agents::NAMES.contains(&plan), "{plan}");
        }
    }
}
