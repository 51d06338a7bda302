//! Reads `[[model]]` and `[[tenant]]`: what clients may ask for, and who may ask for
//! how much of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::plan::{BudgetRule, Meter, Period, Price, TenantRule};
use seawall_model::{Class, Tenant, Tokens, limits};

use super::engine::{at_line, is_name, read_rate};
use super::problem::nearest;
use super::raw::{Reading, Section};
use super::{EngineConfig, ModelConfig, TargetConfig, TenantConfig};

/// Longest name of a model: fits a metric label.
const MODEL_NAME_LEN_MAX: usize = 200;
/// Weight of a prefix where nothing is said.
const WEIGHT: u32 = 100;
/// Highest price: a thousand dollars per thousand tokens.
const PRICE_USD_MAX: f64 = 1e6;
/// Highest budget, in its own unit; in micro-dollars it still fits a `u64`.
const BUDGET_MAX: f64 = 1e12;

/// Is this a name for a model? Visible characters without quotes; slashes are fine.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MODEL_NAME_LEN_MAX
        && name.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\')
}

/// Reads every alias of the file.
pub(crate) fn read_models(
    r: &mut Reading<'_>,
    root: &mut Section<'_>,
    engines: &[EngineConfig],
) -> Vec<ModelConfig> {
    let mut models: Vec<ModelConfig> = Vec::new();
    let mut lines: BTreeMap<Arc<str>, Option<usize>> = BTreeMap::new();
    for section in root.tables(r, "model", limits::MODELS_MAX) {
        let line = section.line();
        let Some(model) = read_model(r, section, engines) else {
            continue;
        };
        if let Some(first) = lines.get(&model.name) {
            let what = format!("there is already a model with this name{}", at_line(*first));
            r.problems.add(line, format!("model.{}.name", model.name), what, "");
            continue;
        }
        lines.insert(model.name.clone(), line);
        models.push(model);
    }
    models
}

fn read_model(r: &mut Reading<'_>, mut s: Section<'_>, engines: &[EngineConfig]) -> Option<ModelConfig> {
    let name = read_name(r, &mut s, "model", "name", is_model_name, "it is what clients ask for");
    let mut model = ModelConfig::new(name.as_deref().unwrap_or("?"));
    model.targets = read_targets(r, &mut s, engines);
    model.price = read_price(r, &mut s);
    model.context_tokens_max = s.whole_opt(r, "context_tokens_max", 1..=1_000_000_000).map(Tokens);
    let output = s.whole(r, "output_tokens_max", 1..=1_000_000_000, model.output_tokens_max.0);
    model.output_tokens_max = Tokens(output);
    model.hidden = s.bool(r, "hidden", false);
    if let Some(context) = model.context_tokens_max
        && context < model.output_tokens_max
        && s.has("output_tokens_max")
    {
        let what = format!("{output} is more than context_tokens_max, {}", context.0);
        r.problem(&s.path("output_tokens_max"), what, "");
    }
    s.finish(r);
    name.map(|_| model)
}

/// The name that heads a section: required, and its path from then on.
fn read_name(
    r: &mut Reading<'_>,
    s: &mut Section<'_>,
    kind: &str,
    key: &'static str,
    is_good: impl Fn(&str) -> bool,
    hint: &str,
) -> Option<String> {
    let Some(given) = s.given(r, key) else {
        r.problems.add(s.line(), s.path(key), format!("a {kind} needs a {key}"), hint);
        return None;
    };
    let Some(name) = given.text().filter(|name| is_good(name)).map(str::to_owned) else {
        r.problems.add(given.line(), s.path(key), format!("this is no {key} of a {kind}"), hint);
        return None;
    };
    s.rename(format!("{kind}.{name}"));
    r.record(s.path(key), format!("{name:?}"), given.origin);
    Some(name)
}

fn read_targets(r: &mut Reading<'_>, s: &mut Section<'_>, engines: &[EngineConfig]) -> Vec<TargetConfig> {
    let path = s.path("targets");
    if !s.has("targets") {
        s.know("targets");
        r.problems.add(s.line(), path, "a model needs targets", "targets = [\"engine/model\"]");
        return Vec::new();
    }
    let texts = s.list_opt(r, "targets", limits::TARGETS_MAX).unwrap_or_default();
    if texts.is_empty() && r.line_of(&path).is_some() {
        r.problem(&path, "the list of targets is empty", "targets = [\"engine/model\"]");
    }
    let names: Vec<&str> = engines.iter().map(|engine| &*engine.name).collect();
    let mut targets = Vec::new();
    for (text, line) in texts {
        let Some((engine, upstream)) = text.split_once('/').filter(|(e, u)| is_name(e) && is_model_name(u))
        else {
            let what = format!("{text:?} is no target");
            r.problems.add(
                Some(line),
                path.clone(),
                what,
                "write engine/model, as in \"openai/gpt-4o-mini\"",
            );
            continue;
        };
        let target = TargetConfig { engine: engine.into(), upstream: upstream.into() };
        if !names.contains(&engine) {
            let hint = match nearest(engine, &names) {
                Some(near) => format!("did you mean {near}?"),
                None if names.is_empty() => "there is no [[engine]] in the file".to_owned(),
                None => format!("engines: {}", names.join(", ")),
            };
            r.problems.add(Some(line), path.clone(), format!("there is no engine named {engine}"), hint);
        } else if targets.contains(&target) {
            r.problems.add(Some(line), path.clone(), format!("{text:?} is listed twice"), "");
        } else {
            targets.push(target);
        }
    }
    targets
}

