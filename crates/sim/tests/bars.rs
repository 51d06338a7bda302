//! Named situations with the bars they must clear. The invariants are checked throughout
//! as well; these hold figures.

mod stage;

use seawall_kernel::plan::{BudgetRule, Meter, Pace, Period, Rate, TenantRule};
use seawall_model::{Class, Code, EngineId, Millis, ReplicaId};
use seawall_sim::Tally;
use seawall_sim::scenario::{Cap, Demand, Incident, Law, Machine, Scenario, Trouble, engine, model};
use seawall_sim::tally::{Demanded, fair_shares, jain, quantile};

use stage::{OUTPUT, PROMPT, capacity, open, p99, play, spec, world};

fn closed(tenant: &str, workers: u32) -> Demand {
    Demand { law: Law::Closed { workers, think: Millis::ZERO }, ..open(tenant, 1.0) }
}

fn rule(prefix: &str) -> TenantRule {
    TenantRule {
        prefix: prefix.into(),
        weight: 100,
        calls_max: None,
        rate: Rate::default(),
        budgets: Vec::new(),
    }
}

fn failed(tally: &Tally, code: Code) -> u64 {
    tally.demands.iter().map(|demand| demand.failed.get(&code).copied().unwrap_or(0)).sum()
}

/// Twenty tenants well within their shares, and one that asks for a hundred times its own.
#[test]
fn a_flood_drowns_only_itself() {
    let spec = spec(16);
    let share = capacity(&spec, PROMPT, OUTPUT) / 21.0;
    let mut polite: Vec<Demand> = (0..20).map(|nth| open(&format!("polite-{nth}"), share * 0.5)).collect();
    for demand in &mut polite {
        // The flood is there first and holds every slot when the others come.
        demand.from = Millis(10_000);
    }
    let seconds = 50;
    let alone = play(&world("alone", &spec, 1, seconds, polite.clone()));
    let mut all = polite;
    all.push(open("flood", share * 100.0));
    let mut scenario = world("flood", &spec, 1, seconds, all);
    // What the flood may have waiting is a bound of its own; it keeps this test quick.
    scenario.plan.queue.tenant_len_max = 100;
    let flooded = play(&scenario);

    // Served tokens against max-min fair shares of what was served, while all ask.
    let served = |demand: &Demanded| demand.tokens_by_second.iter().take(49).skip(12).sum::<u64>() as f64;
    let got: Vec<f64> = flooded.demands.iter().map(served).collect();
    let mut asked: Vec<f64> = alone.demands.iter().map(served).collect();
    asked.push(f64::MAX);
    let due = fair_shares(got.iter().sum(), &asked);
    let ratios: Vec<f64> = got.iter().zip(&due).map(|(got, due)| got / due).collect();
    assert!(jain(&ratios) >= 0.95, "Jain {:.3} over {ratios:?}", jain(&ratios));

    let (before, after) = (p99(&alone.demands, |d| &d.took_us), p99(&flooded.demands[..20], |d| &d.took_us));
    assert!(after * 2 <= before * 3, "the others' p99: {before} us alone, {after} us in the flood");
    // The first token comes later than alone, as every slot is taken and must first fall
    // free, but within one round of all tenants' turns.
    let (before, after) =
        (p99(&alone.demands, |d| &d.first_us), p99(&flooded.demands[..20], |d| &d.first_us));
    let round = (21.0 / capacity(&spec, PROMPT, OUTPUT) * 1e6) as u64;
    assert!(
        after <= before + round,
        "the others' first token: {before} us alone, {after} us in the flood, a round is {round} us"
    );
}

