//! What providers say in status and headers about their rates: OpenAI's `x-ratelimit-*`,
//! Anthropic's `anthropic-ratelimit-*`, and `retry-after` (RFC 9110 section 10.2.3).

use http::{HeaderMap, StatusCode};
use seawall_kernel::{Failure, RateReport};
use seawall_model::Millis;

use crate::clock;

/// What these headers say of the provider's rate, if anything.
#[must_use]
pub fn report(headers: &HeaderMap) -> Option<RateReport> {
    let calls_left = number(headers, "x-ratelimit-remaining-requests")
        .or_else(|| number(headers, "anthropic-ratelimit-requests-remaining"));
    let tokens_left = number(headers, "x-ratelimit-remaining-tokens")
        .or_else(|| number(headers, "anthropic-ratelimit-tokens-remaining"));
    if calls_left.is_none() && tokens_left.is_none() {
        return None;
    }
    // The reset that matters is that of the count which is used up.
    let scarce = if calls_left == Some(0) { "requests" } else { "tokens" };
    let reset = text(headers, &format!("x-ratelimit-reset-{scarce}"))
        .and_then(span)
        .or_else(|| text(headers, &format!("anthropic-ratelimit-{scarce}-reset")).and_then(until));
    let calls_left = calls_left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
    Some(RateReport { calls_left, tokens_left, reset })
}

/// When to try again, from `retry-after-ms` or `retry-after` (seconds or a date).
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Millis> {
    if let Some(ms) = number(headers, "retry-after-ms") {
        return Some(Millis(ms));
    }
    let value = text(headers, "retry-after")?;
    let secs = value.parse::<f64>().ok().filter(|secs| (0.0..1e9).contains(secs));
    secs.map(|secs| Millis((secs * 1_000.0) as u64)).or_else(|| {
        let when = jiff::fmt::rfc2822::parse(value).ok()?;
        Some(ahead(when.timestamp()))
    })
}

/// What a status says of the engine, where it says that it failed: a rate limit or an error
/// of its own.
#[must_use]
pub fn failure(status: StatusCode, headers: &HeaderMap) -> Option<Failure> {
    match status.as_u16() {
        429 | 529 => Some(Failure::Limited { retry_after: retry_after(headers) }),
        status @ 500.. => Some(Failure::Server { status }),
        _ => None,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// OpenAI's lengths of time: `1s`, `6m0s`, `250ms`, `1h2m3.5s`.
fn span(text: &str) -> Option<Millis> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let ms = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total += amount.parse::<f64>().ok()? * ms;
        rest = tail;
    }
    (0.0..1e12).contains(&total).then_some(Millis(total as u64))
}

/// Anthropic's points in time: RFC 3339.
fn until(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(ahead)
}

fn ahead(when: jiff::Timestamp) -> Millis {
    let now = i64::try_from(clock::wall(clock::now()).0 / 1_000).unwrap_or(i64::MAX);
    Millis(u64::try_from(when.as_millisecond().saturating_sub(now)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_status_is_the_engines_failure_from_500_on_and_a_limit_at_429() {
        let mut headers = HeaderMap::new();
        assert_eq!(failure(StatusCode::OK, &headers), None);
        assert_eq!(failure(StatusCode::NOT_FOUND, &headers), None, "a file that is gone is nobody's failure");
        assert_eq!(failure(StatusCode::BAD_GATEWAY, &headers), Some(Failure::Server { status: 502 }));
        headers.insert("retry-after", HeaderValue::from_static("3"));
        let limited = Failure::Limited { retry_after: Some(Millis(3_000)) };
        assert_eq!(failure(StatusCode::TOO_MANY_REQUESTS, &headers), Some(limited));
    }

    #[test]
    fn spans_of_time_are_read_and_nonsense_is_not() {
        assert_eq!(span("250ms"), Some(Millis(250)));
        assert_eq!(span("6m0s"), Some(Millis(360_000)));
        assert_eq!(span("1h2m3.5s"), Some(Millis(3_723_500)));
        for bad in ["5", "s", "1x", "1e999s", "-1s"] {
            assert_eq!(span(bad), None, "{bad}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(value));
            retry_after(&headers)
        };
        assert_eq!(with("2"), Some(Millis(2_000)));
        assert_eq!(with("0.5"), Some(Millis(500)));
        assert_eq!(with("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Millis(0)));
        assert_eq!(with("soon"), None);
        assert_eq!(with("-1"), None);
    }

    #[test]
    fn a_report_names_the_reset_of_what_is_used_up() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("0"));
        headers.insert("x-ratelimit-remaining-tokens", HeaderValue::from_static("900"));
        headers.insert("x-ratelimit-reset-requests", HeaderValue::from_static("2s"));
        headers.insert("x-ratelimit-reset-tokens", HeaderValue::from_static("9s"));
        let report = report(&headers).expect("there is one");
        assert_eq!((report.calls_left, report.tokens_left), (Some(0), Some(900)));
        assert_eq!(report.reset, Some(Millis(2_000)));
    }
}
