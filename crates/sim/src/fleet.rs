//! The machines behind the replicas: each a `load` engine with a clock of its own that
//! can run slow or stand still, a process that can die, and a provider's rate limit.

use std::collections::BTreeMap;

use seawall_kernel::input::RateReport;
use seawall_load::engine::{Engine, Event, Full, Job, Spec, State};
use seawall_model::{At, Millis, ReplicaId};

use crate::scenario::{self, Provider, Trouble};

/// A clock that runs at one `slow`-th of the world's, or stands still at zero.
#[derive(Clone, Copy, Debug)]
struct Drift {
    world: At,
    local: At,
    slow: u64,
}

impl Drift {
    fn local(&self, now: At) -> At {
        At(self.local.0 + now.micros_since(self.world).checked_div(self.slow).unwrap_or(0))
    }

    /// The first moment of the world at which the local clock shows `local`.
    fn world(&self, local: At) -> Option<At> {
        (self.slow > 0).then(|| At(self.world.0 + local.micros_since(self.local) * self.slow))
    }

    fn set(&mut self, now: At, slow: u64) {
        *self = Self { world: now, local: self.local(now), slow };
    }
}

/// How a machine answers a new call before any work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It takes it in.
    Taken,
    /// Nobody listens.
    Refused,
    /// 429.
    Limited(Option<Millis>),
    /// 503.
    Busy,
    /// 401.
    Locked,
    /// 400: the prompt is longer than its memory.
    TooLong,
}

/// One replica's machine.
#[derive(Debug)]
pub struct Machine {
    /// The replica it stands behind.
    pub replica: ReplicaId,
    spec: Spec,
    engine: Engine,
    drift: Drift,
    down: bool,
    hung: bool,
    slow: u64,
    storm: Option<Option<Millis>>,
    burst: u64,
    locked: bool,
    provider: Option<Provider>,
    provider_left: u32,
    provider_reset: At,
    /// When the world will next look at it, and the number of that appointment: older
    /// appointments are void.
    due: Option<At>,
    stamp: u64,
}

impl Machine {
    fn new(machine: &scenario::Machine, start: At) -> Self {
        Self {
            replica: machine.replica,
            spec: machine.spec.clone(),
            engine: Engine::new(machine.spec.clone()),
            drift: Drift { world: start, local: start, slow: 1 },
            down: false,
            hung: false,
            slow: 1,
            storm: None,
            burst: 0,
            locked: false,
            provider: machine.provider,
            provider_left: machine.provider.map_or(0, |provider| provider.calls),
            provider_reset: start,
            due: None,
            stamp: 0,
        }
    }

    /// Offers it a call. `luck` in 0..100 decides what chance decides.
    pub fn offer(&mut self, now: At, job: Job, luck: u64) -> Greeting {
        if self.down {
            return Greeting::Refused;
        }
        if self.locked {
            return Greeting::Locked;
        }
        if let Some(retry_after) = self.storm {
            return Greeting::Limited(retry_after);
        }
        if luck < self.burst {
            return Greeting::Busy;
        }
        if let Some(provider) = self.provider {
            self.turn_window(now, provider);
            if self.provider_left == 0 {
                return Greeting::Limited(Some(Millis(
                    self.provider_reset.micros_since(now).div_ceil(1_000),
                )));
            }
            self.provider_left -= 1;
        }
        let local = self.drift.local(now);
        match self.engine.submit(local, job) {
            Ok(()) => Greeting::Taken,
            Err(Full::Queue) => Greeting::Busy,
            Err(Full::Context) => Greeting::TooLong,
        }
    }

    fn turn_window(&mut self, now: At, provider: Provider) {
        if now >= self.provider_reset {
            self.provider_reset = now.plus(provider.window);
            self.provider_left = provider.calls;
        }
    }

    /// What its provider says in the headers of an answer.
    pub fn report(&mut self, now: At) -> Option<RateReport> {
        let provider = self.provider?;
        self.turn_window(now, provider);
        Some(RateReport {
            calls_left: Some(self.provider_left),
            tokens_left: None,
            reset: Some(Millis(self.provider_reset.micros_since(now).div_ceil(1_000))),
        })
    }

    /// Takes a job out. False when there is none such.
    pub fn cancel(&mut self, now: At, job: u64) -> bool {
        let local = self.drift.local(now);
        self.engine.cancel(local, job)
    }

    /// Lets it work up to now.
    pub fn advance(&mut self, now: At, out: &mut Vec<Event>) {
        if !self.down {
            self.engine.advance(self.drift.local(now), out);
        }
    }

    /// Would it answer a probe?
    #[must_use]
    pub const fn well(&self) -> bool {
        !self.down && !self.hung
    }

    /// What can be seen of its engine.
    #[must_use]
    pub fn state(&self) -> State {
        self.engine.state()
    }

