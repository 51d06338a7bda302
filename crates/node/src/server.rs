//! The listener: accepts within a bound, speaks TLS where configured, HTTP/1.1 and
//! HTTP/2 on the same port, and lets every connection finish when the process leaves.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use seawall_model::{Millis, limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Phase};
use crate::clock;
use crate::gateway;
use crate::gateway::handed::{Handed, Streams};
use crate::gateway::relay::Piece;
use crate::gateway::reply::{BoxError, Reply};
use crate::io::{Socket, StallGuard, tune};
use crate::tasks::{Kind, Tasks};
use crate::turns::{Turn, Turns};

/// A pause after the system refuses to give a connection (out of descriptors, say):
/// trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// hyper takes no smaller buffer; request heads must fit as well.
const HTTP1_BUFFER_MIN: usize = 8 << 10;

/// How an HTTP/2 connection begins, in as many bytes as no HTTP/1.1 request does
/// (RFC 9113 section 3.4).
const HTTP2_BEGINS: &[u8] = b"PRI";

/// How long a connection that is cut may take to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Accepts until the process drains.
pub async fn accept(app: Arc<App>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let seats = Arc::new(Semaphore::new(app.live.load().config.limits.connections_max));
    let mut phase = app.phase.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        let Ok((stream, _peer)) = accepted else {
            app.metrics.service.cut("accept_failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let seat = seats.clone().try_acquire_owned().ok();
        if seat.is_none() {
            app.metrics.service.cut("connections_full");
            // In TLS there is nobody to understand it yet.
            if tls.is_none() {
                turn_away(&stream);
            }
            continue;
        }
        let connection = serve(app.clone(), stream, tls.clone(), seat);
        app.tasks.spawn(Kind::Connection, connection);
    }
}

/// Tells a client that there is no room, without waiting for it to be ready to hear.
fn turn_away(stream: &TcpStream) {
    const WORDS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
        x-seawall-code: connections_full\r\ncontent-type: application/json\r\ncontent-length: 116\r\n\r\n\
        {\"error\":{\"message\":\"Seawall holds as many connections as it may.\",\"type\":\"server_error\",\"code\":\"connections_full\"}}";
    let _ = stream.try_write(WORDS);
}

async fn serve(
    app: Arc<App>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    seat: Option<OwnedSemaphorePermit>,
) {
    let _seat = seat;
    let bounds = app.live.load().config.limits;
    tune(&stream, bounds.stream_window_bytes);
    let stall = Duration::from_millis(bounds.client_stall_ms_max.0);
    let turns = Arc::new(Turns::new(clock::now()));
    let socket = Socket::new(stream);
    let guard = |stream| StallGuard::new(stream, stall, turns.clone());
    let client = Client {
        app,
        socket: socket.clone(),
        turns: turns.clone(),
        stall_max: bounds.client_stall_ms_max,
        window: bounds.stream_window_bytes,
    };
    match tls {
        None => match client.soon(socket.begins(HTTP2_BEGINS)).await {
            Some(Ok(false)) => client.speak_http1(guard(socket)).await,
            Some(Ok(true)) => Box::pin(client.speak_http2(guard(socket))).await,
            Some(Err(_)) => client.app.metrics.service.cut("client"),
            None => client.app.metrics.service.cut("client_silent"),
        },
        // Boxed, so that plain connections do not carry the room for it.
        Some(tls) => match Box::pin(client.soon(tls.accept(socket))).await {
            Some(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Box::pin(client.speak_http2(StallGuard::new(stream, stall, turns))).await;
            }
            Some(Ok(stream)) => Box::pin(client.speak_http1(StallGuard::new(stream, stall, turns))).await,
            _ => client.app.metrics.service.cut("tls_handshake"),
        },
    }
}

/// One client's connection.
struct Client {
    app: Arc<App>,
    socket: Socket,
    turns: Arc<Turns>,
    stall_max: Millis,
    window: usize,
}

impl Client {
    /// What a client owes at once: nothing comes of it if it takes too long, or if the
    /// process leaves meanwhile.
    async fn soon<F: Future>(&self, work: F) -> Option<F::Output> {
        let limit = Duration::from_millis(limits::HEADER_WAIT_MS_MAX);
        let mut phase = self.app.phase.clone();
        tokio::select! {
            done = tokio::time::timeout(limit, work) => done.ok(),
            () = reached(&mut phase, Phase::Draining) => None,
        }
    }

    async fn speak_http1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: StallGuard<T>) {
        let service = service_fn(|request| answer(self.app.clone(), None, self.turns.clone(), request));
        self.attend(Box::pin(http1(self.window).serve_connection(TokioIo::new(stream), service)), None).await;
    }

    async fn speak_http2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: StallGuard<T>) {
        let streams = Arc::new(Streams::default());
        let (app, turns) = (self.app.clone(), self.turns.clone());
        let watched = streams.clone();
        let service =
            service_fn(move |request| answer(app.clone(), Some(watched.clone()), turns.clone(), request));
        let builder = http2(Apart(self.app.tasks.clone()), self.window);
        self.attend(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), Some(&streams)).await;
    }

    /// Drives a connection until it ends, the client lets it wait too long, or the
    /// process leaves. Boxed, because a future holds each place that it was moved from.
    async fn attend<C>(&self, mut connection: Pin<Box<C>>, streams: Option<&Streams>)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let heard_out = self.drive(connection.as_mut(), streams).await;
        // With its buffers, of which nobody needs anything now.
        drop(connection);
        if heard_out {
            self.linger().await;
        }
    }

    /// Drives it to its end; `true` if the client has been answered in full and is still there.
    async fn drive<C>(&self, mut connection: Pin<&mut C>, streams: Option<&Streams>) -> bool
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let app = &self.app;
        let (mut draining, mut cutting) = (app.phase.clone(), app.phase.clone());
        let mut leaving = false;
        let look = tokio::time::sleep(self.next_look());
        tokio::pin!(look);
        loop {
            tokio::select! {
                // The connection first: this is the path of every token.
                biased;
                ended = connection.as_mut() => {
                    // Who sent what is no HTTP was told so.
                    let heard_out = !ended.as_ref().is_err_and(|why| !why.is_parse());
                    if ended.is_err() {
                        app.metrics.service.cut("client");
                    }
                    return heard_out;
                }
                () = self.socket.left() => {
                    app.metrics.service.cut("client");
                    return false;
                }
                () = look.as_mut() => {
                    if let Some(why) = self.overdue(streams) {
                        app.metrics.service.cut(why);
                        return false;
                    }
                    look.as_mut().reset(tokio::time::Instant::now() + self.next_look());
                }
                () = reached(&mut draining, Phase::Draining), if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = reached(&mut cutting, Phase::Cutting), if leaving => {
                    app.metrics.service.cut("drain_deadline");
                    // Polled on for a moment: each stream then ends with a word.
                    let ended = tokio::time::timeout(LAST_WORDS, connection.as_mut()).await;
                    return ended.is_ok_and(|ended| ended.is_ok());
                }
            }
        }
    }

    /// Stays until the client has closed as well, for so long as is left since its last answer:
    /// whoever has rested for longer has nothing to lose.
    async fn linger(&self) {
        let wait = limits::LINGER_MS_MAX.saturating_sub(self.turns.rested(clock::now()).0);
        // Boxed: the connection would keep room for it all its life.
        let closed = Box::pin(self.socket.linger(Duration::from_millis(wait))).await;
        if !closed && wait > 0 {
            self.app.metrics.service.cut("client_lingers");
        }
    }

    /// How long until this connection may have waited for its client too long.
    fn next_look(&self) -> Duration {
        let now = clock::now();
        let due = self.turns.due(now).since(now).0;
        Duration::from_millis(due.min(self.stall_max.0 / 2) + 1)
    }

    /// Why this connection ends, if its client lets it wait too long.
    fn overdue(&self, streams: Option<&Streams>) -> Option<&'static str> {
        let now = clock::now();
        for _ in 0..streams.map_or(0, |streams| streams.cut_stalled(self.stall_max)) {
            self.app.metrics.service.cut("client_stalled");
        }
        (self.turns.due(now) <= now).then_some("client_silent")
    }
}

