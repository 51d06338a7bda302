//! Base addresses of engines, checked once so that nothing later can fail on them.

use std::fmt;
use std::sync::Arc;

use http::Uri;

/// The address of one replica, up to but without `/v1`: protocols' own paths begin
/// there. `https://api.openai.com`, `http://10.0.0.7:8000`, `https://host/prefix`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: Arc<str>,
    host: Arc<str>,
    port: u16,
    https: bool,
}

/// Why a text is not such an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `http://` or `https://` in front.
    #[error("an address starts with http:// or https://")]
    Scheme,
    /// Not a URL at all, or one without a host.
    #[error("this is not a URL with a host")]
    Malformed,
    /// A user name or password before the host.
    #[error("an address holds no user name or password")]
    UserInfo,
    /// `?` or `#` parts, which would be lost.
    #[error("an address holds no query")]
    Query,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Scheme | Self::Malformed => "write for example \"http://127.0.0.1:8000\"",
            Self::UserInfo => "name the variable that holds the key in key_env",
            Self::Query => "end the address before the ?",
        }
    }
}

impl Url {
    /// Checks and normalises: no trailing slash, no trailing `/v1`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let https = lower.starts_with("https://");
        if !https && !lower.starts_with("http://") {
            return Err(Error::Scheme);
        }
        if text.contains(['?', '#']) {
            return Err(Error::Query);
        }
        let uri: Uri = text.parse().map_err(|_| Error::Malformed)?;
        let authority = uri.authority().ok_or(Error::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(Error::UserInfo);
        }
        let host = authority.host();
        // `http` keeps a port that is no number out of `port_u16`, not out of the text.
        let port = authority.port_u16();
        if host.is_empty() || (port.is_none() && authority.as_str() != host) || port == Some(0) {
            return Err(Error::Malformed);
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
        let scheme = if https { "https" } else { "http" };
        Ok(Self {
            text: format!("{scheme}://{}{path}", authority.as_str().to_ascii_lowercase()).into(),
            host: host.to_ascii_lowercase().into(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            https,
        })
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its host; an IPv6 address stands in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, the scheme's own where none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Is it spoken to over TLS?
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Is it on this machine?
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The full URI of a path (and query) below it, such as `/v1/models`.
    ///
    /// # Errors
    /// The path holds bytes that no URI may hold; it came from a client.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::uri::InvalidUri> {
        format!("{}{path_and_query}", self.text).parse()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_normalised() {
        for (text, expected, host, port) in [
            ("https://api.openai.com/v1/", "https://api.openai.com", "api.openai.com", 443),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1", 8000),
            ("HTTPS://Host/openai/v1", "https://host/openai", "host", 443),
            ("http://[::1]:80/", "http://[::1]:80", "[::1]", 80),
        ] {
            let url = Url::parse(text).expect("valid");
            assert_eq!((url.as_str(), url.host(), url.port()), (expected, host, port));
            assert_eq!(url.join("/v1/models").expect("valid").to_string(), format!("{expected}/v1/models"));
        }
        assert!(Url::parse("http://[::1]:80").expect("valid").is_loopback());
        assert!(!Url::parse("http://10.0.0.1").expect("valid").is_loopback());
    }

    #[test]
    fn bad_addresses_say_why() {
        assert_eq!(Url::parse("localhost:8000"), Err(Error::Scheme));
        assert_eq!(Url::parse("ftp://host"), Err(Error::Scheme));
        assert_eq!(Url::parse("é"), Err(Error::Scheme));
        assert_eq!(Url::parse("http://"), Err(Error::Malformed));
        assert_eq!(Url::parse("http://host:99999"), Err(Error::Malformed));
        assert_eq!(Url::parse("http://a b"), Err(Error::Malformed));
        assert_eq!(Url::parse("http://me:pw@host"), Err(Error::UserInfo));
        assert_eq!(Url::parse("http://host/?a=b"), Err(Error::Query));
    }
}
