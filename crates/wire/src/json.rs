//! JSON read one level at a time. Fields that are only carried (schemas, metadata,
//! arguments) stay the bytes they were, in the order they were written, and a mistake
//! is reported with the name of its field, never with its content.

use std::borrow::Cow;
use std::fmt;

use seawall_model::limits::{JSON_DEPTH_MAX, JSON_FIELDS_MAX, JSON_ITEMS_MAX};
use seawall_model::{Code, Fault};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A piece of JSON text, known to be well formed.
pub(crate) type Raw<'a> = &'a RawValue;

/// A string that borrows from the input when it holds no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct See;
        impl<'de> Visitor<'de> for See {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(See)
    }
}

/// The fields of one object, unread. Of fields with the same name the last counts,
/// as it does for the servers behind us.
pub(crate) struct Object<'a> {
    fields: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct See;
        impl<'de> Visitor<'de> for See {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    if fields.len() == JSON_FIELDS_MAX {
                        return Err(A::Error::custom("too many fields in one object"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Object { fields })
            }
        }
        from.deserialize_map(See)
    }
}

/// The items of one list, unread.
struct List<'a>(Vec<Raw<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct See;
        impl<'de> Visitor<'de> for See {
            type Value = List<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == JSON_ITEMS_MAX {
                        return Err(A::Error::custom("too many items in one list"));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        from.deserialize_seq(See)
    }
}

/// A fault of the caller's in one field.
pub(crate) fn bad(param: &str, must: &str) -> Fault {
    Fault::new(Code::BadField, format!("`{param}` {must}.")).at(param.to_owned())
}

/// A feature that the other protocol does not have.
pub(crate) fn untranslatable(param: &str, why: &str) -> Fault {
    Fault::new(Code::NotTranslatable, format!("`{param}` {why}.")).at(param.to_owned())
}

/// The same fault, its field seen from one level further out: `content` in
/// `messages[3]` becomes `messages[3].content`.
pub(crate) fn under(mut fault: Fault, outer: &str) -> Fault {
    let Some(inner) = fault.param.take() else {
        return fault.at(outer.to_owned());
    };
    let full = if inner.starts_with('[') { format!("{outer}{inner}") } else { format!("{outer}.{inner}") };
    let told = fault.message.replacen(&format!("`{inner}`"), &format!("`{full}`"), 1);
    fault.message = told.into();
    fault.at(full)
}

/// Names the item of the list `name` in which `read` failed.
pub(crate) fn each<'a, T>(
    name: &str,
    items: &[Raw<'a>],
    mut read: impl FnMut(Raw<'a>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut out = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        out.push(read(item).map_err(|fault| under(fault, &format!("{name}[{at}]")))?);
    }
    Ok(out)
}

/// What the caller is told about text that is not JSON: where, and what was expected,
/// but nothing of what stood there.
pub(crate) fn broken(error: &serde_json::Error) -> Fault {
    Fault::new(Code::BadJson, format!("The request body is not valid JSON: {error}."))
}

/// Where the string ends (its closing quote) that is inside of at `from`.
pub(crate) fn string_end(json: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Refuses well-formed JSON that nests deeper than [`JSON_DEPTH_MAX`]. Nearly every
/// body has too few brackets to, which is seen without looking at its strings.
pub(crate) fn shallow(json: &[u8]) -> Result<(), Fault> {
    if memchr::memchr2_iter(b'[', b'{', json).nth(JSON_DEPTH_MAX).is_none() {
        return Ok(());
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < json.len() {
        match json[at] {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = string_end(json, at + 1).unwrap_or(json.len()),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            let told = format!("The request body nests deeper than {JSON_DEPTH_MAX} lists and objects.");
            return Err(Fault::new(Code::BadJson, told));
        }
        at += 1;
    }
    Ok(())
}

/// The body as text, which all JSON is.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|error| {
        let good = &body[..error.valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', good).count();
        let column = good.len() - memchr::memrchr(b'\n', good).map_or(0, |at| at + 1) + 1;
        Fault::new(
            Code::BadJson,
            format!("The request body is not valid JSON: not UTF-8 at line {line} column {column}."),
        )
    })
}

/// Reads the body of a request, which must be an object.
pub(crate) fn body(body: &[u8]) -> Result<Object<'_>, Fault> {
    let text = utf8(body)?;
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| broken(&error))?;
        return Err(Fault::new(Code::BadField, "The request body must be a JSON object."));
    }
    serde_json::from_str(text).map_err(|error| broken(&error))
}

