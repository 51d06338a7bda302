//! Lies to the machine, to doubt the doubter: with each of these a law must be seen to
//! break, or the watch over it is asleep.

use seawall_kernel::agents::input::{Finding, Input, Report};
use seawall_kernel::agents::progress::GuardRule;
use seawall_kernel::agents::rules::Rules;
use seawall_model::durable::{AgentRow, Item, Stage};
use seawall_model::effect::{Allowance, Answer, Spend, Verdict, Work};
use seawall_model::{At, Millis, Payload};

use super::cast;

/// What the machine is told falsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Records are on disk before they are (I3).
    EarlyDurable,
    /// Every twentieth row is not written (I4).
    LoseRows,
    /// Irreversible effects under way are read back as if never sent (effects).
    ForgetAttempts,
    /// Messages are missing when an agent is read back (mail).
    LoseMail,
    /// Links are missing when an agent is read back (ties).
    HideEnds,
    /// What was found not to be done is said to be done (effects).
    FlipFindings,
    /// Half of a transaction is on disk after a crash (I4).
    HalfWrites,
    /// A full disk is not told of (room).
    HideFull,
    /// Nobody says when it may be tried again (retry).
    HideRetryAfter,
    /// What tools say is cut (effects).
    CutAnswers,
    /// Runs that move stay, and those that stay move (version).
    SwapMoves,
    /// Definitions allow what they did at first (I12).
    HideCuts,
    /// The order to end is not heard (drain).
    HideDrain,
    /// Forks begin with nothing (fork).
    BareForks,
    /// Approvals lose their arguments (edit).
    LoseEdits,
    /// Nothing asks people (gate).
    NoApprovals,
    /// Runs may use what they like (I12).
    Unbudget,
    /// What failed is said to have cost nothing (I12).
    HideCosts,
    /// Its clock is ahead, now and then (timers).
    SkewClock,
    /// There are twice as many units of everything (I13).
    FatLease,
    /// It never hears what came of effects (progress).
    HideReports,
    /// Time never passes by itself (progress).
    HideTicks,
    /// Nobody is found whose time comes (progress).
    LoseDue,
    /// Nothing is no progress (guard).
    NoGuard,
    /// Each start is heard twice (I6).
    EchoStarts,
    /// Inboxes have no bounds (I5).
    UnboundInbox,
    /// Ten times as many places (I5).
    MorePlaces,
    /// Stops are not heard (halt).
    HideHalts,
    /// Nobody hears that runs are over (I6).
    HideOver,
    /// Tools do not keep keys (effects).
    ForgetKeys,
    /// The tenant that floods seems to be hundreds (fairness).
    Scatter,
    /// Another seed each time (I2).
    Reseed(u64),
}

impl Lie {
    /// The rules as the machine is told.
    #[must_use]
    pub fn rules(self, mut rules: Rules) -> Rules {
        match self {
            Self::NoApprovals => {
                let own = rules.kinds.iter_mut().flat_map(|kind| &mut kind.gate);
                for rule in rules.gate.iter_mut().chain(own) {
                    rule.then = Verdict::Allow;
                }
            }
            Self::Unbudget => {
                for kind in &mut rules.kinds {
                    kind.allowance = Allowance { wall: kind.allowance.wall, ..Allowance::default() };
                }
            }
            Self::SwapMoves => {
                for kind in &mut rules.kinds {
                    kind.moves = !kind.moves;
                }
            }
            Self::HideCuts => {
                for kind in &mut rules.kinds {
                    kind.allowance = cast::allowance_of(&kind.name, "");
                }
            }
            Self::NoGuard => {
                for kind in &mut rules.kinds {
                    kind.guard = GuardRule { repeats: 0, polls: 0, cycles: 0, hops: 0, still: 0 };
                }
            }
            Self::UnboundInbox => {
                for kind in &mut rules.kinds {
                    kind.inbox_max = usize::MAX;
                }
            }
            Self::MorePlaces => {
                rules.turns_max *= 10;
                rules.models_max *= 10;
            }
            _ => {}
        }
        rules
    }

    /// The input as the machine hears it.
    #[must_use]
    pub fn input(self, input: Input) -> Input {
        match (self, input) {
            (Self::HideReports, Input::Report { .. })
            | (Self::HideHalts, Input::Halt { ticket: 0, .. })
            | (Self::HideFull, Input::Room(false))
            | (Self::HideDrain, Input::Drain) => Input::Room(true),
            (Self::BareForks, Input::Start { ticket, mut start }) => {
                start.state.clear();
                Input::Start { ticket, start }
            }
            (Self::LoseEdits, Input::Vote { ticket, effect, address, matter, who, yes: true, .. }) => {
                Input::Vote { ticket, effect, address, matter, who, yes: true, args: None, facts: Vec::new() }
            }
            (Self::HideCosts, Input::Report { effect, address, mut report }) => {
                if let Report::NotDone { used, .. } | Report::Lost { used, .. } = &mut report {
                    *used = Spend::default();
                }
                Input::Report { effect, address, report }
            }
            (Self::FatLease, Input::Commit { address, token, mut commit }) => {
                for ask in &mut commit.asks {
                    if let Work::Acquire { of, .. } = &mut ask.work {
                        *of *= 2;
                    }
                }
                Input::Commit { address, token, commit }
            }
            (_, Input::Report { effect, address, report }) => {
                Input::Report { effect, address, report: self.report(report) }
            }
            (_, Input::Configure(rules)) => Input::Configure(Box::new(self.rules(*rules))),
            (_, input) => input,
        }
    }

    /// What came of an effect, as the machine hears it.
    fn report(self, report: Report) -> Report {
        match (self, report) {
            (Self::HideRetryAfter, Report::NotDone { code, why, counts, used, .. }) => {
                Report::NotDone { code, why, retry_after: None, counts, used }
            }
            (Self::CutAnswers, Report::Done { answer: Answer::Done(body), used }) if body.len() > 10_000 => {
                Report::Done { answer: Answer::Done(Payload::text("and so on")), used }
            }
            (Self::FlipFindings, Report::Found(Finding::NotDone)) => {
                Report::Found(Finding::Done(Answer::Done(Payload::text("surely it was done"))))
            }
            (_, report) => report,
        }
    }

    /// Rows as they are read back.
    pub fn rows(self, agents: &mut [AgentRow]) {
        for row in agents {
            if self == Self::ForgetAttempts {
                for pending in &mut row.pending {
                    if pending.stage == Stage::Attempted {
                        pending.stage = Stage::Ready { after: At(0) };
                    }
                }
            }
            if self == Self::HideEnds {
                row.ties.retain(|tie| !tie.linked);
            }
            if self == Self::LoseMail {
                row.inbox.retain(|item| !matches!(item, Item::Mail(_)));
            }
        }
    }

    /// The time as the machine is told.
    #[must_use]
    pub const fn now(self, now: At, step: u64) -> At {
        if matches!(self, Self::SkewClock) && step.is_multiple_of(20) { now.plus(Millis(3_000)) } else { now }
    }
}
