//! What the simulated model answers when tools are in play, so that agents can be
//! tested without a model: by script, by the request's tool choice, or by the words
//! `call NAME` in the last user message.
//!
//! A script is a text of sections. Each section answers the conversations whose first
//! user message contains its heading (`[*]`: any); its turns are given out in order,
//! by the number of answers already in the conversation, so nothing is remembered
//! between requests:
//!
//! ```text
//! # comments and empty lines are skipped
//! [deploy the service]
//! call status {"name":"api"}
//! & call logs {"name":"api","lines":20}
//! text All is well.
//! ```
//!
//! `& call` joins the turn above it (parallel calls); `repeat` as the last line starts
//! over; without it the conversation goes on as if there were no script.
//!
//! A task can bring its own script, on one line of the first user message, so that a
//! caller drives an agent through as many steps as it likes without touching the engine:
//!
//! ```text
//! script: call status {"name":"api"} & call logs; 300 x call put {"name":"v$n"}; say Done.
//! ```
//!
//! `N x` gives a turn out N times, `$n` is the number of the answer in the conversation, from
//! one, and `$$` a `$` (for a script inside the arguments of a call). A line that is not
//! wholly of this form is words like any other.

use seawall_model::limits;

/// One tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// What the model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Words by seed, of the usual length.
    Words,
    /// This text.
    Text(String),
    /// These tool calls, at least one.
    Calls(Vec<Call>),
}

/// The request's tool choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The model decides.
    #[default]
    Auto,
    /// No tools.
    None,
    /// Some tool.
    Required,
    /// This tool.
    Named(&'a str),
}

/// A tool that the request offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Arguments that fit its schema, as JSON text: used where none are given.
    pub arguments: String,
}

/// What a request says, as far as the answer depends on it.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// The tools it offers.
    pub tools: &'a [Tool],
    /// How they may be used.
    pub choice: Choice<'a>,
    /// The first user message.
    pub first: &'a str,
    /// The last user message.
    pub last: &'a str,
    /// Answers of the model already in the conversation.
    pub answers: usize,
    /// Does the conversation end with a tool's result?
    pub after_tool: bool,
}

/// Why a text is no script. Lines count from one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is none of the forms.
    #[error(
        "line {0}: expected `[heading]`, `text ...`, `call NAME {{...}}`, `& call NAME {{...}}` or `repeat`"
    )]
    Line(usize),
    /// A turn before the first heading.
    #[error("line {0}: a turn must follow a `[heading]`")]
    Heading(usize),
    /// `&` without a call above it.
    #[error("line {0}: `&` must follow a call")]
    Join(usize),
    /// Longer than allowed.
    #[error("a script has at most {} lines", limits::SCRIPT_LINES_MAX)]
    Long,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    heading: String,
    turns: Vec<Answer>,
    repeats: bool,
}

/// A parsed script. The empty one leaves every answer to the request itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    sections: Vec<Section>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut sections: Vec<Section> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (number, line) = (at + 1, line.trim());
            if number > limits::SCRIPT_LINES_MAX {
                return Err(Error::Long);
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(heading) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.push(Section { heading: heading.trim().into(), turns: Vec::new(), repeats: false });
                continue;
            }
            let section = sections.last_mut().ok_or(Error::Heading(number))?;
            if section.repeats {
                return Err(Error::Line(number));
            }
            if line == "repeat" && !section.turns.is_empty() {
                section.repeats = true;
            } else if let Some(said) = line.strip_prefix("text ") {
                section.turns.push(Answer::Text(said.trim().into()));
            } else if let Some(joined) = line.strip_prefix('&') {
                let call = call(joined.trim()).ok_or(Error::Line(number))?;
                let Some(Answer::Calls(calls)) = section.turns.last_mut() else {
                    return Err(Error::Join(number));
                };
                calls.push(call);
            } else {
                section.turns.push(Answer::Calls(vec![call(line).ok_or(Error::Line(number))?]));
            }
        }
        Ok(Self { sections })
    }

    /// What the model answers to this.
    #[must_use]
    pub fn answer(&self, ask: &Ask<'_>) -> Answer {
        if let Some(turn) = self.turn(ask) {
            return turn.clone();
        }
        if let Some(turn) = brought(ask) {
            return turn;
        }
        let asked = if ask.after_tool { None } else { asked_for(ask) };
        let call = match ask.choice {
            Choice::None => None,
            Choice::Auto => asked,
            // The words of the user are more exact than a mere `required`.
            Choice::Required => asked.or_else(|| ask.tools.first().map(|tool| invoke(ask, &tool.name, None))),
            Choice::Named(name) => {
                Some(asked.filter(|call| call.name == name).unwrap_or_else(|| invoke(ask, name, None)))
            }
        };
        call.map_or(Answer::Words, |call| Answer::Calls(vec![call]))
    }

    fn turn(&self, ask: &Ask<'_>) -> Option<&Answer> {
        let fits = |section: &&Section| section.heading == "*" || ask.first.contains(&section.heading);
        let section = self.sections.iter().find(fits)?;
        let at = if section.repeats { ask.answers % section.turns.len() } else { ask.answers };
        section.turns.get(at)
    }
}

