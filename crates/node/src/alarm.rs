//! The timer of something that decides: sleeps until the moment that it named last, and looks
//! again at once when it names an earlier one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seawall_model::At;
use tokio::sync::Notify;

/// When to wake.
#[derive(Debug, Default)]
pub struct Alarm {
    /// When [`Alarm::keep`] means to wake; 0 while it must look again.
    at: AtomicU64,
    bell: Notify,
}

impl Alarm {
    /// Says when to wake. For whoever is asked by [`Alarm::keep`], under the lock of what is
    /// woken, so that nothing is hastened between the look and the word.
    pub fn set(&self, wake: At) {
        self.at.store(wake.0, Ordering::Relaxed);
    }

    /// Says when to wake, if that is before what was said. Under the same lock.
    pub fn hasten(&self, wake: At) {
        // Only a wake earlier than the timer's own needs it to look again.
        if wake.0 < self.at.load(Ordering::Relaxed) {
            self.at.store(0, Ordering::Relaxed);
            self.bell.notify_one();
        }
    }

    /// Keeps time for ever: `look` says when to wake by [`Alarm::set`], `pause` how long that
    /// is from now, and `ring` is called when it has come.
    pub async fn keep(&self, look: impl Fn(), pause: impl Fn(At) -> Duration, ring: impl Fn()) {
        loop {
            look();
            // If it was hastened meanwhile, this is 0: it rings at once, which does no harm.
            let wake = At(self.at.load(Ordering::Relaxed));
            tokio::select! {
                () = tokio::time::sleep(pause(wake)) => ring(),
                () = self.bell.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_is_time_and_sooner_when_hastened() {
        let begun = tokio::time::Instant::now();
        let now = || u64::try_from(begun.elapsed().as_micros()).expect("soon");
        let (alarm, due, rings) = (Alarm::default(), AtomicU64::new(5_000_000), AtomicU32::new(0));
        let look = || alarm.set(At(due.load(Ordering::Relaxed)));
        let pause =
            |wake: At| Duration::from_micros(wake.0.saturating_sub(now())).min(Duration::from_secs(3_600));
        let ring = || {
            rings.fetch_add(1, Ordering::Relaxed);
            due.store(u64::MAX, Ordering::Relaxed);
        };
        let driven = async {
            // sleeps because time is what is tested; the clock is the test's own
            let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
            after(4).await;
            assert_eq!(rings.load(Ordering::Relaxed), 0, "not before its time");
            after(2).await;
            assert_eq!(rings.load(Ordering::Relaxed), 1);
            due.store(7_000_000, Ordering::Relaxed);
            alarm.hasten(At(7_000_000));
            after(2).await;
            assert_eq!(rings.load(Ordering::Relaxed), 2, "hastened from never");
        };
        tokio::select! {
            () = alarm.keep(look, pause, ring) => unreachable!("it keeps time for ever"),
            () = driven => {}
        }
    }
}
