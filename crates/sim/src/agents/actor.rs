//! What handlers do in their turns: seeded programs for most types, and small state
//! machines for those that converse, count and borrow. A turn is a function of its grant
//! and the run's working state, so that whatever a crash undoes is done again.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::agents::effect::Grant;
use seawall_load::rng::Rng;
use seawall_model::durable::{Item, Message, Wake};
use seawall_model::effect::{Allowance, Answer, Ask, EffectClass, Spend, Work};
use seawall_model::journal::{Change, Commit, Ending, Next};
use seawall_model::{Agent, Code, MicroUsd, Millis, Payload, Tokens};

use super::cast::UNITS;

/// A run's working state.
pub type State = BTreeMap<Arc<str>, Payload>;

/// Rounds of a counter.
const COUNTS: u32 = 3;
/// Messages of a conversation.
const WORDS: u32 = 6;

/// One step of a program.
enum Step {
    /// Asks for all of these, and goes on when all are answered.
    Do(Vec<Ask>, Wake),
    /// Asks for these and ends at once.
    Leave(Vec<Ask>),
    End(Ending),
}

/// What a handler makes of its turn.
///
/// # Errors
/// When the turn fails: in words.
pub fn play(seed: u64, grant: &Grant, state: &State) -> Result<Commit, Arc<str>> {
    // The same in every turn of a run.
    let mut rng = Rng::branch(seed ^ 0xac70, grant.run.key.0);
    let mut once =
        Rng::branch(seed ^ 0x07ce, grant.run.key.0 ^ (grant.token << 40) ^ u64::from(grant.number));
    match grant.address.agent.kind() {
        "poison" => Err("it cannot read this".into()),
        "shaky" if once.chance(0.3) => Err("it lost its thread".into()),
        "ping" => Ok(bounce(grant, Some(mate_of("pong", &mut rng)), "hello")),
        "pong" => Ok(bounce(grant, None, "hi")),
        "chat" => Ok(chat(grant, mate_of("mate", &mut rng))),
        "mate" => Ok(mate(grant, state)),
        "reader" => Ok(read(grant, state)),
        "counter" => Ok(count(grant, state, &mut rng)),
        "lessee" => Ok(borrow(grant, state, &mut rng)),
        kind => Ok(follow(grant, state, program(kind, grant, &mut rng))),
    }
}

fn mate_of(kind: &str, rng: &mut Rng) -> Agent {
    agent(&format!("{kind}/{}", rng.below(3)))
}

fn agent(name: &str) -> Agent {
    Agent::parse(name).expect("the cast's names are valid")
}

// Programs ----------------------------------------------------------------------------

fn program(kind: &str, grant: &Grant, rng: &mut Rng) -> Vec<Step> {
    let life = grant.run.restarts.len() as u64;
    let mut fate = Rng::branch(grant.run.key.0, 0x0fa7 + life);
    let mut steps = Vec::new();
    match kind {
        "loop" => {
            for _ in 0..1 + rng.below(3) {
                steps.push(Step::Do(vec![model(rng)], Wake::Any));
                steps.push(tools(rng, 1, 3));
            }
        }
        "thinker" => steps.extend((0..20).map(|_| Step::Do(vec![model(rng)], Wake::Any))),
        "worker" | "beat" | "guarded" => {
            steps.push(tools(rng, 1, 2));
            if kind == "worker" && fate.chance(0.2) {
                steps.push(Step::End(failed("the work was beyond it")));
            }
        }
        "sleeper" => {
            for _ in 0..1 + rng.below(3) {
                let mut asks = vec![timer(grant, rng)];
                if rng.chance(0.5) {
                    asks.push(timer(grant, rng));
                    asks.push(tool("files.read", EffectClass::Read, None, rng));
                }
                steps.push(Step::Do(asks, if rng.chance(0.5) { Wake::All } else { Wake::Any }));
            }
        }
        "asker" => asker(&mut steps, grant, rng),
        "news" => {
            for _ in 0..1 + rng.below(4) {
                let publish = plain(Work::Publish { topic: "news".into(), body: Payload::text("extra") });
                steps.push(Step::Do(vec![publish, timer(grant, rng)], Wake::All));
            }
        }
        "watcher" => {
            let key: Arc<str> = format!("board/{}", rng.below(2)).into();
            let watch = Ask {
                patience: Some(Millis::from_secs(90)),
                ..plain(Work::Watch { key: key.clone(), version: rng.below(4) })
            };
            let put = plain(Work::Put { key, value: Some(Payload::text("news")), expect: None });
            steps.push(Step::Do(vec![watch, put], Wake::All));
        }
        "guard" => guard(&mut steps, grant, rng),
        "faulty" => {
            steps.push(Step::Do(vec![model(rng)], Wake::Any));
            if fate.chance(0.6) {
                steps.push(Step::End(failed("it failed, as it does")));
            }
        }
        _ => lead(kind, &mut steps, rng),
    }
    steps.push(Step::End(Ending::Done(Payload::text("well done"))));
    steps
}

