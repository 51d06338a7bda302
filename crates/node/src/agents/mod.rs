//! Durable agents on this node: the desk that the kernel's decisions pass through, the
//! handlers that take turns, and the doors by which people and programs reach them.

pub mod schema;
pub mod template;
pub mod notes;
pub mod define;
pub mod handler;
