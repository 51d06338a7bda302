//! The listener: accepts within a bound, speaks TLS where configured, HTTP/1.1 and
//! HTTP/2 on the same port, and lets every connection finish when the process leaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use seawall_model::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Phase};
use crate::gateway;
use crate::io::{StallGuard, tune};
use crate::tasks::{Executor, Kind};

/// A pause after the system refuses to give a connection (out of descriptors, say):
/// trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
            turn_away(&stream);
            continue;
        }
        let connection = serve(app.clone(), stream, tls.clone(), seat);
        app.tasks.spawn(Kind::Connection, connection);
    }
}

/// Tells a client that there is no room, without waiting for it to be ready to hear.
fn turn_away(stream: &TcpStream) {
    const WORDS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
        x-seawall-code: connections_full\r\ncontent-type: application/json\r\ncontent-length: 122\r\n\r\n\
        {\"error\":{\"message\":\"Seawall holds as many connections as it may.\",\"type\":\"server_error\",\"code\":\"connections_full\"}}\r\n\r\n\r\n\r\n";
    let _ = stream.try_write(WORDS);
}

async fn serve(
    app: Arc<App>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    seat: Option<OwnedSemaphorePermit>,
) {
    let _seat = seat;
    tune(&stream);
    let stall = Duration::from_millis(app.live.load().config.limits.client_stall_ms_max.0);
    match tls {
        None => speak(&app, StallGuard::new(stream, stall)).await,
        Some(tls) => {
            let limit = Duration::from_millis(limits::HEADER_WAIT_MS_MAX);
            match tokio::time::timeout(limit, tls.accept(stream)).await {
                // Boxed, so that plain connections do not carry the room for it.
                Ok(Ok(stream)) => Box::pin(speak(&app, StallGuard::new(stream, stall))).await,
                _ => app.metrics.service.cut("tls_handshake"),
            }
        }
    }
}

async fn speak<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(app: &Arc<App>, stream: StallGuard<T>) {
    let builder = protocol(app.tasks.executor(Kind::Stream));
    let service = service_fn(|request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(gateway::answer(app, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let (mut draining, mut cutting) = (app.phase.clone(), app.phase.clone());
    let mut leaving = false;
    loop {
        tokio::select! {
            // The connection first: this is the path of every token.
            biased;
            ended = connection.as_mut() => {
                if ended.is_err() {
                    app.metrics.service.cut("client");
                }
                return;
            }
            _ = draining.wait_for(|phase| *phase >= Phase::Draining), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = cutting.wait_for(|phase| *phase >= Phase::Cutting), if leaving => {
                app.metrics.service.cut("drain_deadline");
                return;
            }
        }
    }
}

fn protocol(executor: Executor) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEADER_WAIT_MS_MAX))
        // Head and body in one plain write: cheaper than a vector of two small pieces.
        .writev(false)
        .max_buf_size(limits::STREAM_WINDOW_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES as u32)
        .initial_connection_window_size((1_u32 << 20).max(limits::STREAM_WINDOW_BYTES as u32))
        .max_send_buf_size(limits::STREAM_WINDOW_BYTES)
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
