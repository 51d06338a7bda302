//! Reads `[[tool_server]]` and `[[tool]]`: what agents can call beside models, how it is
//! reached, and how its calls may be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Uri};
use seawall_model::{EffectClass, Millis, limits};

use super::Secret;
use super::engine::at_line;
use super::problem::Origin;
use super::raw::{Reading, Section};
use super::server;
use crate::tools::{Template, TemplateError, is_name};

/// Most calls in flight that may be allowed at one server.
const CALLS_MAX: u32 = 10_000;
/// Longest name of a server or an HTTP tool: what models' APIs allow for a function.
const NAME_LEN_MAX: usize = 64;

/// Names that a server or an HTTP tool cannot have: those that built-in tools begin with,
/// so that a rule or a definition never means two things, and those of the pools beside the
/// one that each server has.
const TAKEN: [&str; 11] =
    ["agent", "callback", "human", "lease", "message", "models", "notes", "store", "timer", "topic", "turns"];

/// Every tool that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolsConfig {
    /// MCP servers in the order of the file.
    pub servers: Vec<ServerConfig>,
    /// HTTP endpoints in the order of the file.
    pub http: Vec<HttpToolConfig>,
}

/// One MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its name: the first half of `server.tool`. Letters, digits, `_` and `-`.
    pub name: Arc<str>,
    /// How it is reached.
    pub way: Way,
    /// Longest wait for a tool's answer.
    pub timeout: Millis,
    /// Calls in flight at once.
    pub calls_max: u32,
    /// What is said of its tools, by their names there.
    pub tools: BTreeMap<Arc<str>, ToolRule>,
}

/// How an MCP server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is a process of ours, spoken to through its standard input and output.
    Child(ChildConfig),
    /// It listens, over streamable HTTP.
    Http(WebConfig),
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Variables for it beside the usual ones; their values may be secrets.
    pub env: BTreeMap<String, Secret>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// Where its messages go.
    pub url: Arc<str>,
    /// The token it wants.
    pub bearer: Option<Secret>,
    /// Headers added to its requests. Values are as private as tokens.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is said of one tool of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRule {
    /// Its class, whatever the server hints.
    pub class: Option<EffectClass>,
    /// The tool that undoes it, by its full name.
    pub undo: Option<Arc<str>>,
    /// The tool that says whether it was done, likewise.
    pub query: Option<Arc<str>>,
}

/// An HTTP endpoint that is one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpToolConfig {
    /// Its name: letters, digits, `_` and `-`.
    pub name: Arc<str>,
    /// What it is for, as the model reads it.
    pub about: Arc<str>,
    /// The method.
    pub method: Method,
    /// The address, with places for arguments.
    pub url: Template,
    /// Headers added to its requests. Values are as private as tokens.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON Schema of its arguments.
    pub schema: Arc<str>,
    /// How it may be repeated.
    pub class: EffectClass,
    /// The tool that undoes it, by its full name.
    pub undo: Option<Arc<str>>,
    /// The tool that says whether it was done, likewise.
    pub query: Option<Arc<str>>,
    /// Longest wait for its answer.
    pub timeout: Millis,
}

/// Reads every tool of the file. Ones too broken to use are left out, with problems.
pub(crate) fn read_tools(r: &mut Reading<'_>, root: &mut Section<'_>) -> ToolsConfig {
    let mut tools = ToolsConfig::default();
    let mut lines = BTreeMap::new();
    for section in root.tables(r, "tool_server", limits::TOOL_SERVERS_MAX) {
        let line = section.line();
        if let Some(server) = read_server(r, section)
            && is_new(r, &mut lines, "tool_server", &server.name, line)
        {
            tools.servers.push(server);
        }
    }
    lines.clear();
    for section in root.tables(r, "tool", limits::HTTP_TOOLS_MAX) {
        let line = section.line();
        if let Some(tool) = read_tool(r, section)
            && is_new(r, &mut lines, "tool", &tool.name, line)
        {
            tools.http.push(tool);
        }
    }
    check_undo(r, &tools);
    tools
}

