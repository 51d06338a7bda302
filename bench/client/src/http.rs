//! Just enough HTTP/1.1: send bytes, read a head, read a body whose length or chunks are known.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One read of the socket: 2,000 streams hold 8 MB of these.
const READ_BYTES: usize = 4 << 10;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    held: Vec<u8>,
    at: usize,
    /// Bytes of the present chunk still to come.
    left: usize,
}

/// What an answer's head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) retry_after: bool,
    pub(crate) wait_ms: u64,
    length: Option<usize>,
    chunked: bool,
}

impl Connection {
    pub(crate) async fn open(to: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::new(), at: 0, left: 0 })
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Bytes not yet taken.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.held[self.at..]
    }

    pub(crate) fn take(&mut self, count: usize) {
        self.at += count;
        if self.at == self.held.len() {
            self.held.clear();
            self.at = 0;
        }
    }

    /// Waits for more bytes; an error at the end of the stream.
    pub(crate) async fn more(&mut self) -> io::Result<()> {
        if self.at > 0 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        self.held.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.held).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = memmem::find(self.rest(), b"\r\n\r\n") {
                let head = parse_head(&self.rest()[..end]).ok_or(io::ErrorKind::InvalidData)?;
                self.take(end + 4);
                return Ok(head);
            }
            self.more().await?;
        }
    }

    /// Appends what of the body has arrived to `out`, without the chunks' frames; waits for
    /// something to arrive. False at the end of the body.
    pub(crate) async fn piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let before = out.len();
        loop {
            if self.left > 0 {
                let here = self.left.min(self.rest().len());
                out.extend_from_slice(&self.held[self.at..self.at + here]);
                self.take(here);
                self.left -= here;
            } else if let Some(line) = memmem::find(self.rest(), b"\r\n") {
                let text =
                    std::str::from_utf8(&self.rest()[..line]).map_err(|_| io::ErrorKind::InvalidData)?;
                // an empty line ends the chunk before
                if !text.is_empty() {
                    self.left =
                        usize::from_str_radix(text.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
                    if self.left == 0 {
                        return Ok(false);
                    }
                }
                self.take(line + 2);
                continue;
            }
            if self.rest().is_empty() || self.left == 0 {
                if out.len() > before {
                    return Ok(true);
                }
                self.more().await?;
            }
        }
    }

    /// Reads the body away; its size.
    pub(crate) async fn body(&mut self, head: Head) -> io::Result<usize> {
        if let Some(length) = head.length {
            while self.rest().len() < length {
                self.more().await?;
            }
            self.take(length);
            return Ok(length);
        }
        if !head.chunked {
            return Ok(0);
        }
        let mut size = 0;
        loop {
            let Some(line) = memmem::find(self.rest(), b"\r\n") else {
                self.more().await?;
                continue;
            };
            let text = std::str::from_utf8(&self.rest()[..line]).map_err(|_| io::ErrorKind::InvalidData)?;
            let chunk = usize::from_str_radix(text.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            self.take(line + 2);
            while self.rest().len() < chunk + 2 {
                self.more().await?;
            }
            self.take(chunk + 2);
            if chunk == 0 {
                return Ok(size);
            }
            size += chunk;
        }
    }

    /// One call from request to the end of its body.
    pub(crate) async fn call(&mut self, request: &[u8]) -> io::Result<Head> {
        self.send(request).await?;
        let head = self.head().await?;
        self.body(head).await?;
        Ok(head)
    }
}

fn parse_head(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.get(9..12)?.parse().ok()?;
    let mut head = Head { status, retry_after: false, wait_ms: 0, length: None, chunked: false };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = value.parse::<u64>().is_ok();
        } else if name.eq_ignore_ascii_case("x-seawall-wait-ms") {
            head.wait_ms = value.parse().unwrap_or(0);
        }
    }
    Some(head)
}

/// Microseconds since 1970: the clock that the engine stamps its tokens with.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64)
}
