//! Long-term notes of agents: values of the tenant's store below `notes/`, found again by
//! the words in them. Pure: whoever has the values asks here which of them fit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes of one note: a paragraph. What is longer is a document and belongs in the store.
pub const NOTE_BYTES_MAX: usize = 8 << 10;
/// Values that one search answers at most: what a model reads with attention.
pub const HITS_MAX: usize = 50;
/// Values that one search answers where it does not say.
pub const HITS: usize = 8;
/// Bytes of a value shown in a search; the whole is a `store.get` away.
pub const HIT_BYTES_MAX: usize = 2 << 10;

/// Where notes of all namespaces lie.
pub const ROOT: &str = "notes/";

/// The start of the keys of a namespace's notes.
#[must_use]
pub fn prefix(namespace: &str) -> String {
    format!("{ROOT}{namespace}/")
}

/// A note as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it says.
    pub text: String,
    /// Words that it goes under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The agent that wrote it.
    pub by: String,
    /// When: RFC 3339, UTC.
    pub at: String,
}

/// A search or a listing as a model asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Keys begin with this.
    pub prefix: String,
    /// Words to look for; none lists everything.
    pub words: BTreeSet<String>,
    /// So many at most.
    pub limit: usize,
}

impl Query {
    /// Reads the arguments of `store.list` and `store.search`, which were checked against
    /// their schemas; what is missing has its default.
    #[must_use]
    pub fn read(args: &[u8]) -> Self {
        let args: Value = serde_json::from_slice(args).unwrap_or_default();
        let text = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
        let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        Self {
            prefix: text("prefix").to_owned(),
            words: words(text("query")).collect(),
            limit: limit.unwrap_or(HITS).clamp(1, HITS_MAX),
        }
    }

    /// The answer for the model: of all values whose key begins with the prefix, the best
    /// ones, best first; equally good ones in the order of their keys.
    ///
    /// Scored by BM25 (Robertson and Zaragoza, 2009; k1 = 1.2, b = 0.75) in thousandths.
    #[must_use]
    pub fn answer<'a>(&self, values: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
        let values: Vec<(&str, &[u8])> =
            values.filter(|(key, _)| key.starts_with(self.prefix.as_str())).collect();
        let found = if self.words.is_empty() {
            values.iter().map(|(key, value)| (0, *key, *value)).collect()
        } else {
            self.rank(&values)
        };
        let all = found.len();
        let hits: Vec<Value> =
            found.into_iter().take(self.limit).map(|(_, key, value)| hit(key, value)).collect();
        json!({ "found": all, "shown": hits.len(), "values": hits }).to_string()
    }

    fn rank<'a>(&self, values: &[(&'a str, &'a [u8])]) -> Vec<(u64, &'a str, &'a [u8])> {
        let mut counted = Vec::with_capacity(values.len());
        let mut having: BTreeMap<&str, u64> = BTreeMap::new();
        let mut length_sum = 0_u64;
        for (key, value) in values {
            let text = String::from_utf8_lossy(value);
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            let mut length = 0_u64;
            for word in words(key).chain(words(&text)) {
                length += 1;
                if let Some(word) = self.words.get(&word) {
                    *counts.entry(word).or_default() += 1;
                }
            }
            for word in counts.keys() {
                *having.entry(word).or_default() += 1;
            }
            length_sum += length;
            counted.push((counts, length));
        }
        let mean = (length_sum as f64 / values.len().max(1) as f64).max(1.0);
        let mut ranked: Vec<(u64, &str, &[u8])> = Vec::new();
        for ((key, value), (counts, length)) in values.iter().zip(counted) {
            let score: f64 = counts
                .iter()
                .map(|(word, count)| {
                    let (count, having) = (*count as f64, having.get(word).copied().unwrap_or(0) as f64);
                    let rare = (1.0 + (values.len() as f64 - having + 0.5) / (having + 0.5)).ln();
                    let weight = count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length as f64 / mean));
                    rare * weight
                })
                .sum();
            if !counts.is_empty() {
                ranked.push(((score * 1_000.0).round() as u64, key, value));
            }
        }
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        ranked
    }
}

fn hit(key: &str, value: &[u8]) -> Value {
    let text = String::from_utf8_lossy(value);
    let shown: String = match serde_json::from_str::<Note>(&text) {
        Ok(note) => note.text,
        Err(_) => text.into_owned(),
    };
    match shown.char_indices().find(|(at, _)| *at >= HIT_BYTES_MAX) {
        Some((end, _)) => json!({ "key": key, "value": &shown[..end], "cut": true }),
        None => json!({ "key": key, "value": shown }),
    }
}

/// The words of a text: runs of letters and digits, in lower case. Scripts that are
/// written without blanks are found by their whole runs only.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The notes of a search's answer as lines for a prompt.
#[must_use]
pub fn lines(answer: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let values = answer.get("values").and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = values.iter().filter_map(|hit| hit.get("value").and_then(Value::as_str));
    let lines: Vec<String> = texts.map(|text| format!("- {}", text.replace('\n', " "))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [(&str, &str); 4] = [
        ("notes/a/1", r#"{"text":"The cat likes trains","by":"x","at":"y"}"#),
        ("notes/a/2", "trains trains trains and a dog"),
        ("notes/b/1", "a cat elsewhere"),
        ("other", "cat"),
    ];

    fn keys(args: &str) -> Vec<String> {
        let values = VALUES.iter().map(|(key, value)| (*key, value.as_bytes()));
        let answer: Value = serde_json::from_str(&Query::read(args.as_bytes()).answer(values)).expect("JSON");
        let hits = answer["values"].as_array().expect("a list").clone();
        hits.iter().map(|hit| hit["key"].as_str().expect("a key").to_owned()).collect()
    }

    #[test]
    fn values_are_found_by_their_words_best_first() {
        assert_eq!(keys(r#"{"prefix":"notes/","query":"CAT, trains!"}"#)[0], "notes/a/1");
        assert_eq!(keys(r#"{"prefix":"notes/a/","query":"trains"}"#), ["notes/a/2", "notes/a/1"]);
        assert_eq!(keys(r#"{"prefix":"notes/b/","query":"dog"}"#), Vec::<String>::new());
        assert_eq!(keys(r#"{"prefix":"notes/a/"}"#), ["notes/a/1", "notes/a/2"]);
        assert_eq!(keys(r#"{"prefix":"","limit":1}"#), ["notes/a/1"]);
        assert_eq!(keys("nonsense").len(), 4);
    }

    #[test]
    fn notes_become_lines_and_long_values_are_cut() {
        let values = VALUES.iter().map(|(key, value)| (*key, value.as_bytes()));
        let answer = Query::read(br#"{"prefix":"notes/a/1"}"#).answer(values);
        assert_eq!(lines(answer.as_bytes()), "- The cat likes trains");
        let long = "\u{e9}".repeat(HIT_BYTES_MAX);
        let answer = Query::read(b"{}").answer(std::iter::once(("k", long.as_bytes())));
        assert!(answer.contains("\"cut\":true") && answer.len() < 2 * HIT_BYTES_MAX, "{}", answer.len());
    }
}
