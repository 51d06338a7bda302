//! People: those who answer promises, say yes or no, stop things, and put them right.

use std::sync::Arc;

use seawall_model::durable::{Message, Pending, Scope, Stage};
use seawall_model::effect::{Answer, Ask, EffectId, Fact, Person, Ruling, Spend, Verdict, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, Code, Payload, limits};

use super::effect::Reply;
use super::input::{Matter, Ticket};
use super::machine::{Agents, Slot};

/// What a vote makes of an effect.
struct Ballot {
    /// The stage it is in thereafter; `None` where a no ends it.
    stage: Option<Stage>,
    /// Other arguments; with a no, why not.
    args: Option<Payload>,
    /// What the gate said of other arguments.
    ruling: Option<Ruling>,
}

impl Agents {
    /// Somebody answers a promise, or says what became of an effect in doubt.
    pub(super) fn resolve(
        &mut self,
        ticket: Ticket,
        effect: EffectId,
        address: &Address,
        who: &Person,
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
        if !promise && !who.admin {
            return self.refuse(ticket, Code::AdminOnly, doubts_are_for_admins(effect));
        }
        let used = Spend { calls: row.reserved.calls, ..Spend::default() };
        self.answer(address, effect, answer, used, Some(who.name.clone()));
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// Somebody says yes or no: to an effect that asks, or to sending one in doubt again.
    #[expect(clippy::too_many_arguments, reason = "it is one input, taken apart")]
    pub(super) fn vote(
        &mut self,
        ticket: Ticket,
        effect: EffectId,
        address: &Address,
        matter: Matter,
        who: &Person,
        yes: bool,
        args: Option<Payload>,
        facts: Vec<Fact>,
    ) {
        let Some(row) = self.pending(address, effect) else {
            return self.refuse(ticket, Code::EffectUnknown, format!("{effect} asks nobody"));
        };
        let approving = matches!(row.stage, Stage::Approving { .. });
        let doubtful = matches!(row.stage, Stage::Doubtful { .. });
        if doubtful && matter == Matter::Approval {
            let why =
                format!("{effect} was approved meanwhile, and is in doubt now: it asks for no yes or no");
            return self.refuse(ticket, Code::EffectUnknown, why);
        }
        if approving && matter == Matter::Doubt {
            return self.refuse(ticket, Code::EffectUnknown, format!("{effect} is not in doubt"));
        }
        if doubtful && !who.admin {
            return self.refuse(ticket, Code::AdminOnly, doubts_are_for_admins(effect));
        }
        if approving && !row.has_vote(who) && (yes || !who.admin) {
            let why = format!("{} is not among those who decide on {effect}", who.name);
            return self.refuse(ticket, Code::ApproverOnly, why);
        }
        let ballot = match (&row.stage, yes) {
            (Stage::Approving { .. }, true) => match self.approve(address, row, who, args, facts) {
                Ok(ballot) => ballot,
                Err((code, why)) => return self.refuse(ticket, code, why),
            },
            (Stage::Doubtful { .. }, true) if row.is_dropped() => {
                let why = format!("the run of {effect} ended or began anew: say what became of it instead");
                return self.refuse(ticket, Code::EffectUnknown, why);
            }
            (Stage::Doubtful { .. }, true) => {
                Ballot { stage: Some(Stage::Ready { after: self.now }), args: None, ruling: None }
            }
            (Stage::Approving { .. } | Stage::Doubtful { .. }, false) => {
                Ballot { stage: None, args, ruling: None }
            }
            _ => return self.refuse(ticket, Code::EffectUnknown, format!("{effect} asks nobody")),
        };
        if ballot.stage.as_ref() != Some(&row.stage) || ballot.ruling.is_some() {
            self.cast(address, effect, who.name.clone(), yes, ballot);
        }
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// Records a vote, and does what follows from it.
    fn cast(&mut self, address: &Address, effect: EffectId, by: Arc<str>, yes: bool, ballot: Ballot) {
        let Ballot { stage, args, ruling } = ballot;
        let ready = matches!(stage, Some(Stage::Ready { .. }));
        // Whoever says no may say why where arguments would stand.
        let denied = stage.is_none().then(|| match args.as_ref().and_then(Payload::here) {
            Some(why) => format!("{by} said no: {}", String::from_utf8_lossy(why)),
            None => format!("{by} said no"),
        });
        let others = ruling.is_some() && matches!(stage, Some(Stage::Approving { .. }));
        self.record(address, Event::Voted { effect, by: by.clone(), yes, args, stage, ruling });
        if let Some(why) = denied {
            let answer = Answer::Failed { code: Code::ApprovalDenied, why: why.into() };
            self.answer(address, effect, answer, Spend::default(), Some(by));
        }
        if ready || others {
            self.begin_effect(address, effect);
        }
        self.look(address);
    }

    /// What a yes makes of an effect that asks. The rules may have changed since it asked:
    /// what they forbid by now is not done, and what they ask more for waits for it. With
    /// other arguments it is another call, and what others said yes to was something else.
    fn approve(
        &self,
        address: &Address,
        row: &Pending,
        who: &Person,
        args: Option<Payload>,
        facts: Vec<Fact>,
    ) -> Result<Ballot, (Code, Arc<str>)> {
        let mut judged = row.clone();
        let args = args.filter(|_| matches!(row.work, Work::Tool { .. }));
        let edited = args.is_some();
        let ruling = matches!(row.work, Work::Tool { .. })
            .then(|| self.rule_again(address, row, args.as_ref(), facts));
        if let Some(Ruling { rule, verdict: Verdict::Deny }) = &ruling {
            let (tool, with) =
                (row.work.object(), if edited { " with these arguments" } else { " any more" });
            let why = format!("the rule `{rule}` does not allow `{tool}`{with}");
            return Err((Code::GateDenied, why.into()));
        }
        let stricter = |ruling: &Ruling| *ruling != row.ruling && matches!(ruling.verdict, Verdict::Ask(_));
        let ruling = ruling.filter(|ruling| edited || stricter(ruling));
        if let Some(ruling) = &ruling {
            if ruling.rule != row.ruling.rule {
                judged.handed.clear();
            }
            judged.ruling = ruling.clone();
        }
        let Stage::Approving { yes: so_far, until } = &row.stage else {
            return Err((Code::EffectUnknown, format!("{} asks nobody", row.id).into()));
        };
        // Time and people answer by themselves; everything else is to be done now.
        let waits = matches!(row.work, Work::Timer { .. } | Work::Promise { .. });
        let begins = if waits { Stage::Waiting } else { Stage::Ready { after: self.now } };
        let Verdict::Ask(approval) = &judged.ruling.verdict else {
            return Ok(Ballot { stage: Some(begins), args, ruling });
        };
        let anew = judged.ruling.rule != row.ruling.rule;
        let mut said = if edited || anew { Vec::new() } else { so_far.clone() };
        // Another rule may ask others than whoever said yes.
        if judged.has_vote(who) && !said.contains(&who.name) {
            said.push(who.name.clone());
        }
        let until = if anew { self.now.plus(approval.patience) } else { *until };
        let enough = said.len() >= usize::from(approval.quorum.max(1));
        let stage = if enough { begins } else { Stage::Approving { yes: said, until } };
        Ok(Ballot { stage: Some(stage), args, ruling })
    }

    /// What the gate says of a call by now, with other arguments where there are any.
    fn rule_again(
        &self,
        address: &Address,
        row: &Pending,
        args: Option<&Payload>,
        facts: Vec<Fact>,
    ) -> Ruling {
        let mut work = row.work.clone();
        if let (Work::Tool { args: old, .. }, Some(args)) = (&mut work, args) {
            *old = args.clone();
        }
        let ask = Ask {
            tag: row.tag.clone(),
            work,
            class: row.class,
            cost_max: row.reserved,
            patience: None,
            twin: row.twin,
            facts,
        };
        self.rule(address, &ask, self.rules.kind(address.agent.kind()))
    }

    /// Somebody hands the vote on an effect on.
    pub(super) fn delegate(
        &mut self,
        ticket: Ticket,
        effect: EffectId,
        address: &Address,
        who: &Person,
        to: Arc<str>,
    ) {
        let Some(row) = self.pending(address, effect).filter(|row| row.approval().is_some()) else {
            return self.refuse(ticket, Code::EffectUnknown, format!("{effect} asks nobody"));
        };
        if !row.has_vote(who) {
            let why = format!("{} has no vote on {effect} to hand on", who.name);
            return self.refuse(ticket, Code::ApproverOnly, why);
        }
        if let Err(why) = may_hand(row, &who.name, &to) {
            return self.refuse(ticket, Code::BadField, why);
        }
        self.record(address, Event::Delegated { effect, by: Some(who.name.clone()), to });
        self.begin_effect(address, effect);
        self.look(address);
        self.reply(self.shard_of(&address.tenant), ticket, Reply::Done);
    }

    /// Nobody decided in time: the rule's deputy is asked as well.
    pub(super) fn ask_deputy(&mut self, address: &Address, effect: EffectId) {
        let approval = self.pending(address, effect).and_then(Pending::approval);
        let Some(deputy) = approval.and_then(|approval| approval.deputy.clone()) else { return };
        self.record(address, Event::Delegated { effect, by: None, to: deputy.to });
        self.begin_effect(address, effect);
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
            let halted_tool = row.work.tool().is_some_and(|tool| self.tool_halted(tool));
            let tool = matches!(scope, Scope::Tool(_)) && halted_tool;
            if halted || tool {
                self.stop_flight(address, effect, tool);
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
    pub(super) fn redrive(&mut self, ticket: Ticket, shard: u8, number: u64, send: bool, by: Arc<str>) {
        let at = usize::from(shard);
        let Some(letter) = self.shards.get(at).and_then(|shard| shard.letters.get(&number)).cloned() else {
            return self.refuse(
                ticket,
                Code::LetterUnknown,
                format!("there is no dead letter {shard}.{number}"),
            );
        };
        if send {
            // Its number makes it another message: it may have been taken and never read.
            let id = letter.message.id.rotate_left(17) ^ number;
            let message = Message { id, hop: 0, ..letter.message };
            if let Err(code) = self.deliver(&letter.to, message, Some(by.clone())) {
                // The letter stays where it is.
                return self.refuse(ticket, code, self.untaken(&letter.to, code));
            }
        }
        self.append(at, None, Event::Unlettered { number, sent: send, by });
        self.reply(at, ticket, Reply::Done);
    }
}

fn doubts_are_for_admins(effect: EffectId) -> String {
    format!("{effect} is in doubt: an admin says what became of it, or that it is sent again")
}

/// May this vote be handed on to this key? The error is in words.
fn may_hand(row: &Pending, by: &Arc<str>, to: &Arc<str>) -> Result<(), String> {
    let said = |name: &Arc<str>| matches!(&row.stage, Stage::Approving { yes, .. } if yes.contains(name));
    if to.is_empty() || to.len() > limits::NAME_LEN_MAX {
        return Err("whom the vote is handed to is the name of a key".to_owned());
    }
    if said(by) {
        return Err(format!("{by} has said yes already"));
    }
    // Whoever has a vote of its own and another's would still count once.
    let last = row.handed.iter().rev().find(|handed| handed.to == *to || handed.by.as_ref() == Some(to));
    let asked = row.approval().is_some_and(|approval| approval.approvers.contains(to));
    let has = last.map_or(asked, |handed| handed.to == *to);
    if by == to || said(to) || has {
        return Err(format!("{to} has a vote already, and nobody counts twice"));
    }
    if row.handed.len() >= limits::VOTES_HANDED_MAX {
        return Err(format!("at most {} votes on one effect are handed on", limits::VOTES_HANDED_MAX));
    }
    let mut links = 0;
    let mut holder = Some(by);
    for handed in row.handed.iter().rev() {
        if Some(&handed.to) == holder {
            links += 1;
            holder = handed.by.as_ref();
        }
    }
    if links >= limits::VOTE_CHAIN_MAX {
        return Err(format!("a vote is handed on at most {} times", limits::VOTE_CHAIN_MAX));
    }
    Ok(())
}
