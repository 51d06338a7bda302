//! What each type of agent may do, for `seawall check`: its tools with what the gate says of
//! them, its limits, and tools that nobody offers.

use std::collections::BTreeSet;
use std::sync::Arc;

use seawall_kernel::agents::gate::{Condition, Op, Pattern, Rule};
use seawall_model::EngineKind;
use seawall_model::effect::{Allowance, EffectClass, Verdict};
use serde_json::{Value, json};

use crate::agents::define::{Definition, Reading};
use crate::agents::handler::{BUILTINS, tool_of};
use crate::agents::library::Library;
use crate::cli::print::{BAD, BOLD, DIM, GOOD, WARN};
use crate::config::plan::{AGENT_PREFIX, Discovered, Ids, plan};
use crate::config::tool::ToolsConfig;
use crate::config::{Config, EngineConfig, Problem, Routes};

use super::show;

/// The folder of definitions as it was read.
pub(in crate::cli) struct Folder {
    reading: Reading,
    /// Each type with what it may do, by name.
    kinds: Vec<Permits>,
}

/// What one type may do.
struct Permits {
    definition: Arc<Definition>,
    lines: Vec<Line>,
    /// Does one of them decide on every irreversible tool, so that nothing is left to what
    /// holds without a rule?
    settled: bool,
    /// Patterns of tools that nothing configured can offer.
    unmet: Vec<Arc<str>>,
}

/// One verdict on some work.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    verdict: &'static str,
    what: String,
    class: Option<&'static str>,
    when: String,
    how: String,
    rule: Arc<str>,
}

/// Reads the folder that a configuration names; `None` where agents are turned off.
///
/// # Errors
/// In words: the folder cannot be read.
pub(in crate::cli) fn read(config: &Config) -> Result<Option<Folder>, Problem> {
    if !config.agents.enabled {
        return Ok(None);
    }
    let (mut reading, _) = Library::read(&config.agents.folder).map_err(|what| Problem {
        line: None,
        key: "agents.folder".to_owned(),
        what,
        hint: String::new(),
    })?;
    let all: Vec<_> = reading.definitions.values().cloned().collect();
    let known: Vec<&str> = all.iter().map(|one| &*one.kind).collect();
    let models = Models::of(config);
    let mut kinds = Vec::new();
    for definition in &all {
        let fits = |pattern: &Arc<str>| is_met(pattern, &config.tools, &known);
        let unmet: Vec<_> = definition.tools.iter().filter(|one| !fits(one)).cloned().collect();
        let idle = idle_rules(&definition.permissions, &config.tools, &known, &models);
        let missing = unmet.iter().filter_map(|pattern| missing(pattern));
        for problem in missing.chain(models.missing(&definition.model)).chain(idle) {
            reading.warnings.push((format!("type {}", definition.kind), problem));
        }
        let rules = definition.permissions.iter().chain(&config.agents.permissions);
        let rules: Vec<&Rule> = rules.filter(|rule| concerns(rule, &definition.kind)).collect();
        let settled = rules.iter().any(|rule| settles(rule));
        let lines = rules.into_iter().map(line).collect();
        kinds.push(Permits { definition: definition.clone(), lines, settled, unmet });
    }
    for problem in idle_rules(&config.agents.permissions, &config.tools, &known, &models) {
        reading.warnings.push(("agents.permissions".to_owned(), problem));
    }
    Ok(Some(Folder { reading, kinds }))
}

/// What is said of a pattern of tools that selects nothing. An agent that is not defined was
/// told when the folder was read, unless its pattern stands for several.
fn missing(pattern: &str) -> Option<Problem> {
    let (what, hint) = match pattern.strip_prefix("agent:") {
        Some(kind) if kind.contains('*') => {
            (format!("no type of agents fits {pattern}"), "define one, or mend the pattern")
        }
        Some(_) => return None,
        None => (
            format!("nothing that is configured offers {pattern}"),
            "configure [[tool_server]] or [[tool]], or mend its name",
        ),
    };
    Some(Problem { line: None, key: "tools".to_owned(), what, hint: hint.to_owned() })
}

