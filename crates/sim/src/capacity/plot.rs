//! Plots as SVG, without a library: each contender a point, its cost to the right and its
//! objective upwards.

use std::fmt::Write as _;

use super::study::{Case, Row};

const WIDE: f64 = 760.0;
const HIGH: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// The plot of a case.
#[must_use]
pub fn scatter(case: &Case, rows: &[Row]) -> String {
    let (objective, cost) = (case.objective.0, case.cost);
    let across = Axis::over(rows.iter().map(|row| row.mean(cost)), LEFT, WIDE - RIGHT);
    let up = Axis::over(rows.iter().map(|row| row.mean(objective)), HIGH - BOTTOM, TOP);
    let mut svg = String::new();
    let mut put = |what: std::fmt::Arguments<'_>| {
        writeln!(svg, "{what}").expect("writing to a string cannot fail");
    };
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDE} {HIGH}\" font-family=\"sans-serif\" font-size=\"12\">"
    ));
    put(format_args!("<rect width=\"{WIDE}\" height=\"{HIGH}\" fill=\"white\"/>"));
    put(format_args!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", escape(case.name)));
    for nth in 0..=4 {
        let part = f64::from(nth) / 4.0;
        let (x, y) = (across.at_part(part), up.at_part(part));
        let (low, high) = (HIGH - BOTTOM, WIDE - RIGHT);
        put(format_args!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{low}\" stroke=\"#ddd\"/>"));
        put(format_args!("<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{high}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"));
        let (across, up) = (across.value(part), up.value(part));
        put(format_args!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{across:.1}</text>",
            low + 16.0
        ));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{up:.1}</text>",
            LEFT - 6.0,
            y + 4.0
        ));
    }
    let (right, up_title) = (escape(case.columns[cost].title), escape(case.columns[objective].title));
    put(format_args!("<text x=\"{LEFT}\" y=\"{}\">right: {right}; up: {up_title}</text>", HIGH - 12.0));
    for row in rows {
        let (x, y) = (across.place(row.mean(cost)), up.place(row.mean(objective)));
        let colour = if row.ours { "#c22" } else { "#346" };
        let fill = if row.default { colour } else { "none" };
        put(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"{colour}\"/>"
        ));
        let label = if row.default { row.name.to_owned() } else { format!("{}: {}", row.name, row.words) };
        let (x, y) = (x + 8.0, y + 4.0);
        put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>", escape(&label)));
    }
    put(format_args!("</svg>"));
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// From values to places on the page.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let margin = ((high - low) * 0.08).max(1e-3);
        Self { low: low - margin, high: high + margin, from, to }
    }

    fn value(&self, part: f64) -> f64 {
        self.low + (self.high - self.low) * part
    }

    fn at_part(&self, part: f64) -> f64 {
        self.from + (self.to - self.from) * part
    }

    fn place(&self, value: f64) -> f64 {
        self.at_part((value - self.low) / (self.high - self.low))
    }
}
