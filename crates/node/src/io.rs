//! A client's socket: what is set on it, how its end is noticed though nobody reads, and
//! the guard that cuts a client which takes nothing. hyper polls a write only when there
//! is something to send, so a write that stays pending is a client that does not read.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use seawall_model::limits;
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::clock;
use crate::turns::Turns;

/// Sets a client's socket up: no delay, dead peers noticed within half a minute even
/// when half-open, and an unsent backlog of one `window` of bytes at most, so that
/// backpressure starts at once and costs no kernel memory.
pub fn tune(stream: &TcpStream, window: usize) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let backlog = u32::try_from(window).unwrap_or(u32::MAX);
    // Each is a nicety: a platform without it still serves.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let _ = socket.set_tcp_notsent_lowat(backlog);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = backlog;
}

/// A client's socket, shared between the protocol that runs on it and [`Socket::left`].
#[derive(Clone, Debug)]
pub struct Socket(Arc<TcpStream>);

impl Socket {
    /// Shares a socket.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Are these the client's first bytes? Takes none of them.
    ///
    /// # Errors
    /// The client has left without a byte.
    pub async fn begins(&self, with: &[u8]) -> io::Result<bool> {
        let mut seen = [0; 8];
        // A client sends more than this at once or not at all: what it has sent decides.
        match self.0.peek(&mut seen[..with.len()]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(&seen[..len] == with),
        }
    }

    /// Resolves once the client has closed its side, whether or not what it sent before
    /// has been read. hyper reads no further while it holds bytes of a next request, so it
    /// would not notice. Elsewhere than on Linux it is noticed when the answer is due.
    #[cfg(target_os = "linux")]
    pub async fn left(&self) {
        // Priority data is asked for because its readiness comes with that of the end,
        // and without that of plain data.
        while let Ok(ready) = self.0.ready(Interest::PRIORITY).await {
            if ready.is_read_closed() {
                return;
            }
            let _ = self.0.try_io(Interest::PRIORITY, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Half-closes, and reads and forgets what still comes until the client closes its side:
    /// a socket that is closed with unread bytes in it tells the client so with a reset, which
    /// may take the end of the last answer from it (RFC 9112 section 9.6). `false` for a client
    /// that did not close within `wait` and [`limits::LINGER_BYTES_MAX`].
    pub async fn linger(&self, wait: Duration) -> bool {
        // Has mostly been done by the protocol.
        let _ = socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write);
        tokio::time::timeout(wait, self.forget()).await.unwrap_or(false)
    }

    async fn forget(&self) -> bool {
        let mut bytes = [0; 4 << 10];
        let mut left = limits::LINGER_BYTES_MAX;
        while self.0.readable().await.is_ok() {
            match self.0.try_read(&mut bytes) {
                Ok(0) => return true,
                Ok(len) if len > left => return false,
                Ok(len) => left -= len,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                // Gone for good.
                Err(_) => return true,
            }
        }
        true
    }

    /// Never resolves here.
    #[cfg(not(target_os = "linux"))]
    pub async fn left(&self) {
        std::future::pending().await
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(buf) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let down = socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write);
        // A peer that is gone already needs no goodbye.
        Poll::Ready(down.or_else(|why| match why.kind() {
            io::ErrorKind::NotConnected => Ok(()),
            _ => Err(why),
        }))
    }
}

/// Fails a write that has been pending for `limit`, and tells when the client speaks.
#[derive(Debug)]
pub struct StallGuard<T> {
    inner: T,
    limit: Duration,
    pending: Option<Pin<Box<Sleep>>>,
    turns: Arc<Turns>,
}

impl<T> StallGuard<T> {
    /// Guards `inner`.
    pub fn new(inner: T, limit: Duration, turns: Arc<Turns>) -> Self {
        Self { inner, limit, pending: None, turns }
    }

    /// Watches the outcome of a write or a flush: armed while it is pending.
    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<R>>,
        wrote: bool,
    ) -> Poll<io::Result<R>> {
        if write.is_ready() {
            // There is nothing to flush most of the time: that is nothing taken.
            if self.pending.take().is_some() || wrote {
                self.turns.told(clock::now);
            }
            return write;
        }
        let limit = self.limit;
        let sleep = self.pending.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let what = "the client has taken nothing for too long";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallGuard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.turns.heard(clock::now);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, write, true)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, write, true)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, flush, false)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_cut_and_one_that_is_slow_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut guard = StallGuard::new(near, Duration::from_secs(10), Arc::new(Turns::new(clock::now())));
        guard.write_all(&[0; 8]).await.expect("fits");
        let slow = async {
            let mut byte = [0; 1];
            for _ in 0..8 {
                tokio::time::advance(Duration::from_secs(9)).await;
                far.read_exact(&mut byte).await.expect("there is data");
            }
        };
        let (written, ()) = tokio::join!(guard.write_all(&[1; 8]), slow);
        written.expect("a slow reader is served");
        let stalled = guard.write_all(&[2; 8]).await;
        assert_eq!(stalled.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
    }
}
