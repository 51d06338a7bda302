//! People: those who answer promises, say yes or no, stop things, and put them right.

use std::sync::Arc;

use seawall_model::durable::{Message, Scope, Stage};
use seawall_model::effect::{Answer, EffectId, Spend, Verdict, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, Code, Payload, limits};

use super::effect::Reply;
use super::input::Ticket;
use super::machine::{Agents, Slot};
use super::shard::dropped;

impl Agents {
    /// Somebody answers a promise, or says what became of an effect in doubt.
    pub(super) fn resolve(
        &mut self,
        ticket: Ticket,
        effect: EffectId,
        address: &Address,
        by: Arc<str>,
        answer: Answer,
    ) {
        let Some(row) = self.pending(address, effect) else {
            return self.refuse(ticket, Code::EffectUnknown, format!("{effect} waits for no answer"));
        };
        let promise = matches!((&row.work, &row.stage), (Work::Promise { .. }, Stage::Waiting));
        if !promise && !matches!(row.stage, Stage::Doubtful { .. }) {
            let why = format!("{effect} is a {} under way; the world answers it", row.work.kind());
            return self.refuse(ticket, Code::EffectUnknown, why);
        }
        let used = Spend { calls: row.reserved.calls, ..Spend::default() };
        self.answer(address, effect, answer, used, Some(by));
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// Somebody says yes or no: to an effect that asks, or to sending one in doubt again.
    pub(super) fn vote(
        &mut self,
        ticket: Ticket,
        effect: EffectId,
        address: &Address,
        by: Arc<str>,
        yes: bool,
        args: Option<Payload>,
    ) {
        let Some(row) = self.pending(address, effect) else {
            return self.refuse(ticket, Code::EffectUnknown, format!("{effect} asks nobody"));
        };
        let stage = match (&row.stage, yes) {
            (Stage::Approving { yes: so_far, until }, true) => {
                // What others said yes to was something else.
                let edited = args.is_some() && matches!(row.work, Work::Tool { .. });
                let mut said = if edited { Vec::new() } else { so_far.clone() };
                if said.contains(&by) {
                    return self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
                }
                said.push(by.clone());
                let quorum = match &row.ruling.verdict {
                    Verdict::Ask(approval) => usize::from(approval.quorum.max(1)),
                    _ => 1,
                };
                // Time and people answer by themselves; everything else is to be done now.
                let waits = matches!(row.work, Work::Timer { .. } | Work::Promise { .. });
                Some(match said.len() >= quorum {
                    true if waits => Stage::Waiting,
                    true => Stage::Ready { after: self.now },
                    false => Stage::Approving { yes: said, until: *until },
                })
            }
            (Stage::Doubtful { .. }, true) if dropped(row) => {
                let why = format!("the run of {effect} ended or began anew: say what became of it instead");
                return self.refuse(ticket, Code::EffectUnknown, why);
            }
            (Stage::Doubtful { .. }, true) => Some(Stage::Ready { after: self.now }),
            (Stage::Approving { .. } | Stage::Doubtful { .. }, false) => None,
            _ => return self.refuse(ticket, Code::EffectUnknown, format!("{effect} asks nobody")),
        };
        let ready = matches!(stage, Some(Stage::Ready { .. }));
        // Whoever says no may say why where arguments would stand.
        let denied = stage.is_none().then(|| match args.as_ref().and_then(Payload::here) {
            Some(why) => format!("{by} said no: {}", String::from_utf8_lossy(why)),
            None => format!("{by} said no"),
        });
        self.record(address, Event::Voted { effect, by: by.clone(), yes, args, stage });
        if let Some(why) = denied {
            let answer = Answer::Failed { code: Code::ApprovalDenied, why: why.into() };
            self.answer(address, effect, answer, Spend::default(), Some(by));
        }
        if ready {
            self.begin_effect(address, effect);
        }
        self.look(address);
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// An operator stops something, or lets it go on.
    pub(super) fn halt(&mut self, ticket: Ticket, scope: &Scope, on: bool, by: Arc<str>) {
        let halts = self.shards.first().map_or(0, |shard| shard.row.halts.len());
        if on && halts >= limits::HALTS_MAX {
            return self.refuse(
                ticket,
                Code::AgentsFull,
                "as much is stopped as may be: lift some, or stop a tenant",
            );
        }
        self.append(0, None, Event::Halted { scope: scope.clone(), on, by });
        let all: Vec<Address> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Here(_)))
            .map(|(a, _)| a.clone())
            .collect();
        for address in all {
            if on {
                self.stop_flights(&address, scope);
            } else {
                self.recover_lined(&address);
            }
            self.look(&address);
        }
        self.reply(0, ticket, Reply::Done);
    }

    /// What is under way in the scope of a stop is dropped; what can be sent again lines up
    /// when it is lifted, what must not be sent twice is let finish if it was sent.
    fn stop_flights(&mut self, address: &Address, scope: &Scope) {
        let run = self.agent(address).and_then(|agent| agent.run);
        let halted = self.halted(address, run).is_some();
        if halted && self.withdraw_turn(address) {
            self.turns.leave(address);
            if let Some(live) = self.live(address) {
                live.turn = None;
            }
        }
        let Some(live) = self.live(address) else { return };
        let flying: Vec<EffectId> = live.flights.keys().copied().collect();
        for effect in flying {
            let Some(row) = self.pending(address, effect) else { continue };
            let tool = matches!(scope, Scope::Tool(_)) && self.tool_halted(row.work.object());
            let dropped = (halted || tool) && self.drop_flight(address, effect);
            if dropped && tool {
                self.answer_failed(address, effect, Code::RunStopped, "an operator stopped this tool");
            }
        }
    }

    /// Effects that were ready when they were stopped line up again, and what was to be
    /// undone is undone.
    fn recover_lined(&mut self, address: &Address) {
        self.undo_rest(address);
        let Some(agent) = self.agent(address) else { return };
        let ready: Vec<EffectId> = agent
            .pending
            .iter()
            .filter(|row| matches!(row.stage, Stage::Ready { .. }))
            .map(|row| row.id)
            .collect();
        for effect in ready {
            self.begin_effect(address, effect);
        }
    }

    /// An operator puts an agent back into service.
    pub(super) fn release(&mut self, ticket: Ticket, address: &Address, by: Arc<str>) {
        if self.agent(address).is_none() {
            return self.refuse(ticket, Code::AgentUnknown, format!("{address} is not known"));
        }
        self.record(address, Event::Released { by });
        self.look(address);
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// An operator sends a dead letter again, or throws it away.
    pub(super) fn redrive(&mut self, ticket: Ticket, shard: u8, number: u64, send: bool) {
        let at = usize::from(shard);
        let Some(letter) = self.shards.get(at).and_then(|shard| shard.letters.get(&number)).cloned() else {
            return self.refuse(ticket, Code::EffectUnknown, format!("there is no dead letter {number}"));
        };
        if send {
            // Its number makes it another message: it may have been taken and never read.
            let id = letter.message.id.rotate_left(17) ^ number;
            let message = Message { id, hop: 0, ..letter.message };
            if let Err(code) = self.deliver(&letter.to, message) {
                // The letter stays where it is.
                return self.refuse(ticket, code, format!("{} takes no message", letter.to));
            }
        }
        self.append(at, None, Event::Unlettered { number });
        self.reply(at, ticket, Reply::Done);
    }
}
