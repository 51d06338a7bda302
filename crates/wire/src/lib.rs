//! Speaks: turns the bytes of every protocol into model types and back,
//! incrementally and without sockets. Whatever the bytes are, nothing here panics,
//! recurses without bound or keeps more than the limits in `model::limits`.
//!
//! A call whose engine speaks the client's own protocol passes as bytes: [`inspect`]
//! reads what deciding needs, [`rewrite`] swaps the model's name in place and
//! [`meter`] watches the answer go by. Only a call that must change protocol is taken
//! apart and put together again, in [`translate`].

pub mod fault;
pub mod http1;
pub mod inspect;
mod json;
pub mod meter;
pub mod models;
mod prefix;
pub mod rewrite;
mod scan;
pub mod sse;
pub mod talk;
pub mod tokens;
pub mod translate;
mod usage;
pub mod work;
mod writer;

pub use inspect::{Inspected, inspect};
pub use meter::Meter;
