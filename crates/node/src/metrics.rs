//! The catalogue of metrics: every name, its labels and its meaning in one place.
//! Names follow OpenTelemetry's GenAI conventions where one exists. No label ever
//! holds content, a key or an unbounded value (I11).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use seawall_model::{Cause, Class, Record};

use crate::clock;

/// A small, ordered set of labels whose names are known at compile time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels<const N: usize>([(&'static str, Arc<str>); N]);

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, value) in &self.0 {
            (*name, &**value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

use prometheus_client::encoding::EncodeLabel;

type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Counters<4>,
    duration: Histograms<3>,
    first_token: Histograms<2>,
    per_token: Histograms<2>,
    tokens: Counters<3>,
    cost: Counters<1>,
    waited: Counters<1>,
    attempts: Counters<2>,
    rejected: Counters<1>,
    /// Connections open from clients.
    pub connections: Gauge,
    /// Connections refused or cut, by why.
    pub connections_cut: Counters<1>,
    /// Seconds an upstream call lived on after its client had left. Stays 0 (I8).
    pub orphaned: Counter<f64, AtomicU64>,
    /// Records and log lines dropped because a disk or pipe was too slow.
    pub dropped: Counters<1>,
    /// Reloads of the configuration, by result.
    pub reloads: Counters<1>,
    /// Time a worker thread ran without a pause.
    pub stalls: Histogram,
    queued: Gauges<2>,
    queued_bytes: Gauges<1>,
    running: Gauges<2>,
    limit: Gauges<2>,
    predicted: Gauges<2>,
    circuit: Gauges<2>,
    tenant_queued: Gauges<1>,
    tenant_running: Gauges<1>,
    tenant_served: Gauges<1>,
    budget_spent: Gauges<1>,
    budget_reserved: Gauges<1>,
    budget_limit: Gauges<1>,
    held: Gauges<1>,
    tasks: Gauges<1>,
    process: Gauges<1>,
    kernel: Gauges<1>,
}

/// Boundaries of OpenTelemetry's `gen_ai.client.operation.duration`.
fn durations() -> Histogram {
    Histogram::new([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92])
}

/// Boundaries of `gen_ai.server.time_to_first_token`.
fn first_tokens() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
    ])
}

/// Boundaries of `gen_ai.server.time_per_output_token`.
fn per_tokens() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5])
}

/// One label value.
fn one(name: &'static str, value: &str) -> Labels<1> {
    Labels([(name, value.into())])
}

