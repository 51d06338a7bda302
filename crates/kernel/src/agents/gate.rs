//! The gate: rules as data that say whether an agent may do what it asks for.
//!
//! The first rule that matches decides. Where none does, everything is allowed but calls of
//! irreversible tools: what cannot be undone must be allowed by name. A condition on a fact
//! that is missing does not hold, and where a fact has several values (a list among the
//! arguments) a rule that allows must hold of all of them, one that forbids of any, so that
//! a harmless value never opens the gate for another beside it.

use std::cmp::Ordering;
use std::sync::Arc;

use seawall_model::effect::{Approval, Ask, Ruling, Verdict};
use seawall_model::{Address, Agent, EffectClass, Tenant, limits};

/// The rule's name in rulings that no rule made.
pub const DEFAULT: &str = "default";

/// What rules may be about: the kinds of [`seawall_model::effect::Work`].
pub const KINDS: [&str; 15] = [
    "model",
    "tool",
    "child",
    "message",
    "timer",
    "promise",
    "get",
    "put",
    "watch",
    "acquire",
    "release",
    "publish",
    "subscribe",
    "monitor",
    "link",
];

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than [`limits::GATE_RULES_MAX`].
    #[error("a gate has at most {} rules", limits::GATE_RULES_MAX)]
    Rules,
    /// An id that is empty, too long, taken, or `default`.
    #[error(
        "the rule `{0}` needs an id of its own, of at most {max} bytes and not `default`",
        max = limits::NAME_LEN_MAX
    )]
    Id(Arc<str>),
    /// A kind of work that does not exist.
    #[error("the rule `{0}` is about `{1}`, which is no kind of work")]
    Kind(Arc<str>, Arc<str>),
    /// A pattern that is empty or too long.
    #[error("the rule `{0}` has a pattern that is empty or longer than {max} bytes", max = limits::NAME_LEN_MAX)]
    Pattern(Arc<str>),
    /// Too many conditions or values.
    #[error(
        "the rule `{0}` has more than {conditions} conditions, or one with more than {values} values",
        conditions = limits::GATE_CONDITIONS_MAX,
        values = limits::GATE_VALUES_MAX
    )]
    Conditions(Arc<str>),
    /// An approval that nobody can give.
    #[error("the rule `{0}` asks for the yes of {1}, which its approvers cannot give")]
    Quorum(Arc<str>, u8),
}

/// A text in which each `*` stands for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// This text as a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern that everything fits.
    #[must_use]
    pub fn any() -> Self {
        Self::new("*")
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does the whole of `text` fit? At most the product of both lengths in steps.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where the last `*` stands, and how much of the text it has been given.
        let mut star: Option<(usize, usize)> = None;
        while read < text.len() {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at, read));
                at += 1;
            } else if pattern.get(at) == Some(&text[read]) {
                at += 1;
                read += 1;
            } else if let Some((stood, given)) = star {
                star = Some((stood, given + 1));
                at = stood + 1;
                read = given + 1;
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }

    fn bounded(&self) -> bool {
        (1..=limits::NAME_LEN_MAX).contains(&self.0.len())
    }
}

/// Whom a rule is about. Tenant and agent are apart, so that nobody slips under a rule by
/// a tenant path that looks like an agent's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// A tenant path and all below it; `*` is any.
    pub tenant: Pattern,
    /// `type/key`; a type alone is all of that type.
    pub agent: Pattern,
}

impl Who {
    /// Everybody.
    #[must_use]
    pub fn anyone() -> Self {
        Self { tenant: Pattern::any(), agent: Pattern::any() }
    }

    fn is(&self, who: &Address) -> bool {
        self.is_tenant(&who.tenant) && self.is_agent(&who.agent)
    }

    fn is_tenant(&self, tenant: &Tenant) -> bool {
        tenant.prefixes().any(|prefix| self.tenant.fits(prefix))
    }

    fn is_agent(&self, agent: &Agent) -> bool {
        self.agent.fits(agent.as_str())
            || (!self.agent.as_str().contains('/') && self.agent.fits(agent.kind()))
    }
}