/// What is said of rules about something that there is not: they never decide anything.
fn idle_rules(rules: &[Rule], tools: &ToolsConfig, kinds: &[&str], models: &Models) -> Vec<Problem> {
    let (mut all, mut told) = (Vec::new(), BTreeSet::new());
    for rule in rules {
        let on = rule.on.as_str();
        let fits = on == "*"
            || match &*rule.what {
                "tool" => is_met(on, tools, kinds),
                // A child is named by its type, with or without a key.
                "child" => {
                    let kind = Pattern::new(on.split('/').next().unwrap_or(on));
                    kinds.iter().any(|one| kind.fits(one))
                }
                "model" => on.contains('*') || models.missing(on).is_none(),
                _ => true,
            };
        // A pattern of a definition may be several rules.
        let object = tool_of(&rule.what, on.strip_suffix("/*").unwrap_or(on));
        if !fits && told.insert(object.clone()) {
            let what = format!("the rule {} is about {object}, which is not there", rule.id);
            let hint = "mend its name, or take the rule away".to_owned();
            all.push(Problem { line: None, key: "permissions".to_owned(), what, hint });
        }
    }
    all
}

/// Does a rule decide on every irreversible tool?
fn settles(rule: &Rule) -> bool {
    matches!(&*rule.what, "tool" | "*")
        && rule.on.as_str() == "*"
        && rule.when.is_empty()
        && rule.class.is_none_or(|class| class == EffectClass::Irreversible)
}

/// The models that the configuration alone lets one know of.
struct Models {
    routes: Routes,
    /// Are there no others, since no engine is asked what it has?
    all: bool,
    /// What the built-in engine has, which is there where no other is.
    built_in: Vec<Arc<str>>,
}

impl Models {
    fn of(config: &Config) -> Self {
        // The built-in engine has what its options say; others tell once they run.
        let built_in = |engine: &&EngineConfig| engine.kind == EngineKind::Sim && engine.urls.is_empty();
        let names: Vec<Arc<str>> = config.sim.models.iter().map(|name| name.as_str().into()).collect();
        let models = config
            .engines
            .iter()
            .filter(built_in)
            .map(|engine| (engine.name.clone(), names.clone()))
            .collect();
        let (_, routes) = plan(config, &mut Ids::default(), &Discovered { models });
        let told = |engine: &EngineConfig| if built_in(&engine) { names.is_empty() } else { engine.discover };
        Self {
            routes,
            all: !config.engines.is_empty() && !config.engines.iter().any(told),
            built_in: names.clone(),
        }
    }

    /// What is said of a model that there is not.
    fn missing(&self, model: &str) -> Option<Problem> {
        let problem =
            |what: String, hint: String| Some(Problem { line: None, key: "model".to_owned(), what, hint });
        if self.routes.resolve(model).is_some() {
            return None;
        }
        if let Some(kind) = model.strip_prefix(AGENT_PREFIX) {
            let what = format!("{model} is an agent, and no agent thinks with another");
            return problem(what, format!("give it the tool agent:{kind}"));
        }
        if !self.all {
            if self.built_in.iter().any(|name| &**name == model) {
                return None;
            }
            return problem(
                format!("nothing that is configured serves {model}: an engine must say that it has it"),
                "`seawall agents` tells once Seawall runs".to_owned(),
            );
        }
        let near =
            self.routes.nearest(model).map_or_else(String::new, |near| format!("did you mean {near}? "));
        problem(
            format!("there is no model {model}: its runs will fail"),
            format!("{near}configure [[model]] or the engine's `models`, or mend its name"),
        )
    }
}

