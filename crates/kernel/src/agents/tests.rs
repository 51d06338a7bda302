//! The machine as a whole, in small scenes: a disk that keeps everything at once, and a
//! handler that commits what the scene says.

use std::sync::Arc;

use seawall_model::durable::{AgentRow, Item, RunRow, RunState, Scope, Stage, Standing, Wake};
use seawall_model::effect::{
    Allowance, Answer, Approval, Ask, Deputy, EffectId, Fact, Person, Spend, Verdict, Work,
};
use seawall_model::journal::{Commit, Ending, Next};
use seawall_model::{Address, Agent, At, Code, EffectClass, Millis, Payload, RunKey, Tenant, Tokens, limits};

use super::effect::{Grant, Perform, Reply};
use super::gate::{Condition, Op, Pattern, Rule, Who};
use super::input::{Matter, Report};
use super::progress::GuardRule;
use super::rules::Kind;
use super::supervise::Supervision;
use super::{Agents, Effect, Input, Rules, Shard, Start};

mod ties;

mod amends;

mod people;

mod bounds;

struct Scene {
    agents: Agents,
    now: At,
    turns: Vec<Grant>,
    performs: Vec<Perform>,
    aborted: Vec<EffectId>,
    refused: Vec<(Code, Arc<str>)>,
}

fn kind(name: &str) -> Kind {
    Kind {
        name: name.into(),
        version: "1".into(),
        moves: true,
        allowance: Allowance::default(),
        supervision: Supervision::default(),
        guard: GuardRule::default(),
        gate: Vec::new(),
        schedule: None,
        starts_on_mail: false,
        inbox_max: 100,
    }
}

fn rule(what: &str, then: Verdict) -> Rule {
    let (who, on) = (Who::anyone(), Pattern::any());
    Rule { id: what.into(), who, what: what.into(), on, class: None, when: Vec::new(), then }
}

impl Scene {
    fn new(gate: Vec<Rule>) -> Self {
        let kinds = vec![kind("a"), kind("b")];
        let suspend_after = Millis::from_secs(30 * 86_400);
        let rules = Rules { shards: 1, kinds, gate, suspend_after, ..Rules::default() };
        let agents = Agents::open(At(1_000_000), rules, vec![Shard::new(0)], 0);
        let mut scene = Self {
            agents,
            now: At(1_000_000),
            turns: Vec::new(),
            performs: Vec::new(),
            aborted: Vec::new(),
            refused: Vec::new(),
        };
        scene.take(Vec::new());
        scene
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.agents.step(self.now, input, &mut out);
        self.take(out);
    }

    /// Does what the shell would, until there is nothing left.
    fn take(&mut self, mut out: Vec<Effect>) {
        loop {
            for effect in std::mem::take(&mut out) {
                match effect {
                    Effect::Turn(grant) => self.turns.push(*grant),
                    Effect::Perform(perform) => self.performs.push(*perform),
                    Effect::Abort(effect) => self.aborted.push(effect),
                    Effect::Reply(_, Reply::Refused { code, why }) => self.refused.push((code, why)),
                    Effect::Load(address) => {
                        let input = Input::Loaded { address, agents: Vec::new(), runs: Vec::new() };
                        self.agents.step(self.now, input, &mut out);
                    }
                    _ => {}
                }
            }
            let batch = self.agents.batch();
            if let Some(last) = batch.entries.last() {
                self.agents.step(self.now, Input::Durable { shard: 0, seq: last.seq }, &mut out);
            } else if out.is_empty() {
                break;
            }
        }
        self.agents.check().expect("nothing is left behind");
    }

    fn tick(&mut self, later: Millis) {
        let end = self.now.plus(later);
        while let Some(at) = self.agents.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
        self.step(Input::Tick);
    }

    fn start(&mut self, name: &str) {
        self.start_with(name, Allowance::default());
    }

    fn start_with(&mut self, name: &str, allowance: Allowance) {
        let start = Start {
            tenant: tenant(),
            agent: agent(name),
            task: Payload::empty(),
            allowance,
            by: "test".into(),
            caller: None,
            fork: None,
            version: None,
            state: Vec::new(),
        };
        self.step(Input::Start { ticket: 1, start: Box::new(start) });
    }

