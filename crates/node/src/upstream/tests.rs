//! The client against engines that are one scripted socket each.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn fresh() -> Client {
    let options =
        Options { connect: Millis(5_000), extra_roots: None, window: 64 << 10, proxy_from_env: false };
    client(&options, &Tasks::default()).expect("no roots to read")
}

fn post(to: SocketAddr, body: impl Into<Bytes>) -> Request<Sending> {
    let request = Request::post(format!("http://{to}/v1/x?y=z")).header("x-a", "b");
    request.body(Sending::whole(body.into())).expect("a request")
}

/// Reads one request up to the end of a body that ends in `!`.
async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"!") {
        let len = stream.read_buf(&mut heard).await.expect("a request");
        assert!(len > 0, "the client hung up");
    }
    String::from_utf8(heard).expect("text")
}

async fn whole(response: Response<Coming>) -> Bytes {
    crate::body::read(response.into_body(), 1 << 20).await.expect("a whole body")
}

/// Plays both sides, within a time limit.
async fn play<C: Future, E: Future>(
    engine: impl FnOnce(TcpListener) -> E,
    client: impl FnOnce(SocketAddr) -> C,
) -> (C::Output, E::Output) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    let both = async { tokio::join!(client(to), engine(listener)) };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("in time")
}

#[tokio::test]
async fn one_connection_carries_call_after_call() {
    let engine = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let first = hear(&mut stream).await;
        stream.write_all(OK).await.expect("a reader");
        hear(&mut stream).await;
        stream.write_all(OK).await.expect("a reader");
        first
    };
    let ((), heard) = play(engine, |to| async move {
        let client = fresh();
        for _ in 0..2 {
            let response = client.request(post(to, "hi!"), false).await.expect("an answer");
            assert_eq!(whole(response).await, "ok");
        }
    })
    .await;
    let head = heard.strip_suffix("\r\n\r\nhi!").expect("head and body");
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines[0], "POST /v1/x?y=z HTTP/1.1");
    assert!(lines[1].starts_with("host: 127.0.0.1:"));
    assert_eq!(lines[2..], ["x-a: b", "content-length: 3"]);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_costs_nothing_where_asking_again_is_safe() {
    let engine = |listener: TcpListener| async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a client");
            hear(&mut stream).await;
            stream.write_all(OK).await.expect("a reader");
            // Hangs up only once the next request is there: no look at the pool can tell.
            hear(&mut stream).await;
        }
        let (mut stream, _) = listener.accept().await.expect("a client");
        hear(&mut stream).await;
        stream.write_all(OK).await.expect("a reader");
    };
    play(engine, |to| async move {
        let client = fresh();
        whole(client.request(post(to, "1!"), true).await.expect("an answer")).await;
        let lost = client.request(post(to, "2!"), false).await;
        assert!(matches!(lost, Err(Failed::Cut(_))), "{lost:?}");
        whole(client.request(post(to, "3!"), true).await.expect("an answer")).await;
        whole(client.request(post(to, "4!"), true).await.expect("sent again")).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_dropped_closes_the_engines_socket() {
    let (dropped, hang_up) = tokio::sync::oneshot::channel();
    let engine = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        hear(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";
        stream.write_all(head).await.expect("a reader");
        hang_up.await.expect("the client is done");
        let gone = stream.read(&mut [0; 1]).await;
        assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
    };
    play(engine, |to| async move {
        let response = fresh().request(post(to, "hi!"), false).await.expect("a head");
        let mut body = response.into_body();
        let first = body.frame().await.expect("a piece").expect("well").into_data().expect("data");
        assert_eq!(first, "one");
        drop(body);
        dropped.send(()).expect("the engine waits");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_before_the_whole_request_is_taken_and_the_connection_is_not_used_again() {
    let engine = |listener: TcpListener| async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let no = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
            stream.write_all(no).await.expect("a reader");
            // What the client still sends is left unread until it hangs up itself.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    play(engine, |to| async move {
        let client = fresh();
        for _ in 0..2 {
            let endless = vec![b'x'; 64 << 20];
            let response = client.request(post(to, endless), false).await.expect("an answer");
            assert_eq!(whole(response).await, "no");
        }
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_answers_while_it_listens_gets_all_of_the_request() {
    let engine = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.expect("a reader");
        let heard = hear(&mut stream).await.len();
        stream.write_all(b"2\r\nok\r\n0\r\n\r\n").await.expect("a reader");
        hear(&mut stream).await;
        stream.write_all(OK).await.expect("a reader");
        heard
    };
    let large = 16 << 20;
    let ((), heard) = play(engine, |to| async move {
        let client = fresh();
        let mut body = vec![b'x'; large];
        body.push(b'!');
        let response = client.request(post(to, body), false).await.expect("an answer");
        assert_eq!(whole(response).await, "ok");
        let response = client.request(post(to, "on the same connection!"), false).await.expect("an answer");
        assert_eq!(whole(response).await, "ok");
    })
    .await;
    assert!(heard > large, "{heard} of {large} bytes came");
}

#[tokio::test]
async fn an_engine_that_hangs_up_after_a_while_has_had_the_request_and_gets_it_once() {
    let engine = |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        hear(&mut stream).await;
        stream.write_all(OK).await.expect("a reader");
        hear(&mut stream).await;
        // sleeps because the time that it worked is what tells it from a stale connection
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    play(engine, |to| async move {
        let client = fresh();
        whole(client.request(post(to, "1!"), true).await.expect("an answer")).await;
        let lost = client.request(post(to, "2!"), true).await;
        assert!(matches!(lost, Err(Failed::Cut(_))), "{lost:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let says = |words: &'static [u8]| {
        move |listener: TcpListener| async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            hear(&mut stream).await;
            stream.write_all(words).await.expect("a reader");
        }
    };
    let ask = |to| async move { fresh().request(post(to, "hi!"), false).await };
    let (garbled, ()) = play(says(b"220 smtp.example ready\r\n"), ask).await;
    assert!(matches!(garbled, Err(Failed::Garbled(Broken::NotHttp))), "{garbled:?}");
    let (cut, ()) = play(says(b"HTTP/1.1 200 O"), ask).await;
    assert!(matches!(cut, Err(Failed::Cut(_))), "{cut:?}");
    let (half, ()) = play(says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), ask).await;
    let body = half.expect("a head").into_body();
    assert_eq!(body.size_hint().exact(), Some(9));
    assert!(crate::body::read(body, 99).await.is_err(), "half an answer is no answer");
}

#[tokio::test]
async fn nobody_there_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    drop(listener);
    let refused = fresh().request(post(to, "hi!"), true).await;
    assert!(matches!(refused, Err(Failed::Connect(_))), "{refused:?}");
}
