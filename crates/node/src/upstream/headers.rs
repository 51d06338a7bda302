//! Which headers cross the gateway: never those of one hop, of credentials, or of the
//! operator's account.

use http::{HeaderMap, HeaderValue};

/// Headers that belong to one hop (RFC 9110 section 7.6.1) or that name the other side.
const HOP: [http::HeaderName; 10] = [
    http::header::CONNECTION,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::HOST,
    http::header::CONTENT_LENGTH,
    http::HeaderName::from_static("keep-alive"),
];

/// The client's headers that an engine may see: all but those of the hop, of the
/// client's own credentials, and Seawall's. Compression is declined, because the
/// stream must be readable to be metered.
#[must_use]
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 2);
    let hop = named_in_connection(headers);
    for (name, value) in headers {
        let ours = name.as_str().starts_with("x-seawall-");
        let secret = matches!(name.as_str(), "authorization" | "x-api-key" | "cookie" | "api-key");
        let coding = *name == http::header::ACCEPT_ENCODING || *name == http::header::EXPECT;
        let account = matches!(name.as_str(), "openai-organization" | "openai-project");
        if !(ours || secret || coding || account || HOP.contains(name) || hop(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// The engine's headers that a client may see.
#[must_use]
pub fn returned(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 6);
    let hop = named_in_connection(headers);
    for (name, value) in headers {
        // The operator's account with the provider is not the tenant's business.
        let account =
            matches!(name.as_str(), "openai-organization" | "openai-project" | "anthropic-organization-id");
        let private = account || *name == http::header::SET_COOKIE || *name == http::header::SERVER;
        // What a provider says of its own address would send clients there, or would bind
        // ours to TLS.
        let address = *name == http::header::ALT_SVC || *name == http::header::STRICT_TRANSPORT_SECURITY;
        if !(private || address || HOP.contains(name) || hop(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Does `Connection` name this header as one of the hop (RFC 9110 section 7.6.1)?
fn named_in_connection(headers: &HeaderMap) -> impl Fn(&http::HeaderName) -> bool {
    let values = headers.get_all(http::header::CONNECTION);
    move |name| {
        let texts = values.iter().filter_map(|value| value.to_str().ok());
        let mut tokens = texts.flat_map(|text| text.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
    }
}

/// A header value from text that may not be one.
#[must_use]
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_sees_neither_the_operators_account_nor_the_providers_address() {
        let mut headers = HeaderMap::new();
        for name in ["alt-svc", "strict-transport-security", "set-cookie", "server", "openai-organization"] {
            headers.insert(name, value("secret"));
        }
        headers.insert("content-type", value("text/plain"));
        headers.insert("connection", value("x-hop"));
        headers.insert("x-hop", value("1"));
        let seen = returned(&headers);
        assert_eq!(seen.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }
}
