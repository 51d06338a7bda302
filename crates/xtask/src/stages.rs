//! What CI runs, in order. Every stage is tried even after one has failed, so that one
//! run shows all there is to mend; only what needs a build that failed is left out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{cargo, run};
use crate::python::{self, Environment};
use crate::tidy as rules;
use crate::tree::Tree;

/// Seeds simulated on every push.
const SEEDS: &str = "200";

/// One stage of `cargo x test`.
struct Stage {
    name: &'static str,
    what: &'static str,
    /// The stage whose product it uses.
    needs: Option<&'static str>,
    run: fn(&Path) -> Result<(), String>,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", what: "formatting", needs: None, run: format },
    Stage { name: "clippy", what: "lints, all targets", needs: None, run: clippy },
    Stage { name: "tidy", what: "the rules of the house", needs: None, run: tidy },
    Stage { name: "unit", what: "unit, property and transcript tests", needs: None, run: unit },
    Stage { name: "doc", what: "examples in the documentation", needs: None, run: doc },
    Stage { name: "sim", what: "simulation, 200 seeds", needs: None, run: sim_push },
    Stage { name: "release", what: "the release binary", needs: None, run: release },
    Stage {
        name: "process",
        what: "the real binary under kill, cut and flood",
        needs: Some("release"),
        run: process,
    },
    Stage {
        name: "conformance",
        what: "official clients against it",
        needs: Some("release"),
        run: conformance,
    },
];

/// Stages that run only by name: too heavy for every push.
const APART: &[Stage] = &[Stage {
    name: "crewai",
    what: "a CrewAI script through the zero-SDK door (its packages take a gigabyte)",
    needs: Some("release"),
    run: crewai,
}];

/// The first of them: what `cargo x check` runs.
const CHECKS: usize = 3;

/// How a stage ended.
struct Ending {
    name: &'static str,
    took: Duration,
    result: Result<(), String>,
}

/// The names of all stages, for help.
pub(crate) fn names() -> String {
    let list = |stages: &[Stage]| stages.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
    format!("{}; only by name: {}", list(STAGES), list(APART))
}

/// Formatting, lints, tidy.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let stages: Vec<_> = STAGES[..CHECKS].iter().collect();
    run_all(root, &stages, false)
}

/// Every stage of a push, or the one named (with the one it needs).
pub(crate) fn test(root: &Path, args: &[String]) -> Result<(), String> {
    let stop = args.iter().any(|arg| arg == "--stop");
    let wanted: Vec<_> = args.iter().filter(|arg| *arg != "--stop").collect();
    let stages: Vec<&Stage> = match wanted.as_slice() {
        [] => STAGES.iter().collect(),
        [name] => {
            let stage = STAGES.iter().chain(APART).find(|stage| stage.name == *name);
            let stage = stage.ok_or_else(|| format!("there is no stage `{name}`; there are {}", names()))?;
            let first = STAGES.iter().find(|first| Some(first.name) == stage.needs);
            first.into_iter().chain([stage]).collect()
        }
        _ => return Err("cargo x test takes one stage, or none for all".to_owned()),
    };
    run_all(root, &stages, stop)
}

/// Simulation with the arguments given.
pub(crate) fn sim(root: &Path, args: &[String]) -> Result<(), String> {
    run(cargo(root, &["run", "--quiet", "--profile", "sim", "-p", "seawall-sim", "--"]).args(args))
}

/// Real traces through the kernel and its rivals, with the arguments given.
pub(crate) fn capacity(root: &Path, args: &[String]) -> Result<(), String> {
    let args = std::iter::once("capacity").chain(args.iter().map(String::as_str));
    run(cargo(root, &["run", "--quiet", "--profile", "sim", "-p", "seawall-sim", "--"]).args(args))
}

/// The benchmark, on a fresh release binary; `agents` as the first argument is the table
/// of durable agents.
pub(crate) fn bench(root: &Path, args: &[String]) -> Result<(), String> {
    release(root)?;
    let (table, args) = match args.split_first() {
        Some((first, rest)) if first == "agents" => ("bench/agents/run.py", rest),
        _ => ("bench/run.py", args),
    };
    let mut python = std::process::Command::new("python3");
    python.current_dir(root).arg(table).args(args).env("SEAWALL_BIN", binary(root));
    run(&mut python)
}

/// The rules of the house.
pub(crate) fn tidy(root: &Path) -> Result<(), String> {
    let failures = rules::failures(&Tree::read(root)?);
    for failure in &failures {
        println!("{failure}");
    }
    match failures.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} places to mend")),
    }
}

