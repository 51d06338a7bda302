//! The circuit of one replica: failures in a row open it, time half-opens it, one trial
//! or probe decides.

use seawall_model::{At, CallId, Millis};

use crate::plan::RetryRule;
use crate::view::Circuit;

/// The longest time open, in multiples of the first.
const OPEN_FACTOR_MAX: u64 = 30;

/// One circuit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    state: Circuit,
    failures: u32,
    /// How often it opened without a success between.
    opened: u32,
    until: At,
    /// The one call that is let through while half open.
    trial: Option<CallId>,
}

impl Breaker {
    pub(crate) const fn state(&self) -> Circuit {
        self.state
    }

    pub(crate) fn open_until(&self) -> Option<At> {
        (self.state == Circuit::Open).then_some(self.until)
    }

    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// May a call go here: always when closed, one as a trial when half open?
    pub(crate) const fn admits(&self) -> bool {
        match self.state {
            Circuit::Closed => true,
            Circuit::Open => false,
            Circuit::HalfOpen => self.trial.is_none(),
        }
    }

    pub(crate) fn began(&mut self, call: CallId) {
        if self.state == Circuit::HalfOpen {
            self.trial = Some(call);
        }
    }

    /// A call ended without a verdict.
    pub(crate) fn ended(&mut self, call: CallId) {
        if self.trial == Some(call) {
            self.trial = None;
        }
    }

    pub(crate) fn succeeded(&mut self) {
        // A success that began before the circuit opened proves nothing about now.
        if self.state != Circuit::Open {
            *self = Self::default();
        }
    }

    /// Counts a failure of this weight. Says whether the circuit opened just now.
    pub(crate) fn failed(&mut self, weight: u32, rule: &RetryRule, now: At) -> bool {
        match self.state {
            Circuit::Open => false,
            Circuit::Closed => {
                self.failures = self.failures.saturating_add(weight);
                self.failures >= rule.open_after.max(1) && self.open(rule, now)
            }
            Circuit::HalfOpen => self.open(rule, now),
        }
    }

    fn open(&mut self, rule: &RetryRule, now: At) -> bool {
        let factor = (1_u64 << self.opened.min(16)).min(OPEN_FACTOR_MAX);
        self.opened = self.opened.saturating_add(1);
        self.state = Circuit::Open;
        self.trial = None;
        self.failures = 0;
        self.until = now.plus(Millis(rule.open_ms.0.max(1).saturating_mul(factor)));
        true
    }

    /// Half-opens if its time has come, and says whether it did.
    pub(crate) fn expire(&mut self, now: At) -> bool {
        let due = self.state == Circuit::Open && now >= self.until;
        if due {
            self.state = Circuit::HalfOpen;
            self.trial = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_doubles_and_closes() {
        let rule = RetryRule { open_after: 3, open_ms: Millis(100), ..RetryRule::default() };
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(1, &rule, At(0)));
        breaker.succeeded();
        assert!(!breaker.failed(2, &rule, At(0)), "a success in between starts the count anew");
        assert!(breaker.failed(1, &rule, At(0)));
        assert_eq!(breaker.open_until(), Some(At(100_000)));
        assert!(!breaker.admits() && !breaker.expire(At(99_999)));
        breaker.succeeded();
        assert_eq!(breaker.state(), Circuit::Open, "an old call's success does not close it");
        assert!(breaker.expire(At(100_000)) && breaker.admits());
        breaker.began(CallId(1));
        assert!(!breaker.admits(), "one trial at a time");
        assert!(breaker.failed(1, &rule, At(100_000)));
        assert_eq!(breaker.open_until(), Some(At(300_000)));
        for _ in 0..20 {
            let until = breaker.open_until().expect("open");
            breaker.expire(until);
            breaker.failed(1, &rule, At(0));
        }
        assert_eq!(breaker.open_until(), Some(At(3_000_000)), "thirty times at most");
        breaker.expire(At(3_000_000));
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.failures()), (Circuit::Closed, 0));
    }
}
