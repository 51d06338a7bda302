//! Effects under way: from the record of the turn that asked for them, over the gate's
//! approval and a place in a pool, to being performed, tried again, answered, or in doubt.

use std::sync::Arc;

use seawall_model::durable::{Pending, Stage};
use seawall_model::effect::{Answer, EffectId, Spend, Verdict, Work};
use seawall_model::journal::Event;
use seawall_model::{Address, At, Code, Millis, Payload, RunKey};

use super::effect::{Effect, Notice, Perform};
use super::input::Report;
use super::machine::{Agents, Errand, Flight, Slot};
use super::pool::{Kin, Pool};
use super::shard::pending;

/// Whoever waits for a spent budget looks at it again after so long.
const BUDGET_LOOK: Millis = Millis(30_000);

impl Agents {
    /// The effect, if it is under way.
    pub(super) fn pending(&self, address: &Address, effect: EffectId) -> Option<&Pending> {
        let agent = self.agent(address)?;
        agent.pending.get(pending(agent, effect)?)
    }

    /// An effect that was just recorded, or became ready again.
    pub(super) fn begin_effect(&mut self, address: &Address, effect: EffectId) {
        let Some(row) = self.pending(address, effect) else { return };
        match &row.stage {
            Stage::Ready { .. } if row.is_ready(self.now) => {}
            Stage::Approving { .. } => {
                let notice = Notice::Asked { effect, address: address.clone() };
                return self.once_durable(self.shard_of(&address.tenant), Effect::Notice(notice));
            }
            _ => return,
        }
        if self.halted(address, Some(effect.run)).is_some() {
            // It begins when the stop is lifted.
            return;
        }
        // A tool from outside is stopped where its place is given.
        let ours = !matches!(row.work, Work::Tool { .. });
        if ours && row.work.tool().is_some_and(|tool| self.tool_halted(tool)) {
            return self.answer(address, effect, tool_stopped(), Spend::default(), None);
        }
        match row.work.clone() {
            Work::Model { .. } | Work::Tool { .. } => self.line_up(address, effect),
            Work::Get { .. } => {
                let flies = self.live(address).is_some_and(|live| live.flights.contains_key(&effect));
                if !flies {
                    self.fly(address, effect, Errand::Do);
                }
            }
            Work::Put { key, .. } => self.want_value(address, effect, key),
            Work::Watch { key, version } => self.watch(address, effect, key, version),
            Work::Message { to, body } => self.post(address, effect, &to, body),
            Work::Publish { topic, body } => self.publish(address, effect, &topic, &body),
            Work::Subscribe { topic, on } => self.subscribe(address, effect, topic, on),
            Work::Acquire { resource, .. } => self.acquire(address, effect, resource),
            Work::Release { resource, token } => self.give_back(address, effect, resource, token),
            Work::Child { .. } => self.begin_child(address, effect),
            Work::Monitor { agent } | Work::Link { agent, .. } => self.begin_tie(address, effect, &agent),
            Work::Timer { .. } | Work::Promise { .. } => {}
        }
    }

    /// Waits for a place in the pool of its model or tool.
    fn line_up(&mut self, address: &Address, effect: EffectId) {
        let now = self.now;
        let Some(tree) = self.run(address, effect.run).map(|row| row.root) else { return };
        let expires = self.agent(address).map_or(At::MAX, |agent| agent.expires);
        let deadline = self.pending(address, effect).map_or(expires, |row| row.until.min(expires));
        let Some(live) = self.live(address) else { return };
        if live.flights.contains_key(&effect) || !live.lined.insert(effect) {
            return;
        }
        if let Some(pool) = self.pool(address, effect) {
            pool.enter(effect, &address.tenant, Kin { tree, run: effect.run }, now, deadline);
        }
    }

    fn pool(&mut self, address: &Address, effect: EffectId) -> Option<&mut Pool<EffectId>> {
        match &self.pending(address, effect)?.work {
            Work::Model { .. } => Some(&mut self.models),
            Work::Tool { tool, .. } => {
                let server: Arc<str> = tool.split('.').next().unwrap_or_default().into();
                let places = self.tool_places(&server);
                let weights = &self.rules.weights;
                Some(self.tools.entry(server).or_insert_with(|| {
                    let mut pool = Pool::new(places);
                    pool.weigh(weights);
                    pool
                }))
            }
            _ => None,
        }
    }

