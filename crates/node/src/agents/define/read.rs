//! From a definition's text to the definition: one walk that reports all problems.

use std::sync::Arc;

use seawall_model::{Agent, Tokens, limits};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

use super::{Definition, limit, permit, plain, policy};
use crate::agents::template::Template;
use crate::config::Problem;
use crate::config::raw::{Reading, Section};

type Read = Result<(Definition, Vec<Problem>), Vec<Problem>>;

pub(super) fn toml(stem: Option<&str>, text: &str) -> Read {
    if text.len() > limits::DEFINITION_BYTES_MAX {
        let what = format!("the definition is longer than {} bytes", limits::DEFINITION_BYTES_MAX);
        return Err(vec![plain("", what, "")]);
    }
    let no_env = |_: &str| None;
    let no_files = |_: &std::path::Path| Err(std::io::ErrorKind::Unsupported.into());
    let mut r = Reading::new(text, &no_env, &no_files);
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map(|span| r.line(span.start));
        r.problems.add(line, "", format!("not TOML: {}", error.message().replace('\n', "; ")), "");
    }
    if !errors.is_empty() {
        return Err(r.problems.finish());
    }
    let definition = walk(&mut r, stem, text, tree.get_ref());
    match definition {
        Some(definition) if r.problems.is_empty() => Ok((definition, r.warnings.finish())),
        _ => Err(r.problems.finish()),
    }
}

/// JSON is checked as the TOML that says the same; lines of that mean nothing to whoever
/// sent it.
pub(super) fn json(body: &[u8]) -> Read {
    let lineless = |mut problems: Vec<Problem>| {
        problems.iter_mut().for_each(|problem| problem.line = None);
        problems
    };
    toml(None, &json_as_toml(body)?)
        .map(|(definition, warnings)| (definition, lineless(warnings)))
        .map_err(lineless)
}

/// The TOML that says what a JSON object says.
pub(super) fn json_as_toml(body: &[u8]) -> Result<String, Vec<Problem>> {
    let refuse = |what: String| vec![plain("", what, "")];
    if body.len() > limits::DEFINITION_BYTES_MAX {
        return Err(refuse(format!("the definition is longer than {} bytes", limits::DEFINITION_BYTES_MAX)));
    }
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| refuse(format!("not JSON: {error}")))?;
    if !value.is_object() {
        return Err(refuse("a definition is a JSON object".to_owned()));
    }
    // A schema may hold nulls, which TOML has none of: it is carried as text.
    if let Some(schema) = value.pointer_mut("/output/schema").filter(|schema| schema.is_object()) {
        *schema = Value::String(schema.to_string());
    }
    let value = toml::Value::try_from(without_nulls(value)).map_err(|error| refuse(error.to_string()))?;
    toml::to_string(&value).map_err(|error| refuse(error.to_string()))
}

/// A field that is null is a field that is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn walk(r: &mut Reading<'_>, stem: Option<&str>, text: &str, tree: &DeTable<'_>) -> Option<Definition> {
    let mut root = Section::root(Some(tree));
    let kind = read_name(r, &mut root, stem);
    let name: &str = kind.as_deref().unwrap_or("agent");
    let about = root.text(r, "description", "");
    let model = read_model(r, &mut root);
    let instructions = read_template(r, &mut root, text, tree, "instructions");
    if instructions.is_none() && !root.has("instructions") {
        r.problems.add(None, "instructions", "is missing", "say what the agent is to do, and how");
    }
    let task = read_template(r, &mut root, text, tree, "task");
    let memory = limit::read_memory(r, &mut root, name);
    let definition = Definition {
        about: about.into(),
        temperature: root.part_opt(r, "temperature", 0.0..=2.0),
        top_p: root.part_opt(r, "top_p", 0.0..=1.0),
        output_tokens: root.whole_opt(r, "output_tokens", 1..=limits::SIM_OUTPUT_MAX).map(Tokens),
        tools: read_tools(r, &mut root),
        labels: read_labels(r, &mut root),
        allowance: limit::read_allowance(r, &mut root),
        schedule: policy::read_schedule(r, &mut root),
        supervision: policy::read_supervision(r, &mut root),
        guard: policy::read_guard(r, &mut root),
        permissions: permit::read(r, &mut root, name, &memory.namespace),
        output: limit::read_output(r, &mut root, tree),
        context: limit::read_context(r, &mut root),
        moves: root.choice(r, "version_policy", &["pin", "move"], one_of("pin", "move"), (false, "pin")),
        starts_on_mail: root.choice(
            r,
            "on_message",
            &["queue", "start"],
            one_of("queue", "start"),
            (false, "queue"),
        ),
        inbox_max: read_mailbox(r, &mut root),
        version: version(tree),
        kind: Arc::from(name),
        model: model.clone().unwrap_or_default(),
        instructions: instructions.clone().unwrap_or_default(),
        task: task.unwrap_or_else(task_alone),
        memory,
    };
    warn(r, &definition);
    root.finish(r);
    (kind.is_some() && model.is_some() && instructions.is_some()).then_some(definition)
}

fn task_alone() -> Template {
    Template::parse("{{task}}").expect("it is a template")
}

/// True for the second of two words.
fn one_of(no: &'static str, yes: &'static str) -> impl Fn(&str) -> Option<bool> {
    move |word| if word == yes { Some(true) } else { (word == no).then_some(false) }
}

