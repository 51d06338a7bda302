//! The parts of a definition that the kernel decides by: `[schedule]`, `[supervision]` and
//! `[guard]`, and the definition as the kernel sees it.

use std::sync::Arc;

use seawall_kernel::agents::cron::Cron;
use seawall_kernel::agents::progress::GuardRule;
use seawall_kernel::agents::rules::{self, Kind};
use seawall_kernel::agents::supervise::{Strategy, Supervision};
use seawall_model::durable::Restart;
use seawall_model::{Payload, Tenant, limits};

use super::{Definition, Schedule};
use crate::config::raw::{Reading, Section};

/// Longest time in which restarts are counted, and longest pause before one.
const WITHIN_MS_MAX: u64 = 7 * 86_400_000;
/// Highest bound that the progress guard may be given: above it it is as good as off.
const GUARD_MAX: u32 = 1_000_000;

impl Definition {
    /// As far as the kernel decides by it.
    #[must_use]
    pub fn rules(&self) -> Kind {
        Kind {
            name: self.kind.clone(),
            version: self.version.clone(),
            moves: self.moves,
            allowance: self.allowance,
            supervision: self.supervision.clone(),
            guard: self.guard,
            gate: self.permissions.clone(),
            schedule: self.schedule.as_ref().map(|schedule| rules::Schedule {
                cron: schedule.cron.clone(),
                tenant: schedule.tenant.clone(),
                task: Payload::text(&schedule.task),
            }),
            starts_on_mail: self.starts_on_mail,
            inbox_max: self.inbox_max,
        }
    }
}

pub(super) fn read_schedule(r: &mut Reading<'_>, root: &mut Section<'_>) -> Option<Schedule> {
    let written = root.has("schedule");
    let mut section = root.table(r, "schedule");
    let cron = section
        .parsed_opt(r, "cron", |text| Cron::parse(text).map_err(|error| format!("a schedule ({error})")));
    let tenant = section.parsed_opt(r, "tenant", |text| {
        Tenant::parse(text).map_err(|error| format!("a tenant path ({error})"))
    });
    let task = section.text(r, "task", "");
    if written && !section.has("cron") {
        let hint = "write cron = \"0 6 * * *\" for every day at six, UTC";
        r.problems.add(section.line(), section.path("cron"), "is missing", hint);
    }
    section.finish(r);
    Some(Schedule { cron: cron?, tenant: tenant.unwrap_or_else(Tenant::local), task: Arc::from(task) })
}

pub(super) fn read_supervision(r: &mut Reading<'_>, root: &mut Section<'_>) -> Supervision {
    let usual = Supervision::default();
    let mut section = root.table(r, "supervision");
    let strategy = section.choice(
        r,
        "strategy",
        &["one_for_one", "one_for_all", "rest_for_one"],
        |word| match word {
            "one_for_one" => Some(Strategy::OneForOne),
            "one_for_all" => Some(Strategy::OneForAll),
            "rest_for_one" => Some(Strategy::RestForOne),
            _ => None,
        },
        (usual.strategy, "one_for_one"),
    );
    let restart = section.choice(
        r,
        "restart",
        &["permanent", "transient", "temporary"],
        |word| match word {
            "permanent" => Some(Restart::Permanent),
            "transient" => Some(Restart::Transient),
            "temporary" => Some(Restart::Temporary),
            _ => None,
        },
        (usual.restart, "transient"),
    );
    let most = u32::try_from(limits::RESTARTS_MAX).expect("a small limit");
    let rule = Supervision {
        strategy,
        restart,
        intensity: section.count(r, "intensity", 0..=most, usual.intensity),
        within: section.millis(r, "within", 1..=WITHIN_MS_MAX, usual.within),
        backoff: section.millis(r, "backoff", 1..=WITHIN_MS_MAX, usual.backoff),
        backoff_max: section.millis(r, "backoff_max", 1..=WITHIN_MS_MAX, usual.backoff_max),
    };
    let path = section.path("backoff");
    section.finish(r);
    if rule.backoff > rule.backoff_max {
        r.problem(&path, format!("is longer than backoff_max, {}", rule.backoff_max), "");
    }
    rule
}

pub(super) fn read_guard(r: &mut Reading<'_>, root: &mut Section<'_>) -> GuardRule {
    let usual = GuardRule::default();
    let mut section = root.table(r, "guard");
    let rule = GuardRule {
        repeats: section.count(r, "repeats", 0..=GUARD_MAX, usual.repeats),
        polls: section.count(r, "polls", 0..=GUARD_MAX, usual.polls),
        cycles: section.count(r, "cycles", 0..=GUARD_MAX, usual.cycles),
        hops: u16::try_from(section.count(r, "hops", 0..=10_000, u32::from(usual.hops)))
            .expect("the range is of u16"),
        still: section.count(r, "still", 0..=GUARD_MAX, usual.still),
    };
    section.finish(r);
    rule
}
