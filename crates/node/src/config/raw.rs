//! The config file as a tree of values that know their lines, overlaid with environment
//! and flags.
//!
//! A derived deserialiser stops at its first error; this reader goes on, so that all
//! problems are told at once, and it remembers where every value came from. Unknown
//! keys are problems, with the nearest known key as a hint.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problems, Setting, nearest};

/// What the reader can see and what it has gathered.
pub(crate) struct Reading<'a> {
    /// Looks up an environment variable.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a small text file.
    pub(crate) files: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Values from flags and named variables, by key path; they win over the rest.
    pub(crate) overrides: BTreeMap<&'static str, (Origin, String)>,
    /// The directory of the config file: paths in it start there.
    pub(crate) base: PathBuf,
    /// What is wrong.
    pub(crate) problems: Problems,
    /// What is doubtful.
    pub(crate) warnings: Problems,
    /// Every effective value so far.
    pub(crate) settings: Vec<Setting>,
    /// Every `SEAWALL__` variable that was looked for.
    pub(crate) env_known: BTreeSet<String>,
    line_starts: Vec<usize>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(
        text: &str,
        env: &'a dyn Fn(&str) -> Option<String>,
        files: &'a dyn Fn(&Path) -> io::Result<String>,
    ) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            env,
            files,
            overrides: BTreeMap::new(),
            base: PathBuf::new(),
            problems: Problems::default(),
            warnings: Problems::default(),
            settings: Vec::new(),
            env_known: BTreeSet::new(),
            line_starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    /// The line, from 1, that holds this byte.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// The line on which a setting stands, if it stands in the file; the last one, should
    /// two sections by mistake have one name.
    pub(crate) fn line_of(&self, key: &str) -> Option<usize> {
        self.settings.iter().rev().find(|setting| setting.key == key).and_then(|setting| {
            match setting.origin {
                Origin::File(line) => Some(line),
                _ => None,
            }
        })
    }

    /// A problem with a setting, at its line.
    pub(crate) fn problem(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let line = self.line_of(key);
        self.problems.add(line, key, what, hint);
    }

    /// A warning about a setting, at its line.
    pub(crate) fn warning(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let line = self.line_of(key);
        self.warnings.add(line, key, what, hint);
    }

    pub(crate) fn record(&mut self, key: impl Into<String>, value: impl Into<String>, origin: Origin) {
        self.settings.push(Setting { key: key.into(), value: value.into(), origin });
    }
}

/// A value as written, before it is known what is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Scalar<'t> {
    /// Text; from the environment and from flags everything is text.
    Text(Cow<'t, str>),
    /// A whole number; `None` if it does not fit.
    Whole(Option<i128>),
    /// A number with a point.
    Part(f64),
    /// True or false.
    Bool(bool),
    /// Something that is no single value, by its name.
    Other(&'static str),
}

/// A value with its origin.
#[derive(Clone, Debug)]
pub(crate) struct Given<'t> {
    pub(crate) scalar: Scalar<'t>,
    pub(crate) origin: Origin,
}

