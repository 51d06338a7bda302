//! Texts of others, made fit to be quoted in a log line, an error or a prompt.

use std::error::Error;

/// More than any sentence that says what went wrong.
const LINE_CHARS_MAX: usize = 300;

/// The start of a text, at most this many bytes, cut between characters.
pub(super) fn shorten(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// One short line of a text, without control characters.
pub(super) fn line(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).take(LINE_CHARS_MAX).collect()
}

/// An error with what lies at its bottom, as one short line.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let (top, bottom) = (error.to_string(), deepest.to_string());
    if top.ends_with(&bottom) { line(&top) } else { line(&format!("{top}: {bottom}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn words_of_others_become_one_short_line() {
        assert_eq!(line("a\n\u{1b}[31mb"), "a  [31mb");
        assert_eq!(line(&"é".repeat(900)).chars().count(), LINE_CHARS_MAX);
        assert_eq!(shorten("éé", 3), "é");
    }

    #[test]
    fn the_deepest_cause_is_said_once() {
        assert_eq!(deepest(&Outer(std::io::Error::other("no\nway"))), "cannot do it: no way");
        assert_eq!(deepest(&std::io::Error::other("no")), "no");
    }
}
