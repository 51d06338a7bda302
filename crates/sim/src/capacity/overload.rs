//! Overload: more calls than the engine can serve in time. What counts is how many are
//! served as promised; what is begun and not finished in time is work in vain.

use seawall_kernel::plan::Pace as Limits;
use seawall_load::engine::Spec;
use seawall_load::pace::Pace;
use seawall_load::trace::Row as TraceRow;
use seawall_model::{Millis, Tokens};

use super::measure::{attained, first_tokens, in_flight, in_vain, quantile};
use super::replay::{Ask, Run, Slow};
use super::rivals::aimd::Aimd;
use super::rivals::fcfs::Fcfs;
use super::rivals::fixed::Fixed;
use super::rivals::gradient2::Gradient2;
use super::rivals::vegas::Vegas;
use super::rivals::{Limit, Rival};
use super::seawall::{Seawall, Setting as Ours};
use super::study::{Case, Column, Contender, Setting, Target};
use super::workload;

/// A first token within two seconds and 0.2 ms for each token of its prompt, and no more
/// than 0.1 s for each token after it.
#[must_use]
pub fn met(ask: &Ask, first_s: f64, rest_s: f64) -> bool {
    first_s <= 2.0 + 0.000_2 * ask.input as f64 && rest_s <= 0.1f64.mul_add(ask.output as f64, 0.3)
}

/// Nobody starts a call that has waited for longer.
pub const PATIENCE_US: u64 = 2_000_000;

/// One replica of llama2-70B on eight H100, after Splitwise's measurements.
#[must_use]
pub fn engine() -> Spec {
    Spec {
        slots: 256,
        kv_tokens: Tokens(400_000),
        prefill_chunk: Tokens(2_048),
        queue_len_max: 100_000,
        block_tokens: Tokens(16),
        pace: H100,
        reserves: false,
        jitter_percent: 5,
        seed: 0,
    }
}

/// 29.6 ms a step, 0.31 ms a sequence, 0.085 ms a prompt token: least squares over
/// Splitwise's rows for llama2-70B on eight H100 with long prompts weighing in full.
pub const H100: Pace = Pace { step_ns: 29_600_000, sequence_ns: 310_000, prefill_token_ns: 85_000 };

/// How fast the trace is played for a load of 1: then a gateway without any limit serves 99 %
/// as promised at a load of 0.9, as it did in the study that the targets come from. It was
/// chosen by the rivals' rows alone.
pub const UNIT: f64 = 0.48;

/// Ours, unset and otherwise.
#[must_use]
pub fn own() -> Vec<Setting> {
    let set = |words: &str, pace: Limits| {
        let setting = Ours { pace, replicas: 1, weights: Vec::new(), output_max: None };
        Setting::new(words, move |_| Seawall::new(&setting))
    };
    let fixed = |calls: u32| Limits { adaptive: false, calls_max: calls, ..Limits::default() };
    vec![
        set("nothing set", Limits::default()),
        set("slowdown_max 3", Limits { slowdown_max: 3, ..Limits::default() }),
        set("slowdown_max 5", Limits { slowdown_max: 5, ..Limits::default() }),
        set("queue_delay 200 ms", Limits { queue_delay_ms_max: Millis(200), ..Limits::default() }),
        set(
            "queue_delay 200 ms, slowdown_max 3",
            Limits { queue_delay_ms_max: Millis(200), slowdown_max: 3, ..Limits::default() },
        ),
        set("queue_delay 100 ms", Limits { queue_delay_ms_max: Millis(100), ..Limits::default() }),
        set("48 calls", fixed(48)),
        set("64 calls", fixed(64)),
    ]
}

