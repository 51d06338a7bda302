//! How many calls a replica takes at once. The signal is queueing inside the engine:
//! time to first token above the least that a prompt of that length takes. It is
//! learned from traffic as it comes, never by throttling to probe (which is what makes
//! Vegas and Gradient limiters fail on language models: shared/anchors, scheduling,
//! section 7). Queueing cuts the limit by 7 % a window; a well-used limit without it
//! grows by 2 %, and by half while it has never met queueing (slow start).

use seawall_model::{At, Millis};

use crate::plan::Pace;

/// The limit is kept in 256ths of a call.
const ONE: u64 = 256;
/// Powers of two of prompt length told apart.
const LENGTHS: usize = 27;
/// A window of observation; shorter while the limit is first sought.
const WINDOW_MS: Millis = Millis(1_000);
const WINDOW_START_MS: Millis = Millis(250);
/// An unstreamed answer may take this many times the least known time, since a batch
/// slows each of its calls, before the rest counts as queueing.
const UNARY_SLACK: u64 = 3;

/// The least time seen in one power of two of prompt length; 0 is unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    micros: u64,
    /// The prompt it was seen at: the longest, of equals.
    prompt: u64,
}

/// Time that a replica without a queue takes for a prompt, by its length.
#[derive(Clone, Debug, Default)]
struct Curve([Point; LENGTHS]);

impl Curve {
    fn learn(&mut self, prompt: u64, micros: u64) {
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
    fn at(&self, prompt: u64) -> Option<u64> {
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
    fn least(&self, prompt: u64) -> Option<u64> {
        let known = self.0[..=length(prompt)].iter().rev();
        known.filter(|point| point.micros > 0 && point.prompt <= prompt).map(|point| point.micros).next()
    }

    /// What was learned fades by a thousandth.
    fn fade(&mut self) {
        for point in &mut self.0 {
            point.micros += point.micros / 1_024;
        }
    }
}

/// What is known of one replica's speed, and the limit that follows.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    limit: u64,
    /// Time to first token by prompt length.
    first: Curve,
    /// The part of an unstreamed answer's time that is not generation, likewise.
    lead: Curve,
    /// Least time per generated token in microseconds; 0 is unknown.
    token: u64,
    seeking: bool,
    start: At,
    delays: u64,
    samples: u64,
    peak: u64,
    cut: Option<At>,
}

fn length(prompt: u64) -> usize {
    (prompt.max(1).ilog2() as usize).min(LENGTHS - 1)
}

impl Limit {
    pub(crate) fn new(pace: &Pace, now: At) -> Self {
        let mut limit = Self {
            limit: u64::from(pace.calls_start) * ONE,
            first: Curve::default(),
            lead: Curve::default(),
            token: 0,
            seeking: true,
            start: now,
            delays: 0,
            samples: 0,
            peak: 0,
            cut: None,
        };
        limit.clamp(pace);
        limit
    }

    /// Brings the limit within the bounds, after a reload or a change.
    pub(crate) fn clamp(&mut self, pace: &Pace) {
        let max = u64::from(pace.calls_max.max(1)) * ONE;
        let min = (u64::from(pace.calls_min.max(1)) * ONE).min(max);
        self.limit = if pace.adaptive { self.limit.clamp(min, max) } else { max };
    }

    /// Calls allowed in flight.
    pub(crate) fn calls(&self) -> u32 {
        (self.limit / ONE) as u32
    }

    /// A call began; so many are in flight now.
    pub(crate) fn began(&mut self, running: u32) {
        self.peak = self.peak.max(u64::from(running));
    }

    /// The least time to first token that a prompt of this length can expect.
    pub(crate) fn expected(&self, prompt: u64) -> Option<u64> {
        self.first.least(prompt)
    }

    /// The first token of a prompt that had to be computed to this length came.
    pub(crate) fn first_token(&mut self, prompt: u64, micros: u64, pace: &Pace, now: At) {
        self.first.learn(prompt, micros);
        let due = self.first.at(prompt).unwrap_or(micros);
        self.sample(micros.saturating_sub(due), pace, now);
    }

    /// An answer of so many tokens (none where nothing is generated) came in one piece,
    /// to a prompt that had to be computed to this length.
    pub(crate) fn whole(&mut self, prompt: u64, output: u64, micros: u64, pace: &Pace, now: At) {
        if output > 0 && (self.token == 0 || micros / output < self.token) {
            self.token = (micros / output).max(1);
        }
        let generating = self.token.saturating_mul(output);
        self.lead.learn(prompt, micros.saturating_sub(generating));
        let lead = self.lead.at(prompt).unwrap_or(0);
        let due = generating.saturating_mul(UNARY_SLACK).saturating_add(lead);
        self.sample(micros.saturating_sub(due), pace, now);
    }

    fn sample(&mut self, delay: u64, pace: &Pace, now: At) {
        self.delays = self.delays.saturating_add(delay);
        self.samples += 1;
        let length = if self.seeking { WINDOW_START_MS } else { WINDOW_MS };
        if now >= self.start.plus(length) {
            self.turn(pace, now);
        }
    }

