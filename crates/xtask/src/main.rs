//! Keeps house: one command for each thing a contributor does, and the rules of the
//! house as checks. Has no dependencies, so that it builds in a second and its rules
//! apply before anything else compiles.
#![expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "it reads the checkout and starts compilers; nothing waits on it"
)]

mod bless;
mod command;
mod fuzz;
mod python;
mod source;
mod stages;
mod tidy;
mod tree;

use std::process::ExitCode;

const HELP: &str = "\
cargo x check                     format, clippy and the rules of the house
cargo x test [STAGE] [--stop]     everything CI runs, or one stage; --stop ends at the first failure
cargo x sim [--seeds N] [--seed S]  simulation: many seeds, or one seed again
cargo x capacity [fair|overload|route] [--seeds N] [--quick]  the kernel beside its rivals on real traces
cargo x bench [agents] [ARGS]     the benchmark table, or that of durable agents
cargo x fuzz [--seconds N] [TARGET] [INPUT]  every parser under libFuzzer, a minute each
cargo x tidy                      the rules of the house alone
cargo x bless-errors              write missing pages and the facts of docs/errors from the table of codes
cargo x bless-ratchet             lower the recorded lengths of long files and functions
cargo x help                      this text";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            println!("{words}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let root = tree::find_root()?;
    let (verb, rest) = args.split_first().map_or(("help", args), |(verb, rest)| (verb.as_str(), rest));
    match verb {
        "check" => stages::check(&root),
        "test" => stages::test(&root, rest),
        "sim" => stages::sim(&root, rest),
        "capacity" => stages::capacity(&root, rest),
        "bench" => stages::bench(&root, rest),
        "fuzz" => fuzz::fuzz(&root, &stages::target(&root), rest),
        "tidy" => stages::tidy(&root),
        "bless-errors" => bless::errors(&root),
        "bless-ratchet" => bless::ratchet(&root),
        "help" | "-h" | "--help" => {
            println!("{HELP}\n\nstages of test: {}", stages::names());
            Ok(())
        }
        other => Err(format!("there is no `cargo x {other}`\n\n{HELP}")),
    }
}
