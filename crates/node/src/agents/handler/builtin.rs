//! Tools that the runtime itself has: the store, notes, time, messages, topics, leases and
//! people. Each is a kind of work of its own, so that rules and waits name what it does.

use std::sync::Arc;

use seawall_model::effect::Work;
use seawall_model::{Agent, At, EffectClass, Millis, Payload, RunKey, limits};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::agents::notes::{self, Note};

/// Longest sleep and longest lease: what waits longer is a schedule.
const SECONDS_MAX: u64 = 366 * 86_400;
/// Where in the tenant's store answers of systems outside lie, each by its name.
pub const CALLBACKS: &str = "callbacks/";
/// A lease that names no time ends after so many seconds.
const LEASE_SECONDS: u64 = 60;

macro_rules! builtins {
    ($($builtin:ident $name:literal $kind:literal $about:literal)*) => {
        /// A built-in tool.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Builtin {
            $(#[doc = $about] $builtin,)*
        }

        impl Builtin {
            /// All of them.
            pub(super) const ALL: [Self; NAMES.len()] = [$(Self::$builtin,)*];

            /// The name in definitions.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$builtin => $name,)* }
            }

            /// What the model is told of it.
            pub(super) const fn about(self) -> &'static str {
                match self { $(Self::$builtin => $about,)* }
            }

            /// The kind of its work.
            const fn kind(self) -> &'static str {
                match self { $(Self::$builtin => $kind,)* }
            }
        }

        /// Names of all built-in tools.
        pub const NAMES: &[&str] = &[$($name,)*];
    };
}

builtins! {
    StoreGet "store.get" "get" "Reads a value of the shared store by its key."
    StorePut "store.put" "put" "Writes a value into the shared store; without a value, removes it. With `version`, only if it still has that version (0: only if there is none)."
    StoreWatch "store.watch" "watch" "Waits until a value of the shared store is newer than a version (`newer_than`, as store.get told it; without it, until there is one), and answers with the value."
    StoreList "store.list" "tool" "Lists values of the shared store whose keys begin with a prefix, in the order of their keys. `next` of an answer is the `after` of the next page."
    StoreSearch "store.search" "tool" "Finds values of the shared store by the words in them, best first."
    NotesAdd "notes.add" "put" "Keeps a note for later: a fact or a decision worth knowing in another task."
    NotesSearch "notes.search" "tool" "Finds notes that were kept, by the words in them, best first."
    TimerSleep "timer.sleep" "timer" "Waits for so many seconds, or until a time (RFC 3339, such as 2030-01-31T09:00:00Z). Nothing is used up meanwhile."
    MessageSend "message.send" "message" "Leaves a message in another agent's mailbox and does not wait for an answer."
    TopicPublish "topic.publish" "publish" "Tells all agents that subscribed to a topic."
    TopicSubscribe "topic.subscribe" "subscribe" "Has messages of a topic sent to your own mailbox from now on, or no longer."
    AgentMonitor "agent.monitor" "monitor" "Waits for the end of what another agent works on now, and tells how it ended. `idle`: it works on nothing."
    AgentLink "agent.link" "link" "Ties your task to what another agent works on now: if one of them fails, is cancelled or put out of service, the other fails with it. With `on` false, no longer."
    LeaseAcquire "lease.acquire" "acquire" "Takes an exclusive right to a resource (or some of its units), waiting until it is free. Answers with a token."
    LeaseRelease "lease.release" "release" "Gives a lease back, by the token it was granted with."
    CallbackWait "callback.wait" "watch" "Waits until a system outside answers with POST /seawall/callbacks/NAME, and answers with what it said. Choose a name that nobody used before and tell it to that system first; an answer that came already counts."
    HumanAsk "human.ask" "promise" "Asks a person and waits for the answer. For decisions that are not yours."
}

/// The tool by whose call such work is asked for, as definitions name it: `store.put` for a
/// `put`, `agent:finder` for a child. Notes are told by where they lie.
#[must_use]
pub fn tool_of(kind: &str, object: &str) -> String {
    match kind {
        "tool" => object.to_owned(),
        "child" => format!("agent:{object}"),
        "model" => format!("model:{object}"),
        "put" if object.starts_with(notes::ROOT) => Builtin::NotesAdd.name().to_owned(),
        "watch" if object.starts_with(CALLBACKS) => Builtin::CallbackWait.name().to_owned(),
        _ => {
            let found = Builtin::ALL.into_iter().find(|builtin| builtin.kind() == kind);
            found.map_or_else(|| kind.to_owned(), |builtin| builtin.name().to_owned())
        }
    }
}