/// Everybody.
#[must_use]
pub fn contenders() -> Vec<Contender> {
    let alone = |name, words: &str, calls| one(name, vec![rival(words, move |_| Fixed(calls))]);
    vec![
        alone("none", "straight to the engine", u32::MAX),
        alone("fixed 32", "32 calls", 32),
        alone("fixed 64", "64 calls", 64),
        alone("fixed 128", "128 calls", 128),
        one(
            "Gradient2",
            vec![
                rival("tolerance 1.5, to 200", |_| Gradient2::new(1.5, 200.0)),
                rival("tolerance 1.5, to 64", |_| Gradient2::new(1.5, 64.0)),
                rival("tolerance 2, to 100", |_| Gradient2::new(2.0, 100.0)),
                rival("tolerance 3, to 64", |_| Gradient2::new(3.0, 64.0)),
            ],
        ),
        one(
            "Vegas",
            vec![
                rival("default", |seed| Vegas::new(1, seed)),
                rival("bounds times 5", |seed| Vegas::new(5, seed)),
                rival("bounds times 15", |seed| Vegas::new(15, seed)),
            ],
        ),
        one(
            "AIMD",
            vec![
                rival("timeout 5 s", |_| Aimd::new(5)),
                rival("timeout 15 s", |_| Aimd::new(15)),
                rival("timeout 25 s", |_| Aimd::new(25)),
                rival("timeout 40 s", |_| Aimd::new(40)),
            ],
        ),
        Contender { name: "Seawall", ours: true, settings: own() },
    ]
}

fn rival<L: Limit + 'static>(words: &str, limit: impl Fn(u64) -> L + 'static) -> Setting {
    Setting::new(words, move |seed| Rival::before_one(Fcfs::default(), limit(seed)))
}

fn one(name: &'static str, settings: Vec<Setting>) -> Contender {
    Contender { name, ours: false, settings }
}

fn worth(asks: &[Ask], run: &Run) -> Vec<f64> {
    let firsts = first_tokens(asks, run, |_| true);
    let dropped = run.outcomes.iter().filter(|outcome| outcome.dropped).count();
    let dropped = dropped as f64 * 100.0 / (asks.len() as f64).max(1.0);
    vec![attained(asks, run, met), in_vain(asks, run, met), dropped, quantile(firsts, 0.99), in_flight(run)]
}

/// The cases; `part` of the trace is played.
#[must_use]
pub fn cases(conversation: &[TraceRow], part: f64) -> Vec<Case> {
    let end_us = conversation.last().map_or(0.0, |row| row.at_us as f64) * part;
    let case = |name, load: f64, slow: bool, bound: Option<f64>| {
        let rows = conversation.to_vec();
        let speed = load * UNIT;
        let asks = move |seed| {
            let mut asks = workload::replayed(&rows, speed, seed, part);
            asks.iter_mut().for_each(|ask| ask.patience_us = Some(PATIENCE_US));
            asks
        };
        let third = end_us / speed / 3.0;
        let slowness = if slow { ", and the engine is twice as slow in the middle third" } else { "" };
        Case {
            name,
            about: format!(
                "Azure's conversation trace at a load of {load}{slowness}. Goodput is the part of all calls asked \
                 for whose first token came within 2 s + 0.2 ms a prompt token and the others within 0.1 s each."
            ),
            asks: Box::new(asks),
            engines: vec![engine()],
            slow: slow.then_some(Slow { from_us: third as u64, until_us: (third * 2.0) as u64, times: 2 }),
            columns: vec![
                Column { title: "goodput, %", digits: 1 },
                Column { title: "work in vain, %", digits: 1 },
                Column { title: "turned away, %", digits: 1 },
                Column { title: "p99 to first token, s", digits: 1 },
                Column { title: "in flight, mean", digits: 0 },
            ],
            measure: Box::new(worth),
            objective: (0, false),
            cost: 1,
            relative: None,
            floor: 0.0,
            targets: bound.map(|bound| Target { column: 0, at_most: false, bound }).into_iter().collect(),
        }
    };
    vec![
        case("overload-0.9", 0.9, false, None),
        case("overload-1.3", 1.3, false, Some(90.0)),
        case("overload-2.0", 2.0, false, Some(65.0)),
        case("overload-slow", 0.9, true, Some(74.0)),
    ]
}
