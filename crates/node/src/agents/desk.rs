//! The desk: one lock around the kernel's agents, and what waits for their word. Whoever
//! has news takes the lock and steps; what is to be written is taken by the scribe, what is
//! to be done by the workers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seawall_kernel::agents::effect::{Grant, Notice, Perform, Reply};
use seawall_kernel::agents::input::Ticket;
use seawall_kernel::agents::{Agents, Batch, Effect, Input, Need, Tally, View};
use seawall_model::durable::{AgentRow, AgentState, RunRow, RunState, Stop};
use seawall_model::effect::EffectId;
use seawall_model::journal::Commit;
use seawall_model::{Address, At, RunKey, Tenant};
use seawall_store::journal::Reader;
use tokio::sync::oneshot;

use crate::alarm::Alarm;
use crate::clock;
use crate::process;

/// A unit of work for the threads that take turns: each may wait for the disk. There are as
/// many at most as turns and effects have places.
#[derive(Debug)]
pub enum Job {
    /// Take a turn.
    Turn(Box<Grant>),
    /// Perform an effect.
    Perform(Box<Perform>),
    /// Put an answer of an effect where it is kept, and tell whoever waits for it.
    Stow(Stow),
}

/// Agents that are counted while the desk is held: about a millisecond.
const TALLY_PAGE: usize = 1_000;

/// Writes a large answer and says so.
pub struct Stow(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Stow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stow").finish_non_exhaustive()
    }
}

/// Reads from the journal and tells whoever asked: for threads of their own, since a long
/// list must not hold up turns. There are at most
/// [`seawall_model::limits::JOURNAL_QUESTIONS_MAX`].
pub struct Look(pub Box<dyn FnOnce(&Reader) + Send>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Look").finish_non_exhaustive()
    }
}

/// What the scribe finds on the desk.
#[derive(Debug, Default)]
pub struct Pile {
    /// To be written in one transaction.
    pub batch: Batch,
    /// To be read.
    pub loads: Vec<Address>,
    /// Likewise.
    pub values: Vec<(Tenant, Arc<str>)>,
    /// Whose time comes is to be found: from when and after which row, before when, and
    /// how many.
    pub due: Option<((At, u64), At, usize)>,
    /// Nothing more will come.
    pub over: bool,
}

/// The desk.
pub struct Desk {
    inner: Mutex<Inner>,
    /// Rings for the scribe.
    written: Condvar,
    jobs: Line<Job>,
    looks: Line<Look>,
    alarm: Alarm,
    /// A worker found the disk full since the scribe last looked.
    full: AtomicBool,
    notices: Box<dyn Fn(&Notice) + Send + Sync>,
}

struct Inner {
    agents: Agents,
    next_ticket: Ticket,
    waiting: HashMap<Ticket, oneshot::Sender<Reply>>,
    over: HashMap<RunKey, Vec<oneshot::Sender<RunState>>>,
    flights: HashMap<EffectId, (u64, oneshot::Sender<()>)>,
    next_flight: u64,
    loads: Vec<Address>,
    values: Vec<(Tenant, Arc<str>)>,
    due: Option<((At, u64), At, usize)>,
    effects: Vec<Effect>,
    closed: bool,
}

impl Inner {
    /// Is there something to be written or read?
    fn has_news(&self) -> bool {
        let reads = !self.loads.is_empty() || !self.values.is_empty() || self.due.is_some();
        reads || self.agents.has_batch()
    }
}

/// What waits for a thread.
struct Line<J> {
    jobs: Mutex<Jobs<J>>,
    work: Condvar,
}

struct Jobs<J> {
    queue: VecDeque<J>,
    closed: bool,
}

