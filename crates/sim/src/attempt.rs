//! Attempts: one dispatched call on its way to a machine, inside it, and back, with all
//! that can go wrong in between.

use seawall_kernel::Input;
use seawall_kernel::effect::Grant;
use seawall_kernel::input::Failure;
use seawall_load::engine::{Event as Work, Job};
use seawall_model::{At, CallId, Finish, Millis, ReplicaId, Tokens, Usage};

use crate::accounts::UsedUp;
use crate::calls::{Told, Whim};
use crate::fleet::Greeting;
use crate::scenario::Odds;
use crate::world::{Event, World};

/// One attempt under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) call: CallId,
    pub(crate) machine: usize,
    pub(crate) replica: ReplicaId,
    pub(crate) dispatched: At,
    /// Does the machine's engine hold its job?
    pub(crate) inside: bool,
    /// Has the first token been generated?
    pub(crate) first: bool,
    pub(crate) tokens: u64,
    pub(crate) cached: u64,
    /// Tokens last told to the kernel.
    reported: u64,
    /// Last sign of life that the shell could see.
    heard: At,
    fate: Fate,
    /// A failure that is on its way to the shell.
    failure: Option<Failure>,
}

/// What will go wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    /// After so many tokens.
    Cut(u64),
    Garble,
    Server,
    Refuse,
    TooLarge,
    Hang,
}

impl Fate {
    /// `draw` lies in 0..1000, `tokens` is what the answer would have.
    pub(crate) const fn of(odds: &Odds, draw: u64, tokens: u64) -> Self {
        let fates = [
            (odds.cut, Self::Cut(1 + tokens * (draw % 7) / 7)),
            (odds.garble, Self::Garble),
            (odds.server, Self::Server),
            (odds.refuse, Self::Refuse),
            (odds.too_large, Self::TooLarge),
            (odds.hang, Self::Hang),
        ];
        let mut least = 0;
        let mut at = 0;
        while at < fates.len() {
            least += fates[at].0;
            if draw < least {
                return fates[at].1;
            }
            at += 1;
        }
        Self::Well
    }
}

impl World {
    // ---- attempts ------------------------------------------------------------------

    /// The shell ends an attempt, and with it at once the engine's work. Returns what it
    /// knows to have been used.
    pub(crate) fn end_attempt(&mut self, id: u64, told: Told) -> Usage {
        let attempt = self.attempts.remove(&id).expect("only an attempt under way ends");
        if attempt.inside && !matches!(told, Told::Finished(_)) {
            let machine = self.fleet.at(attempt.machine);
            assert!(
                machine.cancel(self.now, id),
                "the machine holds every job that the shell thinks it holds"
            );
            self.appoint(attempt.machine);
        }
        let call = self.calls.live(attempt.call).expect("an attempt's call is alive");
        // Of an answer that comes in one piece nothing is known before its end.
        let known = matches!(told, Told::Finished(_)) || (attempt.first && call.stream);
        let usage = if known { attempt.usage(call.prompt) } else { Usage::default() };
        let tenant = call.submit.tenant.clone();
        let used = UsedUp {
            tenant: &tenant,
            dispatched: attempt.dispatched,
            truth: usage,
            told: usage,
            price: call.price,
        };
        self.accounts.use_up(self.now, &self.plan, &used);
        if self.scenario.plain {
            let (engine, _) = call.place.expect("an attempt has a place");
            let rule = self
                .plan
                .engines
                .iter()
                .find(|known| known.id == engine)
                .map(|engine| engine.cost)
                .unwrap_or_default();
            let input = u64::from(rule.input);
            let cost = usage.uncached().0 * input
                + usage.cached.0 * input / 10
                + usage.output.0 * u64::from(rule.output);
            self.fairness.end(&self.plan, engine, call.submit.class, &tenant, call.served, cost);
        }
        self.rules.release(&tenant);
        self.bounds.end(attempt.call, attempt.replica);
        self.calls.end_attempt(self.now, attempt.call, told, usage);
        usage
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        let attempt = self.attempts[&id];
        let call = self.calls.live(attempt.call).expect("an attempt's call is alive");
        let client_began = call.stream && attempt.first;
        if let Failure::Limited { retry_after: Some(after) } = failure {
            let upstream = call.upstream;
            self.bounds.pause(self.now, attempt.replica, upstream, after);
        }
        let usage = self.end_attempt(id, Told::Failed(failure, client_began));
        self.step(Input::Failed { call: attempt.call, failure, client_began, usage });
    }

