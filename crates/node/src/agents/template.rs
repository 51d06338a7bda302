//! Instructions with gaps: `{{task}}`, `{{input.field}}`, `{{agent.key}}`. Filling them is
//! all a template can do; there are no conditions, loops or functions in it.

use std::fmt::Write as _;

use serde_json::Value;

/// A gap in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gap {
    /// The task as it was given.
    Task,
    /// A field of the task, which must be a JSON object: its path.
    Input(Vec<String>),
    /// The agent's address, `tenant/type/key`.
    Agent,
    /// Its type.
    AgentType,
    /// Its key.
    AgentKey,
    /// Its tenant.
    Tenant,
    /// Its run.
    Run,
    /// The time of the turn, in UTC.
    Now,
    /// The day of the turn, in UTC.
    Today,
    /// Notes that its memory has on the task.
    Notes,
}

/// Names that may stand in a gap, as they are told to whoever mistyped one.
pub const NAMES: &[&str] =
    &["task", "input.FIELD", "agent", "agent.type", "agent.key", "tenant", "run", "now", "today", "notes"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Gap(Gap),
}

/// A checked template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What is wrong with a template, and on which of its lines, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// What gaps are filled with.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// The task.
    pub task: &'a str,
    /// The agent's tenant.
    pub tenant: &'a str,
    /// `type/key`.
    pub agent: &'a str,
    /// The run.
    pub run: &'a str,
    /// The time of the turn: RFC 3339, UTC.
    pub now: &'a str,
    /// Notes on the task.
    pub notes: &'a str,
}

impl Template {
    /// Reads a template. `{{` opens a gap and `}}` closes it; `{{{{` is two braces.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let (mut pieces, mut mistakes) = (Vec::new(), Vec::new());
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            plain.push_str(&rest[..at]);
            let line = text[..text.len() - rest.len() + at].matches('\n').count();
            let inside = &rest[at + 2..];
            if let Some(after) = inside.strip_prefix("{{") {
                plain.push_str("{{");
                rest = after;
                continue;
            }
            let Some(end) = inside.find("}}") else {
                let hint = "close it with }}, or write {{{{ for two braces".to_owned();
                mistakes.push(Mistake { line, what: "a gap is never closed".to_owned(), hint });
                rest = "";
                break;
            };
            match gap(inside[..end].trim()) {
                Ok(gap) => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Gap(gap));
                }
                Err(hint) => {
                    let what = format!("there is nothing named {{{{{}}}}}", inside[..end].trim());
                    mistakes.push(Mistake { line, what, hint });
                }
            }
            rest = &inside[end + 2..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        if mistakes.is_empty() { Ok(Self { pieces }) } else { Err(mistakes) }
    }

    /// Has it a gap for notes? Then they must be looked up before it is filled.
    #[must_use]
    pub fn wants_notes(&self) -> bool {
        self.pieces.contains(&Piece::Gap(Gap::Notes))
    }

    /// Does it say the task anywhere?
    #[must_use]
    pub fn says_task(&self) -> bool {
        self.pieces.contains(&Piece::Gap(Gap::Task))
    }

    /// The text with its gaps filled. A field that the task does not have leaves nothing.
    #[must_use]
    pub fn fill(&self, filling: &Filling<'_>) -> String {
        let mut out = String::new();
        let mut input = None;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Gap(Gap::Input(path)) => {
                    let input = input.get_or_insert_with(|| {
                        serde_json::from_str::<Value>(filling.task).unwrap_or_default()
                    });
                    push_field(&mut out, input, path);
                }
                Piece::Gap(gap) => push_gap(&mut out, gap, filling),
            }
        }
        out
    }
}

fn push_gap(out: &mut String, gap: &Gap, filling: &Filling<'_>) {
    let (kind, key) = filling.agent.split_once('/').unwrap_or((filling.agent, ""));
    match gap {
        Gap::Task => out.push_str(filling.task),
        Gap::Agent => {
            let _ = write!(out, "{}/{}", filling.tenant, filling.agent);
        }
        Gap::AgentType => out.push_str(kind),
        Gap::AgentKey => out.push_str(key),
        Gap::Tenant => out.push_str(filling.tenant),
        Gap::Run => out.push_str(filling.run),
        Gap::Now => out.push_str(filling.now),
        Gap::Today => out.push_str(filling.now.get(..10).unwrap_or(filling.now)),
        Gap::Notes => out.push_str(filling.notes),
        Gap::Input(_) => {}
    }
}

fn push_field(out: &mut String, input: &Value, path: &[String]) {
    let found = path.iter().try_fold(input, |value, field| match value {
        Value::Array(items) => field.parse::<usize>().ok().and_then(|at| items.get(at)),
        other => other.get(field),
    });
    match found {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => out.push_str(text),
        Some(other) => out.push_str(&other.to_string()),
    }
}

/// What a name stands for; the error is what to do instead.
fn gap(name: &str) -> Result<Gap, String> {
    Ok(match name {
        "task" | "input" => Gap::Task,
        "agent" => Gap::Agent,
        "agent.type" => Gap::AgentType,
        "agent.key" => Gap::AgentKey,
        "tenant" => Gap::Tenant,
        "run" => Gap::Run,
        "now" => Gap::Now,
        "today" => Gap::Today,
        "notes" => Gap::Notes,
        _ => match name.strip_prefix("input.") {
            Some(path) if path.split('.').all(|field| !field.is_empty()) => {
                Gap::Input(path.split('.').map(str::to_owned).collect())
            }
            _ => return Err(format!("known are {}", NAMES.join(", "))),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLING: Filling<'_> = Filling {
        task: r#"{"city":"Oslo","days":[1,2],"deep":{"er":true}}"#,
        tenant: "acme/search",
        agent: "guide/7",
        run: "run-0101",
        now: "2026-01-02T03:04:05Z",
        notes: "- likes trains",
    };

    fn filled(text: &str) -> String {
        Template::parse(text).expect("a template").fill(&FILLING)
    }

    #[test]
    fn gaps_are_filled() {
        assert_eq!(filled("plan {{ input.city }} for {{input.days.1}}"), "plan Oslo for 2");
        assert_eq!(filled("{{input.deep}}{{input.none}}."), "{\"er\":true}.");
        assert_eq!(filled("{{agent}} {{agent.type}} {{agent.key}}"), "acme/search/guide/7 guide 7");
        assert_eq!(filled("{{now}} {{today}} {{run}}"), "2026-01-02T03:04:05Z 2026-01-02 run-0101");
        assert_eq!(filled("{{notes}} {{tenant}}"), "- likes trains acme/search");
        assert_eq!(filled("a {{{{x}} b { c"), "a {{x}} b { c");
        assert_eq!(filled("{{task}}"), FILLING.task);
    }

    #[test]
    fn what_a_task_says_is_no_template() {
        let sly = Filling { task: "{{notes}}", ..FILLING };
        let template = Template::parse("do {{task}}").expect("a template");
        assert_eq!(template.fill(&sly), "do {{notes}}");
        assert!(template.says_task() && !template.wants_notes());
        assert_eq!(Template::parse("{{input.a}}").expect("a template").fill(&sly), "");
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let mistakes = Template::parse("a\n{{tsk}}\n{{input.}} {{").expect_err("mistakes");
        let told: Vec<_> = mistakes.iter().map(|mistake| (mistake.line, mistake.what.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, "there is nothing named {{tsk}}"),
                (2, "there is nothing named {{input.}}"),
                (2, "a gap is never closed"),
            ]
        );
    }
}
