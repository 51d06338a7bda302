//! What the documents promise: the two commands of the README, a reason at each limit,
//! a row for each dependency.

use super::{Failure, place};
use crate::tree::Tree;

/// The two commands a stranger needs, and no third.
const COMMANDS: [&str; 2] = ["cargo run --release -- serve", "cargo x test"];
const LIMITS: &str = "crates/model/src/limits.rs";
const DEPENDENCIES: &str = "docs/adr/0006-dependencies.md";

/// The README has its two commands.
pub(super) fn readme(tree: &Tree) -> Vec<Failure> {
    let missing = COMMANDS.into_iter().filter(|command| !tree.text("README.md").contains(command));
    missing
        .map(|command| Failure {
            at: "README.md".to_owned(),
            rule: "readme",
            what: format!("`{command}` is not in it"),
            why: "two commands are all a stranger needs: one to run it, one to test it",
            mend: "show it in a code block near the top".to_owned(),
        })
        .collect()
}

/// Each limit has its reason above it.
pub(super) fn limits(tree: &Tree) -> Vec<Failure> {
    let lines: Vec<_> = tree.text(LIMITS).lines().collect();
    let mut failures = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const ")) {
        let above = lines[..at].iter().rev().find(|line| !line.starts_with("#["));
        if !above.is_some_and(|line| line.starts_with("///")) {
            let name = line["pub const ".len()..].split(':').next().unwrap_or(line);
            failures.push(Failure {
                at: place(LIMITS, at),
                rule: "limit",
                what: format!("`{name}` has no reason"),
                why: "a number without its reason is changed by the next person without one (I5)",
                mend: "say above it, with `///`, what it bounds and why this much".to_owned(),
            });
        }
    }
    failures
}

/// Each outside crate of the workspace has a row in the ADR on dependencies, and no row
/// is left over.
pub(super) fn dependencies(tree: &Tree) -> Vec<Failure> {
    let manifest = tree.text("Cargo.toml");
    let mut inside = false;
    let mut known = Vec::new();
    let mut failures = Vec::new();
    let failure = |at: String, what: String, mend: &str| Failure {
        at,
        rule: "dependency",
        what,
        why: "each dependency is built and trusted by every user: somebody must have asked what it costs",
        mend: mend.to_owned(),
    };
    let adr = tree.text(DEPENDENCIES);
    for (line, text) in manifest.lines().enumerate() {
        if text.starts_with('[') {
            inside = text == "[workspace.dependencies]";
            continue;
        }
        let Some((name, _)) = text.split_once(" = ").filter(|_| inside && !text.starts_with('#')) else {
            continue;
        };
        if name.starts_with("seawall-") {
            continue;
        }
        known.push(name);
        if !adr.contains(&format!("`{name}`")) {
            let mend =
                "add its row to docs/adr/0006-dependencies.md: what for, what was passed over, what it costs";
            failures.push(failure(place("Cargo.toml", line), format!("`{name}` has no row"), mend));
        }
    }
    for (line, text) in adr.lines().enumerate().filter(|(_, text)| text.starts_with("| `")) {
        let cell = text.split('|').nth(1).unwrap_or("");
        for name in cell.split('`').skip(1).step_by(2).filter(|name| !known.contains(name)) {
            let what = format!("`{name}` is no dependency");
            failures.push(failure(place(DEPENDENCIES, line), what, "take it out of the table"));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_without_its_commands_fails() {
        assert_eq!(readme(&Tree::of(&[("README.md", "run `cargo x test`")])).len(), 1);
        assert_eq!(readme(&Tree::default()).len(), 2);
        assert!(
            readme(&Tree::of(&[("README.md", "cargo run --release -- serve\ncargo x test\n")])).is_empty()
        );
    }

    #[test]
    fn a_limit_without_a_reason_fails() {
        let text = "/// Why.\npub const A: u64 = 1;\n\npub const B: u64 = 2;\n";
        let failures = limits(&Tree::of(&[(LIMITS, text)]));
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].at, "crates/model/src/limits.rs:4");
    }

    #[test]
    fn a_dependency_without_a_row_and_a_row_without_a_dependency_fail() {
        let cargo = "[workspace.dependencies]\nseawall-model = { path = \"x\" }\nbytes = \"1\"\nhttp = \"1\"\n[profile.dev]\ndebug = 1\n";
        let adr = "| crate | why |\n|---|---|\n| `bytes` | buffers |\n| `gone`, `bytes` | old |\n";
        let failures = dependencies(&Tree::of(&[("Cargo.toml", cargo), (DEPENDENCIES, adr)]));
        let places: Vec<_> = failures.iter().map(|failure| failure.at.as_str()).collect();
        assert_eq!(places, ["Cargo.toml:4", "docs/adr/0006-dependencies.md:4"]);
    }
}
