//! Agents: durable actors with one writer each, their runs, and what they may do.
//!
//! [`Agents::step`] takes the time and one [`Input`] and answers with [`Effect`]s. What is
//! durable is a fold over records (`shard`, `apply`); what is decided is in the records, so
//! that folding them decides nothing again; and nothing touches the world before the
//! record behind it is on disk (I3).

pub mod rules;
pub mod input;
pub mod effect;
mod shard;
mod apply;
mod machine;
mod memory;
mod begin;
mod turn;
mod perform;
mod amends;
mod watch;
mod answer;
pub mod mail;
mod share;
mod ties;
mod show;
mod alarm;
mod ahead;
pub mod gate;
pub mod progress;
pub mod supervise;
pub mod cron;
pub mod pool;
pub mod ledger;
#[cfg(test)]
mod tests;

pub use effect::{Batch, Effect};
pub use input::{Input, Start};
pub use machine::{Agents, shard_of};
pub use rules::Rules;
pub use shard::Shard;
pub use show::{Need, Tally, View};
