//! Changes a request in place for an engine that speaks the client's own protocol:
//! the model's name, and for a metered stream the wish for usage. Every other byte,
//! known or not, is forwarded as it came.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::inspect::Inspected;
use crate::json::{self, Raw};
use crate::writer::{Writer, quote, written};

/// The body for the engine: `model` replaced, and with `want_usage` a stream made to
/// report usage at its end (chat and completions only). The same bytes, uncopied, where
/// nothing changes. `seen` must come from [`crate::inspect()`] on this very body.
#[must_use]
pub fn request(body: &Bytes, seen: &Inspected, model: &str, want_usage: bool) -> Bytes {
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::with_capacity(2);
    if model != seen.model {
        let mut name = Vec::with_capacity(model.len() + 2);
        quote(model, &mut name);
        edits.push((seen.model_span.clone(), name));
    }
    if want_usage && seen.stream && !seen.include_usage {
        edits.push(match &seen.stream_options_span {
            Some(span) => (span.clone(), with_usage(&body[span.clone()])),
            None => {
                let after = seen.model_span.end;
                (after..after, br#","stream_options":{"include_usage":true}"#.to_vec())
            }
        });
    }
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|(span, _)| span.start);
    let mut out = BytesMut::with_capacity(body.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut from = 0;
    for (span, new) in edits {
        out.extend_from_slice(&body[from..span.start]);
        out.extend_from_slice(&new);
        from = span.end;
    }
    out.extend_from_slice(&body[from..]);
    out.freeze()
}

/// The value of `stream_options` with the wish for usage, all else in it kept.
fn with_usage(options: &[u8]) -> Vec<u8> {
    let options = serde_json::from_slice::<Raw<'_>>(options).ok().and_then(|raw| json::object(raw).ok());
    written(|w: &mut Writer<'_>| {
        w.open();
        for (name, value) in options.iter().flat_map(json::Object::fields) {
            if name != "include_usage" {
                w.carry(name, value.get());
            }
        }
        w.key("include_usage").flag(true).close();
    })
}

#[cfg(test)]
mod tests {
    use seawall_model::Protocol;

    use super::*;
    use crate::inspect::inspect;

    fn change(body: &str, model: &str, want_usage: bool) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let seen = inspect(Protocol::Chat, &body).expect("a good request");
        String::from_utf8(request(&body, &seen, model, want_usage).to_vec()).expect("still UTF-8")
    }

    #[test]
    fn only_the_name_changes() {
        assert_eq!(
            change("{ \"x\": 1.50, \"model\" : \"a\\u0062\",\"messages\":[] , \"y\":[ ]}", "m\"2", false),
            "{ \"x\": 1.50, \"model\" : \"m\\\"2\",\"messages\":[] , \"y\":[ ]}"
        );
    }

    #[test]
    fn of_two_names_the_one_that_counts_changes() {
        assert_eq!(
            change(r#"{"model":"a","messages":[],"model":"b"}"#, "c", false),
            r#"{"model":"a","messages":[],"model":"c"}"#
        );
    }

    #[test]
    fn nothing_to_change_is_nothing_copied() {
        let body = Bytes::from_static(
            br#"{"model":"a","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        );
        let seen = inspect(Protocol::Chat, &body).expect("a good request");
        assert_eq!(request(&body, &seen, "a", true).as_ptr(), body.as_ptr());
    }

    #[test]
    fn usage_is_asked_for_whatever_stood_there() {
        assert_eq!(
            change(r#"{"model":"a","messages":[],"stream":true}"#, "b", true),
            r#"{"model":"b","stream_options":{"include_usage":true},"messages":[],"stream":true}"#
        );
        assert_eq!(
            change(r#"{"stream_options":null,"model":"a","messages":[],"stream":true}"#, "a", true),
            r#"{"stream_options":{"include_usage":true},"model":"a","messages":[],"stream":true}"#
        );
        assert_eq!(
            change(
                r#"{"model":"a","messages":[],"stream":true,"stream_options":{"include_usage":false, "o":[1]}}"#,
                "a",
                true
            ),
            r#"{"model":"a","messages":[],"stream":true,"stream_options":{"o":[1],"include_usage":true}}"#
        );
        assert_eq!(change(r#"{"model":"a","messages":[]}"#, "a", true), r#"{"model":"a","messages":[]}"#);
    }
}