/// `price = { input = 0.15, output = 0.60 }`, in dollars per million tokens.
fn read_price(r: &mut Reading<'_>, s: &mut Section<'_>) -> Price {
    let is_given = s.has("price");
    let mut below = s.table(r, "price");
    let mut read = |key| below.part_opt(r, key, 0.0..=PRICE_USD_MAX);
    let (input, output) = (read("input"), read("output"));
    let (cached, cache_written) = (read("cached"), read("cache_written"));
    let line = below.line();
    let is_table = s.is_table("price");
    for (key, found) in [("input", input), ("output", output)] {
        if is_given && is_table && found.is_none() && !below.has(key) {
            r.problems.add(line, below.path(key), "a price needs input and output", "0 is free");
        }
    }
    below.finish(r);
    let micro = |usd: f64| (usd * 1e6).round() as u64;
    let input = micro(input.unwrap_or(0.0));
    Price {
        input,
        // What is not said costs like any prompt token: never less than the truth.
        cached: cached.map_or(input, micro),
        cache_written: cache_written.map_or(input, micro),
        output: micro(output.unwrap_or(0.0)),
    }
}

/// Reads every tenant rule of the file.
pub(crate) fn read_tenants(r: &mut Reading<'_>, root: &mut Section<'_>) -> Vec<TenantConfig> {
    let mut tenants: Vec<TenantConfig> = Vec::new();
    let mut lines: BTreeMap<Arc<str>, Option<usize>> = BTreeMap::new();
    for section in root.tables(r, "tenant", limits::TENANT_RULES_MAX) {
        let line = section.line();
        let Some(tenant) = read_tenant(r, section) else {
            continue;
        };
        let prefix = tenant.rule.prefix.clone();
        if let Some(first) = lines.get(&prefix) {
            let what = format!("there is already a rule for this prefix{}", at_line(*first));
            r.problems.add(line, format!("tenant.{prefix}.prefix"), what, "");
            continue;
        }
        lines.insert(prefix, line);
        tenants.push(tenant);
    }
    tenants
}

fn read_tenant(r: &mut Reading<'_>, mut s: Section<'_>) -> Option<TenantConfig> {
    let good = |prefix: &str| prefix == "*" || Tenant::parse(prefix).is_ok();
    let hint =
        "a path such as acme/search, of letters, digits and . _ - @ :, or * for every tenant without a rule";
    let prefix = read_name(r, &mut s, "tenant", "prefix", good, hint);
    let models_path = s.path("models");
    let mut models: Vec<Arc<str>> = Vec::new();
    for (name, line) in s.list_opt(r, "models", limits::MODELS_MAX).unwrap_or_default() {
        if is_model_name(&name) {
            models.push(name.into());
        } else {
            r.problems.add(Some(line), models_path.clone(), format!("{name:?} is no name of a model"), "");
        }
    }
    if models.is_empty() && r.line_of(&models_path).is_some() {
        r.problem(
            &models_path,
            "an empty list would allow nothing",
            "leave the key out to allow every model",
        );
    }
    let tenant = TenantConfig {
        rule: TenantRule {
            prefix: prefix.as_deref().unwrap_or("?").into(),
            weight: s.count(r, "weight", 1..=1_000_000, WEIGHT),
            calls_max: s.count_opt(r, "calls_max", 1..=1_000_000),
            rate: read_rate(r, &mut s),
            budgets: read_budgets(r, &mut s),
        },
        models,
        class: s.choice_opt(r, "class", &Class::ALL.map(Class::as_str), Class::from_name),
    };
    s.finish(r);
    prefix.map(|_| tenant)
}

fn read_budgets(r: &mut Reading<'_>, s: &mut Section<'_>) -> Vec<BudgetRule> {
    let mut budgets: Vec<BudgetRule> = Vec::new();
    for mut below in s.tables(r, "budget", limits::TENANT_BUDGETS_MAX) {
        let meter = below.choice_opt(r, "meter", &["usd", "tokens", "calls"], meter_from_name);
        let period =
            below.choice_opt(r, "period", &["minute", "hour", "day", "month", "total"], period_from_name);
        let limit = below.part_opt(r, "limit", 0.0..=BUDGET_MAX);
        for key in ["meter", "period", "limit"] {
            if !below.has(key) {
                let hint = "budget = [{ meter = \"usd\", period = \"day\", limit = 25.0 }]";
                r.problems.add(below.line(), below.path(key), format!("a budget needs a {key}"), hint);
            }
        }
        let (line, path) = (below.line(), below.own_path().to_owned());
        below.finish(r);
        let (Some(meter), Some(period), Some(limit)) = (meter, period, limit) else {
            continue;
        };
        if budgets.iter().any(|budget| (budget.meter, budget.period) == (meter, period)) {
            r.problems.add(line, path, "there is already a budget of this meter and period", "");
            continue;
        }
        let units = if meter == Meter::Money { limit * 1e6 } else { limit };
        budgets.push(BudgetRule { meter, period, limit: units.round() as u64 });
    }
    budgets
}

/// The meter with this name in the file.
#[must_use]
pub fn meter_from_name(name: &str) -> Option<Meter> {
    match name {
        "usd" => Some(Meter::Money),
        "tokens" => Some(Meter::Tokens),
        "calls" => Some(Meter::Calls),
        _ => None,
    }
}

/// The period with this name in the file.
#[must_use]
pub fn period_from_name(name: &str) -> Option<Period> {
    match name {
        "minute" => Some(Period::Minute),
        "hour" => Some(Period::Hour),
        "day" => Some(Period::Day),
        "month" => Some(Period::Month),
        "total" => Some(Period::Total),
        _ => None,
    }
}