fn is_new(
    r: &mut Reading<'_>,
    lines: &mut BTreeMap<Arc<str>, Option<usize>>,
    kind: &str,
    name: &Arc<str>,
    line: Option<usize>,
) -> bool {
    if let Some(first) = lines.get(name) {
        let what = format!("there is already one with this name{}", at_line(*first));
        r.problems.add(line, format!("{kind}.{name}.name"), what, "");
        return false;
    }
    lines.insert(name.clone(), line);
    true
}

fn read_name(r: &mut Reading<'_>, s: &mut Section<'_>, kind: &str) -> Option<Arc<str>> {
    let line = s.line();
    let Some(given) = s.given(r, "name") else {
        r.problems.add(line, s.path("name"), "it needs a name", "letters, digits, _ and -");
        return None;
    };
    let fits = |name: &&str| {
        (1..=NAME_LEN_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let Some(name) = given.text().filter(fits) else {
        let what = format!("a name is a text of 1 to {NAME_LEN_MAX} letters, digits, _ and -");
        r.problems.add(given.line().or(line), s.path("name"), what, "");
        return None;
    };
    if TAKEN.contains(&name) {
        let what = format!("{name} is taken: agents' own tools, or a pool of places, are called so");
        r.problems.add(given.line().or(line), s.path("name"), what, format!("name = \"my-{name}\""));
        return None;
    }
    let name: Arc<str> = name.into();
    s.rename(format!("{kind}.{name}"));
    r.record(s.path("name"), format!("{name:?}"), given.origin);
    Some(name)
}

fn read_server(r: &mut Reading<'_>, mut s: Section<'_>) -> Option<ServerConfig> {
    let name = read_name(r, &mut s, "tool_server");
    let way = read_way(r, &mut s);
    let timeout = s.millis(r, "timeout_ms", server::wait_range(), Millis(limits::TOOL_WAIT_MS_MAX));
    let calls_max = s.count(r, "calls_max", 1..=CALLS_MAX, limits::TOOL_SERVER_CALLS_MAX);
    let mut tools = BTreeMap::new();
    for (tool, mut rule) in s.children(r, "tools", limits::SERVER_TOOLS_MAX) {
        if !is_name(&tool) {
            r.problems.add(rule.line(), rule.own_path().to_owned(), "this is no name of a tool", "");
        }
        let read = read_class(r, &mut rule, name.as_deref());
        rule.finish(r);
        tools.insert(tool.into(), read);
    }
    s.finish(r);
    Some(ServerConfig { name: name?, way: way?, timeout, calls_max, tools })
}

fn read_way(r: &mut Reading<'_>, s: &mut Section<'_>) -> Option<Way> {
    let command = s.list_opt(r, "command", limits::TOOL_WORDS_MAX);
    let url = read_url(r, s, address);
    let env = read_env(r, s);
    let bearer = read_bearer(r, s);
    let headers = read_headers(r, s);
    let stray = |r: &mut Reading<'_>, s: &Section<'_>, keys: &[&str], what: &str| {
        for key in keys.iter().filter(|key| s.has(key)) {
            r.problems.add(s.line(), s.path(key), what, "leave it out");
        }
    };
    match (command, url) {
        (Some(_), _) if s.has("url") => {
            r.problems.add(s.line(), s.path("url"), "both command and url are given", "keep one");
            None
        }
        (Some(command), _) => {
            stray(
                r,
                s,
                &["bearer_env", "bearer_file", "headers"],
                "means nothing for a server with a command",
            );
            if command.first().is_none_or(|(program, _)| program.trim().is_empty()) {
                r.problem(
                    &s.path("command"),
                    "it names no program",
                    "command = [\"npx\", \"-y\", \"a-server\"]",
                );
                return None;
            }
            let command = command.into_iter().map(|(word, _)| word).collect();
            Some(Way::Child(ChildConfig { command, env }))
        }
        (None, Some(url)) => {
            stray(r, s, &["env"], "means nothing for a server with a url");
            if bearer.is_some() && url.starts_with("http://") && !is_local(&url) {
                let what = "its token goes over the network unencrypted";
                r.warnings.add(s.line(), s.path("url"), what, "use https, or be sure of the network");
            }
            Some(Way::Http(WebConfig { url, bearer, headers }))
        }
        (None, None) => {
            if !s.has("command") && !s.has("url") {
                let hint = "command = [\"npx\", \"-y\", \"a-server\"], or url = \"https://host/mcp\"";
                r.problems.add(s.line(), s.own_path().to_owned(), "it needs a command or a url", hint);
            }
            None
        }
    }
}

/// An address. It is never repeated where it is wrong: it may hold a password.
fn read_url<T>(
    r: &mut Reading<'_>,
    s: &mut Section<'_>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let given = s.given(r, "url")?;
    let parsed = given.text().ok_or_else(|| "a text with an address".to_owned()).and_then(|text| {
        let url = parse(text)?;
        Ok((url, text.split('?').next().unwrap_or_default().to_owned()))
    });
    match parsed {
        Ok((url, shown)) => {
            // So may a query.
            r.record(s.path("url"), format!("{shown:?}"), given.origin);
            Some(url)
        }
        Err(expected) => {
            r.problems.add(given.line(), s.path("url"), format!("expected {expected}"), "");
            None
        }
    }
}

/// An address with scheme and host, and without a password or fragment.
fn address(text: &str) -> Result<Arc<str>, String> {
    let expected = || "an address such as \"https://host/mcp\", without a password".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    let authority = uri.authority().ok_or_else(expected)?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let port = authority.port().is_none() || authority.port_u16().is_some_and(|port| port != 0);
    if !scheme || !port || authority.as_str().contains('@') || text.contains(['#', '{']) {
        return Err(expected());
    }
    Ok(text.into())
}

fn is_local(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(crate::upstream::is_loopback))
}

fn read_env(r: &mut Reading<'_>, s: &mut Section<'_>) -> BTreeMap<String, Secret> {
    let path = s.path("env");
    let mut env = BTreeMap::new();
    for (name, text, line) in s.pairs(r, "env") {
        let key = format!("{path}.{name}");
        if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
            r.problems.add(Some(line), key, "no variable can have this name or value", "");
            continue;
        }
        if let Some(value) = filled(r, &key, &text, line) {
            r.record(key, "\"***\"", Origin::File(line));
            env.insert(name, Secret::new(&value));
        }
    }
    if env.len() > limits::TOOL_WORDS_MAX {
        let what = format!("{} variables; at most {} are allowed", env.len(), limits::TOOL_WORDS_MAX);
        r.problems.add(s.line(), path, what, "");
    }
    env
}

