//! One connection to an MCP server. The only file that speaks with the official SDK (`rmcp`):
//! its types go no further, because the protocol's lifecycle changed in 2026-07 and the SDK
//! with it.
//!
//! Both lifecycles: a server is first asked `server/discover` (2026-07-28, no sessions); one
//! that does not know it is greeted with `initialize` (2025-11-25 and before).

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock,
    ErrorCode, Implementation, PaginatedRequestParams, ProtocolVersion, RequestMetaObject, ResourceContents,
    ServerNotification, SubscriptionFilter,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer, RunningServiceCancellationToken,
    ServiceError, Subscription, serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{
    HttpStatusError, StreamableHttpClientTransportConfig, StreamableHttpError,
};
use rmcp::{ClientHandler, RoleClient};
use seawall_model::Millis;
use seawall_model::limits::{SERVER_TOOLS_MAX, TOOL_LIST_BYTES_MAX, TOOL_MESSAGE_BYTES_MAX};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::child::{Child, Words};
use super::lines::{Lines, Nonsense, Oversized};
use super::web::{Fault, Web};
use crate::config::tool::{ServerConfig, Way};
use crate::tasks::Tasks;
use crate::tools::card::{Hints, Listed};
use crate::tools::http::not_answered;
use crate::tools::outcome::Outcome;
use crate::tools::words::{deepest, line};
use crate::upstream;

/// In `_meta` of a call: by this a server knows it again. MCP itself has no such key.
const IDEMPOTENCY_KEY: &str = "seawall/idempotency-key";
/// A subscription that ended is asked for again after so long.
const LISTEN_AGAIN: Duration = Duration::from_millis(5_000);
/// Ending a session over HTTP is a courtesy: no longer is waited for it.
const CLOSE: Duration = Duration::from_millis(2_000);

/// A connection.
pub(super) struct Session {
    caller: Caller,
    child: Option<Child>,
    nonsense: Nonsense,
    /// Ends when the connection does.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    stop: Option<RunningServiceCancellationToken>,
    changed: Arc<Notify>,
    hearing: Hearing,
}

/// How news about the list of tools come.
enum Hearing {
    /// By themselves (before 2026-07-28), or never.
    Passive,
    /// By a subscription.
    On(Box<Subscription>),
    /// By a subscription that is to be made (again), then.
    Off(tokio::time::Instant),
}

/// What happened on a connection.
pub(super) enum Event {
    /// The list of tools may be another.
    Changed,
    /// It is over, why.
    Ended(String),
}

/// Calls tools on a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    peer: Peer<RoleClient>,
    oversized: Oversized,
    in_flight: Arc<AtomicUsize>,
}

/// A call in flight; its end is its drop.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hears what the server says out of turn. Sampling, roots and elicitation are not offered:
/// what an agent spends or says goes through its own turns.
#[derive(Clone, Debug)]
struct Ear(Arc<Notify>);

impl ClientHandler for Ear {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.notify_one();
    }

    fn get_info(&self) -> ClientConfig {
        let us = Implementation::new("seawall", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), us)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }
}

impl Session {
    /// Starts or reaches the server and greets it.
    ///
    /// # Errors
    /// In words, in one line.
    pub(super) async fn open(
        config: &ServerConfig,
        net: &upstream::Options,
        words: &Words,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let changed = Arc::new(Notify::new());
        let ear = Ear(changed.clone());
        let (mut child, oversized, nonsense) = (None, Oversized::default(), Nonsense::default());
        let greeted = match &config.way {
            Way::Child(way) => {
                let (started, stdout, stdin) = Child::start(way, words.clone(), tasks)
                    .map_err(|why| format!("it cannot be started: {why}"))?;
                child = Some(started);
                let stdout = Lines::new(stdout, oversized.clone(), nonsense.clone());
                let transport =
                    AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(TOOL_MESSAGE_BYTES_MAX);
                serve_client_with_lifecycle(ear, transport, lifecycle()).await
            }
            Way::Http(way) => {
                let client =
                    upstream::client(net, tasks).map_err(|why| format!("it cannot be reached: {why}"))?;
                let mut transport = StreamableHttpClientTransportConfig::with_uri(way.url.clone())
                    .custom_headers(way.headers.iter().cloned().collect())
                    .max_concurrent_requests(config.calls_max as usize + 1);
                transport.auth_header = way.bearer.as_ref().map(|bearer| bearer.reveal().to_owned());
                let transport = StreamableHttpClientTransport::with_client(
                    Web::new(client, oversized.clone()),
                    transport,
                );
                serve_client_with_lifecycle(ear, transport, lifecycle()).await
            }
        };
        let running = match (greeted, &mut child) {
            (Ok(running), _) => running,
            // A process that ends closes its pipes: which of the two is met first is chance.
            (
                Err(
                    ClientInitializeError::ConnectionClosed(_) | ClientInitializeError::TransportError { .. },
                ),
                Some(child),
            ) => {
                return Err(match nonsense.why() {
                    Some(why) => why.to_owned(),
                    None => child.why().await,
                });
            }
            (Err(why), _) => return Err(ungreeted(&why)),
        };
        let peer = running.peer().clone();
        let stop = Some(running.cancellation_token());
        let hearing =
            if subscribes(&peer) { Hearing::Off(tokio::time::Instant::now()) } else { Hearing::Passive };
        let ended = Box::pin(async move {
            let _ = running.waiting().await;
        });
        Ok(Self {
            caller: Caller { peer, oversized, in_flight: Arc::default() },
            child,
            nonsense,
            ended,
            stop,
            changed,
            hearing,
        })
    }

