//! Properties of every parser: no bytes make it panic, how a stream is cut into pieces
//! never matters, and a translation there and back keeps what was meant. The fuzz
//! targets under `fuzz/` call the same functions.

#![expect(clippy::disallowed_methods, reason = "golden files are read here, on a test's own thread")]

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use seawall_model::{Protocol, Tokens};
use seawall_wire::fault::engine_message;
use seawall_wire::models::parse_models;
use seawall_wire::sse::Events;
use seawall_wire::translate::{Context, Stream, answer_to, request_to};
use seawall_wire::{Meter, inspect, meter, rewrite, tokens};
use serde_json::{Value, json};

const ENGINES: [Protocol; 3] = [Protocol::Chat, Protocol::Messages, Protocol::Responses];
const CLIENTS: [Protocol; 4] =
    [Protocol::Chat, Protocol::Completions, Protocol::Messages, Protocol::Responses];

fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() }
}

/// Every golden file, as seeds to be bent.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let mut paths: Vec<_> = ["request", "answer", "stream"]
            .iter()
            .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("golden files"))
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        paths.sort();
        paths.into_iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
    })
}

/// Inputs of streams with their protocol.
fn streams() -> Vec<(Protocol, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/stream");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("golden files")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| !path.to_string_lossy().contains(".to_"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let protocol = name.split('_').next().and_then(Protocol::from_name).expect("a protocol");
            (protocol, std::fs::read(path).expect("a readable file"))
        })
        .collect();
    found.sort();
    assert!(found.len() > 10);
    found
}