#[test]
fn under_twice_the_load_the_admitted_keep_their_pace_and_the_rest_are_told_when() {
    let spec = spec(32);
    let demands = |load: f64| {
        (0..10).map(|nth| open(&format!("t-{nth}"), capacity(&spec, PROMPT, OUTPUT) * load / 10.0)).collect()
    };
    let calm = play(&world("calm", &spec, 1, 20, demands(0.9)));
    let mut scenario = world("twice", &spec, 1, 20, demands(2.0));
    scenario.plan.queue.wait_ms_max = Millis(2_000);
    let twice = play(&scenario);
    let in_engine = |tally: &Tally| {
        let all: Vec<u64> =
            tally.demands.iter().flat_map(|demand| demand.engine_first_us.iter().copied()).collect();
        quantile(&all, 99)
    };
    let (before, after) = (in_engine(&calm), in_engine(&twice));
    assert!(after * 2 <= before * 3, "p99 inside the engine: {before} us at 0.9, {after} us at 2.0");
    assert!(
        p99(&twice.demands, |demand| &demand.first_us) <= 2_000_000 + after,
        "an admitted call waited longer than it may"
    );
    let (done, all) = (twice.done(), twice.submitted());
    assert!(
        done as f64 >= 0.9 * capacity(&spec, PROMPT, OUTPUT) * 20.0,
        "{done} of {all} served: the engine was not kept busy"
    );
    let refused: u64 = [Code::QueueTimeout, Code::QueueFull, Code::TenantQueueFull]
        .iter()
        .map(|code| failed(&twice, *code))
        .sum();
    assert_eq!(done + refused, all, "{:?}", twice.outcomes());
}

#[test]
fn batch_work_gets_its_guaranteed_share() {
    let spec = spec(16);
    let mut batch = closed("acme", 40);
    batch.classes = vec![Class::Batch];
    let mut scenario =
        world("starving", &spec, 1, 30, vec![open("acme", capacity(&spec, PROMPT, OUTPUT) * 3.0), batch]);
    scenario.plan.class_share = [50, 20, 10];
    scenario.plan.queue.wait_ms_max = Millis(10_000);
    let tally = play(&scenario);
    let (people, batch) = (tally.demands[0].tokens as f64, tally.demands[1].tokens as f64);
    let share = batch / (people + batch);
    assert!((0.09..=0.25).contains(&share), "batch had {:.1} % of the tokens", share * 100.0);
}

#[test]
fn weights_divide_the_engine() {
    let spec = spec(16);
    let mut scenario = world("weights", &spec, 1, 30, vec![closed("gold", 60), closed("iron", 60)]);
    scenario.plan.tenants = vec![TenantRule { weight: 300, ..rule("gold") }, rule("iron")];
    let tally = play(&scenario);
    // While both send: what waits at the end is served to all alike.
    let tokens = |of: &Demanded| of.tokens_by_second[3..29].iter().sum::<u64>() as f64;
    let ratio = tokens(&tally.demands[0]) / tokens(&tally.demands[1]);
    assert!((2.7..=3.3).contains(&ratio), "weights 3 to 1 gave {ratio:.2} to 1");
}

#[test]
fn a_budget_trips_with_a_hundred_calls_in_flight_and_nothing_is_overspent() {
    let spec = spec(128);
    let mut demand = closed("acme/search", 120);
    demand.cap = Cap::Times(4);
    let mut scenario = world("budget", &spec, 1, 30, vec![demand]);
    scenario.plain = false;
    let limit = 500_000;
    let budget = BudgetRule { meter: Meter::Money, period: Period::Total, limit };
    scenario.plan.tenants = vec![TenantRule { budgets: vec![budget], ..rule("acme") }];
    scenario.check_every = 1;
    let tally = play(&scenario);
    // That it was not overspent is checked at every step; that it was used up is checked here.
    assert_eq!(tally.tripped, 1, "{:?}", tally.outcomes());
    assert!(failed(&tally, Code::BudgetExhausted) > 0, "{:?}", tally.outcomes());
    assert!(tally.done() > 500, "{:?}", tally.outcomes());
}

