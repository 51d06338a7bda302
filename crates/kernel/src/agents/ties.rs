//! Monitors and links, in the words of Erlang/OTP: who hears of the end of another agent's
//! run, and who fails with it. A tie stands in the row of the agent that it is about, so
//! that a crash forgets none; the run that ends writes its fate there, and whoever is tied
//! hears of it in the record that removes the tie: once.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use seawall_model::durable::{AgentRow, Fate, Pending, Stage, Standing, Tie};
use seawall_model::effect::{EffectId, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, Agent, Code, Payload, RunKey, limits};

use super::gate;
use super::input::Input;
use super::machine::{Agents, Slot};

/// Agents looked at for a circle of those that wait for each other: a longer one ends by patience.
const LOOKED_AT_MAX: usize = 256;

impl Agents {
    /// A monitor or link that a turn asked for: made once both agents are in memory.
    pub(super) fn begin_tie(&mut self, address: &Address, effect: EffectId, to: &Agent) {
        let Some(peer) = self.addressee(address, to) else {
            return self.answer_failed(address, effect, Code::BadField, "the agent's name is too long");
        };
        if peer == *address {
            return self.answer_failed(address, effect, Code::BadField, "it is the agent itself");
        }
        self.follow(Input::Tie { address: address.clone(), effect, peer });
    }

    /// Makes or removes a tie; both agents are in memory, if they are known at all.
    pub(super) fn tie(&mut self, address: &Address, effect: EffectId, peer: &Address) {
        let Some(row) = self.pending(address, effect) else { return };
        let unruled = &*row.ruling.rule == gate::DEFAULT;
        let linked = match &row.work {
            Work::Link { on: false, .. } => {
                self.unlink(address, effect.run, peer);
                return self.answer_done(address, effect, Payload::empty());
            }
            Work::Link { .. } => true,
            Work::Monitor { .. } if matches!(row.stage, Stage::Ready { .. }) => false,
            _ => return,
        };
        match self.works_on(peer) {
            Err(fate) if !linked => {
                let body = told(peer, None, fate.as_ref());
                self.answer_done(address, effect, body);
            }
            Err(_) => {
                let why = format!("{peer} works on nothing that could fail with this run");
                self.answer_failed(address, effect, Code::RunUnknown, why);
            }
            // To fail another's run is a right that a rule gives, but within one's own tree.
            Ok(run) if linked && unruled && !self.is_kin(address, effect.run, run) => {
                let why = format!("link `{}` is not allowed by any rule: it works for others", peer.agent);
                self.answer_failed(address, effect, Code::GateDenied, why);
            }
            Ok(_) if !linked && self.is_awaited_by(address, effect.run, peer) => {
                let why = format!("{peer} waits for this run to end, and neither would");
                self.answer_failed(address, effect, Code::BadField, why);
            }
            Ok(run) => self.make_tie(address, effect, (peer, run), linked),
        }
    }

    fn is_kin(&self, address: &Address, one: RunKey, other: RunKey) -> bool {
        let root = |run| self.run(address, run).map(|row| row.root);
        root(one).is_some_and(|of| root(other) == Some(of))
    }

    /// Does the other wait for this run or one above it, by itself or through those that it
    /// waits for, as far as they are in memory?
    fn is_awaited_by(&self, address: &Address, run: RunKey, peer: &Address) -> bool {
        let shard = self.shard(address);
        let path: BTreeSet<Address> =
            shard.path(run).into_iter().filter_map(|run| shard.agent_of(run)).collect();
        let mut seen = BTreeSet::from([peer.clone()]);
        let mut next = vec![peer.clone()];
        while let Some(who) = next.pop() {
            if path.contains(&who) {
                return true;
            }
            for other in self.awaited(&who) {
                if seen.len() < LOOKED_AT_MAX && seen.insert(other.clone()) {
                    next.push(other);
                }
            }
        }
        false
    }

