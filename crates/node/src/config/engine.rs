//! Reads `[[engine]]`: what answers calls, where, with which key and at what pace.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use seawall_kernel::plan::{Pace, Rate};
use seawall_model::{EngineKind, Protocol, Tokens, limits};

use super::problem::Origin;
use super::raw::{Reading, Section};
use super::server;
use super::{EngineConfig, LimitsConfig, Secret, Url};

/// Most calls in flight that may be allowed per replica.
const CALLS_MAX: u32 = 100_000;
/// Longest name of an engine: fits a metric label.
const NAME_LEN_MAX: usize = 64;

/// The protocols that a kind of server answers without translation.
///
/// Every OpenAI-compatible server has chat, completions and embeddings; `responses` is
/// common only at OpenAI itself, and translating it to chat works everywhere.
#[must_use]
pub fn speaks_by_default(kind: EngineKind, urls: &[Url]) -> Vec<Protocol> {
    match kind {
        EngineKind::OpenAi => {
            let mut all = vec![Protocol::Chat, Protocol::Completions, Protocol::Embeddings, Protocol::Other];
            if urls.iter().any(|url| url.host() == "api.openai.com") {
                all.push(Protocol::Responses);
            }
            all
        }
        EngineKind::Anthropic => vec![Protocol::Messages, Protocol::CountTokens],
        EngineKind::Sim => Protocol::ALL.to_vec(),
    }
}

/// The path a probe asks for. Listing models costs nothing and every server has it.
#[must_use]
pub const fn health_path_by_default(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::OpenAi | EngineKind::Anthropic => "/v1/models",
        EngineKind::Sim => "/health",
    }
}

/// The kind with this name in the file.
#[must_use]
pub fn kind_from_name(name: &str) -> Option<EngineKind> {
    [EngineKind::OpenAi, EngineKind::Anthropic, EngineKind::Sim]
        .into_iter()
        .find(|kind| kind.as_str() == name)
}

/// Is this a name for an engine? It is the first half of `engine/model`, so no slash.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Reads every engine of the file. Ones too broken to use are left out, with problems.
pub(crate) fn read_engines(
    r: &mut Reading<'_>,
    root: &mut Section<'_>,
    limits: &LimitsConfig,
) -> Vec<EngineConfig> {
    let mut engines: Vec<EngineConfig> = Vec::new();
    let mut lines: BTreeMap<Arc<str>, Option<usize>> = BTreeMap::new();
    for section in root.tables(r, "engine", limits::ENGINES_MAX) {
        let line = section.line();
        let Some(engine) = read_engine(r, section, limits) else {
            continue;
        };
        if let Some(first) = lines.get(&engine.name) {
            let what = format!("there is already an engine with this name{}", at_line(*first));
            r.problems.add(line, format!("engine.{}.name", engine.name), what, "");
            continue;
        }
        lines.insert(engine.name.clone(), line);
        engines.push(engine);
    }
    engines
}

pub(crate) fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" at line {line}"))
}

fn read_engine(r: &mut Reading<'_>, mut s: Section<'_>, limits: &LimitsConfig) -> Option<EngineConfig> {
    let name = read_name(r, &mut s);
    let kind =
        s.choice(r, "kind", &["openai", "anthropic", "sim"], kind_from_name, (EngineKind::OpenAi, "openai"));
    let urls = read_urls(r, &mut s, kind);
    let mut engine =
        EngineConfig::new(name.as_deref().unwrap_or("?"), kind, urls.unwrap_or_default(), limits);
    read_key(r, &mut s, &mut engine);
    engine.headers = read_headers(r, &mut s);
    read_speaks(r, &mut s, &mut engine);
    engine.discover = s.bool(r, "discover", engine.discover);
    engine.models = read_models(r, &mut s);
    engine.pace = read_pace(r, &mut s);
    engine.rate = read_rate(r, &mut s);
    engine.first_token_ms_max =
        s.millis(r, "first_token_ms_max", server::wait_range(), engine.first_token_ms_max);
    engine.stall_ms_max = s.millis(r, "stall_ms_max", server::wait_range(), engine.stall_ms_max);
    engine.connect_ms_max = s.millis(r, "connect_ms_max", server::connect_range(), engine.connect_ms_max);
    if let Some(path) = s.parsed_opt(r, "health_path", parse_path) {
        engine.health_path = path;
    }
    s.record_default(r, "health_path", format!("{:?}", engine.health_path));
    read_ca_file(r, &mut s, &mut engine);
    if s.has("tls_skip_verify") {
        s.know("tls_skip_verify");
        let path = s.path("tls_skip_verify");
        let hint = "name the authority's PEM file in tls_ca_file instead";
        r.problems.add(s.line(), path, "certificates are always verified", hint);
    }
    s.finish(r);
    name.map(|_| engine)
}

