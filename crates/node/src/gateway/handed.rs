//! Notices streams whose client takes nothing. Over HTTP/1.1 a write that stays pending
//! tells (`crate::io`); over HTTP/2 a client closes its window instead, and nothing is
//! written or polled at all, so somebody has to look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use seawall_model::{At, Millis};
use tokio::sync::Notify;

use crate::clock;

/// When one stream's last piece was handed on without the next being asked for, in
/// microseconds; 0 while it is the engine that is waited for.
#[derive(Debug, Default)]
pub struct Handed(AtomicU64);

impl Handed {
    /// The next piece is asked for. Says how long that took since the last was handed on.
    pub fn asked(&self) -> Millis {
        match self.0.swap(0, Ordering::Relaxed) {
            0 => Millis::ZERO,
            since => clock::now().since(At(since)),
        }
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
pub struct Streams(Mutex<Vec<(Weak<Handed>, Arc<Notify>)>>);

impl Streams {
    /// Watches one more; `cut` ends it.
    pub fn watch(&self, handed: &Arc<Handed>, cut: Arc<Notify>) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|(stream, _)| stream.strong_count() > 0);
        streams.push((Arc::downgrade(handed), cut));
    }

    /// Ends those that the client has left untaken for this long; how many?
    pub fn cut_stalled(&self, limit: Millis) -> usize {
        let now = clock::now();
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = streams.len();
        streams.retain(|(stream, cut)| {
            let stale = stream.upgrade().is_some_and(|handed| handed.stale(now, limit));
            if stale {
                cut.notify_one();
            }
            !stale
        });
        before - streams.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_on_and_not_asked_after_is_stale() {
        let streams = Streams::default();
        let handed = Arc::new(Handed::default());
        let watch = || streams.watch(&handed, Arc::default());
        watch();
        assert_eq!(streams.cut_stalled(Millis(0)), 0, "the engine is waited for");
        handed.gave();
        assert_eq!(streams.cut_stalled(Millis(60_000)), 0);
        assert_eq!(streams.cut_stalled(Millis(0)), 1);
        assert_eq!(streams.cut_stalled(Millis(0)), 0, "once is enough");
        watch();
        handed.asked();
        assert_eq!(streams.cut_stalled(Millis(0)), 0);
        handed.gave();
        drop(handed);
        assert_eq!(streams.cut_stalled(Millis(0)), 0, "it has ended");
    }
}