impl Metrics {
    /// Makes and registers every metric.
    #[must_use]
    pub fn new() -> Self {
        let mut r = Registry::default();
        let metrics = Self {
            calls: Family::default(),
            duration: Family::new_with_constructor(durations),
            first_token: Family::new_with_constructor(first_tokens),
            per_token: Family::new_with_constructor(per_tokens),
            tokens: Family::default(),
            cost: Family::default(),
            waited: Family::default(),
            attempts: Family::default(),
            rejected: Family::default(),
            connections: Gauge::default(),
            connections_cut: Family::default(),
            orphaned: Counter::default(),
            dropped: Family::default(),
            reloads: Family::default(),
            stalls: Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]),
            queued: Family::default(),
            queued_bytes: Family::default(),
            running: Family::default(),
            limit: Family::default(),
            predicted: Family::default(),
            circuit: Family::default(),
            tenant_queued: Family::default(),
            tenant_running: Family::default(),
            tenant_served: Family::default(),
            budget_spent: Family::default(),
            budget_reserved: Family::default(),
            budget_limit: Family::default(),
            held: Family::default(),
            tasks: Family::default(),
            process: Family::default(),
            kernel: Family::default(),
            registry: Registry::default(),
        };
        let m = &metrics;
        r.register("seawall_calls", "Calls ended, by operation, model, engine and outcome", m.calls.clone());
        let help = "From receipt to the end of the answer";
        r.register_with_unit("gen_ai_client_operation_duration", help, Unit::Seconds, m.duration.clone());
        let help = "From receipt to the first byte of the answer";
        r.register_with_unit("gen_ai_server_time_to_first_token", help, Unit::Seconds, m.first_token.clone());
        let help = "Mean time per output token after the first";
        r.register_with_unit("gen_ai_server_time_per_output_token", help, Unit::Seconds, m.per_token.clone());
        r.register("gen_ai_client_inference_tokens", "Tokens used, by type", m.tokens.clone());
        r.register("seawall_cost_micro_usd", "Money charged, by model", m.cost.clone());
        r.register("seawall_wait_micros", "Microseconds that calls waited, by cause", m.waited.clone());
        r.register("seawall_attempts", "Attempts on engines, by engine and result", m.attempts.clone());
        r.register("seawall_rejected", "Requests answered with an error, by code", m.rejected.clone());
        r.register("seawall_connections", "Open connections from clients", m.connections.clone());
        r.register("seawall_connections_cut", "Connections refused or cut, by why", m.connections_cut.clone());
        let help = "Time that upstream calls lived on after their client had left";
        r.register_with_unit("seawall_orphaned_upstream", help, Unit::Seconds, m.orphaned.clone());
        r.register("seawall_dropped", "Records and log lines dropped, by kind", m.dropped.clone());
        r.register("seawall_reloads", "Reloads of the configuration, by result", m.reloads.clone());
        let help = "Time a worker thread ran without a pause: long ones are blocking code";
        r.register_with_unit("seawall_worker_stall", help, Unit::Seconds, m.stalls.clone());
        r.register("seawall_queue_len", "Calls waiting, by engine and class", m.queued.clone());
        r.register("seawall_queue_bytes", "Bytes of calls waiting, by engine", m.queued_bytes.clone());
        r.register("seawall_replica_running", "Calls in flight, by engine and replica", m.running.clone());
        r.register("seawall_replica_limit", "Concurrency limit as found, by engine and replica", m.limit.clone());
        r.register("seawall_replica_tokens", "Predicted tokens in flight", m.predicted.clone());
        r.register("seawall_replica_circuit", "0 closed, 1 half-open, 2 open", m.circuit.clone());
        r.register("seawall_tenant_queued", "Calls waiting, by tenant (busiest)", m.tenant_queued.clone());
        r.register("seawall_tenant_running", "Calls in flight, by tenant (busiest)", m.tenant_running.clone());
        r.register("seawall_tenant_served", "Cost units served, by tenant (busiest)", m.tenant_served.clone());
        r.register("seawall_budget_spent", "Settled, by account", m.budget_spent.clone());
        r.register("seawall_budget_reserved", "Reserved by calls in flight", m.budget_reserved.clone());
        r.register("seawall_budget_limit", "Limit, by account", m.budget_limit.clone());
        r.register("seawall_memory_bytes", "The byte budget: held and limit", m.held.clone());
        r.register("seawall_tasks", "Live tasks and threads, by kind", m.tasks.clone());
        r.register("seawall_process", "This process: resident bytes, allocated bytes, descriptors", m.process.clone());
        r.register("seawall_kernel", "Entries the kernel keeps: calls, tenants", m.kernel.clone());
        Self { registry: r, ..metrics }
    }

    /// Counts a call that reached the kernel and has ended.
    pub fn call(&self, record: &Record) {
        let operation: Arc<str> = record.protocol.operation().into();
        let model = &record.model_name;
        let engine = record.engine_name.clone().unwrap_or_else(|| "none".into());
        let labels = Labels([
            ("operation", operation.clone()),
            ("model", model.clone()),
            ("engine", engine),
            ("outcome", record.outcome.as_str().into()),
        ]);
        self.calls.get_or_create(&labels).inc();
        let error = match record.outcome {
            seawall_model::Outcome::Done => "",
            other => other.as_str(),
        };
        let by_error = Labels([
            ("gen_ai_operation_name", operation.clone()),
            ("gen_ai_request_model", model.clone()),
            ("error_type", error.into()),
        ]);
        self.duration.get_or_create(&by_error).observe(secs(record.took.micros()));
        let by_model = Labels([("gen_ai_operation_name", operation), ("gen_ai_request_model", model.clone())]);
        if let Some(first) = record.first_token {
            self.first_token.get_or_create(&by_model).observe(secs(first.micros()));
            let streamed = record.usage.output.0.saturating_sub(1);
            if record.stream && streamed > 0 {
                let each = secs(record.took.saturating_sub(first).micros()) / streamed as f64;
                self.per_token.get_or_create(&by_model).observe(each);
            }
        }
        self.used(record);
    }

    fn used(&self, record: &Record) {
        let usage = &record.usage;
        let kinds = [
            ("input", usage.uncached().0),
            ("cached", usage.cached.0),
            ("output", usage.output.0 - usage.reasoning.0.min(usage.output.0)),
            ("reasoning", usage.reasoning.0),
        ];
        for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
            let labels = Labels([
                ("gen_ai_token_type", kind.into()),
                ("gen_ai_request_model", record.model_name.clone()),
                ("gen_ai_operation_name", record.protocol.operation().into()),
            ]);
            self.tokens.get_or_create(&labels).inc_by(count);
        }
        if record.cost.0 > 0 {
            self.cost.get_or_create(&Labels([("model", record.model_name.clone())])).inc_by(record.cost.0);
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
        self.attempts.get_or_create(&Labels([("engine", engine.clone()), ("result", result.into())])).inc();
    }

    /// Counts a request answered with an error.
    pub fn rejected(&self, code: &str) {
        self.rejected.get_or_create(&one("code", code)).inc();
    }

    /// Counts a connection refused or cut.
    pub fn cut(&self, why: &str) {
        self.connections_cut.get_or_create(&one("why", why)).inc();
    }

    /// Counts something dropped.
    pub fn drop_one(&self, kind: &str) {
        self.dropped.get_or_create(&one("kind", kind)).inc();
    }

    /// Counts a reload.
    pub fn reload(&self, result: &str) {
        self.reloads.get_or_create(&one("result", result)).inc();
    }

    /// Renders the page, in OpenMetrics text. The kernel's and the process's figures are
    /// read now.
    #[must_use]
    pub fn page(&self, app: &crate::app::App) -> String {
        self.look_at_kernel(app);
        self.look_at_process(app);
        let mut page = String::with_capacity(16 << 10);
        if prometheus_client::encoding::text::encode(&mut page, &self.registry).is_err() {
            // Writing to a string cannot fail; a comment is better than a panic.
            let _ = writeln!(page, "# the page could not be rendered");
        }
        page
    }

    fn look_at_kernel(&self, app: &crate::app::App) {
        let view = app.seat.view();
        let live = app.live.load();
        for family in [&self.tenant_queued, &self.tenant_running, &self.tenant_served] {
            family.clear();
        }
        for family in [&self.budget_spent, &self.budget_reserved, &self.budget_limit, &self.queued_bytes] {
            family.clear();
        }
        for family in [&self.queued, &self.running, &self.limit, &self.predicted, &self.circuit] {
            family.clear();
        }
        for engine in &view.engines {
            let name: Arc<str> = live.engine_name(engine.engine);
            for class in Class::ALL {
                let labels = Labels([("engine", name.clone()), ("class", class.as_str().into())]);
                self.queued.get_or_create(&labels).set(engine.queued[class as usize] as f64);
            }
            let bytes = engine.queued_bytes.0 as f64;
            self.queued_bytes.get_or_create(&Labels([("engine", name.clone())])).set(bytes);
            for replica in &engine.replicas {
                let address = live.replica_name(replica.replica);
                let labels = Labels([("engine", name.clone()), ("replica", address)]);
                self.running.get_or_create(&labels).set(f64::from(replica.running));
                self.limit.get_or_create(&labels).set(f64::from(replica.limit));
                self.predicted.get_or_create(&labels).set(replica.tokens.0 as f64);
                let circuit = match replica.circuit {
                    seawall_kernel::view::Circuit::Closed => 0.0,
                    seawall_kernel::view::Circuit::HalfOpen => 1.0,
                    seawall_kernel::view::Circuit::Open => 2.0,
                };
                self.circuit.get_or_create(&labels).set(circuit);
            }
        }
        for tenant in &view.tenants {
            let labels = Labels([("tenant", tenant.path.clone())]);
            self.tenant_queued.get_or_create(&labels).set(tenant.queued as f64);
            self.tenant_running.get_or_create(&labels).set(f64::from(tenant.running));
            self.tenant_served.get_or_create(&labels).set(tenant.served as f64);
        }
        for budget in &view.budgets {
            let labels = Labels([("account", budget.account.clone())]);
            self.budget_spent.get_or_create(&labels).set(budget.spent as f64);
            self.budget_reserved.get_or_create(&labels).set(budget.reserved as f64);
            self.budget_limit.get_or_create(&labels).set(budget.limit as f64);
        }
        self.kernel.get_or_create(&one("kind", "calls")).set(view.calls as f64);
        self.kernel.get_or_create(&one("kind", "tenants")).set(view.tenants_len as f64);
    }

    fn look_at_process(&self, app: &crate::app::App) {
        self.held.get_or_create(&one("kind", "held")).set(app.memory.held().0 as f64);
        self.held.get_or_create(&one("kind", "limit")).set(app.memory.limit().0 as f64);
        for kind in crate::tasks::Kind::ALL {
            self.tasks.get_or_create(&one("kind", kind.as_str())).set(app.tasks.count(*kind) as f64);
        }
        let process = crate::process::Process::read();
        self.process.get_or_create(&one("kind", "resident_bytes")).set(process.resident as f64);
        self.process.get_or_create(&one("kind", "allocated_bytes")).set(process.allocated as f64);
        self.process.get_or_create(&one("kind", "descriptors")).set(process.descriptors as f64);
        let up = clock::now().since(app.started).0;
        self.process.get_or_create(&one("kind", "uptime_seconds")).set(up as f64 / 1_000.0);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn secs(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
