//! OpenAI Responses: requests.
//!
//! Choices made here: nothing is stored, so whatever leans on storage (a previous
//! response, a conversation, a stored prompt, an item by reference, work in the
//! background) is refused and every answer says `store: false`; leading system prompts
//! become `instructions`, later ones stay in their place as `developer`; reasoning
//! travels as summary text with the provider's seal in `encrypted_content`.

use seawall_model::Fault;

use super::chat::tame;
use super::talk::{self, Ask, Format, Part, Pick, Role, Source, Tool, Turn, carried};
use crate::json::{self, Object, Raw, bad, untranslatable};
use crate::writer::{Writer, written};

/// Marks a seal that is the whole of some redacted thinking.
pub(crate) const REDACTED: &str = "redacted:";

/// Request fields that the answer repeats.
const ECHOED: [&str; 11] = [
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "user",
];

/// Reads a request.
pub(crate) fn read(body: &Object<'_>) -> Result<Ask, Fault> {
    refuse(body)?;
    let mut turns = Vec::new();
    if let Some(text) = body.text("instructions")? {
        turns.push(Turn { role: Role::System, parts: vec![Part::Text(text)] });
    }
    let input = body.find("input").ok_or_else(|| bad("input", "is required"))?;
    if let Some(text) = json::text(input) {
        turns.push(Turn { role: Role::User, parts: vec![Part::Text(text)] });
    } else {
        let items = body.list("input")?.unwrap_or_default();
        let read = json::each("input", &items, |raw| read_item(&json::object(raw)?))?;
        for (role, parts) in read {
            // One answer of the assistant is several items here: text, thoughts, calls;
            // and many chat templates take only one system prompt at the beginning.
            if role == Role::User {
                turns.push(Turn { role, parts });
            } else {
                talk::say(&mut turns, role, parts);
            }
        }
    }
    let tools = body.list("tools")?.unwrap_or_default();
    let text = body.inner("text")?;
    let reasoning = body.inner("reasoning")?;
    Ok(Ask {
        model: body.need_text("model")?,
        turns,
        tools: json::each("tools", &tools, |raw| read_tool(&json::object(raw)?))?,
        pick: body.find("tool_choice").map(read_pick).transpose()?,
        parallel: body.flag("parallel_tool_calls")?,
        output_max: body.count("max_output_tokens")?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        format: text.as_ref().map(read_format).transpose()?.unwrap_or_default(),
        format_field: "text.format",
        effort: reasoning.and_then(|reasoning| reasoning.hint("effort")),
        verbosity: text.and_then(|text| text.hint("verbosity")),
        user: body.hint("user").or_else(|| body.hint("safety_identifier")),
        stream: body.flag("stream")?.unwrap_or(false),
        echo: ECHOED.iter().filter_map(|name| Some((*name, carried(body, name)?))).collect(),
        ..Ask::default()
    })
}

fn refuse(body: &Object<'_>) -> Result<(), Fault> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if body.find(name).is_some() {
            return Err(untranslatable(name, "leans on what the engine does not store"));
        }
    }
    if body.flag("background")? == Some(true) {
        return Err(untranslatable("background", "needs an engine that works in the background"));
    }
    if body.count("top_logprobs")?.is_some_and(|top| top > 0)
        || talk::strings(body, "include")?.iter().any(|name| name == "message.output_text.logprobs")
    {
        return Err(untranslatable("top_logprobs", "cannot be carried to the engine's protocol"));
    }
    Ok(())
}

pub(crate) fn read_item(item: &Object<'_>) -> Result<(Role, Vec<Part>), Fault> {
    let kind = item.text("type")?;
    match kind.as_deref() {
        None | Some("message") => {
            let role = match item.need_text("role")?.as_str() {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                "system" | "developer" => Role::System,
                _ => return Err(bad("role", "must be user, assistant, system or developer")),
            };
            Ok((role, read_content(item, "content")?))
        }
        Some("function_call") => {
            let arguments = item.text("arguments")?.unwrap_or_default();
            let call =
                Part::Call { id: item.need_text("call_id")?, name: item.need_text("name")?, arguments };
            Ok((Role::Assistant, vec![call]))
        }
        Some("function_call_output") => {
            let parts = read_content(item, "output")?;
            Ok((Role::User, vec![Part::Outcome { id: item.need_text("call_id")?, parts, failed: false }]))
        }
        Some("reasoning") => Ok((Role::Assistant, read_reasoning(item)?.into_iter().collect())),
        Some(other) => Err(untranslatable(
            "type",
            &format!("is `{}`, which cannot be carried to the engine's protocol", tame(other)),
        )),
    }
}

