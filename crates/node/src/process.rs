//! This process: its figures as the operating system sees them, and its end when a part
//! that it cannot do without is gone.

use std::future::Future;

/// A few figures, zero where the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Bytes the allocator has handed out.
    pub allocated: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

impl Process {
    /// Reads them now. Takes some tens of microseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "procfs is memory, not a disk: reading it does not block")]
    pub fn read() -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self { resident: pages * 4_096, allocated: allocated(), descriptors }
    }
}

fn allocated() -> u64 {
    // jemalloc's figures are as of the last epoch.
    let _ = tikv_jemalloc_ctl::epoch::advance();
    tikv_jemalloc_ctl::stats::allocated::read().map_or(0, |bytes| bytes as u64)
}

/// The exit code of a fault of our own, from `sysexits.h`.
const SOFTWARE: i32 = 70;

/// Ends the process if it is dropped by a panic.
struct Vital<'a> {
    part: &'static str,
    end: &'a (dyn Fn(i32) + Sync),
}

impl Drop for Vital<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The last line: without this part the process is a torso that only a restart
            // mends, and draining would only put that off.
            tracing::error!(
                exit = SOFTWARE,
                "the {} ended in a panic (above); the process ends, to be started again",
                self.part
            );
            (self.end)(SOFTWARE);
        }
    }
}

fn exit(code: i32) {
    std::process::exit(code);
}

/// Runs a task that the process cannot do without: if it panics, the process exits with
/// code 70 at once.
pub async fn vital<F: Future>(part: &'static str, work: F) -> F::Output {
    let _guard = Vital { part, end: &exit };
    work.await
}

/// Does work that the process cannot do without, likewise.
pub fn vital_work<T>(part: &'static str, work: impl FnOnce() -> T) -> T {
    let _guard = Vital { part, end: &exit };
    work()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    #[test]
    fn a_part_that_panics_ends_the_process_and_one_that_ends_does_not() {
        let ended = AtomicI32::new(0);
        let end = |code| ended.store(code, Ordering::Relaxed);
        drop(Vital { part: "accept", end: &end });
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = Vital { part: "disk thread", end: &end };
            panic!("as the test wants it");
        }));
        assert!(panicked.is_err());
        assert_eq!(ended.load(Ordering::Relaxed), 70);
    }
}