    /// The turn that was granted last asks for this.
    fn commit(&mut self, asks: Vec<Ask>, next: Next) -> Address {
        let grant = self.turns.pop().expect("somebody has a turn");
        let commit = Box::new(Commit { changes: Vec::new(), asks, next });
        let (address, token) = (grant.address, grant.token);
        self.step(Input::Commit { address: address.clone(), token, commit });
        address
    }

    fn ask(&mut self, asks: Vec<Ask>) -> Address {
        self.commit(asks, Next::Wait(Wake::Any))
    }

    fn report(&mut self, report: Report) {
        let perform = self.performs.pop().expect("something is performed");
        self.step(Input::Report { effect: perform.effect, address: perform.address, report });
    }

    fn row(&self, address: &Address) -> &AgentRow {
        self.agents.agent(address).expect("it is in memory")
    }

    fn run(&self, key: u64) -> &RunRow {
        let run = RunKey::new(0, key);
        self.agents.shards()[0].runs.get(&run).expect("it is in memory")
    }

    /// What came of the effect, as its agent is about to see it.
    fn heard(&self, address: &Address, number: u32) -> Option<&Answer> {
        self.row(address).inbox.iter().find_map(|item| match item {
            Item::Answer { effect, answer, .. } if effect.number == number => Some(answer),
            _ => None,
        })
    }

    fn code(&self, address: &Address, number: u32) -> Option<Code> {
        match self.heard(address, number) {
            Some(Answer::Failed { code, .. }) => Some(*code),
            _ => None,
        }
    }

    /// A yes to the call as it is, of which the gate is told this.
    fn vote_knowing(&mut self, effect: EffectId, address: &Address, who: Person, facts: Vec<Fact>) {
        let (address, who, matter) = (address.clone(), Box::new(who), Matter::Approval);
        self.step(Input::Vote { ticket: 1, effect, address, matter, who, yes: true, args: None, facts });
    }

    fn vote(&mut self, effect: EffectId, address: &Address, who: Person, edit: Option<(&str, Vec<Fact>)>) {
        let (args, facts) = edit.unzip();
        let (args, facts) = (args.map(Payload::text), facts.unwrap_or_default());
        let (address, who) = (address.clone(), Box::new(who));
        let matter = Matter::Approval;
        self.step(Input::Vote { ticket: 1, effect, address, matter, who, yes: true, args, facts });
    }

    fn delegate(&mut self, effect: EffectId, address: &Address, by: &str, to: &str) {
        let (address, who, to) = (address.clone(), Box::new(person(by)), to.into());
        self.step(Input::Delegate { ticket: 1, effect, address, who, to });
    }

    fn halt(&mut self, on: bool) {
        self.step(Input::Halt { ticket: 0, scope: Scope::All, on, by: "ann".into() });
    }
}

fn tenant() -> Tenant {
    Tenant::parse("acme").expect("valid")
}

/// An admin, who may say yes where nobody is named.
fn person(name: &str) -> Person {
    Person { name: name.into(), tenant: Tenant::parse("ops").expect("valid"), admin: true, alone: false }
}

fn approval(quorum: u8, names: &[&str]) -> Approval {
    let approvers = names.iter().map(|name| (*name).into()).collect();
    Approval { quorum, approvers, patience: Millis::from_secs(60), deputy: None }
}

fn agent(name: &str) -> Agent {
    Agent::parse(name).expect("valid")
}

fn ask(work: Work, class: EffectClass) -> Ask {
    let (cost_max, tag) = (Spend::default(), Arc::from("t"));
    Ask { tag, work, class, cost_max, patience: None, twin: 0, facts: Vec::new() }
}

fn tool(class: EffectClass) -> Ask {
    ask(Work::Tool { tool: "mail.send".into(), args: Payload::empty(), undo: None, query: None }, class)
}

fn model() -> Ask {
    let cost_max = Spend { tokens: Tokens(70), ..Spend::default() };
    let work = Work::Model { model: "m".into(), recipe: Payload::empty() };
    Ask { cost_max, ..ask(work, EffectClass::Idempotent) }
}

fn acquire(of: u32) -> Ask {
    let work = Work::Acquire { resource: "crane".into(), units: 1, of, ttl: Millis::from_secs(600) };
    ask(work, EffectClass::Idempotent)
}

