//! What the simulated model says: plain words by seed, one to a token, and embedding
//! vectors by text. The same seed and position always give the same word, so a stream
//! can be produced piece by piece without keeping anything.

use crate::rng::{Rng, mix};

/// The vocabulary: words of the sea, so that simulated text is known at a glance.
pub const VOCABULARY: [&str; 64] = [
    "wave", "tide", "harbour", "stone", "light", "the", "a", "keeps", "holds", "over", "under", "storm",
    "calm", "water", "wall", "ship", "sail", "and", "rope", "anchor", "north", "wind", "salt", "shore",
    "with", "deep", "slow", "bright", "signal", "watch", "night", "morning", "of", "current", "bell",
    "chart", "compass", "steady", "crew", "port", "to", "gull", "sand", "reef", "lantern", "drift", "rises",
    "falls", "through", "spray", "horizon", "mast", "is", "fog", "quiet", "long", "beacon", "hull", "in",
    "channel", "pilot", "buoy", "mooring", "swell",
];

/// The text of token `index`: a word, with a space before it except at the start.
#[must_use]
pub const fn token(seed: u64, index: u32) -> (&'static str, &'static str) {
    let word = VOCABULARY[(mix(seed ^ ((index as u64) << 20)) % VOCABULARY.len() as u64) as usize];
    (if index == 0 { "" } else { " " }, word)
}

/// The first `tokens` tokens as one text.
#[must_use]
pub fn text(seed: u64, tokens: u32) -> String {
    let mut text = String::with_capacity(tokens as usize * 6);
    for index in 0..tokens {
        let (space, word) = token(seed, index);
        text.push_str(space);
        text.push_str(word);
    }
    text
}

/// Splits a fixed text into tokens: each word with the white space before it.
/// The pieces joined are the text.
#[must_use]
pub fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut in_word = false;
    for (at, letter) in text.char_indices() {
        if letter.is_whitespace() {
            if in_word {
                pieces.push(&text[start..at]);
                start = at;
            }
            in_word = false;
        } else {
            in_word = true;
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

/// Estimates the tokens of a text: four bytes to a token, at least one.
#[must_use]
pub const fn count(bytes: usize) -> u64 {
    let count = (bytes as u64).div_ceil(4);
    if count == 0 { 1 } else { count }
}

/// A vector of unit length for a text, by its digest.
#[must_use]
pub fn embedding(digest: u64, dimensions: usize) -> Vec<f32> {
    let mut rng = Rng::seed(digest);
    let mut vector: Vec<f32> = (0..dimensions).map(|_| rng.normal() as f32).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_the_text() {
        let all = text(7, 20);
        assert_eq!(split(&all).len(), 20);
        assert_eq!(split(&all).concat(), all);
        let (_, third) = token(7, 2);
        assert_eq!(split(&all)[2].trim(), third);
        assert_ne!(text(8, 20), all);
        for odd in ["", "  ", " a", "a  b \n", "ä\u{a0}ö"] {
            assert_eq!(split(odd).concat(), odd);
        }
    }

    #[test]
    fn embeddings_are_of_unit_length_and_repeat() {
        let one = embedding(3, 256);
        assert_eq!(one, embedding(3, 256));
        assert!((one.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
        let two = embedding(4, 256);
        let cosine: f32 = one.iter().zip(&two).map(|(a, b)| a * b).sum();
        assert!(cosine.abs() < 0.4, "different texts point elsewhere: {cosine}");
    }

    #[test]
    fn counts_are_never_zero() {
        assert_eq!((count(0), count(1), count(4), count(5)), (1, 1, 1, 2));
    }
}
