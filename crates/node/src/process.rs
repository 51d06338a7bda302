//! This process: its figures as the operating system sees them, and whether every
//! part that it cannot do without still runs.

use std::future::Future;
use std::sync::OnceLock;

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

/// Which long-lived part panicked first, if one did. The process is then a torso that
/// only a restart mends: `/healthz` says so to whoever supervises it.
#[derive(Debug, Default)]
struct Vitals(OnceLock<&'static str>);

static VITALS: Vitals = Vitals(OnceLock::new());

impl Vitals {
    /// A guard that reports `part` if it is dropped by a panic.
    fn guard(&self, part: &'static str) -> Vital<'_> {
        Vital { vitals: self, part }
    }

    fn lost(&self) -> Option<&'static str> {
        self.0.get().copied()
    }
}

struct Vital<'a> {
    vitals: &'a Vitals,
    part: &'static str,
}

impl Drop for Vital<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first one counts; others may follow from it.
            let _ = self.vitals.0.set(self.part);
            tracing::error!("the {} has ended in a panic; restart the process", self.part);
        }
    }
}

/// The part that ended in a panic, such as `disk thread`.
#[must_use]
pub fn lost() -> Option<&'static str> {
    VITALS.lost()
}

/// Runs a task that the process cannot do without.
pub async fn vital<F: Future>(part: &'static str, work: F) -> F::Output {
    let _guard = VITALS.guard(part);
    work.await
}

/// Runs the work of a thread that the process cannot do without.
pub fn vital_thread(part: &'static str, work: impl FnOnce()) {
    let _guard = VITALS.guard(part);
    work();
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_first_part_that_panics_is_named_and_one_that_ends_is_not() {
        let vitals = Vitals::default();
        drop(vitals.guard("accept"));
        assert_eq!(vitals.lost(), None);
        for part in ["disk thread", "timer"] {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let _guard = vitals.guard(part);
                panic!("as the test wants it");
            }));
            assert!(ended.is_err());
        }
        assert_eq!(vitals.lost(), Some("disk thread"));
    }
}
