//! Steering: what one request asks of its own answer, and the `/sim/` API.
//!
//! | header | suffix of the model name | |
//! |---|---|---|
//! | `x-sim-output-tokens` | `output` | tokens to answer with |
//! | `x-sim-reasoning-tokens` | `reasoning` | hidden tokens before them |
//! | `x-sim-first-ms`, `x-sim-token-ms`, `x-sim-unary-ms` | `first_ms`, `token_ms`, `unary_ms` | a timer instead of the batching model |
//! | `x-sim-fault` | `fault` | `cut@5`, `429`, `500`, `hang`, `garbage`, `halfopen`, `slow:800`, `crash` |
//! | `x-sim-token-bytes` | `token_bytes` | bytes per token, all `x` |
//! | `x-sim-reply` | `reply` | the text to answer with |
//! | `x-sim-id` | `id` | the name of this call in `/sim/state` |
//!
//! The suffix looks like a query, `sim-small?output=200&token_ms=20`, and survives any
//! gateway; where both are given, the suffix wins.

use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use seawall_load::fault::Fault;
use seawall_model::limits;
use serde::Deserialize;

use super::json;
use super::world::World;

/// What a request asks of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Controls {
    pub(super) output: Option<u64>,
    pub(super) reasoning: u64,
    pub(super) first_ms: Option<u64>,
    pub(super) token_ms: Option<u64>,
    pub(super) unary_ms: Option<u64>,
    pub(super) fault: Option<Fault>,
    pub(super) token_bytes: Option<usize>,
    pub(super) reply: Option<String>,
    pub(super) id: Option<String>,
}

/// Header and suffix names of each control.
const NAMES: [(&str, &str); 9] = [
    ("x-sim-output-tokens", "output"),
    ("x-sim-reasoning-tokens", "reasoning"),
    ("x-sim-first-ms", "first_ms"),
    ("x-sim-token-ms", "token_ms"),
    ("x-sim-unary-ms", "unary_ms"),
    ("x-sim-fault", "fault"),
    ("x-sim-token-bytes", "token_bytes"),
    ("x-sim-reply", "reply"),
    ("x-sim-id", "id"),
];

impl Controls {
    /// Reads headers and the model's suffix; gives the model's bare name too.
    ///
    /// # Errors
    /// Says which control is wrong.
    pub(super) fn read<'a>(headers: &HeaderMap, model: &'a str) -> Result<(Self, &'a str), String> {
        let mut controls = Self::default();
        let (name, suffix) = model.split_once('?').unwrap_or((model, ""));
        // Most requests carry none: one pass over the headers instead of nine look-ups.
        if headers.keys().any(|name| name.as_str().starts_with("x-sim-")) {
            for (header, control) in NAMES {
                if let Some(value) = headers.get(header) {
                    let value = value.to_str().map_err(|_| format!("{header} is not text"))?;
                    controls.set(control, value)?;
                }
            }
        }
        for pair in suffix.split('&').filter(|pair| !pair.is_empty()) {
            let (control, value) = pair.split_once('=').unwrap_or((pair, ""));
            controls.set(control, &unescape(value))?;
        }
        Ok((controls, name))
    }

    fn set(&mut self, control: &str, value: &str) -> Result<(), String> {
        let number =
            || value.trim().parse::<u64>().map_err(|_| format!("`{control}` must be a whole number"));
        match control {
            "output" => self.output = Some(number()?.min(limits::SIM_OUTPUT_MAX)),
            "reasoning" => self.reasoning = number()?.min(limits::SIM_OUTPUT_MAX),
            "first_ms" => self.first_ms = Some(number()?),
            "token_ms" => self.token_ms = Some(number()?),
            "unary_ms" => self.unary_ms = Some(number()?),
            "fault" => self.fault = Some(Fault::parse(value).map_err(|error| error.to_string())?),
            "token_bytes" => {
                let bytes = usize::try_from(number()?).unwrap_or(usize::MAX);
                self.token_bytes = Some(bytes.clamp(1, limits::SIM_TOKEN_BYTES_MAX));
            }
            "reply" => self.reply = Some(value.into()),
            "id" => self.id = Some(value.chars().take(limits::TENANT_LEN_MAX).collect()),
            _ => return Err(format!("`{control}` is no control of the simulated engine")),
        }
        Ok(())
    }
}

