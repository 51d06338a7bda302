//! Figures of one world of agents.

use std::collections::BTreeMap;

use seawall_model::EffectClass;

use super::books::Books;
use super::tools::Tools;
use crate::trace::Trace;

/// What a summary prints and what tests hold against their bars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps of the machine.
    pub steps: u64,
    /// Turns granted.
    pub turns: u64,
    /// Effects handed to the shell.
    pub performed: u64,
    /// Records on disk.
    pub records: u64,
    /// Runs started from outside.
    pub started: u64,
    /// Wishes refused.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Effects that came to be in doubt.
    pub doubts: u64,
    /// Agents that the guard or poison detection stopped.
    pub stopped: u64,
    /// Bookings that used up something.
    pub tight: u64,
    /// Leases granted.
    pub granted: u64,
    /// Runs by how they ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// Records by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Executions and effects, by class.
    pub executed: BTreeMap<&'static str, (u64, u64)>,
    /// Tokens by tenant, in a flood.
    pub tokens: BTreeMap<String, u64>,
    /// The same as the first run ended: until then all had work.
    pub shares: Vec<u64>,
    /// Dead letters that people dealt with.
    pub unlettered: u64,
    /// What happened to the world, and how often.
    pub happened: BTreeMap<&'static str, u64>,
    /// Hash of the trace.
    pub hash: u64,
}

impl Tally {
    /// Something happened to the world.
    pub(super) fn happen(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// Takes the figures of a world that is over.
    pub(super) fn finish(&mut self, books: &Books, tools: &Tools, trace: &Trace) {
        for line in books.runs.values() {
            *self.ends.entry(line.over.unwrap_or("live")).or_default() += 1;
        }
        self.kinds.clone_from(&books.records);
        self.tight = books.purse.tight;
        self.granted = books.lent.granted;
        for class in EffectClass::ALL {
            self.executed.insert(class.as_str(), tools.count(class));
        }
        self.unlettered = books.unlettered;
        let moved = books.records.get("moved").copied().unwrap_or_default();
        self.happened.insert("ends told", books.bonds.told);
        self.happened.insert("felled", books.bonds.felled);
        for (what, count) in
            [("edited", books.edits.len() as u64), ("moved", moved), ("tight", books.purse.tight)]
        {
            self.happened.insert(what, count);
        }
        self.hash = trace.hash();
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.turns += other.turns;
        self.performed += other.performed;
        self.records += other.records;
        self.started += other.started;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.doubts += other.doubts;
        self.stopped += other.stopped;
        self.tight += other.tight;
        self.granted += other.granted;
        self.unlettered += other.unlettered;
        for (what, count) in &other.happened {
            *self.happened.entry(what).or_default() += count;
        }
        for (name, count) in &other.ends {
            *self.ends.entry(name).or_default() += count;
        }
        for (name, count) in &other.kinds {
            *self.kinds.entry(name).or_default() += count;
        }
        for (name, (done, all)) in &other.executed {
            let sum = self.executed.entry(name).or_default();
            *sum = (sum.0 + done, sum.1 + all);
        }
    }
}