/// Answers one request; over HTTP/2 its stream is watched beside the others.
async fn answer(
    app: Arc<App>,
    streams: Option<Arc<Streams>>,
    turns: Arc<Turns>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let turn = turns.begin(streams.is_some(), clock::now);
    let response = gateway::answer(app, request).await;
    let handed = streams.and_then(|streams| {
        let (handed, cut) = (Arc::new(Handed::default()), CUT.try_with(Arc::clone).ok()?);
        // It is the client's turn from the first: with its window shut nothing is asked for.
        handed.gave();
        streams.watch(&handed, cut);
        Some(handed)
    });
    Ok(response.map(|reply| Answer { reply, handed, rest: Bytes::new(), _turn: turn }))
}

tokio::task_local! {
    /// Ends the HTTP/2 stream whose task this is.
    static CUT: Arc<Notify>;
}

/// Runs each HTTP/2 stream so that it can be cut alone: a client that leaves one untaken
/// keeps the others.
#[derive(Clone, Debug)]
struct Apart(Tasks);

impl<F> Executor<F> for Apart
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let cut = Arc::new(Notify::new());
        let cuttable = CUT.scope(cut.clone(), async move {
            tokio::select! {
                biased;
                _ = stream => {}
                // Dropped, it is reset.
                () = cut.notified() => {}
            }
        });
        self.0.spawn(Kind::Stream, cuttable);
    }
}

