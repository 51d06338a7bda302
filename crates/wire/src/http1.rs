//! HTTP/1.1 answers as an engine sends them (RFC 9112): the head, and the body piece by
//! piece out of a buffer that somebody else fills. A gateway spends its life here, one
//! token at a time, so a piece of the body is a slice of what was received, not a copy.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use memchr::memchr;
use seawall_model::limits;

/// Headers of one answer. Providers send two or three dozen.
const HEADERS_MAX: usize = 100;
/// Interim answers (1xx) before one answer. An engine sends `100 Continue` and perhaps
/// early hints; more of them would only keep its call from ever failing.
const INTERIM_MAX: usize = 8;
/// Bytes of a line that gives a chunk's length, with its extensions, which nobody uses.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all trailers of a body. They are read and dropped.
const TRAILER_BYTES_MAX: usize = 8 << 10;

/// An answer that is not HTTP, or that cannot be read safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not an HTTP/1 answer.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    /// The head, with the interim answers before it, is larger than its limit.
    #[error("the head of the answer is larger than {} bytes", limits::HEADER_BYTES_MAX)]
    HeadTooLarge,
    /// It is announced over and over and does not come.
    #[error("more than {INTERIM_MAX} interim answers came before the answer")]
    TooManyInterim,
    /// Its length cannot be told, so where the next answer begins cannot either.
    #[error("the length of the answer cannot be told")]
    Length,
    /// A chunk does not look like one.
    #[error("a chunk of the answer is malformed")]
    Chunk,
    /// It ended before its end.
    #[error("the answer broke off")]
    Cut,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers as sent.
    pub headers: HeaderMap,
    /// May the connection carry another request after this answer?
    pub keep: bool,
    /// Reads the body that follows.
    pub body: Body,
}

/// Takes the head of an answer off the front of `buf`, once all of it is there. Interim
/// answers (1xx) go with it; until then they stay, and count towards its limit, so that
/// nothing has to be remembered of them. `bodiless`: was the request a HEAD?
///
/// # Errors
/// What is there is no answer, or one whose end could not be found.
pub fn head(buf: &mut BytesMut, bodiless: bool) -> Result<Option<Head>, Broken> {
    let mut start = 0;
    for _ in 0..=INTERIM_MAX {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let end = match answer.parse(&buf[start..]) {
            Ok(httparse::Status::Complete(len)) if start + len <= limits::HEADER_BYTES_MAX => start + len,
            Ok(httparse::Status::Complete(_)) => return Err(Broken::HeadTooLarge),
            Ok(httparse::Status::Partial) if buf.len() <= limits::HEADER_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Broken::HeadTooLarge);
            }
            Err(_) => return Err(Broken::NotHttp),
        };
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Broken::NotHttp)?;
        let persists = answer.version == Some(1);
        // Switching protocols was not asked for.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::NotHttp);
        }
        if status.is_informational() {
            start = end;
            continue;
        }
        let headers = collect(answer.headers)?;
        buf.advance(end);
        let body = Body::of(status, &headers, bodiless)?;
        let both =
            headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
        let keep = keeps(&headers, persists) && !both && !matches!(body.state, State::UntilClose);
        return Ok(Some(Head { status, headers, keep, body }));
    }
    Err(Broken::TooManyInterim)
}

/// Copies the headers: values that shared the receiving buffer would keep all of it.
fn collect(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Broken> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Broken::NotHttp)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| Broken::NotHttp)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// RFC 9112 section 9.3.
fn keeps(headers: &HeaderMap, persists: bool) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(header::CONNECTION).into_iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    !says("close") && (persists || says("keep-alive"))
}

/// Reads a body out of a buffer.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes, then the end.
    Length(u64),
    /// A chunk's length comes next.
    ChunkLine,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    /// Trailers, of which so many bytes have passed.
    Trailers(usize),
    /// Whatever comes, until the connection ends.
    UntilClose,
    /// The end.
    Done,
}

