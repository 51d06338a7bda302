//! Attends to a run for one client: tells it what the run says, and the end; and ends the run
//! when the client has left or waits no longer. A task of its own, so that a client that leaves
//! at any moment is noticed, also while the start is on its way to the disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::Reply;
use seawall_kernel::agents::input::Start;
use seawall_model::code::Retry;
use seawall_model::durable::RunState;
use seawall_model::{Address, At, Code, Fault, Millis, Payload, Protocol, RunId, RunKey, Tenant, Tokens};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::agents::Runtime;
use crate::agents::stream::{Listener, Talk};
use crate::app::{App, Phase};
use crate::clock;
use crate::log::Line;

use super::telling::{Telling, note};

/// How often a client is told that its run is at work: often enough for the shortest patience
/// of proxies in use, which is half a minute.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// Who ends a run whose asking run was stopped.
const STOPPED: &str = "an operator, who stopped the run that asked for it";

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Its output, or why there is none.
    pub(super) output: Result<Arc<str>, Fault>,
    /// What it and all below it used.
    pub(super) used: Tokens,
}

/// Where a client hears of its run.
#[derive(Debug)]
pub(super) enum Sink {
    /// All at once.
    Whole(oneshot::Sender<Outcome>),
    /// As it comes.
    Streamed(Box<Telling>, mpsc::Sender<Bytes>),
}

/// One request for an agent.
#[derive(Debug)]
pub(super) struct Attendance {
    pub(super) app: Arc<App>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) protocol: Protocol,
    /// The agent as it was asked for.
    pub(super) model: Arc<str>,
    pub(super) trace: Arc<str>,
    pub(super) received: At,
    /// When the answer must be there.
    pub(super) deadline: Option<At>,
    /// The run goes on without its client.
    pub(super) detached: bool,
    /// The client's own run that asked for it.
    pub(super) asking: Option<RunId>,
}

/// Why attending ends.
enum End {
    /// The run is over.
    Over(RunState),
    /// The client is gone.
    Left,
    /// The client waits no longer, or cannot be told more.
    Broken(Fault),
    /// The client's own run was stopped, and this one with it.
    Stopped,
    /// The process leaves; the run goes on in the next one.
    Leaving,
}

impl Attendance {
    /// Starts the run, says under which key it is durable, and stays until it is over.
    pub(super) async fn attend(
        self,
        start: Start,
        begun: oneshot::Sender<Result<RunKey, Fault>>,
        mut sink: Sink,
    ) {
        let tenant = start.tenant.clone();
        let reply = self.runtime.desk.ask(|ticket| Input::Start { ticket, start: Box::new(start) }).await;
        let (run, address) = match reply {
            Ok(Reply::Started { run, address }) => (run, address),
            Ok(Reply::Refused { code, why }) => return drop(begun.send(Err(refused(code, &why)))),
            Ok(_) => return drop(begun.send(Err(Fault::plain(Code::Internal)))),
            Err(_) => return drop(begun.send(Err(Fault::plain(Code::Draining)))),
        };
        let listener = matches!(sink, Sink::Streamed(..)).then(|| self.runtime.talks.listen(run));
        // Whoever has gone meanwhile is noticed at once.
        let _ = begun.send(Ok(run));
        let end = self.listen(run, &address, &mut sink, listener).await;
        let left = matches!(end, End::Left);
        let alone = self.detached && matches!(end, End::Left | End::Broken(_));
        match end {
            End::Stopped => self.cancel(run, &address, STOPPED),
            End::Left if !alone => self.cancel(run, &address, "its client, which left"),
            End::Broken(_) if !alone => self.cancel(run, &address, "its client, which waits no longer"),
            _ => {}
        }
        let outcome = match end {
            End::Over(state) => self.outcome(run, state).await,
            End::Broken(fault) => Outcome { output: Err(fault), used: Tokens::ZERO },
            End::Left => Outcome { output: Err(Fault::plain(Code::RunCancelled)), used: Tokens::ZERO },
            End::Stopped => {
                let told = format!("{run} was ended: the run that asked for it was stopped.");
                Outcome { output: Err(Fault::new(Code::RunStopped, told)), used: Tokens::ZERO }
            }
            End::Leaving => {
                let told = format!("Seawall is shutting down; {run} goes on when it is back.");
                Outcome { output: Err(Fault::new(Code::Draining, told)), used: Tokens::ZERO }
            }
        };
        self.log(tenant, run, &outcome, left);
        match sink {
            Sink::Whole(sender) => drop(sender.send(outcome)),
            Sink::Streamed(mut telling, sender) => drop(sender.send(telling.end(&outcome)).await),
        }
        if alone && self.asking.is_some() {
            self.stay(run, &address).await;
        }
    }

    /// A run that goes on without its client still ends with the one that asked for it.
    async fn stay(&self, run: RunKey, address: &Address) {
        let mut phase = self.app.phase.clone();
        tokio::select! {
            biased;
            _ = self.runtime.desk.over(run) => {}
            () = leaves(&mut phase) => {}
            () = self.stopped() => self.cancel(run, address, STOPPED),
        }
    }

    fn cancel(&self, run: RunKey, address: &Address, by: &str) {
        let address = address.clone();
        self.runtime.desk.tell(Input::Cancel { ticket: 0, run, address, by: by.into() });
    }

