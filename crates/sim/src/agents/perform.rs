//! Performing: models and tools that answer, refuse, fail before or after they did it,
//! hang, or answer when nobody waits any longer.

use std::sync::Arc;

use seawall_kernel::agents::effect::Perform;
use seawall_kernel::agents::input::{Input, Report};
use seawall_model::effect::{Answer, EffectId, Spend, Work};
use seawall_model::journal::Commit;
use seawall_model::{Address, Code, MicroUsd, Millis, Payload, Tokens};

use super::cast;
use super::world::{Flying, Happening, World};

/// How a call goes: is it executed, and what is reported when?
struct Fate {
    execute: bool,
    report: Report,
    after_us: u64,
}

impl World {
    /// The shell performs an effect.
    pub(super) fn fly(&mut self, perform: Perform) {
        self.check_perform(&perform);
        self.books.send(perform.effect);
        let pool: Option<Arc<str>> = match &perform.work {
            Work::Model { .. } => Some("model".into()),
            Work::Tool { tool, .. } if !perform.undo => Some(cast::server(tool)),
            _ => None,
        };
        let fate = self.fate(&perform);
        let flight = Flying {
            effect: perform.effect,
            address: perform.address,
            class: perform.class,
            undo: perform.undo,
            pool: pool.clone(),
            to_execute: fate.execute,
            aborted: false,
        };
        let id = u64::from(u32::MAX) + self.tally.performed;
        self.tally.performed += 1;
        self.flights.insert(id, flight);
        if let Some(pool) = pool
            && !self.plan.meddling
        {
            let taken =
                self.flights.values().filter(|flight| flight.pool.as_ref() == Some(&pool) && !flight.aborted);
            let (taken, most) = (taken.count(), self.places(&self.plan, &pool));
            assert!(taken <= most, "I5: {taken} calls of {pool} at once, of {most}");
        }
        if fate.execute {
            let arrives = self.rng.below(fate.after_us.max(1));
            self.later_us(arrives, Happening::Execute(id));
        }
        self.later_us(fate.after_us, Happening::Report(id, fate.report));
    }

    fn fate(&mut self, perform: &Perform) -> Fate {
        match &perform.work {
            Work::Get { key } => {
                let answer = Answer::Done(self.disk.read(&perform.address.tenant, key));
                let after_us = 200 + self.rng.below(3_000);
                Fate { execute: false, report: Report::Done { answer, used: Spend::default() }, after_us }
            }
            Work::Model { .. } => self.model_fate(perform.effect),
            _ => self.tool_fate(perform),
        }
    }

    fn model_fate(&mut self, effect: EffectId) -> Fate {
        let latency = 50_000 + self.rng.below(3_000_000);
        let why = || Arc::from("so it goes");
        if !self.calm && self.rng.below(100) < self.plan.faults.models {
            let retry_after = Some(Millis(500 + self.rng.below(4_000)));
            let (report, after_us) = match self.rng.below(4) {
                0 => (
                    Report::NotDone { code: Code::EngineDown, why: why(), retry_after, counts: false },
                    5_000,
                ),
                1 => (
                    Report::NotDone { code: Code::EngineDown, why: why(), retry_after: None, counts: true },
                    latency,
                ),
                2 => (Report::Lost { code: Code::EngineDown, why: why() }, latency),
                _ => (Report::Lost { code: Code::EngineDown, why: why() }, 60_000_000),
            };
            return Fate { execute: false, report, after_us };
        }
        let most = self.books.lines.get(&effect).map_or(Spend::default(), |line| line.cost);
        let part = 30 + self.rng.below(71);
        let used = Spend {
            tokens: Tokens(most.tokens.0 * part / 100),
            money: MicroUsd(most.money.0 * part / 100),
            ..Spend::default()
        };
        let answer = Answer::Done(Payload::text(&format!("words {}", self.rng.next_u64())));
        Fate { execute: true, report: Report::Done { answer, used }, after_us: latency }
    }

    fn tool_fate(&mut self, perform: &Perform) -> Fate {
        let latency = 5_000 + self.rng.below(1_000_000);
        let why = || Arc::from("so it goes");
        let lost = || Report::Lost { code: Code::ToolFailed, why: why() };
        if !self.calm && self.rng.below(100) < self.plan.faults.tools {
            let counts = self.rng.chance(0.7);
            let (execute, report, after_us) = match self.rng.below(6) {
                0 => (
                    false,
                    Report::NotDone { code: Code::ToolFailed, why: why(), retry_after: None, counts },
                    latency,
                ),
                1 => (false, lost(), latency),
                2 => (true, lost(), latency),
                3 => (false, lost(), 60_000_000),
                4 => (true, lost(), 60_000_000),
                _ => (true, done(Answer::Error(Payload::text("it says no")), perform.undo), latency),
            };
            return Fate { execute, report, after_us };
        }
        let answer = Answer::Done(Payload::text(&format!("done {}", perform.effect)));
        Fate { execute: true, report: done(answer, perform.undo), after_us: latency }
    }

    /// A request arrives where it was sent to.
    pub(super) fn execute(&mut self, flight: u64) {
        let Some(flying) = self.flights.get_mut(&flight) else { return };
        if std::mem::take(&mut flying.to_execute) {
            let (effect, class, undo) = (flying.effect, flying.class, flying.undo);
            self.tools.execute(effect, class, undo);
        }
    }

    /// The shell hears what came of a call.
    pub(super) fn reported(&mut self, flight: u64, report: Report) {
        // It arrived before its answer did.
        self.execute(flight);
        let Some(flight) = self.flights.remove(&flight) else { return };
        self.books.tell(flight.effect, &report, flight.undo);
        if let (Report::Done { used, .. }, true) = (&report, self.plan.flood) {
            // Those who made themselves many are still one.
            let root = flight.address.tenant.prefixes().next().unwrap_or_default();
            let root = if root.starts_with('x') { "t0" } else { root };
            *self.tally.tokens.entry(root.to_owned()).or_default() += used.tokens.0;
        }
        self.step(Input::Report { effect: flight.effect, address: flight.address, report });
    }

    /// The shell drops a call: its answer may be on its way already.
    pub(super) fn abort(&mut self, effect: EffectId) {
        let mut dropped = Vec::new();
        let mut found: Vec<u64> = Vec::new();
        for (id, flight) in &mut self.flights {
            if flight.effect == effect && !flight.aborted {
                flight.aborted = true;
                found.push(*id);
            }
        }
        for id in found {
            if self.rng.below(100) >= self.plan.faults.crossing {
                dropped.extend(self.flights.remove(&id));
            }
        }
        for flight in dropped {
            self.drop_flight(&flight);
        }
    }

    /// A handler is through with its turn.
    pub(super) fn took(&mut self, address: Address, token: u64, commit: Result<Box<Commit>, Arc<str>>) {
        if self.turns.get(&address).is_some_and(|turning| turning.token == token) {
            self.turns.remove(&address);
        }
        match commit {
            Ok(commit) => self.step(Input::Commit { address, token, commit }),
            Err(why) => self.step(Input::Stumble { address, token, why }),
        }
    }
}

/// Tools cost a little; undoing is free.
fn done(answer: Answer, undo: bool) -> Report {
    let money = MicroUsd(if undo { 0 } else { 15 });
    Report::Done { answer, used: Spend { money, ..Spend::default() } }
}
