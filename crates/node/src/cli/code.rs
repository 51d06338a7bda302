//! Exit codes, as in BSD's `sysexits.h`, so that scripts and supervisors can tell why.

/// All went well.
pub const OK: i32 = 0;
/// What was asked about is not well, not there or not allowed: a run that failed, a journal
/// that was changed, a name that nobody knows, a refusal.
pub const NOT_WELL: i32 = 1;
/// The command line or the configuration is wrong; starting again will not help.
pub const USAGE: i32 = 64;
/// Something that is needed does not answer or is in use.
pub const UNAVAILABLE: i32 = 69;
/// A fault of Seawall itself.
pub const INTERNAL: i32 = 70;
/// A file or directory cannot be made or opened.
pub const CANT_CREATE: i32 = 73;
/// Reading or writing failed.
pub const IO: i32 = 74;
/// A person ended the command with Ctrl-C (128 and the number of the signal, as shells have it).
pub const INTERRUPTED: i32 = 130;
