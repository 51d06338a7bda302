//! The engine over real sockets: shapes, controls, cancels, faults.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{Options, serve};
use crate::tasks::{Kind, Tasks};

mod life;
mod shapes;

struct Sim {
    at: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// One answer, as it came over the socket.
struct Got {
    status: u16,
    head: String,
    body: String,
    /// Did the body end as HTTP says it should?
    whole: bool,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of each event.
    fn events(&self) -> Vec<Value> {
        let data =
            self.body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
            .collect()
    }
}

async fn start(options: Options) -> Sim {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let tasks = Tasks::default();
    let own = tasks.clone();
    tasks.spawn(Kind::SimEngine, async move {
        serve(listener, options, own, async {
            let _ = stopped.await;
        })
        .await
        .expect("the options are valid");
    });
    Sim { at, _stop: stop }
}

impl Sim {
    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("it reads");
        stream
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Got {
        let mut stream = self.send(method, path, headers, body).await;
        let mut all = Vec::new();
        // A reset after the last byte is one way for a broken answer to end.
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all))
            .await
            .expect("it ends");
        parse(&all)
    }

    async fn post(&self, path: &str, body: &str) -> Got {
        self.ask("POST", path, "", body).await
    }

    async fn state(&self) -> Value {
        self.ask("GET", "/sim/state", "", "").await.json()
    }

    /// Waits until the state satisfies a condition.
    async fn until(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let state = self.state().await;
                if fits(&state) {
                    return state;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the state is reached")
    }
}

fn parse(all: &[u8]) -> Got {
    let text = String::from_utf8_lossy(all).into_owned();
    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
        return Got { status: 0, head: text, body: String::new(), whole: false };
    };
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    if !head.contains("transfer-encoding: chunked") {
        return Got { status, body: rest.into(), whole: true, head };
    }
    let (mut body, mut rest, mut whole) = (String::new(), rest, false);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        whole = size == 0;
        if whole || after.len() < size + 2 {
            break;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    Got { status, head, body, whole }
}

fn quick() -> Options {
    Options { output: "12".into(), ..Options::default() }
}

const HELLO: &str = r#""messages":[{"role":"user","content":"Say hello"}]"#;
