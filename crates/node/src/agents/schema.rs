//! JSON Schema, as far as agents need it: what a model is told to answer or to call a tool
//! with, checked before anybody acts on it.
//!
//! Checked are `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`,
//! `minProperties`, `maxProperties`, `items`, `prefixItems`, `minItems`, `maxItems`,
//! `uniqueItems`, `minLength`, `maxLength`, `minimum`, `maximum`, `exclusiveMinimum`,
//! `exclusiveMaximum`, `multipleOf` (whole numbers), `anyOf`, `oneOf`, `allOf`, `not` and
//! `$ref` inside the document. Keywords that only describe are passed over. Of the rest
//! (`pattern`, `format`, `if` and so on) [`Schema::unchecked`] gives the names: whoever
//! relies on a schema refuses them, whoever only wants obvious mistakes found may not care.

use serde_json::{Map, Value};

/// Levels of a schema and of what is checked with it: several times what any model writes.
const DEPTH_MAX: usize = 64;
/// Mistakes that are told: a model mends a few at a time.
const MISTAKES_MAX: usize = 8;
/// Steps of one check, so that references that refer to each other end.
const STEPS_MAX: usize = 200_000;

/// Keywords that are checked.
const CHECKED: &[&str] = &[
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
];
/// Keywords that demand nothing.
const PLAIN: &[&str] = &[
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "strict",
];

/// A schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    root: Value,
    text: String,
}

impl Schema {
    /// Takes a schema that is JSON text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let root: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        Self::of(root)
    }

    /// Takes a schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn of(root: Value) -> Result<Self, String> {
        let schema = Self { text: root.to_string(), root };
        schema.sound(&schema.root, "", 0)?;
        Ok(schema)
    }

    /// Its JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Keywords in it that are not checked, each once, in order.
    #[must_use]
    pub fn unchecked(&self) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        each_schema(&self.root, 0, &mut |map| {
            let known = |name: &str| CHECKED.contains(&name) || PLAIN.contains(&name);
            names.extend(map.keys().filter(|name| !known(name)).cloned());
        });
        names.into_iter().collect()
    }

    /// What is wrong with a value, each mistake with its place; nothing if it fits.
    #[must_use]
    pub fn mistakes(&self, value: &Value) -> Vec<String> {
        let mut check = Check { root: &self.root, mistakes: Vec::new(), steps: 0 };
        check.value(&self.root, value, "", 0);
        check.mistakes
    }

    /// The schema's own shape: what the check relies on.
    fn sound(&self, schema: &Value, place: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("nests deeper than {DEPTH_MAX} levels"));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(map) => map,
            _ => return Err(format!("{} must be an object or true or false", named(place))),
        };
        for (name, value) in map {
            let here = format!("{place}/{name}");
            let fits = match name.as_str() {
                "type" => types(value).is_some(),
                "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
                "enum" => value.is_array(),
                "properties" | "$defs" | "definitions" => value.is_object(),
                "anyOf" | "oneOf" | "allOf" => value.as_array().is_some_and(|list| !list.is_empty()),
                "prefixItems" => value.is_array(),
                "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                    value.as_u64().is_some()
                }
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
                "multipleOf" => value.as_f64().is_some_and(|step| step > 0.0),
                "uniqueItems" => value.is_boolean(),
                "$ref" => value.as_str().is_some_and(|path| resolve(&self.root, path).is_some()),
                _ => true,
            };
            if !fits {
                return Err(format!("{} is not as JSON Schema has it", named(&here)));
            }
        }
        for (name, below) in children(map) {
            self.sound(below, &format!("{place}/{name}"), depth + 1)?;
        }
        Ok(())
    }
}

fn named(place: &str) -> &str {
    if place.is_empty() { "the schema" } else { place }
}

/// The schemas directly inside one, with where they stand.
fn children(map: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in map {
        match (name.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(inner)) => {
                found.extend(inner.iter().map(|(key, below)| (format!("{name}/{key}"), below)));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(inner)) => {
                found.extend(inner.iter().enumerate().map(|(at, below)| (format!("{name}/{at}"), below)));
            }
            ("additionalProperties" | "items" | "not", below) => found.push((name.clone(), below)),
            _ => {}
        }
    }
    found
}

fn each_schema(schema: &Value, depth: usize, see: &mut impl FnMut(&Map<String, Value>)) {
    if let (Value::Object(map), true) = (schema, depth <= DEPTH_MAX) {
        see(map);
        for (_, below) in children(map) {
            each_schema(below, depth + 1, see);
        }
    }
}

/// What `$ref` means: `#` and a JSON pointer.
fn resolve<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    root.pointer(path.strip_prefix('#')?)
}

/// The names of `type`, if they are such.
fn types(value: &Value) -> Option<Vec<&str>> {
    let known = ["null", "boolean", "object", "array", "number", "integer", "string"];
    let names = match value {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    names.iter().all(|name| known.contains(name)).then_some(names)
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // 1.0 is a whole number too.
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => false,
    }
}

