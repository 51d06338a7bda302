//! Capacity: the production kernel beside its rivals on real traces, in simulated time.
//!
//! Everybody gets the same trace, the same engines with the same seeds, and clients without
//! network between; rivals are re-implemented from the sources that their files cite, and
//! shown at their defaults and at the best of some settings chosen in hindsight. What one
//! wins is printed beside what it costs, losses as well as wins.

pub mod fair;
pub mod flood;
pub mod measure;
pub mod overload;
pub mod plot;
pub mod replay;
pub mod report;
pub mod rivals;
pub mod route;
pub mod seawall;
pub mod study;
pub mod workload;

use seawall_load::trace::{self, Row};

use study::{Case, Contender};

/// The bar that no gateway can pass: a scheduler inside the engine.
pub const IDEAL: &str = "in the engine";

/// How to use it.
pub const USAGE: &str = "\
Usage: seawall-sim capacity [fair|overload|route] [--seeds N] [--quick]

  fair, overload, route   only these studies
  --seeds N               play everything with N seeds (default 5)
  --quick                 one seed and the first part of long traces: for trying, not for quoting

Reads the traces in bench/traces; tables and plots go to bench/results/capacity too.
";

/// The studies by name.
const STUDIES: [&str; 3] = ["fair", "overload", "route"];
/// The part of long traces that a quick look plays.
const QUICK: f64 = 0.15;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Names of studies.
    pub studies: Vec<String>,
    /// How many seeds.
    pub seeds: u64,
    /// One seed, parts of traces.
    pub quick: bool,
    /// Say how to use it instead.
    pub help: bool,
}

impl Wish {
    /// Reads the arguments after `capacity`.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut wish = Self { studies: Vec::new(), seeds: 0, quick: false, help: false };
        let mut seeds = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seeds" => {
                    let value = arguments.next().unwrap_or_default();
                    let count = value.parse().ok().filter(|count| (1..=1_000).contains(count));
                    seeds = Some(count.ok_or("--seeds needs a number from 1 to 1000")?);
                }
                "--quick" => wish.quick = true,
                "--help" | "-h" => wish.help = true,
                name if STUDIES.contains(&name) => wish.studies.push(argument),
                _ => return Err(format!("there is no argument {argument}")),
            }
        }
        if wish.studies.is_empty() {
            wish.studies = STUDIES.map(String::from).to_vec();
        }
        wish.seeds = seeds.unwrap_or(if wish.quick { 1 } else { 5 });
        Ok(wish)
    }

    /// Is this study wanted?
    #[must_use]
    pub fn wants(&self, study: &str) -> bool {
        self.studies.iter().any(|wanted| wanted == study)
    }
}

/// The traces that the studies play.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    arena: Vec<Row>,
    conversation: Vec<Row>,
    synthetic: Vec<Row>,
}

impl Traces {
    /// The file that each study needs.
    pub const FILES: [(&'static str, &'static str); 3] = [
        ("fair", "vtc_lmsys_arena_600s_27clients.csv"),
        ("overload", "azure2023_conv.csv"),
        ("route", "mooncake_synthetic.jsonl"),
    ];

    /// Takes in the text of a study's file.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn take(&mut self, study: &str, text: &str) -> Result<(), trace::Error> {
        match study {
            "fair" => self.arena = trace::vtc(text)?,
            "overload" => self.conversation = trace::azure(text)?,
            _ => self.synthetic = trace::mooncake(text)?,
        }
        Ok(())
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its name.
    pub name: &'static str,
    /// Its table.
    pub table: String,
    /// Its plot, as SVG.
    pub plot: String,
}

/// Plays the studies wished for and hands each case's result to `show` as it is there.
pub fn play(wish: &Wish, traces: &Traces, show: &mut impl FnMut(Finding)) {
    let part = if wish.quick { QUICK } else { 1.0 };
    if wish.wants("fair") {
        for (case, weights) in fair::cases(&traces.arena) {
            show(compare(&case, &fair::contenders(&weights), wish.seeds));
        }
    }
    if wish.wants("overload") {
        for case in overload::cases(&traces.conversation, part) {
            show(compare(&case, &overload::contenders(), wish.seeds));
        }
    }
    if wish.wants("overload") {
        show(compare(&flood::case(&traces.conversation, part), &flood::contenders(), wish.seeds));
    }
    if wish.wants("route") {
        for (case, blocks) in route::cases(&traces.synthetic, part) {
            show(compare(&case, &route::contenders(blocks), wish.seeds));
        }
    }
}

/// Plays one case with everybody.
#[must_use]
pub fn compare(case: &Case, contenders: &[Contender], seeds: u64) -> Finding {
    let rows = study::play(case, contenders, seeds);
    Finding { name: case.name, table: report::table(case, &rows), plot: plot::scatter(case, &rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let read = |text: &str| Wish::read(text.split_whitespace().map(String::from));
        assert_eq!((read("").expect("valid").seeds, read("").expect("valid").studies.len()), (5, 3));
        let wish = read("route --quick").expect("valid");
        assert!(wish.wants("route") && !wish.wants("fair") && wish.seeds == 1);
        for wrong in ["--seeds", "--seeds 0", "nothing", "--what"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