/// Is there anything that this pattern may select? What a server offers is only known once
/// it runs: its name must do.
fn is_met(pattern: &str, tools: &ToolsConfig, kinds: &[&str]) -> bool {
    let fits = Pattern::new(pattern);
    let server = pattern.split('.').next().unwrap_or_default();
    let servers = tools.servers.iter();
    BUILTINS.iter().any(|name| fits.fits(name))
        || kinds.iter().any(|kind| fits.fits(&format!("agent:{kind}")))
        || tools.http.iter().any(|tool| fits.fits(&tool.name))
        || servers.clone().any(|one| pattern.contains('.') && Pattern::new(server).fits(&one.name))
        || (pattern == "*" && servers.len() > 0)
}

/// Is a rule about this type at all?
fn concerns(rule: &Rule, kind: &str) -> bool {
    let agent = rule.who.agent.as_str().split('/').next().unwrap_or_default();
    Pattern::new(agent).fits(kind)
}

fn line(rule: &Rule) -> Line {
    let (verdict, how) = match &rule.then {
        Verdict::Allow => ("may", String::new()),
        Verdict::Deny => ("may not", String::new()),
        Verdict::Redact(fields) => ("may", format!("without {}", fields.join(", "))),
        Verdict::Ask(approval) => {
            let who = if approval.approvers.is_empty() {
                "any admin".to_owned()
            } else {
                approval.approvers.join(", ")
            };
            let patience = show::span(approval.patience.0);
            ("asks before", format!("{} yes of {who} within {patience}", approval.quorum))
        }
    };
    let what = object(&rule.what, rule.on.as_str());
    let when: Vec<String> = rule.when.iter().map(condition).collect();
    Line {
        verdict,
        what,
        class: rule.class.map(EffectClass::as_str),
        when: when.join(" and "),
        how,
        rule: rule.id.clone(),
    }
}

/// What a rule is about, as definitions name it: tools, not kinds of work.
fn object(kind: &str, on: &str) -> String {
    if kind == "*" {
        return if on == "*" { "everything".to_owned() } else { format!("everything on {on}") };
    }
    let tool = tool_of(kind, on);
    if on == "*" || tool.ends_with(on) || tool == "notes.add" { tool } else { format!("{tool} of {on}") }
}

/// A condition as it was written.
fn condition(condition: &Condition) -> String {
    let (fact, value) = (&condition.fact, &condition.value);
    let word = match &condition.op {
        Op::Eq => "==",
        Op::Ne => "!=",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
        Op::Prefix => "starts_with",
        Op::Suffix => "ends_with",
        Op::Contains => "contains",
        Op::Present => return format!("{fact} present"),
        Op::Absent => return format!("{fact} absent"),
        Op::In(values) => return format!("{fact} in {}", values.join(", ")),
    };
    format!("{fact} {word} {value}")
}