fn read_name(r: &mut Reading<'_>, s: &mut Section<'_>) -> Option<Arc<str>> {
    if !s.has("name") {
        let path = s.path("name");
        r.problems.add(
            s.line(),
            path,
            "an engine needs a name",
            "it is the first half of engine/model in targets",
        );
        s.know("name");
        return None;
    }
    let line = s.line();
    let given = s.given(r, "name")?;
    let Some(name) = given.text().filter(|name| is_name(name)) else {
        let path = s.path("name");
        let what = format!("a name is a text of 1 to {NAME_LEN_MAX} letters, digits and . _ -");
        r.problems.add(given.line().or(line), path, what, "");
        return None;
    };
    let name: Arc<str> = name.into();
    s.rename(format!("engine.{name}"));
    let path = s.path("name");
    r.record(path, format!("{name:?}"), given.origin);
    Some(name)
}

/// `None` means that a problem was reported or the built-in engine is meant.
fn read_urls(r: &mut Reading<'_>, s: &mut Section<'_>, kind: EngineKind) -> Option<Vec<Url>> {
    let one = s.has("url").then(|| s.given(r, "url")).flatten();
    s.know("url");
    let many = s.list_opt(r, "urls", limits::REPLICAS_MAX);
    let path = s.path(if one.is_some() { "url" } else { "urls" });
    if let (Some(_), Some(_)) = (&one, &many) {
        r.problems.add(s.line(), path, "both url and urls are given", "keep urls");
        return None;
    }
    let texts = match (one, many) {
        (Some(given), _) => {
            let line = given.line().unwrap_or_default();
            let Some(text) = given.text() else {
                r.problems.add(given.line(), s.path("url"), "expected a text with an address", "");
                return None;
            };
            r.record(s.path("url"), format!("{text:?}"), given.origin.clone());
            vec![(text.to_owned(), line)]
        }
        (None, Some(texts)) => texts,
        (None, None) if s.has("urls") => return None,
        (None, None) if kind == EngineKind::Sim => return None,
        (None, None) if kind == EngineKind::Anthropic => vec![("https://api.anthropic.com".to_owned(), 0)],
        (None, None) => {
            r.problems.add(
                s.line(),
                s.path("url"),
                "an engine needs an address",
                "url = \"http://127.0.0.1:8000\"",
            );
            return None;
        }
    };
    if texts.is_empty() {
        r.problem(&path, "the list of addresses is empty", "");
    }
    let mut urls: Vec<Url> = Vec::new();
    for (text, line) in texts {
        match Url::parse(&text) {
            Ok(url) if urls.contains(&url) => {
                r.problems.add(Some(line), path.clone(), format!("{url} is listed twice"), "");
            }
            Ok(url) => urls.push(url),
            // A password in an address must not be repeated in the message.
            Err(error) => r.problems.add(Some(line), path.clone(), error.to_string(), error.hint()),
        }
    }
    Some(urls)
}

fn read_key(r: &mut Reading<'_>, s: &mut Section<'_>, engine: &mut EngineConfig) {
    for inline in ["key", "api_key"] {
        if s.has(inline) {
            let hint =
                "name the variable in key_env or the file in key_file, and change the key: it was in a file";
            let line = s.given(r, inline).and_then(|given| given.line());
            r.problems.add(line, s.path(inline), "a key never stands in the config file", hint);
        }
    }
    let variable = s.text_opt(r, "key_env");
    let file = s.path_opt(r, "key_file");
    let env_path = s.path("key_env");
    match (variable, file) {
        (Some(_), Some(_)) => r.problem(&env_path, "both key_env and key_file are given", "keep one"),
        (Some(name), None) => match (r.env)(&name).filter(|key| !key.trim().is_empty()) {
            Some(key) => set_key(r, engine, &env_path, &key, format!("${name}")),
            None => r.warning(
                &env_path,
                format!("${name} is not set: calls go out without a key"),
                format!("export {name}=..."),
            ),
        },
        (None, Some(file)) => {
            let path = s.path("key_file");
            match (r.files)(&file) {
                Ok(key) if key.trim().is_empty() => {
                    r.problem(&path, format!("{} is empty", file.display()), "");
                }
                Ok(key) => set_key(r, engine, &path, &key, file.display().to_string()),
                Err(error) => r.problem(&path, format!("cannot read {}: {error}", file.display()), ""),
            }
        }
        (None, None) => {}
    }
    if engine.key.is_some()
        && let Some(url) = engine.urls.iter().find(|url| !url.is_https() && !url.is_loopback())
    {
        let what = format!("its key goes to {url} unencrypted");
        r.warnings.add(s.line(), s.own_path(), what, "use https, or be sure of the network");
    }
}

