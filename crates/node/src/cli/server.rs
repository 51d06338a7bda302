//! A running server as commands ask it: by its address, with a key, under a certificate of
//! one's own where that is wanted. Each command has one, and waits for each answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use seawall_model::{Millis, limits};
use seawall_wire::sse::Events;
use serde_json::{Value, json};

use crate::config::{self, Url};
use crate::tasks::Tasks;
use crate::upstream::{self, Client, Coming, Sending};

use super::agents::show::clean;
use super::args::{JsonArgs, ServerArgs};
use super::{code, print};

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
    /// The server's own code, where it was the server that refused.
    pub(crate) of: Option<String>,
}

pub(crate) fn failed(code: i32, what: impl Into<String>, hint: impl Into<String>) -> Failed {
    Failed { code, what: what.into(), hint: hint.into(), of: None }
}

impl Failed {
    /// Tells a person, and a script that wants JSON, and answers with the exit code.
    pub(crate) fn tell(&self, json: JsonArgs) -> i32 {
        // Standard error is for the person, standard output for the script.
        if json.json {
            print::json(&self.as_json());
        }
        print::failure(&self.what, &self.hint);
        self.code
    }

    /// As the API has errors: with a code, a message and a hint.
    pub(crate) fn as_json(&self) -> Value {
        let word = match self.code {
            code::NOT_WELL => "refused",
            code::USAGE => "usage",
            code::UNAVAILABLE => "unavailable",
            code::CANT_CREATE | code::IO => "io",
            _ => "internal",
        };
        let code = self.of.as_deref().unwrap_or(word);
        // What a person reads ends with the code, which stands apart here.
        let what = self.what.strip_suffix(&format!(" ({code})")).unwrap_or(&self.what);
        json!({ "error": { "code": code, "message": what, "hint": self.hint }, "exit": self.code })
    }
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

    /// What stands under a path, where the server may take so long to answer; `None` if
    /// whoever waits presses Ctrl-C meanwhile.
    pub(crate) fn get_unless_left(&self, path: &str, held: Duration) -> Result<Option<Value>, Failed> {
        self.within(WAIT + held, async {
            tokio::select! {
                asked = self.asked(Method::GET, path, None) => match asked? {
                    (status, body) if status.is_success() => Ok(Some(body)),
                    (status, body) => Err(self.refused(status, &body)),
                },
                // Where nobody can hear of it, Ctrl-C ends the process as ever.
                Ok(()) = tokio::signal::ctrl_c() => Ok(None),
            }
        })
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
        self.within(WAIT, self.asked(method, path, body))
    }

    async fn asked(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failed> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = self.whole(response).await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
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
        // What it says may hold what somebody else said.
        let said = error["message"].as_str().map(|said| clean(said, false));
        let of = error["code"].as_str().map(|code| clean(code, false));
        let refusal = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if matches!(of.as_deref(), None | Some("bad_key" | "admin_only")) =>
            {
                let hint = match (&self.key, of.as_deref()) {
                    (None, _) => "pass one with --key or SEAWALL_API_KEY",
                    (Some(_), Some("admin_only")) => {
                        "this key is no admin's, or of another tenant: pass another with --key"
                    }
                    (Some(_), _) => {
                        "the key passed (--key or SEAWALL_API_KEY) is not one of this server: `seawall key list` has them"
                    }
                };
                let what =
                    said.map_or_else(|| format!("{url} asks for a key"), |said| format!("{url}: {said}"));
                failed(code::NOT_WELL, what, hint)
            }
            _ if said.is_none() => failed(
                code::UNAVAILABLE,
                format!("{url} answered {status}: it seems not to be Seawall, or another version of it"),
                "name its address with --url",
            ),
            _ => {
                let exit = match status {
                    StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => code::USAGE,
                    StatusCode::TOO_MANY_REQUESTS => code::UNAVAILABLE,
                    status if status.is_client_error() => code::NOT_WELL,
                    _ => code::UNAVAILABLE,
                };
                let told = of.as_deref().map_or_else(String::new, |code| format!(" ({code})"));
                let hint = clean(error["hint"].as_str().unwrap_or_default(), false);
                failed(exit, format!("{}{told}", said.unwrap_or_default().trim_end_matches('.')), hint)
            }
        };
        Failed { of, ..refusal }
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
            (code::NOT_WELL, "There is no run-1 (run_unknown)", "ask `seawall runs`")
        );
        assert_eq!(told.as_json()["error"]["code"], "run_unknown");
        assert_eq!(told.as_json()["error"]["message"], "There is no run-1");
        assert_eq!(server.refused(StatusCode::BAD_REQUEST, &body).code, code::USAGE);
        assert_eq!(server.refused(StatusCode::SERVICE_UNAVAILABLE, &body).code, code::UNAVAILABLE);
        assert_eq!(server.refused(StatusCode::UNAUTHORIZED, &Value::Null).code, code::NOT_WELL);
        let odd = json!({ "error": { "code": "x", "message": "a\u{1b}[31mb" } });
        assert!(!server.refused(StatusCode::NOT_FOUND, &odd).what.contains('\u{1b}'));
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
