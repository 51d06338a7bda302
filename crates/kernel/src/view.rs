//! What the kernel shows of itself: figures for metrics, `seawall models` and the
//! operations API. Copies, so that looking never disturbs.

use std::sync::Arc;

use seawall_model::{At, Bytes, EngineId, ReplicaId, Tokens};

use crate::plan::Meter;

/// A picture of the kernel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Engines, by id.
    pub engines: Vec<EngineView>,
    /// Tenant nodes that have work or were served, by path, busiest first, at most
    /// [`seawall_model::limits::TENANT_LABELS_MAX`].
    pub tenants: Vec<TenantView>,
    /// Budget accounts, by name.
    pub budgets: Vec<BudgetView>,
    /// Calls known, waiting and running.
    pub calls: usize,
    /// Tenant nodes kept.
    pub tenants_len: usize,
}

/// One engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineView {
    /// Its id.
    pub engine: EngineId,
    /// Calls waiting, by class.
    pub queued: [usize; 3],
    /// Bytes waiting.
    pub queued_bytes: Bytes,
    /// Its replicas, by id.
    pub replicas: Vec<ReplicaView>,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its id.
    pub replica: ReplicaId,
    /// Calls in flight.
    pub running: u32,
    /// Predicted tokens in flight.
    pub tokens: Tokens,
    /// The limit of calls in flight, as found.
    pub limit: u32,
    /// The state of its circuit.
    pub circuit: Circuit,
    /// When an open circuit is tried again.
    pub open_until: Option<At>,
    /// Bytes of its prefix index.
    pub prefix_bytes: Bytes,
}

/// A replica's circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Circuit {
    /// Calls flow.
    #[default]
    Closed,
    /// Calls go elsewhere.
    Open,
    /// One call or probe tries it.
    HalfOpen,
}

/// One node of the tenant tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantView {
    /// Its path.
    pub path: Arc<str>,
    /// Calls waiting below it.
    pub queued: usize,
    /// Calls running below it.
    pub running: u32,
    /// Cost units served to it since the start.
    pub served: u64,
}

/// A budget of a run and all below it, by one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterView {
    /// What is counted; money in millionths of a dollar.
    pub meter: Meter,
    /// So much at most.
    pub limit: u64,
    /// Settled.
    pub spent: u64,
    /// Reserved by calls in flight.
    pub reserved: u64,
    /// What can still be reserved, counting the runs above it.
    pub left: u64,
}

/// One budget account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// `prefix#meter/period`.
    pub account: Arc<str>,
    /// Start of the window.
    pub window: At,
    /// The limit.
    pub limit: u64,
    /// Settled.
    pub spent: u64,
    /// Reserved by calls in flight.
    pub reserved: u64,
}