impl<J> Line<J> {
    fn new() -> Self {
        Self { jobs: Mutex::new(Jobs { queue: VecDeque::new(), closed: false }), work: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs<J>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is dropped here tells whoever waits for it.
    fn put(&self, job: J) {
        let mut jobs = self.lock();
        if !jobs.closed {
            jobs.queue.push_back(job);
            self.work.notify_one();
        }
    }

    /// The next; `None` when its thread may go home.
    fn next(&self) -> Option<J> {
        let waiting = |jobs: &mut Jobs<J>| jobs.queue.is_empty() && !jobs.closed;
        let jobs = self.work.wait_while(self.lock(), waiting);
        let mut jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        if jobs.closed { None } else { jobs.queue.pop_front() }
    }

    fn close(&self) {
        let mut jobs = self.lock();
        jobs.closed = true;
        // Whoever waits for what will not be done any more is told so.
        let left = std::mem::take(&mut jobs.queue);
        drop(jobs);
        drop(left);
        self.work.notify_all();
    }
}

/// An effect that is under way.
#[derive(Debug)]
pub struct Flight {
    /// Which.
    pub effect: EffectId,
    /// Tells one try from another.
    pub number: u64,
    /// Comes when nobody wants it any longer.
    pub dropped: oneshot::Receiver<()>,
}

/// How an agent stands, as people are shown it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its state.
    pub state: AgentState,
    /// What it waits for.
    pub needs: Vec<Need>,
    /// The stop that it is under.
    pub stop: Option<Stop>,
    /// So often an effect is tried at most.
    pub tries_max: u32,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk for these agents. `notices` hears what operators should know of; it is called
    /// under the lock and must not block.
    #[must_use]
    pub fn new(agents: Agents, notices: Box<dyn Fn(&Notice) + Send + Sync>) -> Arc<Self> {
        let inner = Inner {
            agents,
            next_ticket: 1,
            waiting: HashMap::new(),
            over: HashMap::new(),
            flights: HashMap::new(),
            next_flight: 1,
            loads: Vec::new(),
            values: Vec::new(),
            due: None,
            effects: Vec::new(),
            closed: false,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            written: Condvar::new(),
            jobs: Line::new(),
            looks: Line::new(),
            alarm: Alarm::default(),
            full: AtomicBool::new(false),
            notices,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody finds it poisoned: a panic inside ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the agents something.
    pub fn tell(&self, input: Input) {
        self.tell_all([input]);
    }

    /// Tells the agents several things.
    pub fn tell_all(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut inner = self.lock();
        for input in inputs {
            self.step(&mut inner, |agents, now, effects| agents.step(now, input, effects));
        }
        self.after(&inner);
    }

    /// Rows of agents that have work, as found at start.
    pub fn restore(&self, agents: Vec<AgentRow>, runs: Vec<RunRow>) {
        let mut inner = self.lock();
        self.step(&mut inner, |machine, now, effects| machine.restore(now, agents, runs, effects));
        self.after(&inner);
    }

    /// Asks for something that is replied to; the reply comes once it is durable.
    pub fn ask(&self, input: impl FnOnce(Ticket) -> Input) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        let ticket = inner.next_ticket;
        inner.next_ticket += 1;
        inner.waiting.insert(ticket, sender);
        let input = input(ticket);
        self.step(&mut inner, |agents, now, effects| agents.step(now, input, effects));
        self.after(&inner);
        receiver
    }

    /// Comes when the run is over; at once if it is.
    pub fn over(&self, run: RunKey) -> oneshot::Receiver<RunState> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        match inner.agents.ended(run) {
            Some(state) => drop(sender.send(state)),
            None => {
                let waiting = inner.over.entry(run).or_default();
                waiting.retain(|waiter| !waiter.is_closed());
                waiting.push(sender);
            }
        }
        receiver
    }

    /// Looks at an agent by its row: the one in memory, if it is, else the one given.
    pub fn look(&self, address: &Address, row: Option<AgentRow>) -> Option<(AgentRow, Standing)> {
        let inner = self.lock();
        let row = inner.agents.row(address).cloned().or(row)?;
        let standing = Standing {
            state: inner.agents.state(&row),
            needs: inner.agents.needs(&row),
            stop: inner.agents.stop_of(&row).cloned(),
            tries_max: inner.agents.rules().tries_max,
        };
        Some((row, standing))
    }

    /// A run that is in memory.
    #[must_use]
    pub fn run(&self, run: RunKey) -> Option<RunRow> {
        self.lock().agents.run_row(run).cloned()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn view(&self) -> View {
        let tally = self.tally(None);
        self.lock().agents.figures().with(&tally)
    }

    /// How the agents of a tenant and all below it stand, those in memory. Counted a piece at
    /// a time, so that nobody waits long for the desk.
    #[must_use]
    pub fn tally(&self, tenant: Option<&str>) -> Tally {
        let mut tally = Tally::default();
        let mut from = None;
        loop {
            from = self.lock().agents.tally(tenant, from.as_ref(), TALLY_PAGE, &mut tally);
            if from.is_none() {
                return tally;
            }
        }
    }

    /// The reconciler: does anything run, wait or reserve without a reason?
    ///
    /// # Errors
    /// Says what.
    pub fn check(&self) -> Result<(), String> {
        self.lock().agents.check()
    }

    /// What is stopped.
    #[must_use]
    pub fn halts(&self) -> Vec<Stop> {
        self.lock().agents.shards().first().map_or_else(Vec::new, |shard| shard.row.halts.clone())
    }

    /// Registers a flight, if it is still wanted: looked at and registered under one lock,
    /// so that no stop comes between the two.
    pub fn fly(&self, effect: EffectId) -> Option<Flight> {
        let mut inner = self.lock();
        if !inner.agents.may_perform(effect) {
            return None;
        }
        let (sender, dropped) = oneshot::channel();
        let number = inner.next_flight;
        inner.next_flight += 1;
        // One that was dropped and is under way still must not be taken for this one.
        inner.flights.insert(effect, (number, sender));
        Some(Flight { effect, number, dropped })
    }

    /// The flight is over.
    pub fn land(&self, effect: EffectId, number: u64) {
        let mut inner = self.lock();
        if inner.flights.get(&effect).is_some_and(|(flying, _)| *flying == number) {
            inner.flights.remove(&effect);
        }
    }

    /// Forgets those who waited for a run's end and have left.
    pub fn forget_who_left(&self) {
        self.lock().over.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.is_closed());
            !waiting.is_empty()
        });
    }

    /// A worker found the disk full.
    pub fn note_full(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Did a worker find the disk full since this was last asked?
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.full.swap(false, Ordering::Relaxed)
    }

    fn step(&self, inner: &mut Inner, work: impl FnOnce(&mut Agents, At, &mut Vec<Effect>)) {
        let mut effects = std::mem::take(&mut inner.effects);
        let now = clock::wall(clock::now());
        // A broken invariant has lost effects, and with them runs that would wait for ever.
        process::vital_work("agents", || work(&mut inner.agents, now, &mut effects));
        let mut jobs = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Turn(grant) => jobs.push(Job::Turn(grant)),
                Effect::Perform(perform) => jobs.push(Job::Perform(perform)),
                Effect::Abort(effect) => {
                    inner.flights.remove(&effect);
                    // What no worker has reached yet is not begun at all.
                    let is_it = |job: &Job| matches!(job, Job::Perform(perform) if perform.effect == effect);
                    jobs.retain(|job| !is_it(job));
                    self.jobs.lock().queue.retain(|job| !is_it(job));
                }
                Effect::Reply(ticket, reply) => {
                    // Whoever has stopped waiting does not hear it.
                    let _ = inner.waiting.remove(&ticket).map(|waiter| waiter.send(reply));
                }
                Effect::Load(address) => inner.loads.push(address),
                Effect::LoadDue { from, before, max } => inner.due = Some((from, before, max)),
                Effect::LoadValue(tenant, key) => inner.values.push((tenant, key)),
                Effect::Over { run, state } => {
                    for waiter in inner.over.remove(&run).into_iter().flatten() {
                        let _ = waiter.send(state.clone());
                    }
                }
                Effect::Notice(notice) => (self.notices)(&notice),
            }
        }
        inner.effects = effects;
        if !jobs.is_empty() {
            self.jobs.lock().queue.extend(jobs);
            self.jobs.work.notify_all();
        }
    }

    /// Wakes whoever has something to do now.
    fn after(&self, inner: &Inner) {
        if inner.has_news() {
            self.written.notify_one();
        }
        self.alarm.hasten(inner.agents.wake_at().unwrap_or(At::MAX));
    }

    /// Wakes the agents whenever they asked to be. Runs for ever.
    pub async fn run_timer(self: Arc<Self>) {
        let look = || {
            let inner = self.lock();
            self.alarm.set(inner.agents.wake_at().unwrap_or(At::MAX));
        };
        // By the wall's clock, which may be set anew: looked at again once in an hour.
        let pause = |wake: At| {
            let now = clock::wall(clock::now());
            Duration::from_micros(wake.0.saturating_sub(now.0).min(3_600_000_000))
        };
        self.alarm.keep(look, pause, || self.tell(Input::Tick)).await;
    }

    /// What the scribe is to write and read next; waits until there is something, or for
    /// `patience`.
    #[must_use]
    pub fn pile(&self, patience: Duration) -> Pile {
        let mut inner = self.lock();
        let empty = |inner: &mut Inner| !inner.closed && !inner.has_news();
        if empty(&mut inner) {
            let waited = self.written.wait_timeout_while(inner, patience, empty);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Pile {
            batch: inner.agents.batch(),
            loads: std::mem::take(&mut inner.loads),
            values: std::mem::take(&mut inner.values),
            due: inner.due.take(),
            over: inner.closed,
        }
    }

    /// Tells the agents what was made of a turn. `taken` is called first if the turn is
    /// still its agent's, before anything that it asks for can be begun. Did its run take
    /// it, as its turn of that number? If not, what `taken` kept is worth nothing.
    pub fn commit(&self, grant: Grant, commit: Commit, taken: impl FnOnce()) -> bool {
        let Grant { address, token, number, run, .. } = grant;
        let mut inner = self.lock();
        if !inner.agents.has_turn(&address, token) {
            // Somebody else has the run's state by now, and knows it better.
            return true;
        }
        taken();
        let input = Input::Commit { address, token, commit: Box::new(commit) };
        self.step(&mut inner, |agents, now, effects| agents.step(now, input, effects));
        self.after(&inner);
        inner.agents.run_row(run.key).is_some_and(|row| row.turns == number)
    }

    /// Leaves a job for the workers, after the others.
    pub fn put(&self, job: Job) {
        self.jobs.put(job);
    }

    /// Leaves a question for the threads that read.
    pub fn question(&self, look: Look) {
        self.looks.put(look);
    }

    /// The next job for a worker; `None` when it may go home.
    #[must_use]
    pub fn job(&self) -> Option<Job> {
        self.jobs.next()
    }

    /// The next question for a thread that reads; `None` when it may go home.
    #[must_use]
    pub fn look_up(&self) -> Option<Look> {
        self.looks.next()
    }

    /// No new turns or runs from now on; what is under way is recorded.
    pub fn drain(&self) {
        self.tell(Input::Drain);
    }

    /// Is nothing being performed, nor about to be?
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let to_do = self.jobs.lock().queue.iter().any(|job| matches!(job, Job::Perform(_)));
        !to_do && self.lock().flights.is_empty()
    }

    /// Everybody may go home: what is written by then is what remains.
    pub fn close(&self) {
        self.lock().closed = true;
        self.written.notify_all();
        self.jobs.close();
        self.looks.close();
    }

    /// Counts by state, from rows in memory.
    #[must_use]
    pub fn states(&self) -> BTreeMap<&'static str, u64> {
        self.view().states
    }
}

