//! The configuration: defaults < file < environment < flags, checked as a whole, with
//! every problem told at once and the origin of every value remembered.
//!
//! [`Config::load`] reads; the rest of the program gets its slice by constructor and
//! never asks where a value came from. [`plan`](plan::plan) turns it into what the
//! kernel decides by and what the shell needs to reach the engines.

pub mod amount;
pub mod check;
pub mod engine;
pub mod load;
pub mod plan;
pub mod problem;
pub mod raw;
pub mod secret;
pub mod server;
pub mod tenant;
pub mod tool;
pub mod agents;
mod typed;
pub mod url;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use seawall_kernel::plan::{GuardRule, Pace, Price, QueueRule, Rate, RetryRule, TenantRule};
use seawall_model::{Bytes, Class, EngineKind, Millis, Protocol, Tokens, limits};
use seawall_store::MemoRule;

use crate::engine as sim_engine;

pub use load::{Flags, Loaded};
pub use plan::{Discovered, Ids, Routes};
pub use problem::{Origin, Problem, Setting};
pub use secret::Secret;
pub use url::Url;

/// The effective configuration: every default filled in, every value checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The directory of the store.
    pub data: PathBuf,
    /// The file it was read from, to read it again on reload.
    pub file: Option<PathBuf>,
    /// Certificate for clients; `None` serves plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Logging.
    pub log: LogConfig,
    /// Bounds.
    pub limits: LimitsConfig,
    /// Bounds of each engine's queue.
    pub queue: QueueRule,
    /// Guaranteed percent of each class, indexed by [`Class`].
    pub classes: [u32; Class::ALL.len()],
    /// Recovery from failed attempts.
    pub retry: RetryRule,
    /// When a run is held to go round in circles.
    pub guard: GuardRule,
    /// How much is kept of runs that ask for it.
    pub memo: MemoRule,
    /// Engines in the order of the file, then those of flags. Empty means: look for
    /// some ([`crate::discover`]), and serve the built-in one if there are none.
    pub engines: Vec<EngineConfig>,
    /// Aliases in the order of the file.
    pub models: Vec<ModelConfig>,
    /// Rules hung on tenant prefixes, in the order of the file.
    pub tenants: Vec<TenantConfig>,
    /// Tools of agents.
    pub tools: tool::ToolsConfig,
    /// Agents that run inside.
    pub agents: agents::AgentsConfig,
    /// The built-in simulated engine.
    pub sim: sim_engine::Options,
    /// The metrics page.
    pub metrics: MetricsConfig,
    /// Proxies on the way to engines.
    pub proxy: ProxyConfig,
    /// Every effective value with its origin, in reading order.
    pub settings: Vec<Setting>,
}

/// PEM files for TLS towards clients. Both were readable when the config was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may soon.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

impl LogFormat {
    /// The names in config and flags.
    pub const NAMES: [&'static str; 2] = ["text", "json"];

    /// The name in config.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.as_str() == name)
    }
}

impl LogLevel {
    /// The names in config and flags.
    pub const NAMES: [&'static str; 5] = ["error", "warn", "info", "debug", "trace"];

    /// The name in config, which is also `tracing`'s.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The level with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        all.into_iter().find(|level| level.as_str() == name)
    }
}

/// Logging. Content never reaches a log line (I11), at any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// How much is logged.
    pub level: LogLevel,
    /// One line per call.
    pub access: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: LogLevel::default(), access: true }
    }
}