/// A text with `${NAME}` replaced by that variable of our environment; `None`, with a warning
/// or a problem, if that is not possible.
fn filled(r: &mut Reading<'_>, key: &str, text: &str, line: usize) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            r.problems.add(Some(line), key, "a ${ is not closed", "write ${NAME}");
            return None;
        };
        let Some(value) = (r.env)(name).filter(|value| !value.trim().is_empty()) else {
            let what = format!("${name} is not set: it is left out");
            r.warnings.add(Some(line), key, what, format!("export {name}=..."));
            return None;
        };
        out.push_str(before);
        out.push_str(value.trim());
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

fn read_bearer(r: &mut Reading<'_>, s: &mut Section<'_>) -> Option<Secret> {
    for inline in ["bearer", "token"] {
        if s.has(inline) {
            let line = s.given(r, inline).and_then(|given| given.line());
            let hint = "name the variable in bearer_env or the file in bearer_file, and change the token: it was in a file";
            r.problems.add(line, s.path(inline), "a token never stands in the config file", hint);
        }
    }
    let variable = s.text_opt(r, "bearer_env");
    let file = s.path_opt(r, "bearer_file");
    let (path, found) = match (variable, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            r.problem(&s.path("bearer_env"), "both bearer_env and bearer_file are given", "keep one");
            return None;
        }
        (Some(name), None) => {
            let Some(token) = (r.env)(&name).filter(|token| !token.trim().is_empty()) else {
                let what = format!("${name} is not set: calls go out without a token");
                r.warning(&s.path("bearer_env"), what, format!("export {name}=..."));
                return None;
            };
            (s.path("bearer_env"), token)
        }
        (None, Some(file)) => match (r.files)(&file) {
            Ok(token) => (s.path("bearer_file"), token),
            Err(error) => {
                r.problem(&s.path("bearer_file"), format!("cannot read {}: {error}", file.display()), "");
                return None;
            }
        },
    };
    let token = found.trim();
    if token.is_empty() || HeaderValue::from_str(token).is_err() {
        let what = "the token is empty or holds characters that no header may hold";
        r.problem(&path, what, "is it the right file?");
        return None;
    }
    Some(Secret::new(token))
}

