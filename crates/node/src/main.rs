//! The `seawall` binary: the allocator, and the command line.

use std::process::ExitCode;

/// jemalloc gives memory back after a burst, tuned in `.cargo/config.toml`: see
/// `docs/adr/0008-allocator.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let code = seawall_node::cli::run(std::env::args_os());
    ExitCode::from(u8::try_from(code).unwrap_or(70))
}
