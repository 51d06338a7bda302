//! The rules of the house as checks. Each failure names the place, the rule, why the
//! rule is there, and how to mend it.

mod codes;
mod edges;
mod files;
mod map;
mod prose;
pub(crate) mod ratchet;
mod words;

pub(crate) use codes::{Row, facts, quote, read_table};

use std::fmt;

use crate::tree::Tree;

/// One place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `path:line`, or `path` where no line is at fault.
    pub(crate) at: String,
    /// The rule's short name.
    pub(crate) rule: &'static str,
    /// What is wrong here.
    pub(crate) what: String,
    /// Why the rule is there.
    pub(crate) why: &'static str,
    /// How to mend it.
    pub(crate) mend: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}: {}", self.at, self.rule, self.what)?;
        writeln!(f, "    why:  {}", self.why)?;
        write!(f, "    mend: {}", self.mend)
    }
}

type Rule = fn(&Tree) -> Vec<Failure>;

const RULES: &[Rule] = &[
    edges::ours,
    edges::theirs,
    edges::bans,
    files::heads,
    files::names,
    ratchet::lengths,
    words::unfinished,
    words::sleeps,
    words::purity,
    map::modules,
    map::paths,
    codes::pages,
    prose::readme,
    prose::limits,
    prose::dependencies,
];

/// Runs every rule.
pub(crate) fn failures(tree: &Tree) -> Vec<Failure> {
    RULES.iter().flat_map(|rule| rule(tree)).collect()
}

/// `path:line`, with the line counted from 0 as iterators do.
fn place(path: &str, line: usize) -> String {
    format!("{path}:{}", line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_what_why_and_how() {
        let failure = Failure {
            at: place("crates/x/src/y.rs", 11),
            rule: "head",
            what: "no `//!`".to_owned(),
            why: "readers ask",
            mend: "write one".to_owned(),
        };
        let text = failure.to_string();
        assert_eq!(text, "crates/x/src/y.rs:12: head: no `//!`\n    why:  readers ask\n    mend: write one");
    }
}
