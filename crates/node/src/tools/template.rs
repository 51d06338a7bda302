//! URLs with places for arguments: `https://host/items/{id}?q={query}`. An argument stays in
//! its place, whatever a model writes: it is percent-encoded (RFC 3986 section 2), and scheme
//! and host are fixed.

use std::fmt::Write as _;
use std::sync::Arc;

use http::Uri;
use serde_json::{Map, Value};

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    parts: Vec<Part>,
    has_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// As written.
    Fixed(String),
    /// This argument.
    Argument { name: String, in_path: bool },
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `http://` or `https://` in front, or no host.
    #[error("an address starts with http:// or https:// and a host")]
    Host,
    /// A place for an argument where it would choose the other side.
    #[error("an argument cannot be part of the scheme, host or port")]
    Early,
    /// `{` without `}`, or without a name.
    #[error("an argument is written {{name}}, with letters, digits and _")]
    Brace,
    /// A user name or password before the host, or a fragment.
    #[error("an address holds no user name, password or fragment")]
    Stray,
    /// The rest of it is no URL.
    #[error("this is not a URL")]
    Url,
}

impl Template {
    /// Checks and takes it apart.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| lower.starts_with(scheme))
            .ok_or(Error::Host)?;
        let rest = &text[scheme.len()..];
        let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if host.contains(['{', '}']) {
            return Err(Error::Early);
        }
        if host.is_empty() {
            return Err(Error::Host);
        }
        if host.contains('@') || text.contains('#') {
            return Err(Error::Stray);
        }
        let parts = split(text)?;
        let template = Self { has_query: text.contains('?'), parts, text: text.into() };
        let sample: Map<String, Value> =
            template.names().map(|name| (name.to_owned(), Value::from("x"))).collect();
        let uri: Uri = template.fill(&sample).ok().and_then(|(uri, _)| uri.parse().ok()).ok_or(Error::Url)?;
        let authority = uri.authority().ok_or(Error::Host)?;
        if authority.port_u16() == Some(0)
            || (authority.port().is_none() && authority.as_str() != authority.host())
        {
            return Err(Error::Url);
        }
        Ok(template)
    }

    /// The arguments it has places for; one may come twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Argument { name, .. } => Some(name.as_str()),
            Part::Fixed(_) => None,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL with these arguments, and the arguments that have no place in it.
    ///
    /// # Errors
    /// In words for the model: an argument is missing or does not fit its place.
    pub fn fill(&self, args: &Map<String, Value>) -> Result<(String, Map<String, Value>), String> {
        let mut url = String::with_capacity(self.text.len() + 32);
        let mut rest = args.clone();
        for part in &self.parts {
            let (name, in_path) = match part {
                Part::Fixed(text) => {
                    url.push_str(text);
                    continue;
                }
                Part::Argument { name, in_path } => (name, *in_path),
            };
            let value = args.get(name).filter(|value| !value.is_null());
            let value = value.ok_or_else(|| format!("The argument {name:?} is missing."))?;
            let text = scalar(value)
                .ok_or_else(|| format!("The argument {name:?} must be a text, number or bool."))?;
            if in_path && text.is_empty() {
                return Err(format!("The argument {name:?} must not be empty."));
            }
            encode(&mut url, &text);
            rest.remove(name);
        }
        // Dots need no encoding, and two of them are a way up that servers and proxies walk.
        let path = url.split('?').next().unwrap_or_default();
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("An argument must not be a step up in the address.".to_owned());
        }
        Ok((url, rest))
    }

    /// The URL with what is left over as its query: `?a=1&b=2`. Lists and objects go as JSON,
    /// nulls not at all.
    ///
    /// # Errors
    /// As [`Template::fill`].
    pub fn fill_all(&self, args: &Map<String, Value>) -> Result<String, String> {
        let (mut url, rest) = self.fill(args)?;
        let mut joint = if self.has_query { '&' } else { '?' };
        for (name, value) in rest.iter().filter(|(_, value)| !value.is_null()) {
            url.push(std::mem::replace(&mut joint, '&'));
            encode(&mut url, name);
            url.push('=');
            encode(&mut url, &scalar(value).unwrap_or_else(|| value.to_string()));
        }
        Ok(url)
    }
}

