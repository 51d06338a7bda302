//! From the model's tool calls to effects, and from their answers to what the model is told.

use seawall_model::effect::{Answer, Ask, Fact, Spend, Work};
use seawall_model::{Agent, Code, EffectClass, EffectId, Payload, limits};
use seawall_wire::talk::{Message, ToolCall};
use serde_json::{Map, Value, json};

use super::builtin::{self, Caller};
use super::draft::Draft;
use super::kit::{How, Kit, Offered};
use super::memo::Waiting;
use super::{first_bytes, text};
use crate::agents::define::Definition;

/// Bytes of one fact, more than the longest answers of models. A call with a longer one is
/// refused: of what were cut off, a rule could not see what it forbids.
const FACT_BYTES_MAX: usize = 256 << 10;
/// What a failed tool says is told up to here.
const ERROR_BYTES_MAX: usize = 8 << 10;

impl Draft<'_> {
    /// Asks for what the model called. Calls that are not sound are answered at once, and
    /// nothing is done for them. Was any sound? `cut` says that the answer was cut at its
    /// longest, which explains broken arguments.
    pub(super) fn act(&mut self, calls: &[ToolCall], cut: bool) -> bool {
        let mut sound = false;
        for (nth, call) in calls.iter().enumerate() {
            let at = self.number();
            let made = if nth < limits::TOOL_CALLS_MAX {
                self.made(call, nth, cut)
            } else {
                Err(format!("at most {} calls at once: call it again later", limits::TOOL_CALLS_MAX))
            };
            match made {
                Ok(ask) => {
                    sound = true;
                    self.memo.calls.push(Waiting { id: call.id.clone(), at });
                    self.asks.push(ask);
                }
                Err(why) => self.log.say(at, &failed(&call.id, Code::BadField, &why)),
            }
        }
        sound
    }

    /// The effect of one call; the error is for the model.
    fn made(&self, call: &ToolCall, nth: usize, cut: bool) -> Result<Ask, String> {
        let Some(tool) = self.kit.find(&call.name) else {
            let known: Vec<&str> = self.kit.called().take(50).collect();
            let (name, _) = first_bytes(&call.name, 100);
            return Err(format!("there is no tool named {name}; there are: {}", known.join(", ")));
        };
        let args = arguments(&call.arguments, cut)?;
        let mistakes = tool.schema.mistakes(&Value::Object(args.clone()));
        if !mistakes.is_empty() {
            return Err(format!("the arguments do not fit: {}", mistakes.join("; ")));
        }
        let mut facts = self.labels();
        flatten("args", &Value::Object(args.clone()), &mut facts)?;
        let written = Value::Object(args.clone()).to_string();
        let twin = builtin::digest(&[tool.name.as_bytes(), written.as_bytes()]);
        let (work, class) = self.work(tool, &args, written, nth)?;
        let calls = u64::from(matches!(tool.how, How::Outside { .. }));
        let cost_max = Spend { calls, ..Spend::default() };
        let patience = match &tool.how {
            How::Built(builtin) => builtin.patience(&args),
            _ => None,
        };
        Ok(Ask { tag: format!("t/{}", call.id).into(), work, class, cost_max, patience, twin, facts })
    }

    fn work(
        &self,
        tool: &Offered,
        args: &Map<String, Value>,
        written: String,
        nth: usize,
    ) -> Result<(Work, EffectClass), String> {
        match &tool.how {
            How::Outside { class, undo, query } => {
                let (undo, query) = (undo.clone(), query.clone());
                let work = Work::Tool { tool: tool.name.clone(), args: written.into(), undo, query };
                Ok((work, *class))
            }
            How::Agent { kind } => {
                let field = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
                let name = match field("key") {
                    "" => kind.to_string(),
                    key => format!("{kind}/{key}"),
                };
                let agent = Agent::parse(&name).map_err(|error| format!("the key is none: {error}"))?;
                let task = Payload::text(field("task"));
                let work = Work::Child { agent, task, allowance: Default::default() };
                Ok((work, EffectClass::Idempotent))
            }
            How::Built(builtin) => {
                let run = self.view.run;
                builtin.work(
                    args,
                    &Caller {
                        run: run.key,
                        agent: run.agent.agent.as_str(),
                        namespace: &self.definition.memory.namespace,
                        now: self.view.now,
                        nth,
                        turn: run.turns,
                    },
                )
            }
        }
    }

    /// What came of a call.
    pub(super) fn acted(&mut self, effect: EffectId, id: &str, answer: &Answer) {
        let Some(place) = self.memo.calls.iter().position(|call| call.id == id) else {
            return;
        };
        let call = self.memo.calls.remove(place);
        match answer {
            // A byte for each token of the window: a quarter of it, more or less.
            Answer::Done(output) => {
                let bytes_max = usize::try_from(self.window().0).unwrap_or(usize::MAX);
                self.log.keep_outcome(call.at, id, effect, output, bytes_max);
            }
            Answer::Error(said) => {
                let said = text(said);
                let (said, _) = first_bytes(&said, ERROR_BYTES_MAX);
                self.log.say(call.at, &failed(id, Code::ToolFailed, said));
            }
            Answer::Failed { code, why } => self.log.say(call.at, &failed(id, *code, why)),
        }
    }
}

