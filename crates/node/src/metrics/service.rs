//! What the process did: connections, reloads, what it had to drop, stalls.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::label::{Counters, counters, one};

/// Metrics of the process.
#[derive(Debug)]
pub struct Service {
    /// Seconds that upstream calls lived on after their client had left. Stays 0 (I8).
    pub orphaned: Counter<f64, AtomicU64>,
    /// Time a worker thread ran without a pause: long ones are blocking code.
    pub stalls: Histogram,
    cut: Counters<1>,
    dropped: Counters<1>,
    reloads: Counters<1>,
}

impl Service {
    pub(super) fn register(r: &mut Registry) -> Self {
        let orphaned = Counter::default();
        let help = "Time that upstream calls lived on after their client had left";
        r.register_with_unit("seawall_orphaned_upstream", help, Unit::Seconds, orphaned.clone());
        let stalls = Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]);
        let help = "Time a worker thread ran without a pause: long ones are blocking code";
        r.register_with_unit("seawall_worker_stall", help, Unit::Seconds, stalls.clone());
        Self {
            orphaned,
            stalls,
            cut: counters(r, "seawall_connections_cut", "Connections refused or cut, by why"),
            dropped: counters(r, "seawall_dropped", "Records and log lines dropped, by kind"),
            reloads: counters(r, "seawall_reloads", "Reloads of the configuration, by result"),
        }
    }

    /// Counts a connection refused or cut.
    pub fn cut(&self, why: &'static str) {
        self.cut.get_or_create(&one("why", why)).inc();
    }

    /// Counts things dropped because a disk or pipe was too slow.
    pub fn dropped(&self, kind: &'static str, count: usize) {
        self.dropped.get_or_create(&one("kind", kind)).inc_by(count as u64);
    }

    /// Counts a reload.
    pub fn reload(&self, result: &'static str) {
        self.reloads.get_or_create(&one("result", result)).inc();
    }
}
