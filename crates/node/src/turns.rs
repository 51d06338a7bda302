//! Whose turn it is on a client's connection. A client that owes the rest of a request
//! gets little time, one that rests between two requests gets more, and while a request
//! is being answered this clock stands still: the stall guards watch then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use seawall_model::{At, Millis, limits};

/// The state of one connection. One task reads and writes it, so no ordering is needed
/// between the fields.
#[derive(Debug)]
pub struct Turns {
    /// Requests being answered.
    busy: AtomicU32,
    /// When the last answer ended, in microseconds.
    rests_since: AtomicU64,
    /// When the next head began to come; 0 before its first byte.
    head_since: AtomicU64,
    /// HTTP/2: then frames come between requests too, and are no sign of one.
    framed: AtomicBool,
}

/// A request being answered, until it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Turns>, fn() -> At);

impl Turns {
    /// A connection accepted now, which owes its first request.
    #[must_use]
    pub fn new(now: At) -> Self {
        let (busy, rests_since) = (AtomicU32::new(0), AtomicU64::new(now.0));
        let head_since = AtomicU64::new(now.0.max(1));
        Self { busy, rests_since, head_since, framed: AtomicBool::new(false) }
    }

    /// The client said something.
    pub fn heard(&self, now: impl Fn() -> At) {
        let resting = self.busy.load(Ordering::Relaxed) == 0;
        if resting && !self.framed.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(now().0.max(1), Ordering::Relaxed);
        }
    }

    /// The client took something: what hyper still held of an answer, if that has ended.
    pub fn told(&self, now: impl Fn() -> At) {
        if self.busy.load(Ordering::Relaxed) == 0 {
            self.rests_since.store(now().0, Ordering::Relaxed);
        }
    }

    /// How long ago the last answer went out; 0 while there is one to give.
    #[must_use]
    pub fn rested(&self, now: At) -> Millis {
        match self.busy.load(Ordering::Relaxed) {
            0 => now.since(At(self.rests_since.load(Ordering::Relaxed))),
            _ => Millis(0),
        }
    }

    /// A request's head is whole. `framed`: by HTTP/2? `clock` tells when the answer will
    /// have ended.
    #[must_use]
    pub fn begin(self: &Arc<Self>, framed: bool, clock: fn() -> At) -> Turn {
        self.framed.store(framed, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Turn(self.clone(), clock)
    }

    /// Until when nothing need be done about this connection. Once that has passed, it
    /// has rested or dawdled for too long.
    #[must_use]
    pub fn due(&self, now: At) -> At {
        if self.busy.load(Ordering::Relaxed) > 0 {
            return now.plus(Millis(limits::HEADER_WAIT_MS_MAX));
        }
        let rest = At(self.rests_since.load(Ordering::Relaxed)).plus(Millis(limits::CLIENT_IDLE_MS_MAX));
        match self.head_since.load(Ordering::Relaxed) {
            0 => rest,
            since => At(since).plus(Millis(limits::HEADER_WAIT_MS_MAX)),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.rests_since.store((self.1)().0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: u64 = limits::HEADER_WAIT_MS_MAX * 1_000;
    const REST: u64 = limits::CLIENT_IDLE_MS_MAX * 1_000;

    #[test]
    fn a_head_is_awaited_briefly_and_a_rest_longer() {
        let turns = Arc::new(Turns::new(At(5)));
        assert_eq!(turns.due(At(9)), At(5 + HEAD), "the first request is owed at once");
        let turn = turns.begin(false, || At(1_000));
        assert_eq!(turns.rested(At(900_000)), Millis(0));
        assert_eq!(turns.due(At(700)), At(700 + HEAD), "an answer may take as long as it takes");
        drop(turn);
        assert_eq!(turns.due(At(2_000)), At(1_000 + REST));
        turns.told(|| At(1_500));
        assert_eq!(turns.due(At(2_000)), At(1_500 + REST), "the last of an answer is still going");
        assert_eq!(turns.rested(At(9_500)), Millis(8));
        turns.heard(|| At(3_000));
        turns.heard(|| At(4_000));
        assert_eq!(turns.due(At(5_000)), At(3_000 + HEAD), "byte after byte does not help");
        let turn = turns.begin(true, || At(9_000));
        turns.heard(|| At(9_500));
        assert_eq!(turns.due(At(9_600)), At(9_600 + HEAD), "a body is not a head");
        drop(turn);
        turns.heard(|| At(9_900));
        assert_eq!(turns.due(At(9_900)), At(9_000 + REST), "a ping is not a head");
    }
}