/// Waits for the end of what others work on, and binds itself to one of them.
fn guard(steps: &mut Vec<Step>, grant: &Grant, rng: &mut Rng) {
    let names =
        ["worker/shared", "faulty/0", "mate/0", "pong/1", "beat/cron", "poison/1", "chat/0", "mate/9"];
    let mut asks: Vec<Ask> = (0..1 + rng.below(3))
        .map(|_| {
            let patience = rng.chance(0.2).then_some(Millis::from_secs(20));
            Ask { patience, ..plain(Work::Monitor { agent: agent(pick(rng, &names)) }) }
        })
        .collect();
    let other = pick(rng, &names);
    if rng.chance(0.5) {
        // Whom it binds itself to works for it.
        asks.push(child(other));
    }
    let other = agent(other);
    if rng.chance(0.6) {
        asks.push(plain(Work::Link { agent: other.clone(), on: true }));
    }
    asks.push(timer(grant, rng));
    steps.push(Step::Do(asks, if rng.chance(0.7) { Wake::All } else { Wake::Any }));
    if rng.chance(0.3) {
        steps.push(Step::Do(vec![plain(Work::Link { agent: other, on: false })], Wake::Any));
    }
    steps.push(tools(rng, 1, 2));
}

/// Programs of those who have others work for them.
fn lead(kind: &str, steps: &mut Vec<Step>, rng: &mut Rng) {
    match kind {
        "mapper" => {
            let count = 1 + rng.below(5);
            let children =
                (0..count).map(|_| child(pick(rng, &["worker", "loop", "sleeper", "faulty"]))).collect();
            steps.push(Step::Do(children, if rng.chance(0.5) { Wake::All } else { Wake::Any }));
            steps.push(Step::Do(vec![model(rng)], Wake::Any));
        }
        "boss" => {
            let names = ["worker/shared", "mapper", "worker/other", "boss", "worker/shared"];
            let count = 1 + rng.below(5);
            steps.push(Step::Do((0..count).map(|_| child(pick(rng, &names))).collect(), Wake::All));
        }
        "spender" => {
            let (children, models) = (2 + rng.below(3), 2 + rng.below(3));
            let mut asks: Vec<Ask> = (0..children).map(|_| child(pick(rng, &["loop", "worker"]))).collect();
            asks.extend((0..models).map(|_| model(rng)));
            steps.push(Step::Do(asks, Wake::All));
            steps.push(Step::Do((0..6).map(|_| model(rng)).collect(), Wake::Any));
        }
        // Ends with work under way, a child among it.
        "hasty" => {
            steps.push(tools(rng, 1, 2));
            steps.push(Step::Leave(vec![child("sleeper"), child("worker/shared"), model(rng)]));
        }
        _ => {}
    }
}

fn asker(steps: &mut Vec<Step>, grant: &Grant, rng: &mut Rng) {
    let pay = tool("bank.pay", EffectClass::Irreversible, None, rng);
    let mut asks = vec![pay, plain(Work::Promise { question: Payload::text("shall we?") })];
    if rng.chance(0.5) {
        asks.push(timer(grant, rng));
    }
    if rng.chance(0.5) {
        asks.push(child("guarded"));
    }
    steps.push(Step::Do(asks, if rng.chance(0.5) { Wake::All } else { Wake::Any }));
}