fn child(name: &str) -> Ask {
    let work = Work::Child { agent: agent(name), task: Payload::empty(), allowance: Allowance::default() };
    ask(work, EffectClass::Idempotent)
}

fn done() -> Report {
    Report::Done { answer: Answer::Done(Payload::empty()), used: Spend::default() }
}

fn lost(used: Spend) -> Report {
    Report::Lost { code: Code::ToolFailed, why: "cut".into(), retry_after: None, used }
}

fn engine_failed() -> Next {
    Next::End(Ending::Failed { code: Code::EngineDown, why: "no engine".into() })
}

#[test]
fn what_a_tool_changed_is_not_done_again_by_a_restart() {
    for (class, again) in [(EffectClass::Read, true), (EffectClass::Idempotent, false)] {
        let mut scene = Scene::new(Vec::new());
        scene.start("a/1");
        scene.ask(vec![tool(class)]);
        scene.report(done());
        scene.commit(Vec::new(), engine_failed());
        assert_eq!(scene.run(1).state == RunState::Active, again, "{class:?}");
    }
}

#[test]
fn what_a_child_changed_counts_for_those_above() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let above = scene.ask(vec![child("b/1")]);
    scene.ask(vec![tool(EffectClass::Idempotent)]);
    scene.report(done());
    scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    assert!(scene.row(&above).progress.touched);
    scene.commit(Vec::new(), engine_failed());
    assert!(scene.run(1).state.over());
}

#[test]
fn a_run_that_began_anew_does_not_wait_for_what_its_beginning_left_in_doubt() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Irreversible)]);
    scene.report(lost(Spend::default()));
    let run = RunKey::new(0, 1);
    scene.step(Input::Again { ticket: 1, run, address: address.clone(), why: "a person said so".into() });
    assert_eq!(scene.row(&address).pending.len(), 1, "it is in doubt still");
    let promise = ask(Work::Promise { question: Payload::empty() }, EffectClass::Idempotent);
    scene.commit(vec![promise], Next::Wait(Wake::All));
    let effect = EffectId { run, number: 2 };
    let answer = Answer::Done(Payload::text("yes"));
    scene.step(Input::Resolve { ticket: 0, effect, address, who: Box::new(person("bob")), answer });
    assert_eq!(scene.turns.len(), 1, "all that it waits for was answered");
}

#[test]
fn nothing_begins_under_a_stop_and_all_of_it_after() {
    let mut scene = Scene::new(Vec::new());
    scene.start("b/1");
    let to = scene.ask(Vec::new());
    scene.start("a/1");
    scene.halt(true);
    let message = ask(Work::Message { to: agent("b/1"), body: Payload::text("hi") }, EffectClass::Idempotent);
    let address = scene.ask(vec![message, child("b/2"), tool(EffectClass::Idempotent)]);
    assert_eq!(scene.row(&address).pending.len(), 3);
    assert!(scene.row(&to).inbox.is_empty() && scene.performs.is_empty());
    assert!(scene.run(2).children.is_empty());
    scene.halt(false);
    assert!(!scene.row(&to).inbox.is_empty() && scene.performs.len() == 1);
    assert_eq!(scene.run(2).children.len(), 1);
}

#[test]
fn what_was_handed_over_may_begin_only_while_nothing_stops_it() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    scene.ask(vec![tool(EffectClass::Irreversible)]);
    let effect = scene.performs[0].effect;
    assert!(scene.agents.may_perform(effect));
    scene.halt(true);
    assert!(!scene.agents.may_perform(effect));
    let why = Arc::from("stopped");
    let used = Spend::default();
    scene.report(Report::NotDone { code: Code::RunStopped, why, retry_after: None, counts: false, used });
    scene.tick(Millis::from_secs(60));
    assert!(scene.performs.is_empty());
    scene.halt(false);
    assert_eq!(scene.performs.len(), 1, "it is handed over again");
    assert!(scene.agents.may_perform(effect));
    assert!(!scene.agents.may_perform(EffectId { number: 9, ..effect }));
}

#[test]
fn what_is_lost_under_a_stop_is_undone_after_it() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let work =
        Work::Tool { tool: "t.do".into(), args: Payload::empty(), undo: Some("t.undo".into()), query: None };
    scene.ask(vec![ask(work, EffectClass::Compensable)]);
    scene.halt(true);
    scene.report(lost(Spend::default()));
    assert!(scene.performs.is_empty());
    scene.halt(false);
    assert!(scene.performs.iter().all(|perform| perform.undo) && scene.performs.len() == 1);
}

