//! Who asks and pays: a path such as `acme/search/alice`.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// A tenant path of one to four segments. Budgets, weights and limits hang on any
/// prefix of it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

/// Why a text is not a tenant path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing, or nothing between two slashes.
    #[error("a tenant path has no empty segments")]
    Empty,
    /// Deeper than [`limits::TENANT_DEPTH_MAX`].
    #[error("a tenant path has at most {} segments", limits::TENANT_DEPTH_MAX)]
    Deep,
    /// Longer than [`limits::TENANT_LEN_MAX`].
    #[error("a tenant path has at most {} bytes", limits::TENANT_LEN_MAX)]
    Long,
    /// A segment that paths of URLs and files would take for a step.
    #[error("a tenant path has no segments that are `.` or `..`")]
    Dots,
    /// A character outside `A-Z a-z 0-9 . _ - @ :`.
    #[error("a tenant path holds letters, digits and . _ - @ : only")]
    Char,
}

impl Tenant {
    /// Parses a path, checking length, depth and alphabet.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check(text, limits::TENANT_DEPTH_MAX)?;
        Ok(Self(text.into()))
    }

    /// The path of calls that carry no key, on a loopback without keys.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    #[must_use]
    pub fn root(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// Every prefix, from the first segment to the whole path.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at);
        ends.chain(std::iter::once(self.0.len())).map(|end| &self.0[..end])
    }

    /// Is this path `prefix` itself or below it?
    #[must_use]
    pub fn is_under(&self, prefix: &str) -> bool {
        self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Is this a path of at most so many segments?
pub(crate) fn check(text: &str, depth_max: usize) -> Result<(), Error> {
    if text.len() > limits::TENANT_LEN_MAX {
        return Err(Error::Long);
    }
    let mut depth = 0;
    for segment in text.split('/') {
        depth += 1;
        if segment.is_empty() {
            return Err(Error::Empty);
        }
        if matches!(segment, "." | "..") {
            return Err(Error::Dots);
        }
        if !segment.bytes().all(allowed) {
            return Err(Error::Char);
        }
    }
    if depth > depth_max { Err(Error::Deep) } else { Ok(()) }
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b':')
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_run_from_root_to_leaf() {
        let tenant = Tenant::parse("acme/search/alice").expect("valid");
        let all: Vec<_> = tenant.prefixes().collect();
        assert_eq!(all, ["acme", "acme/search", "acme/search/alice"]);
        assert!(tenant.is_under("acme/search"));
        assert!(!tenant.is_under("acme/sea"));
    }

    #[test]
    fn bad_paths_say_why() {
        assert_eq!(Tenant::parse(""), Err(Error::Empty));
        assert_eq!(Tenant::parse("a//b"), Err(Error::Empty));
        assert_eq!(Tenant::parse("a/b/c/d/e"), Err(Error::Deep));
        assert_eq!(Tenant::parse("a b"), Err(Error::Char));
        assert_eq!(Tenant::parse("../a"), Err(Error::Dots));
        assert_eq!(Tenant::parse(&"x".repeat(999)), Err(Error::Long));
    }
}
