//! Mail: messages between agents, signals from outside, and topics. A message is durable
//! in its mailbox before its sender hears that it was taken, and is taken once.

use std::sync::Arc;

use seawall_model::durable::{Item, Message, Standing};
use seawall_model::effect::EffectId;
use seawall_model::journal::Event;
use seawall_model::{Address, Agent, At, Code, Payload, limits};

use super::effect::{Effect, Notice, Reply};
use super::input::{Input, Ticket};
use super::machine::Agents;
use super::progress::too_far;

/// The key of the agent that a message to a type alone goes to.
const MAIN: &str = "main";

impl Agents {
    /// A message from outside.
    pub(super) fn send(&mut self, ticket: Ticket, to: &Address, message: Message) {
        match self.deliver(to, message.clone()) {
            Ok(()) => self.reply(self.shard_of(&to.tenant), ticket, Reply::Done),
            Err(code) => {
                let known = !matches!(code, Code::AgentUnknown);
                if known && code != Code::MailboxFull {
                    self.bury_letter(to, message, code);
                }
                self.refuse(ticket, code, format!("{to} takes no message"));
            }
        }
    }

    /// An agent's message to another of its tenant.
    pub(super) fn post(&mut self, address: &Address, effect: EffectId, to: &Agent, body: Payload) {
        let Some(to) = self.addressee(address, to) else {
            return self.answer_failed(address, effect, Code::BadField, "the agent's name is too long");
        };
        if !self.bring(&to, Input::Nudge { address: address.clone() }) {
            return;
        }
        let message = self.message(address, effect, None, body);
        if self.rules.kind(to.agent.kind()).is_some_and(|kind| too_far(message.hop, &kind.guard)) {
            let why = format!("{} messages led to this one, one by the other", message.hop);
            self.bury_letter(&to, message, Code::NoProgress);
            return self.answer_failed(address, effect, Code::NoProgress, why);
        }
        match self.deliver(&to, message.clone()) {
            Ok(()) => self.answer_done(address, effect, Payload::empty()),
            Err(Code::MailboxFull) => self.try_mail_again(address, effect),
            Err(code) => {
                if code != Code::AgentUnknown {
                    self.bury_letter(&to, message, code);
                }
                self.answer_failed(address, effect, code, format!("{to} takes no message"));
            }
        }
    }

    /// The sender waits; a message is never dropped for want of room.
    fn try_mail_again(&mut self, address: &Address, effect: EffectId) {
        let until = self.now.plus(self.rules.pause_max);
        let why = Arc::from("the mailbox is full");
        self.record(address, Event::Postponed { effect, until, why, counts: false });
        self.look(address);
    }

    fn message(&self, from: &Address, effect: EffectId, name: Option<Arc<str>>, body: Payload) -> Message {
        let hop = self.run(from, effect.run).map_or(0, |run| run.hop);
        // The same effect sent again is the same message.
        let id = effect.run.0.rotate_left(24) ^ u64::from(effect.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Message { id, from: Some(from.clone()), name, at: self.now, hop, body }
    }

    fn addressee(&self, from: &Address, to: &Agent) -> Option<Address> {
        let agent = if to.as_str().contains('/') {
            to.clone()
        } else {
            Agent::parse(&format!("{to}/{MAIN}")).ok()?
        };
        Some(Address { tenant: from.tenant.clone(), agent })
    }

    /// Into the mailbox, if it takes it. A message that it had before is taken as before.
    pub(super) fn deliver(&mut self, to: &Address, message: Message) -> Result<(), Code> {
        let kind = self.rules.kind(to.agent.kind()).ok_or(Code::AgentUnknown)?;
        let inbox_max = kind.inbox_max;
        let begins = kind.starts_on_mail && self.agent(to).is_none_or(|agent| agent.run.is_none());
        if let Some(agent) = self.agent(to) {
            if agent.seen.contains(&message.id) {
                return Ok(());
            }
            match agent.standing {
                Standing::Quarantined => return Err(Code::AgentQuarantined),
                Standing::Done => return Err(Code::AgentUnknown),
                Standing::Idle | Standing::Active => {}
            }
            let mail = agent.inbox.iter().filter(|item| matches!(item, Item::Mail(_))).count();
            if mail >= inbox_max {
                return Err(Code::MailboxFull);
            }
        }
        if begins && self.runs_live >= self.rules.runs_max {
            return Err(Code::MailboxFull);
        }
        self.make_slot(to);
        self.record(to, Event::Mailed { message: Message { at: self.now, ..message } });
        self.look(to);
        Ok(())
    }

    fn bury_letter(&mut self, to: &Address, message: Message, why: Code) {
        self.record(to, Event::Lettered { message, why });
        let notice = Notice::Letter { to: to.clone(), why };
        self.once_durable(self.shard_of(&to.tenant), Effect::Notice(notice));
    }

    /// Tells all who subscribed.
    pub(super) fn publish(&mut self, address: &Address, effect: EffectId, topic: &Arc<str>, body: &Payload) {
        let name = (address.tenant.clone(), topic.clone());
        let shard = self.shard_of(&address.tenant);
        let to = self.shards[shard].topics.get(&name).map_or_else(Vec::new, |row| row.agents.clone());
        for subscriber in &to {
            if !self.bring(subscriber, Input::Nudge { address: address.clone() }) {
                return;
            }
        }
        let mut full = false;
        for subscriber in &to {
            let message = self.message(address, effect, Some(topic.clone()), body.clone());
            match self.deliver(subscriber, message.clone()) {
                Ok(()) => {}
                Err(Code::MailboxFull) => full = true,
                Err(code) => self.bury_letter(subscriber, message, code),
            }
        }
        if full {
            // Those who have it already know it again.
            return self.try_mail_again(address, effect);
        }
        self.answer_done(address, effect, Payload::text(&format!("{{\"subscribers\":{}}}", to.len())));
    }

    pub(super) fn subscribe(&mut self, address: &Address, effect: EffectId, topic: Arc<str>, on: bool) {
        let tenant = address.tenant.clone();
        let shard = self.shard_of(&tenant);
        let count =
            self.shards[shard].topics.get(&(tenant.clone(), topic.clone())).map_or(0, |row| row.agents.len());
        if on && count >= limits::SUBSCRIBERS_MAX {
            return self.answer_failed(
                address,
                effect,
                Code::MailboxFull,
                "the topic has as many subscribers as it may",
            );
        }
        let agent = address.clone();
        self.append(shard, None, Event::Subscribed { tenant, topic, agent, on });
        self.answer_done(address, effect, Payload::empty());
    }

    /// Something was waiting for another agent to come into memory.
    pub(super) fn nudge(&mut self, address: &Address) {
        self.due(address);
        self.look(address);
    }
}

/// A signal or message from outside, to be handed to [`Input::Send`].
#[must_use]
pub fn from_outside(id: u64, name: Option<Arc<str>>, body: Payload) -> Message {
    Message { id, from: None, name, at: At(0), hop: 0, body }
}