    /// The end of a window: judge it and begin the next.
    fn turn(&mut self, pace: &Pace, now: At) {
        let delay = self.delays / self.samples.max(1);
        let used = self.peak * ONE * 10 > self.limit * 7;
        if delay > pace.queue_delay_ms_max.micros() {
            self.seeking = false;
            self.limit -= self.limit * 7 / 100;
        } else if used && self.seeking {
            self.limit += self.limit / 2;
        } else if used {
            self.limit += (self.limit / 50).max(ONE);
        }
        self.clamp(pace);
        // What was learned fades by a thousandth a window, so that an engine that
        // became slower for good is not taken for a saturated one for ever.
        self.first.fade();
        self.lead.fade();
        self.token += self.token / 1_024;
        self.start = now;
        (self.delays, self.samples, self.peak) = (0, 0, 0);
    }

    /// The engine said that it gets too much: cut by 30 %, once per window.
    pub(crate) fn limited(&mut self, pace: &Pace, now: At) {
        if self.cut.is_none_or(|cut| now >= cut.plus(WINDOW_MS)) {
            self.cut = Some(now);
            self.seeking = false;
            self.limit -= self.limit * 3 / 10;
            self.clamp(pace);
        }
    }

    pub(crate) fn check(&self, pace: &Pace) {
        assert!(self.calls() <= pace.calls_max.max(1), "the limit stays below its bound");
        assert!(self.calls() >= 1, "one call is always allowed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace { calls_min: 2, calls_max: 200, calls_start: 20, ..Pace::default() }
    }

    /// Runs windows of an engine whose first token takes 100 ms up to `knee` calls and
    /// then as much longer as it is overfull.
    fn settle(limit: &mut Limit, knee: u64, from: u64, seconds: u64) {
        for tick in 0..seconds * 10 {
            let now = At((from * 10 + tick) * 100_000);
            let running = limit.calls();
            limit.began(running);
            let over = u64::from(running).saturating_sub(knee);
            limit.first_token(500, 100_000 + over * 100_000, &pace(), now);
        }
    }

    #[test]
    fn finds_the_knee_from_below_and_above() {
        let mut limit = Limit::new(&pace(), At(0));
        settle(&mut limit, 80, 0, 120);
        assert!((70..=90).contains(&limit.calls()), "{}", limit.calls());
        settle(&mut limit, 20, 120, 60);
        assert!((16..=27).contains(&limit.calls()), "a slower engine: {}", limit.calls());
    }

    #[test]
    fn an_unused_limit_does_not_grow() {
        let mut limit = Limit::new(&pace(), At(0));
        for second in 0..60 {
            limit.began(3);
            limit.first_token(500, 100_000, &pace(), At(second * 1_000_000));
        }
        assert_eq!(limit.calls(), 20);
    }

    #[test]
    fn throttling_cuts_once_a_window() {
        let mut limit = Limit::new(&pace(), At(0));
        limit.limited(&pace(), At(0));
        limit.limited(&pace(), At(10));
        assert_eq!(limit.calls(), 14);
        limit.limited(&pace(), At(2_000_000));
        assert_eq!(limit.calls(), 9);
        let fixed = Pace { adaptive: false, ..pace() };
        let mut limit = Limit::new(&fixed, At(0));
        limit.limited(&fixed, At(0));
        assert_eq!(limit.calls(), 200);
    }

    #[test]
    fn longer_prompts_may_take_longer() {
        let mut limit = Limit::new(&pace(), At(0));
        limit.first_token(100, 50_000, &pace(), At(0));
        limit.first_token(10_000, 2_000_000, &pace(), At(1));
        assert_eq!(limit.expected(100), Some(50_000));
        assert_eq!(limit.expected(10_000), Some(2_000_000));
        assert_eq!(limit.expected(2_000), Some(50_000), "the nearest shorter one known");
        assert_eq!(limit.expected(99), None, "a longer one's time says nothing of a shorter");
        assert_eq!(limit.expected(9_999), Some(50_000), "even one of the same power of two");
    }

    #[test]
    fn long_prompts_are_not_taken_for_a_queue() {
        // 10 ms and half a millisecond a token: within one power of two the times differ
        // by more than the delay that counts as queueing.
        let mut limit = Limit::new(&pace(), At(0));
        for tick in 0..200_u64 {
            limit.began(limit.calls());
            let prompt = 8_200 + tick * 1_237 % 8_000;
            limit.first_token(prompt, 10_000 + prompt * 500, &pace(), At(tick * 100_000));
        }
        assert_eq!(limit.calls(), 200);
    }

    #[test]
    fn long_prompts_of_unstreamed_answers_are_no_queue_either() {
        let mut limit = Limit::new(&pace(), At(0));
        for tick in 0..200_u64 {
            limit.began(limit.calls());
            let (prompt, output) = if tick % 2 == 0 { (100, 500) } else { (16_000 + tick * 40, 5) };
            let micros = 10_000 + prompt * 500 + output * 20_000;
            limit.whole(prompt, output, micros, &pace(), At(tick * 100_000));
        }
        assert_eq!(limit.calls(), 200);
    }

    #[test]
    fn answers_without_generation_move_the_limit() {
        let mut limit = Limit::new(&pace(), At(0));
        for tick in 0..100_u64 {
            limit.began(limit.calls());
            limit.whole(500, 0, 40_000, &pace(), At(tick * 100_000));
        }
        let grown = limit.calls();
        assert!(grown > 20, "{grown}");
        for tick in 100..200_u64 {
            limit.began(limit.calls());
            limit.whole(500, 0, 900_000, &pace(), At(tick * 100_000));
        }
        assert!(limit.calls() < grown, "{} after {grown}", limit.calls());
    }

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
}
