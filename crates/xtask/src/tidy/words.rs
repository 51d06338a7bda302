//! Words that must not stand in the code, or only with a reason beside them.

use super::{Failure, place};
use crate::source::{code_only, has_word, test_lines};
use crate::tree::Tree;

/// Left by somebody who meant to come back.
const UNFINISHED: &[(&str, &str)] = &[
    ("#[ignore", "make the test fast and sound, or delete it"),
    ("todo!", "write it, or take the path to it away"),
    ("unimplemented!", "write it, or take the path to it away"),
    ("dbg!", "take it out; a log line belongs in node"),
];

/// Doors to time, chance and the world.
const IMPURE: &[&str] = &[
    "std::time",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio",
];

/// The rooms that must be pure.
const PURE: [&str; 4] = ["crates/model/src/", "crates/kernel/src/", "crates/load/src/", "crates/wire/src/"];

/// Nothing unfinished is left in the code.
pub(super) fn unfinished(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, text) in tree.rust() {
        for (line, code) in code_only(text).lines().enumerate() {
            for (word, mend) in UNFINISHED.iter().filter(|(word, _)| code.contains(word)) {
                failures.push(Failure {
                    at: place(path, line),
                    rule: "unfinished",
                    what: format!("`{word}`"),
                    why: "what is merged is finished: a skipped test and a stub are found by users",
                    mend: (*mend).to_owned(),
                });
            }
        }
    }
    failures
}

/// No test sleeps to wait for something, unless it says why only time will do.
pub(super) fn sleeps(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut check = |path: &str, text: &str, line: usize, mark: &str| {
        let before = line.checked_sub(1).and_then(|line| text.lines().nth(line)).unwrap_or("");
        let here = text.lines().nth(line).unwrap_or("");
        if !before.contains(mark) && !here.contains(mark) {
            failures.push(Failure {
                at: place(path, line),
                rule: "sleep",
                what: "a test sleeps".to_owned(),
                why: "a sleep guesses how long something takes: too short is a flake, too long is a slow suite",
                mend: format!("wait for the event itself; if only time will do, write `{mark} ...` above it"),
            });
        }
    };
    for (path, text) in tree.rust() {
        let code = code_only(text);
        let tests = test_lines(path, &code);
        for (line, code) in code.lines().enumerate().filter(|(line, _)| tests[*line]) {
            if code.contains("thread::sleep") || code.contains("time::sleep") || code.contains(" sleep(") {
                check(path, text, line, "// sleeps because");
            }
        }
    }
    for (path, text) in
        tree.texts.iter().filter(|(path, _)| path.starts_with("tests/") && path.ends_with(".py"))
    {
        for (line, _) in
            text.lines().enumerate().filter(|(_, code)| has_word(code, "sleep") && code.contains("sleep("))
        {
            check(path, text, line, "# sleeps because");
        }
    }
    failures
}

/// Pure rooms have no door to time, chance or the world (I1).
pub(super) fn purity(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| PURE.iter().any(|room| path.starts_with(room))) {
        for (line, code) in code_only(text).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| has_word(code, word)) {
                failures.push(Failure {
                    at: place(path, line),
                    rule: "purity",
                    what: format!("`{word}` in a pure crate"),
                    why: "same inputs, same outputs, to the byte: that is what makes simulation and replay true",
                    mend: "let the caller pass it in (time as `At`, chance as a seed); use BTreeMap for maps".to_owned(),
                });
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(failures: &[Failure]) -> Vec<&str> {
        failures.iter().map(|failure| failure.at.as_str()).collect()
    }

    #[test]
    fn unfinished_code_fails_and_talk_of_it_does_not() {
        let text = "// todo! is banned\nfn f() {\n    todo!()\n}\n#[ignore = \"slow\"]\nfn g() { dbg!(\"todo!\") }\n";
        let tree = Tree::of(&[("crates/a/src/b.rs", text)]);
        assert_eq!(
            places(&unfinished(&tree)),
            ["crates/a/src/b.rs:3", "crates/a/src/b.rs:5", "crates/a/src/b.rs:6"]
        );
    }

    #[test]
    fn a_sleep_in_a_test_needs_its_reason() {
        let bad = "fn f() { thread::sleep(x); }\n#[cfg(test)]\nmod tests {\n    fn t() {\n        thread::sleep(x);\n        // sleeps because the kernel has no event for it\n        tokio::time::sleep(x).await;\n    }\n}\n";
        let tree = Tree::of(&[
            ("crates/a/src/b.rs", bad),
            ("tests/conformance/t.py", "import time\ntime.sleep(1)\n"),
        ]);
        assert_eq!(places(&sleeps(&tree)), ["crates/a/src/b.rs:5", "tests/conformance/t.py:2"]);
    }

    #[test]
    fn impure_words_fail_in_pure_crates_only() {
        let text =
            "//! No HashMap.\nuse std::collections::HashMap;\nlet operand = 1;\nlet at: Instant = x;\n";
        let tree = Tree::of(&[("crates/kernel/src/a.rs", text), ("crates/node/src/a.rs", text)]);
        assert_eq!(places(&purity(&tree)), ["crates/kernel/src/a.rs:2", "crates/kernel/src/a.rs:4"]);
    }
}
