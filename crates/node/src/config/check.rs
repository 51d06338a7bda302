//! Checks that need more than one key: relations between limits, names across
//! sections, and what would surprise an operator later.

use std::collections::BTreeMap;

use seawall_kernel::plan::{Meter, Price};
use seawall_model::{Class, EngineKind};

use super::plan::AGENT_PREFIX;
use super::raw::Reading;
use super::{Config, EngineConfig, problem};

pub(crate) fn check(r: &mut Reading<'_>, config: &Config) {
    check_limits(r, config);
    check_queue_and_retry(r, config);
    check_memo(r, config);
    check_classes(r, config);
    check_addresses(r, &config.engines);
    check_model_names(r, config);
    check_tenant_models(r, config);
    check_prices(r, config);
    if !config.listen.ip().is_loopback() {
        let what = format!(
            "{} is reached from other machines: serving starts only once a key exists",
            config.listen
        );
        r.warning("listen", what, "seawall key add --tenant PATH");
        if config.tls.is_none() {
            r.warning(
                "listen",
                "keys and prompts arrive there unencrypted",
                "set [tls], or put TLS in front",
            );
        }
    }
}

fn check_limits(r: &mut Reading<'_>, config: &Config) {
    let limits = &config.limits;
    if limits.body_bytes_max >= limits.memory_bytes_max {
        let what = "must be less than memory_bytes_max, or one body could take all of it";
        r.problem(pick(r, "limits.body_bytes_max", "limits.memory_bytes_max"), what, "");
    }
    if limits.answer_bytes_max >= limits.memory_bytes_max {
        let what = "must be less than memory_bytes_max, or one answer could take all of it";
        r.problem(pick(r, "limits.answer_bytes_max", "limits.memory_bytes_max"), what, "");
    }
    let windows = 2 * limits.stream_window_bytes as u64;
    if windows >= limits.memory_bytes_max.0 {
        let what = "must be less than memory_bytes_max, or one stream could take all of it";
        r.problem(pick(r, "limits.stream_window_bytes", "limits.memory_bytes_max"), what, "");
    }
    let largest = limits.body_bytes_max.0.saturating_mul(2).saturating_add(windows);
    if limits.body_bytes_max < limits.memory_bytes_max && largest > limits.memory_bytes_max.0 {
        let what = "a body of this size can never be sent: at an engine it counts twice, with two windows";
        r.warning(pick(r, "limits.body_bytes_max", "limits.memory_bytes_max"), what, "");
    }
    if limits.tenant_uploads_max > limits.uploads_max {
        let what = "more than uploads_max: one tenant can take every place";
        r.warning(pick(r, "limits.tenant_uploads_max", "limits.uploads_max"), what, "");
    }
    if limits.drain_grace_ms > limits.drain_ms_max {
        let what = "the grace lies inside the drain: it must not be longer than drain_ms_max";
        r.problem(pick(r, "limits.drain_grace_ms", "limits.drain_ms_max"), what, "");
    }
}

fn check_memo(r: &mut Reading<'_>, config: &Config) {
    let memo = &config.memo;
    if memo.answer_bytes_max > memo.run_bytes_max {
        let what = "one answer must fit its run: answer_bytes_max is more than run_bytes_max";
        r.problem(pick(r, "memo.run_bytes_max", "memo.answer_bytes_max"), what, "");
    }
    if memo.run_bytes_max > memo.bytes_max {
        let what = "one run must fit among all: run_bytes_max is more than bytes_max";
        r.problem(pick(r, "memo.bytes_max", "memo.run_bytes_max"), what, "");
    }
}

