//! One turn in the making: what woke the agent is taken in, then it thinks, waits or ends.

use seawall_model::durable::{Item, Message as Mail, Wake};
use seawall_model::effect::{Answer, Ask, Fact, Spend, Work};
use seawall_model::journal::{Commit, Ending, Next};
use seawall_model::{Code, EffectClass, EffectId, Finish, Payload};
use seawall_wire::talk::{self, Message, Role};

use super::log::{Entry, FORK, FORK_RETOLD, Log, META, NOTES, SUMMARY};
use super::memo::{Doing, Memo};
use super::{Kit, Stop, View, act, builtin, first_bytes, text};
use crate::agents::define::Definition;
use crate::agents::notes;
use crate::agents::template::{Filling, Template};

/// The first message after instructions and task.
pub(super) const FIRST: u32 = 2;
/// Pieces that one answer may have: a model that is cut four times over writes for ever.
const PIECES_MAX: u32 = 3;
/// Answers in a row without one sound call, after which the run ends.
const BLUNDERS_MAX: u32 = 5;
/// How often a prompt is made shorter since the engine found it too long.
const SQUEEZED_MAX: u32 = 3;
/// Repairs of an empty answer, where no shape is asked for.
const REPAIRS: u32 = 2;
/// Bytes of one message from outside that go into the conversation; the sender is told by
/// the words at its end.
const MAIL_BYTES_MAX: usize = 32 << 10;

pub(super) struct Draft<'a> {
    pub(super) definition: &'a Definition,
    pub(super) kit: &'a Kit,
    pub(super) view: &'a View<'a>,
    pub(super) memo: Memo,
    pub(super) log: Log,
    pub(super) asks: Vec<Ask>,
    output: Option<Payload>,
}

impl<'a> Draft<'a> {
    pub(super) fn take(definition: &'a Definition, kit: &'a Kit, view: &'a View<'a>) -> Commit {
        let log = Log::new(view.state);
        let (memo, read) = match log.find(META).map(Memo::read) {
            None => (Memo::new(), Ok(())),
            Some(Ok(memo)) => (memo, Ok(())),
            Some(Err(stop)) => (Memo::new(), Err(stop)),
        };
        let mut draft = Self { definition, kit, view, memo, log, asks: Vec::new(), output: None };
        let begins = view.items.iter().any(|item| matches!(item, Item::Task { .. }));
        let next = match if begins { Ok(()) } else { read }.and_then(|()| draft.go()) {
            Ok(next) => next,
            Err(stop) => {
                draft.asks.clear();
                stop.next()
            }
        };
        draft.log.set(META, draft.memo.payload());
        Commit { changes: draft.log.changes(view.state), asks: draft.asks, next }
    }

    fn go(&mut self) -> Result<Next, Stop> {
        let items = self.view.items;
        let task = items.iter().any(|item| matches!(item, Item::Task { .. }));
        if self.memo.next != 0 && self.log.find(FORK).is_some() {
            self.take_over();
        } else if self.memo.next == 0 || task {
            self.begin();
        }
        for item in items {
            if let Item::Answer { effect, tag, answer, .. } = item {
                self.answered(*effect, tag, answer)?;
            }
        }
        if *self.memo.version != *self.definition.version && self.memo.doing != Doing::Recalling {
            self.instruct();
        }
        let heard = self.hear();
        if self.memo.doing != Doing::Nothing || !self.memo.calls.is_empty() {
            return Ok(Next::Wait(Wake::All));
        }
        // Whoever wrote while the answer was being made is answered before the run ends.
        match self.output.take() {
            Some(output) if !heard => Ok(Next::End(Ending::Done(output))),
            _ => {
                self.think()?;
                Ok(Next::Wait(Wake::All))
            }
        }
    }

    /// The run begins, or begins again: nothing is left of what was before.
    fn begin(&mut self) {
        self.log.clear();
        self.memo = Memo::new();
        self.memo.next = FIRST;
        let (rule, task) = (&self.definition.memory, text(&self.view.run.task));
        let wanted = self.definition.instructions.wants_notes() || self.definition.task.wants_notes();
        if wanted && rule.notes {
            self.memo.doing = Doing::Recalling;
            self.ask("recall", builtin::recall(&task, &rule.namespace), EffectClass::Read);
        } else {
            self.open();
        }
    }