    /// Whose end an agent's run waits for: its children, and whom it monitors.
    fn awaited(&self, who: &Address) -> Vec<Address> {
        let Some(row) = self.agent(who) else { return Vec::new() };
        let waits = |pending: &&Pending| pending.stage == Stage::Waiting && Some(pending.id.run) == row.run;
        let of =
            row.pending.iter().filter(waits).filter_map(|pending| match (&pending.work, pending.child) {
                (Work::Monitor { agent }, _) => self.addressee(who, agent),
                (_, Some(child)) => self.agent_of_child(who, child),
                _ => None,
            });
        of.collect()
    }

    /// What an agent works on; or why there is nothing to wait for, if there is a reason.
    fn works_on(&self, peer: &Address) -> Result<RunKey, Option<Fate>> {
        let Some(agent) = self.agent(peer) else { return Err(None) };
        if agent.standing == Standing::Quarantined {
            let why = agent.why.clone().unwrap_or_else(|| "it is in quarantine".into());
            return Err(Some(Fate::Quarantined { why }));
        }
        agent.run.ok_or(None)
    }

    fn make_tie(
        &mut self,
        address: &Address,
        effect: EffectId,
        (peer, run): (&Address, RunKey),
        linked: bool,
    ) {
        let linked_already = |row: &AgentRow| {
            row.ties.iter().any(|tie| tie.linked && tie.run == run && tie.effect.run == effect.run)
        };
        if linked && self.agent(peer).is_some_and(linked_already) {
            return self.answer_done(address, effect, Payload::empty());
        }
        let full = |who: &Address| self.agent(who).is_some_and(|row| row.ties.len() >= limits::TIES_MAX);
        if full(peer) || (linked && full(address)) {
            let why = "as many are tied to this agent as may be";
            return self.answer_failed(address, effect, Code::MailboxFull, why);
        }
        let tie = Tie { run, effect, peer: address.clone(), linked, fate: None };
        self.record(peer, Event::Tied { tie });
        if linked {
            let back = EffectId { run, number: 0 };
            let tie = Tie { run: effect.run, effect: back, peer: peer.clone(), linked, fate: None };
            self.record(address, Event::Tied { tie });
            self.answer_done(address, effect, Payload::empty());
        }
        self.look(address);
    }

    /// Removes all links between a run and another agent's, at both ends.
    fn unlink(&mut self, address: &Address, run: RunKey, peer: &Address) {
        for (who, other) in [(address, peer), (peer, address)] {
            let of = |tie: &&Tie| {
                let own = if who == address { tie.run } else { tie.effect.run };
                tie.linked && tie.fate.is_none() && tie.peer == *other && own == run
            };
            let ties: Vec<(RunKey, EffectId)> = self.agent(who).map_or_else(Vec::new, |row| {
                row.ties.iter().filter(of).map(|tie| (tie.run, tie.effect)).collect()
            });
            for (run, effect) in ties {
                self.record(who, Event::Untied { run, effect });
            }
        }
    }

    /// The monitor is no longer waited for: whom it watched forgets it.
    pub(super) fn unwatch(&mut self, effect: EffectId, peer: &Address) {
        let Some(row) = self.agent(peer) else { return };
        if let Some(run) = row.ties.iter().find(|tie| tie.effect == effect && !tie.linked).map(|tie| tie.run)
        {
            self.record(peer, Event::Untied { run, effect });
            self.look(peer);
        }
    }

    /// Has those told who are tied to a run of this agent that is over.
    pub(super) fn tell_ties(&mut self, address: &Address) {
        let Some(row) = self.agent(address) else { return };
        let over = row.ties.iter().filter(|tie| tie.fate.is_some());
        let told: Vec<(Address, EffectId)> = over.map(|tie| (tie.peer.clone(), tie.effect)).collect();
        for (peer, effect) in told {
            self.follow(Input::Down { address: peer, effect, of: address.clone() });
        }
    }

