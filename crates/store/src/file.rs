//! The data folder on disk: who may read it, and which process owns it.
//!
//! The lock is a file of its own beside the database: SQLite's own locks are per file
//! and process, and opening the database a second time would drop them.
#![expect(clippy::disallowed_methods, reason = "the data folder is made and locked here, on the disk thread")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::Error;

/// The database's name in the data folder.
pub(crate) const NAME: &str = "seawall.db";
/// The name of the file that the owner holds locked; it contains the owner's process id.
pub(crate) const LOCK_NAME: &str = "seawall.lock";
/// A process id has at most this many digits: what is read of the lock file.
const PID_LEN_MAX: u64 = 20;

/// Makes the folder, for its owner's eyes only. A folder that exists keeps its mode.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| refused(dir, &error))
}

/// Makes the database file for its owner's eyes only; SQLite gives the files beside it
/// the same mode. A file that exists is tightened.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => tighten(path),
        Err(error) => Err(refused(path, &error)),
    }
}

/// Takes the owner's lock of this name on `dir`, or says who holds it. Dropping the file
/// gives it up.
pub(crate) fn lock(dir: &Path, name: &str) -> Result<File, Error> {
    let path = dir.join(name);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    let mut file = options.open(&path).map_err(|error| refused(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The owner may be writing it this moment; then nobody is named.
            let read = file.take(PID_LEN_MAX).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::InUse { path, pid });
        }
        Err(TryLockError::Error(error)) => return Err(refused(&path, &error)),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| refused(&path, &error))?;
    Ok(file)
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(not(unix))]
fn private(_: &mut OpenOptions) {}

#[cfg(unix)]
fn tighten(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|error| refused(path, &error))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| refused(path, &error))
}

#[cfg(not(unix))]
fn tighten(_: &Path) -> Result<(), Error> {
    Ok(())
}

fn refused(path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::StorageFull {
        return Error::Full;
    }
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "check who owns the folder, or choose another with --data",
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only: choose another folder with --data",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in the way",
        _ => "check the disk under the data folder",
    };
    Error::NotOpen { path: path.to_owned(), why: error.to_string(), hint }
}
