//! Doubting the doubter: a kernel that is lied to must be caught, each lie by the watch
//! over the invariant that it breaks.

use seawall_model::Millis;
use seawall_sim::invent::invent;
use seawall_sim::lie::Lie;
use seawall_sim::run;

/// Tells a lie in a few worlds of a kind: it must be caught at least once, and whenever
/// it is, by a watch whose words begin with one of `by`.
fn caught(lie: Lie, plan: &str, by: &[&str]) {
    let mut found = 0;
    for seed in 0..12 {
        let mut scenario = invent(plan, seed, Some(Millis(15_000))).expect("a known kind of world");
        scenario.lie = Some(lie);
        scenario.check_every = 3;
        let Err(broken) = run(&scenario) else { continue };
        // Panics in assert_eq! begin with the values; the words come after.
        assert!(
            by.iter().any(|by| broken.says.contains(by)),
            "{lie:?} was taken for something else: {}",
            broken.says
        );
        found += 1;
        if found == 2 {
            return;
        }
    }
    assert!(found > 0, "{lie:?} was never noticed");
}

#[test]
fn a_client_that_leaves_unheard_is_noticed() {
    caught(Lie::HideLeaving, "overload", &["I8:"]);
}

#[test]
fn an_answer_unheard_is_noticed() {
    caught(Lie::HideAnswers, "calm", &["I6:"]);
}

#[test]
fn a_provider_unheard_is_noticed() {
    caught(Lie::HideRates, "provider", &["rate:"]);
}

#[test]
fn a_clock_that_jumps_is_noticed() {
    caught(Lie::SkewClock, "fair", &["waits:", "I6:", "rules:", "I7:"]);
}

#[test]
fn a_disk_that_forgets_is_noticed() {
    caught(Lie::LoseDisk, "budgets", &["I3:"]);
}

#[test]
fn calls_larger_than_they_seemed_are_noticed() {
    caught(Lie::ShrinkCalls, "budgets", &["I12:"]);
}

#[test]
fn a_queue_without_bounds_is_noticed() {
    caught(Lie::UnboundQueues, "flood", &["I5:"]);
}

#[test]
fn a_wait_without_end_is_noticed() {
    caught(Lie::EndlessPatience, "fair", &["I7:"]);
}

#[test]
fn tenants_without_limits_are_noticed() {
    caught(Lie::UnboundTenants, "overload", &["rules:"]);
}

#[test]
fn a_favourite_is_noticed() {
    caught(Lie::Favour, "fair", &["I7:"]);
}

#[test]
fn starved_classes_are_noticed() {
    caught(Lie::StarveClasses, "fair", &["I7:"]);
}

#[test]
fn users_without_their_tenant_are_noticed() {
    caught(Lie::ScatterUsers, "overload", &["rules:"]);
}

#[test]
fn pauses_of_models_taken_apart_are_noticed() {
    caught(Lie::RenameModels, "provider", &["rate:"]);
}

#[test]
fn a_stop_unheard_is_noticed() {
    caught(Lie::HideStops, "trees", &["stop:"]);
}

#[test]
fn rounds_without_end_and_false_stops_are_noticed() {
    caught(Lie::EndlessRounds, "trees", &["loop:"]);
    caught(Lie::SameWork, "trees", &["loop:"]);
}
