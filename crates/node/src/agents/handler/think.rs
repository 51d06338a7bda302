//! Asking the model: what a request holds, what it may cost, and what the model is told of
//! its limits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use seawall_model::effect::{Ask, Spend, Work};
use seawall_model::{Code, EffectClass, Fault, Payload, Tokens, Usage};
use seawall_wire::talk::{self, Format, Message, Pick, Request, Role};
use serde::{Deserialize, Serialize};

use super::context::Fit;
use super::draft::{Draft, FIRST};
use super::log::{Entry, SUMMARY, entries};
use super::memo::Doing;
use super::{Kit, Stop, first_bytes, text};
use crate::agents::define::Definition;

/// The format's version.
const VERSION: u8 = 1;
/// The model is told of its limits when so many answers are left.
const TOLD_AT: u64 = 3;
/// An answer shorter than this is not worth its prompt: rather the kernel refuses.
const OUTPUT_MIN: u64 = 64;
/// Longest summary.
const SUMMARY_TOKENS_MAX: u64 = 1_024;
/// The least that is shown of each message that is summarised.
const SHOWN_BYTES_MIN: usize = 200;

const SUMMARISE: &str = "You keep the memory of a working agent. Summarise the conversation below for the agent \
    itself: what was asked, what was found out (with names, numbers and keys exactly as they were), what was decided \
    and done, and what is still open. Leave out nothing that it may need, and add nothing.";

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Aim {
    Think,
    Summarise,
}

/// What the request is made with when it is sent, beside the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recipe {
    v: u8,
    aim: Aim,
    /// Messages before this one.
    until: u32,
    /// Longest answer.
    max: u64,
    /// No more tools: it must answer.
    #[serde(default)]
    last: bool,
    /// What it is told of its limits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    told: String,
}

impl Draft<'_> {
    /// Asks the model to go on, or first for a summary where the conversation is too long.
    pub(super) fn think(&mut self) -> Result<(), Stop> {
        self.drop_outputs();
        let left = self.answers_left();
        let last = left == Some(1);
        let mut recipe = Recipe {
            v: VERSION,
            aim: Aim::Think,
            until: self.memo.next,
            max: self.output_max(),
            last,
            told: told(left),
        };
        let mut prompt = self.prompt(&recipe)?;
        match self.fit(prompt.likely, Tokens(recipe.max)) {
            Fit::Fits => {}
            Fit::Forgot => prompt = self.prompt(&recipe)?,
            Fit::Summarise(until) => {
                recipe.aim = Aim::Summarise;
                recipe.until = until;
                recipe.max = recipe.max.min(SUMMARY_TOKENS_MAX).min((self.window().0 / 4).max(1));
                self.memo.until = until;
                self.memo.doing = Doing::Summarising;
                let prompt = self.prompt(&recipe)?;
                self.ask_model("summary", recipe, prompt);
                return Ok(());
            }
        }
        self.memo.doing = Doing::Thinking;
        self.ask_model("model", recipe, prompt);
        Ok(())
    }

    fn output_max(&self) -> u64 {
        let most = self.view.terms.output_tokens_max;
        self.definition.output_tokens.map_or(most, |own| own.min(most)).0.max(1)
    }

    fn prompt(&self, recipe: &Recipe) -> Result<talk::Estimate, Stop> {
        let body = written(self.definition, self.kit, self.log.state(), recipe)?;
        Ok(talk::estimate(&[&body]))
    }

    fn ask_model(&mut self, tag: &str, mut recipe: Recipe, prompt: talk::Estimate) {
        recipe.max = self.affordable(prompt, recipe.max);
        let used = |input: Tokens, output: u64| {
            // The dearest that a prompt token can be: some engines ask more for filling their cache.
            let dear = self.view.terms.price.cache_written > self.view.terms.price.input;
            let cache_written = if dear { input } else { Tokens::ZERO };
            Usage { input, cache_written, output: Tokens(output), ..Usage::default() }
        };
        let most = used(prompt.most, recipe.max);
        let cost_max =
            Spend { tokens: most.total(), money: self.view.terms.price.of(&most), calls: 1, steps: 0 };
        self.asks.push(Ask {
            tag: tag.into(),
            work: Work::Model {
                model: self.definition.model.clone(),
                recipe: serde_json::to_vec(&recipe).expect("numbers and texts are JSON").into(),
            },
            class: EffectClass::Read,
            cost_max,
            patience: None,
            twin: 0,
            facts: self.labels(),
        });
    }

    /// The longest answer that what is left still pays for; as wanted where that is not worth
    /// asking, so that the refusal says what is short.
    fn affordable(&self, prompt: talk::Estimate, wanted: u64) -> u64 {
        let (run, terms) = (self.view.run, self.view.terms);
        let gone = run.used.plus(run.reserved);
        let mut most = wanted;
        if let Some(tokens) = run.allowance.tokens {
            most = most.min((tokens - gone.tokens - prompt.most).0);
        }
        if let Some(context) = terms.context_tokens_max {
            most = most.min((context - prompt.likely).0);
        }
        if let (Some(money), true) = (run.allowance.money, terms.price.output > 0) {
            let input = terms.price.input.max(terms.price.cache_written);
            let left = u128::from((money - gone.money).0) * 1_000_000;
            let left = left.saturating_sub(u128::from(prompt.most.0) * u128::from(input));
            most = most.min(u64::try_from(left / u128::from(terms.price.output)).unwrap_or(u64::MAX));
        }
        if most < OUTPUT_MIN.min(wanted) { wanted } else { most }
    }

    /// Answers of the model that its run still has, the one asked for now included. An
    /// answer takes a turn to be read, and so do the outputs of the tools that it calls.
    fn answers_left(&self) -> Option<u64> {
        let run = self.view.run;
        let gone = run.used.plus(run.reserved);
        let steps = run.allowance.steps.map(|steps| steps.saturating_sub(gone.steps + 1).div_ceil(2));
        let calls = run.allowance.calls.map(|calls| calls.saturating_sub(gone.calls));
        [steps, calls].into_iter().flatten().min().map(|left| left.max(1))
    }
}

