//! What is wrong with a configuration, and where each value of it came from.

use std::fmt;

use seawall_model::limits;

/// One thing wrong (or, among warnings, doubtful) in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` if it came from a flag or the environment, or
    /// is about something that is not there.
    pub line: Option<usize>,
    /// The key, as a path: `limits.body_bytes_max`, `engine.vllm.urls`.
    pub key: String,
    /// What is wrong, in one sentence.
    pub what: String,
    /// What to do about it; empty if `what` says it all.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Where a value came from. Later kinds win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing says otherwise.
    Default,
    /// The config file, at this line.
    File(usize),
    /// This environment variable.
    Env(String),
    /// This flag.
    Flag(String),
    /// It was detected on this machine; how, in words.
    Found(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "line {line}"),
            Self::Env(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Found(how) => write!(f, "found: {how}"),
        }
    }
}

/// One effective value, for `seawall check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as a path.
    pub key: String,
    /// The value, as it would be written in the file; secrets are `***`.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Problems gathered while reading, bounded: after
/// [`limits::PROBLEMS_MAX`] the rest are only counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(
        &mut self,
        line: Option<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.list.len() < limits::PROBLEMS_MAX {
            self.list.push(Problem { line, key: key.into(), what: what.into(), hint: hint.into() });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them in the order of the file; those without a line last.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        self.list.dedup();
        if self.more > 0 {
            let what = format!("and {} more problems", self.more);
            self.list.push(Problem { line: None, key: String::new(), what, hint: String::new() });
        }
        self.list
    }
}

/// The known word nearest to a mistyped one, if it is near enough to be meant: at most
/// a third of its letters differ.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).max(1);
    let near = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    if near.0 <= reach {
        return Some(near.1);
    }
    // A forgotten unit or suffix (`body_bytes` for `body_bytes_max`) is farther than that.
    known
        .iter()
        .copied()
        .find(|candidate| word.len() >= 4 && (candidate.starts_with(word) || word.starts_with(candidate)))
}

/// Levenshtein's distance with Damerau's neighbour swap, two rows back.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        let known = ["listen", "limits", "engine", "body_bytes_max"];
        assert_eq!(nearest("lisetn", &known), Some("listen"));
        assert_eq!(nearest("limit", &known), Some("limits"));
        assert_eq!(nearest("body_bytes", &known), Some("body_bytes_max"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn distance_counts_edits_and_swaps() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("acb", "abc"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_flood_of_problems_is_counted_not_kept() {
        let mut problems = Problems::default();
        for line in 0..limits::PROBLEMS_MAX + 7 {
            problems.add(Some(line), "k", "bad", "");
        }
        let all = problems.finish();
        assert_eq!(all.len(), limits::PROBLEMS_MAX + 1);
        assert_eq!(all[limits::PROBLEMS_MAX].what, "and 7 more problems");
    }
}