    /// Its caller.
    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Waits for what happens next.
    pub(super) async fn next(&mut self) -> Event {
        let Self { caller: Caller { peer, .. }, ended, changed, hearing, .. } = self;
        tokio::select! {
            () = &mut *ended => {}
            () = changed.notified() => return Event::Changed,
            () = hearing.next(peer) => return Event::Changed,
        }
        // A future that has ended must not be asked again; closing does.
        *ended = Box::pin(std::future::ready(()));
        let why = match (self.nonsense.why(), &mut self.child) {
            (Some(why), _) => why.to_owned(),
            (None, Some(child)) => child.why().await,
            (None, None) => "the tool server closed the connection".to_owned(),
        };
        Event::Ended(why)
    }

    /// Ends the connection, and the process if it is one.
    pub(super) async fn close(mut self) {
        if let Some(stop) = self.stop.take() {
            stop.cancel();
        }
        let _ = tokio::time::timeout(CLOSE, &mut self.ended).await;
        if let Some(child) = self.child.take() {
            child.end().await;
        }
    }
}

impl Hearing {
    /// Ends when the list may be another, which it also may once a subscription was lost.
    async fn next(&mut self, peer: &Peer<RoleClient>) {
        loop {
            match self {
                Self::Passive => std::future::pending().await,
                Self::On(subscription) => match subscription.next().await {
                    Ok(Some(ServerNotification::ToolListChangedNotification(_))) => return,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        *self = Self::Off(tokio::time::Instant::now() + LISTEN_AGAIN);
                        return;
                    }
                },
                Self::Off(at) => {
                    tokio::time::sleep_until(*at).await;
                    let filter = SubscriptionFilter::builder().tools_list_changed().build();
                    *self = match peer.listen(filter).await {
                        Ok(subscription) => Self::On(Box::new(subscription)),
                        Err(_) => Self::Off(tokio::time::Instant::now() + LISTEN_AGAIN),
                    };
                }
            }
        }
    }
}

impl Caller {
    /// The server's tools, all pages.
    ///
    /// # Errors
    /// In words: it does not answer, or has more than is taken.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, String> {
        let Self { peer, .. } = self;
        if peer.peer_info().is_none_or(|info| info.capabilities.tools.is_none()) {
            return Ok(Vec::new());
        }
        let (mut tools, mut bytes, mut cursor) = (Vec::new(), 0, None);
        // A page holds at least one tool, or a server could send us round for ever.
        for _ in 0..=SERVER_TOOLS_MAX {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = peer.list_tools(Some(params)).await.map_err(|why| deepest(&why))?;
            for tool in page.tools {
                let listed = listed(&tool);
                bytes += listed.about.len() + listed.schema.len();
                tools.push(listed);
            }
            if tools.len() > SERVER_TOOLS_MAX || bytes > TOOL_LIST_BYTES_MAX {
                return Err(format!(
                    "it has more than {SERVER_TOOLS_MAX} tools, or {TOOL_LIST_BYTES_MAX} bytes of them"
                ));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err("its list of tools does not end".to_owned())
    }

    /// Calls a tool by its name at the server. Dropped, it tells the server that nobody waits
    /// any more.
    pub(super) async fn call(
        &self,
        tool: &str,
        args: Map<String, Value>,
        key: &str,
        limit: Millis,
    ) -> Outcome {
        let Self { peer, .. } = self;
        if peer.is_transport_closed() {
            return Outcome::unsent("the connection to the tool server is closed");
        }
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(args);
        let mut meta = RequestMetaObject::new();
        meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::from(key));
        params.meta = Some(meta);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = InFlight(&self.in_flight);
        let asked = async {
            tokio::select! {
                // First: what was too large also ends the stream that it came on.
                biased;
                () = self.oversized_alone() => None,
                answered = peer.call_tool_once(params) => Some(answered),
            }
        };
        let asked = tokio::time::timeout(Duration::from_millis(limit.0), asked).await;
        match asked {
            Err(_) => Outcome::in_doubt(format!("no answer within {} ms", limit.0)),
            Ok(Some(Err(why))) => not_done(&why),
            Ok(Some(Ok(CallToolResponse::Complete(result)))) => done(result),
            Ok(None) => Outcome::too_large(None),
            Ok(Some(Ok(_))) => Outcome::Failed {
                retry: false,
                sent: true,
                retry_after: None,
                why: "the tool asks for input while it works, or hands out a task: neither is offered here"
                    .to_owned(),
            },
        }
    }

