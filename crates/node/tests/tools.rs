//! The room of tools against a real MCP server (`tests/process/mcp_server.py`) and a small
//! HTTP endpoint: both transports, both lifecycles, and what goes wrong.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use seawall_model::{At, EffectClass, Millis};
use seawall_node::clock;
use seawall_node::config::Secret;
use seawall_node::config::tool::{
    ChildConfig, HttpToolConfig, ServerConfig, ToolRule, ToolsConfig, Way, WebConfig,
};
use seawall_node::tasks::Tasks;
use seawall_node::tools::{Call, Outcome, Template, Toolbox};
use seawall_node::upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/process/mcp_server.py");
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of one test, removed after it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("seawall-tools-{}-{number}", std::process::id()));
        #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
        std::fs::create_dir_all(&dir).expect("a folder");
        Self(dir)
    }

    fn read(&self, file: &str) -> String {
        read(&self.0.join(file))
    }

    fn lines(&self, log: &str) -> usize {
        self.read(&format!("{log}.log")).lines().count()
    }

    fn arg(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[expect(clippy::disallowed_methods, reason = "what the server wrote")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn net() -> upstream::Options {
    upstream::Options { connect: Millis(2_000), extra_roots: None, window: 64 << 10, proxy_from_env: false }
}

fn server(name: &str, way: Way) -> ServerConfig {
    ServerConfig { name: name.into(), way, timeout: Millis(20_000), calls_max: 4, tools: BTreeMap::new() }
}

fn child(command: &[&str]) -> Way {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Way::Child(ChildConfig { command, env: BTreeMap::new() })
}

fn stdio(args: &[&str]) -> ServerConfig {
    server("s", child(&[&["python3", SERVER], args].concat()))
}

fn start(servers: Vec<ServerConfig>, http: Vec<HttpToolConfig>) -> Toolbox {
    Toolbox::start(&ToolsConfig { servers, http }, net(), &Tasks::default()).expect("a toolbox")
}

fn call(tool: &str, args: &str) -> Call {
    Call {
        tool: tool.into(),
        args: args.into(),
        key: format!("key-{tool}").as_str().into(),
        deadline: clock::now().plus(Millis(25_000)),
    }
}

fn done(text: &str) -> Outcome {
    Outcome::Done { text: text.into(), is_error: false }
}

fn is_in_doubt(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { retry: true, sent: true, .. })
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            // sleeps because what is waited for happens in other processes, which tell nobody
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: it never came"));
}

/// A server that listens, killed with the test.
struct Listening {
    process: Child,
    url: String,
}

impl Listening {
    fn new(args: &[&str]) -> Self {
        let mut process = Command::new("python3")
            .args([SERVER, "--http", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let out = process.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("port ").expect("its port");
        let url = format!("http://127.0.0.1:{port}/mcp");
        Self { process, url }
    }

    fn server(&self, bearer: Option<&str>) -> ServerConfig {
        let bearer = bearer.map(Secret::new);
        server("s", Way::Http(WebConfig { url: self.url.as_str().into(), bearer, headers: Vec::new() }))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What every transport and lifecycle must be able to do.
async fn usual_calls(toolbox: &Toolbox, dir: &Dir) {
    let cards = toolbox.list().await;
    let class = |name: &str| cards.iter().find(|card| &*card.name == name).map(|card| card.class);
    assert_eq!(class("s.add"), Some(EffectClass::Read), "{cards:?}");
    assert_eq!(class("s.put"), Some(EffectClass::Idempotent));
    assert_eq!(class("s.pay"), Some(EffectClass::Irreversible));
    assert_eq!(class("s.crash"), Some(EffectClass::Irreversible), "without hints");
    assert!(cards.is_sorted_by_key(|card| card.name.clone()));
    let add = cards.iter().find(|card| &*card.name == "s.add").expect("listed");
    assert!(add.schema.contains("\"required\":[\"a\",\"b\"]") && &*add.about == "Adds two numbers.");

    assert_eq!(toolbox.call(call("s.add", r#"{"a":2,"b":3}"#)).await, done("5"));
    let Outcome::Done { text, .. } = toolbox.call(call("s.echo_meta", "")).await else { panic!("done") };
    assert!(text.contains(r#""seawall/idempotency-key": "key-s.echo_meta""#), "{text}");

    let put = call("s.put", r#"{"name":"n","value":"v"}"#);
    assert_eq!(toolbox.call(put.clone()).await, done("stored"));
    assert_eq!(toolbox.call(put).await, done("stored before"), "known by its key");
    assert_eq!((dir.lines("put"), dir.lines("calls")), (1, 4));

    for (tool, args, says) in [
        ("s.ask", r#"{"code":7}"#, "no good: 7"),
        ("s.add", r#"{"a":2}"#, "the argument 'b' is missing"),
        ("s.add", "[1]", "not a JSON object"),
        ("s.none", "{}", "no tool named none"),
        ("s.big", r#"{"bytes":1048577}"#, "larger than the limit"),
        ("s.big", r#"{"bytes":9000000}"#, "larger than the limit"),
    ] {
        let outcome = toolbox.call(call(tool, args)).await;
        let Outcome::Done { text, is_error: true } = &outcome else { panic!("{tool}: {outcome:?}") };
        assert!(text.contains(says), "{text}");
    }
    let fits = toolbox.call(call("s.big", r#"{"bytes":1048576}"#)).await;
    assert!(matches!(fits, Outcome::Done { text, is_error: false } if text.len() == 1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_spoken_to_in_both_lifecycles() {
    for lifecycle in ["stateless", "session"] {
        let dir = Dir::new();
        let toolbox =
            start(vec![stdio(&["--lifecycle", lifecycle, "--dir", &dir.arg(), "--page", "3"])], Vec::new());
        usual_calls(&toolbox, &dir).await;
        let state = &toolbox.servers()[0];
        assert_eq!((state.up, state.starts, state.tools), (true, 1, 10), "{lifecycle}");
        toolbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_server_is_spoken_to_in_both_lifecycles() {
    for (lifecycle, extra) in
        [("stateless", "--sse"), ("session", "--sse"), ("stateless", "--page=4"), ("session", "--page=4")]
    {
        let dir = Dir::new();
        let listening =
            Listening::new(&["--lifecycle", lifecycle, "--dir", &dir.arg(), "--bearer", "t0k", extra]);
        let toolbox = start(vec![listening.server(Some("t0k"))], Vec::new());
        usual_calls(&toolbox, &dir).await;
        toolbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_about_the_list_are_heard() {
    for lifecycle in ["stateless", "session"] {
        let listening = Listening::new(&["--lifecycle", lifecycle]);
        for server in [stdio(&["--lifecycle", lifecycle]), listening.server(None)] {
            let toolbox = start(vec![server], Vec::new());
            assert_eq!(toolbox.list().await.len(), 10);
            // A subscription may be made only after the first list is out: until it is, news are lost.
            until("the list grows", async || {
                assert_eq!(toolbox.call(call("s.grow", "{}")).await, done("grown"));
                toolbox.list().await.len() > 10
            })
            .await;
            let grown = toolbox.call(call("s.grown_10", "{}")).await;
            assert!(!matches!(&grown, Outcome::Failed { .. }), "it can be called: {grown:?}");
            toolbox.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_is_started_again_and_its_calls_are_in_doubt() {
    let dir = Dir::new();
    let toolbox = start(vec![stdio(&["--dir", &dir.arg()])], Vec::new());
    let tools = toolbox.list().await.len();
    let waiting = toolbox.clone();
    let slow = async { waiting.call(call("s.slow", r#"{"ms":20000}"#)).await };
    let crash = async {
        until("the slow call arrives", async || dir.lines("calls") == 1).await;
        toolbox.call(call("s.crash", "{}")).await
    };
    let (slow, crash) = tokio::join!(slow, crash);
    assert!(is_in_doubt(&slow) && is_in_doubt(&crash), "{slow:?} {crash:?}");
    assert_eq!(toolbox.list().await.len(), tools, "its tools stay listed");
    until("it is up again", async || match toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await {
        Outcome::Failed { sent, retry, .. } => {
            assert!(retry && !sent, "while it is down nothing is sent");
            false
        }
        outcome => outcome == done("2"),
    })
    .await;
    let state = &toolbox.servers()[0];
    assert_eq!((state.starts, dir.lines("starts")), (2, 2));
    assert!(state.last_words.contains("about to crash"), "{}", state.last_words);
    toolbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_or_with_its_caller_and_the_server_is_told() {
    let listening_dir = Dir::new();
    let listening = Listening::new(&["--lifecycle", "session", "--dir", &listening_dir.arg()]);
    let child_dir = Dir::new();
    for (dir, server) in
        [(&child_dir, stdio(&["--dir", &child_dir.arg()])), (&listening_dir, listening.server(None))]
    {
        let toolbox = start(vec![server], Vec::new());
        toolbox.list().await;
        let mut slow = call("s.slow", r#"{"ms":20000}"#);
        slow.deadline = clock::now().plus(Millis(200));
        let late = toolbox.call(slow).await;
        assert!(is_in_doubt(&late), "{late:?}");
        until("the server hears that it was late", async || dir.lines("cancelled") == 1).await;
        let dropped =
            tokio::time::timeout(Duration::from_millis(200), toolbox.call(call("s.slow", r#"{"ms":20000}"#)));
        assert!(dropped.await.is_err());
        until("the server hears that nobody waits", async || dir.lines("cancelled") == 2).await;
        assert_eq!(toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await, done("2"), "and goes on");
        toolbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_limit_wait_their_turn() {
    let mut config = stdio(&[]);
    config.calls_max = 1;
    let toolbox = start(vec![config], Vec::new());
    toolbox.list().await;
    let mut late = call("s.add", r#"{"a":1,"b":1}"#);
    late.deadline = clock::now().plus(Millis(100));
    let (slow, late) = tokio::join!(toolbox.call(call("s.slow", r#"{"ms":400}"#)), toolbox.call(late));
    assert_eq!(slow, done("slept"));
    assert!(
        matches!(late, Outcome::Failed { sent: false, retry: true, .. }),
        "it never had its turn: {late:?}"
    );
    assert_eq!(toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await, done("2"));
    toolbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_ends_with_all_that_it_started_and_does_not_see_our_environment() {
    let dir = Dir::new();
    let script = format!("env > {0}/env; sleep 600 & echo $! > {0}/pid; exec python3 {SERVER}", dir.arg());
    let Way::Child(mut way) = child(&["sh", "-c", &script]) else { unreachable!("it is a child") };
    way.env.insert("GIVEN".into(), Secret::new("a secret"));
    let toolbox = start(vec![server("s", Way::Child(way))], Vec::new());
    assert_eq!(toolbox.list().await.len(), 10);
    let env = dir.read("env");
    assert!(env.contains("GIVEN=a secret") && env.contains("PATH="), "{env}");
    assert!(!env.contains("CARGO"), "what cargo told us is not passed on: {env}");
    let status = PathBuf::from(format!("/proc/{}/status", dir.read("pid").trim()));
    assert!(!read(&status).is_empty(), "what it started runs");
    toolbox.close().await;
    until("what it started is gone", async || {
        let status = read(&status);
        status.is_empty() || status.contains("State:\tZ")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_leaves_alone_what_stays_and_ends_what_goes() {
    let (kept, gone) = (Dir::new(), Dir::new());
    let keep = stdio(&["--dir", &kept.arg()]);
    let mut leave = stdio(&["--dir", &gone.arg()]);
    leave.name = "t".into();
    let toolbox = start(vec![keep.clone(), leave], Vec::new());
    assert_eq!(toolbox.list().await.len(), 20);
    let pid = gone.read("starts.log");
    let pid: serde_json::Value = serde_json::from_str(pid.trim()).expect("one line");
    let in_flight = toolbox.clone();
    let slow = async { in_flight.call(call("t.slow", r#"{"ms":300}"#)).await };
    let reload = async {
        until("the call arrives", async || gone.lines("calls") == 1).await;
        toolbox.reload(&ToolsConfig { servers: vec![keep], http: Vec::new() });
    };
    let (slow, ()) = tokio::join!(slow, reload);
    assert_eq!(slow, done("slept"), "a call in flight keeps its server");
    assert!(matches!(
        toolbox.call(call("t.add", "{}")).await,
        Outcome::Failed { retry: false, sent: false, .. }
    ));
    let status = PathBuf::from(format!("/proc/{}/status", pid["pid"]));
    until("the server that left is gone", async || read(&status).is_empty()).await;
    assert_eq!(toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await, done("2"));
    assert_eq!(kept.lines("starts"), 1);
    toolbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_had_says_why_and_nothing_is_sent() {
    let listening = Listening::new(&["--bearer", "right"]);
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", closed.local_addr().expect("bound"));
    drop(closed);
    let nowhere =
        server("s", Way::Http(WebConfig { url: url.as_str().into(), bearer: None, headers: Vec::new() }));
    for (config, says) in [
        (server("s", child(&["/no/such/program"])), "cannot be started"),
        (server("s", child(&["sh", "-c", "exit 7"])), "exit status 7"),
        (nowhere, "refused"),
        (listening.server(Some("wrong")), "credentials"),
    ] {
        let toolbox = start(vec![config], Vec::new());
        assert!(toolbox.list().await.is_empty());
        let outcome = toolbox.call(call("s.add", "{}")).await;
        let Outcome::Failed { retry: true, sent: false, why, .. } = &outcome else { panic!("{outcome:?}") };
        assert!(why.contains(says), "{why}");
        assert!(toolbox.servers()[0].why.is_some());
        toolbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_server_that_goes_away_is_told_from_one_that_was_reached() {
    let listening = Listening::new(&["--lifecycle", "stateless"]);
    let toolbox = start(vec![listening.server(None)], Vec::new());
    assert_eq!(toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await, done("2"));
    let crashed = toolbox.call(call("s.crash", "{}")).await;
    assert!(is_in_doubt(&crashed), "it had the call: {crashed:?}");
    // A connection of before may break only when it is used, which says nothing certain.
    until("no connection of before is left", async || {
        let refused = toolbox.call(call("s.add", r#"{"a":1,"b":1}"#)).await;
        assert!(matches!(refused, Outcome::Failed { retry: true, .. }), "{refused:?}");
        matches!(refused, Outcome::Failed { sent: false, .. })
    })
    .await;
    toolbox.close().await;
}

/// A server that says far more than it is asked: `flood` writes news without end into its
/// output, and tells in a file how much of it went out; `huge` answers with so many megabytes.
const TALKER: &str = r#"
import json, pathlib, sys, threading
lock = threading.Lock()
def say(text):
    with lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
def flood(path):
    news = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "n"}})
    for count in range(1 << 40):
        if count % 100 == 0:
            pathlib.Path(path).write_text(str(count))
        say(news)
def text(of):
    return {"content": [{"type": "text", "text": of}]}
def answer(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "talker", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("flood", "huge", "hello")]}
    arguments = params.get("arguments") or {}
    if params["name"] == "flood":
        threading.Thread(target=flood, args=(arguments["path"],), daemon=True).start()
    return text("x" * (arguments["mb"] << 20) if params["name"] == "huge" else "hello")
print("Talker 1.0 is up", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    head = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] in ("initialize", "tools/list", "tools/call"):
        say(json.dumps({**head, "result": answer(asked["method"], asked.get("params") or {})}))
    else:
        say(json.dumps({**head, "error": {"code": -32601, "message": "no such method"}}))
"#;

fn talker() -> Toolbox {
    start(vec![server("s", child(&["python3", "-c", TALKER]))], Vec::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_rubbish_is_ended_and_left_alone_for_longer_each_time() {
    for (what, script, says) in [
        ("lines", "exec yes rubbish", "does not speak MCP"),
        ("lines and errors", "yes oops >&2 & exec yes '<html>'", "does not speak MCP"),
        ("one line", "exec tr '\\0' x </dev/zero", "does not end"),
    ] {
        let toolbox = start(vec![server("s", child(&["sh", "-c", script]))], Vec::new());
        let state = || toolbox.servers().remove(0);
        until(what, async || state().why.is_some()).await;
        let why = state().why.expect("down");
        assert!(why.contains(says) && !why.contains("rubbish"), "{what}: {why}");
        let outcome = toolbox.call(call("s.add", "{}")).await;
        assert!(matches!(outcome, Outcome::Failed { retry: true, sent: false, .. }), "{outcome:?}");
        // sleeps because nothing is to happen meanwhile, but for a few more tries
        tokio::time::sleep(Duration::from_secs(2)).await;
        // 250, 500 and 1,000 ms lie between the first four.
        assert!(state().starts <= 4, "{what}: {} starts", state().starts);
        toolbox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_talks_without_end_is_held_back_and_still_answers() {
    let (toolbox, dir) = (talker(), Dir::new());
    let told = dir.0.join("flood");
    let flood = format!(r#"{{"path":{:?}}}"#, told.display().to_string());
    assert_eq!(toolbox.call(call("s.flood", &flood)).await, done("hello"));
    let begun = tokio::time::Instant::now();
    // sleeps because what is measured is what goes by in some time
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (went, seconds) = (read(&told).parse::<u64>().unwrap_or_default(), begun.elapsed().as_secs_f64());
    // What a pipe holds comes to the burst; unbounded it would be a hundred thousand a second.
    let most = (2.0 * seconds + 5.0) * seawall_model::limits::TOOL_LINES_PER_SECOND as f64;
    assert!((1..most as u64).contains(&went), "{went} messages in {seconds} s");
    assert_eq!(toolbox.call(call("s.hello", "{}")).await, done("hello"));
    assert_eq!(toolbox.servers()[0].starts, 1);
    toolbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_hundred_megabytes_is_left_out_and_the_server_stays() {
    let toolbox = talker();
    let outcome = toolbox.call(call("s.huge", r#"{"mb":100}"#)).await;
    let Outcome::Done { text, is_error: true } = &outcome else { panic!("{outcome:?}") };
    assert!(text.contains("larger than the limit") && text.len() < 400, "{text}");
    assert_eq!(toolbox.call(call("s.hello", "{}")).await, done("hello"));
    assert_eq!(toolbox.servers()[0].starts, 1);
    toolbox.close().await;
}

/// An endpoint that answers by the path asked for; hands out what it was sent.
async fn endpoint() -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (tell, asked) = tokio::sync::mpsc::channel(16);
    Tasks::default().spawn(seawall_node::tasks::Kind::SimEngine, async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut text = Vec::new();
            // Every request of these tests arrives in one piece or ends with its JSON.
            while !(text.ends_with(b"}") || text.starts_with(b"GET") && text.ends_with(b"\r\n\r\n")) {
                if socket.read_buf(&mut text).await.unwrap_or_default() == 0 {
                    break;
                }
            }
            let text = String::from_utf8(text).expect("text");
            let path = text.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
            let answer = |status: &str, headers: &str, body: &str| {
                format!(
                    "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
            };
            let answer = match path.as_str() {
                "/busy" => answer("503 Busy", "retry-after: 3\r\n", "later"),
                "/missing" => answer("404 Not Found", "", &"no such item ".repeat(1_000)),
                "/large" => answer("200 OK", "", &"x".repeat((1 << 20) + 1)),
                "/cut" => String::new(),
                _ => answer("200 OK", "", "{\"ok\":true}"),
            };
            let _ = tell.send(text).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

fn http_tool(name: &str, method: http::Method, url: &str) -> HttpToolConfig {
    HttpToolConfig {
        name: name.into(),
        about: "A test's.".into(),
        method,
        url: Template::parse(url).expect("a template"),
        headers: vec![(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer t"))],
        schema: "{}".into(),
        class: EffectClass::Irreversible,
        undo: None,
        query: None,
        timeout: Millis(10_000),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_asked_as_its_template_says() {
    let (port, mut asked) = endpoint().await;
    let base = format!("http://127.0.0.1:{port}");
    let tools = vec![
        http_tool("get", http::Method::GET, &format!("{base}/items/{{id}}")),
        http_tool("post", http::Method::POST, &format!("{base}/items/{{id}}")),
    ];
    let toolbox = start(Vec::new(), tools);
    assert_eq!(toolbox.list().await.len(), 2);
    let args = r#"{"id":"a/b","n":1}"#;
    assert_eq!(toolbox.call(call("get", args)).await, done("{\"ok\":true}"));
    let got = asked.recv().await.expect("asked");
    assert!(got.starts_with("GET /items/a%2Fb?n=1 HTTP/1.1\r\n"), "{got}");
    assert!(
        got.contains("idempotency-key: key-get\r\n") && got.contains("authorization: Bearer t\r\n"),
        "{got}"
    );
    assert_eq!(toolbox.call(call("post", args)).await, done("{\"ok\":true}"));
    let got = asked.recv().await.expect("asked");
    assert!(got.starts_with("POST /items/a%2Fb HTTP/1.1\r\n") && got.ends_with("\r\n\r\n{\"n\":1}"), "{got}");
    let missing = toolbox.call(call("get", "{}")).await;
    assert!(matches!(missing, Outcome::Done { is_error: true, .. }), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoints_answer_says_what_to_do_next() {
    let (port, _asked) = endpoint().await;
    let paths = ["busy", "missing", "large", "cut"];
    let url = |path: &&str| format!("http://127.0.0.1:{port}/{path}");
    let mut tools: Vec<_> =
        paths.iter().map(|path| http_tool(path, http::Method::POST, &url(path))).collect();
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = format!("http://{}/", closed.local_addr().expect("bound"));
    drop(closed);
    tools.push(http_tool("nowhere", http::Method::POST, &nowhere));
    let toolbox = start(Vec::new(), tools);

    let busy = toolbox.call(call("busy", "{}")).await;
    assert!(
        matches!(busy, Outcome::Failed { retry: true, sent: true, retry_after: Some(Millis(3_000)), .. }),
        "{busy:?}"
    );
    let Outcome::Done { text, is_error: true } = toolbox.call(call("missing", "{}")).await else {
        panic!("done")
    };
    assert!(text.contains("404") && text.contains("no such item") && text.len() < 5_000, "{text}");
    let Outcome::Done { text, is_error: true } = toolbox.call(call("large", "{}")).await else {
        panic!("done")
    };
    assert!(text.contains("1048577 bytes"), "{text}");
    let cut = toolbox.call(call("cut", "{}")).await;
    assert!(is_in_doubt(&cut), "{cut:?}");
    let nowhere = toolbox.call(call("nowhere", "{}")).await;
    assert!(matches!(nowhere, Outcome::Failed { retry: true, sent: false, .. }), "{nowhere:?}");
    let unknown = toolbox.call(call("none", "{}")).await;
    assert!(matches!(unknown, Outcome::Failed { retry: false, sent: false, .. }), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configs_word_on_a_tool_counts() {
    let mut config = stdio(&[]);
    let rule = ToolRule { class: Some(EffectClass::Compensable), undo: Some("s.put".into()), query: None };
    config.tools.insert("pay".into(), rule);
    let toolbox = start(vec![config], Vec::new());
    let card = toolbox.card("s.pay").await.expect("listed");
    assert_eq!((card.class, card.undo.as_deref()), (EffectClass::Compensable, Some("s.put")));
    let mut past = call("s.add", r#"{"a":1,"b":1}"#);
    past.deadline = At(0);
    assert!(matches!(toolbox.call(past).await, Outcome::Failed { sent: false, .. }), "no time is no call");
    toolbox.close().await;
}
