//! What goes wrong, and who notices: cancels, slow readers, faults, refusals.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HELLO, Options, quick, start};
use crate::tasks::{Kind, Tasks};

#[tokio::test]
async fn a_client_that_leaves_is_noticed_in_every_phase() {
    let sim = start(Options { slots: 1, ..quick() }).await;
    let long = |id: &str, more: &str, stream: bool| {
        format!(r#"{{"model":"sim-small?output=100000&id={id}{more}","stream":{stream},{HELLO}}}"#)
    };
    let mut streaming = sim.send("POST", "/v1/chat/completions", "", &long("stream", "", true)).await;
    let mut first = [0; 400];
    streaming.read_exact(&mut first).await.expect("tokens flow");
    let queued = sim.send("POST", "/v1/chat/completions", "", &long("queued", "", false)).await;
    sim.until(|state| state["waiting"] == 1).await;
    drop(queued);
    sim.until(|state| state["waiting"] == 0 && state["cancelled"] == 1).await;
    drop(streaming);
    sim.until(|state| state["running"] == 0 && state["cancelled"] == 2).await;
    let unary = sim.send("POST", "/v1/chat/completions", "", &long("unary", "", false)).await;
    sim.until(|state| state["running"] == 1).await;
    drop(unary);
    let prefill =
        sim.send("POST", "/v1/chat/completions", "", &long("prefill", "&first_ms=100000", true)).await;
    sim.until(|state| state["cancelled"] == 3 && state["in_flight"] == 1).await;
    drop(prefill);
    let hung = sim
        .send(
            "POST",
            "/v1/messages",
            "",
            &long("hung", "&fault=hang", false).replace("\"stream\"", "\"max_tokens\":5,\"stream\""),
        )
        .await;
    sim.until(|state| state["cancelled"] == 4 && state["in_flight"] == 1).await;
    drop(hung);
    let state = sim.until(|state| state["cancelled"] == 5 && state["in_flight"] == 0).await;
    let expected = [
        ("queued", "queued"),
        ("stream", "stream"),
        ("unary", "unary"),
        ("prefill", "prefill"),
        ("hung", "unary"),
    ];
    for (at, (id, phase)) in expected.into_iter().enumerate() {
        let cancel = &state["cancels"][at];
        assert_eq!((&cancel["id"], &cancel["phase"]), (&id.into(), &phase.into()));
    }
    assert!(state["cancels"][1]["tokens_sent"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_slow_reader_stops_the_stream() {
    let sim = start(quick()).await;
    let body =
        format!(r#"{{"model":"sim-small?output=6000&token_ms=0&token_bytes=100000","stream":true,{HELLO}}}"#);
    let mut stream = sim.send("POST", "/v1/chat/completions", "", &body).await;
    let mut first = [0; 400];
    stream.read_exact(&mut first).await.expect("it begins");
    // 600 MB are offered; the sockets' buffers fill and then nothing more is made.
    let mut before = 0;
    loop {
        // sleeps because it watches for output to stop, which nothing announces.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let made = sim.state().await["bytes"].as_u64().expect("a number");
        if made == before {
            break;
        }
        before = made;
    }
    assert!(before < 32 << 20, "{before} bytes were made for a reader that took 400");
}

#[tokio::test]
async fn faults_happen_as_asked() {
    let sim = start(quick()).await;
    let ask = async |fault: &str, stream: bool| {
        let body = format!(r#"{{"model":"sim-small?fault={fault}","stream":{stream},{HELLO}}}"#);
        sim.post("/v1/chat/completions", &body).await
    };
    let limited = ask("429@7", false).await;
    assert!(limited.status == 429 && limited.head.contains("retry-after: 7"));
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(ask("503", true).await.status, 503);
    let cut = ask("cut@3", true).await;
    assert!(!cut.whole);
    assert_eq!(cut.events().iter().filter(|event| event["x_sim"].is_object()).count(), 3);
    assert!(!ask("cut@12", true).await.body.contains("[DONE]"), "a cut after the last token hides the end");
    let cut = ask("cut", false).await;
    assert!(cut.status == 200 && !cut.whole);
    let garbage = ask("garbage", false).await;
    assert!(garbage.status == 200 && serde_json::from_str::<Value>(&garbage.body).is_err());
    sim.post("/sim/fault", r#"{"fault":"500","next":2}"#).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(
            sim.post("/v1/chat/completions", &format!(r#"{{"model":"sim-small",{HELLO}}}"#)).await.status,
        );
    }
    assert_eq!(statuses, [500, 500, 200]);
    assert_eq!(sim.post("/sim/fault", r#"{"rates":"429:1,leak@1000"}"#).await.status, 200);
    assert_eq!(ask("cut@0", true).await.status, 200, "the request's own fault goes first");
    assert_eq!(
        sim.post("/v1/messages", r#"{"model":"sim-small","max_tokens":1,"messages":[]}"#).await.json()["error"]
            ["type"],
        "rate_limit_error"
    );
    assert_eq!(sim.state().await["leaked_bytes"], 2_000);
    sim.post("/sim/reset", "").await;
    assert_eq!(sim.state().await["refused"], 0);
    assert_eq!(sim.post("/sim/fault", r#"{"rates":"nonsense"}"#).await.status, 400);
}

#[tokio::test]
async fn a_crash_breaks_every_connection_and_passes() {
    let sim = start(quick()).await;
    let body = format!(r#"{{"model":"sim-small?token_ms=1000","stream":true,{HELLO}}}"#);
    let mut other = sim.send("POST", "/v1/chat/completions", "", &body).await;
    let mut head = [0; 15];
    other.read_exact(&mut head).await.expect("it begins");
    let crashed =
        sim.post("/v1/chat/completions", &format!(r#"{{"model":"sim-small?fault=crash",{HELLO}}}"#)).await;
    assert_eq!(crashed.status, 0);
    let mut rest = Vec::new();
    let _ = other.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the stream broke");
    let back = async {
        while sim.post("/v1/chat/completions", &format!(r#"{{"model":"sim-small",{HELLO}}}"#)).await.status
            != 200
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it comes back");
    let state = sim.state().await;
    assert_eq!(
        (&state["broken"], &state["cancelled"], &state["in_flight"]),
        (&1.into(), &0.into(), &0.into())
    );
}

#[tokio::test]
async fn wrong_requests_are_told_so_in_their_protocol() {
    let sim = start(Options { api_key: Some("secret".into()), ..quick() }).await;
    let key = "authorization: Bearer secret\r\n";
    assert_eq!(sim.post("/v1/chat/completions", "{}").await.status, 401);
    let bad = sim.ask("POST", "/v1/chat/completions", key, "{\"model\":").await;
    assert_eq!((bad.status, &bad.json()["error"]["type"]), (400, &"invalid_request_error".into()));
    let unknown = sim
        .ask("POST", "/v1/messages", "x-api-key: secret\r\n", r#"{"model":"x","max_tokens":1,"messages":[]}"#)
        .await;
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &"not_found_error".into()));
    assert_eq!(sim.ask("GET", "/v1/chat/completions", key, "").await.status, 405);
    assert_eq!(sim.ask("GET", "/nowhere", key, "").await.status, 404);
    let models = sim.ask("GET", "/v1/models", key, "").await.json();
    assert_eq!((&models["data"][0]["id"], &models["last_id"]), (&"sim-small".into(), &"sim-embed".into()));
    assert_eq!(sim.ask("GET", "/v1/models/sim-small", key, "").await.json()["object"], "model");
    let file = sim.ask("POST", "/v1/files", key, "0123456789").await.json();
    assert_eq!((&file["object"], &file["bytes"]), (&"file".into(), &10.into()));
}

#[tokio::test]
async fn a_full_queue_and_a_long_prompt_are_refused() {
    let sim = start(Options { slots: 1, queue_len_max: 1, kv_tokens: 300_000, ..quick() }).await;
    let body = format!(r#"{{"model":"sim-small?output=100000",{HELLO}}}"#);
    let _running = sim.send("POST", "/v1/chat/completions", "", &body).await;
    sim.until(|state| state["running"] == 1).await;
    let _waiting = sim.send("POST", "/v1/chat/completions", "", &body).await;
    sim.until(|state| state["waiting"] == 1).await;
    let refused = sim.post("/v1/chat/completions", &body).await;
    assert!(refused.status == 503 && refused.head.contains("retry-after"));
    let long = sim.post("/v1/chat/completions", &body.replace("100000", "400000")).await;
    assert!(long.status == 400 && long.body.contains("context"));
    assert_eq!(sim.state().await["in_flight"], 2);
}

#[test]
fn wrong_options_are_named() {
    let wrong = |options: Options| options.validate().expect_err("refused").to_string();
    assert!(wrong(Options { pace: "warp".into(), ..quick() }).contains("sim-small"));
    assert!(wrong(Options { faults: "boom".into(), ..quick() }).contains("boom"));
    assert!(wrong(Options { output: "x".into(), ..quick() }).contains("output"));
    assert!(wrong(Options { script: Some("text".into()), ..quick() }).contains("line 1"));
    assert!(wrong(Options { slots: 0, ..quick() }).contains("slots"));
}

#[tokio::test]
async fn a_cold_engine_says_so_until_it_is_warm() {
    let sim = start(Options { faults: "start@400".into(), ..quick() }).await;
    assert_eq!(sim.ask("GET", "/health", "", "").await.status, 503);
    assert_eq!(sim.post("/v1/chat/completions", "{}").await.status, 503);
    let warm = async {
        while sim.ask("GET", "/health", "", "").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), warm).await.expect("it warms up");
}

#[tokio::test]
async fn a_reset_stream_of_http2_is_a_cancel_too() {
    let sim = start(quick()).await;
    let tasks = Tasks::default();
    let stream = TcpStream::connect(sim.at).await.expect("it listens");
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(tasks.executor(Kind::SimEngine), TokioIo::new(stream))
            .await
            .expect("h2");
    tasks.spawn(Kind::SimEngine, connection);
    for (id, streamed) in [("one", true), ("two", false)] {
        let body = format!(r#"{{"model":"sim-small?output=100000&id={id}","stream":{streamed},{HELLO}}}"#);
        let request = http::Request::post(format!("http://{}/v1/chat/completions", sim.at))
            .body(http_body_util::Full::new(bytes::Bytes::from(body)))
            .expect("a request");
        let answer = client.send_request(request);
        if streamed {
            let mut answer = answer.await.expect("a head");
            http_body_util::BodyExt::frame(answer.body_mut()).await.expect("a token").expect("data");
        } else {
            let running = sim.until(|state| state["running"] == 1);
            tokio::select! { _ = answer => panic!("too early"), _ = running => {} }
        }
        sim.until(|state| state["running"] == 0).await;
    }
    let state = sim.state().await;
    let ids: Vec<_> =
        state["cancels"].as_array().expect("a list").iter().map(|cancel| cancel["id"].as_str()).collect();
    assert_eq!(ids, [Some("one"), Some("two")]);
}

#[tokio::test]
async fn a_body_in_pieces_is_read_whole() {
    let sim = start(quick()).await;
    let body = format!(r#"{{"model":"sim-small",{HELLO}}}"#);
    let (one, two) = body.split_at(20);
    let mut stream = TcpStream::connect(sim.at).await.expect("it listens");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    for part in [
        head.into(),
        format!("{:x}\r\n{one}\r\n", one.len()),
        format!("{:x}\r\n{two}\r\n0\r\n\r\n", two.len()),
    ] {
        stream.write_all(part.as_bytes()).await.expect("it reads");
        stream.flush().await.expect("it reads");
        // sleeps because the pieces must arrive as frames of their own.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"finish_reason\":\"stop\""), "{answer}");
}