    /// A place is this effect's: it is done now, or its place given up.
    pub(super) fn perform(&mut self, effect: EffectId) {
        let Some(address) =
            self.shards.get(usize::from(effect.run.shard())).and_then(|s| s.agent_of(effect.run))
        else {
            return self.leave_every_pool(effect);
        };
        if let Some(live) = self.live(&address) {
            live.lined.remove(&effect);
        }
        let Some(row) = self.pending(&address, effect) else { return self.leave_every_pool(effect) };
        let tool = matches!(row.work, Work::Tool { .. }).then(|| row.work.object().to_owned());
        if tool.is_some_and(|tool| self.tool_halted(&tool)) {
            self.leave_pool(&address, effect);
            return self.answer(&address, effect, tool_stopped(), Spend::default(), None);
        }
        if self.halted(&address, Some(effect.run)).is_some() {
            // It lines up again when the stop is lifted.
            return self.leave_pool(&address, effect);
        }
        self.fly(&address, effect, Errand::Do);
    }

    /// Hands the effect to the shell, once what led to it is on disk. What must not be sent
    /// twice is noted beforehand.
    pub(super) fn fly(&mut self, address: &Address, effect: EffectId, errand: Errand) {
        self.fly_on(address, effect, errand, At(0), None);
    }

    /// The same, for an errand that was tried before perhaps. What is undone by it is not
    /// done `again` before then.
    pub(super) fn fly_on(
        &mut self,
        address: &Address,
        effect: EffectId,
        errand: Errand,
        again: At,
        before: Option<Flight>,
    ) {
        let Some(row) = self.pending(address, effect) else { return };
        if !row.class.repeats() && errand == Errand::Do && row.stage != Stage::Attempted {
            self.record(address, Event::Attempted { effect });
        }
        let Some(row) = self.pending(address, effect) else { return };
        let Some(run) = self.run(address, effect.run) else { return };
        // What is undone after a long stop has time for it all the same.
        let until = match (errand, before) {
            (_, Some(before)) => before.until,
            (Errand::Do, None) => row.until,
            (Errand::Ask | Errand::Undo, None) => row.until.max(self.now.plus(self.rules.patience)),
        };
        let redact = match &row.ruling.verdict {
            Verdict::Redact(paths) => paths.clone(),
            _ => Vec::new(),
        };
        let perform = Perform {
            effect,
            address: address.clone(),
            root: run.root,
            caller: run.caller.clone(),
            version: run.version.clone(),
            turns: run.turns,
            work: row.work.clone(),
            class: row.class,
            redact,
            attempt: row.attempts + 1,
            undo: errand == Errand::Undo,
            query: errand == Errand::Ask,
            until,
            reserved: row.reserved,
        };
        let since = self.now;
        let seq = self.shard(address).row.seq;
        if let Some(live) = self.live(address) {
            let tries = before.map_or(0, |before| before.tries);
            live.flights.insert(effect, Flight { since, errand, seq, until, tries, again });
        }
        self.once_durable(self.shard_of(&address.tenant), Effect::Perform(Box::new(perform)));
    }

    /// What came of performing an effect.
    pub(super) fn report(&mut self, effect: EffectId, address: &Address, report: Report) {
        let flight = self.live(address).and_then(|live| live.flights.remove(&effect));
        if flight.is_none() {
            // It was dropped, and its answer crossed that: only that it was done matters now.
            if !matches!(report, Report::Done { .. }) {
                return;
            }
            if let Some(live) = self.live(address) {
                live.lined.remove(&effect);
            }
        }
        let shard = self.shard_of(&address.tenant);
        if flight.is_some_and(|flight| !self.is_durable(shard, flight.seq)) {
            // An earlier try was answered late, before this one was sent.
            self.withdraw(shard, |held| matches!(held, Effect::Perform(p) if p.effect == effect));
        }
        self.charge(address, effect, &report);
        self.leave_pool(address, effect);
        let Some(row) = self.pending(address, effect) else { return };
        let reserved = row.reserved;
        let doubtful = matches!(row.stage, Stage::Doubtful { .. });
        match flight.map(|flight| (flight.errand, flight)) {
            Some((Errand::Undo, flight)) => return self.undone(address, effect, &report, flight),
            Some((Errand::Ask, flight)) => return self.found(address, effect, report, flight),
            Some((Errand::Do, _)) | None => {}
        }
        match report {
            Report::Done { answer, used } => {
                let used = Spend { calls: reserved.calls, ..used };
                self.answer(address, effect, answer, used, None);
            }
            // It was in doubt already, and this says nothing new; and nobody was asked.
            _ if doubtful => {}
            Report::Found(_) => {}
            Report::NotDone { code, why, retry_after, counts, used } => {
                self.postpone(address, effect, code, why, retry_after, (counts, used));
            }
            Report::Lost { code, why, retry_after, used } => {
                self.lost(address, effect, code, why, retry_after, used);
            }
        }
        self.look(address);
    }

