//! What answers look like, in every protocol.

use serde_json::Value;

use super::{HELLO, Options, quick, start};

#[tokio::test]
async fn chat_answers_whole_and_streamed_with_the_same_words() {
    let sim = start(quick()).await;
    let whole = sim.post("/v1/chat/completions", &format!(r#"{{"model":"sim-small",{HELLO}}}"#)).await;
    let answer = whole.json();
    assert_eq!((whole.status, &answer["object"]), (200, &Value::from("chat.completion")));
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let text = answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    let body =
        format!(r#"{{"model":"sim-small","stream":true,"stream_options":{{"include_usage":true}},{HELLO}}}"#);
    let streamed = sim.post("/v1/chat/completions", &body).await;
    assert!(streamed.whole && streamed.body.ends_with("data: [DONE]\n\n"));
    assert!(streamed.head.contains("text/event-stream"));
    let events = streamed.events();
    let said: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, text);
    let stamps: Vec<u64> = events.iter().filter_map(|event| event["x_sim"]["t_us"].as_u64()).collect();
    assert_eq!(stamps.len(), 12);
    assert!(stamps.is_sorted());
    let last = events.last().expect("events");
    assert_eq!(
        (&last["usage"]["total_tokens"], last["choices"].as_array().map(Vec::len)),
        (&answer["usage"]["total_tokens"], Some(0))
    );
    let state = sim.state().await;
    assert_eq!((&state["finished"], &state["in_flight"]), (&Value::from(2), &Value::from(0)));
}

#[tokio::test]
async fn lengths_choices_and_stops_are_honoured() {
    let sim = start(quick()).await;
    let ask = async |extra: &str| {
        let body = format!(r#"{{"model":"sim-small",{extra},{HELLO}}}"#);
        sim.post("/v1/chat/completions", &body).await.json()
    };
    let short = ask(r#""max_tokens":5"#).await;
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&"length".into(), &5.into())
    );
    let three = ask(r#""n":3"#).await;
    let texts: Vec<_> =
        (0..3).map(|at| three["choices"][at]["message"]["content"].as_str().expect("text")).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    let streamed = sim
        .post("/v1/chat/completions", &format!(r#"{{"model":"sim-small","n":2,"stream":true,{HELLO}}}"#))
        .await;
    for choice in 0..2 {
        let own = |event: &&Value| {
            event["choices"][0]["index"] == choice && event["choices"][0]["delta"]["content"].is_string()
        };
        assert_eq!(streamed.events().iter().filter(own).count(), 13, "a role and twelve words");
    }
    let json = ask(r#""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}}}"#).await;
    assert_eq!(json["choices"][0]["message"]["content"], r#"{"a":1}"#);
    let completion =
        sim.post("/v1/completions", r#"{"model":"sim-small","prompt":"x","max_tokens":3}"#).await.json();
    assert_eq!(
        (&completion["object"], &completion["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"length".into())
    );
}

#[tokio::test]
async fn chat_calls_tools() {
    let sim = start(quick()).await;
    let body = r#"{"model":"sim-small","messages":[{"role":"user","content":"call look {\"at\":\"sea\"}"}],
        "tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}],"stream":STREAM}"#;
    let whole = sim.post("/v1/chat/completions", &body.replace("STREAM", "false")).await.json();
    let call = &whole["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(
        (&call["function"]["name"], &call["function"]["arguments"]),
        (&"look".into(), &r#"{"at":"sea"}"#.into())
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    let events = sim.post("/v1/chat/completions", &body.replace("STREAM", "true")).await.events();
    let deltas =
        events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]);
    assert_eq!(deltas.filter_map(Value::as_str).collect::<String>(), r#"{"at":"sea"}"#);
}

#[tokio::test]
async fn messages_and_responses_call_tools() {
    let sim = start(quick()).await;
    let body = r#"{"model":"sim-small","max_tokens":50,"messages":[{"role":"user","content":"look"}],
        "tools":[{"name":"look","input_schema":{"type":"object","required":["at"],"properties":{"at":{"type":"string"}}}}],
        "tool_choice":{"type":"any"},"stream":STREAM}"#;
    let whole = sim.post("/v1/messages", &body.replace("STREAM", "false")).await.json();
    assert_eq!(
        (&whole["stop_reason"], &whole["content"][0]["input"]["at"]),
        (&"tool_use".into(), &"text".into())
    );
    let events = sim.post("/v1/messages", &body.replace("STREAM", "true")).await.events();
    let pieces: String = events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(pieces, r#"{"at":"text"}"#);
    let kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        (kinds[0], kinds[1], kinds[kinds.len() - 1]),
        ("message_start", "content_block_start", "message_stop")
    );

    let body = r#"{"model":"sim-small","input":"call look","tools":[{"type":"function","name":"look"}],"stream":STREAM}"#;
    let whole = sim.post("/v1/responses", &body.replace("STREAM", "false")).await.json();
    assert_eq!(
        (&whole["output"][0]["type"], &whole["output"][0]["name"]),
        (&"function_call".into(), &"look".into())
    );
    let events = sim.post("/v1/responses", &body.replace("STREAM", "true")).await.events();
    let numbers: Vec<_> = events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let last = &events.last().expect("events")["response"]["output"][0];
    assert_eq!((&last["name"], &last["arguments"]), (&"look".into(), &whole["output"][0]["arguments"]));
}

#[tokio::test]
async fn messages_and_responses_stream_what_they_say_whole() {
    let sim = start(quick()).await;
    let body = format!(r#"{{"model":"sim-small","max_tokens":50,{HELLO},"stream":STREAM}}"#);
    let whole = sim.post("/v1/messages", &body.replace("STREAM", "false")).await.json();
    let events = sim.post("/v1/messages", &body.replace("STREAM", "true")).await.events();
    let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"][0]["text"], said);
    assert_eq!((&whole["stop_reason"], &whole["usage"]["output_tokens"]), (&"end_turn".into(), &12.into()));
    let count =
        sim.post("/v1/messages/count_tokens", &format!(r#"{{"model":"sim-small",{HELLO}}}"#)).await.json();
    let usage = &whole["usage"];
    assert_eq!(
        count["input_tokens"].as_u64(),
        Some(
            usage["input_tokens"].as_u64().expect("a number")
                + usage["cache_read_input_tokens"].as_u64().expect("a number")
        )
    );

    let body = r#"{"model":"sim-small","input":"Say hello","max_output_tokens":4,"stream":STREAM}"#;
    let whole = sim.post("/v1/responses", &body.replace("STREAM", "false")).await.json();
    let events = sim.post("/v1/responses", &body.replace("STREAM", "true")).await.events();
    let said: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(whole["output"][0]["content"][0]["text"], said);
    assert_eq!(
        (&whole["status"], &events.last().expect("events")["type"]),
        (&"incomplete".into(), &"response.incomplete".into())
    );
}

#[tokio::test]
async fn embeddings_come_as_numbers_or_base64() {
    let sim = start(quick()).await;
    let plain =
        sim.post("/v1/embeddings", r#"{"model":"sim-embed","input":["a","b"],"dimensions":8}"#).await.json();
    let vectors: Vec<Vec<f64>> = (0..2)
        .map(|at| serde_json::from_value(plain["data"][at]["embedding"].clone()).expect("numbers"))
        .collect();
    assert_eq!(vectors[0].len(), 8);
    assert_ne!(vectors[0], vectors[1]);
    let coded = sim
        .post(
            "/v1/embeddings",
            r#"{"model":"sim-embed","input":"a","dimensions":8,"encoding_format":"base64"}"#,
        )
        .await
        .json();
    // Eight floats are 32 bytes, 44 letters.
    assert_eq!(coded["data"][0]["embedding"].as_str().map(str::len), Some(44));
    assert_eq!(sim.post("/v1/embeddings", r#"{"model":"sim-embed","input":[]}"#).await.status, 400);
}

#[tokio::test]
async fn timers_set_the_pace_and_prefixes_are_cached() {
    let sim = start(quick()).await;
    let body = format!(r#"{{"model":"sim-small?first_ms=30&token_ms=20&output=4","stream":true,{HELLO}}}"#);
    let stamps: Vec<u64> = sim
        .post("/v1/chat/completions", &body)
        .await
        .events()
        .iter()
        .filter_map(|event| event["x_sim"]["t_us"].as_u64())
        .collect();
    assert!(stamps[3] - stamps[0] >= 59_000, "three gaps of 20 ms: {stamps:?}");
    let long = format!(
        r#"{{"model":"sim-small","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "sea ".repeat(400)
    );
    let cached = async || {
        sim.post("/v1/chat/completions", &long).await.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()
    };
    assert_eq!(cached().await, Some(0));
    assert!(cached().await > Some(300));
    let metrics = sim.ask("GET", "/metrics", "", "").await.body;
    for name in [
        "num_requests_running",
        "prefix_cache_hits_total",
        "time_to_first_token_seconds_bucket",
        "kv_cache_usage_perc",
    ] {
        assert!(metrics.contains(&format!("vllm:{name}{{model_name=\"sim-small\"")), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn a_script_leads_an_agent_through_its_turns() {
    let script = "[deploy]\ncall status {\"name\":\"api\"}\n& call logs\ntext All is well.\n";
    let sim = start(Options { script: Some(script.into()), ..quick() }).await;
    let first = sim
        .post(
            "/v1/chat/completions",
            r#"{"model":"sim-small","messages":[{"role":"user","content":"deploy"}]}"#,
        )
        .await
        .json();
    assert_eq!(first["choices"][0]["message"]["tool_calls"][1]["function"]["name"], "logs");
    let second = r#"{"model":"sim-small","messages":[{"role":"user","content":"deploy"},{"role":"assistant","tool_calls":[]},{"role":"tool","content":"ok"}]}"#;
    assert_eq!(
        sim.post("/v1/chat/completions", second).await.json()["choices"][0]["message"]["content"],
        "All is well."
    );
}
