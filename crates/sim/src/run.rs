//! One world from its beginning to its end, or to the moment an invariant broke.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use seawall_model::{At, Millis};

use crate::invent::invent;
use crate::scenario::Scenario;
use crate::tally::Tally;
use crate::world::World;

/// A world in which an invariant did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The kind of world.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// How long its clients were to send.
    pub length: Millis,
    /// When it happened.
    pub at: At,
    /// Which invariant, and how.
    pub says: String,
    /// What went before: the last lines of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} --seed {} broke at {} us: {}", self.name, self.seed, self.at.0, self.says)?;
        for line in &self.tail {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// Runs a scenario.
///
/// # Errors
/// When an invariant does not hold.
pub fn run(scenario: &Scenario) -> Result<Tally, Box<Broken>> {
    let mut world = World::new(scenario.clone(), false);
    watch(scenario, &mut world)?;
    Ok(world.tally().clone())
}

/// Runs a scenario and returns the whole trace, one line per input and effect, with the
/// reason if it broke.
#[must_use]
pub fn traced(scenario: &Scenario) -> (String, Option<Box<Broken>>) {
    let mut world = World::new(scenario.clone(), true);
    let broken = watch(scenario, &mut world).err();
    (world.into_trace().unwrap_or_default(), broken)
}

/// Runs a scenario twice: the same seed must give the same bytes (I2).
///
/// # Errors
/// When it does not, or another invariant breaks.
pub fn run_twice(scenario: &Scenario) -> Result<Tally, Box<Broken>> {
    let once = run(scenario)?;
    let twice = run(scenario)?;
    if once == twice {
        return Ok(once);
    }
    // Find the first line that differs.
    let (a, b) = (traced(scenario).0, traced(scenario).0);
    let differs = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    let says = format!("I2: the same seed gave two histories, first at {differs:?}");
    Err(Box::new(broken(scenario, At(0), says, Vec::new())))
}

/// Runs the world of a name and seed.
///
/// # Errors
/// When an invariant does not hold.
///
/// # Panics
/// When there is no such name.
pub fn run_seed(name: &str, seed: u64, length: Option<Millis>) -> Result<Tally, Box<Broken>> {
    run(&invent(name, seed, length).expect("a known kind of world"))
}

fn watch(scenario: &Scenario, world: &mut World) -> Result<(), Box<Broken>> {
    // A world in which an assertion failed is only looked at, never run on.
    catch_unwind(AssertUnwindSafe(|| world.run())).map_err(|panic| {
        let says = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|says| (*says).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned());
        Box::new(broken(scenario, world.now(), says, world.tail()))
    })
}

fn broken(scenario: &Scenario, at: At, says: String, tail: Vec<String>) -> Broken {
    Broken { name: scenario.name.clone(), seed: scenario.seed, length: scenario.length, at, says, tail }
}