    /// An attempt reaches its machine, unless its client has gone meanwhile.
    pub(crate) fn reach(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id).copied() else {
            return;
        };
        let call = self.calls.live(attempt.call).expect("an attempt's call is alive");
        match attempt.fate {
            Fate::Hang => return,
            Fate::Server => return self.fail_later(id, Failure::Server { status: 500 }),
            Fate::Refuse => return self.fail_later(id, Failure::Refused { status: 400 }),
            _ => {}
        }
        let job = Job {
            id,
            prompt: Tokens(call.prompt),
            prefix: call.submit.prefix.clone(),
            output: Tokens(call.output),
        };
        let luck = self.rng.below(100);
        let greeting = self.fleet.at(attempt.machine).offer(self.now, job, luck);
        match greeting {
            Greeting::Taken => {
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.inside = true;
                }
                self.appoint(attempt.machine);
            }
            Greeting::Refused => self.fail_later(id, Failure::Connect),
            Greeting::Limited(retry_after) => self.fail_later(id, Failure::Limited { retry_after }),
            Greeting::Busy => self.fail_later(id, Failure::Server { status: 503 }),
            Greeting::Locked => self.fail_later(id, Failure::Credentials),
            Greeting::TooLong => self.fail_later(id, Failure::Refused { status: 400 }),
        }
    }

    /// A failure starts on its way back to the shell.
    pub(crate) fn fail_later(&mut self, id: u64, failure: Failure) {
        let way = self.network();
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.failure = Some(failure);
        attempt.inside = false;
        self.plan_in(way, Event::Fail { attempt: id });
    }

    pub(crate) fn failed(&mut self, id: u64) {
        if let Some(failure) = self.attempts.get(&id).and_then(|attempt| attempt.failure) {
            self.fail(id, failure);
        }
    }

    pub(crate) fn silence(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        let shell = &self.scenario.shell;
        let most = if attempt.heard > attempt.dispatched { shell.stall_ms_max } else { shell.first_ms_max };
        let due = attempt.heard.plus(most);
        if due <= self.now {
            self.fail(id, Failure::Timeout);
        } else {
            self.plan_event(due, Event::Silence { attempt: id });
        }
    }

    pub(crate) fn deadline(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        let streams = self.calls.live(attempt.call).is_some_and(|call| call.stream);
        if !(attempt.first && streams) {
            self.fail(id, Failure::Deadline);
        }
    }

    // ---- machines ------------------------------------------------------------------

    pub(crate) fn appoint(&mut self, machine: usize) {
        if let Some((at, stamp)) = self.fleet.at(machine).appoint() {
            self.plan_event(at, Event::Work { machine, stamp });
        }
    }

    pub(crate) fn work(&mut self, machine: usize, stamp: u64) {
        if !self.fleet.at(machine).keep(stamp) {
            return;
        }
        let mut done = Vec::new();
        self.fleet.at(machine).advance(self.now, &mut done);
        for work in &done {
            if let Work::Done { id } = work
                && let Some(attempt) = self.attempts.get_mut(id)
            {
                // The engine has let go of it by itself.
                attempt.inside = false;
            }
        }
        for work in done {
            match work {
                Work::FirstToken { id, cached } => self.first_token(id, cached),
                Work::Token { id, .. } => self.token(id),
                Work::Done { id } => self.finish(id),
                Work::Preempted { .. } => {}
            }
        }
        self.appoint(machine);
    }

    fn first_token(&mut self, id: u64, cached: Tokens) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.first = true;
        attempt.cached = cached.0;
        attempt.tokens = 1;
        attempt.reported = 1;
        let attempt = *attempt;
        let now = self.now;
        let Some(call) = self.calls.live_mut(attempt.call).filter(|call| call.stream) else {
            return;
        };
        if attempt.fate == Fate::Garble {
            // Not a byte of it reached the client.
            if let Some(attempt) = self.attempts.get_mut(&id) {
                attempt.first = false;
            }
            return self.fail(id, Failure::Garbled);
        }
        call.first_token.get_or_insert(now);
        let leaves = call.whim == Whim::AtFirst;
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.heard = now;
        }
        self.step(Input::FirstToken { call: attempt.call });
        self.report_rate(&attempt);
        if leaves {
            self.leave(attempt.call);
        }
        self.cut_if_due(id);
    }

    fn token(&mut self, id: u64) {
        let every = self.scenario.shell.progress_every;
        let now = self.now;
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.tokens += 1;
        let Some(call) = self.calls.live(attempt.call).filter(|call| call.stream) else {
            return;
        };
        attempt.heard = now;
        let id_of_call = call.submit.call;
        if attempt.tokens - attempt.reported >= every {
            attempt.reported = attempt.tokens;
            let output = Tokens(attempt.tokens);
            self.step(Input::Progress { call: id_of_call, output, waited: Millis::ZERO });
        }
        self.cut_if_due(id);
    }

    fn cut_if_due(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        if matches!(attempt.fate, Fate::Cut(after) if attempt.tokens >= after) {
            // The engine broke the connection; its job goes with it.
            self.fail(id, Failure::Cut);
        }
    }

    fn finish(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id).copied() else {
            return;
        };
        let now = self.now;
        if self.calls.live(attempt.call).is_some_and(|call| !call.stream) {
            // The headers of a stream came with its first token.
            self.report_rate(&attempt);
        }
        let call = self.calls.live_mut(attempt.call).expect("an attempt's call is alive");
        match attempt.fate {
            Fate::TooLarge if !call.stream => return self.fail(id, Failure::TooLarge),
            Fate::Garble => return self.fail(id, Failure::Garbled),
            _ => {}
        }
        call.first_token.get_or_insert(now);
        let limit = call.submit.output_max.is_some_and(|most| attempt.tokens >= most.0);
        let finish = call.submit.generates.then_some(if limit { Finish::Length } else { Finish::Stop });
        let (id_of_call, whim) = (attempt.call, call.whim);
        let usage = attempt.usage(call.prompt);
        // The client may leave in this very moment, and be noticed before or after.
        let leaves = whim == Whim::AtEnd;
        if leaves && self.rng.chance(0.5) {
            let usage = self.end_attempt(id, Told::Cancelled);
            self.step(Input::Cancelled { call: id_of_call, usage });
            self.step(Input::Finished { call: id_of_call, usage, finish });
        } else {
            self.end_attempt(id, Told::Finished(finish));
            self.step(Input::Finished { call: id_of_call, usage, finish });
            if leaves {
                self.step(Input::Cancelled { call: id_of_call, usage });
            }
        }
    }

    fn report_rate(&mut self, attempt: &Attempt) {
        let Some(report) = self.fleet.at(attempt.machine).report(self.now) else {
            return;
        };
        if let (Some(0), Some(reset)) = (report.calls_left, report.reset) {
            let upstream = self.calls.live(attempt.call).and_then(|call| call.upstream);
            self.bounds.pause(self.now, attempt.replica, upstream, reset);
        }
        self.step(Input::Rate { replica: attempt.replica, call: attempt.call, report });
    }
}

impl Attempt {
    pub(crate) const fn new(grant: &Grant, machine: usize, now: At, fate: Fate) -> Self {
        Self {
            call: grant.call,
            machine,
            replica: grant.replica,
            dispatched: now,
            inside: false,
            first: false,
            tokens: 0,
            cached: 0,
            reported: 0,
            heard: now,
            fate,
            failure: None,
        }
    }

    /// What the engine did for it.
    pub(crate) fn usage(&self, prompt: u64) -> Usage {
        Usage {
            input: Tokens(prompt),
            cached: Tokens(self.cached.min(prompt)),
            output: Tokens(self.tokens),
            ..Usage::default()
        }
    }
}
