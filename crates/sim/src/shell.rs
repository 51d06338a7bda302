//! What the shell would do: perform the kernel's effects against the fleet, the disk and
//! the clients, and report what comes of it. It behaves as `node` promises to: when a
//! client goes, its upstream call ends in the same moment (I8).

use seawall_kernel::effect::{Grant, Refusal, Settlement};
use seawall_kernel::{Effect, Input};
use seawall_model::{CallId, Millis, Outcome, ReplicaId, Usage};

use crate::attempt::{Attempt, Fate};
use crate::calls::Told;
use crate::disk::Draw;
use crate::lie::Lie;
use crate::world::{Event, Phase, World};

impl World {
    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch(grant) => self.dispatch(&grant),
            Effect::Refuse(refusal) => self.refuse(&refusal),
            Effect::Settle(settlement) => self.settle(&settlement),
            Effect::Draw { account, window, ceiling } => {
                let takes = 100 + self.rng.below(self.scenario.shell.disk_us_max);
                let at = self.disk.draw(self.now, Draw { account, window, ceiling }, takes);
                self.plan_event(at, Event::Durable { life: self.life });
            }
            Effect::Spent { account, window, spent } => {
                self.disk.note(account, window, spent);
                if !std::mem::replace(&mut self.settling, true) {
                    self.plan_in(self.scenario.shell.disk_us_max, Event::Settle { life: self.life });
                }
            }
            Effect::Halt { call } => self.halts.push(call),
            Effect::Probe { replica } => {
                self.bounds.half_open(replica);
                let takes = 500 + self.rng.below(20_000);
                self.plan_in(takes, Event::Probe { replica, life: self.life });
            }
        }
    }

    // ---- clients -------------------------------------------------------------------

    pub(crate) fn arrive(&mut self, demand: usize) {
        if let Some(next) = self.crowd.next_arrival(self.now, demand) {
            self.plan_event(next, Event::Arrive { demand });
        }
        if self.phase == Phase::Down {
            self.tally.unheard += 1;
            self.next_of_worker(demand, None);
            return;
        }
        let id = self.calls.name();
        let arrival = self.crowd.ask(self.now, demand, id, &self.plan);
        let submit = Box::new(arrival.call.submit.clone());
        self.trees.hear(&submit);
        self.calls.enter(arrival.call);
        self.tally.demands[demand].submitted += 1;
        if let Some(leaves) = arrival.leaves {
            self.plan_event(leaves, Event::Leave { call: id });
        }
        self.step(Input::Submit(submit));
    }

    pub(crate) fn next_of_worker(&mut self, demand: usize, retry_after: Option<Millis>) {
        if let Some(next) = self.crowd.next_of_worker(self.now, demand, retry_after) {
            self.plan_event(next, Event::Arrive { demand });
        }
    }

    pub(crate) fn leave(&mut self, call: CallId) {
        let delay = self.rng.below(self.scenario.shell.leave_us_max);
        self.plan_in(delay, Event::Noticed { call });
    }

    /// The shell sees that a client has gone.
    pub(crate) fn notice(&mut self, id: CallId) {
        if self.phase == Phase::Down {
            return;
        }
        if let Some(call) = self.calls.live(id) {
            let usage = match call.attempt {
                Some(attempt) => self.end_attempt(attempt, Told::Cancelled),
                None => {
                    self.calls.end_attempt(self.now, id, Told::Cancelled, Usage::default());
                    Usage::default()
                }
            };
            self.step(Input::Cancelled { call: id, usage });
        } else if self.rng.chance(0.5) {
            // The answer and the leaving crossed: the kernel must not mind.
            self.step(Input::Cancelled { call: id, usage: Usage::default() });
        }
    }

    // ---- effects -------------------------------------------------------------------

    fn dispatch(&mut self, grant: &Grant) {
        self.attempt_next += 1;
        let id = self.attempt_next;
        let first = grant.attempt == 1;
        let call = self.calls.dispatch(self.now, grant, id, &self.plan);
        let (deadline, tenant) = (call.submit.deadline, call.submit.tenant.clone());
        let (tokens, upstream) = (call.output, call.upstream);
        let submit = call.submit.clone();
        self.trees.grant(&self.plan, &submit);
        *self.tally.attempts.entry(grant.engine).or_default() += 1;
        self.count_dispatch(grant);
        self.bounds.grant(self.now, grant.call, grant.replica, upstream);
        self.rules.grant(self.now, &self.plan, &tenant, first);
        self.accounts.grant(self.now, &self.plan, &tenant, first);
        let machine = self.fleet.index_of(grant.replica).expect("scenarios have a machine for each replica");
        let fate = Fate::of(&self.scenario.odds, self.rng.below(1_000), tokens);
        self.attempts.insert(id, Attempt::new(grant, machine, self.now, fate));
        let way = self.network();
        self.plan_in(way, Event::Reach { attempt: id });
        self.plan_in(self.scenario.shell.first_ms_max.micros(), Event::Silence { attempt: id });
        if let Some(deadline) = deadline {
            self.plan_event(deadline, Event::Deadline { attempt: id });
        }
    }

    /// The watch over fairness: it waits no more, and this much of it is in flight.
    fn count_dispatch(&mut self, grant: &Grant) {
        if !self.scenario.plain {
            return;
        }
        let call = self.calls.live_mut(grant.call).expect("it was just dispatched");
        let rule =
            self.plan.engines.iter().find(|engine| engine.id == grant.engine).map(|engine| engine.cost);
        let rule = rule.expect("the book has checked that the engine exists");
        // Without a limit the kernel may expect as much as the model can give.
        let most = call.submit.output_max.map_or(512, |most| most.0).max(call.output);
        let prompt = call.submit.prompt.0 * u64::from(rule.input);
        // Where prompts or runs return, the kernel counts on caches, of which only the end
        // of a call tells the truth; a cached token costs a tenth.
        let returns = call.submit.run.is_some() || self.scenario.demands[call.demand].shared_blocks > 0;
        call.served = (prompt, most * u64::from(rule.output) + if returns { prompt } else { 0 });
        let (class, tenant) = (call.submit.class, &call.submit.tenant);
        if std::mem::take(&mut call.queued) {
            self.fairness.wait(&self.plan, grant.engine, class, tenant, false);
        }
        self.fairness.dispatch(&self.plan, grant.engine, class, tenant, call.served);
    }

    pub(crate) fn network(&mut self) -> u64 {
        self.rng.below(self.scenario.shell.network_us_max + 1)
    }

    fn refuse(&mut self, refusal: &Refusal) {
        if let Some(call) = self.calls.live(refusal.call) {
            self.trees.refuse(&self.plan, &call.submit, refusal.code);
        }
        self.calls.refuse(refusal);
    }

    fn settle(&mut self, settlement: &Settlement) {
        let ended = self.calls.settle(self.now, settlement);
        if ended.outcome == Outcome::Done {
            self.trees.answered(&self.plan, &ended.call.submit);
        }
        self.accounts.settle(self.now, &self.plan, &ended, settlement.cost.0);
        self.tally.settle(self.scenario.start, self.now, &ended, settlement);
        let call = ended.call;
        if call.queued {
            let engine = self
                .plan
                .models
                .iter()
                .find(|model| model.id == call.submit.model)
                .map(|model| model.targets[0]);
            let engine = engine.expect("plain worlds keep their models");
            self.fairness.wait(&self.plan, engine, call.submit.class, &call.submit.tenant, false);
        }
        self.next_of_worker(call.demand, call.retry_after);
    }

    // ---- probes --------------------------------------------------------------------

    pub(crate) fn probed(&mut self, replica: ReplicaId, life: u64) {
        if life != self.life || self.phase == Phase::Down {
            return;
        }
        let machine = self.fleet.index_of(replica).expect("scenarios have a machine for each replica");
        let healthy = self.fleet.at(machine).well();
        self.step(Input::Probed { replica, healthy });
    }

    // ---- disk ----------------------------------------------------------------------

    pub(crate) fn durable(&mut self, life: u64) {
        if life != self.life || self.phase == Phase::Down {
            return;
        }
        let Some(Draw { account, window, ceiling }) = self.disk.write_one() else {
            return;
        };
        if self.scenario.lie != Some(Lie::LoseDisk) {
            self.accounts.draw(&account, window, ceiling);
        }
        self.step(Input::Drawn { account, window, ceiling });
    }

    pub(crate) fn settle_disk(&mut self, life: u64) {
        if life == self.life {
            self.settling = false;
            self.disk.settle();
        }
    }
}
