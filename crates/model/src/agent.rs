//! Who works: an agent, as it calls itself, such as `researcher/42`.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::tenant::{Error, check};

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
    }
}
