//! This process as the operating system sees it.

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
