//! Anthropic Messages: requests and whole answers.
//!
//! Choices made here: the operator's prompts, wherever they stand, become blocks of
//! `system` in their order, as a conversation here has only two speakers (a request
//! with nothing else sends its last prompt as the user's); `max_tokens`, which is
//! required, is 4,096 where the client set no limit; temperatures above 1 become 1;
//! thinking goes back only with its signature, without which it is refused; a JSON
//! schema becomes `output_config.format`, while "any JSON object" has no counterpart.

use seawall_model::{Code, Fault, Finish, Protocol};

use super::chat::tame;
use super::talk::{self, Answer, Ask, Format, Part, Pick, Role, Source, Tool, Turn, carried};
use super::{Context, garbled};
use crate::json::{self, Object, Raw, bad, untranslatable};
use crate::usage;
use crate::writer::{Writer, written};

/// `max_tokens` where the client set none.
const OUTPUT_MAX: u64 = 4_096;
/// `input_schema` of a tool without one.
const NO_INPUT: &str = r#"{"type":"object","properties":{}}"#;

/// Reads a request.
pub(crate) fn read(body: &Object<'_>) -> Result<Ask, Fault> {
    for name in ["container", "mcp_servers"] {
        if body.find(name).is_some_and(|raw| raw.get() != "[]") {
            return Err(untranslatable(name, "cannot be carried to the engine's protocol"));
        }
    }
    let mut turns = Vec::new();
    if body.find("system").is_some() {
        turns.push(Turn { role: Role::System, parts: read_content(body, "system", read_block)? });
    }
    let messages = body.list("messages")?.ok_or_else(|| bad("messages", "is required"))?;
    turns.extend(json::each("messages", &messages, |raw| read_message(&json::object(raw)?))?);
    let tools = body.list("tools")?.unwrap_or_default();
    let (pick, parallel) = read_pick(body)?;
    let output = body.inner("output_config")?;
    let effort = output.as_ref().and_then(|output| output.hint("effort"));
    let metadata = body.inner("metadata")?;
    Ok(Ask {
        model: body.need_text("model")?,
        turns,
        tools: json::each("tools", &tools, |raw| read_tool(&json::object(raw)?))?,
        pick,
        parallel,
        output_max: body.count("max_tokens")?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.count("top_k")?,
        stop: talk::strings(body, "stop_sequences")?,
        format: output.as_ref().map(read_format).transpose()?.unwrap_or_default(),
        format_field: "output_config.format",
        stop_field: "stop_sequences",
        // OpenAI's scale of effort ends at high on most servers.
        effort: effort.map(|effort| {
            if matches!(effort.as_str(), "xhigh" | "max") { "high".to_owned() } else { effort }
        }),
        user: metadata.and_then(|metadata| metadata.hint("user_id")),
        stream: body.flag("stream")?.unwrap_or(false),
        ..Ask::default()
    })
}

fn read_message(message: &Object<'_>) -> Result<Turn, Fault> {
    let role = match message.need_text("role")?.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(bad("role", "must be user or assistant")),
    };
    if message.find("content").is_none() {
        return Err(bad("content", "is required"));
    }
    Ok(Turn { role, parts: read_content(message, "content", read_block)? })
}

