//! Estimates a prompt's length from its bytes, for admission and for clients who ask.
//! No tokenizer: engines differ, and the kernel corrects the estimate by what they report.

use seawall_model::{Fault, Tokens};
use serde::de::IgnoredAny;

use crate::json;
use crate::writer::written;

/// Bytes of JSON text per token. English prose has about four and a half; quotes,
/// names and code bring it down.
const BYTES_PER_TOKEN: usize = 4;
/// What one picture or file costs, whatever its bytes: between OpenAI's 85 to 1,105 and
/// Anthropic's up to 1,600 for the usual sizes.
const ATTACHMENT_TOKENS: usize = 1_000;
/// A string with no blank in its first bytes and longer than this is base64, not prose.
const BASE64_BYTES_MIN: usize = 1_024;

/// The estimate for a prompt in parts; at least one.
pub(crate) fn of_parts(parts: &[&[u8]]) -> Tokens {
    let total: usize = parts.iter().map(|part| of_text(part)).sum();
    Tokens(u64::try_from(total.max(1)).unwrap_or(u64::MAX))
}

fn of_text(text: &[u8]) -> usize {
    if memchr::memmem::find(text, b"base64").is_none() {
        return text.len().div_ceil(BYTES_PER_TOKEN);
    }
    let mut prose = text.len();
    let mut attachments = 0;
    let mut from = 0;
    for at in memchr::memchr_iter(b'"', text) {
        let string = &text[from..at];
        if string.len() > BASE64_BYTES_MIN && !string[..BASE64_BYTES_MIN].contains(&b' ') {
            prose -= string.len();
            attachments += 1;
        }
        from = at + 1;
    }
    prose.div_ceil(BYTES_PER_TOKEN) + attachments * ATTACHMENT_TOKENS
}

/// The answer to `count_tokens` where no engine can count: an estimate from the system
/// prompt, tools and messages.
///
/// # Errors
/// `bad_json` for a body that is not JSON.
pub fn estimate(body: &[u8]) -> Result<Tokens, Fault> {
    let text = json::utf8(body)?;
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| json::broken(&error))?;
        return Ok(of_parts(&[body]));
    }
    let request = json::body(body)?;
    let parts: Vec<&[u8]> = ["tools", "system", "messages"]
        .into_iter()
        .filter_map(|name| request.find(name))
        .map(|raw| raw.get().as_bytes())
        .collect();
    Ok(of_parts(&parts))
}

/// The body of an answer to `count_tokens`.
#[must_use]
pub fn count_tokens_answer(tokens: Tokens) -> Vec<u8> {
    written(|w| {
        w.open().key("input_tokens").count(tokens.0).close();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_counts_flat() {
        let prose = br#"{"messages":[{"content":"data in base64 is long"}]}"#;
        let small = estimate(prose).expect("valid");
        let picture = format!(
            r#"{{"messages":[{{"content":"data in base64 is long","x":"data:image/png;base64,{}"}}]}}"#,
            "A".repeat(4_000_000)
        );
        let large = estimate(picture.as_bytes()).expect("valid");
        assert!(large.0 > small.0 && large.0 < small.0 + 1_100, "{large:?}");
    }

    #[test]
    fn nothing_is_never_free() {
        assert_eq!(estimate(b"{}"), Ok(Tokens(1)));
        assert_eq!(count_tokens_answer(Tokens(7)), br#"{"input_tokens":7}"#);
        assert!(estimate(b"{").is_err());
    }
}