#[test]
fn an_undoing_that_a_stop_overtakes_is_no_doubt_and_goes_on_after_it() {
    for scope in [Scope::All, Scope::Tool("t.undo".into())] {
        let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
        scene.start("a/1");
        let work = Work::Tool {
            tool: "t.do".into(),
            args: Payload::empty(),
            undo: Some("t.undo".into()),
            query: None,
        };
        let address = scene.ask(vec![ask(work, EffectClass::Compensable)]);
        scene.report(lost(Spend::default()));
        let effect = scene.performs[0].effect;
        assert!(scene.performs[0].undo && scene.agents.may_perform(effect));
        let halt = |on| Input::Halt { ticket: 0, scope: scope.clone(), on, by: "ann".into() };
        scene.step(halt(true));
        assert!(!scene.agents.may_perform(effect));
        let (code, why, used) = (Code::RunStopped, Arc::from("stopped"), Spend::default());
        let stopped = Report::NotDone { code, why, retry_after: None, counts: false, used };
        scene.report(stopped.clone());
        scene.tick(Millis::from_secs(3 * 86_400));
        assert_eq!(scene.row(&address).pending[0].stage, Stage::Attempted, "held, however long");
        assert!(scene.performs.is_empty());
        scene.step(halt(false));
        assert!(scene.performs.len() == 1 && scene.performs[0].undo);
        scene.tick(Millis::from_secs(1));
        assert_eq!(scene.row(&address).pending[0].stage, Stage::Attempted, "it has its time yet");
        // A stop that was lifted before the shell said so holds nothing.
        scene.report(stopped);
        assert_eq!(scene.performs.len(), 1);
        scene.report(done());
        scene.tick(Millis::from_secs(1));
        assert!(scene.performs.is_empty(), "nobody waits for it any longer");
        assert_eq!(scene.code(&address, 1), Some(Code::DeadlinePassed));
    }
}

#[test]
fn a_holder_renews_past_those_in_line() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let holder = scene.ask(vec![acquire(1)]);
    let first = scene.turns.pop().expect("it has its lease");
    scene.start("b/1");
    let other = scene.ask(vec![acquire(5), acquire(1)]);
    assert_eq!(scene.heard(&other, 2), None, "it waits");
    assert_eq!(scene.code(&other, 1), Some(Code::BadField), "there is one, whoever says five");
    scene.turns.push(first);
    scene.ask(vec![acquire(1)]);
    assert_eq!(scene.heard(&holder, 2), Some(&Answer::Done(Payload::text("{\"token\":1}"))));
}

#[test]
fn time_people_and_children_are_waited_for_beyond_a_day() {
    let approval = Approval { patience: Millis::from_secs(7 * 86_400), ..approval(1, &[]) };
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval))]);
    scene.start("a/1");
    let timer = Work::Timer { at: scene.now.plus(Millis::from_secs(2 * 86_400)) };
    let promise = Work::Promise { question: Payload::empty() };
    let class = EffectClass::Idempotent;
    let asks = vec![ask(timer, class), ask(promise, class), tool(class)];
    let address = scene.commit(asks, Next::Wait(Wake::All));
    scene.tick(Millis::from_secs(3 * 86_400));
    assert!(matches!(scene.heard(&address, 1), Some(Answer::Done(_))), "it rang");
    assert_eq!(scene.row(&address).pending.len(), 2, "people have not answered yet");
    let effect = scene.row(&address).pending[1].id;
    scene.vote(effect, &address, person("ann"), None);
    assert_eq!(scene.row(&address).pending[1].until, scene.now.plus(Millis::from_secs(86_400)));
    scene.tick(Millis::from_secs(86_399));
    assert_eq!(scene.heard(&address, 3), None);
    scene.tick(Millis::from_secs(2));
    assert_eq!(scene.code(&address, 3), Some(Code::DeadlinePassed));
}

