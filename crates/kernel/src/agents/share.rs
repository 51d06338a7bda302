//! What agents of a tenant share: leases with fencing tokens, and versioned values.

use std::sync::Arc;

use seawall_model::durable::{Holder, ValueRow};
use seawall_model::effect::{EffectId, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, At, Code, Payload, RunKey, limits};

use super::alarm::Alarm;
use super::effect::{Effect, Reply};
use super::input::Input;
use super::machine::{Agents, ValueSlot, Writer};
use super::shard::Name;

/// Who writes a value.
enum Author {
    /// An agent's effect.
    Effect(EffectId),
    /// Somebody outside.
    Outside(Arc<str>),
}

impl Agents {
    /// Takes units of a resource, or waits in line for them.
    pub(super) fn acquire(&mut self, address: &Address, effect: EffectId, resource: Arc<str>) {
        let name = (address.tenant.clone(), resource);
        // Whoever holds some renews: to stand in line for that would be to lose it.
        let held = self.shards[self.shard_of(&name.0)].leases.get(&name);
        let holds = held.is_some_and(|row| row.holders.iter().any(|holder| holder.agent == *address));
        if holds && self.lend(&name, address, effect) {
            return;
        }
        let line = self.acquirers.entry(name.clone()).or_default();
        if !line.iter().any(|(waiting, _)| *waiting == effect) {
            if line.len() >= limits::LEASE_WAITERS_MAX {
                return self.answer_failed(
                    address,
                    effect,
                    Code::MailboxFull,
                    "too many wait for this resource",
                );
            }
            line.push_back((effect, address.clone()));
        }
        self.serve_line(&name);
    }

    /// Grants leases to those in line, as long as there are units for the first.
    fn serve_line(&mut self, name: &Name) {
        while let Some((effect, address)) = self.acquirers.get(name).and_then(|line| line.front()).cloned() {
            if !self.lend(name, &address, effect) {
                break;
            }
        }
    }

    /// Grants a lease or refuses it; `false` where there are too few units just now.
    fn lend(&mut self, name: &Name, address: &Address, effect: EffectId) -> bool {
        let Some((units, of, ttl)) = self.wish(address, effect) else {
            self.leave_line(name, effect);
            return true;
        };
        let shard = self.shard_of(&name.0);
        let held = self.shards[shard].leases.get(name);
        let holders = held.map_or(&[][..], |row| &row.holders);
        let mine = holders.iter().find(|holder| holder.agent == *address);
        let taken: u32 = holders.iter().filter(|h| h.agent != *address).map(|h| h.units).sum();
        // While somebody holds some, how many there are is not the next one's to say.
        let all = held.filter(|row| !row.holders.is_empty()).map_or(of, |row| row.of);
        if units > of || of != all {
            let why = match of == all {
                true => "more units are asked for than there are".to_owned(),
                false => format!("others hold it as one of {all} units, not of {of}"),
            };
            self.leave_line(name, effect);
            self.answer_failed(address, effect, Code::BadField, why);
            return true;
        }
        if taken.saturating_add(units) > of {
            return false;
        }
        let full = |name: &Name| {
            self.count_of(&name.0, limits::LEASES_MAX, |shard| &shard.leases) >= limits::LEASES_MAX
        };
        if held.is_none() && full(name) {
            let why = "its tenant holds as many resources as it may";
            self.leave_line(name, effect);
            self.answer_failed(address, effect, Code::MailboxFull, why);
            return true;
        }
        // Acquiring again renews: the token stays, so that what holds it goes on.
        let newest = held.map_or(self.shards[shard].row.tokens, |row| row.token);
        let token = mine.map_or(newest + 1, |holder| holder.token);
        let older = mine.map(|holder| (holder.token, holder.until, holder.effect.run));
        let until = self.now.plus(ttl);
        let holder = Holder { effect, agent: address.clone(), token, units, until };
        let (tenant, resource) = name.clone();
        if let Some((token, until, run)) = older {
            self.free(name, token, until, run);
        }
        self.lent.entry(effect.run).or_default().insert(name.clone());
        self.append(shard, None, Event::Granted { tenant, resource, of, holder });
        self.alarms.arm(until, Alarm::Lease(name.clone()));
        self.leave_line(name, effect);
        self.answer_done(address, effect, Payload::text(&format!("{{\"token\":{token}}}")));
        true
    }

    fn wish(&self, address: &Address, effect: EffectId) -> Option<(u32, u32, seawall_model::Millis)> {
        match &self.pending(address, effect)?.work {
            Work::Acquire { units, of, ttl, .. } => Some((*units, *of, *ttl)),
            _ => None,
        }
    }

    fn leave_line(&mut self, name: &Name, effect: EffectId) {
        if let Some(line) = self.acquirers.get_mut(name) {
            line.retain(|(waiting, _)| *waiting != effect);
            if line.is_empty() {
                self.acquirers.remove(name);
            }
        }
    }

