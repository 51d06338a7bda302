//! OpenAI Chat Completions: requests.
//!
//! Choices made here: the operator's prompts are written as `system`, which every
//! server knows (`developer` is OpenAI's alone); several text blocks of one prompt are
//! joined by a blank line; pictures inside a tool's result move into the user message
//! that follows, since tool messages hold only text; the limit on output is
//! `max_completion_tokens` for models OpenAI itself hosts (its reasoning models refuse
//! the old name) and `max_tokens` for all others (Ollama knows no other).

use seawall_model::Fault;

use super::talk::{self, Ask, Format, Part, Pick, Role, Source, Tool, Turn, carried, unless};
use crate::json::{self, Object, Raw, bad, untranslatable};
use crate::writer::{Writer, written};

/// Reads a request.
pub(crate) fn read(body: &Object<'_>) -> Result<Ask, Fault> {
    refuse(body)?;
    let messages = body.list("messages")?.ok_or_else(|| bad("messages", "is required"))?;
    let turns = json::each("messages", &messages, |raw| read_message(&json::object(raw)?))?;
    let tools = body.list("tools")?.unwrap_or_default();
    let options = body.inner("stream_options")?;
    Ok(Ask {
        model: body.need_text("model")?,
        turns,
        tools: json::each("tools", &tools, |raw| read_tool(&json::object(raw)?))?,
        pick: body.find("tool_choice").map(read_pick).transpose()?,
        parallel: body.flag("parallel_tool_calls")?,
        output_max: read_output_max(body)?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.count("top_k").ok().flatten(),
        presence: unless(body.number("presence_penalty")?, 0.0),
        frequency: unless(body.number("frequency_penalty")?, 0.0),
        logit_bias: carried(body, "logit_bias").filter(|bias| !empty_object(bias)),
        seed: carried(body, "seed"),
        stop: talk::strings(body, "stop")?,
        stop_field: "stop",
        format: read_format(body)?,
        format_field: "response_format",
        effort: body.text("reasoning_effort")?,
        verbosity: body.text("verbosity")?,
        user: body.hint("user").or_else(|| body.hint("safety_identifier")),
        stream: body.flag("stream")?.unwrap_or(false),
        include_usage: options
            .map(|options| options.flag("include_usage"))
            .transpose()?
            .flatten()
            .unwrap_or(false),
        echo: Vec::new(),
    })
}

/// The limit of the answer. Chat's own zero is for its engine to judge; everywhere else a
/// limit of nothing is no request.
fn read_output_max(body: &Object<'_>) -> Result<Option<u64>, Fault> {
    for name in ["max_completion_tokens", "max_tokens"] {
        match body.count(name)? {
            Some(0) => return Err(bad(name, "must be a whole number from 1 on")),
            Some(max) => return Ok(Some(max)),
            None => {}
        }
    }
    Ok(None)
}

fn empty_object(json: &str) -> bool {
    json.trim_start_matches('{').trim_end_matches('}').trim().is_empty()
}

/// Refuses what no other protocol can carry.
fn refuse(body: &Object<'_>) -> Result<(), Fault> {
    for name in ["functions", "function_call", "audio", "web_search_options"] {
        if body.find(name).is_some() {
            return Err(untranslatable(name, "cannot be carried to the engine's protocol"));
        }
    }
    if body.count("n")?.is_some_and(|n| n > 1) {
        return Err(untranslatable("n", "can only be 1 with this engine's protocol"));
    }
    if body.flag("logprobs")? == Some(true) || body.count("top_logprobs")?.is_some_and(|top| top > 0) {
        return Err(untranslatable("logprobs", "cannot be carried to the engine's protocol"));
    }
    if talk::strings(body, "modalities")?.iter().any(|modality| modality != "text") {
        return Err(untranslatable("modalities", "can only be text with this engine's protocol"));
    }
    Ok(())
}

