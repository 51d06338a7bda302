//! A few random worlds of each kind; `cargo x sim` runs hundreds.

use seawall_model::Millis;
use seawall_sim::cli::kept;
use seawall_sim::invent::{NAMES, invent};
use seawall_sim::{Tally, run};

fn run_kind(name: &str) -> Vec<Tally> {
    (0..4)
        .map(|seed| {
            let scenario = invent(name, seed, Some(Millis(4_000))).expect("a known kind of world");
            run(&scenario).unwrap_or_else(|broken| panic!("{broken}"))
        })
        .collect()
}

fn sum(tallies: &[Tally], of: impl Fn(&Tally) -> u64) -> u64 {
    tallies.iter().map(of).sum()
}

#[test]
fn calm_worlds_serve_nearly_everyone() {
    let tallies = run_kind("calm");
    assert!(sum(&tallies, Tally::done) * 2 > sum(&tallies, Tally::submitted));
}

#[test]
fn fair_worlds_keep_the_fairness_watch_busy() {
    assert!(sum(&run_kind("fair"), |tally| tally.compared) > 100);
}

#[test]
fn flooded_worlds_hold() {
    assert!(sum(&run_kind("flood"), Tally::done) > 0);
}

#[test]
fn overloaded_worlds_refuse_and_serve() {
    let tallies = run_kind("overload");
    let (done, all) = (sum(&tallies, Tally::done), sum(&tallies, Tally::submitted));
    assert!(done > 0 && done < all, "{done} of {all}");
}

#[test]
fn faulty_worlds_hold() {
    let tallies = run_kind("faults");
    let failed = sum(&tallies, |tally| {
        tally.outcomes().iter().filter(|(name, _)| name.starts_with("engine_")).map(|(_, n)| n).sum()
    });
    assert!(failed > 0 && sum(&tallies, Tally::done) > 0);
}

#[test]
fn budgets_are_used_up_and_never_exceeded() {
    assert!(sum(&run_kind("budgets"), |tally| tally.tripped) > 0);
}

#[test]
fn crashes_lose_calls_but_no_money() {
    assert!(sum(&run_kind("crash"), |tally| tally.lost) > 0);
}

#[test]
fn reloads_and_providers_hold() {
    assert!(sum(&run_kind("reload"), Tally::done) > 0);
    assert!(sum(&run_kind("provider"), Tally::done) > 0);
}

#[test]
fn storms_hold() {
    assert!(sum(&run_kind("storm"), Tally::done) > 0);
}

#[test]
fn kept_seeds_hold() {
    for (plan, seed) in kept() {
        let scenario = invent(plan, seed, None).expect("a known kind of world");
        if let Err(broken) = run(&scenario) {
            panic!("{broken}");
        }
    }
    assert!(NAMES.len() > 2);
}

#[test]
fn trees_are_stopped_by_operators_and_for_going_round() {
    let tallies = run_kind("trees");
    let of = |code: &'static str| move |tally: &Tally| tally.outcomes().get(code).copied().unwrap_or(0);
    assert!(sum(&tallies, |tally| tally.halted) > 0 && sum(&tallies, of("loop_stopped")) > 0);
    // Whoever has no budget of its tree left is refused, and that is most of the rest.
    let spent = sum(&tallies, of("allowance_spent"));
    assert!(spent > 0, "budgets of trees are used up");
    let (done, asked) = (sum(&tallies, Tally::done), sum(&tallies, Tally::submitted) - spent);
    assert!(done * 2 > asked, "{done} of {asked} done");
}
