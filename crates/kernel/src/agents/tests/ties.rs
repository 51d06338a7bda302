//! Monitors and links: bounded, forgotten with whoever wanted them, and told of once.

use super::*;

fn monitor(name: &str) -> Ask {
    ask(Work::Monitor { agent: agent(name) }, EffectClass::Idempotent)
}

fn link(name: &str) -> Ask {
    ask(Work::Link { agent: agent(name), on: true }, EffectClass::Idempotent)
}

/// `b/1` at work, and `a/1` that asks for this.
fn watched(asks: Vec<Ask>) -> (Scene, Address, Address) {
    let mut scene = Scene::new(vec![rule("link", Verdict::Allow)]);
    scene.start("b/1");
    let other = scene.ask(Vec::new());
    scene.start("a/1");
    let address = scene.ask(asks);
    (scene, address, other)
}

fn cancel(scene: &mut Scene, run: u64, address: &Address) {
    let run = RunKey::new(0, run);
    scene.step(Input::Cancel { ticket: 0, run, address: address.clone(), by: "ann".into() });
}

#[test]
fn an_agent_has_so_many_ties_and_each_is_answered_once() {
    let (mut scene, address, other) = watched(vec![monitor("b/1"); limits::TIES_MAX + 1]);
    assert_eq!(scene.row(&other).ties.len(), limits::TIES_MAX);
    let last = u32::try_from(limits::TIES_MAX).expect("few") + 1;
    assert_eq!(scene.code(&address, last), Some(Code::MailboxFull));
    cancel(&mut scene, 1, &other);
    assert!(scene.row(&other).ties.is_empty() && scene.row(&address).pending.is_empty());
    let told = Answer::Done(Payload::text(
        "{\"agent\":\"b/1\",\"how\":\"cancelled\",\"run\":\"run-0100\",\"by\":\"ann\"}",
    ));
    assert!((1..last).all(|number| scene.heard(&address, number) == Some(&told)));
}

#[test]
fn a_monitor_goes_with_its_patience_and_with_its_run() {
    let patient = Ask { patience: Some(Millis::from_secs(5)), ..monitor("b/1") };
    let (mut scene, address, other) = watched(vec![patient, monitor("b/1")]);
    assert_eq!(scene.row(&other).ties.len(), 2);
    scene.tick(Millis::from_secs(6));
    assert_eq!(scene.code(&address, 1), Some(Code::DeadlinePassed));
    assert_eq!(scene.row(&other).ties.len(), 1);
    let run = RunKey::new(0, 2);
    scene.step(Input::Again { ticket: 1, run, address: address.clone(), why: "a person said so".into() });
    assert!(scene.row(&other).ties.is_empty(), "the run began anew and wants it no more");
    cancel(&mut scene, 1, &other);
    assert!(scene.row(&address).inbox.iter().all(|item| !matches!(item, Item::Answer { .. })));
}

#[test]
fn nobody_monitors_one_who_waits_for_him() {
    // Three in a circle: the last one is refused.
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let first = scene.turns.pop().expect("its turn");
    scene.start("a/2");
    let second = scene.turns.pop().expect("its turn");
    scene.start("a/3");
    scene.ask(vec![monitor("a/1")]);
    scene.turns.push(second);
    let second = scene.ask(vec![monitor("a/3")]);
    assert_eq!(scene.code(&second, 1), None);
    scene.turns.push(first);
    let first = scene.ask(vec![monitor("a/2"), child("b/1")]);
    assert_eq!(scene.code(&first, 1), Some(Code::BadField));
    // A child is waited for by those above it, and by all who wait for these.
    let below = scene.turns.iter().position(|grant| grant.address.agent.as_str() == "b/1").expect("its turn");
    let grant = scene.turns.remove(below);
    scene.turns.push(grant);
    let below = scene.ask(vec![monitor("a/1"), monitor("a/3")]);
    assert_eq!((scene.code(&below, 1), scene.code(&below, 2)), (Some(Code::BadField), Some(Code::BadField)));
}

#[test]
fn a_monitor_without_a_patience_of_its_own_has_the_usual_one() {
    let (mut scene, address, other) = watched(vec![monitor("b/1")]);
    scene.tick(Millis::from_secs(86_401));
    assert_eq!(scene.code(&address, 1), Some(Code::DeadlinePassed));
    assert!(scene.row(&other).ties.is_empty());
}

#[test]
fn who_works_for_others_is_linked_to_by_a_rule_alone() {
    let mut scene = Scene::new(Vec::new());
    scene.start("b/1");
    scene.ask(Vec::new());
    scene.start("a/1");
    let address = scene.ask(vec![link("b/1"), child("b/2")]);
    assert_eq!(scene.code(&address, 1), Some(Code::GateDenied));
    let at = scene.turns.iter().position(|grant| grant.address == address).expect("it was told");
    let grant = scene.turns.remove(at);
    scene.turns.push(grant);
    scene.ask(vec![link("b/2")]);
    assert!(matches!(scene.heard(&address, 3), Some(Answer::Done(_))), "it is its own child");
}

#[test]
fn of_two_that_are_linked_none_outlives_the_failure_of_the_other() {
    let (mut scene, address, _) = watched(vec![link("b/1"), link("b/1"), link("b/2")]);
    assert!(matches!(scene.heard(&address, 2), Some(Answer::Done(_))), "linked already");
    assert_eq!(scene.code(&address, 3), Some(Code::RunUnknown), "it works on nothing");
    assert_eq!(scene.row(&address).ties.len(), 1);
    cancel(&mut scene, 2, &address);
    assert!(matches!(scene.run(1).state, RunState::Failed { code: Code::RunFailed, .. }));
}

#[test]
fn one_who_is_told_after_a_crash_is_found_by_time_alone() {
    let (scene, address, other) = watched(vec![monitor("b/1")]);
    let mut row = scene.row(&other).clone();
    assert_eq!(row.due(), At::MAX);
    row.ties[0].fate = Some(seawall_model::durable::Fate::Done);
    (row.run, row.standing) = (None, Standing::Idle);
    assert_eq!(row.due(), At(1), "however it stands");
    let shard = scene.agents.shards()[0].clone();
    let watcher = scene.row(&address).clone();
    let mut bare = Shard::new(0);
    bare.row = shard.row;
    let mut machine = Agents::open(scene.now, scene.agents.rules().clone(), vec![bare], 1);
    let mut out = Vec::new();
    let (agents, runs) = (vec![row, watcher], vec![(*shard.runs[&RunKey::new(0, 2)]).clone()]);
    machine.restore(scene.now, agents, runs, &mut out);
    let told = machine.row(&address).expect("it is in memory");
    assert!(told.pending.is_empty() && told.inbox.len() == 1);
    assert!(machine.row(&other).expect("it is in memory").ties.is_empty());
}
