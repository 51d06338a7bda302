//! HTTP endpoints as tools: a request made from a template and the arguments, over our own
//! engine client.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode};
use seawall_model::limits::{TOOL_ANSWER_BYTES_MAX, TOOL_ERROR_BYTES_MAX};
use seawall_model::{EffectClass, Millis};

use super::card::ToolCard;
use super::outcome::{Call, Outcome, object};
use super::reading::{self, Unread};
use super::words::{deepest, line, shorten};
use crate::config::tool::HttpToolConfig;
use crate::gateway::rates::retry_after;
use crate::upstream::{self, Client, Coming, Failed, Sending};

/// By this a receiver knows a call again (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A tool that is one HTTP request.
#[derive(Debug)]
pub(super) struct HttpTool {
    pub(super) config: HttpToolConfig,
}

impl HttpTool {
    pub(super) fn card(&self) -> ToolCard {
        let HttpToolConfig { name, about, schema, class, undo, query, .. } = &self.config;
        ToolCard {
            name: name.clone(),
            about: about.clone(),
            schema: schema.clone(),
            class: *class,
            undo: undo.clone(),
            query: query.clone(),
        }
    }

    /// Performs the call within `limit`. Dropped, it closes the connection.
    pub(super) async fn call(&self, client: &Client, call: &Call, limit: Millis) -> Outcome {
        let request = match self.request(call) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let again = matches!(self.config.class, EffectClass::Read | EffectClass::Idempotent);
        let asked = async {
            match client.request(request, again).await {
                Ok(response) => read(response).await,
                Err(failed) => not_answered(&failed),
            }
        };
        match tokio::time::timeout(Duration::from_millis(limit.0), asked).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::in_doubt(format!("no answer within {} ms", limit.0)),
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Sending>, Outcome> {
        let args = object(&call.args)?;
        let takes_body = matches!(self.config.method, Method::POST | Method::PUT | Method::PATCH);
        let (url, body) = if takes_body {
            let (url, rest) = self.config.url.fill(&args).map_err(Outcome::refused)?;
            let body = serde_json::to_vec(&rest).expect("a JSON object can be written");
            (url, Sending::whole(body.into()))
        } else {
            (self.config.url.fill_all(&args).map_err(Outcome::refused)?, Sending::none())
        };
        let mut request = Request::new(body);
        // A template yields a URL whatever the arguments are, unless one is endless.
        *request.uri_mut() =
            url.parse().map_err(|why| Outcome::refused(format!("The arguments make no URL: {why}.")))?;
        *request.method_mut() = self.config.method.clone();
        let headers = request.headers_mut();
        if takes_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(
            http::header::ACCEPT,
            HeaderValue::from_static("application/json, text/*;q=0.9, */*;q=0.1"),
        );
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static("seawall"));
        headers.insert(IDEMPOTENCY_KEY, upstream::value(&call.key));
        for (name, value) in &self.config.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

async fn read(response: http::Response<Coming>) -> Outcome {
    let (parts, coming) = response.into_parts();
    let status = parts.status;
    if is_worth_another(status) {
        // What it says beside is for people; the status and the wait are for the kernel.
        return Outcome::in_doubt(format!("the tool answered HTTP {status}"))
            .after(retry_after(&parts.headers));
    }
    let declared =
        parts.headers.get(http::header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    if declared.is_some_and(|len: usize| len > TOOL_ANSWER_BYTES_MAX) {
        return Outcome::too_large(declared);
    }
    let bytes = match reading::whole(coming, TOOL_ANSWER_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(Unread::TooLarge) => return Outcome::too_large(None),
        Err(Unread::Broke(why)) => return Outcome::in_doubt(format!("the answer broke off: {}", line(&why))),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Outcome::refused(format!(
            "The tool answered HTTP {status} with {} bytes that are no text.",
            bytes.len()
        ));
    };
    if status.is_success() {
        return Outcome::done(text.to_owned(), false);
    }
    let said = shorten(text, TOOL_ERROR_BYTES_MAX);
    let cut = if said.len() < text.len() { " (the start of it)" } else { "" };
    Outcome::refused(format!("The tool answered HTTP {status}{cut}: {said}"))
}

/// Statuses that say of themselves that later may be better (RFC 9110 section 15).
fn is_worth_another(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// What a request without an answer means.
pub(super) fn not_answered(failed: &Failed) -> Outcome {
    match failed {
        Failed::Connect(why) => Outcome::unsent(format!("cannot connect: {}", deepest(why.as_ref()))),
        Failed::Url(_) | Failed::Upload(_) => Outcome::hopeless(deepest(failed)),
        Failed::Cut(_) | Failed::Garbled(_) => Outcome::in_doubt(deepest(failed)),
    }
}
