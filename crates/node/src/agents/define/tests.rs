//! Definitions read, and everything that can be wrong with one told at once.

use proptest::prelude::*;
use seawall_model::effect::Verdict;
use seawall_model::{MicroUsd, Millis};

use super::*;

const WHOLE: &str = r#"# everything that can be set
name = "researcher"
description = "Finds things out."
model = "fast"
instructions = """
You are {{agent.key}}.
Today is {{today}}.
"""
task = "Find out: {{task}}"
temperature = 0.2
top_p = 0.9
output_tokens = 800
tools = ["github.*", "agent:summariser", "store.get"]
labels = { data = "internal" }
version_policy = "move"
on_message = "start"
mailbox = 50

[limits]
steps = 40
calls = 30
tokens = 100_000
money = "0.50 USD"
wall = "10m"
children = 4
depth = 2

[schedule]
cron = "0 6 * * *"
tenant = "acme/ops"
task = "the day's news"

[supervision]
strategy = "rest_for_one"
restart = "permanent"
intensity = 5
within = "2m"
backoff = "2s"

[[permissions]]
ask = ["github.merge"]
when = ["args.branch == main", "args.lines > 100"]
approvers = ["acme/leads"]
quorum = 2
patience = "1h"

[[permissions]]
id = "no-payments"
deny = ["pay.*", "agent:payer"]

[output]
repairs = 3
schema = { type = "object", required = ["answer"], properties = { answer = { type = "string" } } }

[context]
window_tokens = 16_000
keep_last = 6
summarise = true
drop_tool_output_after = 3

[memory]
notes = true
namespace = "research"

[guard]
repeats = 5
"#;

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_whole_definition_is_read() {
    let (read, warnings) = Definition::from_toml("file", WHOLE).expect("a definition");
    assert_eq!(warnings, []);
    assert_eq!((&*read.kind, &*read.model, read.version.len()), ("researcher", "fast", 12));
    assert_eq!(read.allowance.money, Some(MicroUsd(500_000)));
    assert_eq!(read.allowance.wall, Some(Millis(600_000)));
    assert_eq!((read.guard.repeats, read.inbox_max, read.moves, read.starts_on_mail), (5, 50, true, true));
    let ids: Vec<(&str, &str, &str)> =
        read.permissions.iter().map(|rule| (&*rule.id, &*rule.what, rule.on.as_str())).collect();
    assert_eq!(
        ids,
        [
            ("researcher/1", "tool", "github.merge"),
            ("no-payments", "tool", "pay.*"),
            ("no-payments.2", "child", "payer"),
            ("no-payments.3", "child", "payer/*"),
        ]
    );
    assert!(matches!(&read.permissions[0].then, Verdict::Ask(approval) if approval.quorum == 2));
    assert_eq!(read.permissions[0].when.len(), 2);
    let kind = read.rules();
    assert_eq!(kind.schedule.map(|schedule| schedule.tenant.to_string()), Some("acme/ops".to_owned()));
}

#[test]
fn the_least_definition_has_defaults() {
    let (read, warnings) =
        Definition::from_toml("greeter", "model = \"m\"\ninstructions = \"Greet.\"").expect("a definition");
    assert_eq!((&*read.kind, read.moves, read.tools.len()), ("greeter", false, 0));
    assert_eq!(&*read.memory.namespace, "greeter");
    insta::assert_snapshot!(shown(&warnings), @"limits: no limit on steps, tokens or money: only the progress guard stops it (set limits.steps)");
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let text = r#"name = "a/b"
modle = "fast"
instructions = """
Do {{tsk}}.
And {{now}."""
temperature = 3
tools = ["github.search", "what is this"]
on_message = "never"

[limits]
money = "much"
wall = "long"

[schedule]
cron = "61 * * * *"

[[permissions]]
allow = ["a"]
deny = ["b"]

[[permissions]]
ask = ["x"]
when = ["amount < 1"]

[output]
schema = { type = "text" }

[context]
windw_tokens = 7
"#;
    let problems = Definition::from_toml("x", text).expect_err("problems");
    insta::assert_snapshot!(shown(&problems));
}

#[test]
fn a_schema_that_would_not_be_checked_is_refused() {
    let text = "model = \"m\"\ninstructions = \"x\"\n[output]\nschema = { pattern = \"a\" }\n";
    let problems = Definition::from_toml("x", text).expect_err("problems");
    insta::assert_snapshot!(shown(&problems), @"line 4: output.schema: pattern is not checked (take it out, and say in the instructions what is meant)");
}

#[test]
fn only_arguments_of_tools_from_outside_are_taken_out() {
    let text = |what: &str| {
        format!(
            "model = \"m\"\ninstructions = \"x\"\n[[permissions]]\nredact = [\"{what}\"]\nfields = [\"args.a\"]\n"
        )
    };
    for sound in ["crm.lookup", "crm.*", "weather"] {
        assert!(Definition::from_toml("x", &text(sound)).is_ok(), "{sound}");
    }
    for unsound in ["*", "store.put", "store.*", "message.send", "model:fast", "agent:payer"] {
        let problems = Definition::from_toml("x", &text(unsound)).expect_err("problems");
        assert!(shown(&problems).contains("line 4: permissions[0].redact: "), "{}", shown(&problems));
    }
}

