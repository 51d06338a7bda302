//! When a schedule fires: the five fields of cron, in UTC.
//!
//! Minute, hour, day of month, month, day of week; each a list of values, ranges and steps,
//! months and weekdays by name too, or one of the usual nicknames. As in Vixie's cron (its
//! manual, crontab(5)) a day fits if either day field does where both are restricted, and
//! if both do where one begins with `*`.

use std::fmt;
use std::sync::Arc;

use seawall_model::At;

use crate::calendar;

const MINUTE: u64 = 60_000_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// After so many months the calendar repeats itself, weekdays included: what has not fired
/// by then never will.
const MONTHS_MAX: u32 = 400 * 12;
/// Longest text that is looked at: every minute of an hour as a list, twice over.
const TEXT_LEN_MAX: usize = 512;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too long.
    #[error("a schedule has at most {TEXT_LEN_MAX} bytes")]
    Long,
    /// Not five fields.
    #[error("a schedule has five fields (minute, hour, day of month, month, day of week), not {0}")]
    Fields(usize),
    /// A nickname that does not exist.
    #[error("`{0}` is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly")]
    Nickname(Arc<str>),
    /// Not a value of its field.
    #[error("`{text}` is no {field}: values run from {low} to {high}")]
    Value {
        /// The value.
        text: Arc<str>,
        /// The field's name.
        field: &'static str,
        /// The least.
        low: u32,
        /// The greatest.
        high: u32,
    },
    /// A range that ends before it begins.
    #[error("the range `{text}` of the field {field} ends before it begins")]
    Range {
        /// The range.
        text: Arc<str>,
        /// The field's name.
        field: &'static str,
    },
    /// A step that is no number from 1.
    #[error("the step in `{text}` of the field {field} is no number from 1 on")]
    Step {
        /// The item.
        text: Arc<str>,
        /// The field's name.
        field: &'static str,
    },
    /// A date that no year has.
    #[error("no year has such a day")]
    Never,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: Arc<str>,
    /// One bit for each value of each field.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Must both day fields fit? Else either.
    both: bool,
}

impl Cron {
    /// Parses `minute hour day month weekday`, or a nickname such as `@daily`.
    ///
    /// # Errors
    /// Says which value of which field is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_LEN_MAX {
            return Err(Error::Long);
        }
        let text = text.trim();
        let plain = if text.starts_with('@') { nickname(text)? } else { text };
        let fields: Vec<&str> = plain.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(Error::Fields(fields.len()));
        };
        let mut weekdays = WEEKDAY.parse(weekday)?;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7;
        let cron = Self {
            text: text.into(),
            minutes: MINUTES.parse(minute)?,
            hours: HOURS.parse(hour)?,
            days: DAY_OF_MONTH.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: weekdays & 0x7f,
            both: day.starts_with('*') || weekday.starts_with('*'),
        };
        if cron.next(At(0)).is_none() {
            return Err(Error::Never);
        }
        Ok(cron)
    }

    /// The schedule as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after this at which it fires; `None` where time ends before. At most
    /// as many steps as 400 years have months, and days in months that fit.
    #[must_use]
    pub fn next(&self, after: At) -> Option<At> {
        let first = after.0 / MINUTE + 1;
        let (mut day, minute) = (first / (DAY / MINUTE), (first % (DAY / MINUTE)) as u32);
        if self.has_day(day)
            && let Some(minute) = self.minute_from(minute)
        {
            return moment(day, minute);
        }
        day += 1;
        let earliest = self.minute_from(0)?;
        for _ in 0..=MONTHS_MAX {
            let (year, month) = calendar::civil(day);
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let end = calendar::first_day(next_year, next_month);
            if self.months & (1 << month) != 0
                && let Some(day) = (day..end).find(|day| self.has_day(*day))
            {
                return moment(day, earliest);
            }
            day = end;
        }
        None
    }

    fn has_day(&self, day: u64) -> bool {
        let (year, month) = calendar::civil(day);
        let date = day - calendar::first_day(year, month) + 1;
        // 1970-01-01 was a Thursday.
        let weekday = (day + 4) % 7;
        let (date, weekday) = (self.days & (1 << date) != 0, self.weekdays & (1 << weekday) != 0);
        self.months & (1 << month) != 0 && if self.both { date && weekday } else { date || weekday }
    }

    /// The first minute of a day, from this one on, at which it fires.
    fn minute_from(&self, from: u32) -> Option<u32> {
        let (hour, minute) = (from / 60, from % 60);
        if self.hours & (1 << hour) != 0
            && let Some(minute) = first_bit(self.minutes, minute)
        {
            return Some(hour * 60 + minute);
        }
        Some(first_bit(self.hours, hour + 1)? * 60 + first_bit(self.minutes, 0)?)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn moment(day: u64, minute: u32) -> Option<At> {
    Some(At(day.checked_mul(DAY)?.checked_add(u64::from(minute) * MINUTE)?))
}

/// The first bit that is set, from this one on.
fn first_bit(bits: u64, from: u32) -> Option<u32> {
    let rest = bits & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| rest.trailing_zeros())
}

