//! Files up to 800 lines and functions up to 70. Those that are longer are listed with
//! their present length, which may only shrink.

use std::collections::BTreeMap;

use super::Failure;
use crate::source::{code_only, functions};
use crate::tree::Tree;

/// Where the exceptions are listed: `file PATH LINES` and `fn PATH NAME LINES`.
pub(crate) const LIST: &str = "crates/xtask/ratchet.txt";
const FILE_LEN_MAX: usize = 800;
const FN_LEN_MAX: usize = 70;

const WHY: &str = "a short file and a short function can be held in the head; the list lets none grow";

/// Everything over its limit, as `file PATH` or `fn PATH NAME`, with its length and place.
fn long(tree: &Tree) -> BTreeMap<String, (usize, String)> {
    let mut found = BTreeMap::new();
    for (path, text) in tree.rust() {
        let len = text.lines().count();
        if len > FILE_LEN_MAX {
            found.insert(format!("file {path}"), (len, path.to_owned()));
        }
        for function in functions(&code_only(text)) {
            if function.len > FN_LEN_MAX {
                let key = format!("fn {path} {}", function.name);
                found.insert(key, (function.len, format!("{path}:{}", function.line)));
            }
        }
    }
    found
}

/// The list as `key -> (length, line number)`.
fn listed(tree: &Tree) -> BTreeMap<&str, (usize, usize)> {
    let lines = tree.text(LIST).lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines
        .filter_map(|(at, line)| {
            line.rsplit_once(' ').map(|(key, len)| (key, (len.parse().unwrap_or(0), at + 1)))
        })
        .collect()
}

/// Nothing is over its limit but what is listed, at exactly the listed length.
pub(super) fn lengths(tree: &Tree) -> Vec<Failure> {
    let (long, listed) = (long(tree), listed(tree));
    let mut failures = Vec::new();
    for (key, (len, at)) in &long {
        let max = listed
            .get(key.as_str())
            .map_or(if key.starts_with("file") { FILE_LEN_MAX } else { FN_LEN_MAX }, |(len, _)| *len);
        if *len > max {
            failures.push(Failure {
                at: at.clone(),
                rule: "length",
                what: format!("{len} lines, and {max} are allowed"),
                why: WHY,
                mend: "split it along its meaning".to_owned(),
            });
        }
    }
    for (key, (len, line)) in &listed {
        if long.get(*key).is_none_or(|(now, _)| now < len) {
            failures.push(Failure {
                at: format!("{LIST}:{line}"),
                rule: "length",
                what: format!("`{key}` has become shorter than its listed {len} lines"),
                why: WHY,
                mend: "cargo x bless-ratchet".to_owned(),
            });
        }
    }
    failures
}

/// The list with lengths lowered to the present ones and entries gone that are needed
/// no more. Never adds an entry and never raises one.
pub(crate) fn lowered(tree: &Tree) -> String {
    let long = long(tree);
    let mut out = String::new();
    for line in tree.text(LIST).lines() {
        let entry = line.rsplit_once(' ').filter(|_| !line.starts_with('#'));
        match entry {
            None => out.push_str(line),
            Some((key, len)) => {
                let Some((now, _)) = long.get(key) else { continue };
                let len = len.parse().unwrap_or(0).min(*now);
                out.push_str(&format!("{key} {len}"));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "crates/a/src/b.rs";

    fn function(len: usize) -> String {
        format!("//! Why.\nfn f() {{\n{}}}\n", "    x();\n".repeat(len - 2))
    }

    #[test]
    fn a_long_function_fails_and_one_at_the_limit_does_not() {
        assert!(lengths(&Tree::of(&[(PATH, &function(70))])).is_empty());
        let failures = lengths(&Tree::of(&[(PATH, &function(71))]));
        assert_eq!(failures[0].at, "crates/a/src/b.rs:2");
    }

    #[test]
    fn a_long_file_fails() {
        assert!(lengths(&Tree::of(&[(PATH, &"\n".repeat(800))])).is_empty());
        assert_eq!(lengths(&Tree::of(&[(PATH, &"\n".repeat(801))])).len(), 1);
    }

    #[test]
    fn a_listed_function_may_stay_but_neither_grow_nor_shrink_unnoticed() {
        let with = |len, list: &str| Tree::of(&[(PATH, function(len).as_str()), (LIST, list)]);
        let list = "# why\nfn crates/a/src/b.rs f 90\n";
        assert!(lengths(&with(90, list)).is_empty());
        assert!(lengths(&with(91, list))[0].what.contains("91"));
        assert_eq!(lengths(&with(89, list))[0].at, "crates/xtask/ratchet.txt:2");
        assert_eq!(lowered(&with(89, list)), "# why\nfn crates/a/src/b.rs f 89\n");
        assert_eq!(lowered(&with(95, list)), list, "never raised");
        assert_eq!(lowered(&with(60, list)), "# why\n");
    }
}
