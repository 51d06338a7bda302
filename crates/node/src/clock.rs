//! The one room that reads the clock. Everything else is told the time.
//!
//! Two readings. [`now`] is what decisions go by: it runs on the steady clock and never
//! jumps or runs backwards, so that no wait is cut short or drawn out. Every so often it is
//! held against the wall clock ([`look_at_wall`]); where NTP has stepped the wall, or the
//! machine slept, it runs a tenth faster or slower until both agree again. [`wall`] is what
//! people read: log lines and records carry the wall's time at once.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use seawall_model::At;

/// While it catches up, time runs faster or slower by one part in this many: timers are
/// then off by as little, and an hour's step is made good within ten.
const CATCH_UP: i64 = 10;

/// The steady clock's reading to which all others are relative, and the clock beside it.
static ORIGIN: OnceLock<(Instant, Clock)> = OnceLock::new();

/// Time as a straight line from an anchor on, bent while it catches up. All in
/// microseconds; `steady` counts from the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    /// When the anchor was set.
    steady: u64,
    /// What was shown then.
    shown: u64,
    /// How far the wall was ahead of it (or, below zero, behind).
    ahead: i64,
}

impl Anchor {
    /// How much of the gap has been made good at `steady`.
    fn caught_up(&self, steady: u64) -> i64 {
        let reach = i64::try_from(steady.saturating_sub(self.steady)).unwrap_or(i64::MAX) / CATCH_UP;
        self.ahead.clamp(-reach, reach)
    }

    /// The time to decide by. Rises with `steady`, always.
    fn at(&self, steady: u64) -> u64 {
        let straight = self.shown + steady.saturating_sub(self.steady);
        straight.saturating_add_signed(self.caught_up(steady))
    }

    /// How far the wall is still ahead.
    fn gap(&self, steady: u64) -> i64 {
        self.ahead - self.caught_up(steady)
    }

    /// The anchor from here on, given what the wall shows.
    fn moved(&self, steady: u64, wall: u64) -> Self {
        let shown = self.at(steady);
        Self { steady, shown, ahead: wall.cast_signed().saturating_sub(shown.cast_signed()) }
    }
}

/// The present anchor, read by everybody all the time and written now and then: a counter
/// that is odd during a write tells readers to look again (a sequence lock), so that
/// reading costs three loads and no reader ever waits for another.
#[derive(Debug)]
struct Clock {
    writes: AtomicU64,
    steady: AtomicU64,
    shown: AtomicU64,
    ahead: AtomicI64,
    writer: Mutex<()>,
}

impl Clock {
    fn new(wall: u64) -> Self {
        Self {
            writes: AtomicU64::new(0),
            steady: AtomicU64::new(0),
            shown: AtomicU64::new(wall),
            ahead: AtomicI64::new(0),
            writer: Mutex::new(()),
        }
    }

    fn load(&self) -> Anchor {
        Anchor {
            steady: self.steady.load(Ordering::Relaxed),
            shown: self.shown.load(Ordering::Relaxed),
            ahead: self.ahead.load(Ordering::Relaxed),
        }
    }

    /// The anchor, and the steady clock as `read` while it held: a moment read under an
    /// older anchor than the next one's could lie ahead of it.
    fn anchor(&self, read: impl Fn() -> u64) -> (Anchor, u64) {
        loop {
            let before = self.writes.load(Ordering::Acquire);
            let (anchor, steady) = (self.load(), read());
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.writes.load(Ordering::Relaxed) == before {
                return (anchor, steady);
            }
            std::hint::spin_loop();
        }
    }

    /// Takes a look at the wall: `read` gives the steady clock and the wall.
    fn look(&self, read: impl FnOnce() -> (u64, u64)) -> i64 {
        let _alone = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Odd before the clocks are read: from here on no reader takes the old anchor.
        self.writes.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let (steady, wall) = read();
        let anchor = self.load().moved(steady, wall);
        self.steady.store(anchor.steady, Ordering::Relaxed);
        self.shown.store(anchor.shown, Ordering::Relaxed);
        self.ahead.store(anchor.ahead, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Release);
        anchor.ahead
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
fn origin() -> &'static (Instant, Clock) {
    ORIGIN.get_or_init(|| (Instant::now(), Clock::new(read_wall())))
}

#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
fn read_wall() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    u64::try_from(wall).unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(0)
}

