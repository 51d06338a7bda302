//! Payloads too large for a record: files named by the SHA-256 of what is in them.
//!
//! A blob is on the disk, under its name, before anything can name it: written to a file
//! of its own, synced, renamed, and the folder synced. The same content is kept once. A
//! [`Blobs`] is a handle that any thread may use; the journal's thread sweeps away what
//! nothing names any more (see `sweep`).
#![expect(clippy::disallowed_methods, reason = "blobs are files, written and read off the async threads")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall_model::{Payload, limits};
use sha2::{Digest as _, Sha256};

use super::codec::Digest;
use crate::Error;

/// The folder of blobs in the data folder.
const FOLDER: &str = "blobs";
/// The folder in it for files that are being written.
const UNFINISHED: &str = "new";

/// The SHA-256 of some bytes.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A digest from its 64 hex digits.
fn unhex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// The store of large payloads. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` keeps them in memory.
    folder: Option<PathBuf>,
    books: Mutex<Books>,
}

/// What is known of blobs in this process.
#[derive(Debug, Default)]
struct Books {
    /// Those in memory, where there is no folder.
    held: BTreeMap<Digest, Arc<[u8]>>,
    /// Put since the present sweep began, and in the one before: the record that will
    /// name them may be on its way still.
    fresh: BTreeSet<Digest>,
    stale: BTreeSet<Digest>,
    /// More were put than is remembered: nothing may be swept until they are old.
    overflowed: bool,
    was_overflowed: bool,
    /// Bytes of all blobs, once they have been counted.
    bytes: Option<u64>,
    /// Files begun.
    begun: u64,
}

impl Blobs {
    /// The blobs of a data folder, to read from and, for the journal's owner, to put
    /// into.
    pub(super) fn at(data: &Path) -> Self {
        Self::new(Some(data.join(FOLDER)))
    }

    pub(super) fn in_memory() -> Self {
        Self::new(None)
    }

    fn new(folder: Option<PathBuf>) -> Self {
        let bytes = folder.is_none().then_some(0);
        let books = Mutex::new(Books { bytes, ..Books::default() });
        Self { inner: Arc::new(Inner { folder, books }) }
    }