/// What a run of a type may use, where it is bounded: `steps 40, tokens 100000`.
fn limits(allowance: &Allowance) -> Vec<(&'static str, String)> {
    let count = |value: Option<u64>| value.map(|value| value.to_string());
    let all = [
        ("steps", count(allowance.steps)),
        ("calls", count(allowance.calls)),
        ("tokens", allowance.tokens.map(|tokens| tokens.0.to_string())),
        ("money", allowance.money.map(|money| show::micros(&json!(money.0)))),
        ("wall", allowance.wall.map(|wall| show::span(wall.0))),
        ("children", count(allowance.children.map(u64::from))),
        ("depth", count(allowance.depth.map(u64::from))),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

impl Folder {
    /// May the server start with it?
    pub(in crate::cli) fn is_sound(&self) -> bool {
        self.reading.problems.is_empty()
    }

    /// What is wrong with it, by file.
    pub(in crate::cli) fn problems(&self) -> &[(String, Problem)] {
        &self.reading.problems
    }

    /// What is doubtful about it, likewise.
    pub(in crate::cli) fn warnings(&self) -> &[(String, Problem)] {
        &self.reading.warnings
    }

    /// What each type may do, as text with styles; nothing where there are none.
    pub(in crate::cli) fn render(&self) -> String {
        self.kinds.iter().map(|kind| format!("\n{}", kind.render())).collect()
    }

    /// The same for a script.
    pub(in crate::cli) fn json(&self) -> Value {
        Value::Array(self.kinds.iter().map(Permits::json).collect())
    }
}

impl Permits {
    fn render(&self) -> String {
        let one = &self.definition;
        let mut out = format!(
            "{BOLD}agent {}{BOLD:#} {DIM}{}{DIM:#}  thinks with {}\n",
            one.kind, one.version, one.model
        );
        let limits: Vec<String> =
            limits(&one.allowance).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        let limits = if limits.is_empty() { format!("{WARN}none{WARN:#}") } else { limits.join(", ") };
        out.push_str(&format!("  {DIM}limits of a run{DIM:#}  {limits}\n"));
        let tools: Vec<String> = one
            .tools
            .iter()
            .map(|tool| {
                if self.unmet.contains(tool) {
                    format!("{WARN}{tool} (not there){WARN:#}")
                } else {
                    tool.to_string()
                }
            })
            .collect();
        let tools = if tools.is_empty() { "none".to_owned() } else { tools.join(", ") };
        out.push_str(&format!("  {DIM}tools{DIM:#}            {tools}\n"));
        if let Some(schedule) = &one.schedule {
            out.push_str(&format!(
                "  {DIM}by itself{DIM:#}        on its schedule, for {}\n",
                schedule.tenant
            ));
        }
        for line in &self.lines {
            out.push_str(&line.render());
        }
        let rest = if self.settled { "everything else" } else { "everything else, but no irreversible tool" };
        out.push_str(&format!("  {GOOD}{:<15}{GOOD:#}  {rest}\n", "may"));
        out
    }

    fn json(&self) -> Value {
        let one = &self.definition;
        let limits: serde_json::Map<String, Value> =
            limits(&one.allowance).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        let rules: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "rule": &*line.rule, "verdict": line.verdict, "what": line.what, "class": line.class,
                    "when": line.when, "how": line.how,
                })
            })
            .collect();
        let names = |list: &[Arc<str>]| list.iter().map(|name| json!(&**name)).collect::<Vec<_>>();
        json!({
            "type": &*one.kind, "version": &*one.version, "model": &*one.model, "limits": limits,
            "tools": names(&one.tools), "unmet": names(&self.unmet), "rules": rules,
        })
    }
}

