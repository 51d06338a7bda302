//! Lies to the kernel, to doubt the doubter: with each of these the kernel must be seen
//! to break an invariant, or the watch over that invariant is asleep.

use seawall_kernel::Input;
use seawall_kernel::plan::{Plan, Rate};
use seawall_model::{At, Bytes, Millis, Tenant, Tokens};

/// What the kernel is told falsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It never hears that a client left (I8).
    HideLeaving,
    /// It never hears that a call was answered (I6).
    HideAnswers,
    /// It never hears what providers say of their rates.
    HideRates,
    /// It takes every model for one of a name of its own, which pauses apart (rate).
    RenameModels,
    /// Its clock is a second ahead, now and then (waits).
    SkewClock,
    /// It is told that a budget slice is on disk which is not (I3).
    LoseDisk,
    /// It believes prompts and outputs to be a quarter of what they are (I12).
    ShrinkCalls,
    /// It believes that queues have no bounds (I5).
    UnboundQueues,
    /// It believes that calls may wait for ever (I7).
    EndlessPatience,
    /// It believes that tenants have no limits.
    UnboundTenants,
    /// It believes that every other tenant weighs fifty times as much (I7).
    Favour,
    /// It believes that each user is a tenant of its own (rules).
    ScatterUsers,
    /// It believes that only the highest class has a share (I7).
    StarveClasses,
    /// It never hears that a run was stopped (stop).
    HideStops,
    /// It believes that every round may go on (loop).
    EndlessRounds,
    /// It takes whatever is asked for the same (loop).
    SameWork,
}

impl Lie {
    /// The plan as the kernel is told.
    pub(crate) fn plan(self, mut plan: Plan) -> Plan {
        match self {
            Self::UnboundQueues => {
                plan.queue.len_max = usize::MAX;
                plan.queue.tenant_len_max = usize::MAX;
                plan.queue.bytes_max = Bytes::MAX;
            }
            Self::EndlessPatience => plan.queue.wait_ms_max = Millis::from_secs(600),
            Self::UnboundTenants => {
                for rule in &mut plan.tenants {
                    (rule.calls_max, rule.rate) = (None, Rate::default());
                }
            }
            Self::Favour => {
                for rule in plan.tenants.iter_mut().step_by(2) {
                    rule.weight *= 50;
                }
            }
            Self::RenameModels => {
                for model in &mut plan.models {
                    model.upstreams = vec![model.id.0; model.targets.len()];
                }
            }
            Self::StarveClasses => plan.class_share = [100, 0, 0],
            Self::EndlessRounds => plan.guard.rounds = u32::MAX,
            _ => {}
        }
        plan
    }

    /// The input as the kernel hears it.
    pub(crate) fn input(self, input: Input) -> Input {
        match (self, input) {
            (Self::HideLeaving, Input::Cancelled { .. })
            | (Self::HideAnswers, Input::Finished { .. })
            | (Self::HideRates, Input::Rate { .. })
            | (Self::HideStops, Input::Stop { .. }) => Input::Tick,
            (Self::SameWork, Input::Submit(mut submit)) => {
                submit.work = submit.work.map(|_| 7);
                Input::Submit(submit)
            }
            (Self::ShrinkCalls, Input::Submit(mut submit)) => {
                submit.prompt = Tokens(submit.prompt.0 / 4 + 1);
                submit.prompt_max = Tokens(submit.prompt_max.0 / 4 + 1);
                submit.output_max = submit.output_max.map(|most| Tokens(most.0 / 4 + 1));
                Input::Submit(submit)
            }
            (Self::ScatterUsers, Input::Submit(mut submit)) => {
                let alone = submit.tenant.as_str().replace('/', ".");
                submit.tenant = Tenant::parse(&alone).expect("a path without slashes is a path");
                Input::Submit(submit)
            }
            (_, Input::Configure(plan)) => Input::Configure(Box::new(self.plan(*plan))),
            (_, input) => input,
        }
    }

    /// The time as the kernel is told.
    pub(crate) const fn now(self, now: At, step: u64) -> At {
        if matches!(self, Self::SkewClock) && step.is_multiple_of(50) { now.plus(Millis(1_000)) } else { now }
    }
}
