//! Who waits on one engine, by root tenant (the first segment of a path): the bounds of
//! waiting hold per root, so that nobody widens them by inventing users, and a full queue
//! gives way at the root with the most waiting to one that has less than its even share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_model::{CallId, Tenant};

use crate::input::Submit;
use crate::plan::QueueRule;

/// What one root tenant has waiting.
#[derive(Clone, Debug, Default)]
struct Held {
    calls: BTreeSet<CallId>,
    bytes: u64,
}

/// All who wait on one engine. Every operation is logarithmic in their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    roots: BTreeMap<Arc<str>, Held>,
    by_len: BTreeSet<(usize, Arc<str>)>,
    by_bytes: BTreeSet<(u64, Arc<str>)>,
    len: usize,
    bytes: u64,
}

/// The first segment of a tenant's path.
pub(crate) fn root(tenant: &Tenant) -> &str {
    tenant.as_str().split('/').next().unwrap_or_default()
}

impl Crowd {
    pub(crate) fn join(&mut self, tenant: &Tenant, call: CallId, bytes: u64) {
        self.change(root(tenant), |held| {
            held.calls.insert(call);
            held.bytes = held.bytes.saturating_add(bytes);
        });
    }

    pub(crate) fn leave(&mut self, tenant: &Tenant, call: CallId, bytes: u64) {
        self.change(root(tenant), |held| {
            held.calls.remove(&call);
            held.bytes = held.bytes.saturating_sub(bytes);
        });
    }

    fn change(&mut self, root: &str, how: impl FnOnce(&mut Held)) {
        let known = self.roots.get_key_value(root).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| root.into());
        let held = self.roots.entry(Arc::clone(&name)).or_default();
        self.by_len.remove(&(held.calls.len(), Arc::clone(&name)));
        self.by_bytes.remove(&(held.bytes, Arc::clone(&name)));
        self.len -= held.calls.len();
        self.bytes = self.bytes.saturating_sub(held.bytes);
        how(held);
        let (len, bytes) = (held.calls.len(), held.bytes);
        if len == 0 {
            self.roots.remove(&name);
            return;
        }
        self.len += len;
        self.bytes = self.bytes.saturating_add(bytes);
        self.by_len.insert((len, Arc::clone(&name)));
        self.by_bytes.insert((bytes, name));
    }

    /// Calls that the tenant's root has waiting.
    pub(crate) fn len_of(&self, tenant: &Tenant) -> usize {
        self.roots.get(root(tenant)).map_or(0, |held| held.calls.len())
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Is a bound of the queue broken?
    pub(crate) fn is_over(&self, rule: &QueueRule) -> bool {
        self.len > rule.len_max || self.bytes > rule.bytes_max.0
    }

    /// Would the bounds hold with this call too?
    pub(crate) fn fits(&self, call: &Submit, rule: &QueueRule) -> bool {
        self.len < rule.len_max
            && self.bytes.saturating_add(call.bytes.0) <= rule.bytes_max.0
            && self.len_of(&call.tenant) < rule.tenant_len_max
    }

    /// Of a queue that is over its bounds since a call of this tenant joined: the call
    /// that goes instead, if the tenant's root has no more than its even share. It is the
    /// newest of the root with the most, which then is another.
    pub(crate) fn gives_way(&self, tenant: &Tenant, rule: &QueueRule) -> Option<CallId> {
        let held = self.roots.get(root(tenant))?;
        let count = self.roots.len() as u64;
        let even = |own: u64, max: u64| own.saturating_mul(count) <= max;
        let most = if self.len > rule.len_max {
            even(held.calls.len() as u64, rule.len_max as u64)
                .then(|| self.by_len.last())?
                .map(|(_, most)| most)
        } else {
            even(held.bytes, rule.bytes_max.0).then(|| self.by_bytes.last())?.map(|(_, most)| most)
        };
        self.roots.get(most?)?.calls.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_model::Bytes;

    fn tenant(path: &str) -> Tenant {
        Tenant::parse(path).expect("valid")
    }

    #[test]
    fn the_heaviest_root_gives_way_to_one_below_its_share() {
        let rule = QueueRule { len_max: 6, bytes_max: Bytes(1_000), ..QueueRule::default() };
        let mut crowd = Crowd::default();
        for call in 1..=6 {
            crowd.join(&tenant(&format!("big/u{call}")), CallId(call), 10);
        }
        assert!(!crowd.is_over(&rule));
        crowd.join(&tenant("big/u9"), CallId(7), 10);
        assert!(crowd.is_over(&rule));
        assert_eq!(crowd.gives_way(&tenant("big/u9"), &rule), None, "its root has all of it");
        crowd.leave(&tenant("big/u9"), CallId(7), 10);
        crowd.join(&tenant("small"), CallId(8), 10);
        assert_eq!(crowd.gives_way(&tenant("small"), &rule), Some(CallId(6)));
        crowd.leave(&tenant("big/u6"), CallId(6), 10);
        assert!(!crowd.is_over(&rule));
        assert_eq!((crowd.len(), crowd.len_of(&tenant("big/any"))), (6, 5));
    }

    #[test]
    fn bytes_are_shared_likewise() {
        let rule = QueueRule { len_max: 100, bytes_max: Bytes(1_000), ..QueueRule::default() };
        let mut crowd = Crowd::default();
        crowd.join(&tenant("many"), CallId(1), 10);
        crowd.join(&tenant("many"), CallId(2), 10);
        crowd.join(&tenant("large"), CallId(3), 900);
        crowd.join(&tenant("small"), CallId(4), 90);
        assert_eq!(crowd.gives_way(&tenant("small"), &rule), Some(CallId(3)));
        crowd.join(&tenant("small"), CallId(5), 300);
        assert_eq!(crowd.gives_way(&tenant("small"), &rule), None, "390 of 1,000 among three");
    }
}