/// Of two keys that contradict each other, the one that someone wrote.
fn pick(r: &Reading<'_>, first: &'static str, second: &'static str) -> &'static str {
    if r.line_of(first).is_none() && r.line_of(second).is_some() { second } else { first }
}

fn check_queue_and_retry(r: &mut Reading<'_>, config: &Config) {
    let (queue, retry) = (&config.queue, &config.retry);
    if queue.tenant_len_max > queue.len_max {
        let what = format!(
            "one tenant's queue, {}, is longer than the whole, {}",
            queue.tenant_len_max, queue.len_max
        );
        // Only a lowered whole is not worth a refusal if the tenant's share was not touched.
        if r.line_of("queue.tenant_len_max").is_some() {
            r.problem("queue.tenant_len_max", what, "lower it to queue.len_max");
        } else {
            r.warning("queue.len_max", what, "set queue.tenant_len_max too");
        }
    }
    if queue.bytes_max > config.limits.memory_bytes_max {
        let what = "queue.bytes_max is more than limits.memory_bytes_max: the queue can never get that full";
        r.warning(pick(r, "queue.bytes_max", "limits.memory_bytes_max"), what, "");
    }
    if retry.pause_ms > retry.pause_ms_max {
        let what = "the first pause is longer than the longest, pause_ms_max";
        r.problem(pick(r, "retry.pause_ms", "retry.pause_ms_max"), what, "");
    }
}

fn check_classes(r: &mut Reading<'_>, config: &Config) {
    let sum: u32 = config.classes.iter().sum();
    if sum > 100 {
        let parts: Vec<String> = Class::ALL
            .iter()
            .map(|class| format!("{} {}", class.as_str(), config.classes[*class as usize]))
            .collect();
        let key = Class::ALL
            .iter()
            .map(|class| format!("classes.{}", class.as_str()))
            .find(|key| r.line_of(key).is_some())
            .unwrap_or_else(|| "classes".to_owned());
        let what = format!("guaranteed shares add up to {sum} percent: {}", parts.join(", "));
        r.problem(&key, what, "at most 100; what is left goes to the highest class with work");
    }
}

fn check_addresses(r: &mut Reading<'_>, engines: &[EngineConfig]) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for engine in engines {
        for url in &engine.urls {
            let Some(first) = seen.insert(url.as_str(), &engine.name) else {
                continue;
            };
            if first == &*engine.name {
                continue;
            }
            let what = format!("{url} is also an address of engine {first}: each counts its load alone");
            let key = format!("engine.{}.url", engine.name);
            let key = if r.line_of(&key).is_some() { key } else { format!("{key}s") };
            r.warning(&key, what, "make one engine of the two");
        }
    }
}

fn check_model_names(r: &mut Reading<'_>, config: &Config) {
    for model in &config.models {
        let Some((first, _)) = model.name.split_once('/') else {
            continue;
        };
        if config.engine(first).is_some() && model.targets.iter().all(|target| &*target.engine != first) {
            let what = format!("looks like a model of engine {first} but leads elsewhere");
            r.warning(&format!("model.{}.name", model.name), what, "");
        }
    }
}

/// A name in a tenant's list must exist, unless discovery may still bring it.
fn check_tenant_models(r: &mut Reading<'_>, config: &Config) {
    let open = config.engines.is_empty() || config.engines.iter().any(|engine| engine.discover);
    let mut known: Vec<String> = config.models.iter().map(|model| model.name.to_string()).collect();
    for engine in &config.engines {
        for model in &engine.models {
            known.push(model.to_string());
            known.push(format!("{}/{model}", engine.name));
        }
    }
    let direct = config.models.iter().flat_map(|model| &model.targets);
    known.extend(direct.map(|target| format!("{}/{}", target.engine, target.upstream)));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for tenant in &config.tenants {
        let key = format!("tenant.{}.models", tenant.rule.prefix);
        // Which agents there are is not the config's to know.
        let models = tenant.models.iter().filter(|name| !name.starts_with(AGENT_PREFIX));
        for name in models.filter(|name| !known.contains(&&***name)) {
            let near = problem::nearest(name, &known);
            let hint = near.map_or_else(String::new, |near| format!("did you mean {near}?"));
            let what = format!("there is no model named {name}");
            if open && near.is_none() {
                continue;
            }
            if open {
                r.warning(&key, format!("{what}, unless an engine is found to have it"), hint);
            } else {
                r.problem(&key, what, hint);
            }
        }
    }
}

/// Money budgets count only what has a price.
fn check_prices(r: &mut Reading<'_>, config: &Config) {
    let budgeted =
        config.tenants.iter().find(|tenant| tenant.rule.budgets.iter().any(|b| b.meter == Meter::Money));
    let Some(tenant) = budgeted else { return };
    let key = format!("tenant.{}.prefix", tenant.rule.prefix);
    let free = config.models.iter().filter(|model| model.price == Price::default());
    let free: Vec<&str> = free.map(|model| &*model.name).collect();
    if !free.is_empty() {
        let what = format!("its budget in usd does not count models without a price: {}", free.join(", "));
        r.warning(&key, what, "give them a price, or a budget in tokens");
    }
    let paid =
        |engine: &&EngineConfig| engine.discover && engine.kind != EngineKind::Sim && engine.key.is_some();
    if let Some(engine) = config.engines.iter().find(paid) {
        let what = format!("models found on engine {} have no price and are not counted in usd", engine.name);
        r.warning(
            &key,
            what,
            format!("set discover = false on {}, or give its models a [[model]] with a price", engine.name),
        );
    }
}