fn failed(why: &str) -> Ending {
    Ending::Failed { code: Code::RunFailed, why: why.into() }
}

fn pick<'a>(rng: &mut Rng, names: &[&'a str]) -> &'a str {
    names[rng.below(names.len() as u64) as usize]
}

/// An effect of no cost that is like nothing else.
fn plain(work: Work) -> Ask {
    let class = if matches!(work, Work::Get { .. } | Work::Watch { .. }) {
        EffectClass::Read
    } else {
        EffectClass::Idempotent
    };
    Ask {
        tag: "it".into(),
        work,
        class,
        cost_max: Spend::default(),
        patience: None,
        twin: 0,
        facts: Vec::new(),
    }
}

fn model(rng: &mut Rng) -> Ask {
    let patience = rng.chance(0.1).then_some(Millis::from_secs(15));
    let work = Work::Model { model: "small".into(), recipe: Payload::empty() };
    let cost_max = Spend {
        tokens: Tokens(200 + rng.below(1_000)),
        money: MicroUsd(50 + rng.below(400)),
        ..Spend::default()
    };
    Ask { class: EffectClass::Read, cost_max, patience, ..plain(work) }
}

fn tools(rng: &mut Rng, least: u64, most: u64) -> Step {
    let asks = (0..least + rng.below(most - least + 1)).map(|_| match rng.below(10) {
        0..3 => tool("files.read", EffectClass::Read, None, rng),
        3..6 => tool("mail.put", EffectClass::Idempotent, None, rng),
        6..8 => booking(rng),
        _ => tool("bank.send", EffectClass::Irreversible, None, rng),
    });
    Step::Do(asks.collect(), if rng.chance(0.5) { Wake::All } else { Wake::Any })
}

fn tool(name: &str, class: EffectClass, undo: Option<&str>, rng: &mut Rng) -> Ask {
    let number = rng.next_u64();
    let args = Payload::text(&format!("{{\"n\":{number}}}"));
    let work = Work::Tool { tool: name.into(), args, undo: undo.map(Into::into), query: None };
    let patience = rng.chance(0.1).then_some(Millis::from_secs(20));
    let cost_max = Spend { money: MicroUsd(20), ..Spend::default() };
    Ask { class, cost_max, patience, twin: number | 1, ..plain(work) }
}

/// What can be undone; half of it can be asked about as well.
fn booking(rng: &mut Rng) -> Ask {
    let mut ask = tool("shop.book", EffectClass::Compensable, Some("shop.cancel"), rng);
    if let (Work::Tool { query, .. }, true) = (&mut ask.work, rng.chance(0.5)) {
        *query = Some("shop.find".into());
    }
    ask
}

fn child(name: &str) -> Ask {
    let task = Payload::text("a part of it");
    plain(Work::Child { agent: agent(name), task, allowance: Allowance::default() })
}

fn timer(grant: &Grant, rng: &mut Rng) -> Ask {
    plain(Work::Timer { at: grant.at.plus(Millis(500 + rng.below(40_000))) })
}

/// Where a program is: its step, the first effect that belongs to it, and how many of
/// these are not answered.
struct Place {
    step: usize,
    first: u32,
    left: u32,
}

impl Place {
    fn of(state: &State) -> Self {
        let [step, first, left] = numbers(state, "place");
        Self { step: step as usize, first: first as u32, left: left as u32 }
    }
}

fn numbers<const N: usize>(state: &State, key: &str) -> [u64; N] {
    let text = state.get(key).and_then(|value| value.here()).unwrap_or_default();
    let mut all =
        std::str::from_utf8(text).unwrap_or_default().split(' ').map(|word| word.parse().unwrap_or(0));
    std::array::from_fn(|_| all.next().unwrap_or(0))
}

fn set(key: &str, numbers: &[u64]) -> Change {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    Change::Set { key: key.into(), value: Payload::text(&words.join(" ")) }
}