#[cfg(test)]
mod tests {
    use seawall_kernel::agents::{Rules, Shard};
    use seawall_model::effect::{Spend, Work};
    use seawall_model::{Agent, EffectClass, Payload};

    use super::*;

    fn desk() -> Arc<Desk> {
        let agents = Agents::open(At(1), Rules::default(), vec![Shard::default()], 0);
        Desk::new(agents, Box::new(|_| ()))
    }

    fn perform(number: u32) -> Effect {
        let run = RunKey::new(0, 1);
        let tenant = Tenant::parse("t").expect("a tenant");
        let agent = Agent::parse("a/1").expect("an agent");
        let tool = Work::Tool { tool: "pay".into(), args: Payload::empty(), undo: None, query: None };
        Effect::Perform(Box::new(Perform {
            effect: EffectId { run, number },
            address: Address { tenant, agent },
            root: run,
            caller: None,
            version: "v".into(),
            turns: 1,
            work: tool,
            class: EffectClass::Irreversible,
            redact: Vec::new(),
            reserved: Spend::default(),
            attempt: 1,
            undo: false,
            query: false,
            until: At::MAX,
        }))
    }

    #[test]
    fn what_is_dropped_before_a_worker_reaches_it_is_never_begun() {
        let desk = desk();
        let effect = |number| EffectId { run: RunKey::new(0, 1), number };
        let step = |now: Vec<Effect>| {
            desk.step(&mut desk.lock(), |_, _, effects| effects.extend(now));
        };
        step(vec![perform(1), perform(2), perform(3), Effect::Abort(effect(3))]);
        step(vec![Effect::Abort(effect(1))]);
        assert!(!desk.is_quiet(), "one is to be done");
        let Some(Job::Perform(left)) = desk.job() else { panic!("a job") };
        assert_eq!(left.effect, effect(2));
        assert!(desk.is_quiet());
        // The kernel does not know it (any more).
        assert!(desk.fly(left.effect).is_none());
    }