/// Bounds that a user may move. The reasons stand beside the defaults in
/// [`seawall_model::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Largest request body.
    pub body_bytes_max: Bytes,
    /// Largest body of a pass-through upload.
    pub upload_bytes_max: Bytes,
    /// Uploads that pass through at once.
    pub uploads_max: usize,
    /// Of these, uploads of one root tenant.
    pub tenant_uploads_max: usize,
    /// So long may the client of an upload keep it waiting, beside the time its bytes take
    /// at the slowest pace.
    pub upload_stall_ms_max: Millis,
    /// Slowest pace of an upload, per second.
    pub upload_bytes_per_s_min: Bytes,
    /// Longest wait for a request body.
    pub body_wait_ms_max: Millis,
    /// All bytes held for calls in flight.
    pub memory_bytes_max: Bytes,
    /// Connections from clients.
    pub connections_max: usize,
    /// A client that takes nothing for this long is cut.
    pub client_stall_ms_max: Millis,
    /// Longest silence before an engine's first byte, where the engine says no other.
    pub first_token_ms_max: Millis,
    /// Longest silence between two pieces of an answer, where the engine says no other.
    pub stall_ms_max: Millis,
    /// Longest connect to an engine.
    pub connect_ms_max: Millis,
    /// Largest engine answer held for translation.
    pub answer_bytes_max: Bytes,
    /// Bytes held for one stream between engine and client.
    pub stream_window_bytes: usize,
    /// Streams may finish for this long after SIGTERM.
    pub drain_ms_max: Millis,
    /// Readiness fails for this long before the listener closes.
    pub drain_grace_ms: Millis,
    /// Call records kept in the store.
    pub records_kept_max: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: Bytes(limits::BODY_BYTES_MAX),
            upload_bytes_max: Bytes(limits::UPLOAD_BYTES_MAX),
            uploads_max: limits::UPLOADS_MAX,
            tenant_uploads_max: limits::TENANT_UPLOADS_MAX,
            upload_stall_ms_max: Millis(limits::UPLOAD_STALL_MS_MAX),
            upload_bytes_per_s_min: Bytes(limits::UPLOAD_BYTES_PER_S_MIN),
            body_wait_ms_max: Millis(limits::BODY_WAIT_MS_MAX),
            memory_bytes_max: Bytes(limits::MEMORY_BYTES_MAX),
            connections_max: limits::CONNECTIONS_MAX,
            client_stall_ms_max: Millis(limits::CLIENT_STALL_MS_MAX),
            first_token_ms_max: Millis(limits::FIRST_TOKEN_MS_MAX),
            stall_ms_max: Millis(limits::STALL_MS_MAX),
            connect_ms_max: Millis(limits::CONNECT_MS_MAX),
            answer_bytes_max: Bytes(limits::ANSWER_BYTES_MAX),
            stream_window_bytes: limits::STREAM_WINDOW_BYTES,
            drain_ms_max: Millis(limits::DRAIN_MS_MAX),
            drain_grace_ms: Millis(limits::DRAIN_GRACE_MS),
            records_kept_max: limits::RECORDS_KEPT_MAX,
        }
    }
}

/// The guaranteed shares of the classes where nothing else is configured: people
/// first, but a flood of them leaves agents a quarter and batches enough to move.
pub const CLASS_SHARES: [u32; Class::ALL.len()] = [60, 25, 5];

/// One engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Its name: letters, digits and `. _ -`, never a slash.
    pub name: Arc<str>,
    /// What kind of server it is.
    pub kind: EngineKind,
    /// Its replicas. Empty only for [`EngineKind::Sim`]: the built-in engine is started
    /// for it.
    pub urls: Vec<Url>,
    /// The key it wants, read when the config was loaded.
    pub key: Option<Secret>,
    /// Where the key came from, in words without the key: `$OPENAI_API_KEY`.
    pub key_from: Option<String>,
    /// Protocols it answers without translation. [`Protocol::Other`] is here if and only
    /// if other paths pass through.
    pub speaks: Vec<Protocol>,
    /// Headers added to its calls. Values are as private as keys.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Ask it for its models.
    pub discover: bool,
    /// Models it is known to have, whether or not it says so.
    pub models: Vec<Arc<str>>,
    /// How concurrency is found.
    pub pace: Pace,
    /// Ceilings per minute, over all replicas.
    pub rate: Rate,
    /// Longest silence before its first byte.
    pub first_token_ms_max: Millis,
    /// Longest silence between two pieces of its answer.
    pub stall_ms_max: Millis,
    /// Longest connect.
    pub connect_ms_max: Millis,
    /// The path that a probe asks for; any answer below 500 is a sign of life.
    pub health_path: Arc<str>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub tls_ca_file: Option<PathBuf>,
}

