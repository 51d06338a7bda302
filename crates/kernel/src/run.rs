//! Runs on one engine: what each has been served (least attained service goes first,
//! Autellix, arXiv 2502.13965) and where its last call ran.

use std::collections::BTreeMap;

use seawall_model::{ReplicaId, RunId, Tenant, limits};

use crate::call::List;
use crate::slab::Slab;

/// Slots looked at for one that may go.
const SWEEP: usize = 512;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    id: RunId,
    tenant: Tenant,
    /// Cost served to it, in tenths of a unit.
    pub(crate) service: u64,
    /// Its last replica.
    pub(crate) replica: Option<ReplicaId>,
    /// Its waiting calls, by class, and the flow they wait in.
    pub(crate) lists: [(u32, List); 3],
    /// Its calls waiting or running on this engine.
    pub(crate) live: u32,
    used: bool,
}

/// The runs of one engine, at most [`limits::RUNS_MAX`]; those not used lately leave first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    index: BTreeMap<RunId, u32>,
    pub(crate) slab: Slab<Run>,
}

impl Runs {
    /// The run, made if need be. `None` if all places are taken by runs at work, or if
    /// the id belongs to another tenant: then the call counts as a run of its own.
    pub(crate) fn open(&mut self, id: RunId, tenant: &Tenant) -> Option<u32> {
        if let Some(at) = self.index.get(&id) {
            let run = &mut self.slab[*at];
            run.used = true;
            return (run.tenant == *tenant).then_some(*at);
        }
        if self.slab.len() >= limits::RUNS_MAX {
            let old = self.slab.sweep(SWEEP, |run| run.live == 0, |run| &mut run.used)?;
            let old = self.slab.remove(old)?;
            self.index.remove(&old.id);
        }
        let run = Run {
            id,
            tenant: tenant.clone(),
            service: 0,
            replica: None,
            lists: [(0, List::default()); 3],
            live: 0,
            used: true,
        };
        let at = self.slab.insert(run);
        self.index.insert(id, at);
        Some(at)
    }

    pub(crate) fn check(&self) {
        assert!(self.slab.len() <= limits::RUNS_MAX, "runs are bounded");
        assert_eq!(self.slab.len(), self.index.len(), "each run is found by its id");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_runs_make_room_and_busy_ones_stay() {
        let mut runs = Runs::default();
        let tenant = Tenant::local();
        let busy = runs.open(RunId(0), &tenant).expect("room");
        runs.slab[busy].live = 1;
        for id in 1..limits::RUNS_MAX as u64 + 100 {
            assert!(runs.open(RunId(id), &tenant).is_some());
        }
        runs.check();
        assert_eq!(runs.open(RunId(0), &tenant), Some(busy));
        let other = Tenant::parse("other").expect("valid");
        assert_eq!(runs.open(RunId(0), &other), None, "a run belongs to one tenant");
    }
}
