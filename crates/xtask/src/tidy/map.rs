//! `ARCHITECTURE.md` names every room that is there and none that is not.

use std::collections::BTreeSet;

use super::{Failure, place};
use crate::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";
/// Top folders: what begins with one of these in backticks is a path.
const TOPS: [&str; 9] =
    ["crates/", "docs/", "tests/", "fuzz/", "bench/", "deploy/", "console/", "sdk/", ".ci/"];
const WHY: &str = "a map that lies is worse than none: readers stop trusting the rest";

/// Each crate, and each file and folder directly under its `src`, is on the map.
pub(super) fn modules(tree: &Tree) -> Vec<Failure> {
    let text = tree.text(MAP);
    let missing = rooms(tree).into_iter().filter(|room| !names(text, room));
    missing
        .map(|room| Failure {
            at: MAP.to_owned(),
            rule: "map",
            what: format!("`{room}` is not in the code map"),
            why: WHY,
            mend: format!("add a line for `{room}` that says in one sentence what it is for"),
        })
        .collect()
}

fn rooms(tree: &Tree) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for name in tree.crates() {
        rooms.insert(format!("crates/{name}"));
        let src = format!("crates/{name}/src/");
        for rest in tree.paths.iter().filter_map(|path| path.strip_prefix(&src)) {
            let first = rest.split('/').next().unwrap_or(rest);
            let file = first.ends_with(".rs");
            // lib.rs and main.rs are the crate itself; tests stand beside what they test;
            // a folder beside a file of its name is that module's inside.
            let known = matches!(first, "lib.rs" | "main.rs" | "tests.rs" | "tests");
            let inside = !file && tree.paths.contains(&format!("{src}{first}.rs"));
            if !known && !inside && (file || rest.ends_with(".rs")) {
                rooms.insert(format!("{src}{first}"));
            }
        }
    }
    rooms
}

/// Does the text name the path, and not merely a longer one?
fn names(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let rest = &text[at + path.len()..];
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        !rest.starts_with(|char: char| char.is_alphanumeric() || matches!(char, '_' | '-'))
            && !rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(char::is_alphanumeric))
    })
}

/// Each path in backticks on the map is there.
pub(super) fn paths(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (line, text) in tree.text(MAP).lines().enumerate() {
        for quoted in text.split('`').skip(1).step_by(2) {
            // `path::item`, `path:line` and patterns are not whole paths.
            let path = quoted.split(':').next().unwrap_or(quoted);
            let is_path =
                TOPS.iter().any(|top| path.starts_with(top)) && !path.contains(['*', ' ', '<', '{']);
            if is_path && !tree.has(path) {
                failures.push(Failure {
                    at: place(MAP, line),
                    rule: "map",
                    what: format!("`{path}` is not there"),
                    why: WHY,
                    mend: "name what is there now, or take the line out".to_owned(),
                });
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 6] = [
        "crates/a/Cargo.toml",
        "crates/a/src/lib.rs",
        "crates/a/src/queue.rs",
        "crates/a/src/queue/inner.rs",
        "crates/a/src/serve/mod.rs",
        "crates/a/src/tests.rs",
    ];

    fn with(map: &str) -> Tree {
        let mut files: Vec<_> = FILES.iter().map(|path| (*path, "")).collect();
        files.push((MAP, map));
        Tree::of(&files)
    }

    #[test]
    fn a_room_that_is_not_on_the_map_fails() {
        let whole = with("`crates/a` `crates/a/src/queue.rs` `crates/a/src/serve/`");
        assert!(modules(&whole).is_empty(), "{:?}", modules(&whole));
        let failures = modules(&with("`crates/a/src/queue.rs`"));
        let missing: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
        assert_eq!(
            missing,
            ["`crates/a` is not in the code map", "`crates/a/src/serve` is not in the code map"]
        );
    }

    #[test]
    fn a_room_on_the_map_that_is_not_there_fails() {
        let tree =
            with("Text.\n`crates/a/src/gone.rs`, `crates/a/src/queue.rs::Queue`, `crates/*/src`, `other/x`");
        let failures = paths(&tree);
        assert_eq!(failures.len(), 1);
        assert_eq!(
            (failures[0].at.as_str(), failures[0].what.as_str()),
            ("ARCHITECTURE.md:2", "`crates/a/src/gone.rs` is not there")
        );
    }
}
