//! Operators and fate: reloads, clean restarts, crashes, machines that fail, and the
//! drain at the end.

use seawall_kernel::input::Failure;
use seawall_kernel::{Input, Kernel};
use seawall_model::{Millis, Usage};

use crate::accounts::UsedUp;
use crate::calls::Told;
use crate::crowd;
use crate::scenario::Operation;
use crate::world::{Event, Phase, World, told_plan};

impl World {
    pub(crate) fn incident(&mut self, index: usize, begins: bool) {
        let incident = self.scenario.incidents[index];
        self.note(&(begins, incident));
        let machine = self.fleet.at(incident.machine);
        if !begins {
            machine.recover(self.now, incident.trouble);
        } else if machine.suffer(self.now, incident.trouble) {
            // Connections break: those with an answer under way see it cut, others see
            // no answer at all.
            let broken: Vec<u64> = self
                .attempts
                .iter()
                .filter(|(_, attempt)| attempt.machine == incident.machine && attempt.inside)
                .map(|(id, _)| *id)
                .collect();
            for id in broken {
                let failure = if self.attempts[&id].first { Failure::Cut } else { Failure::Connect };
                self.fail_later(id, failure);
            }
        }
        self.appoint(incident.machine);
    }

    pub(crate) fn operation(&mut self, index: usize) {
        if self.phase != Phase::Open {
            return;
        }
        match self.scenario.operations[index].1.clone() {
            Operation::Reload(plan) => self.reload(plan),
            Operation::Crash(down) => self.crash(down),
            Operation::Stop(demand) => self.stop(demand),
            Operation::Resume => {
                for run in std::mem::take(&mut self.stopped) {
                    self.trees.stop(run, false);
                    self.step(Input::Resume { run });
                }
            }
            Operation::Restart => {
                self.phase = Phase::Restarting;
                self.calls.drain();
                self.step(Input::Drain);
            }
        }
    }

    /// Stops a tree of runs: once that is answered nothing of it waits or runs.
    fn stop(&mut self, demand: usize) {
        let run = crowd::root(self.now, demand);
        self.stopped.push(run);
        self.trees.stop(run, true);
        self.step(Input::Stop { run });
        for call in std::mem::take(&mut self.halts) {
            let live = self.calls.live_mut(call).expect("only a live call is cut");
            assert!(self.trees.holds(&live.submit), "stop: {call:?} is cut, but nobody stopped its tree");
            live.halted = true;
            let attempt = live.attempt.expect("only a call that runs is cut");
            let usage = self.end_attempt(attempt, Told::Cancelled);
            self.step(Input::Cancelled { call, usage });
            self.tally.halted += 1;
        }
        let left = self.calls.iter().find(|call| self.trees.holds(&call.submit));
        assert!(left.is_none(), "stop: {left:?} goes on after its tree was stopped");
    }

    fn reload(&mut self, plan: Box<seawall_kernel::plan::Plan>) {
        self.learn((*plan).clone());
        self.accounts.forget_rules();
        self.rules.refill(false);
        self.fairness.restart(&self.plan);
        self.step(Input::Configure(plan));
    }

    /// The process dies with everything in it. Engines notice that their connections
    /// broke and drop the work; the disk keeps what it has.
    fn crash(&mut self, down: Millis) {
        self.note(&("crash", down));
        for (id, attempt) in std::mem::take(&mut self.attempts) {
            let call = self.calls.live(attempt.call).expect("an attempt's call is alive");
            let truth = if attempt.first { attempt.usage(call.prompt) } else { Usage::default() };
            let tenant = call.submit.tenant.clone();
            let used = UsedUp {
                tenant: &tenant,
                dispatched: attempt.dispatched,
                truth,
                told: Usage::default(),
                price: call.price,
            };
            self.accounts.use_up(self.now, &self.plan, &used);
            if attempt.inside {
                assert!(self.fleet.at(attempt.machine).cancel(self.now, id), "the machine holds the job");
                self.appoint(attempt.machine);
            }
        }
        let waiting = self.disk.waiting() as u64;
        let written = self.rng.below(waiting + 1);
        self.disk.crash(usize::try_from(written).expect("few draws wait"));
        for call in self.calls.lose() {
            self.tally.lost += 1;
            self.next_of_worker(call.demand, Some(down));
        }
        self.forget();
        self.fairness.lose();
        self.phase = Phase::Down;
        self.plan_in(down.micros(), Event::Start);
    }

