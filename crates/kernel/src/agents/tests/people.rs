//! What somebody says is about what it was said of, and not about what became of that.

use super::*;

/// An irreversible call that was approved and lost.
fn in_doubt() -> (Scene, EffectId, Address) {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval(1, &["ann", "bob"])))]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Irreversible)]);
    let effect = scene.row(&address).pending[0].id;
    scene.vote(effect, &address, person("ann"), None);
    scene.report(lost(Spend::default()));
    assert!(matches!(scene.row(&address).pending[0].stage, Stage::Doubtful { .. }));
    (scene, effect, address)
}

fn say(scene: &mut Scene, effect: EffectId, address: &Address, matter: Matter, admin: bool, yes: bool) {
    let who = Box::new(Person { admin, ..person("bob") });
    let (address, facts) = (address.clone(), Vec::new());
    scene.step(Input::Vote { ticket: 1, effect, address, matter, who, yes, args: None, facts });
}

#[test]
fn a_late_yes_or_no_is_no_word_on_what_is_in_doubt() {
    for yes in [true, false] {
        let (mut scene, effect, address) = in_doubt();
        for (matter, admin, code) in [
            (Matter::Approval, false, Code::EffectUnknown),
            (Matter::Approval, true, Code::EffectUnknown),
            (Matter::Doubt, false, Code::AdminOnly),
        ] {
            say(&mut scene, effect, &address, matter, admin, yes);
            assert_eq!(scene.refused.pop().map(|(code, _)| code), Some(code), "{matter:?}");
            assert!(matches!(scene.row(&address).pending[0].stage, Stage::Doubtful { .. }));
            assert!(scene.performs.is_empty());
        }
        say(&mut scene, effect, &address, Matter::Doubt, true, yes);
        assert_eq!(scene.performs.len(), usize::from(yes), "an admin knows");
    }
}

#[test]
fn what_is_in_doubt_is_answered_by_an_admin_and_a_question_by_anybody() {
    let (mut scene, effect, address) = in_doubt();
    let answer = Answer::Done(Payload::text("sent"));
    let resolve = |effect, admin| {
        let who = Box::new(Person { admin, ..person("bob") });
        Input::Resolve { ticket: 1, effect, address: address.clone(), who, answer: answer.clone() }
    };
    scene.step(resolve(effect, false));
    assert_eq!(scene.refused.pop().map(|(code, _)| code), Some(Code::AdminOnly));
    assert_eq!(scene.heard(&address, 1), None);
    scene.step(resolve(effect, true));
    assert_eq!(scene.heard(&address, 1), Some(&answer));
    scene.ask(vec![ask(Work::Promise { question: Payload::empty() }, EffectClass::Idempotent)]);
    scene.step(resolve(EffectId { number: 2, ..effect }, false));
    assert_eq!(scene.heard(&address, 2), Some(&answer));
}

#[test]
fn the_deputy_of_another_rule_is_asked_when_its_own_people_had_their_time() {
    let facts = |value: &str| vec![Fact { name: "args.amount".into(), value: value.into() }];
    let asks = |names: &[&str], to: &str| Approval {
        deputy: Some(Deputy { to: to.into(), after: Millis::from_secs(20) }),
        ..approval(1, names)
    };
    let when = vec![Condition { fact: "args.amount".into(), op: Op::Gt, value: "100".into() }];
    let leads = Rule { when, ..rule("tool", Verdict::Ask(asks(&["lea"], "leo"))) };
    let staff = Rule { id: "staff".into(), ..rule("tool", Verdict::Ask(asks(&["ann"], "dee"))) };
    let mut scene = Scene::new(vec![leads, staff]);
    scene.start("a/1");
    let address = scene.ask(vec![Ask { facts: facts("50"), ..tool(EffectClass::Idempotent) }]);
    let effect = scene.row(&address).pending[0].id;
    scene.tick(Millis::from_secs(30));
    assert_eq!(scene.row(&address).pending[0].handed.len(), 1, "dee is asked");
    scene.vote(effect, &address, person("ann"), Some(("{\"amount\":500}", facts("500"))));
    assert_eq!(&*scene.row(&address).pending[0].ruling.rule, "tool");
    scene.tick(Millis::from_secs(19));
    assert!(scene.row(&address).pending[0].handed.is_empty(), "lea has her time");
    scene.tick(Millis::from_secs(2));
    assert_eq!(scene.row(&address).pending[0].handed.len(), 1);
}

#[test]
fn a_yes_is_held_against_the_rules_that_are_in_force_by_then() {
    let ask_by = |quorum| rule("tool", Verdict::Ask(approval(quorum, &["ann", "bob", "cyd"])));
    let mut scene = Scene::new(vec![ask_by(2)]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Irreversible)]);
    let effect = scene.row(&address).pending[0].id;
    let reload = |scene: &mut Scene, gate| {
        let rules = scene.agents.rules().clone();
        scene.step(Input::Configure(Box::new(Rules { gate, ..rules })));
    };
    scene.vote(effect, &address, person("ann"), None);
    reload(&mut scene, vec![rule("tool", Verdict::Deny)]);
    scene.vote(effect, &address, person("bob"), None);
    assert_eq!(scene.refused.pop().map(|(code, _)| code), Some(Code::GateDenied));
    assert!(scene.performs.is_empty(), "what is forbidden by now is not done");
    reload(&mut scene, vec![ask_by(3)]);
    scene.vote(effect, &address, person("bob"), None);
    assert!(scene.performs.is_empty(), "it takes three by now");
    scene.vote(effect, &address, person("cyd"), None);
    assert_eq!(scene.performs.len(), 1, "and the first two said yes already");
}

#[test]
fn a_doubt_stands_before_what_ends_by_itself() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent), tool(EffectClass::Irreversible)]);
    let doubtful = scene.row(&address).pending[1].id;
    scene.performs.retain(|perform| perform.effect == doubtful);
    scene.report(lost(Spend::default()));
    assert_eq!(scene.row(&address).cause(), Some("in_doubt"));
    assert_eq!(scene.agents.needs(scene.row(&address))[0].cause, "in_doubt");
    assert_eq!(scene.agents.check(), Ok(()));
}

#[test]
fn under_a_stop_only_that_is_named_with_who_made_it() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    scene.halt(true);
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let causes: Vec<_> = scene.agents.needs(scene.row(&address)).iter().map(|need| need.cause).collect();
    assert_eq!(causes, ["halted"]);
    let stop = scene.agents.stop_of(scene.row(&address)).expect("it is under one");
    assert_eq!(stop.scope, Scope::All);
    assert_eq!(scene.agents.needs(scene.row(&address))[0].since, stop.at);
}

#[test]
fn what_is_tried_again_keeps_its_last_failure_and_the_time_of_its_first() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let fails = |why: &str| Report::NotDone {
        code: Code::ToolFailed,
        why: why.into(),
        retry_after: None,
        counts: true,
        used: Spend::default(),
    };
    scene.report(fails("one"));
    let first = scene.row(&address).pending[0].setback.clone().expect("it failed");
    scene.tick(Millis::from_secs(60));
    scene.report(fails("two"));
    let last = scene.row(&address).pending[0].setback.clone().expect("it failed again");
    assert_eq!((&*last.why, last.code, last.first), ("two", Code::ToolFailed, first.last));
    assert!(last.last > first.last);
    assert_eq!(scene.row(&address).pending[0].attempts, 2);
    scene.tick(Millis::from_secs(60));
    scene.halt(true);
    let why = scene.row(&address).pending[0].setback.clone().expect("kept");
    assert_eq!(why, last, "a stop is no failure");
}
