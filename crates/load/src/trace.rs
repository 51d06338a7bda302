//! Readers for published traces of real traffic, from text to rows. They read what is
//! there and say which line is wrong; files belong to the shell.
//!
//! - Azure LLM inference traces 2023 (Azure/AzurePublicDataset, CC-BY-4.0; cite Splitwise, ISCA'24)
//! - the LMSYS arena trace of VTC (Ying1123/VTC-artifact, Apache-2.0)
//! - Mooncake (kvcache-ai/Mooncake, Apache-2.0), with its 512-token prefix blocks

use seawall_model::{Tokens, limits};

/// One arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Microseconds after the first row.
    pub at_us: u64,
    /// Who asked; zero where the trace does not say.
    pub client: u32,
    /// Prompt length.
    pub input: Tokens,
    /// Answer length.
    pub output: Tokens,
    /// Prefix blocks of [`MOONCAKE_BLOCK`] tokens, where the trace has them.
    pub prefix: Box<[u64]>,
}

/// Prompt tokens in one block of the Mooncake traces.
pub const MOONCAKE_BLOCK: Tokens = Tokens(512);

/// Why a text is no such trace. Lines count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that cannot be read.
    #[error("line {0} is not a row of this trace")]
    Line(usize),
    /// An arrival before its predecessor.
    #[error("line {0} lies before the line above it")]
    Order(usize),
    /// More rows than are read at once.
    #[error("a trace has at most {} rows", limits::TRACE_ROWS_MAX)]
    Long,
}

/// Reads `TIMESTAMP,ContextTokens,GeneratedTokens` with a heading.
///
/// # Errors
/// Names the first line that is wrong.
pub fn azure(text: &str) -> Result<Vec<Row>, Error> {
    collect(text, 1, |line| {
        let mut fields = line.split(',');
        let at_us = timestamp(fields.next()?)?;
        let (input, output) = (tokens(fields.next()?)?, tokens(fields.next()?)?);
        Some(Row { at_us, client: 0, input, output, prefix: Box::default() })
    })
}

/// Reads `arrival_s,client,input_tokens,output_tokens` with a heading.
///
/// # Errors
/// Names the first line that is wrong.
pub fn vtc(text: &str) -> Result<Vec<Row>, Error> {
    collect(text, 1, |line| {
        let mut fields = line.split(',');
        let at_us = micros(fields.next()?)?;
        let client = fields.next()?.trim().parse().ok()?;
        let (input, output) = (tokens(fields.next()?)?, tokens(fields.next()?)?);
        Some(Row { at_us, client, input, output, prefix: Box::default() })
    })
}

/// Reads JSON lines with `timestamp` (ms), `input_length`, `output_length`, `hash_ids`.
///
/// # Errors
/// Names the first line that is wrong.
pub fn mooncake(text: &str) -> Result<Vec<Row>, Error> {
    collect(text, 0, |line| {
        let number = |name: &str| {
            let rest = after(line, name)?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u64>().ok()
        };
        let at_us = number("\"timestamp\":")?.checked_mul(1_000)?;
        let (input, output) = (Tokens(number("\"input_length\":")?), Tokens(number("\"output_length\":")?));
        let list = after(line, "\"hash_ids\":")?.strip_prefix('[')?;
        let list = list[..list.find(']')?].split(',').map(str::trim).filter(|id| !id.is_empty());
        let prefix = list.map(|id| id.parse().ok()).collect::<Option<_>>()?;
        Some(Row { at_us, client: 0, input, output, prefix })
    })
}

/// The rest of a line after a name and white space.
fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    Some(line[line.find(name)? + name.len()..].trim_start())
}

