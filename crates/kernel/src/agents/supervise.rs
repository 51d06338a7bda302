//! What becomes of runs that end and of turns that fail, in the words of Erlang/OTP's
//! supervisors (<https://www.erlang.org/doc/system/sup_princ.html>), with a pause before
//! each restart that doubles, so that what fails at once does not fail in a frenzy.

use seawall_model::durable::Restart;
use seawall_model::{At, Millis, limits};

/// Turns that may fail at the same place of the journal; then what stands there is poison.
const STRIKES_MAX: u32 = 3;
/// Pause before a failed turn is tried again; it doubles.
const STUMBLE_REST: Millis = Millis(1_000);
const STUMBLE_REST_MAX: Millis = Millis(60_000);

/// Who is begun again when one child ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// That one.
    #[default]
    OneForOne,
    /// It and all its siblings.
    OneForAll,
    /// It and the siblings begun after it.
    RestForOne,
}

/// What becomes of runs of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// Who is begun again with it.
    pub strategy: Strategy,
    /// After which ends.
    pub restart: Restart,
    /// So many restarts within `within`; one more goes to whoever is above. At most
    /// [`limits::RESTARTS_MAX`].
    pub intensity: u32,
    /// The time in which restarts are counted.
    pub within: Millis,
    /// Pause before the first restart; it doubles with each.
    pub backoff: Millis,
    /// Longest pause.
    pub backoff_max: Millis,
}

impl Default for Supervision {
    /// OTP's default is one in five seconds, which a model's hiccup would use up.
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            restart: Restart::Transient,
            intensity: 3,
            within: Millis::from_secs(60),
            backoff: Millis(1_000),
            backoff_max: Millis::from_secs(60),
        }
    }
}

/// Which of a parent's children are begun again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that ended.
    This,
    /// All.
    All,
    /// It and those begun after it.
    Rest,
}

/// What becomes of a run that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is begun again, with others perhaps.
    Restart {
        /// Who.
        which: Which,
        /// Not sooner.
        after: Millis,
    },
    /// Its end stands, and is the answer to whoever asked for it.
    GiveUp,
    /// It failed too often: so has whoever is above it.
    Escalate,
}

/// What becomes of an agent whose turn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stumble {
    /// The turn is tried again.
    Retry {
        /// Not sooner.
        after: Millis,
    },
    /// What it has before it is poison: it is taken out of service with it.
    Quarantine,
}

/// A run ended by itself: well, or not. Who was cancelled is not asked about.
pub(crate) fn on_end(
    rule: &Supervision,
    restarts: &[At],
    ended_well: bool,
    now: At,
    jitter: u64,
) -> Decision {
    let again = match rule.restart {
        Restart::Permanent => true,
        Restart::Transient => !ended_well,
        Restart::Temporary => false,
    };
    if !again {
        return Decision::GiveUp;
    }
    if count(restarts, now, rule.within) >= rule.intensity.min(limits::RESTARTS_MAX as u32) {
        return Decision::Escalate;
    }
    let which = match rule.strategy {
        Strategy::OneForOne => Which::This,
        Strategy::OneForAll => Which::All,
        Strategy::RestForOne => Which::Rest,
    };
    // Looked back upon for longer than restarts are counted: else the longest pauses would
    // make the earlier restarts forgotten, and the pauses short again.
    let memory = Millis(rule.within.0.saturating_add(rule.backoff_max.0.saturating_mul(2)));
    let row = count(restarts, now, memory);
    Decision::Restart { which, after: pause(rule.backoff, rule.backoff_max, row, jitter) }
}

/// A turn failed for the `strikes`-th time in a row at the same place.
pub(crate) fn on_stumble(strikes: u32, jitter: u64) -> Stumble {
    if strikes >= STRIKES_MAX {
        return Stumble::Quarantine;
    }
    Stumble::Retry { after: pause(STUMBLE_REST, STUMBLE_REST_MAX, strikes.saturating_sub(1), jitter) }
}

/// How many of these lie within `span` before now.
fn count(restarts: &[At], now: At, span: Millis) -> u32 {
    let lately = restarts.iter().filter(|at| now.micros_since(**at) < span.micros());
    u32::try_from(lately.count()).unwrap_or(u32::MAX)
}

