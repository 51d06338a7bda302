//! What the engine has seen: counts, cancels and delays, for `/sim/state` and `/metrics`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use seawall_model::{At, limits};

/// Where a call was when its client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a slot.
    Queued,
    /// Streaming, before the first token.
    Prefill,
    /// Streaming, after the first token.
    Stream,
    /// Being answered in one piece.
    Unary,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Prefill => "prefill",
            Self::Stream => "stream",
            Self::Unary => "unary",
        }
    }
}

/// One client that left before the end.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    pub(super) id: String,
    pub(super) when: At,
    pub(super) phase: Phase,
    pub(super) tokens_sent: u32,
}

/// Upper bounds of the delay buckets in microseconds: vLLM's own for time to first token,
/// thinned out.
pub(super) const BUCKETS_US: [u64; 14] = [
    1_000,
    5_000,
    10_000,
    20_000,
    40_000,
    80_000,
    160_000,
    320_000,
    640_000,
    1_000_000,
    2_500_000,
    10_000_000,
    40_000_000,
    160_000_000,
];

/// A histogram of delays.
#[derive(Debug, Default)]
pub(super) struct Delays {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Delays {
    pub(super) fn add(&self, us: u64) {
        self.buckets[BUCKETS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Counts up to and including each bucket, the last for all, and the sum.
    pub(super) fn read(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        let mut total = 0;
        let counts = std::array::from_fn(|at| {
            total += self.buckets[at].load(Relaxed);
            total
        });
        (counts, self.sum_us.load(Relaxed))
    }
}

/// The counts. Each is its own atomic: readers want numbers, not a snapshot.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) started: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) cancelled: AtomicU64,
    /// Calls that broke in a crash.
    pub(super) broken: AtomicU64,
    /// Calls refused: faults, full queue, bad requests.
    pub(super) refused: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) stopped: AtomicU64,
    pub(super) cut_short: AtomicU64,
    pub(super) first_token: Delays,
    pub(super) token: Delays,
    pub(super) whole: Delays,
    cancels: Mutex<VecDeque<Cancel>>,
}

impl Ledger {
    /// Calls begun and not ended.
    pub(super) fn in_flight(&self) -> u64 {
        let ended = self.finished.load(Relaxed) + self.cancelled.load(Relaxed) + self.broken.load(Relaxed);
        self.started.load(Relaxed).saturating_sub(ended)
    }

    /// Keeps a cancel, dropping the oldest.
    pub(super) fn cancel(&self, cancel: Cancel) {
        self.cancelled.fetch_add(1, Relaxed);
        let mut cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        if cancels.len() >= limits::SIM_CANCELS_MAX {
            cancels.pop_front();
        }
        cancels.push_back(cancel);
    }

    /// The cancels kept, oldest first.
    pub(super) fn cancels(&self) -> Vec<Cancel> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Forgets what is over; calls in flight stay in the count.
    pub(super) fn reset(&self) {
        let open = self.in_flight();
        let zero = [
            &self.finished,
            &self.cancelled,
            &self.broken,
            &self.refused,
            &self.bytes,
            &self.prompt_tokens,
            &self.cached_tokens,
            &self.generated_tokens,
            &self.stopped,
            &self.cut_short,
        ];
        zero.into_iter().for_each(|count| count.store(0, Relaxed));
        self.started.store(open, Relaxed);
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