/// Gate rules are about kinds of work and what it is done to: what a definition's pattern of
/// tools means in these words. `*` is every tool, but no model and no agent.
#[must_use]
pub fn rules_of(pattern: &str, namespace: &str) -> Vec<(&'static str, String)> {
    if let Some(model) = pattern.strip_prefix("model:") {
        return vec![("model", model.to_owned())];
    }
    if let Some(kind) = pattern.strip_prefix("agent:") {
        // A child is asked for by its type alone or with a key.
        return vec![("child", kind.to_owned()), ("child", format!("{kind}/*"))];
    }
    let fits = seawall_kernel::agents::gate::Pattern::new(pattern);
    let mut rules = Vec::new();
    for builtin in Builtin::ALL.into_iter().filter(|builtin| fits.fits(builtin.name())) {
        match builtin {
            Builtin::NotesAdd => rules.push(("put", format!("{}*", notes::prefix(namespace)))),
            Builtin::CallbackWait => rules.push(("watch", format!("{CALLBACKS}*"))),
            other if other.kind() == "tool" => rules.push(("tool", other.name().to_owned())),
            other => rules.push((other.kind(), "*".to_owned())),
        }
    }
    if pattern.contains('*') || rules.is_empty() {
        rules.push(("tool", pattern.to_owned()));
    }
    rules.dedup();
    rules
}

/// Who calls, and when.
pub(super) struct Caller<'a> {
    pub(super) run: RunKey,
    /// `type/key`.
    pub(super) agent: &'a str,
    /// The name its notes lie under.
    pub(super) namespace: &'a str,
    pub(super) now: At,
    /// So many calls of this turn came before: notes of one turn are told apart by it.
    pub(super) nth: usize,
    /// The turn's number.
    pub(super) turn: u32,
}

/// What a call wants done, and how it may be repeated. The error is for the model.
type Made = Result<(Work, EffectClass), String>;

