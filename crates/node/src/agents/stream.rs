//! What runs say while they work, for whoever listens: pieces of a model's answer as they
//! come, and the tools that are called meanwhile. Nothing of it is durable, the journal has
//! every answer whole; and nobody waits for a listener: one that lags misses pieces and is
//! told so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall_model::{Finish, RunKey, limits};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::Runtime;

/// One thing that is said of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// A model begins to answer.
    Begun,
    /// A piece of what it answers.
    Text(Arc<str>),
    /// The answer is whole. After [`Finish::Length`] the next one goes on where it ended.
    Ended(Finish),
    /// The answer broke off: the next one begins it anew.
    Broke,
    /// A tool is called.
    Tool(Arc<str>),
    /// Said by the listener itself: it lagged, and pieces are missing here.
    Missed,
}

impl Talk {
    /// The kind's name in the API.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Text(_) => "text",
            Self::Ended(_) => "ended",
            Self::Broke => "broke",
            Self::Tool(_) => "tool",
            Self::Missed => "missed",
        }
    }
}

/// The runs that somebody listens to. As long as the list of those who listen, each of whom
/// holds a connection.
#[derive(Debug, Default)]
pub struct Talks(Mutex<HashMap<RunKey, broadcast::Sender<Talk>>>);

impl Talks {
    /// Listens to a run from now on, whether it has begun or not.
    #[must_use]
    pub fn listen(self: &Arc<Self>, run: RunKey) -> Listener {
        let mut open = self.lock();
        let sender = open.entry(run).or_insert_with(|| broadcast::channel(limits::TALK_LAG_MAX).0);
        Listener { talks: self.clone(), run, heard: Some(sender.subscribe()) }
    }

    /// What a run says is said through this; none where nobody listens.
    #[must_use]
    pub fn speaker(&self, run: RunKey) -> Option<Speaker> {
        self.lock().get(&run).cloned().map(Speaker)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, broadcast::Sender<Talk>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens to a run, as [`Talks::listen`].
#[must_use]
pub fn listen(runtime: &Runtime, run: RunKey) -> Listener {
    runtime.talks.listen(run)
}

/// Says what a run says. Never waits.
#[derive(Clone, Debug)]
pub struct Speaker(broadcast::Sender<Talk>);

impl Speaker {
    /// Says it to whoever listens still.
    pub fn say(&self, talk: Talk) {
        let _ = self.0.send(talk);
    }
}

/// Hears what a run says until it is dropped.
#[derive(Debug)]
pub struct Listener {
    talks: Arc<Talks>,
    run: RunKey,
    heard: Option<broadcast::Receiver<Talk>>,
}

impl Listener {
    /// The next thing said. Waits for ever where nothing more is: a run's end is told
    /// elsewhere. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Talk {
        match &mut self.heard {
            Some(heard) => match heard.recv().await {
                Ok(talk) => talk,
                Err(RecvError::Lagged(_)) => Talk::Missed,
                Err(RecvError::Closed) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// What was said already and not heard yet.
    pub fn heard(&mut self) -> Option<Talk> {
        match self.heard.as_mut()?.try_recv() {
            Ok(talk) => Some(talk),
            Err(TryRecvError::Lagged(_)) => Some(Talk::Missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut open = self.talks.lock();
        // Under the lock, so that of two that leave at once the last sees that it is.
        self.heard = None;
        if open.get(&self.run).is_some_and(|sender| sender.receiver_count() == 0) {
            open.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_speaker_while_somebody_listens() {
        let (talks, run) = (Arc::new(Talks::default()), RunKey(7));
        assert!(talks.speaker(run).is_none());
        let (mut one, mut other) = (talks.listen(run), talks.listen(run));
        let speaker = talks.speaker(run).expect("two listen");
        speaker.say(Talk::Text("a".into()));
        assert_eq!((one.heard(), one.heard()), (Some(Talk::Text("a".into())), None));
        drop(one);
        assert_eq!(other.heard(), Some(Talk::Text("a".into())), "the other hears it too");
        assert!(talks.speaker(run).is_some() && talks.speaker(RunKey(8)).is_none());
        drop(other);
        assert!(talks.speaker(run).is_none() && talks.lock().is_empty());
        speaker.say(Talk::Begun);
    }

    #[test]
    fn one_who_lags_is_told_and_holds_no_more_than_the_limit() {
        let talks = Arc::new(Talks::default());
        let mut slow = talks.listen(RunKey(1));
        let speaker = talks.speaker(RunKey(1)).expect("one listens");
        for _ in 0..3 * limits::TALK_LAG_MAX {
            speaker.say(Talk::Text("x".into()));
        }
        assert_eq!(slow.heard(), Some(Talk::Missed));
        assert_eq!(std::iter::from_fn(|| slow.heard()).count(), limits::TALK_LAG_MAX);
    }
}
