//! Writes what can be derived: the frames and facts of the error pages, and the ratchet.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::tidy::{Row, facts, quote, ratchet, read_table};
use crate::tree::Tree;

const HEADER: &str = "| code | status | blame | retry |\n|---|---|---|---|";

/// Writes missing pages of `docs/errors/` with what the table knows, brings the facts of
/// the others up to date, and writes the index.
pub(crate) fn errors(root: &Path) -> Result<(), String> {
    let tree = Tree::read(root)?;
    let rows = read_table(tree.text("crates/model/src/code.rs"));
    if rows.is_empty() {
        return Err("crates/model/src/code.rs holds no table of codes".to_owned());
    }
    for row in &rows {
        let path = format!("docs/errors/{}.md", row.name);
        let text = tree.texts.get(&path).map_or_else(|| frame(row), |text| with_facts(text, row));
        save(root, &tree, &path, &text)?;
    }
    save(root, &tree, "docs/errors/README.md", &index(&rows))
}

/// Lowers the ratchet to the present lengths.
pub(crate) fn ratchet(root: &Path) -> Result<(), String> {
    let tree = Tree::read(root)?;
    save(root, &tree, ratchet::LIST, &ratchet::lowered(&tree))
}

fn save(root: &Path, tree: &Tree, path: &str, text: &str) -> Result<(), String> {
    if tree.text(path) == text {
        return Ok(());
    }
    let full = root.join(path);
    if let Some(folder) = full.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    fs::write(full, text).map_err(|error| format!("cannot write {path}: {error}"))?;
    println!("wrote {path}");
    Ok(())
}

fn frame(row: &Row) -> String {
    format!(
        "# {}\n\n{HEADER}\n{}\n\n{}\n\n## What happened\n\n\n## Why\n\n\n## What to do\n\n\n",
        row.name,
        facts(row),
        quote(row)
    )
}

fn with_facts(text: &str, row: &Row) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("> ") {
            out.push_str(&quote(row));
            out.push('\n');
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line == "|---|---|---|---|" && lines.peek().is_some_and(|next| next.starts_with("| `")) {
            lines.next();
            out.push_str(&facts(row));
            out.push('\n');
        }
    }
    out
}

fn index(rows: &[Row]) -> String {
    let mut out = String::from(
        "# Error codes\n\nEvery error carries one of these in its `code`, in the shape of the protocol it answers, with a\n\
         message, a hint and a trace id. The strings are stable: alerts may match on them.\n\n\
         - **blame** says whose doing it is: `caller`, `engine`, or `us` (Seawall or its configuration).\n\
         - **retry** says whether the same call may be sent again: `never`, `now`, or `after` the time in `retry-after`.\n\n\
         In the commands of these pages `$SEAWALL` is the gateway's address, such as `http://127.0.0.1:8080`, and\n\
         `$TRACE` the trace id of the error. The access log has one JSON line per call and never its content.\n",
    );
    let statuses: BTreeSet<_> = rows.iter().map(|row| row.status.as_str()).collect();
    for status in statuses {
        out.push_str(&format!(
            "\n## {status}\n\n| code | blame | retry | what happened |\n|---|---|---|---|\n"
        ));
        for row in rows.iter().filter(|row| row.status == status) {
            let Row { name, blame, retry, says, .. } = row;
            out.push_str(&format!("| [{name}]({name}.md) | {blame} | {retry} | {says} |\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let text = |text: &str| text.to_owned();
        Row {
            name: text("bad_json"),
            status: text("400"),
            blame: text("caller"),
            retry: text("never"),
            says: text("Not JSON."),
            hint: text("Check it."),
        }
    }

    #[test]
    fn facts_are_brought_up_to_date_and_the_rest_is_kept() {
        let old =
            frame(&row()).replace("| 400 |", "| 418 |").replace("Not JSON.", "Stale.") + "Written by hand.\n";
        let new = with_facts(&old, &row());
        assert!(new.contains("| `bad_json` | 400 | caller | never |"));
        assert!(new.contains("> Not JSON. Check it.") && new.ends_with("Written by hand.\n"));
        assert_eq!(with_facts(&new, &row()), new);
    }

    #[test]
    fn the_index_links_each_page() {
        assert!(index(&[row()]).contains("## 400") && index(&[row()]).contains("[bad_json](bad_json.md)"));
    }
}
