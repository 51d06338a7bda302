//! What is nobody's any more is forgotten, and what anybody may make has a bound.

use super::*;
use crate::agents::effect::Reply;
use crate::agents::mail::from_outside;
use seawall_model::durable::Holder;
use seawall_model::journal::{Entry, Event, Record};

/// One input, and the code it is refused with.
fn refused(scene: &mut Scene, input: Input) -> Option<Code> {
    let address = match &input {
        Input::Start { start, .. } => Address { tenant: start.tenant.clone(), agent: start.agent.clone() },
        Input::Send { to, .. } => to.clone(),
        other => panic!("{other:?} is not refused"),
    };
    // In memory first, so that the answer comes at once.
    scene.step(Input::Nudge { address });
    let mut out = Vec::new();
    scene.agents.step(scene.now, input, &mut out);
    let mut codes = out.iter().filter_map(|effect| match effect {
        Effect::Reply(_, Reply::Refused { code, .. }) => Some(*code),
        _ => None,
    });
    let code = codes.next();
    scene.take(out);
    code
}

fn begin(name: &str) -> Input {
    let start = Start {
        tenant: tenant(),
        agent: agent(name),
        task: Payload::empty(),
        allowance: Allowance::default(),
        by: "test".into(),
        caller: None,
        fork: None,
        version: None,
        state: Vec::new(),
    };
    Input::Start { ticket: 1, start: Box::new(start) }
}

fn letter(to: &str, id: u64, bytes: usize) -> Input {
    let to = Address { tenant: tenant(), agent: agent(to) };
    let message = Box::new(from_outside(id, None, vec![b'x'; bytes].into()));
    Input::Send { ticket: 1, to, message, by: "ann".into() }
}

fn release(token: u64) -> Ask {
    ask(Work::Release { resource: "crane".into(), token }, EffectClass::Idempotent)
}

fn subscribe(topic: &str, on: bool) -> Ask {
    ask(Work::Subscribe { topic: topic.into(), on }, EffectClass::Idempotent)
}

fn shard(scene: &Scene) -> &Shard {
    &scene.agents.shards()[0]
}

#[test]
fn a_resource_that_nobody_holds_is_forgotten_and_its_tokens_only_rise() {
    let mut scene = Scene::new(Vec::new());
    scene.agents.rules.kinds[0].guard = GuardRule { repeats: 0, polls: 0, cycles: 0, hops: 0, still: 0 };
    scene.start("a/1");
    let holder = scene.ask(vec![acquire(1)]);
    for seconds in 1..=20 {
        // Renewed many times, it has one alarm still.
        scene.tick(Millis::from_secs(seconds));
        scene.ask(vec![acquire(1)]);
    }
    assert_eq!(shard(&scene).leases.len(), 1);
    assert_eq!(scene.agents.alarms.leases(), 1);
    scene.ask(vec![release(1)]);
    assert!(shard(&scene).leases.is_empty() && scene.agents.lent.is_empty());
    assert_eq!(scene.agents.alarms.leases(), 0);
    scene.ask(vec![acquire(1)]);
    assert_eq!(scene.heard(&holder, 23), Some(&Answer::Done(Payload::text("{\"token\":2}"))));
    // Whoever is gone holds nothing; another resource's tokens are above as well.
    scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    assert!(shard(&scene).leases.is_empty() && scene.agents.lent.is_empty());
    assert_eq!(shard(&scene).row.tokens, 2);
}

#[test]
fn who_is_done_is_told_of_nothing_more() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a");
    let reader = scene.ask(vec![subscribe("news", true), subscribe("jobs", true)]);
    scene.start("b/1");
    scene.ask(vec![subscribe("news", true), subscribe("jobs", true)]);
    scene.ask(vec![subscribe("jobs", false)]);
    let topics = |scene: &Scene| shard(scene).topics.values().map(|row| row.agents.len()).collect::<Vec<_>>();
    assert_eq!(topics(&scene), [1, 2]);
    let turn = scene.turns.iter().position(|grant| grant.address == reader).expect("its turn");
    let grant = scene.turns.remove(turn);
    scene.turns.push(grant);
    scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    assert_eq!(scene.row(&reader).standing, Standing::Done);
    assert_eq!(topics(&scene), [1], "a topic without subscribers is none");
    assert!(scene.row(&reader).topics.is_empty());
}