    /// Makes the folders, and removes what a crash left half written.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        let Some(folder) = &self.inner.folder else { return Ok(()) };
        let unfinished = folder.join(UNFINISHED);
        crate::file::make_dir(&unfinished)?;
        for entry in fs::read_dir(&unfinished).map_err(|error| failed(&unfinished, &error))? {
            let path = entry.map_err(|error| failed(&unfinished, &error))?.path();
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
        }
        sync_dir(folder)
    }

    /// Keeps `bytes` and answers with what to name them by: themselves where they are
    /// small enough for a record, else a blob, which is on the disk by then. What is not
    /// named by a record before the next but one sweep begins is gone.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`limits::PAYLOAD_BYTES_MAX`], [`Error::Full`] if the
    /// disk is.
    pub fn put(&self, bytes: Vec<u8>) -> Result<Payload, Error> {
        let len = bytes.len() as u64;
        if len <= limits::PAYLOAD_BYTES_INLINE {
            return Ok(bytes.into());
        }
        if len > limits::PAYLOAD_BYTES_MAX {
            return Err(Error::TooLarge { bytes: len, max: limits::PAYLOAD_BYTES_MAX });
        }
        let digest = digest(&bytes);
        let number = {
            let mut books = self.books();
            if books.fresh.len() < limits::BLOBS_FRESH_MAX {
                books.fresh.insert(digest);
            } else {
                books.overflowed = true;
            }
            books.begun += 1;
            books.begun
        };
        match &self.inner.folder {
            Some(folder) => self.write(folder, &digest, &bytes, number)?,
            None => {
                let mut books = self.books();
                if books.held.insert(digest, bytes.into()).is_none() {
                    books.grow(len);
                }
            }
        }
        Ok(Payload::Blob { digest, len })
    }

    fn write(&self, folder: &Path, digest: &Digest, bytes: &[u8], number: u64) -> Result<(), Error> {
        let name = hex(digest);
        let shelf = folder.join(&name[..2]);
        let path = shelf.join(&name);
        // It is whole: only whole files are renamed to such a name. Whoever put it may
        // not have come to the folder's sync yet.
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return sync_dir(&shelf);
        }
        if !shelf.is_dir() {
            crate::file::make_dir(&shelf)?;
            sync_dir(folder)?;
        }
        let unfinished = folder.join(UNFINISHED).join(format!("{name}.{number}"));
        let written = write_synced(&unfinished, bytes).and_then(|()| {
            // Under the lock: two who put the same content at once are counted once.
            let mut books = self.books();
            let known = path.exists();
            fs::rename(&unfinished, &path)?;
            if !known {
                books.grow(bytes.len() as u64);
            }
            Ok(())
        });
        if let Err(error) = written {
            // Its room is wanted; if even this fails, the next start removes it.
            let _ = fs::remove_file(&unfinished);
            return Err(failed(&path, &error));
        }
        sync_dir(&shelf)
    }

    /// The bytes of a payload, wherever they are.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the blob is missing or is not what its name says.
    pub fn open(&self, payload: &Payload) -> Result<Arc<[u8]>, Error> {
        let (wanted, len) = match payload {
            Payload::Here(bytes) => return Ok(Arc::clone(bytes)),
            Payload::Blob { digest, len } => (digest, *len),
        };
        let damaged = |why: &str| Error::corrupt(format!("blob {}: {why}", hex(wanted)));
        let Some(folder) = &self.inner.folder else {
            return self.books().held.get(wanted).cloned().ok_or_else(|| damaged("it is not there"));
        };
        let name = hex(wanted);
        let path = folder.join(&name[..2]).join(&name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is not there")),
            Err(error) => return Err(failed(&path, &error)),
        };
        let mut bytes = Vec::new();
        // One byte more than it should have shows that it is too long.
        let read = file.take(len.min(limits::PAYLOAD_BYTES_MAX) + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed(&path, &error))?;
        if bytes.len() as u64 != len || digest(&bytes) != *wanted {
            return Err(damaged("its content is not what its name says"));
        }
        Ok(bytes.into())
    }

    /// Bytes of all blobs as of this moment; `None` until the journal's owner counted them.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        self.books().bytes
    }

    /// Bytes of all blobs. Counts them at first use.
    pub(super) fn bytes(&self) -> Result<u64, Error> {
        if let Some(bytes) = self.books().bytes {
            return Ok(bytes);
        }
        let mut bytes = 0;
        for shelf in 0..=u8::MAX {
            bytes += self.shelf(shelf)?.iter().map(|(_, len)| len).sum::<u64>();
        }
        // What was put while counting may be counted twice or not at all: a few blobs,
        // which the next sweep puts right.
        self.books().bytes = Some(bytes);
        Ok(bytes)
    }

    /// A sweep begins: what was put before the last one did is no longer fresh.
    pub(super) fn age(&self) {
        let mut books = self.books();
        books.stale = std::mem::take(&mut books.fresh);
        books.was_overflowed = std::mem::take(&mut books.overflowed);
    }

    /// Removes the blobs of one shelf (those whose digest begins with this byte) that
    /// are neither named nor fresh; answers with how many there were, and their bytes.
    pub(super) fn sweep(&self, shelf: u8, named: &BTreeSet<Digest>) -> Result<(u64, u64), Error> {
        let mut swept = (0, 0);
        for (digest, len) in self.shelf(shelf)? {
            // Under the lock: whoever puts the same content again waits, and then finds
            // that it is gone.
            let mut books = self.books();
            let kept = books.fresh.contains(&digest) || books.stale.contains(&digest);
            if kept || books.overflowed || books.was_overflowed || named.contains(&digest) {
                continue;
            }
            match &self.inner.folder {
                Some(folder) => {
                    let name = hex(&digest);
                    let path = folder.join(&name[..2]).join(&name);
                    fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
                }
                None => drop(books.held.remove(&digest)),
            }
            books.bytes = books.bytes.map(|bytes| bytes.saturating_sub(len));
            swept = (swept.0 + 1, swept.1 + len);
        }
        Ok(swept)
    }

    fn shelf(&self, shelf: u8) -> Result<Vec<(Digest, u64)>, Error> {
        let Some(folder) = &self.inner.folder else {
            let books = self.books();
            let held = books.held.iter().filter(|(digest, _)| digest[0] == shelf);
            return Ok(held.map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect());
        };
        let path = folder.join(format!("{shelf:02x}"));
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&path, &error)),
        };
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&path, &error))?;
            // Whatever else lies here is not ours to count or remove.
            let Some(digest) = entry.file_name().to_str().and_then(unhex) else { continue };
            let found = entry.metadata().map_err(|error| failed(&path, &error))?;
            blobs.push((digest, found.len()));
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Each change of the books is whole before anything can panic.
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn grow(&mut self, len: u64) {
        self.bytes = self.bytes.map(|bytes| bytes + len);
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a folder durable.
fn sync_dir(path: &Path) -> Result<(), Error> {
    // Elsewhere a folder cannot be opened as a file, and names are durable by themselves.
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| failed(path, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        // A limit on the sizes of files is as full as a disk is.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::Full
        }
        _ => Error::Failed { why: format!("{}: {error}", path.display()) },
    }
}