    /// A lease given back by whoever holds its newest token.
    pub(super) fn give_back(&mut self, address: &Address, effect: EffectId, resource: Arc<str>, token: u64) {
        let name = (address.tenant.clone(), resource);
        let shard = self.shard_of(&address.tenant);
        let held = self.shards[shard].leases.get(&name);
        let own = |holder: &&Holder| holder.token == token && holder.agent == *address;
        let Some(own) = held.and_then(|row| row.holders.iter().find(own)) else {
            return self.answer_failed(address, effect, Code::LeaseLost, "it is not held with this token");
        };
        let (until, run) = (own.until, own.effect.run);
        self.free(&name, token, until, run);
        self.answer_done(address, effect, Payload::empty());
        self.serve_line(&name);
    }

    /// Leases whose time is over are free.
    pub(super) fn lease_rings(&mut self, name: &Name) {
        let now = self.now;
        self.free_leases(name, |holder| holder.until <= now);
    }

    /// Leases of a run that is over are free.
    pub(super) fn free_run(&mut self, run: RunKey) {
        let held = self.lent.remove(&run).unwrap_or_default();
        for name in held {
            self.free_leases(&name, |holder| holder.effect.run == run);
        }
    }

    fn free_leases(&mut self, name: &Name, over: impl Fn(&Holder) -> bool) {
        let shard = self.shard_of(&name.0);
        let Some(row) = self.shards[shard].leases.get(name) else { return };
        let holders = row.holders.iter().filter(|holder| over(holder));
        let over: Vec<(u64, At, RunKey)> = holders.map(|h| (h.token, h.until, h.effect.run)).collect();
        for (token, until, run) in over {
            self.free(name, token, until, run);
        }
        self.serve_line(name);
    }

    /// One lease ends, and nothing is left of it here.
    fn free(&mut self, name: &Name, token: u64, until: At, run: RunKey) {
        let (tenant, resource) = name.clone();
        let shard = self.shard_of(&tenant);
        self.append(shard, None, Event::Freed { tenant, resource, token });
        let left = self.shards[shard].leases.get(name).map_or(&[][..], |row| &row.holders);
        if left.iter().all(|holder| holder.until != until) {
            self.alarms.disarm(until, Alarm::Lease(name.clone()));
        }
        if left.iter().all(|holder| holder.effect.run != run)
            && let Some(lent) = self.lent.get_mut(&run)
        {
            lent.remove(name);
            if lent.is_empty() {
                self.lent.remove(&run);
            }
        }
    }

    pub(super) fn arm_leases(&mut self) {
        let leases = self.shards.iter().flat_map(|shard| &shard.leases);
        let held: Vec<(At, RunKey, Name)> = leases
            .flat_map(|(name, row)| row.holders.iter().map(|h| (h.until, h.effect.run, name.clone())))
            .collect();
        for (until, run, name) in held {
            self.lent.entry(run).or_default().insert(name.clone());
            self.alarms.arm(until, Alarm::Lease(name));
        }
    }

    /// An effect wants to write a value, whose version must be known first.
    pub(super) fn want_value(&mut self, address: &Address, effect: EffectId, key: Arc<str>) {
        let name = (address.tenant.clone(), key);
        let slot = self.slot_of(&name);
        let known =
            slot.writers.iter().any(|writer| matches!(writer, Writer::Effect(of, _) if *of == effect));
        if !known {
            slot.writers.push(Writer::Effect(effect, address.clone()));
        }
        self.serve_value(&name);
    }

    /// Somebody outside wants to.
    pub(super) fn put_from_outside(&mut self, input: Input) {
        let Input::Put { tenant, key, .. } = &input else { return };
        let name = (tenant.clone(), key.clone());
        self.slot_of(&name).writers.push(Writer::Outside(Box::new(input)));
        self.serve_value(&name);
    }

    /// An effect waits for a version newer than one it knows.
    pub(super) fn watch(&mut self, address: &Address, effect: EffectId, key: Arc<str>, version: u64) {
        let name = (address.tenant.clone(), key);
        let slot = self.slot_of(&name);
        if !slot.watchers.iter().any(|(watching, _, _)| *watching == effect) {
            slot.watchers.push((effect, address.clone(), version));
        }
        self.serve_value(&name);
    }

    fn slot_of(&mut self, name: &Name) -> &mut ValueSlot {
        if !self.values.contains_key(name) {
            self.out.push(Effect::LoadValue(name.0.clone(), name.1.clone()));
        }
        self.values.entry(name.clone()).or_default()
    }

    pub(super) fn value_loaded(&mut self, name: &Name, row: Option<Box<ValueRow>>) {
        let Some(slot) = self.values.get_mut(name).filter(|slot| !slot.here) else { return };
        slot.here = true;
        if let Some(row) = row {
            let shard = self.shard_of(&name.0);
            self.shards[shard].values.insert(name.clone(), *row);
        }
        self.serve_value(name);
    }

