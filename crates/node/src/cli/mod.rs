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
    let code = carry_out(args.into_iter().collect());
    // A result that is nowhere is no result, however well all else went.
    if print::is_whole() || code != code::OK {
        return code;
    }
    print::failure("standard output cannot be written", "is its disk full?");
    code::IO
}

fn carry_out(args: Vec<OsString>) -> i32 {
    let as_json = args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and are none.
            if !error.use_stderr() {
                print::note_loss(&error.print());
                return code::OK;
            }
            if as_json {
                print::json(&misused(&error.render().to_string()).as_json());
            }
            let _ = error.print();
            return code::USAGE;
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

/// A command line that was not understood, from what is said of it to a person: what is
/// wrong in its first paragraph, then how it is used.
fn misused(told: &str) -> server::Failed {
    let (what, rest) = told.split_once("\n\n").unwrap_or((told, ""));
    let what: Vec<&str> = what.trim_start_matches("error: ").split_whitespace().collect();
    let usage = rest.lines().find(|line| line.starts_with("Usage:")).unwrap_or("seawall --help");
    server::failed(code::USAGE, what.join(" "), usage)
}

fn sim(args: &SimArgs) -> i32 {
    match args.options() {
        Ok(options) => crate::serve::sim(SocketAddr::new(args.host, args.port), options, args.json),
        Err(what) => {
            let failed = server::failed(code::USAGE, what, "seawall sim --help");
            failed.tell(args::JsonArgs { json: args.json })
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
