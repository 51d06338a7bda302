//! What a request asks for, as one number: equal for requests that differ in nothing but
//! their blanks and the ids they carry.
//!
//! An agent that goes round in circles makes up new ids for its tool calls each time; the
//! guard against loops must not be led astray by them.

/// Keys whose text is an id or names who asks.
const IDS: [&[u8]; 9] = [
    b"id",
    b"call_id",
    b"item_id",
    b"tool_call_id",
    b"tool_use_id",
    b"request_id",
    b"user",
    b"user_id",
    b"safety_identifier",
];

/// FNV's offset basis and prime; words are mixed as in [`crate::prefix`].
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The fingerprint of a request body: of its bytes without blanks between them and
/// without the texts under keys that hold ids. One pass, nothing is built; a body that is
/// no JSON has a fingerprint too. It is meant for comparing within one process, and made
/// for accidents, not for opponents.
#[must_use]
pub fn fingerprint(body: &[u8]) -> u64 {
    let mut hash = START;
    let mut at = 0;
    // Is the text that comes next the value of an id?
    let mut id_next = false;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => {
                let end = text_end(body, at);
                let text = &body[at + 1..end.saturating_sub(1).max(at + 1)];
                let is_key = followed_by_colon(body, end);
                if is_key || !id_next {
                    hash = mix(hash, text);
                }
                id_next = is_key && IDS.contains(&text);
                at = end;
            }
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            other => {
                hash = (hash ^ u64::from(*other)).wrapping_mul(PRIME);
                id_next &= *other == b':';
                at += 1;
            }
        }
    }
    hash ^ (hash >> 32)
}

/// Just behind the quote that ends the text which begins at `at`, or the body's end.
fn text_end(body: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &body[next.min(body.len())..]) {
        let place = next + found;
        if body[place] == b'"' {
            return place + 1;
        }
        next = place + 2;
    }
    body.len()
}

fn followed_by_colon(body: &[u8], from: usize) -> bool {
    let rest = &body[from.min(body.len())..];
    rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Takes a text in, eight bytes at a time, with its length as its end.
fn mix(mut hash: u64, text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(23);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    (hash ^ text.len() as u64).wrapping_mul(PRIME).rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u64 {
        fingerprint(text.as_bytes())
    }

    #[test]
    fn ids_and_blanks_do_not_count_and_everything_else_does() {
        let call = |id: &str, arguments: &str| {
            format!(
                r#"{{"messages":[{{"tool_calls":[{{"id":"{id}","function":{{"arguments":"{arguments}"}}}}]}},{{"tool_call_id" : "{id}"}}],"n":1}}"#
            )
        };
        assert_eq!(of(&call("call_1", "x")), of(&call("call_22", "x")));
        assert_ne!(of(&call("call_1", "x")), of(&call("call_1", "y")));
        assert_eq!(of(r#"{"a": 1, "b" : "c"}"#), of(r#"{"a":1,"b":"c"}"#));
        assert_ne!(of(r#"{"a":12}"#), of(r#"{"a":21}"#));
        assert_ne!(of(r#"{"a":"b c"}"#), of(r#"{"a":"bc"}"#), "blanks inside a text are text");
        assert_ne!(of(r#"["ab","c"]"#), of(r#"["a","bc"]"#));
        assert_ne!(of(r#"{"id":7}"#), of(r#"{"id":8}"#), "only a text is an id");
        assert_ne!(of(r#"{"x":"id","y":"1"}"#), of(r#"{"x":"id","y":"2"}"#), "a value called id is no key");
    }

    #[test]
    fn anything_has_a_fingerprint() {
        for odd in ["", "\"", "\"\\", "\"a\\\"", "{\"id\":", "\"id\":\"", "\\\\\"\"", "\u{e9}\""] {
            let _ = of(odd);
        }
        assert_ne!(of(r#""a\"b""#), of(r#""a\"c""#));
    }
}