fn run_all(root: &Path, stages: &[&Stage], stop: bool) -> Result<(), String> {
    let mut endings: Vec<Ending> = Vec::new();
    for stage in stages {
        println!("\n== {}: {}", stage.name, stage.what);
        let broken = endings.iter().any(|ending| Some(ending.name) == stage.needs && ending.result.is_err());
        let start = Instant::now();
        let result = match stage.needs.filter(|_| broken) {
            Some(needs) => Err(format!("not run: it needs `{needs}`, which failed")),
            None => (stage.run)(root),
        };
        let ending = Ending { name: stage.name, took: start.elapsed(), result };
        println!("{}", line(&ending));
        endings.push(ending);
        if stop && endings.iter().any(|ending| ending.result.is_err()) {
            break;
        }
    }
    sum_up(&endings)
}

fn line(ending: &Ending) -> String {
    let secs = ending.took.as_secs_f64();
    match &ending.result {
        Ok(()) => format!("   {} passed in {secs:.1} s", ending.name),
        Err(words) => format!("   {} FAILED after {secs:.1} s: {words}", ending.name),
    }
}

fn sum_up(endings: &[Ending]) -> Result<(), String> {
    let failed = endings.iter().filter(|ending| ending.result.is_err()).count();
    println!();
    for ending in endings {
        println!("{}", line(ending));
    }
    let summary = format!("\nstages: {} passed, {failed} failed", endings.len() - failed);
    if failed == 0 {
        println!("{summary}");
        return Ok(());
    }
    Err(summary)
}

fn format(root: &Path) -> Result<(), String> {
    run(&mut cargo(root, &["fmt", "--all", "--check"]))
}

fn clippy(root: &Path) -> Result<(), String> {
    run(&mut cargo(root, &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn unit(root: &Path) -> Result<(), String> {
    // Of every crate: its own tests, and those in its folder of tests.
    run(&mut cargo(root, &["test", "--workspace", "--no-fail-fast", "--tests"]))
}

fn doc(root: &Path) -> Result<(), String> {
    run(&mut cargo(root, &["test", "--workspace", "--quiet", "--doc"]))
}

fn sim_push(root: &Path) -> Result<(), String> {
    sim(root, &["--seeds".to_owned(), SEEDS.to_owned()])
}

fn release(root: &Path) -> Result<(), String> {
    // Exactly what `cargo run --release` builds, so that neither spoils the other's cache.
    run(&mut cargo(root, &["build", "--release"]))
}

fn process(root: &Path) -> Result<(), String> {
    pytest(root, "tests/process", &python::CLIENTS)
}

fn conformance(root: &Path) -> Result<(), String> {
    pytest(root, "tests/conformance", &python::CLIENTS)
}

fn crewai(root: &Path) -> Result<(), String> {
    pytest(root, "tests/crewai", &python::CREWAI)
}

/// Runs one folder of client tests against the release binary.
fn pytest(root: &Path, folder: &str, environment: &Environment) -> Result<(), String> {
    let python = python::interpreter(root, &target(root), environment)?;
    let mut pytest = std::process::Command::new(python);
    // What is kept between runs stays outside the checkout's own files.
    pytest.current_dir(root.join(folder)).args(["-m", "pytest", "-p", "no:cacheprovider"]);
    run(pytest.env("SEAWALL_BIN", binary(root)))
}

/// Where everything is built.
pub(crate) fn target(root: &Path) -> PathBuf {
    // Relative to the root, as cargo takes it when run there.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

fn binary(root: &Path) -> PathBuf {
    target(root).join("release").join(format!("seawall{}", std::env::consts::EXE_SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_needs_an_earlier_one() {
        for (at, stage) in STAGES.iter().chain(APART).enumerate() {
            let before = &STAGES[..at.min(STAGES.len())];
            let found = stage.needs.is_none_or(|needs| before.iter().any(|first| first.name == needs));
            assert!(found, "{} needs a stage that does not come before it", stage.name);
        }
    }

    #[test]
    fn what_needs_a_failed_stage_is_not_run_and_counts_as_failed() {
        let fails = Stage { name: "a", what: "", needs: None, run: |_| Err("broken".to_owned()) };
        let needs = Stage { name: "b", what: "", needs: Some("a"), run: |_| panic!("it must not run") };
        let other = Stage { name: "c", what: "", needs: None, run: |_| Ok(()) };
        let error = run_all(Path::new("."), &[&fails, &needs, &other], false).expect_err("two failed");
        assert!(error.contains("1 passed, 2 failed"), "{error}");
        let error = run_all(Path::new("."), &[&fails, &other], true).expect_err("stopped");
        assert!(error.contains("0 passed, 1 failed"), "{error}");
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_known_ones() {
        let error = test(Path::new("."), &["nonsense".to_owned()]).expect_err("unknown");
        assert!(error.contains("conformance") && error.contains("crewai"), "{error}");
    }
}