/// A string or a list of blocks, each read by `read`.
fn read_content(
    from: &Object<'_>,
    name: &str,
    read: fn(&Object<'_>) -> Result<Part, Fault>,
) -> Result<Vec<Part>, Fault> {
    let Some(raw) = from.find(name) else {
        return Ok(Vec::new());
    };
    if let Some(text) = json::text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let items = json::items(raw).ok_or_else(|| bad(name, "must be a string or a list of blocks"))?;
    json::each(name, &items, |raw| read(&json::object(raw)?))
}

/// A block that may stand in a tool's result. Results do not nest, so reading them
/// never recurses.
fn read_attachment(block: &Object<'_>) -> Result<Part, Fault> {
    match block.need_text("type")?.as_str() {
        "text" => Ok(Part::Text(block.need_text("text")?)),
        "image" => Ok(Part::Image { source: read_source(block)?, detail: None }),
        "document" => Ok(Part::File { source: read_source(block)?, name: block.text("title")? }),
        other => {
            let why = format!("is `{}`, which cannot be carried to the engine's protocol", tame(other));
            Err(untranslatable("type", &why))
        }
    }
}

fn read_block(block: &Object<'_>) -> Result<Part, Fault> {
    match block.need_text("type")?.as_str() {
        "tool_use" => Ok(Part::Call {
            id: block.need_text("id")?,
            name: block.need_text("name")?,
            arguments: carried(block, "input").unwrap_or_else(|| "{}".to_owned()),
        }),
        "tool_result" => Ok(Part::Outcome {
            id: block.need_text("tool_use_id")?,
            parts: read_content(block, "content", read_attachment)?,
            failed: block.flag("is_error")?.unwrap_or(false),
        }),
        "thinking" => Ok(Part::Thinking {
            text: block.need_text("thinking")?,
            seal: block.text("signature")?.filter(|seal| !seal.is_empty()),
        }),
        "redacted_thinking" => Ok(Part::Redacted(block.need_text("data")?)),
        _ => read_attachment(block),
    }
}

fn read_source(block: &Object<'_>) -> Result<Source, Fault> {
    let source = block.need_inner("source")?;
    let inside = |fault| json::under(fault, "source");
    match source.need_text("type").map_err(inside)?.as_str() {
        "base64" => Ok(Source::Inline {
            media: source.need_text("media_type").map_err(inside)?,
            base64: source.need_text("data").map_err(inside)?,
        }),
        "url" => Ok(Source::Url(source.need_text("url").map_err(inside)?)),
        other => Err(untranslatable(
            "source.type",
            &format!("is `{}`, which cannot be carried to the engine's protocol", tame(other)),
        )),
    }
}

fn read_tool(tool: &Object<'_>) -> Result<Tool, Fault> {
    if let Some(kind) = tool.text("type")?.filter(|kind| kind != "custom") {
        return Err(untranslatable(
            "type",
            &format!("is `{}`, a tool that only Anthropic runs", tame(&kind)),
        ));
    }
    Ok(Tool {
        name: tool.need_text("name")?,
        about: tool.text("description")?,
        schema: carried(tool, "input_schema"),
        strict: tool.flag("strict")?,
    })
}

fn read_pick(body: &Object<'_>) -> Result<(Option<Pick>, Option<bool>), Fault> {
    let Some(choice) = body.inner("tool_choice")? else {
        return Ok((None, None));
    };
    let inside = |fault| json::under(fault, "tool_choice");
    let pick = match choice.need_text("type").map_err(inside)?.as_str() {
        "auto" => Pick::Auto,
        "any" => Pick::Must,
        "none" => Pick::Never,
        "tool" => Pick::Named(choice.need_text("name").map_err(inside)?),
        _ => return Err(bad("tool_choice.type", "must be auto, any, tool or none")),
    };
    let alone = choice.flag("disable_parallel_tool_use").map_err(inside)?;
    Ok((Some(pick), alone.map(|alone| !alone)))
}

fn read_format(output: &Object<'_>) -> Result<Format, Fault> {
    let inside = |fault| json::under(fault, "output_config");
    let Some(format) = output.inner("format").map_err(inside)? else {
        return Ok(Format::Text);
    };
    let inside = |fault| json::under(fault, "output_config.format");
    if format.need_text("type").map_err(inside)? != "json_schema" {
        return Err(bad("output_config.format.type", "must be json_schema"));
    }
    let schema =
        carried(&format, "schema").ok_or_else(|| bad("output_config.format.schema", "is required"))?;
    Ok(Format::Schema { name: "answer".to_owned(), about: None, schema, strict: Some(true) })
}

/// Writes a request.
pub(crate) fn write(ask: &Ask, model: &str) -> Result<Vec<u8>, Fault> {
    ask.refuse_sampling()?;
    if ask.format == Format::Json {
        return Err(untranslatable(
            ask.format_field,
            "without a schema has no counterpart in the engine's protocol",
        ));
    }
    if ask.stop.iter().any(|stop| stop.trim().is_empty()) {
        return Err(untranslatable(ask.stop_field, "of only blanks is not taken by the engine's protocol"));
    }
    let (system, turns) = split(&ask.turns);
    turns.iter().flat_map(|turn| &turn.parts).try_for_each(refuse_file)?;
    Ok(written(|w| {
        w.open().field("model", model).key("max_tokens").count(ask.output_max.unwrap_or(OUTPUT_MAX));
        if !system.is_empty() {
            w.key("system").open_list();
            for text in &system {
                w.open().field("type", "text").field("text", text).close();
            }
            w.close_list();
        }
        w.key("messages").open_list();
        for turn in &turns {
            write_turn(w, turn);
        }
        w.close_list();
        write_tools(w, ask);
        if let Some(temperature) = ask.temperature {
            w.key("temperature").number(temperature.min(1.0));
        }
        if let Some(top_p) = ask.top_p {
            w.key("top_p").number(top_p);
        }
        if let Some(top_k) = ask.top_k {
            w.key("top_k").count(top_k);
        }
        if !ask.stop.is_empty() {
            w.key("stop_sequences").open_list();
            ask.stop.iter().for_each(|stop| {
                w.text(stop);
            });
            w.close_list();
        }
        write_output_config(w, ask);
        if let Some(user) = &ask.user {
            w.key("metadata").open().field("user_id", user).close();
        }
        if ask.stream {
            w.key("stream").flag(true);
        }
        w.close();
    }))
}

/// Refuses files that are not the one kind the API takes.
fn refuse_file(part: &Part) -> Result<(), Fault> {
    match part {
        Part::File { source: Source::Inline { media, .. }, .. } if media != "application/pdf" => {
            Err(untranslatable("messages", "holds a file that is no PDF, which this engine cannot take"))
        }
        Part::Outcome { parts, .. } => parts.iter().try_for_each(refuse_file),
        _ => Ok(()),
    }
}

/// The operator's prompts apart from the conversation, in which turns of one speaker
/// are joined, results come first in theirs and nothing is empty.
fn split(turns: &[Turn]) -> (Vec<String>, Vec<Turn>) {
    let mut system = Vec::new();
    let mut said: Vec<Turn> = Vec::new();
    for turn in turns {
        let parts =
            turn.parts.iter().filter(|part| !matches!(part, Part::Text(text) if text.is_empty())).cloned();
        if turn.role == Role::System {
            system.extend(parts.filter_map(|part| match part {
                Part::Text(text) => Some(text),
                _ => None,
            }));
        } else {
            let parts: Vec<Part> = parts.filter(sendable).collect();
            if !parts.is_empty() {
                talk::say(&mut said, turn.role, parts);
            }
        }
    }
    for turn in &mut said {
        turn.parts.sort_by_key(|part| !matches!(part, Part::Outcome { .. }));
    }
    if said.is_empty()
        && let Some(last) = system.pop()
    {
        said.push(Turn { role: Role::User, parts: vec![Part::Text(last)] });
    }
    (system, said)
}

/// Thinking without a signature is refused by the API, and the model does well without.
fn sendable(part: &Part) -> bool {
    !matches!(part, Part::Thinking { seal: None, .. })
}

fn write_turn(w: &mut Writer<'_>, turn: &Turn) {
    w.open().field("role", if turn.role == Role::Assistant { "assistant" } else { "user" }).key("content");
    if let [Part::Text(text)] = &turn.parts[..] {
        w.text(text);
    } else {
        w.open_list();
        turn.parts.iter().for_each(|part| write_block(w, part));
        w.close_list();
    }
    w.close();
}

/// Ids as Anthropic takes them: letters, digits, `_` and `-`. A call and its result
/// are changed alike, so they still find each other.
fn plain_id(id: &str) -> String {
    let kept = |char: char| {
        if char.is_ascii_alphanumeric() || matches!(char, '_' | '-') { char } else { '_' }
    };
    if id.is_empty() { "call".to_owned() } else { id.chars().map(kept).collect() }
}

fn write_block(w: &mut Writer<'_>, part: &Part) {
    w.open();
    match part {
        Part::Text(text) | Part::Refusal(text) => {
            w.field("type", "text").field("text", text);
        }
        Part::Image { source, .. } => {
            w.field("type", "image");
            write_source(w, source);
        }
        Part::File { name, source } => {
            w.field("type", "document");
            write_source(w, source);
            if let Some(name) = name {
                w.field("title", name);
            }
        }
        Part::Call { id, name, arguments } => {
            w.field("type", "tool_use").field("id", &plain_id(id)).field("name", name);
            w.carry("input", &talk::arguments_object(arguments));
        }
        Part::Outcome { id, parts, failed } => {
            w.field("type", "tool_result").field("tool_use_id", &plain_id(id));
            match &parts[..] {
                [] => {}
                [Part::Text(text)] => {
                    w.field("content", text);
                }
                parts => {
                    w.key("content").open_list();
                    let full =
                        parts.iter().filter(|part| !matches!(part, Part::Text(text) if text.is_empty()));
                    full.for_each(|part| write_block(w, part));
                    w.close_list();
                }
            }
            if *failed {
                w.key("is_error").flag(true);
            }
        }
        Part::Thinking { text, seal } => {
            w.field("type", "thinking").field("thinking", text);
            w.field("signature", seal.as_deref().unwrap_or_default());
        }
        Part::Redacted(data) => {
            w.field("type", "redacted_thinking").field("data", data);
        }
    }
    w.close();
}

fn write_source(w: &mut Writer<'_>, source: &Source) {
    w.key("source").open();
    match source {
        Source::Inline { media, base64 } => {
            w.field("type", "base64").field("media_type", media).field("data", base64)
        }
        Source::Url(url) => w.field("type", "url").field("url", url),
    };
    w.close();
}

fn write_tools(w: &mut Writer<'_>, ask: &Ask) {
    if ask.tools.is_empty() {
        return;
    }
    w.key("tools").open_list();
    for tool in &ask.tools {
        w.open().field("name", &tool.name);
        if let Some(about) = &tool.about {
            w.field("description", about);
        }
        w.carry("input_schema", tool.schema.as_deref().unwrap_or(NO_INPUT));
        if let Some(strict) = tool.strict {
            w.key("strict").flag(strict);
        }
        w.close();
    }
    w.close_list();
    if ask.pick.is_none() && ask.parallel.is_none() {
        return;
    }
    w.key("tool_choice").open();
    match &ask.pick {
        None | Some(Pick::Auto) => w.field("type", "auto"),
        Some(Pick::Never) => w.field("type", "none"),
        Some(Pick::Must) => w.field("type", "any"),
        Some(Pick::Named(name)) => w.field("type", "tool").field("name", name),
    };
    if let Some(parallel) = ask.parallel
        && ask.pick != Some(Pick::Never)
    {
        w.key("disable_parallel_tool_use").flag(!parallel);
    }
    w.close();
}

fn write_output_config(w: &mut Writer<'_>, ask: &Ask) {
    let effort = match ask.effort.as_deref() {
        Some("minimal") => Some("low"),
        Some(effort @ ("low" | "medium" | "high" | "xhigh" | "max")) => Some(effort),
        _ => None,
    };
    let schema = match &ask.format {
        Format::Schema { schema, .. } => Some(schema),
        Format::Text | Format::Json => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    w.key("output_config").open();
    if let Some(effort) = effort {
        w.field("effort", effort);
    }
    if let Some(schema) = schema {
        w.key("format").open().field("type", "json_schema").carry("schema", schema).close();
    }
    w.close();
}

/// Reads a whole answer. Blocks that no request of ours can lead to are left out.
pub(crate) fn read_answer(body: &[u8]) -> Result<Answer, Fault> {
    let whole = Object::parse(body).ok_or_else(|| Fault::plain(Code::EngineGarbled))?;
    let content =
        whole.list("content").map_err(garbled)?.ok_or_else(|| garbled(bad("content", "is missing")))?;
    let read = |raw: &Raw<'_>| {
        let block = json::object(raw)?;
        match read_block(&block) {
            Err(fault) if fault.code == Code::NotTranslatable => Ok(None),
            read => read.map(Some),
        }
    };
    let parts: Result<Vec<Option<Part>>, Fault> = content.iter().map(read).collect();
    let reason = whole.hint("stop_reason").unwrap_or_default();
    Ok(Answer {
        parts: parts.map_err(garbled)?.into_iter().flatten().collect(),
        finish: usage::finish(reason.as_bytes()),
        stopped_by: whole.hint("stop_sequence"),
        usage: whole.find("usage").and_then(|raw| usage::read(Protocol::Messages, raw.get().as_bytes())),
    }
    .settled())
}

/// Anthropic's `stop_reason`.
pub(crate) fn stop_reason(finish: Finish, stopped_by: Option<&str>) -> &'static str {
    match finish {
        Finish::Stop if stopped_by.is_some() => "stop_sequence",
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Tools => "tool_use",
        Finish::Refusal => "refusal",
    }
}

/// Writes a whole answer.
pub(crate) fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    written(|w| {
        w.open()
            .field("id", &format!("msg_{}", context.id))
            .field("type", "message")
            .field("role", "assistant");
        w.field("model", &context.model).key("content").open_list();
        answer.parts.iter().for_each(|part| write_block(w, part));
        w.close_list();
        w.field("stop_reason", stop_reason(answer.finish, answer.stopped_by.as_deref()));
        w.key("stop_sequence").text_or_null(answer.stopped_by.as_deref()).key("usage");
        usage::write_messages(w, &answer.usage.unwrap_or_default());
        w.close();
    })
}
