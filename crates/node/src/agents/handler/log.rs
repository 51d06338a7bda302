//! The conversation in a run's state: numbered messages, read and changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_model::journal::Change;
use seawall_model::{EffectId, Payload};
use seawall_wire::talk::{self, Message, Role};

/// The state key of the loop's memo.
pub(super) const META: &str = "meta";
/// The state key of the summary.
pub(super) const SUMMARY: &str = "summary";
/// The state key of what memory had on the task.
pub(super) const NOTES: &str = "notes";
/// The state key that says that the state was another run's: it is gone on from.
pub const FORK: &str = "fork";
/// What lies there if the task is another one.
pub const FORK_RETOLD: &str = "retold";
/// Where messages lie.
const MESSAGES: &str = "m/";
/// Longest id of a call that can be part of a state key.
const CALL_ID_LEN_MAX: usize = 64;

/// A run's state in the making.
#[derive(Debug)]
pub(super) struct Log {
    values: BTreeMap<Arc<str>, Payload>,
    changes: BTreeMap<Arc<str>, Change>,
}

/// One message as it lies in the state.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    pub(super) number: u32,
    /// The call whose output lies there as it came.
    call: Option<String>,
    value: Payload,
}

impl Entry {
    /// As it is sent.
    pub(super) fn json(&self) -> Cow<'_, [u8]> {
        let bytes = self.value.here().unwrap_or_default();
        match &self.call {
            Some(call) => Message::outcome(call.as_str(), String::from_utf8_lossy(bytes)).json().into(),
            None => bytes.into(),
        }
    }

    /// As a message; `None` for what is none.
    pub(super) fn message(&self) -> Option<Message> {
        talk::kept(&self.json()).ok()
    }

    /// Who speaks. Told by how the value begins: a turn looks at every message, and none is
    /// to be read whole for it. What [`Message::json`] did not write is a model's answer.
    pub(super) fn role(&self) -> Role {
        if self.call.is_some() {
            return Role::Tool;
        }
        let bytes = self.value.here().unwrap_or_default();
        let Some(rest) = bytes.strip_prefix(b"{\"role\":\"") else {
            return Role::Assistant;
        };
        let roles = [Role::System, Role::User, Role::Tool];
        let found = roles.into_iter().find(|role| rest.starts_with(role.as_str().as_bytes()));
        found.unwrap_or(Role::Assistant)
    }

    pub(super) fn len(&self) -> u64 {
        self.value.len()
    }
}

/// May a fork give this key of the state this value? What the loop keeps for itself is not
/// to be set, nor what it would not find or could not read.
///
/// # Errors
/// In words: why not.
pub fn may_set(key: &str, value: Option<&[u8]>) -> Result<(), String> {
    if matches!(key, META | FORK) {
        return Err(format!("`{key}` is the loop's own: it says where the run stands"));
    }
    if matches!(key, SUMMARY | NOTES) {
        return Ok(());
    }
    let name = key.strip_prefix(MESSAGES).unwrap_or_default();
    let (number, call) = name.split_once(':').map_or((name, None), |(number, call)| (number, Some(call)));
    if number.len() != 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) || call == Some("") {
        return Err(format!(
            "`{key}` is no key that the loop knows: messages are `{MESSAGES}00000003`, the output of a call \
             `{MESSAGES}00000004:CALL`, and there are `{SUMMARY}` and `{NOTES}`"
        ));
    }
    match value {
        // An output is taken as it is.
        Some(value) if call.is_none() && talk::kept(value).is_err() => Err(format!(
            "the value of `{key}` is no message, such as {{\"role\":\"user\",\"content\":\"...\"}}"
        )),
        _ => Ok(()),
    }
}

fn key(number: u32) -> Arc<str> {
    format!("{MESSAGES}{number:08}").into()
}

/// The messages of an opened state in order, as JSON; what is none is left out.
#[must_use]
pub fn conversation(state: &BTreeMap<Arc<str>, Payload>) -> Vec<Vec<u8>> {
    entries(state).iter().filter_map(Entry::message).map(|message| message.json()).collect()
}

/// Messages of a state in order.
pub(super) fn entries(state: &BTreeMap<Arc<str>, Payload>) -> Vec<Entry> {
    let from = state.range(Arc::from(MESSAGES)..).take_while(|(key, _)| key.starts_with(MESSAGES));
    let read = from.filter_map(|(key, value)| {
        let name = &key[MESSAGES.len()..];
        let (number, call) = match name.split_once(':') {
            Some((number, call)) => (number, Some(call.to_owned())),
            None => (name, None),
        };
        Some(Entry { key: key.clone(), number: number.parse().ok()?, call, value: value.clone() })
    });
    read.collect()
}

