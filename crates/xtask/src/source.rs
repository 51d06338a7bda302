//! Enough of Rust's lexical rules to tell code from comments and strings, find where
//! functions end, and know which lines are tests.

/// The text with the contents of comments, strings and characters replaced by spaces:
/// the same lines and columns, but only code.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|&char| if char == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` if none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let ahead = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    match chars[at] {
        '/' if ahead(1) == '/' => position(chars, at, |char| char == '\n'),
        '/' if ahead(1) == '*' => block_comment_end(chars, at),
        '"' => string_end(chars, at),
        '\'' if ahead(1) == '\\' => position(chars, at + 3, |char| char == '\'') + 1,
        '\'' if ahead(2) == '\'' && ahead(1) != '\'' => at + 3,
        'r' if (at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' || chars[at - 1] == 'c') => {
            raw_string_end(chars, at)
        }
        _ => at,
    }
}

fn position(chars: &[char], from: usize, is: impl Fn(char) -> bool) -> usize {
    let from = from.min(chars.len());
    chars[from..].iter().position(|&char| is(char)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0_usize, at);
    while end + 1 < chars.len() {
        match (chars[end], chars[end + 1]) {
            ('/', '*') => (depth, end) = (depth + 1, end + 2),
            ('*', '/') => {
                (depth, end) = (depth - 1, end + 2);
                if depth == 0 {
                    return end;
                }
            }
            _ => end += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() {
        match chars[end] {
            '\\' => end += 2,
            '"' => return end + 1,
            _ => end += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let quote = position(chars, at + 1, |char| char != '#');
    if chars.get(quote) != Some(&'"') {
        return at;
    }
    let hashes = quote - at - 1;
    let closes = |end: &usize| {
        chars[*end] == '"'
            && chars[end + 1..].iter().take_while(|&&char| char == '#').take(hashes).count() == hashes
    };
    (quote + 1..chars.len()).find(closes).map_or(chars.len(), |end| (end + 1 + hashes).min(chars.len()))
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Does `line` hold `word` with no letter, digit or underscore on either side?
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}

/// Which lines (from 0) are test code: all of a test file, or the `#[cfg(test)]` modules.
pub(crate) fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("/tests.rs") {
        return vec![true; count];
    }
    let mut marks = vec![false; count];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let first = line_of(code, at);
        let Some(open) = body_start(code, at) else {
            continue;
        };
        let last = line_of(code, body_end(code, open));
        marks[first..=last.min(count - 1)].fill(true);
    }
    marks
}

/// One function of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Its lines from `fn` to the closing brace.
    pub(crate) len: usize,
}

/// The functions with a body in code without comments and strings.
pub(crate) fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + 3..];
        let name = &rest[..rest.find(|char| !is_word(char)).unwrap_or(rest.len())];
        let Some(open) = body_start(code, at).filter(|_| !name.is_empty()) else {
            continue;
        };
        let line = line_of(code, at);
        found.push(Function { name, line: line + 1, len: line_of(code, body_end(code, open)) - line + 1 });
    }
    found
}

/// The brace that opens the body of the item at `at`, if it has one: the first one
/// outside parentheses and brackets, unless a semicolon comes first.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at + offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn body_end(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

fn line_of(code: &str, at: usize) -> usize {
    code.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_and_code_is_not() {
        let text = "let a = \"todo!\"; // todo!\nlet b = r#\"x \" todo!\"#; /* a /* b */ todo! */ let c = '\"';\nlet d = 'x'; fn f<'a>(x: &'a str) {} let e = b\"\\\"todo!\"; let g = '\\''; todo!()";
        let code = code_only(text);
        assert_eq!(code.matches("todo!").count(), 1, "{code}");
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("fn f<'a>(x: &'a str) {}"), "{code}");
        assert_eq!(code.chars().count(), text.chars().count());
    }

    #[test]
    fn words_are_whole_words() {
        assert!(has_word("use rand::Rng;", "rand"));
        assert!(!has_word("let operand = grand;", "rand"));
        assert!(has_word("a: std::time::Instant", "std::time"));
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = "trait T { fn none(&self); }\nfn one() {}\nfn four(\n    a: [u8; 3],\n) {\n}\n";
        let lens: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.len)).collect();
        assert_eq!(lens, [("one", 2, 1), ("four", 3, 4)]);
    }

    #[test]
    fn test_modules_are_known_by_their_lines() {
        let code =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod tests;\n";
        assert_eq!(
            test_lines("crates/x/src/y.rs", code),
            [false, true, true, true, true, false, false, false]
        );
        assert!(test_lines("crates/x/src/tests.rs", code).iter().all(|mark| *mark));
    }
}