    /// Resolves when a message was too large while one call only was in flight: of several
    /// nobody knows whose answer it was, and they end by their time.
    async fn oversized_alone(&self) {
        loop {
            self.oversized.next().await;
            if self.in_flight.load(Ordering::Relaxed) == 1 {
                return;
            }
        }
    }
}

fn lifecycle() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    }
}

/// Are its news to be had by a subscription only, and is there any news?
fn subscribes(peer: &Peer<RoleClient>) -> bool {
    peer.peer_info().is_some_and(|info| {
        let changes = info.capabilities.tools.as_ref().and_then(|tools| tools.list_changed);
        !info.protocol_version.has_initialize() && changes == Some(true)
    })
}

fn listed(tool: &rmcp::model::Tool) -> Listed {
    let hints = tool.annotations.as_ref();
    Listed {
        name: tool.name.to_string(),
        about: tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default().to_owned(),
        schema: serde_json::to_string(&*tool.input_schema).expect("a JSON object can be written"),
        hints: Hints {
            read_only: hints.and_then(|hints| hints.read_only_hint),
            idempotent: hints.and_then(|hints| hints.idempotent_hint),
        },
    }
}

/// Why a server could not be greeted.
fn ungreeted(why: &ClientInitializeError) -> String {
    match why {
        ClientInitializeError::TransportError { error, .. } => match not_sent(error.error.as_ref()) {
            Outcome::Failed { why, .. } => why,
            Outcome::Done { text, .. } => line(&text),
        },
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => ungreeted(fallback),
        // What came instead of an answer is not quoted: these lines are logged.
        ClientInitializeError::ExpectedInitResponse(_) | ClientInitializeError::ExpectedInitResult(_) => {
            "it does not answer as an MCP server does".to_owned()
        }
        other => deepest(other),
    }
}

/// A result as the model reads it: its texts; where there are none, its structured content.
fn done(result: CallToolResult) -> Outcome {
    let mut text = String::new();
    for block in &result.content {
        if !text.is_empty() {
            text.push('\n');
        }
        match block {
            ContentBlock::Text(block) => text.push_str(&block.text),
            ContentBlock::Image(image) => {
                text.push_str(&left_out("image", Some(&image.mime_type), &image.data));
            }
            ContentBlock::Audio(audio) => {
                text.push_str(&left_out("audio", Some(&audio.mime_type), &audio.data));
            }
            ContentBlock::Resource(embedded) => match &embedded.resource {
                ResourceContents::TextResourceContents { text: content, .. } => text.push_str(content),
                ResourceContents::BlobResourceContents { mime_type, blob, .. } => {
                    text.push_str(&left_out("resource", mime_type.as_deref(), blob));
                }
                _ => text.push_str("[a resource of a kind not known here was left out]"),
            },
            ContentBlock::ResourceLink(link) => text.push_str(&link.uri),
            _ => text.push_str("[a part of a kind not known here was left out]"),
        }
    }
    if let Some(structured) = result.structured_content.filter(|_| result.content.is_empty()) {
        text = structured.to_string();
    }
    Outcome::done(text, result.is_error == Some(true))
}

/// Says what a text cannot hold, so that nobody takes the rest for all.
fn left_out(what: &str, mime: Option<&str>, base64: &str) -> String {
    let mime = mime.map(|mime| format!(" of type {}", line(mime))).unwrap_or_default();
    format!("[{what}{mime}, {} bytes, was left out]", base64.len() / 4 * 3)
}

