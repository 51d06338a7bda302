//! A definition's gate rules: `[[permissions]]`, read and turned into the kernel's.

use std::sync::Arc;

use seawall_kernel::agents::gate::{self, Condition, Op, Pattern, Rule, Who};
use seawall_model::effect::{Approval, Deputy, Verdict};
use seawall_model::{EffectClass, Millis, limits};

use crate::agents::handler;
use crate::config::raw::{Reading, Section};

/// Says no to silence after so long where a rule does not say.
const PATIENCE: Millis = Millis::from_secs(86_400);
const PATIENCE_MAX: u64 = 90 * 86_400_000;

/// Reads `args.amount <= 100`, `args.to ends_with "@acme.org"`, `label.pii absent`.
/// The error is what was expected instead.
fn condition(text: &str) -> Result<Condition, String> {
    let text = text.trim();
    let (fact, rest) = text.split_once(char::is_whitespace).ok_or_else(expected)?;
    if !fact.starts_with("args.") && !fact.starts_with("label.") {
        return Err("a condition that begins with args. or label.".to_owned());
    }
    let rest = rest.trim();
    let (word, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let value = unquoted(value.trim());
    let op = match word {
        "==" | "=" => Op::Eq,
        "!=" => Op::Ne,
        "<" => Op::Lt,
        "<=" => Op::Le,
        ">" => Op::Gt,
        ">=" => Op::Ge,
        "starts_with" => Op::Prefix,
        "ends_with" => Op::Suffix,
        "contains" => Op::Contains,
        "present" => Op::Present,
        "absent" => Op::Absent,
        "in" => {
            let list = value.trim_start_matches('[').trim_end_matches(']').split(',');
            let list: Vec<Arc<str>> = list.map(|one| unquoted(one.trim()).into()).collect();
            if list.len() > limits::GATE_VALUES_MAX {
                return Err(format!("at most {} values", limits::GATE_VALUES_MAX));
            }
            Op::In(list)
        }
        _ => return Err(expected()),
    };
    let bare = matches!(op, Op::Present | Op::Absent);
    if bare != value.is_empty() && !rest.contains("\"\"") {
        return Err(expected());
    }
    let value = if matches!(op, Op::In(_)) { "" } else { value };
    Ok(Condition { fact: fact.into(), op, value: value.into() })
}

fn expected() -> String {
    "a condition such as \"args.amount <= 100\"; comparisons are == != < <= > >= starts_with \
     ends_with contains in present absent"
        .to_owned()
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Reads every rule, in order.
pub(super) fn read(r: &mut Reading<'_>, root: &mut Section<'_>, kind: &str, namespace: &str) -> Vec<Rule> {
    let sections = root.tables(r, "permissions", limits::PERMISSIONS_MAX);
    let mut rules = Vec::new();
    for (at, mut section) in sections.into_iter().enumerate() {
        let id = section.text_opt(r, "id").unwrap_or_else(|| format!("{kind}/{}", at + 1));
        let lists = ["allow", "ask", "deny", "redact"]
            .map(|verdict| (verdict, section.list_opt(r, verdict, limits::PERMISSION_LIST_MAX)));
        let class = section.choice_opt(
            r,
            "class",
            &["read", "idempotent", "compensable", "irreversible"],
            EffectClass::from_name,
        );
        let when = read_conditions(r, &mut section);
        let approval = read_approval(r, &mut section);
        let fields = section.list_opt(r, "fields", limits::PERMISSION_LIST_MAX);
        let line = section.line();
        let path = section.own_path().to_owned();
        section.finish(r);
        let mut given = lists.into_iter().filter_map(|(verdict, list)| list.map(|list| (verdict, list)));
        let (Some((verdict, patterns)), None) = (given.next(), given.next()) else {
            let what = "must have exactly one of allow, ask, deny and redact";
            r.problems.add(line, path, what, "write deny = [\"server.tool\"]");
            continue;
        };
        if verdict == "redact" && fields.as_ref().is_none_or(Vec::is_empty) {
            r.problems.add(line, path, "says redact but not which fields", "write fields = [\"args.ssn\"]");
            continue;
        }
        for (pattern, line) in &patterns {
            let key = format!("{path}.{verdict}");
            check_pattern(r, &key, pattern, *line);
            if verdict == "redact" && !is_outside(pattern) {
                let what = format!(
                    "{pattern:?} is more than tools from outside, and only their arguments can be taken out"
                );
                r.problems.add(Some(*line), key, what, "name the server, such as crm.*, or deny it");
            }
        }
        let then = match verdict {
            "allow" => Verdict::Allow,
            "ask" => Verdict::Ask(approval),
            "deny" => Verdict::Deny,
            _ => Verdict::Redact(fields.into_iter().flatten().map(|(field, _)| field.into()).collect()),
        };
        let meant = patterns.iter().flat_map(|(pattern, _)| handler::rules_of(pattern, namespace));
        for (nth, (what, on)) in meant.enumerate() {
            rules.push(Rule {
                id: if nth == 0 { id.as_str().into() } else { format!("{id}.{}", nth + 1).into() },
                who: Who { tenant: Pattern::any(), agent: Pattern::new(kind) },
                what: what.into(),
                on: Pattern::new(&on),
                class,
                when: when.clone(),
                then: then.clone(),
            });
        }
    }
    if let Err(error) = gate::check(&rules) {
        r.problem("permissions", error.to_string(), "");
    }
    rules
}

/// Is a pattern of tools from outside only? Of what the runtime does itself nothing can be
/// taken out.
fn is_outside(pattern: &str) -> bool {
    let fits = Pattern::new(pattern);
    let inside = ["model:", "agent:"].iter().any(|prefix| pattern.starts_with(prefix));
    !inside && !handler::BUILTINS.iter().any(|builtin| fits.fits(builtin))
}

fn read_conditions(r: &mut Reading<'_>, section: &mut Section<'_>) -> Vec<Condition> {
    let path = section.path("when");
    let texts = section.list_opt(r, "when", limits::GATE_CONDITIONS_MAX).unwrap_or_default();
    let mut conditions = Vec::new();
    for (text, line) in texts {
        match condition(&text) {
            Ok(condition) => conditions.push(condition),
            Err(expected) => {
                let what = format!("expected {expected}, found the text {text:?}");
                r.problems.add(Some(line), path.clone(), what, "");
            }
        }
    }
    conditions
}

fn read_approval(r: &mut Reading<'_>, section: &mut Section<'_>) -> Approval {
    let quorum = section.whole_opt(r, "quorum", 1..=16).unwrap_or(1);
    let approvers = section.list_opt(r, "approvers", limits::PERMISSION_LIST_MAX).unwrap_or_default();
    let patience = section.millis_opt(r, "patience", 1_000..=PATIENCE_MAX).unwrap_or(PATIENCE);
    let deputy = read_deputy(r, section, patience);
    Approval {
        quorum: u8::try_from(quorum).expect("the range is of u8"),
        approvers: approvers.into_iter().map(|(name, _)| name.into()).collect(),
        patience,
        deputy,
    }
}

/// Who is asked as well where nobody decided by then.
fn read_deputy(r: &mut Reading<'_>, section: &mut Section<'_>, patience: Millis) -> Option<Deputy> {
    let path = section.path("delegate");
    let to = section.text_opt(r, "delegate");
    let after = section.millis_opt(r, "delegate_after", 1_000..=PATIENCE_MAX);
    let line = section.line();
    match (to, after) {
        (Some(to), Some(after)) if (1..=limits::NAME_LEN_MAX).contains(&to.len()) && after < patience => {
            return Some(Deputy { to: to.into(), after });
        }
        (Some(_), Some(after)) if after >= patience => {
            let what = "would be asked when it is too late to answer";
            r.problems.add(line, path, what, "make delegate_after shorter than patience");
        }
        (Some(_), Some(_)) => {
            r.problems.add(line, path, "is no name of a key", "as `seawall key list` has it");
        }
        (Some(_), None) => {
            r.problems.add(line, path, "does not say when it is asked", "write delegate_after = \"1h\"");
        }
        (None, Some(_)) => {
            r.problems.add(line, path, "is missing beside delegate_after", "name the key that is asked then");
        }
        (None, None) => {}
    }
    None
}

/// Tells of a pattern that can match nothing.
pub(super) fn check_pattern(r: &mut Reading<'_>, key: &str, pattern: &str, line: usize) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-*:/@".contains(c);
    if pattern.is_empty() || pattern.len() > limits::NAME_LEN_MAX || !pattern.chars().all(allowed) {
        let hint = "such as github.search, github.*, agent:researcher, store.get";
        r.problems.add(Some(line), key, format!("{pattern:?} is no name of a tool"), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegate_is_asked_before_it_is_too_late() {
        use crate::agents::define::Definition;

        let read = |more: &str| {
            let rule = format!("[[permissions]]\nask = [\"crm.refund\"]\npatience = \"2h\"\n{more}");
            Definition::from_toml("a", &format!("model = \"m\"\ninstructions = \"x\"\n{rule}"))
        };
        let (definition, _) = read("delegate = \"k7\"\ndelegate_after = \"1h\"").expect("it is sound");
        let Verdict::Ask(approval) = &definition.permissions[0].then else { panic!("it asks") };
        let deputy = Deputy { to: "k7".into(), after: Millis::from_secs(3_600) };
        assert_eq!(approval.deputy, Some(deputy));
        for wrong in [
            "delegate = \"k7\"",
            "delegate_after = \"1h\"",
            "delegate = \"k7\"\ndelegate_after = \"2h\"",
            "delegate = \"\"\ndelegate_after = \"1h\"",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_read() {
        for (text, fact, op, value) in [
            ("args.amount <= 100", "args.amount", Op::Le, "100"),
            ("args.to ends_with \"@acme.org\"", "args.to", Op::Suffix, "@acme.org"),
            ("label.pii   absent", "label.pii", Op::Absent, ""),
            ("args.text == \"\"", "args.text", Op::Eq, ""),
            ("args.a.b in [x, \"y z\"]", "args.a.b", Op::In(vec!["x".into(), "y z".into()]), ""),
        ] {
            let expected = Condition { fact: fact.into(), op, value: value.into() };
            assert_eq!(condition(text), Ok(expected), "{text}");
        }
        for text in ["", "amount < 1", "args.a", "args.a ~ 1", "args.a <", "args.a present 1"] {
            assert!(condition(text).is_err(), "{text}");
        }
    }
}
