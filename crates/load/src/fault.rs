//! Faults by name: what an engine can do to its callers, by rate or on command.
//!
//! Text form of one fault: `429`, `429@30` (retry after 30 s), `500` to `599`,
//! `slow@800` (first token 800 ms late), `hang`, `cut@5` (after five tokens), `garbage`,
//! `halfopen`, `crash`. Of a plan: faults with rates, `429:0.1,cut@5:0.02`, and two
//! standing properties, `start@3000` (slow start, ms) and `leak@65536` (bytes kept per
//! request).

use std::collections::VecDeque;
use std::fmt;

use seawall_model::{Millis, limits};

use crate::rng::Rng;

/// One thing that goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refuses with 429 and this `retry-after`.
    RateLimit {
        /// How long to stay away.
        retry_after: Millis,
    },
    /// Answers with this status of the 500s.
    ServerError(u16),
    /// The first token comes this much later.
    SlowFirstToken(Millis),
    /// Accepts the call and never answers.
    Hang,
    /// The connection breaks after this many tokens.
    MidStreamCut {
        /// Tokens delivered before.
        after: u32,
    },
    /// Answers with bytes that are no answer.
    Garbage,
    /// Sends the head of an answer and then neither data nor an end.
    HalfOpen,
    /// The engine dies: this call and all others in it break, and new ones are refused
    /// for the time of its restart.
    Crash,
}

/// Text that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a known name.
    #[error(
        "`{0}` is no fault: 429[@seconds], 500-599, slow@ms, hang, cut@tokens, garbage, halfopen, crash; in a plan also start@ms and leak@bytes"
    )]
    Name(String),
    /// A rate outside 0 to 1.
    #[error("`{0}` is no rate: a number from 0 to 1")]
    Rate(String),
    /// Rates that add up to more than 1.
    #[error("the rates of a fault plan add up to more than 1")]
    Sum,
    /// More faults than a plan holds.
    #[error("a fault plan has at most {} faults", limits::FAULTS_MAX)]
    Many,
}

impl Fault {
    /// Reads one fault. `:` may stand for `@`, as in `slow:800`.
    ///
    /// # Errors
    /// When the text names none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let error = || Error::Name(text.chars().take(64).collect());
        let (name, argument) = match text.split_once(['@', ':']) {
            Some((name, argument)) => (name, Some(argument.trim().parse::<u64>().map_err(|_| error())?)),
            None => (text, None),
        };
        match (name, argument) {
            ("429", seconds) => Ok(Self::RateLimit { retry_after: Millis::from_secs(seconds.unwrap_or(1)) }),
            ("slow", Some(ms)) => Ok(Self::SlowFirstToken(Millis(ms))),
            ("hang", None) => Ok(Self::Hang),
            ("cut", after) => {
                Ok(Self::MidStreamCut { after: u32::try_from(after.unwrap_or(3)).map_err(|_| error())? })
            }
            ("garbage", None) => Ok(Self::Garbage),
            ("halfopen", None) => Ok(Self::HalfOpen),
            ("crash", None) => Ok(Self::Crash),
            (status, None) => match status.parse() {
                Ok(status @ 500..=599) => Ok(Self::ServerError(status)),
                _ => Err(error()),
            },
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { retry_after } => write!(f, "429@{}", retry_after.0 / 1_000),
            Self::ServerError(status) => write!(f, "{status}"),
            Self::SlowFirstToken(ms) => write!(f, "slow@{}", ms.0),
            Self::Hang => f.write_str("hang"),
            Self::MidStreamCut { after } => write!(f, "cut@{after}"),
            Self::Garbage => f.write_str("garbage"),
            Self::HalfOpen => f.write_str("halfopen"),
            Self::Crash => f.write_str("crash"),
        }
    }
}

/// Which calls go wrong, and how.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    rates: Vec<(Fault, f64)>,
    commanded: VecDeque<(Fault, u64)>,
    slow_start: Millis,
    leak_bytes: u64,
    rng: Rng,
}

impl FaultPlan {
    /// A plan under which nothing goes wrong.
    #[must_use]
    pub const fn none(seed: u64) -> Self {
        Self {
            rates: Vec::new(),
            commanded: VecDeque::new(),
            slow_start: Millis::ZERO,
            leak_bytes: 0,
            rng: Rng::branch(seed, 0xfa17),
        }
    }

    /// Reads a plan such as `429:0.1,cut@5:0.02,leak@4096`. A fault without a rate
    /// happens to every call. Empty text is a plan without faults.
    ///
    /// # Errors
    /// When a name or rate is wrong, or the rates add up to more than one.
    pub fn parse(text: &str, seed: u64) -> Result<Self, Error> {
        let mut plan = Self::none(seed);
        plan.set_rates(text)?;
        Ok(plan)
    }

