//! Time that a replica without a queue takes for a prompt, by its length: the least seen
//! in each power of two, from which the time of any other length is drawn.

/// Powers of two of prompt length told apart.
const LENGTHS: usize = 27;
/// A shorter prompt says nothing of the time that a token takes.
const PROMPT_MIN: u64 = 32;

/// The least time seen in one power of two of prompt length; 0 is unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    micros: u64,
    /// The prompt it was seen at: the longest, of equals.
    prompt: u64,
}

/// Time that a replica without a queue takes for a prompt, by its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curve([Point; LENGTHS]);

impl Curve {
    pub(crate) fn learn(&mut self, prompt: u64, micros: u64) {
        let (point, micros) = (&mut self.0[length(prompt)], micros.max(1));
        if point.micros == 0 || micros < point.micros {
            *point = Point { micros, prompt };
        } else if micros == point.micros {
            point.prompt = point.prompt.max(prompt);
        }
    }

    /// The time that a prompt of this length takes, by linear interpolation between the
    /// points known; beyond the last in proportion to its length, which is also the most
    /// that it can be.
    pub(crate) fn at(&self, prompt: u64) -> Option<u64> {
        let own = length(prompt);
        let longer = self.0[own + 1..].iter().filter(|point| point.micros > 0);
        // A longer prompt is never faster: its best time bounds this one's.
        let bound = longer.clone().map(|point| point.micros).min();
        let here = self.0[own];
        if here.micros == 0 {
            return bound;
        }
        let over = prompt.saturating_sub(here.prompt);
        let most = here.micros.saturating_mul(prompt.max(1)) / here.prompt.max(1);
        let slope = longer.clone().next().map(|next| {
            let rise = next.micros.saturating_sub(here.micros);
            // The next point lies in a higher power of two, so it is longer.
            here.micros.saturating_add(rise.saturating_mul(over) / (next.prompt - here.prompt).max(1))
        });
        let due = if over == 0 { here.micros } else { most.min(slope.unwrap_or(most)) };
        Some(due.min(bound.unwrap_or(due)))
    }

    /// The best time of the nearest prompt known that was no longer: no prompt is faster
    /// than a shorter one.
    pub(crate) fn least(&self, prompt: u64) -> Option<u64> {
        let known = self.0[..=length(prompt)].iter().rev();
        known.filter(|point| point.micros > 0 && point.prompt <= prompt).map(|point| point.micros).next()
    }

    /// What was learned fades by a thousandth.
    pub(crate) fn fade(&mut self) {
        for point in &mut self.0 {
            // At least by one, or what is short would be believed for ever.
            point.micros += point.micros.div_ceil(1_024);
        }
    }

    /// Nanoseconds that a prompt token adds, where prompts of different enough lengths
    /// were seen: the median of the slopes from the fastest to each that is at least
    /// four times as long.
    pub(crate) fn slope(&self) -> Option<u64> {
        let known = || self.0.iter().filter(|point| point.micros > 0);
        let first = known().min_by_key(|point| point.micros)?;
        let mut slopes: Vec<u64> = known()
            .filter(|point| point.prompt >= first.prompt.max(PROMPT_MIN).saturating_mul(4))
            .map(|point| {
                point.micros.saturating_sub(first.micros).saturating_mul(1_000)
                    / (point.prompt - first.prompt)
            })
            .collect();
        let middle = slopes.len() / 2;
        (!slopes.is_empty()).then(|| *slopes.select_nth_unstable(middle).1).filter(|slope| *slope > 0)
    }
}

fn length(prompt: u64) -> usize {
    (prompt.max(1).ilog2() as usize).min(LENGTHS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_drawn_between_the_points_known() {
        let mut curve = Curve::default();
        assert_eq!((curve.at(10), curve.least(10)), (None, None));
        curve.learn(1_100, 100);
        assert_eq!(curve.at(1_650), Some(150), "in proportion, with nothing beyond");
        curve.learn(3_100, 200);
        assert_eq!(curve.at(2_000), Some(145), "on the line to the next");
        assert_eq!(curve.at(1_024), Some(100));
        assert_eq!(curve.at(10), Some(100), "a longer one bounds it");
        assert_eq!(curve.least(1_024), None);
    }

    #[test]
    fn the_time_of_a_token_is_a_slope() {
        let mut curve = Curve::default();
        curve.learn(100, 30_000);
        assert_eq!(curve.slope(), None, "one length tells nothing");
        curve.learn(150, 33_000);
        assert_eq!(curve.slope(), None, "nor do two that are alike");
        curve.learn(1_100, 110_000);
        curve.learn(4_100, 350_000);
        assert_eq!(curve.slope(), Some(80_000));
    }
}