/// `call NAME` or `call NAME {...}`.
fn call(line: &str) -> Option<Call> {
    let rest = line.strip_prefix("call ")?.trim();
    let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, "{}"));
    let arguments = arguments.trim();
    let object = arguments.starts_with('{') && arguments.ends_with('}');
    (!name.is_empty() && object).then(|| Call { name: name.into(), arguments: arguments.into() })
}

fn invoke(ask: &Ask<'_>, name: &str, arguments: Option<&str>) -> Call {
    let tool = ask.tools.iter().find(|tool| tool.name == name);
    let default = tool.map_or("{}", |tool| tool.arguments.as_str());
    Call { name: name.into(), arguments: arguments.unwrap_or(default).into() }
}

/// The tool that the last user message asks for by `call NAME`, with the JSON object
/// that may follow the name. The longest fitting name wins.
fn asked_for(ask: &Ask<'_>) -> Option<Call> {
    for (at, _) in ask.last.match_indices("call ") {
        let rest = ask.last[at + 5..].trim_start();
        let fits = |tool: &&Tool| !tool.name.is_empty() && rest.starts_with(&tool.name);
        if let Some(tool) = ask.tools.iter().filter(fits).max_by_key(|tool| tool.name.len()) {
            return Some(invoke(ask, &tool.name, object(rest[tool.name.len()..].trim_start())));
        }
    }
    None
}

/// What the script in the first user message has for this answer.
fn brought(ask: &Ask<'_>) -> Option<Answer> {
    let (_, rest) = ask.first.split_once("script: ")?;
    let mut rest = rest.lines().next()?.trim();
    let mut before = 0;
    let mut found = None;
    while !rest.is_empty() {
        let (times, turn, after) = step(rest)?;
        if found.is_none() && ask.answers < before + times {
            found = Some(turn);
        }
        before += times;
        rest = after;
    }
    let number = (ask.answers + 1).to_string();
    Some(match found? {
        Answer::Text(text) => Answer::Text(filled(&text, &number)),
        Answer::Calls(calls) => {
            let fill = |call: Call| Call { arguments: filled(&call.arguments, &number), ..call };
            Answer::Calls(calls.into_iter().map(fill).collect())
        }
        Answer::Words => Answer::Words,
    })
}

/// How often the first turn of a script is given out, the turn, and the rest of the script.
fn step(text: &str) -> Option<(usize, Answer, &str)> {
    let (times, text) = match text.split_once(" x ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (number.parse().ok()?, rest)
        }
        _ => (1, text),
    };
    let text = text.trim_start();
    if let Some(said) = text.strip_prefix("say ") {
        let said = said.trim_start();
        let (said, rest) = match object(said) {
            Some(object) => (object, said[object.len()..].trim_start()),
            None => said.find(';').map_or((said, ""), |at| said.split_at(at)),
        };
        return Some((times, Answer::Text(said.trim_end().into()), next(rest)?));
    }
    let mut calls = Vec::new();
    let mut rest = text;
    loop {
        let named = rest.strip_prefix("call ")?.trim_start();
        let end = named.find(|byte: char| byte.is_whitespace() || ";&".contains(byte)).unwrap_or(named.len());
        let (name, after) = named.split_at(end);
        let after = after.trim_start();
        let arguments = object(after).unwrap_or("");
        if name.is_empty() {
            return None;
        }
        let given = if arguments.is_empty() { "{}" } else { arguments };
        calls.push(Call { name: name.into(), arguments: given.into() });
        rest = after[arguments.len()..].trim_start();
        match rest.strip_prefix('&') {
            Some(joined) => rest = joined.trim_start(),
            None => return Some((times, Answer::Calls(calls), next(rest)?)),
        }
    }
}

/// What follows a turn: nothing, or another after a semicolon.
fn next(rest: &str) -> Option<&str> {
    if rest.is_empty() { Some("") } else { rest.strip_prefix(';').map(str::trim_start) }
}

/// Puts the number of the answer where `$n` stands.
fn filled(text: &str, number: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('$');
    out.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        match part.strip_prefix('n') {
            Some(rest) => {
                out.push_str(number);
                out.push_str(rest);
            }
            None if part.is_empty() => {
                // Two in a row: the second one stays, with what follows it.
                out.push('$');
                out.push_str(parts.next().unwrap_or_default());
            }
            None => {
                out.push('$');
                out.push_str(part);
            }
        }
    }
    out
}