fn told(left: Option<u64>) -> String {
    match left {
        Some(1) => "This is your last answer in this run: finish now, without calling tools.".to_owned(),
        Some(left) if left <= TOLD_AT => format!("You have {left} answers left in this run: come to an end."),
        _ => String::new(),
    }
}

/// The body of a request, for the effect of this recipe.
pub(super) fn request(
    definition: &Definition,
    kit: &Kit,
    state: &BTreeMap<Arc<str>, Payload>,
    recipe: &[u8],
) -> Result<Vec<u8>, Fault> {
    let recipe: Option<Recipe> = serde_json::from_slice(recipe).ok();
    match recipe {
        Some(recipe) if recipe.v <= VERSION => written(definition, kit, state, &recipe),
        _ => Err(Fault::new(Code::Internal, "The recipe of a model call cannot be read.")),
    }
}

/// Is it asked for to go on with the conversation?
pub(super) fn is_talk(recipe: &[u8]) -> bool {
    serde_json::from_slice::<Recipe>(recipe).is_ok_and(|recipe| recipe.aim == Aim::Think)
}

fn written(
    definition: &Definition,
    kit: &Kit,
    state: &BTreeMap<Arc<str>, Payload>,
    recipe: &Recipe,
) -> Result<Vec<u8>, Fault> {
    let entries: Vec<Entry> =
        entries(state).into_iter().filter(|entry| entry.number < recipe.until.max(FIRST)).collect();
    let summary = state.get(SUMMARY).map(text).unwrap_or_default();
    let mut request = Request {
        model: &definition.model,
        temperature: definition.temperature,
        top_p: definition.top_p,
        output_max: Some(Tokens(recipe.max)),
        ..Request::default()
    };
    if recipe.aim == Aim::Summarise {
        let bytes = usize::try_from(definition.context.window.0).unwrap_or(usize::MAX).saturating_mul(2);
        request.messages.push(Message::said(Role::System, SUMMARISE).json().into());
        let told = transcript(&entries, &summary, bytes);
        request.messages.push(Message::said(Role::User, told).json().into());
        return talk::written(&request);
    }
    request.messages = conversation(&entries, &summary, &recipe.told);
    request.tools = kit.functions();
    request.pick = if recipe.last { Pick::Never } else { Pick::Auto };
    request.format =
        definition.output.as_ref().map(|rule| Format { name: "output", schema: rule.schema.text() });
    talk::written(&request)
}

/// Messages as they are sent: what went before and what is to be known of limits stand with
/// the instructions, and neighbours of the user's become one, since many chat templates want
/// speakers to take turns.
fn conversation<'e>(entries: &'e [Entry], summary: &str, told: &str) -> Vec<Cow<'e, [u8]>> {
    let mut messages: Vec<Cow<'e, [u8]>> = Vec::with_capacity(entries.len());
    let mut said: Option<String> = None;
    for entry in entries {
        if entry.number == 0 {
            let mut system = entry.message().map(|message| message.text).unwrap_or_default();
            if !summary.is_empty() {
                let _ = write!(system, "\n\n# What went before, in short\n{summary}");
            }
            if !told.is_empty() {
                let _ = write!(system, "\n\n{told}");
            }
            messages.push(Message::said(Role::System, system).json().into());
            continue;
        }
        if entry.role() == Role::User {
            let text = entry.message().map(|message| message.text).unwrap_or_default();
            said = Some(match said.take() {
                Some(before) => format!("{before}\n\n{text}"),
                None => text,
            });
            continue;
        }
        messages.extend(said.take().map(user));
        messages.push(entry.json());
    }
    messages.extend(said.take().map(user));
    messages
}

fn user<'e>(said: String) -> Cow<'e, [u8]> {
    Message::said(Role::User, said).json().into()
}

/// A conversation as text, each message cut to its share of so many bytes.
fn transcript(entries: &[Entry], summary: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    if !summary.is_empty() {
        let _ = write!(out, "Summary of what went before:\n{summary}\n\n");
    }
    let share = (bytes_max / entries.len().max(1)).max(SHOWN_BYTES_MIN);
    for message in entries.iter().filter(|entry| entry.number > 0).filter_map(Entry::message) {
        let (said, whole) = first_bytes(&message.text, share);
        let cut = if whole { "" } else { " [cut]" };
        if !said.is_empty() {
            let _ = writeln!(out, "{}: {said}{cut}", message.role.as_str());
        }
        for call in &message.calls {
            let (args, _) = first_bytes(&call.arguments, share);
            let _ = writeln!(out, "{} calls {} with {args}", message.role.as_str(), call.name);
        }
    }
    out
}
