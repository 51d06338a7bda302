//! How files begin and what they are called.

use super::{Failure, place};
use crate::source::code_only;
use crate::tree::Tree;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["core", "common", "util", "utils", "helper", "helpers", "manager", "managers", "misc"];

/// Every Rust file says at its head why it exists.
pub(super) fn heads(tree: &Tree) -> Vec<Failure> {
    let silent = tree.rust().filter(|(_, text)| {
        let first = text.lines().find(|line| !line.trim().is_empty());
        first.is_none_or(|line| line.strip_prefix("//!").is_none_or(|words| words.trim().is_empty()))
    });
    silent
        .map(|(path, _)| Failure {
            at: place(path, 0),
            rule: "head",
            what: "the file does not begin with `//!`".to_owned(),
            why: "a reader should learn in two lines why a file exists",
            mend: "begin it with a `//!` sentence".to_owned(),
        })
        .collect()
}

/// No crate or module has an empty name.
pub(super) fn names(tree: &Tree) -> Vec<Failure> {
    let failure = |at: String, name: &str| Failure {
        at,
        rule: "name",
        what: format!("`{name}` says nothing about what is inside"),
        why: "such a room fills with what belongs elsewhere",
        mend: "name it after what it does, or move its parts to the rooms they serve".to_owned(),
    };
    let mut failures = Vec::new();
    for (path, text) in tree.rust() {
        let parts = path.trim_end_matches(".rs").split('/');
        if let Some(name) = parts.into_iter().find(|part| EMPTY_NAMES.contains(part)) {
            failures.push(failure(path.to_owned(), name));
        }
        for (line, code) in code_only(text).lines().enumerate() {
            let inline = code.trim().strip_suffix('{').and_then(|code| code.trim().rsplit_once("mod "));
            if let Some(name) = inline.map(|(_, name)| name).filter(|name| EMPTY_NAMES.contains(name)) {
                failures.push(failure(place(path, line), name));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_fails() {
        let tree = Tree::of(&[
            ("crates/a/src/good.rs", "\n//! Why.\n"),
            ("crates/a/src/bad.rs", "use x;\n//! Late.\n"),
            ("crates/a/src/empty.rs", "//!\n"),
        ]);
        let places: Vec<_> = heads(&tree).into_iter().map(|failure| failure.at).collect();
        assert_eq!(places, ["crates/a/src/bad.rs:1", "crates/a/src/empty.rs:1"]);
    }

    #[test]
    fn empty_names_fail_as_files_folders_and_modules() {
        let tree = Tree::of(&[
            ("crates/core/src/lib.rs", ""),
            ("crates/a/src/utils.rs", ""),
            ("crates/a/src/helpers/x.rs", ""),
            ("crates/a/src/scored.rs", "// mod util {\npub mod manager {\n}\n"),
        ]);
        let mut places: Vec<_> = names(&tree).into_iter().map(|failure| failure.at).collect();
        places.sort();
        assert_eq!(
            places,
            [
                "crates/a/src/helpers/x.rs",
                "crates/a/src/scored.rs:2",
                "crates/a/src/utils.rs",
                "crates/core/src/lib.rs"
            ]
        );
    }
}
