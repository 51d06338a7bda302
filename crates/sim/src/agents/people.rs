//! People: they answer, vote, say what became of what is in doubt, stop things, put them
//! right, and change the rules.

use std::sync::Arc;

use seawall_kernel::agents::input::{Input, Matter};
use seawall_model::durable::{AgentRow, Message, Pending, Rung, Scope, Stage, Standing};
use seawall_model::effect::{Answer, EffectClass, Person, Work};
use seawall_model::{Address, Agent, At, Millis, Payload, RunKey, Tenant};

use super::cast;
use super::door::Asked;
use super::lie::Lie;
use super::world::{Happening, World};

const VOTERS: [&str; 3] = ["ann", "bob", "cy"];

impl World {
    /// Somebody looks in.
    pub(super) fn people(&mut self) {
        let pause = Millis(if self.calm { 5_000 } else { 1_000 + self.rng.below(4_000) });
        self.later(pause, Happening::People);
        if self.agents.is_none() {
            return;
        }
        let rows: Vec<AgentRow> = self
            .books
            .fold
            .iter()
            .flat_map(|shard| shard.agents.values())
            .map(|row| (**row).clone())
            .collect();
        for row in &rows {
            if self.calm || self.rng.chance(0.5) {
                self.look_after(row);
            }
        }
        if self.calm || self.plan.meddling {
            self.lift_halts();
        }
        if (self.calm || self.plan.meddling) && self.rng.chance(0.3) {
            self.redrive();
        }
        if self.plan.meddling && !self.calm {
            self.meddle();
        }
    }

    fn look_after(&mut self, row: &AgentRow) {
        for pending in &row.pending {
            self.answer(row, pending);
        }
        let stopped = row.standing == Standing::Quarantined || row.progress.rung == Rung::Paused;
        if !stopped || !(self.calm || self.plan.meddling) {
            return;
        }
        let times = self.released.entry(row.address.clone()).or_default();
        *times += 1;
        // Whoever is stopped time and again is sent home.
        if *times > 2 {
            for run in row.run.iter().chain(&row.queue) {
                self.cancel_run(*run, &row.address);
            }
        }
        let ticket = self.ticket(Asked::Other);
        self.step(Input::Release { ticket, address: row.address.clone(), by: "ann".into() });
    }

    fn answer(&mut self, row: &AgentRow, pending: &Pending) {
        let (effect, address) = (pending.id, row.address.clone());
        match (&pending.stage, &pending.work) {
            (Stage::Approving { yes, .. }, _) => {
                let who = self.voter();
                if !self.calm && self.rng.chance(0.1) {
                    let to = self.voter().name;
                    let ticket = self.ticket(Asked::Other);
                    return self.step(Input::Delegate { ticket, effect, address, who, to });
                }
                let yes = yes.contains(&who.name) || self.calm || self.rng.chance(0.85);
                let edits = yes && !self.calm && self.rng.below(100) < self.plan.faults.edits;
                let tool = matches!(pending.work, Work::Tool { .. });
                let args = (edits && tool).then(|| {
                    Payload::text(&format!("{{\"n\":{},\"by\":\"{}\"}}", self.rng.next_u64(), who.name))
                });
                let asked = args.clone().map_or(Asked::Other, |args| Asked::Edit(effect, args));
                let ticket = self.ticket(asked);
                let (matter, facts) = (Matter::Approval, Vec::new());
                self.step(Input::Vote { ticket, effect, address, matter, who, yes, args, facts });
            }
            (Stage::Waiting, Work::Promise { .. }) => {
                let answer = Answer::Done(Payload::text("yes, we shall"));
                self.resolve(pending, address, answer);
            }
            (Stage::Doubtful { .. }, _) => self.clear_doubt(row, pending),
            _ => {}
        }
    }

    fn resolve(&mut self, pending: &Pending, address: Address, answer: Answer) {
        self.books.resolve(pending.id);
        let ticket = self.ticket(Asked::Resolve(pending.id));
        let who = Box::new(Person { name: "bob".into(), ..*self.voter() });
        self.step(Input::Resolve { ticket, effect: pending.id, address, who, answer });
    }

    /// They look at the tool, which knows: it was done, or may be sent again.
    fn clear_doubt(&mut self, row: &AgentRow, pending: &Pending) {
        // While it is on its way nobody can know, though some say that they do.
        if self.flights.values().any(|flight| flight.effect == pending.id) {
            if self.rng.chance(0.3) {
                self.resolve(pending, row.address.clone(), Answer::Done(Payload::text("surely it was done")));
            }
            return;
        }
        let truth = self.tools.truth(pending.id);
        let done = if pending.class == EffectClass::Compensable { truth.stands } else { truth.done } > 0;
        if done {
            return self.resolve(pending, row.address.clone(), Answer::Done(Payload::text("it was done")));
        }
        let wanted = self.rng.chance(0.6);
        let ticket = self.ticket(Asked::Other);
        let (effect, address) = (pending.id, row.address.clone());
        let who = Box::new(Person { name: "cy".into(), ..*self.voter() });
        let (matter, facts) = (Matter::Doubt, Vec::new());
        // They know better than the tool when to try again.
        self.trouble.forgive(effect);
        self.step(Input::Vote { ticket, effect, address, matter, who, yes: wanted, args: None, facts });
    }

