//! What a replay was worth: VTC's service gap, Jain's index, times to first token,
//! goodput, and what it cost.

use super::replay::{Ask, Run};

/// VTC's own measure (Ying1123/VTC-artifact at 192c2e2, `fair_bench/plot/plot_revision.py`
/// and `visualize.py`): at 19 moments of ten minutes, over 60 s around each, what each
/// client was served (one per prompt token, two per generated one, spread evenly from first
/// token to last) and what it asked for, per second. Its gap is how far it lies below the
/// client served most, or off what it asked for, whichever is less; the gaps of all clients
/// are added up. Applied to the artifact's raw results it gives 433.53 and 251.66 for FCFS
/// and VTC on the arena trace, 103.77 and 162.20 for VTC on two and eight clients.
///
/// Gives the largest and the mean over the moments.
#[must_use]
pub fn vtc_gap(asks: &[Ask], run: &Run) -> (f64, f64) {
    const TICKS: u32 = 20;
    const LENGTH: f64 = 600.0;
    const WARMUP: f64 = 30.0;
    const WINDOW: f64 = 60.0;
    let clients = run.service.len();
    let mut gaps = Vec::new();
    for tick in 1..TICKS {
        let middle = (LENGTH - WARMUP) / f64::from(TICKS) * f64::from(tick) + WARMUP;
        let (from, to) = (middle - WINDOW / 2.0, middle + WINDOW / 2.0);
        let (mut served, mut asked) = (vec![0.0; clients], vec![0.0; clients]);
        for (ask, outcome) in asks.iter().zip(&run.outcomes) {
            let cost = ask.cost() as f64 / WINDOW;
            let at = ask.at_us as f64 / 1e6;
            if from <= at && at <= to {
                asked[ask.client] += cost;
            }
            if let (Some(first), Some(done)) = (outcome.first_us, outcome.done_us) {
                let (first, done) = (first as f64 / 1e6, done as f64 / 1e6);
                if done - first >= 1e-5 {
                    let overlap = (to.min(done) - from.max(first)).max(0.0);
                    served[ask.client] += cost * overlap / (done - first);
                }
            }
        }
        let most = served.iter().copied().fold(0.0, f64::max);
        let gap = |(served, asked): (&f64, &f64)| (most - served).min((asked - served).abs());
        gaps.push(served.iter().zip(&asked).map(gap).sum::<f64>());
    }
    (gaps.iter().copied().fold(0.0, f64::max), mean(&gaps))
}

/// The arithmetic mean; zero of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / (values.len() as f64).max(1.0)
}

/// The value that `share` of them do not exceed; zero of nothing.
#[must_use]
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Prompt and generated tokens per second, from the first call to the last event.
#[must_use]
pub fn tokens_per_s(asks: &[Ask], run: &Run) -> f64 {
    let of = |(ask, outcome): (&Ask, &super::replay::Outcome)| {
        if outcome.first_us.is_some() { ask.input + outcome.tokens } else { 0 }
    };
    let tokens: u64 = asks.iter().zip(&run.outcomes).map(of).sum();
    tokens as f64 / (run.end_us as f64 / 1e6).max(1e-6)
}

/// Seconds to the first token of those calls that were answered and that `which` wants.
#[must_use]
pub fn first_tokens(asks: &[Ask], run: &Run, which: impl Fn(&Ask) -> bool) -> Vec<f64> {
    let pairs = asks.iter().zip(&run.outcomes).filter(|(ask, _)| which(ask));
    pairs.filter_map(|(ask, outcome)| Some((outcome.first_us? - ask.at_us) as f64 / 1e6)).collect()
}

/// Calls between sending and the end of their answers, on average until the last event.
#[must_use]
pub fn in_flight(run: &Run) -> f64 {
    let of = |outcome: &super::replay::Outcome| Some(outcome.done_us? - outcome.sent_us?);
    let time: u64 = run.outcomes.iter().filter_map(of).sum();
    time as f64 / (run.end_us as f64).max(1.0)
}

/// Clients by what they ask for in all, least first.
#[must_use]
pub fn by_demand(asks: &[Ask], clients: usize) -> Vec<usize> {
    let mut demand = vec![0; clients];
    for ask in asks {
        demand[ask.client] += ask.cost();
    }
    let mut order: Vec<usize> = (0..clients).collect();
    order.sort_by_key(|client| (demand[*client], *client));
    order
}

/// Jain's index: one when all are equal, `1 / n` when one has everything (Jain, Chiu and
/// Hawe, 1984).
#[must_use]
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, x * x + squares));
    if squares > 0.0 { sum * sum / (values.len() as f64 * squares) } else { 1.0 }
}

