//! What can go wrong between Seawall and its disk, each with what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or file cannot be opened or made.
    #[error("cannot open {}: {why} ({hint})", path.display())]
    NotOpen {
        /// What was being opened.
        path: PathBuf,
        /// The system's or SQLite's reason.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// Another process owns this store.
    #[error("{} is in use by {}: stop it, or choose another data folder with --data", path.display(), holder(*pid))]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// The owner's process id, if it wrote one.
        pid: Option<u32>,
    },
    /// The file was written by a newer Seawall.
    #[error(
        "{} has format {found}, this Seawall knows formats up to {known}: use the newer binary, or restore a backup",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: usize,
        /// The newest version this build knows.
        known: usize,
    },
    /// Another process kept the write lock for too long.
    #[error("another process kept the store's write lock for too long: try again")]
    Busy,
    /// The disk is full. Nothing of the transaction happened.
    #[error(
        "the disk is full: free space in the data folder, or keep call records and the journal for less long"
    )]
    Full,
    /// The file is damaged.
    #[error("the store is damaged: {why} (restore a backup, or move the file away and start anew)")]
    Corrupt {
        /// What was found.
        why: String,
    },
    /// A key with this id or secret exists already.
    #[error("a key with the id {id} or the same secret exists already")]
    KeyExists {
        /// The id asked for.
        id: String,
    },
    /// The store holds as many keys as it may.
    #[error("the store holds its limit of {max} keys: remove some that are revoked first")]
    KeysFull {
        /// [`seawall_model::limits::KEYS_MAX`].
        max: usize,
    },
    /// A name that cannot be stored.
    #[error("{what} cannot be stored: {why}")]
    BadName {
        /// The text at fault.
        what: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Somebody opened the shard since: whoever is refused here owns it no more.
    #[error("shard {shard} of the journal is in epoch {current}, and this was written in epoch {epoch}")]
    Fenced {
        /// The shard.
        shard: u8,
        /// The epoch of the record.
        epoch: u64,
        /// The shard's own; 0 if it was never opened.
        current: u64,
    },
    /// A record is not the next of its shard.
    #[error("record {found} cannot be appended to shard {shard} of the journal: {expected} is the next")]
    Gap {
        /// The shard.
        shard: u8,
        /// The next sequence.
        expected: u64,
        /// The record's.
        found: u64,
    },
    /// Something in the file is of a later form than this Seawall reads.
    #[error("{what} has form {found}, this Seawall knows forms up to {known}: use the newer binary")]
    NewerForm {
        /// What it is.
        what: &'static str,
        /// Its form.
        found: u8,
        /// The newest that this build knows.
        known: u8,
    },
    /// Too large to be kept at all.
    #[error("{bytes} bytes are more than the {max} that are kept of one payload")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// [`seawall_model::limits::PAYLOAD_BYTES_MAX`].
        max: u64,
    },
    /// Anything else that SQLite or the disk says.
    #[error("the store failed: {why}")]
    Failed {
        /// SQLite's own words.
        why: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// The opening of `path` failed in SQLite.
    pub(crate) fn not_open(path: &Path, error: &rusqlite::Error) -> Self {
        let hint = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => "it is no Seawall store: move it away, or restore a backup",
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                "check who owns the folder and whether it may be written"
            }
            _ => "check the disk under the data folder",
        };
        Self::NotOpen { path: path.to_owned(), why: error.to_string(), hint }
    }

    /// The same, as met while opening `path`: damage found then means that the file was
    /// never a store.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::Corrupt { why } => Self::NotOpen {
                path: path.to_owned(),
                why,
                hint: "it is damaged or no Seawall store: move it away, or restore a backup",
            },
            Self::Failed { why } => Self::NotOpen {
                path: path.to_owned(),
                why,
                hint: "check who owns the folder and whether it may be written",
            },
            other => other,
        }
    }

    /// A stored value that no version of Seawall writes.
    pub(crate) fn corrupt(why: impl Into<String>) -> Self {
        Self::Corrupt { why: why.into() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::corrupt(error.to_string()),
            Some(_) => Self::Failed { why: error.to_string() },
            None => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => Self::corrupt(error.to_string()),
                other => Self::Failed { why: other.to_string() },
            },
        }
    }
}

impl From<rusqlite::types::FromSqlError> for Error {
    /// A column of another type than was written.
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::corrupt(error.to_string())
    }
}
