//! The nouns of Seawall: ids, units, limits, records and the one table of error
//! codes. Every other crate speaks in these words; nothing here performs or
//! decides anything, and nothing here is serialised (wire and store own formats).

pub mod unit;
pub mod id;
pub mod limits;
pub mod code;
pub mod fault;
pub mod tenant;
pub mod agent;
pub mod protocol;
pub mod usage;
pub mod call;
pub mod payload;
pub mod effect;
pub mod durable;
pub mod cause;
pub mod journal;

pub use agent::{Address, Agent};
pub use call::{Attempt, Cause, Class, Lineage, Outcome, Record, Waits};
pub use code::{Blame, Code, Retry};
pub use effect::{EffectClass, EffectId};
pub use fault::Fault;
pub use id::{CallId, EngineId, ModelId, ReplicaId, RunId, RunKey};
pub use payload::Payload;
pub use protocol::{EngineKind, Protocol};
pub use tenant::Tenant;
pub use unit::{At, Bytes, MicroUsd, Millis, Tokens};
pub use usage::{Finish, Usage};
