//! Performing: models and tools that answer, refuse, fail before or after they did it,
//! hang, or answer when nobody waits any longer.

use std::sync::Arc;

use seawall_kernel::agents::effect::Perform;
use seawall_kernel::agents::input::{Finding, Input, Report};
use seawall_model::effect::{Answer, EffectId, Spend, Work};
use seawall_model::journal::Commit;
use seawall_model::{Address, Code, MicroUsd, Millis, Payload, RunKey, Tokens, limits};

use super::cast;
use super::world::{Flying, Happening, World};

/// How a call goes: is it executed, and what is reported when?
struct Fate {
    execute: bool,
    report: Report,
    after_us: u64,
    /// What it is to be paid, whatever is reported.
    price: Spend,
}

impl World {
    /// The shell performs an effect.
    pub(super) fn fly(&mut self, perform: Perform) {
        self.check_perform(&perform);
        self.books.send(perform.effect);
        let pool: Option<Arc<str>> = match &perform.work {
            Work::Model { .. } => Some("model".into()),
            Work::Tool { tool, .. } if !perform.undo && !perform.query => Some(cast::server(tool)),
            _ => None,
        };
        let fate = self.fate(&perform);
        let flight = Flying {
            effect: perform.effect,
            address: perform.address,
            class: perform.class,
            undo: perform.undo,
            query: perform.query,
            pool: pool.clone(),
            to_execute: fate.execute,
            aborted: false,
            price: fate.price,
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
                let price = Spend::default();
                Fate { execute: false, report: Report::Done { answer, used: price }, after_us, price }
            }
            Work::Model { .. } => self.model_fate(perform.effect),
            Work::Tool { .. } if perform.query => self.query_fate(perform.effect),
            _ => self.tool_fate(perform),
        }
    }

    fn model_fate(&mut self, effect: EffectId) -> Fate {
        let latency = 50_000 + self.rng.below(3_000_000);
        let why = || Arc::from("so it goes");
        let code = Code::EngineDown;
        let most = self.books.lines.get(&effect).map_or(Spend::default(), |line| line.cost);
        let part = 30 + self.rng.below(71);
        let used = Spend {
            tokens: Tokens(most.tokens.0 * part / 100),
            money: MicroUsd(most.money.0 * part / 100),
            ..Spend::default()
        };
        if self.refuses() {
            self.tally.happen("refused by models");
            let retry_after = Some(Millis(500 + self.rng.below(10_000)));
            let price = Spend::default();
            let report = Report::NotDone { code, why: why(), retry_after, counts: false, used: price };
            return Fate { execute: false, report, after_us: 2_000, price };
        }
        if !self.calm && self.rng.below(100) < self.plan.faults.hangs {
            self.tally.happen("hung");
            let report = Report::Lost { code, why: why(), retry_after: None, used: most };
            return Fate { execute: false, report, after_us: 300_000_000, price: used };
        }
        if !self.calm && self.rng.below(100) < self.plan.faults.models {
            let retry_after = Some(Millis(500 + self.rng.below(4_000)));
            let free = Spend::default();
            // Who cuts an answer off is paid for what there was of it. The shell knows how
            // much, or takes it to be the most.
            let how = self.rng.below(4);
            self.tally.happen(["refused by models", "refused by models", "lost", "hung"][how as usize]);
            let (report, after_us, price) = match how {
                0 => (
                    Report::NotDone { code, why: why(), retry_after, counts: false, used: free },
                    5_000,
                    free,
                ),
                1 => {
                    let report = Report::NotDone { code, why: why(), retry_after: None, counts: true, used };
                    (report, latency, used)
                }
                2 => (Report::Lost { code, why: why(), retry_after: None, used: most }, latency, used),
                _ => (Report::Lost { code, why: why(), retry_after: None, used: most }, 60_000_000, used),
            };
            return Fate { execute: false, report, after_us, price };
        }
        let answer = Answer::Done(Payload::text(&format!("words {}", self.rng.next_u64())));
        Fate { execute: true, report: Report::Done { answer, used }, after_us: latency, price: used }
    }

    /// A tool that is asked whether another did what it was asked.
    fn query_fate(&mut self, effect: EffectId) -> Fate {
        let (price, after_us) = (Spend::default(), 5_000 + self.rng.below(500_000));
        let why = || Arc::from("so it goes");
        let report = match self.rng.below(if self.calm { 8 } else { 10 }) {
            0..6 if self.tools.truth(effect).stands > 0 => {
                self.tally.happen("found done");
                Report::Found(Finding::Done(Answer::Done(Payload::text(&format!("found {effect}")))))
            }
            0..6 => {
                self.tally.happen("found not done");
                Report::Found(Finding::NotDone)
            }
            6 | 7 => {
                self.tally.happen("found unknown");
                Report::Found(Finding::Unknown)
            }
            8 => {
                let code = Code::ToolFailed;
                Report::NotDone { code, why: why(), retry_after: None, counts: true, used: price }
            }
            _ => Report::Lost { code: Code::ToolFailed, why: why(), retry_after: None, used: price },
        };
        Fate { execute: false, report, after_us, price }
    }

    fn tool_fate(&mut self, perform: &Perform) -> Fate {
        let latency = 5_000 + self.rng.below(1_000_000);
        let why = || Arc::from("so it goes");
        let price = Spend::default();
        let retry_after = self.rng.chance(0.2).then(|| Millis(500 + self.rng.below(4_000)));
        let lost =
            || Report::Lost { code: Code::ToolFailed, why: why(), retry_after, used: Spend::default() };
        if !self.calm && self.rng.below(100) < self.plan.faults.tools {
            let counts = self.rng.chance(0.7);
            self.tally.happen("failed tools");
            let (execute, report, after_us) = match self.rng.below(6) {
                0 => {
                    let (code, why) = (Code::ToolFailed, why());
                    let used = Spend::default();
                    (false, Report::NotDone { code, why, retry_after: None, counts, used }, latency)
                }
                1 => (false, lost(), latency),
                2 => (true, lost(), latency),
                3 => (false, lost(), 60_000_000),
                4 => (true, lost(), 60_000_000),
                _ => (true, done(Answer::Error(Payload::text("it says no")), perform.undo), latency),
            };
            return Fate { execute, report, after_us, price };
        }
        if !self.calm && self.rng.below(100) < self.plan.faults.bombs {
            return self.bomb(perform, latency);
        }
        let answer = Answer::Done(Payload::text(&format!("done {}", perform.effect)));
        Fate { execute: true, report: done(answer, perform.undo), after_us: latency, price }
    }

    /// A tool that answers at such length that only the blob store takes it, with as much
    /// rubbish as fits into a record, or not as long as anybody would wait.
    fn bomb(&mut self, perform: &Perform, latency: u64) -> Fate {
        let price = Spend::default();
        let body = match self.rng.below(3) {
            0 => {
                self.tally.happen("huge");
                Payload::Blob { digest: [self.rng.below(256) as u8; 32], len: 1 << (20 + self.rng.below(30)) }
            }
            1 => {
                self.tally.happen("rubbish");
                let byte = self.rng.below(256) as u8;
                Payload::Here(Arc::from(vec![byte; limits::PAYLOAD_BYTES_INLINE as usize]))
            }
            _ => {
                self.tally.happen("never");
                let (code, why) = (Code::ToolFailed, Arc::from("nobody waits for ever"));
                let report = Report::Lost { code, why, retry_after: None, used: price };
                return Fate { execute: self.rng.chance(0.5), report, after_us: 600_000_000, price };
            }
        };
        Fate { execute: true, report: done(Answer::Done(body), perform.undo), after_us: latency, price }
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
        self.books.tell(flight.effect, &report, flight.undo, flight.query);
        self.note_refusal(flight.effect, &report);
        if let (Report::Done { used, .. }, true) = (&report, self.plan.flood) {
            // Those who made themselves many are still one.
            let root = flight.address.tenant.prefixes().next().unwrap_or_default();
            let root = if root.starts_with('x') { "t0" } else { root };
            *self.tally.tokens.entry(root.to_owned()).or_default() += used.tokens.0;
        }
        self.step(Input::Report { effect: flight.effect, address: flight.address, report });
        self.bill(flight.effect.run, flight.price);
    }

    /// Somebody wants to be paid for what a run had done. It counts once the disk has all
    /// that the machine has recorded by now: what a crash undoes is nobody's to book.
    fn bill(&mut self, run: RunKey, price: Spend) {
        let Some(agents) = self.agents.as_ref().filter(|_| price != Spend::default()) else { return };
        let seq = agents.shards()[usize::from(run.shard())].row.seq;
        self.books.bills.push((run, seq, price));
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
            // It had worked on it for a while.
            let part = self.rng.below(101);
            let price = Spend {
                tokens: Tokens(flight.price.tokens.0 * part / 100),
                money: MicroUsd(flight.price.money.0 * part / 100),
                ..Spend::default()
            };
            self.bill(flight.effect.run, price);
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
