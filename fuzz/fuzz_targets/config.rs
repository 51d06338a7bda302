//! Any text as a configuration: either it is one, or every problem is told with what to do.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use seawall_node::config::{Config, Flags};

/// The files that a configuration may name: those that end so are there.
fn file(path: &Path) -> io::Result<String> {
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("pem") => Ok("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n".to_owned()),
        Some("key") => Ok("sk-1234567890".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fuzz_target!(|text: &str| {
    let env = |name: &str| (name == "HOME").then(|| "/home/u".to_owned());
    let path = Path::new("/etc/seawall/seawall.toml");
    match Config::read(Some(path), text, &Flags::default(), &env, &file) {
        Ok((config, _warnings)) => {
            assert!(!config.settings.is_empty());
            assert!(!format!("{:?}", config.settings).contains("sk-1234567890"), "a secret is shown");
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = text.lines().count() + 1;
            for problem in &problems {
                assert!(!problem.what.is_empty());
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)));
                let _ = problem.to_string();
            }
        }
    }
});