fn set_key(r: &mut Reading<'_>, engine: &mut EngineConfig, path: &str, key: &str, from: String) {
    let key = key.trim();
    if HeaderValue::from_str(key).is_err() {
        r.problem(
            path,
            format!("the key from {from} holds characters that no header may hold"),
            "is it the right file?",
        );
        return;
    }
    engine.key = Some(Secret::new(key));
    engine.key_from = Some(from);
}

fn read_headers(r: &mut Reading<'_>, s: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let path = s.path("headers");
    let mut headers = Vec::new();
    for (name, value, line) in s.pairs(r, "headers") {
        let key = format!("{path}.{name}");
        let Ok(header) = HeaderName::try_from(name.as_str()) else {
            r.problems.add(Some(line), path.clone(), "this is no name of a header", "");
            continue;
        };
        if matches!(header.as_str(), "authorization" | "x-api-key" | "api-key") {
            let hint = "name the variable that holds it in key_env";
            r.problems.add(Some(line), key, "a key never stands in the config file", hint);
            continue;
        }
        if matches!(
            header.as_str(),
            "host"
                | "content-length"
                | "transfer-encoding"
                | "connection"
                | "content-type"
                | "te"
                | "upgrade"
        ) {
            r.problems.add(Some(line), key, "this header is set by the connection itself", "leave it out");
            continue;
        }
        match HeaderValue::from_str(&value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.push((header, value));
                r.record(key, "\"***\"", Origin::File(line));
            }
            Err(_) => {
                r.problems.add(Some(line), key, "the value holds characters that no header may hold", "");
            }
        }
    }
    if headers.len() > limits::ENGINE_HEADERS_MAX {
        let what = format!("{} headers; at most {} are allowed", headers.len(), limits::ENGINE_HEADERS_MAX);
        r.problems.add(s.line(), path, what, "");
    }
    headers
}

fn read_speaks(r: &mut Reading<'_>, s: &mut Section<'_>, engine: &mut EngineConfig) {
    let names: Vec<&str> =
        Protocol::ALL.into_iter().filter(|p| *p != Protocol::Other).map(Protocol::as_str).collect();
    let passes = engine.speaks.contains(&Protocol::Other);
    if let Some(texts) = s.list_opt(r, "speaks", Protocol::ALL.len()) {
        engine.speaks.clear();
        for (text, line) in texts {
            match Protocol::from_name(&text) {
                Some(Protocol::Other) | None => {
                    let what = format!("{text:?} is no protocol");
                    r.problems.add(
                        Some(line),
                        s.path("speaks"),
                        what,
                        format!("one of {}", names.join(", ")),
                    );
                }
                Some(protocol) if engine.speaks.contains(&protocol) => {}
                Some(protocol) => engine.speaks.push(protocol),
            }
        }
        if engine.speaks.is_empty() {
            r.problem(
                &s.path("speaks"),
                "an engine that speaks nothing answers nothing",
                "leave the key out for the usual ones",
            );
        }
    }
    engine.speaks.retain(|protocol| *protocol != Protocol::Other);
    let spoken: Vec<&str> = engine.speaks.iter().map(|protocol| protocol.as_str()).collect();
    s.record_default(r, "speaks", format!("{spoken:?}"));
    if s.bool(r, "pass_through", passes) {
        if engine.kind == EngineKind::Anthropic {
            let hint = "only engines of kind openai take other paths through";
            r.problem(&s.path("pass_through"), "cannot be on for an engine of kind anthropic", hint);
        }
        engine.speaks.push(Protocol::Other);
    }
}

fn read_models(r: &mut Reading<'_>, s: &mut Section<'_>) -> Vec<Arc<str>> {
    let path = s.path("models");
    let mut models: Vec<Arc<str>> = Vec::new();
    for (name, line) in s.list_opt(r, "models", limits::MODELS_MAX).unwrap_or_default() {
        if !super::tenant::is_model_name(&name) {
            r.problems.add(Some(line), path.clone(), format!("{name:?} is no name of a model"), "");
        } else if models.iter().any(|known| **known == *name) {
            r.problems.add(Some(line), path.clone(), format!("{name:?} is listed twice"), "");
        } else {
            models.push(name.into());
        }
    }
    models
}

