//! Budget windows in UTC: where the minute, hour, day or month that holds a moment
//! begins and ends. Civil dates by Howard Hinnant's `days_from_civil` and
//! `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).

use seawall_model::At;

use crate::plan::Period;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// First moment of the window that holds `at`, and first moment after it.
pub(crate) fn window(period: Period, at: At) -> (At, At) {
    let step = match period {
        Period::Minute => MINUTE,
        Period::Hour => HOUR,
        Period::Day => DAY,
        Period::Month => return month(at),
        Period::Total => return (At(0), At::MAX),
    };
    let start = at.0 - at.0 % step;
    (At(start), At(start.saturating_add(step)))
}

fn month(at: At) -> (At, At) {
    let (year, month) = civil(at.0 / DAY);
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let start = first_day(year, month).saturating_mul(DAY);
    (At(start), At(first_day(next_year, next_month).saturating_mul(DAY)))
}

/// Year and month of a day counted from 1970-01-01.
pub(crate) fn civil(days: u64) -> (u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month)
}

/// The first day of a month, counted from 1970-01-01.
pub(crate) fn first_day(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar() {
        // 2024-02-29 12:00:00 UTC lies in a leap February.
        let (start, end) = window(Period::Month, At(1_709_208_000 * SECOND));
        assert_eq!((start, end), (At(1_706_745_600 * SECOND), At(1_709_251_200 * SECOND)));
        // 2026-12-31 23:59:59.
        let (start, end) = window(Period::Month, At(1_798_761_599 * SECOND));
        assert_eq!((start, end), (At(1_796_083_200 * SECOND), At(1_798_761_600 * SECOND)));
        assert_eq!(window(Period::Month, At(0)).0, At(0));
    }

    #[test]
    fn windows_hold_their_moment_and_touch() {
        let mut at = At(1_700_000_000 * SECOND);
        for _ in 0..1_000 {
            for period in [Period::Minute, Period::Hour, Period::Day, Period::Month] {
                let (start, end) = window(period, at);
                assert!(start <= at && at < end);
                assert_eq!(window(period, end).0, end, "the next window starts where this one ends");
            }
            at = At(at.0 + 17 * DAY / 5);
        }
        assert_eq!(window(Period::Total, at), (At(0), At::MAX));
        let _ = window(Period::Month, At::MAX);
    }
}