/// The balanced `{...}` at the start of a text, if there is one.
fn object(text: &str) -> Option<&str> {
    let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then(|| &text[..=at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Vec<Tool> {
        [("search", r#"{"q":"x"}"#), ("search_deep", "{}")]
            .map(|(name, arguments)| Tool { name: name.into(), arguments: arguments.into() })
            .into()
    }

    fn calls(names: &[(&str, &str)]) -> Answer {
        Answer::Calls(names.iter().map(|(n, a)| Call { name: (*n).into(), arguments: (*a).into() }).collect())
    }

    #[test]
    fn a_script_is_followed_turn_by_turn() {
        let text = "# an agent\n[deploy]\ncall status {\"name\":\"api\"}\n& call logs\ntext All is well.\n\n[*]\ntext Hello.\nrepeat\n";
        let script = Script::parse(text).expect("valid");
        let ask = |first, answers| script.answer(&Ask { first, answers, ..Ask::default() });
        assert_eq!(ask("please deploy it", 0), calls(&[("status", r#"{"name":"api"}"#), ("logs", "{}")]));
        assert_eq!(ask("please deploy it", 1), Answer::Text("All is well.".into()));
        assert_eq!(ask("please deploy it", 2), Answer::Words);
        assert_eq!(ask("anything", 41), Answer::Text("Hello.".into()));
    }

    #[test]
    fn wrong_scripts_name_the_line() {
        assert_eq!(Script::parse("text hi"), Err(Error::Heading(1)));
        assert_eq!(Script::parse("[*]\nsay hi"), Err(Error::Line(2)));
        assert_eq!(Script::parse("[*]\ntext a\n& call b"), Err(Error::Join(3)));
        assert_eq!(Script::parse("[*]\nrepeat"), Err(Error::Line(2)));
        assert_eq!(Script::parse("[*]\ncall b [1]"), Err(Error::Line(2)));
        assert_eq!(Script::parse(&"\n".repeat(limits::SCRIPT_LINES_MAX + 1)), Err(Error::Long));
    }

    #[test]
    fn a_task_brings_its_own_script() {
        let first = "A customer wrote:\nscript: call a {\"q\":\"x; y\"} & call b; 3 x call put \
                     {\"k\":\"v$n\",\"t\":\"script: say $$n\"}; say {\"ok\":[1]}; say Bye $n.\nThanks";
        let ask =
            |answers| Script::default().answer(&Ask { first, answers, after_tool: true, ..Ask::default() });
        assert_eq!(ask(0), calls(&[("a", r#"{"q":"x; y"}"#), ("b", "{}")]));
        assert_eq!(ask(1), calls(&[("put", r#"{"k":"v2","t":"script: say $n"}"#)]));
        assert_eq!(ask(3), calls(&[("put", r#"{"k":"v4","t":"script: say $n"}"#)]));
        assert_eq!(ask(4), Answer::Text(r#"{"ok":[1]}"#.into()));
        assert_eq!(ask(5), Answer::Text("Bye 6.".into()));
        assert_eq!(ask(6), Answer::Words);
    }

    #[test]
    fn words_that_only_look_like_a_script_are_words() {
        for first in [
            "script: ",
            "script: write one",
            "my script: call",
            "script: call a {} b",
            "script: 2 x",
            "script: call ;",
        ] {
            let answer = Script::default().answer(&Ask { first, ..Ask::default() });
            assert_eq!(answer, Answer::Words, "{first}");
        }
        assert_eq!(filled("$ $$ $$n $n $x", "7"), "$ $ $n 7 $x");
    }

    #[test]
    fn the_request_decides_where_no_script_does() {
        let (script, tools) = (Script::default(), tools());
        let ask = |choice, last, after_tool| {
            script.answer(&Ask { tools: &tools, choice, last, after_tool, ..Ask::default() })
        };
        assert_eq!(ask(Choice::Auto, "hello", false), Answer::Words);
        assert_eq!(ask(Choice::Required, "hello", false), calls(&[("search", r#"{"q":"x"}"#)]));
        assert_eq!(ask(Choice::Required, "call search_deep", false), calls(&[("search_deep", "{}")]));
        assert_eq!(ask(Choice::Named("search_deep"), "call search", false), calls(&[("search_deep", "{}")]));
        assert_eq!(ask(Choice::Auto, "now call search_deep please", false), calls(&[("search_deep", "{}")]));
        assert_eq!(
            ask(Choice::Auto, r#"call search {"q":"a } b","n":{"m":1}} now"#, false),
            calls(&[("search", r#"{"q":"a } b","n":{"m":1}}"#)])
        );
        assert_eq!(ask(Choice::Auto, "call search", true), Answer::Words);
        assert_eq!(ask(Choice::None, "call search", false), Answer::Words);
        assert_eq!(ask(Choice::Auto, "call nobody", false), Answer::Words);
    }
}
