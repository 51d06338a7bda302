//! The one room that spawns (I9). Every task and thread has a kind, and the live
//! count of each kind is a metric: a leak of tasks names itself.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal)*) => {
        /// What a task or thread is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The name in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// Takes new connections.
    Accept "accept"
    /// Serves one client connection.
    Connection "connection"
    /// Serves one HTTP/2 stream of a client connection.
    Stream "stream"
    /// Drives one connection to an engine.
    Upstream "upstream"
    /// Wakes the kernel when it asked to be.
    Timer "timer"
    /// Asks one replica whether it is well.
    Probe "probe"
    /// Asks engines for their models.
    Discovery "discovery"
    /// Watches the config file and signals.
    Operator "operator"
    /// Measures the process now and then.
    Pulse "pulse"
    /// Keeps a tool server up, or empties its standard error.
    ToolServer "tool_server"
    /// Performs one effect of an agent.
    Effect "effect"
    /// Takes turns of agents.
    Worker "worker"
    /// Gives one client an answer that is made while it is read.
    Feed "feed"
    /// Tells one client what happens to a run.
    Follower "follower"
    /// The thread that owns the journal.
    Scribe "scribe"
    /// Belongs to the simulated engine.
    SimEngine "sim_engine"
    /// The thread that owns the store.
    Disk "disk"
    /// The thread that writes the access log.
    LogWriter "log_writer"
}

/// Spawns, and counts what lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<[AtomicUsize]>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Kind::ALL.iter().map(|_| AtomicUsize::new(0)).collect())
    }
}

/// Counts one live task; its end is its drop, however the task ends.
struct Live(Arc<[AtomicUsize]>, Kind);

impl Live {
    fn new(tasks: &Tasks, kind: Kind) -> Self {
        tasks.0[kind as usize].fetch_add(1, Ordering::Relaxed);
        Self(tasks.0.clone(), kind)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tasks {
    /// Spawns a task of this kind.
    #[expect(clippy::disallowed_methods, reason = "this is the room that spawns")]
    pub fn spawn<F>(&self, kind: Kind, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let live = Live::new(self, kind);
        tokio::spawn(async move {
            let _live = live;
            future.await
        })
    }

    /// Starts a thread of this kind.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn thread<F>(&self, kind: Kind, work: F) -> io::Result<std::thread::JoinHandle<()>>
    where
        F: FnOnce() + Send + 'static,
    {
        let live = Live::new(self, kind);
        std::thread::Builder::new().name(kind.as_str().into()).spawn(move || {
            let _live = live;
            work();
        })
    }

    /// How many of this kind live.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// An executor for hyper that spawns as this kind.
    #[must_use]
    pub fn executor(&self, kind: Kind) -> Executor {
        Executor { tasks: self.clone(), kind }
    }
}

/// Lets hyper spawn through this room.
#[derive(Clone, Debug)]
pub struct Executor {
    tasks: Tasks,
    kind: Kind,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn(self.kind, future);
    }
}