    /// Replaces rates and standing properties by those of the text; commands remain.
    ///
    /// # Errors
    /// As [`FaultPlan::parse`]; the plan is then unchanged.
    pub fn set_rates(&mut self, text: &str) -> Result<(), Error> {
        let mut rates = Vec::new();
        let (mut slow_start, mut leak_bytes) = (Millis::ZERO, 0);
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let number =
                |text: &str| text.parse::<u64>().map_err(|_| Error::Name(part.chars().take(64).collect()));
            if let Some(ms) = part.strip_prefix("start@") {
                slow_start = Millis(number(ms)?);
                continue;
            }
            if let Some(bytes) = part.strip_prefix("leak@") {
                leak_bytes = number(bytes)?;
                continue;
            }
            let (name, rate) = part.split_once(':').unwrap_or((part, "1"));
            let parsed = rate.trim().parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
            let rate = parsed.ok_or_else(|| Error::Rate(rate.chars().take(64).collect()))?;
            if rates.len() >= limits::FAULTS_MAX {
                return Err(Error::Many);
            }
            rates.push((Fault::parse(name)?, rate));
        }
        // A hair of tolerance: ten times 0.1 is a little more than 1 in binary.
        if rates.iter().map(|fault| fault.1).sum::<f64>() > 1.0 + 1e-9 {
            return Err(Error::Sum);
        }
        (self.rates, self.slow_start, self.leak_bytes) = (rates, slow_start, leak_bytes);
        Ok(())
    }

    /// Commands that the next `calls` calls do this, after earlier commands.
    ///
    /// # Errors
    /// When too many commands are waiting.
    pub fn command(&mut self, fault: Fault, calls: u64) -> Result<(), Error> {
        if self.commanded.len() >= limits::FAULTS_MAX {
            return Err(Error::Many);
        }
        if calls > 0 {
            self.commanded.push_back((fault, calls));
        }
        Ok(())
    }

    /// What goes wrong with the next call: a command first, else by rate.
    pub fn draw(&mut self) -> Option<Fault> {
        if let Some((fault, calls)) = self.commanded.front_mut() {
            let fault = *fault;
            *calls -= 1;
            if *calls == 0 {
                self.commanded.pop_front();
            }
            return Some(fault);
        }
        if self.rates.is_empty() {
            return None;
        }
        let mut draw = self.rng.unit();
        for (fault, rate) in &self.rates {
            if draw < *rate {
                return Some(*fault);
            }
            draw -= rate;
        }
        None
    }

    /// How long the engine takes before it answers at all.
    #[must_use]
    pub const fn slow_start(&self) -> Millis {
        self.slow_start
    }

    /// Bytes that each request leaves behind in the engine.
    #[must_use]
    pub const fn leak_bytes(&self) -> u64 {
        self.leak_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["429@30", "503", "slow@800", "hang", "cut@5", "garbage", "halfopen", "crash"] {
            assert_eq!(Fault::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Fault::parse("slow:7"), Ok(Fault::SlowFirstToken(Millis(7))));
        assert_eq!(Fault::parse("429"), Ok(Fault::RateLimit { retry_after: Millis(1_000) }));
        for text in ["", "404", "slow", "hang@3", "cut@x", "cut@99999999999", "\u{fe}"] {
            assert!(Fault::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_met_and_seeds_repeat() {
        let draw = |seed| {
            let mut plan = FaultPlan::parse("429:0.1, cut@5:0.02,leak@10,start@20", seed).expect("valid");
            assert_eq!((plan.leak_bytes(), plan.slow_start()), (10, Millis(20)));
            (0..50_000).map(|_| plan.draw()).collect::<Vec<_>>()
        };
        let all = draw(1);
        let cuts = all.iter().filter(|fault| **fault == Some(Fault::MidStreamCut { after: 5 })).count();
        let none = all.iter().filter(|fault| fault.is_none()).count();
        assert!((850..=1_150).contains(&cuts), "{cuts}");
        assert!((43_700..=44_300).contains(&none), "{none}");
        assert_eq!(all, draw(1));
        assert_ne!(all, draw(2));
    }

    #[test]
    fn commands_come_first_and_then_end() {
        let mut plan = FaultPlan::none(0);
        plan.command(Fault::Hang, 2).expect("room");
        plan.command(Fault::Crash, 1).expect("room");
        plan.command(Fault::Crash, 0).expect("room");
        let drawn: Vec<_> = (0..4).map(|_| plan.draw()).collect();
        assert_eq!(drawn, [Some(Fault::Hang), Some(Fault::Hang), Some(Fault::Crash), None]);
        for _ in 0..limits::FAULTS_MAX {
            plan.command(Fault::Hang, 1).expect("room");
        }
        assert_eq!(plan.command(Fault::Hang, 1), Err(Error::Many));
    }

    #[test]
    fn a_bad_plan_says_why_and_changes_nothing() {
        let mut plan = FaultPlan::parse("500", 0).expect("valid");
        assert!(matches!(plan.set_rates("429:2"), Err(Error::Rate(_))));
        assert!(matches!(plan.set_rates("429:0.6,500:0.6"), Err(Error::Sum)));
        assert!(matches!(plan.set_rates("boom:0.1"), Err(Error::Name(_))));
        assert_eq!(plan.draw(), Some(Fault::ServerError(500)));
    }
}