    /// The next appointment, if it has moved: when, and its number.
    pub fn appoint(&mut self) -> Option<(At, u64)> {
        let due = self.engine.next_step().and_then(|local| self.drift.world(local));
        if due == self.due {
            return None;
        }
        self.due = due;
        self.stamp += 1;
        due.map(|at| (at, self.stamp))
    }

    /// Is this the appointment that still holds? It is used up by asking.
    pub fn keep(&mut self, stamp: u64) -> bool {
        let holds = stamp == self.stamp;
        if holds {
            self.due = None;
        }
        holds
    }

    /// Something goes wrong. True when its process died, and all its jobs with it.
    pub fn suffer(&mut self, now: At, trouble: Trouble) -> bool {
        match trouble {
            Trouble::Crash => {
                self.down = true;
                self.engine = Engine::new(self.spec.clone());
            }
            Trouble::Hang => self.hung = true,
            Trouble::Slow(times) => self.slow = times.max(1),
            Trouble::Storm(retry_after) => self.storm = Some(retry_after),
            Trouble::Burst(percent) => self.burst = percent,
            Trouble::Locked => self.locked = true,
        }
        self.set_drift(now);
        trouble == Trouble::Crash
    }

    /// It is over.
    pub fn recover(&mut self, now: At, trouble: Trouble) {
        match trouble {
            Trouble::Crash => self.down = false,
            Trouble::Hang => self.hung = false,
            Trouble::Slow(_) => self.slow = 1,
            Trouble::Storm(_) => self.storm = None,
            Trouble::Burst(_) => self.burst = 0,
            Trouble::Locked => self.locked = false,
        }
        self.set_drift(now);
    }

    fn set_drift(&mut self, now: At) {
        self.drift.set(now, if self.hung { 0 } else { self.slow });
    }
}

/// All machines.
#[derive(Debug)]
pub struct Fleet {
    machines: Vec<Machine>,
    by_replica: BTreeMap<ReplicaId, usize>,
}

impl Fleet {
    /// The machines of a scenario, all well.
    #[must_use]
    pub fn new(machines: &[scenario::Machine], start: At) -> Self {
        let by_replica =
            machines.iter().enumerate().map(|(index, machine)| (machine.replica, index)).collect();
        Self { machines: machines.iter().map(|machine| Machine::new(machine, start)).collect(), by_replica }
    }

    /// The machine behind a replica.
    #[must_use]
    pub fn index_of(&self, replica: ReplicaId) -> Option<usize> {
        self.by_replica.get(&replica).copied()
    }

    /// A machine by its place.
    pub fn at(&mut self, index: usize) -> &mut Machine {
        &mut self.machines[index]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_model::{EngineId, Tokens};

    fn machine() -> Machine {
        let spec = scenario::Machine {
            replica: ReplicaId(1),
            engine: EngineId(0),
            spec: Spec::default(),
            provider: None,
        };
        Machine::new(&spec, At(1_000))
    }

    fn job(id: u64) -> Job {
        Job { id, prompt: Tokens(10), prefix: Box::default(), output: Tokens(5) }
    }

    #[test]
    fn a_slow_clock_keeps_its_appointments() {
        let mut drift = Drift { world: At(100), local: At(100), slow: 3 };
        for local in 100..200 {
            let world = drift.world(At(local)).expect("it runs");
            assert_eq!(drift.local(world), At(local));
        }
        drift.set(At(130), 0);
        assert_eq!((drift.local(At(999)), drift.world(At(111))), (At(110), None));
    }

    #[test]
    fn a_hung_machine_takes_calls_and_does_nothing_until_it_wakes() {
        let mut machine = machine();
        machine.suffer(At(1_000), Trouble::Hang);
        assert_eq!(machine.offer(At(1_000), job(1), 0), Greeting::Taken);
        let mut out = Vec::new();
        machine.advance(At(60_000_000), &mut out);
        assert!(out.is_empty() && machine.appoint().is_none());
        machine.recover(At(60_000_000), Trouble::Hang);
        let (due, stamp) = machine.appoint().expect("work again");
        assert!(due > At(60_000_000) && machine.keep(stamp));
        machine.advance(due, &mut out);
        assert!(matches!(out[..], [Event::FirstToken { id: 1, .. }]));
    }

    #[test]
    fn a_crash_loses_every_job() {
        let mut machine = machine();
        assert_eq!(machine.offer(At(1_000), job(1), 0), Greeting::Taken);
        assert!(machine.suffer(At(2_000), Trouble::Crash));
        assert_eq!(machine.offer(At(2_000), job(2), 0), Greeting::Refused);
        assert_eq!((machine.state().running, machine.cancel(At(2_000), 1)), (0, false));
    }
}
