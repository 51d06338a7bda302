//! `seawall-sim`: runs seeded worlds and says which of them broke, and how to repeat it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use seawall_sim::cli::{USAGE, Wish, play};
use seawall_sim::{agents, invent, traced};

#[expect(
    clippy::disallowed_methods,
    reason = "the program around the worlds has a real clock and a real disk"
)]
fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    // A reader that has gone is no reason to stop counting.
    let mut say = |text: &str| drop(writeln!(out, "{}", text.trim_end()));
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