    /// A run that this agent's run is tied to is over: the tie is removed, and what it was
    /// for is done, in one step and so in one transaction.
    pub(super) fn down(&mut self, address: &Address, effect: EffectId, of: &Address) {
        let told_of = |tie: &&Tie| tie.effect == effect && tie.peer == *address && tie.fate.is_some();
        let Some(tie) = self.agent(of).and_then(|row| row.ties.iter().find(told_of)).cloned() else { return };
        let Some(fate) = &tie.fate else { return };
        self.record(of, Event::Untied { run: tie.run, effect });
        if tie.linked {
            self.fail_with(address, effect.run, &tie, of);
        } else if self.pending(address, effect).is_some() {
            let body = told(of, Some(tie.run), Some(fate));
            self.answer_done(address, effect, body);
        }
        self.look(of);
    }

    /// The other end of a link: it is gone, and the run fails if the other did.
    fn fail_with(&mut self, address: &Address, run: RunKey, tie: &Tie, of: &Address) {
        let back = |other: &&Tie| other.linked && other.run == run && other.effect.run == tie.run;
        if let Some(effect) =
            self.agent(address).and_then(|row| row.ties.iter().find(back)).map(|tie| tie.effect)
        {
            self.record(address, Event::Untied { run, effect });
        }
        let how = match tie.fate.as_ref() {
            None | Some(Fate::Done) => return self.look(address),
            Some(Fate::Failed { code, why }) => format!("failed ({}: {why})", code.as_str()),
            Some(Fate::Cancelled { by }) => format!("was cancelled by {by}"),
            Some(Fate::Quarantined { why }) => format!("was taken out of service ({why})"),
        };
        let why = format!("it is linked to {of}, whose {} {how}", tie.run);
        self.fail(address, run, Code::RunFailed, why.into());
    }

    /// The reconciler: every monitor that waits is known to whom it watches, every link has
    /// two ends, and nobody who is in memory is still to be told.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(super) fn check_ties(&self, row: &AgentRow) -> Result<(), String> {
        let here = |who: &Address| match self.slots.get(who) {
            Some(Slot::Here(_)) => self.agent(who),
            _ => None,
        };
        for tie in &row.ties {
            let Some(peer) = here(&tie.peer) else { continue };
            if tie.fate.is_some() {
                return Err(format!("{} was not told of the end of {}", tie.peer, tie.run));
            }
            let back =
                |other: &Tie| other.linked && other.run == tie.effect.run && other.effect.run == tie.run;
            if tie.linked && !peer.ties.iter().any(back) {
                return Err(format!("{} is linked to {}, and that not to it", row.address, tie.peer));
            }
            if tie.run != row.run.unwrap_or_default() {
                return Err(format!("{} has a tie of {}, which is not its run", row.address, tie.run));
            }
        }
        for pending in row.pending.iter().filter(|pending| pending.stage == Stage::Waiting) {
            let Work::Monitor { agent } = &pending.work else { continue };
            let Some(peer) = self.addressee(&row.address, agent) else { continue };
            if here(&peer).is_some_and(|peer| peer.ties.iter().all(|tie| tie.effect != pending.id)) {
                return Err(format!("{} waits for the end of {peer}, which does not know", pending.id));
            }
        }
        Ok(())
    }
}

/// What a monitor is told: a JSON object.
fn told(of: &Address, run: Option<RunKey>, fate: Option<&Fate>) -> Payload {
    let (how, more) = match fate {
        None => ("idle", None),
        Some(Fate::Done) => ("done", None),
        Some(Fate::Failed { code, why }) => ("failed", Some(("why", format!("{}: {why}", code.as_str())))),
        Some(Fate::Cancelled { by }) => ("cancelled", Some(("by", by.to_string()))),
        Some(Fate::Quarantined { why }) => ("quarantined", Some(("why", why.to_string()))),
    };
    let mut text = format!("{{\"agent\":{},\"how\":\"{how}\"", quoted(of.agent.as_str()));
    if let Some(run) = run {
        text.push_str(&format!(",\"run\":\"{run}\""));
    }
    if let Some((name, word)) = more {
        text.push_str(&format!(",\"{name}\":{}", quoted(&word)));
    }
    text.push('}');
    Payload::text(&text)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