/// `backoff`, doubled `row` times, up to `most`; of that at least three quarters, so that
/// many that failed together do not come back together.
fn pause(backoff: Millis, most: Millis, row: u32, jitter: u64) -> Millis {
    let doubled = if row < 63 { backoff.0.saturating_mul(1 << row) } else { u64::MAX };
    let full = if backoff.0 == 0 { 0 } else { doubled.min(most.0) };
    Millis(full - jitter % (full / 4 + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    const NOW: At = At(10_000_000_000);

    fn ago(secs: &[u64]) -> Vec<At> {
        secs.iter().map(|secs| At(NOW.0 - secs * 1_000_000)).collect()
    }

    #[test]
    fn an_end_is_judged_by_the_restart_type() {
        let of = |restart, well| {
            let rule = Supervision { restart, ..Supervision::default() };
            on_end(&rule, &[], well, NOW, 0) != Decision::GiveUp
        };
        assert!(of(Restart::Permanent, true) && of(Restart::Permanent, false));
        assert!(!of(Restart::Transient, true) && of(Restart::Transient, false));
        assert!(!of(Restart::Temporary, true) && !of(Restart::Temporary, false));
    }

    #[test]
    fn pauses_double_until_the_intensity_is_used_up() {
        let rule = Supervision::default();
        let of = |secs: &[u64]| on_end(&rule, &ago(secs), false, NOW, 0);
        let this = |after| Decision::Restart { which: Which::This, after: Millis(after) };
        assert_eq!(of(&[]), this(1_000));
        assert_eq!(of(&[5]), this(2_000));
        assert_eq!(of(&[10, 5]), this(4_000));
        assert_eq!(of(&[59, 10, 5]), Decision::Escalate);
        assert_eq!(of(&[60, 10, 5]), this(8_000), "three, but the first is a minute ago");
        assert_eq!(of(&[1_000, 999, 998]), this(1_000), "long ago");
        let never = Supervision { intensity: 0, ..rule };
        assert_eq!(on_end(&never, &[], false, NOW, 0), Decision::Escalate);
    }

    #[test]
    fn siblings_follow_the_strategy() {
        for (strategy, expected) in [
            (Strategy::OneForOne, Which::This),
            (Strategy::OneForAll, Which::All),
            (Strategy::RestForOne, Which::Rest),
        ] {
            let rule = Supervision { strategy, ..Supervision::default() };
            let Decision::Restart { which, .. } = on_end(&rule, &[], false, NOW, 0) else {
                panic!("restarted");
            };
            assert_eq!(which, expected);
        }
    }

    #[test]
    fn the_same_failure_three_times_is_poison() {
        assert_eq!(on_stumble(1, 0), Stumble::Retry { after: Millis(1_000) });
        assert_eq!(on_stumble(2, 0), Stumble::Retry { after: Millis(2_000) });
        assert_eq!(on_stumble(3, 0), Stumble::Quarantine);
        assert_eq!(on_stumble(u32::MAX, 7), Stumble::Quarantine);
    }

    proptest! {
        #[test]
        fn whatever_always_fails_is_restarted_at_most_so_often(intensity in 0_u32..20, within in 1_u64..100_000,
            backoff in 0_u64..5_000, jitter in any::<u64>()) {
            let rule = Supervision { intensity, within: Millis(within), backoff: Millis(backoff),
                backoff_max: Millis(60_000), ..Supervision::default() };
            let (mut now, mut restarts) = (NOW, Vec::new());
            for _ in 0..200 {
                match on_end(&rule, &restarts, false, now, jitter) {
                    Decision::Restart { after, .. } => {
                        prop_assert!(after.0 <= 60_000 && after.0 <= backoff << restarts.len().min(30));
                        now = now.plus(after);
                        restarts.push(now);
                        let lately = count(&restarts, now, rule.within);
                        prop_assert!(lately <= intensity, "{} of {}", lately, intensity);
                    }
                    Decision::Escalate => return Ok(()),
                    Decision::GiveUp => prop_assert!(false, "a failure is not left alone"),
                }
            }
        }

        #[test]
        fn jitter_takes_at_most_a_quarter(row in 0_u32..100, backoff in 1_u64..10_000, jitter in any::<u64>()) {
            let full = pause(Millis(backoff), Millis(60_000), row, 0).0;
            let got = pause(Millis(backoff), Millis(60_000), row, jitter).0;
            prop_assert!(got <= full && got >= full - full / 4);
        }
    }
}
