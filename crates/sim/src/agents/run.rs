//! One world of agents from its beginning to its end, or to the moment a law broke.

use std::panic::{AssertUnwindSafe, catch_unwind};

use seawall_model::At;

use super::plan::Plan;
use super::tally::Tally;
use super::world::World;
use crate::run::Broken;

/// Runs a world.
///
/// # Errors
/// When a law does not hold.
pub fn run(plan: &Plan) -> Result<Tally, Box<Broken>> {
    let mut world = World::new(plan.clone(), false);
    watch(plan, &mut world)?;
    Ok(world.tally().clone())
}

/// Runs a world and returns its whole trace, with the reason if it broke.
#[must_use]
pub fn traced(plan: &Plan) -> (String, Option<Box<Broken>>) {
    let mut world = World::new(plan.clone(), true);
    let broken = watch(plan, &mut world).err();
    (world.into_trace().unwrap_or_default(), broken)
}

/// Runs a world twice: the same seed must give the same bytes (I2).
///
/// # Errors
/// When it does not, or another law breaks.
pub fn run_twice(plan: &Plan) -> Result<Tally, Box<Broken>> {
    let (once, twice) = (run(plan)?, run(plan)?);
    if once == twice {
        return Ok(once);
    }
    let (a, b) = (traced(plan).0, traced(plan).0);
    let differs = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    let says = format!("I2: the same seed gave two histories, first at {differs:?}");
    Err(Box::new(broken(plan, At(0), says, Vec::new())))
}

/// The commits that a world has, and what it came to: crashes at each are tried by number.
///
/// # Errors
/// When a law does not hold.
pub fn commits(plan: &Plan) -> Result<u64, Box<Broken>> {
    let mut world = World::new(plan.clone(), false);
    watch(plan, &mut world)?;
    Ok(world.disk.commits)
}

fn watch(plan: &Plan, world: &mut World) -> Result<(), Box<Broken>> {
    // A world in which an assertion failed is only looked at, never run on.
    catch_unwind(AssertUnwindSafe(|| world.run())).map_err(|panic| {
        let says = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|says| (*says).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned());
        Box::new(broken(plan, world.now(), says, world.tail()))
    })
}

fn broken(plan: &Plan, at: At, says: String, tail: Vec<String>) -> Broken {
    Broken { name: plan.name.clone(), seed: plan.seed, length: plan.length, at, says, tail }
}