impl Builtin {
    /// JSON Schema of its arguments.
    pub(super) fn schema(self) -> Value {
        let text = json!({"type": "string", "minLength": 1});
        let name = json!({"type": "string", "minLength": 1, "maxLength": limits::NAME_LEN_MAX});
        let seconds = json!({"type": "number", "minimum": 0, "maximum": SECONDS_MAX});
        let limit = json!({"type": "integer", "minimum": 1, "maximum": notes::HITS_MAX});
        let (fields, required): (Value, Vec<&str>) = match self {
            Self::StoreGet => (json!({"key": name}), vec!["key"]),
            Self::StorePut => {
                (json!({"key": name, "value": {}, "version": {"type": "integer", "minimum": 0}}), vec!["key"])
            }
            Self::StoreWatch => {
                let version = json!({"type": "integer", "minimum": 0});
                (json!({"key": name, "newer_than": version, "seconds": seconds}), vec!["key"])
            }
            Self::StoreList => {
                let prefix = json!({"type": "string"});
                (json!({"prefix": prefix, "after": prefix, "limit": limit}), vec!["prefix"])
            }
            Self::StoreSearch => {
                (json!({"query": text, "prefix": {"type": "string"}, "limit": limit}), vec!["query"])
            }
            Self::NotesAdd => (
                json!({
                    "text": {"type": "string", "minLength": 1, "maxLength": notes::NOTE_BYTES_MAX},
                    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 16},
                }),
                vec!["text"],
            ),
            Self::NotesSearch => (json!({"query": text, "limit": limit}), vec!["query"]),
            Self::TimerSleep => (json!({"seconds": seconds, "until": {"type": "string"}}), vec![]),
            Self::MessageSend => {
                let to = json!({"type": "string", "description": "type/key"});
                (json!({"to": to, "body": text}), vec!["to", "body"])
            }
            Self::TopicPublish => (json!({"topic": name, "body": text}), vec!["topic", "body"]),
            Self::TopicSubscribe => (json!({"topic": name, "on": {"type": "boolean"}}), vec!["topic"]),
            Self::AgentMonitor => {
                (json!({"agent": {"type": "string", "description": "type/key"}}), vec!["agent"])
            }
            Self::AgentLink => {
                let agent = json!({"type": "string", "description": "type/key"});
                (json!({"agent": agent, "on": {"type": "boolean"}}), vec!["agent"])
            }
            Self::LeaseAcquire => {
                let units = json!({"type": "integer", "minimum": 1, "maximum": 1_000_000});
                (json!({"resource": name, "units": units, "of": units, "seconds": seconds}), vec!["resource"])
            }
            Self::LeaseRelease => (
                json!({"resource": name, "token": {"type": "integer", "minimum": 0}}),
                vec!["resource", "token"],
            ),
            Self::CallbackWait => (json!({"name": name, "seconds": seconds}), vec!["name"]),
            Self::HumanAsk => (
                json!({"question": text, "options": {"type": "array", "items": {"type": "string"}, "maxItems": 16}}),
                vec!["question"],
            ),
        };
        object(&fields, &required)
    }

    /// The work of a call whose arguments fit the schema.
    pub(super) fn work(self, args: &Map<String, Value>, caller: &Caller<'_>) -> Made {
        let said = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
        let name = |field: &str| named(said(field), field);
        let whole = |name: &str| args.get(name).and_then(Value::as_u64);
        let idempotent = EffectClass::Idempotent;
        Ok(match self {
            Self::StoreGet => (Work::Get { key: name("key")? }, EffectClass::Read),
            Self::StorePut => {
                let value = args.get("value").filter(|value| !value.is_null()).map(carried);
                (Work::Put { key: name("key")?, value, expect: whole("version") }, idempotent)
            }
            Self::StoreWatch => {
                let version = whole("newer_than").unwrap_or_default();
                (Work::Watch { key: name("key")?, version }, EffectClass::Read)
            }
            Self::StoreList | Self::StoreSearch => (self.looking(args.clone()), EffectClass::Read),
            Self::NotesSearch => {
                let mut args = args.clone();
                args.insert("prefix".into(), notes::prefix(caller.namespace).into());
                (self.looking(args), EffectClass::Read)
            }
            Self::NotesAdd => (note(args, caller)?, idempotent),
            Self::TimerSleep => (Work::Timer { at: rings(args, caller.now)? }, idempotent),
            Self::MessageSend => {
                let to = Agent::parse(said("to")).map_err(|error| format!("to is no agent: {error}"))?;
                (Work::Message { to, body: Payload::text(said("body")) }, idempotent)
            }
            Self::TopicPublish => {
                (Work::Publish { topic: name("topic")?, body: Payload::text(said("body")) }, idempotent)
            }
            Self::TopicSubscribe => {
                let on = args.get("on").and_then(Value::as_bool).unwrap_or(true);
                (Work::Subscribe { topic: name("topic")?, on }, idempotent)
            }
            Self::AgentMonitor => (Work::Monitor { agent: peer(said("agent"))? }, idempotent),
            Self::AgentLink => {
                let on = args.get("on").and_then(Value::as_bool).unwrap_or(true);
                (Work::Link { agent: peer(said("agent"))?, on }, idempotent)
            }
            Self::LeaseAcquire => (lease(args, name("resource")?)?, idempotent),
            Self::LeaseRelease => {
                let token = whole("token").unwrap_or_default();
                (Work::Release { resource: name("resource")?, token }, idempotent)
            }
            Self::CallbackWait => {
                let key = named(&format!("{CALLBACKS}{}", name("name")?), "name")?;
                (Work::Watch { key, version: 0 }, EffectClass::Read)
            }
            Self::HumanAsk => {
                (Work::Promise { question: Value::Object(args.clone()).to_string().into() }, idempotent)
            }
        })
    }

    /// How long such a call waits at most, where its arguments say so.
    pub(super) fn patience(self, args: &Map<String, Value>) -> Option<Millis> {
        let seconds = args.get("seconds").and_then(Value::as_f64)?;
        matches!(self, Self::StoreWatch | Self::CallbackWait).then(|| millis(seconds))
    }

    /// Looking through the store is performed like a tool, by whoever has the store.
    fn looking(self, args: Map<String, Value>) -> Work {
        Work::Tool {
            tool: self.name().into(),
            args: Value::Object(args).to_string().into(),
            undo: None,
            query: None,
        }
    }
}

