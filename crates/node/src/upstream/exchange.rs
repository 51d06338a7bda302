//! One request on one connection, up to the head of its answer. Writing and reading go
//! on at once: an engine may refuse an upload before it has all of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Method, header};
use seawall_wire::http1::{self, Head};
use tokio::io::AsyncWrite;

use seawall_model::Millis;

use super::Failed;
use super::pool::Connection;
use super::sending::Sending;
use crate::clock;

/// Bodies up to this size leave in one write with their head.
const JOINED_BYTES_MAX: usize = 16 << 10;
/// More than the request line and the lines that are added to the headers.
const HEAD_BYTES_HINT: usize = 128;

/// An engine that closes a connection which lay idle does so at once when the next request
/// reaches it; one that takes longer has taken the request.
const STALE_MAX: Millis = Millis(100);

/// A request that failed on this connection.
pub(super) struct Lost {
    pub(super) failed: Failed,
    /// Had the engine hung up before it could have begun to work?
    pub(super) stale: bool,
}

/// A request being written.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Next to be written.
    now: Bytes,
    body: Sending,
    rest: Rest,
}

/// What follows `now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The body as it is.
    Plain,
    /// The body in chunks.
    Chunked,
    /// Nothing.
    Nothing,
}

impl Outgoing {
    /// Writes the head, and the body behind it if it is here and small.
    pub(super) fn new(parts: &http::request::Parts, body: Sending) -> Self {
        let mut text = head(parts, &body);
        let (body, rest) = match body {
            Sending::Whole(bytes) if bytes.len() <= JOINED_BYTES_MAX => {
                text.extend_from_slice(&bytes);
                (Sending::Whole(Bytes::new()), Rest::Nothing)
            }
            whole @ Sending::Whole(_) => (whole, Rest::Plain),
            through => {
                let rest = if through.len().is_some() { Rest::Plain } else { Rest::Chunked };
                (through, rest)
            }
        };
        Self { now: text.freeze(), body, rest }
    }

    /// Is all of it written?
    pub(super) fn sent(&self) -> bool {
        self.now.is_empty() && self.rest == Rest::Nothing
    }

    /// Writes what can be written.
    pub(super) fn poll_send(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            while !self.now.is_empty() {
                let socket = Pin::new(&mut connection.socket);
                match std::task::ready!(socket.poll_write(cx, &self.now)).map_err(Failed::Cut)? {
                    0 => return Poll::Ready(Err(Failed::Cut(io::ErrorKind::WriteZero.into()))),
                    len => self.now.advance(len),
                }
            }
            if self.rest == Rest::Nothing {
                // TLS may hold back what it has encrypted.
                return Pin::new(&mut connection.socket).poll_flush(cx).map_err(Failed::Cut);
            }
            match std::task::ready!(self.body.poll(cx)).transpose()? {
                Some(bytes) if self.rest == Rest::Chunked => self.now = chunk(&bytes),
                Some(bytes) => self.now = bytes,
                None => {
                    if self.rest == Rest::Chunked {
                        self.now = Bytes::from_static(b"0\r\n\r\n");
                    }
                    self.rest = Rest::Nothing;
                }
            }
        }
    }
}

/// Sends the request and reads the head of the answer.
pub(super) async fn exchange(
    connection: &mut Connection,
    out: &mut Outgoing,
    bodiless: bool,
) -> Result<Head, Lost> {
    let mut sending = true;
    let mut broken = None;
    let mut silent = true;
    let begun = clock::now();
    let got = std::future::poll_fn(|cx| {
        if sending && let Poll::Ready(sent) = out.poll_send(connection, cx) {
            sending = false;
            match sent {
                Ok(()) => {}
                Err(failed @ Failed::Upload(_)) => return Poll::Ready(Err(failed)),
                // It may have answered before it hung up.
                Err(failed) => broken = Some(failed),
            }
        }
        loop {
            if let Some(head) = http1::head(&mut connection.read, bodiless)? {
                return Poll::Ready(Ok(head));
            }
            let received = std::task::ready!(connection.poll_receive(cx));
            let why = match received {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => {
                    silent = false;
                    continue;
                }
                Err(why) => why,
            };
            return Poll::Ready(Err(broken.take().unwrap_or(Failed::Cut(why))));
        }
    });
    let got = got.await;
    got.map_err(|failed| Lost { failed, stale: silent && clock::now().since(begun) < STALE_MAX })
}

/// The request line and headers (RFC 9112 sections 3 and 5).
fn head(parts: &http::request::Parts, body: &Sending) -> BytesMut {
    let uri = &parts.uri;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let room: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let joined = body.len().and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= JOINED_BYTES_MAX);
    let mut text = BytesMut::with_capacity(HEAD_BYTES_HINT + path.len() + room + joined.unwrap_or_default());
    let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.put_slice(piece));
    let path =
        if path.starts_with('/') { &[path.as_bytes()][..] } else { &[b"/".as_slice(), path.as_bytes()] };
    put(&[parts.method.as_str().as_bytes(), b" "]);
    put(path);
    put(&[b" HTTP/1.1\r\nhost: ", uri.host().unwrap_or_default().as_bytes()]);
    if let Some(port) = uri.port() {
        put(&[b":", port.as_str().as_bytes()]);
    }
    put(&[b"\r\n"]);
    for (name, value) in &parts.headers {
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    let takes_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    match body.len() {
        Some(0) if !takes_body => {}
        Some(len) => {
            let name = header::CONTENT_LENGTH.as_str().as_bytes();
            put(&[name, b": ", len.to_string().as_bytes(), b"\r\n"]);
        }
        None => put(&[header::TRANSFER_ENCODING.as_str().as_bytes(), b": chunked\r\n"]),
    }
    put(&[b"\r\n"]);
    text
}

fn chunk(bytes: &[u8]) -> Bytes {
    let mut text = BytesMut::with_capacity(bytes.len() + 20);
    text.put_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    text.put_slice(bytes);
    text.put_slice(b"\r\n");
    text.freeze()
}