/// How a fact is compared with a condition's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The same number, or the same text.
    Eq,
    /// There, and not the same.
    Ne,
    /// Less.
    Lt,
    /// Less or the same.
    Le,
    /// More.
    Gt,
    /// More or the same.
    Ge,
    /// Begins with it.
    Prefix,
    /// Ends with it.
    Suffix,
    /// Has it somewhere.
    Contains,
    /// The same as one of these; the condition's value is not looked at.
    In(Vec<Arc<str>>),
    /// There, whatever it is.
    Present,
    /// Not there.
    Absent,
}

/// One condition on a fact of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The fact: `args.path.to.field`, `label.pii`.
    pub fact: Arc<str>,
    /// How it is compared.
    pub op: Op,
    /// With what. A number is compared with numbers only: a fact that is none is neither
    /// less nor more.
    pub value: Arc<str>,
}

impl Condition {
    fn holds(&self, ask: &Ask, of_all: bool) -> bool {
        let mut facts = ask.facts.iter().filter(|fact| fact.name == self.fact).peekable();
        if self.op == Op::Absent || facts.peek().is_none() {
            return self.op == Op::Absent && facts.peek().is_none();
        }
        if of_all {
            facts.all(|fact| self.holds_of(&fact.value))
        } else {
            facts.any(|fact| self.holds_of(&fact.value))
        }
    }