/// Two engines of two replicas each behind one model.
fn pair(name: &str, seconds: u64, demands: Vec<Demand>) -> Scenario {
    let spec = spec(32);
    let mut scenario = world(name, &spec, 1, seconds, demands);
    let pace = Pace { calls_start: 32, calls_max: 32, ..Pace::default() };
    scenario.plan.engines = vec![engine(0, 0, 2, pace.clone()), engine(1, 2, 2, pace)];
    scenario.plan.models = vec![model(0, &[0, 1])];
    let machine = |replica| Machine {
        replica: ReplicaId(replica),
        engine: EngineId(replica / 2),
        spec: spec.clone(),
        provider: None,
    };
    scenario.machines = (0..4).map(machine).collect();
    scenario.plain = false;
    scenario
}

fn incident(machine: usize, from: Millis, trouble: Trouble) -> Incident {
    Incident { from, length: Millis::from_secs(3_600), machine, trouble }
}

#[test]
fn when_an_engine_dies_the_next_target_takes_over() {
    let rate = capacity(&spec(32), PROMPT, OUTPUT);
    let mut after = open("late", rate);
    after.from = Millis(7_000);
    let mut before = open("early", rate);
    before.until = Millis(7_000);
    let mut scenario = pair("failover", 15, vec![before, after]);
    scenario.incidents = (0..2).map(|machine| incident(machine, Millis(5_000), Trouble::Crash)).collect();
    let tally = play(&scenario);
    let late = &tally.demands[1];
    assert_eq!(late.done, late.submitted, "calls after the death: {:?}", tally.outcomes());
    let lost: u64 = tally.demands[0].failed.values().sum();
    assert!(lost <= 64, "{lost} calls lost, more than were in flight: {:?}", tally.outcomes());
}

#[test]
fn an_outage_is_not_amplified_by_retries() {
    let seconds = 20;
    let mut scenario = pair("outage", seconds, vec![open("acme", 60.0)]);
    scenario.incidents = (0..4).map(|machine| incident(machine, Millis::ZERO, Trouble::Burst(100))).collect();
    // Circuits stay closed, so that only the retry budget stands between us and a storm.
    scenario.plan.retry.open_after = u32::MAX;
    scenario.plan.retry.attempts_max = 4;
    let tally = play(&scenario);
    let calls = tally.submitted();
    assert_eq!(tally.done(), 0);
    // No engine sees more than each call once, a tenth more, and the floor of three a
    // second with its burst; going over to the other target adds no load to the first.
    let most = calls + calls / 10 + 3 * seconds + 18;
    let attempts: Vec<u64> = tally.attempts.values().copied().collect();
    assert!(
        attempts.iter().all(|attempts| *attempts <= most),
        "{attempts:?} attempts for {calls} calls, at most {most} each"
    );
    assert!(attempts[0] > calls, "retries were tried at all: {attempts:?} for {calls}");
}

#[test]
fn an_idle_tenant_saves_up_no_credit() {
    let spec = spec(16);
    let mut late = closed("late", 60);
    late.from = Millis(15_000);
    let tally = play(&world("late", &spec, 1, 30, vec![closed("early", 60), late]));
    let early = &tally.demands[0].tokens_by_second[17..30];
    let late = &tally.demands[1].tokens_by_second[17..30];
    let (sum_early, sum_late): (u64, u64) = (early.iter().sum(), late.iter().sum());
    let share = sum_late as f64 / (sum_early + sum_late) as f64;
    assert!((0.45..=0.55).contains(&share), "the late one had {:.1} % afterwards", share * 100.0);
    // Never locked out: no window of three seconds without service.
    assert!(
        early.windows(3).all(|window| window.iter().sum::<u64>() > 0),
        "the early one was starved: {early:?}"
    );
}

#[test]
fn cancelling_ends_the_work_at_once_even_under_twice_the_load() {
    let spec = spec(16);
    let mut demand = open("acme", capacity(&spec, PROMPT, OUTPUT) * 2.0);
    demand.leave = 80;
    let mut scenario = world("leaving", &spec, 1, 15, vec![demand]);
    scenario.check_every = 1;
    let tally = play(&scenario);
    // That engine, shell and kernel agree on what runs is checked at every step.
    assert!(tally.demands[0].cancelled > 100, "{:?}", tally.outcomes());
}
