//! What a turn looks like to the progress guard: its answers, mail and wishes as digests.

use seawall_model::durable::{AgentRow, Item, Message, Progress};
use seawall_model::effect::{Answer, Work};
use seawall_model::journal::{Change, Commit, Next, SAID};
use seawall_model::{Address, Payload};

use super::progress::{self, Asked, GuardRule, Heard, Judgement, Letter, Seen};

/// Judges a turn of an agent that saw so many items and whose messages so far carry `hop`.
pub(super) fn judge(
    progress: &mut Progress,
    rule: &GuardRule,
    (agent, seen): (&AgentRow, usize),
    commit: &Commit,
    hop: u16,
) -> Judgement {
    let heard: Vec<Heard> = agent.inbox.iter().take(seen).filter_map(heard).collect();
    let mail: Vec<Letter> = agent.inbox.iter().take(seen).filter_map(mail).collect();
    let asked: Vec<Asked> =
        commit.asks.iter().map(|ask| Asked { kind: ask.work.kind(), twin: ask.twin }).collect();
    let sent: Vec<Letter> = commit.asks.iter().filter_map(|ask| sent(agent, &ask.work)).collect();
    let changed = !matches!(commit.next, Next::Wait(_)) || commit.changes.iter().any(is_progress);
    progress::after_turn(
        progress,
        rule,
        &Seen { heard: &heard, mail: &mail, asked: &asked, sent: &sent, hop, changed },
    )
}

fn is_progress(change: &Change) -> bool {
    match change {
        Change::Set { key, .. } | Change::Keep { key, .. } | Change::Drop { key } => !key.starts_with(SAID),
    }
}

fn heard(item: &Item) -> Option<Heard> {
    let Item::Answer { kind, twin, answer, .. } = item else { return None };
    let answer = match answer {
        Answer::Done(body) => digest_of(body, 1),
        Answer::Error(body) => digest_of(body, 2),
        Answer::Failed { code, why } => digest(why.as_bytes(), 3 + *code as u64),
    };
    Some(Heard { kind: kind_of(kind), twin: *twin, answer })
}

fn mail(item: &Item) -> Option<Letter> {
    let Item::Mail(message) = item else { return None };
    let peer = message.from.as_ref().map_or(0, peer);
    Some(Letter { peer, body: digest_of(&message.body, 0), hop: message.hop })
}

fn sent(agent: &AgentRow, work: &Work) -> Option<Letter> {
    let Work::Message { to, body } = work else { return None };
    let to = Address { tenant: agent.address.tenant.clone(), agent: to.clone() };
    Some(Letter { peer: peer(&to), body: digest_of(body, 0), hop: 0 })
}

fn peer(address: &Address) -> u64 {
    digest(address.agent.as_str().as_bytes(), 0)
}

/// The kind as [`Work::kind`] gives it.
fn kind_of(kind: &str) -> &'static str {
    const KINDS: [&str; 6] = ["model", "tool", "child", "get", "put", "promise"];
    if kind == "timer" {
        return "timer";
    }
    KINDS.into_iter().find(|known| *known == kind).unwrap_or("other")
}

/// What a message says, by which it is told apart from another of the same id.
pub(super) fn said(message: &Message) -> u64 {
    let name = message.name.as_deref().map_or(0, |name| digest(name.as_bytes(), 1));
    digest_of(&message.body, name)
}

fn digest_of(body: &Payload, seed: u64) -> u64 {
    match body {
        Payload::Here(bytes) => digest(bytes, seed),
        Payload::Blob { digest: name, .. } => digest(name, seed),
    }
}

/// FNV-1a (Fowler, Noll, Vo): equality only, and collisions cost no more than a warning.
fn digest(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