fn nickname(text: &str) -> Result<&'static str, Error> {
    match text {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        _ => Err(Error::Nickname(text.into())),
    }
}

/// One of the five fields.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// Names of the values, from `low` on.
    names: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
const HOURS: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Field = Field { name: "month", low: 1, high: 12, names: &MONTHS };
const WEEKDAY: Field = Field { name: "day of week", low: 0, high: 7, names: &WEEKDAYS };

impl Field {
    /// One bit for each value of a list.
    fn parse(&self, text: &str) -> Result<u64, Error> {
        text.split(',').try_fold(0, |bits, item| Ok(bits | self.parse_item(item)?))
    }

    /// `*`, a value or a range, each with or without a step.
    fn parse_item(&self, item: &str) -> Result<u64, Error> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.parse_step(step, item)?)),
            None => (item, None),
        };
        let (low, high) = if range == "*" {
            // Seven is another name of Sunday, and no eighth day.
            (self.low, if self.name == WEEKDAY.name { 6 } else { self.high })
        } else if let Some((low, high)) = range.split_once('-') {
            self.parse_range(range, low, high)?
        } else {
            let value = self.parse_value(range)?;
            // A value with a step goes on from there to the end.
            (value, if step.is_some() { self.high } else { value })
        };
        let step = step.unwrap_or(1);
        Ok((low..=high).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    fn parse_range(&self, text: &str, low: &str, high: &str) -> Result<(u32, u32), Error> {
        let (low, mut high) = (self.parse_value(low)?, self.parse_value(high)?);
        if self.name == WEEKDAY.name && high == 0 && low > 0 {
            // `fri-sun`.
            high = 7;
        }
        if low > high {
            return Err(Error::Range { text: text.into(), field: self.name });
        }
        Ok((low, high))
    }

    fn parse_step(&self, step: &str, item: &str) -> Result<usize, Error> {
        let step = if step.bytes().all(|byte| byte.is_ascii_digit()) { step.parse().ok() } else { None };
        step.filter(|step| *step > 0).ok_or_else(|| Error::Step { text: item.into(), field: self.name })
    }

    fn parse_value(&self, text: &str) -> Result<u32, Error> {
        let number = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse::<u32>().ok()
        } else {
            let at = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
            at.map(|at| at as u32 + self.low)
        };
        number.filter(|number| (self.low..=self.high).contains(number)).ok_or_else(|| Error::Value {
            text: text.into(),
            field: self.name,
            low: self.low,
            high: self.high,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2024-02-28 23:59:30 UTC, a Wednesday.
    const START: At = At(1_709_164_770_000_000);

    fn next(text: &str) -> String {
        show(Cron::parse(text).expect("valid").next(START).expect("fires"))
    }

    fn show(at: At) -> String {
        let (day, minute) = (at.0 / DAY, at.0 % DAY / MINUTE);
        let (year, month) = calendar::civil(day);
        let date = day - calendar::first_day(year, month) + 1;
        format!("{year}-{month:02}-{date:02} {:02}:{:02}", minute / 60, minute % 60)
    }

    #[test]
    fn schedules_fire_when_they_say() {
        for (text, expected) in [
            ("* * * * *", "2024-02-29 00:00"),
            ("*/15 * * * *", "2024-02-29 00:00"),
            ("5/20 3 * * *", "2024-02-29 03:05"),
            ("30 9 * * mon-fri", "2024-02-29 09:30"),
            ("0 12 * * SUN", "2024-03-03 12:00"),
            ("0 12 * * 7", "2024-03-03 12:00"),
            ("0 12 * * fri-sun", "2024-03-01 12:00"),
            ("0 0 29 2 *", "2024-02-29 00:00"),
            ("0 0 28 2 *", "2025-02-28 00:00"),
            ("0 0 31 * *", "2024-03-31 00:00"),
            ("0 0 1 jan,jul *", "2024-07-01 00:00"),
            ("0 0 13 * 5", "2024-03-01 00:00"),
            ("0 0 13 * */5", "2024-09-13 00:00"),
            ("0 0 */13 * 5", "2024-03-01 00:00"),
            ("59 23 31 12 *", "2024-12-31 23:59"),
            ("@hourly", "2024-02-29 00:00"),
            ("@daily", "2024-02-29 00:00"),
            ("@midnight", "2024-02-29 00:00"),
            ("@weekly", "2024-03-03 00:00"),
            ("@monthly", "2024-03-01 00:00"),
            ("@yearly", "2025-01-01 00:00"),
            ("@annually", "2025-01-01 00:00"),
        ] {
            assert_eq!(next(text), expected, "{text}");
        }
    }

    #[test]
    fn rare_days_are_found_and_impossible_ones_refused() {
        let leap = Cron::parse("0 0 29 2 *").expect("valid");
        // 2096-02-29; 2100 is no leap year.
        let last = leap.next(At(3_980_000_000_000_000)).expect("fires");
        assert_eq!(show(last), "2096-02-29 00:00");
        assert_eq!(show(leap.next(last).expect("fires")), "2104-02-29 00:00");
        // Both day fields must fit: the 29th of February on a Sunday, once in 28 years.
        let rare = Cron::parse("0 0 29 2 */7").expect("valid");
        assert_eq!(show(rare.next(START).expect("fires")), "2032-02-29 00:00");
        assert_eq!(Cron::parse("0 0 30 2 *"), Err(Error::Never));
        assert_eq!(Cron::parse("0 0 31 4,6,9,11 *"), Err(Error::Never));
        assert_eq!(leap.next(At::MAX), None);
        assert_eq!(Cron::parse("* * * * *").expect("valid").next(At::MAX), None);
    }

    #[test]
    fn bad_schedules_say_why() {
        let why = |text: &str| Cron::parse(text).expect_err("bad").to_string();
        assert!(why("* * * *").ends_with("not 4"));
        assert!(why("").ends_with("not 0"));
        assert_eq!(why("60 * * * *"), "`60` is no minute: values run from 0 to 59");
        assert_eq!(why("* * 0 * *"), "`0` is no day of month: values run from 1 to 31");
        assert_eq!(why("* * * foo *"), "`foo` is no month: values run from 1 to 12");
        assert_eq!(why("* * L * *"), "`L` is no day of month: values run from 1 to 31");
        assert_eq!(why("* 9-5 * * *"), "the range `9-5` of the field hour ends before it begins");
        assert_eq!(why("*/0 * * * *"), "the step in `*/0` of the field minute is no number from 1 on");
        assert_eq!(why("*/ * * * *"), "the step in `*/` of the field minute is no number from 1 on");
        assert_eq!(why("+5 * * * *"), "`+5` is no minute: values run from 0 to 59");
        assert_eq!(why(", * * * *"), "`` is no minute: values run from 0 to 59");
        assert!(why("@reboot").starts_with("`@reboot` is none of"));
        assert_eq!(why(&"1,".repeat(600)), "a schedule has at most 512 bytes");
    }

    /// The definition: minute by minute, with dates counted up from a known one.
    fn next_slowly(cron: &Cron, after: At, minutes: u64) -> Option<At> {
        let (mut day, mut year, mut month, mut date) = (0, 1970, 1_u64, 1_u64);
        let length = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        for minute in after.0 / MINUTE + 1..after.0 / MINUTE + 1 + minutes {
            while day < minute / 1_440 {
                day += 1;
                date += 1;
                if date > length(year, month) {
                    (month, date) = (month + 1, 1);
                }
                if month > 12 {
                    (year, month) = (year + 1, 1);
                }
            }
            let has = |bits: u64, value: u64| bits >> value & 1 == 1;
            let (by_date, by_weekday) = (has(cron.days, date), has(cron.weekdays, (day + 4) % 7));
            if has(cron.minutes, minute % 60)
                && has(cron.hours, minute / 60 % 24)
                && has(cron.months, month)
                && if cron.both { by_date && by_weekday } else { by_date || by_weekday }
            {
                return Some(At(minute * MINUTE));
            }
        }
        None
    }

    fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
        let range = (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => (low..=high).prop_map(|value| value.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
            1 => range.clone(),
            1 => (range, 1_u32..9).prop_map(|(range, step)| format!("{range}/{step}")),
            1 => (1_u32..30).prop_map(|step| format!("*/{step}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn the_next_time_is_the_first_that_fits(minute in field(0, 59), hour in field(0, 23),
            date in field(1, 31), month in field(1, 12), weekday in field(0, 7), after in 0_u64..4_000_000_000) {
            let text = format!("{minute} {hour} {date} {month} {weekday}");
            let after = At(after * 1_000_000);
            // Sixty days of minutes; beyond that both must agree that there is nothing.
            let minutes = 60 * 1_440;
            match Cron::parse(&text) {
                Ok(cron) => {
                    let found = cron.next(after).filter(|at| at.0 / MINUTE <= after.0 / MINUTE + minutes);
                    prop_assert_eq!(found, next_slowly(&cron, after, minutes), "{}", text);
                }
                Err(error) => prop_assert_eq!(error, Error::Never, "{}", text),
            }
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[-*/,0-9a-zA-Z@ ]{0,40}|.{0,40}") {
            let _ = Cron::parse(&text);
        }
    }
}