impl EngineConfig {
    /// An engine of this kind at these addresses, with every default.
    #[must_use]
    pub fn new(name: &str, kind: EngineKind, urls: Vec<Url>, limits: &LimitsConfig) -> Self {
        Self {
            speaks: engine::speaks_by_default(kind, &urls),
            health_path: engine::health_path_by_default(kind).into(),
            name: name.into(),
            kind,
            urls,
            key: None,
            key_from: None,
            headers: Vec::new(),
            discover: true,
            models: Vec::new(),
            pace: Pace::default(),
            rate: Rate::default(),
            first_token_ms_max: limits.first_token_ms_max,
            stall_ms_max: limits.stall_ms_max,
            connect_ms_max: limits.connect_ms_max,
            tls_ca_file: None,
        }
    }

    /// Does it answer this protocol without translation?
    #[must_use]
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.speaks.contains(&protocol)
    }
}

/// One alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name that clients ask for.
    pub name: Arc<str>,
    /// Engine and upstream model, in order of preference. Never empty.
    pub targets: Vec<TargetConfig>,
    /// Its price; all zero is free or unknown.
    pub price: Price,
    /// Longest prompt plus output, where known.
    pub context_tokens_max: Option<Tokens>,
    /// Output tokens reserved for a call that names no limit.
    pub output_tokens_max: Tokens,
    /// Left out of `/v1/models`; still answers.
    pub hidden: bool,
}

impl ModelConfig {
    /// An alias with this name, without targets or price.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            targets: Vec::new(),
            price: Price::default(),
            context_tokens_max: None,
            output_tokens_max: Tokens(limits::OUTPUT_TOKENS_MAX),
            hidden: false,
        }
    }
}

/// One target of an alias.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetConfig {
    /// The engine's name.
    pub engine: Arc<str>,
    /// The model's name there.
    pub upstream: Arc<str>,
}

/// Rules hung on one tenant prefix.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    /// What the kernel enforces, with the prefix.
    pub rule: TenantRule,
    /// Aliases it may ask for; empty is all.
    pub models: Vec<Arc<str>>,
    /// The class of its calls where neither header nor key says.
    pub class: Option<Class>,
}

/// The metrics page, which lies on the main port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Ask for an admin key.
    pub require_admin: bool,
}

/// Proxies on the way to engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub use_env: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { use_env: true }
    }
}

impl Config {
    /// The configuration of a machine with no file, no environment and no flags, with
    /// the store in `data`.
    #[must_use]
    pub fn bare(data: PathBuf) -> Self {
        Self {
            listen: LISTEN,
            data,
            file: None,
            tls: None,
            log: LogConfig::default(),
            limits: LimitsConfig::default(),
            queue: QueueRule::default(),
            classes: CLASS_SHARES,
            retry: RetryRule::default(),
            guard: GuardRule::default(),
            memo: MemoRule::default(),
            engines: Vec::new(),
            models: Vec::new(),
            tenants: Vec::new(),
            tools: tool::ToolsConfig::default(),
            agents: agents::AgentsConfig::default(),
            sim: sim_engine::Options::default(),
            metrics: MetricsConfig::default(),
            proxy: ProxyConfig::default(),
            settings: Vec::new(),
        }
    }

    /// The engine with this name.
    #[must_use]
    pub fn engine(&self, name: &str) -> Option<&EngineConfig> {
        self.engines.iter().find(|engine| &*engine.name == name)
    }

    /// Adds an engine that was found rather than configured. One whose name is taken is
    /// left out: what is written down wins.
    pub fn add_found(&mut self, engine: EngineConfig, why: &str) {
        if self.engine(&engine.name).is_some() {
            return;
        }
        let urls: Vec<_> = engine.urls.iter().map(Url::as_str).collect();
        self.settings.push(Setting {
            key: format!("engine.{}.urls", engine.name),
            value: format!("{urls:?}"),
            origin: Origin::Found(why.into()),
        });
        self.engines.push(engine);
    }
}

/// Where clients connect unless told otherwise: this machine only.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
