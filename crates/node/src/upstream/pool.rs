//! Connections between two calls. Kept for a few seconds, a bounded number per place,
//! and never handed out once the engine has hung up.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use http::Uri;
use http::uri::{Authority, Scheme};
use seawall_model::{At, limits};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::socket::Socket;
use crate::clock;
use crate::tasks::{Kind, Tasks};

/// Bytes received at a time. A token is a few hundred bytes, and what is received ahead
/// of a slow client is held for it.
const RECEIVE_BYTES: usize = 4 << 10;
/// How often idle connections are looked over.
const SWEEP_EVERY: Duration = Duration::from_millis(1_000);

/// A connection to an engine.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// Received and not yet read.
    pub(super) read: BytesMut,
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Box<Self> {
        Box::new(Self { socket, read: BytesMut::new() })
    }

    /// Receives more; 0 bytes is the end.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(RECEIVE_BYTES);
        let received = pin!(self.socket.read_buf(&mut self.read)).poll(cx);
        if received.is_pending() && self.read.is_empty() {
            // Most streams wait most of the time: they hold nothing meanwhile.
            self.read = BytesMut::new();
        }
        received
    }

    /// Is it open, with nothing said on it out of turn?
    fn quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.socket).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(Scheme, Authority);

impl Place {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Some(Self(uri.scheme()?.clone(), uri.authority()?.clone()))
    }
}

/// A connection that waits for its next call.
#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: At,
}

impl Idle {
    fn fit(&mut self, now: At) -> bool {
        now.since(self.since).0 < limits::POOL_IDLE_MS_MAX && self.connection.quiet()
    }
}

#[derive(Debug, Default)]
struct Shelf {
    idle: HashMap<Place, Vec<Idle>>,
    swept: bool,
}

/// The idle connections of one engine.
#[derive(Debug)]
pub(super) struct Pool {
    shelf: Mutex<Shelf>,
    tasks: Tasks,
}

impl Pool {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { shelf: Mutex::default(), tasks }
    }

    /// The connection to this place that was used last, if one is fit.
    pub(super) fn take(&self, place: &Place) -> Option<Box<Connection>> {
        let now = clock::now();
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = shelf.idle.get_mut(place)?;
        std::iter::from_fn(|| idle.pop()).find_map(|mut found| found.fit(now).then_some(found.connection))
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn put(self: &Arc<Self>, place: Place, mut connection: Box<Connection>) {
        // Something came behind the answer: whatever it is, it is not ours.
        if !connection.read.is_empty() {
            return;
        }
        connection.read = BytesMut::new();
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = shelf.idle.entry(place).or_default();
        if idle.len() < limits::POOL_IDLE_MAX {
            idle.push(Idle { connection, since: clock::now() });
        }
        if !std::mem::replace(&mut shelf.swept, true) {
            self.tasks.spawn(Kind::Upstream, sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what is no longer fit; is anything left?
    fn sweep(&self) -> bool {
        let now = clock::now();
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.idle.retain(|_, idle| {
            idle.retain_mut(|idle| idle.fit(now));
            !idle.is_empty()
        });
        shelf.swept = !shelf.idle.is_empty();
        shelf.swept
    }
}

/// Looks the idle connections over for as long as there are any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        // sleeps because idle connections age by the clock alone
        tokio::time::sleep(SWEEP_EVERY).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