#[test]
fn who_edits_what_others_approved_begins_the_count_anew() {
    let approval = approval(2, &[]);
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval))]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let effect = scene.row(&address).pending[0].id;
    for (by, args, count) in
        [("ann", None, 1), ("bob", Some("{}"), 1), ("bob", None, 1), ("bob", Some("[]"), 1)]
    {
        scene.vote(effect, &address, person(by), args.map(|args| (args, Vec::new())));
        let Stage::Approving { yes, .. } = &scene.row(&address).pending[0].stage else {
            panic!("two must say yes to the same")
        };
        assert_eq!(yes.len(), count);
    }
    scene.vote(effect, &address, person("ann"), None);
    assert_eq!(scene.performs.len(), 1);
}

#[test]
fn an_edited_call_goes_through_the_gate_again() {
    let when = |op, value: &str| vec![Condition { fact: "args.amount".into(), op, value: value.into() }];
    let named = |id: &str, when, then| Rule { id: id.into(), when, ..rule("tool", then) };
    let gate = vec![
        named("never", when(Op::Gt, "1000"), Verdict::Deny),
        named("leads", when(Op::Gt, "100"), Verdict::Ask(approval(2, &["lea", "leo"]))),
        named("small", when(Op::Le, "5"), Verdict::Redact(vec!["args.card".into()])),
        named("staff", Vec::new(), Verdict::Ask(approval(1, &["ann"]))),
    ];
    let amount = |amount: &str| vec![Fact { name: "args.amount".into(), value: amount.into() }];
    let call = |scene: &mut Scene, name: &str| {
        scene.start(name);
        let address = scene.ask(vec![Ask { facts: amount("50"), ..tool(EffectClass::Idempotent) }]);
        (scene.row(&address).pending[0].id, address)
    };
    let mut scene = Scene::new(gate);
    let (effect, address) = call(&mut scene, "a/1");
    scene.vote(effect, &address, person("ann"), Some(("{\"amount\":2000}", amount("2000"))));
    let refused = scene.refused.pop().expect("refused");
    assert!(refused.0 == Code::GateDenied && refused.1.contains("`never`"), "{refused:?}");
    assert!(matches!(scene.row(&address).pending[0].stage, Stage::Approving { .. }), "nothing happened");
    // Another rule asks others, and so many as it wants.
    scene.vote(effect, &address, person("ann"), Some(("{\"amount\":500}", amount("500"))));
    let row = scene.row(&address).pending[0].clone();
    assert_eq!(&*row.ruling.rule, "leads");
    assert!(matches!(&row.stage, Stage::Approving { yes, .. } if yes.is_empty()), "{row:?}");
    scene.vote(effect, &address, person("ann"), None);
    assert_eq!(scene.refused.pop().map(|(code, _)| code), Some(Code::ApproverOnly));
    scene.vote_knowing(effect, &address, person("lea"), amount("500"));
    assert!(scene.performs.is_empty());
    scene.vote_knowing(effect, &address, person("leo"), amount("500"));
    let Work::Tool { args, .. } = &scene.performs[0].work else { panic!("a tool") };
    assert_eq!(*args, Payload::text("{\"amount\":500}"));
    // What needs nobody's yes is done at once, as its own rule says.
    let (effect, address) = call(&mut scene, "a/2");
    scene.vote(effect, &address, person("ann"), Some(("{\"amount\":3}", amount("3"))));
    assert_eq!(scene.performs.len(), 2);
    assert_eq!(scene.performs[1].redact, [Arc::from("args.card")]);
}

#[test]
fn a_vote_is_handed_on_by_who_has_it_and_counts_once() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval(2, &["ann", "bob"])))]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let effect = scene.row(&address).pending[0].id;
    let code = |scene: &mut Scene| scene.refused.pop().map(|(code, _)| code);
    scene.delegate(effect, &address, "eve", "mal");
    assert_eq!(code(&mut scene), Some(Code::ApproverOnly), "it is not hers");
    scene.delegate(effect, &address, "ann", "bob");
    assert_eq!(code(&mut scene), Some(Code::BadField), "he would count once");
    for (by, to) in [("ann", "al"), ("al", "amy"), ("amy", "ada")] {
        scene.delegate(effect, &address, by, to);
        assert_eq!(code(&mut scene), None, "{by} to {to}");
    }
    scene.delegate(effect, &address, "ada", "abe");
    assert_eq!(code(&mut scene), Some(Code::BadField), "no longer chains");
    for gone in ["ann", "al", "amy"] {
        scene.vote(effect, &address, person(gone), None);
        assert_eq!(code(&mut scene), Some(Code::ApproverOnly), "{gone} has handed it on");
    }
    scene.vote(effect, &address, person("ada"), None);
    scene.vote(effect, &address, person("ada"), None);
    assert!(scene.performs.is_empty(), "one of two");
    scene.delegate(effect, &address, "ada", "abe");
    assert_eq!(code(&mut scene), Some(Code::BadField), "it was cast");
    scene.vote(effect, &address, person("bob"), None);
    assert_eq!(scene.performs.len(), 1);
}

