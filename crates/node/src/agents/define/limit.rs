//! The parts of a definition that are amounts and shapes: `[limits]`, `[output]`,
//! `[context]` and `[memory]`.

use std::sync::Arc;

use seawall_model::effect::Allowance;
use seawall_model::{Tokens, limits};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::amount;
use super::{ContextRule, MemoryRule, OutputRule};
use crate::agents::schema::Schema;
use crate::config::raw::{Reading, Section};

/// A window for a model of which nothing is known: what every served model has.
const WINDOW_TOKENS: u64 = 32_000;
/// A window so small that nothing fits would drop everything for ever.
const WINDOW_TOKENS_MIN: u64 = 256;
/// Messages at the end that stay.
const KEEP_LAST: u32 = 8;
/// Longest time that a run may be given: a year.
const WALL_MS_MAX: u64 = 366 * 86_400_000;
/// Repairs where a definition says nothing.
const REPAIRS: u32 = 2;

pub(super) fn read_allowance(r: &mut Reading<'_>, root: &mut Section<'_>) -> Allowance {
    let mut section = root.table(r, "limits");
    let u16_max = u64::from(limits::TREE_DEPTH_MAX);
    let allowance = Allowance {
        steps: section.whole_opt(r, "steps", 1..=u64::MAX),
        calls: section.whole_opt(r, "calls", 1..=u64::MAX),
        tokens: section.whole_opt(r, "tokens", 1..=u64::MAX).map(Tokens),
        money: section.parsed_opt(r, "money", |text| {
            amount::money(text).ok_or_else(|| "money such as \"0.50 USD\"".to_owned())
        }),
        wall: section.millis_opt(r, "wall", 1..=WALL_MS_MAX),
        children: section.count_opt(r, "children", 0..=limits::CHILDREN_LIVE_MAX),
        depth: section
            .whole_opt(r, "depth", 0..=u16_max)
            .map(|depth| u16::try_from(depth).expect("the range is of u16")),
    };
    section.finish(r);
    allowance
}

pub(super) fn read_output(
    r: &mut Reading<'_>,
    root: &mut Section<'_>,
    tree: &DeTable<'_>,
) -> Option<OutputRule> {
    let written = root.has("output");
    let mut section = root.table(r, "output");
    section.know("schema");
    let repairs = section.count(r, "repairs", 0..=limits::REPAIRS_MAX, REPAIRS);
    let line = section.line();
    section.finish(r);
    let found = tree.get("output").and_then(|output| match output.get_ref() {
        DeValue::Table(output) => output.get("schema"),
        _ => None,
    });
    let Some(found) = found else {
        if written {
            r.problems.add(line, "output", "has no schema", "write schema = { type = \"object\", ... }");
        }
        return None;
    };
    let line = Some(r.line(found.span().start));
    let parsed = match found.get_ref() {
        DeValue::String(text) => Schema::parse(text),
        other => Schema::of(plain(other)),
    };
    match parsed {
        Ok(schema) => {
            for name in schema.unchecked() {
                let what = format!("{name} is not checked");
                let hint = "take it out, and say in the instructions what is meant";
                r.problems.add(line, "output.schema", what, hint);
            }
            Some(OutputRule { schema: Arc::new(schema), repairs })
        }
        Err(what) => {
            r.problems.add(line, "output.schema", what, "");
            None
        }
    }
}

pub(super) fn read_context(r: &mut Reading<'_>, root: &mut Section<'_>) -> ContextRule {
    let mut section = root.table(r, "context");
    let rule = ContextRule {
        window: Tokens(section.whole(r, "window_tokens", WINDOW_TOKENS_MIN..=u64::MAX, WINDOW_TOKENS)),
        keep_last: section.count(r, "keep_last", 1..=10_000, KEEP_LAST),
        summarise: section.bool(r, "summarise", false),
        drop_tool_output_after: section.count_opt(r, "drop_tool_output_after", 1..=10_000),
    };
    section.finish(r);
    rule
}

pub(super) fn read_memory(r: &mut Reading<'_>, root: &mut Section<'_>, kind: &str) -> MemoryRule {
    let mut section = root.table(r, "memory");
    let namespace = section.parsed_opt(r, "namespace", |text| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let fits = !text.is_empty() && text.len() <= 128 && text.chars().all(allowed);
        if fits { Ok(Arc::from(text)) } else { Err("up to 128 letters, digits and . _ - /".to_owned()) }
    });
    let rule = MemoryRule {
        notes: section.bool(r, "notes", false),
        namespace: namespace.unwrap_or_else(|| kind.into()),
    };
    section.finish(r);
    rule
}

/// A value of the file as JSON. The parser bounds its depth.
pub(super) fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => Value::String(number.as_str().to_owned()),
        },
        DeValue::Float(number) => {
            let number: f64 = number.as_str().replace('_', "").parse().unwrap_or(f64::NAN);
            serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        DeValue::Boolean(on) => Value::Bool(*on),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| plain(item.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(object(table)),
    }
}

/// A table of the file as a JSON object.
pub(super) fn object(table: &DeTable<'_>) -> serde_json::Map<String, Value> {
    table.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref()))).collect()
}
