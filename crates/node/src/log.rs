//! The access log: one JSON line per call on standard output, without content, written
//! by a thread of its own behind a bounded line, so that a slow pipe never slows a call.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use seawall_model::{Attempt, Class, Protocol, Record, RunKey, Tenant, Tokens, limits};
use serde::Serialize;

use crate::tasks::{Kind, Tasks};

/// Lines are gathered this long before the writer takes them: waking a thread for each
/// line cost a quarter of a unary call.
const GATHER: Duration = Duration::from_millis(20);

/// The way to the access log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Desk>>);

/// Where lines lie until the writer takes them.
#[derive(Debug, Default)]
struct Desk {
    pile: Mutex<Pile>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Pile {
    lines: Vec<Line>,
    writer: Option<JoinHandle<()>>,
    stop: bool,
}

/// What is logged of one request.
#[derive(Debug)]
pub enum Line {
    /// A call that reached the kernel.
    Call(Arc<Record>, u16),
    /// A request for a count of tokens, answered here by estimate.
    Counted {
        /// When, in unix milliseconds.
        at_ms: u64,
        /// Trace id.
        trace: Arc<str>,
        /// Who asked.
        tenant: Tenant,
        /// Its class.
        class: Class,
        /// The alias asked for.
        model: Arc<str>,
        /// How many were counted.
        tokens: Tokens,
    },
    /// A call answered from the memo of its run.
    Replayed {
        /// When, in unix milliseconds.
        at_ms: u64,
        /// Trace id.
        trace: Arc<str>,
        /// Who asked.
        tenant: Tenant,
        /// Its class.
        class: Class,
        /// The protocol spoken.
        protocol: Protocol,
        /// The alias asked for.
        model: Arc<str>,
    },
    /// A request for an agent as a model, at its end.
    Agent {
        /// When it came, in unix milliseconds.
        at_ms: u64,
        /// Trace id.
        trace: Arc<str>,
        /// Who asked.
        tenant: Tenant,
        /// The protocol spoken.
        protocol: Protocol,
        /// The agent as it was asked for.
        model: Arc<str>,
        /// The run that was made for it.
        run: RunKey,
        /// HTTP status; of a stream, the one it would have had.
        status: u16,
        /// `done`, `client_left` or the error code.
        outcome: &'static str,
        /// From the request to the run's end.
        took_ms: u64,
        /// What the run and all below it used.
        tokens: Tokens,
    },
    /// A request turned away before it.
    Rejected {
        /// When, in unix milliseconds.
        at_ms: u64,
        /// Trace id.
        trace: Arc<str>,
        /// The path, without its query.
        path: String,
        /// HTTP status.
        status: u16,
        /// The error code.
        code: &'static str,
    },
}

#[derive(Serialize)]
struct Entry<'a> {
    at_ms: u64,
    trace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a str>,
    status: u16,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_estimated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentPart>,
}

#[derive(Serialize)]
struct AgentPart {
    /// The durable run's key.
    run: String,
    took_ms: u64,
    tokens: u64,
}

#[derive(Serialize)]
struct CallPart<'a> {
    /// The run's id, as the operations API takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    stream: bool,
    /// How often it was sent.
    sent: u32,
    /// Each time, where there were several or one failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptPart<'a>>,
    wait_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<u64>,
    took_ms: u64,
    tokens_in: u64,
    tokens_cached: u64,
    tokens_out: u64,
    cost_micro_usd: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish: Option<&'a str>,
}

#[derive(Serialize)]
struct AttemptPart<'a> {
    engine: &'a str,
    replica: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    began_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<u64>,
    took_ms: u64,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(tasks: &Tasks) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let theirs = desk.clone();
        let writer = tasks.thread(Kind::LogWriter, move || write_all(&theirs))?;
        desk.lock().writer = Some(writer);
        Ok(Self(Some(desk)))
    }

    /// A log that goes nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Is anything written at all?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves a line for the writer; `false` if it had to be dropped.
    #[must_use]
    pub fn write(&self, line: Line) -> bool {
        let Some(desk) = &self.0 else { return true };
        let mut pile = desk.lock();
        if pile.lines.len() >= limits::LOG_LINES_PENDING_MAX {
            return false;
        }
        pile.lines.push(line);
        if pile.lines.len() == 1 {
            desk.bell.notify_one();
        }
        true
    }

    /// Has what is left written, and ends the writer. Blocks until then.
    pub fn close(&self) {
        let Some(desk) = &self.0 else { return };
        let writer = {
            let mut pile = desk.lock();
            pile.stop = true;
            desk.bell.notify_one();
            pile.writer.take()
        };
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pile> {
        self.pile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, then a little for more of them; the lines, and whether it is over.
    fn take(&self) -> (Vec<Line>, bool) {
        let idle = |pile: &mut Pile| pile.lines.is_empty() && !pile.stop;
        let pile = self.bell.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let more = |pile: &mut Pile| !pile.stop;
        let waited = self.bell.wait_timeout_while(pile, GATHER, more);
        let mut pile = waited.unwrap_or_else(PoisonError::into_inner).0;
        (std::mem::take(&mut pile.lines), pile.stop)
    }
}

/// Writes until it is told to stop.
fn write_all(desk: &Desk) {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout());
    loop {
        let (lines, over) = desk.take();
        for line in &lines {
            // A broken pipe must not end the service; the reader is gone, that is all.
            let _ = write_one(&mut out, line);
        }
        let _ = out.flush();
        if over {
            return;
        }
    }
}