#[test]
fn an_agent_subscribes_to_so_many_topics() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let asks = (0..=limits::SUBSCRIPTIONS_MAX).map(|n| subscribe(&format!("t{n}"), true)).collect();
    let reader = scene.ask(asks);
    let last = u32::try_from(limits::SUBSCRIPTIONS_MAX).expect("few") + 1;
    assert_eq!(scene.code(&reader, last), Some(Code::MailboxFull));
    assert_eq!(scene.row(&reader).topics.len(), limits::SUBSCRIPTIONS_MAX);
    scene.ask(vec![subscribe("t0", true)]);
    assert_eq!(scene.code(&reader, last + 1), None, "what it has it may have again");
}

#[test]
fn of_an_agent_that_is_never_idle_runs_that_are_over_leave_memory() {
    let mut scene = Scene::new(Vec::new());
    for _ in 0..40 {
        scene.start("a/1");
        scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    }
    assert_eq!(shard(&scene).row.runs, 40);
    assert_eq!(shard(&scene).runs.keys().collect::<Vec<_>>(), [&RunKey::new(0, 40)], "the last one stays");
}

#[test]
fn all_subscribers_that_are_away_come_at_once_and_each_is_told_once() {
    let mut scene = Scene::new(Vec::new());
    let mut rows = Vec::new();
    for nth in 0..3 {
        scene.start(&format!("b/{nth}"));
        rows.push(scene.ask(vec![subscribe("news", true)]));
        scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    }
    scene.start("a/1");
    let shard = shard(&scene).clone();
    let sender = scene.turns.last().expect("its turn").address.clone();
    let (row, run) = (shard.agents[&sender].clone(), shard.runs[&RunKey::new(0, 4)].clone());
    let bare = Shard { row: shard.row.clone(), topics: shard.topics.clone(), ..Shard::new(0) };
    let rules = Rules { suspend_after: Millis(1), ..scene.agents.rules().clone() };
    scene.agents = Agents::open(scene.now, rules, vec![bare], 1);
    let mut out = Vec::new();
    scene.agents.restore(scene.now, vec![*row], vec![*run], &mut out);
    scene.turns.clear();
    scene.take(out);
    let grant = scene.turns.pop().expect("its turn");
    let publish = Work::Publish { topic: "news".into(), body: Payload::text("hi") };
    let asks = vec![ask(publish, EffectClass::Idempotent)];
    let commit = Box::new(Commit { changes: Vec::new(), asks, next: Next::Wait(Wake::Any) });
    let mut out = Vec::new();
    scene.agents.step(
        scene.now,
        Input::Commit { address: sender.clone(), token: grant.token, commit },
        &mut out,
    );
    let away = |out: &[Effect]| {
        out.iter().filter(|effect| matches!(effect, Effect::Load(address) if rows.contains(address))).count()
    };
    assert_eq!(away(&out), 3, "all are asked for in one go");
    for address in &rows {
        // Each is gone again when the next one comes.
        scene.now = scene.now.plus(Millis(1_000));
        let mut more = Vec::new();
        let loaded = vec![(*shard.agents[address]).clone()];
        let input = Input::Loaded { address: address.clone(), agents: loaded, runs: Vec::new() };
        scene.agents.step(scene.now, input, &mut more);
        assert_eq!(away(&more), 0, "nobody is asked for again");
        let seq = scene.agents.batch().entries.last().map_or(0, |entry| entry.seq);
        scene.agents.step(scene.now, Input::Durable { shard: 0, seq }, &mut more);
        scene.now = scene.now.plus(Millis(1_000));
        scene.agents.step(scene.now, Input::Tick, &mut more);
    }
    let heard = Answer::Done(Payload::text("{\"subscribers\":3}"));
    assert_eq!(scene.heard(&sender, 1), Some(&heard));
    assert!(scene.agents.told.is_empty());
}

