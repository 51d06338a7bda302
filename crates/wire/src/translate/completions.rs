//! OpenAI's legacy text completions, served over chat engines: the prompt becomes one
//! message of the user's, and the answer's text the completion. What only a raw
//! completion can do (several prompts, tokens, echo, suffix, logprobs) is refused.

use seawall_model::{Fault, Finish};

use super::Context;
use super::talk::{self, Answer, Ask, Part, Role, Turn, carried, unless};
use crate::json::{self, Object, bad, untranslatable};
use crate::usage;
use crate::writer::{Writer, written};

/// Reads a request.
pub(crate) fn read(body: &Object<'_>) -> Result<Ask, Fault> {
    for name in ["n", "best_of"] {
        if body.count(name)?.is_some_and(|n| n > 1) {
            return Err(untranslatable(name, "can only be 1 with this engine's protocol"));
        }
    }
    let filled = |name: &str| body.hint(name).is_some_and(|text| !text.is_empty());
    for (name, set) in [
        ("echo", body.flag("echo")? == Some(true)),
        ("suffix", filled("suffix")),
        ("logprobs", body.count("logprobs")?.is_some()),
        // Scores the prompt and generates nothing.
        ("max_tokens", body.count("max_tokens")? == Some(0)),
        ("prompt_embeds", body.find("prompt_embeds").is_some()),
    ] {
        if set {
            return Err(untranslatable(name, "cannot be carried to the engine's protocol"));
        }
    }
    let options = body.inner("stream_options")?;
    Ok(Ask {
        model: body.need_text("model")?,
        turns: vec![Turn { role: Role::User, parts: vec![Part::Text(read_prompt(body)?)] }],
        output_max: body.count("max_tokens")?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        presence: unless(body.number("presence_penalty")?, 0.0),
        frequency: unless(body.number("frequency_penalty")?, 0.0),
        logit_bias: carried(body, "logit_bias").filter(|bias| bias.contains(':')),
        seed: carried(body, "seed"),
        stop: talk::strings(body, "stop")?,
        stop_field: "stop",
        user: body.hint("user"),
        stream: body.flag("stream")?.unwrap_or(false),
        include_usage: options
            .map(|options| options.flag("include_usage"))
            .transpose()?
            .flatten()
            .unwrap_or(false),
        ..Ask::default()
    })
}

fn read_prompt(body: &Object<'_>) -> Result<String, Fault> {
    let raw = body.find("prompt").ok_or_else(|| bad("prompt", "is required"))?;
    if let Some(text) = json::text(raw) {
        return Ok(text);
    }
    let items = json::items(raw).ok_or_else(|| bad("prompt", "must be a string or a list"))?;
    match items[..] {
        [one] if json::is_text(one) => {
            json::text(one).ok_or_else(|| bad("prompt", "holds a string that is no text"))
        }
        _ => Err(untranslatable("prompt", "can only be one string with this engine's protocol")),
    }
}

/// Completions' `finish_reason`, which knows no tools.
pub(crate) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Tools => "stop",
        other => usage::finish_chat(other),
    }
}

/// Writes a whole answer.
pub(crate) fn write_answer(answer: &Answer, context: &Context) -> Vec<u8> {
    written(|w| {
        let reason = reason(answer.finish);
        write_choice(w, context, &answer.text().unwrap_or_default(), Some(reason));
        if let Some(used) = &answer.usage {
            w.key("usage");
            usage::write_chat(w, used);
        }
        w.close();
    })
}

/// A completion or a chunk of one, left open for its usage.
pub(crate) fn write_choice(w: &mut Writer<'_>, context: &Context, text: &str, reason: Option<&str>) {
    write_head(w, context);
    w.open_list().open().field("text", text).key("index").count(0).key("logprobs").null();
    w.key("finish_reason").text_or_null(reason).close().close_list();
}

/// The beginning of a completion, up to its choices.
pub(crate) fn write_head(w: &mut Writer<'_>, context: &Context) {
    w.open().field("id", &format!("cmpl-{}", context.id)).field("object", "text_completion");
    w.key("created").count(context.created).field("model", &context.model).key("choices");
}
