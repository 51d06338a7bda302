//! The cast: types of agents as the machine is told of them, and what the world itself
//! knows of each.

use std::sync::Arc;

use seawall_kernel::agents::cron::Cron;
use seawall_kernel::agents::gate::{Pattern, Rule, Who};
use seawall_kernel::agents::progress::GuardRule;
use seawall_kernel::agents::rules::{Kind, Rules, Schedule};
use seawall_kernel::agents::supervise::{Strategy, Supervision};
use seawall_model::durable::Restart;
use seawall_model::effect::{Allowance, Approval, Deputy, Verdict};
use seawall_model::{EffectClass, MicroUsd, Millis, Payload, Tenant, Tokens};

use super::plan::Plan;

/// Types that are started from outside.
pub const STARTED: &[&str] = &[
    "loop", "mapper", "worker", "ping", "chat", "sleeper", "asker", "lessee", "counter", "news", "reader",
    "watcher", "faulty", "shaky", "poison", "spender", "hasty", "boss", "guard",
];
/// Types that begin by mail, schedule or parent only.
pub const LED: &[&str] = &["pong", "mate", "beat", "guarded", "thinker"];

/// Types whose agents the progress guard or poison detection may take out of service.
pub const DISHONEST: &[&str] = &["ping", "pong", "poison", "shaky", "hasty"];

/// Types whose runs keep the version that they began with.
pub const PINNED: &[&str] = &["worker", "loop", "sleeper", "counter", "mapper"];

/// Items in an inbox, of every type.
pub const INBOX_MAX: usize = 40;
/// Units of every resource.
pub const UNITS: u32 = 3;
/// How many must say yes to what is asked.
pub const QUORUM: u8 = 2;

/// A version's name: its number, and the percentage of the first one's allowances.
#[must_use]
pub fn version(number: u64, percent: u64) -> Arc<str> {
    format!("{number}/{percent}").into()
}

/// What one run of a type may use that began with this version, as the world knows it.
#[must_use]
pub fn allowance_of(kind: &str, version: &str) -> Allowance {
    let percent = version.split_once('/').and_then(|(_, percent)| percent.parse().ok()).unwrap_or(100);
    let part = |most: u64| (most * percent / 100).max(1);
    let whole = allowance(kind);
    Allowance {
        tokens: whole.tokens.map(|most| Tokens(part(most.0))),
        money: whole.money.map(|most| MicroUsd(part(most.0))),
        calls: whole.calls.map(part),
        steps: whole.steps.map(part),
        ..whole
    }
}

fn allowance(kind: &str) -> Allowance {
    let wall = |secs| Some(Millis::from_secs(secs));
    match kind {
        // The tree of a spender is tight, so that it trips with several children at work.
        "spender" => Allowance {
            tokens: Some(Tokens(9_000)),
            money: Some(MicroUsd(4_000)),
            calls: Some(14),
            steps: Some(25),
            ..Allowance::default()
        },
        "ping" | "pong" | "mate" | "chat" | "reader" => Allowance { wall: wall(240), ..Allowance::default() },
        "boss" => Allowance { wall: wall(1_200), children: Some(4), depth: Some(3), ..Allowance::default() },
        // No time of their own: whoever is not woken is seen to wait for ever.
        _ => Allowance { steps: Some(400), ..Allowance::default() },
    }
}

fn supervision(name: &str) -> Supervision {
    let strategy = match name {
        "mapper" => Strategy::OneForOne,
        "boss" => Strategy::OneForAll,
        "spender" => Strategy::RestForOne,
        _ => Strategy::OneForOne,
    };
    let restart = match name {
        "faulty" | "worker" => Restart::Transient,
        _ => Restart::Temporary,
    };
    Supervision { strategy, restart, intensity: 3, ..Supervision::default() }
}

fn kind(name: &str) -> Kind {
    Kind {
        name: name.into(),
        version: version(1, 100),
        moves: !PINNED.contains(&name),
        allowance: allowance(name),
        supervision: supervision(name),
        guard: GuardRule::default(),
        gate: if name == "asker" {
            vec![rule("asker-timer", "timer", "*", None, asks())]
        } else {
            Vec::new()
        },
        schedule: None,
        starts_on_mail: matches!(name, "pong" | "mate" | "reader"),
        inbox_max: INBOX_MAX,
    }
}

fn rule(id: &str, what: &str, on: &str, class: Option<EffectClass>, then: Verdict) -> Rule {
    Rule {
        id: id.into(),
        who: Who::anyone(),
        what: what.into(),
        on: Pattern::new(on),
        class,
        when: Vec::new(),
        then,
    }
}

fn asks() -> Verdict {
    Verdict::Ask(Approval {
        quorum: QUORUM,
        approvers: Vec::new(),
        patience: Millis::from_secs(600),
        deputy: Some(Deputy { to: "dee".into(), after: Millis::from_secs(300) }),
    })
}

/// The rules of a world as it begins.
///
/// # Panics
/// Never: names and schedules are constants.
#[must_use]
pub fn rules(plan: &Plan) -> Rules {
    let mut kinds: Vec<Kind> = STARTED.iter().chain(LED).map(|name| kind(name)).collect();
    if plan.cron {
        for kind in kinds.iter_mut().filter(|kind| &*kind.name == "beat") {
            kind.schedule = Some(Schedule {
                cron: Cron::parse("* * * * *").expect("a valid schedule"),
                tenant: tenant(0),
                task: Payload::text("beat"),
            });
        }
    }
    let irreversible = Some(EffectClass::Irreversible);
    let gate = vec![
        rule("pay", "tool", "bank.pay", irreversible, asks()),
        rule("send", "tool", "bank.send", irreversible, Verdict::Allow),
        rule("guarded", "child", "guarded*", None, asks()),
        rule("linked", "link", "*", None, Verdict::Allow),
    ];
    let (turns_max, models_max, tool_max) = plan.places;
    Rules {
        shards: plan.shards,
        kinds,
        gate,
        runs_max: plan.runs_max,
        turns_max,
        models_max,
        tool_max,
        tools: vec![("bank".into(), 1)],
        suspend_after: plan.suspend_after,
        pause_max: Millis(5_000),
        seed: plan.seed,
        ..Rules::default()
    }
}

/// The n-th tenant.
///
/// # Panics
/// Never: the path is valid.
#[must_use]
pub fn tenant(nth: u64) -> Tenant {
    Tenant::parse(&format!("t{nth}/team")).expect("a valid path")
}

/// How often a tool can be called at once, as the world knows it.
#[must_use]
pub fn places_of(rules: &Rules, server: &str) -> u32 {
    rules.tools.iter().find(|(name, _)| &**name == server).map_or(rules.tool_max, |(_, places)| *places)
}

/// The part of a tool's name that names its server.
#[must_use]
pub fn server(tool: &str) -> Arc<str> {
    tool.split('.').next().unwrap_or_default().into()
}