    fn serve_value(&mut self, name: &Name) {
        let Some(slot) = self.values.get_mut(name).filter(|slot| slot.here) else { return };
        for writer in std::mem::take(&mut slot.writers) {
            match writer {
                Writer::Effect(effect, address) => self.write_by_effect(name, effect, &address),
                Writer::Outside(input) => self.write_from_outside(name, *input),
            }
        }
        self.serve_watchers(name);
        self.rest_value(name);
    }

    /// A value that nobody waits for leaves memory once it is on disk.
    fn rest_value(&mut self, name: &Name) {
        let shard = self.shard_of(&name.0);
        let seq = self.shards[shard].row.seq;
        if let Some(slot) = self.values.get_mut(name).filter(|slot| slot.here && slot.watchers.is_empty())
            && slot.rests != seq
        {
            slot.rests = seq;
            self.values_idle.push_back((shard, seq, name.clone()));
        }
    }

    fn write_by_effect(&mut self, name: &Name, effect: EffectId, address: &Address) {
        let Some(row) = self.pending(address, effect) else { return };
        let Work::Put { value, expect, .. } = row.work.clone() else { return };
        if let Some(row) = self.value(name).filter(|row| row.by == Some(effect)) {
            let version = row.version;
            return self.answer_done(address, effect, version_text(version));
        }
        match self.write(name, value, expect, Author::Effect(effect)) {
            Ok(version) => self.answer_done(address, effect, version_text(version)),
            Err(version) => {
                let why = format!("its version is {version}");
                self.answer_failed(address, effect, Code::VersionConflict, why);
            }
        }
    }

    fn write_from_outside(&mut self, name: &Name, input: Input) {
        let Input::Put { ticket, value, expect, by, .. } = input else { return };
        match self.write(name, value, expect, Author::Outside(by)) {
            Ok(version) => self.reply(self.shard_of(&name.0), ticket, Reply::Version(version)),
            Err(version) => self.refuse(ticket, Code::VersionConflict, format!("its version is {version}")),
        }
    }

    /// Writes a value if it has the version expected; answers with its version.
    fn write(
        &mut self,
        name: &Name,
        value: Option<Payload>,
        expect: Option<u64>,
        author: Author,
    ) -> Result<u64, u64> {
        let row = self.value(name);
        let newest = row.map_or(0, |row| row.version);
        // Whoever removed a value expects it to be none afterwards.
        let present = row.filter(|row| row.value.is_some()).map_or(0, |row| row.version);
        if expect.is_some_and(|expect| expect != present) {
            return Err(present);
        }
        let (tenant, key) = name.clone();
        let shard = self.shard_of(&tenant);
        let version = newest + 1;
        let (by, who) = match author {
            Author::Effect(effect) => (Some(effect), None),
            Author::Outside(who) => (None, Some(who)),
        };
        self.append(shard, None, Event::Put { tenant, key, value, version, by, who });
        Ok(version)
    }

    fn serve_watchers(&mut self, name: &Name) {
        let row = self.value(name).cloned();
        let version = row.as_ref().map_or(0, |row| row.version);
        let Some(slot) = self.values.get_mut(name) else { return };
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut slot.watchers).into_iter().partition(|(_, _, known)| version > *known);
        slot.watchers = waiting;
        let value = row.and_then(|row| row.value).unwrap_or_else(Payload::empty);
        for (effect, address, _) in due {
            self.answer_done(&address, effect, value.clone());
        }
    }

    /// Values that are on disk and that nobody waits for leave memory.
    pub(super) fn forget_values(&mut self) {
        while let Some((shard, seq, _)) = self.values_idle.front() {
            if !self.is_durable(*shard, *seq) {
                break;
            }
            let Some((shard, seq, name)) = self.values_idle.pop_front() else { break };
            // One that was used since comes again later.
            let Some(slot) = self.values.get_mut(&name).filter(|slot| slot.rests == seq) else { continue };
            slot.rests = 0;
            if slot.here && slot.writers.is_empty() && slot.watchers.is_empty() {
                self.values.remove(&name);
                self.shards[shard].values.remove(&name);
            }
        }
    }

    /// The effect no longer waits for a lease or a value.
    pub(super) fn unwait(&mut self, address: &Address, effect: EffectId) {
        let Some(row) = self.pending(address, effect) else { return };
        match row.work.clone() {
            Work::Acquire { resource, .. } => self.leave_line(&(address.tenant.clone(), resource), effect),
            Work::Watch { key, .. } => {
                let name = (address.tenant.clone(), key);
                if let Some(slot) = self.values.get_mut(&name) {
                    slot.watchers.retain(|(watching, _, _)| *watching != effect);
                    self.rest_value(&name);
                }
            }
            Work::Publish { .. } => drop(self.told.remove(&effect)),
            Work::Monitor { agent } => {
                if let Some(peer) = self.addressee(address, &agent) {
                    self.follow(Input::Unwatch { effect, peer });
                }
            }
            _ => {}
        }
    }
}

fn version_text(version: u64) -> Payload {
    Payload::text(&format!("{{\"version\":{version}}}"))
}