/// What can be said of a body with what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of it; never empty.
    Bytes(Bytes),
    /// More must be received first.
    More,
    /// It is whole.
    End,
}

impl Body {
    /// How the body's end is found (RFC 9112 section 6.3).
    fn of(status: StatusCode, headers: &HeaderMap, bodiless: bool) -> Result<Self, Broken> {
        if bodiless || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(Self { state: State::Done });
        }
        if chunked(headers)? {
            return Ok(Self { state: State::ChunkLine });
        }
        let state = match length(headers)? {
            Some(0) => State::Done,
            Some(len) => State::Length(len),
            None => State::UntilClose,
        };
        Ok(Self { state })
    }

    /// Has all of it been read?
    #[must_use]
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes still to come, where they are known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece off the front of `buf`.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Piece, Broken> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                State::UntilClose if buf.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Bytes(buf.split().freeze())),
                State::Length(left) => return Ok(self.take(buf, left, State::Length, State::Done)),
                State::Chunk(left) => return Ok(self.take(buf, left, State::Chunk, State::ChunkEnd)),
                State::ChunkLine => match line(buf, CHUNK_LINE_BYTES_MAX)? {
                    None => return Ok(Piece::More),
                    Some(len) => {
                        let chunk = chunk_length(&buf[..len])?;
                        buf.advance(len + 2);
                        self.state = if chunk == 0 { State::Trailers(0) } else { State::Chunk(chunk) };
                    }
                },
                State::ChunkEnd => match line(buf, 0)? {
                    None => return Ok(Piece::More),
                    Some(_) => {
                        buf.advance(2);
                        self.state = State::ChunkLine;
                    }
                },
                State::Trailers(passed) => match line(buf, TRAILER_BYTES_MAX - passed)? {
                    None => return Ok(Piece::More),
                    Some(len) => {
                        buf.advance(len + 2);
                        let passed = (passed + len + 2).min(TRAILER_BYTES_MAX);
                        self.state = if len == 0 { State::Done } else { State::Trailers(passed) };
                    }
                },
            }
        }
    }

    fn take(&mut self, buf: &mut BytesMut, left: u64, more: fn(u64) -> State, after: State) -> Piece {
        if buf.is_empty() {
            return Piece::More;
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let rest = left - len as u64;
        self.state = if rest == 0 { after } else { more(rest) };
        Piece::Bytes(buf.split_to(len).freeze())
    }

    /// The connection has ended: was that the end of the body too?
    ///
    /// # Errors
    /// It was not: the body is cut.
    pub fn closed(&mut self) -> Result<(), Broken> {
        if !matches!(self.state, State::Done | State::UntilClose) {
            return Err(Broken::Cut);
        }
        self.state = State::Done;
        Ok(())
    }
}

/// Does the body come in chunks? No other coding is undone here, so none may be there.
fn chunked(headers: &HeaderMap) -> Result<bool, Broken> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(only), None) if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Broken::Length),
    }
}

/// The content length; several that agree are one (RFC 9110 section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, Broken> {
    let mut known = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.to_str().map_err(|_| Broken::Length)?.split(',') {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let len = text.parse().ok().filter(|_| digits).ok_or(Broken::Length)?;
            if known.is_some_and(|known| known != len) {
                return Err(Broken::Length);
            }
            known = Some(len);
        }
    }
    Ok(known)
}

