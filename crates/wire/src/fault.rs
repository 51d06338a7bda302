//! Refusals and failures in the words of each protocol, and the human message inside
//! an engine's own error.

use seawall_model::limits::ENGINE_MESSAGE_CHARS_MAX;
use seawall_model::{Fault, Protocol};

use crate::json::{self, Object};
use crate::writer::{Writer, event, written};

/// The body of an error answer in the client's protocol.
#[must_use]
pub fn fault_body(protocol: Protocol, fault: &Fault, trace: &str) -> Vec<u8> {
    written(|w| body(w, protocol, fault, trace))
}

/// The event that ends a stream already begun. Responses' `sequence_number` is zero: it
/// is not known here, and no client orders by it once an error has come.
#[must_use]
pub fn fault_event(protocol: Protocol, fault: &Fault, trace: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match protocol {
        Protocol::Messages | Protocol::CountTokens => {
            event(&mut out, Some("error"), |w| body(w, protocol, fault, trace));
        }
        // OpenAI sends the fields both at the top (as documented) and inside `error`
        // (as its client raises on).
        Protocol::Responses => event(&mut out, Some("error"), |w| {
            w.open().field("type", "error").field("code", fault.code.as_str());
            w.field("message", &fault.message).key("param").text_or_null(fault.param.as_deref());
            w.key("sequence_number").count(0);
            w.key("error");
            openai(w, fault, trace);
            w.close();
        }),
        _ => event(&mut out, None, |w| body(w, protocol, fault, trace)),
    }
    out
}

fn body(w: &mut Writer<'_>, protocol: Protocol, fault: &Fault, trace: &str) {
    w.open();
    if protocol.is_anthropic() {
        w.field("type", "error").key("error").open();
        w.field("type", anthropic_type(fault.code.status())).field("message", &fault.message);
        w.field("code", fault.code.as_str()).key("param").text_or_null(fault.param.as_deref());
        w.field("hint", fault.hint()).close().field("request_id", trace);
    } else {
        w.key("error");
        openai(w, fault, trace);
    }
    w.close();
}

fn openai(w: &mut Writer<'_>, fault: &Fault, trace: &str) {
    w.open().field("message", &fault.message).field("type", openai_type(fault.code.status()));
    w.key("param").text_or_null(fault.param.as_deref()).field("code", fault.code.as_str());
    w.field("hint", fault.hint()).field("trace_id", trace).close();
}

/// OpenAI's error `type` for a status.
fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// Anthropic's error `type` for a status.
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// The human message inside an engine's error body: OpenAI's, Anthropic's, FastAPI's,
/// llama.cpp's, Ollama's, or the first line of plain text. One line, without control
/// characters, at most [`ENGINE_MESSAGE_CHARS_MAX`] characters.
#[must_use]
pub fn engine_message(body: &[u8]) -> Option<String> {
    let found = match Object::parse(body) {
        Some(object) => inside(&object)?,
        // Some wrap the object in a list (Google), some send a bare JSON string.
        None => match serde_json::from_slice::<json::Raw<'_>>(body) {
            Ok(raw) => match json::items(raw) {
                Some(items) => inside(&json::object(items.first()?).ok()?)?,
                None => json::text(raw)?,
            },
            Err(_) => plain(body)?,
        },
    };
    let clean: String = found
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(ENGINE_MESSAGE_CHARS_MAX)
        .collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// The message of an error object that is already apart.
fn inside(object: &Object<'_>) -> Option<String> {
    for name in ["error", "detail", "message", "msg", "errors"] {
        let Some(raw) = object.find(name) else { continue };
        if let Some(text) = json::text(raw) {
            return Some(text);
        }
        let inner = match json::items(raw) {
            Some(items) => match items.first() {
                Some(first) if json::is_text(first) => return json::text(first),
                Some(first) => json::object(first).ok(),
                None => None,
            },
            None => json::object(raw).ok(),
        };
        let told = inner.and_then(|inner| {
            inner.hint("message").or_else(|| inner.hint("msg")).or_else(|| inner.hint("type"))
        });
        if told.is_some() {
            return told;
        }
    }
    None
}

/// The first line of plain text; pages of HTML say nothing.
fn plain(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * ENGINE_MESSAGE_CHARS_MAX)]);
    let line = text.trim().lines().next()?;
    (!line.starts_with(['<', '{', '['])).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use seawall_model::Code;
    use seawall_model::code::TABLE;

    use super::*;

    #[test]
    fn every_code_renders_in_every_protocol() {
        for row in TABLE {
            for protocol in Protocol::ALL {
                let fault = Fault::new(row.code, "it \"broke\"\n").at("messages[0]");
                let body: serde_json::Value =
                    serde_json::from_slice(&fault_body(protocol, &fault, "t1")).expect("JSON");
                assert_eq!(body["error"]["message"], "it \"broke\"\n");
                assert_eq!(body["error"]["code"], row.name);
                assert_eq!(body["error"]["hint"], row.hint);
                let trace =
                    if protocol.is_anthropic() { &body["request_id"] } else { &body["error"]["trace_id"] };
                assert_eq!(trace, "t1");
                let event = String::from_utf8(fault_event(protocol, &fault, "t1")).expect("UTF-8");
                assert!(event.ends_with("\n\n") && event.contains("data: {"));
            }
        }
    }

    #[test]
    fn the_types_are_those_of_the_real_apis() {
        let told = |protocol, code| {
            let body: serde_json::Value =
                serde_json::from_slice(&fault_body(protocol, &Fault::plain(code), "t")).expect("JSON");
            body["error"]["type"].as_str().expect("a string").to_owned()
        };
        assert_eq!(told(Protocol::Chat, Code::BadKey), "authentication_error");
        assert_eq!(told(Protocol::Chat, Code::QueueFull), "rate_limit_error");
        assert_eq!(told(Protocol::Chat, Code::EngineFailed), "server_error");
        assert_eq!(told(Protocol::Messages, Code::ModelUnknown), "not_found_error");
        assert_eq!(told(Protocol::Messages, Code::EngineDown), "overloaded_error");
        assert_eq!(told(Protocol::Messages, Code::BadJson), "invalid_request_error");
    }

    #[test]
    fn engines_messages_are_found_in_every_shape() {
        for (body, message) in [
            (r#"{"error":{"message":"too\nlong","type":"x"}}"#, Some("too long")),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#, Some("busy")),
            (r#"{"error":"model not found"}"#, Some("model not found")),
            (r#"{"detail":"Not Found"}"#, Some("Not Found")),
            (r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, Some("field required")),
            (r#"{"object":"error","message":"nope","code":400}"#, Some("nope")),
            (r#"[{"error":{"code":400,"message":"from a list"}}]"#, Some("from a list")),
            ("upstream connect error\r\nmore", Some("upstream connect error")),
            ("<html><body>502</body></html>", None),
            ("", None),
            (r#"{"error":{}}"#, None),
        ] {
            assert_eq!(engine_message(body.as_bytes()).as_deref(), message, "{body}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(10_000));
        assert_eq!(engine_message(long.as_bytes()).map(|text| text.len()), Some(ENGINE_MESSAGE_CHARS_MAX));
    }
}
