//! One call from its receipt to its end: what is remembered of it on the way, and the
//! record, the metrics and the log line at its end. Exactly one end, whatever happens.

use std::sync::Arc;

use seawall_kernel::{Failure, Settlement};
use seawall_model::{
    Agent, At, Attempt, Class, Code, EngineId, Finish, Lineage, Millis, ModelId, Outcome, Protocol, Record,
    ReplicaId, RunId, Tenant, Tokens, Usage, limits,
};

use crate::app::App;
use crate::clock;
use crate::log::Line;
use crate::memory::Hold;
use crate::seat::{Halted, Ticket, Verdict};

/// What is known of a call from the start.
#[derive(Debug)]
pub struct Origin {
    /// Trace id.
    pub trace: Arc<str>,
    /// Who asked.
    pub tenant: Tenant,
    /// Its run.
    pub run: Option<RunId>,
    /// That run's name and its parent's.
    pub lineage: Option<Arc<Lineage>>,
    /// The agent, as it calls itself.
    pub agent: Option<Agent>,
    /// Its class.
    pub class: Class,
    /// The client's protocol.
    pub protocol: Protocol,
    /// The alias.
    pub model: ModelId,
    /// Its name.
    pub model_name: Arc<str>,
    /// Streamed?
    pub stream: bool,
    /// When it came.
    pub received: At,
    /// Prompt tokens as estimated, for when the engine does not say.
    pub prompt: Tokens,
}

/// How an attempt that went well is called.
const ANSWERED: &str = "answered";

/// The attempt under way.
#[derive(Debug)]
struct Trying {
    engine: Arc<str>,
    replica: Option<ReplicaId>,
    began: At,
    first_byte: Option<At>,
    status: Option<u16>,
}

/// A call on its way. Dropped before its end, it is a client that left.
#[derive(Debug)]
pub struct Journey {
    app: Arc<App>,
    origin: Origin,
    ticket: Ticket,
    engine_name: Option<Arc<str>>,
    /// The replica that the kernel chose last.
    chosen: Option<ReplicaId>,
    trying: Option<Trying>,
    /// The attempts that are over, unless the only one went well.
    tried: Vec<Attempt>,
    first_byte: Option<At>,
    status: u16,
    /// Why Seawall could not go on, though the kernel would have.
    given_up: Option<Code>,
    /// What is held of the byte budget while an engine is at work, and how much of it for
    /// good.
    window: Option<(Hold, u64)>,
    /// Did an engine refuse the request, so that the client sees the engine's status?
    refused: bool,
    /// Is an engine at work on it?
    at_work: bool,
    over: bool,
}

impl Journey {
    /// Sets out.
    #[must_use]
    pub fn new(app: Arc<App>, origin: Origin, ticket: Ticket) -> Self {
        Self {
            app,
            origin,
            ticket,
            engine_name: None,
            chosen: None,
            trying: None,
            tried: Vec::new(),
            first_byte: None,
            status: 499,
            given_up: None,
            window: None,
            refused: false,
            at_work: false,
            over: false,
        }
    }

    /// What is known from the start.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The server it belongs to.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// What will say that its run was stopped, once, if it has a run.
    #[must_use]
    pub fn halted(&mut self) -> Option<Halted> {
        self.ticket.halted()
    }

    /// The engine of the present attempt.
    #[must_use]
    pub fn engine(&self) -> Option<Arc<str>> {
        self.engine_name.clone()
    }

