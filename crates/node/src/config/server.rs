//! Reads everything in the file that there is one of: addresses, log, limits, queue,
//! classes, retry, the built-in engine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use seawall_kernel::plan::{GuardRule, QueueRule, RetryRule, RunBudget};
use seawall_model::{Bytes, Class, limits as hard};
use seawall_store::MemoRule;

use crate::engine as sim_engine;
use crate::tls::{self, Unfit};

use super::problem::Origin;
use super::raw::{Reading, Section};
use super::{
    CLASS_SHARES, LISTEN, LimitsConfig, LogConfig, LogFormat, LogLevel, MetricsConfig, ProxyConfig, TlsConfig,
};

/// A day: no time in the file sensibly exceeds it.
const DAY_MS: u64 = 86_400_000;
/// Largest sizes that may be configured: far above any machine, below overflow.
const TIB: u64 = 1 << 40;

pub(crate) fn read_listen(r: &mut Reading<'_>, root: &mut Section<'_>) -> SocketAddr {
    let found = root.parsed_opt(r, "listen", |text| {
        parse_listen(text)
            .ok_or_else(|| "an address such as \"127.0.0.1:8080\" or \"0.0.0.0:8080\"".to_owned())
    });
    found.unwrap_or_else(|| {
        r.record("listen", format!("{:?}", LISTEN.to_string()), Origin::Default);
        LISTEN
    })
}

