//! Doubts: a seeded world of clients, engines, network, disk and operators that drives
//! the real kernel, the real ledger and the model of an engine, and holds every word of
//! the kernel against books of its own. One `u64` decides everything; a failing world is
//! repeated with `seawall-sim --plan NAME --seed N`.
//!
//! | invariant | where it is checked |
//! |---|---|
//! | I1, I2 same inputs, same effects, to the byte | [`run::run_twice`] |
//! | I3 a budget slice is durable before it is used | [`accounts`] |
//! | I5 every bound | [`bounds`], `Kernel::check` after each step |
//! | I6 each call ends exactly once, every wait has a cause | [`calls`] |
//! | I7 fairness, patience, work conservation | [`fairness`], [`calls`], [`bounds`] |
//! | I8 a client's leaving ends the work | [`calls`], [`bounds`], `operate` |
//! | I12 no budget is overspent, even across a crash | [`accounts`] |
//! | tenants' concurrency and rates | [`rules`] |
//! | stopped trees of runs rest, loops end, and nothing else is stopped | [`trees`] |

// What a world is made of.
pub mod invent;
pub mod scenario;

// How it goes.
pub mod run;
pub mod world;

mod attempt;
mod operate;
mod shell;

pub mod crowd;
pub mod disk;
pub mod fleet;

// What it is held to.
pub mod accounts;
pub mod bounds;
pub mod calls;
pub mod fairness;
pub mod lie;
pub mod rules;
pub mod trees;

// Durable agents: a world of their own.
pub mod agents;

// The kernel beside its rivals, on real traces.
pub mod capacity;

// What is told of it.
pub mod cli;
pub mod tally;
pub mod trace;

pub use run::{Broken, run, run_seed, run_twice, traced};
pub use scenario::Scenario;
pub use tally::Tally;
