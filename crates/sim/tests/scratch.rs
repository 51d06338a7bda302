#![allow(unused)]
// Named situations with the bars they must clear. The invariants are checked throughout
// as well; these hold figures.

use seawall_kernel::plan::{BudgetRule, Meter, Pace, Period, Rate, TenantRule};
use seawall_load::engine::Spec;
use seawall_load::length::Lengths;
use seawall_load::pace;
use seawall_model::{Class, Code, EngineId, Millis, ReplicaId, Tokens};
use seawall_sim::scenario::{Cap, Demand, Incident, Law, Machine, Scenario, Trouble, engine, model};
use seawall_sim::tally::{Demanded, fair_shares, jain, quantile};
use seawall_sim::{Tally, run};

/// Prompt and output of most calls here.
const PROMPT: u64 = 200;
const OUTPUT: u64 = 30;

fn spec(slots: u32) -> Spec {
    Spec {
        slots,
        kv_tokens: Tokens(200_000),
        prefill_chunk: Tokens(2_048),
        queue_len_max: 1_000,
        block_tokens: Tokens(64),
        pace: pace::Pace { step_ns: 20_000_000, sequence_ns: 200_000, prefill_token_ns: 20_000 },
        jitter_percent: 0,
        seed: 1,
    }
}

/// Calls of `PROMPT` and `OUTPUT` per second that an engine of this spec can serve.
fn capacity(spec: &Spec) -> f64 {
    let decode = OUTPUT as f64 * (spec.pace.step_ns as f64 / f64::from(spec.slots) + spec.pace.sequence_ns as f64);
    1e9 / (decode + PROMPT as f64 * spec.pace.prefill_token_ns as f64)
}

fn open(tenant: &str, rps: f64) -> Demand {
    let lengths = |of: u64| Lengths::uniform(Tokens(of / 2), Tokens(of * 3 / 2)).expect("in order");
    Demand { prompt: lengths(PROMPT), output: lengths(OUTPUT), ..Demand::plain(tenant, Law::Open { rps, cv: 1.0 }, 1, 1) }
}

fn closed(tenant: &str, workers: u32) -> Demand {
    Demand { law: Law::Closed { workers, think: Millis::ZERO }, ..open(tenant, 1.0) }
}

fn world(name: &str, spec: &Spec, seconds: u64, demands: Vec<Demand>) -> Scenario {
    let mut scenario = Scenario::quiet(name, 7, 1, spec);
    scenario.length = Millis::from_secs(seconds);
    scenario.demands = demands;
    scenario.check_every = 101;
    scenario
}

fn play(scenario: Scenario) -> Tally {
    run(scenario).unwrap_or_else(|broken| panic!("{broken}"))
}

fn rule(prefix: &str) -> TenantRule {
    TenantRule { prefix: prefix.into(), weight: 100, calls_max: None, rate: Rate::default(), budgets: Vec::new() }
}

fn first_p99(demands: &[Demanded]) -> u64 {
    let all: Vec<u64> = demands.iter().flat_map(|demand| demand.first_us.iter().copied()).collect();
    quantile(&all, 99)
}

fn failed(tally: &Tally, code: Code) -> u64 {
    tally.demands.iter().map(|demand| demand.failed.get(&code).copied().unwrap_or(0)).sum()
}


#[test]
fn scratch() {
    for slots in [16u32, 64] {
    for load in [0.1, 0.2, 0.3, 0.5, 0.8] {
    let spec = spec(slots);
    let share = capacity(&spec) / 21.0;
    let polite: Vec<Demand> = (0..20).map(|nth| open(&format!("polite-{nth}"), share * load)).collect();
    let seconds = 30;
    let alone = play(world("alone", &spec, seconds, polite.clone()));
    let mut all = polite;
    all.push(open("flood", share * 100.0));
    let mut scenario = world("flood", &spec, seconds, all);
    scenario.plan.queue.tenant_len_max = 200;
    let f = play(scenario);
    let q = |d: &[Demanded], p| { let all: Vec<u64> = d.iter().flat_map(|d| d.first_us.iter().copied()).collect(); quantile(&all, p)/1000 };
    let e = |d: &[Demanded], p| { let all: Vec<u64> = d.iter().flat_map(|d| d.engine_first_us.iter().copied()).collect(); quantile(&all, p)/1000 };
    eprintln!("slots {slots} load {load}: alone p50 {} p90 {} p99 {} | flooded p50 {} p90 {} p99 {} | engine alone p50 {} p99 {}, flooded p50 {} p99 {}  done {} of cap {}", q(&alone.demands,50), q(&alone.demands,90), q(&alone.demands,99), q(&f.demands[..20],50), q(&f.demands[..20],90), q(&f.demands[..20],99), e(&alone.demands,50), e(&alone.demands,99), e(&f.demands[..20],50), e(&f.demands[..20],99), f.done(), capacity(&spec)*30.0);
    }}
}
