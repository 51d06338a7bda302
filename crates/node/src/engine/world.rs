//! The batching model under the real clock, and everything else that calls share.
//!
//! One driver task ends steps when they are due and wakes the answers that gained a
//! token. Answers pull: a job's progress is a counter, so nothing piles up for a slow
//! reader.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use seawall_load::engine::{Engine, Event, Full, Job, State};
use seawall_load::fault::{Fault, FaultPlan};
use seawall_model::{At, Millis, limits};
use tokio::sync::{Notify, watch};

use super::ledger::{Cancel, Ledger, Phase};
use super::settings::Settings;
use crate::clock;

/// How long a crashed engine is gone, before its slow start.
const RESTART: Millis = Millis(1_000);

/// What connections listen to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signal {
    /// Grows with each crash: connections of an earlier epoch break.
    pub(super) epoch: u64,
    /// No new calls; connections close when idle.
    pub(super) draining: bool,
}

/// How far a job has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    tokens: AtomicU32,
    done: AtomicBool,
    cached: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Progress {
    /// Ready when more than `index` tokens exist.
    pub(super) fn poll_token(&self, cx: &Context<'_>, index: u32) -> Poll<()> {
        self.poll(cx, || self.tokens.load(Ordering::Acquire) > index)
    }

    /// Ready when the job is done.
    pub(super) fn poll_done(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, || self.done.load(Ordering::Acquire))
    }

    /// Prompt tokens found in the prefix cache; known from the first token on.
    pub(super) fn cached(&self) -> u64 {
        self.cached.load(Ordering::Acquire)
    }

    fn poll(&self, cx: &Context<'_>, ready: impl Fn() -> bool) -> Poll<()> {
        if ready() {
            return Poll::Ready(());
        }
        let mut waker = lock(&self.waker);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        // Once more: the driver may have come between the look and the waker.
        if ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn wake(&self) {
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The model and the jobs in it.
#[derive(Debug)]
struct Batch {
    engine: Engine,
    jobs: HashMap<u64, Arc<Progress>>,
}

/// One simulated engine.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    batch: Mutex<Batch>,
    /// Wakes the driver of an idle engine.
    work: Notify,
    faults: Mutex<FaultPlan>,
    leak: Mutex<Vec<Box<[u8]>>>,
    leaked: AtomicU64,
    signal: watch::Sender<Signal>,
    /// Gone until then, after a crash.
    down_until: AtomicU64,
    /// Not ready until then, by its slow start.
    cold_until: AtomicU64,
    next_id: AtomicU64,
}

/// A lock that outlives a panic of its holder: the state inside is always whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let cold_until = clock::now().plus(settings.faults.slow_start()).0;
        Self {
            ledger: Ledger::default(),
            batch: Mutex::new(Batch { engine: Engine::new(settings.spec.clone()), jobs: HashMap::new() }),
            work: Notify::new(),
            faults: Mutex::new(settings.faults.clone()),
            leak: Mutex::new(Vec::new()),
            leaked: AtomicU64::new(0),
            signal: watch::Sender::new(Signal::default()),
            down_until: AtomicU64::new(0),
            cold_until: AtomicU64::new(cold_until),
            next_id: AtomicU64::new(1),
            settings,
        }
    }

    /// Ends steps as they fall due, for ever.
    pub(super) async fn drive(self: Arc<Self>) {
        let mut events = Vec::new();
        loop {
            match self.tick(&mut events) {
                Some(next) => tokio::time::sleep_until(clock::instant(next)).await,
                None => self.work.notified().await,
            }
        }
    }

    /// Ends the steps that are due; gives the time of the next.
    fn tick(&self, events: &mut Vec<Event>) -> Option<At> {
        let mut batch = lock(&self.batch);
        batch.engine.advance(clock::now(), events);
        for event in events.drain(..) {
            match event {
                Event::FirstToken { id, cached } => {
                    if let Some(progress) = batch.jobs.get(&id) {
                        progress.cached.store(cached.0, Ordering::Release);
                        progress.tokens.fetch_add(1, Ordering::Release);
                        progress.wake();
                    }
                }
                Event::Token { id, .. } => {
                    if let Some(progress) = batch.jobs.get(&id) {
                        progress.tokens.fetch_add(1, Ordering::Release);
                        progress.wake();
                    }
                }
                Event::Done { id } => {
                    if let Some(progress) = batch.jobs.remove(&id) {
                        progress.done.store(true, Ordering::Release);
                        progress.wake();
                    }
                }
                Event::Preempted { .. } => {}
            }
        }
        batch.engine.next_step()
    }

    /// Hands a job to the model.
    pub(super) fn submit(&self, job: Job) -> Result<Arc<Progress>, Full> {
        let progress = Arc::new(Progress::default());
        let id = job.id;
        let mut batch = lock(&self.batch);
        let idle = batch.engine.next_step().is_none();
        batch.engine.submit(clock::now(), job)?;
        batch.jobs.insert(id, progress.clone());
        drop(batch);
        if idle {
            self.work.notify_one();
        }
        Ok(progress)
    }

    /// A new id for a call.
    pub(super) fn name(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The model's state.
    pub(super) fn state(&self) -> State {
        lock(&self.batch).engine.state()
    }

    /// What goes wrong with the next call.
    pub(super) fn draw(&self) -> Option<Fault> {
        lock(&self.faults).draw()
    }

    /// Changes the fault plan.
    pub(super) fn plan<R>(&self, change: impl FnOnce(&mut FaultPlan) -> R) -> R {
        change(&mut lock(&self.faults))
    }

    /// Keeps the bytes that the leak fault asks for, and touches them.
    pub(super) fn leak(&self) {
        let bytes = lock(&self.faults).leak_bytes();
        let room = limits::SIM_LEAK_BYTES_MAX.saturating_sub(self.leaked.load(Ordering::Relaxed));
        if bytes == 0 || bytes > room {
            return;
        }
        self.leaked.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.leak).push(vec![0x5a; usize::try_from(bytes).unwrap_or(0)].into());
    }

    /// Bytes leaked so far.
    pub(super) fn leaked(&self) -> u64 {
        self.leaked.load(Ordering::Relaxed)
    }

    // ---- life and death ------------------------------------------------------------

    pub(super) fn signal(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.signal.borrow().epoch
    }

    /// Is it gone, after a crash?
    pub(super) fn is_down(&self) -> bool {
        clock::now().0 < self.down_until.load(Ordering::Relaxed)
    }

    /// Is it still starting?
    pub(super) fn is_cold(&self) -> bool {
        clock::now().0 < self.cold_until.load(Ordering::Relaxed)
    }

    /// Dies: every connection breaks, all memory is lost, and for a while nobody answers.
    pub(super) fn crash(&self) {
        let up = clock::now().plus(RESTART);
        let slow_start = lock(&self.faults).slow_start();
        self.down_until.store(up.0, Ordering::Relaxed);
        self.cold_until.store(up.plus(slow_start).0, Ordering::Relaxed);
        let mut batch = lock(&self.batch);
        batch.engine = Engine::new(self.settings.spec.clone());
        batch.jobs.clear();
        drop(batch);
        self.forget();
        self.cut();
    }

    /// Gives back what was leaked.
    pub(super) fn forget(&self) {
        lock(&self.leak).clear();
        self.leaked.store(0, Ordering::Relaxed);
    }

    /// Breaks every connection.
    pub(super) fn cut(&self) {
        self.signal.send_modify(|signal| signal.epoch += 1);
    }

    /// Asks every connection to close when its answers are done.
    pub(super) fn drain(&self) {
        self.signal.send_modify(|signal| signal.draining = true);
    }
}

