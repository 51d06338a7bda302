//! Figures of one world: what a summary prints and what tests hold against their bars.

use std::collections::BTreeMap;

use seawall_kernel::effect::Settlement;
use seawall_model::{At, Code, EngineId, Outcome};

use crate::calls::Ended;

/// Figures of one demand's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demanded {
    /// Calls submitted.
    pub submitted: u64,
    /// Answered in full.
    pub done: u64,
    /// Left by their clients.
    pub cancelled: u64,
    /// Failed or refused, by code.
    pub failed: BTreeMap<Code, u64>,
    /// Attempts made.
    pub attempts: u64,
    /// Prompt and output tokens served.
    pub tokens: u64,
    /// Prompt and output tokens served, by second since the start.
    pub tokens_by_second: Vec<u64>,
    /// From submission to the first token, in microseconds, in order of settling.
    pub first_us: Vec<u64>,
    /// From the dispatch of the last attempt to its first token, in microseconds.
    pub engine_first_us: Vec<u64>,
    /// From submission to the end of a complete answer, in microseconds.
    pub took_us: Vec<u64>,
    /// From submission to refusal, in microseconds.
    pub refused_us: Vec<u64>,
}

/// Figures of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By demand, in the scenario's order.
    pub demands: Vec<Demanded>,
    /// Attempts by engine.
    pub attempts: BTreeMap<EngineId, u64>,
    /// Inputs handed to the kernel.
    pub steps: u64,
    /// Effects performed.
    pub effects: u64,
    /// Calls whose kernel was lost in a crash.
    pub lost: u64,
    /// Calls that operators cut.
    pub halted: u64,
    /// Clients that found nobody, as the process was down.
    pub unheard: u64,
    /// Virtual time from the start to the end of the drain, in microseconds.
    pub took_us: u64,
    /// Hash of everything that passed the kernel's door.
    pub hash: u64,
    /// Budget accounts at least nine tenths used.
    pub tripped: u64,
    /// Comparisons of the watch over fairness.
    pub compared: u64,
    /// Largest gap it saw, in percent of the bound.
    pub gap_most: u64,
    /// Most calls seen in queues at once.
    pub queued_most: usize,
}

impl Tally {
    pub(crate) fn new(demands: usize) -> Self {
        Self { demands: vec![Demanded::default(); demands], ..Self::default() }
    }

    pub(crate) fn settle(&mut self, start: At, now: At, ended: &Ended, settlement: &Settlement) {
        let call = &ended.call;
        let demand = &mut self.demands[call.demand];
        demand.attempts += u64::from(settlement.attempts);
        match ended.outcome {
            Outcome::Done => {
                demand.done += 1;
                demand.took_us.push(now.micros_since(call.submitted));
            }
            Outcome::Cancelled => demand.cancelled += 1,
            Outcome::Failed(code) => {
                *demand.failed.entry(code).or_default() += 1;
                if settlement.attempts == 0 {
                    demand.refused_us.push(now.micros_since(call.submitted));
                }
            }
        }
        let tokens = call.used.total().0;
        demand.tokens += tokens;
        let second = usize::try_from(now.micros_since(start) / 1_000_000).unwrap_or(usize::MAX);
        if tokens > 0 {
            if demand.tokens_by_second.len() <= second {
                demand.tokens_by_second.resize(second + 1, 0);
            }
            demand.tokens_by_second[second] += tokens;
        }
        if let Some(first) = call.first_token {
            demand.first_us.push(first.micros_since(call.submitted));
            demand.engine_first_us.push(first.micros_since(call.dispatched));
        }
    }

    /// Calls submitted.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.demands.iter().map(|demand| demand.submitted).sum()
    }

    /// Calls answered in full.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.demands.iter().map(|demand| demand.done).sum()
    }

    /// Calls by how they ended, by name.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for demand in &self.demands {
            *all.entry(Outcome::Done.as_str()).or_default() += demand.done;
            *all.entry(Outcome::Cancelled.as_str()).or_default() += demand.cancelled;
            for (code, count) in &demand.failed {
                *all.entry(code.as_str()).or_default() += count;
            }
        }
        all
    }
}

/// The smallest of these that at least `percent` of them do not exceed; zero of none.
#[must_use]
pub fn quantile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0)
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has everything (Jain,
/// Chiu and Hawe, DEC-TR-301, 1984).
#[must_use]
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// Divides `supply` so that nobody gets more than asked for and what is left over goes
/// to those who want more, evenly: max-min fairness.
#[must_use]
pub fn fair_shares(supply: f64, asked: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by(|a, b| asked[*a].total_cmp(&asked[*b]));
    let mut left = supply;
    let mut shares = vec![0.0; asked.len()];
    for (nth, index) in order.iter().enumerate() {
        let even = left / (asked.len() - nth) as f64;
        shares[*index] = asked[*index].min(even);
        left -= shares[*index];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_their_names_say() {
        assert_eq!(quantile(&[5, 1, 4, 2, 3], 50), 3);
        assert_eq!(quantile(&(1..=200).collect::<Vec<_>>(), 99), 198);
        assert_eq!(quantile(&[], 99), 0);
        assert!((jain(&[1.0, 1.0, 1.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
        assert_eq!(fair_shares(10.0, &[1.0, 100.0, 100.0]), [1.0, 4.5, 4.5]);
        assert_eq!(fair_shares(10.0, &[1.0, 2.0]), [1.0, 2.0]);
    }
}