fn follow(grant: &Grant, state: &State, mut steps: Vec<Step>) -> Commit {
    let mut place = Place::of(state);
    let answered = grant.items.iter().filter(|item| match item {
        Item::Answer { effect, .. } => effect.run == grant.run.key && effect.number >= place.first,
        _ => false,
    });
    place.left = place.left.saturating_sub(answered.count() as u32);
    if begins(grant) {
        // Nobody answers a fork what was under way for the run that it goes on from.
        place.left = 0;
    }
    let said = Change::Keep { key: "m/last".into(), effect: latest(grant) };
    if place.left > 0 {
        let changes = vec![set("place", &[place.step as u64, place.first.into(), place.left.into()]), said];
        return Commit { changes, asks: Vec::new(), next: Next::Wait(Wake::Any) };
    }
    let step = if place.step < steps.len() {
        steps.swap_remove(place.step)
    } else {
        Step::End(failed("it is lost"))
    };
    match step {
        Step::Do(asks, wake) => {
            let place = [place.step as u64 + 1, u64::from(grant.run.effects) + 1, asks.len() as u64];
            Commit { changes: vec![set("place", &place), said], asks, next: Next::Wait(wake) }
        }
        Step::Leave(asks) => {
            let ending = Ending::Done(Payload::text("gone"));
            Commit { changes: Vec::new(), asks, next: Next::End(ending) }
        }
        Step::End(ending) => Commit { changes: vec![said], asks: Vec::new(), next: Next::End(ending) },
    }
}

fn latest(grant: &Grant) -> seawall_model::EffectId {
    let answers = grant.items.iter().rev().find_map(|item| match item {
        Item::Answer { effect, .. } => Some(*effect),
        _ => None,
    });
    answers.unwrap_or_default()
}

// Those who talk ----------------------------------------------------------------------

fn mails(grant: &Grant) -> impl Iterator<Item = &Message> {
    grant.items.iter().filter_map(|item| match item {
        Item::Mail(message) => Some(message),
        _ => None,
    })
}

fn answers(grant: &Grant) -> usize {
    grant.items.iter().filter(|item| matches!(item, Item::Answer { .. })).count()
}

fn begins(grant: &Grant) -> bool {
    grant.items.iter().any(|item| matches!(item, Item::Task { .. }))
}

fn say(to: Agent, words: &str) -> Ask {
    plain(Work::Message { to, body: Payload::text(words) })
}

fn wait(changes: Vec<Change>, asks: Vec<Ask>) -> Commit {
    Commit { changes, asks, next: Next::Wait(Wake::Any) }
}

fn done(text: &str) -> Commit {
    Commit { changes: Vec::new(), asks: Vec::new(), next: Next::End(Ending::Done(Payload::text(text))) }
}

/// Says the same to whoever says anything, for ever.
fn bounce(grant: &Grant, first: Option<Agent>, words: &str) -> Commit {
    let mut asks: Vec<Ask> = Vec::new();
    if begins(grant)
        && let Some(to) = first
    {
        asks.push(say(to, words));
    }
    asks.extend(
        mails(grant).filter_map(|message| message.from.as_ref()).map(|from| say(from.agent.clone(), words)),
    );
    wait(Vec::new(), asks)
}

fn word(message: &Message) -> u32 {
    let text = message.body.here().unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default().trim().parse().unwrap_or(0)
}

/// Counts up with a mate, a word each.
fn chat(grant: &Grant, mate: Agent) -> Commit {
    let mut asks = Vec::new();
    if begins(grant) {
        asks.push(say(mate, "1"));
    }
    for message in mails(grant) {
        let word = word(message);
        if word >= WORDS {
            return done("we talked");
        }
        asks.extend(message.from.as_ref().map(|from| say(from.agent.clone(), &(word + 1).to_string())));
    }
    wait(Vec::new(), asks)
}