    fn charge(&mut self, address: &Address, effect: EffectId, report: &Report) {
        let Some(tree) = self.run(address, effect.run).map(|row| row.root) else { return };
        let cost = match report {
            Report::Done { used, .. } => used.tokens.0.max(1),
            _ => 1,
        };
        if let Some(pool) = self.pool(address, effect) {
            pool.charge(&address.tenant, tree, cost);
        }
    }

    /// Tried in vain: again after a pause, as often as the rules allow. `counts` is whether
    /// it was the effect's fault, `used` what the try cost.
    pub(super) fn postpone(
        &mut self,
        address: &Address,
        effect: EffectId,
        code: Code,
        why: Arc<str>,
        retry_after: Option<Millis>,
        (counts, used): (bool, Spend),
    ) {
        let Some(row) = self.pending(address, effect) else { return };
        let tries = row.attempts + u32::from(counts);
        let pause = self.pause(tries).max(retry_after.unwrap_or(Millis::ZERO));
        let until = self.now.plus(pause);
        let given_up = tries >= self.rules.tries_max;
        let Some(row) = self.pending(address, effect) else { return };
        if given_up || until >= row.until {
            // A call that used something was one; the reserve is settled by all of it.
            let calls = if used == Spend::default() { 0 } else { row.reserved.calls };
            let used = Spend { calls, ..used };
            return self.answer(address, effect, Answer::Failed { code, why }, used, None);
        }
        // An operator may raise a budget before its window turns.
        let look = if code == Code::BudgetExhausted { self.now.plus(BUDGET_LOOK) } else { At::MAX };
        self.try_again(address, effect, until.min(look), (code, why), counts, used);
    }

    /// Ready to be done again. What the try before cost is booked, and as much as before
    /// stays set aside for the next: without room for both there is none. `false` then.
    fn try_again(
        &mut self,
        address: &Address,
        effect: EffectId,
        until: At,
        (code, why): (Code, Arc<str>),
        counts: bool,
        used: Spend,
    ) -> bool {
        // It is one call, however often it is tried.
        let used = Spend { calls: 0, steps: 0, ..used };
        if used != Spend::default()
            && let Err((code, why)) = self.room(address, effect.run, used)
        {
            self.count_short(address, effect.run, used);
            let calls = self.pending(address, effect).map_or(0, |row| row.reserved.calls);
            let answer = Answer::Failed { code, why };
            self.answer(address, effect, answer, Spend { calls, ..used }, None);
            return false;
        }
        self.record(address, Event::Postponed { effect, until, code, why, counts, used });
        true
    }

    /// Doubles with every try; half of it is chance, so that what failed together does not
    /// come back together.
    pub(super) fn pause(&mut self, tries: u32) -> Millis {
        let whole = self.rules.pause.0.saturating_mul(1 << tries.saturating_sub(1).min(16));
        let whole = whole.min(self.rules.pause_max.0);
        Millis(whole / 2 + self.rng.below(whole / 2 + 1))
    }

    /// May the shell begin what it was handed for this effect? Asked right before, since it
    /// may have been dropped or stopped after it was handed over. What is still under way and
    /// may not begin is to be reported as not done ([`Code::RunStopped`], not counted): it is
    /// handed over again when the stop is lifted.
    #[must_use]
    pub fn may_perform(&self, effect: EffectId) -> bool {
        let Some(shard) = self.shards.get(usize::from(effect.run.shard())) else { return false };
        let Some(address) = shard.agent_of(effect.run) else { return false };
        let Some(Slot::Here(live)) = self.slots.get(&address) else { return false };
        live.flights.get(&effect).is_some_and(|flight| !self.is_held(&address, effect, flight.errand))
    }