fn read_headers(r: &mut Reading<'_>, s: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let path = s.path("headers");
    let mut headers = Vec::new();
    for (name, text, line) in s.pairs(r, "headers") {
        let key = format!("{path}.{name}");
        let Ok(header) = HeaderName::try_from(name.as_str()) else {
            r.problems.add(Some(line), path.clone(), "this is no name of a header", "");
            continue;
        };
        let secret = matches!(header.as_str(), "authorization" | "x-api-key" | "api-key" | "cookie");
        if secret && !text.contains("${") {
            let hint = "name the variable that holds it: \"Bearer ${NAME}\"";
            r.problems.add(Some(line), key, "a token never stands in the config file", hint);
            continue;
        }
        if is_ours(header.as_str()) {
            r.problems.add(Some(line), key, "this header is set by the connection itself", "leave it out");
            continue;
        }
        let Some(value) = filled(r, &key, &text, line) else { continue };
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

/// Headers that the connection, the protocol or the effect sets.
fn is_ours(name: &str) -> bool {
    name.starts_with("mcp-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "transfer-encoding"
                | "connection"
                | "te"
                | "upgrade"
                | "accept"
                | "accept-encoding"
                | "expect"
                | "last-event-id"
                | "idempotency-key"
        )
}

/// A tool's class, what undoes it and what says whether it was done; a bare name of a
/// server's tool is one of the same server.
fn read_class(r: &mut Reading<'_>, s: &mut Section<'_>, server: Option<&str>) -> ToolRule {
    const NAMES: [&str; 4] = ["read", "idempotent", "compensable", "irreversible"];
    let class = s.choice_opt(r, "class", &NAMES, EffectClass::from_name);
    let [undo, query] = ["undo", "query"].map(|key| {
        s.text_opt(r, key).map(|tool| match server {
            Some(server) if !tool.contains('.') => Arc::<str>::from(format!("{server}.{tool}")),
            _ => tool.into(),
        })
    });
    let compensable = class == Some(EffectClass::Compensable);
    if compensable && undo.is_none() && !s.has("undo") {
        r.problem(&s.path("class"), "a compensable tool needs another that undoes it", "undo = \"NAME\"");
    }
    if undo.is_some() && !compensable {
        r.problem(&s.path("undo"), "only a compensable tool is undone", "class = \"compensable\"");
    }
    if query.is_some() && !compensable {
        r.problem(&s.path("query"), "only a compensable tool is asked about", "class = \"compensable\"");
    }
    ToolRule { class, undo, query }
}

fn read_tool(r: &mut Reading<'_>, mut s: Section<'_>) -> Option<HttpToolConfig> {
    let name = read_name(r, &mut s, "tool");
    let about = s.text(r, "about", "");
    if about.len() > limits::TOOL_ABOUT_BYTES_MAX {
        r.problem(&s.path("about"), format!("longer than {} bytes", limits::TOOL_ABOUT_BYTES_MAX), "");
    }
    if about.trim().is_empty() {
        r.warnings.add(
            s.line(),
            s.path("about"),
            "a model chooses a tool by what it is for",
            "about = \"...\"",
        );
    }
    let method = read_method(r, &mut s);
    let url = read_url(r, &mut s, |text| Template::parse(text).map_err(expected));
    if url.is_none() && !s.has("url") {
        r.problems.add(s.line(), s.path("url"), "it needs an address", "url = \"https://host/items/{id}\"");
    }
    let headers = read_headers(r, &mut s);
    let schema = read_schema(r, &mut s, url.as_ref());
    let ToolRule { class, undo, query } = read_class(r, &mut s, None);
    let class = class.unwrap_or_else(|| class_by_default(&method));
    s.record_default(r, "class", format!("{:?}", class.as_str()));
    let timeout = s.millis(r, "timeout_ms", server::wait_range(), Millis(limits::TOOL_WAIT_MS_MAX));
    s.finish(r);
    let about = about.into();
    Some(HttpToolConfig {
        name: name?,
        about,
        method,
        url: url?,
        headers,
        schema: schema?,
        class,
        undo,
        query,
        timeout,
    })
}

fn expected(error: TemplateError) -> String {
    format!("an address such as \"https://host/items/{{id}}\" ({error})")
}

fn read_method(r: &mut Reading<'_>, s: &mut Section<'_>) -> Method {
    let names = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let from_name = |name: &str| {
        let known = names.contains(&name);
        known.then(|| Method::from_bytes(name.as_bytes()).ok()).flatten()
    };
    let found = s.choice_opt(r, "method", &names, from_name);
    s.record_default(r, "method", "\"POST\"".to_owned());
    found.unwrap_or(Method::POST)
}

/// GET is safe by its definition (RFC 9110 section 9.2.1); of the rest nobody knows.
fn class_by_default(method: &Method) -> EffectClass {
    if *method == Method::GET { EffectClass::Read } else { EffectClass::Irreversible }
}

/// The schema as written, or one that names the arguments of the address.
fn read_schema(r: &mut Reading<'_>, s: &mut Section<'_>, url: Option<&Template>) -> Option<Arc<str>> {
    let Some(text) = s.text_opt(r, "schema") else {
        if s.has("schema") {
            return None;
        }
        let names: Vec<&str> = url.into_iter().flat_map(Template::names).collect();
        let places: serde_json::Map<String, serde_json::Value> =
            names.iter().map(|name| ((*name).to_owned(), serde_json::json!({"type": "string"}))).collect();
        let required: Vec<&String> = places.keys().collect();
        let schema = serde_json::json!({"type": "object", "required": required, "properties": places});
        return Some(schema.to_string().into());
    };
    let path = s.path("schema");
    if text.len() > limits::TOOL_SCHEMA_BYTES_MAX {
        r.problem(&path, format!("larger than {} bytes", limits::TOOL_SCHEMA_BYTES_MAX), "");
        return None;
    }
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(schema) => Some(serde_json::Value::Object(schema).to_string().into()),
        Err(error) => {
            let hint = "schema = '''{\"type\": \"object\", \"properties\": {...}}'''";
            r.problem(&path, format!("this is no JSON Schema of an object: {error}"), hint);
            None
        }
    }
}

/// What undoes a tool or is asked about it must be there; of a server's tools only the server
/// itself knows.
fn check_undo(r: &mut Reading<'_>, tools: &ToolsConfig) {
    let known = |undo: &str| match undo.split_once('.') {
        Some((server, _)) => tools.servers.iter().any(|known| *known.name == *server),
        None => tools.http.iter().any(|tool| *tool.name == *undo),
    };
    let of_servers = tools.servers.iter().flat_map(|server| {
        let path = move |tool: &Arc<str>| format!("tool_server.{}.tools.{tool}", server.name);
        server.tools.iter().map(move |(tool, rule)| (path(tool), &rule.undo, &rule.query))
    });
    let of_http = tools.http.iter().map(|tool| (format!("tool.{}", tool.name), &tool.undo, &tool.query));
    for (path, undo, query) in of_servers.chain(of_http) {
        for (key, name) in [("undo", undo), ("query", query)] {
            if let Some(name) = name.as_deref().filter(|name| !known(name)) {
                r.problem(&format!("{path}.{key}"), format!("there is no tool named {name}"), "");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::super::{Config, Flags, Problem};
    use super::*;

    fn read(text: &str) -> Result<(ToolsConfig, Vec<Problem>), String> {
        let env = |name: &str| match name {
            "TOKEN" => Some(" t0k\n".to_owned()),
            _ => None,
        };
        let files = |path: &Path| match path.to_str() {
            Some("/etc/seawall/token") => Ok("f1le\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let path = Path::new("/etc/seawall/seawall.toml");
        let read = Config::read(Some(path), text, &Flags::default(), &env, &files);
        read.map(|(config, warnings)| (config.tools, warnings))
            .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
    }

    #[test]
    fn servers_and_endpoints_mean_what_they_say() {
        let text = r#"
            [[tool_server]]
            name = "files"
            command = ["npx", "-y", "a-server", "/srv"]
            env = { A = "plain", B = "Bearer ${TOKEN}!", C = "${NOT_SET}" }
            timeout_ms = "5s"
            calls_max = 2
            [tool_server.tools.write]
            class = "compensable"
            undo = "remove"
            query = "stat"
            [tool_server.tools.list]
            class = "read"

            [[tool_server]]
            name = "web"
            url = "https://host/v1/mcp?x=1"
            bearer_file = "token"
            headers = { x-team = "a" }

            [[tool]]
            name = "lookup"
            about = "Looks an item up."
            method = "GET"
            url = "https://host/items/{id}"
            headers = { authorization = "Bearer ${TOKEN}" }

            [[tool]]
            name = "order"
            about = "Orders."
            url = "http://127.0.0.1:9/orders"
            schema = '{"type": "object"}'
            class = "compensable"
            undo = "web.cancel"
        "#;
        let (tools, warnings) = read(text).expect("good");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].what.contains("$NOT_SET"));
        let [files, web] = tools.servers.as_slice() else { panic!("two") };
        let Way::Child(way) = &files.way else { panic!("a child") };
        assert_eq!((way.command.len(), way.env.len()), (4, 2));
        assert_eq!(way.env["B"].reveal(), "Bearer t0k!");
        assert_eq!((files.timeout, files.calls_max), (Millis(5_000), 2));
        assert_eq!(files.tools["write"].undo.as_deref(), Some("files.remove"));
        assert_eq!(files.tools["write"].query.as_deref(), Some("files.stat"));
        assert_eq!(files.tools["list"].class, Some(EffectClass::Read));
        let Way::Http(way) = &web.way else { panic!("an address") };
        assert_eq!(
            (&*way.url, way.bearer.as_ref().map(Secret::reveal)),
            ("https://host/v1/mcp?x=1", Some("f1le"))
        );
        assert_eq!(
            (web.timeout, web.calls_max),
            (Millis(limits::TOOL_WAIT_MS_MAX), limits::TOOL_SERVER_CALLS_MAX)
        );
        let [lookup, order] = tools.http.as_slice() else { panic!("two") };
        assert_eq!((lookup.class, &lookup.method), (EffectClass::Read, &Method::GET));
        assert!(lookup.schema.contains(r#""required":["id"]"#), "{}", lookup.schema);
        assert_eq!((order.class, order.undo.as_deref()), (EffectClass::Compensable, Some("web.cancel")));
        assert_eq!(order.method, Method::POST);
    }

    #[test]
    fn secrets_are_never_shown() {
        let text = "[[tool_server]]\nname = 's'\ncommand = ['x']\nenv = { A = '${TOKEN}' }\n\
                    [[tool]]\nname = 't'\nabout = 'a'\nurl = 'https://h/?key=s3cret'\nheaders = { cookie = '${TOKEN}' }\n";
        let env = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        let read =
            Config::read(None, text, &Flags::default(), &env, &|_| Err(io::ErrorKind::NotFound.into()));
        let (config, _) = read.expect("good");
        assert!(!format!("{:?}", config.settings).contains("s3cret"), "what `check` shows");
        let Way::Child(way) = &config.tools.servers[0].way else { panic!("a child") };
        assert!(!format!("{way:?} {:?}", config.tools.http[0].headers).contains("s3cret"));
    }

    #[test]
    fn a_name_never_means_two_things() {
        for builtin in crate::agents::handler::BUILTINS {
            let first = builtin.split('.').next().expect("a word");
            assert!(TAKEN.contains(&first), "{builtin}");
        }
        let text = "[[tool_server]]\nname = 'store'\ncommand = ['x']\n\
                    [[tool]]\nname = 'turns'\nabout = 'a'\nurl = 'https://h/'\n\
                    [[tool]]\nname = 'stores'\nabout = 'a'\nurl = 'https://h/'\n";
        insta::assert_snapshot!(read(text).expect_err("two are taken"), @r#"
        line 2: tool_server[0].name: store is taken: agents' own tools, or a pool of places, are called so (name = "my-store")
        line 5: tool[0].name: turns is taken: agents' own tools, or a pool of places, are called so (name = "my-turns")
        "#);
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = r#"
[[tool_server]]
name = "a b"
command = ["x"]
[[tool_server]]
name = "s"
command = []
[[tool_server]]
name = "t"
[[tool_server]]
name = "u"
command = ["x"]
url = "https://host/"
[[tool_server]]
name = "v"
url = "https://me:pw@host/"
[[tool_server]]
name = "w"
url = "https://host/"
bearer = "t0k"
headers = { authorization = "Bearer t0k" }
[tool_server.tools."a b"]
class = "harmless"
[tool_server.tools.x]
undo = "y"
query = "z"
colour = 1
[[tool_server]]
name = "w"
command = ["x"]
bearer_env = "TOKEN"
[[tool]]
name = "h"
method = "get"
url = "https://{host}/"
schema = "[]"
class = "compensable"
undo = "nothing"
"#;
        let problems = read(text).expect_err("bad");
        assert!(!problems.contains("pw") && !problems.contains("t0k"), "{problems}");
        insta::assert_snapshot!(problems, @r#"
        line 3: tool_server[0].name: a name is a text of 1 to 64 letters, digits, _ and -
        line 7: tool_server.s.command: it names no program (command = ["npx", "-y", "a-server"])
        line 8: tool_server.t: it needs a command or a url (command = ["npx", "-y", "a-server"], or url = "https://host/mcp")
        line 10: tool_server.u.url: both command and url are given (keep one)
        line 16: tool_server.v.url: expected an address such as "https://host/mcp", without a password
        line 20: tool_server.w.bearer: a token never stands in the config file (name the variable in bearer_env or the file in bearer_file, and change the token: it was in a file)
        line 21: tool_server.w.headers.authorization: a token never stands in the config file (name the variable that holds it: "Bearer ${NAME}")
        line 22: tool_server.w.tools.a b: this is no name of a tool
        line 23: tool_server.w.tools.a b.class: expected one of read, idempotent, compensable, irreversible, found the text "harmless"
        line 25: tool_server.w.tools.x.undo: only a compensable tool is undone (class = "compensable")
        line 26: tool_server.w.tools.x.query: only a compensable tool is asked about (class = "compensable")
        line 27: tool_server.w.tools.x.colour: unknown key (known here: class, undo, query)
        line 28: tool_server.w.bearer_env: means nothing for a server with a command (leave it out)
        line 28: tool_server.w.name: there is already one with this name at line 17
        line 34: tool.h.method: expected one of GET, POST, PUT, PATCH, DELETE, found the text "get"
        line 35: tool.h.url: expected an address such as "https://host/items/{id}" (an argument cannot be part of the scheme, host or port)
        line 36: tool.h.schema: this is no JSON Schema of an object: invalid type: sequence, expected a map at line 1 column 0 (schema = '''{"type": "object", "properties": {...}}''')
        "#);
    }
}
