//! What may have been done: errands that cannot be run wait and are run again, and what was
//! undone is done again as any try in vain.

use super::*;
use crate::agents::input::Finding;

fn order(query: bool, patience: Option<Millis>) -> Ask {
    let query = query.then(|| "t.find".into());
    let work = Work::Tool { tool: "t.do".into(), args: Payload::empty(), undo: Some("t.undo".into()), query };
    Ask { patience, ..ask(work, EffectClass::Compensable) }
}

fn begun(order: Ask) -> (Scene, Address) {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let address = scene.ask(vec![order]);
    (scene, address)
}

fn unsent(retry_after: Option<Millis>) -> Report {
    let (code, why, used) = (Code::ToolFailed, "cannot connect".into(), Spend::default());
    Report::NotDone { code, why, retry_after, counts: true, used }
}

fn lost_for(wait: Millis) -> Report {
    let (code, why, used) = (Code::ToolFailed, "HTTP 503".into(), Spend::default());
    Report::Lost { code, why, retry_after: Some(wait), used }
}

#[test]
fn what_is_undone_is_done_again_after_a_pause_and_not_for_ever() {
    let (mut scene, address) = begun(order(false, None));
    let tries = scene.agents.rules().tries_max;
    for attempt in 1..=tries {
        let perform = scene.performs.last().expect("it is done");
        assert!(!perform.undo && perform.attempt == attempt);
        scene.report(lost(Spend::default()));
        assert!(scene.performs[0].undo);
        scene.report(done());
        assert!(scene.performs.is_empty(), "not at once");
        scene.tick(Millis::from_secs(60));
    }
    assert!(scene.performs.is_empty());
    assert_eq!(scene.code(&address, 1), Some(Code::ToolFailed));
}

#[test]
fn what_is_undone_is_done_again_when_its_server_wants_it() {
    let (mut scene, _) = begun(order(true, None));
    scene.report(lost_for(Millis::from_secs(600)));
    assert!(scene.performs[0].query, "it is asked about at once");
    scene.report(Report::Found(Finding::Unknown));
    assert!(scene.performs[0].undo);
    scene.report(done());
    scene.tick(Millis::from_secs(599));
    assert!(scene.performs.is_empty());
    scene.tick(Millis::from_secs(2));
    assert!(scene.performs.len() == 1 && !scene.performs[0].undo && !scene.performs[0].query);
}

#[test]
fn what_is_undone_too_late_is_not_done_again() {
    let (mut scene, address) = begun(order(false, Some(Millis::from_secs(10))));
    scene.report(lost(Spend::default()));
    scene.tick(Millis::from_secs(20));
    assert!(scene.performs[0].undo, "there is time to undo it all the same");
    scene.report(done());
    assert_eq!(scene.code(&address, 1), Some(Code::DeadlinePassed));
    assert!(scene.performs.is_empty());
}

#[test]
fn an_errand_that_could_not_be_run_is_run_again() {
    for query in [true, false] {
        let (mut scene, address) = begun(order(query, None));
        scene.report(lost(Spend::default()));
        for wait in [None, Some(Millis::from_secs(100)), None] {
            assert_eq!((scene.performs[0].query, scene.performs[0].undo), (query, !query));
            scene.report(unsent(wait));
            assert!(scene.performs.is_empty(), "not at once");
            let need = scene.agents.needs(scene.row(&address)).first().cloned().expect("a reason");
            assert_eq!(need.cause, "retry");
            scene.tick(wait.map_or(Millis::ZERO, |wait| Millis(wait.0 - 1)));
            assert!(scene.performs.is_empty(), "not before");
            scene.tick(Millis::from_secs(40));
            assert_eq!(scene.performs.len(), 1);
        }
        let stage = &scene.row(&address).pending[0].stage;
        assert_eq!(*stage, Stage::Attempted, "nobody is asked yet");
    }
}

#[test]
fn an_errand_that_cannot_be_run_for_a_day_is_left_to_people() {
    let (mut scene, address) = begun(order(false, None));
    scene.report(lost(Spend::default()));
    let day = scene.now.plus(scene.agents.rules().patience);
    while scene.now < day && !scene.performs.is_empty() {
        scene.report(unsent(Some(Millis::from_secs(3_600))));
        scene.tick(Millis::from_secs(3_601));
    }
    assert!(scene.performs.is_empty());
    assert!(matches!(scene.row(&address).pending[0].stage, Stage::Doubtful { .. }));
}

#[test]
fn who_might_know_is_asked_so_often_and_then_it_is_undone() {
    let (mut scene, _) = begun(order(true, None));
    scene.report(lost(Spend::default()));
    for _ in 0..scene.agents.rules().tries_max {
        assert!(scene.performs[0].query);
        scene.report(lost(Spend::default()));
        scene.tick(Millis::from_secs(60));
    }
    assert!(scene.performs.len() == 1 && scene.performs[0].undo);
}

#[test]
fn a_pause_that_ends_under_a_stop_lasts_as_long_as_that() {
    let (mut scene, address) = begun(order(false, None));
    scene.report(lost(Spend::default()));
    scene.report(unsent(None));
    scene.halt(true);
    scene.tick(Millis::from_secs(3 * 86_400));
    assert!(scene.performs.is_empty());
    assert_eq!(scene.row(&address).pending[0].stage, Stage::Attempted);
    scene.halt(false);
    assert!(scene.performs.len() == 1 && scene.performs[0].undo);
}

#[test]
fn what_waits_to_be_undone_when_its_run_ends_is_for_people() {
    let (mut scene, address) = begun(order(false, None));
    scene.report(lost(Spend::default()));
    scene.report(unsent(None));
    let run = RunKey::new(0, 1);
    scene.step(Input::Cancel { ticket: 1, run, address: address.clone(), by: "ann".into() });
    scene.tick(Millis::from_secs(60));
    assert!(matches!(scene.row(&address).pending[0].stage, Stage::Doubtful { .. }));
    assert!(scene.performs.is_empty());
}

#[test]
fn what_is_put_off_after_the_clock_was_set_back_is_done_after_its_pause() {
    let (mut scene, address) = begun(order(false, None));
    scene.now = At(scene.now.0 - 900_000);
    let machine = &scene.agents;
    let (rules, shard) = (machine.rules().clone(), machine.shards()[0].clone());
    let agents: Vec<AgentRow> = shard.agents.values().map(|row| (**row).clone()).collect();
    let runs: Vec<RunRow> = shard.runs.values().map(|row| (**row).clone()).collect();
    let mut bare = Shard::new(0);
    bare.row = shard.row;
    scene.agents = Agents::open(scene.now, rules, vec![bare], 1);
    scene.performs.clear();
    let mut out = Vec::new();
    scene.agents.restore(scene.now, agents, runs, &mut out);
    scene.take(out);
    assert!(scene.performs[0].undo, "its answer was lost with the process");
    scene.report(done());
    assert!(scene.performs.is_empty(), "not at once");
    scene.tick(Millis(250));
    assert_eq!(scene.performs.len(), 1, "{:?}", scene.row(&address).pending);
}