/// For clients that have work all the time: the mean and the least over 60 s windows of
/// Jain's index of service over weight, and the largest deviation of any client's part of
/// all service from its part of all weight, in percent. The first window, in which nobody
/// has history, and those after `until_us` are left out.
#[must_use]
pub fn shares(weights: &[f64], run: &Run, until_us: u64) -> (f64, f64, f64) {
    let windows = (until_us / super::replay::WINDOW_US) as usize;
    let at = |client: usize, window: usize| run.service[client].get(window).copied().unwrap_or(0) as f64;
    let index = |window: usize| {
        let parts: Vec<f64> =
            weights.iter().enumerate().map(|(client, weight)| at(client, window) / weight).collect();
        jain(&parts)
    };
    let indices: Vec<f64> = (1..windows).map(index).collect();
    let totals: Vec<f64> =
        (0..weights.len()).map(|client| (1..windows).map(|window| at(client, window)).sum()).collect();
    let (all, weight): (f64, f64) = (totals.iter().sum(), weights.iter().sum());
    let off = |(total, own): (&f64, &f64)| ((total / all.max(1.0)) / (own / weight) - 1.0).abs() * 100.0;
    let worst = totals.iter().zip(weights).map(off).fold(0.0, f64::max);
    (mean(&indices), indices.iter().copied().fold(1.0, f64::min), worst)
}

/// The part of all calls, in percent, that `met` says were served as promised.
#[must_use]
pub fn attained(asks: &[Ask], run: &Run, met: impl Fn(&Ask, f64, f64) -> bool) -> f64 {
    let good = |(ask, outcome): &(&Ask, &super::replay::Outcome)| {
        let (Some(first), Some(done)) = (outcome.first_us, outcome.done_us) else { return false };
        met(ask, (first - ask.at_us) as f64 / 1e6, (done - first) as f64 / 1e6)
    };
    let count = asks.iter().zip(&run.outcomes).filter(good).count();
    count as f64 * 100.0 / (asks.len() as f64).max(1.0)
}

/// The part of all tokens computed, in percent, that went into calls of which `met` says
/// they were not served as promised: what an engine works in vain.
#[must_use]
pub fn in_vain(asks: &[Ask], run: &Run, met: impl Fn(&Ask, f64, f64) -> bool) -> f64 {
    let (mut all, mut vain) = (0, 0);
    for (ask, outcome) in asks.iter().zip(&run.outcomes) {
        let Some(first) = outcome.first_us else { continue };
        let tokens = ask.input - outcome.cached.min(ask.input) + outcome.tokens;
        all += tokens;
        let good = outcome
            .done_us
            .is_some_and(|done| met(ask, (first - ask.at_us) as f64 / 1e6, (done - first) as f64 / 1e6));
        vain += if good { 0 } else { tokens };
    }
    vain as f64 * 100.0 / (all as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use seawall_model::{Class, Tenant};

    use super::super::replay::Outcome;
    use super::*;

    fn ask(client: usize, at_s: u64, input: u64, output: u64) -> Ask {
        Ask {
            at_us: at_s * 1_000_000,
            client,
            tenant: Tenant::local(),
            weight: 1.0,
            class: Class::Interactive,
            run: None,
            input,
            output,
            prefix: Box::default(),
            patience_us: None,
        }
    }

    fn outcome(first_s: u64, done_s: u64) -> Outcome {
        Outcome {
            sent_us: Some(0),
            first_us: Some(first_s * 1_000_000),
            done_us: Some(done_s * 1_000_000),
            tokens: 1,
            ..Outcome::default()
        }
    }

    fn run(outcomes: Vec<Outcome>, clients: usize) -> Run {
        Run { outcomes, service: vec![Vec::new(); clients], end_us: 0, preempted: 0 }
    }

    #[test]
    fn the_gap_counts_those_behind_the_best_served_and_only_if_they_ask() {
        // One is served 60 a second for ten minutes, another asks for as much and gets half,
        // a third asks for nothing.
        let mut asks = Vec::new();
        let mut outcomes = Vec::new();
        for second in 0..700 {
            asks.push(ask(0, second, 20, 20));
            outcomes.push(outcome(second, second + 1));
            asks.push(ask(1, second, 20, 20));
            outcomes.push(outcome(second * 2, second * 2 + 2));
        }
        let (most, mean) = vtc_gap(&asks, &run(outcomes, 3));
        assert!((most - 31.0).abs() < 1.1 && (mean - 30.5).abs() < 1.1, "{most} {mean}");
    }

    #[test]
    fn equal_shares_have_an_index_of_one_and_weights_count() {
        assert!((jain(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[6.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-9);
        let mut run = run(Vec::new(), 2);
        run.service = vec![vec![0, 10, 10], vec![0, 30, 30]];
        let (mean, least, off) = shares(&[1.0, 3.0], &run, 180_000_000);
        assert!((mean - 1.0).abs() < 1e-9 && (least - 1.0).abs() < 1e-9 && off < 1e-9);
        let (mean, _, off) = shares(&[1.0, 1.0], &run, 180_000_000);
        assert!((mean - 0.8).abs() < 1e-9 && (off - 50.0).abs() < 1e-9);
    }

    #[test]
    fn goodput_counts_every_call_and_waste_only_what_was_computed() {
        let asks = [ask(0, 0, 10, 1), ask(0, 0, 30, 1), ask(0, 0, 99, 1)];
        let dropped = Outcome { dropped: true, ..Outcome::default() };
        let run = run(vec![outcome(1, 2), outcome(9, 10), dropped], 1);
        let met = |_: &Ask, first: f64, _: f64| first <= 2.0;
        assert!((attained(&asks, &run, met) - 100.0 / 3.0).abs() < 1e-9);
        assert!((in_vain(&asks, &run, met) - 3_100.0 / 42.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_values_that_occur() {
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.99), 3.0);
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(Vec::new(), 0.5), 0.0);
    }
}