    /// Is the effect under a stop, or the tool that does it, or undoes it? So is what is not
    /// under way any more.
    pub(super) fn is_held(&self, address: &Address, effect: EffectId, errand: Errand) -> bool {
        let Some(row) = self.pending(address, effect) else { return true };
        let halted = |tool: &Option<Arc<str>>| tool.as_ref().is_some_and(|tool| self.tool_halted(tool));
        let tool = match (&row.work, errand) {
            (Work::Tool { tool, .. }, Errand::Do) => self.tool_halted(tool),
            // Nobody asks who could do nothing about the answer.
            (Work::Tool { undo, query, .. }, Errand::Ask) => halted(query) || halted(undo),
            (Work::Tool { undo, .. }, Errand::Undo) => halted(undo),
            _ => false,
        };
        tool || self.halted(address, Some(effect.run)).is_some()
    }

    /// Records the answer to an effect, and lets the agent see it.
    pub(super) fn answer(
        &mut self,
        address: &Address,
        effect: EffectId,
        answer: Answer,
        used: Spend,
        by: Option<Arc<str>>,
    ) {
        if self.pending(address, effect).is_some() {
            // People may have answered before the world did.
            if let Some(live) = self.live(address) {
                live.rests.remove(&effect);
            }
            if self.live(address).is_some_and(|live| live.flights.remove(&effect).is_some()) {
                self.leave_pool(address, effect);
            }
            self.record(address, Event::Answered { effect, answer, used, by });
            self.look(address);
        }
    }

    /// Done, with nothing to say.
    pub(super) fn answer_done(&mut self, address: &Address, effect: EffectId, body: Payload) {
        self.answer(address, effect, Answer::Done(body), Spend::default(), None);
    }

    /// Not done, and it will not be.
    pub(super) fn answer_failed(
        &mut self,
        address: &Address,
        effect: EffectId,
        code: Code,
        why: impl Into<Arc<str>>,
    ) {
        self.answer(address, effect, Answer::Failed { code, why: why.into() }, Spend::default(), None);
    }

    fn leave_pool(&mut self, address: &Address, effect: EffectId) {
        match self.pool(address, effect) {
            Some(pool) => pool.leave(&effect),
            None => self.leave_every_pool(effect),
        }
    }

    pub(super) fn leave_every_pool(&mut self, effect: EffectId) {
        self.models.leave(&effect);
        for pool in self.tools.values_mut() {
            pool.leave(&effect);
        }
    }

    /// Drops what is live of a run that ends or begins again.
    pub(super) fn drop_live(&mut self, address: &Address, run: RunKey) {
        let own = self.agent(address).is_some_and(|agent| agent.run == Some(run));
        let effects = self.agent(address).map_or_else(Vec::new, |agent| {
            agent.pending.iter().map(|row| row.id).filter(|effect| effect.run == run).collect()
        });
        for effect in effects {
            self.unwait(address, effect);
        }
        let Some(live) = self.live(address) else { return };
        let flying: Vec<EffectId> = live.flights.keys().filter(|effect| effect.run == run).copied().collect();
        let lined: Vec<EffectId> = live.lined.iter().filter(|effect| effect.run == run).copied().collect();
        live.lined.retain(|effect| effect.run != run);
        live.rests.retain(|effect, _| effect.run != run);
        if own {
            live.turn = None;
            live.lined_up = false;
            live.deferred = None;
            self.turns.leave(address);
            self.withdraw_turn(address);
        }
        for effect in flying {
            self.drop_for_good(address, effect);
        }
        for effect in lined {
            self.leave_pool(address, effect);
        }
    }

    /// Drops what is performed for an effect of a run that ends or begins again. A model
    /// that was at work on it is to be paid, at the most that it can cost.
    fn drop_for_good(&mut self, address: &Address, effect: EffectId) {
        let sent = self.is_sent(address, effect);
        if !self.drop_flight(address, effect) || !sent {
            return;
        }
        let Some(used) =
            self.pending(address, effect).map(cost_unseen).filter(|used| *used != Spend::default())
        else {
            return;
        };
        let answer =
            Answer::Failed { code: Code::RunCancelled, why: "its run ended while it was under way".into() };
        self.record(address, Event::Answered { effect, answer, used, by: None });
    }