fn read_reasoning(item: &Object<'_>) -> Result<Option<Part>, Fault> {
    let seal = item.text("encrypted_content")?;
    if let Some(data) = seal.as_deref().and_then(|seal| seal.strip_prefix(REDACTED)) {
        return Ok(Some(Part::Redacted(data.to_owned())));
    }
    let mut texts = Vec::new();
    for name in ["content", "summary"] {
        let items = item.list(name)?.unwrap_or_default();
        let read = json::each(name, &items, |raw| json::object(raw)?.need_text("text"))?;
        if texts.is_empty() {
            texts = read;
        }
    }
    let text = texts.join("\n\n");
    Ok((!text.is_empty() || seal.is_some()).then_some(Part::Thinking { text, seal }))
}

fn read_content(item: &Object<'_>, name: &str) -> Result<Vec<Part>, Fault> {
    let Some(raw) = item.find(name) else {
        return Err(bad(name, "is required"));
    };
    if let Some(text) = json::text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let items = json::items(raw).ok_or_else(|| bad(name, "must be a string or a list of parts"))?;
    json::each(name, &items, |raw| read_part(&json::object(raw)?))
}

fn read_part(part: &Object<'_>) -> Result<Part, Fault> {
    match part.need_text("type")?.as_str() {
        "input_text" | "output_text" | "text" => Ok(Part::Text(part.need_text("text")?)),
        "refusal" => Ok(Part::Refusal(part.need_text("refusal")?)),
        "input_image" => {
            let Some(url) = part.text("image_url")? else {
                return Err(untranslatable("file_id", "names a file that only its own server has"));
            };
            Ok(Part::Image {
                source: talk::source(url, "image_url")?,
                detail: talk::detail(part.text("detail")?),
            })
        }
        "input_file" => {
            let url = part.text("file_data")?.or(part.text("file_url")?);
            let Some(url) = url else {
                return Err(untranslatable("file_id", "names a file that only its own server has"));
            };
            Ok(Part::File { name: part.text("filename")?, source: talk::source(url, "file_data")? })
        }
        other => Err(untranslatable(
            "type",
            &format!("is `{}`, which cannot be carried to the engine's protocol", tame(other)),
        )),
    }
}