fn split(text: &str) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    let (mut rest, mut in_path) = (text, true);
    while let Some(open) = rest.find(['{', '}']) {
        let (before, after) = (&rest[..open], &rest[open + 1..]);
        let end = after.find('}').filter(|_| rest.as_bytes()[open] == b'{').ok_or(Error::Brace)?;
        let name = &after[..end];
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::Brace);
        }
        in_path &= !before.contains('?');
        parts.push(Part::Fixed(before.to_owned()));
        parts.push(Part::Argument { name: name.to_owned(), in_path });
        rest = &after[end + 1..];
    }
    parts.push(Part::Fixed(rest.to_owned()));
    Ok(parts)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }
}

/// Everything but the unreserved characters of RFC 3986 section 2.3.
fn encode(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn args(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("an object") };
        map
    }

    #[test]
    fn arguments_find_their_places() {
        let template = Template::parse("https://host:8443/a/{id}/b?q={query}&n={n}").expect("good");
        assert_eq!(template.names().collect::<Vec<_>>(), ["id", "query", "n"]);
        let given = args(json!({"id": "x/y é", "query": "a&b=c", "n": 7, "more": [1]}));
        let (url, rest) = template.fill(&given).expect("filled");
        assert_eq!(url, "https://host:8443/a/x%2Fy%20%C3%A9/b?q=a%26b%3Dc&n=7");
        assert_eq!(rest, args(json!({"more": [1]})));
        assert_eq!(template.fill_all(&given).expect("filled"), format!("{url}&more=%5B1%5D"));
        let plain = Template::parse("http://host/a").expect("good");
        let given = args(json!({"a": true, "b": null, "c d": "e"}));
        assert_eq!(plain.fill_all(&given).expect("filled"), "http://host/a?a=true&c%20d=e");
    }

    #[test]
    fn no_argument_leaves_its_place() {
        let template = Template::parse("https://host/users/{id}/profile?q={q}").expect("good");
        for id in ["..", ".", ""] {
            assert!(template.fill(&args(json!({"id": id, "q": ""}))).is_err(), "{id}");
        }
        for id in [json!(null), json!({}), json!([1])] {
            assert!(template.fill(&args(json!({"id": id, "q": ""}))).is_err());
        }
        assert!(template.fill(&args(json!({"q": ""}))).expect_err("missing").contains("\"id\""));
        assert!(template.fill(&args(json!({"id": "a", "q": ".."}))).is_ok(), "in a query dots lead nowhere");
        let two = Template::parse("https://host/{a}{b}/c").expect("good");
        assert!(two.fill(&args(json!({"a": ".", "b": "."}))).is_err(), "nor do two of them together");
    }

    #[test]
    fn bad_templates_say_why() {
        for (text, error) in [
            ("host/{a}", Error::Host),
            ("ftp://host/", Error::Host),
            ("https:///a", Error::Host),
            ("https://{host}/a", Error::Early),
            ("https://host:{port}/a", Error::Early),
            ("https://host{x}", Error::Early),
            ("https://me:pw@host/a", Error::Stray),
            ("https://host/a#b", Error::Stray),
            ("https://host/{a", Error::Brace),
            ("https://host/a}", Error::Brace),
            ("https://host/{}", Error::Brace),
            ("https://host/{a b}", Error::Brace),
            ("https://ho st/a", Error::Url),
            ("https://host:99999/a", Error::Url),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_model_writes_is_a_url_of_the_same_host_and_path(id in ".{1,40}", q in ".{0,40}") {
            prop_assume!(id != "." && id != "..");
            let template = Template::parse("http://host:81/a/{id}/b?q={q}").expect("good");
            let (url, _) = template.fill(&args(json!({"id": id, "q": q}))).expect("filled");
            let uri: Uri = url.parse().expect("a URL");
            prop_assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some("host:81"));
            prop_assert_eq!(uri.path().split('/').count(), 4);
            prop_assert!(uri.path().ends_with("/b"));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Template::parse(&text);
        }
    }
}