fn read_name(r: &mut Reading<'_>, root: &mut Section<'_>, stem: Option<&str>) -> Option<Arc<str>> {
    let fits = |name: &str| match Agent::parse(name) {
        Ok(agent) if agent.kind() == name => Ok(Arc::from(name)),
        Ok(_) => Err("a type: a name without a slash".to_owned()),
        Err(error) => Err(format!("the name of a type ({error})")),
    };
    if root.has("name") {
        return root.parsed_opt(r, "name", fits);
    }
    root.know("name");
    match stem.map(fits) {
        Some(Ok(name)) => Some(name),
        Some(Err(expected)) => {
            r.problems.add(
                None,
                "name",
                format!("the file's name is not {expected}"),
                "write name = \"...\"",
            );
            None
        }
        None => {
            r.problems.add(None, "name", "is missing", "it is the type of the agents");
            None
        }
    }
}

fn read_model(r: &mut Reading<'_>, root: &mut Section<'_>) -> Option<Arc<str>> {
    if !root.has("model") {
        root.know("model");
        r.problems.add(None, "model", "is missing", "`seawall models` lists the names that work");
        return None;
    }
    root.parsed_opt(r, "model", |text| {
        let fits = !text.is_empty() && text.len() <= limits::NAME_LEN_MAX && !text.starts_with("agent/");
        if fits {
            return Ok(Arc::from(text));
        }
        let hint = text.strip_prefix("agent/").map(|other| {
            let kind = other.split('/').next().unwrap_or_default();
            format!(" (to give work to another agent: tools = [\"agent:{kind}\"])")
        });
        Err(format!("the name of a model that is no agent{}", hint.unwrap_or_default()))
    })
}

fn read_template(
    r: &mut Reading<'_>,
    root: &mut Section<'_>,
    text: &str,
    tree: &DeTable<'_>,
    key: &'static str,
) -> Option<Template> {
    let written = root.text_opt(r, key)?;
    match Template::parse(&written) {
        Ok(template) => Some(template),
        Err(mistakes) => {
            let start = tree.get(key).map_or(0, |value| value.span().start);
            // The first line break of a text in three quotes is not part of it.
            let quoted = text.get(start..).unwrap_or_default();
            let skipped =
                ["\"\"\"\n", "'''\n", "\"\"\"\r\n", "'''\r\n"].iter().any(|open| quoted.starts_with(open));
            let many = quoted.starts_with("\"\"\"") || quoted.starts_with("'''");
            for mistake in mistakes {
                let below = if many { mistake.line + usize::from(skipped) } else { 0 };
                r.problems.add(Some(r.line(start) + below), key, mistake.what, mistake.hint);
            }
            None
        }
    }
}

fn read_tools(r: &mut Reading<'_>, root: &mut Section<'_>) -> Vec<Arc<str>> {
    let listed = root.list_opt(r, "tools", limits::AGENT_TOOLS_MAX).unwrap_or_default();
    let mut tools: Vec<Arc<str>> = Vec::new();
    for (pattern, line) in listed {
        permit::check_pattern(r, "tools", &pattern, line);
        if tools.iter().any(|tool| **tool == *pattern) {
            r.warnings.add(Some(line), "tools", format!("{pattern} is listed twice"), "");
            continue;
        }
        tools.push(pattern.into());
    }
    tools
}

fn read_labels(r: &mut Reading<'_>, root: &mut Section<'_>) -> Vec<(Arc<str>, Arc<str>)> {
    let pairs = root.pairs(r, "labels");
    if let Some((_, _, line)) = pairs.get(limits::PERMISSION_LIST_MAX) {
        let what = format!("has more than {} entries", limits::PERMISSION_LIST_MAX);
        r.problems.add(Some(*line), "labels", what, "");
    }
    pairs.into_iter().map(|(name, value, _)| (name.into(), value.into())).collect()
}

fn read_mailbox(r: &mut Reading<'_>, root: &mut Section<'_>) -> usize {
    let most = limits::INBOX_LEN_MAX as u64;
    let found = root.whole(r, "mailbox", 1..=most, most);
    usize::try_from(found).expect("the range is of usize")
}

/// What is allowed and yet probably not meant.
fn warn(r: &mut Reading<'_>, definition: &Definition) {
    if definition.instructions.wants_notes() && !definition.memory.notes {
        let hint = "set memory.notes = true, or take {{notes}} out";
        r.warning("instructions", "says {{notes}}, and the agent has none", hint);
    }
    let unlimited = definition.allowance.steps.is_none()
        && definition.allowance.tokens.is_none()
        && definition.allowance.money.is_none();
    if unlimited {
        let what = "no limit on steps, tokens or money: only the progress guard stops it";
        r.warning("limits", what, "set limits.steps");
    }
    if let Some(output) = definition.output_tokens
        && output >= definition.context.window
    {
        r.warning("output_tokens", "is not below context.window_tokens: no prompt fits beside it", "");
    }
}

/// A digest of what the file says: keys in order, without comments and blanks.
fn version(tree: &DeTable<'_>) -> Arc<str> {
    let mut said = limit::object(tree);
    // From the API a schema comes as text, from a file mostly as a table.
    if let Some(schema) = said.get_mut("output").and_then(|output| output.get_mut("schema"))
        && let Some(parsed) = schema.as_str().and_then(|text| serde_json::from_str(text).ok())
    {
        *schema = parsed;
    }
    let digest = Sha256::digest(Value::Object(said).to_string());
    let digits: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    digits.into()
}