/// Length of the line at the front of `buf` without its CRLF, once all of it is there.
fn line(buf: &[u8], len_max: usize) -> Result<Option<usize>, Broken> {
    let seen = &buf[..buf.len().min(len_max + 2)];
    match memchr(b'\n', seen) {
        Some(at) if at > 0 && seen[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(Broken::Chunk),
        None if seen.len() == len_max + 2 => Err(Broken::Chunk),
        None => Ok(None),
    }
}

/// The length that a chunk's first line gives, in hexadecimal; extensions are skipped.
fn chunk_length(line: &[u8]) -> Result<u64, Broken> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let extension = rest.trim_ascii_start();
    if digits.is_empty() || digits.len() > 15 || !(extension.is_empty() || extension[0] == b';') {
        return Err(Broken::Chunk);
    }
    let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
    Ok(digits.iter().fold(0, |len, byte| len * 16 + digit(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a whole answer that arrives in pieces of `step` bytes.
    fn read(text: &str, step: usize) -> Result<(Head, Vec<u8>), Broken> {
        let mut buf = BytesMut::new();
        let mut pieces = text.as_bytes().chunks(step);
        let mut got = loop {
            if let Some(got) = head(&mut buf, false)? {
                break got;
            }
            buf.extend_from_slice(pieces.next().ok_or(Broken::Cut)?);
        };
        let mut whole = Vec::new();
        loop {
            match got.body.next(&mut buf)? {
                Piece::Bytes(bytes) => whole.extend_from_slice(&bytes),
                Piece::End => return Ok((got, whole)),
                Piece::More => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => got.body.closed()?,
                },
            }
        }
    }

    #[test]
    fn every_way_to_say_a_length_is_read_however_it_is_cut() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\ncontent-length: 5\r\n\r\nhello", true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\nx: y\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\n\r\nhello", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", false),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello", true),
            ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 5\r\n\r\nhello", false),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true),
        ];
        for (text, keep) in cases {
            for step in 1..text.len() {
                let (head, body) = read(text, step).unwrap_or_else(|why| panic!("{text:?}: {why}"));
                assert_eq!((head.keep, &body[..]), (keep, &b"hello"[..]), "{text:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases = [
            ("SSH-2.0-OpenSSH_9.2\r\n", Broken::NotHttp),
            ("HTTP/1.1 101 Switching\r\n\r\n", Broken::NotHttp),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", Broken::Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", Broken::Length),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", Broken::Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Broken::Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Broken::Length),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", Broken::Chunk),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nhello", Broken::Chunk),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000000000000000\r\n", Broken::Chunk),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", Broken::Cut),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Broken::Cut),
        ];
        for (text, why) in cases {
            assert_eq!(read(text, text.len()).map(|_| ()), Err(why), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(limits::HEADER_BYTES_MAX));
        assert_eq!(read(&endless, 512).map(|_| ()), Err(Broken::HeadTooLarge));
        let large = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "a".repeat(limits::HEADER_BYTES_MAX));
        assert_eq!(read(&large, large.len()).map(|_| ()), Err(Broken::HeadTooLarge), "also all at once");
        let extended = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;{}", "a".repeat(300));
        assert_eq!(read(&extended, 7).map(|_| ()), Err(Broken::Chunk));
    }

    #[test]
    fn an_answer_may_be_announced_a_few_times() {
        let announced = |times: usize| {
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(times)
                + "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
        };
        for step in [1, 7, 10_000] {
            let (head, body) = read(&announced(INTERIM_MAX), step).expect("a few");
            assert_eq!((head.status, head.headers.len(), &body[..]), (StatusCode::OK, 1, &b"hello"[..]));
            assert_eq!(read(&announced(INTERIM_MAX + 1), step).map(|_| ()), Err(Broken::TooManyInterim));
        }
        let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "a".repeat(20 << 10));
        assert_eq!(read(&hints.repeat(4), 4_096).map(|_| ()), Err(Broken::HeadTooLarge), "together");
    }

    #[test]
    fn a_length_beside_chunks_does_not_count_and_ends_the_connection() {
        let text =
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        let (head, body) = read(text, 9).expect("chunks win");
        assert_eq!((head.keep, body), (false, b"a".to_vec()));
    }

    #[test]
    fn an_answer_without_a_body_ends_at_its_head() {
        for (text, bodiless) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", false),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", true),
        ] {
            let head = head(&mut BytesMut::from(text), bodiless).expect("well").expect("whole");
            assert!(head.body.done() && head.keep, "{text:?}");
        }
    }
}
