//! What may have been done without anybody knowing: a tool is asked that knows, or it is
//! undone, and only then are people. An errand that could not be run is run again later.

use std::sync::Arc;

use seawall_model::durable::{Pending, Stage};
use seawall_model::effect::{Answer, EffectId, Spend, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, At, Code, EffectClass, Millis};

use super::effect::{Effect, Notice};
use super::input::{Finding, Report};
use super::machine::{Agents, Errand, Flight, Slot};
use super::perform::cost_unseen;

impl Agents {
    /// Sent, and nobody knows whether it was done.
    pub(super) fn lost(
        &mut self,
        address: &Address,
        effect: EffectId,
        code: Code,
        why: Arc<str>,
        retry_after: Option<Millis>,
        used: Spend,
    ) {
        let Some(row) = self.pending(address, effect) else { return };
        match (row.class, &row.work) {
            (EffectClass::Read | EffectClass::Idempotent, _) => {
                self.postpone(address, effect, code, why, retry_after, (true, used));
            }
            // Under a stop it is asked about, or undone, when that is lifted.
            _ => match amends(row) {
                Some(errand) if !self.is_held(address, effect, errand) => {
                    let again = retry_after.map_or(At(0), |wait| self.now.plus(wait));
                    self.fly_on(address, effect, errand, again, None);
                }
                Some(_) => {}
                None => self.doubt(address, effect, why),
            },
        }
    }

    /// The tool was asked that knows whether an effect was done.
    pub(super) fn found(&mut self, address: &Address, effect: EffectId, report: Report, flight: Flight) {
        let Some(row) = self.pending(address, effect) else { return };
        let over = matches!(row.stage, Stage::Doubtful { .. });
        let undoes = matches!(row.work, Work::Tool { undo: Some(_), .. });
        let used = Spend { calls: row.reserved.calls, ..cost_unseen(row) };
        // To ask changes nothing: it is asked once more also where that may have been heard.
        let repeats = match &report {
            Report::NotDone { code, .. } => *code != Code::RunStopped,
            Report::Lost { .. } => flight.tries + 1 < self.rules.tries_max,
            _ => false,
        };
        if !over && repeats && self.put_off(address, effect, flight, &report) {
            return self.look(address);
        }
        match report {
            Report::Found(Finding::Done(answer)) => self.answer(address, effect, answer, used, None),
            // Its run ended meanwhile: nobody wants it done any more.
            Report::Found(Finding::NotDone) if over => {
                self.answer_failed(address, effect, Code::RunCancelled, "it was not done, and its run ended");
            }
            _ if over => {}
            Report::Found(Finding::NotDone) => {
                let why = Arc::from("it was not done, as its tool says");
                let wait = Some(self.wait(flight.again));
                self.postpone(address, effect, Code::ToolFailed, why, wait, (true, Spend::default()));
            }
            // It was never begun: under a stop it waits until that is lifted.
            Report::NotDone { code: Code::RunStopped, .. } => {
                if !self.is_held(address, effect, Errand::Ask) {
                    self.fly_on(address, effect, Errand::Ask, flight.again, Some(flight));
                }
            }
            _ if !undoes => self.doubt(address, effect, "the tool that was asked does not know".into()),
            _ if self.is_held(address, effect, Errand::Undo) => {}
            _ => self.fly_on(address, effect, Errand::Undo, flight.again, None),
        }
        self.look(address);
    }

    /// The tool that undoes an effect was called.
    pub(super) fn undone(&mut self, address: &Address, effect: EffectId, report: &Report, flight: Flight) {
        let doubtful = |row: &Pending| matches!(row.stage, Stage::Doubtful { .. });
        let over = self.pending(address, effect).is_some_and(doubtful);
        match report {
            // Its run ended meanwhile: nobody wants it done again.
            Report::Done { answer: Answer::Done(_), .. } if over => {
                self.answer_failed(address, effect, Code::RunCancelled, "undone, since its run ended");
            }
            _ if over => {}
            Report::Done { answer: Answer::Done(_), .. } => self.redo(address, effect, flight.again),
            Report::Done { .. } | Report::Found(_) => {
                self.doubt(address, effect, "undoing it failed".into());
            }
            // It was never begun: under a stop it waits until that is lifted.
            Report::NotDone { code: Code::RunStopped, .. } => {
                if !self.is_held(address, effect, Errand::Undo) {
                    self.fly_on(address, effect, Errand::Undo, flight.again, Some(flight));
                }
            }
            Report::NotDone { why, .. } => {
                if !self.put_off(address, effect, flight, report) {
                    self.doubt(address, effect, format!("undoing it failed: {why}").into());
                }
            }
            Report::Lost { why, .. } => {
                self.doubt(address, effect, format!("undoing it failed: {why}").into());
            }
        }
        self.look(address);
    }

