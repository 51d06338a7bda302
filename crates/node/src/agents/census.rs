//! How many agents there are, suspended ones included, and what operators were told of:
//! for metrics, which are read without asking the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use seawall_kernel::agents::effect::Notice;
use seawall_model::durable::Standing;
use seawall_model::limits;
use seawall_store::Error;
use seawall_store::journal::{Need, Reader};

use crate::app::App;

/// How often all agents are counted: that looks at every row.
const EVERY: Duration = Duration::from_secs(15);

/// What operators were told of since the start.
#[derive(Debug, Default)]
pub struct Told([AtomicU64; 5]);

impl Told {
    /// What is counted, by the name in metrics.
    pub const KINDS: [&'static str; 5] = ["guard", "quarantine", "doubt", "approval", "dead_letter"];

    /// Counts one.
    pub fn count(&self, notice: &Notice) {
        let kind = match notice {
            Notice::Rung { .. } => 0,
            Notice::Quarantined { .. } => 1,
            Notice::Doubt { .. } => 2,
            Notice::Asked { .. } => 3,
            Notice::Letter { .. } => 4,
        };
        self.0[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, in the order of [`Self::KINDS`].
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

/// How many agents there are, by how they stand, and what people are wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Without a task.
    pub idle: u64,
    /// With one.
    pub active: u64,
    /// Out of service.
    pub quarantined: u64,
    /// Whose only task is over.
    pub done: u64,
    /// Effects in doubt.
    pub doubts: usize,
    /// Effects that ask for approval.
    pub approvals: usize,
    /// Questions without an answer.
    pub questions: usize,
}

impl Census {
    /// Counts all agents.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn take(reader: &Reader) -> Result<Self, Error> {
        let wanted = |need| Ok::<_, Error>(reader.wanted(need, None, limits::ROWS_MAX)?.len());
        let mut census = Self {
            doubts: wanted(Need::Doubt)?,
            approvals: wanted(Need::Approval)?,
            questions: wanted(Need::Promise)?,
            ..Self::default()
        };
        for (_, standing, count) in reader.standings(None)? {
            match standing {
                Standing::Idle => census.idle += count,
                Standing::Active => census.active += count,
                Standing::Quarantined => census.quarantined += count,
                Standing::Done => census.done += count,
            }
        }
        Ok(census)
    }
}

/// Counts all agents now and then. Runs for ever.
pub async fn keep(app: Arc<App>) {
    let mut look = tokio::time::interval(EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Some(runtime) = app.agents.as_ref() {
        look.tick().await;
        if let Ok(census) = runtime.read(Census::take).await {
            *runtime.census.lock().unwrap_or_else(PoisonError::into_inner) = census;
        }
    }
}
