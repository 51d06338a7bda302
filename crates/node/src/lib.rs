//! Does: sockets, timers, threads, configuration and the `seawall` binary. The only
//! crate with an async runtime; everything it decides, it asks the kernel.

pub mod clock;
pub mod tasks;
pub mod process;
pub mod config;
pub mod discover;
pub mod memory;
pub mod keys;
pub mod metrics;
pub mod log;
pub mod disk;
pub mod alarm;
pub mod seat;
pub mod turns;
pub mod io;
pub mod body;
pub mod upstream;
pub mod app;
pub mod reach;
pub mod gateway;
pub mod tools;
pub mod agents;
pub mod engine;
pub mod server;
pub mod scout;
pub mod tls;
pub mod operator;
pub mod serve;
pub mod cli;