/// A golden file with bytes changed, cut out or doubled.
fn bent() -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 0..6);
    (any::<prop::sample::Index>(), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.get(seeds()).clone();
        for (at, kind, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
                _ => {
                    let piece = bytes[at..(at + usize::from(byte)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => bent(), 1 => vec(any::<u8>(), 0..400), 1 => tree().prop_map(|tree| tree.to_string().into_bytes())]
}

/// Any JSON, with names that mean something somewhere.
fn tree() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("model".to_owned()),
        Just("messages".to_owned()),
        Just("role".to_owned()),
        Just("content".to_owned()),
        Just("type".to_owned()),
        Just("input".to_owned()),
        Just("tools".to_owned()),
        Just("usage".to_owned()),
        Just("stream".to_owned()),
        "[a-z\\\\\"\u{e9}]{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        name.clone().prop_map(Value::from),
        Just(Value::from("user")),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((name.clone(), inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn context() -> Context {
    let mut context = Context::default();
    context.model = "alias".to_owned();
    context.id = "01".to_owned();
    context.include_usage = true;
    context
}

/// Cuts `bytes` at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|two| &bytes[two[0]..two[1]]).collect()
}

/// Translates a stream given in pieces; the output and how it ended.
fn translated(engine: Protocol, client: Protocol, pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let mut stream = Stream::new(engine, client, context());
    let mut out = Vec::new();
    let fed = pieces.iter().try_for_each(|piece| stream.feed(piece, &mut out));
    let end = fed.and_then(|()| stream.end(&mut out));
    let end = end.map_err(|fault| fault.code);
    let told = format!("{end:?} {:?} {:?} {}", stream.usage(), stream.finish(), stream.tokens());
    (out, told)
}

/// Relays a stream given in pieces; the output and what was seen.
fn relayed(protocol: Protocol, hide: bool, pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let mut meter = Meter::stream(protocol, hide);
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&meter.relay(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&meter.flush());
    let told = format!(
        "{:?} {:?} {} {} {}",
        meter.usage(),
        meter.finish(),
        meter.tokens(),
        meter.complete(),
        meter.failed()
    );
    (out, told)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_bytes_panic_and_what_is_accepted_can_be_rewritten(bytes in any_bytes()) {
        let body = Bytes::from(bytes);
        for protocol in Protocol::ALL {
            if let Ok(seen) = inspect(protocol, &body) {
                let out = rewrite::request(&body, &seen, "other \"name\"", true, Some(Tokens(77)));
                let again = inspect(protocol, &out).expect("still a good request");
                prop_assert_eq!(&again.model, "other \"name\"");
                let asks = matches!(protocol, Protocol::Chat | Protocol::Completions) && seen.stream;
                prop_assert_eq!(again.include_usage, seen.include_usage || asks);
                let limit = (protocol != Protocol::Other).then_some(Tokens(77));
                prop_assert_eq!(again.output_max, seen.output_max.or(limit));
                prop_assert!(seen.prompt_max >= seen.prompt_tokens);
                prop_assert_eq!(again.prefix, seen.prefix);
                prop_assert!(seen.prompt_tokens.0 > 0);
            }
            let _ = meter::usage(protocol, &body);
        }
        let _ = (tokens::estimate_answer(Protocol::Chat, &body), engine_message(&body), parse_models(&body));
    }

    #[test]
    fn no_request_panics_and_what_is_written_is_read(bytes in any_bytes()) {
        for client in CLIENTS {
            for engine in ENGINES {
                if let Ok((out, _)) = request_to(client, engine, &bytes, "m") {
                    inspect(engine, &out).expect("a written request is a good one");
                    request_to(engine, engine, &out, "m").expect("and can be read again");
                }
            }
        }
    }

    #[test]
    fn no_answer_panics_and_what_is_written_is_read(bytes in any_bytes()) {
        for engine in ENGINES {
            for client in ENGINES {
                if let Ok(out) = answer_to(engine, client, &bytes, &context()) {
                    answer_to(client, client, &out, &context()).expect("a written answer can be read");
                }
            }
        }
    }

    #[test]
    fn no_stream_panics_however_it_is_cut(bytes in any_bytes(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let cut = pieces(&bytes, &cuts);
        let mut counts = [0, 0];
        for (at, given) in [&[&bytes[..]][..], &cut].into_iter().enumerate() {
            let mut events = Events::new();
            for piece in given {
                events.feed(piece, |event| { counts[at] += 1 + event.data.len(); Ok(()) }).expect("small");
            }
            events.end(|event| { counts[at] += 1 + event.data.len(); Ok(()) }).expect("small");
        }
        prop_assert_eq!(counts[0], counts[1]);
        for protocol in Protocol::ALL {
            let (out, told) = relayed(protocol, false, &cut);
            prop_assert_eq!(&out, &bytes);
            prop_assert_eq!(told, relayed(protocol, false, &[&bytes]).1);
            let mut unary = Meter::unary(protocol);
            let passed: Vec<u8> = cut.iter().flat_map(|piece| unary.relay(Bytes::copy_from_slice(piece))).collect();
            prop_assert_eq!(&passed, &bytes);
            prop_assert_eq!((unary.usage(), unary.finish()), meter::usage(protocol, &bytes));
        }
        for engine in ENGINES {
            for client in CLIENTS {
                prop_assert_eq!(translated(engine, client, &cut), translated(engine, client, &[&bytes]));
            }
        }
    }

    #[test]
    fn real_streams_are_the_same_in_any_pieces(cuts in vec(any::<prop::sample::Index>(), 1..12)) {
        for (engine, bytes) in streams() {
            let cut = pieces(&bytes, &cuts);
            for client in CLIENTS {
                prop_assert_eq!(translated(engine, client, &cut), translated(engine, client, &[&bytes]));
            }
            prop_assert_eq!(relayed(engine, true, &cut), relayed(engine, true, &[&bytes]));
            prop_assert_eq!(relayed(engine, false, &cut), relayed(engine, false, &[&bytes]));
        }
    }

    #[test]
    fn a_rewrite_changes_only_the_model(tree in tree(), fields in vec(("[a-z]{1,5}", tree()), 0..4), model in ".{1,20}", new in ".{1,20}") {
        let mut body: serde_json::Map<String, Value> = fields.into_iter().collect();
        body.insert("inner".to_owned(), tree);
        body.insert("model".to_owned(), Value::from(model));
        body.insert("messages".to_owned(), json!([]));
        body.retain(|name, _| !matches!(name.as_str(), "n" | "user" | "stream" | "best_of"));
        let bytes = Bytes::from(Value::Object(body.clone()).to_string());
        let seen = inspect(Protocol::Chat, &bytes).expect("a good request");
        let out = rewrite::request(&bytes, &seen, &new, false, None);
        prop_assert_eq!(&out[..seen.model_span.start], &bytes[..seen.model_span.start]);
        prop_assert!(out.ends_with(&bytes[seen.model_span.end..]));
        body.insert("model".to_owned(), Value::from(new));
        let got = serde_json::from_slice::<Value>(&out).expect("JSON").to_string();
        prop_assert_eq!(got, Value::Object(body).to_string());
    }

    #[test]
    fn there_and_back_keeps_what_was_meant(chat in conversation()) {
        let body = chat.to_string();
        let (direct, _) = request_to(Protocol::Chat, Protocol::Chat, body.as_bytes(), "m").expect("a good request");
        for over in [Protocol::Messages, Protocol::Responses] {
            if over == Protocol::Responses && chat.get("stop").is_some() {
                continue;
            }
            let (there, _) = request_to(Protocol::Chat, over, body.as_bytes(), "m").expect("translatable");
            let (back, _) = request_to(over, Protocol::Chat, &there, "m").expect("translatable back");
            let mut back: Value = serde_json::from_slice(&back).expect("JSON");
            let mut direct: Value = serde_json::from_slice(&direct).expect("JSON");
            plain_arguments(&mut back);
            plain_arguments(&mut direct);
            prop_assert_eq!(back, direct);
        }
    }
}

/// Arguments are text and may be spaced differently; what they say is compared.
fn plain_arguments(request: &mut Value) {
    for message in request["messages"].as_array_mut().expect("messages") {
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().expect("text").to_owned();
            call["function"]["arguments"] = serde_json::from_str(&arguments).expect("JSON");
        }
    }
}

/// A chat of the kind that every protocol can carry.
fn conversation() -> impl Strategy<Value = Value> {
    let text = "[a-zA-Z \"\\\\\n\u{e9}\u{1F600}]{0,20}x";
    let calls = vec((text, vec(("[a-z]{1,4}", any::<i32>()), 0..3)), 1..4);
    let round = (text, any::<bool>(), proptest::option::of(calls), text);
    let tuning = (
        proptest::option::of((0_u16..1_000).prop_map(|thousandths| f64::from(thousandths) / 1_000.0)),
        1_u64..9_999,
        proptest::option::of(prop_oneof![
            Just(json!("auto")),
            Just(json!("required")),
            Just(json!({"type":"function","function":{"name":"f"}}))
        ]),
        proptest::option::of(text),
        any::<bool>(),
    );
    (text, vec(round, 1..5), tuning).prop_map(|(system, rounds, (temperature, max, pick, stop, stream))| {
        let mut messages = vec![json!({"role": "system", "content": system})];
        let mut next = 0;
        for (said, picture, calls, answer) in rounds {
            messages.push(if picture {
                json!({"role": "user", "content": [
                    {"type": "text", "text": said},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"}},
                ]})
            } else {
                json!({"role": "user", "content": said})
            });
            if let Some(calls) = calls {
                let mut made = Vec::new();
                let mut results = Vec::new();
                for (result, arguments) in calls {
                    next += 1;
                    let id = format!("call_{next}");
                    let arguments: serde_json::Map<String, Value> =
                        arguments.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
                    let arguments = Value::Object(arguments).to_string();
                    made.push(json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}));
                    results.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
                }
                messages.push(json!({"role": "assistant", "content": answer, "tool_calls": made}));
                messages.extend(results);
            }
            messages.push(json!({"role": "assistant", "content": "done"}));
        }
        let mut request = json!({
            "model": "alias",
            "messages": messages,
            "max_tokens": max,
            "stream": stream,
            "user": "u",
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": false}}],
        });
        for (name, value) in [
            ("temperature", temperature.map(Value::from)),
            ("tool_choice", pick),
            ("stop", stop.map(Value::from)),
        ] {
            if let Some(value) = value {
                request[name] = value;
            }
        }
        request
    })
}