#[test]
fn what_was_never_put_off_begins_though_the_clock_was_set_back() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let shard = shard(&scene).clone();
    let (row, run) = (shard.agents[&address].clone(), shard.runs[&RunKey::new(0, 1)].clone());
    let before = At(scene.now.0 - 900_000);
    let bare = Shard { row: shard.row, ..Shard::new(0) };
    scene.agents = Agents::open(before, scene.agents.rules().clone(), vec![bare], 1);
    let mut out = Vec::new();
    scene.agents.restore(before, vec![*row], vec![*run], &mut out);
    scene.performs.clear();
    scene.now = before;
    scene.take(out);
    assert_eq!(scene.performs.len(), 1);
}

fn fold(shard: &mut Shard, agent: Option<&str>, event: Event) {
    let agent = agent.map(|agent| Address::parse(agent).expect("valid"));
    let record = Record { at: At(1), agent, event };
    shard.fold(&Entry { shard: 0, epoch: 1, seq: shard.row.seq + 1, record });
}

#[test]
fn the_letters_of_one_tenant_displace_nobody_elses() {
    let mut shard = Shard::new(0);
    let mut bury = |to: &str, count: usize| {
        for id in 0..count as u64 {
            let message = from_outside(id, None, Payload::empty());
            fold(&mut shard, Some(to), Event::Lettered { message, why: Code::MailboxFull });
        }
        let of = |letter: &&seawall_model::durable::DeadLetter| letter.to.tenant.root() == "quiet";
        assert!(shard.letters.len() <= limits::LETTERS_MAX);
        (shard.letters.values().filter(of).count(), shard.letters.len())
    };
    assert_eq!(bury("quiet/team/a/1", 5), (5, 5));
    let (quiet, all) = bury("loud/a/1", 2 * limits::LETTERS_MAX);
    assert!(quiet == 5 && all > limits::LETTERS_MAX - limits::LETTERS_MAX / 50, "{quiet} of {all}");
    assert_eq!(bury("quiet/a/1", 5).0, 10);
}

#[test]
fn topics_and_leases_have_a_bound_for_each_tenant() {
    let mut shard = Shard::new(0);
    for nth in 0..limits::TOPICS_MAX {
        let tenant = Tenant::parse(if nth % 2 == 0 { "loud" } else { "loud/team" }).expect("valid");
        let agent = Address { tenant: tenant.clone(), agent: agent("a/1") };
        let topic = format!("t{nth}").into();
        fold(
            &mut shard,
            None,
            Event::Subscribed { tenant: tenant.clone(), topic, agent: agent.clone(), on: true },
        );
        let effect = EffectId { run: RunKey::new(0, 1), number: 1 };
        let holder = Holder { effect, agent, token: nth as u64, units: 1, until: At(9_000_000) };
        fold(&mut shard, None, Event::Granted { tenant, resource: format!("r{nth}").into(), of: 1, holder });
    }
    let mut scene = Scene::new(Vec::new());
    scene.agents = Agents::open(scene.now, scene.agents.rules().clone(), vec![shard], 0);
    scene.take(Vec::new());
    let lease = |name: &str| {
        let work = Work::Acquire { resource: name.into(), units: 1, of: 1, ttl: Millis::from_secs(60) };
        ask(work, EffectClass::Idempotent)
    };
    for (tenant, code) in [("loud/other", Some(Code::MailboxFull)), ("loud-too", None)] {
        let Input::Start { mut start, ticket } = begin("a/1") else { panic!("it begins a run") };
        start.tenant = Tenant::parse(tenant).expect("valid");
        scene.step(Input::Start { start, ticket });
        let address = scene.ask(vec![subscribe("new", true), lease("new")]);
        assert_eq!((scene.code(&address, 1), scene.code(&address, 2)), (code, code), "{tenant}");
        assert!(scene.heard(&address, 1).is_some() && scene.heard(&address, 2).is_some());
    }
}

