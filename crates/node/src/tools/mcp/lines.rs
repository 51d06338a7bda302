//! Watches for messages that are too large. The SDK drops such a line of a process and goes on,
//! so that whoever waits for it would wait until its time is up; of such an event of a stream
//! it only says that the stream ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use seawall_model::limits::TOOL_MESSAGE_BYTES_MAX;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// How many messages were too large. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Oversized(Arc<watch::Sender<u64>>);

impl Default for Oversized {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Oversized {
    /// Counts one.
    pub(super) fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Resolves with the next one.
    pub(super) async fn next(&self) {
        // The sender is held by this very handle.
        let _ = self.0.subscribe().changed().await;
    }
}

/// What a process writes, as it is.
#[derive(Debug)]
pub(super) struct Lines<R> {
    pub(super) inner: R,
    pub(super) oversized: Oversized,
    /// Length of the line up to here.
    pub(super) len: usize,
}

impl<R> Lines<R> {
    fn pass(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let before = self.len;
            self.len += piece.len();
            if before <= TOOL_MESSAGE_BYTES_MAX && self.len > TOOL_MESSAGE_BYTES_MAX {
                self.oversized.add();
            }
            if piece.ends_with(b"\n") {
                self.len = 0;
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.pass(&buf.filled()[before..]);
        Poll::Ready(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_is_too_large_counts_once() {
        let mut lines = Lines { inner: (), oversized: Oversized::default(), len: 0 };
        let counted = |lines: &Lines<()>| *lines.oversized.0.borrow();
        let half = vec![b'x'; TOOL_MESSAGE_BYTES_MAX / 2 + 1];
        lines.pass(&half);
        lines.pass(b"\n");
        lines.pass(&half);
        assert_eq!(counted(&lines), 0);
        lines.pass(&half);
        lines.pass(&half);
        assert_eq!(counted(&lines), 1);
        lines.pass(b"y\nshort\n");
        lines.pass(&half);
        lines.pass(&half);
        assert_eq!(counted(&lines), 2);
    }
}
