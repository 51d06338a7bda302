//! MCP's streamable HTTP transport over our own engine client: the SDK says what is sent,
//! this file sends it and bounds what comes back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::stream::BoxStream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, SseError, StreamableHttpClient, StreamableHttpError,
    StreamableHttpPostResponse,
};
use seawall_model::limits::{TOOL_ERROR_BYTES_MAX, TOOL_MESSAGE_BYTES_MAX};
use sse_stream::{Sse, SseStream};

use super::lines::Oversized;
use super::pace::Pace;
use crate::tools::reading::{self, Unread};
use crate::tools::words::line;
use crate::upstream::{self, Client, Coming, Failed, Sending};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const BOTH: HeaderValue = HeaderValue::from_static("text/event-stream, application/json");

/// The way to one MCP server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Web {
    client: Client,
    oversized: Oversized,
}

/// A request that got no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// See [`Failed`].
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The answer was read in part.
    #[error("the answer broke off: {0}")]
    Broke(String),
}

type Answer<T> = Result<T, StreamableHttpError<Fault>>;

impl Web {
    /// Over this client; events that are too large are counted.
    pub(super) fn new(client: Client, oversized: Oversized) -> Self {
        Self { client, oversized }
    }

    async fn send(&self, asked: Asked, body: Sending, again: bool) -> Answer<Response<Coming>> {
        let mut request = Request::new(body);
        *request.method_mut() = asked.method;
        *request.uri_mut() = asked.uri.parse().map_err(|why: http::uri::InvalidUri| {
            StreamableHttpError::Io(io::Error::new(io::ErrorKind::InvalidInput, why))
        })?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, BOTH);
        headers.insert(USER_AGENT, HeaderValue::from_static("seawall"));
        for (name, value) in asked.headers {
            headers.insert(name, value);
        }
        if let Some(bearer) = asked.bearer {
            let mut value = upstream::value(&format!("Bearer {bearer}"));
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(session) = asked.session {
            headers.insert(SESSION_ID, upstream::value(&session));
        }
        for (name, value) in asked.own {
            headers.insert(name, value);
        }
        self.client.request(request, again).await.map_err(|failed| StreamableHttpError::Client(failed.into()))
    }
}

/// One request, before its body.
struct Asked {
    method: Method,
    uri: Arc<str>,
    session: Option<Arc<str>>,
    bearer: Option<String>,
    /// The SDK's and the config's.
    headers: HashMap<HeaderName, HeaderValue>,
    /// Of this kind of request.
    own: Vec<(HeaderName, HeaderValue)>,
}

impl StreamableHttpClient for Web {
    type Error = Fault;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        bearer: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<StreamableHttpPostResponse> {
        let body: Bytes = serde_json::to_vec(&message)?.into();
        let in_session = session.is_some();
        let own = vec![(CONTENT_TYPE, HeaderValue::from_static(JSON))];
        let asked = Asked { method: Method::POST, uri, session, bearer, headers, own };
        // Of a call of a tool nobody knows whether twice is as good as once.
        let again = !is(&message, |request| matches!(request, ClientRequest::CallToolRequest(_)));
        let response = self.send(asked, Sending::whole(body), again).await?;
        let status = response.status();
        refuse_unauthorised(status, response.headers())?;
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && in_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        if !status.is_success() {
            return unsuccessful(response, &message, in_session).await;
        }
        taken(response, matches!(message, ClientJsonRpcMessage::Request(_)), &self.oversized).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        bearer: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<()> {
        let asked =
            Asked { method: Method::DELETE, uri, session: Some(session), bearer, headers, own: Vec::new() };
        let response = self.send(asked, Sending::none(), true).await?;
        match response.status() {
            // It keeps its sessions for as long as it likes.
            StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            status if status.is_success() => Ok(()),
            status => Err(HttpStatusError::new(status.as_u16(), None).into()),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        bearer: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<BoxStream<'static, Result<Sse, SseError>>> {
        let own = last_event.map(|id| (LAST_EVENT_ID, upstream::value(&id))).into_iter().collect();
        let asked = Asked { method: Method::GET, uri, session, bearer, headers, own };
        let response = self.send(asked, Sending::none(), true).await?;
        let status = response.status();
        refuse_unauthorised(status, response.headers())?;
        match kind(response.headers()) {
            _ if status == StatusCode::METHOD_NOT_ALLOWED => {
                Err(StreamableHttpError::ServerDoesNotSupportSse)
            }
            _ if !status.is_success() => Err(status_error(status, response.headers()).into()),
            Kind::Events => Ok(events(response, &self.oversized)),
            Kind::Json | Kind::Other(_) => Err(StreamableHttpError::ServerDoesNotSupportSse),
        }
    }
}

fn is(message: &ClientJsonRpcMessage, test: impl Fn(&ClientRequest) -> bool) -> bool {
    matches!(message, ClientJsonRpcMessage::Request(request) if test(&request.request))
}

/// What an answer is made of.
enum Kind {
    Json,
    Events,
    Other(Option<String>),
}

fn kind(headers: &HeaderMap) -> Kind {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some(JSON) => Kind::Json,
        Some(EVENTS) => Kind::Events,
        _ => Kind::Other(value.map(line)),
    }
}

fn refuse_unauthorised(status: StatusCode, headers: &HeaderMap) -> Answer<()> {
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(());
    }
    let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).map(line);
    let challenge = challenge.unwrap_or_else(|| format!("HTTP {status}"));
    Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge)))
}

