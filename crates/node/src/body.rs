//! The one room that reads a body to its end: always up to a limit.

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Incoming;

/// A body read whole.
///
/// # Errors
/// It breaks off, or is longer than `len_max` bytes.
#[expect(clippy::disallowed_methods, reason = "this is the room that caps what is read")]
pub async fn read(body: Incoming, len_max: usize) -> Result<Bytes, String> {
    let read = Limited::new(body, len_max).collect().await;
    read.map(Collected::to_bytes).map_err(|why| why.to_string())
}