/// One call being answered. Dropped before its end, it is a client that left: the job
/// is taken out of the model at once and the cancel recorded.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) world: Arc<World>,
    pub(super) id: u64,
    pub(super) started: At,
    pub(super) sent: u32,
    stream: bool,
    label: Option<String>,
    epoch: u64,
    over: bool,
}

impl Ticket {
    /// Begins a call. `label` is the name under which a test looks for its cancel.
    pub(super) fn new(world: Arc<World>, stream: bool, label: Option<String>) -> Self {
        world.ledger.started.fetch_add(1, Ordering::Relaxed);
        let (id, epoch) = (world.name(), world.epoch());
        Self { id, started: clock::now(), sent: 0, stream, label, epoch, over: false, world }
    }

    /// The call ended as it should.
    pub(super) fn finish(&mut self) {
        if !self.over {
            self.over = true;
            self.world.ledger.finished.fetch_add(1, Ordering::Relaxed);
            self.world.ledger.whole.add(clock::now().micros_since(self.started));
        }
    }

    /// The call was not taken after all; whoever refuses it counts the refusal.
    pub(super) fn refuse(mut self) {
        self.over = true;
        self.world.ledger.started.fetch_sub(1, Ordering::Relaxed);
    }

    /// The call ends by a fault of this engine, not by its client.
    pub(super) fn abandon(&mut self) {
        if !self.over {
            self.over = true;
            self.world.ledger.broken.fetch_add(1, Ordering::Relaxed);
            self.leave();
        }
    }

    /// Takes the job out of the model; true if it was waiting.
    fn leave(&self) -> bool {
        let mut batch = lock(&self.world.batch);
        let waiting = batch.engine.is_waiting(self.id);
        if batch.jobs.remove(&self.id).is_some() {
            batch.engine.cancel(clock::now(), self.id);
        }
        waiting
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let waiting = self.leave();
        if self.world.epoch() != self.epoch {
            self.world.ledger.broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let phase = match (waiting, self.stream, self.sent) {
            (true, ..) => Phase::Queued,
            (false, false, _) => Phase::Unary,
            (false, true, 0) => Phase::Prefill,
            (false, true, _) => Phase::Stream,
        };
        let id = self.label.take().unwrap_or_else(|| self.id.to_string());
        self.world.ledger.cancel(Cancel { id, when: clock::now(), phase, tokens_sent: self.sent });
    }
}
