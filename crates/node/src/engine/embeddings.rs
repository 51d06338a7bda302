//! OpenAI's embeddings: a vector of unit length by the digest of each input.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use seawall_load::engine::Job;
use seawall_load::fault::Fault;
use seawall_load::prefix::digest;
use seawall_load::words;
use seawall_model::{Protocol, Tokens, limits};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::{answer, broken_off, instead, refuse};
use super::control::Controls;
use super::flow::Body;
use super::json::{base64, number, raw, string};
use super::world::{Ticket, World};

#[derive(Deserialize)]
struct Fields<'a> {
    model: String,
    #[serde(borrow)]
    input: &'a RawValue,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

/// Answers one embeddings call.
pub(super) async fn embed(world: Arc<World>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let wrong = |message: &str| refuse(&world, Protocol::Embeddings, 400, message);
    let fields: Fields<'_> = match serde_json::from_slice(&body) {
        Ok(fields) => fields,
        Err(error) => return wrong(&error.to_string()),
    };
    let (controls, model) = match Controls::read(&headers, &fields.model) {
        Ok(read) => read,
        Err(message) => return wrong(&message),
    };
    if !world.settings.serves(model) {
        return refuse(&world, Protocol::Embeddings, 404, &format!("The model `{model}` does not exist."));
    }
    let inputs = match inputs(fields.input.get()) {
        Ok(inputs) => inputs,
        Err(message) => return wrong(message),
    };
    let dimensions = fields.dimensions.unwrap_or(world.settings.options.dimensions);
    if !(1..=limits::SIM_DIMENSIONS_MAX).contains(&dimensions) {
        return wrong("`dimensions` must lie between 1 and 4096");
    }
    world.leak();
    let fault = controls.fault.or_else(|| world.draw());
    if let Some(response) = instead(&world, Protocol::Embeddings, fault, false, &controls).await {
        return response;
    }
    let tokens = inputs.iter().map(|input| words::count(input.len())).sum::<u64>();
    let mut ticket = Ticket::new(world.clone(), false, controls.id.clone());
    match fault {
        Some(Fault::SlowFirstToken(wait)) => tokio::time::sleep(Duration::from_millis(wait.0)).await,
        Some(Fault::MidStreamCut { .. }) => {
            ticket.abandon();
            return broken_off();
        }
        _ => {}
    }
    if let Some(ms) = controls.unary_ms.or(controls.first_ms).or(unary_ms(&world)) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    } else {
        let job = Job { id: ticket.id, prompt: Tokens(tokens), prefix: Box::default(), output: Tokens::ZERO };
        match world.submit(job) {
            Ok(progress) => std::future::poll_fn(|cx| progress.poll_done(cx)).await,
            Err(full) => {
                ticket.refuse();
                return refuse(&world, Protocol::Embeddings, 503, &full.to_string());
            }
        }
    }
    let coded = fields.encoding_format.as_deref() == Some("base64");
    let out = render(&world, model, &inputs, dimensions, coded, tokens);
    world.ledger.prompt_tokens.fetch_add(tokens, Relaxed);
    world.ledger.bytes.fetch_add(out.len() as u64, Relaxed);
    world.ledger.stopped.fetch_add(1, Relaxed);
    ticket.finish();
    answer(out)
}

/// The fixed delay of an engine that runs by timers.
fn unary_ms(world: &World) -> Option<u64> {
    let options = &world.settings.options;
    options.unary_ms.or(options.first_ms).or(options.token_ms.map(|_| 0))
}

/// Splits the input into texts, or token lists as raw text: a string, a list of
/// strings, a list of numbers, or a list of lists of numbers.
fn inputs(input: &str) -> Result<Vec<&str>, &'static str> {
    const WRONG: &str = "`input` must be a string, a list of strings, or one or more lists of tokens";
    if input.starts_with('"') {
        return Ok(vec![input]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(input).map_err(|_| WRONG)?;
    let first = items.first().ok_or("`input` must not be empty")?.get();
    if first.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(vec![input]);
    }
    if items.len() > limits::SIM_INPUTS_MAX {
        return Err("`input` holds more than 2048 items");
    }
    let fits = |item: &&RawValue| item.get().starts_with(['"', '[']);
    if items.iter().all(fits) { Ok(items.into_iter().map(RawValue::get).collect()) } else { Err(WRONG) }
}

fn render(
    world: &World,
    model: &str,
    inputs: &[&str],
    dimensions: usize,
    coded: bool,
    tokens: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + inputs.len() * dimensions * if coded { 6 } else { 12 });
    raw(&mut out, "{\"object\":\"list\",\"data\":[");
    for (at, input) in inputs.iter().enumerate() {
        let vector = words::embedding(digest(world.settings.options.seed, input.as_bytes()), dimensions);
        raw(
            &mut out,
            if at == 0 {
                "{\"object\":\"embedding\",\"index\":"
            } else {
                ",{\"object\":\"embedding\",\"index\":"
            },
        );
        number(&mut out, at as u64);
        raw(&mut out, ",\"embedding\":");
        if coded {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            out.push(b'"');
            base64(&mut out, &bytes);
            raw(&mut out, "\"}");
        } else {
            serde_json::to_writer(&mut out, &vector).expect("numbers are written to memory");
            out.push(b'}');
        }
    }
    raw(&mut out, "],\"model\":");
    string(&mut out, model);
    raw(&mut out, ",\"usage\":{\"prompt_tokens\":");
    number(&mut out, tokens);
    raw(&mut out, ",\"total_tokens\":");
    number(&mut out, tokens);
    raw(&mut out, "}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_come_in_four_shapes() {
        assert_eq!(inputs(r#""one""#), Ok(vec![r#""one""#]));
        assert_eq!(inputs(r#"["one","two"]"#), Ok(vec![r#""one""#, r#""two""#]));
        assert_eq!(inputs("[1,2]"), Ok(vec!["[1,2]"]));
        assert_eq!(inputs("[[1],[2]]"), Ok(vec!["[1]", "[2]"]));
        for wrong in ["[]", "{}", "7", "[{}]", "[\"a\",1]"] {
            assert!(inputs(wrong).is_err(), "{wrong}");
        }
    }
}
