//! One page per error code under `docs/errors/`, held to the table in `model`.

use super::Failure;
use crate::tree::Tree;

/// Where the table is.
pub(crate) const TABLE: &str = "crates/model/src/code.rs";
/// The sections each page has, in this order.
pub(crate) const SECTIONS: [&str; 3] = ["## What happened", "## Why", "## What to do"];
/// A section with fewer words than this says nothing to somebody woken at night.
const SECTION_WORDS_MIN: usize = 6;

/// One row of the table, read as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The stable string.
    pub(crate) name: String,
    /// The HTTP status.
    pub(crate) status: String,
    /// Whose doing, in lower case.
    pub(crate) blame: String,
    /// Whether to retry, in lower case.
    pub(crate) retry: String,
    /// What happened.
    pub(crate) says: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Reads the rows of `table! { ... }`. Empty if the table is not where it should be.
pub(crate) fn read_table(text: &str) -> Vec<Row> {
    let Some((_, body)) = text.split_once("\ntable! {") else {
        return Vec::new();
    };
    let body = body.split("\n}").next().unwrap_or(body);
    let tokens = tokens(body);
    let row = |cells: &[String]| match cells {
        [_, name, status, blame, retry, says, hint] => Some(Row {
            name: name.clone(),
            status: status.clone(),
            blame: blame.to_lowercase(),
            retry: retry.to_lowercase(),
            says: says.clone(),
            hint: hint.clone(),
        }),
        _ => None,
    };
    tokens.chunks(7).filter_map(row).collect()
}

/// Words and quoted texts, the latter without their quotes.
fn tokens(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (part, text) in body.split('"').enumerate() {
        if part % 2 == 1 {
            found.push(text.to_owned());
        } else {
            found.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    found
}

/// The line of a page that holds the facts.
pub(crate) fn facts(row: &Row) -> String {
    format!("| `{}` | {} | {} | {} |", row.name, row.status, row.blame, row.retry)
}

/// The line of a page that repeats the table's two sentences.
pub(crate) fn quote(row: &Row) -> String {
    format!("> {} {}", row.says, row.hint)
}

/// Every code has a page that agrees with the table; no page is left over; the index
/// lists them all.
pub(super) fn pages(tree: &Tree) -> Vec<Failure> {
    let rows = read_table(tree.text(TABLE));
    let mut failures = Vec::new();
    if rows.is_empty() {
        failures.push(failure(
            TABLE.to_owned(),
            "no `table! { ... }` of codes was found".to_owned(),
            "put it back",
        ));
    }
    for row in &rows {
        let path = format!("docs/errors/{}.md", row.name);
        match tree.texts.get(&path) {
            None => failures.push(failure(
                path,
                "the page is missing".to_owned(),
                "cargo x bless-errors, then fill it in",
            )),
            Some(text) => failures.extend(page(&path, text, row)),
        }
    }
    let index = "docs/errors/README.md";
    for row in rows.iter().filter(|row| !tree.text(index).contains(&format!("({}.md)", row.name))) {
        failures.push(failure(
            index.to_owned(),
            format!("`{}` is not listed", row.name),
            "cargo x bless-errors",
        ));
    }
    for path in tree.paths.iter().filter(|path| path.starts_with("docs/errors/") && *path != index) {
        let known = rows.iter().any(|row| *path == format!("docs/errors/{}.md", row.name));
        if !known {
            failures.push(failure(
                path.clone(),
                "no code has this page".to_owned(),
                "delete it, or add the code",
            ));
        }
    }
    failures
}

fn page(path: &str, text: &str, row: &Row) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut fail = |what: String, mend: &str| failures.push(failure(path.to_owned(), what, mend));
    if text.lines().next() != Some(&format!("# {}", row.name)) {
        fail(format!("the page does not begin with `# {}`", row.name), "make that its first line");
    }
    if !text.lines().any(|line| line == facts(row)) {
        fail(format!("the facts differ from the table: {}", facts(row)), "cargo x bless-errors");
    }
    if !text.lines().any(|line| line == quote(row)) {
        fail(format!("the table's sentences are not repeated: {}", quote(row)), "cargo x bless-errors");
    }
    let mut rest = text;
    for section in SECTIONS {
        let Some((_, below)) = rest.split_once(&format!("\n{section}\n")) else {
            fail(format!("the section `{section}` is missing or out of order"), "write it");
            continue;
        };
        rest = below;
        let words = below.split("\n## ").next().unwrap_or(below).split_whitespace().count();
        if words < SECTION_WORDS_MIN {
            fail(format!("the section `{section}` says next to nothing"), "write what the reader needs");
        }
    }
    failures
}

fn failure(at: String, what: String, mend: &str) -> Failure {
    Failure {
        at,
        rule: "errors",
        what,
        why: "whoever meets a code at night looks it up here, and must find what is true",
        mend: mend.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "macro_rules! table { () => {} }\n\ntable! {\n    BadJson \"bad_json\" 400 Caller Never\n        \"It is not JSON, at all.\"\n        \"Check it.\"\n}\n";
    const PAGE: &str = "# bad_json\n\n| code | status | blame | retry |\n|---|---|---|---|\n| `bad_json` | 400 | caller | never |\n\n> It is not JSON, at all. Check it.\n\n## What happened\n\nOne two three four five six.\n\n## Why\n\nOne two three four five six.\n\n## What to do\n\nOne two three four five six.\n";

    fn with(page: &str) -> Vec<Failure> {
        pages(&Tree::of(&[
            (TABLE, CODE),
            ("docs/errors/bad_json.md", page),
            ("docs/errors/README.md", "[bad_json](bad_json.md)"),
        ]))
    }

    #[test]
    fn the_table_is_read_as_text() {
        let rows = read_table(CODE);
        assert_eq!(rows.len(), 1);
        assert_eq!(facts(&rows[0]), "| `bad_json` | 400 | caller | never |");
        assert_eq!((rows[0].says.as_str(), rows[0].hint.as_str()), ("It is not JSON, at all.", "Check it."));
    }

    #[test]
    fn a_page_that_agrees_passes_and_each_departure_fails() {
        assert_eq!(with(PAGE), []);
        assert!(with(&PAGE.replace("Check it.", "Look."))[0].what.contains("sentences"));
        assert!(with(&PAGE.replace("400", "422"))[0].what.contains("facts"));
        assert!(with(&PAGE.replace("## Why", "## Because"))[0].what.contains("## Why"));
        assert!(with(&PAGE.replace("# bad_json\n", "# other\n"))[0].what.contains("begin"));
        assert!(
            with(&PAGE.replacen("One two three four five six.", "Unlucky.", 1))[0]
                .what
                .contains("next to nothing")
        );
    }

    #[test]
    fn a_missing_page_a_left_over_page_and_a_short_index_fail() {
        let failures = pages(&Tree::of(&[(TABLE, CODE), ("docs/errors/gone.md", "")]));
        let what: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
        assert_eq!(what, ["the page is missing", "`bad_json` is not listed", "no code has this page"]);
        assert_eq!(pages(&Tree::default()).len(), 1, "a table that cannot be found is a failure");
    }
}
