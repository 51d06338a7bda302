//! W3C trace context (<https://www.w3.org/TR/trace-context/>): the client's trace is
//! continued, or a new one begun, and the engine is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue};

/// Gives out trace ids: random for the process, then counted, so that one costs no
/// system call. They have to be unique, not secret.
#[derive(Debug)]
pub struct Traces {
    process: u64,
    next: AtomicU64,
}

impl Default for Traces {
    fn default() -> Self {
        let (process, next) = uuid::Uuid::new_v4().as_u64_pair();
        Self { process, next: AtomicU64::new(next) }
    }
}

impl Traces {
    /// The trace id of a request, 32 hex digits: the client's own, or a new one.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap) -> Arc<str> {
        let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(parse);
        given.map_or_else(|| self.fresh(), Into::into)
    }

    /// A new id, unlike any other of this process.
    #[must_use]
    pub fn fresh(&self) -> Arc<str> {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{count:016x}", self.process).into()
    }
}

/// `version-traceid-parentid-flags`; an all-zero trace id is no trace id.
fn parse(header: &str) -> Option<&str> {
    let mut parts = header.trim().split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16);
    (valid && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

/// The header for an attempt: the same trace, a span of its own.
#[must_use]
pub fn parent(trace: &str, call: u64, attempt: u32) -> HeaderValue {
    // Distinct per call and attempt, and never zero, which would be no span.
    let span = (call << 8 | u64::from(attempt & 0xff)).max(1);
    crate::upstream::value(&format!("00-{trace}-{span:016x}-01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_trace_is_continued_and_any_other_replaced() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let header = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(parse(&header), Some(trace));
        for bad in ["", "00-0-0-0", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_eq!(parse(&zero), None);
        let traces = Traces::default();
        let (one, two) = (traces.fresh(), traces.fresh());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }
}