/// Bytes of an answer that an HTTP/2 stream takes at a time: what it has taken it holds,
/// however small its client's window is.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// An answer's body, and the turn that ends with it.
struct Answer {
    reply: Reply,
    /// Over HTTP/2: when the client last took something.
    handed: Option<Arc<Handed>>,
    /// Over HTTP/2: what is left of the last piece.
    rest: Bytes,
    _turn: Turn,
}

impl Answer {
    /// The next piece for a stream that must not be given much at once.
    fn poll_small(&mut self, cx: &mut Context<'_>) -> Piece {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.reply).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let len = self.rest.len().min(FRAME_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        let Some(handed) = self.handed.clone() else {
            return Pin::new(&mut self.reply).poll_frame(cx);
        };
        handed.asked();
        let piece = self.poll_small(cx);
        if piece.is_ready() {
            handed.gave();
        }
        piece
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.reply.size_hint().exact() {
            Some(left) => SizeHint::with_exact(left + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}

/// Resolves when the shutdown has come this far.
async fn reached(phase: &mut watch::Receiver<Phase>, at: Phase) {
    // An error is the end of the process itself.
    let _ = phase.wait_for(|phase| *phase >= at).await;
}

/// HTTP/1.1, with buffers of one `window` of bytes.
fn http1(window: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Turns` keeps time: hyper has one limit for slow heads and for idle connections.
        .header_read_timeout(None)
        // Head and body in one plain write: cheaper than a vector of two small pieces.
        .writev(false)
        .max_buf_size((window / 2).max(HTTP1_BUFFER_MIN));
    builder
}

/// HTTP/2, with buffers of one `window` of bytes per stream.
fn http2(executor: Apart, window: usize) -> http2::Builder<Apart> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(window as u32)
        .initial_connection_window_size((1_u32 << 20).max(window as u32))
        .max_send_buf_size(window)
        .max_header_list_size(limits::HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

/// Binds the address, saying in words why it cannot.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|why| match why.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is in use: stop what listens there, or choose another with --listen")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{address} may not be used by this user: choose a port above 1023 with --listen")
        }
        _ => format!("cannot listen on {address}: {why}"),
    })
}
