//! What is nobody's any more is forgotten, and what anybody may make has a bound.

use super::*;
use crate::agents::effect::Reply;
use crate::agents::mail::from_outside;

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
    Input::Send { ticket: 1, to, message }
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
    scene.agents.rules.tenant_agents_max = 4;
    assert_eq!(refused(&mut scene, begin("a/3")), None);
    assert_eq!(refused(&mut scene, begin("a/4")), known);
}
