//! How fast a tool server is listened to. One that talks without end, be it by mistake, is
//! held back by its own full pipe, and takes no more than a small part of a core.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use seawall_model::limits::{TOOL_BYTES_PER_SECOND, TOOL_LINES_PER_SECOND};
use tokio::time::{Instant, Sleep};

/// After silence so much is heard at once.
const BURST: Duration = Duration::from_secs(1);

/// The pace of one stream.
#[derive(Debug)]
pub(super) struct Pace {
    lines: u64,
    bytes: u64,
    /// What was heard so far is paid for then.
    paid: Instant,
    resting: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// That of messages.
    pub(super) fn of_messages() -> Self {
        Self::new(TOOL_LINES_PER_SECOND, TOOL_BYTES_PER_SECOND)
    }

    /// So many lines and bytes a second.
    pub(super) fn new(lines: u64, bytes: u64) -> Self {
        let now = Instant::now();
        Self { lines, bytes, paid: now.checked_sub(BURST).unwrap_or(now), resting: None }
    }

    /// Something was heard.
    pub(super) fn heard(&mut self, lines: usize, bytes: usize) {
        let micros = |count: usize, rate: u64| (count as u64).saturating_mul(1_000_000) / rate.max(1);
        let cost = micros(lines, self.lines).max(micros(bytes, self.bytes));
        let now = Instant::now();
        let since = now.checked_sub(BURST).unwrap_or(now);
        self.paid = self.paid.max(since) + Duration::from_micros(cost);
        if self.paid > now {
            self.resting = Some(Box::pin(tokio::time::sleep_until(self.paid)));
        }
    }

    /// Ready when more may be heard.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(resting) = &mut self.resting {
            std::task::ready!(resting.as_mut().poll(cx));
            self.resting = None;
        }
        Poll::Ready(())
    }

    /// Comes when more may be heard.
    pub(super) async fn free(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_is_paced() {
        let begun = Instant::now();
        let mut pace = Pace::new(100, 1_000);
        for _ in 0..300 {
            pace.heard(1, 1);
            pace.free().await;
        }
        let took = begun.elapsed();
        assert!((Duration::from_millis(1_900)..Duration::from_millis(2_200)).contains(&took), "{took:?}");
        pace.heard(1, 5_000);
        pace.free().await;
        assert!(begun.elapsed() >= took + Duration::from_secs(4), "bytes count as well");
        // Silence is good for one burst, not for more.
        // sleeps because time is what is tested; the clock is the test's own
        tokio::time::sleep(Duration::from_secs(60)).await;
        let later = Instant::now();
        pace.heard(200, 0);
        pace.free().await;
        assert!(later.elapsed() >= Duration::from_millis(900), "{:?}", later.elapsed());
    }
}