    /// The run goes on from another's state. What was under way there is not under way
    /// here: tools are not called a second time unless the model wants it.
    fn take_over(&mut self) {
        let retold = self.log.find(FORK).map(text).as_deref() == Some(FORK_RETOLD);
        self.log.drop(&FORK.into());
        self.memo.until = 0;
        let recalled = std::mem::take(&mut self.memo.doing) == Doing::Recalling;
        for call in std::mem::take(&mut self.memo.calls) {
            let left = "The result stayed behind when this run was forked. Call again if it is still needed.";
            self.log.say(call.at, &Message::outcome(call.id, left));
        }
        if recalled {
            self.begin();
        } else if retold {
            self.open();
        }
    }

    /// Instructions and task become the first two messages.
    fn open(&mut self) {
        self.instruct();
        let task = self.filled(&self.definition.task);
        self.log.say(1, &Message::said(Role::User, task));
    }

    fn instruct(&mut self) {
        let instructions = self.filled(&self.definition.instructions);
        self.log.say(0, &Message::said(Role::System, instructions));
        (*self.definition.version).clone_into(&mut self.memo.version);
    }

    fn filled(&self, template: &Template) -> String {
        let run = self.view.run;
        let notes = self.log.find(NOTES).map(text).unwrap_or_default();
        template.fill(&Filling {
            task: &text(&run.task),
            tenant: run.agent.tenant.as_str(),
            agent: run.agent.agent.as_str(),
            run: &run.key.to_string(),
            now: &builtin::written_time(self.view.now),
            notes: &notes,
        })
    }

    /// Asks for an effect of the loop's own, which costs nothing that is counted.
    fn ask(&mut self, tag: &str, work: Work, class: EffectClass) {
        self.asks.push(Ask {
            tag: tag.into(),
            work,
            class,
            cost_max: Spend::default(),
            patience: None,
            twin: 0,
            facts: self.labels(),
        });
    }

    /// What rules see of every effect of this agent.
    pub(super) fn labels(&self) -> Vec<Fact> {
        act::labels(self.definition)
    }

    /// The number of the next message.
    pub(super) fn number(&mut self) -> u32 {
        let number = self.memo.next;
        self.memo.next = number.saturating_add(1);
        number
    }

    pub(super) fn say(&mut self, role: Role, said: impl Into<String>) {
        let number = self.number();
        self.log.say(number, &Message::said(role, said));
    }

    fn answered(&mut self, effect: EffectId, tag: &str, answer: &Answer) -> Result<(), Stop> {
        match (tag, self.memo.doing) {
            ("recall", Doing::Recalling) => {
                if let Answer::Done(found) = answer {
                    let lines = notes::lines(found.here().unwrap_or_default());
                    self.log.set(NOTES, Payload::text(&lines));
                }
                self.memo.doing = Doing::Nothing;
                self.open();
            }
            ("model", Doing::Thinking) => {
                self.memo.doing = Doing::Nothing;
                self.thought(effect, answer)?;
            }
            ("summary", Doing::Summarising) => {
                self.memo.doing = Doing::Nothing;
                self.summarised(answer);
            }
            _ => {
                if let Some(id) = tag.strip_prefix("t/") {
                    self.acted(effect, id, answer);
                }
            }
        }
        Ok(())
    }

    /// The model's answer to the conversation.
    fn thought(&mut self, effect: EffectId, answer: &Answer) -> Result<(), Stop> {
        let body = match answer {
            Answer::Done(body) => body,
            Answer::Error(said) => {
                return Err(Stop::new(Code::EngineFailed, first_bytes(&text(said), 1 << 10).0));
            }
            Answer::Failed { code: Code::ContextTooLong, .. } if self.memo.squeezed < SQUEEZED_MAX => {
                self.memo.squeezed += 1;
                return Ok(());
            }
            Answer::Failed { code, why } => return Err(Stop::new(*code, why.clone())),
        };
        let answer = talk::Answer::read(body.here().unwrap_or_default())?;
        let number = self.number();
        self.log.keep_answer(number, effect, body.clone());
        if let Some(said) = &answer.refusal {
            return Err(refused(said));
        }
        if answer.finish == Finish::Refusal {
            return Err(refused(&answer.message.text));
        }
        if !answer.message.calls.is_empty() {
            self.memo.pieces = 0;
            let sound = self.act(&answer.message.calls, answer.finish == Finish::Length);
            self.memo.blunders = if sound { 0 } else { self.memo.blunders + 1 };
            if self.memo.blunders >= BLUNDERS_MAX {
                let why = format!("The model called tools wrongly {BLUNDERS_MAX} times in a row.");
                return Err(Stop::new(Code::RunFailed, why));
            }
            return Ok(());
        }
        self.memo.blunders = 0;
        if answer.finish == Finish::Length {
            return self.go_on();
        }
        self.conclude()
    }

