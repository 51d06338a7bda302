//! Leaves calls and says when; what the engine noticed is read from its own record.

use std::io;
use std::time::Duration;

use memchr::memmem;
use serde_json::{Value, json};

use crate::flags::Flags;
use crate::http::{Connection, unix_us};

/// How long a call that is left before its first byte has been under way.
const BEFORE_MS: u64 = 30;

/// Starts `n` calls, one every `spread-ms`, and leaves each in the given mode. The model of
/// call 7 is `--model` followed by `7`, so that the engine's record names it.
pub(crate) async fn run(flags: &Flags) -> Result<Value, String> {
    let (to, mode) = (flags.to()?, flags.text("mode", "stream"));
    let (count, spread) = (flags.number("n", 200)?, Duration::from_millis(flags.number("spread-ms", 10)?));
    let (stream, begun) = match mode.as_str() {
        "stream" => (true, true),
        "first" | "queued" => (true, false),
        "unary" => (false, false),
        other => return Err(format!("--mode {other} is none of stream, first, unary, queued")),
    };
    let mut running = Vec::new();
    for number in 0..count {
        let model = format!("{}{number}", flags.text("model", ""));
        let (to, request) = (to.clone(), flags.request(&model, stream, &flags.text("key", "")));
        running.push(tokio::spawn(async move {
            // A little uneven, so that leaving falls between tokens and on them.
            tokio::time::sleep(spread * number as u32 + Duration::from_micros(number * 7919 % 10_000)).await;
            one(&to, &request, begun, number).await
        }));
    }
    let mut left = Vec::new();
    for (number, call) in running.into_iter().enumerate() {
        match call.await.map_err(|error| error.to_string())? {
            Ok(us) => left.push(json!({"id": number, "left_us": us})),
            Err(error) => left.push(json!({"id": number, "error": error.to_string()})),
        }
    }
    Ok(json!({"mode": mode, "calls": left}))
}

async fn one(to: &str, request: &[u8], begun: bool, number: u64) -> io::Result<u64> {
    let mut connection = Connection::open(to).await?;
    connection.send(request).await?;
    if begun {
        let head = connection.head().await?;
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let mut body = Vec::new();
        while memmem::find_iter(&body, b"\"t_us\":").count() < 3 {
            if !connection.piece(&mut body).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tokio::time::sleep(Duration::from_micros(number * 4021 % 20_000)).await;
    } else {
        tokio::time::sleep(Duration::from_millis(BEFORE_MS)).await;
    }
    let now = unix_us();
    drop(connection);
    Ok(now)
}
