//! Fairness of pools: between tenants, trees and runs, and with deadlines.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

fn tenant(number: u64) -> Tenant {
    Tenant::parse(&format!("t{number}/team")).expect("valid")
}

/// A tree of one run.
fn alone(tree: u64) -> Kin {
    Kin { tree: RunKey(tree), run: RunKey(tree) }
}

fn enter(pool: &mut Pool<u64>, id: u64, of: u64, tree: u64, now: At) {
    pool.enter(id, &tenant(of), alone(tree), now, At::MAX);
}

/// Ids in the order in which they get a place, each given back at once.
fn order(pool: &mut Pool<u64>, now: At) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(id) = pool.next(now) {
        ids.push(id);
        pool.leave(&id);
        pool.check();
    }
    ids
}

/// Gives a place to whoever is next, and takes it back with this cost.
fn serve(pool: &mut Pool<u64>, cost: impl FnOnce(u64) -> (u64, u64, u64)) -> u64 {
    let id = pool.next(At(0)).expect("somebody waits");
    let (of, tree, cost) = cost(id);
    pool.charge(&tenant(of), RunKey(tree), cost);
    pool.leave(&id);
    id
}

fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn runs_of_a_tree_take_turns_however_much_each_asks_for() {
    let mut pool = Pool::new(1);
    let kin = |run: u64| Kin { tree: RunKey(1), run: RunKey(run) };
    for id in 0..100 {
        pool.enter(id, &tenant(1), kin(1), At(id), At::MAX);
    }
    let mut served = Vec::new();
    for at in 0..9 {
        // The other asks for one thing at a time, again whenever it has had it.
        if at > 0 && !pool.waiting.contains_key(&(1_000 + at / 2)) {
            pool.enter(1_000 + at / 2, &tenant(1), kin(2), At(200 + at), At::MAX);
        }
        let id = pool.next(At(200 + at)).expect("a place is free");
        served.push(id >= 1_000);
        pool.check();
        pool.leave(&id);
    }
    assert_eq!(served.iter().filter(|other| **other).count(), 4, "{served:?}");
    assert!(!served.windows(2).any(|pair| pair == [true, true]), "nor is the first starved: {served:?}");
}

#[test]
fn tenants_take_turns_then_trees_then_who_came_first() {
    let mut pool = Pool::new(1);
    for (id, of, tree) in [(1, 1, 1), (2, 1, 1), (3, 1, 2), (4, 2, 3), (5, 1, 1)] {
        enter(&mut pool, id, of, tree, At(id));
    }
    assert_eq!(order(&mut pool, At(9)), [1, 4, 3, 2, 5]);
}

#[test]
fn places_are_bounded_and_can_be_more_or_fewer() {
    let mut pool = Pool::new(2);
    for id in 1..=5 {
        enter(&mut pool, id, 1, 1, At(0));
    }
    assert_eq!((pool.next(At(0)), pool.next(At(0)), pool.next(At(0))), (Some(1), Some(2), None));
    pool.resize(3);
    assert!(pool.is_ready());
    assert_eq!((pool.next(At(0)), pool.next(At(0))), (Some(3), None));
    pool.resize(1);
    pool.leave(&1);
    assert_eq!((pool.held(), pool.len(), pool.next(At(0))), (2, 2, None));
    // Neither who waits nor who has a place comes in twice; who is unknown does not leave.
    enter(&mut pool, 4, 9, 9, At(1));
    enter(&mut pool, 3, 9, 9, At(1));
    pool.leave(&77);
    pool.leave(&5);
    assert_eq!((pool.held(), pool.len(), pool.is_ready()), (2, 1, false));
    pool.check();
}

#[test]
fn weights_and_real_costs_move_a_tenant() {
    let mut pool = Pool::new(1);
    pool.weigh(&[("t0".into(), 300)]);
    for id in 0..400 {
        enter(&mut pool, id, id % 2, id % 2, At(0));
    }
    let first: Vec<u64> = (0..80).map(|_| serve(&mut pool, |id| (id % 2, id % 2, 10)) % 2).collect();
    let heavy = first.iter().filter(|of| **of == 0).count();
    assert!((59..=61).contains(&heavy), "{heavy} of 80");
    // One place of the heavy one used far more: the other goes on alone.
    pool.charge(&tenant(0), RunKey(0), 3_000);
    let next: Vec<u64> = (0..50).map(|_| serve(&mut pool, |id| (id % 2, id % 2, 10)) % 2).collect();
    assert!(next.iter().all(|of| *of == 1));
    pool.check();
}

#[test]
fn places_held_count_before_their_cost_is_known() {
    let mut pool = Pool::new(4);
    for id in 0..40 {
        enter(&mut pool, id, id % 2, id % 2, At(0));
    }
    for _ in 0..10 {
        serve(&mut pool, |id| (id % 2, id % 2, 1_000));
    }
    let held: Vec<u64> = (0..4).filter_map(|_| pool.next(At(0))).collect();
    assert_eq!(held.iter().filter(|id| **id % 2 == 0).count(), 2, "{held:?}");
}