    /// What the world believed of a kernel that is no more.
    fn forget(&mut self) {
        self.life += 1;
        self.settling = false;
        self.rules.refill(true);
        self.bounds.restart();
        self.accounts.restart();
    }

    /// A process starts with what is on disk.
    pub(crate) fn start(&mut self) {
        self.kernel = Kernel::new(self.now, told_plan(self.scenario.lie, &self.plan));
        self.learn(self.plan.clone());
        self.phase = Phase::Open;
        for (account, window, spent) in self.disk.recover() {
            self.accounts.restore(&account, window, spent);
            self.step(Input::Restored { account, window, spent });
        }
    }

    /// Now and then: does anything hang, and do both sides know the same?
    pub(crate) fn glance(&mut self) {
        self.plan_in(1_000_000, Event::Glance);
        if self.phase == Phase::Down {
            return;
        }
        self.calls.check_patience(self.now);
        for (index, machine) in self.fleet.iter().enumerate() {
            let inside =
                self.attempts.values().filter(|attempt| attempt.machine == index && attempt.inside).count();
            let state = machine.state();
            assert_eq!(
                (state.running + state.waiting) as usize,
                inside,
                "I8: {:?} works on other jobs than the shell has sent",
                machine.replica
            );
        }
        // A passive health check, as the shell makes them by itself.
        if !self.fleet.is_empty() && self.rng.chance(0.3) {
            let index = self.rng.below(self.fleet.len() as u64);
            let machine = self.fleet.at(usize::try_from(index).expect("a place in the fleet"));
            let (replica, healthy) = (machine.replica, machine.well());
            self.step(Input::Probed { replica, healthy });
        }
    }

    /// Clients stop sending, and the process is asked to end.
    pub(crate) fn close(&mut self) {
        match self.phase {
            Phase::Down => self.plan_in(100_000, Event::Close),
            Phase::Restarting => self.phase = Phase::Closing,
            Phase::Open => {
                self.phase = Phase::Closing;
                self.calls.drain();
                self.step(Input::Drain);
            }
            Phase::Closing | Phase::Over => {}
        }
    }

    /// When the last call has ended: nothing may be left anywhere.
    pub(crate) fn end_if_drained(&mut self) {
        let draining = matches!(self.phase, Phase::Closing | Phase::Restarting);
        if !draining || !self.calls.is_empty() || self.disk.waiting() > 0 {
            return;
        }
        assert!(self.attempts.is_empty(), "I8: attempts are under way after the last call has ended");
        assert!(self.kernel.idle(), "I6: the kernel is not idle after the last call has ended");
        self.kernel.check();
        let view = self.kernel.view();
        for engine in &view.engines {
            assert_eq!(
                engine.queued, [0; 3],
                "I6: calls wait for {:?} after the last has ended",
                engine.engine
            );
            let running: u32 = engine.replicas.iter().map(|replica| replica.running).sum();
            let tokens: u64 = engine.replicas.iter().map(|replica| replica.tokens.0).sum();
            assert_eq!(
                (running, tokens),
                (0, 0),
                "I8: {:?} is charged with work after the last call",
                engine.engine
            );
        }
        for tenant in &view.tenants {
            assert_eq!(
                (tenant.queued, tenant.running),
                (0, 0),
                "I8: {} has work after the last call",
                tenant.path
            );
        }
        for budget in &view.budgets {
            assert_eq!(budget.reserved, 0, "I12: {} has reservations after the last call", budget.account);
        }
        for (account, window, spent) in self.disk.close() {
            self.accounts.check_disk(self.now, &account, window, spent);
        }
        if self.scenario.strict {
            self.accounts.check_truth();
        }
        if self.phase == Phase::Closing {
            self.phase = Phase::Over;
            return;
        }
        self.forget();
        self.fairness.restart(&self.plan);
        self.calls.lose();
        self.start();
    }
}