fn read_message(message: &Object<'_>) -> Result<Turn, Fault> {
    let role = message.need_text("role")?;
    match role.as_str() {
        "system" | "developer" => Ok(Turn { role: Role::System, parts: read_content(message)? }),
        "user" => Ok(Turn { role: Role::User, parts: read_content(message)? }),
        "assistant" => {
            if message.find("function_call").is_some() || message.find("audio").is_some() {
                return Err(untranslatable(
                    "role",
                    "names a message with function_call or audio, which cannot be carried",
                ));
            }
            Ok(Turn { role: Role::Assistant, parts: read_said(message)? })
        }
        "tool" => {
            let id = message.need_text("tool_call_id")?;
            let parts = read_content(message)?;
            Ok(Turn { role: Role::User, parts: vec![Part::Outcome { id, parts, failed: false }] })
        }
        "function" => Err(untranslatable("role", "of the deprecated kind function cannot be carried")),
        _ => Err(bad("role", "must be system, developer, user, assistant or tool")),
    }
}

/// What an assistant said, in a request's history or an answer.
pub(crate) fn read_said(message: &Object<'_>) -> Result<Vec<Part>, Fault> {
    let mut parts = Vec::new();
    let thought = message.hint("reasoning_content").or_else(|| message.hint("reasoning"));
    if let Some(text) = thought.filter(|text| !text.is_empty()) {
        parts.push(Part::Thinking { text, seal: None });
    }
    parts.extend(read_content(message)?.into_iter().filter(|part| *part != Part::Text(String::new())));
    if let Some(refusal) = message.text("refusal")?.filter(|text| !text.is_empty()) {
        parts.push(Part::Refusal(refusal));
    }
    let calls = message.list("tool_calls")?.unwrap_or_default();
    parts.extend(json::each("tool_calls", &calls, |raw| read_call(&json::object(raw)?))?);
    Ok(parts)
}

fn read_call(call: &Object<'_>) -> Result<Part, Fault> {
    if call.text("type")?.is_some_and(|kind| kind != "function") {
        return Err(untranslatable("type", "of a tool call can only be function"));
    }
    let function = call.need_inner("function")?;
    let inside = |fault| json::under(fault, "function");
    let arguments = match function.find("arguments") {
        // Some servers send the object itself instead of its text.
        Some(raw) if !json::is_text(raw) => raw.get().to_owned(),
        _ => function.text("arguments").map_err(inside)?.unwrap_or_default(),
    };
    let name = function.need_text("name").map_err(inside)?;
    Ok(Part::Call { id: call.text("id")?.unwrap_or_default(), name, arguments })
}

fn read_content(message: &Object<'_>) -> Result<Vec<Part>, Fault> {
    let Some(raw) = message.find("content") else {
        return Ok(Vec::new());
    };
    if let Some(text) = json::text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let items = json::items(raw).ok_or_else(|| bad("content", "must be a string or a list of parts"))?;
    json::each("content", &items, |raw| read_part(&json::object(raw)?))
}

fn read_part(part: &Object<'_>) -> Result<Part, Fault> {
    match part.need_text("type")?.as_str() {
        "text" => Ok(Part::Text(part.need_text("text")?)),
        "refusal" => Ok(Part::Refusal(part.need_text("refusal")?)),
        "image_url" => {
            let image = part.need_inner("image_url")?;
            let inside = |fault| json::under(fault, "image_url");
            let url = image.need_text("url").map_err(inside)?;
            let source = talk::source(url, "url").map_err(inside)?;
            Ok(Part::Image { source, detail: talk::detail(image.text("detail").map_err(inside)?) })
        }
        "file" => {
            let file = part.need_inner("file")?;
            let Some(url) = file.text("file_data")? else {
                return Err(untranslatable("file.file_id", "names a file that only its own server has"));
            };
            let source = talk::source(url, "file.file_data")?;
            Ok(Part::File { name: file.text("filename")?, source })
        }
        other => Err(untranslatable(
            "type",
            &format!("is `{}`, which cannot be carried to the engine's protocol", tame(other)),
        )),
    }
}

