//! Worlds of durable agents: the same bytes from the same seed, a few worlds of each kind,
//! a crash at every commit of a small one, a flood, loops and budgets, and lies that must
//! be noticed. `cargo x sim` runs hundreds more.

use seawall_model::Millis;
use seawall_sim::agents::coverage::Coverage;
use seawall_sim::agents::lie::Lie;
use seawall_sim::agents::plan::{Faults, calm};
use seawall_sim::agents::run::commits;
use seawall_sim::agents::tally::Tally;
use seawall_sim::agents::{NAMES, Plan, invent, run, run_twice, traced};
use seawall_sim::tally::jain;

fn play(plan: &Plan) -> Tally {
    run(plan).unwrap_or_else(|broken| panic!("{broken}"))
}

fn world(name: &str, seed: u64) -> Plan {
    invent(name, seed, Some(Millis(20_000))).expect("a known kind of world")
}

/// The first test of all (I2): every other result is worth as much as this one.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    for (seed, name) in NAMES.iter().enumerate() {
        let plan = world(name, seed as u64 + 1);
        let (first, broken) = traced(&plan);
        assert!(broken.is_none(), "{}", broken.expect("it broke"));
        let (second, _) = traced(&plan);
        assert!(first.lines().count() > 10, "{name}: nothing happened");
        assert!(first == second, "{name}: two histories");
    }
    let of = |seed| play(&world("agents-faults", seed)).hash;
    assert_ne!(of(1), of(2));
}

#[test]
fn worlds_of_every_kind_hold() {
    for name in NAMES {
        let mut sum = Tally::default();
        for seed in 100..103 {
            sum.add(&play(&world(name, seed)));
        }
        assert!(sum.ends.get("done").is_some_and(|done| *done > 5), "{name}: {:?}", sum.ends);
        let kills = ["crash", "storm", "disk", "torn", "clock", "drain", "kill", "ties", "query"];
        let told = kills.iter().any(|kill| name.ends_with(kill));
        // `agents` is a bit of everything.
        assert!((sum.crashes > 0) == told || *name == "agents", "{name}: {} crashes", sum.crashes);
    }
}

/// What a world is named for happens there. `cargo x sim` says the same of all of its seeds.
#[test]
fn every_plan_meets_what_it_is_named_for() {
    let mut coverage = Coverage::default();
    for seed in 0..4 * (NAMES.len() as u64 - 1) {
        let plan = invent("agents", seed, None).expect("a known kind of world");
        coverage.add(&plan.name, &play(&plan));
    }
    assert!(coverage.asleep().is_empty(), "{:?}\n{}", coverage.asleep(), coverage.text());
}

/// Whatever is to happen in worlds has happened in some: a law that meets nothing holds.
#[test]
fn everything_happens_somewhere() {
    let mut sum = Tally::default();
    for seed in 0..12 {
        sum.add(&play(&world("agents-storm", seed)));
        sum.add(&play(&world("agents-people", seed)));
    }
    let kinds = [
        "opened",
        "started",
        "turned",
        "stumbled",
        "attempted",
        "postponed",
        "answered",
        "doubted",
        "voted",
        "delegated",
        "mailed",
        "lettered",
        "unlettered",
        "ended",
        "restarted",
        "quarantined",
        "released",
        "halted",
        "moved",
        "put",
        "granted",
        "freed",
        "subscribed",
        "tied",
        "untied",
    ];
    for kind in kinds {
        assert!(sum.kinds.contains_key(kind), "no record `{kind}` in {:?}", sum.kinds);
    }
    assert!(
        sum.doubts > 2 && sum.granted > 20 && sum.tight > 5 && sum.stopped > 5 && sum.refused > 5,
        "{sum:?}"
    );
    assert!(sum.executed.values().all(|(_, all)| *all > 20), "{:?}", sum.executed);
}

/// Kills the process at every commit of a small world, before and after it hears of it.
#[test]
fn a_crash_at_every_commit_loses_nothing() {
    let mut plan = calm("every-commit", 5);
    (plan.starts, plan.length, plan.tenants) = (7, Millis(6_000), 1);
    plan.faults = Faults { tools: 30, models: 20, ..Faults::default() };
    let count = commits(&plan).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(count > 60, "only {count} commits");
    for at in 1..=count {
        for heard in [false, true] {
            plan.crash_at = Some((at, heard));
            if let Err(broken) = run(&plan) {
                panic!("crash at commit {at}, heard: {heard}: {broken}");
            }
        }
    }
}

/// Agents that say the same to each other are stopped, and nobody else is.
#[test]
fn loops_of_messages_are_stopped() {
    for seed in 0..6 {
        let mut plan = calm("loops", seed);
        (plan.only, plan.starts) = (Some("ping"), 6);
        // How many messages they exchange is held at the end of each world.
        assert!(play(&plan).stopped > 0);
    }
    for honest in ["chat", "mapper", "loop", "lessee", "counter", "news", "sleeper", "watcher"] {
        let mut plan = calm("honest", 7);
        (plan.only, plan.starts) = (Some(honest), 20);
        assert_eq!(play(&plan).stopped, 0, "{honest}");
    }
}

/// Trees that run out of budget with many children at work: not one is overspent.
#[test]
fn budgets_trip_and_nothing_is_overspent() {
    let mut tight = 0;
    for seed in 0..8 {
        let mut plan = calm("budgets", seed);
        (plan.only, plan.starts, plan.places) = (Some("spender"), 15, (8, 16, 8));
        plan.faults = Faults { tools: 30, models: 20, crossing: 50, ..Faults::default() };
        tight += play(&plan).tight;
    }
    assert!(tight > 20, "budgets were used up {tight} times");
}

