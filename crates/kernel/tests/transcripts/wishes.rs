//! What rules say and what turns want, as read from indented lines.

use std::sync::Arc;

use seawall_kernel::agents::cron::Cron;
use seawall_kernel::agents::gate::{Pattern, Rule, Who};
use seawall_kernel::agents::progress::GuardRule;
use seawall_kernel::agents::rules::{Kind, Rules, Schedule};
use seawall_kernel::agents::supervise::{Strategy, Supervision};
use seawall_model::durable::{Restart, Wake};
use seawall_model::effect::{Allowance, Approval, Ask, Deputy, Spend, Verdict, Work};
use seawall_model::journal::{Change, Commit, Ending, Next};
use seawall_model::{At, Code, EffectClass, MicroUsd, Millis, Payload, Tenant, Tokens};

use super::words::Words;

const AMOUNTS: [&str; 7] = ["tokens", "money", "calls", "steps", "wall", "children", "depth"];

pub(crate) fn tenant() -> Tenant {
    Tenant::parse("acme").expect("valid")
}

pub(crate) fn code(words: &mut Words) -> Code {
    let word = words.word();
    Code::from_name(&word).unwrap_or_else(|| words.unknown(&word))
}

/// One word of an allowance; `false` if it is none.
pub(crate) fn allow(allowance: &mut Allowance, word: &str, words: &mut Words) -> bool {
    match word {
        "tokens" => allowance.tokens = Some(Tokens(words.number())),
        "money" => allowance.money = Some(MicroUsd(words.number())),
        "calls" => allowance.calls = Some(words.number()),
        "steps" => allowance.steps = Some(words.number()),
        "wall" => allowance.wall = Some(words.seconds()),
        "children" => allowance.children = Some(words.number() as u32),
        "depth" => allowance.depth = Some(words.number() as u16),
        _ => return false,
    }
    true
}

/// One word of an amount; `false` if it is none.
pub(crate) fn spend(spend: &mut Spend, word: &str, words: &mut Words) -> bool {
    match word {
        "tokens" => spend.tokens = Tokens(words.number()),
        "money" => spend.money = MicroUsd(words.number()),
        _ => return false,
    }
    true
}

/// A task, and what its run may use.
pub(crate) fn task(words: &mut Words) -> (Payload, Allowance) {
    let task = words.maybe(&AMOUNTS).unwrap_or_else(Payload::empty);
    let mut allowance = Allowance::default();
    while let Some(word) = words.next() {
        if !allow(&mut allowance, &word, words) {
            words.unknown(&word);
        }
    }
    (task, allowance)
}

pub(crate) fn rules(lines: &[&str]) -> Rules {
    // One shard, and nobody leaves memory unless the script says so.
    let mut rules = Rules { shards: 1, suspend_after: Millis::from_secs(86_400 * 365), ..Rules::default() };
    for line in lines {
        let mut words = Words::of(line);
        let Some(word) = words.next() else { continue };
        match word.as_str() {
            "kind" => rules.kinds.push(kind(&mut words)),
            "gate" => rules.gate.push(gate(&mut words)),
            "places" => {
                let what = words.word();
                let places = words.number() as u32;
                match what.as_str() {
                    "turns" => rules.turns_max = places,
                    "models" => rules.models_max = places,
                    "tools" => rules.tool_max = places,
                    other => words.unknown(other),
                }
            }
            "tries" => rules.tries_max = words.number() as u32,
            "suspend" => rules.suspend_after = words.seconds(),
            other => words.unknown(other),
        }
        words.end();
    }
    rules
}

fn kind(words: &mut Words) -> Kind {
    let mut kind = Kind {
        name: words.word().into(),
        version: "1".into(),
        moves: true,
        allowance: Allowance::default(),
        supervision: Supervision { backoff: Millis(1_000), ..Supervision::default() },
        guard: GuardRule { still: 0, ..GuardRule::default() },
        gate: Vec::new(),
        schedule: None,
        starts_on_mail: false,
        inbox_max: 100,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "mail" => kind.starts_on_mail = true,
            "every" => {
                let cron = Cron::parse(&words.word()).expect("a schedule");
                kind.schedule = Some(Schedule { cron, tenant: tenant(), task: Payload::text("it is time") });
            }
            "restart" => kind.supervision.restart = restart(words),
            "strategy" => kind.supervision.strategy = strategy(words),
            "intensity" => kind.supervision.intensity = words.number() as u32,
            "still" => kind.guard.still = words.number() as u32,
            "inbox" => kind.inbox_max = words.number() as usize,
            other if allow(&mut kind.allowance, other, words) => {}
            other => words.unknown(other),
        }
    }
    kind
}

fn restart(words: &mut Words) -> Restart {
    match words.word().as_str() {
        "permanent" => Restart::Permanent,
        "transient" => Restart::Transient,
        "temporary" => Restart::Temporary,
        other => words.unknown(other),
    }
}

