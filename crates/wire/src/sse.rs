//! Server-sent events, read as they arrive. Follows the WHATWG's event stream grammar
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): CR, LF or CRLF
//! end a line, a byte order mark may lead, comments and unknown fields are skipped and
//! several `data` lines join with a newline. `id` and `retry` mean nothing to a call
//! that is not resumed, and are skipped as well.

use seawall_model::limits::SSE_LINE_BYTES_MAX;
use seawall_model::{Code, Fault};

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `event` field, where it has one.
    pub event: Option<&'a str>,
    /// Its data.
    pub data: &'a [u8],
}

/// Longest event name that is kept; real ones are under 50.
const NAME_BYTES_MAX: usize = 128;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The reader. Holds at most one event, and at most
/// [`SSE_LINE_BYTES_MAX`] of each of line and data.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    name: Option<String>,
    after_cr: bool,
    begun: bool,
}

impl Events {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on, handing each event that is complete to `take`.
    ///
    /// # Errors
    /// `engine_garbled` when a line or an event's data is longer than any real one, and
    /// whatever `take` fails with. The stream is of no use afterwards.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut take: impl FnMut(Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                return self.keep(rest);
            };
            self.after_cr = rest[end] == b'\r';
            if self.line.is_empty() {
                check(end)?;
                self.read_line(&rest[..end], &mut take)?;
            } else {
                self.keep(&rest[..end])?;
                let line = std::mem::take(&mut self.line);
                self.read_line(&line, &mut take)?;
                // The buffer is given back unless one giant line made it so.
                if line.capacity() <= 1 << 16 {
                    self.line = line;
                    self.line.clear();
                }
            }
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// The stream has ended: hands over an event that lacks only its closing blank line,
    /// as the last of many servers' does.
    ///
    /// # Errors
    /// As [`Events::feed`].
    pub fn end(&mut self, mut take: impl FnMut(Event<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.read_line(&line, &mut take)?;
        }
        self.read_line(b"", &mut take)
    }

    /// Bytes held of an event that is not complete.
    #[must_use]
    pub fn held(&self) -> usize {
        self.line.capacity() + self.data.capacity()
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), Fault> {
        check(self.line.len() + piece.len())?;
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn read_line(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(line) if !self.begun => line,
            _ => line,
        };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch(take);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                check(self.data.len() + value.len() + 1)?;
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" if value.len() <= NAME_BYTES_MAX => {
                self.name =
                    std::str::from_utf8(value).ok().filter(|name| !name.is_empty()).map(str::to_owned);
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, take: &mut impl FnMut(Event<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let name = self.name.take();
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        let taken = take(Event { event: name.as_deref(), data: &self.data });
        if self.data.capacity() > 1 << 16 {
            self.data = Vec::new();
        }
        self.data.clear();
        taken
    }
}

fn check(len: usize) -> Result<(), Fault> {
    if len > SSE_LINE_BYTES_MAX {
        return Err(Fault::new(Code::EngineGarbled, "The engine sent an event longer than any real one."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut got = Vec::new();
        let mut events = Events::new();
        let mut take = |event: Event<'_>| {
            got.push((event.event.map(str::to_owned), String::from_utf8_lossy(event.data).into_owned()));
            Ok(())
        };
        for piece in pieces {
            events.feed(piece, &mut take).expect("within bounds");
        }
        events.end(&mut take).expect("within bounds");
        got
    }

    fn one(data: &str) -> (Option<String>, String) {
        (None, data.to_owned())
    }

    #[test]
    fn every_line_end_comment_and_field_of_the_grammar() {
        let text =
            b"\xef\xbb\xbfdata: a\n\n: hello\r\ndata:b\r\ndata:  c\r\n\r\nevent: x\rid: 7\rdata\r\rdata: end";
        assert_eq!(
            read(&[text]),
            [one("a"), one("b\n c"), (Some("x".to_owned()), String::new()), one("end")]
        );
    }

    #[test]
    fn cut_anywhere_it_reads_the_same() {
        let text = b"\xef\xbb\xbfevent: e\r\ndata: one\r\ndata: two\r\n\r\n:c\ndata: three\n\nretry: 5\rdata: four\r\r";
        let whole = read(&[text]);
        assert_eq!(whole.len(), 3);
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(read(&text.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert_eq!(read(&[b"event: ping\n\ndata: x\n\n"]), [one("x")]);
    }

    #[test]
    fn an_endless_line_is_an_error_and_not_a_buffer() {
        let mut events = Events::new();
        let piece = vec![b'x'; 1 << 20];
        let failed = (0..64).any(|_| events.feed(&piece, |_| Ok(())).is_err());
        assert!(failed, "64 MiB in one line went in");
        assert!(events.line.len() <= SSE_LINE_BYTES_MAX);
        let mut events = Events::new();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        assert!((0..64).any(|_| events.feed(&line, |_| Ok(())).is_err()), "64 MiB in one event went in");
    }
}