/// A client's word, cut to what may stand in a message.
pub(crate) fn tame(word: &str) -> String {
    word.chars()
        .filter(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.'))
        .take(40)
        .collect()
}

fn read_tool(tool: &Object<'_>) -> Result<Tool, Fault> {
    if tool.need_text("type")? != "function" {
        return Err(untranslatable("type", "of a tool can only be function with this engine's protocol"));
    }
    let function = tool.need_inner("function")?;
    let inside = |fault| json::under(fault, "function");
    Ok(Tool {
        name: function.need_text("name").map_err(inside)?,
        about: function.text("description").map_err(inside)?,
        schema: carried(&function, "parameters"),
        strict: function.flag("strict").map_err(inside)?,
    })
}

fn read_pick(raw: Raw<'_>) -> Result<Pick, Fault> {
    match json::text(raw).as_deref() {
        Some("auto") => return Ok(Pick::Auto),
        Some("none") => return Ok(Pick::Never),
        Some("required") => return Ok(Pick::Must),
        Some(_) => {
            return Err(bad("tool_choice", "must be auto, none, required or name a function"));
        }
        None => {}
    }
    let choice = json::object(raw).map_err(|_| bad("tool_choice", "must be a string or an object"))?;
    let inside = |fault| json::under(fault, "tool_choice");
    if choice.need_text("type").map_err(inside)? != "function" {
        return Err(untranslatable("tool_choice.type", "can only be function with this engine's protocol"));
    }
    let function = choice.need_inner("function").map_err(inside)?;
    Ok(Pick::Named(function.need_text("name").map_err(|fault| json::under(fault, "tool_choice.function"))?))
}

fn read_format(body: &Object<'_>) -> Result<Format, Fault> {
    let Some(format) = body.inner("response_format")? else {
        return Ok(Format::Text);
    };
    let inside = |fault| json::under(fault, "response_format");
    match format.need_text("type").map_err(inside)?.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => {
            let schema = format.need_inner("json_schema").map_err(inside)?;
            let inside = |fault| json::under(fault, "response_format.json_schema");
            Ok(Format::Schema {
                name: schema.need_text("name").map_err(inside)?,
                about: schema.text("description").map_err(inside)?,
                schema: carried(&schema, "schema").ok_or_else(|| inside(bad("schema", "is required")))?,
                strict: schema.flag("strict").map_err(inside)?,
            })
        }
        _ => Err(bad("response_format.type", "must be text, json_object or json_schema")),
    }
}

/// Is this a model that OpenAI itself hosts?
fn hosted_by_openai(model: &str) -> bool {
    let numbered =
        model.strip_prefix('o').is_some_and(|rest| rest.starts_with(|char: char| char.is_ascii_digit()));
    numbered || model.starts_with("chatgpt-") || (model.starts_with("gpt-") && !model.starts_with("gpt-oss"))
}

/// Is this a hosted model that refuses to be told how hard to think?
fn never_reasons(model: &str) -> bool {
    ["gpt-3", "gpt-4", "chatgpt-"].iter().any(|family| model.starts_with(family))
}

/// Writes a request. A stream always asks for usage: the books need it.
pub(crate) fn write(ask: &Ask, model: &str) -> Result<Vec<u8>, Fault> {
    let mut failed = Ok(());
    let out = written(|w| {
        w.open().field("model", model).key("messages").open_list();
        for turn in &ask.turns {
            if let Err(fault) = write_turn(w, turn) {
                failed = Err(fault);
                return;
            }
        }
        w.close_list();
        write_tools(w, ask);
        if let Some(max) = ask.output_max {
            w.key(if hosted_by_openai(model) { "max_completion_tokens" } else { "max_tokens" }).count(max);
        }
        for (name, number) in [
            ("temperature", ask.temperature),
            ("top_p", ask.top_p),
            ("presence_penalty", ask.presence),
            ("frequency_penalty", ask.frequency),
        ] {
            if let Some(number) = number {
                w.key(name).number(number);
            }
        }
        if let Some(top_k) = ask.top_k {
            w.key("top_k").count(top_k);
        }
        for (name, json) in [("logit_bias", &ask.logit_bias), ("seed", &ask.seed)] {
            if let Some(json) = json {
                w.carry(name, json);
            }
        }
        if !ask.stop.is_empty() {
            w.key("stop").open_list();
            ask.stop.iter().for_each(|stop| {
                w.text(stop);
            });
            w.close_list();
        }
        write_format(w, &ask.format);
        if let Some(effort) = ask.effort.as_deref().filter(|_| !never_reasons(model)) {
            w.field("reasoning_effort", effort);
        }
        for (name, text) in [("verbosity", &ask.verbosity), ("user", &ask.user)] {
            if let Some(text) = text {
                w.field(name, text);
            }
        }
        if ask.stream {
            w.key("stream").flag(true).key("stream_options").open().key("include_usage").flag(true).close();
        }
        w.close();
    });
    failed.map(|()| out)
}

