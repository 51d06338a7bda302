//! Notices streams whose client takes nothing. Over HTTP/1.1 a write that stays pending
//! tells (`crate::io`); over HTTP/2 a client closes its window instead, and nothing is
//! written or polled at all, so somebody has to look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use seawall_model::{At, Millis};

use crate::clock;

/// When one stream's last piece was handed on without the next being asked for, in
/// microseconds; 0 while it is the engine that is waited for.
#[derive(Debug, Default)]
pub struct Handed(AtomicU64);

impl Handed {
    /// The next piece is asked for.
    pub fn asked(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A piece was handed on.
    pub fn gave(&self) {
        self.0.store(clock::now().0, Ordering::Relaxed);
    }

    /// How much of the limit is left; all of it while it is the other side that is
    /// waited for.
    #[must_use]
    pub fn left(&self, now: At, limit: Millis) -> Millis {
        match self.0.load(Ordering::Relaxed) {
            0 => limit,
            since => limit.saturating_sub(now.since(At(since))),
        }
    }

    fn stale(&self, now: At, limit: Millis) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && now.since(At(since)) >= limit
    }
}

/// The streams of one connection. Bounded by the streams it may have open.
#[derive(Debug, Default)]
pub struct Streams(Mutex<Vec<Weak<Handed>>>);

impl Streams {
    /// Watches one more.
    pub fn watch(&self, handed: &Arc<Handed>) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(handed));
    }

    /// Has a client left one untaken for this long?
    #[must_use]
    pub fn stalled(&self, limit: Millis) -> bool {
        let now = clock::now();
        let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().filter_map(Weak::upgrade).any(|handed| handed.stale(now, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_on_and_not_asked_after_is_stale() {
        let streams = Streams::default();
        let handed = Arc::new(Handed::default());
        streams.watch(&handed);
        assert!(!streams.stalled(Millis(0)), "the engine is waited for");
        handed.gave();
        assert!(streams.stalled(Millis(0)));
        assert!(!streams.stalled(Millis(60_000)));
        handed.asked();
        assert!(!streams.stalled(Millis(0)));
        handed.gave();
        drop(handed);
        assert!(!streams.stalled(Millis(0)), "it has ended");
    }
}