impl Line {
    fn render(&self) -> String {
        let style = match self.verdict {
            "may" => GOOD,
            "may not" => BAD,
            _ => WARN,
        };
        let mut out = format!("  {style}{:<15}{style:#}  {}", self.verdict, self.what);
        if let Some(class) = self.class {
            out.push_str(&format!(" where it is {class}"));
        }
        if !self.when.is_empty() {
            out.push_str(&format!(" if {}", self.when));
        }
        if !self.how.is_empty() {
            out.push_str(&format!(": {}", self.how));
        }
        out.push_str(&format!("  {DIM}{}{DIM:#}\n", self.rule));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;
    use crate::config::Flags;

    const TRIAGE: &str = r#"
model = "fast"
instructions = "Sort."
tools = ["crm.lookup", "crm.refund", "human.ask", "agent:finder"]
[limits]
steps = 24
money = "0.20 USD"
wall = "3d"
[[permissions]]
id = "small-refunds"
ask = ["crm.refund"]
when = ["args.amount <= 100"]
patience = "1d"
[[permissions]]
deny = ["crm.*"]
class = "irreversible"
[[permissions]]
redact = ["crm.lookup"]
fields = ["args.card_number"]
"#;

    fn permits(tools: &ToolsConfig) -> Permits {
        let (definition, _) = Definition::from_toml("triage", TRIAGE).expect("good");
        let lines = definition.permissions.iter().map(line).collect();
        let settled = definition.permissions.iter().any(settles);
        let unmet = definition.tools.iter().filter(|one| !is_met(one, tools, &["triage"])).cloned().collect();
        Permits { definition: Arc::new(definition), lines, settled, unmet }
    }

    #[test]
    fn what_a_type_may_do_is_told_in_full() {
        let mut permits = permits(&ToolsConfig::default());
        Arc::get_mut(&mut permits.definition).expect("ours").version = "1a2b".into();
        insta::assert_snapshot!(plain(&permits.render()), @r"
        agent triage 1a2b  thinks with fast
          limits of a run  steps 24, money $0.2000, wall 3d
          tools            crm.lookup (not there), crm.refund (not there), human.ask, agent:finder (not there)
          asks before      crm.refund if args.amount <= 100: 1 yes of any admin within 24h  small-refunds
          may not          crm.* where it is irreversible  triage/2
          may              crm.lookup: without args.card_number  triage/3
          may              everything else, but no irreversible tool
        ");
        assert_eq!(permits.json()["unmet"], json!(["crm.lookup", "crm.refund", "agent:finder"]));
    }

    #[test]
    fn rules_are_told_by_tools() {
        for (kind, on, told) in [
            ("put", "*", "store.put"),
            ("put", "notes/a/*", "notes.add"),
            ("put", "money/*", "store.put of money/*"),
            ("tool", "crm.*", "crm.*"),
            ("child", "finder/*", "agent:finder/*"),
            ("model", "fast", "model:fast"),
            ("promise", "*", "human.ask"),
            ("*", "*", "everything"),
        ] {
            assert_eq!(object(kind, on), told);
        }
    }

    #[test]
    fn a_model_that_is_nowhere_is_told_where_that_is_certain() {
        let mut config = Config::bare("data".into());
        let unsure = Models::of(&config).missing("gpt-nine").expect("told");
        assert!(unsure.what.contains("must say"), "an engine may be found that has it");
        assert!(Models::of(&config).missing("sim-small").is_none());
        assert!(Models::of(&config).missing("agent/finder").is_some());
        let text = "[[engine]]\nname = \"sim\"\nkind = \"sim\"\n";
        let files = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        config.engines =
            Config::read(None, text, &Flags::default(), &|_| None, &files).expect("good").0.engines;
        let models = Models::of(&config);
        let missing = models.missing("gpt-nine").expect("there is none");
        assert!(missing.what.contains("gpt-nine") && models.missing("sim-small").is_none());
    }

    #[test]
    fn rules_about_nothing_are_told_and_one_on_everything_leaves_nothing_open() {
        let text = "model = \"m\"\ninstructions = \"x\"\n[[permissions]]\ndeny = [\"crm.refnd\", \"agent:nobody\"]\n\
                    [[permissions]]\nask = [\"store.put\", \"agent:a\"]\n[[permissions]]\nallow = [\"*\"]\n";
        let (definition, _) = Definition::from_toml("a", text).expect("good");
        let models = Models::of(&Config::bare("data".into()));
        let told = idle_rules(&definition.permissions, &ToolsConfig::default(), &["a"], &models);
        let told: Vec<&str> = told.iter().map(|one| &*one.what).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("crm.refnd") && told[1].contains("agent:nobody"), "{told:?}");
        let settled = definition.permissions.iter().any(settles);
        let one = Permits { definition: Arc::new(definition), lines: Vec::new(), settled, unmet: Vec::new() };
        assert!(!one.render().contains("but no irreversible tool"), "{}", one.render());
    }

    #[test]
    fn a_pattern_is_met_by_what_is_configured() {
        let tools = ToolsConfig::default();
        for pattern in ["store.get", "store.*", "agent:a", "agent:*", "*"] {
            assert!(is_met(pattern, &tools, &["a"]), "{pattern}");
        }
        for pattern in ["store.gte", "agent:b", "crm.lookup", "weather"] {
            assert!(!is_met(pattern, &tools, &["a"]), "{pattern}");
        }
    }
}
