//! The world's own book of leases: never more units lent than there are, and fencing
//! tokens that only rise (I13).

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_model::durable::Holder;
use seawall_model::{Address, Tenant};

use super::cast::UNITS;

type Name = (Tenant, Arc<str>);

#[derive(Clone, Debug, Default)]
struct Resource {
    newest: u64,
    /// Token, who, units.
    lent: Vec<(u64, Address, u32)>,
    /// Given back by the record just before: whoever had it may renew it.
    just_back: Option<(u64, Address)>,
}

/// All resources.
#[derive(Clone, Debug, Default)]
pub struct Lent {
    resources: BTreeMap<Name, Resource>,
    /// Leases granted.
    pub granted: u64,
}

impl Lent {
    /// A lease was granted.
    pub fn grant(&mut self, name: &Name, holder: &Holder) {
        self.granted += 1;
        let resource = self.resources.entry(name.clone()).or_default();
        let renewed =
            resource.just_back.take().is_some_and(|back| back == (holder.token, holder.agent.clone()));
        let newest = resource.newest;
        assert!(renewed || holder.token > newest, "I13: token {} of {name:?} after {newest}", holder.token);
        resource.newest = newest.max(holder.token);
        resource.lent.push((holder.token, holder.agent.clone(), holder.units));
        let units: u32 = resource.lent.iter().map(|(_, _, units)| units).sum();
        assert!(units <= UNITS, "I13: {units} of {UNITS} units of {name:?} are lent");
    }

    /// A lease ended.
    pub fn free(&mut self, name: &Name, token: u64) {
        let resource = self.resources.entry(name.clone()).or_default();
        let Some(at) = resource.lent.iter().position(|(lent, _, _)| *lent == token) else {
            panic!("I13: token {token} of {name:?} was freed and not lent");
        };
        let (token, agent, _) = resource.lent.remove(at);
        resource.just_back = Some((token, agent));
    }

    /// Does this agent hold it with this token?
    #[must_use]
    pub fn holds(&self, name: &Name, agent: &Address, token: u64) -> bool {
        let just = |resource: &Resource| resource.just_back.as_ref() == Some(&(token, agent.clone()));
        let lent =
            |resource: &Resource| resource.lent.iter().any(|(lent, of, _)| (*lent, of) == (token, agent));
        self.resources.get(name).is_some_and(|resource| lent(resource) || just(resource))
    }
}
