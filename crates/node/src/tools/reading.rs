//! Answers of tools, read up to a limit; unlike [`crate::body`] it tells a body that is too
//! large, of which the model is told, from one that broke off, which may be asked for again.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::upstream::Coming;

/// A body that was not read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is longer than the limit.
    TooLarge,
    /// It broke off, why.
    Broke(String),
}

/// The whole body, at most `len_max` bytes. A longer one is closed.
pub(super) async fn whole(mut coming: Coming, len_max: usize) -> Result<Bytes, Unread> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = coming.frame().await {
        let frame = frame.map_err(|why| Unread::Broke(why.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > len_max {
            return Err(Unread::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Its start, at most `len_max` bytes; the rest is not waited for.
pub(super) async fn start(mut coming: Coming, len_max: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < len_max
        && let Some(Ok(frame)) = coming.frame().await
    {
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data[..data.len().min(len_max - bytes.len())]);
    }
    bytes.freeze()
}
