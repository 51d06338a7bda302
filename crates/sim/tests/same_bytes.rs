//! The first test of all: the same seed gives the same history, to the byte (I1, I2).
//! Every other result of a simulation is worth as much as this one.

use seawall_model::Millis;
use seawall_sim::invent::{NAMES, invent};
use seawall_sim::{run, traced};

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for (seed, name) in NAMES.iter().enumerate() {
        let scenario = invent(name, seed as u64, Some(Millis(1_000))).expect("a known kind of world");
        let (first, broken) = traced(&scenario);
        assert!(broken.is_none(), "{}", broken.expect("it broke"));
        let (second, _) = traced(&scenario);
        assert!(first.lines().count() > 10, "{name}: nothing happened");
        assert!(first == second, "{name}: two histories");
    }
}

#[test]
fn another_seed_gives_another_history_and_the_hash_shows_it() {
    let of = |seed| invent("calm", seed, Some(Millis(1_000))).expect("a known kind of world");
    let hash = |seed| run(&of(seed)).unwrap_or_else(|broken| panic!("{broken}")).hash;
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
