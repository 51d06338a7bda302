//! `--name value` pairs, and the request that they describe.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Flags(BTreeMap<String, String>);

impl Flags {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("expected a --flag, found {word}"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        self.0
            .get(name)
            .map_or(Ok(default), |text| text.parse().map_err(|_| format!("--{name} must be a whole number")))
    }

    pub(crate) fn seconds(&self, name: &str, default: u64) -> Result<Duration, String> {
        self.number(name, default).map(Duration::from_secs)
    }

    /// Where to connect.
    pub(crate) fn to(&self) -> Result<String, String> {
        self.0.get("to").cloned().ok_or_else(|| "--to HOST:PORT is needed".to_owned())
    }

    /// A whole request for a model, as bytes.
    pub(crate) fn request(&self, model: &str, stream: bool, key: &str) -> Vec<u8> {
        let mut body = json!({
            "model": model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant that answers in plain words."},
                {"role": "user", "content": "Why does a wall by the sea stand, and for how long? Answer in one paragraph."},
            ],
        });
        if stream {
            body["stream"] = json!(true);
        }
        if let Some(tokens) = self.0.get("max-tokens").and_then(|text| text.parse::<u64>().ok()) {
            body["max_tokens"] = json!(tokens);
        }
        let body = body.to_string();
        let path = self.text("path", "/v1/chat/completions");
        let length = body.len();
        let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
        format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{key}content-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    /// The request that `--model` and `--key` describe.
    pub(crate) fn one_request(&self, stream: bool) -> Vec<u8> {
        self.request(&self.text("model", "sim-small"), stream, &self.text("key", ""))
    }
}