/// Equal as JSON has it: 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.as_f64() == y.as_f64() && x.is_f64() != y.is_f64())
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

struct Check<'a> {
    root: &'a Value,
    mistakes: Vec<String>,
    steps: usize,
}

impl Check<'_> {
    fn wrong(&mut self, place: &str, what: &str) {
        if self.mistakes.len() < MISTAKES_MAX {
            let place = if place.is_empty() { "the whole" } else { &place[1..] };
            self.mistakes.push(format!("{place} {what}"));
        }
    }

    /// Does it fit, without telling why not?
    fn fits(&mut self, schema: &Value, value: &Value, depth: usize) -> bool {
        let mut quiet = Check { root: self.root, mistakes: Vec::new(), steps: self.steps };
        quiet.value(schema, value, "", depth);
        self.steps = quiet.steps;
        quiet.mistakes.is_empty()
    }

    fn value(&mut self, schema: &Value, value: &Value, place: &str, depth: usize) {
        self.steps += 1;
        if depth > DEPTH_MAX || self.steps > STEPS_MAX {
            return self.wrong(place, "nests too deep to be checked");
        }
        let map = match schema {
            Value::Bool(false) => return self.wrong(place, "is not allowed"),
            Value::Object(map) => map,
            _ => return,
        };
        if let Some(target) =
            map.get("$ref").and_then(Value::as_str).and_then(|path| resolve(self.root, path))
        {
            self.value(target, value, place, depth + 1);
        }
        if let Some(names) = map.get("type").and_then(types)
            && !names.iter().any(|name| is_type(value, name))
        {
            return self.wrong(place, &format!("must be {}", names.join(" or ")));
        }
        if let Some(Value::Array(list)) = map.get("enum")
            && !list.iter().any(|one| same(one, value))
        {
            let list = Value::Array(list.clone()).to_string();
            let shown: String = list.chars().take(300).collect();
            self.wrong(place, &format!("must be one of {shown}"));
        }
        if let Some(only) = map.get("const")
            && !same(only, value)
        {
            self.wrong(place, &format!("must be {only}"));
        }
        match value {
            Value::Object(fields) => self.object(map, fields, place, depth),
            Value::Array(items) => self.array(map, items, place, depth),
            Value::String(text) => self.string(map, text, place),
            Value::Number(_) => self.number(map, value, place),
            _ => {}
        }
        self.combined(map, value, place, depth);
    }

    fn object(&mut self, map: &Map<String, Value>, fields: &Map<String, Value>, place: &str, depth: usize) {
        let properties = map.get("properties").and_then(Value::as_object);
        for name in map.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = name.as_str()
                && !fields.contains_key(name)
            {
                self.wrong(&format!("{place}.{name}"), "is missing");
            }
        }
        for (name, below) in fields {
            let here = format!("{place}.{name}");
            match properties.and_then(|properties| properties.get(name)) {
                Some(schema) => self.value(schema, below, &here, depth + 1),
                None => match map.get("additionalProperties") {
                    Some(Value::Bool(false)) => self.wrong(&here, "is not among the fields"),
                    Some(schema) => self.value(schema, below, &here, depth + 1),
                    None => {}
                },
            }
        }
        self.count(map, "Properties", fields.len(), "fields", place);
    }

    fn array(&mut self, map: &Map<String, Value>, items: &[Value], place: &str, depth: usize) {
        let first = map.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (at, item) in items.iter().enumerate() {
            let here = format!("{place}.{at}");
            if let Some(schema) = first.get(at).or_else(|| map.get("items")) {
                self.value(schema, item, &here, depth + 1);
            }
        }
        self.count(map, "Items", items.len(), "items", place);
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.steps += items.len() * items.len() / 8;
            let twice =
                items.iter().enumerate().any(|(at, item)| items[..at].iter().any(|one| same(one, item)));
            if twice {
                self.wrong(place, "must not hold an item twice");
            }
        }
    }

    fn string(&mut self, map: &Map<String, Value>, text: &str, place: &str) {
        self.count(map, "Length", text.chars().count(), "characters", place);
    }

    /// `minX` and `maxX`.
    fn count(&mut self, map: &Map<String, Value>, of: &str, found: usize, noun: &str, place: &str) {
        let bound = |side: &str| map.get(&format!("{side}{of}")).and_then(Value::as_u64);
        if let Some(least) = bound("min").filter(|least| (found as u64) < *least) {
            self.wrong(place, &format!("must have at least {least} {noun}"));
        }
        if let Some(most) = bound("max").filter(|most| found as u64 > *most) {
            self.wrong(place, &format!("must have at most {most} {noun}"));
        }
    }

    fn number(&mut self, map: &Map<String, Value>, value: &Value, place: &str) {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let bound = |name: &str| map.get(name).and_then(Value::as_f64);
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            self.wrong(place, &format!("must be at least {least}"));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            self.wrong(place, &format!("must be at most {most}"));
        }
        if let Some(least) = bound("exclusiveMinimum").filter(|least| number <= *least) {
            self.wrong(place, &format!("must be more than {least}"));
        }
        if let Some(most) = bound("exclusiveMaximum").filter(|most| number >= *most) {
            self.wrong(place, &format!("must be less than {most}"));
        }
        if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0) {
            let times = number / step;
            if (times - times.round()).abs() > 1e-9 * times.abs().max(1.0) {
                self.wrong(place, &format!("must be a multiple of {step}"));
            }
        }
    }

    fn combined(&mut self, map: &Map<String, Value>, value: &Value, place: &str, depth: usize) {
        let list = |name: &str| map.get(name).and_then(Value::as_array);
        for schema in list("allOf").into_iter().flatten() {
            self.value(schema, value, place, depth + 1);
        }
        if let Some(any) = list("anyOf")
            && !any.iter().any(|schema| self.fits(schema, value, depth + 1))
        {
            self.wrong(place, "fits none of the shapes it may have");
        }
        if let Some(one) = list("oneOf") {
            let fitting = one.iter().filter(|schema| self.fits(schema, value, depth + 1)).count();
            if fitting != 1 {
                self.wrong(place, &format!("must fit exactly one of its shapes, and fits {fitting}"));
            }
        }
        if let Some(not) = map.get("not")
            && self.fits(not, value, depth + 1)
        {
            self.wrong(place, "has a shape that it must not have");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mistakes(schema: Value, value: &Value) -> Vec<String> {
        Schema::of(schema).expect("a schema").mistakes(value)
    }

    #[test]
    fn values_that_fit_have_no_mistakes() {
        for (schema, value) in [
            (json!(true), json!(1)),
            (json!({"type": ["string", "null"]}), json!(null)),
            (json!({"type": "integer"}), json!(1.0)),
            (json!({"enum": [1, "a"]}), json!(1.0)),
            (json!({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}), json!(["a", 1, 2])),
            (json!({"oneOf": [{"type": "string"}, {"type": "number"}]}), json!(3)),
            (json!({"not": {"type": "string"}}), json!(3)),
            (json!({"multipleOf": 0.1}), json!(0.3)),
            (json!({"maxLength": 2}), json!("\u{e9}\u{e9}")),
            (json!({"minimum": 3}), json!("text")),
        ] {
            assert_eq!(mistakes(schema.clone(), &value), Vec::<String>::new(), "{schema} {value}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let schema = json!({
            "type": "object", "required": ["name", "age"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2, "uniqueItems": true},
            },
        });
        let value = json!({"name": "", "tags": ["a", "c", "a"], "more": 1});
        assert_eq!(
            mistakes(schema, &value),
            [
                "age is missing",
                "more is not among the fields",
                "name must have at least 1 characters",
                "tags.1 must be one of [\"a\",\"b\"]",
                "tags must have at most 2 items",
                "tags must not hold an item twice",
            ]
        );
        assert_eq!(mistakes(json!({"type": "object"}), &json!([])), ["the whole must be object"]);
    }

    #[test]
    fn references_work_and_circles_end() {
        let tree = json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": {"type": "object", "properties": {"below": {"$ref": "#/$defs/node"}}}},
        });
        assert!(mistakes(tree.clone(), &json!({"below": {"below": {}}})).is_empty());
        assert_eq!(mistakes(tree, &json!({"below": {"below": 1}})), ["below.below must be object"]);
        let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert_eq!(mistakes(circle, &json!(1)).len(), 1);
        let fan = json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}});
        assert_eq!(mistakes(fan, &json!(1)).len(), 1);
    }

    #[test]
    fn a_broken_schema_is_refused_and_unchecked_keywords_are_named() {
        for broken in [
            json!(7),
            json!({"type": "text"}),
            json!({"properties": {"a": {"required": "b"}}}),
            json!({"$ref": "#/nowhere"}),
            json!({"$ref": "http://elsewhere"}),
            json!({"anyOf": []}),
        ] {
            assert!(Schema::of(broken.clone()).is_err(), "{broken}");
        }
        let told = Schema::parse("{").expect_err("no JSON");
        assert!(told.starts_with("is no JSON"), "{told}");
        let schema =
            Schema::of(json!({"properties": {"a": {"pattern": "x", "title": "t"}}})).expect("a schema");
        assert_eq!(schema.unchecked(), ["pattern"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let words = [
            "type",
            "object",
            "array",
            "string",
            "integer",
            "properties",
            "items",
            "required",
            "$ref",
            "#",
            "#/properties/a",
            "anyOf",
            "not",
            "enum",
            "minimum",
            "maxItems",
            "uniqueItems",
            "a",
        ];
        let word = proptest::sample::select(words.to_vec());
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-4_i64..4).prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((word.clone(), inner), 0..5).prop_map(|fields| {
                    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_schema_is_refused_or_checks_any_value(schema in any_json(), value in any_json()) {
            if let Ok(schema) = Schema::of(schema) {
                let told = schema.mistakes(&value);
                prop_assert!(told.len() <= MISTAKES_MAX);
                prop_assert_eq!(told, schema.mistakes(&value));
            }
        }
    }
}