fn flood(lie: Option<Lie>) -> Tally {
    let mut plan = calm("flood", 3);
    (plan.tenants, plan.starts, plan.flood, plan.lie) = (50, 0, true, lie);
    (plan.thorough, plan.check_every, plan.places) = (false, 4_999, (8, 10, 4));
    // A few hundred calls of everybody are enough to see who gets what.
    plan.calm = Millis::from_secs(8 * 3_600);
    play(&plan)
}

/// Fifty tenants, one of which asks for a hundred times as much.
#[test]
fn a_flood_gets_no_more_than_its_share() {
    let shares = |tally: &Tally| tally.shares.iter().map(|tokens| *tokens as f64).collect::<Vec<_>>();
    let fair = flood(None);
    assert_eq!(fair.shares.len(), 50);
    assert!(jain(&shares(&fair)) >= 0.95, "Jain {:.3}: {:?}", jain(&shares(&fair)), fair.shares);
    // The watch is awake: a tenant that makes itself many gets many shares.
    let scattered = flood(Some(Lie::Scatter));
    assert!(jain(&shares(&scattered)) < 0.9, "Jain {:.3}", jain(&shares(&scattered)));
}

/// Tells a lie in a few worlds of a kind: it must be noticed, by a watch whose words hold
/// one of `by`.
fn noticed(lie: Lie, name: &str, by: &[&str]) {
    for seed in 0..25 {
        let mut plan = world(name, seed);
        plan.lie = Some(lie);
        // The comparison of every row would notice most of them first.
        plan.thorough = matches!(lie, Lie::LoseRows | Lie::HalfWrites);
        // The reconciler sees at once that a link has one end.
        if lie == Lie::HideEnds {
            plan.check_every = u64::MAX;
        }
        // Longer than clocks jump in one world.
        plan.calm = Millis::from_secs(7_200);
        let Err(broken) = run(&plan) else { continue };
        let taken = by.iter().any(|by| broken.says.contains(by));
        assert!(taken, "{lie:?} was taken for something else: {}", broken.says);
        return;
    }
    panic!("{lie:?} was never noticed");
}

#[test]
fn lies_about_the_disk_are_noticed() {
    noticed(Lie::EarlyDurable, "agents-calm", &["I3:"]);
    noticed(Lie::LoseRows, "agents-calm", &["I4:"]);
    noticed(Lie::ForgetAttempts, "agents-crash", &["effects:"]);
    noticed(Lie::LoseMail, "agents-crash", &["mail:", "I3:", "I4:"]);
}

/// Plans that are named for one trouble each have a law that a lie is seen to break in them:
/// refusals by `retry`, hangs by `progress` and so on.
#[test]
fn each_named_trouble_has_a_watch_that_is_awake() {
    noticed(Lie::HalfWrites, "agents-torn", &["I4:", "I3:"]);
    noticed(Lie::HideFull, "agents-full", &["room:"]);
    noticed(Lie::EarlyDurable, "agents-slow", &["I3:"]);
    noticed(Lie::SkewClock, "agents-clock", &["timers:", "version:", "I5:"]);
    noticed(Lie::HideReports, "agents-hang", &["progress:"]);
    noticed(Lie::HideRetryAfter, "agents-refusals", &["retry:"]);
    noticed(Lie::CutAnswers, "agents-bomb", &["effects:"]);
    noticed(Lie::UnboundInbox, "agents-mail", &["I5:"]);
    noticed(Lie::SwapMoves, "agents-reload", &["version:"]);
    noticed(Lie::HideCuts, "agents-cut", &["I12:"]);
    noticed(Lie::HideDrain, "agents-drain", &["drain:"]);
    noticed(Lie::ForgetAttempts, "agents-kill", &["effects:"]);
    noticed(Lie::BareForks, "agents-fork", &["fork:"]);
    noticed(Lie::LoseEdits, "agents-edit", &["edit:"]);
    noticed(Lie::HideEnds, "agents-ties", &["ties:"]);
    noticed(Lie::FlipFindings, "agents-query", &["effects:"]);
}

#[test]
fn lies_about_what_is_allowed_are_noticed() {
    noticed(Lie::NoApprovals, "agents-calm", &["gate:"]);
    noticed(Lie::Unbudget, "agents-calm", &["I12:"]);
    noticed(Lie::HideCosts, "agents-faults", &["I12:"]);
    noticed(Lie::FatLease, "agents-calm", &["I13:"]);
    noticed(Lie::NoGuard, "agents-calm", &["guard:"]);
    noticed(Lie::HideHalts, "agents-people", &["halt:"]);
    noticed(Lie::MorePlaces, "agents-calm", &["I5:"]);
    noticed(Lie::UnboundInbox, "agents-calm", &["I5:"]);
}

#[test]
fn lies_about_what_happened_are_noticed() {
    noticed(Lie::SkewClock, "agents-calm", &["timers:", "I5:"]);
    noticed(Lie::HideReports, "agents-calm", &["progress:"]);
    noticed(Lie::HideTicks, "agents-calm", &["progress:"]);
    noticed(Lie::LoseDue, "agents-crash", &["progress:"]);
    noticed(Lie::EchoStarts, "agents-calm", &["I6:"]);
    noticed(Lie::HideOver, "agents-calm", &["I6:"]);
    noticed(Lie::ForgetKeys, "agents-crash", &["effects:"]);
    let mut plan = world("agents-faults", 1);
    let hash = |plan: &Plan| play(plan).hash;
    let before = hash(&plan);
    plan.lie = Some(Lie::Reseed(77));
    assert_ne!(before, hash(&plan), "chance of its own would show");
    assert!(run_twice(&plan).is_ok());
}