/// The question to memory that a run begins with.
pub(super) fn recall(task: &str, namespace: &str) -> Work {
    // The words of a long task find no better notes than those of its beginning.
    let (query, _) = super::first_bytes(task, 4 << 10);
    let args = json!({"query": query, "prefix": notes::prefix(namespace)});
    Work::Tool {
        tool: Builtin::NotesSearch.name().into(),
        args: args.to_string().into(),
        undo: None,
        query: None,
    }
}

/// Schema of the arguments of `agent:TYPE`.
pub(super) fn agent_schema() -> Value {
    let about = "What it is to do, with all it needs to know: it sees nothing else.";
    let key = json!({"type": "string", "description": "The same key is the same agent; leave it out for a new one."});
    object(&json!({"task": {"type": "string", "minLength": 1, "description": about}, "key": key}), &["task"])
}

fn object(fields: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": fields, "required": required, "additionalProperties": false})
}

fn named(text: &str, field: &str) -> Result<Arc<str>, String> {
    if text.is_empty() || text.len() > limits::NAME_LEN_MAX {
        return Err(format!("{field} must have 1 to {} bytes", limits::NAME_LEN_MAX));
    }
    Ok(text.into())
}

fn peer(name: &str) -> Result<Agent, String> {
    Agent::parse(name).map_err(|error| format!("agent is no agent: {error}"))
}

/// A value as it is kept: a text as itself, all else as JSON.
fn carried(value: &Value) -> Payload {
    match value {
        Value::String(text) => Payload::text(text),
        other => other.to_string().into(),
    }
}

fn note(args: &Map<String, Value>, caller: &Caller<'_>) -> Result<Work, String> {
    let text = args.get("text").and_then(Value::as_str).unwrap_or_default();
    if text.len() > notes::NOTE_BYTES_MAX {
        return Err(format!("a note has at most {} bytes", notes::NOTE_BYTES_MAX));
    }
    let tags = args.get("tags").and_then(Value::as_array).into_iter().flatten();
    let note = Note {
        text: text.to_owned(),
        tags: tags.filter_map(Value::as_str).map(str::to_owned).collect(),
        by: caller.agent.to_owned(),
        at: written_time(caller.now),
    };
    // A key of its own for each: agents that share notes never wait for one another.
    let key = format!("{}{}.{}.{}", notes::prefix(caller.namespace), caller.run, caller.turn, caller.nth);
    let value = serde_json::to_vec(&note).expect("texts are JSON");
    Ok(Work::Put { key: named(&key, "memory.namespace")?, value: Some(value.into()), expect: None })
}

/// When a sleep ends: in so many seconds or at a time, which may be past.
fn rings(args: &Map<String, Value>, now: At) -> Result<At, String> {
    let (seconds, until) = (args.get("seconds"), args.get("until").and_then(Value::as_str));
    let last = now.plus(Millis::from_secs(SECONDS_MAX));
    match (seconds.and_then(Value::as_f64), until) {
        (Some(seconds), None) => Ok(now.plus(millis(seconds))),
        (None, Some(until)) => {
            let time: jiff::Timestamp = until.trim().parse().map_err(|_| {
                format!(
                    "until is no RFC 3339 time such as {}",
                    written_time(now.plus(Millis::from_secs(3_600)))
                )
            })?;
            let at = At(u64::try_from(time.as_microsecond()).unwrap_or(0));
            if at <= last { Ok(at) } else { Err("until is more than a year from now".to_owned()) }
        }
        _ => Err("give either seconds or until".to_owned()),
    }
}

fn lease(args: &Map<String, Value>, resource: Arc<str>) -> Result<Work, String> {
    let count = |name: &str| args.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let units = count("units").unwrap_or(1);
    let of = count("of").unwrap_or(units);
    if units > of {
        return Err("units must not be more than of".to_owned());
    }
    let seconds = args.get("seconds").and_then(Value::as_f64).unwrap_or(LEASE_SECONDS as f64);
    Ok(Work::Acquire { resource, units, of, ttl: millis(seconds.max(1.0)) })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped beforehand")]
fn millis(seconds: f64) -> Millis {
    Millis((seconds.clamp(0.0, SECONDS_MAX as f64) * 1_000.0).round() as u64)
}

/// RFC 3339 in UTC, to the second.
pub(super) fn written_time(at: At) -> String {
    let seconds = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

/// The first eight bytes of a SHA-256 over parts, none of which can pass for another's end.
pub(super) fn digest(parts: &[&[u8]]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}
