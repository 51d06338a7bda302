//! Fuzzing with libFuzzer and AddressSanitizer on the pinned compiler: builds every target
//! of `fuzz/`, runs each for a while from what is known to be interesting, and says what
//! broke. What the targets are and where things lie: `fuzz/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::command::{ask, cargo, run};

/// For how long each target runs if nobody says.
const SECONDS: u64 = 60;
/// Longest input tried: long enough for any golden file, short enough for many a second.
const INPUT_BYTES_MAX: &str = "-max_len=16384";
/// One input that takes longer has found a loop; one that needs more memory a leak.
const BOUNDS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=2048"];
/// Lines of a failed run that are shown.
const LINES_SHOWN: usize = 25;

/// What libFuzzer needs of the compiler: counters at each edge and each comparison, and
/// the sanitizer. They are unstable flags, which `RUSTC_BOOTSTRAP` allows.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Ccodegen-units=1 -Cforce-frame-pointers -Zsanitizer=address --cfg fuzzing";

/// Systems for which the compiler comes with the sanitizer.
const HOSTS: [&str; 4] =
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    seconds: u64,
    targets: Vec<String>,
    /// One input to run instead of searching.
    input: Option<PathBuf>,
}

/// Builds the targets and runs those named, or all.
pub(crate) fn fuzz(root: &Path, target: &Path, args: &[String]) -> Result<(), String> {
    let manifest = root.join("fuzz/Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    let known = names(&text);
    let wish = wish(args, &known)?;
    let host = host()?;
    compiler()?;
    let dir = target.join("fuzz");
    build(root, &dir, &host, &wish)?;
    let bin = dir.join(&host).join("release");
    let mut failed = Vec::new();
    for name in &wish.targets {
        match &wish.input {
            Some(input) => run(Command::new(bin.join(name)).arg(input))?,
            None => {
                if let Err(words) = search(root, &dir, &bin, name, wish.seconds) {
                    println!("{words}");
                    failed.push(name.as_str());
                }
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("\nfuzzing broke {}", failed.join(", "))) }
}

/// The targets, in the order of the manifest.
fn names(manifest: &str) -> Vec<String> {
    let after = manifest.split("[[bin]]").skip(1);
    let lines = after.filter_map(|bin| bin.lines().find_map(|line| line.strip_prefix("name = ")));
    lines.map(|name| name.trim_matches('"').to_owned()).collect()
}

fn wish(args: &[String], known: &[String]) -> Result<Wish, String> {
    let mut wish = Wish { seconds: SECONDS, targets: Vec::new(), input: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let seconds = args.next().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
            wish.seconds = seconds.ok_or("--seconds wants a whole number from 1 on")?;
        } else if known.contains(arg) {
            wish.targets.push(arg.clone());
        } else if wish.targets.len() == 1 && Path::new(arg).is_file() {
            wish.input = Some(PathBuf::from(arg));
        } else {
            return Err(format!("there is no fuzz target `{arg}`; there are {}", known.join(", ")));
        }
    }
    if wish.targets.is_empty() {
        wish.targets = known.to_vec();
    }
    Ok(wish)
}

/// The system that we are on, if fuzzing works there.
fn host() -> Result<String, String> {
    let (_, text) = ask(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown").to_owned();
    if HOSTS.contains(&host.as_str()) {
        return Ok(host);
    }
    Err(format!("fuzzing needs AddressSanitizer, which Rust has on {}; this is {host}", HOSTS.join(", ")))
}

/// libFuzzer itself is C++ and is built from the registry's source.
fn compiler() -> Result<(), String> {
    let name = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let (works, words) = ask(Command::new(&name).arg("--version")).unwrap_or_default();
    if works {
        return Ok(());
    }
    Err(format!(
        "{words}\nfuzzing needs a C++ compiler, and `{name}` is none (Debian: apt-get install g++; macOS: \
         xcode-select --install; or name one in CXX)"
    ))
}

fn build(root: &Path, dir: &Path, host: &str, wish: &Wish) -> Result<(), String> {
    // The product's own versions, so that what is fuzzed is what is shipped.
    let lock = root.join("fuzz/Cargo.lock");
    if !lock.exists() {
        fs::copy(root.join("Cargo.lock"), &lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    }
    println!("building {} with libFuzzer and AddressSanitizer", wish.targets.join(", "));
    let mut build = cargo(root, &["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    build.args(["--target", host]).arg("--target-dir").arg(dir);
    for name in &wish.targets {
        build.args(["--bin", name]);
        if name == "config" {
            build.args(["--features", name]);
        }
    }
    // With --target the flags do not reach build scripts, which must not be sanitized.
    build.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut build)
}

/// Where a target begins: folders of good inputs, those that exist.
fn seeds(root: &Path, name: &str) -> Vec<PathBuf> {
    let golden: &[&str] = match name {
        "inspect" | "rewrite" | "translate_request" => &["tests/golden/request"],
        "sse" => &["tests/golden/stream"],
        "meter" | "translate_stream" => &["tests/golden/stream", "tests/golden/answer"],
        "engine_message" | "parse_models" => &["tests/golden/answer"],
        "config" => &["examples"],
        _ => &[],
    };
    let all = golden.iter().map(|folder| root.join(folder));
    let own = ["seeds", "regressions"].map(|folder| root.join("fuzz").join(folder).join(name));
    all.chain(own).filter(|folder| folder.is_dir()).collect()
}

/// The words that a target's inputs are made of, if it has any.
fn dictionary(root: &Path, name: &str) -> Option<PathBuf> {
    let file = match name {
        "http1" => "http1.dict",
        "config" => "toml.dict",
        "stored_rows" | "stored_file" => return None,
        _ => "json.dict",
    };
    Some(root.join("fuzz/dictionaries").join(file))
}

/// Runs one target for a while; the error holds the end of what it said.
fn search(root: &Path, dir: &Path, bin: &Path, name: &str, seconds: u64) -> Result<(), String> {
    let made = |folder: &str| {
        let path = dir.join(folder).join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let (corpus, artifacts) = (made("corpus")?, made("artifacts")?);
    let mut search = Command::new(bin.join(name));
    search.arg(corpus).args(seeds(root, name)).arg(INPUT_BYTES_MAX).args(BOUNDS);
    search.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()]);
    search.arg(format!("-artifact_prefix={}/", artifacts.display()));
    if let Some(words) = dictionary(root, name) {
        search.arg(format!("-dict={}", words.display()));
    }
    // The store's targets make a folder a run: in memory that is a hundred times faster.
    if Path::new("/dev/shm").is_dir() {
        search.env("TMPDIR", "/dev/shm");
    }
    let start = Instant::now();
    let (sound, said) = ask(&mut search)?;
    let took = start.elapsed().as_secs();
    if sound {
        println!(
            "   {name}: {} runs in {took} s, {}",
            figure(&said, "number_of_executed_units"),
            reach(&said)
        );
        return Ok(());
    }
    let lines: Vec<&str> = said.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    Err(format!(
        "{shown}\n   {name} BROKE after {took} s; the input is in {}: again with `cargo x fuzz {name} INPUT`",
        artifacts.display()
    ))
}

/// A figure of libFuzzer's final statistics.
fn figure<'a>(said: &'a str, name: &str) -> &'a str {
    let mark = format!("stat::{name}:");
    said.lines().find_map(|line| line.strip_prefix(mark.as_str())).map_or("?", str::trim)
}

/// How much code was reached, from libFuzzer's last line of progress.
fn reach(said: &str) -> String {
    let line = said.lines().rev().find(|line| line.contains(" cov: "));
    let edges = line.and_then(|line| line.split(" cov: ").nth(1)).and_then(|rest| rest.split(' ').next());
    format!("{} edges", edges.unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn targets_are_the_binaries_of_the_manifest() {
        let text =
            "[package]\nname = \"x\"\n[[bin]]\nname = \"a\"\npath = \"a.rs\"\n\n[[bin]]\nname = \"b\"\n";
        assert_eq!(names(text), ["a", "b"]);
    }

    #[test]
    fn nothing_said_is_every_target_for_a_minute() {
        let known = words("a b");
        let all = Wish { seconds: SECONDS, targets: known.clone(), input: None };
        assert_eq!(wish(&[], &known), Ok(all));
        let one = Wish { seconds: 5, targets: words("b"), input: None };
        assert_eq!(wish(&words("b --seconds 5"), &known), Ok(one));
    }

    #[test]
    fn what_is_no_target_and_no_time_is_refused() {
        let known = words("a b");
        assert!(wish(&words("c"), &known).is_err_and(|error| error.contains("a, b")));
        for bad in ["--seconds", "--seconds x", "--seconds 0"] {
            assert!(wish(&words(bad), &known).is_err_and(|error| error.contains("whole number")), "{bad}");
        }
    }

    #[test]
    fn figures_are_found_in_what_the_fuzzer_says() {
        let said = "#9\tNEW    cov: 12 ft: 30 corp: 4/10b\n#10\tDONE   cov: 13 ft: 31\nstat::number_of_executed_units: 643151\n";
        assert_eq!((figure(said, "number_of_executed_units"), reach(said).as_str()), ("643151", "13 edges"));
        assert_eq!((figure("", "x"), reach("").as_str()), ("?", "? edges"));
    }
}
