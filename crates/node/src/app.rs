//! What a running `serve` consists of: one struct of handles, shared by every
//! connection. [`Live`] is the part that a reload replaces; calls in flight keep theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use seawall_model::{At, EngineId, ReplicaId};
use tokio::sync::watch;

use crate::agents::Runtime;
use crate::config::{Config, Routes};
use crate::disk::Disk;
use crate::gateway::trace::Traces;
use crate::gateway::upload::Uploads;
use crate::keys::KeyTable;
use crate::log::AccessLog;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::seat::Seat;
use crate::tasks::Tasks;
use crate::tools::Toolbox;
use crate::upstream::Client;

/// Handles to every room of a running server.
#[derive(Debug)]
pub struct App {
    /// The configuration in force.
    pub live: ArcSwap<Live>,
    /// The kernel.
    pub seat: Arc<Seat>,
    /// API keys.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// The byte budget.
    pub memory: Memory,
    /// The catalogue.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub log: AccessLog,
    /// The store's thread.
    pub disk: Disk,
    /// Where tasks are spawned.
    pub tasks: Tasks,
    /// Tools of agents.
    pub tools: Toolbox,
    /// Agents that run inside, unless they are turned off.
    pub agents: Option<Arc<Runtime>>,
    /// This installation's name: what idempotency keys begin with.
    pub installation: Arc<str>,
    /// How far the shutdown is.
    pub phase: watch::Receiver<Phase>,
    /// Which replicas cannot be reached.
    pub reach: Reach,
    /// The uploads under way.
    pub uploads: Arc<Uploads>,
    /// Where clients connect: the address that was bound, whatever a reload says.
    pub listening: SocketAddr,
    /// Gives out trace ids.
    pub traces: Traces,
    /// When the process started.
    pub started: At,
}

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// Readiness fails; calls are still taken.
    Leaving,
    /// No new calls; those in flight finish.
    Draining,
    /// What is left is cut.
    Cutting,
}

/// One configuration in force.
#[derive(Debug)]
pub struct Live {
    /// What was configured.
    pub config: Config,
    /// Where things are.
    pub routes: Routes,
    /// A pooled client per engine.
    pub clients: BTreeMap<EngineId, Client>,
    /// When it came into force, as `created` in lists of models.
    pub since: At,
}

impl Live {
    /// An engine's name, for metrics.
    #[must_use]
    pub fn engine_name(&self, id: EngineId) -> Arc<str> {
        self.routes.engine(id).map_or_else(|| format!("engine-{}", id.0).into(), |engine| engine.name.clone())
    }

    /// A replica's address, for metrics.
    #[must_use]
    pub fn replica_name(&self, id: ReplicaId) -> Arc<str> {
        self.routes
            .replica(id)
            .map_or_else(|| format!("replica-{}", id.0).into(), |replica| replica.url.as_str().into())
    }
}
