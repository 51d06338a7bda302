//! How many calls a replica takes at once. The signal is queueing inside the engine:
//! time to first token above the least that a prompt of that length takes. It is
//! learned from traffic as it comes, never by throttling to probe (which is what makes
//! Vegas and Gradient limiters fail on language models, whose answers take as long as
//! they are). Queueing cuts the limit by 7 % a window; a well-used limit without it
//! grows by 2 %, and by half while it has never met queueing (slow start).
//!
//! The second signal is the time between the tokens of streams. A batch that makes each
//! of its calls so many times as slow as the fastest seen gains no throughput any more
//! (step time a + b x batch: beyond 7 a/b it is within an eighth of all there is), and an
//! engine whose memory thrashes shows it here and nowhere else. Single streams lie, since
//! clients stall and catch up, so it is the median of all streams that counts, without
//! those whose client has kept the engine waiting.

use seawall_model::{At, Millis};

use crate::curve::Curve;
use crate::plan::Pace;

/// The limit is kept in 256ths of a call.
const ONE: u64 = 256;
/// A window of observation; shorter while the limit is first sought.
const WINDOW_MS: Millis = Millis(1_000);
const WINDOW_START_MS: Millis = Millis(250);
/// An unstreamed answer may take this many times the least known time, since a batch
/// slows each of its calls, before the rest counts as queueing.
const UNARY_SLACK: u64 = 3;
/// Stretches of streams whose pace is kept of one window; their median needs no more.
const PACES_MAX: usize = 64;
/// Fewer tell nothing.
const PACES_MIN: usize = 4;
/// Tokens of a stretch whose pace is worth having: fewer come in one packet.
const STRETCH_MIN: u64 = 8;
/// First tokens seen before the time of a prompt token is believed.
const FIRST_MIN: u32 = 32;
/// Tokens generated before what one takes is believed.
const GENERATED_MIN: u64 = 1_000;
/// Bounds of what a generated token costs next to a prompt token, in sixteenths.
const RATIO_MIN: u64 = 16 / 4;
const RATIO_MAX: u64 = 16 * 128;

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
    /// Microseconds from token to token, of stretches of late.
    paces: Vec<u64>,
    /// The least that the median of a window has been; 0 is unknown.
    step: u64,
    /// Nanoseconds that a prompt token takes.
    prefill: Option<u64>,
    firsts: u32,
    /// Done in this window, and in full windows so far.
    done: Work,
    full: Work,
}

/// What a replica did in some time; of the past, fading.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    micros: u64,
    computed: u64,
    generated: u64,
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
            paces: Vec::new(),
            step: 0,
            prefill: None,
            firsts: 0,
            done: Work::default(),
            full: Work::default(),
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
        self.firsts = self.firsts.saturating_add(1);
        self.done.computed = self.done.computed.saturating_add(prompt);
        let due = self.first.at(prompt).unwrap_or(micros);
        self.sample(micros.saturating_sub(due), pace, now);
    }

    /// An answer of so many tokens (none where nothing is generated) came in one piece,
    /// to a prompt that had to be computed to this length.
    pub(crate) fn whole(&mut self, prompt: u64, output: u64, micros: u64, pace: &Pace, now: At) {
        if output > 0 && (self.token == 0 || micros / output < self.token) {
            self.token = (micros / output).max(1);
        }
        self.done.computed = self.done.computed.saturating_add(prompt);
        self.done.generated = self.done.generated.saturating_add(output);
        let generating = self.token.saturating_mul(output);
        self.lead.learn(prompt, micros.saturating_sub(generating));
        let lead = self.lead.at(prompt).unwrap_or(0);
        let due = generating.saturating_mul(UNARY_SLACK).saturating_add(lead);
        self.sample(micros.saturating_sub(due), pace, now);
    }

    /// A stream had so many tokens in this time; `None` where it was the client's time.
    pub(crate) fn streamed(&mut self, tokens: u64, micros: Option<u64>) {
        self.done.generated = self.done.generated.saturating_add(tokens);
        if let Some(micros) = micros.filter(|_| tokens >= STRETCH_MIN && self.paces.len() < PACES_MAX) {
            self.paces.push((micros / tokens).max(1));
        }
    }

    /// Nanoseconds that a prompt token takes to compute, once known.
    pub(crate) const fn prefill(&self) -> Option<u64> {
        self.prefill
    }

    /// What a generated token takes of the engine's time next to a prompt token, in
    /// sixteenths, once known: of the time that the engine was well filled, what its
    /// prompts took by their slope, and the rest, over what it generated.
    pub(crate) fn ratio(&self) -> Option<u64> {
        let (prefill, full) = (self.prefill?, &self.full);
        if full.generated < GENERATED_MIN {
            return None;
        }
        let computing = u128::from(full.computed) * u128::from(prefill);
        let rest = (u128::from(full.micros) * 1_000).saturating_sub(computing);
        let ratio = rest * 16 / u128::from(full.generated) / u128::from(prefill.max(1));
        Some(u64::try_from(ratio).unwrap_or(RATIO_MAX).clamp(RATIO_MIN, RATIO_MAX))
    }

    /// Keeps what was done in a window that was well filled: what one of few calls costs
    /// says nothing of what it costs when it matters.
    fn keep_work(&mut self, now: At) {
        let done = std::mem::take(&mut self.done);
        if self.peak * ONE * 2 > self.limit {
            let fade = |old: u64, new: u64| old - old / 32 + new;
            self.full = Work {
                micros: fade(self.full.micros, now.micros_since(self.start)),
                computed: fade(self.full.computed, done.computed),
                generated: fade(self.full.generated, done.generated),
            };
        }
    }

    /// How many times the least known pace the streams of late had, in sixteenths. Where
    /// there are few it takes some windows to tell: that is when the least is seen.
    fn slowdown(&mut self) -> u64 {
        if self.paces.len() < PACES_MIN {
            return 0;
        }
        let middle = self.paces.len() / 2;
        let median = *self.paces.select_nth_unstable(middle).1;
        self.paces.clear();
        self.step = if self.step == 0 { median } else { self.step.min(median) };
        median.saturating_mul(16) / self.step.max(1)
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
        let (slow, slow_max) = (self.slowdown(), u64::from(pace.slowdown_max) * 16);
        self.keep_work(now);
        if self.firsts >= FIRST_MIN {
            self.prefill = self.first.slope().or(self.prefill);
        }
        if delay > pace.queue_delay_ms_max.micros() || slow > slow_max {
            self.seeking = false;
            self.limit -= self.limit * 7 / 100;
        } else if slow > slow_max * 3 / 4 {
            // Near enough: another call would gain next to nothing.
            self.seeking = false;
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
        self.token += self.token.div_ceil(1_024);
        self.step += self.step.div_ceil(1_024);
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
}
