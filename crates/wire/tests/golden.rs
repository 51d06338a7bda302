//! Golden files: every request, answer and stream under `tests/golden`, translated to
//! every other protocol and compared byte for byte with the file beside it. A new or
//! changed translation is taken over with `BLESS=1` and shows in the diff.

#![expect(clippy::disallowed_methods, reason = "golden files are read here, on a test's own thread")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use seawall_model::{Fault, Protocol};
use seawall_wire::translate::{Context, Stream, answer_to, request_to};

const TALKED: [Protocol; 4] =
    [Protocol::Chat, Protocol::Messages, Protocol::Responses, Protocol::Completions];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The inputs of a folder with the protocol their names begin with, in order.
fn inputs(name: &str) -> Vec<(PathBuf, Protocol)> {
    let mut found: Vec<(PathBuf, Protocol)> = std::fs::read_dir(folder(name))
        .expect("the folder of golden files")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| !path.to_string_lossy().contains(".to_"))
        .map(|path| {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let protocol = stem.split('_').next().and_then(Protocol::from_name);
            (path, protocol.expect("a protocol's name in front"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no golden files in {name}");
    found
}

fn context() -> Context {
    let mut context = Context::default();
    context.model = "alias".to_owned();
    context.id = "01".to_owned();
    context.created = 1_700_000_000;
    context.include_usage = true;
    context
}

/// JSON spread over lines, its order kept.
fn spread(json: &[u8]) -> String {
    let text = std::str::from_utf8(json).expect("JSON is UTF-8");
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("the output is JSON");
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if quoted {
            out.push(char);
            quoted = escaped || char != '"';
            escaped = char == '\\' && !escaped;
            continue;
        }
        match char {
            '{' | '[' if matches!(chars.peek(), Some('}' | ']')) => out.push(char),
            '{' | '[' => {
                depth += 1;
                write!(out, "{char}\n{}", " ".repeat(depth)).expect("a string grows");
            }
            '}' | ']' if out.ends_with(['{', '[']) => out.push(char),
            '}' | ']' => {
                depth -= 1;
                write!(out, "\n{}{char}", " ".repeat(depth)).expect("a string grows");
            }
            ',' => write!(out, ",\n{}", " ".repeat(depth)).expect("a string grows"),
            ' ' | '\n' => {}
            _ => {
                quoted = char == '"';
                out.push(char);
            }
        }
    }
    out.push('\n');
    out
}

fn told(fault: &Fault) -> String {
    let at = fault.param.as_deref().unwrap_or("-");
    format!("{} at {at}: {}\n", fault.code.as_str(), fault.message)
}

fn check(input: &Path, to: Protocol, extension: &str, got: &str, wrong: &mut Vec<String>) {
    let path = input.with_extension(format!("to_{}.{extension}", to.as_str()));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, got).expect("a writable folder");
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want != got {
        wrong.push(format!("--- {}\nwant:\n{want}\ngot:\n{got}", path.display()));
    }
}

#[test]
fn requests() {
    let mut wrong = Vec::new();
    for (path, client) in inputs("request") {
        let body = std::fs::read(&path).expect("a readable file");
        for engine in &TALKED[..3] {
            if *engine == client {
                continue;
            }
            let got = match request_to(client, *engine, &body, "real-model") {
                Ok((out, context)) => {
                    assert_eq!(context.model, "alias");
                    spread(&out)
                }
                Err(fault) => told(&fault),
            };
            check(&path, *engine, "json", &got, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn answers() {
    let mut wrong = Vec::new();
    for (path, engine) in inputs("answer") {
        let body = std::fs::read(&path).expect("a readable file");
        for client in TALKED {
            let got = match answer_to(engine, client, &body, &context()) {
                Ok(out) => spread(&out),
                Err(fault) => told(&fault),
            };
            check(&path, client, "json", &got, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn streams() {
    let mut wrong = Vec::new();
    for (path, engine) in inputs("stream") {
        let body = std::fs::read(&path).expect("a readable file");
        for client in TALKED {
            let mut stream = Stream::new(engine, client, context());
            let mut out = Vec::new();
            let end = stream.feed(&body, &mut out).and_then(|()| stream.end(&mut out));
            let mut got = String::from_utf8(out).expect("UTF-8");
            match end {
                Ok(()) => assert!(stream.complete() && stream.finish().is_some()),
                Err(fault) => got.push_str(&told(&fault)),
            }
            let tokens = stream.tokens();
            writeln!(got, "# {:?} {:?} tokens {tokens}", stream.usage(), stream.finish())
                .expect("a string grows");
            check(&path, client, "sse", &got, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_responses_answer_repeats_its_request() {
    let body = std::fs::read(folder("request").join("responses_full.json")).expect("a readable file");
    let (_, mut context) = request_to(Protocol::Responses, Protocol::Chat, &body, "m").expect("translatable");
    context.id = "01".to_owned();
    let answer = std::fs::read(folder("answer").join("chat_text.json")).expect("a readable file");
    let out = answer_to(Protocol::Chat, Protocol::Responses, &answer, &context).expect("understood");
    let out: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    let asked: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    for field in [
        "instructions",
        "tools",
        "tool_choice",
        "text",
        "metadata",
        "temperature",
        "top_p",
        "reasoning",
        "user",
    ] {
        assert_eq!(out[field], asked[field], "{field}");
    }
    assert_eq!(out["model"], "alias");
    assert_eq!(out["store"], false);
}
