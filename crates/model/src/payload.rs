//! Content that is carried and never looked at: tasks, answers, messages, notes.

use std::fmt;
use std::sync::Arc;

/// Bytes, here or in the blob store. Cheap to clone. Its `Debug` shows sizes only (I11).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Payload {
    /// The bytes themselves, at most [`crate::limits::PAYLOAD_BYTES_INLINE`].
    Here(Arc<[u8]>),
    /// Larger ones lie in the blob store under the digest of their content.
    Blob {
        /// SHA-256 of the content.
        digest: [u8; 32],
        /// Its length in bytes.
        len: u64,
    },
}

impl Payload {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::Here(Arc::from(&[][..]))
    }

    /// A short text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Here(Arc::from(text.as_bytes()))
    }

    /// Its length in bytes, wherever it is.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Blob { len, .. } => *len,
        }
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are here.
    #[must_use]
    pub fn here(&self) -> Option<&[u8]> {
        match self {
            Self::Here(bytes) => Some(bytes),
            Self::Blob { .. } => None,
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Here(bytes.into())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(bytes) => write!(f, "{} B", bytes.len()),
            Self::Blob { len, .. } => write!(f, "{len} B in a blob"),
        }
    }
}
