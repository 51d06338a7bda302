//! Tables in Markdown: each contender's objective and its cost, the targets, and the
//! losses.

use std::fmt::Write as _;

use super::study::{Case, Row};

/// The table of a case.
#[must_use]
pub fn table(case: &Case, rows: &[Row]) -> String {
    let mut text = format!("### {}\n\n{}\n\n", case.name, case.about);
    let mut line = |what: std::fmt::Arguments<'_>| {
        writeln!(text, "{what}").expect("writing to a string cannot fail");
    };
    let titles: Vec<&str> = case.columns.iter().map(|column| column.title).collect();
    let relative = case.relative.map(|(column, name)| format!(" {} of {name} |", short(titles[column])));
    let relative = relative.unwrap_or_default();
    line(format_args!("| contender | setting | {} |{relative}", titles.join(" | ")));
    line(format_args!(
        "|---|---|{}{}",
        "---|".repeat(titles.len()),
        if relative.is_empty() { "" } else { "---|" }
    ));
    for row in rows {
        let mut cells = String::new();
        for (nth, column) in case.columns.iter().enumerate() {
            let mean = row.mean(nth);
            write!(cells, " {mean:.*}", column.digits).expect("writing to a string cannot fail");
            if nth == case.objective.0 && row.values[nth].len() > 1 {
                let least = row.values[nth].iter().copied().fold(f64::INFINITY, f64::min);
                let most = row.values[nth].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                write!(cells, " ({least:.0$}..{most:.0$})", column.digits)
                    .expect("writing to a string cannot fail");
            }
            cells.push_str(" |");
        }
        if let Some(part) = part(case, rows, row) {
            write!(cells, " {part:.1} % |").expect("writing to a string cannot fail");
        }
        let name = if row.ours { format!("**{}**", row.name) } else { row.name.to_owned() };
        let when = if row.default { "" } else { " (in hindsight)" };
        line(format_args!("| {name} | {}{when} |{cells}", row.words));
    }
    text.push_str(&verdict(case, rows));
    text
}

/// A heading without its unit.
fn short(title: &str) -> &str {
    title.split(',').next().unwrap_or(title)
}

/// A row's figure as a percentage of the named row's, where the case wants it.
fn part(case: &Case, rows: &[Row], row: &Row) -> Option<f64> {
    let (column, name) = case.relative?;
    let whole = rows.iter().find(|other| other.name == name)?.mean(column);
    Some(row.mean(column) * 100.0 / whole)
}

/// How ours, unset, does against its targets and against the best rival at any setting.
fn verdict(case: &Case, rows: &[Row]) -> String {
    let Some(ours) = rows.iter().find(|row| row.ours && row.default) else {
        return "\n".to_owned();
    };
    let mut text = String::from("\n");
    for target in &case.targets {
        let relative = target.column == case.columns.len();
        let (title, digits) = if relative {
            ("relative", 1)
        } else {
            (case.columns[target.column].title, case.columns[target.column].digits)
        };
        let value = if relative { part(case, rows, ours).unwrap_or(0.0) } else { ours.mean(target.column) };
        let held = if target.at_most { value <= target.bound } else { value >= target.bound };
        let (sign, word) = (if target.at_most { "<=" } else { ">=" }, if held { "met" } else { "MISSED" });
        writeln!(text, "- target: {title} {sign} {}: {value:.digits$}, {word}", target.bound)
            .expect("writing to a string cannot fail");
    }
    let (column, less) = case.objective;
    let score = |row: &&Row| if less { row.mean(column) } else { -row.mean(column) };
    let rivals = rows.iter().filter(|row| !row.ours && row.name != super::IDEAL);
    if let Some(best) = rivals.min_by(|one, other| score(one).total_cmp(&score(other))) {
        let (own, other) = (ours.mean(column), best.mean(column));
        let word = if score(&ours) <= score(&best) { "better than" } else { "LOSES to" };
        let digits = case.columns[column].digits;
        writeln!(
            text,
            "- unset it {word} the best rival, {} ({}{}): {own:.digits$} and {other:.digits$}",
            best.name,
            best.words,
            if best.default { "" } else { ", in hindsight" }
        )
        .expect("writing to a string cannot fail");
    }
    text.push('\n');
    text
}
