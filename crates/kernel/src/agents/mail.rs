//! Mail: messages between agents, signals from outside, and topics. A message is durable
//! in its mailbox before its sender hears that it was taken, and is taken once.

use std::sync::Arc;

use seawall_model::durable::{AgentRow, Item, Message, Standing};
use seawall_model::effect::EffectId;
use seawall_model::journal::Event;
use seawall_model::{Address, Agent, At, Code, Payload, limits};

use super::effect::{Effect, Notice, Reply};
use super::input::{Input, Ticket};
use super::machine::Agents;
use super::progress::too_far;
use super::shard::Name;
use super::watch::said;

/// The key of the agent that a message to a type alone goes to.
const MAIN: &str = "main";

impl Agents {
    /// A message from outside.
    pub(super) fn send(&mut self, ticket: Ticket, to: &Address, message: Message, by: Arc<str>) {
        let agent = self.agent(to);
        let created = agent.is_none();
        let known = agent.and_then(|agent| agent.seen.iter().find(|(id, _)| *id == message.id));
        if known.is_some_and(|(_, text)| *text != said(&message)) {
            let why = "a message with this `id` was taken before, and says something else";
            return self.refuse(ticket, Code::VersionConflict, why);
        }
        let before = known.is_some();
        match self.deliver(to, message.clone(), Some(by)) {
            Ok(()) => self.reply(self.shard_of(&to.tenant), ticket, Reply::Taken { created, before }),
            Err(code) => {
                let known = !matches!(code, Code::AgentUnknown);
                if known && !matches!(code, Code::MailboxFull | Code::TooManyAgents) {
                    self.bury_letter(to, message, code);
                }
                self.refuse(ticket, code, self.untaken(to, code));
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
        match self.deliver(&to, message.clone(), None) {
            Ok(()) => self.answer_done(address, effect, Payload::empty()),
            Err(Code::MailboxFull) => self.try_mail_again(address, effect),
            Err(code) => {
                if code != Code::AgentUnknown {
                    self.bury_letter(&to, message, code);
                }
                self.answer_failed(address, effect, code, self.untaken(&to, code));
            }
        }
    }

    /// The sender waits; a message is never dropped for want of room.
    fn try_mail_again(&mut self, address: &Address, effect: EffectId) {
        let until = self.now.plus(self.rules.pause_max);
        let why = Arc::from("the mailbox is full");
        self.record(
            address,
            Event::Postponed {
                effect,
                until,
                code: Code::MailboxFull,
                why,
                counts: false,
                used: seawall_model::effect::Spend::default(),
            },
        );
        self.look(address);
    }

    fn message(&self, from: &Address, effect: EffectId, name: Option<Arc<str>>, body: Payload) -> Message {
        let hop = self.run(from, effect.run).map_or(0, |run| run.hop);
        // The same effect sent again is the same message.
        let id = effect.run.0.rotate_left(24) ^ u64::from(effect.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Message { id, from: Some(from.clone()), name, at: self.now, hop, body }
    }

    pub(super) fn addressee(&self, from: &Address, to: &Agent) -> Option<Address> {
        let agent = if to.as_str().contains('/') {
            to.clone()
        } else {
            Agent::parse(&format!("{to}/{MAIN}")).ok()?
        };
        Some(Address { tenant: from.tenant.clone(), agent })
    }

    /// Into the mailbox, if it takes it. A message that it had before is taken as before.
    /// `by` is who sends it from outside.
    pub(super) fn deliver(
        &mut self,
        to: &Address,
        message: Message,
        by: Option<Arc<str>>,
    ) -> Result<(), Code> {
        let kind = self.rules.kind(to.agent.kind()).ok_or(Code::AgentUnknown)?;
        let inbox_max = kind.inbox_max;
        let begins = kind.starts_on_mail && self.agent(to).is_none_or(|agent| agent.run.is_none());
        if let Some(agent) = self.agent(to) {
            if agent.seen.iter().any(|(id, _)| *id == message.id) {
                return Ok(());
            }
            match agent.standing {
                Standing::Quarantined => return Err(Code::AgentQuarantined),
                Standing::Done => return Err(Code::AgentUnknown),
                Standing::Idle | Standing::Active => {}
            }
            let (count, bytes) = mail_of(agent);
            let more = here(&message.body);
            if count >= inbox_max || (count > 0 && bytes + more > limits::INBOX_BYTES_MAX) {
                return Err(Code::MailboxFull);
            }
        }
        // Whoever is there, for one task or for good, is one more already.
        if self.agent(to).is_none() && !self.may_last(to, 1) {
            return Err(Code::TooManyAgents);
        }
        if begins && self.runs_live >= self.rules.runs_max {
            return Err(Code::MailboxFull);
        }
        self.make_slot(to);
        self.record(to, Event::Mailed { message: Message { at: self.now, ..message }, by });
        self.look(to);
        Ok(())
    }

    /// Why an agent takes no message.
    pub(super) fn untaken(&self, to: &Address, code: Code) -> String {
        match code {
            Code::AgentUnknown if self.rules.kind(to.agent.kind()).is_none() => {
                format!("no agent of type `{}` is defined", to.agent.kind())
            }
            Code::AgentUnknown => format!("{to} had one task, which is over: it takes no message"),
            Code::AgentQuarantined => format!("{to} is out of service: it takes no message"),
            Code::MailboxFull => format!("the mailbox of {to} is full"),
            Code::TooManyAgents => format!("{to} would be one agent more than may be"),
            _ => format!("{to} takes no message"),
        }
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
        let mut told = self.told.remove(&effect).unwrap_or_default();
        let (mut full, mut away) = (false, false);
        for subscriber in &to {
            if told.contains(subscriber) {
                continue;
            }
            // All that are away come at once, and whoever is here is told: it may be away
            // itself before the last of them has come.
            if !self.bring(subscriber, Input::Nudge { address: address.clone() }) {
                away = true;
                continue;
            }
            let message = self.message(address, effect, Some(topic.clone()), body.clone());
            match self.deliver(subscriber, message.clone(), None) {
                Ok(()) => {}
                Err(Code::MailboxFull) => {
                    full = true;
                    continue;
                }
                Err(code) => self.bury_letter(subscriber, message, code),
            }
            told.insert(subscriber.clone());
        }
        if full || away {
            self.told.insert(effect, told);
        }
        if away {
            return;
        }
        if full {
            return self.try_mail_again(address, effect);
        }
        self.answer_done(address, effect, Payload::text(&format!("{{\"subscribers\":{}}}", to.len())));
    }

    pub(super) fn subscribe(&mut self, address: &Address, effect: EffectId, topic: Arc<str>, on: bool) {
        let tenant = address.tenant.clone();
        let shard = self.shard_of(&tenant);
        if on && let Err(why) = self.may_subscribe(address, &(tenant.clone(), topic.clone())) {
            return self.answer_failed(address, effect, Code::MailboxFull, why);
        }
        let agent = address.clone();
        self.append(shard, None, Event::Subscribed { tenant, topic, agent, on });
        self.answer_done(address, effect, Payload::empty());
    }

    fn may_subscribe(&self, address: &Address, name: &Name) -> Result<(), &'static str> {
        let topics = &self.shard(address).topics;
        let own = self.agent(address).map_or(&[][..], |row| &row.topics);
        match topics.get(name) {
            _ if own.contains(&name.1) => Ok(()),
            _ if own.len() >= limits::SUBSCRIPTIONS_MAX => Err("it subscribed to as many topics as it may"),
            Some(row) if row.agents.len() >= limits::SUBSCRIBERS_MAX => {
                Err("the topic has as many subscribers as it may")
            }
            None if self.count_of(&name.0, limits::TOPICS_MAX, |shard| &shard.topics)
                >= limits::TOPICS_MAX =>
            {
                Err("its tenant has as many topics as it may")
            }
            _ => Ok(()),
        }
    }

    /// Something was waiting for another agent to come into memory.
    pub(super) fn nudge(&mut self, address: &Address) {
        self.due(address);
        self.look(address);
    }
}

/// Messages that wait for an agent, and their bytes.
fn mail_of(agent: &AgentRow) -> (usize, usize) {
    let mail = agent.inbox.iter().filter_map(|item| match item {
        Item::Mail(message) => Some(here(&message.body)),
        _ => None,
    });
    mail.fold((0, 0), |(count, bytes), more| (count + 1, bytes + more))
}

fn here(body: &Payload) -> usize {
    body.here().map_or(0, <[u8]>::len)
}

/// A signal or message from outside, to be handed to [`Input::Send`].
#[must_use]
pub fn from_outside(id: u64, name: Option<Arc<str>>, body: Payload) -> Message {
    Message { id, from: None, name, at: At(0), hop: 0, body }
}