impl Log {
    pub(super) fn new(state: &BTreeMap<Arc<str>, Payload>) -> Self {
        Self { values: state.clone(), changes: BTreeMap::new() }
    }

    /// The state as it will be.
    pub(super) fn state(&self) -> &BTreeMap<Arc<str>, Payload> {
        &self.values
    }

    pub(super) fn find(&self, key: &str) -> Option<&Payload> {
        self.values.get(key)
    }

    pub(super) fn set(&mut self, key: impl Into<Arc<str>>, value: Payload) {
        let key = key.into();
        if self.values.get(&key) == Some(&value) {
            return;
        }
        self.values.insert(key.clone(), value.clone());
        self.changes.insert(key.clone(), Change::Set { key, value });
    }

    fn keep(&mut self, key: Arc<str>, effect: EffectId, value: Payload) {
        self.values.insert(key.clone(), value);
        self.changes.insert(key.clone(), Change::Keep { key, effect });
    }

    pub(super) fn drop(&mut self, key: &Arc<str>) {
        if self.values.remove(key).is_some() {
            self.changes.insert(key.clone(), Change::Drop { key: key.clone() });
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let keys: Vec<Arc<str>> = self.values.keys().cloned().collect();
        keys.iter().for_each(|key| self.drop(key));
    }

    /// Puts a message in its place.
    pub(super) fn say(&mut self, number: u32, message: &Message) {
        self.set(key(number), message.json().into());
    }

    /// Puts a model's whole answer in its place, without writing it a second time.
    pub(super) fn keep_answer(&mut self, number: u32, effect: EffectId, body: Payload) {
        self.keep(key(number), effect, body);
    }

    /// Puts a tool's output in its place: as it came where it can be, cut to `bytes_max`
    /// where it is too long for any prompt.
    pub(super) fn keep_outcome(
        &mut self,
        number: u32,
        call: &str,
        effect: EffectId,
        output: &Payload,
        bytes_max: usize,
    ) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let text = super::text(output);
        let (shown, whole) = super::first_bytes(&text, bytes_max);
        if !whole {
            let told = format!("{shown}\n[cut: {} of {} bytes are shown]", shown.len(), text.len());
            self.say(number, &Message::outcome(call, told));
        } else if text.is_empty() {
            self.say(number, &Message::outcome(call, "done"));
        } else if !call.is_empty() && call.len() <= CALL_ID_LEN_MAX && call.chars().all(plain) {
            self.keep(format!("{}:{call}", key(number)).into(), effect, output.clone());
        } else {
            self.say(number, &Message::outcome(call, text));
        }
    }

    /// Messages in order.
    pub(super) fn entries(&self) -> Vec<Entry> {
        entries(&self.values)
    }

    /// Puts another message where one was.
    pub(super) fn replace(&mut self, entry: &Entry, message: &Message) {
        self.drop(&entry.key);
        self.say(entry.number, message);
    }

    /// What changed, by key. What was made and taken away again did not.
    pub(super) fn changes(self, before: &BTreeMap<Arc<str>, Payload>) -> Vec<Change> {
        let real = |change: &Change| match change {
            Change::Drop { key } => before.contains_key(key),
            Change::Set { key, value } => before.get(key) != Some(value),
            Change::Keep { .. } => true,
        };
        self.changes.into_values().filter(real).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_may_set_what_was_said_and_not_where_the_loop_stands() {
        let said = br#"{"role":"user","content":"Hello."}"#.as_slice();
        for (key, value) in [
            ("m/00000001", Some(said)),
            ("m/00000001", None),
            ("m/00000004:call_1", Some(b"any output".as_slice())),
            (SUMMARY, Some(b"x".as_slice())),
            (NOTES, None),
        ] {
            assert_eq!(may_set(key, value), Ok(()), "{key}");
        }
        for (key, value) in [
            (META, Some(said)),
            (META, None),
            (FORK, Some(said)),
            ("m/1", Some(said)),
            ("m/0000000x", Some(said)),
            ("m/00000004:", Some(said)),
            ("m/00000001", Some(b"no message".as_slice())),
            ("nots", Some(said)),
            ("", None),
        ] {
            assert!(may_set(key, value).is_err(), "{key}");
        }
    }
}
