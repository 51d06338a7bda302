//! Snapshots of what a person sees: help texts and the output of `check`.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::Cli;
use super::print::plain;
use super::*;
use crate::config::{Config, Flags};

/// Help texts of a command and of all below it, in the order in which they are listed.
fn helps(command: &mut clap::Command, path: &str, all: &mut String) {
    all.push_str(&format!("$ {path} --help\n{}\n", command.render_long_help()));
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        helps(below, &path, all);
    }
}

#[test]
fn help_texts_are_as_agreed() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut all = String::new();
    helps(&mut command, "seawall", &mut all);
    for known in ["delegate", "values get", "values put", "values remove", "letters discard", "sim"] {
        assert!(all.contains(&format!("$ seawall {known} --help")), "{known}");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_is_not_understood_is_one_sentence_for_a_script() {
    let error = Cli::try_parse_from(["seawall", "start", "clerk"]).expect_err("a task is missing");
    let told = misused(&error.render().to_string()).as_json();
    assert_eq!(told["error"]["message"], "the following required arguments were not provided: <TASK>");
    assert!(
        told["error"]["hint"].as_str().is_some_and(|hint| hint.starts_with("Usage: seawall start")),
        "{told}"
    );
    assert_eq!((&told["error"]["code"], &told["exit"]), (&json!("usage"), &json!(code::USAGE)));
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

fn loaded(text: &str) -> Result<Loaded, Vec<crate::config::Problem>> {
    let flags =
        Flags { listen: Some("127.0.0.1:9000".into()), data: Some("store".into()), ..Flags::default() };
    let env = |name: &str| (name == "SEAWALL__LOG__FORMAT").then(|| "json".to_owned());
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let (config, warnings) = Config::read(Some(Path::new("seawall.toml")), text, &flags, &env, &none)?;
    Ok(Loaded { config, warnings, flags })
}

#[test]
fn check_shows_values_with_their_origins() {
    let text = "[[engine]]\nname = 'vllm'\nurl = 'http://10.0.0.1:8000'\nkey_env = 'NOT_SET'\n[limits]\nbody_bytes_max = '1 MiB'\n";
    let loaded = loaded(text).expect("good");
    let changed = plain(&check::effective(&loaded, true));
    let warnings = plain(&check::problems("warning", "seawall.toml", &loaded.warnings));
    insta::assert_snapshot!(format!("{changed}{warnings}"));
    insta::assert_snapshot!(plain(&check::effective(&loaded, false)));
}

#[test]
fn check_shows_problems_with_their_lines() {
    let problems = loaded("[limits]\nbody_bytes = 1\n[[model]]\nname = 'm'\n").expect_err("bad");
    insta::assert_snapshot!(plain(&check::problems("error", "seawall.toml", &problems)));
}

#[test]
fn wrong_usage_exits_64_and_help_exits_0() {
    let run = |args: &[&str]| run(args.iter().map(|arg| OsString::from(*arg)));
    assert_eq!(run(&["seawall", "no-such-command"]), code::USAGE);
    assert_eq!(run(&["seawall", "key", "add"]), code::USAGE);
    assert_eq!(run(&["seawall", "check", "--config", "/nowhere/at/all.toml"]), code::USAGE);
    for bad in [
        &["seawall", "start", "writer"] as &[&str],
        &["seawall", "answer", "run-1f03.7"],
        &["seawall", "answer", "run-1f03.7", "yes", "--again"],
        &["seawall", "approve", "7"],
        &["seawall", "halt", "everything"],
        &["seawall", "letters", "redrive", "7"],
        &["seawall", "why", "writer"],
        &["seawall", "debug", "run-1f03", "--set", "a=1"],
        &["seawall", "run", "cancel", "mine"],
        &["seawall", "agents", "--list", "-n", "0"],
    ] {
        assert_eq!(run(bad), code::USAGE, "{bad:?}");
    }
    assert_eq!(run(&["seawall", "audit", "verify", "--data", "/nowhere/at/all"]), code::CANT_CREATE);
    assert_eq!(run(&["seawall", "version", "--json"]), code::OK);
    assert_eq!(run(&["seawall", "--help"]), code::OK);
}