    /// What was undone is done once more, as any try in vain: after a pause, so often, and
    /// not when its time is over.
    fn redo(&mut self, address: &Address, effect: EffectId, again: At) {
        let Some(row) = self.pending(address, effect) else { return };
        let used = cost_unseen(row);
        if row.until <= self.now {
            let calls = if used == Spend::default() { 0 } else { row.reserved.calls };
            let why = "its answer was lost, and it was undone when there was no time left".into();
            let answer = Answer::Failed { code: Code::DeadlinePassed, why };
            return self.answer(address, effect, answer, Spend { calls, ..used }, None);
        }
        let why = Arc::from("its answer was lost, and it was undone");
        let wait = Some(self.wait(again));
        self.postpone(address, effect, Code::ToolFailed, why, wait, (true, used));
    }

    /// How long it is until then, in milliseconds that are never too few.
    fn wait(&self, until: At) -> Millis {
        Millis(until.micros_since(self.now).div_ceil(1_000))
    }

    /// An errand that could not be run: it is run again after a pause, unless its time is
    /// over by then.
    fn put_off(&mut self, address: &Address, effect: EffectId, flight: Flight, report: &Report) -> bool {
        let asked = match report {
            Report::NotDone { retry_after, .. } | Report::Lost { retry_after, .. } => *retry_after,
            _ => None,
        };
        let tries = flight.tries.saturating_add(1);
        let at = self.now.plus(self.pause(tries).max(asked.unwrap_or(Millis::ZERO)));
        if at >= flight.until {
            return false;
        }
        if let Some(live) = self.live(address) {
            live.rests.insert(effect, (at, Flight { tries, ..flight }));
        }
        true
    }

    /// When an errand is run again that could not be run.
    pub(super) fn rests_until(&self, address: &Address, effect: EffectId) -> Option<At> {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return None };
        live.rests.get(&effect).map(|(at, _)| *at)
    }

    /// An errand's pause is over. Under a stop it is begun anew when that is lifted.
    pub(super) fn errand_due(&mut self, address: &Address, effect: EffectId) {
        let Some((_, flight)) = self.live(address).and_then(|live| live.rests.remove(&effect)) else {
            return;
        };
        if !self.is_held(address, effect, flight.errand) {
            self.fly_on(address, effect, flight.errand, flight.again, Some(flight));
        }
    }

    /// What was attempted, lost while it was stopped, and waits to be undone.
    pub(super) fn undo_rest(&mut self, address: &Address) {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return };
        let Some(agent) = self.agent(address) else { return };
        let attempted = agent.pending.iter().filter(|row| row.stage == Stage::Attempted);
        let busy = |effect: &EffectId| live.flights.contains_key(effect) || live.rests.contains_key(effect);
        let rest: Vec<EffectId> = attempted.map(|row| row.id).filter(|effect| !busy(effect)).collect();
        for effect in rest {
            let why = "it was stopped while it was under way".into();
            self.lost(address, effect, Code::RunStopped, why, None, Spend::default());
        }
    }

    /// May it have been done, and is to be undone when a stop is lifted? That it takes long
    /// is no reason to leave it to people.
    pub(super) fn waits_to_be_undone(&self, address: &Address, effect: EffectId) -> bool {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return false };
        let errand = self.pending(address, effect).and_then(amends);
        !live.flights.contains_key(&effect)
            && errand.is_some_and(|errand| self.is_held(address, effect, errand))
    }

    /// Nobody knows whether it was done, and people are to say.
    pub(super) fn doubt(&mut self, address: &Address, effect: EffectId, why: Arc<str>) {
        self.record(address, Event::Doubted { effect, why });
        let notice = Notice::Doubt { effect, address: address.clone() };
        self.once_durable(self.shard_of(&address.tenant), Effect::Notice(notice));
    }
}

/// What is done about an effect that may have been done, before anybody is asked.
fn amends(row: &Pending) -> Option<Errand> {
    match &row.work {
        Work::Tool { query: Some(_), .. } if row.class == EffectClass::Compensable => Some(Errand::Ask),
        Work::Tool { undo: Some(_), .. } if row.class == EffectClass::Compensable => Some(Errand::Undo),
        _ => None,
    }
}
