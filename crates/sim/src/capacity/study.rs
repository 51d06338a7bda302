//! One case of a study: the same trace for every contender, each at its default and at
//! the setting that turned out best in hindsight, over the same seeds.

use seawall_load::engine::Spec;

use super::replay::{Ask, Gateway, Run, Slow, replay};

/// One way to set a contender.
pub struct Setting {
    /// What is set, in words.
    pub words: String,
    /// Makes it, for this seed of its own chance.
    pub make: Box<dyn Fn(u64) -> Box<dyn Gateway>>,
}

impl Setting {
    /// A setting in words, and how it is made.
    pub fn new<G: Gateway + 'static>(words: &str, make: impl Fn(u64) -> G + 'static) -> Self {
        Self { words: words.to_owned(), make: Box::new(move |seed| Box::new(make(seed))) }
    }
}

/// A contender: its default setting, then others to choose from in hindsight.
pub struct Contender {
    /// Its name.
    pub name: &'static str,
    /// Is it ours? Then targets hold for its default.
    pub ours: bool,
    /// The default first.
    pub settings: Vec<Setting>,
}

/// A measured figure.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading, with the unit.
    pub title: &'static str,
    /// Digits after the point.
    pub digits: usize,
}

/// What ours is held to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The column.
    pub column: usize,
    /// At most this if below, at least if not.
    pub at_most: bool,
    /// The bound.
    pub bound: f64,
}

/// From a replay to the value of each column.
pub type Measure = Box<dyn Fn(&[Ask], &Run) -> Vec<f64>>;

/// A trace, the engines behind it, and what is measured.
pub struct Case {
    /// Its name, also of its plot's file.
    pub name: &'static str,
    /// What it is, in a sentence or two.
    pub about: String,
    /// The trace of a seed.
    pub asks: Box<dyn Fn(u64) -> Vec<Ask>>,
    /// The engines; their jitter is seeded anew for each seed.
    pub engines: Vec<Spec>,
    /// When they are slow.
    pub slow: Option<Slow>,
    /// The figures.
    pub columns: Vec<Column>,
    /// Measures them.
    pub measure: Measure,
    /// The column that hindsight goes by, and whether less is better.
    pub objective: (usize, bool),
    /// The column that the plot shows it against: what it costs.
    pub cost: usize,
    /// A column that is shown as a percentage of the row with this name too.
    pub relative: Option<(usize, &'static str)>,
    /// Hindsight looks only at settings with at least this percentage of the first row's
    /// cost column: anybody is fair who leaves the engine idle.
    pub floor: f64,
    /// What ours is held to.
    pub targets: Vec<Target>,
}

/// One contender at one setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its setting.
    pub words: String,
    /// Is it ours?
    pub ours: bool,
    /// Is it the default, and not chosen in hindsight?
    pub default: bool,
    /// By column, the value of each seed.
    pub values: Vec<Vec<f64>>,
}

impl Row {
    /// The mean over the seeds.
    #[must_use]
    pub fn mean(&self, column: usize) -> f64 {
        super::measure::mean(&self.values[column])
    }
}

/// Plays a case: for each contender its default, and its best other setting where that is
/// better.
#[must_use]
pub fn play(case: &Case, contenders: &[Contender], seeds: u64) -> Vec<Row> {
    let traces: Vec<Vec<Ask>> = (0..seeds).map(|seed| (case.asks)(seed)).collect();
    let mut rows = Vec::new();
    for contender in contenders {
        let mut tried: Vec<Row> = contender
            .settings
            .iter()
            .enumerate()
            .map(|(nth, setting)| Row {
                name: contender.name,
                words: setting.words.clone(),
                ours: contender.ours,
                default: nth == 0,
                values: measure(case, setting, &traces),
            })
            .collect();
        let (column, less) = case.objective;
        let score = |row: &Row| if less { row.mean(column) } else { -row.mean(column) };
        let least = rows.first().map_or(0.0, |first: &Row| first.mean(case.cost) * case.floor / 100.0);
        let allowed = (0..tried.len()).filter(|nth| *nth == 0 || tried[*nth].mean(case.cost) >= least);
        let best = allowed.min_by(|one, other| score(&tried[*one]).total_cmp(&score(&tried[*other])));
        if let Some(best) = best.filter(|best| *best > 0) {
            tried.swap(1, best);
            tried.truncate(2);
        } else {
            tried.truncate(1);
        }
        rows.extend(tried);
    }
    rows
}

fn measure(case: &Case, setting: &Setting, traces: &[Vec<Ask>]) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::new(); case.columns.len()];
    for (seed, asks) in traces.iter().enumerate() {
        let engine =
            |(nth, spec): (usize, &Spec)| Spec { seed: (seed as u64) << 16 | nth as u64, ..spec.clone() };
        let engines: Vec<Spec> = case.engines.iter().enumerate().map(engine).collect();
        let mut gateway = (setting.make)(seed as u64);
        let run = replay(asks, &engines, case.slow, gateway.as_mut());
        for (column, value) in (case.measure)(asks, &run).into_iter().enumerate() {
            values[column].push(value);
        }
    }
    values
}