    /// Was the effect handed to the shell, rather than waiting for the disk?
    fn is_sent(&mut self, address: &Address, effect: EffectId) -> bool {
        let shard = self.shard_of(&address.tenant);
        let seq = self.live(address).and_then(|live| live.flights.get(&effect)).map(|flight| flight.seq);
        seq.is_some_and(|seq| self.is_durable(shard, seq))
    }

    /// Drops what is performed for an effect of a run that ends, begins again or is stopped.
    /// What must not be sent twice is let finish, so that its outcome is known, unless it
    /// was never sent.
    pub(super) fn drop_flight(&mut self, address: &Address, effect: EffectId) -> bool {
        let shard = self.shard_of(&address.tenant);
        let Some((repeats, errand)) = self.flight(address, effect) else { return false };
        if repeats {
            self.abort(shard, effect);
        } else if errand != Errand::Do
            || !self.withdraw(shard, |held| matches!(held, Effect::Perform(p) if p.effect == effect))
        {
            return false;
        } else {
            let why = Arc::from("taken back before it was sent");
            let used = Spend::default();
            let (until, code) = (self.now, Code::RunStopped);
            self.record(address, Event::Postponed { effect, until, code, why, counts: false, used });
        }
        if let Some(live) = self.live(address) {
            live.flights.remove(&effect);
        }
        self.leave_pool(address, effect);
        true
    }

    /// May what is performed for this effect be sent again, and what is it?
    fn flight(&mut self, address: &Address, effect: EffectId) -> Option<(bool, Errand)> {
        let repeats = self.pending(address, effect)?.class.repeats();
        let flight = self.live(address)?.flights.get(&effect)?;
        Some((repeats, flight.errand))
    }

    /// Takes a turn back that its handler has not seen.
    pub(super) fn withdraw_turn(&mut self, address: &Address) -> bool {
        let shard = self.shard_of(&address.tenant);
        self.withdraw(shard, |held| matches!(held, Effect::Turn(grant) if grant.address == *address))
    }

    /// What of an agent is due by now.
    pub(super) fn due(&mut self, address: &Address) {
        let Some(agent) = self.agent(address) else { return };
        if let Some(run) = agent.run
            && self
                .run(address, run)
                .is_some_and(|row| self.expires(row.began, row.allowance.wall) <= self.now)
        {
            return self.fail(address, run, Code::RunExpired, "it took longer than it may".into());
        }
        let effects: Vec<EffectId> = agent.pending.iter().map(|row| row.id).collect();
        for effect in effects {
            self.effect_due(address, effect);
        }
    }

    pub(super) fn expires(&self, began: At, wall: Option<Millis>) -> At {
        wall.map_or(At::MAX, |wall| began.plus(wall))
    }

    fn effect_due(&mut self, address: &Address, effect: EffectId) {
        let Some(row) = self.pending(address, effect) else { return };
        match (&row.stage, &row.work) {
            (Stage::Waiting, Work::Timer { at }) if *at <= self.now => {
                self.answer_done(address, effect, Payload::empty());
            }
            (Stage::Approving { until, .. }, _) if *until <= self.now => {
                self.answer_failed(address, effect, Code::ApprovalDenied, "nobody said yes in time");
            }
            (Stage::Approving { .. }, _) if row.asks_deputy().is_some_and(|at| at <= self.now) => {
                self.ask_deputy(address, effect);
            }
            (Stage::Doubtful { .. }, _) => {}
            (Stage::Attempted, _) if self.rests_until(address, effect).is_some_and(|at| at <= self.now) => {
                self.errand_due(address, effect);
            }
            (Stage::Attempted, _) if self.waits_to_be_undone(address, effect) => {}
            (stage, _) if self.gives_up(address, row) <= self.now => {
                let attempted = *stage == Stage::Attempted;
                self.give_up(address, effect, attempted);
            }
            (Stage::Ready { .. }, _) if row.is_ready(self.now) => {
                self.begin_effect(address, effect);
            }
            _ => {}
        }
    }

