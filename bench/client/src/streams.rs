//! Many streams at once. The engine stamps each token with its clock (`"t_us"`), so the time
//! between its leaving there and its arrival here is known for every one.

use std::io;
use std::time::{Duration, Instant};

use memchr::memmem;
use serde_json::{Value, json};

use crate::flags::Flags;
use crate::http::{Connection, unix_us};
use crate::spread::Spread;

/// What one stream saw.
#[derive(Debug, Default)]
struct Seen {
    first_us: u64,
    tokens: u64,
    transit: Spread,
    status: u16,
    complete: bool,
}

/// Opens the streams over the ramp and reads each to its end.
pub(crate) async fn run(flags: &Flags) -> Result<Value, String> {
    let (to, request) = (flags.to()?, flags.one_request(true));
    let (count, ramp) = (flags.number("n", 500)?, Duration::from_millis(flags.number("ramp-ms", 1_000)?));
    let limit = flags.seconds("limit-secs", 120)?;
    let began = Instant::now();
    let mut running = Vec::new();
    for number in 0..count {
        let (to, request) = (to.clone(), request.clone());
        let wait = ramp.mul_f64(number as f64 / count as f64);
        running.push(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            tokio::time::timeout(limit, one(&to, &request))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }));
    }
    let (mut first, mut transit) = (Spread::default(), Spread::default());
    let (mut complete, mut tokens, mut refused, mut broken) = (0_u64, 0_u64, 0_u64, 0_u64);
    for stream in running {
        match stream.await.map_err(|error| error.to_string())? {
            Ok(seen) => {
                complete += u64::from(seen.complete);
                refused += u64::from(seen.status != 200);
                broken += u64::from(seen.status == 200 && !seen.complete);
                tokens += seen.tokens;
                if seen.tokens > 0 {
                    first.add(seen.first_us);
                }
                transit.join(seen.transit);
            }
            Err(_) => broken += 1,
        }
    }
    Ok(json!({
        "streams": count, "complete": complete, "refused": refused, "broken": broken, "tokens": tokens,
        "wall_s": began.elapsed().as_secs_f64(), "first_token": first.report(), "transit": transit.report(),
    }))
}

async fn one(to: &str, request: &[u8]) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let began = Instant::now();
    let mut connection = Connection::open(to).await?;
    connection.send(request).await?;
    let head = connection.head().await?;
    seen.status = head.status;
    if head.status != 200 {
        connection.body(head).await?;
        return Ok(seen);
    }
    let mut body = Vec::new();
    loop {
        match connection.piece(&mut body).await {
            Ok(true) => {}
            Ok(false) => return Ok(seen),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(seen),
            Err(error) => return Err(error),
        }
        // One clock reading for all that came in one read: they arrived together.
        let (now, mut taken) = (unix_us(), 0);
        while let Some(end) = memmem::find(&body[taken..], b"\n\n") {
            let event = &body[taken..taken + end];
            taken += end + 2;
            if let Some(stamp) = stamp(event) {
                if seen.tokens == 0 {
                    seen.first_us = began.elapsed().as_micros() as u64;
                }
                seen.tokens += 1;
                seen.transit.add(now.saturating_sub(stamp));
            }
            seen.complete |= memmem::find(event, b"[DONE]").is_some();
        }
        body.drain(..taken);
        if seen.complete {
            return Ok(seen);
        }
    }
}

/// The engine's clock in an event, if it carries one.
pub(crate) fn stamp(event: &[u8]) -> Option<u64> {
    let at = memmem::find(event, b"\"t_us\":")? + 7;
    let digits = event[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let stamp = digits.fold(0_u64, |sum, byte| sum * 10 + u64::from(byte - b'0'));
    (stamp > 0).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::stamp;

    #[test]
    fn stamps_are_found() {
        assert_eq!(
            stamp(b"data: {\"x_sim\":{\"t_us\":1700000000000001,\"i\":3}}"),
            Some(1_700_000_000_000_001)
        );
        assert_eq!(stamp(b"data: {\"t_us\":}"), None);
        assert_eq!(stamp(b"data: {}"), None);
    }
}
