//! Money as people write it: `0.50 USD`, `$2`, `3`.

use seawall_model::MicroUsd;

/// Millionths of a dollar from a text. Exact: no floats.
#[must_use]
pub(super) fn money(text: &str) -> Option<MicroUsd> {
    let text = text.trim();
    let text = text.strip_prefix('$').or_else(|| text.strip_suffix("USD")).unwrap_or(text).trim();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    let dollars: u64 = whole.parse().ok()?;
    let micros: u64 = format!("{part:0<6}").parse().ok()?;
    dollars.checked_mul(1_000_000)?.checked_add(micros).map(MicroUsd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_exactly() {
        for (text, expected) in [
            ("0.50 USD", Some(500_000)),
            ("$2", Some(2_000_000)),
            ("3", Some(3_000_000)),
            ("0.000001USD", Some(1)),
            ("0.0000001", None),
            ("-1", None),
            (".5", None),
            ("1 EUR", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(money(text).map(|amount| amount.0), expected, "{text}");
        }
    }
}
