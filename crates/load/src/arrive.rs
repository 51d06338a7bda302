//! When calls arrive: endless iterators over the gaps between arrivals, in
//! microseconds. Real traffic is 4 to 70 times more variable than Poisson at ten
//! seconds, so the gamma process with its coefficient of variation is the usual one.

use crate::rng::Rng;

/// Why a process cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A rate that is zero, negative or not a number.
    #[error("an arrival rate must be above zero calls per second, not {0}")]
    Rate(f64),
    /// A coefficient of variation out of range.
    #[error("a coefficient of variation must lie between 0.01 and 100, not {0}")]
    Cv(f64),
    /// No steps, or one without length.
    #[error("an arrival plan needs at least one step, and each step a length above zero")]
    Steps,
}

/// One stretch of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How long it lasts.
    pub length_us: u64,
    /// Calls per second at its start.
    pub from_rps: f64,
    /// Calls per second at its end; the rate moves in a straight line between them.
    pub to_rps: f64,
}

#[derive(Clone, Debug)]
enum Law {
    Poisson,
    Gamma { shape: f64 },
}

/// An arrival process. Iterating gives the microseconds from one arrival to the next;
/// it ends only where a plan of steps ends.
#[derive(Clone, Debug)]
pub struct Arrivals {
    law: Law,
    steps: Box<[Step]>,
    endless: bool,
    step: usize,
    /// Where the last arrival lies within the current step.
    into_us: f64,
    rng: Rng,
}

impl Arrivals {
    /// Independent arrivals at a constant rate in calls per second.
    ///
    /// # Errors
    /// When the rate is not above zero.
    pub fn poisson(rps: f64, seed: u64) -> Result<Self, Error> {
        Self::constant(rps, Law::Poisson, seed)
    }

    /// Renewal arrivals with gamma gaps: `cv` 1 is Poisson, above it bursts, below
    /// it regular.
    ///
    /// # Errors
    /// When the rate is not above zero or `cv` lies outside 0.01 to 100.
    pub fn gamma(rps: f64, cv: f64, seed: u64) -> Result<Self, Error> {
        if !(0.01..=100.0).contains(&cv) {
            return Err(Error::Cv(cv));
        }
        Self::constant(rps, Law::Gamma { shape: 1.0 / (cv * cv) }, seed)
    }

    /// Poisson arrivals whose rate follows a plan of steps and ramps, then end.
    ///
    /// # Errors
    /// When there is no step, a step has no length, or a rate is negative.
    pub fn steps(steps: &[Step], seed: u64) -> Result<Self, Error> {
        if steps.is_empty() || steps.iter().any(|step| step.length_us == 0) {
            return Err(Error::Steps);
        }
        for step in steps {
            for rate in [step.from_rps, step.to_rps] {
                if !rate.is_finite() || rate < 0.0 {
                    return Err(Error::Rate(rate));
                }
            }
        }
        Ok(Self {
            law: Law::Poisson,
            steps: steps.into(),
            endless: false,
            step: 0,
            into_us: 0.0,
            rng: Rng::seed(seed),
        })
    }

    fn constant(rps: f64, law: Law, seed: u64) -> Result<Self, Error> {
        if !rps.is_finite() || rps <= 0.0 {
            return Err(Error::Rate(rps));
        }
        let only = Step { length_us: u64::MAX, from_rps: rps, to_rps: rps };
        Ok(Self { law, steps: Box::new([only]), endless: true, step: 0, into_us: 0.0, rng: Rng::seed(seed) })
    }

    /// A gap in units of the mean gap.
    fn draw(&mut self) -> f64 {
        match self.law {
            Law::Poisson => self.rng.exp(1.0),
            Law::Gamma { shape } => self.rng.gamma(shape, 1.0 / shape),
        }
    }

    /// Walks `due` expected arrivals along the plan; gives the time walked, or `None`
    /// at the plan's end. Time-changing a unit-rate process gives a varying rate exactly.
    fn walk(&mut self, mut due: f64) -> Option<f64> {
        let mut walked = 0.0;
        while let Some(step) = self.steps.get(self.step) {
            let length = step.length_us as f64;
            let slope = (step.to_rps - step.from_rps) / length;
            let rate = slope.mul_add(self.into_us, step.from_rps) / 1e6;
            let slope = slope / 1e6;
            let left = length - self.into_us;
            let room = (0.5 * slope * left).mul_add(left, rate * left);
            if due < room {
                // Solve rate*t + slope*t^2/2 = due, in the form that is stable for slope near 0.
                let root = (2.0 * slope).mul_add(due, rate * rate).max(0.0).sqrt();
                let time = 2.0 * due / (rate + root).max(f64::MIN_POSITIVE);
                self.into_us += time;
                return Some(walked + time);
            }
            due -= room;
            walked += left;
            self.step += 1;
            self.into_us = 0.0;
        }
        None
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let due = self.draw();
        if self.endless {
            return Some((due * 1e6 / self.steps[0].from_rps).round() as u64);
        }
        self.walk(due).map(|gap| gap.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_cv(arrivals: Arrivals, n: usize) -> (f64, f64) {
        let gaps: Vec<f64> = arrivals.take(n).map(|gap| gap as f64).collect();
        let mean = gaps.iter().sum::<f64>() / n as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn rates_and_burstiness_are_as_asked() {
        let (mean, cv) = mean_and_cv(Arrivals::poisson(50.0, 1).expect("valid"), 100_000);
        assert!((mean / 20_000.0 - 1.0).abs() < 0.02 && (cv - 1.0).abs() < 0.03, "{mean} {cv}");
        let (mean, cv) = mean_and_cv(Arrivals::gamma(50.0, 4.0, 1).expect("valid"), 200_000);
        assert!((mean / 20_000.0 - 1.0).abs() < 0.05 && (cv / 4.0 - 1.0).abs() < 0.1, "{mean} {cv}");
    }

    #[test]
    fn a_plan_gives_each_step_its_share_and_then_ends() {
        let second = 1_000_000;
        let plan = [
            Step { length_us: 100 * second, from_rps: 10.0, to_rps: 10.0 },
            Step { length_us: 100 * second, from_rps: 0.0, to_rps: 0.0 },
            Step { length_us: 100 * second, from_rps: 0.0, to_rps: 40.0 },
        ];
        let mut at = 0;
        let mut counts = [0usize; 3];
        for gap in Arrivals::steps(&plan, 7).expect("valid") {
            at += gap;
            counts[usize::try_from(at / (100 * second)).expect("small").min(2)] += 1;
        }
        // 1,000, none, and the area of the triangle, 2,000, give or take four deviations.
        assert!((870..=1_130).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[1], 0);
        assert!((1_820..=2_180).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn bad_processes_are_refused_and_seeds_repeat() {
        assert_eq!(Arrivals::poisson(0.0, 1).err(), Some(Error::Rate(0.0)));
        assert!(Arrivals::poisson(f64::NAN, 1).is_err());
        assert_eq!(Arrivals::gamma(1.0, 0.0, 1).err(), Some(Error::Cv(0.0)));
        assert_eq!(Arrivals::steps(&[], 1).err(), Some(Error::Steps));
        let draw = |seed| Arrivals::poisson(5.0, seed).expect("valid").take(50).collect::<Vec<_>>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
