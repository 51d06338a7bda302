//! Routing: eight replicas with caches of their own, and prompts that share beginnings.

use seawall_kernel::plan::Pace as Limits;
use seawall_load::engine::Spec;
use seawall_load::trace::{MOONCAKE_BLOCK, Row as TraceRow};
use seawall_model::{Millis, Tokens};

use super::measure::{attained, first_tokens, in_flight, quantile};
use super::overload::H100;
use super::replay::{Ask, Run};
use super::rivals::fcfs::Fcfs;
use super::rivals::filter::Filter;
use super::rivals::fixed::Fixed;
use super::rivals::least_load::LeastLoad;
use super::rivals::prefix_max::PrefixMax;
use super::rivals::round_robin::Replicas;
use super::rivals::scorers::Scorers;
use super::rivals::{Place, Rival};
use super::seawall::{Seawall, Setting as Ours};
use super::study::{Case, Column, Contender, Setting, Target};
use super::workload;

const REPLICAS: usize = 8;
/// Prompt tokens that an engine computes in a second.
const PREFILL_PER_S: f64 = 1e9 / H100.prefill_token_ns as f64;

/// A first token within three seconds and one and a half times what the prompt would take
/// alone and uncached.
fn met(ask: &Ask, first_s: f64, _rest_s: f64) -> bool {
    first_s <= 1.5f64.mul_add(ask.input as f64 / PREFILL_PER_S, 3.0)
}

fn engine(blocks: u64) -> Spec {
    Spec {
        slots: 256,
        kv_tokens: Tokens(blocks * MOONCAKE_BLOCK.0),
        prefill_chunk: Tokens(2_048),
        queue_len_max: 100_000,
        block_tokens: MOONCAKE_BLOCK,
        pace: H100,
        reserves: false,
        jitter_percent: 5,
        seed: 0,
    }
}

/// Everybody, before replicas that hold so many blocks.
#[must_use]
pub fn contenders(blocks: u64) -> Vec<Contender> {
    let own = |words: &str, pace: Limits| {
        let setting = Ours { pace, replicas: REPLICAS as u32, weights: Vec::new(), output_max: None };
        Setting::new(words, move |_| Seawall::new(&setting))
    };
    let fixed = |calls: u32| Limits { adaptive: false, calls_max: calls, ..Limits::default() };
    let filter = |words: &str, explore: f64, penalty_s: f64| {
        rival(words, move || Filter::new(REPLICAS, blocks, explore, penalty_s, PREFILL_PER_S))
    };
    let scorers =
        |words: &str, weights: [f64; 3]| rival(words, move || Scorers::new(REPLICAS, blocks, weights));
    vec![
        one("round robin", vec![rival("no knob", Replicas::default)]),
        one("least load", vec![rival("no knob", LeastLoad::default)]),
        one(PREFIX_MAX, vec![rival("no knob", move || PrefixMax::new(REPLICAS, blocks))]),
        one(
            "llm-d scorers",
            vec![
                scorers("3:2:2", [3.0, 2.0, 2.0]),
                scorers("3:1:1", [3.0, 1.0, 1.0]),
                scorers("1:1:1", [1.0, 1.0, 1.0]),
            ],
        ),
        one(
            "80 % filter",
            vec![
                filter("penalty 18 s", 0.0, 18.0),
                filter("penalty 5 s, 1 % explores", 0.01, 5.0),
                filter("penalty 2 s", 0.0, 2.0),
            ],
        ),
        Contender {
            name: "Seawall",
            ours: true,
            settings: vec![
                own("nothing set", Limits::default()),
                own("queue_delay 3 s", Limits { queue_delay_ms_max: Millis(3_000), ..Limits::default() }),
                own("16 calls", fixed(16)),
                own("32 calls", fixed(32)),
                own("1,024 calls", fixed(1_024)),
            ],
        },
    ]
}

const PREFIX_MAX: &str = "prefix max";

fn rival<P: Place + 'static>(words: &str, place: impl Fn() -> P + 'static) -> Setting {
    Setting::new(words, move |_| Rival::new(Fcfs::default(), Fixed::NONE, place(), REPLICAS))
}

fn one(name: &'static str, settings: Vec<Setting>) -> Contender {
    Contender { name, ours: false, settings }
}

fn worth(asks: &[Ask], run: &Run) -> Vec<f64> {
    let firsts = first_tokens(asks, run, |_| true);
    let (mut prompt, mut cached) = (0, 0);
    let mut work = [0.0; REPLICAS];
    for (ask, outcome) in asks.iter().zip(&run.outcomes).filter(|(_, outcome)| outcome.first_us.is_some()) {
        prompt += ask.input;
        cached += outcome.cached;
        work[outcome.replica] += (ask.input - outcome.cached.min(ask.input)) as f64
            * H100.prefill_token_ns as f64
            + outcome.tokens as f64 * H100.sequence_ns as f64;
    }
    let most = work.iter().copied().fold(0.0, f64::max);
    let mean = work.iter().sum::<f64>() / REPLICAS as f64;
    vec![
        attained(asks, run, met),
        quantile(firsts, 0.99),
        cached as f64 * 100.0 / (prompt as f64).max(1.0),
        most / f64::max(mean, 1.0),
        in_flight(run),
    ]
}

/// The cases, each with the blocks its replicas hold; `part` of the trace is played.
#[must_use]
pub fn cases(synthetic: &[TraceRow], part: f64) -> Vec<(Case, u64)> {
    let case = |name, speed: f64, blocks: u64, bound: Option<f64>| {
        let rows = synthetic.to_vec();
        let mut targets = Vec::new();
        if let Some(bound) = bound {
            targets.push(Target { column: 0, at_most: false, bound });
            targets.push(Target { column: 5, at_most: false, bound: 85.0 });
            targets.push(Target { column: 3, at_most: true, bound: 1.10 });
        }
        let case = Case {
            name,
            about: format!(
                "Mooncake's synthetic trace {speed} times as fast as recorded, on {REPLICAS} replicas that hold \
                 {blocks} blocks of 512 tokens each. Promised is a first token within 3 s and 1.5 times what the \
                 prompt takes alone and uncached. Load is the engine time of what a replica computed."
            ),
            asks: Box::new(move |seed| workload::replayed(&rows, speed, seed, part)),
            engines: vec![engine(blocks); REPLICAS],
            slow: None,
            columns: vec![
                Column { title: "as promised, %", digits: 1 },
                Column { title: "p99 to first token, s", digits: 1 },
                Column { title: "cache hits, % of prompt tokens", digits: 1 },
                Column { title: "load, most over mean", digits: 2 },
                Column { title: "in flight, mean", digits: 0 },
            ],
            measure: Box::new(worth),
            objective: (0, false),
            cost: 3,
            relative: Some((2, PREFIX_MAX)),
            floor: 0.0,
            targets,
        };
        (case, blocks)
    };
    vec![
        case("route-1.6", 1.6, 2_500, None),
        case("route-2.0", 2.0, 2_500, Some(98.0)),
        case("route-2.2", 2.2, 12_000, None),
    ]
}
