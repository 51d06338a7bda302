//! The one room that reads the clock. Everything else is told the time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use seawall_model::At;

/// The wall clock as it stood at the first reading, and the steady clock beside it.
/// Time then runs on the steady clock: it never jumps back when NTP steps the wall.
static ORIGIN: OnceLock<(u64, Instant)> = OnceLock::new();

#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
fn origin() -> (u64, Instant) {
    *ORIGIN.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        (u64::try_from(wall).unwrap_or(0), Instant::now())
    })
}

/// Microseconds since the Unix epoch, never running backwards.
#[must_use]
pub fn now() -> At {
    let (wall, steady) = origin();
    At(wall + elapsed(steady))
}

/// The tokio instant at which `at` is reached.
#[must_use]
pub fn instant(at: At) -> tokio::time::Instant {
    let (wall, steady) = origin();
    // A year ahead stands for "never": an instant that far cannot overflow.
    let ahead = at.0.saturating_sub(wall).min(366 * 86_400 * 1_000_000 + elapsed(steady));
    tokio::time::Instant::from_std(steady + std::time::Duration::from_micros(ahead))
}

#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(0)
}
