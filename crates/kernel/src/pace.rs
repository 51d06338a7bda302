//! How many calls a replica takes at once. The signal is queueing inside the engine:
//! time to first token above the least ever seen for a prompt of that length. It is
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

/// What is known of one replica's speed, and the limit that follows.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    limit: u64,
    /// Least time to first token by prompt length, in microseconds; 0 is unknown.
    first: [u64; LENGTHS],
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
            first: [0; LENGTHS],
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
        // A longer prompt is never faster: its best time bounds this one's.
        self.first[length(prompt)..].iter().copied().filter(|least| *least > 0).min()
    }

    /// The first token of a prompt that had to be computed to this length came.
    pub(crate) fn first_token(&mut self, prompt: u64, micros: u64, pace: &Pace, now: At) {
        let least = &mut self.first[length(prompt)];
        if *least == 0 || micros < *least {
            *least = micros.max(1);
        }
        let delay = micros.saturating_sub(self.expected(prompt).unwrap_or(micros));
        self.sample(delay, pace, now);
    }

    /// An unstreamed answer of so many tokens came in one piece.
    pub(crate) fn whole(&mut self, output: u64, micros: u64, pace: &Pace, now: At) {
        let per_token = micros / output.max(1);
        if self.token == 0 || per_token < self.token {
            self.token = per_token.max(1);
        }
        let due = self.token.saturating_mul(output).saturating_mul(UNARY_SLACK);
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
        for least in self.first.iter_mut().chain([&mut self.token]) {
            if *least > 0 {
                *least += *least / 1_024;
            }
        }
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
        assert_eq!(limit.expected(2_000), Some(2_000_000), "the nearest longer one known");
        assert_eq!(limit.expected(1 << 20), None);
    }
}
