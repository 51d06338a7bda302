//! Decides: who is admitted, who goes next, where to, when to try again, and what
//! it costs. One [`Kernel::step`] takes the time and one [`Input`] and answers with
//! [`Effect`]s; the same inputs give the same effects, to the byte (I1, I2). There
//! is no clock, randomness, I/O, async or hash order in this crate.

pub mod plan;
pub mod input;
pub mod effect;
pub mod view;
mod kernel;
mod admit;
mod wait;
mod aside;
mod pump;
mod purse;
mod settle;
mod reload;
mod show;
mod call;
mod flow;
mod run;
mod kin;
mod guard;
mod round;
mod halt;
mod tenant;
mod rate;
mod budget;
mod engine;
mod crowd;
mod place;
mod headroom;
mod pace;
mod curve;
mod pause;
mod prefix;
mod circuit;
mod retry;
mod sketch;
mod timer;
mod calendar;
mod rng;
mod slab;
pub mod agents;

pub use effect::{Effect, Grant, Refusal, Settlement};
pub use input::{Failure, Input, RateReport, Submit};
pub use kernel::Kernel;
pub use plan::Plan;
pub use view::View;