/// Undoes `%20` and `+`.
fn unescape(value: &str) -> String {
    if !value.contains(['%', '+']) {
        return value.into();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let hex = rest.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match (byte, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                bytes.nth(1);
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The body of `POST /sim/fault`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    fault: Option<String>,
    next: Option<u64>,
    rates: Option<String>,
}

/// Carries out `POST /sim/fault`.
pub(super) fn order(world: &World, body: &[u8]) -> Result<(), String> {
    let order: Order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(rates) = &order.rates {
        world.plan(|plan| plan.set_rates(rates)).map_err(|error| error.to_string())?;
    }
    if let Some(fault) = &order.fault {
        let fault = Fault::parse(fault).map_err(|error| error.to_string())?;
        if fault == Fault::Crash && order.next.is_none() {
            world.crash();
            return Ok(());
        }
        world.plan(|plan| plan.command(fault, order.next.unwrap_or(1))).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Renders `GET /sim/state`.
pub(super) fn state(world: &World) -> Vec<u8> {
    let (ledger, model) = (&world.ledger, world.state());
    let mut out = Vec::with_capacity(1 << 10);
    let fields = [
        ("in_flight", ledger.in_flight()),
        ("running", u64::from(model.running)),
        ("waiting", u64::from(model.waiting)),
        ("started", ledger.started.load(Relaxed)),
        ("finished", ledger.finished.load(Relaxed)),
        ("cancelled", ledger.cancelled.load(Relaxed)),
        ("broken", ledger.broken.load(Relaxed)),
        ("refused", ledger.refused.load(Relaxed)),
        ("bytes", ledger.bytes.load(Relaxed)),
        ("prompt_tokens", ledger.prompt_tokens.load(Relaxed)),
        ("cached_tokens", ledger.cached_tokens.load(Relaxed)),
        ("generated_tokens", ledger.generated_tokens.load(Relaxed)),
        ("kv_used", model.kv_used.0),
        ("kv_cached", model.kv_cached.0),
        ("kv_tokens", model.kv_tokens.0),
        ("preempted", model.preempted),
        ("steps", model.steps),
        ("leaked_bytes", world.leaked()),
    ];
    for (at, (name, value)) in fields.into_iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        json::number(&mut out, value);
    }
    out.extend_from_slice(b",\"cancels\":[");
    for (at, cancel) in ledger.cancels().iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"id\":" } else { b",{\"id\":" });
        json::string(&mut out, &cancel.id);
        out.extend_from_slice(b",\"when_us\":");
        json::number(&mut out, cancel.when.0);
        out.extend_from_slice(b",\"phase\":\"");
        out.extend_from_slice(cancel.phase.as_str().as_bytes());
        out.extend_from_slice(b"\",\"tokens_sent\":");
        json::number(&mut out, u64::from(cancel.tokens_sent));
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// Carries out `POST /sim/reset`: counts, cancels, faults and leaks are forgotten.
pub(super) fn reset(world: &World) {
    world.ledger.reset();
    world.plan(|plan| *plan = world.settings.faults.clone());
    world.forget();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_suffix_are_read_and_the_suffix_wins() {
        let mut headers = HeaderMap::new();
        headers.insert("x-sim-output-tokens", "7".parse().expect("valid"));
        headers.insert("x-sim-id", "one".parse().expect("valid"));
        let model = "sim-small?output=9&fault=cut@5&reply=a%20b+c%zz&token_ms=20";
        let (controls, name) = Controls::read(&headers, model).expect("valid");
        assert_eq!(name, "sim-small");
        assert_eq!(controls.output, Some(9));
        assert_eq!(controls.id.as_deref(), Some("one"));
        assert_eq!(controls.reply.as_deref(), Some("a b c%zz"));
        assert_eq!(controls.fault, Some(Fault::MidStreamCut { after: 5 }));
        assert_eq!(controls.token_ms, Some(20));
    }

    #[test]
    fn wrong_controls_are_named() {
        let none = HeaderMap::new();
        assert!(Controls::read(&none, "m?output=many").expect_err("no number").contains("output"));
        assert!(Controls::read(&none, "m?bogus=1").expect_err("no control").contains("bogus"));
        assert!(Controls::read(&none, "m?fault=404").is_err());
    }
}