#[test]
fn json_says_the_same_as_toml() {
    let mut value = serde_json::Map::new();
    let tree = toml::de::DeTable::parse(WHOLE).expect("TOML");
    value.extend(limit::object(tree.get_ref()));
    let json = serde_json::Value::Object(value).to_string();
    let (from_json, _) = Definition::from_json(json.as_bytes()).expect("a definition");
    let (from_toml, _) = Definition::from_toml("x", WHOLE).expect("a definition");
    assert_eq!(from_json, from_toml);
    let text = Definition::toml_of_json(json.as_bytes()).expect("TOML");
    assert_eq!(Definition::from_toml("x", &text).expect("a definition").0, from_toml);
    for (body, told) in [
        ("", "not JSON"),
        ("[]", "a JSON object"),
        ("{}", "model: is missing"),
        (r#"{"name":"a","model":"m","instructions":"{{x}}"}"#, "nothing named {{x}}"),
        (r#"{"name":"a","model":"m","instructions":"x","color":null,"colour":1}"#, "colour: unknown key"),
    ] {
        let problems = Definition::from_json(body.as_bytes()).expect_err("problems");
        assert!(shown(&problems).contains(told), "{body}: {}", shown(&problems));
        assert!(problems.iter().all(|problem| problem.line.is_none()));
    }
    let nulls = br#"{"name":"a","model":"m","instructions":"x","output":{"schema":{"enum":[null,1]}}}"#;
    let (read, _) = Definition::from_json(nulls).expect("a definition");
    assert_eq!(read.output.map(|rule| rule.schema.text().to_owned()), Some("{\"enum\":[null,1]}".to_owned()));
}

#[test]
fn the_version_is_of_what_is_said_not_of_how() {
    let version = |text: &str| Definition::from_toml("x", text).expect("a definition").0.version;
    let one = version("model = \"m\"\ninstructions = \"x\"\n");
    assert_eq!(one, version("# a comment\ninstructions   = 'x'\n\nmodel = \"m\""));
    assert_ne!(one, version("model = \"m\"\ninstructions = \"y\"\n"));
}

#[test]
fn definitions_are_checked_against_one_another() {
    let file = |name: &str, more: &str| {
        (format!("{name}.toml"), format!("model = \"m\"\ninstructions = \"x\"\n{more}[limits]\nsteps = 5\n"))
    };
    let all = read_all(&[file("a", "tools = [\"agent:b\", \"agent:c\"]\n"), file("b", "")]);
    assert_eq!(all.definitions.len(), 2);
    let told: Vec<String> = all.warnings.iter().map(|(file, problem)| format!("{file}: {problem}")).collect();
    assert_eq!(told, ["a.toml: tools: names agent:c, which is not defined"]);
    let twice =
        read_all(&[file("a", ""), file("b", "name = \"a\"\n"), ("c.toml".to_owned(), "x".to_owned())]);
    assert_eq!((twice.definitions.len(), twice.problems.len()), (1, 2));
}

#[test]
fn the_examples_are_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agents");
    let mut files = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "a test reads the examples where they lie")]
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        files.push((name, text));
    }
    files.sort();
    assert!(files.len() >= 5);
    let all = read_all(&files);
    let told: Vec<String> = all
        .problems
        .iter()
        .chain(&all.warnings)
        .map(|(file, problem)| format!("{file}: {problem}"))
        .collect();
    assert_eq!(told, Vec::<String>::new());
    assert_eq!(all.definitions.len(), files.len());
}

proptest! {
    /// Whatever is taken out of a definition or put into it, it is read or refused with reasons.
    #[test]
    fn any_text_is_read_or_refused_with_reasons(
        line in 0_usize..90, put in ".{0,30}", keep in any::<bool>()
    ) {
        let mut lines: Vec<&str> = WHOLE.lines().collect();
        let at = line % lines.len();
        if keep { lines.insert(at, &put) } else { lines[at] = &put }
        match Definition::from_toml("x", &lines.join("\n")) {
            Ok((definition, _)) => prop_assert_eq!(definition.version.len(), 12),
            Err(problems) => prop_assert!(problems.iter().all(|problem| !problem.what.is_empty()) && !problems.is_empty()),
        }
        prop_assert!(Definition::from_json(put.as_bytes()).is_err());
    }
}

#[test]
fn no_agent_thinks_with_another_as_its_model() {
    let text = "model = \"agent/helper/1\"\ninstructions = \"x\"\n";
    let problems = Definition::from_toml("lead", text).expect_err("refused");
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "model"));
    assert!(problems[0].to_string().contains("tools = [\"agent:helper\"]"), "{}", problems[0]);
}