#[test]
fn values_that_nobody_waits_for_leave_memory_however_often_they_were_written() {
    let mut scene = Scene::new(Vec::new());
    let mut out = Vec::new();
    let put = |scene: &mut Scene, out: &mut Vec<Effect>| {
        for key in ["even", "odd"] {
            let (value, by) = (Some(Payload::text("x")), "ann".into());
            let input = Input::Put { ticket: 1, tenant: tenant(), key: key.into(), value, expect: None, by };
            scene.agents.step(scene.now, input, out);
        }
    };
    put(&mut scene, &mut out);
    for key in ["even", "odd"] {
        let input = Input::ValueLoaded { tenant: tenant(), key: key.into(), row: None };
        scene.agents.step(scene.now, input, &mut out);
    }
    let seq = scene.agents.batch().entries.last().expect("two were written").seq;
    (0..10).for_each(|_| put(&mut scene, &mut out));
    scene.agents.step(scene.now, Input::Durable { shard: 0, seq }, &mut out);
    assert_eq!(shard(&scene).values.len(), 2, "they were written again");
    scene.take(out);
    assert!(shard(&scene).values.is_empty() && scene.agents.values.is_empty());
    assert!(scene.agents.values_idle.is_empty());
}

#[test]
fn a_mailbox_is_bounded_in_bytes() {
    let mut scene = Scene::new(Vec::new());
    assert_eq!(refused(&mut scene, letter("a/1", 1, limits::INBOX_BYTES_MAX + 1)), None, "one always fits");
    assert_eq!(refused(&mut scene, letter("a/1", 2, 1)), Some(Code::MailboxFull));
    let half = limits::INBOX_BYTES_MAX / 2;
    let codes: Vec<_> = (1..=3).map(|id| refused(&mut scene, letter("a/2", id, half))).collect();
    assert_eq!(codes, [None, None, Some(Code::MailboxFull)]);
    assert_eq!(refused(&mut scene, letter("a/2", 4, 0)), None);
}

#[test]
fn an_id_stands_for_one_message() {
    let mut scene = Scene::new(Vec::new());
    assert_eq!(refused(&mut scene, letter("a/1", 1, 10)), None);
    assert_eq!(refused(&mut scene, letter("a/1", 1, 10)), None, "the same once more");
    assert_eq!(refused(&mut scene, letter("a/1", 1, 11)), Some(Code::VersionConflict));
    assert_eq!(refused(&mut scene, letter("a/1", 2, 11)), None);
    let address = Address { tenant: tenant(), agent: agent("a/1") };
    let row = scene.agents.agent(&address).expect("it is here");
    assert_eq!((row.inbox.len(), row.seen.len()), (2, 2));
}

#[test]
fn agents_with_keys_have_a_bound_for_each_tenant() {
    let mut scene = Scene::new(Vec::new());
    scene.agents.rules.tenant_agents_max = 3;
    scene.agents.know([(tenant(), 1)]);
    let known = Some(Code::TooManyAgents);
    assert_eq!(refused(&mut scene, begin("a/1")), None);
    assert_eq!(refused(&mut scene, letter("a/2", 1, 1)), None);
    assert_eq!(refused(&mut scene, begin("a/3")), known);
    assert_eq!(refused(&mut scene, letter("a/3", 2, 1)), known);
    assert_eq!(refused(&mut scene, letter("a/2", 3, 1)), None, "who is there takes mail");
    assert_eq!(refused(&mut scene, begin("a/1")), None, "and tasks");
    assert_eq!(refused(&mut scene, begin("a")), None, "who is gone with its task is not counted");
    let parent = scene.ask(vec![child("b/1"), child("b"), child("a/2")]);
    assert_eq!(scene.code(&parent, 1), known);
    assert_eq!((scene.code(&parent, 2), scene.code(&parent, 3)), (None, None));
    let single = scene.turns.iter().find(|grant| grant.address.agent.as_str().starts_with("b/run-"));
    let single = single.expect("its turn").address.agent.to_string();
    assert_eq!(refused(&mut scene, letter(&single, 4, 1)), None, "who works on one task takes mail");
    scene.agents.rules.tenant_agents_max = 4;
    assert_eq!(refused(&mut scene, begin("a/3")), None);
    assert_eq!(refused(&mut scene, begin("a/4")), known);
}