/// What the model is told of a call that failed.
fn failed(id: &str, code: Code, why: &str) -> Message {
    Message::outcome(id, json!({"error": {"code": code.as_str(), "message": why}}).to_string())
}

fn arguments(text: &str, cut: bool) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() && !cut {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(args),
        Ok(_) => Err("the arguments are no JSON object".to_owned()),
        Err(_) if cut => Err("your answer was cut off in the middle of the arguments: write less".to_owned()),
        Err(error) => Err(format!("the arguments are no JSON: {error}")),
    }
}

/// A definition's labels as facts.
pub(super) fn labels(definition: &Definition) -> Vec<Fact> {
    let labels = definition.labels.iter();
    labels.map(|(name, value)| Fact { name: format!("label.{name}").into(), value: value.clone() }).collect()
}

/// What rules see of a call of this tool with arguments that an approver wrote.
///
/// # Errors
/// What is wrong with them: they must fit the tool's schema as the model's own must.
pub fn facts_of_edit(
    definition: &Definition,
    kit: &Kit,
    tool: &str,
    args: &[u8],
) -> Result<Vec<Fact>, String> {
    let offered = kit.find(tool).filter(|offered| *offered.name == *tool);
    let Some(offered) = offered else {
        return Err("the tool is not on offer now, so nobody knows what it takes".to_owned());
    };
    let args = Value::Object(arguments(&String::from_utf8_lossy(args), false)?);
    let mistakes = offered.schema.mistakes(&args);
    if !mistakes.is_empty() {
        return Err(mistakes.join("; "));
    }
    let mut facts = labels(definition);
    flatten("args", &args, &mut facts)?;
    Ok(facts)
}

/// Arguments as facts: a field by its path, the items of a list all under the list's own.
fn flatten(path: &str, value: &Value, facts: &mut Vec<Fact>) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            for (name, below) in fields {
                flatten(&format!("{path}.{name}"), below, facts)?;
            }
        }
        Value::Array(items) => {
            for item in items {
                flatten(path, item, facts)?;
            }
        }
        Value::Null => {}
        Value::String(text) => push(path, text, facts)?,
        other => push(path, &other.to_string(), facts)?,
    }
    Ok(())
}

fn push(path: &str, value: &str, facts: &mut Vec<Fact>) -> Result<(), String> {
    if facts.len() >= limits::FACTS_MAX {
        return Err(format!("the arguments hold more than {} values", limits::FACTS_MAX));
    }
    if value.len() > FACT_BYTES_MAX {
        let (path, _) = first_bytes(path, 100);
        return Err(format!("{path} is longer than {FACT_BYTES_MAX} bytes: write less"));
    }
    facts.push(Fact { name: path.into(), value: value.into() });
    Ok(())
}