/// Is it a string?
pub(crate) fn is_text(raw: Raw<'_>) -> bool {
    raw.get().starts_with('"')
}

/// The string, if it is one.
pub(crate) fn text(raw: Raw<'_>) -> Option<String> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0.into_owned())
}

/// The items, if it is a list.
pub(crate) fn items(raw: Raw<'_>) -> Option<Vec<Raw<'_>>> {
    serde_json::from_str::<List<'_>>(raw.get()).ok().map(|list| list.0)
}

/// The fields, if it is an object; the fault has no field yet.
pub(crate) fn object(raw: Raw<'_>) -> Result<Object<'_>, Fault> {
    serde_json::from_str(raw.get()).map_err(|_| Fault::new(Code::BadField, "An object is expected here."))
}

impl<'a> Object<'a> {
    /// The fields of engine or event text, if it is an object.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// A field that is there and not null.
    pub(crate) fn find(&self, name: &str) -> Option<Raw<'a>> {
        let (_, raw) = self.fields.iter().rev().find(|(field, _)| field == name)?;
        (raw.get() != "null").then_some(*raw)
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        let Some(raw) = self.find(name) else {
            return Ok(None);
        };
        text(raw).map(Some).ok_or_else(|| bad(name, "must be a string"))
    }

    /// A string that must be there.
    pub(crate) fn need_text(&self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| bad(name, "is required"))
    }

    /// A string, or nothing where there is none; for fields that only help.
    pub(crate) fn hint(&self, name: &str) -> Option<String> {
        self.find(name).and_then(text)
    }

    /// A flag.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.find(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    /// A whole number, zero or more.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(raw) = self.find(name) else {
            return Ok(None);
        };
        let count = serde_json::from_str(raw.get());
        count.map(Some).map_err(|_| bad(name, "must be a whole number, zero or more"))
    }

    /// A number. Read by the standard library, which rounds correctly, so that it is
    /// written again just as it came (serde_json may be off by the last digit).
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Fault> {
        let Some(raw) = self.find(name).map(RawValue::get) else {
            return Ok(None);
        };
        let number =
            raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| raw.parse());
        match number {
            Some(Ok(number)) if f64::is_finite(number) => Ok(Some(number)),
            _ => Err(bad(name, "must be a number")),
        }
    }

    /// A list.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<Raw<'a>>>, Fault> {
        let Some(raw) = self.find(name) else {
            return Ok(None);
        };
        items(raw).map(Some).ok_or_else(|| bad(name, "must be a list of a bearable length"))
    }

    /// An object inside.
    pub(crate) fn inner(&self, name: &str) -> Result<Option<Object<'a>>, Fault> {
        let Some(raw) = self.find(name) else {
            return Ok(None);
        };
        object(raw).map(Some).map_err(|_| bad(name, "must be an object"))
    }

    /// An object inside that must be there.
    pub(crate) fn need_inner(&self, name: &str) -> Result<Object<'a>, Fault> {
        self.inner(name)?.ok_or_else(|| bad(name, "is required"))
    }

    /// Every field as name and text, in the order written.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, Raw<'a>)> {
        self.fields.iter().map(|(name, raw)| (name.as_ref(), *raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_fields_counts_and_null_is_nothing() {
        let object = Object::parse(br#"{"a":1,"a":2,"b":null}"#).expect("an object");
        assert_eq!(object.count("a"), Ok(Some(2)));
        assert!(object.find("b").is_none());
    }

    #[test]
    fn a_fault_names_the_whole_way_to_its_field() {
        let fault = under(under(bad("text", "must be a string"), "content[1]"), "messages[3]");
        assert_eq!(fault.param.as_deref(), Some("messages[3].content[1].text"));
        assert_eq!(fault.message, "`messages[3].content[1].text` must be a string.");
    }

    #[test]
    fn lists_and_objects_stop_at_their_bound() {
        let many = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(JSON_FIELDS_MAX));
        assert!(Object::parse(many.as_bytes()).is_none());
        let long = format!("[{}0]", "0,".repeat(JSON_ITEMS_MAX));
        let raw: Raw<'_> = serde_json::from_str(&long).expect("valid");
        assert!(items(raw).is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_place() {
        let fault = utf8(b"{\n \"a\": \xff}").expect_err("not UTF-8");
        assert_eq!(fault.code, Code::BadJson);
        assert!(fault.message.contains("line 2 column 7"), "{}", fault.message);
    }
}
