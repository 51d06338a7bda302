//! The byte budget of everything in flight: request bodies, stream windows, answers
//! held for translation. A call that would go over it is refused, never the process
//! killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seawall_model::Bytes;

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    held: AtomicU64,
    limit: AtomicU64,
}

/// Bytes held until dropped.
#[derive(Debug)]
pub struct Hold {
    memory: Memory,
    bytes: u64,
}

impl Memory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: Bytes) -> Self {
        Self(Arc::new(Inner { held: AtomicU64::new(0), limit: AtomicU64::new(limit.0) }))
    }

    /// Changes the limit; what is held stays held.
    pub fn resize(&self, limit: Bytes) {
        self.0.limit.store(limit.0, Ordering::Relaxed);
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> Bytes {
        Bytes(self.0.held.load(Ordering::Relaxed))
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Bytes {
        Bytes(self.0.limit.load(Ordering::Relaxed))
    }

    /// Holds so many bytes, or `None` if the budget has no room for them.
    #[must_use]
    pub fn hold(&self, bytes: u64) -> Option<Hold> {
        let mut hold = Hold { memory: self.clone(), bytes: 0 };
        hold.grow(bytes).then_some(hold)
    }
}

impl Hold {
    /// Holds more; `false` (and unchanged) if there is no room.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let inner = &self.memory.0;
        let limit = inner.limit.load(Ordering::Relaxed);
        let took = inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        if took.is_ok() {
            self.bytes += bytes;
        }
        took.is_ok()
    }

    /// How many are held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is held above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.memory.0.held.fetch_sub(excess, Ordering::Relaxed);
        self.bytes -= excess;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back() {
        let memory = Memory::new(Bytes(100));
        let mut first = memory.hold(60).expect("fits");
        assert!(memory.hold(60).is_none());
        assert!(!first.grow(41));
        assert!(first.grow(40));
        first.shrink_to(10);
        assert_eq!(memory.held(), Bytes(10));
        drop(first);
        assert_eq!(memory.held(), Bytes(0));
    }
}
