//! Everything that passed the kernel's door, in order: a hash of it all, the last fifty
//! lines for a failure's report, and the whole text where one is asked for.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};

use seawall_model::At;

/// Lines kept for a failure's report: about one call's life in a busy world.
const TAIL_MAX: usize = 50;
/// Longest line kept there; whole plans are long.
const LINE_MAX: usize = 400;

/// The record of one world.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    tail: VecDeque<String>,
    whole: Option<String>,
}

/// Offset and prime of the 64-bit FNV-1a hash (<http://www.isthe.com/chongo/tech/comp/fnv/>).
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

impl Trace {
    /// An empty record; `whole` keeps every line.
    #[must_use]
    pub fn new(whole: bool) -> Self {
        Self {
            hash: FNV.0,
            lines: 0,
            line: String::new(),
            tail: VecDeque::with_capacity(TAIL_MAX),
            whole: whole.then(String::new),
        }
    }

    /// Adds one line: when, what kind (`>` into the kernel, `<` out of it, `-` the
    /// world's own doing), and what.
    pub fn add(&mut self, at: At, kind: char, what: &impl Debug) {
        self.line.clear();
        write!(self.line, "{} {kind} {what:?}", at.0).expect("writing to a string cannot fail");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV.1);
        }
        self.lines += 1;
        if let Some(whole) = &mut self.whole {
            whole.push_str(&self.line);
            whole.push('\n');
        }
        // The oldest line's memory becomes the newest's.
        let mut kept = if self.tail.len() == TAIL_MAX {
            self.tail.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        kept.clear();
        kept.extend(self.line.chars().take(LINE_MAX));
        self.tail.push_back(kept);
    }

    /// FNV-1a over all lines.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Lines so far.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    /// Every line, where they were kept.
    #[must_use]
    pub fn into_whole(self) -> Option<String> {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_difference_changes_the_hash_and_the_tail_is_bounded() {
        let of = |last: u64| {
            let mut trace = Trace::new(true);
            for n in 0..200u64 {
                trace.add(At(n), '>', &("something", if n == 199 { last } else { n }));
            }
            trace
        };
        assert_eq!(of(1).hash(), of(1).hash());
        assert_ne!(of(1).hash(), of(2).hash());
        assert_eq!(of(1).tail().len(), TAIL_MAX);
        assert_eq!(of(1).into_whole().expect("kept").lines().count(), 200);
    }
}
