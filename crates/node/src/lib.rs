//! Does: sockets, timers, threads, configuration and the `seawall` binary. The only
//! crate with an async runtime; everything it decides, it asks the kernel.

pub mod app;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod discover;
pub mod disk;
pub mod engine;
pub mod gateway;
pub mod io;
pub mod keys;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod process;
pub mod scout;
pub mod seat;
pub mod serve;
pub mod server;
pub mod tasks;
pub mod upstream;