#[test]
fn who_is_asked_where_nobody_answers_decides_as_well() {
    let deputy = Some(Deputy { to: "dee".into(), after: Millis::from_secs(20) });
    let asks = Approval { deputy, ..approval(1, &["ann"]) };
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(asks))]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let effect = scene.row(&address).pending[0].id;
    scene.tick(Millis::from_secs(19));
    scene.vote(effect, &address, person("dee"), None);
    assert_eq!(scene.refused.pop().map(|(code, _)| code), Some(Code::ApproverOnly), "not yet");
    scene.tick(Millis::from_secs(2));
    assert_eq!(scene.row(&address).pending[0].handed.len(), 1);
    assert!(scene.row(&address).pending[0].has_vote(&person("ann")), "she still is");
    scene.vote(effect, &address, person("dee"), None);
    assert_eq!(scene.performs.len(), 1);
}

#[test]
fn what_cannot_be_redacted_and_what_nobody_defined_is_denied() {
    let mut scene = Scene::new(vec![rule("message", Verdict::Redact(vec!["body".into()]))]);
    scene.start("a/1");
    let message = ask(Work::Message { to: agent("b/1"), body: Payload::text("hi") }, EffectClass::Idempotent);
    let address = scene.ask(vec![message]);
    assert_eq!(scene.code(&address, 1), Some(Code::GateDenied));
    scene.step(Input::Configure(Box::new(Rules { kinds: vec![kind("b")], ..Rules::default() })));
    scene.ask(vec![tool(EffectClass::Read)]);
    assert_eq!(scene.code(&address, 2), Some(Code::GateDenied));
    let heard = scene.heard(&address, 2);
    assert!(matches!(heard, Some(Answer::Failed { why, .. }) if why.contains("definition is gone")));
}

#[test]
fn nobody_waits_for_one_who_waits_for_him_and_a_full_disk_takes_no_children() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    scene.ask(vec![child("b/1")]);
    let below = scene.ask(vec![child("a/1"), child("b/1"), child("b/2")]);
    assert_eq!((scene.code(&below, 1), scene.code(&below, 2)), (Some(Code::BadField), Some(Code::BadField)));
    assert_eq!(scene.run(2).children.len(), 1);
    scene.step(Input::Room(false));
    let again = scene.turns.iter().position(|grant| grant.address == below).expect("it was told");
    let last = scene.turns.len() - 1;
    scene.turns.swap(again, last);
    scene.ask(vec![child("b/3")]);
    assert_eq!(scene.code(&below, 4), Some(Code::DiskFull));
}

#[test]
fn a_model_at_work_when_its_run_ends_is_paid() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let address = scene.ask(vec![model()]);
    assert_eq!(scene.performs[0].reserved, Spend { calls: 1, ..model().cost_max });
    let run = RunKey::new(0, 1);
    scene.step(Input::Cancel { ticket: 0, run, address: address.clone(), by: "ann".into() });
    assert_eq!(scene.aborted.len(), 1);
    let row = scene.run(1);
    assert_eq!((row.used.tokens, row.reserved), (Tokens(70), Spend::default()));
    assert_eq!(scene.row(&address).standing, Standing::Idle);
    assert!(scene.row(&address).inbox.is_empty());
}

