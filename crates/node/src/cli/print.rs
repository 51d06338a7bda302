//! The one place that writes to standard output and standard error: results for a
//! person (tables, colours that switch themselves off) or for a script (JSON).
//!
//! A closed pipe is no failure: `seawall models | head -1` is a normal thing to do.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::agents::show::clipped;

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
    note_loss(&writeln!(anstream::stdout().lock(), "{text}"));
}

/// Writes text that brings its own line ends to standard output.
pub(crate) fn text(text: &str) {
    note_loss(&write!(anstream::stdout().lock(), "{text}"));
}

/// Something that was to be on standard output is not, and whoever reads it has not left.
static LOST: AtomicBool = AtomicBool::new(false);

/// Remembers a write to standard output that failed.
pub(crate) fn note_loss(written: &io::Result<()>) {
    if written.as_ref().is_err_and(|why| why.kind() != io::ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Writes what is still held back. Is all that was printed where it was to go?
pub(crate) fn is_whole() -> bool {
    note_loss(&io::stdout().lock().flush());
    !LOST.load(Ordering::Relaxed)
}

/// Writes what asks a person for a line, and leaves the line open.
pub(crate) fn prompt(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Standard output for what is too much to hold: as it is, without styles.
pub(crate) fn pipe() -> impl io::Write {
    io::BufWriter::new(io::stdout().lock())
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

/// A last column narrower than this says nothing: the table is shown row by row then.
const LAST_CHARS_MIN: usize = 16;

/// How wide the terminal is that standard output goes to; `None` where it goes elsewhere.
fn terminal_columns() -> Option<usize> {
    // Where tests run must not change what they see.
    if cfg!(test) {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
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

    /// The whole table, with its line ends; as wide as it is, unless a terminal is narrower.
    pub(crate) fn render(&self) -> String {
        match terminal_columns() {
            Some(columns) => self.render_within(columns),
            None => self.render_whole(),
        }
    }

    /// At most so wide: the last column, which is where long texts stand, is cut; where that
    /// is not enough, each row becomes a list of its cells. Nothing else is ever cut: names
    /// are there to be copied.
    fn render_within(&self, columns: usize) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain(std::iter::once(self.heads[column].chars().count())).max().unwrap_or(0)
        };
        let last = self.heads.len().saturating_sub(1);
        let before: usize = (0..last).map(|column| width(column) + 2).sum();
        if before + width(last) <= columns {
            return self.render_whole();
        }
        let room = columns.saturating_sub(before);
        if room >= LAST_CHARS_MIN {
            let mut cut = Self { heads: self.heads.clone(), rows: self.rows.clone() };
            for cell in cut.rows.iter_mut().filter_map(|row| row.last_mut()) {
                cell.text = clipped(&cell.text, room);
            }
            return cut.render_whole();
        }
        self.render_cards()
    }

    /// Each row as a list of its cells, those that say nothing left out.
    fn render_cards(&self) -> String {
        let widest = self.heads.iter().skip(1).map(|head| head.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            for (column, (head, cell)) in self.heads.iter().zip(row).enumerate() {
                let Cell { text, style } = cell;
                if column == 0 {
                    out.push_str(&format!("{BOLD}{text}{BOLD:#}\n"));
                } else if !text.is_empty() && text != "-" {
                    out.push_str(&format!("  {DIM}{head:<widest$}{DIM:#}  {style}{text}{style:#}\n"));
                }
            }
        }
        out
    }

    fn render_whole(&self) -> String {
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
    fn a_narrow_terminal_cuts_the_last_column_or_shows_cells_one_by_one() {
        let mut table = Table::new(&["run", "state", "waits for"]);
        table.row(vec!["run-1f03".into(), Cell::styled("done", GOOD), "".into()]);
        table.row(vec!["run-2003".into(), "active".into(), "an answer from a person".into()]);
        assert_eq!(plain(&table.render_within(80)), plain(&table.render_whole()));
        assert_eq!(
            plain(&table.render_within(36)),
            "run       state   waits for\nrun-1f03  done\nrun-2003  active  an answer from a …\n"
        );
        assert_eq!(
            plain(&table.render_within(20)),
            "run-1f03\n  state      done\nrun-2003\n  state      active\n  waits for  an answer from a person\n"
        );
        assert!(Table::new(&["a"]).render_within(3).starts_with("\u{1b}[1ma"));
    }

    #[test]
    fn columns_line_up_whatever_their_style() {
        let mut table = Table::new(&["name", "state"]);
        table.row(vec!["a".into(), Cell::styled("well", GOOD)]);
        table.row(vec![Cell::styled("longer", DIM), "".into()]);
        assert_eq!(plain(&table.render()), "name    state\na       well\nlonger\n");
    }
}
