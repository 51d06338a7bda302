//! The words of one line, read from left to right.

use std::collections::VecDeque;

use seawall_model::effect::EffectId;
use seawall_model::{Agent, Millis, Payload, RunKey};

/// What is left of a line.
pub(crate) struct Words {
    line: String,
    words: VecDeque<String>,
}

impl Words {
    /// The words of a line up to its comment; what stands in quotes is one word.
    pub(crate) fn of(line: &str) -> Self {
        let (mut words, mut word, mut quoted, mut begun) = (VecDeque::new(), String::new(), false, false);
        for letter in line.chars() {
            match letter {
                '"' => (quoted, begun) = (!quoted, true),
                '#' if !quoted => break,
                ' ' if !quoted => {
                    if begun || !word.is_empty() {
                        words.push_back(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                letter => word.push(letter),
            }
        }
        assert!(!quoted, "a quote is open: {line}");
        if begun || !word.is_empty() {
            words.push_back(word);
        }
        Self { line: line.to_owned(), words }
    }

    pub(crate) fn next(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    pub(crate) fn word(&mut self) -> String {
        self.next().unwrap_or_else(|| panic!("a word is missing: {}", self.line))
    }

    pub(crate) fn number(&mut self) -> u64 {
        let word = self.word();
        word.parse().unwrap_or_else(|_| self.unknown(&word))
    }

    pub(crate) fn seconds(&mut self) -> Millis {
        Millis::from_secs(self.number())
    }

    pub(crate) fn text(&mut self) -> Payload {
        Payload::text(&self.word())
    }

    pub(crate) fn agent(&mut self) -> Agent {
        let word = self.word();
        Agent::parse(&word).unwrap_or_else(|_| self.unknown(&word))
    }

    pub(crate) fn effect(&mut self) -> EffectId {
        let word = self.word();
        EffectId::parse(&word).unwrap_or_else(|| self.unknown(&word))
    }

    pub(crate) fn run(&mut self) -> RunKey {
        let word = self.word();
        RunKey::parse(&word).unwrap_or_else(|| self.unknown(&word))
    }

    /// A free text if one comes next, rather than one of these words.
    pub(crate) fn maybe(&mut self, known: &[&str]) -> Option<Payload> {
        let next = self.words.front()?;
        if known.contains(&next.as_str()) {
            return None;
        }
        self.next().map(|word| Payload::text(&word))
    }

    /// All was said.
    pub(crate) fn end(&mut self) {
        if let Some(word) = self.next() {
            self.unknown(&word);
        }
    }

    pub(crate) fn unknown(&self, word: &str) -> ! {
        panic!("what is {word}? {}", self.line)
    }
}