fn write_turn(w: &mut Writer<'_>, turn: &Turn) -> Result<(), Fault> {
    match turn.role {
        Role::System => {
            let text = talk::join_text(&turn.parts, "\n\n").unwrap_or_default();
            w.open().field("role", "system").field("content", &text).close();
            Ok(())
        }
        Role::User => write_user(w, &turn.parts),
        Role::Assistant => write_assistant(w, &turn.parts),
    }
}

fn write_user(w: &mut Writer<'_>, parts: &[Part]) -> Result<(), Fault> {
    let mut rest: Vec<&Part> = Vec::new();
    for part in parts {
        let Part::Outcome { id, parts: inner, .. } = part else {
            continue;
        };
        let text = talk::join_text(inner, "\n");
        let pictures: Vec<&Part> = inner.iter().filter(|part| !matches!(part, Part::Text(_))).collect();
        let text = match text {
            None if !pictures.is_empty() => "(The result is the attachment in the next message.)".to_owned(),
            text => text.unwrap_or_default(),
        };
        w.open().field("role", "tool").field("tool_call_id", id).field("content", &text).close();
        rest.extend(pictures);
    }
    let outcomes = parts.iter().any(|part| matches!(part, Part::Outcome { .. }));
    rest.extend(parts.iter().filter(|part| !matches!(part, Part::Outcome { .. })));
    if rest.is_empty() && outcomes {
        return Ok(());
    }
    w.open().field("role", "user").key("content");
    match rest[..] {
        [] => {
            w.text("");
        }
        [Part::Text(text)] => {
            w.text(text);
        }
        _ => {
            w.open_list();
            for part in rest {
                write_part(w, part)?;
            }
            w.close_list();
        }
    }
    w.close();
    Ok(())
}

fn write_part(w: &mut Writer<'_>, part: &Part) -> Result<(), Fault> {
    match part {
        Part::Text(text) => {
            w.open().field("type", "text").field("text", text).close();
        }
        Part::Image { source, detail } => {
            w.open().field("type", "image_url").key("image_url").open().field("url", &talk::url(source));
            if let Some(detail) = detail {
                w.field("detail", detail);
            }
            w.close().close();
        }
        Part::File { name, source: source @ Source::Inline { .. } } => {
            w.open().field("type", "file").key("file").open();
            w.field("filename", name.as_deref().unwrap_or("file.pdf")).field("file_data", &talk::url(source));
            w.close().close();
        }
        Part::File { .. } => {
            return Err(untranslatable("messages", "holds a file by URL, which chat cannot carry"));
        }
        _ => {
            return Err(untranslatable("messages", "holds a part that a user message of chat cannot carry"));
        }
    }
    Ok(())
}

fn write_assistant(w: &mut Writer<'_>, parts: &[Part]) -> Result<(), Fault> {
    if parts.iter().any(|part| matches!(part, Part::Image { .. } | Part::File { .. } | Part::Outcome { .. }))
    {
        return Err(untranslatable(
            "messages",
            "holds an assistant's turn with attachments, which chat cannot carry",
        ));
    }
    w.open();
    write_said(w, parts);
    w.close();
    Ok(())
}