fn strategy(words: &mut Words) -> Strategy {
    match words.word().as_str() {
        "one_for_one" => Strategy::OneForOne,
        "one_for_all" => Strategy::OneForAll,
        "rest_for_one" => Strategy::RestForOne,
        other => words.unknown(other),
    }
}

fn gate(words: &mut Words) -> Rule {
    let (id, what, on) = (words.word().into(), words.word().into(), Pattern::new(&words.word()));
    let then = match words.word().as_str() {
        "allow" => Verdict::Allow,
        "deny" => Verdict::Deny,
        "redact" => Verdict::Redact(vec![words.word().into()]),
        "ask" => {
            let (quorum, patience) = (words.number() as u8, words.seconds());
            let deputy = words.next().map(|to| Deputy { to: to.into(), after: words.seconds() });
            Verdict::Ask(Approval { quorum, approvers: Vec::new(), patience, deputy })
        }
        other => words.unknown(other),
    };
    Rule { id, who: Who::anyone(), what, on, class: None, when: Vec::new(), then }
}

/// What a turn wants: one wish per line.
pub(crate) fn commit(lines: &[&str], now: At) -> Commit {
    let mut commit = Commit { changes: Vec::new(), asks: Vec::new(), next: Next::Wait(Wake::Any) };
    for line in lines {
        let mut words = Words::of(line);
        let Some(word) = words.next() else { continue };
        match word.as_str() {
            "set" => {
                let key: Arc<str> = words.word().into();
                commit.changes.push(Change::Set { key, value: words.text() });
            }
            "keep" => {
                let key: Arc<str> = words.word().into();
                commit.changes.push(Change::Keep { key, effect: words.effect() });
            }
            "all" => commit.next = Next::Wait(Wake::All),
            "end" => commit.next = Next::End(Ending::Done(words.text())),
            "fail" => {
                let (code, why) = (code(&mut words), words.word().into());
                commit.next = Next::End(Ending::Failed { code, why });
            }
            wish => {
                let number = commit.asks.len() + 1;
                commit.asks.push(ask(wish, number, &mut words, now));
            }
        }
        words.end();
    }
    commit
}

fn ask(wish: &str, number: usize, words: &mut Words, now: At) -> Ask {
    let mut ask = Ask {
        tag: format!("t{number}").into(),
        work: Work::Timer { at: now },
        class: EffectClass::Idempotent,
        cost_max: Spend::default(),
        patience: None,
        twin: 0,
        facts: Vec::new(),
    };
    ask.work = match wish {
        "model" => Work::Model { model: words.word().into(), recipe: Payload::empty() },
        "tool" => tool(&mut ask.class, words),
        "child" => {
            let agent = words.agent();
            let (task, allowance) = task(words);
            Work::Child { agent, task, allowance }
        }
        "message" => Work::Message { to: words.agent(), body: words.text() },
        "publish" => Work::Publish { topic: words.word().into(), body: words.text() },
        "subscribe" => Work::Subscribe { topic: words.word().into(), on: true },
        "unsubscribe" => Work::Subscribe { topic: words.word().into(), on: false },
        "timer" => Work::Timer { at: now.plus(words.seconds()) },
        "ask" => Work::Promise { question: words.text() },
        "monitor" => Work::Monitor { agent: words.agent() },
        "link" => Work::Link { agent: words.agent(), on: true },
        "unlink" => Work::Link { agent: words.agent(), on: false },
        "get" => Work::Get { key: words.word().into() },
        "put" => {
            let (key, value) = (words.word().into(), Some(words.text()));
            Work::Put { key, value, expect: expect(words) }
        }
        "watch" => Work::Watch { key: words.word().into(), version: words.number() },
        "acquire" => {
            let resource = words.word().into();
            let (units, of) = (words.number() as u32, words.number() as u32);
            Work::Acquire { resource, units, of, ttl: words.seconds() }
        }
        "release" => Work::Release { resource: words.word().into(), token: words.number() },
        other => words.unknown(other),
    };
    while let Some(word) = words.next() {
        match (word.as_str(), &mut ask.work) {
            ("undo", Work::Tool { undo, .. }) => *undo = Some(words.word().into()),
            ("query", Work::Tool { query, .. }) => *query = Some(words.word().into()),
            ("within", _) => ask.patience = Some(words.seconds()),
            ("twin", _) => ask.twin = words.number(),
            (other, _) if spend(&mut ask.cost_max, other, words) => {}
            (other, _) => words.unknown(other),
        }
    }
    ask
}

fn tool(class: &mut EffectClass, words: &mut Words) -> Work {
    let tool = words.word().into();
    let name = words.word();
    *class = EffectClass::from_name(&name).unwrap_or_else(|| words.unknown(&name));
    let known = ["undo", "query", "within", "twin", "tokens", "money"];
    Work::Tool { tool, args: words.maybe(&known).unwrap_or_else(Payload::empty), undo: None, query: None }
}

pub(crate) fn expect(words: &mut Words) -> Option<u64> {
    let word = words.next()?;
    if word != "expect" {
        words.unknown(&word);
    }
    Some(words.number())
}