fn read_tool(tool: &Object<'_>) -> Result<Tool, Fault> {
    let kind = tool.need_text("type")?;
    if kind != "function" {
        return Err(untranslatable("type", &format!("is `{}`, a tool that only OpenAI runs", tame(&kind))));
    }
    Ok(Tool {
        name: tool.need_text("name")?,
        about: tool.text("description")?,
        schema: carried(tool, "parameters"),
        strict: tool.flag("strict")?,
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
    Ok(Pick::Named(choice.need_text("name").map_err(inside)?))
}

fn read_format(text: &Object<'_>) -> Result<Format, Fault> {
    let inside = |fault| json::under(fault, "text");
    let Some(format) = text.inner("format").map_err(inside)? else {
        return Ok(Format::Text);
    };
    let inside = |fault| json::under(fault, "text.format");
    match format.need_text("type").map_err(inside)?.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => Ok(Format::Schema {
            name: format.need_text("name").map_err(inside)?,
            about: format.text("description").map_err(inside)?,
            schema: carried(&format, "schema").ok_or_else(|| inside(bad("schema", "is required")))?,
            strict: format.flag("strict").map_err(inside)?,
        }),
        _ => Err(bad("text.format.type", "must be text, json_object or json_schema")),
    }
}

/// Writes a request.
pub(crate) fn write(ask: &Ask, model: &str) -> Result<Vec<u8>, Fault> {
    ask.refuse_sampling()?;
    for (name, set) in [(ask.stop_field, !ask.stop.is_empty()), ("top_k", ask.top_k.is_some())] {
        if set {
            return Err(untranslatable(name, "has no counterpart in the engine's protocol"));
        }
    }
    let leading = ask
        .turns
        .iter()
        .take_while(|turn| turn.role == Role::System)
        .count()
        // A request of nothing but prompts still needs an input: its last one.
        .min(ask.turns.len().saturating_sub(1));
    let (system, turns) = ask.turns.split_at(leading);
    let system: Vec<String> = system.iter().filter_map(|turn| talk::join_text(&turn.parts, "\n\n")).collect();
    let mut failed = Ok(());
    let out = written(|w| {
        w.open().field("model", model);
        if !system.is_empty() {
            w.field("instructions", &system.join("\n\n"));
        }
        w.key("input").open_list();
        for turn in turns {
            if let Err(fault) = write_turn(w, turn) {
                failed = Err(fault);
                return;
            }
        }
        w.close_list();
        write_tools(w, ask);
        if let Some(max) = ask.output_max {
            w.key("max_output_tokens").count(max);
        }
        for (name, number) in [("temperature", ask.temperature), ("top_p", ask.top_p)] {
            if let Some(number) = number {
                w.key(name).number(number);
            }
        }
        write_text(w, ask);
        if let Some(effort) = &ask.effort {
            w.key("reasoning").open().field("effort", effort).close();
        }
        if let Some(user) = &ask.user {
            w.field("user", user);
        }
        w.key("store").flag(false);
        if ask.stream {
            w.key("stream").flag(true);
        }
        w.close();
    });
    failed.map(|()| out)
}

fn write_turn(w: &mut Writer<'_>, turn: &Turn) -> Result<(), Fault> {
    let (role, text_type) = match turn.role {
        Role::System => ("developer", "input_text"),
        Role::User => ("user", "input_text"),
        Role::Assistant => ("assistant", "output_text"),
    };
    let mut at = 0;
    while at < turn.parts.len() {
        let spoken = |part: &Part| {
            matches!(part, Part::Text(_) | Part::Refusal(_) | Part::Image { .. } | Part::File { .. })
        };
        let run = turn.parts[at..].iter().take_while(|part| spoken(part)).count();
        if run > 0 {
            w.open().field("type", "message").field("role", role).key("content").open_list();
            turn.parts[at..at + run].iter().try_for_each(|part| write_part(w, part, text_type))?;
            w.close_list().close();
            at += run;
            continue;
        }
        match &turn.parts[at] {
            Part::Call { id, name, arguments } => {
                let arguments = if arguments.is_empty() { "{}" } else { arguments };
                w.open().field("type", "function_call").field("call_id", id);
                w.field("name", name).field("arguments", arguments).close();
            }
            Part::Outcome { id, parts, .. } => {
                w.open().field("type", "function_call_output").field("call_id", id).key("output");
                match talk::join_text(parts, "\n") {
                    Some(text) if parts.iter().all(|part| matches!(part, Part::Text(_))) => {
                        w.text(&text);
                    }
                    None if parts.is_empty() => {
                        w.text("");
                    }
                    _ => {
                        w.open_list();
                        parts.iter().try_for_each(|part| write_part(w, part, "input_text"))?;
                        w.close_list();
                    }
                }
                w.close();
            }
            // Reasoning is taken back only under the id it was stored with.
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

fn write_part(w: &mut Writer<'_>, part: &Part, text_type: &str) -> Result<(), Fault> {
    w.open();
    match part {
        Part::Text(text) => w.field("type", text_type).field("text", text),
        Part::Refusal(text) => w.field("type", "refusal").field("refusal", text),
        Part::Image { source, detail } => w
            .field("type", "input_image")
            .field("detail", detail.as_deref().unwrap_or("auto"))
            .field("image_url", &talk::url(source)),
        Part::File { name, source } => {
            w.field("type", "input_file");
            match source {
                Source::Inline { .. } => w
                    .field("filename", name.as_deref().unwrap_or("file.pdf"))
                    .field("file_data", &talk::url(source)),
                Source::Url(url) => w.field("file_url", url),
            }
        }
        _ => {
            return Err(untranslatable(
                "messages",
                "holds a part that a message of the engine's protocol cannot carry",
            ));
        }
    };
    w.close();
    Ok(())
}

fn write_tools(w: &mut Writer<'_>, ask: &Ask) {
    if ask.tools.is_empty() {
        return;
    }
    w.key("tools").open_list();
    for tool in &ask.tools {
        w.open().field("type", "function").field("name", &tool.name);
        if let Some(about) = &tool.about {
            w.field("description", about);
        }
        w.carry("parameters", tool.schema.as_deref().unwrap_or("null"));
        // Strict is the default here and was not in the other protocols.
        w.key("strict").flag(tool.strict.unwrap_or(false)).close();
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
            w.key("tool_choice").open().field("type", "function").field("name", name).close();
        }
    }
    if let Some(parallel) = ask.parallel {
        w.key("parallel_tool_calls").flag(parallel);
    }
}

fn write_text(w: &mut Writer<'_>, ask: &Ask) {
    if ask.format == Format::Text && ask.verbosity.is_none() {
        return;
    }
    w.key("text").open();
    match &ask.format {
        Format::Text => {}
        Format::Json => {
            w.key("format").open().field("type", "json_object").close();
        }
        Format::Schema { name, about, schema, strict } => {
            w.key("format").open().field("type", "json_schema").field("name", name);
            if let Some(about) = about {
                w.field("description", about);
            }
            w.carry("schema", schema);
            if let Some(strict) = strict {
                w.key("strict").flag(*strict);
            }
            w.close();
        }
    }
    if let Some(verbosity) = &ask.verbosity {
        w.field("verbosity", verbosity);
    }
    w.close();
}
