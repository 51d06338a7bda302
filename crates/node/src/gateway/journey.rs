//! One call from its receipt to its end: what is remembered of it on the way, and the
//! record, the metrics and the log line at its end. Exactly one end, whatever happens.

use std::sync::Arc;

use seawall_kernel::{Failure, Settlement};
use seawall_model::{
    At, Class, EngineId, Finish, ModelId, Protocol, Record, ReplicaId, RunId, Tenant, Tokens, Usage,
};

use crate::app::App;
use crate::clock;
use crate::log::Line;
use crate::seat::{Ticket, Verdict};

/// What is known of a call from the start.
#[derive(Debug)]
pub struct Origin {
    /// Trace id.
    pub trace: Arc<str>,
    /// Who asked.
    pub tenant: Tenant,
    /// Its run.
    pub run: Option<RunId>,
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

/// A call on its way. Dropped before its end, it is a client that left.
#[derive(Debug)]
pub struct Journey {
    app: Arc<App>,
    origin: Origin,
    ticket: Ticket,
    engine_name: Option<Arc<str>>,
    first_byte: Option<At>,
    status: u16,
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
            first_byte: None,
            status: 499,
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

    /// The engine of the present attempt.
    #[must_use]
    pub fn engine(&self) -> Option<Arc<str>> {
        self.engine_name.clone()
    }

    /// Waits for the kernel's word; a refusal ends the journey. `None` would be a kernel
    /// that forgot the call.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        let verdict = self.ticket.verdict().await;
        if let Some(Verdict::No(no)) = &verdict {
            if !self.refused {
                self.status = no.0.code.status();
            }
            self.end(&no.1);
        }
        verdict
    }

    /// The present attempt goes to this engine.
    pub fn goes_to(&mut self, engine: Arc<str>) {
        self.engine_name = Some(engine);
        self.at_work = true;
    }

    /// The first byte of the answer is here; streamed answers tell the kernel, which
    /// learns from it how loaded the replica is.
    pub fn first_byte(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(clock::now());
            if self.origin.stream {
                self.ticket.first_token();
            }
        }
    }

    /// So much output has been streamed.
    pub fn progress(&self, output: Tokens) {
        self.ticket.progress(output);
    }

    /// The status that the client sees.
    pub fn answers(&mut self, status: u16) {
        self.status = status;
    }

    /// The present attempt failed before the client saw anything.
    pub fn failed(&mut self, failure: Failure, usage: Usage) {
        self.at_work = false;
        if let Failure::Refused { status } = failure {
            self.refused = true;
            self.status = status;
        }
        self.ticket.failed(failure, usage);
    }

    /// The answer broke after the client had seen a part of it.
    pub fn broke(&mut self, failure: Failure, usage: Usage) {
        let settlement = self.ticket.broke(failure, usage);
        self.end_with(settlement);
    }

    /// The answer is complete.
    pub fn finished(&mut self, usage: Usage, finish: Option<Finish>) {
        let settlement = self.ticket.finished(usage, finish);
        self.end_with(settlement);
    }

    /// The client left.
    pub fn cancelled(&mut self, usage: Usage) {
        let settlement = self.ticket.cancelled(usage);
        self.end_with(settlement);
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
        let record = Arc::new(self.record(settlement));
        self.app.metrics.calls.ended(&record);
        if !self.app.disk.record(record.clone()) {
            self.app.metrics.service.dropped("record", 1);
        }
        if self.app.log.is_on() && !self.app.log.write(Line::Call(record, self.status)) {
            self.app.metrics.service.dropped("log_line", 1);
        }
    }

    fn record(&self, settlement: &Settlement) -> Record {
        let now = clock::now();
        let origin = &self.origin;
        let engine: Option<EngineId> = settlement.engine;
        let replica: Option<ReplicaId> = settlement.replica;
        Record {
            call: settlement.call,
            trace: origin.trace.clone(),
            tenant: origin.tenant.clone(),
            run: origin.run,
            class: origin.class,
            protocol: origin.protocol,
            model: origin.model,
            model_name: origin.model_name.clone(),
            engine,
            engine_name: self.engine_name.clone(),
            replica,
            stream: origin.stream,
            received: origin.received,
            waits: settlement.waits,
            attempts: settlement.attempts,
            first_token: self.first_byte.map(|at| at.since(origin.received)),
            took: now.since(origin.received),
            usage: settlement.usage,
            reserved_output: settlement.reserved_output,
            cost: settlement.cost,
            finish: settlement.finish,
            outcome: settlement.outcome,
        }
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