fn read_pace(r: &mut Reading<'_>, s: &mut Section<'_>) -> Pace {
    let d = Pace::default();
    let calls_min = s.count(r, "calls_min", 1..=CALLS_MAX, d.calls_min);
    let calls_max = s.count(r, "calls_max", 1..=CALLS_MAX, d.calls_max.max(calls_min));
    let pace = Pace {
        calls_min,
        calls_max,
        // An unsaid start follows a lowered ceiling rather than being a problem.
        calls_start: s.count(
            r,
            "calls_start",
            1..=CALLS_MAX,
            d.calls_start.clamp(calls_min, calls_max.max(calls_min)),
        ),
        adaptive: s.bool(r, "adaptive", d.adaptive),
        slowdown_max: s.count(r, "slowdown_max", 2..=1_000, d.slowdown_max),
        kv_tokens_max: s.whole_opt(r, "kv_tokens_max", 1_000..=1_000_000_000_000).map(Tokens),
        queue_delay_ms_max: s.millis(r, "queue_delay_ms_max", server::delay_range(), d.queue_delay_ms_max),
    };
    if pace.calls_min > pace.calls_max {
        r.problem(
            &s.path("calls_min"),
            format!("{} is more than calls_max, {}", pace.calls_min, pace.calls_max),
            "",
        );
    } else if pace.calls_start < pace.calls_min || pace.calls_start > pace.calls_max {
        let what = format!(
            "{} is not between calls_min, {}, and calls_max, {}",
            pace.calls_start, pace.calls_min, pace.calls_max
        );
        r.problem(&s.path("calls_start"), what, "");
    }
    pace
}

/// `rate = { calls_per_min = 500, tokens_per_min = 30000 }`
pub(crate) fn read_rate(r: &mut Reading<'_>, s: &mut Section<'_>) -> Rate {
    let mut below = s.table(r, "rate");
    let rate = Rate {
        calls_per_min: below.count_opt(r, "calls_per_min", 1..=u32::MAX),
        tokens_per_min: below.whole_opt(r, "tokens_per_min", 1..=1_000_000_000_000),
    };
    below.finish(r);
    rate
}

fn parse_path(text: &str) -> Result<Arc<str>, String> {
    let ok = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if ok { Ok(text.into()) } else { Err("a path that starts with a slash".into()) }
}

fn read_ca_file(r: &mut Reading<'_>, s: &mut Section<'_>, engine: &mut EngineConfig) {
    let Some(file) = s.path_opt(r, "tls_ca_file") else {
        return;
    };
    let path = s.path("tls_ca_file");
    if server::read_pem(r, &path, &file, crate::tls::authorities).is_some() {
        engine.tls_ca_file = Some(file);
    }
    if !engine.urls.is_empty() && engine.urls.iter().all(|url| !url.is_https()) {
        r.warning(&path, "has no effect on addresses without https", "");
    }
}

/// An engine named on the command line: `URL` or `NAME=URL`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn from_flag(
    text: &str,
    limits: &LimitsConfig,
    env: &dyn Fn(&str) -> Option<String>,
    taken: &[EngineConfig],
) -> Result<EngineConfig, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) if is_name(name) => (Some(name), address),
        _ => (None, text),
    };
    let url = Url::parse(address).map_err(|error| format!("{error}: {}", error.hint()))?;
    let (kind, usual, variable) = match url.host() {
        "api.openai.com" => (EngineKind::OpenAi, "openai".to_owned(), Some("OPENAI_API_KEY")),
        "api.anthropic.com" => (EngineKind::Anthropic, "anthropic".to_owned(), Some("ANTHROPIC_API_KEY")),
        host => (EngineKind::OpenAi, usual_name(host, url.port()), None),
    };
    let name = name.unwrap_or(&usual);
    if taken.iter().any(|engine| &*engine.name == name) {
        return Err(format!("there is already an engine named {name}: write --engine other={address}"));
    }
    let mut engine = EngineConfig::new(name, kind, vec![url], limits);
    if let Some(variable) = variable
        && let Some(key) =
            env(variable).filter(|key| HeaderValue::from_str(key.trim()).is_ok_and(|v| !v.is_empty()))
    {
        engine.key = Some(Secret::new(key.trim()));
        engine.key_from = Some(format!("${variable}"));
    }
    Ok(engine)
}

/// A name made of an address: `localhost-8000`.
fn usual_name(host: &str, port: u16) -> String {
    let host: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let host = host.trim_matches('-');
    let host: String = host.chars().take(NAME_LEN_MAX - 6).collect();
    format!("{host}-{port}")
}