/// An address with a port; `localhost` is the loopback. A bare port is refused: whether
/// the world should reach it must be said.
fn parse_listen(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

pub(crate) fn read_data(r: &mut Reading<'_>, root: &mut Section<'_>) -> PathBuf {
    if let Some(path) = root.path_opt(r, "data") {
        return path;
    }
    let set = |name: &str| (r.env)(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let path = match (set("XDG_DATA_HOME"), set("HOME")) {
        (Some(dir), _) => dir.join("seawall"),
        (None, Some(home)) => home.join(".local/share/seawall"),
        (None, None) => PathBuf::from("seawall-data"),
    };
    r.record("data", format!("{:?}", path.display().to_string()), Origin::Default);
    path
}

pub(crate) fn read_tls(r: &mut Reading<'_>, root: &mut Section<'_>) -> Option<TlsConfig> {
    let mut section = root.table(r, "tls");
    let (cert, key) = (section.path_opt(r, "cert"), section.path_opt(r, "key"));
    let line = section.line();
    section.finish(r);
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (Some(_), None) => {
            r.problems.add(
                line,
                "tls.key",
                "a certificate without its key",
                "name the PEM file of the private key",
            );
            return None;
        }
        (None, Some(_)) => {
            r.problems.add(
                line,
                "tls.cert",
                "a key without its certificate",
                "name the PEM file of the chain",
            );
            return None;
        }
    };
    let files = TlsConfig { cert, key };
    check_tls(r, &files);
    Some(files)
}

/// What `serve` would refuse is a problem of the configuration.
fn check_tls(r: &mut Reading<'_>, files: &TlsConfig) {
    let chain = read_pem(r, "tls.cert", &files.cert, tls::chain);
    let key = read_pem(r, "tls.key", &files.key, tls::key);
    if let (Some(chain), Some(key)) = (chain, key)
        && let Err(unfit) = tls::pair(chain, key)
    {
        r.problem("tls.key", format!("{}: {}", files.key.display(), unfit.why), unfit.hint);
    }
}

/// What stands in a PEM file; `None` is a problem that has been told, at the key that
/// names the file.
pub(crate) fn read_pem<T>(
    r: &mut Reading<'_>,
    name: &str,
    path: &Path,
    read: impl Fn(&str) -> Result<T, Unfit>,
) -> Option<T> {
    let (what, hint) = match (r.files)(path) {
        Err(error) => (format!("cannot read {}: {error}", path.display()), ""),
        Ok(text) => match read(&text) {
            Ok(found) => return Some(found),
            Err(unfit) => (format!("{}: {}", path.display(), unfit.why), unfit.hint),
        },
    };
    r.problem(name, what, hint);
    None
}

pub(crate) fn read_log(r: &mut Reading<'_>, root: &mut Section<'_>) -> LogConfig {
    let mut section = root.table(r, "log");
    let default = LogConfig::default();
    let log = LogConfig {
        format: section.choice(
            r,
            "format",
            &LogFormat::NAMES,
            LogFormat::from_name,
            (default.format, "text"),
        ),
        level: section.choice(r, "level", &LogLevel::NAMES, LogLevel::from_name, (default.level, "info")),
        access: section.bool(r, "access", default.access),
    };
    section.finish(r);
    log
}

pub(crate) fn read_limits(r: &mut Reading<'_>, root: &mut Section<'_>) -> LimitsConfig {
    let mut s = root.table(r, "limits");
    let d = LimitsConfig::default();
    let limits = LimitsConfig {
        body_bytes_max: s.bytes(r, "body_bytes_max", 1 << 10..=TIB, d.body_bytes_max),
        upload_bytes_max: s.bytes(r, "upload_bytes_max", 1 << 10..=TIB, d.upload_bytes_max),
        uploads_max: as_len(s.whole(r, "uploads_max", 1..=1_000_000, d.uploads_max as u64)),
        tenant_uploads_max: as_len(s.whole(
            r,
            "tenant_uploads_max",
            1..=1_000_000,
            d.tenant_uploads_max as u64,
        )),
        upload_stall_ms_max: s.millis(r, "upload_stall_ms_max", 100..=DAY_MS, d.upload_stall_ms_max),
        upload_bytes_per_s_min: s.bytes(r, "upload_bytes_per_s_min", 1..=TIB, d.upload_bytes_per_s_min),
        body_wait_ms_max: s.millis(r, "body_wait_ms_max", 100..=DAY_MS, d.body_wait_ms_max),
        memory_bytes_max: s.bytes(r, "memory_bytes_max", 1 << 20..=TIB, d.memory_bytes_max),
        connections_max: as_len(s.whole(r, "connections_max", 1..=1_000_000, d.connections_max as u64)),
        client_stall_ms_max: s.millis(r, "client_stall_ms_max", 100..=DAY_MS, d.client_stall_ms_max),
        first_token_ms_max: s.millis(r, "first_token_ms_max", 100..=DAY_MS, d.first_token_ms_max),
        stall_ms_max: s.millis(r, "stall_ms_max", 100..=DAY_MS, d.stall_ms_max),
        connect_ms_max: s.millis(r, "connect_ms_max", 10..=600_000, d.connect_ms_max),
        answer_bytes_max: s.bytes(r, "answer_bytes_max", 1 << 10..=TIB, d.answer_bytes_max),
        // Below a usage object the tail of a stream could not be scanned.
        stream_window_bytes: as_len(
            s.bytes(r, "stream_window_bytes", 16 << 10..=16 << 20, Bytes(d.stream_window_bytes as u64)).0,
        ),
        drain_ms_max: s.millis(r, "drain_ms_max", 0..=DAY_MS, d.drain_ms_max),
        drain_grace_ms: s.millis(r, "drain_grace_ms", 0..=600_000, d.drain_grace_ms),
        records_kept_max: s.whole(r, "records_kept_max", 0..=1_000_000_000, d.records_kept_max),
    };
    s.finish(r);
    limits
}

pub(crate) fn read_queue(r: &mut Reading<'_>, root: &mut Section<'_>) -> QueueRule {
    let mut s = root.table(r, "queue");
    let d = QueueRule::default();
    let calls_max = hard::CALLS_MAX as u64;
    let queue = QueueRule {
        len_max: as_len(s.whole(r, "len_max", 0..=calls_max, d.len_max as u64)),
        tenant_len_max: as_len(s.whole(r, "tenant_len_max", 0..=calls_max, d.tenant_len_max as u64)),
        bytes_max: s.bytes(r, "bytes_max", 0..=TIB, d.bytes_max),
        wait_ms_max: s.millis(r, "wait_ms_max", 0..=DAY_MS, d.wait_ms_max),
        ageing_ms: s.millis(r, "ageing_ms", 1..=DAY_MS, d.ageing_ms),
    };
    s.finish(r);
    queue
}

pub(crate) fn read_classes(r: &mut Reading<'_>, root: &mut Section<'_>) -> [u32; Class::ALL.len()] {
    let mut s = root.table(r, "classes");
    let shares = Class::ALL.map(|class| s.count(r, class.as_str(), 0..=100, CLASS_SHARES[class as usize]));
    s.finish(r);
    shares
}

pub(crate) fn read_guard(r: &mut Reading<'_>, root: &mut Section<'_>) -> GuardRule {
    let mut s = root.table(r, "guard");
    let d = GuardRule::default();
    let action = |name: &str| match name {
        "refuse" => Some(true),
        "warn" => Some(false),
        _ => None,
    };
    let guard = GuardRule {
        repeats: s.count(r, "repeats", 0..=1_000_000, d.repeats),
        // One round is no round yet.
        rounds: s.count(r, "rounds", 2..=1_000_000, d.rounds),
        depth: s.count(r, "depth", 1..=hard::RUN_DEPTH_MAX as u32, d.depth),
        live: s.count(r, "live", 1..=hard::CALLS_MAX as u32, d.live),
        refuse: s.choice(r, "action", &["refuse", "warn"], action, (d.refuse, "refuse")),
        tree: RunBudget {
            tokens: s.whole_opt(r, "tree_tokens", 1..=u64::from(u32::MAX) << 16),
            calls: s.whole_opt(r, "tree_calls", 1..=u64::from(u32::MAX)),
            money: s.part_opt(r, "tree_money", 0.000_001..=1e6).map(|usd| (usd * 1e6).round() as u64),
        },
    };
    s.finish(r);
    guard
}

pub(crate) fn read_memo(r: &mut Reading<'_>, root: &mut Section<'_>) -> MemoRule {
    let mut s = root.table(r, "memo");
    let d = MemoRule::default();
    let memo = MemoRule {
        answer_bytes_max: s.bytes(r, "answer_bytes_max", 1 << 10..=1 << 30, d.answer_bytes_max),
        run_answers_max: s.whole(r, "run_answers_max", 0..=10_000_000, d.run_answers_max),
        run_bytes_max: s.bytes(r, "run_bytes_max", 1 << 10..=TIB, d.run_bytes_max),
        runs_max: s.whole(r, "runs_max", 1..=1_000_000, d.runs_max),
        bytes_max: s.bytes(r, "bytes_max", 1 << 10..=TIB, d.bytes_max),
        idle_ms_max: s.millis(r, "idle_ms_max", 1_000..=10 * 365 * DAY_MS, d.idle_ms_max),
    };
    s.finish(r);
    memo
}

pub(crate) fn read_retry(r: &mut Reading<'_>, root: &mut Section<'_>) -> RetryRule {
    let mut s = root.table(r, "retry");
    let d = RetryRule::default();
    let retry = RetryRule {
        attempts_max: s.count(r, "attempts_max", 1..=hard::ATTEMPTS_CEILING, d.attempts_max),
        percent: s.count(r, "percent", 0..=100, d.percent),
        pause_ms: s.millis(r, "pause_ms", 1..=60_000, d.pause_ms),
        pause_ms_max: s.millis(r, "pause_ms_max", 1..=600_000, d.pause_ms_max),
        open_after: s.count(r, "open_after", 1..=1_000, d.open_after),
        open_ms: s.millis(r, "open_ms", 10..=600_000, d.open_ms),
        seed: d.seed,
    };
    s.finish(r);
    retry
}

pub(crate) fn read_sim(r: &mut Reading<'_>, root: &mut Section<'_>) -> sim_engine::Options {
    let mut s = root.table(r, "sim");
    let d = sim_engine::Options::default();
    let mut sim = sim_engine::Options {
        seed: s.whole(r, "seed", 0..=u64::MAX, d.seed),
        pace: s.text(r, "pace", &d.pace),
        slots: s.count(r, "slots", 1..=65_536, d.slots),
        kv_tokens: s.whole(r, "kv_tokens", 1_000..=1_000_000_000_000, d.kv_tokens),
        queue_len_max: s.count(r, "queue_len_max", 0..=1_000_000, d.queue_len_max),
        models: s
            .list_opt(r, "models", hard::MODELS_MAX)
            .map_or(d.models.clone(), |names| names.into_iter().map(|(name, _)| name).collect()),
        output: s.text(r, "output", &d.output),
        faults: s.text(r, "faults", &d.faults),
        first_ms: s.millis_opt(r, "first_ms", 0..=DAY_MS).map(|ms| ms.0),
        token_ms: s.millis_opt(r, "token_ms", 0..=DAY_MS).map(|ms| ms.0),
        unary_ms: s.millis_opt(r, "unary_ms", 0..=DAY_MS).map(|ms| ms.0),
        ..d
    };
    if let Some(path) = s.path_opt(r, "script") {
        match (r.files)(&path) {
            Ok(text) => sim.script = Some(text),
            Err(error) => r.problem("sim.script", format!("cannot read {}: {error}", path.display()), ""),
        }
    }
    s.record_default(r, "models", format!("{:?}", sim.models));
    let line = s.line();
    s.finish(r);
    if sim.models.is_empty() {
        r.problem("sim.models", "the built-in engine needs at least one model", "");
    }
    if let Err(error) = sim.validate() {
        let key = match error {
            sim_engine::Error::Pace { .. } => "sim.pace",
            sim_engine::Error::Output(_) => "sim.output",
            sim_engine::Error::Faults(_) => "sim.faults",
            sim_engine::Error::Script(_) => "sim.script",
            sim_engine::Error::Models => "sim.models",
            _ => "sim",
        };
        let line = r.line_of(key).or(line);
        r.problems.add(line, key, error.to_string(), "");
    }
    sim
}

pub(crate) fn read_metrics(r: &mut Reading<'_>, root: &mut Section<'_>) -> MetricsConfig {
    let mut s = root.table(r, "metrics");
    let metrics = MetricsConfig { require_admin: s.bool(r, "require_admin", false) };
    s.finish(r);
    metrics
}

pub(crate) fn read_proxy(r: &mut Reading<'_>, root: &mut Section<'_>) -> ProxyConfig {
    let mut s = root.table(r, "proxy");
    let proxy = ProxyConfig { use_env: s.bool(r, "use_env", true) };
    s.finish(r);
    proxy
}

fn as_len(number: u64) -> usize {
    usize::try_from(number).expect("ranges of lengths fit a usize")
}

/// Longest and shortest times an engine may override.
pub(crate) const fn wait_range() -> std::ops::RangeInclusive<u64> {
    100..=DAY_MS
}

/// Range of an engine's own connect time.
pub(crate) const fn connect_range() -> std::ops::RangeInclusive<u64> {
    10..=600_000
}

/// The queueing delay that counts as saturated.
pub(crate) const fn delay_range() -> std::ops::RangeInclusive<u64> {
    1..=600_000
}

#[cfg(test)]
mod tests {
    use seawall_model::Millis;

    use super::*;

    #[test]
    fn listen_addresses_say_who_may_come() {
        assert_eq!(parse_listen("localhost:9"), Some(([127, 0, 0, 1], 9).into()));
        assert_eq!(parse_listen(" 0.0.0.0:80 "), Some(([0, 0, 0, 0], 80).into()));
        assert!(parse_listen("[::1]:80").is_some());
        for bad in ["8080", ":8080", "host:80", "127.0.0.1", "127.0.0.1:99999", ""] {
            assert_eq!(parse_listen(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_unit_types_of_defaults_fit_their_ranges() {
        let d = LimitsConfig::default();
        assert!(wait_range().contains(&d.first_token_ms_max.0));
        assert!(wait_range().contains(&d.stall_ms_max.0));
        assert!(connect_range().contains(&d.connect_ms_max.0));
        assert!(delay_range().contains(&seawall_kernel::plan::Pace::default().queue_delay_ms_max.0));
        assert_ne!(d.drain_ms_max, Millis::ZERO);
    }
}