    fn holds_of(&self, fact: &str) -> bool {
        let value = &*self.value;
        match &self.op {
            Op::Eq => same(fact, value),
            Op::Ne => !same(fact, value),
            Op::Lt => order(fact, value).is_some_and(Ordering::is_lt),
            Op::Le => order(fact, value).is_some_and(Ordering::is_le),
            Op::Gt => order(fact, value).is_some_and(Ordering::is_gt),
            Op::Ge => order(fact, value).is_some_and(Ordering::is_ge),
            Op::Prefix => fact.starts_with(value),
            Op::Suffix => fact.ends_with(value),
            Op::Contains => fact.contains(value),
            Op::In(values) => values.iter().any(|value| same(fact, value)),
            Op::Present => true,
            Op::Absent => false,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in the journal.
    pub id: Arc<str>,
    /// Whom it is about.
    pub who: Who,
    /// What kind of work: one of [`KINDS`], or `*`.
    pub what: Arc<str>,
    /// On what: tools, models, agents, keys, resources or topics.
    pub on: Pattern,
    /// Only effects of this class.
    pub class: Option<EffectClass>,
    /// Only if all of these hold.
    pub when: Vec<Condition>,
    /// The decision.
    pub then: Verdict,
}

impl Rule {
    fn matches(&self, who: &Address, ask: &Ask) -> bool {
        let of_all = matches!(self.then, Verdict::Allow | Verdict::Redact(_));
        (&*self.what == "*" || &*self.what == ask.work.kind())
            && self.class.is_none_or(|class| class == ask.class)
            && self.on.fits(ask.work.object())
            && self.who.is(who)
            && self.when.iter().all(|condition| condition.holds(ask, of_all))
    }

    fn check(&self) -> Result<(), Error> {
        let id = || self.id.clone();
        if &*self.what != "*" && !KINDS.contains(&&*self.what) {
            return Err(Error::Kind(id(), self.what.clone()));
        }
        if ![&self.who.tenant, &self.who.agent, &self.on].into_iter().all(Pattern::bounded) {
            return Err(Error::Pattern(id()));
        }
        let wide = |condition: &Condition| matches!(&condition.op, Op::In(values) if values.len() > limits::GATE_VALUES_MAX);
        if self.when.len() > limits::GATE_CONDITIONS_MAX || self.when.iter().any(wide) {
            return Err(Error::Conditions(id()));
        }
        match &self.then {
            Verdict::Ask(approval) if !can_pass(approval) => Err(Error::Quorum(id(), approval.quorum)),
            _ => Ok(()),
        }
    }
}

/// An approver may be a whole tenant, so only a quorum of nobody is certain to be wrong.
fn can_pass(approval: &Approval) -> bool {
    approval.quorum > 0
}

/// Can these rules be used?
///
/// # Errors
/// Says what is wrong with the first that cannot.
pub fn check(rules: &[Rule]) -> Result<(), Error> {
    if rules.len() > limits::GATE_RULES_MAX {
        return Err(Error::Rules);
    }
    let mut ids: Vec<&Arc<str>> = rules.iter().map(|rule| &rule.id).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    let odd = ids.iter().find(|id| id.is_empty() || id.len() > limits::NAME_LEN_MAX || &****id == DEFAULT);
    if let Some(id) = twice.or(odd.copied()) {
        return Err(Error::Id(id.clone()));
    }
    rules.iter().try_for_each(Rule::check)
}

/// What the gate says of an effect that `who` asks for: the first rule that matches, or the
/// default.
pub(crate) fn decide(rules: &[Rule], who: &Address, ask: &Ask) -> Ruling {
    let default = || Ruling { rule: DEFAULT.into(), verdict: default_of(ask) };
    decide_first(rules, who, ask).unwrap_or_else(default)
}

/// What the first rule that matches says, where rules follow that may yet have a say.
pub(crate) fn decide_first(rules: &[Rule], who: &Address, ask: &Ask) -> Option<Ruling> {
    let rule = rules.iter().find(|rule| rule.matches(who, ask))?;
    Some(Ruling { rule: rule.id.clone(), verdict: rule.then.clone() })
}

fn default_of(ask: &Ask) -> Verdict {
    if ask.class == EffectClass::Irreversible && ask.work.kind() == "tool" {
        Verdict::Deny
    } else {
        Verdict::Allow
    }
}

fn same(fact: &str, value: &str) -> bool {
    match (Decimal::parse(fact), Decimal::parse(value)) {
        (Some(fact), Some(value)) => fact.compare(&value) == Ordering::Equal,
        _ => fact == value,
    }
}

/// How the fact stands to the value; `None` where one is a number and the other is not.
fn order(fact: &str, value: &str) -> Option<Ordering> {
    match (Decimal::parse(fact), Decimal::parse(value)) {
        (Some(fact), Some(value)) => Some(fact.compare(&value)),
        (None, None) => Some(fact.cmp(value)),
        _ => None,
    }
}

/// A number as JSON writes it, compared exactly: floats would hold 9007199254740993 to be
/// 9007199254740992.
#[derive(Clone, Debug)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty is zero.
    digits: Vec<u8>,
    /// Power of ten of the place before the first digit.
    lead: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let all = || whole.bytes().chain(fraction.bytes());
        let zeros = all().take_while(|byte| *byte == b'0').count();
        let mut digits: Vec<u8> = all().skip(zeros).collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        let lead = exponent.saturating_add(whole.len() as i64).saturating_sub(zeros as i64);
        Some(Self { negative: negative && !digits.is_empty(), digits, lead })
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_size(other),
            (true, true) => other.compare_size(self),
        }
    }

    fn compare_size(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // With no zeros at the end, a number whose digits begin another's is smaller.
            (false, false) => self.lead.cmp(&other.lead).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

/// An exponent beyond all bounds stops there: such a number is larger or smaller than any
/// that somebody writes a rule about.
fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.bytes().fold(0_i64, |size, byte| {
        size.saturating_mul(10).saturating_add(i64::from(byte - b'0')).min(i64::MAX / 4)
    });
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seawall_model::Millis;
    use seawall_model::Payload;
    use seawall_model::effect::{Fact, Spend, Work};

    use super::*;

    fn tool(name: &str, class: EffectClass, facts: &[(&str, &str)]) -> Ask {
        let work = Work::Tool { tool: name.into(), args: Payload::empty(), undo: None, query: None };
        let facts = facts.iter().map(|(name, value)| Fact { name: (*name).into(), value: (*value).into() });
        Ask {
            tag: "t".into(),
            work,
            class,
            cost_max: Spend::default(),
            patience: None,
            twin: 0,
            facts: facts.collect(),
        }
    }

    fn rule(id: &str, on: &str, then: Verdict) -> Rule {
        Rule {
            id: id.into(),
            who: Who::anyone(),
            what: "tool".into(),
            on: Pattern::new(on),
            class: None,
            when: Vec::new(),
            then,
        }
    }

    fn when(fact: &str, op: Op, value: &str) -> Vec<Condition> {
        vec![Condition { fact: fact.into(), op, value: value.into() }]
    }

    fn who() -> Address {
        Address::parse("acme/search/triage/42").expect("valid")
    }

    fn says(rules: &[Rule], ask: &Ask) -> (String, bool) {
        let ruling = decide(rules, &who(), ask);
        (ruling.rule.to_string(), ruling.verdict == Verdict::Allow)
    }

    #[test]
    fn only_irreversible_tools_are_denied_by_default() {
        for class in EffectClass::ALL {
            let allowed = class != EffectClass::Irreversible;
            assert_eq!(says(&[], &tool("mail.send", class, &[])), ("default".into(), allowed));
        }
        let work = Work::Model { model: "m".into(), recipe: Payload::empty() };
        let ask = Ask { work, ..tool("", EffectClass::Irreversible, &[]) };
        assert!(says(&[], &ask).1);
    }

    #[test]
    fn the_first_rule_that_matches_decides_over_all_lists() {
        let own = [rule("a", "github.read*", Verdict::Allow)];
        let general = [rule("b", "github.*", Verdict::Deny), rule("c", "*", Verdict::Allow)];
        let of = |name: &str| {
            let ask = tool(name, EffectClass::Irreversible, &[]);
            decide_first(&own, &who(), &ask)
                .unwrap_or_else(|| decide(&general, &who(), &ask))
                .rule
                .to_string()
        };
        assert_eq!(of("github.read_file"), "a");
        assert_eq!(of("github.push"), "b");
        assert_eq!(of("mail.send"), "c");
    }

    #[test]
    fn rules_are_about_somebody_something_and_a_class() {
        let ask = tool("mail.send", EffectClass::Irreversible, &[]);
        let fits = |tenant: &str, agent: &str| {
            let who = Who { tenant: Pattern::new(tenant), agent: Pattern::new(agent) };
            says(&[Rule { who, ..rule("a", "mail.*", Verdict::Allow) }], &ask).1
        };
        assert!(fits("*", "*") && fits("acme", "triage") && fits("acme/search", "triage/*"));
        assert!(fits("acme/*", "triage/42") && fits("*/search", "tri*"));
        assert!(!fits("acm", "*") && !fits("search", "*") && !fits("*", "triage/4") && !fits("*", "42"));
        assert!(!fits("*", "search/*"), "a tenant's segments are no agent's type");
        let other = Rule { what: "put".into(), ..rule("a", "*", Verdict::Allow) };
        assert!(!says(&[other], &ask).1);
        let other = Rule { class: Some(EffectClass::Read), ..rule("a", "*", Verdict::Allow) };
        assert!(!says(&[other], &ask).1);
    }

    #[test]
    fn conditions_compare_numbers_exactly_and_texts_as_texts() {
        let cases = [
            ("9007199254740993", Op::Gt, "9007199254740992", true),
            ("1e2", Op::Le, "100.0", true),
            ("1e2", Op::Lt, "100", false),
            ("-5", Op::Lt, "-4.99", true),
            ("0.1", Op::Eq, "1e-1", true),
            ("-0", Op::Eq, "0", true),
            ("99", Op::Lt, "100", true),
            ("", Op::Le, "100", false),
            ("$5", Op::Le, "100", false),
            ("1,000", Op::Le, "100", false),
            ("1e99999999999999999999", Op::Gt, "1e300", true),
            ("1e-99999999999999999999", Op::Gt, "0", true),
            ("2026-01-02", Op::Lt, "2026-01-10", true),
            ("abc", Op::Ne, "abd", true),
            ("abc", Op::Prefix, "ab", true),
            ("abc", Op::Suffix, "ab", false),
            ("abc", Op::Contains, "b", true),
            ("2.0", Op::In(vec!["1".into(), "2".into()]), "", true),
            ("3", Op::In(vec!["1".into(), "2".into()]), "", false),
            ("x", Op::Present, "", true),
            ("x", Op::Absent, "", false),
        ];
        for (fact, op, value, holds) in cases {
            let ask = tool("t", EffectClass::Irreversible, &[("args.x", fact)]);
            let rules = [Rule { when: when("args.x", op.clone(), value), ..rule("a", "t", Verdict::Allow) }];
            assert_eq!(says(&rules, &ask).1, holds, "{fact} {op:?} {value}");
        }
    }

    #[test]
    fn a_missing_fact_holds_nothing_but_absence() {
        let ask = tool("t", EffectClass::Irreversible, &[]);
        let ops = [
            Op::Eq,
            Op::Ne,
            Op::Lt,
            Op::Le,
            Op::Gt,
            Op::Ge,
            Op::Prefix,
            Op::Suffix,
            Op::Contains,
            Op::In(vec!["".into()]),
            Op::Present,
        ];
        for op in ops {
            let rules = [Rule { when: when("args.x", op.clone(), ""), ..rule("a", "t", Verdict::Allow) }];
            assert!(!says(&rules, &ask).1, "{op:?}");
        }
        let rules = [Rule { when: when("args.x", Op::Absent, ""), ..rule("a", "t", Verdict::Allow) }];
        assert!(says(&rules, &ask).1);
    }

    #[test]
    fn one_harmless_value_opens_nothing_for_another_beside_it() {
        let ask = tool(
            "mail.send",
            EffectClass::Irreversible,
            &[("args.to", "a@acme.com"), ("args.to", "b@evil.com")],
        );
        let ours = Rule { when: when("args.to", Op::Suffix, "@acme.com"), ..rule("a", "*", Verdict::Allow) };
        assert!(!says(&[ours], &ask).1);
        let evil = Rule { when: when("args.to", Op::Suffix, "@evil.com"), ..rule("b", "*", Verdict::Deny) };
        assert_eq!(says(&[evil, rule("c", "*", Verdict::Allow)], &ask), ("b".into(), false));
    }

    #[test]
    fn rules_that_cannot_be_used_say_why() {
        let good = rule("a", "x", Verdict::Allow);
        assert_eq!(check(&[good.clone(), rule("b", "x", Verdict::Deny)]), Ok(()));
        let id = |id: &str| Err(Error::Id(id.into()));
        assert_eq!(check(&[good.clone(), good.clone()]), id("a"));
        assert_eq!(check(&[rule("", "x", Verdict::Allow)]), id(""));
        assert_eq!(check(&[rule("default", "x", Verdict::Allow)]), id("default"));
        assert_eq!(
            check(&[Rule { what: "fly".into(), ..good.clone() }]),
            Err(Error::Kind("a".into(), "fly".into()))
        );
        assert_eq!(check(&[rule("a", "", Verdict::Allow)]), Err(Error::Pattern("a".into())));
        let many = vec!["1".into(); limits::GATE_VALUES_MAX + 1];
        let wide = Rule { when: when("f", Op::In(many), ""), ..good.clone() };
        assert_eq!(check(&[wide]), Err(Error::Conditions("a".into())));
        let nobody = Approval { quorum: 0, approvers: Vec::new(), patience: Millis(1), deputy: None };
        let asks = Rule { then: Verdict::Ask(nobody), ..good };
        assert_eq!(check(&[asks]), Err(Error::Quorum("a".into(), 0)));
        let many: Vec<Rule> =
            (0..=limits::GATE_RULES_MAX).map(|at| rule(&at.to_string(), "x", Verdict::Allow)).collect();
        assert_eq!(check(&many), Err(Error::Rules));
    }

    /// The definition of fitting, which the loop must agree with.
    fn fits_slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| fits_slowly(rest, &text[skip..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(t, tail)| t == byte && fits_slowly(rest, tail))
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_as_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Pattern::new(&pattern).fits(&text), fits_slowly(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn decimals_stand_in_the_order_of_numbers(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000,
            shift in 0_u32..6) {
            // The same number written plainly and with an exponent.
            let plain = order(&a.to_string(), &b.to_string());
            prop_assert_eq!(plain, Some(a.cmp(&b)));
            let moved = format!("{}e{shift}", a);
            let whole = i128::from(a) * 10_i128.pow(shift);
            prop_assert_eq!(order(&moved, &b.to_string()), Some(whole.cmp(&i128::from(b))));
            let split = format!("{}{}.{:03}e3", if a < 0 { "-" } else { "" }, a.abs() / 1_000, a.abs() % 1_000);
            prop_assert!(same(&split, &a.to_string()), "{}", split);
        }

        #[test]
        fn no_text_breaks_the_gate(fact in ".{0,40}", value in ".{0,40}") {
            let _ = order(&fact, &value);
            prop_assert!(same(&fact, &fact));
        }
    }
}