/// The fields of an assistant's message.
pub(crate) fn write_said(w: &mut Writer<'_>, parts: &[Part]) {
    let calls = parts.iter().any(|part| matches!(part, Part::Call { .. }));
    let text = talk::join_text(parts, "");
    let refusal = parts.iter().find_map(|part| match part {
        Part::Refusal(text) => Some(text.as_str()),
        _ => None,
    });
    w.field("role", "assistant").key("content");
    match (&text, calls || refusal.is_some()) {
        (None, false) => w.text(""),
        (text, _) => w.text_or_null(text.as_deref()),
    };
    if let Some(refusal) = refusal {
        w.field("refusal", refusal);
    }
    let thoughts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Thinking { text, .. } if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
        .collect();
    if !thoughts.is_empty() {
        w.field("reasoning_content", &thoughts.join("\n"));
    }
    if calls {
        w.key("tool_calls").open_list();
        for part in parts {
            let Part::Call { id, name, arguments } = part else {
                continue;
            };
            let arguments = if arguments.is_empty() { "{}" } else { arguments };
            w.open().field("id", id).field("type", "function").key("function").open();
            w.field("name", name).field("arguments", arguments).close().close();
        }
        w.close_list();
    }
}

fn write_tools(w: &mut Writer<'_>, ask: &Ask) {
    if ask.tools.is_empty() {
        return;
    }
    w.key("tools").open_list();
    for tool in &ask.tools {
        w.open().field("type", "function").key("function").open().field("name", &tool.name);
        if let Some(about) = &tool.about {
            w.field("description", about);
        }
        if let Some(schema) = &tool.schema {
            w.carry("parameters", schema);
        }
        if let Some(strict) = tool.strict {
            w.key("strict").flag(strict);
        }
        w.close().close();
    }
    w.close_list();
    match &ask.pick {
        None => {}
        Some(Pick::Auto) => {
            w.field("tool_choice", "auto");
        }
        Some(Pick::Never) => {
            w.field("tool_choice", "none");
        }
        Some(Pick::Must) => {
            w.field("tool_choice", "required");
        }
        Some(Pick::Named(name)) => {
            w.key("tool_choice").open().field("type", "function");
            w.key("function").open().field("name", name).close().close();
        }
    }
    if let Some(parallel) = ask.parallel {
        w.key("parallel_tool_calls").flag(parallel);
    }
}

fn write_format(w: &mut Writer<'_>, format: &Format) {
    match format {
        Format::Text => {}
        Format::Json => {
            w.key("response_format").open().field("type", "json_object").close();
        }
        Format::Schema { name, about, schema, strict } => {
            w.key("response_format").open().field("type", "json_schema").key("json_schema").open();
            w.field("name", name);
            if let Some(about) = about {
                w.field("description", about);
            }
            w.carry("schema", schema);
            if let Some(strict) = strict {
                w.key("strict").flag(*strict);
            }
            w.close().close();
        }
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::{Code, Protocol};

    use crate::translate::request_to;

    #[test]
    fn a_limit_of_nothing_goes_to_no_other_protocol() {
        for (limits, field) in [
            (r#""max_tokens":0"#, "max_tokens"),
            (r#""max_completion_tokens":0,"max_tokens":5"#, "max_completion_tokens"),
        ] {
            let body = format!(r#"{{"model":"m","messages":[],{limits}}}"#);
            for engine in [Protocol::Messages, Protocol::Responses] {
                let fault = request_to(Protocol::Chat, engine, body.as_bytes(), "m").expect_err("refused");
                assert_eq!((fault.code, fault.param.as_deref()), (Code::BadField, Some(field)));
            }
        }
        let scored = br#"{"model":"m","prompt":"p","max_tokens":0}"#;
        let fault = request_to(Protocol::Completions, Protocol::Chat, scored, "m").expect_err("refused");
        assert_eq!((fault.code, fault.param.as_deref()), (Code::NotTranslatable, Some("max_tokens")));
    }
}
