//! Who asks, and what of the agents is theirs: a key's tenant and all below it; everything
//! with an admin's key, or while there are no keys.

use std::sync::Arc;

use http::HeaderMap;
use seawall_model::effect::Approval;
use seawall_model::{Agent, At, Code, Fault, Tenant};

use crate::app::{App, Live};
use crate::config::plan::{AGENT_PREFIX, names_agent};
use crate::gateway::ask;

/// Goes by when there are no keys.
const OPERATOR: &str = "operator";

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// Does everything belong to it?
    pub(super) admin: bool,
    /// The tenant of its key.
    pub(super) own: Tenant,
    /// Its name in the records.
    pub(super) by: Arc<str>,
    /// Models that its key may use, agents among them; empty means all.
    pub(super) models: Arc<[String]>,
}

impl Visitor {
    /// Who sent these headers.
    ///
    /// # Errors
    /// `BadKey` without a key, once there are keys.
    pub(super) fn of(app: &App, headers: &HeaderMap, now: At) -> Result<Self, Fault> {
        let caller = ask::caller(app, headers, now)?;
        let by = caller.key.unwrap_or_else(|| OPERATOR.into());
        Ok(Self { admin: caller.admin, own: caller.tenant, by, models: caller.models.into() })
    }

    /// May it see what is this tenant's?
    pub(super) fn sees(&self, tenant: &Tenant) -> bool {
        self.admin || tenant.is_under(self.own.as_str())
    }

    /// For whom it acts: the tenant named, or its own.
    ///
    /// # Errors
    /// `BadField` for what is no tenant, `AdminOnly` for what is not below its own.
    pub(super) fn acts_for(&self, named: Option<&str>) -> Result<Tenant, Fault> {
        let Some(named) = named else { return Ok(self.own.clone()) };
        let tenant = Tenant::parse(named)
            .map_err(|why| Fault::new(Code::BadField, format!("`tenant`: {why}.")).at("tenant"))?;
        if self.sees(&tenant) { Ok(tenant) } else { Err(foreign()) }
    }

    /// May it set this agent of this tenant to work? As where an agent is asked for as a
    /// model: `models` of its key and of the tenant must name it, where they name any.
    ///
    /// # Errors
    /// `ModelForbidden`.
    pub(super) fn may_use(&self, live: &Live, tenant: &Tenant, agent: &Agent) -> Result<(), Fault> {
        if self.names(agent) && live.routes.allows_agent(tenant, agent) {
            return Ok(());
        }
        let message = format!("`{tenant}` may not use the model `{AGENT_PREFIX}{agent}`.");
        Err(Fault::new(Code::ModelForbidden, message).at("agent"))
    }

    fn names(&self, agent: &Agent) -> bool {
        self.models.is_empty() || names_agent(&self.models, agent)
    }

    /// Whose it lists: of the tenant named and all below it; without a name its own, or
    /// all with an admin's key.
    ///
    /// # Errors
    /// As [`Self::acts_for`].
    pub(super) fn lists(&self, named: Option<&str>) -> Result<Option<String>, Fault> {
        if named.is_none() && self.admin {
            return Ok(None);
        }
        Ok(Some(self.acts_for(named)?.as_str().to_owned()))
    }

    /// Only for admins.
    ///
    /// # Errors
    /// `AdminOnly`.
    pub(super) fn only_admin(&self) -> Result<(), Fault> {
        if self.admin { Ok(()) } else { Err(Fault::plain(Code::AdminOnly).at("authorization")) }
    }

    /// May it say yes to what asks for this approval? Where approvers are named an admin is
    /// none by itself: two pairs of eyes are worth nothing if one may stand for both.
    pub(super) fn approves(&self, approval: &Approval) -> bool {
        let named = |name: &Arc<str>| **name == *self.by || self.own.is_under(name);
        let open = self.admin && *self.by == *OPERATOR;
        open || if approval.approvers.is_empty() { self.admin } else { approval.approvers.iter().any(named) }
    }
}

fn foreign() -> Fault {
    let message = "The tenant named is neither that of this API key nor below it.";
    Fault::new(Code::AdminOnly, message).at("tenant")
}

#[cfg(test)]
mod tests {
    use seawall_model::Millis;

    use super::*;

    fn visitor(admin: bool, own: &str, by: &str) -> Visitor {
        Visitor { admin, own: Tenant::parse(own).expect("good"), by: by.into(), models: Arc::default() }
    }

    #[test]
    fn a_key_sees_its_tenant_and_what_is_below() {
        let key = visitor(false, "acme", "k1");
        let tenant = |path| Tenant::parse(path).expect("good");
        assert!(key.sees(&tenant("acme")) && key.sees(&tenant("acme/x")));
        assert!(!key.sees(&tenant("acme2")) && !key.sees(&tenant("other")));
        assert_eq!(key.lists(None).ok(), Some(Some("acme".to_owned())));
        assert_eq!(key.acts_for(Some("acme/x")).ok(), Some(tenant("acme/x")));
        assert_eq!(key.acts_for(Some("other")).map_err(|fault| fault.code), Err(Code::AdminOnly));
        assert_eq!(key.acts_for(Some("a b")).map_err(|fault| fault.code), Err(Code::BadField));
        let admin = visitor(true, "ops", "k2");
        assert_eq!(admin.lists(None).ok(), Some(None));
        assert!(admin.sees(&tenant("other")));
    }

    #[test]
    fn a_key_with_a_list_of_models_uses_the_agents_on_it() {
        let agent = |name| Agent::parse(name).expect("good");
        let mut key = visitor(false, "acme", "k1");
        assert!(key.names(&agent("clerk")));
        key.models = ["fast".to_owned(), "agent/clerk".to_owned()].into();
        assert!(key.names(&agent("clerk")) && key.names(&agent("clerk/7")) && !key.names(&agent("payer")));
    }

    #[test]
    fn approvers_are_those_named_or_any_admin() {
        let approval = |names: &[&str]| Approval {
            quorum: 1,
            approvers: names.iter().map(|name| (*name).into()).collect(),
            patience: Millis(1),
        };
        let (key, admin) = (visitor(false, "acme/x", "k1"), visitor(true, "ops", "k2"));
        assert!(!key.approves(&approval(&[])) && admin.approves(&approval(&[])));
        assert!(key.approves(&approval(&["k1"])) && key.approves(&approval(&["acme"])));
        assert!(!admin.approves(&approval(&["k1"])));
        assert!(visitor(true, "local", OPERATOR).approves(&approval(&["k1"])));
    }
}
