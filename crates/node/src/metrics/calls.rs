//! What calls did: counts, times, tokens, money, waiting.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use seawall_model::{Agent, Cause, Outcome, Record, limits};

use super::label::{Counters, Histograms, Labels, Text, counters, one, seconds};

/// Metrics of calls.
#[derive(Debug)]
pub struct Calls {
    ended: Counters<4>,
    duration: Histograms<3>,
    first_token: Histograms<2>,
    per_token: Histograms<2>,
    tokens: Counters<3>,
    cost: Counters<1>,
    waited: Counters<1>,
    attempts: Counters<2>,
    rejected: Counters<1>,
    memo: Counters<1>,
    loops: Counters<1>,
    by_agent: Counters<2>,
    /// Types of agents that have a label of their own.
    agents: Mutex<BTreeSet<Arc<str>>>,
}

/// Boundaries of OpenTelemetry's `gen_ai.client.operation.duration`.
fn durations() -> Histogram {
    Histogram::new([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92])
}

/// Boundaries of `gen_ai.server.time_to_first_token`, and the two above them that long
/// prompts reach.
fn first_tokens() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
        60.0,
    ])
}

/// Boundaries of `gen_ai.server.time_per_output_token`.
fn per_tokens() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5])
}

impl Calls {
    pub(super) fn register(r: &mut Registry) -> Self {
        let duration = "From receipt to the end of the answer";
        let first = "From receipt to the first byte of the answer";
        let each = "Mean time per output token after the first, of streamed answers";
        Self {
            ended: counters(r, "seawall_calls", "Calls ended, by operation, model, engine and outcome"),
            duration: seconds(r, "gen_ai_client_operation_duration", duration, durations),
            first_token: seconds(r, "gen_ai_server_time_to_first_token", first, first_tokens),
            per_token: seconds(r, "gen_ai_server_time_per_output_token", each, per_tokens),
            tokens: counters(
                r,
                "gen_ai_client_inference_tokens",
                "Tokens used, by type, model and operation",
            ),
            cost: counters(r, "seawall_cost_micro_usd", "Money charged, by model"),
            waited: counters(r, "seawall_wait_micros", "Microseconds that calls waited, by cause"),
            attempts: counters(r, "seawall_attempts", "Attempts on engines, by engine and result"),
            memo: counters(r, "seawall_memo", "Calls with a memo, by what it came to"),
            by_agent: counters(r, "seawall_agent_calls", "Calls ended, by type of agent and outcome"),
            agents: Mutex::default(),
            loops: counters(r, "seawall_loops", "Calls found to repeat those before them, by what was done"),
            rejected: counters(r, "seawall_rejected", "Requests turned away before they were calls, by code"),
        }
    }

    /// Counts a call that has ended.
    pub fn ended(&self, record: &Record) {
        let operation = || Text::from(record.protocol.operation());
        let model = || Text::from(record.model_name.clone());
        let engine = record.engine_name.clone().map_or(Text::from("none"), Text::from);
        let outcome = record.outcome.as_str();
        let labels = Labels([
            ("operation", operation()),
            ("model", model()),
            ("engine", engine),
            ("outcome", outcome.into()),
        ]);
        self.ended.get_or_create(&labels).inc();
        let error = if record.outcome == Outcome::Done { "" } else { outcome };
        let by_error = Labels([
            ("gen_ai_operation_name", operation()),
            ("gen_ai_request_model", model()),
            ("error_type", error.into()),
        ]);
        self.duration.get_or_create(&by_error).observe(secs(record.took.micros()));
        if let Some(first) = record.first_token {
            let by_model =
                Labels([("gen_ai_operation_name", operation()), ("gen_ai_request_model", model())]);
            self.first_token.get_or_create(&by_model).observe(secs(first.micros()));
            let later = record.usage.output.0.saturating_sub(1);
            if record.stream && later > 0 {
                let each = secs(record.took.saturating_sub(first).micros()) / later as f64;
                self.per_token.get_or_create(&by_model).observe(each);
            }
        }
        self.used(record);
        if let Some(agent) = &record.agent {
            let labels = Labels([("agent_type", self.label(agent)), ("outcome", outcome.into())]);
            self.by_agent.get_or_create(&labels).inc();
        }
    }

    /// The label of an agent's type: its own for the first so many, so that clients cannot
    /// blow up the page by inventing types.
    fn label(&self, agent: &Agent) -> Text {
        let mut known = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = known.get(agent.kind()) {
            return label.clone().into();
        }
        if known.len() >= limits::AGENT_LABELS_MAX {
            return "other".into();
        }
        let label: Arc<str> = agent.kind().into();
        known.insert(label.clone());
        label.into()
    }

    fn used(&self, record: &Record) {
        let usage = &record.usage;
        let kinds = [
            ("input", usage.uncached()),
            ("cached", usage.cached),
            ("output", usage.output - usage.reasoning),
            ("reasoning", usage.reasoning),
        ];
        for (kind, count) in kinds.into_iter().filter(|(_, count)| count.0 > 0) {
            let labels = Labels([
                ("gen_ai_token_type", kind.into()),
                ("gen_ai_request_model", record.model_name.clone().into()),
                ("gen_ai_operation_name", record.protocol.operation().into()),
            ]);
            self.tokens.get_or_create(&labels).inc_by(count.0);
        }
        if record.cost.0 > 0 {
            self.cost.get_or_create(&one("model", record.model_name.clone())).inc_by(record.cost.0);
        }
        for cause in Cause::ALL {
            let waited = record.waits.of(cause);
            if waited > 0 {
                self.waited.get_or_create(&one("cause", cause.as_str())).inc_by(waited);
            }
        }
    }

    /// Counts one attempt on an engine.
    pub fn attempt(&self, engine: &Arc<str>, result: &'static str) {
        let labels = Labels([("engine", engine.clone().into()), ("result", result.into())]);
        self.attempts.get_or_create(&labels).inc();
    }

    /// Counts what came of a call's memo: `hit`, `miss`, `kept` or `not_kept`.
    pub fn memo(&self, result: &'static str) {
        self.memo.get_or_create(&one("result", result)).inc();
    }

    /// Counts a call that goes round in circles, by the guard's action.
    pub fn looping(&self, action: &'static str) {
        self.loops.get_or_create(&one("action", action)).inc();
    }

    /// Counts a request turned away before it was a call.
    pub fn rejected(&self, code: &'static str) {
        self.rejected.get_or_create(&one("code", code)).inc();
    }
}

fn secs(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
