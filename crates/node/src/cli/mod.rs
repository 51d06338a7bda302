//! The commands of the binary: what a person types, and the exit code they get.

pub mod agents;
pub mod args;
pub mod check;
pub mod code;
pub mod key;
pub mod models;
pub mod print;
pub mod run;
pub mod runs;
mod server;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use crate::config::Loaded;
use args::{Cli, Command, RunArgs, SimArgs};

/// Reads the command line, does what it says, and answers with the exit code of
/// [`code`].
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and are none.
            let _ = error.print();
            return if error.use_stderr() { code::USAGE } else { code::OK };
        }
    };
    match cli.command {
        Command::Serve(args) => match Loaded::read(&args.served.flags()) {
            Ok(loaded) => crate::serve::run(loaded, args.json),
            Err(problems) => {
                check::report(&args.served.flags(), &problems);
                code::USAGE
            }
        },
        Command::Check(args) => check::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Models(args) => models::run(&args),
        Command::Runs(args) => runs::list(&args),
        Command::Run(RunArgs { command: Some(command), .. }) => run::run(&command),
        Command::Run(RunArgs { show, .. }) => runs::show(&show),
        Command::Agents(command) => agents::run(&command),
        Command::Sim(args) => sim(&args),
        Command::Version(args) => version(args.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "seawall", &mut script);
            print::text(&String::from_utf8_lossy(&script));
            code::OK
        }
    }
}

fn sim(args: &SimArgs) -> i32 {
    match args.options() {
        Ok(options) => crate::serve::sim(SocketAddr::new(args.host, args.port), options, args.json),
        Err(what) => {
            print::failure(&what, "seawall sim --help");
            code::USAGE
        }
    }
}

fn version(as_json: bool) -> i32 {
    let version = env!("CARGO_PKG_VERSION");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if as_json {
        print::json(&json!({ "name": "seawall", "version": version, "os": os, "arch": arch }));
    } else {
        print::line(&format!("seawall {version} ({os} {arch})"));
    }
    code::OK
}
