//! Long-term notes of agents: values of the tenant's store below `notes/`, found again by
//! the words in them. Pure: whoever has the values asks here how they are told to a model.

use seawall_model::Payload;
use seawall_model::durable::ValueRow;
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
    /// A text with words, one of which is enough; without any, all are listed by key.
    pub words: String,
    /// A listing goes on behind this key.
    pub after: Option<String>,
    /// So many at most.
    pub limit: usize,
}

impl Query {
    /// Reads the arguments of `store.list` and `store.search`, which were checked against
    /// their schemas; what is missing has its default.
    #[must_use]
    pub fn read(args: &[u8]) -> Self {
        let args: Value = serde_json::from_slice(args).unwrap_or_default();
        let text = |name: &str| args.get(name).and_then(Value::as_str);
        let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        Self {
            prefix: text("prefix").unwrap_or_default().to_owned(),
            words: text("query").unwrap_or_default().to_owned(),
            after: text("after").map(str::to_owned),
            limit: limit.unwrap_or(HITS).clamp(1, HITS_MAX),
        }
    }

    /// Does it look for words?
    #[must_use]
    pub fn searches(&self) -> bool {
        self.words.contains(char::is_alphanumeric)
    }

    /// The answer for the model, of the rows that were found in their order: one more than
    /// the limit, where there are more. `next` is where a listing goes on.
    #[must_use]
    pub fn answer(&self, rows: &[ValueRow]) -> String {
        let shown = &rows[..rows.len().min(self.limit)];
        let (more, values) = (shown.len() < rows.len(), shown.iter().map(hit).collect::<Vec<_>>());
        if self.searches() {
            return json!({ "values": values, "more": more }).to_string();
        }
        let next = shown.last().filter(|_| more).map(|row| &*row.key);
        json!({ "values": values, "next": next }).to_string()
    }
}

/// A value as far as it is shown; of a blob its size.
fn hit(row: &ValueRow) -> Value {
    let (key, version) = (&*row.key, row.version);
    let bytes = match &row.value {
        Some(Payload::Here(bytes)) => bytes,
        value => {
            let size = value.as_ref().map_or(0, Payload::len);
            return json!({ "key": key, "version": version, "bytes": size });
        }
    };
    let text = String::from_utf8_lossy(bytes);
    let shown: String = match serde_json::from_str::<Note>(&text) {
        Ok(note) => note.text,
        Err(_) => text.into_owned(),
    };
    match shown.char_indices().find(|(at, _)| *at >= HIT_BYTES_MAX) {
        Some((end, _)) => json!({ "key": key, "version": version, "value": &shown[..end], "cut": true }),
        None => json!({ "key": key, "version": version, "value": shown }),
    }
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
    use seawall_model::{At, Tenant};

    use super::*;

    fn row(key: &str, value: Payload) -> ValueRow {
        ValueRow {
            tenant: Tenant::parse("acme").expect("a tenant"),
            key: key.into(),
            version: 3,
            value: Some(value),
            at: At(1),
            by: None,
        }
    }

    fn answer(args: &str, rows: &[ValueRow]) -> Value {
        serde_json::from_str(&Query::read(args.as_bytes()).answer(rows)).expect("JSON")
    }

    #[test]
    fn a_list_says_where_it_goes_on_and_a_search_whether_there_is_more() {
        let rows = ["a", "b", "c"].map(|key| row(key, Payload::text("text")));
        let page = answer(r#"{"prefix":"","limit":2}"#, &rows);
        assert_eq!((page["values"][1]["key"].as_str(), page["next"].as_str()), (Some("b"), Some("b")));
        assert_eq!(page["values"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer(r#"{"prefix":"","limit":3,"after":"0"}"#, &rows)["next"], Value::Null);
        let found = answer(r#"{"query":"text","limit":2}"#, &rows);
        assert_eq!((&found["more"], found.get("next")), (&true.into(), None));
        assert!(!Query::read(br#"{"query":"?!"}"#).searches() && Query::read(b"nonsense").limit == HITS);
    }

    #[test]
    fn notes_become_lines_and_long_values_are_cut() {
        let note = row("notes/a/1", Payload::text(r#"{"text":"The cat likes\ntrains","by":"x","at":"y"}"#));
        let blob = row("big", Payload::Blob { digest: [1; 32], len: 70_000 });
        let told = answer("{}", &[note, blob]);
        assert_eq!(lines(told.to_string().as_bytes()), "- The cat likes trains");
        assert_eq!(told["values"][1], json!({"key": "big", "version": 3, "bytes": 70_000}));
        let long = "\u{e9}".repeat(HIT_BYTES_MAX);
        let told = answer("{}", &[row("k", Payload::text(&long))]).to_string();
        assert!(told.contains("\"cut\":true") && told.len() < 2 * HIT_BYTES_MAX, "{}", told.len());
    }
}
