//! Single values of the config file as what they are meant to be: counts, sizes,
//! times, words, paths. Each is checked against its range and recorded with its origin.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use seawall_model::{Bytes, Millis};

use super::amount;
use super::problem::Origin;
use super::raw::{Given, Reading, Section};

impl<'t> Section<'t> {
    /// Reads one value: `parse` says what it is or what was expected instead.
    fn read<T>(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        parse: impl FnOnce(&Given<'t>) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let given = self.given(r, key)?;
        let path = self.path(key);
        match parse(&given) {
            Ok(value) => {
                r.record(path, show(&value), given.origin);
                Some(value)
            }
            Err(expected) => {
                let what = format!("expected {expected}, found {}", given.describe());
                let hint = match &given.origin {
                    Origin::File(_) | Origin::Default => String::new(),
                    origin => format!("it comes from {origin}"),
                };
                r.problems.add(given.line(), path, what, hint);
                None
            }
        }
    }

    /// Notes a default that was not read with one.
    pub(crate) fn record_default(&self, r: &mut Reading<'_>, key: &str, shown: String) {
        if !self.has(key) {
            r.record(self.path(key), shown, Origin::Default);
        }
    }

    fn or_default<T>(
        &self,
        r: &mut Reading<'_>,
        key: &str,
        found: Option<T>,
        default: T,
        shown: String,
    ) -> T {
        found.unwrap_or_else(|| {
            r.record(self.path(key), shown, Origin::Default);
            default
        })
    }

    /// A whole number in a range.
    pub(crate) fn whole_opt(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.read(r, key, |given| in_range(given.whole(), &range, u64::to_string), u64::to_string)
    }

    /// A whole number in a range, or the default.
    pub(crate) fn whole(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let found = self.whole_opt(r, key, range);
        self.or_default(r, key, found, default, default.to_string())
    }

    /// As [`Self::whole`], for the smaller type.
    pub(crate) fn count(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let found = self.whole(r, key, range, default.into());
        u32::try_from(found).expect("the range is of u32")
    }

    /// As [`Self::whole_opt`], for the smaller type.
    pub(crate) fn count_opt(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let found = self.whole_opt(r, key, range)?;
        Some(u32::try_from(found).expect("the range is of u32"))
    }

    /// A number in a range, with or without a point.
    pub(crate) fn part_opt(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let parse = |given: &Given<'_>| match given.part() {
            Some(number) if range.contains(&number) => Ok(number),
            Some(_) => Err(format!("a number from {} to {}", range.start(), range.end())),
            None => Err("a number".to_owned()),
        };
        self.read(r, key, parse, f64::to_string)
    }

    /// A size: a number of bytes or a text such as `"64 KiB"`.
    pub(crate) fn bytes(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: Bytes,
    ) -> Bytes {
        let parse = |given: &Given<'_>| {
            let number = given.whole().or_else(|| given.text().and_then(amount::bytes).map(i128::from));
            let expected = || "a size in bytes or a text such as \"64 KiB\"".to_owned();
            in_range(Some(number.ok_or_else(expected)?), &range, |n| amount::show_bytes(*n))
        };
        let found = self.read(r, key, parse, |n| amount::show_bytes(*n));
        Bytes(self.or_default(r, key, found, default.0, amount::show_bytes(default.0)))
    }

    /// A length of time: a number of milliseconds or a text such as `"30s"`.
    pub(crate) fn millis_opt(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Millis> {
        let parse = |given: &Given<'_>| {
            let number = given.whole().or_else(|| given.text().and_then(amount::millis).map(i128::from));
            let expected = || "a time in milliseconds or a text such as \"30s\"".to_owned();
            in_range(Some(number.ok_or_else(expected)?), &range, |n| format!("{n} ms"))
        };
        self.read(r, key, parse, |n| format!("{n} ms")).map(Millis)
    }

    /// As [`Self::millis_opt`], or the default.
    pub(crate) fn millis(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: Millis,
    ) -> Millis {
        let found = self.millis_opt(r, key, range);
        self.or_default(r, key, found, default, default.to_string())
    }

    /// True or false, or the default.
    pub(crate) fn bool(&mut self, r: &mut Reading<'_>, key: &'static str, default: bool) -> bool {
        let found =
            self.read(r, key, |given| given.bool().ok_or_else(|| "true or false".into()), bool::to_string);
        self.or_default(r, key, found, default, default.to_string())
    }

    /// A text.
    pub(crate) fn text_opt(&mut self, r: &mut Reading<'_>, key: &'static str) -> Option<String> {
        self.read(
            r,
            key,
            |given| given.text().map(str::to_owned).ok_or_else(|| "a text".into()),
            |text| format!("{text:?}"),
        )
    }

    /// A text, or the default.
    pub(crate) fn text(&mut self, r: &mut Reading<'_>, key: &'static str, default: &str) -> String {
        let found = self.text_opt(r, key);
        self.or_default(r, key, found, default.to_owned(), format!("{default:?}"))
    }

    /// A text that `parse` understands; its error says what was expected.
    pub(crate) fn parsed_opt<T>(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let mut shown = String::new();
        let found = self.read(
            r,
            key,
            |given| {
                let text = given.text().ok_or("a text")?;
                shown = format!("{text:?}");
                parse(text)
            },
            |_| String::new(),
        );
        if found.is_some()
            && let Some(setting) = r.settings.last_mut()
        {
            setting.value = shown;
        }
        found
    }

    /// One of a few words, or the default; a near miss is named.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        names: &[&'static str],
        from_name: impl Fn(&str) -> Option<T>,
        default: (T, &str),
    ) -> T {
        let found = self.choice_opt(r, key, names, from_name);
        self.or_default(r, key, found, default.0, format!("{:?}", default.1))
    }

    /// One of a few words; a near miss is named.
    pub(crate) fn choice_opt<T>(
        &mut self,
        r: &mut Reading<'_>,
        key: &'static str,
        names: &[&'static str],
        from_name: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.parsed_opt(r, key, |text| from_name(text).ok_or_else(|| format!("one of {}", names.join(", "))))
    }

    /// A path; one in the file starts at the file's directory.
    pub(crate) fn path_opt(&mut self, r: &mut Reading<'_>, key: &'static str) -> Option<PathBuf> {
        let from_file = matches!(self.given(r, key)?.origin, Origin::File(_));
        let base = if from_file { r.base.clone() } else { PathBuf::new() };
        let path = self.parsed_opt(r, key, |text| {
            if text.is_empty() { Err("a path".into()) } else { Ok(base.join(text)) }
        })?;
        if let Some(setting) = r.settings.last_mut() {
            setting.value = format!("{:?}", path.display().to_string());
        }
        Some(path)
    }
}

fn in_range(
    number: Option<i128>,
    range: &RangeInclusive<u64>,
    show: impl Fn(&u64) -> String,
) -> Result<u64, String> {
    let fits = number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number));
    match fits {
        Some(number) => Ok(number),
        None if number.is_none() => Err("a whole number".into()),
        None if *range.end() == u64::MAX => Err(format!("at least {}", show(range.start()))),
        None => Err(format!("{} to {}", show(range.start()), show(range.end()))),
    }
}