/// Microseconds since the Unix epoch, never running backwards and never jumping: the time
/// to decide by.
#[must_use]
pub fn now() -> At {
    let (origin, clock) = origin();
    let (anchor, steady) = clock.anchor(|| elapsed(*origin));
    At(anchor.at(steady))
}

/// What the wall clock showed at a moment that [`now`] gave, as far as the last look at it
/// tells: the time for people to read. Exact for moments since the last step of the wall.
#[must_use]
pub fn wall(at: At) -> At {
    let (origin, clock) = origin();
    let (anchor, steady) = clock.anchor(|| elapsed(*origin));
    At(at.0.saturating_add_signed(anchor.gap(steady)))
}

/// Holds the time against the wall clock; says by how many microseconds the wall is ahead.
/// To be called now and then.
pub fn look_at_wall() -> i64 {
    let (origin, clock) = origin();
    clock.look(|| (elapsed(*origin), read_wall()))
}

/// The tokio instant at which `at` is reached, off by a tenth of the time until then at
/// most while the clock catches up.
#[must_use]
pub fn instant(at: At) -> tokio::time::Instant {
    // A year ahead stands for "never": an instant that far cannot overflow.
    let ahead = at.0.saturating_sub(now().0).min(366 * 86_400 * 1_000_000);
    tokio::time::Instant::now() + std::time::Duration::from_micros(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_step_of_the_wall_is_made_good_by_a_tenth_and_time_never_turns() {
        for step in [-3_600_i64, -1, 0, 1, 3_600].map(|secs| secs * SECOND as i64) {
            let start = Anchor { steady: 0, shown: 10_000 * SECOND, ahead: 0 };
            let wall = |steady: u64| (10_000 * SECOND + steady).saturating_add_signed(step);
            let mut anchor = start.moved(5 * SECOND, wall(5 * SECOND));
            let mut last = anchor.at(5 * SECOND);
            for second in 6..40_000_u64 {
                let steady = second * SECOND;
                let shown = anchor.at(steady);
                let ran = shown - last;
                assert!((SECOND * 9 / 10..=SECOND * 11 / 10).contains(&ran), "{step}: ran {ran}");
                assert_eq!(
                    shown.saturating_add_signed(anchor.gap(steady)),
                    wall(steady),
                    "people see the wall"
                );
                // Looking again on the way changes nothing.
                if second % 7 == 0 {
                    anchor = anchor.moved(steady, wall(steady));
                }
                last = shown;
            }
            assert_eq!(last, wall(39_999 * SECOND), "{step}: caught up");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    fn readers_beside_a_writer_see_whole_anchors_and_rising_time() {
        let clock = Clock::new(0);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000_u64 {
                    // The wall swings by a second around the truth.
                    let swing = if round.is_multiple_of(2) { 0 } else { 2 * SECOND };
                    clock.look(|| (elapsed(begun), elapsed(begun) + swing));
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    for _ in 0..50_000 {
                        let (anchor, steady) = clock.anchor(|| elapsed(begun));
                        let shown = anchor.at(steady);
                        assert!(shown >= last, "{shown} after {last}");
                        last = shown;
                    }
                });
            }
        });
    }

    #[test]
    fn the_wall_as_read_is_the_wall() {
        look_at_wall();
        let shown = wall(now()).0;
        assert!(read_wall().abs_diff(shown) < 5 * SECOND);
    }

    #[test]
    fn a_moment_ahead_is_reached_by_then() {
        let soon = instant(At(now().0 + SECOND));
        let left = soon.saturating_duration_since(tokio::time::Instant::now());
        assert!(left > std::time::Duration::from_millis(800) && left <= std::time::Duration::from_secs(1));
        let never = instant(At::MAX);
        assert!(never > soon);
    }
}
