//! Any bytes as an engine's answers on one connection: read the same however the network
//! cuts them, with every byte of a body accounted for.
#![no_main]

mod pieces;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use seawall_model::limits::HEADER_BYTES_MAX;
use seawall_wire::http1::{self, Broken, Piece};

/// Answers read from one connection in one run.
const ANSWERS_MAX: usize = 8;

/// One answer as it was seen: status, headers, body, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    end: Result<(), Broken>,
}

/// Reads answers until the connection ends or may not be used again.
fn read(pieces: &[&[u8]], bodiless: bool) -> Vec<Seen> {
    let mut coming = pieces.iter();
    let mut buf = BytesMut::new();
    let mut all = Vec::new();
    while all.len() < ANSWERS_MAX {
        let head = loop {
            match http1::head(&mut buf, bodiless) {
                Ok(Some(head)) => break head,
                Err(_) => return all,
                Ok(None) => match coming.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return all,
                },
            }
        };
        let mut body = head.body.clone();
        let promised = body.left();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let headers = headers.collect();
        let mut got = Vec::new();
        let end = loop {
            match body.next(&mut buf) {
                Ok(Piece::Bytes(bytes)) => {
                    assert!(!bytes.is_empty(), "a piece of nothing");
                    got.extend_from_slice(&bytes);
                }
                Ok(Piece::End) => break Ok(()),
                Err(why) => break Err(why),
                Ok(Piece::More) => match coming.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => break body.closed(),
                },
            }
        };
        assert!(end.is_err() || body.done() || promised.is_none());
        assert!(end.is_err() || promised.is_none_or(|len| len == got.len() as u64));
        let over = end.is_err() || !head.keep;
        all.push(Seen { status: head.status.as_u16(), headers, body: got, end });
        if over {
            break;
        }
    }
    all
}

fuzz_target!(|bytes: &[u8]| {
    // Larger heads may be refused or not, by how much of them came at once.
    if bytes.len() > HEADER_BYTES_MAX {
        return;
    }
    for bodiless in [false, true] {
        let whole = read(&[bytes], bodiless);
        assert!(whole.iter().map(|seen| seen.body.len()).sum::<usize>() <= bytes.len());
        assert_eq!(whole, read(&pieces::halves(bytes), bodiless));
        assert_eq!(whole, read(&pieces::crumbs(bytes), bodiless));
    }
});