fn collect(text: &str, skip: usize, row: impl Fn(&str) -> Option<Row>) -> Result<Vec<Row>, Error> {
    let mut rows: Vec<Row> = Vec::new();
    let mut start = 0;
    for (at, line) in text.lines().enumerate().skip(skip) {
        if line.trim().is_empty() {
            continue;
        }
        if rows.len() >= limits::TRACE_ROWS_MAX {
            return Err(Error::Long);
        }
        let mut row = row(line).ok_or(Error::Line(at + 1))?;
        if rows.is_empty() {
            start = row.at_us;
        }
        row.at_us = row.at_us.checked_sub(start).ok_or(Error::Order(at + 1))?;
        if rows.last().is_some_and(|last| last.at_us > row.at_us) {
            return Err(Error::Order(at + 1));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn tokens(text: &str) -> Option<Tokens> {
    text.trim().parse().ok().map(Tokens)
}

/// `12.345678` seconds, digit by digit: floats would lose microseconds.
fn micros(text: &str) -> Option<u64> {
    let (seconds, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let mut micros = 0;
    for at in 0..6 {
        let digit = part.as_bytes().get(at).copied().unwrap_or(b'0');
        micros = micros * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

/// `2023-11-16 18:15:46.6805900`, as microseconds since year 0 in a calendar without
/// leap years' exceptions: only differences within one trace matter.
fn timestamp(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9_999 {
        return None;
    }
    let mut time = time.trim_end_matches('Z').splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    if hour > 23 || minute > 59 {
        return None;
    }
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = u64::from(year.is_multiple_of(4) && month > 2);
    let days = year * 365 + year.div_ceil(4) + BEFORE[usize::try_from(month - 1).ok()?] + leap + day;
    ((days * 24 + hour) * 60 + minute).checked_mul(60_000_000)?.checked_add(micros(time.next()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_rows_are_read() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\r\n2023-11-17 00:00:00,1,2\n";
        let rows = azure(text).expect("valid");
        assert_eq!(rows[1].at_us, 4_314_579);
        assert_eq!((rows[1].input, rows[1].output), (Tokens(396), Tokens(109)));
        assert_eq!(rows[2].at_us, (5 * 3_600 + 44 * 60 + 13) * 1_000_000 + 319_410);
    }

    #[test]
    fn months_and_leap_days_join_up() {
        let day = 86_400_000_000;
        let at = |text: &str| timestamp(text).expect(text);
        assert_eq!(at("2024-03-01 00:00:00") - at("2024-02-28 00:00:00"), 2 * day);
        assert_eq!(at("2023-03-01 00:00:00") - at("2023-02-28 00:00:00"), day);
        assert_eq!(at("2025-01-01 00:00:00") - at("2024-12-31 00:00:00"), day);
        assert_eq!(at("2024-01-01 00:00:00") - at("2023-12-31 00:00:00"), day);
    }

    #[test]
    fn vtc_and_mooncake_rows_are_read() {
        let rows =
            vtc("arrival_s,client,input_tokens,output_tokens\n0.000000,13,13,199\n0.207938,2,36,137\n")
                .expect("valid");
        assert_eq!((rows[1].at_us, rows[1].client, rows[1].input), (207_938, 2, Tokens(36)));
        let line = r#"{"timestamp": 40, "input_length": 23769, "output_length": 3, "hash_ids": [151, 152]}"#;
        let rows = mooncake(&format!("{}\n{line}\n", line.replace("40,", "0,"))).expect("valid");
        assert_eq!((rows[1].at_us, rows[1].output, &*rows[1].prefix), (40_000, Tokens(3), &[151, 152][..]));
    }

    #[test]
    fn wrong_lines_are_named() {
        assert_eq!(vtc("h\n0.1,1,2,3\nx"), Err(Error::Line(3)));
        assert_eq!(vtc("h\n0.2,1,2,3\n0.1,1,2,3"), Err(Error::Order(3)));
        assert_eq!(azure("h\n2023-13-01 00:00:00,1,1"), Err(Error::Line(2)));
        assert_eq!(mooncake("{\"timestamp\": 99999999999999999999}"), Err(Error::Line(1)));
        assert_eq!(mooncake("{}"), Err(Error::Line(1)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = (azure(&text), vtc(&text), mooncake(&text));
        }
    }
}