    /// Somebody who may say yes where nobody is named.
    fn voter(&mut self) -> Box<Person> {
        let name = VOTERS[self.rng.below(3) as usize].into();
        Box::new(Person { name, tenant: cast::tenant(0), admin: true, alone: false })
    }

    fn cancel_run(&mut self, run: RunKey, address: &Address) {
        let ticket = self.ticket(Asked::Cancel(run));
        self.step(Input::Cancel { ticket, run, address: address.clone(), by: "ann".into() });
    }

    fn lift_halts(&mut self) {
        for scope in self.halts.clone() {
            if self.calm || self.rng.chance(0.3) {
                self.halt(scope, false);
            }
        }
    }

    fn halt(&mut self, scope: Scope, on: bool) {
        if self.agents.is_some() {
            self.halts.retain(|halted| *halted != scope);
            self.halts.extend(on.then(|| scope.clone()));
        }
        let hidden = on && self.plan.lie == Some(Lie::HideHalts);
        let ticket = if hidden { 0 } else { self.ticket(Asked::Other) };
        self.step(Input::Halt { ticket, scope, on, by: "ann".into() });
    }

    fn meddle(&mut self) {
        let live: Vec<(RunKey, Address)> = self
            .books
            .runs
            .iter()
            .filter(|(_, line)| line.over.is_none())
            .map(|(run, line)| (*run, line.agent.clone()))
            .collect();
        if live.is_empty() {
            return;
        }
        let (run, address) = live[self.rng.below(live.len() as u64) as usize].clone();
        match self.rng.below(12) {
            0 => self.cancel_run(run, &address),
            1 => self.halt(Scope::Agent(address), true),
            2 => self.halt(Scope::Tree(run), true),
            3 => self.halt(Scope::Type(address.agent.kind().into()), true),
            4 => self.halt(Scope::Tenant(address.tenant.as_str().into()), true),
            5 => self.halt(Scope::Tool("shop.*".into()), true),
            6 if self.rng.chance(0.3) => self.halt(Scope::All, true),
            7 => self.reload(),
            8 => {
                let ticket = self.ticket(Asked::Other);
                self.step(Input::Again { ticket, run, address, why: "ann wants it so".into() });
            }
            _ => {}
        }
    }

    fn redrive(&mut self) {
        let letters: Vec<(u8, u64)> = self
            .books
            .fold
            .iter()
            .flat_map(|shard| shard.letters.keys().map(|number| (shard.row.shard, *number)))
            .collect();
        if letters.is_empty() {
            return;
        }
        let (shard, number) = letters[self.rng.below(letters.len() as u64) as usize];
        let ticket = self.ticket(Asked::Other);
        // In the end they are thrown away: sent again they would begin something new.
        let send = !self.calm && self.rng.chance(0.7);
        self.books.redrive(shard, number, send);
        self.step(Input::Redrive { ticket, shard, number, send, by: "operator".into() });
    }

    fn reload(&mut self) {
        self.rules.turns_max = 1 + self.rng.below(8) as u32;
        self.rules.models_max = 1 + self.rng.below(8) as u32;
        self.rules.tool_max = 1 + self.rng.below(4) as u32;
        self.redefine(100);
    }

    /// A message from outside, or a storm of them.
    pub(super) fn outside_mail(&mut self, tenant: Tenant) {
        let kinds = ["mate", "reader", "pong"];
        let kind = kinds[self.rng.below(kinds.len() as u64) as usize];
        let name = format!("{kind}/{}", self.rng.below(3));
        let to = Address { tenant, agent: Agent::parse(&name).expect("the cast's names are valid") };
        let storm = if self.rng.chance(0.2) { 2 * cast::INBOX_MAX } else { 1 };
        self.mails(to.tenant, to.agent, storm);
    }

    /// So many messages from outside.
    pub(super) fn mails(&mut self, tenant: Tenant, agent: Agent, count: usize) {
        let to = Address { tenant, agent };
        for _ in 0..count {
            let ticket = self.ticket + 1;
            let id = 0xffff_0000_0000 + ticket;
            self.ticket(Asked::Send(to.clone(), id));
            let body = Payload::text(&ticket.to_string());
            let message = Message { id, from: None, name: Some("signal".into()), at: At(0), hop: 0, body };
            self.step(Input::Send {
                ticket,
                to: to.clone(),
                message: Box::new(message),
                by: "outsider".into(),
            });
        }
    }

    /// A value from outside.
    pub(super) fn outside_put(&mut self, tenant: Tenant) {
        let ticket = self.ticket(Asked::Other);
        let key: Arc<str> = format!("board/{}", self.rng.below(2)).into();
        let value = self.rng.chance(0.8).then(|| Payload::text("from outside"));
        self.step(Input::Put { ticket, tenant, key, value, expect: None, by: "outsider".into() });
    }
}
