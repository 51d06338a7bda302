//! The one room that reads a body to its end: always up to a limit.

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Limited};

/// A body read whole.
///
/// # Errors
/// It breaks off, or is longer than `len_max` bytes.
#[expect(clippy::disallowed_methods, reason = "this is the room that caps what is read")]
pub async fn read<B>(body: B, len_max: usize) -> Result<Bytes, String>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Limited::new(body, len_max).collect().await;
    read.map(Collected::to_bytes).map_err(|why| why.to_string())
}