#[test]
fn what_a_try_cost_is_booked_and_the_next_one_needs_room_of_its_own() {
    let mut scene = Scene::new(Vec::new());
    let most = |tokens| Allowance { tokens: Some(Tokens(tokens)), ..Allowance::default() };
    let tokens = |amount| Spend { tokens: Tokens(amount), ..Spend::default() };
    scene.start_with("a/1", most(150));
    let address = scene.ask(vec![model()]);
    // Taken back under a stop: at the most that it can have cost, and as much set aside anew.
    scene.halt(true);
    let row = scene.run(1);
    assert_eq!((row.used.tokens, row.reserved.tokens), (Tokens(70), Tokens(70)));
    scene.halt(false);
    assert_eq!(scene.performs.len(), 2);
    // Tried in vain: what the shell says it used.
    let (code, why) = (Code::EngineFailed, Arc::from("cut"));
    scene.report(Report::NotDone { code, why, retry_after: None, counts: true, used: tokens(9) });
    let row = scene.run(1);
    assert_eq!((row.used.tokens, row.reserved.tokens), (Tokens(79), Tokens(70)));
    scene.tick(Millis::from_secs(60));
    // Lost: for this try and the next one there is no room any more.
    scene.report(lost(tokens(70)));
    assert_eq!(scene.code(&address, 1), Some(Code::AllowanceSpent));
    let row = scene.run(1);
    assert_eq!((row.used.tokens, row.used.calls, row.reserved), (Tokens(149), 1, Spend::default()));
}

#[test]
fn a_run_whose_parent_ended_before_a_crash_ends_after_it() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let above = scene.ask(vec![child("b/1")]);
    let shard = scene.agents.shards()[0].clone();
    let agents: Vec<AgentRow> = shard.agents.values().map(|row| (**row).clone()).collect();
    let mut runs: Vec<RunRow> = shard.runs.values().map(|row| (**row).clone()).collect();
    // As the disk has it when the child was away, and its end had yet to follow.
    let agents = agents.into_iter().map(|mut row| {
        if row.address == above {
            (row.run, row.standing) = (None, Standing::Idle);
            row.pending.clear();
        }
        row
    });
    runs[0].state = RunState::Cancelled { by: "ann".into() };
    runs[0].children.clear();
    let mut bare = Shard::new(0);
    bare.row = shard.row;
    let mut machine = Agents::open(scene.now, scene.agents.rules().clone(), vec![bare], 1);
    let mut out = Vec::new();
    machine.restore(scene.now, agents.collect(), runs, &mut out);
    let child = machine.shards()[0].runs.get(&RunKey::new(0, 2)).expect("it is in memory");
    assert!(matches!(child.state, RunState::Cancelled { .. }), "{:?}", child.state);
}

#[test]
fn a_turn_that_is_put_off_gives_its_place_to_others() {
    let mut scene = Scene::new(Vec::new());
    scene.step(Input::Configure(Box::new(Rules {
        turns_max: 1,
        suspend_after: Millis(10),
        ..scene.agents.rules().clone()
    })));
    scene.start("a/1");
    scene.start("b/1");
    let first = scene.turns.pop().expect("one has the only place");
    assert!(scene.turns.is_empty() && first.deferred == 0);
    let put_off = |scene: &mut Scene, grant: Grant| {
        let (address, token) = (grant.address, grant.token);
        let (cause, on, after) = ("tool_server", "slow".into(), Millis(1_000));
        scene.step(Input::Defer { address, token, cause, on, after });
    };
    let since = scene.now;
    let who = first.address.clone();
    put_off(&mut scene, first);
    let second = scene.turns.pop().expect("the place was given up");
    assert_ne!(second.address, who);
    let need = scene.agents.needs(scene.row(&who)).first().cloned().expect("a reason");
    assert_eq!((need.cause, &*need.on, need.since), ("tool_server", "slow", since));
    // Not before its time, and it stays in memory until then.
    scene.tick(Millis(500));
    let commit = Box::new(Commit {
        changes: Vec::new(),
        asks: Vec::new(),
        next: Next::End(Ending::Done(Payload::empty())),
    });
    scene.step(Input::Commit { address: second.address, token: second.token, commit });
    assert!(scene.turns.is_empty());
    scene.tick(Millis(600));
    let again = scene.turns.pop().expect("it is granted again");
    assert_eq!((&again.address, again.deferred), (&who, 1));
    put_off(&mut scene, again);
    let need = scene.agents.needs(scene.row(&who)).first().cloned().expect("a reason");
    assert_eq!(need.since, since, "it is still the same wait");
    scene.tick(Millis(1_000));
    assert_eq!(scene.turns.last().map(|grant| grant.deferred), Some(2));
    scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    assert_eq!(scene.agents.view().turns, (0, 0));
}