    /// The answer was cut at its longest.
    fn go_on(&mut self) -> Result<(), Stop> {
        if self.memo.pieces >= PIECES_MAX {
            let why = "The model's answer was cut at its longest again and again; raise output_tokens.";
            return Err(Stop::new(Code::RunFailed, why));
        }
        self.memo.pieces += 1;
        self.say(Role::User, "Your answer was cut off. Go on exactly where it ended, and repeat nothing.");
        Ok(())
    }

    /// The model is done: is it done well?
    fn conclude(&mut self) -> Result<(), Stop> {
        let said = self.last_answer();
        self.memo.pieces = 0;
        let Some(rule) = &self.definition.output else {
            if said.trim().is_empty() {
                return self.repair("Your answer was empty. Answer the task in words.", REPAIRS);
            }
            self.output = Some(said.into());
            return Ok(());
        };
        let inside = inside_fence(&said);
        let mistakes = match serde_json::from_str(inside) {
            Ok(value) => rule.schema.mistakes(&value),
            Err(error) => vec![format!("it is no JSON: {error}")],
        };
        if mistakes.is_empty() {
            self.output = Some(Payload::text(inside));
            return Ok(());
        }
        let told = format!(
            "Your answer does not have the shape that was asked for: {}. Answer again, with nothing but JSON of \
             this schema: {}",
            mistakes.join("; "),
            rule.schema.text()
        );
        match self.repair(&told, rule.repairs) {
            Ok(()) => Ok(()),
            Err(_) => Err(Stop::new(Code::OutputInvalid, mistakes.join("; "))),
        }
    }

    fn repair(&mut self, told: &str, repairs_max: u32) -> Result<(), Stop> {
        if self.memo.repairs >= repairs_max {
            return Err(Stop::new(Code::OutputInvalid, "The model's answer was empty."));
        }
        self.memo.repairs += 1;
        self.say(Role::User, told);
        Ok(())
    }

    /// The text of the last answer with the pieces before it.
    fn last_answer(&self) -> String {
        let entries = self.log.entries();
        let answers = entries.iter().rev().filter(|entry| entry.role() == Role::Assistant);
        let said = answers.take(self.memo.pieces as usize + 1).filter_map(Entry::message);
        let mut pieces: Vec<String> = said.map(|message| message.text).collect();
        pieces.reverse();
        pieces.concat()
    }

    /// A summary of old messages takes their place. Where there is none they are forgotten.
    fn summarised(&mut self, answer: &Answer) {
        if let Answer::Done(body) = answer
            && let Ok(answer) = talk::Answer::read(body.here().unwrap_or_default())
            && !answer.message.text.trim().is_empty()
        {
            self.log.set(SUMMARY, Payload::text(answer.message.text.trim()));
        }
        let until = std::mem::take(&mut self.memo.until);
        self.forget(until);
    }

    /// Notes of the runtime and messages of others become part of the conversation. Were
    /// there messages?
    fn hear(&mut self) -> bool {
        let mut mail = false;
        for item in self.view.items {
            match item {
                // Not as the operator: many chat templates take a system message only at the
                // start, and would fail just when the agent is warned.
                Item::Note(note) => self.say(Role::User, format!("[note from the runtime] {note}")),
                Item::Mail(letter) => {
                    mail = true;
                    self.say(Role::User, worded(letter));
                }
                Item::Task { .. } | Item::Answer { .. } => {}
            }
        }
        mail
    }
}

fn refused(said: &str) -> Stop {
    let (said, _) = first_bytes(said.trim(), 1 << 10);
    let why =
        if said.is_empty() { "The model refused.".to_owned() } else { format!("The model refused: {said}") };
    Stop::new(Code::RunFailed, why)
}

/// A message as the model reads it.
fn worded(letter: &Mail) -> String {
    let from = letter.from.as_ref().map_or_else(|| "outside".to_owned(), |from| from.agent.to_string());
    let by = letter.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let body = text(&letter.body);
    let (shown, whole) = first_bytes(&body, MAIL_BYTES_MAX);
    let rest =
        if whole { String::new() } else { format!("\n[cut: {} of {} bytes]", shown.len(), body.len()) };
    format!("[message from {from}{by}]\n{shown}{rest}")
}

/// JSON as models give it: often between three backticks.
fn inside_fence(said: &str) -> &str {
    let said = said.trim();
    let Some(inside) = said.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else {
        return said;
    };
    inside.strip_prefix("json").unwrap_or(inside).trim()
}
