//! The engine and the worlds that the tests with figures are played on, so that a figure
//! in one test can be held against one in another.

use seawall_load::engine::Spec;
use seawall_load::length::Lengths;
use seawall_load::pace;
use seawall_model::{Millis, Tokens};
use seawall_sim::scenario::{Demand, Law, Scenario};
use seawall_sim::tally::{Demanded, quantile};
use seawall_sim::{Tally, run};

/// Prompt and output of most calls.
pub(crate) const PROMPT: u64 = 200;
pub(crate) const OUTPUT: u64 = 30;

/// An engine with so many places.
pub(crate) fn spec(slots: u32) -> Spec {
    Spec {
        slots,
        kv_tokens: Tokens(200_000),
        prefill_chunk: Tokens(2_048),
        queue_len_max: 1_000,
        block_tokens: Tokens(64),
        pace: pace::Pace { step_ns: 20_000_000, sequence_ns: 200_000, prefill_token_ns: 20_000 },
        reserves: false,
        jitter_percent: 0,
        seed: 1,
    }
}

/// Calls per second that an engine of this spec can serve.
pub(crate) fn capacity(spec: &Spec, prompt: u64, output: u64) -> f64 {
    let decode =
        output as f64 * (spec.pace.step_ns as f64 / f64::from(spec.slots) + spec.pace.sequence_ns as f64);
    1e9 / (decode + prompt as f64 * spec.pace.prefill_token_ns as f64)
}

/// Lengths about a mean.
pub(crate) fn around(of: u64) -> Lengths {
    Lengths::uniform(Tokens(of / 2), Tokens(of * 3 / 2)).expect("in order")
}

/// A tenant that asks so many times a second, whatever comes of it.
pub(crate) fn open(tenant: &str, rps: f64) -> Demand {
    Demand {
        prompt: around(PROMPT),
        output: around(OUTPUT),
        ..Demand::plain(tenant, Law::Open { rps, cv: 1.0 }, 1, 1)
    }
}

/// A quiet world of one engine, checked now and then.
pub(crate) fn world(name: &str, spec: &Spec, replicas: u32, seconds: u64, demands: Vec<Demand>) -> Scenario {
    let mut scenario = Scenario::quiet(name, 7, replicas, spec);
    scenario.length = Millis::from_secs(seconds);
    scenario.demands = demands;
    scenario.check_every = 101;
    scenario
}

/// Plays it; a broken invariant fails the test.
pub(crate) fn play(scenario: &Scenario) -> Tally {
    run(scenario).unwrap_or_else(|broken| panic!("{broken}"))
}

/// The 99th percentile of some times, of all these demands.
pub(crate) fn p99(demands: &[Demanded], of: fn(&Demanded) -> &Vec<u64>) -> u64 {
    quantile(&demands.iter().flat_map(|demand| of(demand).iter().copied()).collect::<Vec<_>>(), 99)
}
