//! From a client's conversation to an agent's task: the only thing that was said, as it is,
//! or all of it with who said what.

use std::fmt::Write as _;

use seawall_model::{Code, Fault, Protocol};
use seawall_wire::Inspected;
use seawall_wire::translate::{self, Context};
use serde_json::Value;

/// The task that a request gives, and what the answer needs of it. `shaped`: does the agent
/// answer JSON of a schema of its own?
///
/// # Errors
/// What is wrong with the request in its own protocol, or `not_translatable` for what an
/// agent cannot be given: tools of the client's, a shape of its own, pictures and files.
pub(super) fn read(seen: &Inspected, body: &[u8], shaped: bool) -> Result<(String, Context), Fault> {
    let generates = matches!(seen.protocol, Protocol::Chat | Protocol::Responses | Protocol::Messages);
    if !generates {
        let told =
            format!("An agent is asked by chat, responses or messages, not by {}.", seen.protocol.as_str());
        return Err(Fault::new(Code::NotTranslatable, told).at("model"));
    }
    let (chat, context) = translate::request_to(seen.protocol, Protocol::Chat, body, &seen.model)?;
    let chat: Value = serde_json::from_slice(&chat).map_err(|_| Fault::plain(Code::Internal))?;
    if chat["tools"].as_array().is_some_and(|tools| !tools.is_empty()) {
        return Err(refused("tools", "cannot be given to an agent: its definition names the tools it has"));
    }
    if !shaped && chat["response_format"]["type"].as_str().is_some_and(|format| format != "text") {
        let why = "cannot be asked of this agent: `output.schema` in its definition gives its output a shape";
        return Err(refused("response_format", why));
    }
    let messages = chat["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok((told(messages)?, context))
}

fn refused(param: &str, why: &str) -> Fault {
    Fault::new(Code::NotTranslatable, format!("`{param}` {why}.")).at(param.to_owned())
}

fn told(messages: &[Value]) -> Result<String, Fault> {
    if !messages.iter().any(|message| message["role"] == "user") {
        return Err(Fault::new(Code::BadField, "`messages` hold nothing that a user said.").at("messages"));
    }
    if let [only] = messages {
        return text(only);
    }
    let mut all = String::new();
    for message in messages {
        let role = message["role"].as_str().unwrap_or("user");
        let said = text(message)?;
        if !said.is_empty() {
            let _ = write!(all, "{role}: {said}\n\n");
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let named = |field: &str| function[field].as_str().unwrap_or_default();
            let _ = write!(all, "{role} calls {} with {}\n\n", named("name"), named("arguments"));
        }
    }
    all.truncate(all.trim_end().len());
    Ok(all)
}

/// What one message says; only text is understood.
fn text(message: &Value) -> Result<String, Fault> {
    match &message["content"] {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part["text"].as_str()).collect();
            let texts = texts
                .ok_or_else(|| refused("messages", "hold pictures or files, and an agent reads text"))?;
            Ok(texts.join("\n"))
        }
        _ => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(protocol: Protocol, body: &str) -> Result<String, Fault> {
        let seen = seawall_wire::inspect(protocol, body.as_bytes()).expect("a request");
        read(&seen, body.as_bytes(), false).map(|(task, _)| task)
    }

    #[test]
    fn the_only_thing_said_is_the_task_as_it_is() {
        for (protocol, body) in [
            (
                Protocol::Chat,
                r#"{"model":"agent/a","messages":[{"role":"user","content":"{\"city\":\"Rome\"}"}]}"#,
            ),
            (
                Protocol::Messages,
                r#"{"model":"agent/a","max_tokens":9,"messages":[{"role":"user","content":"{\"city\":\"Rome\"}"}]}"#,
            ),
            (Protocol::Responses, r#"{"model":"agent/a","input":"{\"city\":\"Rome\"}"}"#),
        ] {
            assert_eq!(task(protocol, body).as_deref(), Ok(r#"{"city":"Rome"}"#), "{}", protocol.as_str());
        }
    }

    #[test]
    fn a_conversation_says_who_said_what() {
        let body = r#"{"model":"agent/a","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},
            {"role":"assistant","content":"Hello."},{"role":"user","content":[{"type":"text","text":"Where is Rome?"}]}]}"#;
        let told = "system: Be brief.\n\nuser: Hi\n\nassistant: Hello.\n\nuser: Where is Rome?";
        assert_eq!(task(Protocol::Chat, body).as_deref(), Ok(told));
    }

    #[test]
    fn what_an_agent_cannot_be_given_is_named() {
        let refusal = |rest: &str| {
            let body = format!(r#"{{"model":"agent/a","messages":[{{"role":"user","content":"x"}}]{rest}}}"#);
            let fault = task(Protocol::Chat, &body).expect_err("refused");
            (fault.code, fault.param.map(|param| param.to_string()).unwrap_or_default())
        };
        let no = Code::NotTranslatable;
        let tool = r#","tools":[{"type":"function","function":{"name":"f"}}]"#;
        assert_eq!(refusal(tool), (no, "tools".to_owned()));
        assert_eq!(
            refusal(r#","response_format":{"type":"json_object"}"#),
            (no, "response_format".to_owned())
        );
        assert_eq!(refusal(r#","n":2"#), (no, "n".to_owned()));
        let picture = r#"{"model":"agent/a","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/y.png"}}]}]}"#;
        assert_eq!(task(Protocol::Chat, picture).map_err(|fault| fault.code), Err(no));
        let silent = r#"{"model":"agent/a","messages":[{"role":"system","content":"x"}]}"#;
        assert_eq!(task(Protocol::Chat, silent).map_err(|fault| fault.code), Err(Code::BadField));
        assert_eq!(
            task(Protocol::Completions, r#"{"model":"agent/a","prompt":"x"}"#).map_err(|f| f.code),
            Err(no)
        );
    }
}
