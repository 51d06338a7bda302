//! Rehearses: arrival processes, length mixes, trace files, and the model of an
//! engine under load. Makes schedules and reads results; performs nothing. Pure and
//! seeded: no clock, no I/O, no randomness but its own, so the same code runs in the
//! simulator under a made-up clock and in the simulated engine under the real one.

pub mod arrive;
pub mod engine;
pub mod fault;
pub mod length;
pub mod pace;
pub mod prefix;
pub mod rng;
pub mod script;
pub mod trace;
pub mod words;
