//! From published traces, and from the synthetic workloads of published experiments, to the
//! calls of a replay.

use seawall_load::length::Lengths;
use seawall_load::rng::Rng;
use seawall_load::trace::Row;
use seawall_model::{Class, Tenant, Tokens};

use super::replay::Ask;

/// Length of the synthetic workloads of VTC, in seconds.
const VTC_S: u64 = 360;

/// A call of a client known by number.
fn ask(at_us: u64, client: usize, input: u64, output: u64) -> Ask {
    Ask {
        at_us,
        client,
        tenant: Tenant::parse(&format!("client-{client}")).expect("letters, digits and a dash"),
        weight: 1.0,
        class: Class::Interactive,
        run: None,
        input: input.max(1),
        output: output.max(1),
        prefix: Box::default(),
        patience_us: None,
    }
}

/// Orders calls by time, then by client, and keeps the order of equals.
fn sorted(mut asks: Vec<Ask>) -> Vec<Ask> {
    asks.sort_by_key(|ask| (ask.at_us, ask.client));
    asks
}

/// The arena trace as it is; clients are numbered from 0 in the order of their numbers.
#[must_use]
pub fn arena(rows: &[Row]) -> Vec<Ask> {
    let mut clients: Vec<u32> = rows.iter().map(|row| row.client).collect();
    clients.sort_unstable();
    clients.dedup();
    let number = |client: u32| clients.iter().position(|known| *known == client).unwrap_or(0);
    rows.iter().map(|row| ask(row.at_us, number(row.client), row.input.0, row.output.0)).collect()
}

/// VTC's `overload` and `overload-multi` (Ying1123/VTC-artifact, `fair_bench/exp_suite.py`
/// and `trace.py`): each client asks for 256 tokens after 256 at its own even pace, for six
/// minutes, from a phase drawn by the seed.
#[must_use]
pub fn even(rates: &[f64], seed: u64) -> Vec<Ask> {
    let mut asks = Vec::new();
    for (client, rate) in rates.iter().enumerate() {
        let mut rng = Rng::branch(seed, client as u64);
        let gap = 1e6 / rate;
        let phase = rng.unit() * gap;
        for nth in 0..(rate * VTC_S as f64) as u64 {
            asks.push(ask((phase + gap * (nth + 1) as f64) as u64, client, 256, 256));
        }
    }
    sorted(asks)
}

/// Eight people chat; one tenant's agent fans out to sixty calls at once, every 33 s, for
/// ten minutes. Lengths are log-normal. The agent is client 8.
#[must_use]
pub fn burst(seed: u64) -> Vec<Ask> {
    const LENGTH_US: u64 = 600_000_000;
    const CHAT_RPS: f64 = 0.08;
    let lengths = |median: u64, p99: u64| {
        Lengths::lognormal(Tokens(median), Tokens(p99)).expect("a median below its percentile")
    };
    let (chat, agent) = ((lengths(120, 900), lengths(180, 700)), (lengths(350, 1_500), lengths(200, 700)));
    let mut asks = Vec::new();
    for client in 0..8 {
        let mut rng = Rng::branch(seed, client as u64);
        let mut at = rng.exp(1e6 / CHAT_RPS);
        while (at as u64) < LENGTH_US {
            let (input, output) = (chat.0.sample(&mut rng).0, chat.1.sample(&mut rng).0);
            asks.push(ask(at as u64, client, input.min(2_000), output.min(1_500)));
            at += rng.exp(1e6 / CHAT_RPS);
        }
    }
    let mut rng = Rng::branch(seed, 8);
    for burst in 0..18 {
        let at = burst * 33_000_000 + rng.below(5_000_000);
        for _ in 0..60 {
            let (input, output) = (agent.0.sample(&mut rng).0, agent.1.sample(&mut rng).0);
            let call = ask(at, 8, input.min(4_000), output.min(1_500));
            asks.push(Ask { run: Some(burst + 1), ..call });
        }
    }
    sorted(asks)
}

/// One leaf of the tree of [`tree`]: its path, and its part of everything.
pub const LEAVES: [(&str, f64); 8] = [
    ("red/one/ann", 4.0),
    ("red/one/bob", 4.0),
    ("red/two/cid", 6.0),
    ("red/two/dan", 2.0),
    ("blue/one/eve", 2.0),
    ("blue/one/fay", 2.0),
    ("blue/two/gus", 1.0),
    ("blue/two/hal", 3.0),
];