#[test]
fn absence_earns_nothing_and_debts_are_kept() {
    let mut pool = Pool::new(1);
    for id in 0..100 {
        enter(&mut pool, id, 1, 1, At(0));
    }
    for _ in 0..50 {
        serve(&mut pool, |_| (1, 1, 10));
    }
    // A newcomer shares from now on, and does not catch up on fifty places.
    for id in 100..150 {
        enter(&mut pool, id, 2, 2, At(0));
    }
    let next: Vec<u64> = (0..20).map(|_| serve(&mut pool, |id| (1 + id / 100, 1 + id / 100, 10))).collect();
    let new = next.iter().filter(|id| **id >= 100).count();
    assert!((9..=11).contains(&new), "{new} of 20");
    // Who used much and left for a moment has not got rid of it.
    enter(&mut pool, 150, 3, 3, At(0));
    serve(&mut pool, |_| (3, 3, 1_000));
    pool.check();
    for id in 200..300 {
        enter(&mut pool, id, 3, 3, At(0));
    }
    let next: Vec<u64> = (0..50).map(|_| serve(&mut pool, |id| (1 + id / 100, 1 + id / 100, 10))).collect();
    assert!(next.iter().all(|id| *id < 200), "{next:?}");
}

#[test]
fn deadlines_go_first_within_a_tree_and_age_before_them() {
    let mut pool = Pool::new(1);
    enter(&mut pool, 1, 1, 1, At(0));
    pool.enter(2, &tenant(1), alone(1), At(1), At(900));
    pool.enter(3, &tenant(1), alone(1), At(2), At(500));
    assert_eq!(order(&mut pool.clone(), At(3)), [3, 2, 1]);
    assert_eq!(order(&mut pool, At(0).plus(AGED)), [1, 3, 2]);
}

#[test]
fn a_deadline_goes_first_among_trees_served_alike_and_only_when_it_is_close() {
    let mut pool = Pool::new(1);
    let far = At(0).plus(CLOSE).plus(Millis(1));
    enter(&mut pool, 1, 1, 1, At(0));
    pool.enter(2, &tenant(1), alone(2), At(0), far);
    pool.enter(3, &tenant(1), alone(3), At(0), At(5_000_000));
    pool.enter(4, &tenant(2), alone(4), At(0), At(1_000_000));
    assert_eq!(order(&mut pool.clone(), At(0)), [3, 4, 1, 2], "tenants take turns, whoever is in a hurry");
    // A tree that was served more has to wait, however near its end.
    pool.charge(&tenant(1), RunKey(3), 1_000);
    pool.charge(&tenant(2), RunKey(4), 1_000);
    for _ in 0..50 {
        pool.charge(&tenant(9), RunKey(9), 10);
    }
    assert_eq!(order(&mut pool, At(0)), [1, 4, 2, 3]);
}

#[test]
fn haste_is_no_way_to_more_than_a_share() {
    let (mut pool, mut rng) = (Pool::new(1), Rng::seed(5));
    let mut served = [0_u64; 20];
    // Every waiter of the first trees is in a hurry.
    let by = |tree: u64, now: At| if tree < 5 { now.plus(Millis(2_000)) } else { At::MAX };
    for tree in 0..20 {
        pool.enter(tree, &tenant(1), alone(tree), At(0), by(tree, At(0)));
    }
    for round in 0..10_000 {
        let now = At(round * 1_000);
        let tree = pool.next(now).expect("all are backlogged");
        let cost = rng.below(100);
        pool.charge(&tenant(1), RunKey(tree), cost);
        pool.leave(&tree);
        served[tree as usize] += cost;
        pool.enter(tree, &tenant(1), alone(tree), now, by(tree, now));
    }
    pool.check();
    assert!(jain(&served) >= 0.99, "{served:?}");
}

#[test]
fn an_old_tree_is_not_starved_by_new_ones() {
    let mut pool = Pool::new(1);
    enter(&mut pool, 0, 1, 1, At(0));
    serve(&mut pool, |_| (1, 1, 1_000_000));
    enter(&mut pool, 1, 1, 1, At(0));
    for at in 0..200 {
        let now = At(at * 1_000_000);
        // Two new trees come for each place.
        enter(&mut pool, 1_000 + 2 * at, 1, 10 + 2 * at, now);
        enter(&mut pool, 1_001 + 2 * at, 1, 11 + 2 * at, now);
        let next = pool.next(now).expect("waits");
        pool.leave(&next);
        if next == 1 {
            assert_eq!(now, At(0).plus(AGED), "as soon as it is old");
            return;
        }
    }
    panic!("it starved");
}

