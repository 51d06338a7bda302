//! `GET /metrics` under vLLM's names, so that whatever reads a vLLM reads this engine.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::ledger::{BUCKETS_US, Delays};
use super::world::World;

/// Renders Prometheus text.
pub(super) fn render(world: &World) -> String {
    let (ledger, model) = (&world.ledger, world.state());
    let name = world.settings.options.models.first().map_or("any", String::as_str);
    let label = format!("model_name=\"{}\"", name.replace(['\\', '"', '\n'], "_"));
    let timed = ledger.in_flight().saturating_sub(u64::from(model.running) + u64::from(model.waiting));
    let mut page = Page { out: String::with_capacity(6 << 10), label };
    page.gauge("num_requests_running", (u64::from(model.running) + timed) as f64);
    page.gauge("num_requests_waiting", f64::from(model.waiting));
    page.gauge("kv_cache_usage_perc", model.kv_used.0 as f64 / model.kv_tokens.0 as f64);
    page.counter("prefix_cache_queries_total", model.prefix_queries.0);
    page.counter("prefix_cache_hits_total", model.prefix_hits.0);
    page.counter("num_preemptions_total", model.preempted);
    page.counter("prompt_tokens_total", ledger.prompt_tokens.load(Relaxed));
    page.counter("generation_tokens_total", ledger.generated_tokens.load(Relaxed));
    page.kind("request_success_total", "counter");
    for (reason, count) in
        [("stop", &ledger.stopped), ("length", &ledger.cut_short), ("abort", &ledger.cancelled)]
    {
        page.line(
            "request_success_total",
            &format!(",finished_reason=\"{reason}\""),
            count.load(Relaxed) as f64,
        );
    }
    page.delays("time_to_first_token_seconds", &ledger.first_token);
    page.delays("inter_token_latency_seconds", &ledger.token);
    page.delays("e2e_request_latency_seconds", &ledger.whole);
    let block = world.settings.spec.block_tokens.0;
    page.kind("cache_config_info", "gauge");
    let sizes = format!(",block_size=\"{block}\",num_gpu_blocks=\"{}\"", model.kv_tokens.0 / block);
    page.line("cache_config_info", &sizes, 1.0);
    page.out
}

struct Page {
    out: String,
    label: String,
}

// Writing to a string cannot fail, so the results of `writeln!` say nothing.
impl Page {
    fn kind(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.out, "# TYPE vllm:{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.out, "vllm:{name}{{{}{labels}}} {value}", self.label);
    }

    fn gauge(&mut self, name: &str, value: f64) {
        self.kind(name, "gauge");
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, value: u64) {
        self.kind(name, "counter");
        self.line(name, "", value as f64);
    }

    fn delays(&mut self, name: &str, delays: &Delays) {
        self.kind(name, "histogram");
        let (counts, sum_us) = delays.read();
        for (at, count) in counts.iter().enumerate() {
            let bound =
                BUCKETS_US.get(at).map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
            self.line(&format!("{name}_bucket"), &format!(",le=\"{bound}\""), *count as f64);
        }
        self.line(&format!("{name}_sum"), "", sum_us as f64 / 1e6);
        self.line(&format!("{name}_count"), "", counts[BUCKETS_US.len()] as f64);
    }
}
