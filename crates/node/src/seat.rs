//! Where the kernel sits: one lock around it, the calls that wait for its word, and
//! the timer it asked for. A step takes a microsecond or two, so whoever has news
//! takes the lock and steps; no channel, no task switch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seawall_kernel::view::MeterView;
use seawall_kernel::{Effect, Grant, Input, Kernel, Refusal, Settlement, Submit, View};
use seawall_model::{At, CallId, ReplicaId, RunId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::alarm::Alarm;
use crate::clock;
use crate::process;

/// The kernel's word on one call.
#[derive(Debug)]
pub enum Verdict {
    /// Send it there.
    Go(Grant),
    /// It is over before it began.
    No(Box<(Refusal, Settlement)>),
}

/// Work the kernel asks of rooms other than a call's own task.
#[derive(Debug)]
pub enum Errand {
    /// Make a budget slice durable, then call [`Seat::tell`] with `Drawn`.
    Draw {
        /// The account.
        account: Arc<str>,
        /// Start of its window.
        window: At,
        /// It may be spent up to here.
        ceiling: u64,
    },
    /// Write down what is really spent.
    Spent {
        /// The account.
        account: Arc<str>,
        /// Start of its window.
        window: At,
        /// So much.
        spent: u64,
    },
    /// Ask this replica whether it is well.
    Probe(ReplicaId),
}

/// Takes errands; must not block and must not step the kernel.
pub type Errands = Box<dyn Fn(Errand) + Send + Sync>;

/// The kernel and who waits on it.
pub struct Seat {
    inner: Mutex<Inner>,
    alarm: Alarm,
    errands: Errands,
    /// Told whenever a run was stopped.
    stops: watch::Sender<()>,
}

struct Inner {
    kernel: Kernel,
    next_call: u64,
    waiting: HashMap<CallId, oneshot::Sender<Verdict>>,
    /// How calls of runs hear that theirs was stopped; others never do.
    halts: HashMap<CallId, oneshot::Sender<()>>,
    effects: Vec<Effect>,
}

/// What one step said of the call whose news it was.
#[derive(Debug, Default)]
struct Own {
    grant: Option<Grant>,
    refusal: Option<Refusal>,
    settlement: Option<Settlement>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl Seat {
    /// Seats a kernel. `errands` takes what no call's own task can do.
    #[must_use]
    pub fn new(kernel: Kernel, errands: Errands) -> Arc<Self> {
        let inner = Inner {
            kernel,
            next_call: 1,
            waiting: HashMap::new(),
            halts: HashMap::new(),
            effects: Vec::new(),
        };
        let (inner, stops) = (Mutex::new(inner), watch::Sender::new(()));
        Arc::new(Self { inner, alarm: Alarm::default(), errands, stops })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nobody finds it poisoned: a panic inside ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a call: `fill` receives its new id. The ticket gives the verdict, and
    /// withdraws the call if it is dropped before the end.
    #[must_use]
    pub fn submit(self: &Arc<Self>, fill: impl FnOnce(CallId) -> Submit) -> Ticket {
        let mut inner = self.lock();
        let call = CallId(inner.next_call);
        inner.next_call += 1;
        let submit = Box::new(fill(call));
        debug_assert_eq!(submit.call, call, "a submit carries the id it was given");
        let halted = submit.run.map(|_| {
            let (sender, receiver) = oneshot::channel();
            inner.halts.insert(call, sender);
            receiver
        });
        let own = self.step(&mut inner, Input::Submit(submit), Some(call));
        let mut ticket = Ticket { seat: self.clone(), call, wait: Wait::Over, halted, settled: false };
        ticket.expect_word(&mut inner, own);
        ticket
    }

    /// Tells the kernel something that is no call's own news.
    pub fn tell(&self, input: Input) {
        let mut inner = self.lock();
        self.step(&mut inner, input, None);
    }

    /// Stops a run and all below it; `false` if as many are stopped as may be.
    #[must_use]
    pub fn stop(&self, run: RunId) -> bool {
        let mut inner = self.lock();
        let room = inner.kernel.can_stop(run);
        self.step(&mut inner, Input::Stop { run }, None);
        drop(inner);
        self.stops.send_replace(());
        room
    }

    /// Comes when this run is stopped, or one above it.
    pub async fn until_stopped(&self, run: RunId) {
        let mut stops = self.stops.subscribe();
        while !self.stopped(run) {
            // Whoever tells of stops is here as long as we are.
            let _ = stops.changed().await;
        }
    }

    /// Is this run stopped, or one above it?
    #[must_use]
    pub fn stopped(&self, run: RunId) -> bool {
        self.lock().kernel.stopped(run)
    }

    /// What these runs do at present: calls that wait or run, whether they are stopped, and
    /// their own budget.
    #[must_use]
    pub fn runs(&self, runs: &[RunId]) -> Vec<(u32, bool, Vec<MeterView>)> {
        let kernel = &self.lock().kernel;
        let each = runs.iter();
        each.map(|run| (kernel.live_calls(*run), kernel.stopped(*run), kernel.run_budget(*run))).collect()
    }

    /// A picture of the kernel.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().kernel.view()
    }

    /// Is no call known?
    #[must_use]
    pub fn idle(&self) -> bool {
        self.lock().kernel.idle()
    }

    /// One step: performs the effects, and hands back those on the call `own`.
    fn step(&self, inner: &mut Inner, input: Input, own: Option<CallId>) -> Own {
        let mut effects = std::mem::take(&mut inner.effects);
        // A broken invariant has lost effects, and with them calls that would wait for ever.
        process::vital_work("kernel", || inner.kernel.step(clock::now(), input, &mut effects));
        let mut said = Own::default();
        // A refusal comes just before its settlement; others' pairs are joined here.
        let mut refused: Option<Refusal> = None;
        for effect in effects.drain(..) {
            if let Effect::Settle(settlement) = &effect {
                inner.halts.remove(&settlement.call);
            }
            match effect {
                Effect::Dispatch(grant) if Some(grant.call) == own => said.grant = Some(grant),
                Effect::Dispatch(grant) => send(inner, grant.call, Verdict::Go(grant)),
                Effect::Refuse(refusal) if Some(refusal.call) == own => said.refusal = Some(refusal),
                Effect::Refuse(refusal) => refused = Some(refusal),
                Effect::Settle(settlement) if Some(settlement.call) == own => {
                    said.settlement = Some(settlement);
                }
                Effect::Settle(settlement) => {
                    if let Some(refusal) = refused.take_if(|refusal| refusal.call == settlement.call) {
                        send(inner, settlement.call, Verdict::No(Box::new((refusal, settlement))));
                    }
                }
                Effect::Halt { call } => {
                    // Whoever performs the call drops its attempt, which cancels it (I8).
                    let _ = inner.halts.remove(&call).map(|halt| halt.send(()));
                }
                Effect::Draw { account, window, ceiling } => {
                    (self.errands)(Errand::Draw { account, window, ceiling });
                }
                Effect::Spent { account, window, spent } => {
                    (self.errands)(Errand::Spent { account, window, spent });
                }
                Effect::Probe { replica } => (self.errands)(Errand::Probe(replica)),
            }
        }
        inner.effects = effects;
        self.set_alarm(inner.kernel.wake_at());
        said
    }

    fn set_alarm(&self, wake: Option<At>) {
        self.alarm.hasten(wake.unwrap_or(At::MAX));
    }

    /// Wakes the kernel whenever it asked to be. Runs for ever.
    pub async fn run_timer(self: Arc<Self>) {
        let look = || {
            let inner = self.lock();
            self.alarm.set(inner.kernel.wake_at().unwrap_or(At::MAX));
        };
        let pause = |wake: At| {
            let ahead = clock::instant(wake).saturating_duration_since(tokio::time::Instant::now());
            ahead.min(Duration::from_secs(86_400))
        };
        self.alarm.keep(look, pause, || self.tell(Input::Tick)).await;
    }
}

fn send(inner: &mut Inner, call: CallId, verdict: Verdict) {
    if let Some(waiter) = inner.waiting.remove(&call) {
        // A receiver that is gone withdraws its call in its own drop.
        let _ = waiter.send(verdict);
    }
}

/// Comes when a call's run was stopped.
pub type Halted = oneshot::Receiver<()>;

/// One call's place with the kernel, from submit to settlement. Dropping it before the
/// end is the client leaving: the kernel is told at once (I8).
#[derive(Debug)]
pub struct Ticket {
    seat: Arc<Seat>,
    call: CallId,
    wait: Wait,
    halted: Option<Halted>,
    settled: bool,
}

#[derive(Debug)]
enum Wait {
    /// The word is here.
    Ready(Verdict),
    /// The word will come.
    Coming(oneshot::Receiver<Verdict>),
    /// There is nothing to wait for.
    Over,
}

impl Ticket {
    /// The call.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call
    }

    /// What will say that its run was stopped, once, if it has a run.
    #[must_use]
    pub fn halted(&mut self) -> Option<Halted> {
        self.halted.take()
    }

    /// Has the kernel said its last word on this call?
    #[must_use]
    pub fn settled(&self) -> bool {
        self.settled
    }

    fn expect_word(&mut self, inner: &mut Inner, own: Own) {
        self.wait = match (own.grant, own.refusal, own.settlement) {
            (Some(grant), _, _) => Wait::Ready(Verdict::Go(grant)),
            (None, Some(refusal), Some(settlement)) => {
                Wait::Ready(Verdict::No(Box::new((refusal, settlement))))
            }
            _ => {
                let (sender, receiver) = oneshot::channel();
                inner.waiting.insert(self.call, sender);
                Wait::Coming(receiver)
            }
        };
    }

    /// The kernel's word: go, or no.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        let verdict = match std::mem::replace(&mut self.wait, Wait::Over) {
            Wait::Ready(verdict) => Some(verdict),
            Wait::Coming(receiver) => {
                // Kept in place while waiting, so that a drop in mid-wait still withdraws.
                self.wait = Wait::Coming(receiver);
                let Wait::Coming(receiver) = &mut self.wait else {
                    return None;
                };
                let verdict = receiver.await.ok();
                self.wait = Wait::Over;
                verdict
            }
            Wait::Over => None,
        };
        if matches!(verdict, Some(Verdict::No(_)) | None) {
            self.settled = true;
        }
        verdict
    }

    /// The first byte came from the engine.
    pub fn first_token(&self) {
        self.seat.tell(Input::FirstToken { call: self.call });
    }

    /// So much output has been streamed; of the time since the last such report, the
    /// client was waited for so long.
    pub fn progress(&self, output: seawall_model::Tokens, waited: seawall_model::Millis) {
        self.seat.tell(Input::Progress { call: self.call, output, waited });
    }

    /// An attempt failed before the client saw anything. The next word comes from
    /// [`Ticket::verdict`].
    pub fn failed(&mut self, failure: seawall_kernel::Failure, usage: seawall_model::Usage) {
        let seat = self.seat.clone();
        let mut inner = seat.lock();
        let input = Input::Failed { call: self.call, failure, client_began: false, usage };
        let own = seat.step(&mut inner, input, Some(self.call));
        self.expect_word(&mut inner, own);
    }

    /// The last attempt failed after the client had seen a part of the answer.
    pub fn broke(
        &mut self,
        failure: seawall_kernel::Failure,
        usage: seawall_model::Usage,
    ) -> Option<Settlement> {
        self.end(Input::Failed { call: self.call, failure, client_began: true, usage })
    }

    /// The answer is complete.
    pub fn finished(
        &mut self,
        usage: seawall_model::Usage,
        finish: Option<seawall_model::Finish>,
    ) -> Option<Settlement> {
        self.end(Input::Finished { call: self.call, usage, finish })
    }

    /// The client left, having cost so much.
    pub fn cancelled(&mut self, usage: seawall_model::Usage) -> Option<Settlement> {
        self.end(Input::Cancelled { call: self.call, usage })
    }

    fn end(&mut self, input: Input) -> Option<Settlement> {
        if self.settled {
            return None;
        }
        self.settled = true;
        let mut inner = self.seat.lock();
        inner.waiting.remove(&self.call);
        let settlement = self.seat.step(&mut inner, input, Some(self.call)).settlement;
        drop(inner);
        // A client may leave with the kernel's no already on its way to it: that was the
        // last word on the call then.
        settlement.or_else(|| match std::mem::replace(&mut self.wait, Wait::Over) {
            Wait::Ready(Verdict::No(no)) => Some(no.1),
            Wait::Coming(mut receiver) => match receiver.try_recv() {
                Ok(Verdict::No(no)) => Some(no.1),
                _ => None,
            },
            _ => None,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.cancelled(seawall_model::Usage::default());
    }
}

/// A bounded errand line to a task, for errands that need async work.
#[must_use]
pub fn errand_line(len_max: usize) -> (mpsc::Sender<Errand>, mpsc::Receiver<Errand>) {
    mpsc::channel(len_max)
}

#[cfg(test)]
mod tests {
    use seawall_kernel::Plan;
    use seawall_kernel::plan::{CostRule, Engine, Model, Pace, Price, QueueRule, Rate, Replica};
    use seawall_model::{Bytes, Class, Code, EngineId, Millis, ModelId, Outcome, Tenant, Tokens, Usage};

    use super::*;

    /// A kernel with one engine that takes one call at once, before which others may wait
    /// for a millisecond.
    fn seat() -> Arc<Seat> {
        let pace = Pace { calls_max: 1, calls_start: 1, adaptive: false, ..Pace::default() };
        let plan = Plan {
            engines: vec![Engine {
                id: EngineId(1),
                name: "e".into(),
                replicas: vec![Replica { id: ReplicaId(1) }],
                pace,
                rate: Rate::default(),
                cost: CostRule::default(),
            }],
            models: vec![Model {
                id: ModelId(1),
                targets: vec![EngineId(1)],
                upstreams: Vec::new(),
                price: Price::default(),
                context_tokens_max: None,
                output_tokens_max: Tokens(10),
            }],
            queue: QueueRule { wait_ms_max: Millis(1), ..QueueRule::default() },
            class_share: [60, 25, 5],
            ..Plan::default()
        };
        Seat::new(Kernel::new(clock::now(), plan), Box::new(|_| {}))
    }

    fn submit(seat: &Arc<Seat>) -> Ticket {
        seat.submit(|call| Submit {
            call,
            tenant: Tenant::local(),
            model: ModelId(1),
            targets: vec![EngineId(1)],
            class: Class::Interactive,
            run: None,
            parent: None,
            agent: None,
            work: None,
            prompt: Tokens(1),
            prompt_max: Tokens(1),
            output_max: None,
            generates: true,
            bytes: Bytes(1),
            deadline: None,
            prefix: Box::default(),
        })
    }

    #[test]
    fn a_no_that_nobody_was_there_to_hear_is_still_the_last_word() {
        let seat = seat();
        let mut first = submit(&seat);
        assert!(matches!(first.wait, Wait::Ready(Verdict::Go(_))));
        let mut second = submit(&seat);
        assert!(matches!(second.wait, Wait::Coming(_)));
        // Its wait is over before its task runs again.
        while seat.view().calls > 1 {
            seat.tell(Input::Tick);
        }
        let settlement = second.cancelled(Usage::default()).expect("the kernel has refused it");
        assert_eq!(settlement.outcome, Outcome::Failed(Code::QueueTimeout));
        assert!(second.cancelled(Usage::default()).is_none(), "and said so once");
        let settlement = first.cancelled(Usage::default()).expect("it was running");
        assert_eq!(settlement.outcome, Outcome::Cancelled);
        assert!(seat.idle());
    }
}