#[test]
fn a_tenant_with_a_hundred_times_the_waiters_gets_one_share() {
    let (mut pool, mut rng) = (Pool::new(8), Rng::seed(7));
    // Ids are the tenant's number, and above it who of it.
    for of in 0..50 {
        for who in 0..if of == 0 { 2_000 } else { 20 } {
            enter(&mut pool, of + 100 * who, of, of * 100 + who % 9, At(0));
        }
    }
    let mut served = [0_u64; 50];
    let mut places = std::collections::VecDeque::new();
    for _ in 0..30_000 {
        while let Some(id) = pool.next(At(0)) {
            places.push_back(id);
        }
        let id: u64 = places.pop_front().expect("all are backlogged");
        let (of, who) = (id % 100, id / 100);
        // One tenant's places cost more, and nobody knows beforehand.
        let cost = rng.below(if of == 0 { 2_000 } else { 500 });
        pool.charge(&tenant(of), RunKey(of * 100 + who % 9), cost);
        pool.leave(&id);
        served[of as usize] += cost;
        enter(&mut pool, id, of, of * 100 + who % 9, At(0));
    }
    pool.check();
    assert!(jain(&served) >= 0.99, "Jain {} of {served:?}", jain(&served));
}

#[test]
fn trees_of_one_tenant_are_served_alike() {
    let (mut pool, mut rng) = (Pool::new(1), Rng::seed(3));
    let mut trees = Vec::new();
    for id in 0..20_000 {
        // One tree asks for half of all places.
        let tree = if id % 2 == 0 { 0 } else { rng.below(20) };
        trees.push(tree);
        enter(&mut pool, id, 1, tree, At(0));
    }
    let mut served = [0_u64; 20];
    for _ in 0..8_000 {
        let cost = rng.below(100);
        let id = serve(&mut pool, |id| (1, trees[id as usize], cost));
        served[trees[id as usize] as usize] += cost;
    }
    pool.check();
    assert!(jain(&served) >= 0.99, "{served:?}");
}

#[test]
fn memory_is_bounded_whoever_comes() {
    let mut pool = Pool::new(1);
    let last = limits::POOL_TREES_IDLE_MAX as u64 + 2_000;
    for id in 0..last {
        enter(&mut pool, id, id, id, At(id));
        // Each owes much when it leaves.
        serve(&mut pool, |id| (id, id, 1_000_000));
    }
    pool.check();
    assert_eq!(pool.idle.len(), limits::POOL_TENANTS_IDLE_MAX);
    assert_eq!(pool.idle_trees.len(), limits::POOL_TREES_IDLE_MAX);
    pool.forget(&tenant(last - 1), RunKey(last - 1));
    assert_eq!(pool.trees.len(), limits::POOL_TREES_IDLE_MAX - 1);
    pool.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever happens, all orders agree, no place is given twice, and once nobody comes
    /// any more everybody who waits is served exactly once.
    #[test]
    fn nobody_is_lost_or_served_twice(steps in proptest::collection::vec(
        (0_u8..8, 0_u64..40, 0_u64..6, 0_u64..12, 0_u64..1_000), 1..300)) {
        let mut pool = Pool::new(3);
        let (mut waits, mut holds) = (BTreeSet::new(), BTreeSet::new());
        for (at, (what, id, of, tree, cost)) in steps.into_iter().enumerate() {
            let now = At(at as u64 * 1_000_000);
            match what {
                0..=3 => {
                    let deadline = if cost.is_multiple_of(3) { At(cost) } else { At::MAX };
                    pool.enter(id, &tenant(of), alone(tree), now, deadline);
                    if !holds.contains(&id) {
                        waits.insert(id);
                    }
                }
                4 => {
                    pool.leave(&id);
                    waits.remove(&id);
                    holds.remove(&id);
                }
                5 | 6 => match pool.next(now) {
                    Some(next) => prop_assert!(waits.remove(&next) && holds.insert(next)),
                    None => prop_assert!(waits.is_empty() || holds.len() == 3),
                },
                _ => pool.charge(&tenant(of), RunKey(tree), cost),
            }
            pool.check();
            prop_assert_eq!((pool.len(), pool.held()), (waits.len(), holds.len()));
        }
        for id in &holds {
            pool.leave(id);
        }
        let served = order(&mut pool, At(1_000_000_000));
        prop_assert_eq!(served.len(), waits.len());
        prop_assert_eq!(served.into_iter().collect::<BTreeSet<u64>>(), waits);
    }

    /// With tenants that always wait and costs up to c, the least and the most served
    /// differ by about two places' cost: so none waits past a bound (I7).
    #[test]
    fn backlogged_tenants_stay_close(seed in any::<u64>(), tenants in 2_u64..20) {
        let (mut pool, mut rng) = (Pool::new(1), Rng::seed(seed));
        let mut served = vec![0_u64; tenants as usize];
        for id in 0..2 * tenants {
            enter(&mut pool, id, id % tenants, id % tenants, At(0));
        }
        for _ in 0..1_000 {
            let cost = 1 + rng.below(100);
            let id = serve(&mut pool, |id| (id % tenants, id % tenants, cost));
            served[(id % tenants) as usize] += cost;
            enter(&mut pool, id, id % tenants, id % tenants, At(0));
            let (least, most) = (served.iter().min().expect("some"), served.iter().max().expect("some"));
            // The place itself counts one unit as well: cheap places add up a little.
            prop_assert!(most - least <= 200 + 1_000 / tenants, "{:?}", served);
        }
    }
}