impl Given<'_> {
    pub(crate) fn line(&self) -> Option<usize> {
        if let Origin::File(line) = self.origin { Some(line) } else { None }
    }

    /// May text stand for a number or a bool? Only where nothing but text exists.
    pub(super) fn is_loose(&self) -> bool {
        !matches!(self.origin, Origin::File(_))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Scalar::Text(text) = &self.scalar { Some(text) } else { None }
    }

    pub(super) fn whole(&self) -> Option<i128> {
        match &self.scalar {
            Scalar::Whole(number) => *number,
            Scalar::Text(text) if self.is_loose() => text.trim().replace('_', "").parse().ok(),
            _ => None,
        }
    }

    pub(super) fn part(&self) -> Option<f64> {
        match &self.scalar {
            Scalar::Part(number) => Some(*number),
            Scalar::Whole(number) => number.map(|n| n as f64),
            Scalar::Text(text) if self.is_loose() => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn bool(&self) -> Option<bool> {
        match &self.scalar {
            Scalar::Bool(on) => Some(*on),
            Scalar::Text(text) if self.is_loose() => match text.trim() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn describe(&self) -> String {
        match &self.scalar {
            Scalar::Text(text) => format!("the text {:?}", shorten(text)),
            Scalar::Whole(Some(number)) => format!("{number}"),
            Scalar::Whole(None) => "a number that is too large".into(),
            Scalar::Part(number) => format!("{number}"),
            Scalar::Bool(on) => format!("{on}"),
            Scalar::Other(what) => (*what).into(),
        }
    }
}

/// One table of the file. Remembers which keys were asked for: the rest are unknown.
pub(crate) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    path: String,
    line: Option<usize>,
    /// Can the environment overlay it? Only single tables, whose paths are fixed.
    overlaid: bool,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// The whole file, or nothing if there is none.
    pub(crate) fn root(table: Option<&'t DeTable<'t>>) -> Self {
        Self { table, path: String::new(), line: None, overlaid: true, known: Vec::new() }
    }

    /// The full key path of one of its keys.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Its own key path.
    pub(crate) fn own_path(&self) -> &str {
        &self.path
    }

    /// The line of its heading.
    pub(crate) fn line(&self) -> Option<usize> {
        self.line
    }

    /// Gives it a telling path once its name is known: `engine.vllm`, not `engine[0]`.
    pub(crate) fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// Is this key written in the file?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Mentions a key without reading it, so that it is not unknown.
    pub(crate) fn know(&mut self, key: &'static str) {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
    }

    fn entry(&self, key: &str) -> Option<(&'t Spanned<Cow<'t, str>>, &'t Spanned<DeValue<'t>>)> {
        self.table?.iter().find(|(name, _)| name.get_ref() == key)
    }

    /// The winning value of a key, if anything says one.
    pub(crate) fn given(&mut self, r: &mut Reading<'_>, key: &'static str) -> Option<Given<'t>> {
        self.know(key);
        let path = self.path(key);
        if let Some((origin, text)) = r.overrides.get(path.as_str()) {
            return Some(Given { scalar: Scalar::Text(text.clone().into()), origin: origin.clone() });
        }
        if self.overlaid {
            let name = env_name(&path);
            let found = (r.env)(&name).filter(|text| !text.is_empty());
            r.env_known.insert(name.clone());
            if let Some(text) = found {
                return Some(Given { scalar: Scalar::Text(text.into()), origin: Origin::Env(name) });
            }
        }
        let (name, value) = self.entry(key)?;
        Some(Given { scalar: scalar(value.get_ref()), origin: Origin::File(r.line(name.span().start)) })
    }

    /// A list of texts, each with its line. `None` if the key is absent or no list.
    pub(crate) fn list_opt(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        len_max: usize,
    ) -> Option<Vec<(String, usize)>> {
        self.know(key);
        let path = self.path(key);
        let (name, value) = self.entry(key)?;
        let line = r.line(name.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            let what = format!("expected a list of texts, found {}", kind_of(value.get_ref()));
            r.problems.add(Some(line), path, what, "write [\"a\", \"b\"]");
            return None;
        };
        if items.len() > len_max {
            let what = format!("has {} entries; at most {len_max} are allowed", items.len());
            r.problems.add(Some(line), path.clone(), what, "");
        }
        let mut texts = Vec::new();
        for item in items.iter().take(len_max) {
            let line = r.line(item.span().start);
            match item.get_ref() {
                DeValue::String(text) => texts.push((text.to_string(), line)),
                other => r.problems.add(
                    Some(line),
                    path.clone(),
                    format!("expected a text, found {}", kind_of(other)),
                    "",
                ),
            }
        }
        let shown: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
        r.record(path, format!("{shown:?}"), Origin::File(line));
        Some(texts)
    }

    /// A table below this one; empty if it is absent or no table.
    pub(crate) fn table(&mut self, r: &mut Reading<'_>, key: &'static str) -> Self {
        self.know(key);
        let path = self.path(key);
        let mut below = Section { table: None, line: None, overlaid: self.overlaid, known: Vec::new(), path };
        if let Some((name, value)) = self.entry(key) {
            let line = r.line(name.span().start);
            match value.get_ref() {
                DeValue::Table(table) => (below.table, below.line) = (Some(table), Some(line)),
                other => {
                    let hint = format!("write [{}] with one bracket, and its keys below", below.path);
                    let what = format!("expected a table, found {}", kind_of(other));
                    r.problems.add(Some(line), below.path.clone(), what, hint);
                }
            }
        }
        below
    }

    /// Pairs of a table of texts, each with its line, in the order of the names.
    pub(crate) fn pairs(&mut self, r: &mut Reading<'_>, key: &'static str) -> Vec<(String, String, usize)> {
        let below = self.table(r, key);
        let mut pairs = Vec::new();
        for (name, value) in below.table.into_iter().flatten() {
            let line = r.line(name.span().start);
            match value.get_ref() {
                DeValue::String(text) => pairs.push((name.get_ref().to_string(), text.to_string(), line)),
                other => {
                    let what = format!("expected a text, found {}", kind_of(other));
                    r.problems.add(Some(line), below.path(name.get_ref()), what, "");
                }
            }
        }
        pairs
    }

    /// Tables below a table, with the names that somebody chose for them: `[key.NAME]`.
    pub(crate) fn children(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        len_max: usize,
    ) -> Vec<(String, Self)> {
        let below = self.table(r, key);
        let mut children = Vec::new();
        for (name, value) in below.table.into_iter().flatten() {
            let (line, path) = (r.line(name.span().start), below.path(name.get_ref()));
            match value.get_ref() {
                _ if children.len() == len_max => {
                    let what = format!("there are more than {len_max} of them");
                    r.problems.add(Some(line), path, what, "");
                    break;
                }
                DeValue::Table(table) => {
                    let (table, line) = (Some(table), Some(line));
                    let child = Section { table, path, line, overlaid: false, known: Vec::new() };
                    children.push((name.get_ref().to_string(), child));
                }
                other => {
                    let what = format!("expected a table, found {}", kind_of(other));
                    r.problems.add(Some(line), path, what, "");
                }
            }
        }
        children
    }

    /// Every table of a list of tables: `[[key]]`, or a list of `{ ... }`.
    pub(crate) fn tables(&mut self, r: &mut Reading<'_>, key: &'static str, len_max: usize) -> Vec<Self> {
        self.know(key);
        let path = self.path(key);
        let Some((name, value)) = self.entry(key) else {
            return Vec::new();
        };
        let line = r.line(name.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            let hint = format!("write [[{path}]] with two brackets, once for each");
            let what = format!("expected a list of tables, found {}", kind_of(value.get_ref()));
            r.problems.add(Some(line), path, what, hint);
            return Vec::new();
        };
        if items.len() > len_max {
            let what = format!("there are {} of them; at most {len_max} are allowed", items.len());
            r.problems.add(Some(line), path.clone(), what, "");
        }
        let mut sections = Vec::new();
        for (index, item) in items.iter().take(len_max).enumerate() {
            let line = r.line(item.span().start);
            let path = format!("{path}[{index}]");
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section {
                        table: Some(table),
                        path,
                        line: Some(line),
                        overlaid: false,
                        known: Vec::new(),
                    });
                }
                other => r.problems.add(
                    Some(line),
                    path,
                    format!("expected a table, found {}", kind_of(other)),
                    "",
                ),
            }
        }
        sections
    }

    /// Is the key written as a table (rather than a list of tables)?
    pub(crate) fn is_table(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|(_, value)| value.get_ref().is_table())
    }

    /// Ends the section: whatever was not asked for is unknown.
    pub(crate) fn finish(self, r: &mut Reading<'_>) {
        for (name, _) in self.table.into_iter().flatten() {
            if self.known.iter().any(|known| name.get_ref() == known) {
                continue;
            }
            let line = r.line(name.span().start);
            let hint = match nearest(name.get_ref(), &self.known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            r.problems.add(Some(line), self.path(&shorten(name.get_ref())), "unknown key", hint);
        }
    }
}

/// The variable that overlays a key: `limits.body_bytes_max` is
/// `SEAWALL__LIMITS__BODY_BYTES_MAX`.
pub(crate) fn env_name(path: &str) -> String {
    format!("SEAWALL__{}", path.replace('.', "__").to_ascii_uppercase())
}

fn scalar<'t>(value: &'t DeValue<'t>) -> Scalar<'t> {
    match value {
        DeValue::String(text) => Scalar::Text(Cow::Borrowed(text)),
        DeValue::Integer(number) => Scalar::Whole(i128::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => match number.as_str().replace('_', "").parse::<f64>() {
            Ok(number) if number.is_finite() => Scalar::Part(number),
            _ => Scalar::Other("no finite number"),
        },
        DeValue::Boolean(on) => Scalar::Bool(*on),
        other => Scalar::Other(kind_of(other)),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A text fit to be quoted in a message: the start of it, should it be long.
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}
