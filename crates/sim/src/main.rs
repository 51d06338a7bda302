//! `seawall-sim`: runs seeded worlds and says which of them broke, and how to repeat it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use seawall_sim::cli::{USAGE, Wish, play};
use seawall_sim::{agents, capacity, invent, traced};

/// Where traces are read from and results go, from the checkout's root.
const TRACES: &str = "bench/traces";
const RESULTS: &str = "bench/results/capacity";

#[expect(
    clippy::disallowed_methods,
    reason = "the program around the worlds has a real clock and a real disk"
)]
fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    // A reader that has gone is no reason to stop counting.
    let mut say = |text: &str| drop(writeln!(out, "{}", text.trim_end()));
    if std::env::args().nth(1).as_deref() == Some("capacity") {
        return weigh(&mut say);
    }
    let wish = match Wish::read(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(says) => {
            say(&format!("seawall-sim: {says}\n\n{USAGE}"));
            return ExitCode::from(64);
        }
    };
    if wish.help {
        say(USAGE);
        return ExitCode::SUCCESS;
    }
    // Each failure is told once, by its world, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if let (Some(path), Some(seed)) = (&wish.trace, wish.seed) {
        let trace = match agents::invent(&wish.plan, seed, wish.length) {
            Some(plan) => agents::traced(&plan).0,
            None => invent::invent(&wish.plan, seed, wish.length)
                .map_or_else(String::new, |scenario| traced(&scenario).0),
        };
        if let Err(error) = std::fs::write(path, trace) {
            say(&format!("seawall-sim: cannot write {path}: {error}"));
            return ExitCode::from(74);
        }
    }
    let began = Instant::now();
    let summary = play(&wish, &mut say);
    say(&summary.text(began.elapsed().as_secs_f64()));
    if summary.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `seawall-sim capacity`: plays the studies, prints their tables and keeps tables and plots.
#[expect(clippy::disallowed_methods, reason = "the program around the replays has a real disk")]
fn weigh(say: &mut impl FnMut(&str)) -> ExitCode {
    let wish = match capacity::Wish::read(std::env::args().skip(2)) {
        Ok(wish) => wish,
        Err(says) => {
            say(&format!("seawall-sim capacity: {says}\n\n{}", capacity::USAGE));
            return ExitCode::from(64);
        }
    };
    if wish.help {
        say(capacity::USAGE);
        return ExitCode::SUCCESS;
    }
    let mut traces = capacity::Traces::default();
    for (study, file) in capacity::Traces::FILES.into_iter().filter(|(study, _)| wish.wants(study)) {
        let path = format!("{TRACES}/{file}");
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let taken = text.and_then(|text| traces.take(study, &text).map_err(|error| error.to_string()));
        if let Err(error) = taken {
            say(&format!("seawall-sim capacity: cannot read {path}: {error}"));
            return ExitCode::from(66);
        }
    }
    let mut failed = std::fs::create_dir_all(RESULTS).err();
    capacity::play(&wish, &traces, &mut |result| {
        say(&result.table);
        say("");
        for (kind, text) in [("md", &result.table), ("svg", &result.plot)] {
            let path = format!("{RESULTS}/{}.{kind}", result.name);
            failed = failed.take().or_else(|| std::fs::write(path, text).err());
        }
    });
    if let Some(error) = failed {
        say(&format!("seawall-sim capacity: cannot write to {RESULTS}: {error}"));
        return ExitCode::from(74);
    }
    ExitCode::SUCCESS
}
