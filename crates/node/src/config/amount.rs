//! Amounts with units, as people write them: `32 MiB`, `30s`, `500ms`, `30d`. A bare
//! number is in the unit that the key's name ends with.

/// Bytes from `1048576`, `64 KiB`, `1.5GiB`, `10 MB`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    scaled(number, factor)
}

/// Milliseconds from `500`, `500ms`, `30s`, `1.5 min`, `12h`, `30d`.
#[must_use]
pub fn millis(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    scaled(number, factor)
}

/// Bytes as a person reads them, exact: `64 KiB`, `1000 B`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size)) {
        Some((size, name)) => format!("{} {name}", bytes / size),
        None => format!("{bytes} B"),
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim()))
}

fn scaled(number: &str, factor: u64) -> Option<u64> {
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let part: f64 = number.parse().ok()?;
    // Factors are far below 2^53, so only the written part is rounded.
    let product = (part * factor as f64).round();
    (0.0..9e15).contains(&product).then_some(product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("1048576", Some(1 << 20)),
            ("64 KiB", Some(64 << 10)),
            ("1.5GiB", Some(3 << 29)),
            ("10 MB", Some(10_000_000)),
            ("1_000", Some(1_000)),
            ("ten", None),
            ("10 parsecs", None),
            ("-1", None),
            ("", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
            ("18446744073709551615 GiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("500", Some(500)),
            ("500ms", Some(500)),
            ("1.5 min", Some(90_000)),
            ("30d", Some(2_592_000_000)),
            ("1y", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_exactly() {
        assert_eq!(show_bytes(64 << 10), "64 KiB");
        assert_eq!(show_bytes(1_000), "1000 B");
        assert_eq!(show_bytes(0), "0 B");
    }
}
