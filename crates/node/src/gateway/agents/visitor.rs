//! Who asks, and what of the agents is theirs: a key's tenant and all below it; everything
//! with an admin's key, or while there are no keys.

use std::sync::Arc;

use http::HeaderMap;
use seawall_model::effect::Person;
use seawall_model::{Agent, At, Code, Fault, Tenant};

use crate::app::{App, Live};
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
        ask::agent_allowed(live, &self.models, tenant, agent).map_err(|fault| fault.at("agent"))
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

    /// Who decides, where people are asked.
    pub(super) fn person(&self) -> Person {
        Person {
            name: self.by.clone(),
            tenant: self.own.clone(),
            admin: self.admin,
            alone: self.admin && *self.by == *OPERATOR,
        }
    }
}

fn foreign() -> Fault {
    let message = "The tenant named is neither that of this API key nor below it.";
    Fault::new(Code::AdminOnly, message).at("tenant")
}

#[cfg(test)]
mod tests {
    use seawall_model::Millis;
    use seawall_model::effect::Approval;

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
        let names = |key: &Visitor, agent: &Agent| ask::key_allows(&key.models, agent);
        let mut key = visitor(false, "acme", "k1");
        assert!(names(&key, &agent("clerk")));
        key.models = ["fast".to_owned(), "agent/clerk".to_owned()].into();
        assert!(
            names(&key, &agent("clerk")) && names(&key, &agent("clerk/7")) && !names(&key, &agent("payer"))
        );
    }

    #[test]
    fn approvers_are_those_named_or_any_admin() {
        let approval = |names: &[&str]| Approval {
            quorum: 1,
            approvers: names.iter().map(|name| (*name).into()).collect(),
            patience: Millis(1),
            deputy: None,
        };
        let (key, admin) = (visitor(false, "acme/x", "k1"), visitor(true, "ops", "k2"));
        let names = |names: &[&str], who: &Visitor| approval(names).names(&who.person());
        assert!(!names(&[], &key) && names(&[], &admin));
        assert!(names(&["k1"], &key) && names(&["acme"], &key));
        assert!(!names(&["k1"], &admin));
        assert!(names(&["k1"], &visitor(true, "local", OPERATOR)));
    }
}
