//! The query of a request: names with values, each of which somebody has to take.

use std::collections::BTreeMap;

use seawall_model::{Code, Fault};

use crate::gateway::route::decoded;

/// Pairs that a query may have.
const PAIRS_MAX: usize = 32;

/// A query. What nobody took is told by [`Query::finish`].
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads the part of a URL after its `?`.
    ///
    /// # Errors
    /// `BadField` for broken escapes, and far too many names.
    pub(super) fn read(query: &str) -> Result<Self, Fault> {
        let mut pairs = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(&value.replace('+', " "));
            let (Some(name), Some(value)) = (decoded(name), value) else {
                return Err(bad(format!("The value of `{}` is broken.", shortened(name))));
            };
            pairs.insert(name, value);
            if pairs.len() > PAIRS_MAX {
                return Err(bad(format!("A query has at most {PAIRS_MAX} names.")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of this name, if it is there and not empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// Is this name there, and not as `0` or `false`?
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let value = self.0.remove(name);
        value.is_some_and(|value| value != "0" && value != "false")
    }

    /// A whole number.
    ///
    /// # Errors
    /// `BadField` for anything else.
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| bad(format!("`{name}` is a whole number.")))
    }

    /// How many rows are wanted.
    ///
    /// # Errors
    /// `BadField` unless it is from 1 to `most`.
    pub(super) fn limit(&mut self, usual: usize, most: usize) -> Result<usize, Fault> {
        let Some(value) = self.take("limit") else { return Ok(usual) };
        let asked = value.parse().ok().filter(|count| (1..=most).contains(count));
        asked.ok_or_else(|| bad(format!("`limit` is a number from 1 to {most}.")))
    }

    /// Nothing is left that nobody took.
    ///
    /// # Errors
    /// `BadField` with the name.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(bad(format!("This path does not know `{}` in a query.", shortened(name)))),
        }
    }
}

fn bad(what: String) -> Fault {
    Fault::new(Code::BadField, what).at("query")
}

/// The client's own text, short enough for a line.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_an_error() {
        let mut query = Query::read("tenant=acme%2Fx&limit=5&q=a+b&list=1&off=0").expect("good");
        assert_eq!(query.take("tenant").as_deref(), Some("acme/x"));
        assert_eq!(query.limit(100, 10).ok(), Some(5));
        assert_eq!(query.take("q").as_deref(), Some("a b"));
        assert!(query.flag("list") && !query.flag("off") && !query.flag("other"));
        assert!(query.finish().is_ok());
        let query = Query::read("nonsense=1").expect("good");
        assert_eq!(query.finish().map_err(|fault| fault.code), Err(Code::BadField));
        for bad in ["limit=0", "limit=x", "limit=11"] {
            let mut query = Query::read(bad).expect("it is a query");
            assert_eq!(query.limit(5, 10).map_err(|fault| fault.code), Err(Code::BadField), "{bad}");
        }
        assert!(Query::read("a=%zz").is_err());
    }
}
