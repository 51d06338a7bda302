//! Changes a request in place for an engine that speaks the client's own protocol:
//! the model's name, for a metered stream the wish for usage, and a limit on the output
//! where the client named none. Every other byte, known or not, is forwarded as it came.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use seawall_model::{Protocol, Tokens};

use crate::inspect::Inspected;
use crate::json::{self, Raw};
use crate::writer::{Writer, quote, written};

/// The body for the engine: `model` replaced, with `want_usage` a stream made to report
/// usage at its end (Chat and Completions only; the others always do), and `limit`
/// written as the most output tokens where the client named none (only in protocols
/// that generate). The same bytes, uncopied, where nothing changes. `seen` must come
/// from [`crate::inspect()`] on this very body.
#[must_use]
pub fn request(
    body: &Bytes,
    seen: &Inspected,
    model: &str,
    want_usage: bool,
    limit: Option<Tokens>,
) -> Bytes {
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::with_capacity(3);
    if model != seen.model {
        let mut name = Vec::with_capacity(model.len() + 2);
        quote(model, &mut name);
        edits.push((seen.model_span.clone(), name));
    }
    let after = seen.model_span.end;
    let has_option = matches!(seen.protocol, Protocol::Chat | Protocol::Completions);
    if want_usage && has_option && seen.stream && !seen.include_usage {
        edits.push(match &seen.stream_options_span {
            Some(span) => (span.clone(), with_usage(&body[span.clone()])),
            None => (after..after, br#","stream_options":{"include_usage":true}"#.to_vec()),
        });
    }
    let unlimited = limit.filter(|_| seen.output_max.is_none());
    if let (Some(limit), Some(name)) = (unlimited, limit_name(seen.protocol)) {
        edits.push(match &seen.output_max_span {
            // The last of equal fields counts: a null may not be left to stand behind it.
            Some(span) => (span.clone(), limit.0.to_string().into_bytes()),
            None => (after..after, format!(r#","{name}":{}"#, limit.0).into_bytes()),
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

/// The field that limits the output. For Chat the older of its two names, which more
/// engines know.
const fn limit_name(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Chat | Protocol::Completions | Protocol::Messages => Some("max_tokens"),
        Protocol::Responses => Some("max_output_tokens"),
        Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => None,
    }
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
    use super::*;
    use crate::inspect::inspect;

    fn change(body: &str, model: &str, want_usage: bool) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let seen = inspect(Protocol::Chat, &body).expect("a good request");
        String::from_utf8(request(&body, &seen, model, want_usage, None).to_vec()).expect("still UTF-8")
    }

    #[test]
    fn only_the_name_changes() {
        assert_eq!(
            change("{ \"x\": 1.50, \"model\" : \"a\\u0062\",\"messages\":[] , \"y\":[ ]}", "m\"2", false),
            "{ \"x\": 1.50, \"model\" : \"m\\\"2\",\"messages\":[] , \"y\":[ ]}"
        );
    }

    #[test]
    fn nothing_to_change_is_nothing_copied() {
        let body = Bytes::from_static(
            br#"{"model":"a","messages":[],"max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}"#,
        );
        let seen = inspect(Protocol::Chat, &body).expect("a good request");
        assert_eq!(request(&body, &seen, "a", true, Some(Tokens(5))).as_ptr(), body.as_ptr());
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

    #[test]
    fn usage_is_asked_for_only_where_it_can_be() {
        for (protocol, body) in [
            (Protocol::Responses, r#"{"model":"a","input":"i","stream":true}"#),
            (Protocol::Messages, r#"{"model":"a","max_tokens":1,"messages":[],"stream":true}"#),
            (Protocol::Embeddings, r#"{"model":"a","input":"i","stream":true}"#),
            (Protocol::Other, r#"{"model":"a","stream":true}"#),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let seen = inspect(protocol, &body).expect("a good request");
            assert_eq!(request(&body, &seen, "a", true, None).as_ptr(), body.as_ptr(), "{protocol:?}");
        }
        let body = Bytes::from_static(br#"{"model":"a","prompt":"p","stream":true}"#);
        let seen = inspect(Protocol::Completions, &body).expect("a good request");
        let out = request(&body, &seen, "a", true, None);
        assert!(inspect(Protocol::Completions, &out).expect("still good").include_usage);
    }

    #[test]
    fn a_limit_is_written_where_none_is_named() {
        for (protocol, body, want) in [
            (
                Protocol::Chat,
                r#"{"model":"a","messages":[],"stream":true}"#,
                r#"{"model":"b","stream_options":{"include_usage":true},"max_tokens":7,"messages":[],"stream":true}"#,
            ),
            (
                Protocol::Chat,
                r#"{"model":"a","messages":[],"max_tokens": null}"#,
                r#"{"model":"b","messages":[],"max_tokens": 7}"#,
            ),
            (
                Protocol::Chat,
                r#"{"model":"a","messages":[],"max_completion_tokens":3}"#,
                r#"{"model":"b","messages":[],"max_completion_tokens":3}"#,
            ),
            (
                Protocol::Completions,
                r#"{"prompt":"p","model":"a"}"#,
                r#"{"prompt":"p","model":"b","max_tokens":7}"#,
            ),
            (
                Protocol::Responses,
                r#"{"model":"a","input":"i"}"#,
                r#"{"model":"b","max_output_tokens":7,"input":"i"}"#,
            ),
            (
                Protocol::Messages,
                r#"{"model":"a","max_tokens":1,"messages":[]}"#,
                r#"{"model":"b","max_tokens":1,"messages":[]}"#,
            ),
            (Protocol::Embeddings, r#"{"model":"a","input":"i"}"#, r#"{"model":"b","input":"i"}"#),
            (Protocol::Other, r#"{"model":"a"}"#, r#"{"model":"b"}"#),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let seen = inspect(protocol, &body).expect("a good request");
            let out = request(&body, &seen, "b", true, Some(Tokens(7)));
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}
