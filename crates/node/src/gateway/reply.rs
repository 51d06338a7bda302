//! The body of every answer, and answers that Seawall gives itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use seawall_model::{Fault, Millis, Protocol};

use crate::memory::Hold;

use super::relay::Relay;

/// An error that ends a body early: hyper then cuts the connection, which is the only
/// way left to say that the answer is incomplete.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
#[derive(Debug)]
pub enum Reply {
    /// Held whole.
    Whole(Option<Bytes>),
    /// Relayed from an engine as it comes.
    Relay(Box<Relay>),
    /// Made piece by piece by a task of ours, which ends when the client has left.
    Feed(tokio::sync::mpsc::Receiver<Bytes>),
}

impl Reply {
    /// A body of these bytes.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    /// A body of these bytes that stay in the byte budget until they are written, which is
    /// after the body itself is gone.
    #[must_use]
    pub fn held(bytes: Bytes, hold: Option<Hold>) -> Self {
        match hold {
            Some(hold) if !bytes.is_empty() => Self::whole(Bytes::from_owner(Held { bytes, _hold: hold })),
            _ => Self::whole(bytes),
        }
    }
}

/// Bytes with what they hold of the byte budget.
struct Held {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => relay.poll(cx),
            Self::Feed(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Relay(relay) => relay.is_end_stream(),
            Self::Feed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relay(relay) => relay.size_hint(),
            Self::Feed(_) => SizeHint::default(),
        }
    }
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A fault in the client's protocol, with the time to try again where there is one.
#[must_use]
pub fn fault(protocol: Protocol, fault: &Fault, trace: &str) -> Response<Reply> {
    let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    fault_as(status, protocol, fault, trace)
}

/// The same under another status: the engine's own, where it refused the request.
#[must_use]
pub fn fault_as(status: StatusCode, protocol: Protocol, fault: &Fault, trace: &str) -> Response<Reply> {
    let mut response = json(status, seawall_wire::fault::fault_body(protocol, fault, trace));
    let headers = response.headers_mut();
    headers.insert("x-seawall-code", HeaderValue::from_static(fault.code.as_str()));
    if let Some(wait) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_secs(wait)));
        headers.insert("retry-after-ms", HeaderValue::from(wait.0.max(1)));
    }
    if let Some(takes) = &fault.takes {
        headers.insert(header::ALLOW, crate::upstream::value(takes));
    }
    if fault.code == seawall_model::Code::BadKey {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    trace_header(headers, trace);
    response
}

/// Adds the trace id under the names that clients look for.
pub fn trace_header(headers: &mut http::HeaderMap, trace: &str) {
    let value = crate::upstream::value(trace);
    headers.entry("x-request-id").or_insert_with(|| value.clone());
    headers.insert("x-seawall-trace", value);
}

/// Whole seconds, rounded up, as `retry-after` wants them.
fn wait_secs(wait: Millis) -> u64 {
    wait.0.div_ceil(1_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_whole_answer_leaves_the_byte_budget_when_its_last_piece_is_gone() {
        let memory = Memory::new(seawall_model::Bytes(100));
        let mut reply = Reply::held(Bytes::from_static(b"an answer"), memory.hold(9));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut reply).poll_frame(&mut cx) else {
            panic!("it is here")
        };
        let piece = frame.into_data().expect("data");
        assert!(reply.is_end_stream());
        drop(reply);
        assert_eq!(memory.held().0, 9, "it is still being written");
        let tail = piece.slice(3..);
        drop(piece);
        assert_eq!((memory.held().0, &tail[..]), (9, &b"answer"[..]));
        drop(tail);
        assert_eq!(memory.held().0, 0);
    }
}
