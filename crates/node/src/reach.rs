//! Which replicas cannot be reached, and why. An operator sees it once when it begins and
//! once when it is over, not with every call; a client is only told that an engine is down.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use seawall_model::{At, Millis, ReplicaId};

use crate::app::{App, Live};
use crate::clock;
use crate::upstream::Failed;

/// A replica that comes and goes is told at most once in this time.
const TOLD_EVERY: Millis = Millis(60_000);
/// Letters of a cause that are kept: more than any that we know has.
const CAUSE_LEN_MAX: usize = 300;

/// What is known of connects that failed. As many entries as there are replicas at most:
/// a reload takes those away that are gone.
#[derive(Debug, Default)]
pub struct Reach {
    /// Replicas that cannot be reached now, so that a call that went well need not look.
    lost: AtomicUsize,
    known: Mutex<BTreeMap<ReplicaId, Trouble>>,
}

/// The last trouble with one replica.
#[derive(Debug, Default)]
struct Trouble {
    /// While it lasts.
    why: Option<Arc<str>>,
    since: At,
    /// Was it told?
    told: bool,
    /// When something was last told of this replica.
    told_at: Option<At>,
}

impl Reach {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, Trouble>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the replica cannot be reached, where it cannot.
    #[must_use]
    pub fn why(&self, replica: ReplicaId) -> Option<Arc<str>> {
        self.lock().get(&replica).and_then(|trouble| trouble.why.clone())
    }

    /// A connect failed. Is that worth a line: is it new, and not the hundredth time?
    fn fails(&self, replica: ReplicaId, why: &str, now: At) -> bool {
        let mut known = self.lock();
        let trouble = known.entry(replica).or_default();
        if trouble.why.is_none() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            (trouble.since, trouble.told) = (now, false);
        }
        let new = !trouble.told || trouble.why.as_deref() != Some(why);
        if trouble.why.as_deref() != Some(why) {
            trouble.why = Some(why.into());
        }
        let quiet = trouble.told_at.is_some_and(|at| now.since(at) < TOLD_EVERY);
        if !new || quiet {
            return false;
        }
        (trouble.told, trouble.told_at) = (true, Some(now));
        true
    }

    /// It was reached. How long it could not be, if that was told.
    fn works(&self, replica: ReplicaId, now: At) -> Option<Millis> {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut known = self.lock();
        let trouble = known.get_mut(&replica)?;
        trouble.why.take()?;
        self.lost.fetch_sub(1, Ordering::Relaxed);
        trouble.told.then(|| now.since(trouble.since))
    }

    /// Forgets replicas that are gone.
    pub fn keep(&self, stays: impl Fn(ReplicaId) -> bool) {
        let mut known = self.lock();
        known.retain(|id, trouble| {
            let stays = stays(*id);
            if !stays && trouble.why.is_some() {
                self.lost.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        });
    }
}

/// Notes how a request to a replica went, as far as it says whether the replica can be
/// reached, and tells the operator what is new.
pub fn note<T>(app: &App, live: &Live, replica: ReplicaId, went: Result<&T, &Failed>) {
    let now = clock::now();
    let engine = || {
        let route = live.routes.replica(replica);
        route.map(|route| live.engine_name(route.engine)).unwrap_or_default()
    };
    match went {
        Err(Failed::Connect(error)) => {
            // One that a reload has just taken away is nobody's trouble.
            if app.live.load().routes.replica(replica).is_none() {
                return;
            }
            let why = cause(error.as_ref());
            if app.reach.fails(replica, &why, now) {
                let url = live.replica_name(replica);
                tracing::warn!(engine = &*engine(), replica = &*url, why, "the engine cannot be reached");
            }
        }
        Err(_) => {}
        Ok(_) => {
            if let Some(after) = app.reach.works(replica, now) {
                let url = live.replica_name(replica);
                let (engine, after_ms) = (engine(), after.0);
                tracing::info!(engine = &*engine, replica = &*url, after_ms, "the engine is reached again");
            }
        }
    }
}

/// What lies at the bottom of a failed connect, in one line.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // What an I/O error wraps is its text, but not its source.
    let wrapped = deepest.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let of_tls = wrapped.is_some_and(|inner| inner.is::<rustls::Error>());
    let text = format!("{}{deepest}", if of_tls { "TLS: " } else { "" });
    // A part of it may be the other side's words.
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).take(CAUSE_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ReplicaId = ReplicaId(1);

    fn at(seconds: u64) -> At {
        At(seconds * 1_000_000)
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_is_over() {
        let reach = Reach::default();
        assert_eq!(reach.works(ONE, at(0)), None);
        assert!(reach.fails(ONE, "refused", at(1)));
        assert!(!reach.fails(ONE, "refused", at(2)), "not with every call");
        assert!(!reach.fails(ONE, "refused", at(500)));
        assert_eq!(reach.why(ONE).as_deref(), Some("refused"));
        assert!(reach.fails(ONE, "took too long", at(501)), "another cause is news");
        assert!(!reach.fails(ONE, "refused", at(502)), "but not at every turn");
        assert_eq!(reach.works(ReplicaId(2), at(502)), None);
        assert_eq!(reach.works(ONE, at(503)), Some(Millis(502_000)));
        assert_eq!((reach.works(ONE, at(504)), reach.why(ONE)), (None, None));
    }

    #[test]
    fn one_that_comes_and_goes_is_told_once_a_minute() {
        let reach = Reach::default();
        let told = |from: u64, to: u64| {
            (from..to).fold((0, 0), |(lost, back), second| {
                let lost = lost + u32::from(reach.fails(ONE, "refused", at(second)));
                (lost, back + u32::from(reach.works(ONE, at(second)).is_some()))
            })
        };
        assert_eq!(told(1, 61), (1, 1));
        assert_eq!(told(61, 121), (1, 1));
        assert!(!reach.fails(ONE, "refused", at(120)), "a minute from 61 is not over");
        assert!(reach.fails(ONE, "refused", at(130)), "one that then lasts is told late");
        assert_eq!(reach.works(ONE, at(200)), Some(Millis(80_000)), "and counted from its start");
    }

    #[test]
    fn what_a_reload_takes_away_is_forgotten() {
        let reach = Reach::default();
        assert!(reach.fails(ONE, "refused", at(1)) && reach.fails(ReplicaId(2), "refused", at(1)));
        reach.keep(|id| id == ONE);
        assert_eq!((reach.why(ReplicaId(2)), reach.lost.load(Ordering::Relaxed)), (None, 1));
        assert_eq!(reach.lock().len(), 1);
    }

    #[test]
    fn the_deepest_cause_is_said_in_one_line() {
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, untrusted);
        assert_eq!(cause(&error), "TLS: invalid peer certificate: UnknownIssuer");
        assert_eq!(cause(&std::io::Error::other("a\nb".repeat(900))).len(), CAUSE_LEN_MAX);
        assert_eq!(cause(&std::io::Error::other("a\nb")), "a b");
    }
}