    async fn listen(
        &self,
        run: RunKey,
        address: &Address,
        sink: &mut Sink,
        mut listener: Option<Listener>,
    ) -> End {
        let mut over = self.runtime.desk.over(run);
        let mut phase = self.app.phase.clone();
        let mut late = std::pin::pin!(passed(self.deadline));
        let mut stopped = std::pin::pin!(self.stopped());
        let mut notes = interval_at(Instant::now() + NOTE_EVERY, NOTE_EVERY);
        notes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Err(end) = sink.begin(run).await {
            return end;
        }
        loop {
            let told = tokio::select! {
                biased;
                state = &mut over => return state.map_or(End::Leaving, End::Over),
                () = sink.closed() => return End::Left,
                () = leaves(&mut phase) => return End::Leaving,
                () = &mut stopped => return End::Stopped,
                () = &mut late => {
                    let told = format!("{run} was not done by the deadline.");
                    return End::Broken(Fault::new(Code::DeadlinePassed, told));
                }
                talk = heard(&mut listener) => sink.talk(&talk).await,
                _ = notes.tick() => match sink {
                    Sink::Streamed(..) => sink.give(note(&self.doing(address))).await,
                    Sink::Whole(_) => Ok(()),
                },
            };
            if let Err(end) = told {
                return end;
            }
        }
    }

    /// Comes when the client's own run was stopped; never where there is none.
    async fn stopped(&self) {
        match self.asking {
            Some(asking) => self.app.seat.until_stopped(asking).await,
            None => std::future::pending().await,
        }
    }

    /// What the run is at, in a word or two.
    fn doing(&self, address: &Address) -> String {
        let needs = self.runtime.desk.look(address, None).map(|(_, standing)| standing.needs);
        match needs.as_deref().and_then(<[_]>::first) {
            Some(need) => format!("{} {}", need.cause, need.on),
            None => "at work".to_owned(),
        }
    }

    /// What a run that is over leaves to its client.
    async fn outcome(&self, run: RunKey, state: RunState) -> Outcome {
        let live = self.runtime.desk.run(run);
        let output = match &state {
            RunState::Done { output } => output.clone(),
            _ => Payload::empty(),
        };
        let read = self.runtime.read(move |reader| {
            let row = if live.is_some() { live } else { reader.run(run)? };
            let used = row.map_or(Tokens::ZERO, |row| row.used.tokens);
            Ok((reader.open_payload(&output)?, used))
        });
        let (output, used) = match read.await {
            Ok(read) => read,
            Err(why) => {
                let fault = Fault::new(Code::Internal, format!("The output of {run} cannot be read: {why}."));
                return Outcome { output: Err(fault), used: Tokens::ZERO };
            }
        };
        let output = match state {
            RunState::Done { .. } => Ok(String::from_utf8_lossy(&output).into()),
            RunState::Failed { code, why } => Err(Fault::new(code, format!("{run} failed: {why}"))),
            RunState::Cancelled { by } => {
                Err(Fault::new(Code::RunCancelled, format!("{run} was cancelled by {by}.")))
            }
            RunState::Queued | RunState::Active => Err(Fault::plain(Code::Internal)),
        };
        Outcome { output, used }
    }

    fn log(&self, tenant: Tenant, run: RunKey, outcome: &Outcome, left: bool) {
        let code = outcome.output.as_ref().err().map(|fault| fault.code);
        let line = Line::Agent {
            at_ms: clock::wall(self.received).0 / 1_000,
            trace: self.trace.clone(),
            tenant,
            protocol: self.protocol,
            model: self.model.clone(),
            run,
            status: code.map_or(200, Code::status),
            outcome: if left { "client_left" } else { code.map_or("done", Code::as_str) },
            took_ms: clock::now().since(self.received).0,
            tokens: outcome.used,
        };
        if self.app.log.is_on() && !self.app.log.write(line) {
            self.app.metrics.service.dropped("log_line", 1);
        }
    }
}

impl Sink {
    /// Comes when the client is gone.
    async fn closed(&mut self) {
        match self {
            Self::Whole(sender) => sender.closed().await,
            Self::Streamed(_, sender) => sender.closed().await,
        }
    }

    async fn begin(&mut self, run: RunKey) -> Result<(), End> {
        let Self::Streamed(telling, _) = self else { return Ok(()) };
        let piece = telling.begin(run.to_string()).map_err(End::Broken)?;
        self.give(piece).await
    }

    async fn talk(&mut self, talk: &Talk) -> Result<(), End> {
        let Self::Streamed(telling, _) = self else { return Ok(()) };
        match telling.talk(talk).map_err(End::Broken)? {
            Some(piece) => self.give(piece).await,
            None => Ok(()),
        }
    }

    /// Waits while the client takes its time: the run does not.
    async fn give(&mut self, piece: Bytes) -> Result<(), End> {
        let Self::Streamed(_, sender) = self else { return Ok(()) };
        sender.send(piece).await.map_err(|_| End::Left)
    }
}

async fn heard(listener: &mut Option<Listener>) -> Talk {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}

/// Comes when the process takes no more turns.
async fn leaves(phase: &mut watch::Receiver<Phase>) {
    // An error is the end of the process itself.
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
}

/// Comes when this time has passed; never without one.
async fn passed(deadline: Option<At>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(Duration::from_millis(deadline.since(clock::now()).0)).await,
        None => std::future::pending().await,
    }
}

fn refused(code: Code, why: &str) -> Fault {
    let fault = Fault::new(code, format!("{} ({why})", code.row().says));
    if code.row().retry == Retry::After { fault.after(Millis(1_000)) } else { fault }
}
