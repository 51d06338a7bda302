//! A request body on its way to an engine.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;

use crate::memory::Hold;

/// A request body on its way to an engine.
#[derive(Debug)]
pub enum Sending {
    /// Held whole, so that it can be sent again. Empty bytes are no body.
    Whole(Bytes),
    /// Passed through as the client sends it.
    Through(Box<Through>),
}

/// A body passed through up to a limit.
pub struct Through {
    /// The client's body.
    pub body: Pin<Box<dyn Body<Data = Bytes, Error = UploadFailed> + Send>>,
    /// Bytes it may still send.
    pub left: u64,
    /// What it holds of the byte budget.
    pub hold: Hold,
}

impl std::fmt::Debug for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Through").field("left", &self.left).field("hold", &self.hold).finish_non_exhaustive()
    }
}

/// An upload that did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadFailed {
    /// It is larger than its limit.
    #[error("the upload is larger than the limit")]
    TooLarge,
    /// The client broke it off.
    #[error("the upload broke off")]
    Cut,
    /// The client sent it too slowly.
    #[error("the upload came too slowly")]
    Slow,
}

impl Sending {
    /// A body held whole; empty bytes are no body.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }

    /// No body.
    #[must_use]
    pub fn none() -> Self {
        Self::Whole(Bytes::new())
    }

    /// The same body once more, if it is held.
    pub(super) fn twin(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Through(_) => None,
        }
    }

    /// Its length, where it is known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Through(through) => through.body.size_hint().exact(),
        }
    }

    /// The next piece of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFailed>>> {
        let through = match self {
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => return Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Through(through) => through,
        };
        loop {
            let Some(frame) = std::task::ready!(through.body.as_mut().poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            // Trailers are dropped: no engine reads them.
            let Ok(data) = frame?.into_data() else { continue };
            let left = through.left.checked_sub(data.len() as u64);
            through.left = left.ok_or(UploadFailed::TooLarge)?;
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}