/// The weights that make these parts, by prefix: red to blue as 2 to 1, teams evenly, and
/// people evenly but in two teams, where they are as 3 to 1.
#[must_use]
pub fn tree_weights() -> Vec<(String, u32)> {
    let weights = [("red", 200), ("blue", 100), ("red/two/cid", 300), ("blue/two/hal", 300)];
    weights.iter().map(|(prefix, weight)| ((*prefix).to_owned(), *weight)).collect()
}

/// Eight people in four teams of two houses, each asking for at least one and a half times
/// their part for ten minutes, one of them for ten times, with lengths of their own.
#[must_use]
pub fn tree(seed: u64) -> Vec<Ask> {
    const LENGTH_US: u64 = 600_000_000;
    let all: f64 = LEAVES.iter().map(|(_, part)| part).sum();
    let mut asks = Vec::new();
    for (client, (path, part)) in LEAVES.iter().enumerate() {
        let mut rng = Rng::branch(seed, client as u64);
        let scale = [1, 2, 1, 3][client % 4];
        let input = Lengths::lognormal(Tokens(100 * scale), Tokens(600 * scale)).expect("rising");
        let output = Lengths::lognormal(Tokens(300 / scale), Tokens(900 / scale)).expect("rising");
        // 1,400 units of cost a second are about what the engine serves.
        let times = if client == 6 { 10.0 } else { 1.6 };
        let mean = (145 * scale) as f64 + 2.0 * (335 / scale) as f64;
        let rps = 1_400.0 * part / all * times / mean;
        let mut at = 0.0;
        while (at as u64) < LENGTH_US {
            let (input, output) = (input.sample(&mut rng).0.min(3_000), output.sample(&mut rng).0.min(2_000));
            let tenant = Tenant::parse(path).expect("a valid path");
            asks.push(Ask { tenant, weight: *part, ..ask(at as u64, client, input, output) });
            at += rng.exp(1e6 / rps);
        }
    }
    sorted(asks)
}

/// A trace played so many times as fast as it was recorded. A seed other than 0 begins it
/// elsewhere and goes on at its start; `part` of it is played.
#[must_use]
pub fn replayed(rows: &[Row], speed: f64, seed: u64, part: f64) -> Vec<Ask> {
    let count = rows.len();
    let start = (seed as usize * count / 5) % count.max(1);
    let length = rows.last().map_or(0, |row| row.at_us) + 1;
    let shift = rows.get(start).map_or(0, |row| row.at_us);
    let taken = (count as f64 * part) as usize;
    let turned = rows.iter().cycle().skip(start).take(taken.min(count));
    let place = |row: &Row| ((row.at_us + length - shift) % length) as f64 / speed;
    let of = |row: &Row| Ask {
        prefix: row.prefix.clone(),
        ..ask(place(row) as u64, 0, row.input.0, row.output.0)
    };
    turned.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_trace_has_the_same_calls_in_rising_time() {
        let row = |at_us| Row {
            at_us,
            client: 0,
            input: Tokens(at_us + 1),
            output: Tokens(1),
            prefix: Box::default(),
        };
        let rows: Vec<Row> = (0..10).map(|nth| row(nth * 1_000)).collect();
        let turned = replayed(&rows, 2.0, 1, 1.0);
        assert_eq!((turned.len(), turned[0].input, turned[0].at_us), (10, 2_001, 0));
        assert!(turned.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
        assert_eq!(turned[1].at_us, 500, "twice as fast");
    }

    #[test]
    fn parts_follow_from_the_weights() {
        let weights = tree_weights();
        let weight = |prefix: &str| {
            weights.iter().find(|(known, _)| known == prefix).map_or(100, |(_, weight)| *weight)
        };
        let all: f64 = LEAVES.iter().map(|(_, part)| part).sum();
        for (path, part) in LEAVES {
            let tenant = Tenant::parse(path).expect("a valid path");
            let mut expected = 1.0;
            for prefix in tenant.prefixes() {
                let above = prefix.rsplit_once('/').map_or("", |(above, _)| above);
                let siblings: std::collections::BTreeSet<String> = LEAVES
                    .iter()
                    .flat_map(|(path, _)| {
                        Tenant::parse(path).expect("valid").prefixes().map(str::to_owned).collect::<Vec<_>>()
                    })
                    .filter(|other| other.rsplit_once('/').map_or("", |(above, _)| above) == above)
                    .collect();
                let sum: u32 = siblings.iter().map(|sibling| weight(sibling)).sum();
                expected *= f64::from(weight(prefix)) / f64::from(sum);
            }
            assert!((part / all - expected).abs() < 1e-9, "{path}: {} and {expected}", part / all);
        }
    }
}
