//! The fields of a request's body: a JSON object whose values are taken one by one. Content
//! is passed on as it came, without being taken apart.

use std::collections::BTreeMap;
use std::fmt;

use seawall_model::effect::Allowance;
use seawall_model::{Code, Fault, MicroUsd, Millis, Tokens};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A body's fields. What nobody took is told by [`Fields::finish`].
#[derive(Debug)]
pub(super) struct Fields {
    fields: BTreeMap<String, Box<RawValue>>,
    /// Where they are, with a dot at its end, for messages.
    place: String,
}

impl Fields {
    /// Reads a body; an empty one has no fields.
    ///
    /// # Errors
    /// `BadJson` for what is no JSON object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Fault> {
        let place = String::new();
        if body.trim_ascii().is_empty() {
            return Ok(Self { fields: BTreeMap::new(), place });
        }
        let Once(fields) = serde_json::from_slice(body).map_err(|why| {
            // The words tell the place, never the text.
            let (line, column) = (why.line(), why.column());
            let what =
                if why.to_string().starts_with(TWICE) { TWICE } else { "The body is not a JSON object" };
            Fault::new(Code::BadJson, format!("{what} (line {line}, column {column})."))
        })?;
        Ok(Self { fields, place })
    }

    fn raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.fields.remove(name).filter(|value| value.get() != "null")
    }

    fn parsed<T: serde::de::DeserializeOwned>(&mut self, name: &str, is: &str) -> Result<Option<T>, Fault> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| self.bad(name, &format!("is {is}")))
    }

    fn bad(&self, name: &str, what: &str) -> Fault {
        let name = format!("{}{name}", self.place);
        Fault::new(Code::BadField, format!("`{name}` {what}.")).at(name)
    }

    /// Content: a string becomes its text, anything else stays JSON. `None` where it is
    /// not there, or `null`.
    pub(super) fn content(&mut self, name: &str) -> Option<Vec<u8>> {
        self.raw(name).map(|raw| content(&raw))
    }

    /// As [`Self::content`], of every field that is left; `None` for `null`.
    pub(super) fn contents(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let fields = std::mem::take(&mut self.fields);
        let kept = |raw: Box<RawValue>| (raw.get() != "null").then(|| content(&raw));
        fields.into_iter().map(|(name, raw)| (name, kept(raw))).collect()
    }

    /// Is the field there, even as `null`?
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// A text.
    ///
    /// # Errors
    /// `BadField` for anything else; so with all below.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.parsed(name, "a text")
    }

    /// A whole number.
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        self.parsed(name, "a whole number")
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.parsed(name, "true or false")
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        let fields = self.parsed(name, "an object in which no name stands twice")?;
        Ok(fields.map(|Once(fields)| Self { fields, place: format!("{}{name}.", self.place) }))
    }

    /// A JSON object, as it was written.
    pub(super) fn object_text(&mut self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.get().starts_with('{') {
            return Err(self.bad(name, "is an object"));
        }
        Ok(Some(raw.get().as_bytes().to_vec()))
    }

    /// What a run may use.
    pub(super) fn allowance(&mut self, name: &str) -> Result<Allowance, Fault> {
        let Some(mut fields) = self.object(name)? else { return Ok(Allowance::default()) };
        let money: Option<f64> = fields.parsed("money_usd", "a number of dollars")?;
        if money.is_some_and(|money| !(0.0..=1e12).contains(&money)) {
            return Err(fields.bad("money_usd", "is a number of dollars from 0 on"));
        }
        let allowance = Allowance {
            tokens: fields.whole("tokens")?.map(Tokens),
            money: money.map(|money| MicroUsd((money * 1e6).round() as u64)),
            calls: fields.whole("calls")?,
            steps: fields.whole("steps")?,
            wall: fields.whole("wall_ms")?.map(Millis),
            children: fields.parsed("children", "a small whole number")?,
            depth: fields.parsed("depth", "a small whole number")?,
        };
        fields.finish()?;
        Ok(allowance)
    }

    /// Nothing is left that nobody took.
    ///
    /// # Errors
    /// `BadField` with the name.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(100).collect();
                Err(self.bad(&shown, "is not known here"))
            }
        }
    }
}

/// What is said of an object in which a name stands twice.
const TWICE: &str = "A name stands twice in an object";

/// The fields of an object, each of which stands there once: of two that say different
/// things nobody knows which was meant, and another reader may take the other.
struct Once(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Once(fields))
    }
}

fn content(raw: &RawValue) -> Vec<u8> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => raw.get().as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stays_as_it_came_and_texts_lose_their_quotes() {
        let mut fields = Fields::read(br#"{"task": "find \"it\"", "body": {"a": [1,  2]}, "none": null}"#)
            .expect("an object");
        assert_eq!(fields.content("task").as_deref(), Some(&b"find \"it\""[..]));
        assert_eq!(fields.content("body").as_deref(), Some(&br#"{"a": [1,  2]}"#[..]));
        assert_eq!(fields.content("none"), None);
        assert!(fields.finish().is_ok());
        assert!(Fields::read(b"").expect("nothing").finish().is_ok());
    }

    #[test]
    fn allowances_are_read_and_mistakes_are_named() {
        let mut fields =
            Fields::read(br#"{"allowance":{"money_usd":0.5,"calls":3,"depth":2}}"#).expect("good");
        let allowance = fields.allowance("allowance").expect("good");
        assert_eq!(
            (allowance.money, allowance.calls, allowance.depth),
            (Some(MicroUsd(500_000)), Some(3), Some(2))
        );
        for (body, at) in [
            (r#"{"allowance":{"money_usd":-1}}"#, "allowance.money_usd"),
            (r#"{"allowance":{"tokens":"x"}}"#, "allowance.tokens"),
            (r#"{"allowance":{"token":1}}"#, "allowance.token"),
            (r#"{"allowance":{"depth":70000}}"#, "allowance.depth"),
            (r#"{"allowance":3}"#, "allowance"),
        ] {
            let mut fields = Fields::read(body.as_bytes()).expect("an object");
            let fault = fields.allowance("allowance").expect_err(body);
            assert_eq!((fault.code, fault.param.as_deref()), (Code::BadField, Some(at)));
        }
        for bad in ["[]", "{", "3", "nonsense", r#"{"task":1,"task":2}"#] {
            assert_eq!(Fields::read(bad.as_bytes()).expect_err("bad").code, Code::BadJson);
        }
    }
}
