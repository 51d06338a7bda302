//! The one place that writes to standard output and standard error: results for a
//! person (tables, colours that switch themselves off) or for a script (JSON).
//!
//! A closed pipe is no failure: `seawall models | head -1` is a normal thing to do.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();
/// What is less important.
pub(crate) const DIM: Style = Style::new().dimmed();
/// Well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Doubtful.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Writes one line to standard output.
pub(crate) fn line(text: &str) {
    let _ = writeln!(anstream::stdout().lock(), "{text}");
}

/// Writes text that brings its own line ends to standard output.
pub(crate) fn text(text: &str) {
    let _ = write!(anstream::stdout().lock(), "{text}");
}

/// Writes what asks a person for a line, and leaves the line open.
pub(crate) fn prompt(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Standard output for what is too much to hold: as it is, without styles.
pub(crate) fn pipe() -> impl std::io::Write {
    std::io::BufWriter::new(std::io::stdout().lock())
}

/// Writes one line to standard error: what is for the person, not for the pipe.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes why a command failed, and what to do, to standard error.
pub(crate) fn failure(what: &str, hint: &str) {
    note(&format!("{BAD}error:{BAD:#} {what}"));
    if !hint.is_empty() {
        note(&format!("{BOLD} hint:{BOLD:#} {hint}"));
    }
}

/// Writes JSON to standard output, over several lines, with keys in a fixed order.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// Rows of text under headings, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell: a text and how it looks.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl Table {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.heads.len(), "every row has a cell for every heading");
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole table, with its line ends.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain(std::iter::once(self.heads[column].chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let heads: Vec<Cell> = self.heads.iter().map(|head| Cell::styled(*head, BOLD)).collect();
        let mut out = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // An empty cell has no style to end: codes would keep the line from being trimmed.
                let style = if cell.text.is_empty() { Style::new() } else { cell.style };
                line.push_str(&format!("{style}{}{style:#}", cell.text));
                if column + 1 < row.len() {
                    let pad = widths[column] + 2 - cell.text.chars().count();
                    line.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_style() {
        let mut table = Table::new(&["name", "state"]);
        table.row(vec!["a".into(), Cell::styled("well", GOOD)]);
        table.row(vec![Cell::styled("longer", DIM), "".into()]);
        assert_eq!(plain(&table.render()), "name    state\na       well\nlonger\n");
    }
}
