//! A world of durable agents: the real `kernel::agents::Agents` behind a shell, a disk,
//! tools, models and people that all misbehave by seed.
//!
//! | law | where it is checked |
//! |---|---|
//! | I2 same inputs, same effects | [`run::run_twice`] |
//! | I3 nothing touches the world before its record is durable | [`door`] |
//! | I4 fold of the journal = rows on disk = live rows | [`books`], [`disk`] |
//! | I5 places, inboxes, nothing left in memory | [`door`], [`world`], `Agents::check` |
//! | I6 each run ends once, each ticket is answered once | [`books`], [`door`] |
//! | I12 no budget is overspent | [`purse`] |
//! | I13 units and fencing tokens of leases | [`lent`] |
//! | effects: executed as often as their class allows, the in-doubt list exact | [`books`], [`tools`] |
//! | ties: each monitor is answered once and truly, nobody linked to a failure ends well | [`bonds`] |
//! | mail: each message once, timers never early, nothing gated without a yes | [`books`], [`door`] |
//! | progress: everything that can end ends; nobody honest is stopped | [`world`], [`tally`] |
//! | disk full, drain, 429, versions, forks, edits: what they promise | [`trouble`], [`door`] |

// What a world is made of.
pub mod actor;
pub mod cast;
pub mod plan;
pub mod tools;

// How it goes.
pub mod disk;
pub mod people;
pub mod perform;
pub mod process;
pub mod run;
pub mod trouble;
pub mod world;

// What it is held to.
pub mod bonds;
pub mod books;
pub mod coverage;
pub mod door;
pub mod lent;
pub mod lie;
pub mod purse;
pub mod tally;

pub use plan::{NAMES, Plan, invent};
pub use run::{run, run_twice, traced};
