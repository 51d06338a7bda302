//! A running server as commands ask it: by its address, with a key, under a certificate of
//! one's own where that is wanted. Each command has one, and waits for each answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use seawall_model::{Millis, limits};
use seawall_wire::sse::Events;
use serde_json::Value;

use crate::config::{self, Url};
use crate::tasks::Tasks;
use crate::upstream::{self, Client, Coming, Sending};

use super::args::ServerArgs;
use super::code;

/// A whole question may take this long: what is asked for comes from memory or disk.
const WAIT: Duration = Duration::from_secs(10);
/// Largest answer read: a run's state with the conversation of a long context, or
/// [`limits::MODELS_MAX`] models at 4 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a command failed, what to do, and its exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: i32,
    pub(crate) what: String,
    pub(crate) hint: String,
}

pub(crate) fn failed(code: i32, what: impl Into<String>, hint: impl Into<String>) -> Failed {
    Failed { code, what: what.into(), hint: hint.into() }
}

/// How reading a stream of events came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Whoever reads has enough.
    Enough,
    /// Nothing came for as long as was asked.
    Silence,
    /// The server ended it, or it broke off.
    Over,
}

/// A running server.
pub(crate) struct Server {
    url: Url,
    key: Option<String>,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(crate) fn at(args: &ServerArgs) -> Result<Self, Failed> {
        let url = Url::parse(&args.url);
        let url = url.map_err(|e| failed(code::USAGE, format!("--url {:?}: {e}", args.url), e.hint()))?;
        let extra_roots = match &args.ca {
            None => None,
            Some(path) => {
                let text = config::load::read_file(path);
                let text =
                    text.map_err(|e| failed(code::USAGE, format!("--ca {}: {e}", path.display()), ""))?;
                Some(Arc::from(text.into_bytes()))
            }
        };
        let options = upstream::Options {
            connect: Millis(limits::CONNECT_MS_MAX),
            extra_roots,
            window: limits::STREAM_WINDOW_BYTES,
            proxy_from_env: false,
        };
        let client = upstream::client(&options, &Tasks::default());
        let client = client.map_err(|what| failed(code::USAGE, what, ""))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| failed(code::INTERNAL, format!("no runtime: {e}"), ""))?;
        Ok(Self { url, key: args.key.clone(), client, runtime })
    }

    /// What stands under a path.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::GET, path, None)
    }

    /// What stands under a path, where the server may take so long to answer.
    pub(crate) fn get_held(&self, path: &str, held: Duration) -> Result<Value, Failed> {
        let (status, body) = self.fetch_within(WAIT + held, Method::GET, path, None)?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// Sends an order.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body))
    }

    /// The answer to a question that the server understands and allows.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let (status, body) = self.fetch(method, path, body)?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// The answer, whatever it is.
    pub(crate) fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failed> {
        self.fetch_within(WAIT, method, path, body)
    }

    fn fetch_within(
        &self,
        wait: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failed> {
        self.within(wait, async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let bytes = self.whole(response).await?;
            Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        })
    }

    /// Reads a stream of events, and hands the data of each that is JSON to `take` until
    /// it answers `false`, or nothing at all comes for so long.
    pub(crate) fn follow(
        &self,
        path: &str,
        silence: Duration,
        mut take: impl FnMut(&Value) -> bool,
    ) -> Result<End, Failed> {
        let response = self.within(WAIT, self.send(Method::GET, path, None))?;
        let status = response.status();
        if !status.is_success() {
            let bytes = self.within(WAIT, self.whole(response))?;
            return Err(self.refused(status, &serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
        }
        let mut body = response.into_body();
        let mut events = Events::new();
        self.runtime.block_on(async {
            loop {
                let Ok(frame) = tokio::time::timeout(silence, body.frame()).await else {
                    return Ok(End::Silence);
                };
                let Some(Ok(frame)) = frame else { return Ok(End::Over) };
                let Some(part) = frame.data_ref() else { continue };
                let mut enough = false;
                let read = events.feed(part, |event| {
                    if let Ok(value) = serde_json::from_slice(event.data) {
                        enough |= !take(&value);
                    }
                    Ok(())
                });
                if read.is_err() {
                    return Err(failed(code::UNAVAILABLE, "what came is no stream of events", ""));
                }
                if enough {
                    return Ok(End::Enough);
                }
            }
        })
    }

    /// Lets time pass before the server is asked again.
    pub(crate) fn rest(&self, span: Duration) {
        // sleeps because a server that just ended a stream has no other way to say "later"
        self.runtime.block_on(tokio::time::sleep(span));
    }

    fn within<T>(
        &self,
        wait: Duration,
        asking: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        self.runtime.block_on(async {
            tokio::time::timeout(wait, Box::pin(asking)).await.unwrap_or_else(|_| {
                let what = format!("{} did not answer within {} s", self.url, wait.as_secs());
                Err(failed(code::UNAVAILABLE, what, "is it Seawall?"))
            })
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Coming>, Failed> {
        let url = &self.url;
        let uri = url.join(path).map_err(|e| failed(code::USAGE, format!("{url}{path}: {e}"), ""))?;
        // An order that was taken must not be given twice.
        let again = method == Method::GET;
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let sending = match body {
            None => Sending::none(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Sending::whole(body.to_string().into_bytes().into())
            }
        };
        let request = request
            .body(sending)
            .map_err(|_| failed(code::USAGE, "the key holds characters that no header may hold", ""))?;
        self.client.request(request, again).await.map_err(|error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let hint = match why.contains("certificate") {
                true => "trust it with --ca FILE or SEAWALL_CA_FILE, if it is your own",
                false => "start it with: seawall serve",
            };
            failed(code::UNAVAILABLE, format!("nothing answers at {url}: {why}"), hint)
        })
    }

    async fn whole(&self, response: Response<Coming>) -> Result<Vec<u8>, Failed> {
        let url = &self.url;
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|e| failed(code::UNAVAILABLE, format!("the answer of {url} broke off: {e}"), ""))?;
            let Some(part) = frame.data_ref() else { continue };
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                let what = format!("the answer of {url} is too large");
                return Err(failed(code::UNAVAILABLE, what, "is it Seawall?"));
            }
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    /// A refusal in words: the server's own where it has any.
    pub(crate) fn refused(&self, status: StatusCode, body: &Value) -> Failed {
        let url = &self.url;
        let error = &body["error"];
        let said = error["message"].as_str();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if matches!(error["code"].as_str(), None | Some("bad_key" | "admin_only")) =>
            {
                let hint = "pass one with --key or SEAWALL_API_KEY; an admin key may do everything";
                let what =
                    said.map_or_else(|| format!("{url} asks for a key"), |said| format!("{url}: {said}"));
                failed(code::USAGE, what, hint)
            }
            _ if said.is_none() => failed(
                code::UNAVAILABLE,
                format!("{url} answered {status}: it seems not to be Seawall, or another version of it"),
                "name its address with --url",
            ),
            _ => {
                let ours = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
                let exit = if ours { code::USAGE } else { code::UNAVAILABLE };
                let told = error["code"].as_str().map_or_else(String::new, |code| format!(" ({code})"));
                let hint = error["hint"].as_str().unwrap_or_default();
                failed(exit, format!("{}{told}", said.unwrap_or_default().trim_end_matches('.')), hint)
            }
        }
    }
}

/// As the value of a query (RFC 3986 section 2.1); a slash stays one.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

/// A path with those parts of a query that have a value.
pub(crate) fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut whole = path.to_owned();
    for (name, value) in query {
        let Some(value) = value else { continue };
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(&format!("{name}={}", escaped(value)));
    }
    whole
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server() -> Server {
        let args = ServerArgs { url: "http://127.0.0.1:1".into(), key: None, ca: None };
        let Ok(server) = Server::at(&args) else { panic!("it is an address") };
        server
    }

    #[test]
    fn names_survive_a_query() {
        assert_eq!(escaped("a b&c=d/e%\u{e9}"), "a%20b%26c%3Dd/e%25%C3%A9");
        assert_eq!(with_query("/x", &[("a", Some("1 2")), ("b", None), ("c", Some(""))]), "/x?a=1%202&c=");
    }

    #[test]
    fn refusals_are_told_in_the_servers_words_with_its_hint() {
        let server = server();
        let body = json!({ "error": { "code": "run_unknown", "message": "There is no run-1.", "hint": "ask `seawall runs`" } });
        let told = server.refused(StatusCode::NOT_FOUND, &body);
        assert_eq!(
            (told.code, &*told.what, &*told.hint),
            (64, "There is no run-1 (run_unknown)", "ask `seawall runs`")
        );
        assert_eq!(server.refused(StatusCode::SERVICE_UNAVAILABLE, &body).code, code::UNAVAILABLE);
        assert_eq!(server.refused(StatusCode::UNAUTHORIZED, &Value::Null).code, code::USAGE);
        let stopped = json!({ "error": { "code": "run_stopped", "message": "Stopped.", "hint": "wait" } });
        assert_eq!(server.refused(StatusCode::FORBIDDEN, &stopped).hint, "wait");
        let key = json!({ "error": { "code": "admin_only", "message": "Only for admins.", "hint": "x" } });
        assert!(server.refused(StatusCode::FORBIDDEN, &key).hint.contains("--key"));
        let told = server.refused(StatusCode::NOT_FOUND, &Value::Null);
        assert!(told.what.contains("seems not to be Seawall") && told.code == code::UNAVAILABLE);
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        let told = server().get("/seawall/agents").expect_err("nothing listens there");
        assert_eq!((told.code, &*told.hint), (code::UNAVAILABLE, "start it with: seawall serve"));
        assert!(Server::at(&ServerArgs { url: "nonsense".into(), key: None, ca: None }).is_err());
        let args = ServerArgs { ca: Some("/nowhere/ca.pem".into()), ..ServerArgs::default() };
        assert!(Server::at(&ServerArgs { url: "http://127.0.0.1:1".into(), ..args }).is_err());
    }
}
