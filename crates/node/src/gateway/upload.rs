//! A client's body on its way through: how many may arrive at once, and how slowly. An
//! upload holds a place on its engine while it arrives, so a client that drags it out
//! takes from everybody.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use seawall_model::{Millis, Tenant};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::config::LimitsConfig;
use crate::upstream::UploadFailed;

use super::ask;
use super::handed::Handed;

/// The uploads under way, by root tenant. Bounded by `limits.uploads_max`.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<BTreeMap<Arc<str>, usize>>);

/// One upload's place among them, until dropped.
#[derive(Debug)]
pub struct Uploading {
    uploads: Arc<Uploads>,
    root: Arc<str>,
}

impl Uploads {
    /// A place for one more upload of this tenant; `None` where all, or all of its root
    /// tenant's, are taken.
    #[must_use]
    pub fn begin(self: &Arc<Self>, tenant: &Tenant, limits: &LimitsConfig) -> Option<Uploading> {
        let root = tenant.prefixes().next().unwrap_or_default();
        let mut places = self.lock();
        let taken = places.get(root).copied().unwrap_or_default();
        if taken >= limits.tenant_uploads_max || places.values().sum::<usize>() >= limits.uploads_max {
            return None;
        }
        let root: Arc<str> = root.into();
        places.insert(root.clone(), taken + 1);
        Some(Uploading { uploads: self.clone(), root })
    }

    /// How many are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        let mut places = self.uploads.lock();
        match places.get_mut(&self.root) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(places.remove(&self.root)),
        }
    }
}

/// How slowly a body may arrive: what counts is the time that the client keeps others
/// waiting, not the time that the engine takes to read.
#[derive(Debug)]
struct Pace {
    stall: Millis,
    bytes_per_s: u64,
    bytes: u64,
    /// How long the client was waited for, all in all.
    waited: Duration,
    /// Since when it is waited for now.
    since: Option<Instant>,
}

impl Pace {
    fn new(limits: &LimitsConfig) -> Self {
        let (stall, bytes_per_s) = (limits.upload_stall_ms_max, limits.upload_bytes_per_s_min.0);
        Self { stall, bytes_per_s, bytes: 0, waited: Duration::ZERO, since: None }
    }

    /// It is waited for; until when it may be.
    fn waits(&mut self) -> Instant {
        let earned = self.bytes.saturating_mul(1_000) / self.bytes_per_s.max(1);
        let allowed = Duration::from_millis(self.stall.0.saturating_add(earned));
        let since = *self.since.get_or_insert_with(Instant::now);
        since + allowed.saturating_sub(self.waited)
    }

    /// So much has come.
    fn came(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }
}

/// A body that arrives, and is to arrive in time.
#[derive(Debug)]
pub struct Arriving {
    /// Here until it is given back.
    body: Option<Incoming>,
    /// Who takes it back if it is not wanted whole.
    back: Option<oneshot::Sender<Unread>>,
    /// Has the client been asked for it, so that it is sending?
    begun: bool,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the engine last took a piece; it is the client that is waited for where it
    /// says nothing.
    taken: Arc<Handed>,
    /// Given back as soon as the body is whole.
    place: Option<Uploading>,
}

impl Arriving {
    /// Lets a body arrive. What is unread of it when it is dropped comes out at the other
    /// end.
    #[must_use]
    pub fn new(
        body: Incoming,
        place: Uploading,
        taken: Arc<Handed>,
        limits: &LimitsConfig,
    ) -> (Self, oneshot::Receiver<Unread>) {
        let (back, unread) = oneshot::channel();
        let (body, back, place) = (Some(body), Some(back), Some(place));
        (Self { body, back, begun: false, pace: Pace::new(limits), timer: None, taken, place }, unread)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (body, self.back.take()) {
            // Where nobody takes it back, the client is told by the connection's end.
            let _ = back.send(Unread { body, begun: self.begun });
        }
    }
}

/// The rest of an upload that is not wanted.
#[derive(Debug)]
pub struct Unread {
    body: Incoming,
    begun: bool,
}

impl Unread {
    /// Lets the client hear an answer though it is still sending.
    pub async fn turn_away(self, headers: &HeaderMap) {
        if self.begun {
            ask::drain(self.body).await;
        } else {
            ask::turn_away(headers, self.body).await;
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = UploadFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        let arriving = self.get_mut();
        arriving.begun = true;
        let Some(body) = arriving.body.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            arriving.taken.asked();
            let until = arriving.pace.waits();
            let timer = arriving.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            return match timer.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(UploadFailed::Slow))),
                Poll::Pending => Poll::Pending,
            };
        };
        arriving.taken.gave();
        arriving.timer = None;
        let len = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        arriving.pace.came(len as u64);
        if frame.is_none() || body.is_end_stream() {
            arriving.place = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| UploadFailed::Cut)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::Bytes as Size;

    use super::*;

    fn limits() -> LimitsConfig {
        LimitsConfig {
            uploads_max: 3,
            tenant_uploads_max: 2,
            upload_stall_ms_max: Millis(10_000),
            upload_bytes_per_s_min: Size(1_000),
            ..LimitsConfig::default()
        }
    }

    #[test]
    fn places_are_bounded_for_all_and_for_each_root_and_come_back() {
        let (uploads, limits) = (Arc::new(Uploads::default()), limits());
        let tenant = |path: &str| Tenant::parse(path).expect("valid");
        let first = uploads.begin(&tenant("acme/a"), &limits).expect("room");
        let _second = uploads.begin(&tenant("acme/b"), &limits).expect("room");
        assert!(uploads.begin(&tenant("acme/c"), &limits).is_none(), "users do not widen the bound");
        let other = uploads.begin(&tenant("other"), &limits).expect("room for others");
        assert!(uploads.begin(&tenant("third"), &limits).is_none(), "all are taken");
        drop(first);
        assert!(uploads.begin(&tenant("acme"), &limits).is_some());
        drop(other);
        assert_eq!(uploads.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_that_the_client_is_waited_for_counts() {
        let mut pace = Pace::new(&limits());
        assert_eq!(pace.waits(), Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(pace.waits(), Instant::now() + Duration::from_secs(4), "asking again changes nothing");
        pace.came(2_000);
        // The engine reads slowly: nobody waits for the client.
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(pace.waits(), Instant::now() + Duration::from_secs(10 + 2 - 6));
        // A byte every nine seconds does not go on for ever.
        let mut rounds = 0;
        while pace.waits() > Instant::now() + Duration::from_secs(9) || rounds == 0 {
            tokio::time::advance(Duration::from_secs(5)).await;
            pace.came(1);
            rounds += 1;
        }
        assert!(rounds <= 2, "{rounds}");
    }
}
