//! Watches what a tool server writes. Of messages that are too large the SDK drops such a line
//! of a process and goes on, so that whoever waits for it would wait until its time is up; of
//! such an event of a stream it only says that the stream ended. And what is no message at
//! all it passes over in silence, for ever.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use seawall_model::limits::{TOOL_LINE_BYTES_MAX, TOOL_MESSAGE_BYTES_MAX, TOOL_RUBBISH_LINES_MAX};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::pace::Pace;

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

/// What a process writes, as it is, at a pace that is bounded, and up to where it is plain
/// that this is no MCP server.
#[derive(Debug)]
pub(super) struct Lines<R> {
    inner: R,
    oversized: Oversized,
    nonsense: Nonsense,
    pace: Pace,
    /// Length of the line up to here.
    len: usize,
    /// May the line be a message, by how it begins? Not known before its first letter.
    sound: Option<bool>,
    /// Lines in a row that are none.
    rubbish: usize,
}

/// Why nothing more is read, once that is so. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Nonsense(Arc<OnceLock<String>>);

impl Nonsense {
    /// In words.
    pub(super) fn why(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl<R> Lines<R> {
    /// What `inner` writes.
    pub(super) fn new(inner: R, oversized: Oversized, nonsense: Nonsense) -> Self {
        let pace = Pace::of_messages();
        Self { inner, oversized, nonsense, pace, len: 0, sound: None, rubbish: 0 }
    }

    /// Looks at what came.
    ///
    /// # Errors
    /// In words: there is no sense in reading on.
    fn pass(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut lines = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let before = self.len;
            self.len += piece.len();
            if before <= TOOL_MESSAGE_BYTES_MAX && self.len > TOOL_MESSAGE_BYTES_MAX {
                self.oversized.add();
            }
            if self.len > TOOL_LINE_BYTES_MAX {
                return Err(format!(
                    "it writes a line that does not end: more than {TOOL_LINE_BYTES_MAX} bytes"
                ));
            }
            if self.sound.is_none() {
                let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
                // A byte order mark may stand before the first.
                self.sound = first.map(|byte| matches!(byte, b'{' | b'[' | 0xef));
            }
            if piece.ends_with(b"\n") {
                self.len = 0;
                lines += 1;
                self.rubbish = match self.sound.take() {
                    Some(true) => 0,
                    Some(false) => self.rubbish + 1,
                    None => self.rubbish,
                };
            }
            if self.rubbish > TOOL_RUBBISH_LINES_MAX {
                return Err(format!(
                    "it does not speak MCP: {TOOL_RUBBISH_LINES_MAX} lines in a row on its standard output are no \
                     messages (what it logs belongs on standard error)"
                ));
            }
        }
        self.pace.heard(lines, bytes.len());
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.pace.poll(cx));
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if let Err(why) = self.pass(&buf.filled()[before..]) {
            let why = self.nonsense.0.get_or_init(|| why).clone();
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
        }
        Poll::Ready(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines<()> {
        Lines::new((), Oversized::default(), Nonsense::default())
    }

    #[tokio::test]
    async fn each_line_that_is_too_large_counts_once() {
        let mut lines = lines();
        let counted = |lines: &Lines<()>| *lines.oversized.0.borrow();
        let half = vec![b'{'; TOOL_MESSAGE_BYTES_MAX / 2 + 1];
        lines.pass(&half).expect("read");
        lines.pass(b"\n").expect("read");
        lines.pass(&half).expect("read");
        assert_eq!(counted(&lines), 0);
        lines.pass(&half).expect("read");
        lines.pass(&half).expect("read");
        assert_eq!(counted(&lines), 1);
        lines.pass(b"y\nshort\n").expect("read");
        lines.pass(&half).expect("read");
        lines.pass(&half).expect("read");
        assert_eq!(counted(&lines), 2);
    }

    #[tokio::test]
    async fn a_line_that_does_not_end_is_not_read_for_ever() {
        let mut lines = lines();
        let piece = vec![b'{'; 1 << 20];
        let passed = (0..).take_while(|_| lines.pass(&piece).is_ok()).count();
        assert_eq!(passed, TOOL_LINE_BYTES_MAX >> 20);
    }

    #[tokio::test]
    async fn banners_are_passed_over_and_rubbish_without_end_is_not() {
        let mut lines = lines();
        for _ in 0..5 {
            // Blank lines are nothing, and a line may come in pieces.
            for _ in 1..TOOL_RUBBISH_LINES_MAX {
                lines.pass(b"  up").expect("a banner");
                lines.pass(b" and running\n\n \r\n").expect("a banner");
            }
            lines.pass(b" {\"jsonrpc\":\"2.0\"}\n").expect("a message");
        }
        for _ in 0..TOOL_RUBBISH_LINES_MAX {
            lines.pass(b"y\n").expect("not yet");
        }
        let why = lines.pass(b"y\n").expect_err("no server");
        assert!(why.contains("does not speak MCP") && !why.contains('y'.to_string().repeat(2).as_str()));
    }
}
