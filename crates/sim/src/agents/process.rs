//! The process: how it begins on what is on disk, how it is told to end, and how it dies.

use seawall_kernel::agents::Agents;
use seawall_kernel::agents::input::Input;
use seawall_model::Millis;

use super::lie::Lie;
use super::world::{Flying, Happening, World};

impl World {
    /// The process begins.
    pub(super) fn open(&mut self) {
        if self.agents.is_some() {
            return;
        }
        self.ahead.clone_from(&self.books.fold);
        let mut rules = self.rules.clone();
        if let Some(lie) = self.plan.lie {
            rules = lie.rules(rules);
            if let Lie::Reseed(seed) = lie {
                rules.seed ^= seed;
            }
        }
        self.trace.add(self.now, '-', &("open", self.life));
        let now = self.clock();
        self.trouble.heard = now;
        self.in_force();
        let mut agents = Agents::open(now, rules, self.disk.opened(), self.disk.runs_live());
        let (mut rows, runs) = self.disk.at_work(self.clock());
        if let Some(lie) = self.plan.lie {
            lie.rows(&mut rows);
        }
        let mut out = Vec::new();
        agents.restore(now, rows, runs, &mut out);
        self.agents = Some(Box::new(agents));
        self.after(out);
    }

    /// The process dies, unless faults are over.
    pub(super) fn crash(&mut self) {
        if self.agents.is_some() && (!self.calm || self.plan.crash_at.is_some()) {
            self.die();
        }
    }

    /// The process is told to end, and does after a while.
    pub(super) fn drain(&mut self) {
        if self.agents.is_none() || self.trouble.draining.is_some() {
            return;
        }
        self.tally.happen("drained");
        self.step(Input::Drain);
        self.trouble.draining = Some(self.trouble.heard);
        let patience = Millis(1_000 + self.rng.below(8_000));
        self.later(patience, Happening::Die);
    }

    /// The process dies: what was not on disk is gone, what was on its way to a tool may
    /// have arrived.
    pub(super) fn die(&mut self) {
        if self.agents.take().is_none() {
            return;
        }
        self.trace.add(self.now, '-', &"crash");
        self.tally.crashes += 1;
        // A transaction under way is whole or not there.
        if let Some(batch) = self.writing.take() {
            self.tally.happen("torn");
            if self.plan.lie == Some(Lie::HalfWrites) {
                self.disk.tear(&batch);
            } else if self.rng.chance(0.3) {
                self.tally.happen("torn, whole on disk");
                self.commit(&batch);
            }
        }
        self.books.forget_bills();
        for (_, flight) in std::mem::take(&mut self.flights) {
            self.drop_flight(&flight);
        }
        self.life += 1;
        self.tick = None;
        self.turns.clear();
        self.tickets.clear();
        self.trouble.die();
        // Nobody was told that a stop holds which is not on disk.
        self.halts = self.books.fold[0].row.halts.iter().map(|stop| stop.scope.clone()).collect();
        // Whoever heard nothing reads it from the rows.
        let over = self.books.runs.iter().filter(|(_, line)| line.over.is_some());
        self.told_over.extend(over.map(|(run, _)| *run));
        let down = Millis(self.rng.below(3_000));
        self.later(down, Happening::Reopen);
    }

    /// What is on its way arrives or does not.
    pub(super) fn drop_flight(&mut self, flight: &Flying) {
        if flight.to_execute && self.rng.chance(0.5) {
            self.tools.execute(flight.effect, flight.class, flight.undo);
        }
    }
}