fn write_one(out: &mut impl Write, line: &Line) -> std::io::Result<()> {
    let entry = match line {
        Line::Call(record, status) => call_entry(record, *status),
        Line::Rejected { at_ms, trace, path, status, code } => Entry {
            at_ms: *at_ms,
            trace,
            tenant: None,
            class: None,
            operation: path,
            model: None,
            engine: None,
            status: *status,
            outcome: code,
            tokens_estimated: None,
            call: None,
            agent: None,
        },
        Line::Counted { at_ms, trace, tenant, class, model, tokens } => Entry {
            at_ms: *at_ms,
            trace,
            tenant: Some(tenant.as_str()),
            class: Some(class.as_str()),
            operation: Protocol::CountTokens.as_str(),
            model: Some(model),
            engine: None,
            status: 200,
            outcome: "done",
            tokens_estimated: Some(tokens.0),
            call: None,
            agent: None,
        },
        Line::Agent { at_ms, trace, tenant, protocol, model, run, status, outcome, took_ms, tokens } => {
            Entry {
                at_ms: *at_ms,
                trace,
                tenant: Some(tenant.as_str()),
                class: Some(Class::Agent.as_str()),
                operation: protocol.as_str(),
                model: Some(model),
                engine: None,
                status: *status,
                outcome,
                tokens_estimated: None,
                call: None,
                agent: Some(AgentPart { run: run.to_string(), took_ms: *took_ms, tokens: tokens.0 }),
            }
        }
        Line::Replayed { at_ms, trace, tenant, class, protocol, model } => Entry {
            at_ms: *at_ms,
            trace,
            tenant: Some(tenant.as_str()),
            class: Some(class.as_str()),
            operation: protocol.as_str(),
            model: Some(model),
            engine: None,
            status: 200,
            outcome: "replayed",
            tokens_estimated: None,
            call: None,
            agent: None,
        },
    };
    serde_json::to_writer(&mut *out, &entry)?;
    out.write_all(b"\n")
}

fn call_entry(record: &Record, status: u16) -> Entry<'_> {
    Entry {
        at_ms: record.received.0 / 1_000,
        trace: &record.trace,
        tenant: Some(record.tenant.as_str()),
        class: Some(record.class.as_str()),
        operation: record.protocol.as_str(),
        model: Some(&record.model_name),
        engine: record.engine_name.as_deref(),
        status,
        outcome: record.outcome.as_str(),
        tokens_estimated: None,
        call: Some(CallPart {
            agent: record.agent.as_ref().map(seawall_model::Agent::as_str),
            run: record.run.map(|run| format!("{:016x}", run.0)),
            stream: record.stream,
            sent: record.attempts,
            attempts: record.tried.iter().map(attempt_part).collect(),
            wait_ms: record.waits.total().0,
            wait_cause: record.waits.main().map(seawall_model::Cause::as_str),
            first_token_ms: record.first_token.map(|ms| ms.0),
            took_ms: record.took.0,
            tokens_in: record.usage.input.0,
            tokens_cached: record.usage.cached.0,
            tokens_out: record.usage.output.0,
            cost_micro_usd: record.cost.0,
            finish: record.finish.map(seawall_model::Finish::as_str),
        }),
        agent: None,
    }
}

fn attempt_part(attempt: &Attempt) -> AttemptPart<'_> {
    AttemptPart {
        engine: &attempt.engine,
        replica: &attempt.replica,
        outcome: attempt.outcome,
        status: attempt.status,
        began_ms: attempt.began.0,
        first_byte_ms: attempt.first_byte.map(|ms| ms.0),
        took_ms: attempt.took.0,
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::Millis;

    use super::*;

    #[test]
    fn a_count_made_here_has_a_line_of_its_own() {
        let line = Line::Counted {
            at_ms: 1,
            trace: "t".into(),
            tenant: Tenant::local(),
            class: Class::Agent,
            model: "m".into(),
            tokens: Tokens(9),
        };
        let mut out = Vec::new();
        write_one(&mut out, &line).expect("memory takes it");
        let expected = "{\"at_ms\":1,\"trace\":\"t\",\"tenant\":\"local\",\"class\":\"agent\",\"operation\":\"count_tokens\",\"model\":\"m\",\"status\":200,\"outcome\":\"done\",\"tokens_estimated\":9}\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn an_agent_asked_for_as_a_model_has_a_line_with_its_run() {
        let line = Line::Agent {
            at_ms: 1,
            trace: "t".into(),
            tenant: Tenant::local(),
            protocol: Protocol::Chat,
            model: "agent/a".into(),
            run: RunKey(0x1f03),
            status: 504,
            outcome: "deadline_passed",
            took_ms: 7,
            tokens: Tokens(9),
        };
        let mut out = Vec::new();
        write_one(&mut out, &line).expect("memory takes it");
        let expected = "{\"at_ms\":1,\"trace\":\"t\",\"tenant\":\"local\",\"class\":\"agent\",\"operation\":\"chat\",\"model\":\"agent/a\",\"status\":504,\"outcome\":\"deadline_passed\",\"agent\":{\"run\":\"run-1f03\",\"took_ms\":7,\"tokens\":9}}\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn an_attempt_says_where_how_and_how_long() {
        let attempt = Attempt {
            engine: "e".into(),
            replica: "http://r".into(),
            outcome: "server_error",
            status: Some(503),
            began: Millis(2),
            first_byte: Some(Millis(30)),
            took: Millis(40),
        };
        let line = serde_json::to_string(&attempt_part(&attempt)).expect("it is plain");
        let expected = "{\"engine\":\"e\",\"replica\":\"http://r\",\"outcome\":\"server_error\",\"status\":503,\"began_ms\":2,\"first_byte_ms\":30,\"took_ms\":40}";
        assert_eq!(line, expected);
    }
}