fn status_error(status: StatusCode, headers: &HeaderMap) -> HttpStatusError {
    let wait = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    HttpStatusError::new(status.as_u16(), wait.map(str::to_owned))
}

/// A refusal: the server's own JSON-RPC error where there is one, else its status.
async fn unsuccessful(
    response: Response<Coming>,
    message: &ClientJsonRpcMessage,
    in_session: bool,
) -> Answer<StreamableHttpPostResponse> {
    let (parts, coming) = response.into_parts();
    let (status, wait) = (parts.status, status_error(parts.status, &parts.headers));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(wait.into());
    }
    let limit = if matches!(kind(&parts.headers), Kind::Json) {
        TOOL_MESSAGE_BYTES_MAX
    } else {
        TOOL_ERROR_BYTES_MAX
    };
    let said = reading::start(coming, limit).await;
    let error = match serde_json::from_slice::<ServerJsonRpcMessage>(&said) {
        Ok(JsonRpcMessage::Error(error)) => Some(error.error),
        _ => None,
    };
    // How a server of the older lifecycle refuses the newer one's first question. What sits
    // in front of a server may refuse it without JSON, and never knows the request's id.
    if let ClientJsonRpcMessage::Request(request) = message
        && matches!(request.request, ClientRequest::DiscoverRequest(_))
        && status.is_client_error()
        && !in_session
    {
        let error = error.unwrap_or_else(|| ErrorData::invalid_request(format!("HTTP {status}"), None));
        let error = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
        return Ok(StreamableHttpPostResponse::Json(error, None));
    }
    match (error, message) {
        (Some(error), ClientJsonRpcMessage::Request(request)) => Ok(StreamableHttpPostResponse::Json(
            ServerJsonRpcMessage::error(error, Some(request.id.clone())),
            None,
        )),
        _ => Err(wait.into()),
    }
}

/// The answer of a server that took the message. `asked`: does it hold a question?
async fn taken(
    response: Response<Coming>,
    asked: bool,
    oversized: &Oversized,
) -> Answer<StreamableHttpPostResponse> {
    let session = response.headers().get(SESSION_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    match kind(response.headers()) {
        // Some servers answer a notification with an empty 200, or with words.
        _ if !asked => Ok(StreamableHttpPostResponse::Accepted),
        Kind::Events => Ok(StreamableHttpPostResponse::Sse(events(response, oversized), session)),
        Kind::Json => {
            let bytes = match reading::whole(response.into_body(), TOOL_MESSAGE_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(Unread::Broke(why)) => return Err(StreamableHttpError::Client(Fault::Broke(line(&why)))),
                Err(Unread::TooLarge) => {
                    return Err(StreamableHttpError::ResponseBodyTooLarge {
                        max_size: TOOL_MESSAGE_BYTES_MAX,
                    });
                }
            };
            // What did not parse is not quoted: it may be content.
            let message = serde_json::from_slice(&bytes)
                .map_err(|why| StreamableHttpError::UnexpectedServerResponse(Cow::Owned(category(&why))))?;
            Ok(StreamableHttpPostResponse::Json(message, session))
        }
        Kind::Other(kind) => Err(StreamableHttpError::UnexpectedContentType(kind)),
    }
}

fn category(why: &serde_json::Error) -> String {
    format!("no JSON-RPC message ({:?} error at line {})", why.classify(), why.line())
}

fn events(response: Response<Coming>, oversized: &Oversized) -> BoxStream<'static, Result<Sse, SseError>> {
    Box::pin(SseStream::new(Capped {
        coming: response.into_body(),
        oversized: oversized.clone(),
        pace: Pace::of_messages(),
        held: 0,
        ends: 0,
    }))
}

/// A stream of events none of which is longer than [`TOOL_MESSAGE_BYTES_MAX`]: the parser
/// behind it gathers an event up to its blank line.
struct Capped {
    coming: Coming,
    oversized: Oversized,
    pace: Pace,
    /// Bytes since the last blank line.
    held: usize,
    /// Line ends in a row up to here.
    ends: u8,
}

impl Capped {
    fn pass(&mut self, data: &[u8]) -> io::Result<()> {
        let mut events = 0;
        for byte in data {
            match byte {
                b'\n' => self.ends += 1,
                // A CR alone ends a line as well, but a stream that uses it only fills the limit sooner.
                b'\r' => {}
                _ => self.ends = 0,
            }
            self.held += 1;
            if self.ends >= 2 {
                (self.held, self.ends) = (0, 1);
                events += 1;
            }
        }
        self.pace.heard(events, data.len());
        if self.held > TOOL_MESSAGE_BYTES_MAX {
            self.oversized.add();
            let what = format!("an event is larger than {TOOL_MESSAGE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

impl Body for Capped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        std::task::ready!(self.pace.poll(cx));
        let frame = std::task::ready!(Pin::new(&mut self.coming).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        if let Some(data) = frame.data_ref()
            && let Err(why) = self.pass(data)
        {
            return Poll::Ready(Some(Err(why)));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