/// What a call without a result means.
fn not_done(why: &ServiceError) -> Outcome {
    match why {
        // The server's own fault: another attempt may find it well.
        ServiceError::McpError(error) if error.code == ErrorCode::INTERNAL_ERROR => {
            Outcome::in_doubt(format!("the tool server failed: {}", line(&error.message)))
        }
        // What was asked is wrong: no such tool, arguments that do not fit.
        ServiceError::McpError(error) => {
            Outcome::refused(format!("The tool server refused: {}", error.message))
        }
        ServiceError::TransportSend(error) => not_sent(error.error.as_ref()),
        ServiceError::TransportClosed => Outcome::in_doubt("the tool server ended while it had the call"),
        other => Outcome::in_doubt(deepest(other)),
    }
}

/// Why a message could not be sent, and whether it certainly was not.
fn not_sent(error: &(dyn Error + 'static)) -> Outcome {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Fault::Failed(failed)) = error.downcast_ref::<Fault>() {
            return not_answered(failed);
        }
        if let Some(status) = error.downcast_ref::<HttpStatusError>() {
            return refused_with(status);
        }
        match error.downcast_ref::<StreamableHttpError<Fault>>() {
            Some(StreamableHttpError::Client(Fault::Failed(failed))) => return not_answered(failed),
            Some(StreamableHttpError::HttpStatus(status)) => return refused_with(status),
            Some(StreamableHttpError::AuthRequired(_)) => {
                let why = "the tool server does not accept the credentials".to_owned();
                return Outcome::Failed { retry: false, sent: true, retry_after: None, why };
            }
            Some(StreamableHttpError::ResponseBodyTooLarge { .. }) => return Outcome::too_large(None),
            _ => cause = error.source(),
        }
    }
    Outcome::in_doubt(deepest(error))
}

fn refused_with(status: &HttpStatusError) -> Outcome {
    let why = format!("the tool server answered HTTP {}", status.status);
    let wait = status.retry_after.as_deref().and_then(|value| value.trim().parse::<u64>().ok());
    let worth = status.status >= 500 || matches!(status.status, 408 | 429);
    let wait = wait.map(|seconds| Millis(seconds.saturating_mul(1_000)));
    Outcome::Failed { retry: worth, sent: true, retry_after: wait, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_says_what_it_leaves_out() {
        let blocks =
            vec![ContentBlock::text("a"), ContentBlock::image("AAAA", "image/png"), ContentBlock::text("b")];
        let Outcome::Done { text, is_error: false } = done(CallToolResult::success(blocks)) else {
            panic!("done");
        };
        assert_eq!(text, "a\n[image of type image/png, 3 bytes, was left out]\nb");
        let mut structured = CallToolResult::success(Vec::new());
        structured.structured_content = Some(serde_json::json!({"n": 1}));
        assert_eq!(done(structured), Outcome::Done { text: "{\"n\":1}".into(), is_error: false });
        let failed = CallToolResult::error(vec![ContentBlock::text("no")]);
        assert_eq!(done(failed), Outcome::Done { text: "no".into(), is_error: true });
    }

    #[test]
    fn only_a_failed_connect_is_certain_not_to_have_been_sent() {
        let failed = |failed| not_sent(&StreamableHttpError::Client(Fault::Failed(failed)));
        let sent = |outcome: &Outcome| matches!(outcome, Outcome::Failed { sent: true, .. });
        let unsent = failed(upstream::Failed::Connect("refused".into()));
        assert_eq!(unsent, Outcome::unsent("cannot connect: refused"));
        assert!(sent(&failed(upstream::Failed::Cut(std::io::ErrorKind::UnexpectedEof.into()))));
        assert!(sent(&not_sent(&std::io::Error::other("broken pipe"))));
        assert!(sent(&not_done(&ServiceError::TransportClosed)));
        let busy =
            not_sent(&StreamableHttpError::<Fault>::HttpStatus(HttpStatusError::new(429, Some("2".into()))));
        assert!(matches!(
            busy,
            Outcome::Failed { retry: true, sent: true, retry_after: Some(Millis(2_000)), .. }
        ));
    }

    #[test]
    fn a_refusal_goes_to_the_model_and_a_fault_does_not() {
        let refusal = ServiceError::McpError(rmcp::ErrorData::invalid_params("b is missing", None));
        assert!(matches!(not_done(&refusal), Outcome::Done { is_error: true, .. }));
        let fault = ServiceError::McpError(rmcp::ErrorData::internal_error("out of order", None));
        assert!(matches!(not_done(&fault), Outcome::Failed { retry: true, sent: true, .. }));
    }
}