    /// Waits for the kernel's word; a refusal ends the journey. `None` would be a kernel
    /// that forgot the call.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        let verdict = self.ticket.verdict().await;
        match &verdict {
            Some(Verdict::Go(grant)) => self.chosen = Some(grant.replica),
            Some(Verdict::No(no)) => {
                if !self.refused {
                    self.status = no.0.code.status();
                }
                self.end(&no.1);
            }
            None => {}
        }
        verdict
    }

    /// The present attempt goes to this engine.
    pub fn goes_to(&mut self, engine: Arc<str>) {
        self.engine_name = Some(engine.clone());
        self.at_work = true;
        let (replica, began) = (self.chosen, clock::now());
        self.trying = Some(Trying { engine, replica, began, first_byte: None, status: None });
    }

    /// Holds these bytes of the budget until the call is over.
    pub fn holds(&mut self, window: Hold) {
        let base = window.bytes();
        self.window = Some((window, base));
    }

    /// What of the byte budget an answer of so many bytes keeps until it is written.
    pub fn keeps(&mut self, bytes: u64) -> Option<Hold> {
        let (mut hold, _) = self.window.take()?;
        hold.shrink_to(bytes);
        Some(hold)
    }

    /// Is room in the byte budget held for its answer?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.window.is_some()
    }

    /// Holds so much beside that, rather than what it was before; `false` (and unchanged)
    /// if there is no room.
    pub fn holds_beside(&mut self, bytes: u64) -> bool {
        let Some((window, base)) = &mut self.window else { return bytes == 0 };
        let wanted = base.saturating_add(bytes);
        match wanted.checked_sub(window.bytes()) {
            Some(more) => window.grow(more),
            None => {
                window.shrink_to(wanted);
                true
            }
        }
    }

    /// The first byte of the answer is here; streamed answers tell the kernel, which
    /// learns from it how loaded the replica is.
    pub fn first_byte(&mut self) {
        let fresh = self.trying.as_ref().is_some_and(|trying| trying.first_byte.is_none());
        if !fresh && self.first_byte.is_some() {
            return;
        }
        let now = clock::now();
        if let Some(trying) = self.trying.as_mut().filter(|_| fresh) {
            trying.first_byte = Some(now);
        }
        if self.first_byte.is_none() {
            self.first_byte = Some(now);
            if self.origin.stream {
                self.ticket.first_token();
            }
        }
    }

    /// So much output has been streamed.
    pub fn progress(&self, output: Tokens, waited: Millis) {
        self.ticket.progress(output, waited);
    }

    /// The status that the client sees, which is Seawall's own.
    pub fn says(&mut self, status: u16) {
        self.status = status;
    }

    /// The status that the client sees, which is the engine's.
    pub fn answers(&mut self, status: u16) {
        self.status = status;
        if let Some(trying) = &mut self.trying {
            trying.status = Some(status);
        }
    }

    /// The present attempt failed before the client saw anything.
    pub fn failed(&mut self, failure: Failure, usage: Usage) {
        self.at_work = false;
        self.tried(failure_name(failure), status_of(failure));
        if let Failure::Refused { status } = failure {
            self.refused = true;
            self.status = status;
        }
        self.ticket.failed(failure, usage);
    }

    /// The answer broke after the client had seen a part of it.
    pub fn broke(&mut self, failure: Failure, usage: Usage) {
        match self.given_up {
            Some(code) => self.tried(code.as_str(), None),
            None => self.tried(failure_name(failure), status_of(failure)),
        }
        let settlement = self.ticket.broke(failure, usage);
        self.end_with(settlement);
    }

    /// The answer is complete.
    pub fn finished(&mut self, usage: Usage, finish: Option<Finish>) {
        self.tried(ANSWERED, None);
        let settlement = self.ticket.finished(usage, finish);
        self.end_with(settlement);
    }

    /// The client left.
    pub fn cancelled(&mut self, usage: Usage) {
        if !self.tried.is_empty() {
            self.tried("cancelled", None);
        }
        let settlement = self.ticket.cancelled(usage);
        self.end_with(settlement);
    }

    /// The end that follows is put down to this.
    pub fn blames(&mut self, code: Code) {
        self.given_up = Some(code);
    }

    /// Seawall itself cannot go on with what the kernel let go; no engine has seen it.
    pub fn give_up(&mut self, code: Code) {
        self.given_up = Some(code);
        self.status = code.status();
        self.cancelled(Usage::default());
    }

    /// The present attempt is over. The only one of a call is not worth a line unless it
    /// failed.
    fn tried(&mut self, outcome: &'static str, status: Option<u16>) {
        let Some(trying) = self.trying.take() else { return };
        let plain = outcome == ANSWERED && self.tried.is_empty();
        if plain || self.tried.len() >= limits::ATTEMPTS_CEILING as usize {
            return;
        }
        let live = self.app.live.load();
        self.tried.push(Attempt {
            engine: trying.engine,
            replica: trying.replica.map_or_else(|| "".into(), |replica| live.replica_name(replica)),
            outcome,
            status: status.or(trying.status),
            began: trying.began.since(self.origin.received),
            first_byte: trying.first_byte.map(|at| at.since(trying.began)),
            took: clock::now().since(trying.began),
        });
    }

    /// Has it ended?
    #[must_use]
    pub fn over(&self) -> bool {
        self.over
    }

    /// What was used where the engine has not said: the estimate of the prompt and the
    /// tokens counted.
    #[must_use]
    pub fn estimate(&self, output: u64) -> Usage {
        Usage { input: self.origin.prompt, output: Tokens(output), ..Usage::default() }
    }

    fn end_with(&mut self, settlement: Option<Settlement>) {
        if let Some(settlement) = settlement {
            self.end(&settlement);
        }
    }

    fn end(&mut self, settlement: &Settlement) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.window = None;
        if settlement.outcome == Outcome::Failed(Code::RunStopped) && self.status == 499 {
            // The client is still there, and is told.
            self.status = Code::RunStopped.status();
        }
        let record = Arc::new(self.record(settlement));
        self.app.metrics.calls.ended(&record);
        if !self.app.disk.record(record.clone()) {
            self.app.metrics.service.dropped("record", 1);
        }
        if self.app.log.is_on() && !self.app.log.write(Line::Call(record, self.status)) {
            self.app.metrics.service.dropped("log_line", 1);
        }
    }

    fn record(&mut self, settlement: &Settlement) -> Record {
        let now = clock::now();
        let tried = std::mem::take(&mut self.tried).into_boxed_slice();
        let origin = &self.origin;
        let engine: Option<EngineId> = settlement.engine;
        let replica: Option<ReplicaId> = settlement.replica;
        Record {
            call: settlement.call,
            trace: origin.trace.clone(),
            tenant: origin.tenant.clone(),
            run: origin.run,
            lineage: origin.lineage.clone(),
            agent: origin.agent.clone(),
            class: origin.class,
            protocol: origin.protocol,
            model: origin.model,
            model_name: origin.model_name.clone(),
            engine,
            engine_name: self.engine_name.clone(),
            replica,
            stream: origin.stream,
            received: clock::wall(origin.received),
            waits: settlement.waits,
            attempts: settlement.attempts,
            tried,
            first_token: self.first_byte.map(|at| at.since(origin.received)),
            took: now.since(origin.received),
            usage: settlement.usage,
            reserved_output: settlement.reserved_output,
            cost: settlement.cost,
            finish: settlement.finish,
            outcome: self.given_up.map_or(settlement.outcome, Outcome::Failed),
        }
    }
}

/// A failure's name in records and metrics.
#[must_use]
pub fn failure_name(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "connect",
        Failure::Timeout => "timeout",
        Failure::Limited { .. } => "limited",
        Failure::Server { .. } => "server_error",
        Failure::Refused { .. } => "refused",
        Failure::Credentials => "credentials",
        Failure::Garbled => "garbled",
        Failure::Cut => "cut",
        Failure::TooLarge => "too_large",
        Failure::Deadline => "deadline",
        Failure::Unsent => "unsent",
    }
}

/// The status that the engine gave, where the failure tells.
fn status_of(failure: Failure) -> Option<u16> {
    match failure {
        Failure::Server { status } | Failure::Refused { status } => Some(status),
        _ => None,
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        if !self.over {
            // An engine that was at work has read the prompt: leaving early is not free.
            let usage = if self.at_work { self.estimate(0) } else { Usage::default() };
            self.cancelled(usage);
        }
    }
}
