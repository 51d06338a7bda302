//! Golden requests and answers, and that no bytes make reading or writing panic.

use std::borrow::Cow;

use proptest::prelude::*;
use seawall_model::{Code, Finish};

use super::*;

fn body(json: &str) -> Result<Answer, seawall_model::Fault> {
    Answer::read(json.as_bytes())
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let call = |id: &str| ToolCall { id: id.into(), name: "add".into(), arguments: "{\"a\":1}".into() };
    let mut asks = Message::said(Role::Assistant, "");
    asks.calls = vec![call("x"), call("y")];
    for message in [
        Message::said(Role::System, "be \"brief\""),
        Message::said(Role::User, ""),
        Message::outcome("x", "3\n"),
        asks,
    ] {
        assert_eq!(Message::read(&message.json()).as_ref(), Ok(&message));
        assert_eq!(kept(&message.json()), Ok(message));
    }
}

#[test]
fn an_answer_may_be_kept_whole_and_is_sent_as_its_message() {
    let whole = br#"{"id":"c1","choices":[{"message":{"role":"assistant","content":null,"tool_calls":[
        {"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},
        {"id":"","type":"function","function":{"name":"g","arguments":{"k":1}}},
        {"id":"a","type":"function","function":{"name":"h"}}]},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
    let answer = Answer::read(whole).expect("an answer");
    assert_eq!(answer.finish, Finish::Tools);
    assert_eq!(answer.usage.map(|used| (used.input.0, used.output.0)), Some((9, 4)));
    let ids: Vec<&str> = answer.message.calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["a", "call_1", "call_2"]);
    let request = Request {
        model: "m",
        messages: vec![
            Cow::Borrowed(br#"{"role":"user","content":"hi"}"#.as_slice()),
            Cow::Borrowed(whole.as_slice()),
        ],
        tools: vec![Function { name: "f", about: "adds", schema: "{\"type\":\"object\"}" }],
        pick: Pick::Never,
        temperature: Some(0.5),
        top_p: None,
        output_max: Some(Tokens(100)),
        format: Some(Format { name: "output", schema: "{}" }),
    };
    let text = String::from_utf8(written(&request).expect("written")).expect("text");
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_no_answer_is_a_fault_of_the_engine() {
    for (text, code) in [
        ("", Code::EngineGarbled),
        ("[]", Code::EngineGarbled),
        ("{}", Code::EngineGarbled),
        (r#"{"choices":[]}"#, Code::EngineGarbled),
        (r#"{"choices":[7]}"#, Code::EngineGarbled),
        (r#"{"choices":[{}]}"#, Code::EngineGarbled),
        (r#"{"choices":[{"message":{"content":7}}]}"#, Code::EngineGarbled),
        (r#"{"choices":[{"message":{"tool_calls":[7]}}]}"#, Code::EngineGarbled),
        (r#"{"error":{"message":"out of memory"}}"#, Code::EngineFailed),
        (r#"{"error":"broken"}"#, Code::EngineFailed),
    ] {
        assert_eq!(body(text).map_err(|fault| fault.code), Err(code), "{text}");
    }
}

#[test]
fn text_in_parts_refusals_and_cut_answers_are_understood() {
    let parts = body(r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}]}"#);
    assert_eq!(parts.map(|answer| answer.message.text), Ok("ab".to_owned()));
    let refused = body(r#"{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}"#);
    assert_eq!(refused.map(|answer| answer.refusal), Ok(Some("no".to_owned())));
    let cut = body(r#"{"choices":[{"message":{"content":"half"},"finish_reason":"length"}]}"#);
    assert_eq!(cut.map(|answer| answer.finish), Ok(Finish::Length));
}

#[test]
fn a_broken_message_or_schema_is_named_and_not_sent() {
    let broken =
        Request { model: "m", messages: vec![Cow::Borrowed(b"{\"role\":".as_slice())], ..Request::default() };
    assert_eq!(written(&broken).map_err(|fault| fault.code), Err(Code::Internal));
    let tool = Function { name: "f", about: "", schema: "{" };
    let broken = Request { model: "m", tools: vec![tool], ..Request::default() };
    let fault = written(&broken).expect_err("no JSON");
    assert!(fault.message.contains("schema of f"), "{}", fault.message);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let answer = Answer::read(&bytes);
        let message = kept(&bytes);
        prop_assert!(answer.is_err() && message.is_err());
    }

    #[test]
    fn any_text_survives(text in ".*", id in "[a-z]{1,8}") {
        let message = Message::outcome(id, text);
        prop_assert_eq!(Message::read(&message.json()), Ok(message));
    }
}