    /// Takes back what is performed for an effect under a stop. What it cost so far is
    /// booked at its most; it is done again when the stop is lifted, or, of a tool that is
    /// stopped, answered.
    pub(super) fn stop_flight(&mut self, address: &Address, effect: EffectId, tool: bool) {
        let sent = self.is_sent(address, effect);
        if !self.drop_flight(address, effect) {
            return;
        }
        let used = self.pending(address, effect).filter(|_| sent).map(cost_unseen).unwrap_or_default();
        if tool {
            let why = "an operator stopped this tool".into();
            return self.answer(address, effect, Answer::Failed { code: Code::RunStopped, why }, used, None);
        }
        if used != Spend::default() {
            let why = "it was stopped while it was under way".into();
            self.try_again(address, effect, self.now, (Code::RunStopped, why), false, used);
        }
    }

    /// When nobody waits for it any longer.
    pub(super) fn gives_up(&self, address: &Address, row: &Pending) -> At {
        let Some(Slot::Here(live)) = self.slots.get(address) else { return row.until };
        let rests = || live.rests.get(&row.id).map(|(_, flight)| flight);
        live.flights.get(&row.id).or_else(rests).map_or(row.until, |flight| flight.until)
    }

    /// Nobody waits for it any longer.
    fn give_up(&mut self, address: &Address, effect: EffectId, mut attempted: bool) {
        self.unwait(address, effect);
        let sent = self.is_sent(address, effect);
        if let Some(live) = self.live(address) {
            let flight = live.flights.remove(&effect);
            live.lined.remove(&effect);
            live.rests.remove(&effect);
            if let Some(flight) = flight {
                // What is to be undone was sent before.
                let withdrawn = self.abort(self.shard_of(&address.tenant), effect);
                attempted &= !withdrawn || flight.errand != Errand::Do;
            }
        }
        self.leave_pool(address, effect);
        if attempted {
            return self.doubt(address, effect, "no answer came in time".into());
        }
        let child = self.pending(address, effect).and_then(|row| row.child);
        if let Some(child) = child
            && let Some(below) = self.agent_of_child(address, child)
        {
            let by = Arc::from("the patience of the run above");
            self.follow(super::Input::Cancel { ticket: 0, run: child, address: below, by });
        }
        let used = self.pending(address, effect).filter(|_| sent).map(cost_unseen).unwrap_or_default();
        let answer = Answer::Failed { code: Code::DeadlinePassed, why: "no answer came in time".into() };
        self.answer(address, effect, answer, used, None);
    }

    /// After a crash: what was under way begins again, what may have been done is in doubt.
    pub(super) fn recover(&mut self, address: &Address) {
        let Some(agent) = self.agent(address) else { return };
        let effects: Vec<(EffectId, Stage)> =
            agent.pending.iter().map(|row| (row.id, row.stage.clone())).collect();
        for (effect, stage) in effects {
            match stage {
                Stage::Attempted => {
                    let why = Arc::from("Seawall stopped while it was under way");
                    self.lost(address, effect, Code::Internal, why, None, Spend::default());
                }
                Stage::Ready { .. } => self.begin_effect(address, effect),
                _ => {}
            }
        }
        self.follow_parents(address);
        self.tell_ties(address);
        self.due(address);
        self.look(address);
    }

    /// Runs whose parent is over, or waits for them no longer, are: the crash came between.
    fn follow_parents(&mut self, address: &Address) {
        let Some(agent) = self.agent(address) else { return };
        let forsaken = |run: &&RunKey| {
            let Some(effect) = self.run(address, **run).and_then(|row| row.parent) else { return false };
            let Some(above) = self.run(address, effect.run) else { return false };
            above.state.over()
                || self.agent(&above.agent).is_some_and(|row| row.pending.iter().all(|row| row.id != effect))
        };
        let forsaken: Vec<RunKey> = agent.run.iter().chain(&agent.queue).filter(forsaken).copied().collect();
        for run in forsaken {
            let by = Arc::from("the end of the run above");
            self.follow(super::Input::Cancel { ticket: 0, run, address: address.clone(), by });
        }
    }
}

/// What a try counts as of which nobody will say what it used: whatever has a price and was
/// at work is to be paid, at the most that it can cost, so that no budget is overspent by
/// what was paid unseen (I12).
pub(super) fn cost_unseen(row: &Pending) -> Spend {
    let priced = row.reserved.tokens.0 > 0 || row.reserved.money.0 > 0;
    if priced { row.reserved } else { Spend::default() }
}

fn tool_stopped() -> Answer {
    Answer::Failed { code: Code::RunStopped, why: "an operator stopped this tool".into() }
}