fn mate(grant: &Grant, state: &State) -> Commit {
    let [open] = numbers(state, "open");
    let mut asks = Vec::new();
    for message in mails(grant) {
        let word = (word(message) + 1).to_string();
        asks.extend(message.from.as_ref().map(|from| say(from.agent.clone(), &word)));
    }
    let open = (open as usize).saturating_sub(answers(grant)) + asks.len();
    if open == 0 && !asks.is_empty() | (answers(grant) > 0) {
        return done("said");
    }
    wait(vec![set("open", &[open as u64])], asks)
}

/// Reads what comes by a topic until a timer rings.
fn read(grant: &Grant, state: &State) -> Commit {
    let [seen] = numbers(state, "seen");
    let rang = grant.items.iter().any(|item| matches!(item, Item::Answer { kind, .. } if &**kind == "timer"));
    if rang {
        return done("read");
    }
    let mut asks = Vec::new();
    if begins(grant) {
        asks.push(plain(Work::Subscribe { topic: "news".into(), on: true }));
        asks.push(plain(Work::Timer { at: grant.at.plus(Millis::from_secs(25)) }));
    }
    wait(vec![set("seen", &[seen + mails(grant).count() as u64])], asks)
}

// Those who share ---------------------------------------------------------------------

fn answer_of(grant: &Grant) -> Option<(&str, &Answer)> {
    grant.items.iter().rev().find_map(|item| match item {
        Item::Answer { kind, answer, .. } => Some((&**kind, answer)),
        _ => None,
    })
}

fn text_of(answer: &Answer) -> &str {
    match answer {
        Answer::Done(body) => std::str::from_utf8(body.here().unwrap_or_default()).unwrap_or_default(),
        _ => "",
    }
}

/// Adds one to a number, several times, by compare-and-set.
fn count(grant: &Grant, state: &State, rng: &mut Rng) -> Commit {
    let key: Arc<str> = format!("count/{}", rng.below(2)).into();
    let [rounds] = numbers(state, "rounds");
    let get = || plain(Work::Get { key: key.clone() });
    match answer_of(grant) {
        None => wait(Vec::new(), vec![get()]),
        Some(("get", answer @ Answer::Done(_))) => {
            let mut words = text_of(answer).split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
            let (version, value) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
            let value = Some(Payload::text(&(value + 1).to_string()));
            wait(Vec::new(), vec![plain(Work::Put { key: key.clone(), value, expect: Some(version) })])
        }
        Some(("put", Answer::Done(_))) if rounds + 1 >= COUNTS.into() => done("counted"),
        Some(("put", Answer::Done(_))) => wait(vec![set("rounds", &[rounds + 1])], vec![get()]),
        Some(_) => wait(Vec::new(), vec![get()]),
    }
}

/// Takes units of a resource, works with them, and gives them back; sometimes too late,
/// sometimes with a token that is not its own.
fn borrow(grant: &Grant, state: &State, rng: &mut Rng) -> Commit {
    let resource: Arc<str> = format!("crane/{}", rng.below(2)).into();
    let units = 1 + rng.below(u64::from(UNITS)) as u32;
    let (ttl, late, wrong) = (Millis(3_000 + rng.below(20_000)), rng.chance(0.3), rng.chance(0.3));
    let acquire = Work::Acquire { resource: resource.clone(), units, of: UNITS, ttl };
    let [token] = numbers(state, "token");
    match answer_of(grant) {
        None => wait(Vec::new(), vec![Ask { patience: Some(Millis::from_secs(120)), ..plain(acquire) }]),
        Some(("acquire", answer @ Answer::Done(_))) => {
            let digits: String = text_of(answer).chars().filter(char::is_ascii_digit).collect();
            let token = digits.parse().unwrap_or(0);
            let work = match late {
                true => plain(Work::Timer { at: grant.at.plus(Millis(ttl.0 + 1_000)) }),
                false => tool("mail.put", EffectClass::Idempotent, None, rng),
            };
            wait(vec![set("token", &[token])], vec![work])
        }
        Some(("timer" | "tool", _)) => {
            let token = if wrong { token.saturating_sub(1) } else { token };
            wait(Vec::new(), vec![plain(Work::Release { resource, token })])
        }
        Some(_) => done("given back"),
    }
}