    #[test]
    fn a_turn_does_not_wait_for_a_question() {
        let desk = desk();
        desk.question(Look(Box::new(|_| ())));
        desk.put(Job::Stow(Stow(Box::new(|| ()))));
        assert!(matches!(desk.job(), Some(Job::Stow(_))), "whatever is asked");
        assert!(desk.look_up().is_some());
    }

    #[test]
    fn what_is_asked_too_late_is_dropped_and_so_answered() {
        let desk = desk();
        let (before, mut asked_before) = oneshot::channel::<()>();
        desk.question(Look(Box::new(move |_| drop(before))));
        desk.close();
        let (after, mut asked_after) = oneshot::channel::<()>();
        desk.question(Look(Box::new(move |_| drop(after))));
        let closed = Err(oneshot::error::TryRecvError::Closed);
        assert_eq!((asked_before.try_recv(), asked_after.try_recv()), (closed.clone(), closed));
        assert!(desk.job().is_none() && desk.look_up().is_none());
    }

    #[test]
    fn whoever_has_left_does_not_wait_for_a_run() {
        let desk = desk();
        let (stays, leaves) = (desk.over(RunKey::new(0, 1)), desk.over(RunKey::new(0, 2)));
        drop(leaves);
        desk.forget_who_left();
        assert_eq!(desk.lock().over.len(), 1);
        drop(stays);
    }
}
