//! Who works: an agent, as it calls itself, such as `researcher/42`.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::tenant::{Error, Tenant, check};

/// An agent's name: its type, and its key among those of its type. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Agent(Arc<str>);

impl Agent {
    /// Parses `type/key`, or a type alone, by the rules of tenant paths.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check(text, limits::AGENT_DEPTH_MAX)?;
        Ok(Self(text.into()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its type: what metrics are counted by.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A durable agent, addressed for ever: whose it is, its type and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Whose.
    pub tenant: Tenant,
    /// `type/key`.
    pub agent: Agent,
}

impl Address {
    /// Parses `tenant/type/key`; the tenant may have several segments.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (rest, key) = text.rsplit_once('/').ok_or(Error::Empty)?;
        let (tenant, kind) = rest.rsplit_once('/').ok_or(Error::Empty)?;
        Ok(Self { tenant: Tenant::parse(tenant)?, agent: Agent::parse(&format!("{kind}/{key}"))? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.agent)
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_a_type_and_perhaps_a_key() {
        assert_eq!(
            Agent::parse("researcher/42").map(|agent| agent.kind().to_owned()),
            Ok("researcher".to_owned())
        );
        assert_eq!(
            Agent::parse("researcher").map(|agent| agent.kind().to_owned()),
            Ok("researcher".to_owned())
        );
        assert_eq!(Agent::parse("a/b/c"), Err(Error::Deep));
        assert_eq!(Agent::parse("a b"), Err(Error::Char));
        assert_eq!(Agent::parse("/"), Err(Error::Empty));
        let address = Address::parse("acme/search/researcher/42").expect("valid");
        assert_eq!((address.tenant.as_str(), address.agent.as_str()), ("acme/search", "researcher/42"));
        assert_eq!(address.to_string(), "acme/search/researcher/42");
        assert_eq!(Address::parse("researcher/42"), Err(Error::Empty));
    }
}
