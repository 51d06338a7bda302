//! What a path stands for. What an engine might take for another path than it says would
//! pass the kernel unpriced (I12), so a path that hides another one goes nowhere.

use seawall_model::Protocol;

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// One of the served protocols.
    Call(Protocol),
    /// The list of models, or the one of this name.
    Models(Option<String>),
    /// Any other `/v1/*` path.
    Through,
    /// Is the process alive?
    Health,
    /// Should calls be sent here?
    Ready,
    /// The metrics page.
    Metrics,
    /// Engines and models with their state, for `seawall models`.
    State,
    /// Agents and their runs: told apart by `agents::path`.
    Agents,
    /// Stops a run that comes through the door (`true`), or lets it go on.
    Halt(String, bool),
    /// Nothing.
    Nowhere,
}

/// The route of a path as it was sent.
#[must_use]
pub fn route(path: &str) -> Route {
    match path {
        "/v1/models" => Route::Models(None),
        "/healthz" => Route::Health,
        "/readyz" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/seawall/state" => Route::State,
        _ => served(path).map_or_else(|| beside(path), Route::Call),
    }
}

fn served(path: &str) -> Option<Protocol> {
    let protocols = [
        Protocol::Chat,
        Protocol::Completions,
        Protocol::Embeddings,
        Protocol::Responses,
        Protocol::Messages,
        Protocol::CountTokens,
    ];
    protocols.into_iter().find(|protocol| protocol.path() == path)
}

/// The order to a run that comes through the door: `/seawall/runs/ID/stop`, where ID is not
/// that of a durable run.
fn halt(path: &str) -> Option<Route> {
    let (run, order) = path.strip_prefix("/seawall/runs/")?.split_once('/')?;
    let stop = match order {
        "stop" => true,
        "resume" => false,
        _ => return None,
    };
    (!run.starts_with("run-")).then(|| Route::Halt(run.to_owned(), stop))
}

/// The route of a path under `/v1/` that is none of the served ones as it is written.
fn beside(path: &str) -> Route {
    if path.starts_with("/seawall/") {
        return halt(path).unwrap_or(Route::Agents);
    }
    let Some(rest) = path.strip_prefix("/v1/") else { return Route::Nowhere };
    if let Some(name) = rest.strip_prefix("models/") {
        // Names may hold slashes, which clients may or may not escape. None of them leads
        // out of the models.
        let name = decoded(name).filter(|name| name.split('/').all(is_plain));
        return name.map_or(Route::Nowhere, |name| Route::Models(Some(name)));
    }
    let parts: Option<Vec<String>> = rest.split('/').map(decoded).collect();
    let Some(parts) = parts.filter(|parts| parts.iter().all(|part| is_plain(part) && !part.contains('/')))
    else {
        return Route::Nowhere;
    };
    // Some engines do not look at the case of a path.
    let meant = format!("/v1/{}", parts.join("/")).to_ascii_lowercase();
    let hides = served(&meant).is_some() || meant == "/v1/models" || meant.starts_with("/v1/models/");
    if hides { Route::Nowhere } else { Route::Through }
}

/// Does every reader take this decoded segment for what it is? Not one that steps up
/// (`..`), that is a separator to some (`\`, nothing at all), that would decode further,
/// or that ends early for those who stop at a control character.
fn is_plain(part: &str) -> bool {
    let odd = |byte: u8| matches!(byte, b'\\' | b'%') || byte.is_ascii_control();
    !part.is_empty() && !part.starts_with('.') && !part.bytes().any(odd)
}

/// Without its percent escapes (RFC 3986 section 2.1); `None` for a broken escape, or
/// bytes that are no UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_protocol_has_its_path() {
        assert_eq!(route("/v1/chat/completions"), Route::Call(Protocol::Chat));
        assert_eq!(route("/v1/completions"), Route::Call(Protocol::Completions));
        assert_eq!(route("/v1/embeddings"), Route::Call(Protocol::Embeddings));
        assert_eq!(route("/v1/responses"), Route::Call(Protocol::Responses));
        assert_eq!(route("/v1/messages"), Route::Call(Protocol::Messages));
        assert_eq!(route("/v1/messages/count_tokens"), Route::Call(Protocol::CountTokens));
    }

    #[test]
    fn a_path_that_hides_another_goes_nowhere() {
        for path in [
            "/v1/%63hat/completions",
            "/v1/chat%2Fcompletions",
            "/v1/chat%2fcompletions",
            "/v1/%2563hat/completions",
            "/v1/CHAT/completions",
            "/v1/chat/completions/",
            "/v1/chat//completions",
            "/v1/x/../chat/completions",
            "/v1/%2e%2e/admin",
            "/v1/.%2e/admin",
            "/v1/x/%5c..%5cadmin",
            "/v1/x\\..\\admin",
            "/v1/chat/completions%00",
            "/v1/chat/completions%0d%0a",
            "/v1/files/%",
            "/v1/files/%6",
            "/v1/files/%zz",
            "/v1/files/%ff",
            "/v1/%6dodels",
            "/v1/%6dodels/x",
            "/v1/models/..%2Fchat%2Fcompletions",
            "/v1/models/../chat/completions",
            "/v1/models/",
            "/v1/models/a%252fb",
            "/%76%31/chat/completions",
            "/v1/",
            "/v1",
            "/admin",
        ] {
            assert_eq!(route(path), Route::Nowhere, "{path}");
        }
    }

    #[test]
    fn other_paths_pass_with_harmless_escapes() {
        for path in
            ["/v1/files", "/v1/files/a%20b.txt", "/v1/vector_stores/vs%3A1/files", "/v1/chat/completions/c1"]
        {
            assert_eq!(route(path), Route::Through, "{path}");
        }
    }

    #[test]
    fn runs_of_both_kinds_are_told_apart() {
        let door = Route::Halt("00000000000000ff".to_owned(), true);
        assert_eq!(route("/seawall/runs/00000000000000ff/stop"), door);
        assert_eq!(route("/seawall/runs/run-1f03/stop"), Route::Agents);
        assert_eq!(route("/seawall/runs/run-1f03"), Route::Agents);
        assert_eq!(route("/seawall/runs"), Route::Agents);
        assert_eq!(route("/seawall/state"), Route::State);
    }

    #[test]
    fn a_models_name_may_be_escaped_or_not() {
        for path in ["/v1/models/org/name:1", "/v1/models/org%2Fname%3a1", "/v1/models/%6frg/name:1"] {
            assert_eq!(route(path), Route::Models(Some("org/name:1".to_owned())), "{path}");
        }
        assert_eq!(route("/v1/models"), Route::Models(None));
    }
}
